"""What the course says to a learner: check, hint, solution, progress."""

import copy
import ctypes
import importlib.util
import inspect
import json
import os
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers.runtime import ROOT

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
    """All exercises of a chapter ("02"), or of the course, by id."""
    found = {}
    for file in sorted((NOTEBOOKS / "solutions").glob(f"{chapter}_*.py")):
        spec = importlib.util.spec_from_file_location(f"solutions_{file.stem}", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        here = [f.exercise for f in vars(module).values() if hasattr(f, "exercise")]
        found.update({e.id: e for e in sorted(here, key=lambda e: e.id)})
    return found


def check(id: str, answer) -> None:
    """Print whether `answer` (a function, or a value where one is asked for) is right.

    ✓ and what was tested; or ✗ with got, expected and why; or ○ for a stub. Never raises.
    """
    if (e := _find(id)) is None:
        return
    try:
        status, text = _judge(e, answer)
    except Exception as error:
        status, text = "✗", f"could not be checked: {type(error).__name__}: {error}"
    if status != "○":
        _remember(id, status=status)
    print(f"{status} {id} {e.solve.__name__}: {text}")


def hint(id: str) -> None:
    """Print the first hint; called again, the next one."""
    if e := _find(id):
        given = _progress().get(id, {}).get("hints", 0)
        number = min(given, len(e.hints) - 1)
        _remember(id, hints=number + 1)
        print(f"Hint {number + 1} of {len(e.hints)}: {e.hints[number]}")


def solution(id: str) -> None:
    """Print the solution's source, without the checker's part."""
    if e := _find(id):
        source = inspect.getsource(e.solve)
        print(source[source.index("\ndef ") + 1:].rstrip())


def progress() -> None:
    """Print each chapter's exercises: ✓ solved, ✗ tried, ○ open."""
    kept, chapters = _progress(), {}
    for e in exercises().values():
        chapters.setdefault(e.id[:2], []).append(kept.get(e.id, {}).get("status", "○"))
    for chapter, marks in chapters.items():
        print(f"{chapter}  {' '.join(marks)}  {marks.count('✓')} of {len(marks)}")


def _find(id: str) -> Exercise | None:
    known = exercises(str(id)[:2] if str(id)[:2].isdigit() else "[0-9][0-9]")
    if id not in known:
        print(f"There is no exercise {id!r} here; there are: {', '.join(known) or 'none'}")
    return known.get(id)


def _judge(e: Exercise, answer) -> tuple[str, str]:
    if not callable(answer):
        if answer is not NotImplemented and e.cases != ((),):
            return "✗", f"expected the function {e.solve.__name__}, got {_show(answer)}"
        value, answer = answer, lambda *args: value
    for number, args in enumerate(e.cases, 1):
        given = copy.deepcopy(args)
        fault, got = _call(answer, given)
        if fault is None and got is NotImplemented:
            return "○", "not attempted. Write it above, run that cell, then this one."
        shown = [f"{name} = {_show(_plain(a))}" for name, a in
                 zip(inspect.signature(e.solve).parameters, args, strict=False)]
        where = f"case {number} of {len(e.cases)}, given {', '.join(shown)}: " if args else ""
        if fault:
            return "✗", where + fault
        expected = _plain(e.solve(*copy.deepcopy(args)))
        if why := _difference(got, expected, e):
            why = why if args else why.split(", expected")[0] + ", which is not it"
            return "✗", f"{where}{why}{_misconception(e, args, got)}"
        if _difference(_plain(given), _plain(args), e):
            return "✗", where + IN_PLACE
    return "✓", e.tests


def _misconception(e: Exercise, args: tuple, got) -> str:
    for why, mistake in e.wrong.items():
        fault, value = _call(mistake, copy.deepcopy(args))
        if fault is None and not _difference(got, value, e):
            return f"\n  Why: {why}"
    return ""


class _TimeUp(BaseException):
    """Raised inside a learner's function that runs too long."""


def _call(function: Callable, args: tuple) -> tuple[str | None, object]:
    """(fault, None) or (None, plain result), after at most TIME_LIMIT seconds."""
    def run():
        try:
            box["value"] = _plain(function(*args))
        except _TimeUp:
            pass
        except BaseException as error:
            box["fault"] = f"it raised {type(error).__name__}: {error}{_line(error)}"

    box, thread = {}, threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(TIME_LIMIT)
    for _ in range(10):  # an endless loop: raise inside it, again if it catches everything
        if not thread.is_alive():
            break
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident), ctypes.py_object(_TimeUp))
        thread.join(0.2)
    if not box:
        return f"it had not returned after {TIME_LIMIT:g} s: is there an endless loop?", None
    return box.get("fault"), box.get("value")


def _line(error: BaseException) -> str:
    frames = [(f.f_code.co_name, line) for f, line in traceback.walk_tb(error.__traceback__)]
    theirs = [f for f in frames if f[0] not in ("run", "_plain")]
    return f" (in {theirs[0][0]}, line {theirs[0][1]} of its cell)" if theirs else ""


def _plain(value):
    """A result as numpy array, text, tuple of these, dict of these, or itself."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        parts = tuple(_plain(v) for v in value)
        same = parts and all(isinstance(p, np.ndarray) and p.shape == parts[0].shape
                             for p in parts)
        return np.array(parts) if same else parts
    if isinstance(value, np.ndarray | np.generic | bool | int | float | complex):
        return np.array(value)
    return value


def _difference(got, expected, e: Exercise) -> str:
    """Why `got` is not `expected`, or ""."""
    if isinstance(expected, np.ndarray) and isinstance(got, np.ndarray):
        if got.shape != expected.shape:
            return f"got {_form(got)}, expected {_form(expected)}"
        if got.dtype.kind not in "biufc":
            return f"got {got.dtype} values, expected numbers"
        close = np.isclose(got, expected, e.rtol, e.atol, equal_nan=True)
        if close.all():
            return ""
        at = tuple(int(i) for i in np.argwhere(~close)[0])
        place = f" at index {at[0] if len(at) == 1 else at}" if at else ""
        return f"got {got[at]:.6g}{place}, expected {expected[at]:.6g}"
    if isinstance(expected, tuple) and isinstance(got, tuple) and len(got) == len(expected):
        return next(filter(None, map(_difference, got, expected, [e] * len(got))), "")
    if isinstance(expected, dict) and isinstance(got, dict) and got.keys() == expected.keys():
        return next(filter(None, (_difference(got[k], v, e) for k, v in expected.items())), "")
    if got is None:
        return f"got None, expected {_show(expected)}: is the return missing?"
    same_text = isinstance(got, str | bytes) and type(got) is type(expected) and got == expected
    return "" if same_text or got is expected else f"got {_show(got)}, expected {_show(expected)}"


def _form(array: np.ndarray) -> str:
    return f"an array of shape {array.shape}" if array.ndim else "one number"


def _show(value) -> str:
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        if value.size > 6:
            return _form(value)
        return " ".join(np.array2string(value, precision=5, separator=", ").split())
    try:
        text = value.__name__ if inspect.isfunction(value) else " ".join(repr(value).split())
    except Exception:
        text = f"a {type(value).__name__}"
    return text if len(text) <= 80 else text[:77] + "…"


def _file() -> Path:
    return Path(os.environ.get("COURSE_PROGRESS") or NOTEBOOKS / ".progress.json")


def _progress() -> dict:
    try:
        return json.loads(_file().read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):  # unreadable: keep it aside and begin anew
        _file().replace(_file().with_suffix(".unreadable"))
        return {}


def _remember(id: str, **facts) -> None:
    kept = _progress()
    kept[id] = {**kept.get(id, {}), **facts}
    draft = _file().with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps(kept, ensure_ascii=False, indent=1), encoding="utf-8")
    draft.replace(_file())
