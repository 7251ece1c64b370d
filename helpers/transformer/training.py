"""One training run: steps, evaluation, progress, and its record."""

import subprocess
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import log

import numpy as np
import torch
from torch import distributed as dist
from torch.nn import functional as F

from helpers.data import TokenBatches, bits_per_byte
from helpers.foundations import rules
from helpers.foundations.accepts import accepts, need
from helpers.runtime import ROOT, device_name, synchronize
from helpers.transformer.flops import flops_per_token, measured
from helpers.transformer.models import GPT, GPTConfig, a_gpt, check_tokens
from helpers.transformer.schedule import TrainConfig, wsd
from helpers.transformer.steps import accumulate, average, prepare


@dataclass(frozen=True)
class RunRecord:
    """One finished run, as one row of a table."""

    n_layer: int
    d_model: int
    vocab: int
    N: int  # non-embedding parameters
    N_total: int  # all parameters
    D: int  # training tokens
    C: float  # exact training FLOPs
    loss: float  # validation loss, nats per token
    bpb: float  # the same in bits per byte of text
    lr: float
    batch_size: int
    seq: int
    n_steps: int
    seed: int
    dtype: str
    seconds: float
    device: str
    torch: str
    commit: str


@accepts(model=rules.a(torch.nn.Module), config=rules.a(TrainConfig))
def make_optimizer(model: torch.nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """Fused AdamW without weight decay, at the config's rate and beta2."""
    betas = (0.9, config.beta2)
    return torch.optim.AdamW(model.parameters(), config.lr, betas, weight_decay=0.0, fused=True)


def _check_windows(windows: np.ndarray, config: GPTConfig) -> None:
    """Raise ValueError or TypeError unless a model can read and be examined on (n, seq + 1)."""
    for part in (windows[:, :-1], windows[:, 1:]):  # what it reads, and what comes
        check_tokens(torch.from_numpy(part), 0, config)


@accepts(model=a_gpt, optimizer=rules.a(torch.optim.Optimizer), batches=rules.anything,
         config=rules.a(TrainConfig), start=rules.integer(0), stop=rules.integer(0),
         on_step=rules.maybe(rules.function), needs=need(
             lambda start, stop, config: start <= stop <= config.n_steps,
             "start ≤ stop ≤ the config's n_steps"))
def run_steps(model: GPT, optimizer: torch.optim.Optimizer, batches: TokenBatches,
              config: TrainConfig, start: int, stop: int,
              on_step: Callable[[int, float], None] | None = None) -> list[float]:
    """Take steps `start` … `stop`−1 of the run and return their training losses (nats/token).

    `on_step(step, loss)` is called after each. In a process group each process takes its share of
    every batch. Raises ValueError for a batch that is not as the config says or cannot be read, and
    an optimiser of other weights; FloatingPointError at a loss that is not finite or has left the
    scale, and MemoryError where a step does not fit: both name the step and what to try.
    """
    device, losses, recent = model.wte.weight.device, [], deque(maxlen=20)
    rank, n_process = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    if config.batch_size % n_process:
        raise ValueError(f"batch_size={config.batch_size} has no equal shares for {n_process} "
                         "processes")
    own = {id(p) for p in model.parameters()}
    if not all(id(p) in own for group in optimizer.param_groups for p in group["params"]):
        raise ValueError("the optimiser moves weights that are not the model's: expected one made "
                         "for it, after the last change to its layers")
    prepare(model, config)
    model.train()
    for step in range(start, stop):
        rate = wsd(step, config.n_steps, config.warmup_steps, config.decay_steps)
        for group in optimizer.param_groups:
            group["lr"] = config.lr * rate
        batch = batches[step]  # (batch, seq + 1)
        if np.shape(batch) != (config.batch_size, config.seq + 1):
            raise ValueError(f"batches[{step}] has shape {np.shape(batch)}: expected (batch_size, "
                             f"seq + 1) = {(config.batch_size, config.seq + 1)}, by the config")
        if device.type != "cpu":  # there model and loss look at the ids themselves
            _check_windows(batch, model.config)
        tokens = torch.from_numpy(batch[rank::n_process]).to(device)
        optimizer.zero_grad()
        try:
            loss = accumulate(model, tokens, config)
        except RuntimeError as error:
            if not any(sign in str(error) for sign in ("out of memory", "can't allocate memory")):
                raise
            raise MemoryError(
                f"no memory for step {step}: try n_micro={2 * config.n_micro} (it was "
                f"{config.n_micro}), then recompute=True, then a smaller batch_size (it was "
                f"{config.batch_size}) or seq (it was {config.seq})") from error
        if n_process > 1:
            average([loss, *(p.grad for p in model.parameters())])
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
        optimizer.step()
        losses.append(loss.item())
        recent.append(losses[-1])
        if not np.isfinite(losses[-1]) or (len(recent) == recent.maxlen and
                                           np.mean(recent) > log(model.config.vocab) + 1):
            raise FloatingPointError(
                f"the loss is {losses[-1]:g} at step {step}: try a lower lr (it was {config.lr:g}) "
                f"or a longer warm-up (it was {config.warmup_steps} steps)"
            )
        if on_step:
            on_step(step, losses[-1])
    return losses


@accepts(shape=rules.a(GPTConfig), config=rules.a(TrainConfig), peak_flops=rules.number(above=0),
         show=rules.function, every=rules.integer(1))
class Progress:
    """An `on_step` that says how far a run is, every `every` steps: speed, MFU, time left.

    `show` gets the line of text; `peak_flops` is the device's, in FLOP/s (`runtime.peak_flops`).
    """

    def __init__(self, shape: GPTConfig, config: TrainConfig, peak_flops: float,
                 show: Callable[[str], None], every: int = 50):
        self.config, self.show, self.every = config, show, every
        self.mfu_per_token = flops_per_token(shape, config.seq) / peak_flops
        self.begin, self.first = time.perf_counter(), None

    def __call__(self, step: int, loss: float) -> None:
        """Note the step; show the line if it is its turn or the run's last."""
        if self.first is None or step <= self.first:  # a resumed run starts in the middle
            self.begin, self.first = time.perf_counter(), step
        elif (step + 1) % self.every == 0 or step + 1 == self.config.n_steps:
            per_step = (time.perf_counter() - self.begin) / (step - self.first)
            speed = self.config.batch_size * self.config.seq / per_step
            minutes, seconds = divmod(round(per_step * (self.config.n_steps - step - 1)), 60)
            self.show(f"step {step + 1:,} of {self.config.n_steps:,} · loss {loss:.3f} · "
                      f"{speed:,.0f} tokens/s · MFU {speed * self.mfu_per_token:.0%} · "
                      f"{minutes}:{seconds:02d} left")


@accepts(model=rules.a(torch.nn.Module), windows=rules.integers(2, 0), batch_size=rules.integer(1),
         needs=need(lambda windows: len(windows) and windows.shape[1] > 1,
                    "windows of shape (n_windows, seq + 1), at least one, with a next token"))
@torch.no_grad()
def evaluate(model: torch.nn.Module, windows: np.ndarray, batch_size: int = 32) -> float:
    """Mean loss in nats per token over windows of shape (n_windows, seq + 1).

    Raises ValueError for no windows, and for what the model cannot read.
    """
    if isinstance(getattr(model, "config", None), GPTConfig):
        _check_windows(windows, model.config)
    model.eval()
    device, total = next(model.parameters()).device, 0.0
    for rows in np.array_split(windows, -(-len(windows) // batch_size)):
        tokens = torch.from_numpy(rows).to(device)
        logits = model(tokens[:, :-1])
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # not in bf16
        total += F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(),
                                 reduction="sum").item()
    return total / (windows.shape[0] * (windows.shape[1] - 1))


def commit() -> str:
    """Short hash of the checked-out commit, with `+` if helpers differ from it; else `unknown`."""
    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True,
                              check=True).stdout.strip()
    try:
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "-s", "helpers") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


@accepts(model=a_gpt, config=rules.a(TrainConfig), loss=rules.number(0), seconds=rules.number(0),
         tokens_per_byte=rules.number(above=0))
def record(model: GPT, config: TrainConfig, loss: float, seconds: float,
           tokens_per_byte: float = 1.0) -> RunRecord:
    """The row of a finished run; parameters and FLOPs are those of the model as it is.

    Raises ValueError for a loss that is negative or not finite.
    """
    shape = model.config
    N, N_total, per_token = measured(model, config.seq)
    return RunRecord(
        n_layer=shape.n_layer, d_model=shape.d_model, vocab=shape.vocab, N=N, N_total=N_total,
        D=config.D, C=float(config.D * per_token), loss=loss,
        bpb=bits_per_byte(loss, tokens_per_byte), lr=config.lr, batch_size=config.batch_size,
        seq=config.seq, n_steps=config.n_steps, seed=config.seed, dtype=config.dtype,
        seconds=round(seconds, 1),
        device=device_name(model.wte.weight.device), torch=torch.__version__, commit=commit(),
    )


@accepts(model=a_gpt, batches=rules.anything, config=rules.a(TrainConfig),
         validation=rules.integers(2, 0), on_step=rules.maybe(rules.function),
         tokens_per_byte=rules.number(above=0), needs=need(
             lambda validation: len(validation) and validation.shape[1] > 1,
             "windows of shape (n_windows, seq + 1), at least one, with a next token"))
def train(model: GPT, batches: TokenBatches, config: TrainConfig, validation: np.ndarray,
          on_step: Callable[[int, float], None] | None = None,
          tokens_per_byte: float = 1.0) -> tuple[RunRecord, list[float]]:
    """Train `model` in place; return its record and the training losses, one per step.

    Raises what `run_steps` and `evaluate` raise; for a batch or validation windows that do not fit
    model and config before the first step.
    """
    _check_windows(validation, model.config)
    optimizer = make_optimizer(model, config)
    start = time.perf_counter()
    losses = run_steps(model, optimizer, batches, config, 0, config.n_steps, on_step)
    synchronize(model.wte.weight.device)
    seconds = time.perf_counter() - start
    return record(model, config, evaluate(model, validation), seconds, tokens_per_byte), losses
