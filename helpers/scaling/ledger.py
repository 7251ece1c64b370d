"""The ledger: a table of finished runs on disk, one row each, appended whole and keyed by a hash.

Also sealed files: written once, with the time and a hash, so that nobody can move them later.
"""

import csv
import errno
import hashlib
import io
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.foundations import rules
from helpers.foundations.accepts import accepts, need
from helpers.scaling.rows import whole_rows

FILE = rules.a(str, os.PathLike)


def _plain(value):
    """A value as JSON has it, numpy's scalars and arrays as Python's. Raises for any other."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        if strange := [name for name in value if not isinstance(name, str)]:
            raise TypeError(f"expected texts as names, got {strange[0]!r}")
        return {name: _plain(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"expected finite numbers, got {value}")
    if value is not None and not isinstance(value, str | int | float):
        raise TypeError(f"expected plain values, got {type(value).__name__}")
    return value


def _mapping(value) -> dict:
    """Rule: a mapping of names to plain values."""
    return _plain(rules.a(Mapping)(value))


def _row(row: Mapping) -> dict:
    """Rule: a row of texts, numbers or None under texts, with a text under `key`."""
    row = dict(rules.a(Mapping)(row))
    if not isinstance(row.get("key"), str) or not row["key"]:
        raise ValueError("expected a row with a text under 'key'")
    for name, value in row.items():
        if not isinstance(value, str | int | float | np.integer | np.floating | np.bool_ | None):
            raise TypeError(f"expected texts, numbers or None, got {type(value).__name__} "
                            f"under {name!r}")
        if {"\0", "\r"} & {*rules.text(name), *rules.text(str(value))}:
            raise ValueError(f"expected no NUL and no carriage return, got one under {name!r}")
    return row


@accepts(config=_mapping, recipe=rules.text)
def key(config: Mapping, recipe: str) -> str:
    """16 hex digits that stand for a run: its configuration (plain values) and its recipe.

    The recipe is a name for what the code computes, not for how it is written: it stays when code
    moves or is said better, and changes when the numbers do (a test compares them). numpy's
    numbers count as Python's. Raises ValueError for NaN and infinities, TypeError for what JSON
    does not have.
    """
    text = json.dumps(config, sort_keys=True) + recipe
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@accepts(path=FILE, row=_row)
def append(path: str | Path, row: Mapping) -> None:
    """Add one row with one write, flushed to the disk; the first row brings the header.

    The file is locked meanwhile, so rows of several processes never mix, and a row whose key is
    there already is not added again. A line torn by an earlier crash is cut off first. Raises
    ValueError if the file has other columns than the row or is no ledger, and OSError if the row
    does not go to the disk whole, a full one say; the rows that stood there stay as they were.
    """
    line = io.StringIO(newline="")
    writer = csv.DictWriter(line, list(row), lineterminator="\n")
    with open(path, "a+b", buffering=0) as file:
        _lock(file.fileno(), path)
        columns, rows, torn = _mend(file, path)
        if not columns:
            writer.writeheader()
            if not line.getvalue().encode().startswith(torn.rstrip(b"\0")):
                raise ValueError(f"{path} begins with {torn[:60]!r} and is no ledger: move it away")
            file.truncate(0)
        elif columns != list(row):
            raise ValueError(f"{path} has the columns {','.join(columns)}: expected "
                             f"{','.join(row)}")
        if row["key"] not in rows:
            writer.writerow(row)
            _put(file, line.getvalue().encode(), path)


@accepts(path=FILE)
def repair(path: str | Path) -> str:
    """Cut off a last row that a crash left without its end, and return it; "" if all is whole.

    A last row that lacks no more than its line end gets it. Raises ValueError, before anything is
    written, if the file is no ledger (see `keys`).
    """
    if not Path(path).exists():
        return ""
    with open(path, "r+b", buffering=0) as file:
        _lock(file.fileno(), path)
        columns, _, torn = _mend(file, path)
    return torn.decode("utf-8", "replace") if columns else ""


def _mend(file: io.FileIO, path) -> tuple[list[str], set[str], bytes]:
    """What `whole_rows` finds in the file, after its end was made whole."""
    file.seek(0)
    raw = file.read()
    columns, have, torn = whole_rows(raw, path)
    if columns and torn:
        file.truncate(len(raw) - len(torn))
    elif columns and raw[-1:] not in (b"\r", b"\n"):
        _put(file, b"\n", path)
    return columns, have, torn


def _put(file: io.FileIO, content: bytes, path) -> None:
    """Write all at the file's end, to the disk, or nothing: OSError then."""
    length = file.seek(0, os.SEEK_END)
    try:
        if (written := file.write(content)) != len(content):
            raise OSError(errno.ENOSPC, f"only {written} of {len(content)} bytes were written")
        os.fsync(file.fileno())
    except BaseException as error:
        file.truncate(length)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


@accepts(path=FILE)
def claim(path: str | Path) -> io.FileIO:
    """An open file that no other process can claim until it is closed, or its process ends.

    Raises BlockingIOError if another process holds it, OSError if the disk can not hold locks.
    """
    file = open(path, "ab", buffering=0)
    try:
        _lock(file.fileno(), path, wait=False)
    except OSError:
        file.close()
        raise
    return file


def _lock(handle: int, path, wait: bool = True) -> None:
    """Hold the open file against other processes until it is closed."""
    try:
        if os.name == "nt":
            import msvcrt
            os.lseek(handle, 2**30, os.SEEK_SET)  # one byte that no ledger reaches
            msvcrt.locking(handle, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        else:
            import fcntl
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if not wait and error.errno in (errno.EAGAIN, errno.EACCES):
            raise BlockingIOError(f"another process holds {path}") from error
        raise OSError(error.errno, f"cannot be locked ({error.strerror})", str(path)) from error


@accepts(path=FILE)
def keys(path: str | Path) -> set[str]:
    """The keys of the rows that stand in the ledger, whole; empty if there is no file.

    Line ends of any system, a mark of UTF-8 and quoted fields are read. Raises ValueError, naming
    file and cure, if the columns have no `key` between commas, or a row has more or fewer fields.
    """
    return whole_rows(Path(path).read_bytes(), path)[1] if Path(path).exists() else set()


@accepts(rows=rules.a(pd.DataFrame), config=rules.each(rules.text, least=1),
         needs=need(lambda rows, config: {*config} <= {*rows.columns}, "columns of the rows"))
def latest(rows: pd.DataFrame, *config: str) -> pd.DataFrame:
    """Of rows with equal values in the `config` columns, the last: code changes make new rows."""
    return rows.drop_duplicates(list(config), keep="last").reset_index(drop=True)


@accepts(path=FILE, content=_mapping,
         needs=need(lambda content: "sealed" not in content, "no 'sealed': the time stands there"))
def seal(path: str | Path, content: Mapping) -> str:
    """Write `content` as JSON with the time (UTC), once; return the file's sha256.

    Raises FileExistsError if the file is there: what is sealed stays. OSError, from a full disk
    say, leaves no file. Values as for `key`.
    """
    text = json.dumps({"sealed": now(), **content}, indent=1) + "\n"
    file = open(path, "xb", buffering=0)
    try:
        with file:
            _put(file, text.encode(), path)
    except BaseException:
        Path(path).unlink(missing_ok=True)
        raise
    return hashlib.sha256(text.encode()).hexdigest()


@accepts()
def now() -> str:
    """The time in UTC, to the second: 2026-01-31T12:00:00+00:00."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Status:
    """How far a sweep is: rows in the ledger, rows wanted, an estimate, and what happened."""

    done: int
    total: int
    seconds_left: float  # NaN before the first new row
    note: str = ""

    def __str__(self) -> str:
        full = round(20 * self.done / max(self.total, 1))
        left = "" if self.seconds_left != self.seconds_left else (
            f" · {self.seconds_left // 60:.0f}:{self.seconds_left % 60:02.0f} left")
        return f"[{'#' * full}{'-' * (20 - full)}] {self.done} of {self.total} runs{left}"
