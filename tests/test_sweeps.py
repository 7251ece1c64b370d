"""Many runs: branches equal separate runs, the ledger loses nothing, a sweep goes on."""

import csv
import dataclasses
import threading
from multiprocessing import get_context

import numpy as np
import pandas as pd
import pytest

from helpers import data, models, runtime, sweeps, training
from helpers.flops import flops_per_token
from helpers.sweeps import Trial

STEP = 4 * 16  # tokens per step of the small trials
SMALL = Trial(d_model=16, n_layer=1, lr=3e-3, tokens=(70 * STEP, 90 * STEP, 120 * STEP), seq=16)
RECORD = training.RunRecord(
    n_layer=1, d_model=16, vocab=256, N=3104, N_total=7200, D=70 * STEP, C=1.5e9, loss=2.5, bpb=3.6,
    lr=3e-3, batch_size=4, seq=16, n_steps=70, seed=0, dtype="float32",
    seconds=0.1, device='a "fast" one, cpu',
    torch="2", commit="abc")


@pytest.fixture
def short_prose(monkeypatch):
    """Forty documents of three words, in place of the addresses."""
    rng = np.random.default_rng(0)
    documents = ["".join(rng.choice(["apple ", "pear ", "plum "], 2000)) for _ in range(40)]
    monkeypatch.setattr(data, "prose", lambda: documents)
    monkeypatch.setenv("DEVICE", "cpu")
    return documents


@pytest.fixture
def ledger(tmp_path):
    return tmp_path / "ledger.csv"


def test_each_branch_equals_a_separate_run_to_the_bit(short_prose):
    rows = list(sweeps.run_trial(SMALL, n_validation=20))
    assert [row.D for row in rows] == list(SMALL.tokens)
    train_docs, held_out = data.split_documents(short_prose)
    batches = data.TokenBatches(data.encode(train_docs), 4, 16, seed=0)
    validation = data.windows(data.encode(held_out), 20, 16)
    for row in rows:
        runtime.setup(0)
        shape = models.GPTConfig(context=16, n_layer=1, n_head=1, d_model=16)
        alone, _ = training.train(models.GPT(shape), batches, SMALL.config(row.D), validation)
        assert dataclasses.replace(alone, seconds=row.seconds) == row


def test_a_branch_run_alone_equals_the_same_among_others(short_prose):
    together = [row.loss for row in sweeps.run_trial(SMALL, 20)]
    for D, loss in zip(SMALL.tokens, together, strict=True):
        alone, = sweeps.run_trial(dataclasses.replace(SMALL, tokens=(D,)), 20)
        assert alone.loss == loss
    reverse = dataclasses.replace(SMALL, tokens=SMALL.tokens[::-1])
    assert [row.loss for row in sweeps.run_trial(reverse, 20)] == together


def test_the_seed_changes_the_run(short_prose):
    first, second = (next(sweeps.run_trial(dataclasses.replace(SMALL, seed=seed), 20))
                     for seed in (0, 1))
    assert first.loss != second.loss
    assert (first.seed, second.seed) == (0, 1)


def test_a_trial_trains_on_the_training_documents_alone(short_prose, monkeypatch):
    seen, original = [], data.TokenBatches

    def spy(tokens, *rest):
        seen.append(tokens)
        return original(tokens, *rest)

    monkeypatch.setattr(data, "TokenBatches", spy)
    next(sweeps.run_trial(SMALL, 20))
    assert np.array_equal(seen[0], data.encode(data.split_documents(short_prose)[0]))


def read(ledger) -> list[dict]:
    with open(ledger, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_survives_the_ledger_exactly(ledger):
    awkward = dataclasses.replace(RECORD, loss=0.1 + 0.2, lr=0.05 * 37**-0.75, C=1.23456789e18)
    for record in (RECORD, awkward):
        sweeps.append(ledger, record)
    assert ledger.read_bytes().count(b"\n") == 3
    assert b"\r" not in ledger.read_bytes()
    back = [{name: type(getattr(RECORD, name))(text) for name, text in row.items()}
            for row in read(ledger)]
    assert back == [dataclasses.asdict(RECORD), dataclasses.asdict(awkward)]


def test_an_empty_ledger_is_one_not_begun(ledger):
    ledger.touch()
    assert sweeps.missing(SMALL, ledger) == SMALL.tokens
    sweeps.append(ledger, RECORD)
    assert read(ledger)[0]["commit"] == "abc"
    assert sweeps.missing(SMALL, ledger) == SMALL.tokens[1:]


def test_missing_is_what_the_ledger_lacks(ledger):
    assert sweeps.missing(SMALL, ledger) == SMALL.tokens
    sweeps.append(ledger, dataclasses.replace(RECORD, D=90 * STEP))
    assert sweeps.missing(SMALL, ledger) == (70 * STEP, 120 * STEP)
    for D in (70, 120):
        sweeps.append(ledger, dataclasses.replace(RECORD, D=D * STEP))
    assert sweeps.missing(SMALL, ledger) == ()


@pytest.mark.parametrize("other", [{"d_model": 32}, {"n_layer": 2}, {"lr": 4e-3}, {"seed": 1},
                                   {"batch_size": 8}, {"seq": 32}])
def test_a_row_of_another_trial_does_not_count(ledger, other):
    sweeps.append(ledger, dataclasses.replace(RECORD, **other))
    assert sweeps.missing(SMALL, ledger) == SMALL.tokens


def test_any_rate_is_found_again(ledger):
    rates = [float(lr) for lr in np.random.default_rng(0).uniform(1e-6, 1, 100)]
    for lr in rates:
        sweeps.append(ledger, dataclasses.replace(RECORD, lr=lr))
    for lr in rates:
        assert sweeps.missing(dataclasses.replace(SMALL, lr=lr, tokens=(70 * STEP,)), ledger) == ()


def test_a_token_count_between_two_steps_is_found_again(short_prose, ledger):
    uneven = dataclasses.replace(SMALL, tokens=(70 * STEP + 13,))
    assert sweeps._work(uneven, ledger) == 1
    assert read(ledger)[0]["D"] == str(70 * STEP)
    assert sweeps.missing(uneven, ledger) == ()


def write_at_once(folder, name, barrier, n_ledgers, n_rows):
    """What each of the concurrent processes does: all begin each ledger together."""
    for number in range(n_ledgers):
        barrier.wait(timeout=120)
        for row in range(n_rows):
            sweeps.append(folder / f"{number}.csv",
                          dataclasses.replace(RECORD, commit=f"{name}-{row}"))


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
        assert text.startswith("n_layer,d_model,")
        assert text.count("n_layer") == 1
        assert sorted(row["commit"] for row in read(tmp_path / f"{number}.csv")) == expected


def test_a_second_writer_waits_while_the_first_begins_the_ledger(ledger, monkeypatch):
    second = threading.Thread(target=sweeps.append, args=(ledger, RECORD))
    original = csv.DictWriter.writeheader

    def begin(writer):
        original(writer)
        if second.ident is None:
            second.start()
            second.join(timeout=0.3)  # time enough to write, were it not to wait

    monkeypatch.setattr(csv.DictWriter, "writeheader", begin)
    sweeps.append(ledger, RECORD)
    second.join()
    assert ledger.read_text(encoding="utf-8").count("n_layer") == 1
    assert len(read(ledger)) == 2


def test_a_worker_does_what_is_missing_and_no_more(short_prose, ledger):
    sweeps.append(ledger, dataclasses.replace(RECORD, D=90 * STEP))
    assert sweeps._work(SMALL, ledger) == 2
    assert [int(row["D"]) // STEP for row in read(ledger)] == [90, 70, 120]
    assert sweeps._work(SMALL, ledger) == 0  # another process was first
    assert len(read(ledger)) == 3


def test_a_sweep_interrupted_keeps_its_finished_rows(short_prose, ledger, monkeypatch):
    original = sweeps.append

    def cut(ledger, record):
        original(ledger, record)
        if record.D == 90 * STEP:
            raise KeyboardInterrupt

    monkeypatch.setattr(sweeps, "append", cut)
    with pytest.raises(KeyboardInterrupt):
        sweeps._work(SMALL, ledger)
    monkeypatch.setattr(sweeps, "append", original)
    assert sweeps.missing(SMALL, ledger) == (120 * STEP,)
    sweeps._work(SMALL, ledger)
    whole = [row.loss for row in sweeps.run_trial(SMALL)]
    assert pd.read_csv(ledger).loss.tolist() == whole


def test_a_sweep_runs_what_its_ledger_lacks_on_the_real_text(ledger, monkeypatch):
    monkeypatch.setenv("DEVICE", "cpu")
    first = Trial(16, 1, 3e-3, (64 * STEP, 70 * STEP), seq=16)
    second = Trial(16, 1, 3e-3, (64 * STEP,), seed=1, seq=16)
    sweeps.append(ledger, dataclasses.replace(RECORD, D=70 * STEP))
    before = ledger.read_text(encoding="utf-8")
    progress = list(sweeps.sweep([first, second], ledger, n_workers=1))
    assert progress == [(1, 3), (2, 3), (3, 3)]
    assert ledger.read_text(encoding="utf-8").startswith(before)
    rows = pd.read_csv(ledger)
    assert list(zip(rows.seed, rows.D // STEP, strict=True)) == [(0, 70), (0, 64), (1, 64)]
    here = next(sweeps.run_trial(first))
    assert rows.loss[1] == here.loss  # another process, the same bits
    kept = ledger.read_bytes()
    assert list(sweeps.sweep([first, second], ledger, n_workers=1)) == [(3, 3)]
    assert ledger.read_bytes() == kept


class Parent:
    def __init__(self, alive):
        self.is_alive = lambda: alive


@pytest.mark.parametrize("parent", [None, Parent(True)])
def test_a_worker_goes_on_while_its_sweep_lives(parent, monkeypatch):
    monkeypatch.setattr(sweeps, "parent_process", lambda: parent)
    sweeps._stop_if_orphaned(200, 1.0)


def test_a_worker_ends_when_its_sweep_is_gone(short_prose, ledger, monkeypatch):
    monkeypatch.setattr(sweeps, "parent_process", lambda: Parent(False))
    sweeps._stop_if_orphaned(201, 1.0)  # looked at each hundredth step only
    with pytest.raises(SystemExit, match="the sweep that started this worker is gone"):
        sweeps._work(SMALL, ledger)


def test_the_rate_falls_with_the_width_s_three_quarters():
    assert sweeps.learning_rate(16) == 0.05 / 8
    assert sweeps.learning_rate(256) == pytest.approx(sweeps.learning_rate(16) / 8, abs=1e-6)


def test_the_standard_grid_is_five_by_five_with_seeds_and_one_run_held_out():
    *grid, largest = sweeps.standard()
    first = [t for t in grid if t.seed == 0]
    tokens = {t.tokens for t in first}
    assert [t.d_model for t in first] == [16, 24, 32, 48, 64]
    assert len(tokens) == 1
    assert np.allclose(np.diff(np.log2(tokens.pop())), 1)
    repeats = [t for t in grid if t.seed]
    assert sorted((t.d_model, t.seed) for t in repeats) == [(32, 1), (32, 2), (48, 1), (48, 2)]
    assert all(t.tokens == first[0].tokens[1:4] for t in repeats)
    assert all(t.lr == sweeps.learning_rate(t.d_model) for t in [*grid, largest])

    def compute(t):
        shape = models.GPTConfig(context=t.seq, n_layer=t.n_layer, d_model=t.d_model, n_head=1)
        return max(t.tokens) * flops_per_token(shape, t.seq)

    assert compute(largest) / max(map(compute, grid)) == pytest.approx(4, rel=0.05)
    for t in [*grid, largest]:
        assert [t.config(D).D for D in t.tokens] == list(t.tokens)  # whole steps


def test_the_trial_s_run_has_its_rate_tokens_and_seed():
    config = dataclasses.replace(SMALL, seed=7).config(90 * STEP)
    assert (config.lr, config.D, config.n_steps, config.seed) == (3e-3, 90 * STEP, 90, 7)
    with pytest.raises(ValueError, match="do not fit into 5 steps"):
        SMALL.config(5 * STEP)
