"""Every solution passes, every stored wrong answer fails by name, and nothing breaks check()."""

import ast
import errno
import inspect
import io
import itertools
import json
import os
import re
import subprocess
import sys
import time
from decimal import Decimal

import jupytext
import numpy as np
import pandas as pd
import pytest
import torch

from helpers import exercises
from helpers.foundations import answers
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


class Liar:
    """A result that claims to be a tensor, an array, long, and equal to everything."""

    dtype, shape, __len__, __eq__ = float, (2,), lambda self: 10**9, lambda self, other: True
    __hash__ = None

    @property
    def __class__(self):
        return np.ndarray

    def detach(self):
        return self

    def cpu(self):
        raise SystemError("no device")


class Mute(BaseException):
    """An error that cannot say what it is."""

    def __str__(self):
        raise RuntimeError("no")


def raises(error):
    def answer(x):
        raise error
    return answer


def returns(value):
    return lambda x: value


def deep(x):
    return deep(x)


def ragged(x):
    return [[0.5], [1, 2]]


def around(x):
    knot = [1.0]
    knot.append(knot)
    return knot


async def later(x):
    return x / 2


def loud(x):
    print("word " * 200_000)
    return x / 2


def state(x):
    np.seterr(all="raise")
    np.random.seed(0)  # noqa: NPY002
    return x / 2


def sometimes(x):
    return x / 2 if x.ndim == 1 and x[0] else NotImplemented


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
    (Liar(), "expected the function halve, got"),
    (returns(Liar()), "its result cannot be read: SystemError: no device"),
    (lambda x: pd.Series(x.ravel()) / 2 if x.ndim == 1 else x / 2, "✓"),
    (lambda x: pd.DataFrame(x) / 2 if x.ndim == 2 else x / 2, "✓"),
    (lambda x: torch.as_tensor(x).requires_grad_() / 2, "✓"),
    (lambda x: [Decimal(v) / 2 for v in x] if x.ndim == 1 else x / 2, "✓"),
    (lambda x: x / 2 + 0j, "✓"),
    (lambda x: torch.empty(2, device="meta"), "its result cannot be read: NotImplementedError"),
    (lambda x: x.astype(object) / 2, "got object values, expected numbers"),
    (lambda x: [10**400, 1], "got object values, expected numbers"),
    (lambda x: x / 2 + 1j, "got 0.5+1j at index 0, expected 0.5"),
    (ragged, "got ("),
    (around, "its result cannot be read: RecursionError"),
    (lambda x: {"a": x}, "got {'a'"),
    (itertools.count, "got count("),
    (returns(iter([])), "got <list_iterator"),
    (deep, "it raised RecursionError: maximum recursion depth exceeded"),
    (raises(KeyboardInterrupt()), "it raised KeyboardInterrupt"),
    (raises(SystemExit(1)), "it raised SystemExit: 1 (in answer, line"),
    (raises(Mute()), "it raised Mute: it does not say why"),
    (raises(ValueError("\ud800\n" * 1000)), "it raised ValueError: ?"),
    (later, "got <coroutine object later"),
    (Evil, "it raised TypeError"),
    (loud, "✓"),
    (state, "✓"),
    (sometimes, "case 2 of 3, given x = [0., 0., 0.]: got NotImplemented, expected [0., 0., 0.]"),
    (np.ndarray.sort, "got None"),
])
def test_check_takes_anything(toy, capsys, answer, expected):
    out = said(capsys, "99.1", answer)
    assert expected in out
    assert "Traceback" not in out
    assert len(out.splitlines()) <= 2 or answer is loud
    assert np.geterr()["divide"] == "warn"


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
    for id in (None, 99.1, "99", "", [], endless, Evil(), "²³", "../99", "99.1\n"):
        assert re.fullmatch("There is no exercise .* here; there are: 99.1\n",
                            said(capsys, id, endless))
    for call in (exercises.check, exercises.hint, exercises.solution):
        call()
        assert capsys.readouterr().out == "There is no exercise '' here; there are: 99.1\n"


def test_a_call_of_the_wrong_form_is_told_in_a_line(toy, capsys):
    exercises.check("99.1")
    assert capsys.readouterr().out.startswith("○ 99.1 halve: not attempted")
    exercises.hint("99.1", 2)
    assert capsys.readouterr().out.startswith("hint has no answer: TypeError: hint() takes")


@pytest.mark.parametrize("text", ["def half(:", "import nothing_of_this_name", "exit()"])
def test_solutions_that_cannot_be_loaded_are_named(toy, capsys, tmp_path, text):
    (tmp_path / "solutions" / "99_toy.py").write_text(text, encoding="utf-8")
    for call in (exercises.check, exercises.hint, exercises.solution):
        call("99.1")
        assert "99_toy.py cannot be loaded" in capsys.readouterr().out
    exercises.progress()
    assert "99_toy.py cannot be loaded" in capsys.readouterr().out


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


def test_a_pass_is_never_taken_back(toy, capsys, progress_file):
    said(capsys, "99.1", lambda x: x / 2)
    assert said(capsys, "99.1", lambda x: 2 * x).startswith("✗")
    exercises.progress()
    assert capsys.readouterr().out == "99  ✓  1 of 1\n"


def test_a_small_change_of_the_argument_is_a_change(toy, capsys):
    def answer(x):
        half = x / 2
        x *= 1 + 1e-6
        return half

    assert exercises.IN_PLACE in said(capsys, "99.1", answer)


def call_all(capsys) -> dict[str, str]:
    """What each function says, on a right answer."""
    told = {}
    for name, args in {"check": ("99.1", lambda x: x / 2), "hint": ("99.1",), "progress": (),
                       "solution": ("99.1",)}.items():
        getattr(exercises, name)(*args)
        told[name] = capsys.readouterr().out
    return told


@pytest.mark.parametrize(("content", "status"), [
    ("[]", "○"), ("null", "○"), ("", "○"), ("{half a", "○"), ("\0\1", "○"), ("1" * 5000, "○"),
    ("[" * 100_000, "○"), ('{"99.1": "✓"}', "✓"), ('{"99.1": ["✓"]}', "○"), ('{"99.1": NaN}', "○"),
    ('{"99.1": {"done": "yes"}}', "○"), ('{"99.1": {"status": {"a": 1}, "hints": "two"}}', "○"),
    ('{"99.1": {"status": "✗", "hints": -3}}', "✗"), ('{"99.1": {"hints": 1e999}}', "○"),
    ('{"98.7": {"status": "✓"}, "x": 1}', "○")])
def test_a_progress_file_of_any_content_does_no_harm(toy, capsys, progress_file, content, status):
    progress_file.write_text(content, encoding="utf-8")
    exercises.progress()
    assert capsys.readouterr().out == f"99  {status}  {int(status == '✓')} of 1\n"
    told = call_all(capsys)
    assert told["check"] == "✓ 99.1 halve: halves three arrays\n"
    assert told["hint"] == "Hint 1 of 2: Divide.\n"
    assert told["progress"] == "99  ✓  1 of 1\n"
    assert told["solution"].startswith("def halve(x):")
    exercises.hint("99.1")
    assert capsys.readouterr().out == "Hint 2 of 2: x / 2\n"
    aside = progress_file.with_suffix(".unreadable")
    if aside.exists():
        assert aside.read_text(encoding="utf-8") == content
    else:  # what it held of others stands there still
        now = json.loads(progress_file.read_text(encoding="utf-8"))
        assert {k: v for k, v in json.loads(content).items() if k != "99.1"}.items() <= now.items()


def test_more_hints_than_there_are_give_the_last(toy, capsys, progress_file):
    progress_file.write_text('{"99.1": {"hints": 99}}', encoding="utf-8")
    exercises.hint("99.1")
    assert capsys.readouterr().out == "Hint 2 of 2: x / 2\n"


def refuse(*args, **kwargs):
    raise OSError(errno.EROFS, "Read-only file system")


def cannot_be_remembered(told, why):
    quiet = f"Nothing can be remembered in .*: {why}. Set the variable COURSE_PROGRESS to a .*\n"
    assert re.fullmatch(f"✓ 99.1 halve: halves three arrays\n{quiet}", told["check"])
    assert re.fullmatch(f"{quiet}Hint 1 of 2: Divide.\nHint 2 of 2: x / 2\n", told["hint"])
    assert told["solution"].startswith("def halve(x):")


def test_in_a_read_only_folder_all_go_on_and_say_that_nothing_is_remembered(
        toy, capsys, progress_file, monkeypatch):
    progress_file.write_text('{"99.1": {"status": "✗"}}', encoding="utf-8")
    monkeypatch.setattr(answers, "open", refuse, raising=False)
    told = call_all(capsys)
    cannot_be_remembered(told, "Read-only file system")
    assert told["progress"] == "99  ✗  0 of 1\n"
    assert progress_file.read_text(encoding="utf-8") == '{"99.1": {"status": "✗"}}'


def test_on_a_full_disk_they_do_too_and_what_stood_there_stands(
        toy, capsys, progress_file, monkeypatch):
    progress_file.write_text("{half a", encoding="utf-8")
    monkeypatch.setattr(answers.os, "fsync", lambda handle: refuse())
    told = call_all(capsys)
    assert told["progress"] == "99  ○  0 of 1\n"
    cannot_be_remembered(told, "Read-only file system")


@pytest.mark.parametrize("place", ["folder", "a file/progress.json"])
def test_where_no_file_can_be_they_say_so(toy, capsys, tmp_path, monkeypatch, place):
    (tmp_path / "folder").mkdir()
    (tmp_path / "a file").write_text("words", encoding="utf-8")
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / place))
    told = call_all(capsys)
    cannot_be_remembered(told, "it is not a file" if place == "folder" else "[A-Z].*")
    assert "Nothing can be remembered" in told["progress"]
    assert told["progress"].endswith("99  ○  0 of 1\n")


def test_a_file_that_may_not_be_read_is_left_alone(toy, capsys, progress_file, monkeypatch):
    progress_file.write_text('{"99.1": {"status": "✗"}}', encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.setattr(type(progress_file), "read_bytes", refuse)
        told = call_all(capsys)
    cannot_be_remembered(told, "Read-only file system")
    assert [f.name for f in progress_file.parent.glob("progress.*")
            if f.suffix != ".lock"] == ["progress.json"]
    exercises.progress()
    assert capsys.readouterr().out == "99  ✗  0 of 1\n"


def test_a_missing_folder_is_made(toy, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "my" / "own" / "progress.json"))
    assert said(capsys, "99.1", lambda x: x / 2).count("\n") == 1
    exercises.progress()
    assert capsys.readouterr().out == "99  ✓  1 of 1\n"


KERNEL = """
import sys
from pathlib import Path
from helpers import exercises
from helpers.foundations import answers
answers.PATIENCE, exercises.NOTEBOOKS = 300, Path(sys.argv[1])
for number in sys.argv[2:]:
    exercises.check(f"99.{number}", lambda x: x / 2)
"""


def test_of_several_kernels_none_loses_a_tick(toy, capsys, tmp_path):
    head, one = TOY.split("@exercise(")
    many = [f"@exercise({one}".replace("99.1", f"99.{n}").replace("halve(", f"halve_{n}(")
            for n in range(40)]
    (tmp_path / "solutions" / "99_toy.py").write_text(head + "\n".join(many), encoding="utf-8")
    kernels = [subprocess.Popen([sys.executable, "-c", KERNEL, str(tmp_path), *map(str, ids)],
                                cwd=sync.ROOT, stdout=subprocess.PIPE, encoding="utf-8",
                                env=os.environ | {"PYTHONUTF8": "1"})
               for ids in (range(20), range(20, 40))]
    assert [kernel.communicate()[0].count("✓ 99.") for kernel in kernels] == [20, 20]
    exercises.progress()
    assert "40 of 40" in capsys.readouterr().out


def test_what_the_screen_cannot_show_does_not_stop_a_check(toy, monkeypatch):
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr("sys.stdout", screen)
    exercises.check("99.1", lambda x: x / 2)
    assert screen.buffer.getvalue().split() == b"? 99.1 halve: halves three arrays".split()
