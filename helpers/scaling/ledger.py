"""The ledger: a table of finished runs on disk, one row each, appended whole and keyed by a hash.

Also sealed files: written once, with the time and a hash, so that nobody can move them later.
"""

import csv
import hashlib
import io
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd


def key(config: Mapping, recipe: str) -> str:
    """16 hex digits that stand for a run: its configuration (plain values) and its recipe.

    The recipe is a name for what the code computes, not for how it is written: it stays when code
    moves or is said better, and changes when the numbers do (a test compares them).
    """
    text = json.dumps(dict(config), sort_keys=True) + recipe
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def append(path: str | Path, row: Mapping) -> None:
    """Add one row with one write, flushed to the disk; the first row brings the header.

    The file is locked meanwhile, so rows of several processes never mix, and a row whose key is
    there already is not added again. A line torn by an earlier crash is cut off first. Raises
    ValueError if the file has other columns than the row.
    """
    line = io.StringIO(newline="")
    writer = csv.DictWriter(line, list(row), lineterminator="\n")
    with open(path, "a+b", buffering=0) as file:
        _lock(file.fileno())
        _cut(file)
        file.seek(0)
        header = file.readline().decode().strip()
        if not header:
            writer.writeheader()
        elif header != ",".join(row):
            raise ValueError(f"{path} has the columns {header}: expected {','.join(row)}")
        if row["key"] not in keys(path):
            writer.writerow(row)
            file.write(line.getvalue().encode())
            os.fsync(file.fileno())


def repair(path: str | Path) -> str:
    """Cut off a last line that a crash left without its end, and return it; "" if all is whole."""
    if not Path(path).exists():
        return ""
    with open(path, "r+b", buffering=0) as file:
        _lock(file.fileno())
        return _cut(file)


def _cut(file: io.FileIO) -> str:
    file.seek(0)
    whole, end, torn = file.read().rpartition(b"\n")
    if torn:
        file.truncate(len(whole) + len(end))
    return torn.decode("utf-8", "replace")


def claim(path: str | Path) -> io.FileIO:
    """An open file that no other process can claim until it is closed, or its process ends.

    Raises BlockingIOError if another process holds it.
    """
    file = open(path, "ab", buffering=0)
    try:
        _lock(file.fileno(), wait=False)
    except OSError as error:
        file.close()
        raise BlockingIOError(f"another process holds {path}") from error
    return file


def _lock(handle: int, wait: bool = True) -> None:
    """Hold the open file against other processes until it is closed."""
    if os.name == "nt":
        import msvcrt
        os.lseek(handle, 2**30, os.SEEK_SET)  # one byte that no ledger reaches
        msvcrt.locking(handle, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
    else:
        import fcntl
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def keys(path: str | Path) -> set[str]:
    """The keys of the rows that stand in the ledger, whole; empty if there is no file."""
    if not Path(path).exists():
        return set()
    whole = Path(path).read_bytes().rpartition(b"\n")[0].decode()
    return {row["key"] for row in csv.DictReader(io.StringIO(whole))}


def latest(rows: pd.DataFrame, *config: str) -> pd.DataFrame:
    """Of rows with equal values in the `config` columns, the last: code changes make new rows."""
    return rows.drop_duplicates(list(config), keep="last").reset_index(drop=True)


def seal(path: str | Path, content: Mapping) -> str:
    """Write `content` as JSON with the time (UTC), once; return the file's sha256.

    Raises FileExistsError if the file is there: what is sealed stays.
    """
    text = json.dumps({"sealed": now(), **content}, indent=1) + "\n"
    with open(path, "x", encoding="utf-8", newline="\n") as file:
        file.write(text)
    return hashlib.sha256(text.encode()).hexdigest()


def now() -> str:
    """The time in UTC, to the second: 2026-01-31T12:00:00+00:00."""
    return datetime.now(UTC).isoformat(timespec="seconds")
