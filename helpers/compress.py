"""Compression from its parts: pruning masks and smaller layers, quantisation, packed files."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn


def matrices(model: nn.Module) -> dict[str, torch.Tensor]:
    """The matrices inside the model's blocks by name: what pruning may touch.

    Embeddings (which are also the head) and norm gains stay whole. The tensors are detached, but
    share their memory with the model. Raises ValueError if the model has no such matrix.
    """
    found = {name: p.detach() for name, p in model.named_parameters()
             if name.startswith("blocks.") and p.ndim == 2}
    if not found:
        raise ValueError(f"{type(model).__name__} has no matrices in `blocks`")
    return found


def magnitude_mask(weights, density):
    """True for the largest magnitudes of all tensors together (global magnitude pruning).

    weights: dict of tensors; density: share to keep, 0 … 1 → dict of bool tensors of the same
    shapes with round(density · n) True in total. Of equal magnitudes the first are kept. Raises
    ValueError for a density outside 0 … 1.
    """
    if not 0 <= density <= 1:
        raise ValueError(f"density={density}: expected 0 … 1")
    sizes = torch.cat([w.abs().flatten() for w in weights.values()])
    order = sizes.argsort(descending=True, stable=True)
    keep = torch.zeros(len(sizes), dtype=torch.bool)
    keep[order[:round(density * len(sizes))]] = True
    parts = zip(weights, keep.split([w.numel() for w in weights.values()]), strict=True)
    return {name: part.view(weights[name].shape) for name, part in parts}


def layer_mask(weights, density):
    """Magnitude pruning with the same density in each tensor; arguments as `magnitude_mask`."""
    return {name: magnitude_mask({name: w}, density)[name] for name, w in weights.items()}


def random_mask(weights: dict, density: float, rng: np.random.Generator) -> dict:
    """A control: round(density · n) weights of each tensor, drawn from the numpy generator."""
    if not 0 <= density <= 1:
        raise ValueError(f"density={density}: expected 0 … 1")
    return {name: torch.from_numpy(rng.permutation(w.numel()) < round(density * w.numel()))
            .view(w.shape) for name, w in weights.items()}


@torch.no_grad()
def apply_mask(model: nn.Module, mask: dict[str, torch.Tensor]) -> None:
    """Set the weights to zero, in place, where the mask of their name is False.

    Raises KeyError for a name that the model does not have.
    """
    parameters = dict(model.named_parameters())
    for name, keep in mask.items():
        parameters[name].mul_(keep)


def removed_energy(weights, mask):
    """Share of the weights' energy Σ w² that the mask removes, 0 … 1, all tensors together."""
    removed = sum((w[~mask[name]] ** 2).sum() for name, w in weights.items())
    return float(removed / sum((w**2).sum() for w in weights.values()))


def to_csr(w, index=torch.int32):
    """Compressed sparse rows of a matrix: its non-zero values, their columns, each row's start.

    w: (rows, columns) → dict of `values` (nnz,), `columns` (nnz,) of dtype `index`, and `starts`
    (rows + 1,) int32: row i holds values[starts[i]:starts[i + 1]]. Raises ValueError if a column
    number does not fit into `index`.
    """
    if w.shape[1] - 1 > torch.iinfo(index).max:
        raise ValueError(f"{w.shape[1]} columns do not fit into {index}")
    rows, columns = w.nonzero(as_tuple=True)
    starts = torch.zeros(len(w) + 1, dtype=torch.int32)
    starts[1:] = torch.bincount(rows, minlength=len(w)).cumsum(0)
    return {"values": w[rows, columns], "columns": columns.to(index), "starts": starts}


def from_csr(packed, n_columns):
    """The dense matrix (rows, n_columns) that `to_csr` packed."""
    counts = packed["starts"].diff().long()
    rows = torch.repeat_interleave(torch.arange(len(counts)), counts)
    w = packed["values"].new_zeros(len(counts), n_columns)
    w[rows, packed["columns"].long()] = packed["values"]
    return w


def channel_scores(block):
    """Weight of each hidden MLP channel: norm of its row in `up` × norm of its column in `down`.

    block: has linear layers `up` (d_ff, d_model) and `down` (d_model, d_ff) → (d_ff,).
    """
    return block.up.weight.detach().norm(dim=1) * block.down.weight.detach().norm(dim=0)


def shrink_mlp(block, keep):
    """Remove hidden MLP channels, in place: `up` loses rows and `down` the same columns.

    keep: indices (k,) of the channels that stay, in the order they get. The block computes what
    it would with the removed channels set to zero, in smaller products.
    """
    up, down = block.up.weight.detach()[keep], block.down.weight.detach()[:, keep]
    for layer, w in ((block.up, up), (block.down, down)):
        layer.weight = nn.Parameter(w.clone())
        layer.out_features, layer.in_features = w.shape


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


def check_int4(codes: torch.Tensor) -> None:
    """Raise TypeError or ValueError unless `codes` are int8 values from −8 to 7."""
    if codes.dtype != torch.int8:
        raise TypeError(f"expected int8 codes, got {codes.dtype}")
    if codes.numel() and not -8 <= int(codes.min()) <= int(codes.max()) <= 7:
        raise ValueError(f"codes from {codes.min()} to {codes.max()} do not fit into 4 bits")


def check_packed(packed: torch.Tensor, n: int) -> None:
    """Raise TypeError or ValueError unless `packed` are the bytes of `n` 4-bit codes."""
    if packed.dtype != torch.uint8 or packed.ndim != 1:
        raise TypeError(f"expected bytes in a row, got {packed.dtype} of {tuple(packed.shape)}")
    if len(packed) != (n + 1) // 2:
        raise ValueError(f"{len(packed)} bytes do not hold {n} codes: expected {(n + 1) // 2}")


def pack_int4(codes):
    """Bytes (uint8, ⌈n/2⌉) of n codes, the first of two in the low half of its byte."""
    check_int4(codes)
    half_bytes = (codes.flatten() & 15).to(torch.uint8)  # −8 … −1 become 8 … 15
    half_bytes = torch.cat([half_bytes, half_bytes.new_zeros(len(half_bytes) % 2)])
    return half_bytes[0::2] | half_bytes[1::2] << 4


def unpack_int4(packed, n):
    """The n codes (int8, shape (n,)) that `pack_int4` packed."""
    check_packed(packed, n)
    half_bytes = torch.stack([packed & 15, packed >> 4], dim=1).flatten()[:n]
    return (half_bytes ^ 8).to(torch.int8) - 8  # 8 … 15 become −8 … −1 again


def quantize_matrix(w, n_bits, group, symmetric=True):
    """Codes, scale and zero point of a matrix; scales are rounded to fp16, as files store them.

    `group` is "tensor", "row", or a number of neighbouring weights.
    """
    group_size = {"tensor": w.numel(), "row": w.shape[-1]}.get(group, group)
    scale, zero = fit_scale(w, n_bits, group_size, symmetric)
    scale = scale.half().clamp(2**-24, 65504).float()  # stored in 2 bytes, never as 0 or infinity
    return quantize(w, scale, zero, n_bits), scale, zero


def round_state(state, n_bits, group, symmetric=True):
    """A state dict with every matrix rounded to its grid; vectors (norm gains) stay as they are."""
    return {name: dequantize(*quantize_matrix(w, n_bits, group, symmetric)) if w.ndim == 2 else w
            for name, w in state.items()}


def save_quantized(state: dict, path: str | Path, n_bits: int, group: str | int, **facts: str):
    """Write a state dict to safetensors: matrices as int8, or int4 two to a byte, scales as fp16.

    `facts` (text) go into the header. Raises ValueError for other widths than 4 and 8 bits.
    """
    if n_bits not in (4, 8):
        raise ValueError(f"n_bits={n_bits}: files hold 4 or 8")
    tensors = {name: w for name, w in state.items() if w.ndim != 2}
    shapes = {name: tuple(w.shape) for name, w in state.items() if w.ndim == 2}
    for name in shapes:
        codes, scale, _ = quantize_matrix(state[name], n_bits, group)
        tensors[name] = pack_int4(codes) if n_bits == 4 else codes.flatten()
        tensors[name + ".scale"] = scale.half()
    save_file(tensors, path, {"n_bits": str(n_bits), "shapes": json.dumps(shapes), **facts})


def load_quantized(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The state dict in fp32, and the facts, of a file that `save_quantized` wrote.

    Raises ValueError for another file.
    """
    with safe_open(path, "pt") as file:
        facts = file.metadata() or {}
        if not {"n_bits", "shapes"} <= facts.keys():
            raise ValueError(f"{path} was not written by save_quantized")
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    n_bits, shapes = int(facts.pop("n_bits")), json.loads(facts.pop("shapes"))
    for name, shape in shapes.items():
        scale, codes = tensors.pop(name + ".scale").float(), tensors[name]
        codes = (unpack_int4(codes, shape[0] * shape[1]) if n_bits == 4 else codes).reshape(shape)
        tensors[name] = dequantize(codes, scale, torch.zeros_like(scale))
    return tensors, facts
