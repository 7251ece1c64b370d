"""Distillation: a small model learns from a large one's probabilities."""

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F

from helpers.data import TokenBatches
from helpers.foundations import rules
from helpers.foundations.accepts import accepts, need, same_length, same_shape
from helpers.transformer.models import GPT, a_gpt
from helpers.transformer.schedule import TrainConfig, wsd
from helpers.transformer.steps import prepare
from helpers.transformer.training import make_optimizer


def _targets(value):
    """Rule: whole numbers (n,), as cross-entropy takes them."""
    return rules.tensor(1, floating=False)(value).long()


def _inside(z, targets) -> bool:
    low, high = torch.aminmax(targets)
    return bool(low >= 0) and bool(high < z.shape[1])  # -100 would be left out, without a word


@accepts(z=rules.tensor(2), z_teacher=rules.tensor(2), targets=_targets, weight=rules.number(0, 1),
         temperature=rules.number(above=0), needs=(
             same_shape("z", "z_teacher"), same_length("z", "targets"),
             need(lambda z: z.numel() > 0, "at least one row of logits"),
             need(_inside, "targets inside the vocabulary")))
def distillation_loss(z, z_teacher, targets, weight, temperature):
    """(1 − w) CE(y, softmax z) + w T² KL(softmax(z_t/T) ‖ softmax(z/T)), mean nats per token.

    z, z_teacher: logits (n, vocab) of student and teacher; targets (n,); weight w 0 … 1;
    temperature T > 0. Both terms' gradients keep their size as T changes (Hinton, Vinyals & Dean
    2015, arXiv:1503.02531). Raises ValueError for targets outside the vocabulary, unequal shapes,
    and w or T out of range.
    """
    hard = F.cross_entropy(z, targets)
    log_p = F.log_softmax(z / temperature, dim=-1)
    log_q = F.log_softmax(z_teacher / temperature, dim=-1)
    soft = (log_q.exp() * (log_q - log_p)).sum(dim=-1).mean()  # KL(teacher ‖ student)
    return (1 - weight) * hard + weight * temperature**2 * soft


def _number(value):
    """Rule: one real number; `distil` looks at its range."""
    return value if isinstance(value, float) else rules.number()(value)


@accepts(student=a_gpt, teacher=a_gpt, batches=rules.a(TokenBatches),
         config=rules.a(TrainConfig), weight=_number, temperature=_number,
         on_step=rules.maybe(rules.function), needs=(
             need(lambda student, teacher: student is not teacher, "two models"),
             need(lambda batches, config: (batches.batch_size, batches.seq) ==
                  (config.batch_size, config.seq), "batches of the config's batch_size and seq")))
def distil(student: GPT, teacher: GPT, batches: TokenBatches, config: TrainConfig, weight: float,
           temperature: float, on_step: Callable[[int, float], None] | None = None) -> list[float]:
    """Train `student` in place on `distillation_loss`; return that loss at each step (nats/token).

    Schedule, optimiser, clipping and number formats are those of `training.run_steps`; the teacher
    reads the same batch and is left as it is. `on_step(step, loss)` is called after each. Raises
    ValueError for a weight outside 0 … 1, a temperature that is not positive, models of different
    vocabularies, batches that are not the config's, or a config with `n_micro` > 1;
    FloatingPointError at a loss that is not finite.
    """
    if not 0 <= weight <= 1 or not 0 < temperature < np.inf:
        raise ValueError(f"weight={weight}, temperature={temperature}: expected 0 … 1, and above 0")
    if student.config.vocab != teacher.config.vocab:
        raise ValueError(f"the student has {student.config.vocab} tokens, the teacher "
                         f"{teacher.config.vocab}: expected the same tokens")
    if config.n_micro != 1:
        raise ValueError(f"n_micro={config.n_micro}: expected 1, distil takes whole batches")
    optimizer, losses = make_optimizer(student, config), []
    device = student.wte.weight.device
    prepare(student, config)
    prepare(teacher, config)
    student.train()
    for step in range(config.n_steps):
        rate = wsd(step, config.n_steps, config.warmup_steps, config.decay_steps)
        for group in optimizer.param_groups:
            group["lr"] = config.lr * rate
        tokens = torch.from_numpy(batches[step]).to(device)  # (batch, seq + 1)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.dtype == "bfloat16"):
            with torch.no_grad():
                z_teacher = teacher(tokens[:, :-1])
            z = student(tokens[:, :-1])
        loss = distillation_loss(z.flatten(0, 1).float(), z_teacher.flatten(0, 1).float(),
                                 tokens[:, 1:].flatten(), weight, temperature)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), config.grad_clip)
        optimizer.step()
        losses.append(loss.item())
        if not np.isfinite(losses[-1]):
            raise FloatingPointError(f"the loss is {losses[-1]:g} at step {step}: try a lower lr "
                                     f"(it was {config.lr:g})")
        if on_step:
            on_step(step, losses[-1])
    return losses
