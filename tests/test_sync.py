"""`make sync` executes what is stale, repeats itself to the byte, and loses nothing."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest
from jupyter_server.services.contents.largefilemanager import LargeFileManager
from jupytext.sync_contentsmanager import build_sync_jupytext_contents_manager_class

from tools import sync

HEADER = sync.sources()[0].read_text(encoding="utf-8").split("# %%")[0]
TOY = HEADER + """# %% [markdown]
# # 99 · Toy

# %%
from helpers import plots

# %%
x = 1

# %%
x = 1

# %%
print(plots.number(x / 4))
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The `.py` of a toy notebook, alone in its folder, with a copy of the helpers."""
    shutil.copytree(sync.ROOT / "helpers", tmp_path / "helpers",
                    ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "notebooks").mkdir()
    source = tmp_path / "notebooks" / "99_toy.py"
    source.write_text(TOY, encoding="utf-8")
    monkeypatch.setattr(sync, "ROOT", tmp_path)
    monkeypatch.setattr(sync, "NOTEBOOKS", source.parent)
    return source


class NoKernel:
    """Stands for nbclient's client where only files matter: it executes nothing."""

    def __init__(self, notebook, **_options):
        for number, cell in enumerate(c for c in notebook.cells if c.cell_type == "code"):
            cell.execution_count, cell.outputs = number + 1, []

    def execute(self, env):
        assert env["PROFILE"] == "quick"


@pytest.fixture
def no_kernel(monkeypatch):
    monkeypatch.setattr("nbclient.NotebookClient", NoKernel)


def without_timings(source) -> str:
    text = source.with_suffix(".ipynb").read_text(encoding="utf-8")
    return re.sub(r'"(seconds|gflops)": \d+', "", text)


def test_a_second_run_writes_the_same_bytes(toy):
    assert sync.main(["99"]) == 0
    first = without_timings(toy)
    assert sync.main(["99"]) == 0
    assert without_timings(toy) == first
    cells = sync.stored(toy).cells
    assert cells[-1].outputs[0].text == "0.25\n"
    assert len({c.id for c in cells}) == len(cells)


def test_editing_one_cell_changes_the_id_of_no_other(toy, no_kernel):
    before = {c.source: c.id for c in sync.execute(toy).cells}
    toy.write_text(TOY.replace("x / 4", "x / 8"), encoding="utf-8")
    after = {c.source: c.id for c in sync.execute(toy).cells}
    kept = before.keys() & after.keys()
    assert len(kept) == len(before) - 1
    assert {before[s] == after[s] for s in kept} == {True}


def test_a_notebook_is_stale_after_its_source_or_a_helper_behind_it_changed(toy, no_kernel):
    assert sync.is_stale(toy)
    assert sync.main([]) == 0
    assert not sync.is_stale(toy)
    helper = sync.ROOT / "helpers" / "plots.py"
    text = helper.read_text(encoding="utf-8")
    helper.write_text(text + "# changed\n", encoding="utf-8")
    assert sync.is_stale(toy)
    helper.write_text(text, encoding="utf-8")
    assert not sync.is_stale(toy)
    toy.write_text(TOY + "# changed\n", encoding="utf-8")
    assert sync.is_stale(toy)


def test_a_failing_cell_leaves_the_stored_notebook_as_it_was(toy, capsys):
    assert sync.main(["99"]) == 0
    stored = toy.with_suffix(".ipynb").read_bytes()
    toy.write_text(TOY.replace("x / 4", "x / 0"), encoding="utf-8")
    assert sync.main([]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert toy.with_suffix(".ipynb").read_bytes() == stored


def test_of_two_runs_of_the_same_work_the_shorter_tells_the_time():
    def run(config, seconds, gflops):
        cell = nbformat.v4.new_code_cell(config, metadata={"tags": ["config"]})
        return nbformat.v4.new_notebook(cells=[cell, nbformat.v4.new_code_cell(str(seconds))],
                                        metadata={"seconds": seconds, "gflops": gflops})

    for config, seconds, kept in (("N = 1", 9, (9, 80)), ("N = 1", 30, (20, 90)),
                                  ("N = 2", 30, (30, 80))):
        new = run(config, seconds, 80)
        sync.keep_best_time(new, run("N = 1", 20, 90))
        assert (new.metadata.seconds, new.metadata.gflops) == kept


@pytest.mark.parametrize(("last", "said"), [
    ("def f(:", "invalid syntax"), ("import os\nos._exit(1)", "died"),
    ("import matplotlib\nmatplotlib.use('Agg')\nplots.panels()", "stores no image")])
def test_what_cannot_be_stored_is_said_and_the_stored_notebook_stays(toy, capsys, last, said):
    toy.with_suffix(".ipynb").write_text("the old one", encoding="utf-8")
    toy.write_text(f"{TOY}\n# %%\n{last}\n", encoding="utf-8")
    assert sync.main([]) == 1
    assert said in capsys.readouterr().err
    assert toy.with_suffix(".ipynb").read_text(encoding="utf-8") == "the old one"


SHOW = """
# %%
import locale
import os
import warnings

axes = plots.panels()

# %%
assert 1 == 1
print(os.environ["PROFILE"], os.environ["DEVICE"], os.path.exists(os.environ["COURSE_PROGRESS"]))
print(*sorted(n for n in os.environ if n.startswith(("OMP", "NO_C", "LC_A", "LANG", "COLUMNS"))))
print(__debug__, hash("word") == 0, locale.getpreferredencoding(), warnings.filters[0][0])
"""
DISTURBING = {"MPLBACKEND": "Agg", "PROFILE": "full", "DEVICE": "cuda", "PYTHONWARNINGS": "error",
              "PYTHONOPTIMIZE": "1", "PYTHONHASHSEED": "3", "PYTHONIOENCODING": "latin-1",
              "NO_COLOR": "1", "FORCE_COLOR": "1", "OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "3",
              "LC_ALL": "C", "LANG": "de_DE.ISO-8859-1", "COLUMNS": "30"}


def test_the_callers_variables_change_nothing_that_is_stored(toy, monkeypatch, tmp_path):
    toy.write_text(TOY + SHOW, encoding="utf-8")
    stored = []
    for variables in ({}, DISTURBING):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        before = {name: os.environ.get(name) for name in DISTURBING}
        assert sync.main(["99"]) == 0
        assert {name: os.environ.get(name) for name in DISTURBING} == before
        stored.append(without_timings(toy))
        style, startup = tmp_path / "matplotlibrc", tmp_path / "ipython/profile_default/startup"
        style.write_text("figure.dpi: 30\n", encoding="utf-8")
        startup.mkdir(parents=True, exist_ok=True)
        (startup / "mine.py").write_text("print('mine')\n", encoding="utf-8")
        monkeypatch.setenv("MATPLOTLIBRC", str(style))
        monkeypatch.setenv("IPYTHONDIR", str(startup.parents[1]))
    assert stored[0] == stored[1]
    figure, printed = sync.stored(toy).cells[-2:]
    assert "image/png" in figure.outputs[-1].data
    assert printed.outputs[0].text.startswith("quick cpu False\n\nTrue False utf-8 ")


def test_a_cell_that_draws_in_a_function_only_needs_no_image():
    drawing, defining, closed = (nbformat.v4.new_code_cell(text, outputs=[]) for text in (
        "for ax in panels(2):\n    ax.plot([1])", "def later():\n    return panels()", "x = 1"))
    notebook = nbformat.v4.new_notebook(cells=[drawing, defining, closed])
    assert sync.without_image(notebook) == [drawing.source]
    drawing.outputs = [nbformat.v4.new_output("display_data", {"image/png": "iVBO"})]
    assert sync.without_image(notebook) == []


def test_every_figure_of_the_course_is_stored():
    for source in sync.sources():
        assert sync.without_image(sync.stored(source)) == [], source.stem


@pytest.mark.parametrize(("words", "said"), [
    (["2"], r"no chapter 2: expected 00, 01"), (["02", "77"], r"no chapter 77"),
    (["02_gradient_descent"], "no chapter"), (["--all"], "--all")])
def test_a_chapter_that_is_not_there_is_an_error_and_those_that_are_there_are_named(
        words, said, capsys):
    with pytest.raises(SystemExit) as ended:
        sync.main(words)
    assert ended.value.code == 2
    assert re.search(said, capsys.readouterr().err)


def write_into(toy, text="# my answer\n42") -> bytes:
    """What an editor that knows nothing of pairs does to the last cell; the bytes it writes."""
    notebook = sync.stored(toy)
    notebook.cells[-1].source = text
    nbformat.write(notebook, toy.with_suffix(".ipynb"))
    return toy.with_suffix(".ipynb").read_bytes()


def kept(toy) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in sorted(toy.parent.glob("*.kept-*"))}


@pytest.mark.parametrize("newer", [".py", ".ipynb"])
def test_what_was_written_into_a_notebook_alone_is_kept_beside_it(toy, no_kernel, newer, capsys):
    assert sync.main([]) == 0
    first = write_into(toy)
    os.utime(toy.with_suffix(newer), (4e9, 4e9))
    assert sync.is_stale(toy)
    assert sync.main([]) == 0
    assert "99_toy.kept-1.ipynb" in capsys.readouterr().err
    assert sync.stored(toy).cells[-1].source == "print(plots.number(x / 4))"
    second = write_into(toy, "# and another")
    assert sync.main([]) == 0
    assert kept(toy) == {"99_toy.kept-1.ipynb": first, "99_toy.kept-2.ipynb": second}
    assert sync.sources() == [toy]


def test_before_the_lab_opens_each_older_half_is_kept_once(toy, no_kernel):
    assert sync.main(["--keep"]) == 0  # no notebook yet
    assert sync.main([]) == 0
    assert sync.main(["--keep"]) == 0  # as made
    toy.write_text(TOY + "# a newer version came with a pull\n", encoding="utf-8")
    assert sync.main(["--keep"]) == 0  # an older half that nobody wrote into
    assert kept(toy) == {}
    content = write_into(toy)
    for _ in range(2):
        assert sync.main(["--keep"]) == 0
        assert kept(toy) == {"99_toy.kept-1.ipynb": content}
        assert toy.with_suffix(".ipynb").read_bytes() == content


def test_what_jupyterlab_would_save_over_is_in_the_copy(toy, no_kernel):
    assert sync.main([]) == 0
    content = write_into(toy)
    os.utime(toy.with_suffix(".ipynb"), (1e9, 1e9))  # the `.py` is newer: came with a pull
    assert sync.main(["--keep"]) == 0
    manager = build_sync_jupytext_contents_manager_class(LargeFileManager)()
    manager.root_dir = str(toy.parent)
    shown = manager.get("99_toy.ipynb")["content"]
    manager.save({"type": "notebook", "content": shown}, "99_toy.ipynb")
    assert b"my answer" not in toy.with_suffix(".ipynb").read_bytes()
    assert kept(toy) == {"99_toy.kept-1.ipynb": content}


def test_what_both_halves_hold_is_not_copied(toy, no_kernel):
    assert sync.main([]) == 0
    write_into(toy)
    jupytext.write(sync.stored(toy), toy, fmt="py:percent")  # as JupyterLab saves
    assert sync.main(["--keep"]) == 0
    assert kept(toy) == {}


def test_a_notebook_with_a_merges_marks_is_kept_and_made_anew(toy, no_kernel):
    toy.with_suffix(".ipynb").write_text("<<<<<<< HEAD\n{}\n", encoding="utf-8")
    assert sync.main([]) == 0
    assert kept(toy) == {"99_toy.kept-1.ipynb": b"<<<<<<< HEAD\n{}\n"}
    assert not sync.is_stale(toy)


def test_a_copy_that_cannot_be_made_keeps_the_notebook(toy, no_kernel, monkeypatch, capsys):
    assert sync.main([]) == 0
    content = write_into(toy)

    def full(path, _content):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(sync, "write_whole", full)
    assert sync.main([]) == 1
    assert "No space left" in capsys.readouterr().err
    assert toy.with_suffix(".ipynb").read_bytes() == content


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_file_is_written_as_a_whole_or_not_at_all(tmp_path, monkeypatch, error):
    path = tmp_path / "99_toy.ipynb"
    sync.write_whole(path, b"old")

    def fail(_handle):
        raise error

    monkeypatch.setattr(sync.os, "fsync", fail)
    with pytest.raises(type(error)):
        sync.write_whole(path, b"new and longer")
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == {"99_toy.ipynb": b"old"}


def test_ctrl_c_is_one_line_and_leaves_the_stored_notebook(toy, monkeypatch, capsys):
    toy.with_suffix(".ipynb").write_text("the old one", encoding="utf-8")

    def stop(_source):
        raise KeyboardInterrupt

    monkeypatch.setattr(sync, "execute", stop)
    assert sync.main([]) == 130
    assert capsys.readouterr().err.count("\n") == 1
    assert toy.with_suffix(".ipynb").read_text(encoding="utf-8") == "the old one"


def test_benchmarks_that_are_not_there_are_an_error_and_those_that_are_there_are_named():
    command = [sys.executable, str(Path(__file__).parent / "benchmarks"), "start", "nope"]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 2
    assert "nope" in made.stderr
    assert "widget" in made.stderr
    assert made.stdout == ""
