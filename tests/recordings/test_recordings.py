"""`make record`: the recorded rows are valid for today's code, and a wrong word says so."""

import subprocess
import sys
from dataclasses import asdict, replace

import pandas as pd
import pytest

from helpers import data
from helpers.runtime import ROOT
from helpers.scaling import ledger, sweeps
from recordings import TABLES, distillation, family, listing, pruning, quantization
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
    assert {ledger.key(asdict(family.config(d, n)) | {"d_model": d}, sweeps.RECIPES[0])
            for d in family.LAYERS for n in family.lengths(d)} == keys_of("family.csv")
    steps = {pruning.LARGE: pruning.LARGE_TUNE}
    assert {ledger.key({"row": list(row), "rate": pruning.RATE,
                        "steps": steps.get(row[1], pruning.TUNE)}, pruning.RECIPE)
            for row in pruning.wanted()} == keys_of("pruning.csv")


def test_the_list_names_every_table_and_every_table_is_in_the_list():
    files = {f.name for f in (data.DATA / "sweeps").glob("*.csv")}
    assert {table.file for table in TABLES.values() if table.file} == files
    for name, entry in data.manifest().items():
        if "make record" in entry["command"]:
            assert entry["command"].removeprefix("make record TABLE=") in TABLES, name
    assert all(name in listing() for name in TABLES)


@pytest.mark.parametrize(("words", "says"), [
    ([], "no table was named"), (["prunning"], "there is no table prunning"),
    (["pruning", "prunning"], "prunning"), (["family", "7"], "7"), (["prose", "--engin"], "engin"),
    (["quantization", "wieghts"], "wieghts"), (["distillation", "distill"], "distill"),
    (["pruning", "latency", "tuned"], "latency stands alone"),
])
def test_a_wrong_word_is_named_and_nothing_is_made(words, says):
    made = subprocess.run([sys.executable, "-m", "recordings", *words], cwd=ROOT,
                          capture_output=True, text=True, check=False)
    assert made.returncode == 2
    assert says in made.stderr
    assert "Traceback" not in made.stderr
