"""A learner's answers: made plain, compared, told in a line; and the file that remembers them.

The file is a small JSON object that several processes write. Who writes holds a lock beside it; it
ends with its process. The new text stands whole beside the old one before it takes its place. What
is no JSON object is moved aside, never overwritten.
"""

import contextlib
import errno
import inspect
import itertools
import json
import numbers
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from helpers.foundations import rules
from helpers.foundations.accepts import accepts

PATIENCE = 20.0  # seconds to wait for another process
LARGEST = 2**24  # bytes; a file above this is not one of ours
TAKEN = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)  # another has the lock


@accepts(value=rules.anything)
def plain(value):
    """A result as numpy array, text, tuple of these, dict of these, or itself."""
    return _plain(value)


def _plain(value):
    if hasattr(type(value), "detach"):
        value = value.detach().cpu()
        short = value.is_floating_point() and value.dtype.itemsize <= 2  # some unknown to numpy
        value = (value.float() if short else value).numpy()
    if inspect.iscoroutine(value):
        value.close()  # of an async function; nobody will wait for it
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        if value and set(map(type, value)) <= {bool, int, float, complex}:
            return np.array(value)
        parts = tuple(_plain(v) for v in value)
        same = parts and all(isinstance(p, np.ndarray) and p.shape == parts[0].shape
                             for p in parts)
        return np.array(parts) if same else parts
    if isinstance(value, str):
        return str.__str__(value)
    with contextlib.suppress(Exception):  # else it stays what it is
        if isinstance(value, numbers.Number) and not isinstance(value, int | complex | np.generic):
            return np.array(float(value))  # a Decimal, a Fraction
        if isinstance(value, numbers.Number) or hasattr(type(value), "__array__"):
            return np.array(value)
    return value


@accepts(got=rules.anything, expected=rules.anything, rtol=rules.number(0), atol=rules.number(0))
def difference(got, expected, rtol: float, atol: float) -> str:
    """Why `got` is not `expected`, both plain, or ""."""
    if isinstance(expected, np.ndarray) and isinstance(got, np.ndarray):
        if got.shape != expected.shape:
            return f"got {_form(got)}, expected {_form(expected)}"
        if got.dtype.kind not in "biufc":
            return f"got {got.dtype} values, expected numbers"
        close = np.isclose(got, expected, rtol, atol, equal_nan=True)
        if close.all():
            return ""
        at = tuple(int(i) for i in np.argwhere(~close)[0])
        place = f" at index {at[0] if len(at) == 1 else at}" if at else ""
        return f"got {got[at]:.6g}{place}, expected {expected[at]:.6g}"
    if isinstance(expected, tuple) and isinstance(got, tuple) and len(got) == len(expected):
        return next(filter(None, (difference(*pair, rtol, atol)
                                  for pair in zip(got, expected, strict=True))), "")
    if isinstance(expected, dict) and isinstance(got, dict) and got.keys() == expected.keys():
        return next(filter(None, (difference(got[k], v, rtol, atol)
                                  for k, v in expected.items())), "")
    same_text = isinstance(got, str | bytes) and type(got) is type(expected) and got == expected
    if same_text or got is expected:
        return ""
    missing = ": is the return missing?" if got is None else ""
    return f"got {in_a_line(got)}, expected {in_a_line(expected)}{missing}"


@accepts(value=rules.anything)
def in_a_line(value) -> str:
    """A value in at most 80 characters, whatever its own `repr` does."""
    try:
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            if value.size > 6:
                return _form(value)
            return " ".join(np.array2string(value, precision=5, separator=", ").split())
        text = value.__name__ if inspect.isfunction(value) else " ".join(repr(value).split())
    except Exception:
        text = f"a {type(value).__name__}"
    return text if len(text) <= 80 else text[:77] + "…"


def _form(array: np.ndarray) -> str:
    return f"an array of shape {array.shape}" if array.ndim else "one number"


@accepts(error=rules.anything)
def words_of(error: BaseException) -> str:
    """An error's name and words, in one line that is not too long."""
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = "it does not say why"
    return f"{type(error).__name__}: {text if len(text) <= 300 else text[:299] + '…'}"


def _real(path) -> Path:
    """Rule: a file's path; links followed, so that what they point to is replaced, not they."""
    path = Path(os.path.realpath(os.path.expanduser(rules.a(str, Path)(path))))
    if path.exists() and not path.is_file():  # a folder; a device, whose reading might never end
        raise OSError(errno.EINVAL, "it is not a file", str(path))
    return path


@accepts(path=_real)
def read(path: str | Path) -> dict:
    """The JSON object in the file; {} if there is none.

    Raises OSError for what cannot be read, and ValueError for what is no JSON object; both name
    the file.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"more than {LARGEST} bytes")
        kept = json.loads(path.read_bytes().decode("utf-8-sig"))
        _text(kept)  # what could not be written back is damaged too
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    if not isinstance(kept, dict):
        raise ValueError(f"{path} holds {type(kept).__name__}: expected a JSON object")
    return kept


@accepts(path=_real, change=rules.function)
def update(path: str | Path, change: Callable[[dict], object]) -> tuple[dict, Path | None]:
    """Let `change` alter the object in the file, alone; return it, and where a damaged file went.

    A missing folder is made. Raises OSError if the file cannot be read or written: it then is as
    it was.
    """
    aside = None
    with _held(path):
        try:
            kept = read(path)
        except ValueError:
            kept, aside = {}, _free(path)
            os.replace(path, aside)
        before = _text(kept)
        change(kept)
        if (text := _text(kept)) != before:
            try:
                _write(path, text)
            except OSError:
                if aside:
                    os.replace(aside, path)
                raise
    return kept, aside


def _text(kept) -> bytes:
    return json.dumps(kept, ensure_ascii=False, indent=1).encode()


def _free(path: Path) -> Path:
    """A name beside the file that nothing has: notes.unreadable, notes.unreadable-2, …"""
    names = (path.with_suffix(f".unreadable{f'-{n}' if n > 1 else ''}") for n in itertools.count(1))
    return next(name for name in names if not os.path.lexists(name))


def _write(path: Path, text: bytes) -> None:
    draft = path.with_name(f"{path.name}.draft")
    try:
        with open(draft, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if draft.read_bytes() != text:
            raise OSError(errno.ENOSPC, "it could not be written whole", str(path))
        os.replace(draft, path)
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


@contextlib.contextmanager
def _held(path: Path) -> Iterator[None]:
    """Hold the file against other threads and processes; TimeoutError after PATIENCE."""
    path.parent.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + PATIENCE
    with open(path.with_name(f"{path.name}.lock"), "ab", buffering=0) as lock:
        while not _lock(lock.fileno()):
            if time.monotonic() > end:
                raise TimeoutError(errno.ETIMEDOUT, "another process holds the lock", lock.name)
            time.sleep(0.005)
        yield


def _lock(handle: int) -> bool:
    """Lock the open file until it is closed; False if another holds it.

    True also where the file system knows no locks: a rare lost entry is better than none kept.
    """
    try:
        if os.name == "nt":
            import msvcrt
            os.lseek(handle, 0, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in TAKEN
    return True
