"""One training run: schedule, steps, evaluation, progress, and its record."""

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
from helpers.runtime import ROOT, device_name, synchronize
from helpers.transformer.flops import flops_per_token, n_params
from helpers.transformer.models import GPT, GPTConfig
from helpers.transformer.steps import accumulate, average, prepare


@dataclass(frozen=True)
class TrainConfig:
    """One run's hyper-parameters. Raises ValueError if the schedule does not fit its steps."""

    lr: float  # peak learning rate
    n_steps: int  # optimiser steps
    batch_size: int = 16  # windows per step
    seq: int = 128  # tokens per window
    warmup_steps: int = 50  # linear rise at the start
    decay_fraction: float = 0.2  # share of the steps in the 1-sqrt cool-down at the end
    beta2: float = 0.99  # Adam's second-moment memory; long, because the batches are small
    grad_clip: float = 1.0  # largest gradient norm
    seed: int = 0  # weights and data order
    dtype: str = "float32"  # of the matrix products; weights and Adam stay float32
    n_micro: int = 1  # parts of a batch, one after the other: less memory, same gradient
    recompute: bool = False  # blocks again in the backward pass, instead of keeping activations

    def __post_init__(self):
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype={self.dtype!r}: expected 'float32' or 'bfloat16'")
        if not 1 <= self.n_micro <= self.batch_size:
            raise ValueError(f"n_micro={self.n_micro}: expected 1 … batch_size={self.batch_size}")
        if self.warmup_steps > self.n_steps - self.decay_steps:
            raise ValueError(
                f"{self.warmup_steps} warm-up and {self.decay_steps} cool-down steps do not fit "
                f"into {self.n_steps} steps"
            )

    @property
    def decay_steps(self) -> int:
        """Length of the cool-down."""
        return round(self.decay_fraction * self.n_steps)

    @property
    def D(self) -> int:
        """Training tokens."""
        return self.n_steps * self.batch_size * self.seq


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


def wsd(step, n_steps, warmup_steps, decay_steps):
    """Share of the peak rate at a step: warm-up, constant, then a 1−√ cool-down.

    step: 0 … n_steps − 1 → (0, 1]. Source: Hägele et al. 2024 (arXiv:2405.18392).
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    left = n_steps - step
    return 1.0 if left > decay_steps else 1 - (1 - left / decay_steps) ** 0.5


def make_optimizer(model: torch.nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """Fused AdamW without weight decay, at the config's rate and beta2."""
    betas = (0.9, config.beta2)
    return torch.optim.AdamW(model.parameters(), config.lr, betas, weight_decay=0.0, fused=True)


def run_steps(model: GPT, optimizer: torch.optim.Optimizer, batches: TokenBatches,
              config: TrainConfig, start: int, stop: int,
              on_step: Callable[[int, float], None] | None = None) -> list[float]:
    """Take steps `start` … `stop`−1 of the run and return their training losses (nats/token).

    `on_step(step, loss)` is called after each. In a process group each process takes its share of
    every batch. Raises FloatingPointError at a loss that is not finite or has left the scale, and
    MemoryError where a step does not fit: both name the step and what to try.
    """
    device, losses, recent = model.wte.weight.device, [], deque(maxlen=20)
    rank, n_process = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    if config.batch_size % n_process:
        raise ValueError(f"batch_size={config.batch_size} has no equal shares for {n_process} "
                         "processes")
    prepare(model, config)
    model.train()
    for step in range(start, stop):
        rate = wsd(step, config.n_steps, config.warmup_steps, config.decay_steps)
        for group in optimizer.param_groups:
            group["lr"] = config.lr * rate
        tokens = torch.from_numpy(batches[step][rank::n_process]).to(device)  # (batch, seq + 1)
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
        if self.first is None:  # of this process: a resumed run starts in the middle
            self.begin, self.first = time.perf_counter(), step
        elif (step + 1) % self.every == 0 or step + 1 == self.config.n_steps:
            per_step = (time.perf_counter() - self.begin) / (step - self.first)
            speed = self.config.batch_size * self.config.seq / per_step
            minutes, seconds = divmod(round(per_step * (self.config.n_steps - step - 1)), 60)
            self.show(f"step {step + 1:,} of {self.config.n_steps:,} · loss {loss:.3f} · "
                      f"{speed:,.0f} tokens/s · MFU {speed * self.mfu_per_token:.0%} · "
                      f"{minutes}:{seconds:02d} left")


@torch.no_grad()
def evaluate(model: torch.nn.Module, windows: np.ndarray, batch_size: int = 32) -> float:
    """Mean loss in nats per token over windows of shape (n_windows, seq + 1)."""
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


def record(model: GPT, config: TrainConfig, loss: float, seconds: float,
           tokens_per_byte: float = 1.0) -> RunRecord:
    """The row of a finished run."""
    shape = model.config
    N, N_total = n_params(shape)
    return RunRecord(
        n_layer=shape.n_layer, d_model=shape.d_model, vocab=shape.vocab, N=N, N_total=N_total,
        D=config.D, C=float(config.D * flops_per_token(shape, config.seq)), loss=loss,
        bpb=bits_per_byte(loss, tokens_per_byte), lr=config.lr, batch_size=config.batch_size,
        seq=config.seq, n_steps=config.n_steps, seed=config.seed, dtype=config.dtype,
        seconds=round(seconds, 1),
        device=device_name(model.wte.weight.device), torch=torch.__version__, commit=commit(),
    )


def train(model: GPT, batches: TokenBatches, config: TrainConfig, validation: np.ndarray,
          on_step: Callable[[int, float], None] | None = None,
          tokens_per_byte: float = 1.0) -> tuple[RunRecord, list[float]]:
    """Train `model` in place; return its record and the training losses, one per step."""
    optimizer = make_optimizer(model, config)
    start = time.perf_counter()
    losses = run_steps(model, optimizer, batches, config, 0, config.n_steps, on_step)
    synchronize(model.wte.weight.device)
    seconds = time.perf_counter() - start
    return record(model, config, evaluate(model, validation), seconds, tokens_per_byte), losses
