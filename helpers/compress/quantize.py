"""Quantisation: scales, grids and codes, of a matrix and of a model; training through rounding."""

from functools import partial
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils import parametrize

from helpers.foundations import rules
from helpers.foundations.accepts import accepts, need

EMBED_BITS = 6  # the embedding, which is also the head, keeps at least so many
BITS = rules.integer(2, 8)  # rule: bits of a code


class Quantized(NamedTuple):
    """A matrix as codes: int8 of its shape; scale and zero point (n_groups, 1); bits of a code."""

    codes: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor
    n_bits: int


def _weights(value, finite=False):
    """Rule: floating-point numbers in 1 to 4 dimensions; those of 2 bytes become float32."""
    value = rules.tensor((1, 2, 3, 4), finite=finite)(value)
    return value if value.dtype.itemsize > 2 else value.float()


def _scales(value):
    """Rule: positive numbers, in fp32 with a finite reciprocal."""
    if not bool(((rules.tensor()(value) > 2**-126) & value.isfinite()).all()):
        raise ValueError("expected positive, finite scales")
    return value


def _zeros(value):
    """Rule: zero points of int8 codes, of any type → floating point."""
    value = 1.0 * rules.a(torch.Tensor)(value)
    if not bool(((value >= -128) & (value <= 127) & (value == value.round())).all()):
        raise ValueError("expected zero points, whole numbers from -128 to 127")
    return value


def _codes(value):
    if rules.a(torch.Tensor)(value).dtype != torch.int8:
        raise TypeError(f"expected int8 codes, got {value.dtype}")
    return value


def _group(value):
    """Rule: "tensor", "row", or a number of neighbours."""
    return (rules.one_of("tensor", "row") if isinstance(value, str) else rules.integer(1))(value)


GROUPED = need(lambda scale, zero: scale.shape == zero.shape == (scale.numel(), 1) != (0, 1),
               "shapes (n_groups, 1)")


def _check(w: Quantized) -> None:
    """Raise TypeError or ValueError unless the parts of `w` belong together."""
    half = 2 ** (BITS(w.n_bits) - 1)
    dequantize(*w[:3])
    for part in (w.codes, w.zero):
        if w.codes.ndim != 2 or not -half <= int(part.min()) <= int(part.max()) < half:
            raise ValueError(f"expected a matrix of codes, and zero points, of {w.n_bits} bits")


def _named(state, kinds: tuple) -> dict:
    """Rule: tensors of `kinds` by their names in a plain model, matrices finite, codes in range.

    What `torch.compile` puts into a name is dropped.
    """
    state = {rules.text(k).replace("_orig_mod.", ""): w for k, w in rules.a(dict)(state).items()}
    for name, w in state.items():
        if "parametrizations." in name:
            raise ValueError(f"{name} is parametrised: call stop_rounding(model) first")
        try:
            if isinstance(rules.a(*kinds)(w), Quantized):
                _check(w)
            elif w.ndim == 2:
                rules.tensor(finite=True)(w)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name}: {error}") from None
    return state


DENSE = partial(_named, kinds=(torch.Tensor,))  # rule: a state dict
STATE = partial(_named, kinds=(torch.Tensor, Quantized))  # rule: one that may be quantised


def _fit(given) -> str:
    """Need: the groups divide the rows of each matrix."""
    for name, w in given["state"].items():
        group = w.numel() if isinstance(given["group"], str) else given["group"]
        if w.ndim == 2 and (not w.numel() or (group != w.numel() and w.shape[1] % group)):
            return f"{name}: group={group} does not divide rows of {tuple(w.shape)} weights"
    return ""


@accepts(w=rules.tensor((1, 2, 3, 4)), n_bits=BITS, group_size=rules.integer(1))
def check_groups(w: torch.Tensor, n_bits: int, group_size: int) -> None:
    """Raise TypeError or ValueError unless `w` can be quantised in groups of `group_size`."""
    if w.numel() == 0 or (group_size != w.numel() and w.shape[-1] % group_size):
        raise ValueError(f"group_size={group_size} is not the size of {tuple(w.shape)} weights, "
                         "nor does it divide their rows")
    if not (w.max() - w.min()).isfinite():
        raise ValueError("the weights, or their range, hold values that are not finite")


@accepts(w=_weights, n_bits=BITS, group_size=rules.integer(1), symmetric=rules.a(bool))
def fit_scale(w, n_bits, group_size, symmetric=True):
    """Scale and zero point, both (n_groups, 1), that just hold each group's largest weights.

    Symmetric: zero point 0. Otherwise the grid spans the group's range and holds 0 exactly.
    Raises TypeError or ValueError as `check_groups`.
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


@accepts(w=partial(_weights, finite=True), scale=_scales, zero=_zeros, n_bits=BITS, needs=(
    GROUPED, need(lambda w, scale: not w.numel() % len(scale), "a scale for each of equal groups")))
def quantize(w, scale, zero, n_bits):
    """Codes of `w` as int8 of its shape; the groups follow from the number of scales.

    scale, zero: (n_groups, 1). Raises ValueError for weights, scales or zero points that are not
    finite, scales that are not positive, and shapes that do not fit.
    """
    q_min, q_max = -(2 ** (n_bits - 1)), 2 ** (n_bits - 1) - 1
    codes = (w.reshape(len(scale), -1) * (1 / scale)).round() + zero
    return codes.clamp(q_min, q_max).to(torch.int8).reshape(w.shape)


@accepts(codes=_codes, scale=_scales, zero=_zeros, needs=(GROUPED, need(
    lambda codes, scale: not codes.numel() % len(scale), "a scale for each of equal groups")))
def dequantize(codes, scale, zero):
    """The weights that the int8 codes stand for, of their shape and of the scale's type.

    scale, zero: (n_groups, 1), checked as by `quantize`.
    """
    return ((codes.reshape(len(scale), -1) - zero) * scale).reshape(codes.shape)


@accepts(scale=_scales)
def half_scale(scale: torch.Tensor) -> torch.Tensor:
    """The scale as 2 bytes hold it (fp16), never 0 and never infinite, in its own type."""
    return scale.half().clamp(2**-24, 65504).to(scale.dtype)


@accepts(w=_weights, n_bits=BITS, group=_group, symmetric=rules.a(bool), needs=need(
    lambda w, n_bits: w.abs().max() <= 65504 * (2 ** (n_bits - 1) - 1) if w.numel() else True,
    "finite weights that codes with fp16 scales can reach, ≤ 65504 · (2^(n_bits − 1) − 1)"))
def quantize_matrix(w, n_bits, group, symmetric=True):
    """Codes, scale and zero point of a matrix; scales are rounded to fp16, as files store them.

    `group` is "tensor", "row", or a number of neighbouring weights. Raises ValueError for weights
    that are not finite or too large for fp16 scales, and for groups that do not divide the rows.
    """
    group_size = {"tensor": w.numel(), "row": w.shape[-1]}.get(group, group)
    scale, zero = fit_scale(w, n_bits, group_size, symmetric)
    scale = half_scale(scale)
    return quantize(w, scale, zero, n_bits), scale, zero


@accepts(state=DENSE, n_bits=BITS, group=_group, symmetric=rules.a(bool), embed_bits=BITS,
         needs=_fit)
def quantize_state(state, n_bits, group, symmetric=False, embed_bits=EMBED_BITS):
    """A state dict with each matrix as `Quantized`; vectors (norm gains) stay as they are.

    The embedding `wte.weight` gets at least `embed_bits` bits, all others n_bits. The names are a
    plain model's, also for a compiled one. Raises ValueError, naming the matrix, for one that is
    parametrised (`stop_rounding` ends that), not finite, or that the groups do not divide.
    """
    bits = {name: max(n_bits, embed_bits) if name == "wte.weight" else n_bits for name in state}
    return {name: Quantized(*quantize_matrix(w, bits[name], group, symmetric), bits[name])
            if w.ndim == 2 else w for name, w in state.items()}


@accepts(quantized=STATE)
def dequantize_state(quantized):
    """The state dict of fp32 weights that one of `quantize_state` or `gptq_model` stands for."""
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


@accepts(n_bits=BITS, group=_group)
class Rounded(nn.Module):
    """A parametrisation: the layer computes with rounded weights, the optimiser moves the true."""

    def __init__(self, n_bits: int, group: str | int):
        super().__init__()
        self.n_bits, self.group = n_bits, group

    def forward(self, w):
        return RoundThrough.apply(w, self.n_bits, self.group)


@accepts(model=rules.a(nn.Module), n_bits=BITS, group=_group, embed_bits=BITS)
def train_rounded(model: nn.Module, n_bits: int, group: str | int,
                  embed_bits: int = EMBED_BITS) -> None:
    """From now on all matrices of the model compute rounded, in place; bits as `quantize_state`.

    `state_dict` then holds the true weights under other names; `stop_rounding` ends it. Raises
    ValueError as `quantize_state`, before any matrix is touched, and for a model that rounds.
    """
    model = getattr(model, "_orig_mod", model)
    quantize_state(model.state_dict(), n_bits, group)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear | nn.Embedding):
            bits = max(n_bits, embed_bits) if name == "wte" else n_bits
            parametrize.register_parametrization(module, "weight", Rounded(bits, group))


@accepts(model=rules.a(nn.Module))
def stop_rounding(model: nn.Module) -> None:
    """End `train_rounded`, in place: the weights are again the true ones, not rounded."""
    for module in list(model.modules()):
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)


@accepts(model=rules.a(nn.Module), n_bits=BITS)
class RoundedInputs:
    """A context in which each linear layer of the model rounds its inputs, one scale per token.

    n_bits: of the activations; the grid is affine and found while the model runs (dynamic). The
    head, which is no layer of its own, keeps its inputs.
    """

    def __init__(self, model: nn.Module, n_bits: int):
        self.model, self.n_bits, self.handles = model, n_bits, []

    def __enter__(self):
        def hook(layer, given):
            return dequantize(*quantize_matrix(given[0], self.n_bits, "row", symmetric=False))
        self.handles += [layer.register_forward_pre_hook(hook) for layer in self.model.modules()
                        if isinstance(layer, nn.Linear)]
        return self.model

    def __exit__(self, *error):
        for handle in self.handles:
            handle.remove()
