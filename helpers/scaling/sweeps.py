"""Many runs: trials, each a trunk with branches, local processes or a Ray cluster, and a ledger.

`make record` records the course's own ones (`recordings/sweeps.py`).
"""

import contextlib
import shutil
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from multiprocessing import parent_process
from pathlib import Path

import numpy as np

from helpers import corpora, data, runtime
from helpers.foundations import rules
from helpers.foundations.accepts import accepts, need
from helpers.scaling import ledger
from helpers.scaling.engines import ENGINES
from helpers.scaling.ledger import Status
from helpers.transformer import checkpoints, training
from helpers.transformer.flops import flops_per_token
from helpers.transformer.models import GPT, GPTConfig
from helpers.transformer.training import TrainConfig, make_optimizer
from helpers.transformer.trunks import fork, grow, resume

RECIPES = ("cb4edcde665ae58f", "5201d02683d2f618")  # a new run's; one with the same numbers
OVERHEAD = 8e5  # what a token costs beside its FLOPs, in FLOPs, whatever the model's size


@accepts(d_model=rules.integer(2), n_layer=rules.integer(1),
         tokens=lambda tokens: tuple(sorted({*rules.each(rules.integer(1), 1)(tokens)})),
         lr=lambda lr: float(rules.number(above=0)(lr)), seed=rules.integer(0, 2**63 - 1),
         batch_size=rules.integer(1), seq=rules.integer(1), data=rules.text,
         dtype=rules.one_of("float32", "bfloat16"), n_validation=rules.integer(1),
         decay_fraction=lambda share: float(rules.number(0, 1)(share)))
@dataclass(frozen=True)
class Trial:
    """One size and one seed, trained to several token counts off one constant-rate trunk."""

    d_model: int
    n_layer: int
    lr: float
    tokens: tuple[int, ...]  # the token counts D, sorted, each one cool-down branch
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
        """The run that ends at D tokens. Raises ValueError if steps or schedule do not fit."""
        n_steps, rest = divmod(D, self.batch_size * self.seq)
        if rest:
            raise ValueError(f"D={D}: expected a multiple of the {self.batch_size * self.seq} "
                             "tokens of a step")
        return TrainConfig(
            lr=self.lr, n_steps=n_steps, batch_size=self.batch_size, seq=self.seq, seed=self.seed,
            dtype=self.dtype, decay_fraction=self.decay_fraction)

    @accepts(D=rules.maybe(rules.integer(1)), recipe=rules.text)
    def key(self, D: int | None = None, recipe: str = RECIPES[0]) -> str:
        """Name of the run that ends at D, or of the trunk, in ledger and checkpoint files."""
        fields = {name: value for name, value in asdict(self).items() if name != "tokens"}
        return ledger.key({**fields, "n_steps": D and D // (self.batch_size * self.seq)}, recipe)

    def cost(self, wanted: tuple[int, ...]) -> list[float]:
        """Work up to and including each of the sorted token counts: FLOPs and overhead."""
        per_token, end, costs = flops_per_token(self.shape, self.seq) + OVERHEAD, 0.0, []
        for D in sorted(wanted):
            start, end = end, (1 - self.decay_fraction) * D
            costs.append(per_token * (end - start + self.decay_fraction * D))
        return costs


@accepts(trial=rules.a(Trial), checkpoint=rules.maybe(checkpoints.FILE), every=rules.number(0))
def run_trial(trial: Trial, checkpoint: str | Path | None = None, every: float = 60.0
              ) -> Iterator[dict]:
    """Train the trunk once, with a branch to each D; evaluate, and yield the ledger's row.

    With a `checkpoint` file, the trunk is saved there every so many seconds and at each fork, and
    taken up from there: same losses, bit for bit. One that is damaged or another trial's is not
    used: the trunk starts anew.
    """
    device, configs = runtime.device(), [trial.config(D) for D in trial.tokens]
    runtime.setup(trial.seed)
    batches, validation = _texts(trial)
    trunk, done, seconds = GPT(trial.shape, trial.seed).to(device), 0, 0.0
    optimizer = make_optimizer(trunk, configs[-1])
    if checkpoint and Path(checkpoint).exists():
        with contextlib.suppress(ValueError):
            *state, step, spent = resume(checkpoint, trial.shape, configs[-1], device,
                                         data=trial.data)
            if step <= fork(configs[0]):  # else a row was lost before it
                (trunk, optimizer), done, seconds = state, step, spent
    for config, model, whole in grow(trunk, optimizer, batches, configs, done, seconds, checkpoint,
                                     every, _stop_if_orphaned, data=trial.data):
        record = training.record(model, config, training.evaluate(model, validation), whole)
        yield {"key": trial.key(config.D), "data": trial.data, **asdict(record),
               "decay_fraction": trial.decay_fraction, "finished": ledger.now()}


def _texts(trial: Trial) -> tuple[data.TokenBatches, np.ndarray]:
    """What the trial reads and is examined on. Raises ValueError if the text is too short."""
    train_tokens, held_out = corpora.load(trial.data)
    return (data.TokenBatches(train_tokens, trial.batch_size, trial.seq, trial.seed),
            data.windows(held_out, trial.n_validation, trial.seq))


def _stop_if_orphaned(step: int, loss: float) -> None:
    """End a worker whose sweep was killed; it would go on for hours, unseen."""
    if step % 100 == 0 and (parent := parent_process()) and not parent.is_alive():
        raise SystemExit("the sweep that started this worker is gone")


@accepts(trials=rules.each(rules.a(Trial)), path=ledger.FILE, n_workers=rules.integer(1),
         engine=rules.text, every=rules.number(0), needs=(
             need(lambda engine: engine in ENGINES, f"one of {', '.join(ENGINES)}"),
             need(lambda path: Path(path).suffix != ".trials", "another end than .trials")))
def sweep(trials: list[Trial], path: str | Path, n_workers: int = 2, engine: str = "processes",
          every: float = 60.0) -> Iterator[Status]:
    """Train what the ledger at `path` lacks; yield the status after each thing that happens.

    engine: "processes" on this machine, `n_workers` (1 or more) at a time, or "ray": as many as
    the cluster has CPUs (RAY_ADDRESS; the extra `[cluster]`). Either way a trial runs on one thread
    and this process alone writes the ledger. Stopped or killed at any moment, finished rows stay
    and trials go on from their checkpoints, in a folder beside the ledger, when it is called again.
    A worker that dies is replaced, three times a trial; a damaged checkpoint is noted and not used.

    Raises, before a worker starts, ValueError for a trial whose schedule or text does not fit or a
    file that is no ledger, OSError where nothing can be written; in the end ExceptionGroup for
    trials that failed.
    """
    path = Path(path).absolute()
    folder, failed, deaths, held = path.with_suffix(".trials"), [], Counter(), Counter()
    torn, have = ledger.repair(path), ledger.keys(path)
    todo = [replace(t, tokens=lacks) for t in trials if (lacks := missing(t, have))]
    if todo:
        _check(todo)
        folder.mkdir(parents=True, exist_ok=True)
        open(path, "ab").close()
    costs = {t.key(D): cost for t in todo
             for D, cost in zip(t.tokens, t.cost(t.tokens), strict=True)}
    waiting = deque(sorted(todo, key=lambda t: -sum(t.cost(t.tokens))))  # largest first
    begin, total = time.perf_counter(), len({t.key(D) for t in trials for D in t.tokens})

    def status(note: str = "") -> Status:
        new = ledger.keys(path) & costs.keys()
        work, left = (sum(costs[k] for k in some) for some in (new, costs.keys() - new))
        left *= (time.perf_counter() - begin) / work if new else float("nan")
        return Status(total - len(costs) + len(new), total, left, note)

    yield status(f"the ledger's last line was torn and is cut off: {torn}" if torn else "")
    for trial, result in ENGINES[engine](waiting, _work, n_workers, path, every):
        note = ""
        if isinstance(result, dict):
            ledger.append(path, result)
            if not missing(trial, ledger.keys(path)):  # not before its rows are on the disk
                (folder / f"{trial.key()}.safetensors").unlink(missing_ok=True)
        elif isinstance(result, str) or missing(trial, ledger.keys(path)):
            note = f"d_model {trial.d_model}, seed {trial.seed}, {trial.data}: {result}"
            if isinstance(result, BlockingIOError):  # another sweep is at it: see what it leaves
                note, held[trial] = ("" if held[trial] else f"{note}; waiting for it"), 1
                waiting.append(trial)
                time.sleep(1)
            elif isinstance(result, ConnectionError) and deaths[trial] < 3:
                deaths[trial] += 1
                waiting.append(trial)
                note += "; it goes on from its checkpoint"
            elif isinstance(result, Exception):
                failed.append(result)
        yield status(note)
    if failed:
        raise ExceptionGroup(f"{len(failed)} trials failed; the ledger keeps the others", failed)
    with contextlib.ExitStack() as locks, contextlib.suppress(BlockingIOError):
        for lock in folder.glob("*.lock"):  # while another sweep is at a trial, the folder stays
            locks.enter_context(ledger.claim(lock))
        shutil.rmtree(folder, ignore_errors=True)
    if todo:
        yield status()


def _check(trials: list[Trial]) -> None:
    """Raise ValueError, with the trial, for one that cannot run. Equal texts are read once."""
    texts = {(t.data, t.batch_size, t.seq, t.n_validation): t for t in trials}.values()
    for trial in trials:
        try:
            if all(trial.shape and trial.config(D) for D in trial.tokens) and trial in texts:
                _texts(trial)
        except ValueError as error:
            raise ValueError(f"{trial}: {error}") from None


def _work(trial: Trial, path: Path, every: float) -> Iterator[dict | str]:
    """What the ledger lacks, or a note and it; BlockingIOError if another sweep is at it."""
    folder = path.with_suffix(".trials")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{trial.key()}.safetensors"
    with ledger.claim(file.with_suffix(".lock")):
        if lacks := missing(trial, ledger.keys(path)):
            trial = replace(trial, tokens=lacks)
            if file.exists():
                try:
                    resume(file, trial.shape, trial.config(trial.tokens[-1]), data=trial.data)
                except ValueError as error:
                    yield f"its checkpoint is not used, it starts anew: {error}"
                    file.unlink()
            yield from run_trial(trial, file, every)
        else:
            file.unlink(missing_ok=True)


@accepts(trial=rules.a(Trial), have=lambda have: {*rules.each(rules.text)(have)})
def missing(trial: Trial, have: set[str]) -> tuple[int, ...]:
    """The trial's token counts whose runs are not among the keys of a ledger, by any recipe."""
    return tuple(D for D in trial.tokens
                 if not have & {trial.key(D, recipe) for recipe in RECIPES})


@accepts(d_model=rules.number(1, 2**20))
def learning_rate(d_model: int) -> float:
    """Peak rate for batches of 4 windows of 128 bytes: 0.05 d_model^-0.75, roughly N^-0.3."""
    return round(0.05 * d_model**-0.75, 6)
