"""The notebooks keep the house's rules: pairs agree, outputs are fresh, anatomy holds."""

import ast
import re
import statistics
import subprocess
import sys

import jupytext
import nbformat
import pytest

from tools import sync

SOURCES = sync.sources()
LONGEST_CELL, MEDIAN_CELL, MOST_CELLS = 25, 8, 60
MOST_UNCOMPARED = 0.05  # of all code cells
UNCOMPARED = {"nbval-ignore-output", "nbval-skip"}
every_notebook = pytest.mark.parametrize("source", SOURCES, ids=lambda s: s.stem)


def tags(cell) -> set[str]:
    return set(cell.metadata.get("tags", []))


def code_cells(notebook) -> list:
    return [c for c in notebook.cells if c.cell_type == "code"]


def stored(source):
    return nbformat.read(source.with_suffix(".ipynb"), as_version=4)


def lines(cell) -> int:
    return sum(1 for line in cell.source.splitlines() if line.strip())


def test_every_notebook_is_a_pair():
    assert SOURCES
    halves = [f.stem for f in sync.NOTEBOOKS.glob("*.ipynb") if ".kept-" not in f.name]
    assert [s.stem for s in SOURCES] == sorted(halves)


@every_notebook
def test_the_two_halves_of_a_pair_agree(source):
    halves = [[(c.cell_type, c.source, sorted(tags(c))) for c in half.cells]
              for half in (jupytext.read(source), stored(source))]
    assert halves[0] == halves[1], "run `make sync`"


@every_notebook
def test_saving_in_jupyterlab_would_leave_the_edited_half_as_it_is(source):
    text = source.read_text(encoding="utf-8")
    assert jupytext.writes(jupytext.reads(text, "py:percent"), "py:percent") == text


@every_notebook
def test_stored_outputs_come_from_one_run_of_the_present_files(source):
    notebook = stored(source)
    counts = [c.execution_count for c in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    assert not [o for c in code_cells(notebook) for o in c.outputs if o.output_type == "error"]
    assert not [o for c in code_cells(notebook) for o in c.outputs if o.get("name") == "stderr"]
    assert notebook.metadata.workbook == sync.provenance(source), "stale: run `make sync`"
    assert len({c.id for c in notebook.cells}) == len(notebook.cells)


@every_notebook
def test_cells_are_short_and_few(source):
    notebook = jupytext.read(source)
    lengths = [lines(c) for c in code_cells(notebook)]
    assert max(lengths) <= LONGEST_CELL
    assert min(lengths) > 0
    assert statistics.median(lengths) <= MEDIAN_CELL
    assert len(notebook.cells) <= MOST_CELLS


@every_notebook
def test_a_notebook_opens_with_title_imports_and_config(source):
    notebook = jupytext.read(source)
    assert notebook.cells[0].source.startswith(f"# {source.stem[:2]} · ")
    imports, config = code_cells(notebook)[:2]
    assert tags(imports) == {"imports"}
    assert tags(config) == {"config"}
    prose = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    for part in ("Predict first", "## Recap", "| symbol |"):
        assert part in prose, f"{source.stem} lacks {part!r}"


@every_notebook
def test_imports_stand_in_one_cell_and_no_magics_anywhere(source):
    for cell in code_cells(jupytext.read(source)):
        tree = ast.parse(cell.source)  # a magic or a shell line is no Python
        imported = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
        assert not imported or tags(cell) == {"imports"}, cell.source
        assert "*" not in [a.name for n in imported for a in n.names]


@every_notebook
def test_an_essential_cell_is_followed_by_its_check(source):
    cells = code_cells(jupytext.read(source))
    for cell, after in zip(cells, [*cells[1:], None], strict=True):
        if "essential" in tags(cell):
            assert after is not None
            assert "check" in tags(after), cell.source
            assert re.search(r"\bassert\b|assert_\w+\(", after.source), after.source


def definitions(source: str) -> dict[str, str]:
    """Top-level functions and classes as syntax trees, by name; docstrings and `accepts` aside."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            node.decorator_list = [d for d in node.decorator_list
                                   if not ast.unparse(d).startswith("accepts(")]
            if ast.get_docstring(node):
                del body[0]
    return {n.name: ast.dump(n) for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}


@every_notebook
def test_essential_code_stands_verbatim_in_one_helper(source):
    helpers = {f.stem: definitions(f.read_text(encoding="utf-8"))
               for f in (sync.ROOT / "helpers").rglob("*.py")}
    for cell in code_cells(jupytext.read(source)):
        if "essential" in tags(cell):
            shown = definitions(cell.source)
            assert len(shown) == len(ast.parse(cell.source).body), "definitions only"
            for name, tree in shown.items():
                homes = [module for module, has in helpers.items() if name in has]
                assert len(homes) == 1, f"{name} stands in {homes or 'no helper'}"
                assert helpers[homes[0]][name] == tree, f"{name} differs from helpers.{homes[0]}"


def test_essential_code_is_shown_in_one_notebook_only():
    shown = [name for s in SOURCES for c in code_cells(jupytext.read(s)) if "essential" in tags(c)
             for name in definitions(c.source)]
    assert len(shown) == len(set(shown))


def test_few_cells_are_uncompared_and_each_says_why():
    cells = [(s.stem, c) for s in SOURCES for c in code_cells(jupytext.read(s))]
    loose = [(name, c) for name, c in cells if UNCOMPARED & tags(c)]
    for name, cell in loose:
        assert re.search(r"^# uncompared: \w+", cell.source, re.M), f"{name}: {cell.source}"
    assert len(loose) <= MOST_UNCOMPARED * len(cells), f"{len(loose)} of {len(cells)}"


@every_notebook
def test_stated_minutes_are_the_measured_ones_here_in_the_map_and_in_the_readme(source):
    text = jupytext.read(source).cells[0].source
    minutes = int(re.search(r"Runs in about (\d+) minutes? on a CPU", text).group(1))
    assert abs(minutes - stored(source).metadata.seconds / 60) <= 1
    readme = (sync.ROOT / "README.md").read_text(encoding="utf-8")
    row = rf"^\| \[{re.escape(text.splitlines()[0][2:])}\]\(notebooks/{source.stem}\.ipynb\) \|"
    assert re.search(rf"{row}.*\| {minutes} \|$", readme, re.M), "the README's map differs"
    course_map = SOURCES[0].read_text(encoding="utf-8")
    assert source == SOURCES[0] or f"[{text.splitlines()[0][2:]} · {minutes} min]" in course_map


@pytest.mark.parametrize(("first", "last", "minutes"), [("00", "05", 4), ("06", "07", 5),
                                                        ("08", "10", 6), ("11", "13", 4)])
def test_a_part_executes_within_its_minutes(first, last, minutes):
    seconds = [stored(s).metadata.seconds for s in SOURCES if first <= s.stem[:2] <= last]
    assert sum(seconds) < 60 * minutes


def run_nbval(notebook) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist",
               "-c", str(sync.ROOT / "pyproject.toml"), "--rootdir", str(sync.ROOT), str(notebook)]
    return subprocess.run(command, cwd=sync.ROOT, capture_output=True, text=True, check=False)


def test_one_altered_digit_in_a_stored_output_fails_the_comparison(tmp_path):
    code = ["x = 2.5", "print(f'{x / 2:.3f}')"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in code])
    for number, cell in enumerate(notebook.cells, 1):
        cell.execution_count = number
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", name="stdout", text="1.250\n")]
    nbformat.write(notebook, tmp_path / "honest.ipynb")
    notebook.cells[1].outputs[0].text = "1.251\n"
    nbformat.write(notebook, tmp_path / "altered.ipynb")
    honest, altered = run_nbval(tmp_path / "honest.ipynb"), run_nbval(tmp_path / "altered.ipynb")
    assert honest.returncode == 0, honest.stdout
    assert altered.returncode == 1
    assert "1 failed" in altered.stdout


def alter_a_digit(notebook) -> str:
    """Change the last digit of the first number printed; return the text before."""
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if output.output_type == "stream" and (found := re.search(r"\d(?!.*\d)", output.text)):
                before, at = output.text, found.start()
                output.text = f"{before[:at]}{(int(before[at]) + 1) % 10}{before[at + 1:]}"
                return before
    raise AssertionError("no number is printed")


def test_an_altered_digit_in_a_copy_of_a_chapter_fails_the_comparison(tmp_path):
    notebook = stored(SOURCES[1])
    alter_a_digit(notebook)
    copy = tmp_path / "altered.ipynb"
    nbformat.write(notebook, copy)
    result = run_nbval(copy)
    assert result.returncode == 1, result.stdout
    assert re.search(r"\b1 failed", result.stdout), result.stdout
