"""The ledger: rows survive exactly, once each, whatever crashes or writes beside them."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
from multiprocessing import get_context

import pandas as pd
import pytest

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
