"""Quantisation: scales and grids, packed codes, and files that hold them."""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file


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
