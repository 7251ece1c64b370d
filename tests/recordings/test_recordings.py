"""`make record`: the recorded rows are valid for today's code, and a wrong word says so."""

import ast
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from helpers import data
from helpers.runtime import ROOT
from helpers.scaling import ledger, sweeps
from recordings import TABLES, distillation, family, listing, pruning, quantization
from recordings import __main__ as command
from recordings import sweeps as recorded

ASKED = {  # table: its recipe, and the columns that were asked for
    "quantization.csv": (quantization.RECIPE, ("method", "d_model", "n_steps", "n_bits", "group",
                         "tune_steps", "cache", "input_bits", "seed", "n_windows")),
    "distillation.csv": (distillation.RECIPES["distillation.csv"], (
        "what", "d_model", "n_steps", "teacher", "weight", "temperature", "pool", "seed")),
    "stack.csv": (distillation.RECIPES["stack.csv"], (
        "d_model", "n_steps", "density", "format", "seed")),
    "codec.csv": (distillation.RECIPES["codec.csv"], ("what", "format", "n_streams", "text_bytes")),
}


def keys_of(name: str) -> set[str]:
    return ledger.keys(data.DATA / "sweeps" / name)


@pytest.mark.parametrize("name", recorded.SWEEPS)
def test_no_run_of_a_recorded_sweep_would_be_trained_again(name):
    file, trials = recorded.SWEEPS[name]
    have = keys_of(f"{file}.csv")
    assert [sweeps.missing(replace(t, dtype="bfloat16"), have) for t in trials()] == [
        () for _ in trials()]


@pytest.mark.parametrize("name", ASKED)
def test_a_recorded_row_has_the_key_of_todays_recipe(name):
    recipe, columns = ASKED[name]
    rows = pd.read_csv(data.path(f"sweeps/{name}"), keep_default_na=False, dtype={"group": str})
    for row in rows.to_dict("records"):
        asked = {c: int(row[c]) if c == "group" and row[c].isdigit() else row[c] for c in columns}
        assert ledger.key(asked, recipe) == row["key"], asked


def test_no_model_of_the_family_and_no_pruned_one_would_be_made_again():
    assert {family.key(family.config(d, n), d)
            for d in family.LAYERS for n in family.lengths(d)} == keys_of("family.csv")
    assert {pruning.key_of(row) for row in pruning.wanted()} == keys_of("pruning.csv")


def test_the_list_names_every_table_and_every_table_is_in_the_list():
    files = {f.name for f in (data.DATA / "sweeps").glob("*.csv")}
    assert {table.file for table in TABLES.values() if table.file} == files
    for name, entry in data.manifest().items():
        if "make record" in entry["command"]:
            assert entry["command"].removeprefix("make record TABLE=") in TABLES, name
    assert all(name in listing() for name in TABLES)


def call(words: list[str]) -> int:
    """The exit status of `python -m recordings`."""
    try:
        return command.main(words)
    except SystemExit as ended:
        return ended.code


@pytest.mark.parametrize(("words", "says"), [
    ([], "no table was named"), (["prunning"], "there is no table prunning"), (["LIST"], "prose"),
    (["pruning", "prunning"], "prunning: expected one of untuned, tuned, large, backwards"),
    (["family", "7"], "7: expected one of 128, 96, 64, 48, 32, 320"), (["family", "x"], "x: exp"),
    (["prose", "--engin"], "engin"), (["prose", "--engine", "spark"], "spark"),
    (["prose", "language"], "language"), (["prose", "--workers", "x"], "x: expected a whole"),
    *((["scan", f"--workers={n}"], f"{n}: expected a whole number, 1 or more")
      for n in ("0", "-1", "1.5", "", "²")),
    (["quantization", "wieghts"], "wieghts: expected one of weights"), (["quantization", "7"], "7"),
    (["quantization", "--windows", "0"], "0: expected a whole number"),
    (["quantization", "--tune-steps=-3"], "-3: expected a whole number"),
    (["quantization", "--folder", "nowhere"], "nowhere: expected a folder"),
    (["quantization", "tuned", "64"], "tuned is recorded at the widths [128] alone"),
    (["quantization", "decode", "32"], "at the widths [64, 128, 320]"),
    (["quantization_latency", "tuned"], "latency stands alone"),
    (["distillation", "distill"], "distill: expected one of"),
    (["pruning", "latency", "tuned"], "latency stands alone"), (["seal1"], "made once"),
    (["seal2"], "made once")])
def test_a_wrong_word_is_named_and_nothing_is_made(words, says, capsys):
    assert call(words) == 2
    said = capsys.readouterr().err
    assert says in said
    assert "[]" not in said


def test_the_command_lists_its_tables_and_ends_with_its_status():
    made = subprocess.run([sys.executable, "-m", "recordings", "list"], cwd=ROOT,
                          capture_output=True, text=True, check=False)
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout == listing() + "\n"
    made = subprocess.run([sys.executable, "-m", "recordings"], cwd=ROOT, capture_output=True,
                          text=True, check=False)
    assert (made.returncode, made.stdout) == (2, "")
    assert listing() in made.stderr


@pytest.mark.parametrize("name", TABLES)
def test_each_table_has_help(name, capsys):
    assert call([name, "--help"]) == 0
    assert "make record" in capsys.readouterr().out


@pytest.fixture
def house(tmp_path, monkeypatch):
    """An empty data folder, and no weights anywhere."""
    (tmp_path / "sweeps").mkdir()
    monkeypatch.setattr(data, "DATA", tmp_path)
    monkeypatch.setattr(family, "RUNS", tmp_path / "runs")
    return tmp_path


@pytest.mark.parametrize("words", [
    ["pruning"], ["pruning", "large"], ["quantization"], ["quantization_latency"],
    ["distillation"], ["distillation", "backwards"], ["stack"], ["codec"]])
def test_a_missing_model_is_named_with_what_makes_it(house, words, capsys, monkeypatch):
    monkeypatch.setattr(distillation, "archive", lambda *_: 1)
    monkeypatch.setattr(distillation.corpora, "load", lambda _: (b"a", b"b"))
    assert call(words) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "is missing: make it with: make record TABLE=family RECORD_ARGS=" in said
    assert str(house) in said


def test_a_model_that_only_the_last_rows_need_is_missed_before_the_first(house):
    family.file_of(128, family.BASE).parent.mkdir(exist_ok=True)
    family.file_of(128, family.BASE).touch()
    for words in (["pruning"], ["quantization"]):
        assert call(words) == 1
    assert list((house / "sweeps").iterdir()) == []


@pytest.mark.parametrize("name", TABLES)
def test_ctrl_c_is_one_line_in_every_recording(name, monkeypatch, capsys):
    def stop(_words):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"recordings.{TABLES[name].script}.main", stop)
    assert call([name]) == 130
    said = capsys.readouterr().err
    assert said == "\nstopped: the rows that are done stay; call again to go on\n"


def test_rows_that_are_done_stay_when_a_recording_is_stopped(house, monkeypatch):
    rows = {"key": iter("abc")}

    def make(_d_model):
        if (name := next(rows["key"])) == "c":
            raise KeyboardInterrupt
        ledger.append(house / "sweeps/family.csv", {"key": name})

    monkeypatch.setattr(family, "train", make)
    assert call(["family"]) == 130
    assert ledger.keys(house / "sweeps/family.csv") == {"a", "b"}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("no grid"),
                                   ExceptionGroup("2 trials failed", [ValueError("a")])])
def test_what_goes_wrong_is_one_line(monkeypatch, capsys, error):
    def fail(_words):
        raise error

    monkeypatch.setattr(family, "main", fail)
    assert call(["family"]) == 1
    assert capsys.readouterr().err == f"\n{error}\n"


def test_a_table_that_is_whole_says_so_and_stays(capsys):
    before = {f: f.stat().st_mtime_ns for f in data.DATA.rglob("*.*")}
    assert call(["hero1", "--dtype=bfloat16", "--workers=1"]) == 0
    assert "has all these rows already: nothing was recorded" in capsys.readouterr().err
    assert {f: f.stat().st_mtime_ns for f in data.DATA.rglob("*.*")} == before


def test_a_width_whose_rows_and_weights_are_there_is_not_trained_again(house, monkeypatch):
    for run in (family.config(32, n) for n in family.lengths(32)):
        ledger.append(house / family.LEDGER, {"key": family.key(run, 32)})
        family.file_of(32, run.n_steps).parent.mkdir(exist_ok=True)
        family.file_of(32, run.n_steps).touch()

    def load(_name):
        raise AssertionError("trained again")

    monkeypatch.setattr(family.corpora, "load", load)
    family.train(32)
    family.file_of(32, family.lengths(32)[0]).unlink()
    with pytest.raises(AssertionError, match="trained again"):
        family.train(32)


def test_a_latency_table_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "latency.csv"
    quantization.write_latency(path, [{"what": "a, b", "ms": 1.5}])
    assert path.read_bytes() == b'what,ms\n"a, b",1.5\n'

    def full(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        quantization.write_latency(path, [{"what": "c", "ms": 2.5}])
    assert [f.name for f in tmp_path.iterdir()] == ["latency.csv"]
    assert path.read_bytes() == b'what,ms\n"a, b",1.5\n'


def test_rows_come_into_tables_by_the_ledger_alone():
    for module in Path(quantization.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            name = getattr(getattr(node, "func", None), "attr", "")
            assert name not in ("to_csv", "write_text", "write_bytes"), f"{module}:{node.lineno}"
            if name == "writerows":
                assert module.stem == "quantization"


def test_a_damaged_table_is_named_in_the_list(house, capsys):
    (house / "sweeps/family.csv").write_bytes(b"")
    assert call(["list"]) == 1
    assert "family.csv is no table" in capsys.readouterr().err


def test_the_parts_of_chapter_13_are_made_once_and_in_the_order_asked_for(monkeypatch):
    made = []
    monkeypatch.setattr(distillation, "distillation", lambda order: made.append(order))
    monkeypatch.setattr(distillation, "stack", lambda: made.append("stack"))
    assert distillation.main(["distil", "backwards", "stack"]) == 0
    assert made == [-1, "stack"]
    with pytest.raises(SystemExit):
        distillation.main(["backwards"])
