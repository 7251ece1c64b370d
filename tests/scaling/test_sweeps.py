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
from helpers.transformer import models, training, trunks
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
    assert sweeps.learning_rate(16) == sweeps.learning_rate(np.float64(16)) == 0.05 / 8
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


# What is refused before a worker starts, and what does not stop a sweep


@pytest.mark.parametrize(("change", "says"), [
    ({"tokens": (5 * STEP,)}, "do not fit into 5 steps"),
    ({"tokens": (64 * STEP, 70 * STEP + 1)}, "expected a multiple of the 64 tokens of a step"),
    ({"d_model": 17}, "d_model=17"), ({"data": "poetry"}, "poetry"),
    ({"n_validation": 10**6}, "hold no 1000000 windows"),
    ({"batch_size": 10**6}, "expected a multiple")])
def test_a_grid_with_a_run_that_cannot_be_made_is_refused_before_a_worker_starts(
        change, says, path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("DEVICE", "cpu")
    monkeypatch.setitem(sweeps.ENGINES, "processes", lambda *_: pytest.fail("a worker started"))
    with pytest.raises(ValueError, match=says):
        list(sweep([*REAL, dataclasses.replace(REAL[0], **change)], path))
    assert not path.exists()


@pytest.mark.parametrize(("n_workers", "kind"), [(0, ValueError), (-2, ValueError),
                                                 (None, TypeError), (1.5, TypeError)])
def test_a_number_of_workers_that_would_never_end_is_refused(n_workers, kind, path):
    with pytest.raises(kind, match=r"n_workers=.*: expected a whole number ≥ 1"):
        next(sweep(REAL, path, n_workers))


def test_a_place_that_is_no_place_is_refused_before_a_worker_starts(path, monkeypatch):
    monkeypatch.setitem(sweeps.ENGINES, "processes", lambda *_: pytest.fail("a worker started"))
    path.write_bytes(b"name;loss\n")
    with pytest.raises(ValueError, match=r"ledger\.csv has the columns name;loss"):
        next(sweep(REAL, path))
    with pytest.raises(OSError, match=r"ledger\.csv"):
        next(sweep(REAL, path / "below.csv"))
    with pytest.raises(ValueError, match=r"another end than \.trials"):
        next(sweep(REAL, path.with_suffix(".trials")))


@pytest.mark.parametrize("change", [
    {"d_model": 0}, {"n_layer": 1.5}, {"lr": 0}, {"lr": float("nan")}, {"tokens": ()},
    {"tokens": 64}, {"tokens": (64, 0)}, {"seed": -1}, {"seed": True}, {"batch_size": 0},
    {"seq": "16"}, {"data": 7}, {"dtype": "float16"}, {"decay_fraction": 1.5}, {"n_validation": 0}])
def test_a_trial_says_what_it_accepts(change):
    name, = change
    with pytest.raises((TypeError, ValueError), match=f"Trial: {name}="):
        dataclasses.replace(SMALL, **change)


def test_numpy_s_numbers_and_counts_in_any_order_make_the_same_trial():
    counts = np.array([*SMALL.tokens[::-1], SMALL.tokens[0]])
    same = Trial(np.int64(16), np.int32(1), np.float64(3e-3), counts, np.uint8(0), seq=np.int64(16),
                 n_validation=np.int64(20))
    assert same == SMALL
    assert [same.key(D) for D in counts] == [SMALL.key(int(D)) for D in counts]
    assert dataclasses.replace(SMALL, lr=1).key() == dataclasses.replace(SMALL, lr=1.0).key()


def test_runs_that_share_no_trunk_are_refused():
    configs = [SMALL.config(D) for D in SMALL.tokens]
    other = dataclasses.replace(configs[1], lr=1.0)
    model = models.GPT(SMALL.shape)
    optimizer = training.make_optimizer(model, configs[0])
    for wrong, done in ((configs[::-1], 0), ([configs[0], other], 0), ([], 0), (configs, 99)):
        with pytest.raises(ValueError, match="expected"):
            trunks.branches(model, optimizer, None, wrong, done)


def spoil(file, how) -> None:
    """Make a trunk's checkpoint useless: cut, emptied, of another model, or of other rates."""
    if how == "halved":
        file.write_bytes(file.read_bytes()[:file.stat().st_size // 2])
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "a model":
        sweeps.checkpoints.save_model(models.GPT(SMALL.shape), file)
    else:
        other = dataclasses.replace(SMALL, **how)
        list(run_trial(other, file))


SPOILT = ["halved", "empty", "a model", {"d_model": 8}, {"lr": 1e-3}, {"seed": 3}]


@pytest.mark.parametrize("how", SPOILT)
def test_a_checkpoint_that_is_damaged_or_foreign_is_not_used(how, tmp_path):
    file = tmp_path / "trunk.safetensors"
    whole = losses(list(run_trial(SMALL, file)))
    spoil(file, how)
    rest = dataclasses.replace(SMALL, tokens=SMALL.tokens[2:])
    assert losses(list(run_trial(rest, file))) == {D: whole[D] for D in rest.tokens}


def test_a_sweep_says_that_a_checkpoint_is_not_used_and_ends_at_a_fresh_run_s_loss(
        path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("DEVICE", "cpu")
    trial = Trial(8, 1, .01, (2**15,), n_validation=20)
    file = path.with_suffix(".trials") / f"{trial.key()}.safetensors"
    file.parent.mkdir()
    fresh, = run_trial(trial, file)
    spoil(file, "halved")
    notes = [s.note for s in sweep([trial], path, 1)]
    assert f"its checkpoint is not used, it starts anew: {file} is cut short" in notes[1]
    assert losses(path) == {2**15: fresh["loss"]}
    assert not file.parent.exists()


def test_a_checkpoint_stays_until_its_rows_are_on_the_disk(path, monkeypatch):
    file = path.with_suffix(".trials") / f"{SMALL.key()}.safetensors"

    def works(waiting, _work, _n_workers, _path, _every):
        file.touch()
        for row in run_trial(waiting.popleft()):
            yield SMALL, row

    def full(_path, _row):
        assert file.exists()
        raise OSError("No space left on device")

    monkeypatch.setitem(sweeps.ENGINES, "processes", works)
    append = ledger.append
    monkeypatch.setattr(ledger, "append", full)
    with pytest.raises(OSError, match="No space left"):
        list(sweep([SMALL], path))
    assert file.exists()
    monkeypatch.setattr(ledger, "append", append)
    for status in sweep([SMALL], path):
        assert file.exists() == (status.done < 3)


def test_a_trial_that_another_sweep_holds_is_waited_for_and_said_once(path, monkeypatch):
    answers = [BlockingIOError("another process holds it")] * 3

    def busy(waiting, _work, _n_workers, _path, _every):
        while waiting:
            trial = waiting.popleft()
            if answers:
                yield trial, answers.pop()
            else:
                yield from ((trial, row) for row in run_trial(trial))

    monkeypatch.setitem(sweeps.ENGINES, "processes", busy)
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    notes = [s.note for s in sweep([SMALL], path)]
    assert [n for n in notes if n] == [
        "d_model 16, seed 0, prose: another process holds it; waiting for it"]


def test_the_recipe_s_numbers_stand(monkeypatch):
    """If this fails, runs give other numbers: the recipe needs a new name (`sweeps.RECIPES`)."""
    monkeypatch.undo()
    monkeypatch.setenv("DEVICE", "cpu")
    row, = run_trial(Trial(8, 1, .01, (2**14,), batch_size=4, seq=32, n_validation=20))
    assert row["loss"] == pytest.approx(2.9057188034057617, rel=1e-4)
