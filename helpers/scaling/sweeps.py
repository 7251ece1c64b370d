"""Many runs: trials, branches off one trunk, local processes or a Ray cluster, and a ledger.

`make record` records the course's own ones (`recordings/sweeps.py`).
"""

import contextlib
import copy
import shutil
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from multiprocessing import parent_process
from pathlib import Path

from helpers import corpora, data, runtime
from helpers.scaling import engines, ledger
from helpers.transformer import checkpoints, training
from helpers.transformer.flops import flops_per_token
from helpers.transformer.models import GPT, GPTConfig
from helpers.transformer.training import TrainConfig, make_optimizer, run_steps

RECIPES = ("cb4edcde665ae58f", "5201d02683d2f618")  # a new run's; one with the same numbers
OVERHEAD = 8e5  # what a token costs beside its FLOPs, in FLOPs, whatever the model's size


@dataclass(frozen=True)
class Trial:
    """One size and one seed, trained to several token counts off one constant-rate trunk."""

    d_model: int
    n_layer: int
    lr: float
    tokens: tuple[int, ...]  # the token counts D, each one cool-down branch
    seed: int = 0
    batch_size: int = 4  # windows per step
    seq: int = 128  # tokens per window
    data: str = "prose"  # a text of helpers.corpora
    dtype: str = "float32"  # of the matrix products
    decay_fraction: float = 0.2  # share of each run in its cool-down
    n_validation: int = 1000  # windows of held-out text

    @property
    def shape(self) -> GPTConfig:
        """The model: heads of 16 channels, context as long as the windows."""
        return GPTConfig(context=self.seq, n_layer=self.n_layer, d_model=self.d_model,
                         n_head=max(1, self.d_model // 16))

    def config(self, D: int) -> TrainConfig:
        """The run that ends at D tokens. Raises ValueError if the schedule does not fit."""
        return TrainConfig(
            lr=self.lr, n_steps=D // (self.batch_size * self.seq), batch_size=self.batch_size,
            seq=self.seq, seed=self.seed, dtype=self.dtype, decay_fraction=self.decay_fraction)

    def key(self, D: int | None = None, recipe: str = RECIPES[0]) -> str:
        """Name of the run that ends at D, or of the trunk, in ledger and checkpoint files."""
        fields = {name: value for name, value in asdict(self).items() if name != "tokens"}
        steps = D and D // (self.batch_size * self.seq)
        return ledger.key({**fields, "n_steps": steps}, recipe)

    def cost(self, wanted: tuple[int, ...]) -> list[float]:
        """Work up to and including each of the sorted token counts: FLOPs and overhead."""
        per_token, fork, costs = flops_per_token(self.shape, self.seq) + OVERHEAD, 0.0, []
        for D in sorted(wanted):
            start, fork = fork, (1 - self.decay_fraction) * D
            costs.append(per_token * (fork - start + self.decay_fraction * D))
        return costs


def branches(trunk, optimizer, batches, configs, done=0, on_fork=None, on_trunk=None,
             on_branch=None):
    """Yield (config, model) for each run of `configs`, shortest first, off one constant-rate trunk.

    A branch sees exactly the batches and rates of a separate run of that length, so its model is
    the same, bit for bit; only the constant-rate steps are shared. `done`: steps that the trunk
    has behind it; `on_fork(step)` is called when it has come to a branch, `on_trunk(step, loss)`
    and `on_branch(step, loss)` after each step. Source: Hägele et al. 2024 (arXiv:2405.18392).
    """
    for config in configs:
        fork = config.n_steps - config.decay_steps
        run_steps(trunk, optimizer, batches, config, done, fork, on_trunk)
        done = fork
        if on_fork:
            on_fork(fork)
        model = copy.deepcopy(trunk)
        branch = make_optimizer(model, config)
        branch.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # else shared, and changed
        run_steps(model, branch, batches, config, fork, config.n_steps, on_branch)
        yield config, model


def run_trial(trial: Trial, checkpoint: str | Path | None = None, every: float = 60.0
              ) -> Iterator[dict]:
    """Train the trunk once, with a branch to each D; evaluate, and yield the ledger's row.

    With a `checkpoint` file, the trunk is saved there every so many seconds and at each fork, and
    taken up from there: same losses, bit for bit.
    """
    runtime.setup(trial.seed)
    device, configs = runtime.device(), [trial.config(D) for D in sorted(trial.tokens)]
    train_tokens, held_out = corpora.load(trial.data)
    batches = data.TokenBatches(train_tokens, trial.batch_size, trial.seq, trial.seed)
    validation = data.windows(held_out, trial.n_validation, trial.seq)
    trunk, done, seconds = GPT(trial.shape, trial.seed).to(device), 0, 0.0
    optimizer = make_optimizer(trunk, configs[-1])
    if checkpoint and Path(checkpoint).exists():
        *state, step = checkpoints.load_run(checkpoint, device)
        if step <= configs[0].n_steps - configs[0].decay_steps:  # else a row was lost before it
            (trunk, optimizer, _), done = state, step
            seconds = float(checkpoints.header(checkpoint)["seconds"])
    begin = saved = time.perf_counter()

    def save(step: int) -> None:
        nonlocal begin, saved, seconds
        saved = time.perf_counter()
        begin, seconds = saved, seconds + saved - begin  # of the trunk alone
        if checkpoint:
            checkpoints.save_run(checkpoint, trunk, optimizer, configs[-1], step,
                                 seconds=str(seconds))

    def on_trunk(step: int, loss: float) -> None:
        _stop_if_orphaned(step, loss)
        if time.perf_counter() - saved > every:
            save(step + 1)

    for config, model in branches(trunk, optimizer, batches, configs, done, save, on_trunk,
                                  _stop_if_orphaned):
        whole = seconds + time.perf_counter() - begin
        record = training.record(model, config, training.evaluate(model, validation), whole)
        yield {"key": trial.key(config.D), "data": trial.data, **asdict(record),
               "decay_fraction": trial.decay_fraction, "finished": ledger.now()}
        begin = saved = time.perf_counter()


def _stop_if_orphaned(step: int, loss: float) -> None:
    """End a worker whose sweep was killed; it would go on for hours, unseen."""
    if step % 100 == 0 and (parent := parent_process()) and not parent.is_alive():
        raise SystemExit("the sweep that started this worker is gone")


@dataclass(frozen=True)
class Status:
    """How far a sweep is: rows in the ledger, rows wanted, an estimate, and what happened."""

    done: int
    total: int
    seconds_left: float  # NaN before the first new row
    note: str = ""

    def __str__(self) -> str:
        full = round(20 * self.done / max(self.total, 1))
        left = "" if self.seconds_left != self.seconds_left else (
            f" · {self.seconds_left // 60:.0f}:{self.seconds_left % 60:02.0f} left")
        return f"[{'#' * full}{'-' * (20 - full)}] {self.done} of {self.total} runs{left}"


def sweep(trials: list[Trial], path: str | Path, n_workers: int = 2, engine: str = "processes",
          every: float = 60.0) -> Iterator[Status]:
    """Train what the ledger at `path` lacks; yield the status after each thing that happens.

    engine: "processes" on this machine, `n_workers` at a time, or "ray": as many as the cluster
    has CPUs (RAY_ADDRESS; the extra `[cluster]`). Either way a trial runs on one thread and this
    process alone writes the ledger. Stopped or killed at any moment, finished rows stay and trials
    go on from their checkpoints, in a folder beside the ledger, when it is called again. A worker
    that dies is replaced, three times a trial. Raises ExceptionGroup at the end for trials that
    failed, ValueError for an unknown engine.
    """
    if engine not in engines.ENGINES:
        raise ValueError(f"engine={engine!r}: expected one of {', '.join(engines.ENGINES)}")
    path = Path(path).absolute()
    folder, deaths, failed = path.with_suffix(".trials"), {}, []
    torn, have = ledger.repair(path), ledger.keys(path)
    todo = [replace(t, tokens=lacks) for t in trials if (lacks := missing(t, have))]
    costs = {t.key(D): cost for t in todo
             for D, cost in zip(t.tokens, t.cost(t.tokens), strict=True)}
    waiting = deque(sorted(todo, key=lambda t: -sum(t.cost(t.tokens))))  # largest first
    begin, total = time.perf_counter(), sum(len(t.tokens) for t in trials)

    def status(note: str = "") -> Status:
        new = ledger.keys(path) & costs.keys()
        work, left = (sum(costs[k] for k in some) for some in (new, costs.keys() - new))
        speed = work / (time.perf_counter() - begin)
        return Status(total - len(costs) + len(new), total, left / speed if new else float("nan"),
                      note)

    yield status(f"the ledger's last line was torn and is cut off: {torn}" if torn else "")
    for trial, result in engines.ENGINES[engine](waiting, _work, n_workers, path, every):
        name, note = f"d_model {trial.d_model}, seed {trial.seed}, {trial.data}", ""
        if isinstance(result, dict):
            ledger.append(path, result)
        elif lacks := missing(trial, ledger.keys(path)):
            trial = replace(trial, tokens=lacks)
            if isinstance(result, BlockingIOError):  # another sweep is at it: see what it leaves
                waiting.append(trial)
                time.sleep(1)
            elif isinstance(result, ConnectionError) and deaths.get(trial.key(), 0) < 3:
                deaths[trial.key()] = deaths.get(trial.key(), 0) + 1
                waiting.append(trial)
                note = f"{name}: {result}; it goes on from its checkpoint"
            else:
                failed.append(result)
                note = f"{name}: {result}"
        yield status(note)
    if failed:
        raise ExceptionGroup(f"{len(failed)} trials failed; the ledger keeps the others", failed)
    with contextlib.ExitStack() as held, contextlib.suppress(BlockingIOError):
        for lock in folder.glob("*.lock"):  # while another sweep is at a trial, the folder stays
            held.enter_context(ledger.claim(lock))
        shutil.rmtree(folder, ignore_errors=True)
    if todo:
        yield status()


def _work(trial: Trial, path: Path, every: float) -> Iterator[dict]:
    """The rows that the ledger lacks, unless another sweep is at them: BlockingIOError then."""
    folder = path.with_suffix(".trials")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{trial.key()}.safetensors"
    with ledger.claim(file.with_suffix(".lock")):
        if lacks := missing(trial, ledger.keys(path)):
            yield from run_trial(replace(trial, tokens=lacks), file, every)
        file.unlink(missing_ok=True)


def missing(trial: Trial, have: set[str]) -> tuple[int, ...]:
    """The trial's token counts whose runs are not among the keys of a ledger, by any recipe."""
    return tuple(D for D in sorted(trial.tokens)
                 if not have & {trial.key(D, recipe) for recipe in RECIPES})


def learning_rate(d_model: int) -> float:
    """Peak rate for batches of 4 windows of 128 bytes: 0.05 d_model^-0.75, roughly N^-0.3."""
    return round(0.05 * d_model**-0.75, 6)
