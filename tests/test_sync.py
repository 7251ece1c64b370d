"""`make sync` executes what is stale, repeats itself to the byte, and a failure loses nothing."""

import re

import nbformat
import pytest

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
    """The `.py` of a toy notebook, alone in its folder, with a copy of the helper it imports."""
    (tmp_path / "helpers").mkdir()
    helper = (sync.ROOT / "helpers" / "plots.py").read_text(encoding="utf-8")
    (tmp_path / "helpers" / "plots.py").write_text(helper, encoding="utf-8")
    (tmp_path / "notebooks").mkdir()
    source = tmp_path / "notebooks" / "99_toy.py"
    source.write_text(TOY, encoding="utf-8")
    monkeypatch.setattr(sync, "ROOT", tmp_path)
    monkeypatch.setattr(sync, "NOTEBOOKS", source.parent)
    for name in ("PROFILE", "DEVICE", "COURSE_PROGRESS"):
        monkeypatch.setenv(name, "")  # main() sets them: put back afterwards
    return source


def without_timings(source) -> str:
    text = source.with_suffix(".ipynb").read_text(encoding="utf-8")
    return re.sub(r'"(seconds|gflops)": \d+', "", text)


def test_a_second_run_writes_the_same_bytes(toy):
    assert sync.main(["99"]) == 0
    first = without_timings(toy)
    assert sync.main(["99"]) == 0
    assert without_timings(toy) == first
    cells = nbformat.read(toy.with_suffix(".ipynb"), as_version=4).cells
    assert cells[-1].outputs[0].text == "0.25\n"
    assert len({c.id for c in cells}) == len(cells)


def test_editing_one_cell_changes_the_id_of_no_other(toy):
    before = {c.source: c.id for c in sync.execute(toy).cells}
    toy.write_text(TOY.replace("x / 4", "x / 8"), encoding="utf-8")
    after = {c.source: c.id for c in sync.execute(toy).cells}
    kept = before.keys() & after.keys()
    assert len(kept) == len(before) - 1
    assert {before[s] == after[s] for s in kept} == {True}


def test_a_notebook_is_stale_after_a_change_of_its_source_or_of_a_helper_behind_it(toy):
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
