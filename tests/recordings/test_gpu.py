"""`make gpu` dry: all phases at toy size on a CPU write their rows, and skip what is there."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch

from helpers.fits import parametric_loss
from helpers.transformer import checkpoints, models
from helpers.transformer.training import TrainConfig
from recordings.gpu import __main__ as gpu
from recordings.gpu import fast, kit

PROVENANCE = ["card", "driver", "torch", "commit", "seed", "seconds", "finished"]
COLUMNS = {
    "twins": ["what", "dtype", "n", "failed", "loss_cpu", "loss_device", "largest_gap"],
    "speed": ["model", "change", "N", "N_total", "batch", "tokens_per_s", "mfu", "of_matmul",
              "prepare_s", "memory_GB"],
    "sweep": ["data", "d_model", "n_layer", "D", "batch", "N", "N_total", "C", "loss", "bpb", "lr",
              "seq", "dtype"],
    "heroes": ["number", "data", "d_model", "n_layer", "D", "batch", "N", "N_total", "C", "loss",
               "bpb", "lr", "seq", "dtype", "predicted", "low", "high", "inside"],
    "write": ["what", "size", "ms", "rate", "ratio", "error"],
    "model": ["data", "d_model", "n_layer", "vocab", "epochs", "N", "N_total", "D", "loss", "C",
              "bpb", "lr", "bytes"],
}
ROWS = {"twins": 3, "speed": 11, "sweep": 30, "heroes": 1, "write": 12, "model": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tables of a dry run: a law is put under the toy sweep, so that its hero can be foretold."""
    made = tmp_path_factory.mktemp("gpu")
    assert gpu.main(["--toy", "--folder", str(made), "--seconds", "10000"]) == 0
    table = made / "sweeps/gpu_sweep.csv"
    rows = pd.read_csv(table)
    rows["loss"] = parametric_loss(rows.C / 6 / rows.D, rows.D, 0.5, 30.0, 40.0, 0.35, 0.4)
    rows.to_csv(table, index=False, lineterminator="\n")
    assert gpu.main(["sweep", "--toy", "--folder", str(made), "--seconds", "10000"]) == 0
    return made


@pytest.mark.parametrize("name", COLUMNS)
def test_each_phase_writes_its_rows_with_provenance(folder, name):
    rows = pd.read_csv(folder / f"sweeps/gpu_{name}.csv")
    assert list(rows) == ["key", *COLUMNS[name], *PROVENANCE]
    assert len(rows) == rows.key.nunique() == ROWS[name]
    assert rows.commit.notna().all()


def test_what_is_recorded_is_skipped(folder):
    before = {f.name: f.read_bytes() for f in (folder / "sweeps").iterdir()}
    words = ["write", "model", "--toy", "--folder", str(folder), "--seconds", "10000"]
    assert gpu.main(words) == 0
    assert {f.name: f.read_bytes() for f in (folder / "sweeps").iterdir()} == before


def test_a_hero_is_foretold_in_a_sealed_file_before_it_is_made(folder):
    said = json.loads((folder / "sealed/gpu_prediction_1.json").read_text())
    row = pd.read_csv(folder / "sweeps/gpu_heroes.csv").iloc[0]
    assert said["sealed"] <= row.finished
    assert (said["loss"], said["low"], said["high"]) == (row.predicted, row.low, row.high)
    assert said["low"] < said["loss"] < said["high"]
    assert row.inside == (row.low <= row.loss <= row.high)


def test_the_written_model_loads_with_its_tokeniser(folder):
    model, merges = checkpoints.load_tokenised(folder / "models/gpt_writer.safetensors")
    assert model.config.vocab == 256 + len(merges) == 300
    assert (folder / "models/gpt_writer.safetensors").stat().st_size < 30e6


def test_without_a_card_nothing_is_measured(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(["mfu", "--folder", str(tmp_path)]) == 2
    assert "no NVIDIA card" in capsys.readouterr().err
    for words in (["mfuu"], ["--seconds", "0"], ["--seconds", "nan"]):
        with pytest.raises(SystemExit) as stopped:
            gpu.main(words)
        assert stopped.value.code == 2


def test_a_row_that_fails_leaves_the_others(tmp_path):
    made = kit.Kit(tmp_path, 100, toy=True)

    def fail():
        raise RuntimeError("not on this card")

    assert made.row("some", {"a": 1}, fail) is None
    assert made.row("some", {"a": 2}, lambda: {"b": 1.0})["b"] == 1.0
    made.begin(0)
    assert made.row("some", {"a": 3}, lambda: {"b": 1.0}) is None
    assert len(pd.read_csv(made.path("some"))) == 1


SHAPE = models.GPTConfig(vocab=64, context=16, n_layer=2, n_head=2, d_model=32)


def test_the_compilers_form_of_the_model_is_the_models(folder):
    slow, quick = models.GPT(SHAPE, 3), fast.FastGPT(SHAPE, 3)
    tokens = torch.from_numpy(np.random.default_rng(0).integers(64, size=(3, 16)))
    torch.testing.assert_close(quick(tokens), slow(tokens), rtol=1e-4, atol=1e-5)


def test_a_branch_leaves_the_trunk_where_it_was():
    text = torch.from_numpy(np.random.default_rng(0).integers(64, size=2000))
    config = TrainConfig(lr=1e-2, n_steps=20, batch_size=2, seq=16, warmup_steps=2,
                         decay_fraction=0.0)
    plain, forked = (fast.Run(SHAPE, config, text, low=False) for _ in range(2))
    for _ in range(5):
        plain.step()
        forked.step()
    with forked.branch(torch.zeros(8)):
        for _ in range(3):
            forked.step()
        assert int(forked.at) == 8
    assert int(forked.at) == 5
    plain.step()
    forked.step()
    for a, b in zip(plain.state(), forked.state(), strict=True):
        torch.testing.assert_close(a, b)


def test_windows_are_dealt_out_once():
    text = torch.arange(16 * 40 + 1) % 64
    config = TrainConfig(lr=1e-2, n_steps=20, batch_size=2, seq=16, warmup_steps=2)
    run = fast.Run(SHAPE, config, text, low=False)
    assert len(set(run.starts.tolist())) == 40
    with pytest.raises(ValueError, match="none is repeated"):
        fast.Run(SHAPE, dataclasses.replace(config, n_steps=21), text)
