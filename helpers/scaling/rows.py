"""The bytes of a ledger: its columns, the keys of its whole rows, and a row that a crash tore."""

import csv
import io
import os
import re

from helpers.foundations import rules
from helpers.foundations.accepts import accepts

NUMBER = re.compile(r"[-+]?[\d.]+(?:e[-+]?\d+)?", re.IGNORECASE)
FIELD = rb'(?:"(?:[^"]++|"")*+"[^,\r\n]*+|[^",\r\n][^,\r\n]*+|)'
FIELDS = re.compile(FIELD + rb"(?:," + FIELD + rb")*+")
LINES = re.compile(rb"(?:" + FIELDS.pattern + rb"(?:\r\n?|\n))*+")


@accepts(raw=rules.a(bytes), path=rules.a(str, os.PathLike))
def whole_rows(raw: bytes, path) -> tuple[list[str], set[str], bytes]:
    """Columns, keys of the whole rows, and what stands torn behind them.

    No columns: not even the header is whole. Line ends of any system are read, quoted fields, and
    the mark that some programs put before UTF-8. Raises ValueError, with `path` and the cure, for
    what is no ledger.
    """
    start = 3 * raw.startswith(b"\xef\xbb\xbf")
    end = LINES.match(raw, start).end()
    whole, torn, fault = raw[start:end], raw[end:], ""
    try:
        columns, *rows = _split(whole) or [[]]
    except UnicodeDecodeError as error:
        fault = f"bytes that are not UTF-8 ({error.reason} at byte {start + error.start})"
    except csv.Error as error:
        fault = f"a field that cannot be read ({error})"
    else:
        fault = columns and _fault(columns, rows, whole, torn)
    if fault:
        raise ValueError(f"{path} has {fault}. Nothing was written: mend it, or save it again as "
                         "CSV, in UTF-8 and with commas between the columns")
    if columns and (last := _last(torn, columns, rows)):
        rows, torn = [*rows, last], b""
    return columns, {row[columns.index("key")] for row in rows}, torn


def _split(raw: bytes) -> list[list[str]]:
    rows = csv.reader(io.StringIO(raw.decode("utf-8"), newline=""))
    return [row for row in rows if any(row)]


def _fault(columns: list[str], rows: list[list[str]], whole: bytes, torn: bytes) -> str:
    """What keeps these from being a ledger's rows; "" if nothing does."""
    if "key" not in columns or len({*columns}) < len(columns):
        return f"the columns {','.join(columns)}, where one 'key' and no two alike must be"
    if b"\0" in whole:
        return "NUL bytes in its rows"
    if odd := next((row for row in rows if len(row) != len(columns)), None):
        return f"{len(odd)} fields in the row of {odd[0]!r}, where {len(columns)} must be"
    if any(line.count(b",") >= len(columns) - 1 for line in torn.splitlines()[1:]):
        return "a quotation mark that opens and does not close"
    return ""


def _last(torn: bytes, columns: list[str], rows: list[list[str]]) -> list[str]:
    """The fields of a last row that lacks its line end and nothing else; none if it is torn.

    It has all fields then. Its last one may be cut: that shows if it is empty, or if those above
    are texts of one length, as times are, and it is shorter.
    """
    if not FIELDS.fullmatch(torn) or b"\0" in torn:
        return []
    try:
        last, = _split(torn)
    except ValueError:
        return []
    above = {len(row[-1]) for row in rows} or {1}
    alike = rows and len(above) == 1 and not NUMBER.fullmatch(rows[-1][-1])
    shortest = min(above) if alike else min(1, *above)
    return last if len(last) == len(columns) and len(last[-1]) >= shortest else []
