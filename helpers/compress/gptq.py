"""GPTQ: rounding column by column, the later columns making up for each error (Frantar 2022)."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from helpers.compress.quantize import (
    BITS,
    DENSE,
    EMBED_BITS,
    Quantized,
    dequantize,
    fit_scale,
    half_scale,
    quantize,
    quantize_state,
)
from helpers.foundations import rules
from helpers.foundations.accepts import accepts, need, same_shape
from helpers.transformer.attention import rotation
from helpers.transformer.models import GPT, check_tokens, plain_gpt

WINDOWS = rules.integers(2, low=0, least=2)  # rule: token ids (n, seq + 1)
MATRIX = rules.tensor(2, finite=True)


def _plain(model):
    """Rule: a GPT, out of `torch.compile`'s wrapper, with finite weights, none parametrised."""
    model = plain_gpt(model)
    DENSE(model.state_dict())
    return model


def _gram(H):
    """Rule: a square matrix → float64; where no input ever came (all 0), that of equal inputs."""
    H = MATRIX(H).double()
    return H if H.any() or len(H) != H.shape[1] else torch.eye(len(H), dtype=H.dtype)


def _definite(H, damping):
    damped = H + damping * H.diagonal().mean() * torch.eye(len(H), dtype=H.dtype)
    return not torch.linalg.cholesky_ex(damped).info


FITS = need(lambda w, H: H.shape == (w.shape[1], w.shape[1]), "H of shape (d_in, d_in)")


@accepts(w=MATRIX, H=_gram, n_bits=BITS, group_size=rules.integer(1), symmetric=rules.a(bool),
         damping=rules.number(0), needs=(FITS, need(
             lambda w, group_size: group_size == w.numel() or not w.shape[1] % group_size,
             "groups that divide the rows, or the whole matrix"), need(
                 _definite, "a positive definite H with so much damping: raise it")))
def gptq(w, H, n_bits, group_size, symmetric=False, damping=0.01):
    """Codes, scale and zero point of a matrix (rows, d_in), as `quantize_matrix` returns them.

    H: (d_in, d_in), XᵀX of the layer's inputs. Each column is rounded; what its rounding changes
    in the outputs is made up for by the columns to its right, as well as they can. A group's scale
    is fitted when its first column is reached. `damping` times the mean of H's diagonal is added
    to the diagonal. Without any input (H = 0), rounding as by `quantize_matrix`. Raises ValueError
    if H is not positive definite even with the damping, or anything is not finite.
    Source: Frantar et al. 2022 (arXiv:2210.17323), algorithm 1, with groups.
    """
    w, d_in = w.double().clone(), w.shape[1]
    H = H + damping * H.diagonal().mean() * torch.eye(d_in, dtype=H.dtype)
    U = torch.linalg.cholesky(torch.linalg.inv(H), upper=True)  # UᵀU = H⁻¹
    codes, scales, zeros = torch.empty_like(w, dtype=torch.int8), [], []
    for j in range(d_in):
        if j % group_size == 0:
            group = w[:, j : j + group_size].contiguous()
            scale, zero = fit_scale(group, n_bits, group_size, symmetric)
            scale = half_scale(scale)
            scales.append(scale), zeros.append(zero)
        codes[:, j] = quantize(w[:, j], scale, zero, n_bits)
        error = (w[:, j] - dequantize(codes[:, j], scale, zero)) / U[j, j]
        w[:, j + 1 :] -= error[:, None] * U[j, j + 1 :]
    flat = (torch.cat(x, dim=1).reshape(-1, 1).float() for x in (scales, zeros))
    return codes, *flat  # groups in the order of quantize_matrix


@accepts(w=MATRIX, rounded=MATRIX, H=MATRIX, needs=(same_shape("w", "rounded"), FITS))
def output_error(w, rounded, H):
    """Squared change of the layer's outputs over the calibration text: tr((w − ŵ) H (w − ŵ)ᵀ)."""
    d = (w - rounded).double()
    return ((d @ H) * d).sum().item()


@accepts(layers=rules.a(dict), run=rules.function)
@torch.no_grad()
def grams(layers: dict[str, nn.Linear], run: Callable) -> dict[str, torch.Tensor]:
    """XᵀX, (d_in, d_in) float64, of all inputs X (tokens, d_in) that each layer sees in `run()`."""
    totals = {name: torch.zeros(layer.in_features, layer.in_features, dtype=torch.float64)
              for name, layer in layers.items()}

    def add(name):
        def hook(_, given):
            x = given[0].flatten(0, -2).double()
            totals[name] += x.T @ x
        return hook

    handles = [layer.register_forward_pre_hook(add(name)) for name, layer in layers.items()]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return totals


@accepts(model=_plain, windows=WINDOWS)
def calibrate(model: GPT, windows: np.ndarray) -> dict[str, torch.Tensor]:
    """H = XᵀX of each linear layer's inputs on windows (n, seq + 1), by the weight's name."""
    layers = {f"{name}.weight": m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    return grams(layers, lambda: [model(part) for part in
                                  torch.from_numpy(windows[:, :-1]).split(32)])


@accepts(model=_plain, windows=WINDOWS, n_bits=BITS, group=rules.anything, symmetric=rules.a(bool),
         embed_bits=BITS)
@torch.no_grad()
def gptq_model(model: GPT, windows: np.ndarray, n_bits: int, group: str | int,
               symmetric: bool = False, embed_bits: int = EMBED_BITS) -> dict:
    """A state dict like `quantize_state`'s, the matrices of the blocks by `gptq`.

    Layer after layer: each one's H comes from inputs that the layers before it, already rounded,
    produce on the calibration windows (n, seq + 1). The embedding is rounded to nearest, as it is
    also the head: what would be best for the one is not for the other. The model stays as it is.
    Raises ValueError, naming the layer, for weights or inputs that are not finite.
    """
    before = {name: w.clone() for name, w in model.state_dict().items()}
    quantized = quantize_state(before, n_bits, group, symmetric, embed_bits)
    tokens = torch.from_numpy(windows[:, :-1])
    check_tokens(tokens, 0, model.config)
    try:
        model.wte.weight.copy_(dequantize(*quantized["wte.weight"][:3]))
        x = model.wte(tokens)
        turn = rotation(torch.arange(tokens.shape[1]), model.config.d_model // model.config.n_head)
        names = {layer: f"{name}.weight" for name, layer in model.named_modules()}
        for block in model.blocks:
            for layer in (block.attn.qkv, block.attn.out, block.up, block.down):
                H = grams({"": layer}, lambda block=block, x=x: block(x, turn))[""]
                w = layer.weight
                size = {"tensor": w.numel(), "row": w.shape[1]}.get(group, group)
                try:
                    found = gptq(w, H, n_bits, size, symmetric)
                except ValueError as error:
                    raise ValueError(f"{names[layer]}: {error}") from None
                quantized[names[layer]] = Quantized(*found, n_bits)
                layer.weight.copy_(dequantize(*found))
            x = block(x, turn)
    finally:
        model.load_state_dict(before)
    return quantized
