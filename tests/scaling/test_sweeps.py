"""Many runs: branches equal separate runs, resume is exact, a sweep survives whatever kills it."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import psutil
import pytest

from helpers import corpora, data, runtime
from helpers.scaling import ledger, sweeps
from helpers.scaling.sweeps import Status, Trial, run_trial, sweep
from helpers.transformer import models, training
from helpers.transformer.flops import flops_per_token
from recordings import sweeps as record

STEP = 4 * 16  # tokens per step of the small trials
SMALL = Trial(d_model=16, n_layer=1, lr=3e-3, tokens=(70 * STEP, 90 * STEP, 120 * STEP), seq=16,
              n_validation=20)


@pytest.fixture(autouse=True)
def short_text(monkeypatch):
    """Three words, in place of the addresses; on the CPU. Worker processes read the real text."""
    monkeypatch.setenv("DEVICE", "cpu")
    words = np.random.default_rng(0).choice(["apple ", "pear ", "plum "], 8000)
    tokens = data.encode(["".join(words)])
    monkeypatch.setattr(corpora, "load", lambda name: (tokens[:-5000], tokens[-5000:]))
    return tokens


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.csv"


def losses(rows) -> dict:
    """D → loss, of rows as `run_trial` yields them or of a ledger file."""
    rows = pd.DataFrame(rows) if isinstance(rows, list) else pd.read_csv(rows)
    return dict(zip(rows.D, rows.loss, strict=True))


def test_each_branch_equals_a_separate_run_to_the_bit(short_text):
    rows = list(run_trial(SMALL))
    assert [row["D"] for row in rows] == list(SMALL.tokens)
    batches = data.TokenBatches(short_text[:-5000], 4, 16, seed=0)
    validation = data.windows(short_text[-5000:], 20, 16)
    for row in rows:
        runtime.setup(0)
        alone, _ = training.train(models.GPT(SMALL.shape), batches, SMALL.config(row["D"]),
                                  validation)
        expected = dataclasses.asdict(alone)
        assert {name: row[name] for name in expected} == {**expected, "seconds": row["seconds"]}


def test_a_branch_run_alone_equals_the_same_among_others():
    together = losses(list(run_trial(SMALL)))
    for D, loss in together.items():
        alone, = run_trial(dataclasses.replace(SMALL, tokens=(D,)))
        assert alone["loss"] == loss
    backwards = dataclasses.replace(SMALL, tokens=SMALL.tokens[::-1])
    assert losses(list(run_trial(backwards))) == together


def test_the_seed_changes_the_run():
    first, second = (next(run_trial(dataclasses.replace(SMALL, seed=seed))) for seed in (0, 1))
    assert first["loss"] != second["loss"]
    assert (first["seed"], second["seed"]) == (0, 1)


@pytest.mark.parametrize("cut", range(3))
def test_a_trial_goes_on_from_its_checkpoint_with_the_same_losses(cut, tmp_path):
    whole, file = losses(list(run_trial(SMALL))), tmp_path / "trunk.safetensors"
    begun = run_trial(SMALL, file)
    found = {row["D"]: row["loss"] for row, _ in zip(begun, range(cut), strict=False)}
    begun.close()
    rest = tuple(D for D in SMALL.tokens if D not in found)
    found |= losses(list(run_trial(dataclasses.replace(SMALL, tokens=rest), file)))
    assert found == whole


def test_a_trunk_is_saved_on_the_way_too(tmp_path, monkeypatch):
    steps, save = [], sweeps.checkpoints.save_run
    monkeypatch.setattr(sweeps.checkpoints, "save_run", lambda path, model, optimizer, config, step,
                        **facts: (steps.append(step), save(path, model, optimizer, config, step,
                                                           **facts)))
    list(run_trial(SMALL, tmp_path / "trunk.safetensors", every=0.0))
    assert steps == sorted(steps)
    assert set(range(1, 96)) <= set(steps)


def test_a_checkpoint_beyond_a_lost_row_is_not_used(tmp_path):
    file = tmp_path / "trunk.safetensors"
    whole = losses(list(run_trial(SMALL, file)))
    lost = dataclasses.replace(SMALL, tokens=SMALL.tokens[:1])
    assert losses(list(run_trial(lost, file))) == {SMALL.tokens[0]: whole[SMALL.tokens[0]]}


def test_seconds_go_on_counting_after_a_checkpoint(tmp_path):
    file = tmp_path / "trunk.safetensors"
    next(run_trial(SMALL, file))
    model, config = models.GPT(SMALL.shape), SMALL.config(SMALL.tokens[-1])
    optimizer = training.make_optimizer(model, config)
    sweeps.checkpoints.save_run(file, model, optimizer, config, 0, seconds="1000")
    assert next(run_trial(SMALL, file))["seconds"] > 1000


def test_every_field_but_the_token_counts_makes_another_key():
    changes = {"d_model": 32, "n_layer": 2, "lr": 4e-3, "seed": 1, "batch_size": 8, "seq": 32,
               "data": "code", "dtype": "bfloat16", "decay_fraction": 0.1, "n_validation": 30}
    assert set(changes) == {f.name for f in dataclasses.fields(Trial)} - {"tokens"}
    others = [dataclasses.replace(SMALL, **{name: value}) for name, value in changes.items()]
    keys = {t.key(D) for t in [SMALL, *others] for D in (None, *SMALL.tokens)}
    assert len(keys) == 11 * 4
    assert dataclasses.replace(SMALL, tokens=(1,)).key(64) == SMALL.key(64)


# Whole sweeps: the workers are real processes and read the real text


REAL = [Trial(16, 1, 3e-3, (64 * STEP, 70 * STEP), seq=16, n_validation=5),
        Trial(16, 1, 3e-3, (64 * STEP,), seed=1, seq=16, n_validation=5)]


def test_a_sweep_runs_what_its_ledger_lacks(path):
    states = list(sweep(REAL, path, n_workers=1))
    assert [(s.done, s.total) for s in states] == [(0, 3), (1, 3), (2, 3), (3, 3), (3, 3)]
    assert all(s.seconds_left >= 0 for s in states[1:])
    rows = pd.read_csv(path)
    assert sorted(zip(rows.seed, rows.D // STEP, strict=True)) == [(0, 64), (0, 70), (1, 64)]
    assert not path.with_suffix(".trials").exists()
    kept = path.read_bytes()
    assert [(s.done, s.total) for s in sweep(REAL, path, n_workers=1)] == [(3, 3)]
    assert path.read_bytes() == kept
    lines = kept.decode().splitlines(keepends=True)
    path.write_text("".join(lines[:2]) + lines[2][:10], encoding="utf-8")
    first, *others = sweep(REAL, path, n_workers=2)
    assert (first.done, len(others)) == (1, 3)
    assert f"the ledger's last line was torn and is cut off: {lines[2][:10]}" == first.note
    assert losses(path) == losses(pd.read_csv(path).to_dict("records"))
    again = pd.read_csv(path)
    assert dict(zip(again.key, again.loss, strict=True)) == dict(zip(rows.key, rows.loss,
                                                                     strict=True))


LONG = Trial(16, 1, 3e-3, tuple(n * STEP for n in (400, 800, 1600, 3200)), seq=16, n_validation=5)
PROGRAM = """
import sys
from helpers.scaling.sweeps import Trial, sweep
if __name__ == "__main__":
    for status in sweep([%r], sys.argv[1], 1, every=0.1):
        print(status, flush=True)
"""


def start(path, folder) -> subprocess.Popen:
    program = folder / "program.py"
    program.write_text(PROGRAM % LONG, encoding="utf-8")
    return subprocess.Popen([sys.executable, program, path], stdout=subprocess.PIPE, text=True,
                            env={**os.environ, "DEVICE": "cpu"}, start_new_session=True)


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("how", ["sweep", "worker"])
def test_kill_9_loses_no_finished_row_and_no_digit(path, tmp_path, how, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("DEVICE", "cpu")
    running = start(path, tmp_path)
    for _ in range(3):  # until two rows stand
        assert running.stdout.readline()
    if how == "sweep":
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
        assert len(ledger.keys(path)) >= 2
        notes = [s.note for s in sweep([LONG], path, 1)]
    else:
        child, = (p for p in psutil.Process(running.pid).children()
                  if "spawn_main" in " ".join(p.cmdline()))
        child.kill()
        notes = running.stdout.read().splitlines()
        assert running.wait() == 0
    running.stdout.close()
    assert list(losses(path).values()) == [row["loss"] for row in run_trial(LONG)]
    assert not path.with_suffix(".trials").exists()
    assert notes


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_two_sweeps_on_one_ledger_share_it(path, tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("DEVICE", "cpu")
    both = [start(path, tmp_path) for _ in range(2)]
    for running in both:
        out, _ = running.communicate(timeout=300)
        assert running.returncode == 0
        assert "4 of 4 runs" in out.splitlines()[-1]
    assert list(losses(path)) == list(LONG.tokens)
    assert len(pd.read_csv(path)) == 4


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_stops_the_sweep_and_its_workers(path, tmp_path):
    running = start(path, tmp_path)
    for _ in range(2):
        assert running.stdout.readline()
    children = psutil.Process(running.pid).children(recursive=True)
    os.killpg(running.pid, signal.SIGINT)
    running.communicate(timeout=60)
    assert running.returncode != 0
    deadline = time.monotonic() + 30
    while any(c.is_running() and c.status() != "zombie" for c in children):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert len(ledger.keys(path)) >= 1


def test_a_trial_that_fails_is_named_and_the_others_are_kept(path):
    hot = dataclasses.replace(REAL[0], lr=1e6)
    with pytest.raises(ExceptionGroup, match="1 trials failed; the ledger keeps the others") as it:
        list(sweep([hot, *REAL], path, 1))
    assert it.group_contains(FloatingPointError, match="try a lower lr")
    assert len(ledger.keys(path)) == 3


def test_an_unknown_engine_is_refused(path):
    with pytest.raises(ValueError, match="engine='slurm': expected one of processes, ray"):
        next(sweep(REAL, path, engine="slurm"))


def test_a_status_is_one_line_with_a_bar():
    assert str(Status(1, 4, 125.0)) == "[#####---------------] 1 of 4 runs · 2:05 left"
    assert str(Status(0, 4, float("nan"))) == "[--------------------] 0 of 4 runs"
    assert str(Status(0, 0, float("nan"))) == "[--------------------] 0 of 0 runs"


class Parent:
    def __init__(self, alive):
        self.is_alive = lambda: alive


@pytest.mark.parametrize("parent", [None, Parent(True)])
def test_a_worker_goes_on_while_its_sweep_lives(parent, monkeypatch):
    monkeypatch.setattr(sweeps, "parent_process", lambda: parent)
    sweeps._stop_if_orphaned(200, 1.0)


def test_a_worker_ends_when_its_sweep_is_gone(monkeypatch):
    monkeypatch.setattr(sweeps, "parent_process", lambda: Parent(False))
    sweeps._stop_if_orphaned(201, 1.0)  # looked at each hundredth step only
    with pytest.raises(SystemExit, match="the sweep that started this worker is gone"):
        list(run_trial(SMALL))


def test_the_rate_falls_with_the_width_s_three_quarters():
    assert sweeps.learning_rate(16) == 0.05 / 8
    assert sweeps.learning_rate(256) == pytest.approx(sweeps.learning_rate(16) / 8, abs=1e-6)


def test_the_recorded_grids_take_whole_steps_by_the_rule():
    heroes = [hero.trial for hero in record.HEROES.values()]
    for trials in (record.standard(), record.scan(), record.language(), record.lever(), heroes):
        assert len({t.key() for t in trials}) == len(trials)
        for t in trials:
            assert [t.config(D).D for D in t.tokens] == sorted(t.tokens)
    first = [t for t in record.standard() if t.seed == 0]
    assert len(first) >= 6
    assert all(len(t.tokens) >= 5 for t in first)
    assert all(t.lr == sweeps.learning_rate(t.d_model) for t in record.standard())
    largest = max(flops_per_token(t.shape, t.seq) * max(t.tokens) for t in first)
    assert all(flops_per_token(t.shape, 128) * t.tokens[0] >= 10 * largest for t in heroes)


def test_the_full_profile_goes_on_to_larger_sizes_and_more_tokens(monkeypatch):
    quick = record.standard()
    monkeypatch.setenv("PROFILE", "full")
    full = record.standard()
    assert {t.d_model for t in full} == {t.d_model for t in quick} | {128, 192, 256}
    assert all(t.tokens == record.TOKENS + record.MORE_TOKENS for t in full)
    assert len(full) == 3 * 9


def test_a_hero_is_not_trained_before_its_prediction_is_sealed(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(record, "PREDICTION", str(tmp_path / "none_{}.json"))
    with pytest.raises(SystemExit):
        record.main(["hero1"])
    assert "seal the prediction first" in capsys.readouterr().err


def test_the_trial_s_run_has_its_rate_tokens_and_seed():
    config = dataclasses.replace(SMALL, seed=7).config(90 * STEP)
    assert (config.lr, config.D, config.n_steps, config.seed) == (3e-3, 90 * STEP, 90, 7)
    with pytest.raises(ValueError, match="do not fit into 5 steps"):
        SMALL.config(5 * STEP)
