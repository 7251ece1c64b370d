"""The ledger: rows survive exactly, once each, whatever crashes or writes beside them."""

import csv
import errno
import io
import json
import os
import signal
import subprocess
import sys
import threading
from multiprocessing import get_context

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.scaling import ledger

ROW = {"key": "a0", "d_model": 16, "C": 1.5e9, "loss": 0.1 + 0.2, "device": 'a "fast" one, cpu'}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.csv"


def read(path) -> list[dict]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_survives_exactly(path):
    rows = [ROW, {**ROW, "key": "a1", "loss": 0.05 * 37**-0.75, "C": 1.23456789e18}]
    for row in rows:
        ledger.append(path, row)
    assert path.read_bytes().count(b"\n") == 3
    assert b"\r" not in path.read_bytes()
    assert [{name: type(ROW[name])(text) for name, text in row.items()}
            for row in read(path)] == rows
    assert ledger.keys(path) == {"a0", "a1"}


def test_no_file_and_an_empty_one_are_ledgers_not_begun(path):
    assert ledger.keys(path) == set()
    assert ledger.repair(path) == ""
    path.touch()
    assert ledger.keys(path) == set()
    ledger.append(path, ROW)
    assert read(path)[0]["key"] == "a0"


def test_a_row_is_there_once(path):
    for _ in range(2):
        ledger.append(path, ROW)
    assert len(read(path)) == 1


@pytest.mark.parametrize("torn", ["a1,16,1", "a1", '"', "é"])
def test_a_torn_last_line_is_cut_off_and_reported(path, torn):
    ledger.append(path, ROW)
    whole = path.read_bytes()
    path.write_bytes(whole + torn.encode())
    assert ledger.keys(path) == {"a0"}
    assert ledger.repair(path) == torn
    assert path.read_bytes() == whole
    assert ledger.repair(path) == ""


def test_a_torn_line_does_not_spoil_the_next_row(path):
    ledger.append(path, ROW)
    with open(path, "ab") as file:
        file.write(b"a1,16,1.5")
    ledger.append(path, {**ROW, "key": "a2"})
    assert [row["key"] for row in read(path)] == ["a0", "a2"]


def test_a_torn_header_is_written_anew(path):
    path.write_bytes(b"key,d_mo")
    ledger.append(path, ROW)
    assert [row["key"] for row in read(path)] == ["a0"]


def test_a_ledger_of_other_columns_is_refused_and_kept(path):
    path.write_bytes(b"key,loss\na0,1.5\n")
    with pytest.raises(ValueError, match="has the columns key,loss: expected key,d_model,C,loss"):
        ledger.append(path, {**ROW, "key": "a1"})
    assert path.read_bytes() == b"key,loss\na0,1.5\n"


def write_at_once(folder, name, barrier, n_ledgers, n_rows):
    """What each of the concurrent processes does: all begin each ledger together."""
    for number in range(n_ledgers):
        barrier.wait(timeout=120)
        for row in range(n_rows):
            ledger.append(folder / f"{number}.csv", {**ROW, "key": f"{name}-{row}"})


def test_two_processes_lose_no_row_and_write_one_header(tmp_path):
    context = get_context("spawn")
    barrier, n_ledgers, n_rows = context.Barrier(2), 30, 10
    workers = [context.Process(target=write_at_once,
                               args=(tmp_path, name, barrier, n_ledgers, n_rows))
               for name in "ab"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    expected = sorted(f"{name}-{row}" for name in "ab" for row in range(n_rows))
    for number in range(n_ledgers):
        text = (tmp_path / f"{number}.csv").read_text(encoding="utf-8")
        assert text.startswith("key,d_model,")
        assert text.count("d_model") == 1
        assert sorted(row["key"] for row in read(tmp_path / f"{number}.csv")) == expected


def test_a_second_writer_waits_while_the_first_begins_the_ledger(path, monkeypatch):
    second = threading.Thread(target=ledger.append, args=(path, {**ROW, "key": "a1"}))
    original = csv.DictWriter.writeheader

    def begin(writer):
        original(writer)
        if second.ident is None:
            second.start()
            second.join(timeout=0.3)  # time enough to write, were it not to wait

    monkeypatch.setattr(csv.DictWriter, "writeheader", begin)
    ledger.append(path, ROW)
    second.join()
    assert path.read_text(encoding="utf-8").count("d_model") == 1
    assert len(read(path)) == 2


def test_a_claim_holds_until_its_process_ends_even_by_kill_9(tmp_path):
    code = ("import sys, time; from helpers.scaling import ledger; "
            "held = ledger.claim(sys.argv[1]); print('held', flush=True); time.sleep(60)")
    lock = tmp_path / "trial.lock"
    other = subprocess.Popen([sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(BlockingIOError, match=r"another process holds .*trial\.lock"):
            ledger.claim(lock)
    finally:
        os.kill(other.pid, signal.SIGKILL if os.name != "nt" else signal.SIGTERM)
        other.wait()
        other.stdout.close()
    ledger.claim(lock).close()
    ledger.claim(lock).close()


def test_a_key_depends_on_every_value_and_on_the_code():
    config = {"lr": 1e-3, "seed": 0, "data": "prose"}
    base = ledger.key(config, "code")
    assert ledger.key(dict(reversed(config.items())), "code") == base
    others = [ledger.key({**config, **change}, code)
              for change, code in (({"lr": 1.0000001e-3}, "code"), ({"seed": 1}, "code"),
                                   ({"data": "code"}, "code"), ({}, "kode"))]
    assert len({base, *others}) == 5


def test_of_equal_runs_the_latest_counts():
    rows = pd.DataFrame({"N": [1, 1, 2], "seed": 0, "loss": [3.0, 2.0, 1.0]})
    assert ledger.latest(rows, "N", "seed").loss.tolist() == [2.0, 1.0]


def test_what_is_sealed_stays(tmp_path):
    path = tmp_path / "prediction.json"
    digest = ledger.seal(path, {"loss": 1.25})
    text = path.read_bytes()
    assert json.loads(text)["loss"] == 1.25
    assert json.loads(text)["sealed"] <= ledger.now()
    assert len(digest) == 64
    with pytest.raises(FileExistsError):
        ledger.seal(path, {"loss": 1.0})
    assert path.read_bytes() == text


# What else may happen to the file: full disks, spreadsheets, strangers


class ShortFile(io.FileIO):
    """A file on a full disk: it takes 46 bytes."""

    def write(self, content):
        return super().write(bytes(content)[:46])


class FullFile(io.FileIO):
    """A file on a disk that is full to the last byte."""

    def write(self, content):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(params=[ShortFile, FullFile])
def full_disk(request, monkeypatch):
    """A call, after which raw files are of a full disk."""
    def begin():
        monkeypatch.setattr(ledger, "open", lambda path, mode, buffering: request.param(
            path, mode.replace("b", "")), raising=False)
    return begin


def test_a_row_that_a_full_disk_takes_half_is_not_there(path, full_disk, monkeypatch):
    ledger.append(path, ROW)
    whole = path.read_bytes()
    full_disk()
    with pytest.raises(OSError, match=r"ledger\.csv"):
        ledger.append(path, {**ROW, "key": "a1", "device": "x" * 60})
    assert path.read_bytes() == whole
    assert ledger.keys(path) == {"a0"}
    monkeypatch.undo()
    ledger.append(path, {**ROW, "key": "a1"})
    assert ledger.keys(path) == {"a0", "a1"}


def test_a_new_ledger_on_a_full_disk_has_no_rows(path, full_disk):
    full_disk()
    with pytest.raises(OSError, match=r"ledger\.csv"):
        ledger.append(path, ROW)
    assert path.read_bytes() == b""


def test_a_seal_that_fails_half_way_can_be_set_again(tmp_path, full_disk, monkeypatch):
    path = tmp_path / "prediction.json"
    full_disk()
    with pytest.raises(OSError, match=r"prediction\.json"):
        ledger.seal(path, {"loss": 1.25, "why": "x" * 60})
    assert not path.exists()
    monkeypatch.undo()
    ledger.seal(path, {"loss": 1.25})
    assert json.loads(path.read_text(encoding="utf-8"))["loss"] == 1.25


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_what_a_spreadsheet_does_to_line_ends_is_read(path, end, mark, quote):
    lines = [f"{quote}key{quote},loss", f"a0,{quote}1.5{quote}", "", "a1,2.5", ""]
    raw = (mark + end.join(lines)).encode()
    path.write_bytes(raw)
    assert ledger.keys(path) == {"a0", "a1"}
    assert ledger.repair(path) == ""
    assert path.read_bytes() == raw
    ledger.append(path, {"key": "a2", "loss": 0.1})
    assert path.read_bytes() == raw + b"a2,0.1\n"
    assert pd.read_csv(path).key.tolist() == ["a0", "a1", "a2"]
    path.write_bytes(raw + b"a2")
    assert ledger.repair(path) == "a2"
    assert path.read_bytes() == raw


@pytest.mark.parametrize("last", ["a1,2.5", 'a1,"2.5"', "a1,2"])
def test_a_last_row_that_lacks_its_line_end_alone_is_kept(path, last):
    path.write_bytes(b"key,loss\na0,1.25\n" + last.encode())
    assert ledger.keys(path) == {"a0", "a1"}
    assert ledger.repair(path) == ""
    assert path.read_bytes() == b"key,loss\na0,1.25\n" + last.encode() + b"\n"
    path.write_bytes(b"key,loss\na0,1.25\n" + last.encode())
    ledger.append(path, {"key": "a2", "loss": 3.5})
    assert ledger.keys(path) == {"a0", "a1", "a2"}


@pytest.mark.parametrize("torn", [b'a1,"16', b'a1,"one\ntwo', b"\0\0\0", b"a1,1\0", b"a1,", b"a1",
                                  "a1,\"é".encode()[:-1], b'a1,"a ""b', b"a1,2026-02-0"])
def test_every_torn_end_is_cut_and_returned(path, torn):
    whole = b"key,finished\na0,2026-01-31\n"
    path.write_bytes(whole + torn)
    assert ledger.keys(path) == {"a0"}
    assert ledger.repair(path) == torn.decode("utf-8", "replace")
    assert path.read_bytes() == whole


@pytest.mark.parametrize(("raw", "says"), [
    (b"key;loss\na0;1,5\n", "the columns key;loss, where one 'key'"),
    (b"key\tloss\na0\t1.5\n", "where one 'key'"),
    (b"name,loss\na0,1.5\nto", "the columns name,loss, where one 'key'"),
    (b"Dear diary,\nit rained. And", "Dear diary"),
    (b"key,key\na0,a1\n", "no two alike"),
    (b"key,loss\na0,1.5,7\n", "3 fields in the row of 'a0', where 2 must be"),
    (b"key,loss\na0\na1,2.5\n", "1 fields in the row of 'a0'"),
    (b"key,loss\na0,\0\0\na1,2.5\n", "NUL bytes"),
    (b'key,loss\na0,"1.5\na1,2.5\na2,3.5\n', "a quotation mark that opens and does not close"),
    ("key,device\na0,Müller\n".encode("latin-1"), "not UTF-8"),
    ("key,loss\na0,1.5\n".encode("utf-16"), "not UTF-8"),
])
def test_what_is_no_ledger_is_refused_with_a_cure_and_left_alone(path, raw, says):
    path.write_bytes(raw)
    for call in (ledger.repair, ledger.keys, lambda p: ledger.append(p, ROW)):
        with pytest.raises(ValueError, match=r"ledger\.csv has ") as refusal:
            call(path)
        assert says in str(refusal.value)
        assert "save it again as CSV, in UTF-8 and with commas" in str(refusal.value)
        assert path.read_bytes() == raw


def test_a_line_without_end_that_is_no_header_is_left_alone(path):
    path.write_bytes(b'{"not": "a ledger"}')
    assert ledger.repair(path) == ""
    assert ledger.keys(path) == set()
    with pytest.raises(ValueError, match="is no ledger: move it away"):
        ledger.append(path, ROW)
    assert path.read_bytes() == b'{"not": "a ledger"}'


def test_a_header_alone_is_a_ledger_without_rows(path):
    header = ",".join(ROW).encode()
    for raw in (header, header + b"\n", b"\xef\xbb\xbf" + header + b"\r\n", b""):
        path.write_bytes(raw)
        assert (ledger.keys(path), ledger.repair(path)) == (set(), "")
        assert path.read_bytes() == raw
        ledger.append(path, ROW)
        assert ledger.keys(path) == {"a0"}


FIELD = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=8)
VALUE = st.one_of(FIELD, st.integers(), st.floats(allow_nan=False), st.booleans())
TIME = st.integers(0, 9).map("2026-0{}".format)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(rows=st.lists(st.tuples(FIELD.filter(bool), VALUE, TIME), min_size=1, max_size=4,
                     unique_by=lambda row: row[0]), data=st.data())
def test_any_rows_survive_and_a_cut_anywhere_loses_no_row_before_it(rows, data, tmp_path_factory):
    path, ends = tmp_path_factory.mktemp("any") / "ledger.csv", []
    rows = [dict(zip(("key", "value", "finished"), row, strict=True)) for row in rows]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _handle: None)  # slow on some disks
        for row in rows:
            ledger.append(path, row)
            ends.append(path.stat().st_size)
    assert read(path) == [{name: str(value) for name, value in row.items()} for row in rows]
    cut = data.draw(st.integers(ends[0], ends[-1]))
    path.write_bytes(path.read_bytes()[:cut])
    ledger.repair(path)
    n_whole = sum(end - 1 <= cut for end in ends)  # the line end alone is put back
    assert read(path) == [{n: str(v) for n, v in row.items()} for row in rows[:n_whole]]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(raw=st.one_of(st.binary(max_size=40), st.text('key,a1";\n\r', max_size=40).map(str.encode)))
def test_any_bytes_are_read_or_refused_and_never_lost_when_refused(raw, tmp_path_factory):
    path = tmp_path_factory.mktemp("any") / "ledger.csv"
    path.write_bytes(raw)
    try:
        before = ledger.keys(path)
    except ValueError:
        with pytest.raises(ValueError, match=r"ledger\.csv has "):
            ledger.repair(path)
        assert path.read_bytes() == raw
    else:
        torn = ledger.repair(path)
        assert ledger.keys(path) == before
        assert len(path.read_bytes()) >= len(raw) - len(torn.encode())
        assert ledger.repair(path) == ""


@pytest.mark.parametrize(("row", "says"), [
    ({"loss": 1.0}, "a text under 'key'"), ({"key": 7}, "a text under 'key'"),
    ({"key": "a", "loss": [1, 2]}, "got list under 'loss'"),
    ({"key": "a", 5: 1}, "expected text"), ({"key": "a", "d": "one\0two"}, "NUL"),
    ({"key": "a", "d": "one\rtwo"}, "carriage return"), ({"key": "a", "d": "\ud800"}, "surrogate"),
    (["key"], "expected Mapping"),
])
def test_a_row_that_no_table_can_hold_is_refused(path, row, says):
    with pytest.raises((TypeError, ValueError), match=says):
        ledger.append(path, row)
    assert not path.exists()


def test_a_key_takes_numpy_s_numbers_as_python_s():
    plain = {"lr": 0.5, "n": 3, "tokens": [1, 2], "tied": True, "x": {"y": 1}}
    numpy = {"lr": np.float64(0.5), "n": np.int32(3), "tokens": np.array([1, 2]),
             "tied": np.bool_(True), "x": {"y": np.uint8(1)}}
    assert ledger.key(numpy, "r") == ledger.key(plain, "r")


@pytest.mark.parametrize("config", [{"lr": float("nan")}, {"lr": np.inf}, {1: 2}, {"x": {1: 2}},
                                    {"x": {1, 2}}, {"x": [object()]}, [("lr", 1)], None])
def test_what_has_no_one_name_gets_no_key_and_no_seal(config, tmp_path):
    for call in (lambda: ledger.key(config, "r"), lambda: ledger.seal(tmp_path / "s", config)):
        with pytest.raises((TypeError, ValueError), match=r"(config|content)="):
            call()
    assert not (tmp_path / "s").exists()


def test_the_time_of_a_seal_cannot_be_given(tmp_path):
    with pytest.raises(ValueError, match="no 'sealed'"):
        ledger.seal(tmp_path / "s.json", {"sealed": "1999-01-01T00:00:00+00:00"})


def test_a_place_that_cannot_be_locked_or_written_says_so(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="trial"):
        ledger.claim(tmp_path / "file" / "trial.lock")
    if os.name != "nt":
        import fcntl

        def none(_handle, _how):
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "flock", none)
        with pytest.raises(OSError, match="No locks available") as refusal:
            ledger.claim(tmp_path / "trial.lock")
        assert not isinstance(refusal.value, BlockingIOError)  # nobody holds it: no use to wait


def test_columns_that_are_not_there_are_named():
    with pytest.raises(ValueError, match="expected columns of the rows"):
        ledger.latest(pd.DataFrame({"N": [1]}), "n")
