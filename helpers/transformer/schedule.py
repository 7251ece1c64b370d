"""What a run is told beforehand: its hyper-parameters, and the learning rate at each step."""

from dataclasses import dataclass

from helpers.foundations import rules
from helpers.foundations.accepts import accepts, need


@accepts(lr=rules.number(above=0), n_steps=rules.integer(1), batch_size=rules.integer(1),
         seq=rules.integer(1), warmup_steps=rules.integer(0), decay_fraction=rules.number(0, 1),
         beta2=rules.number(0, below=1), grad_clip=rules.number(above=0), seed=rules.integer(0),
         dtype=rules.text, n_micro=rules.integer(), recompute=rules.a(bool))
@dataclass(frozen=True)
class TrainConfig:
    """One run's hyper-parameters, integers of any type taken as Python's own.

    Raises ValueError or TypeError for what no run can use, and for a schedule that does not fit
    its steps.
    """

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


@accepts(step=rules.integer(0), n_steps=rules.integer(1), warmup_steps=rules.integer(0),
         decay_steps=rules.integer(0), needs=(
             need(lambda step, n_steps: step < n_steps, "a step below n_steps"),
             need(lambda n_steps, warmup_steps, decay_steps: warmup_steps + decay_steps <= n_steps,
                  "a warm-up and a cool-down that fit into n_steps")))
def wsd(step, n_steps, warmup_steps, decay_steps):
    """Share of the peak rate at a step: warm-up, constant, then a 1−√ cool-down.

    step: 0 … n_steps − 1 → (0, 1]. Raises ValueError for a step outside, and for a warm-up and a
    cool-down that do not fit. Source: Hägele et al. 2024 (arXiv:2405.18392).
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    left = n_steps - step
    return 1.0 if left > decay_steps else 1 - (1 - left / decay_steps) ** 0.5
