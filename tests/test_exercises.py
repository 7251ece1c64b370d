"""Every solution passes, every stored wrong answer fails by name, and nothing breaks check()."""

import ast
import inspect
import json
import re
import time

import jupytext
import numpy as np
import pytest
import torch

from helpers import exercises
from tools import sync

ALL = exercises.exercises()
LEAST_PER_CHAPTER, HINTS, LEAST_WRONG = 3, 2, 4
every_exercise = pytest.mark.parametrize("e", ALL.values(), ids=ALL)


@pytest.fixture(autouse=True)
def progress_file(tmp_path, monkeypatch):
    file = tmp_path / "progress.json"
    monkeypatch.setenv("COURSE_PROGRESS", str(file))
    return file


def said(capsys, id, answer) -> str:
    exercises.check(id, answer)
    return capsys.readouterr().out


@every_exercise
def test_the_solution_passes(e, capsys):
    out = said(capsys, e.id, e.solve)
    assert out.startswith(f"✓ {e.id} {e.solve.__name__}"), out
    assert e.tests in out


WRONG = [(e, why) for e in ALL.values() for why in e.wrong]


@pytest.mark.parametrize(("e", "why"), WRONG, ids=[f"{e.id}-{why[:30]}" for e, why in WRONG])
def test_a_wrong_answer_fails_and_its_misconception_is_named(e, why, capsys):
    out = said(capsys, e.id, e.wrong[why])
    assert out.startswith(f"✗ {e.id}"), out
    assert why in out, out
    assert "Traceback" not in out


@every_exercise
def test_an_exercise_is_complete(e):
    assert len(e.hints) == HINTS
    assert len(e.wrong) >= LEAST_WRONG
    assert e.solve.__doc__


@pytest.mark.parametrize(("first", "last", "least"), [("00", "05", 20), ("06", "07", 10),
                                                      ("08", "10", 14), ("11", "13", 12)])
def test_a_part_has_its_number_of_exercises(first, last, least):
    assert sum(first <= id[:2] <= last for id in ALL) >= least


@pytest.mark.parametrize("source", sync.sources(), ids=lambda s: s.stem)
def test_each_exercise_has_its_stub_and_check_in_the_notebook(source):
    here = {id: e for id, e in ALL.items() if id.startswith(source.stem[:2])}
    assert len(here) >= LEAST_PER_CHAPTER
    stubs, checks = {}, {}
    for cell in jupytext.read(source).cells:
        if "exercise" in cell.metadata.get("tags", []):
            stubs.update({f.name: f for f in ast.parse(cell.source).body})
        checks.update(re.findall(r'^check\("([\d.]+)", (\w+)\)$', cell.source, re.M))
    for id, e in here.items():
        name = e.solve.__name__
        assert checks.get(id) == name
        stub = stubs[name]
        assert ast.get_docstring(stub)
        assert [a.arg for a in stub.args.args] == list(inspect.signature(e.solve).parameters)
        if (source.stem[:2], id) != ("00", "00.1"):  # the one that is solved live
            assert ast.unparse(stub.body[-1]) == "return NotImplemented"
    assert set(checks) == set(here)


TOY = '''
import numpy as np
from helpers.exercises import IN_PLACE, exercise


def halve_in_place(x):
    x /= 2
    return x


@exercise("99.1", tests="halves three arrays", hints=("Divide.", "x / 2"),
          cases=((np.array([1.0, 2.0]),), (np.zeros(3),), (np.array([[4.0]]),)),
          wrong={"You doubled.": lambda x: 2 * x, IN_PLACE: halve_in_place})
def halve(x):
    """Half of x."""
    return x / 2
'''


@pytest.fixture
def toy(tmp_path, monkeypatch):
    (tmp_path / "solutions").mkdir()
    (tmp_path / "solutions" / "99_toy.py").write_text(TOY, encoding="utf-8")
    monkeypatch.setattr(exercises, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(exercises, "TIME_LIMIT", 0.5)


class Evil:
    """A result whose every question raises."""

    def __eq__(self, other):
        raise RuntimeError("no")

    def __repr__(self):
        raise RuntimeError("no")

    def __array__(self, *args, **kwargs):
        raise RuntimeError("no")

    __hash__ = None


@pytest.mark.parametrize(("answer", "expected"), [
    (lambda x: x / 2, "✓"),
    (lambda x: torch.as_tensor(x) / 2, "✓"),
    (lambda x: (x / 2).tolist(), "✓"),
    (lambda x: NotImplemented, "○"),
    (NotImplemented, "○"),
    (lambda x: None, "is the return missing?"),
    (lambda x: 2 * x, "You doubled."),
    (lambda x: -x / 2, "got -0.5 at index 0, expected 0.5"),
    (lambda x: 0 * x, "case 1 of 3, given x = [1., 2.]: got 0 at index 0"),
    (lambda x: x.sum(), "got one number, expected an array of shape (2,)"),
    (lambda x: x * np.nan, "got nan"),
    (lambda x: np.array(["a", "b"]), "expected numbers"),
    (lambda x: "half", "got 'half'"),
    (lambda x: (y for y in x), "got <generator"),
    (lambda x: Evil(), "got a Evil"),
    (lambda x: endless, "got endless, expected"),
    (lambda x: 1 / 0, "it raised ZeroDivisionError: division by zero"),
    (lambda: 1, "it raised TypeError"),
    (lambda x: exit(), "it raised"),
    (3.0, "expected the function halve, got 3.0"),
    (Evil(), "expected the function halve, got a Evil"),
    (None, "expected the function halve, got None"),
])
def test_check_takes_anything(toy, capsys, answer, expected):
    out = said(capsys, "99.1", answer)
    assert expected in out
    assert "Traceback" not in out


def endless(x):
    while True:
        pass


def stubborn(x):
    while True:
        try:
            time.sleep(0.01)
        except Exception:
            pass


@pytest.mark.parametrize("answer", [endless, stubborn])
def test_check_stops_an_endless_loop(toy, capsys, answer):
    start = time.perf_counter()
    assert "endless loop?" in said(capsys, "99.1", answer)
    assert time.perf_counter() - start < 10


def test_an_unknown_exercise_is_named_with_the_known_ones(toy, capsys):
    assert said(capsys, "99.7", endless) == "There is no exercise '99.7' here; there are: 99.1\n"
    assert "There is no exercise None" in said(capsys, None, endless)


def test_hints_come_one_after_the_other_and_the_last_stays(toy, capsys):
    for expected in ("Hint 1 of 2: Divide.", "Hint 2 of 2: x / 2", "Hint 2 of 2: x / 2"):
        exercises.hint("99.1")
        assert capsys.readouterr().out.strip() == expected


def test_solution_shows_the_function_and_nothing_of_the_checker(toy, capsys):
    exercises.solution("99.1")
    out = capsys.readouterr().out
    assert out.startswith("def halve(x):")
    assert "wrong" not in out


def test_progress_outlives_the_process_and_a_stub_does_not_undo_a_pass(
        toy, capsys, progress_file):
    said(capsys, "99.1", lambda x: x / 2)
    said(capsys, "99.1", lambda x: NotImplemented)
    exercises.progress()
    assert capsys.readouterr().out == "99  ✓  1 of 1\n"
    assert json.loads(progress_file.read_text(encoding="utf-8"))["99.1"]["status"] == "✓"


def test_an_unreadable_progress_file_is_kept_aside(toy, capsys, progress_file):
    progress_file.write_text("{half a", encoding="utf-8")
    exercises.progress()
    assert capsys.readouterr().out == "99  ○  0 of 1\n"
    assert progress_file.with_suffix(".unreadable").read_text(encoding="utf-8") == "{half a"
