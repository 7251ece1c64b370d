"""What the course says to a learner: check, hint, solution, progress. They never raise."""

import copy
import functools
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from helpers.foundations import answers
from helpers.foundations.answers import difference, in_a_line, plain, words_of
from helpers.runtime import ROOT, limited

NOTEBOOKS = ROOT / "notebooks"
TIME_LIMIT = 10.0  # seconds one call of a learner's function may take
IN_PLACE = "It changes its argument in place: the caller's data are altered. Work on a copy."


@dataclass(frozen=True)
class Exercise:
    """One exercise: the solution, what it is tried on, and the mistakes that are known."""

    id: str  # chapter.number, such as "02.1"
    solve: Callable
    tests: str  # what a pass has shown, in one line
    hints: tuple[str, ...]
    cases: tuple[tuple, ...]  # arguments of each call
    wrong: dict[str, Callable]  # misconception → a function that makes it
    rtol: float = 1e-4
    atol: float = 1e-8


def exercise(id: str, *, tests: str, hints: tuple[str, ...], cases: tuple[tuple, ...],
             wrong: dict[str, Callable], rtol: float = 1e-4, atol: float = 1e-8) -> Callable:
    """Decorate a solution in `notebooks/solutions/` with its exercise."""
    def attach(solve: Callable) -> Callable:
        solve.exercise = Exercise(id, solve, tests, hints, tuple(cases), wrong, rtol, atol)
        return solve
    return attach


def exercises(chapter: str = "[0-9][0-9]") -> dict[str, Exercise]:
    """All exercises of a chapter ("02"), or of the course, by id.

    Raises ImportError that names the file whose solutions cannot be loaded.
    """
    found = {}
    for file in sorted((NOTEBOOKS / "solutions").glob(f"{chapter}_*.py")):
        spec = importlib.util.spec_from_file_location(f"solutions_{file.stem}", file)
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            raise ImportError(f"{file} cannot be loaded ({words_of(error)}): is it as it came?"
                              ) from error
        here = [f.exercise for f in vars(module).values() if hasattr(f, "exercise")]
        found.update({e.id: e for e in sorted(here, key=lambda e: e.id)})
    return found


def _never_raises(function: Callable) -> Callable:
    @functools.wraps(function)
    def quiet(*args, **kwargs) -> None:
        try:
            function(*args, **kwargs)
        except Exception as error:
            _print(f"{function.__name__} has no answer: {words_of(error)}")
    return quiet


@_never_raises
def check(id: str = "", answer=NotImplemented) -> None:
    """Print whether `answer` (a function, or a value where one is asked for) is right.

    ✓ and what was tested; or ✗ with got, expected and why; or ○ for a stub. A ✓ is never taken
    back.
    """
    if (e := _find(id)) is None:
        return
    try:
        with np.errstate(all="ignore"):  # whatever the learner has set
            status, text = _judge(e, answer)
    except Exception as error:
        status, text = "✗", f"could not be checked: {words_of(error)}"
    _print(f"{status} {id} {e.solve.__name__}: {text}")

    def tick(kept: dict) -> None:
        facts = _facts(kept, id)
        kept[id] = {**facts, "status": "✓" if facts.get("status") == "✓" else status}

    if status != "○":
        _remember(tick)


@_never_raises
def hint(id: str = "") -> None:
    """Print the first hint; called again, the next one; all, where nothing can be remembered."""
    if e := _find(id):
        def give(kept: dict) -> None:
            facts = _facts(kept, id)
            given = facts.get("hints")
            given = given if type(given) is int and given > 0 else 0
            kept[id] = {**facts, "hints": min(given + 1, len(e.hints))}

        kept = _remember(give)
        for number in range(1, len(e.hints) + 1):
            if kept is None or number == kept[id]["hints"]:
                _print(f"Hint {number} of {len(e.hints)}: {e.hints[number - 1]}")


@_never_raises
def solution(id: str = "") -> None:
    """Print the solution's source, without the checker's part."""
    if e := _find(id):
        source = inspect.getsource(e.solve)
        _print(source[source.index("\ndef ") + 1:].rstrip())


@_never_raises
def progress() -> None:
    """Print each chapter's exercises: ✓ solved, ✗ tried, ○ open."""
    kept, chapters = _remember() or {}, {}
    for e in exercises().values():
        status = _facts(kept, e.id).get("status")
        chapters.setdefault(e.id[:2], []).append(status if status in ("✓", "✗") else "○")
    for chapter, marks in chapters.items():
        _print(f"{chapter}  {' '.join(marks)}  {marks.count('✓')} of {len(marks)}")


def _find(id: str) -> Exercise | None:
    of_chapter = isinstance(id, str) and id[:2].isdecimal() and exercises(id[:2])
    known = of_chapter or exercises()
    if not isinstance(id, str) or id not in known:
        there = ", ".join(known) or "none"
        return _print(f"There is no exercise {in_a_line(id)} here; there are: {there}")
    return known[id]


def _remember(change: Callable[[dict], None] | None = None) -> dict | None:
    """What is remembered, after `change`; None and a line that says why if that is impossible."""
    file = os.environ.get("COURSE_PROGRESS") or NOTEBOOKS / ".progress.json"
    try:
        try:
            kept, aside = answers.update(file, change or dict)
        except OSError:  # to look is possible where to write is not
            if change:
                raise
            return answers.read(file)
        if aside:
            print(f"{file} was damaged. It is kept as {aside}; a new one begins.", file=sys.stderr)
        return kept
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or words_of(error)
        _print(f"Nothing can be remembered in {file}: {why}. Set the variable COURSE_PROGRESS to "
               "a file that can be written.")
        return None


def _facts(kept: dict, id: str) -> dict:
    facts = kept.get(id, {})
    return facts if isinstance(facts, dict) else {"status": facts}


def _judge(e: Exercise, answer) -> tuple[str, str]:
    if not callable(answer):
        if answer is not NotImplemented and e.cases != ((),):
            return "✗", f"expected the function {e.solve.__name__}, got {in_a_line(answer)}"
        value, answer = answer, lambda *args: value
    for number, args in enumerate(e.cases, 1):
        given = copy.deepcopy(args)
        fault, got = _call(answer, given)
        if fault is None and got is NotImplemented and number == 1:
            return "○", "not attempted. Write it above, run that cell, then this one."
        shown = [f"{name} = {in_a_line(plain(a))}" for name, a in
                 zip(inspect.signature(e.solve).parameters, args, strict=False)]
        where = f"case {number} of {len(e.cases)}, given {', '.join(shown)}: " if args else ""
        if fault:
            return "✗", where + fault
        expected = plain(e.solve(*copy.deepcopy(args)))
        if why := difference(got, expected, e.rtol, e.atol):
            why = why if args else why.split(", expected")[0] + ", which is not it"
            return "✗", f"{where}{why}{_misconception(e, args, got)}"
        if difference(plain(given), plain(args), 0, 0):
            return "✗", where + IN_PLACE
    return "✓", e.tests


def _misconception(e: Exercise, args: tuple, got) -> str:
    for why, mistake in e.wrong.items():
        fault, value = _call(mistake, copy.deepcopy(args))
        if fault is None and not difference(got, value, e.rtol, e.atol):
            return f"\n  Why: {why}"
    return ""


def _call(function: Callable, args: tuple) -> tuple[str | None, object]:
    """(fault, None) or (None, plain result), after at most TIME_LIMIT seconds."""
    def run():
        try:
            value = function(*args)
        except BaseException as error:
            return f"it raised {words_of(error)}{_line(error)}", None
        try:
            return None, plain(value)
        except Exception as error:
            return f"its result cannot be read: {words_of(error)}", None

    return limited(run, TIME_LIMIT) or (
        f"it had not returned after {TIME_LIMIT:g} s: is there an endless loop?", None)


def _line(error: BaseException) -> str:
    frames = [(f.f_code.co_name, line) for f, line in traceback.walk_tb(error.__traceback__)]
    return f" (in {frames[1][0]}, line {frames[1][1]} of its cell)" if frames[1:] else ""


def _print(text: str) -> None:
    """Print, with a ? for what the screen cannot show."""
    code = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(code, "replace").decode(code))
