"""The sealed prediction: written before the hero run, from runs of at most a tenth of its compute,
and kept by it."""

import hashlib
import json
from datetime import datetime, timedelta

import pytest

from helpers import data
from tools import record


@pytest.fixture(scope="module")
def prediction() -> dict:
    return json.loads(data.path(record.PREDICTION).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def result() -> dict:
    return json.loads(data.path(record.RESULT).read_text(encoding="utf-8"))


def test_the_result_names_the_prediction_by_its_hash(result):
    digest = hashlib.sha256(data.path(record.PREDICTION).read_bytes()).hexdigest()
    assert result["prediction_sha256"] == digest


def test_the_prediction_names_the_runs_it_was_made_from(prediction):
    fitted = prediction["fitted"]
    assert data.manifest()[fitted["file"]]["sha256"] == fitted["sha256"]
    runs = data.table(fitted["file"])
    assert runs[runs.D >= fitted["least_D"]].C.max() == fitted["largest_C"]


def test_the_run_began_after_the_prediction_was_sealed(prediction, result):
    sealed, finished = (datetime.fromisoformat(text)
                        for text in (prediction["sealed"], result["row"]["finished"]))
    assert finished - timedelta(seconds=result["row"]["seconds"]) > sealed
    assert datetime.fromisoformat(result["sealed"]) >= finished


def test_the_run_is_the_one_that_was_foretold(prediction, result):
    row, run = result["row"], prediction["run"]
    for name in ("d_model", "n_layer", "N", "D", "C", "lr", "batch_size", "seq", "seed"):
        assert row[name] == run[name], name
    assert row["C"] >= 10 * prediction["fitted"]["largest_C"]
    assert row == json.loads(data.table(record.HERO_LEDGER).iloc[-1].to_json())


def test_the_run_keeps_the_prediction(prediction, result):
    loss = result["row"]["loss"]
    assert prediction["low"] <= loss <= prediction["high"]
    assert abs(prediction["loss"] / loss - 1) <= 0.02


def test_the_same_prediction_comes_out_again(prediction, tmp_path, monkeypatch):
    monkeypatch.setattr(record, "PREDICTION", tmp_path / "again.json")
    record.seal()
    again = json.loads((tmp_path / "again.json").read_text(encoding="utf-8"))
    assert again["loss"] == pytest.approx(prediction["loss"], rel=1e-6)
    assert [again[name] for name in ("low", "high")] == pytest.approx(
        [prediction[name] for name in ("low", "high")], rel=1e-4)
    assert again["run"] == prediction["run"]
    assert again["fitted"] == prediction["fitted"]
