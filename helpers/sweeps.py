"""Many runs: a grid of trials, local processes, and a ledger that resumes.

`python -m helpers.sweeps` makes the course's recorded sweep, `data/sweeps/prose_cpu.csv`.
"""

import copy
import csv
import io
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields, replace
from multiprocessing import get_context, parent_process
from pathlib import Path

import pandas as pd

from helpers import checkpoints, data, runtime, training
from helpers.models import GPT, GPTConfig


@dataclass(frozen=True)
class Trial:
    """One size and one seed, trained to several token counts off one constant-rate trunk."""

    d_model: int
    n_layer: int
    lr: float
    tokens: tuple[int, ...]  # the token counts D, each one cool-down branch
    seed: int = 0
    batch_size: int = 4
    seq: int = 128

    def config(self, D: int) -> training.TrainConfig:
        """The run that ends at D tokens."""
        return training.TrainConfig(lr=self.lr, n_steps=D // (self.batch_size * self.seq),
                                    batch_size=self.batch_size, seq=self.seq, seed=self.seed)


def run_trial(trial: Trial, n_validation: int = 1000) -> Iterator[training.RunRecord]:
    """Train the trunk once; at each D, branch off, cool down, evaluate, and yield the record.

    A branch sees exactly the batches and rates of a separate run of that length, so its loss is
    the same; only the constant-rate steps are shared.
    """
    runtime.setup(trial.seed)
    device = runtime.device()
    train_docs, held_out = data.split_documents(data.prose())
    tokens = data.encode(train_docs)
    batches = data.TokenBatches(tokens, trial.batch_size, trial.seq, trial.seed)
    validation = data.windows(data.encode(held_out), n_validation, trial.seq)
    shape = GPTConfig(context=trial.seq, n_layer=trial.n_layer, d_model=trial.d_model,
                      n_head=max(1, trial.d_model // 16))
    trunk = GPT(shape, trial.seed).to(device)
    optimizer = training.make_optimizer(trunk, trial.config(max(trial.tokens)))
    done, trunk_seconds = 0, 0.0
    for D in sorted(trial.tokens):
        config, start = trial.config(D), time.perf_counter()
        fork = config.n_steps - config.decay_steps
        training.run_steps(trunk, optimizer, batches, config, done, fork, _stop_if_orphaned)
        done, trunk_seconds = fork, trunk_seconds + time.perf_counter() - start
        model, branch_start = copy.deepcopy(trunk), time.perf_counter()
        branch = training.make_optimizer(model, config)
        branch.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # else shared, and changed
        training.run_steps(model, branch, batches, config, fork, config.n_steps,
                           _stop_if_orphaned)
        seconds = trunk_seconds + time.perf_counter() - branch_start
        yield training.record(model, config, training.evaluate(model, validation), seconds)


def _stop_if_orphaned(step: int, loss: float) -> None:
    """End a worker whose sweep was killed; it would go on for hours, unseen."""
    if step % 100 == 0 and (parent := parent_process()) and not parent.is_alive():
        raise SystemExit("the sweep that started this worker is gone")


def append(ledger: Path, record: training.RunRecord) -> None:
    """Add one row to the ledger with one write, so that no reader sees half a row.

    The file is locked meanwhile: of several processes, one writes the header and no row is lost.
    """
    line = io.StringIO(newline="")
    writer = csv.DictWriter(line, [f.name for f in fields(record)], lineterminator="\n")
    with open(ledger, "ab", buffering=0) as file:
        _lock(file.fileno())
        if not os.fstat(file.fileno()).st_size:
            writer.writeheader()
        writer.writerow(asdict(record))
        file.write(line.getvalue().encode())


def _lock(handle: int) -> None:
    """Wait until no other process holds the open file; closing it lets go."""
    if os.name == "nt":
        import msvcrt
        os.lseek(handle, 2**30, os.SEEK_SET)  # one byte that no ledger reaches
        msvcrt.locking(handle, msvcrt.LK_LOCK, 1)
    else:
        import fcntl
        fcntl.flock(handle, fcntl.LOCK_EX)


def missing(trial: Trial, ledger: Path) -> tuple[int, ...]:
    """The token counts of `trial` that the ledger does not hold."""
    if not ledger.exists() or not ledger.stat().st_size:
        return trial.tokens
    rows = pd.read_csv(ledger)
    for name in ("d_model", "n_layer", "lr", "seed", "batch_size", "seq"):
        rows = rows[rows[name] == getattr(trial, name)]
    return tuple(D for D in trial.tokens if trial.config(D).D not in set(rows.D))


def _work(trial: Trial, ledger: Path) -> int:
    if wanted := missing(trial, ledger):
        for record in run_trial(replace(trial, tokens=wanted)):
            append(ledger, record)
    return len(wanted)


def sweep(trials: list[Trial], ledger: Path, n_workers: int = 2) -> Iterator[tuple[int, int]]:
    """Run what the ledger lacks, one trial per process; yield (rows done, rows wanted).

    Interrupted at any moment, it keeps every finished row; call it again to go on.
    """
    todo = [t for t in trials if missing(t, ledger)]
    total = sum(len(t.tokens) for t in trials)
    done = total - sum(len(missing(t, ledger)) for t in todo)
    yield done, total
    with ProcessPoolExecutor(n_workers, mp_context=get_context("spawn")) as pool:
        largest_first = sorted(todo, key=lambda t: -t.n_layer * t.d_model**2 * max(t.tokens))
        jobs = [pool.submit(_work, trial, ledger) for trial in largest_first]
        for job in as_completed(jobs):
            done += job.result()
            yield done, total


M = 2**20
DEPTHS = {16: 2, 24: 2, 32: 3, 48: 3, 64: 4}  # d_model: n_layer
SWEEP, MODEL = "sweeps/prose_cpu.csv", "models/gpt_prose.safetensors"
MODEL_RECORD = "sweeps/course_model.csv"


def learning_rate(d_model: int) -> float:
    """The sweep's rule for batches of 512 tokens: 0.05 d_model^-0.75, roughly N^-0.3."""
    return round(0.05 * d_model**-0.75, 6)


def standard() -> list[Trial]:
    """The course's sweep: five sizes × five token counts, three seeds in the middle, and one run
    of four times the largest compute, held out to test the prediction."""
    tokens = (M // 4, M // 2, M, 2 * M, 4 * M)
    grid = [Trial(d, n_layer, learning_rate(d), tokens if seed == 0 else tokens[1:4], seed)
            for d, n_layer in DEPTHS.items()
            for seed in ((0, 1, 2) if d in (32, 48) else (0,))]
    return [*grid, Trial(96, 4, learning_rate(96), (8 * M,))]


def train_course_model() -> training.RunRecord:
    """Train the model that chapters 11 and 12 start from; write its file and its one-row record."""
    runtime.setup()
    config = training.TrainConfig(lr=3e-3, n_steps=12000, batch_size=8)
    train_docs, held_out = data.split_documents(data.prose())
    batches = data.TokenBatches(data.encode(train_docs), config.batch_size, config.seq)
    validation = data.windows(data.encode(held_out), 1000, config.seq)
    model = GPT(GPTConfig(context=config.seq)).to(runtime.device())
    record, _ = training.train(model, batches, config, validation)
    checkpoints.save_model(model, data.DATA / MODEL, commit=record.commit, torch=record.torch)
    (data.DATA / MODEL_RECORD).unlink(missing_ok=True)
    append(data.DATA / MODEL_RECORD, record)
    return record


if __name__ == "__main__":
    begin = time.perf_counter()
    if "model" in sys.argv:
        sys.stderr.write(f"{train_course_model()}\n")
    else:
        for n_done, n_total in sweep(standard(), data.DATA / SWEEP):
            minutes = (time.perf_counter() - begin) / 60
            sys.stderr.write(f"{n_done} of {n_total} runs recorded, {minutes:.1f} min\n")
    sys.stderr.write("now run: python -m helpers.data --seal\n")
