"""A learner's answers: made plain, compared, told in a line; and the file that loses nothing."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.foundations import answers

ROOT = Path(__file__).parents[2]

# answers


@pytest.mark.parametrize("half", [
    0.5, np.float32(0.5), Decimal("0.5"), Fraction(1, 2), torch.tensor(0.5), 0.5 + 0j,
    torch.tensor(0.5, requires_grad=True), torch.tensor(0.5, dtype=torch.bfloat16), np.array(0.5)])
def test_a_number_of_any_type_is_the_same_number(half):
    assert answers.difference(answers.plain(half), answers.plain(0.5), 1e-4, 0) == ""
    assert "got 0.5" in answers.difference(answers.plain(half), answers.plain(1), 1e-4, 0)


@pytest.mark.parametrize("values", [
    [1, 2.0], (1, 2), range(1, 3), pd.Series([1, 2]), pd.Index([1.0, 2.0]), np.float16([1, 2]),
    [torch.tensor(1.0), np.int8(2)], [Decimal(1), True + 1]])
def test_a_row_of_any_type_is_the_same_row(values):
    values = list(values) if isinstance(values, range) else values
    assert answers.difference(answers.plain(values), np.array([1.0, 2.0]), 1e-4, 0) == ""


def test_ragged_rows_are_compared_part_by_part():
    ragged = answers.plain([[1, 2], [3]])
    assert answers.difference(answers.plain([[1, 2], [4]]), ragged, 0, 0) == (
        "got 4 at index 0, expected 3")
    assert answers.difference(answers.plain([[1], [3, 2]]), ragged, 0, 0) == (
        "got an array of shape (1,), expected an array of shape (2,)")


def test_text_is_text_whatever_its_class():
    assert answers.difference(answers.plain(np.str_("ab")), "ab", 0, 0) == ""
    assert answers.difference(answers.plain(b"ab"), "ab", 0, 0) == "got b'ab', expected 'ab'"


scalars = st.one_of(st.floats(), st.integers(), st.text(max_size=3), st.none(), st.booleans())
rows = st.lists(scalars, max_size=3)
results = st.one_of(scalars, rows, st.tuples(rows, scalars), st.dictionaries(st.integers(), rows,
                                                                             max_size=2))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(results, results)
def test_a_result_is_no_different_from_itself_and_a_difference_is_one_line(one, other):
    one, other = answers.plain(one), answers.plain(other)
    with np.errstate(all="ignore"):
        assert answers.difference(one, one, 0, 0) == ""
        assert len(answers.difference(one, other, 0, 0).splitlines()) <= 1


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.text(max_size=500))
def test_whatever_an_error_says_is_one_short_line(text):
    said = answers.words_of(ValueError(text))
    assert said.startswith("ValueError: ")
    assert len(said) <= 320
    assert len(said.splitlines()) == 1


# the file


def add(name, value=1):
    return lambda kept: kept.update({name: value})


def test_what_is_kept_is_read_again_and_no_file_holds_nothing(tmp_path):
    file = tmp_path / "new folder" / "notes.json"
    assert answers.read(file) == {}
    assert answers.update(file, add("α", "✓")) == ({"α": "✓"}, None)
    assert answers.read(file) == {"α": "✓"}
    assert "✓" in file.read_text(encoding="utf-8")


def test_what_does_not_change_is_not_written(tmp_path):
    file = tmp_path / "notes.json"
    assert answers.update(file, dict) == ({}, None)
    assert not file.exists()


DAMAGED = {"half": b'{"a": ', "list": b"[]", "null": b"null", "text": b'"a"', "empty": b"",
           "bytes": bytes(range(256)), "wide": '{"a": 1}'.encode("utf-16"),
           "deep": b"[" * 100_000 + b"]" * 100_000,
           "deep inside": b'{"a":' * 5000 + b"1" + b"}" * 5000,
           "half a pair": b'{"a": "\\ud800"}', "many digits": b'{"a": ' + b"1" * 5000 + b"}",
           "long": b'{"a": "' + b"x" * answers.LARGEST + b'"}'}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_refused_by_name_and_kept_aside(text, tmp_path):
    file = tmp_path / "notes.json"
    file.write_bytes(text)
    with pytest.raises(ValueError, match=r"notes\.json"):
        answers.read(file)
    assert file.read_bytes() == text
    kept, aside = answers.update(file, add("b"))
    assert kept == answers.read(file) == {"b": 1}
    assert aside.read_bytes() == text


@pytest.mark.parametrize("text", [b'\xef\xbb\xbf{"a": 1}', b'{"a": NaN}', b'{"a": [{"b": 1e999}]}',
                                  b'{"a":1,\r\n "a":2}'])
def test_what_can_be_read_is_carried_on(text, tmp_path):
    file = tmp_path / "notes.json"
    file.write_bytes(text)
    before = answers.read(file)
    after, aside = answers.update(file, add("b"))
    assert aside is None
    assert after.keys() == {"a", "b"} == answers.read(file).keys()
    assert repr(answers.read(file)["a"]) == repr(before["a"])


def test_an_older_damaged_file_is_not_overwritten(tmp_path):
    file, asides = tmp_path / "notes.json", []
    for text in ("one", "two", "three"):
        file.write_text(text)
        asides.append(answers.update(file, add("a"))[1])
    assert [a.read_text() for a in asides] == ["one", "two", "three"]
    assert [a.name for a in asides] == [
        "notes.unreadable", "notes.unreadable-2", "notes.unreadable-3"]


def short(file, mode, buffering=-1, **kwargs):
    """`open`, of a disk that takes half of what is written and does not say so."""
    opened = open(file, mode, buffering, **kwargs)
    if mode != "wb":
        return opened

    class Half:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            opened.close()

        def write(self, text):
            return opened.write(text[:len(text) // 2])

        flush, fileno = opened.flush, opened.fileno

    return Half()


def raising(number):
    def call(*args, **kwargs):
        raise OSError(number, os.strerror(number))
    return call


FAULTS = {"short": ("open", short), "full": ("os.fsync", raising(errno.ENOSPC)),
          "full at once": ("open", raising(errno.ENOSPC)),
          "read-only": ("open", raising(errno.EROFS)),
          "not replaced": ("os.replace", raising(errno.EACCES))}


@pytest.mark.parametrize("content", ['{"a": 1}', "damaged"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_failed_write_leaves_all_as_it_was(fault, content, tmp_path, monkeypatch):
    file = tmp_path / "notes.json"
    file.write_text(content)
    name, broken = FAULTS[fault]
    with monkeypatch.context() as patch:
        if name == "open":
            patch.setattr(answers, "open", broken, raising=False)
        else:
            patch.setattr(answers.os, name.split(".")[1], broken)
        with pytest.raises(OSError, match=r".") as caught:
            answers.update(file, add("b"))
        assert caught.value.errno
    assert file.read_text() == content
    assert {f.name for f in tmp_path.iterdir()} <= {"notes.json", "notes.json.lock"}
    assert answers.update(file, add("b"))[0]["b"] == 1


def test_what_is_no_file_is_refused_and_left_alone(tmp_path):
    (tmp_path / "folder").mkdir()
    for path in [tmp_path / "folder", *(p for p in [Path("/dev/null")] if p.exists())]:
        beside = set(path.parent.glob(f"{path.name}*"))
        for act in (answers.read, lambda p: answers.update(p, add("a"))):
            with pytest.raises(OSError, match="it is not a file"):
                act(path)
        assert set(path.parent.glob(f"{path.name}*")) == beside
    (tmp_path / "text").write_text("a")
    with pytest.raises(OSError, match="text"):
        answers.update(tmp_path / "text" / "notes.json", add("a"))


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_a_link_stays_a_link(tmp_path):
    file, link = tmp_path / "notes.json", tmp_path / "link.json"
    link.symlink_to(file)
    answers.update(link, add("a"))
    assert link.is_symlink()
    assert answers.read(file) == {"a": 1}


MANY = """
import sys
from helpers.foundations import answers
answers.PATIENCE = 300
for i in range(20):
    answers.update(sys.argv[1], lambda kept: kept.update({f"{sys.argv[2]}.{i}": 1}))
"""


def test_of_several_processes_and_threads_none_loses_an_entry(tmp_path, monkeypatch):
    monkeypatch.setattr(answers, "PATIENCE", 300)
    file = str(tmp_path / "notes.json")
    processes = [subprocess.Popen([sys.executable, "-c", MANY, file, f"process {i}"], cwd=ROOT)
                 for i in range(3)]
    threads = [threading.Thread(target=lambda i=i: [answers.update(file, add(f"thread {i}.{n}"))
                                                    for n in range(20)]) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert len(answers.read(file)) == 6 * 20


HOLD = """
import sys, time
from pathlib import Path
from helpers.foundations import answers
with answers._held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_lock_ends_with_its_process_and_nobody_waits_for_ever(tmp_path, monkeypatch):
    file = tmp_path / "notes.json"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(file)], stdout=subprocess.PIPE,
                              cwd=ROOT)
    try:
        assert holder.stdout.readline().strip() == b"held"
        monkeypatch.setattr(answers, "PATIENCE", 0.05)
        with pytest.raises(TimeoutError, match="another process holds the lock"):
            answers.update(file, add("a"))
        file.with_name("notes.json.draft").write_text("{half")  # as a killed writer leaves it
    finally:
        holder.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
        holder.wait()
        holder.stdout.close()
    monkeypatch.setattr(answers, "PATIENCE", 300)
    assert answers.update(file, add("a"))[0] == {"a": 1}
    assert json.loads(file.read_text()) == {"a": 1}
