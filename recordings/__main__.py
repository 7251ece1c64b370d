"""Record a table again: `make record TABLE=name`; a bare `make record` lists them.

Rows that a table has are kept, so a recording can be interrupted at will and called again. What
stands after the name goes to its script: `make record TABLE=family RECORD_ARGS="128 64"`.
"""

import sys
from importlib import import_module

from helpers import data
from recordings import TABLES, listing


def main(words: list[str]) -> int:
    """Run the script of the table named first with the words after it; return the exit status."""
    try:
        return record(words)
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped: the rows that are done stay; call again to go on\n")
        return 130
    except (OSError, ValueError, ExceptionGroup) as error:
        sys.stderr.write(f"\n{error}\n")
        return 1


def record(words: list[str]) -> int:
    """What `main` does, with its errors."""
    if words == ["list"]:
        sys.stdout.write(listing() + "\n")
        return 0
    if not words or words[0] not in TABLES:
        sys.stderr.write(listing() + "\n")
        said = f"there is no table {words[0]}" if words else "no table was named"
        sys.stderr.write(f"{said}: expected make record TABLE=… with a name from this list\n")
        return 2
    table = TABLES[words[0]]
    path = data.DATA / "sweeps" / table.file
    before = path.read_bytes() if path.is_file() else b""
    done = import_module(f"recordings.{table.script}").main([*table.words.split(), *words[1:]])
    if done == 0 and path.is_file():
        sys.stderr.write(f"\n{table.file} has all these rows already: nothing was recorded\n"
                         if path.read_bytes() == before else
                         "\nnow run: python -m helpers.data --seal\n")
    return done


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
