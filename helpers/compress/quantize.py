"""Quantisation: scales, grids and codes, of a matrix and of a model; training through rounding."""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils import parametrize

EMBED_BITS = 6  # the embedding, which is also the head, keeps at least so many


class Quantized(NamedTuple):
    """A matrix as codes: int8 of its shape; scale and zero point (n_groups, 1); bits of a code."""

    codes: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor
    n_bits: int


def check_groups(w: torch.Tensor, n_bits: int, group_size: int) -> None:
    """Raise TypeError or ValueError unless `w` can be quantised in groups of `group_size`."""
    if not w.is_floating_point():
        raise TypeError(f"expected floating-point weights, got {w.dtype}")
    if not 2 <= n_bits <= 8:
        raise ValueError(f"n_bits={n_bits}: expected 2 to 8")
    if w.numel() == 0 or group_size < 1 or (
            group_size != w.numel() and w.shape[-1] % group_size):
        raise ValueError(f"group_size={group_size} is not the size of {tuple(w.shape)} weights, "
                         "nor does it divide their rows")
    if not w.isfinite().all():
        raise ValueError("the weights hold values that are not finite")


def fit_scale(w, n_bits, group_size, symmetric=True):
    """Scale and zero point, both (n_groups, 1), that just hold each group's largest weights.

    Symmetric: zero point 0. Otherwise the grid spans the group's range and holds 0 exactly.
    """
    check_groups(w, n_bits, group_size)
    groups = w.reshape(-1, group_size)  # (n_groups, group_size), neighbours in a row
    if symmetric:
        scale = groups.abs().amax(1, keepdim=True) / (2 ** (n_bits - 1) - 1)
        zero = torch.zeros_like(scale)
    else:
        low = groups.amin(1, keepdim=True).clamp(max=0)  # 0 is on the grid, always
        scale = (groups.amax(1, keepdim=True).clamp(min=0) - low) / (2**n_bits - 1)
        zero = -(2 ** (n_bits - 1)) - (low / scale).round()
    flat = scale < 1e-30  # a group of zeros, or as good as: any scale will do
    return scale.masked_fill(flat, 1.0), zero.masked_fill(flat, 0.0)


def quantize(w, scale, zero, n_bits):
    """Codes of `w` as int8 of its shape; the groups follow from the number of scales."""
    q_min, q_max = -(2 ** (n_bits - 1)), 2 ** (n_bits - 1) - 1
    codes = (w.reshape(len(scale), -1) * (1 / scale)).round() + zero
    return codes.clamp(q_min, q_max).to(torch.int8).reshape(w.shape)


def dequantize(codes, scale, zero):
    """The weights that the codes stand for, of their shape and of the scale's type."""
    return ((codes.reshape(len(scale), -1) - zero) * scale).reshape(codes.shape)


def half_scale(scale: torch.Tensor) -> torch.Tensor:
    """The scale as 2 bytes hold it (fp16), never 0 and never infinite, in its own type."""
    return scale.half().clamp(2**-24, 65504).to(scale.dtype)


def quantize_matrix(w, n_bits, group, symmetric=True):
    """Codes, scale and zero point of a matrix; scales are rounded to fp16, as files store them.

    `group` is "tensor", "row", or a number of neighbouring weights.
    """
    group_size = {"tensor": w.numel(), "row": w.shape[-1]}.get(group, group)
    scale, zero = fit_scale(w, n_bits, group_size, symmetric)
    scale = half_scale(scale)
    return quantize(w, scale, zero, n_bits), scale, zero


def quantize_state(state, n_bits, group, symmetric=False, embed_bits=EMBED_BITS):
    """A state dict with each matrix as `Quantized`; vectors (norm gains) stay as they are.

    The embedding `wte.weight` gets at least `embed_bits` bits, all others n_bits.
    """
    bits = {name: max(n_bits, embed_bits) if name == "wte.weight" else n_bits for name in state}
    return {name: Quantized(*quantize_matrix(w, bits[name], group, symmetric), bits[name])
            if w.ndim == 2 else w for name, w in state.items()}


def dequantize_state(quantized):
    """The state dict of fp32 weights that `quantize_state` or `gptq_model` stands for."""
    return {name: dequantize(*w[:3]).float() if isinstance(w, Quantized) else w
            for name, w in quantized.items()}


class RoundThrough(torch.autograd.Function):
    """Round a matrix forward; pass its gradient through unchanged (straight-through estimator).

    Arguments as `quantize_matrix`, the grid affine. Source: Bengio et al. 2013 (arXiv:1308.3432).
    """

    @staticmethod
    def forward(ctx, w, n_bits, group):
        return dequantize(*quantize_matrix(w, n_bits, group, symmetric=False))

    @staticmethod
    def backward(ctx, dy):
        return dy, None, None  # as if nothing had been rounded


class Rounded(nn.Module):
    """A parametrisation: the layer computes with rounded weights, the optimiser moves the true."""

    def __init__(self, n_bits: int, group: str | int):
        super().__init__()
        self.n_bits, self.group = n_bits, group

    def forward(self, w):
        return RoundThrough.apply(w, self.n_bits, self.group)


def train_rounded(model: nn.Module, n_bits: int, group: str | int,
                  embed_bits: int = EMBED_BITS) -> None:
    """From now on all matrices of the model compute rounded, in place; bits as `quantize_state`.

    `state_dict` then holds the true weights under other names; `stop_rounding` ends it.
    """
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear | nn.Embedding):
            bits = max(n_bits, embed_bits) if name == "wte" else n_bits
            parametrize.register_parametrization(module, "weight", Rounded(bits, group))


def stop_rounding(model: nn.Module) -> None:
    """End `train_rounded`, in place: the weights are again the true ones, not rounded."""
    for module in list(model.modules()):
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)


class RoundedInputs:
    """A context in which each linear layer of the model rounds its inputs, one scale per token.

    n_bits: of the activations; the grid is affine and found while the model runs (dynamic). The
    head, which is no layer of its own, keeps its inputs.
    """

    def __init__(self, model: nn.Module, n_bits: int):
        self.model, self.n_bits, self.handles = model, n_bits, []

    def __enter__(self):
        def hook(layer, given):
            codes = quantize_matrix(given[0], self.n_bits, "row", symmetric=False)
            return dequantize(*codes)
        self.handles = [layer.register_forward_pre_hook(hook) for layer in self.model.modules()
                        if isinstance(layer, nn.Linear)]
        return self.model

    def __exit__(self, *error):
        for handle in self.handles:
            handle.remove()
