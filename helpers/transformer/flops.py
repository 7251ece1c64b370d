"""Parameters, FLOPs and memory of a GPT, by the formulas of chapters 06 and 07; plans of runs."""

import numpy as np

from helpers.foundations import rules
from helpers.foundations.accepts import accepts
from helpers.transformer.models import GPT, GPTConfig, a_gpt


def _amounts(value):
    """Rule: one positive finite number, or an array of them."""
    return (rules.reals if np.ndim(value) else rules.number)(above=0)(value)


@accepts(config=rules.a(GPTConfig))
def n_params(config):
    """(N without the embedding, N_total) of a GPT with this config; norms are counted."""
    per_layer = 12 * config.d_model**2 + 2 * config.d_model  # qkv 3, out 1, up 4, down 4; norms
    N = config.n_layer * per_layer + config.d_model  # non-embedding
    N_total = N + config.vocab * config.d_model
    return N, N_total


@accepts(config=rules.a(GPTConfig), seq=rules.integer(1))
def flops_per_token(config, seq):
    """Exact training FLOPs per token, forward and backward, in windows of `seq` tokens.

    Matrix products alone, as `torch.utils.flop_counter` counts them: norms, GELU, softmax and
    rotations are left out. Full (unmasked) scores are counted, as the plain kernel computes them.
    """
    N_mat = config.n_layer * 12 * config.d_model**2 + config.vocab * config.d_model
    scores_and_mix = 2 * config.n_layer * seq * config.d_model  # multiply-adds of q·k and w·v
    forward = 2 * (N_mat + scores_and_mix)
    return 3 * forward  # the backward pass costs twice the forward pass


@accepts(model=a_gpt, seq=rules.integer(1))
def measured(model: GPT, seq: int) -> tuple[int, int, int]:
    """(N, N_total, training FLOPs per token) of a model as it is, in windows of `seq` tokens.

    As `n_params` and `flops_per_token` say of its config, unless layers were shrunk after that.
    """
    N_total = sum(p.numel() for p in model.parameters())
    N_mat = sum(p.numel() for p in model.parameters() if p.ndim == 2)  # the embedding is the head
    mixed = sum(block.attn.out.weight.shape[1] for block in model.blocks)  # heads · width, each
    return N_total - model.wte.weight.numel(), N_total, 6 * (N_mat + 2 * seq * mixed)


@accepts(config=rules.a(GPTConfig))
def training_bytes(config):
    """Bytes of weights, gradients and Adam's two moments in float32: 16 per parameter.

    Mixed precision comes to the same: 2 + 2 + 4 + 4 + 4 (weights and gradients in 16 bits, then a
    float32 copy of the weights and the moments). Activations come on top.
    """
    weights, gradients, moments = 4, 4, 4 + 4  # bytes per parameter
    return (weights + gradients + moments) * n_params(config)[1]


@accepts(config=rules.a(GPTConfig), batch=rules.integer(2), seq=rules.integer(1))
def activation_bytes(config, batch, seq):
    """Bytes that one float32 forward pass keeps for the backward pass, on a CPU.

    For at least two windows (batch) of `seq` tokens, with the attention kernel that keeps no
    scores and the loss of `steps.CrossEntropy`; weights are left out. Counted tensor by tensor.
    Raises ValueError for a single window: a tensor or two less is kept there.
    """
    d = config.d_model
    attention = (1 + 1 + 2 + 3 + 1) * d + config.n_head  # norm, qkv's input, q k, qkv, mix; sums
    mlp = (1 + 1 + 4 + 4) * d  # norm's input, up's, gelu's, down's
    per_layer = attention + mlp + 2 * 2  # each norm: a mean and a scale
    ends = 2 * d + 2 + config.vocab + 2  # last norm, head; probabilities; ids of 8 bytes
    rotation = seq * d // config.n_head  # once for all windows and layers
    return 4 * (batch * seq * (config.n_layer * per_layer + ends) + rotation)


@accepts(N=_amounts, D=_amounts, peak_flops=rules.number(above=0), mfu=rules.number(0, 1, above=0),
         n_devices=rules.integer(1), watts=rules.number(0), price=rules.number(0))
def plan(N, D, peak_flops, mfu, n_devices=1, watts=0.0, price=0.0):
    """Time, memory, energy and cost of a run: N parameters, D tokens, 6ND FLOPs.

    N and D may be arrays. peak_flops: of one device, FLOP/s; mfu: the share of it in use, up to 1;
    watts: of one device; price: of one device for an hour. Returns seconds, bytes (weights and
    optimiser, all devices together; activations come on top), device_hours, kWh, and cost in the
    price's unit. Raises ValueError for what is not positive, and for an mfu above 1.
    """
    seconds = 6 * N * D / (peak_flops * mfu * n_devices)
    device_hours = seconds / 3600 * n_devices
    return {"seconds": seconds, "bytes": 16 * N, "device_hours": device_hours,
            "kWh": device_hours * watts / 1000, "cost": device_hours * price}
