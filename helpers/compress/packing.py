"""Codes as bytes, and quantised models as files: safetensors, never pickle."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from helpers.compress.quantize import Quantized


def check_codes(codes: torch.Tensor, n_bits: int) -> None:
    """Raise TypeError or ValueError unless `codes` are int8 values that fit into n_bits bits."""
    if codes.dtype != torch.int8:
        raise TypeError(f"expected int8 codes, got {codes.dtype}")
    if not 2 <= n_bits <= 8:
        raise ValueError(f"n_bits={n_bits}: expected 2 to 8")
    half = 2 ** (n_bits - 1)
    if codes.numel() and not -half <= int(codes.min()) <= int(codes.max()) < half:
        raise ValueError(f"codes from {codes.min()} to {codes.max()} do not fit into "
                         f"{n_bits} bits")


def check_packed(packed: torch.Tensor, n: int, n_bits: int) -> None:
    """Raise TypeError or ValueError unless `packed` are the bytes of n codes of n_bits bits."""
    if packed.dtype != torch.uint8 or packed.ndim != 1:
        raise TypeError(f"expected bytes in a row, got {packed.dtype} of {tuple(packed.shape)}")
    if not 2 <= n_bits <= 8:
        raise ValueError(f"n_bits={n_bits}: expected 2 to 8")
    if len(packed) != (n * n_bits + 7) // 8:
        raise ValueError(f"{len(packed)} bytes do not hold {n} codes of {n_bits} bits: expected "
                         f"{(n * n_bits + 7) // 8}")


def pack_int4(codes):
    """Bytes (uint8, ⌈n/2⌉) of n codes −8 … 7, the first of two in the low half of its byte."""
    check_codes(codes, 4)
    half_bytes = (codes.flatten() & 15).to(torch.uint8)  # −8 … −1 become 8 … 15
    half_bytes = torch.cat([half_bytes, half_bytes.new_zeros(len(half_bytes) % 2)])
    return half_bytes[0::2] | half_bytes[1::2] << 4


def unpack_int4(packed, n):
    """The n codes (int8, shape (n,)) that `pack_int4` packed."""
    check_packed(packed, n, 4)
    half_bytes = torch.stack([packed & 15, packed >> 4], dim=1).flatten()[:n]
    return (half_bytes ^ 8).to(torch.int8) - 8  # 8 … 15 become −8 … −1 again


def pack_bits(codes: torch.Tensor, n_bits: int) -> torch.Tensor:
    """Bytes (uint8, ⌈n · n_bits / 8⌉) of n codes: one row of bits, each code's lowest bit first.

    A code may straddle two bytes. At 4 bits these are the bytes of `pack_int4`. Raises TypeError
    for codes that are not int8, ValueError for codes that do not fit.
    """
    check_codes(codes, n_bits)
    places = torch.arange(n_bits)
    bits = (codes.flatten()[:, None].int() >> places & 1).flatten()  # (n · n_bits,)
    bits = torch.cat([bits, bits.new_zeros(-len(bits) % 8)]).reshape(-1, 8)
    return (bits << torch.arange(8)).sum(1).to(torch.uint8)


def unpack_bits(packed: torch.Tensor, n: int, n_bits: int) -> torch.Tensor:
    """The n codes (int8, shape (n,)) that `pack_bits` packed.

    Raises TypeError or ValueError for bytes that do not hold n codes of n_bits bits.
    """
    check_packed(packed, n, n_bits)
    bits = (packed[:, None].int() >> torch.arange(8) & 1).flatten()[:n * n_bits]
    codes = (bits.reshape(n, n_bits) << torch.arange(n_bits)).sum(1)
    half = 2 ** (n_bits - 1)
    return ((codes ^ half) - half).to(torch.int8)


def save_quantized(quantized: dict, path: str | Path, **facts: str) -> None:
    """Write a state dict of `Quantized` matrices and plain vectors to one safetensors file.

    Codes and zero points are packed into their bits, scales are fp16; zero points that are all 0
    are left out. `facts` (text) go into the header. Scales must be fp16 numbers already.
    """
    tensors, matrices = {}, {}
    for name, w in quantized.items():
        if not isinstance(w, Quantized):
            tensors[name] = w.contiguous()
            continue
        tensors[name] = pack_bits(w.codes, w.n_bits)
        tensors[name + ".scale"] = w.scale.half().flatten()
        if w.zero.any():
            tensors[name + ".zero"] = pack_bits(w.zero.to(torch.int8), w.n_bits)
        matrices[name] = [*w.codes.shape, w.n_bits]
    save_file(tensors, path, {"quantized": json.dumps(matrices), **facts})


def load_quantized(path: str | Path) -> tuple[dict, dict[str, str]]:
    """The state dict and the facts of a file that `save_quantized` wrote; scales in fp32.

    Raises ValueError if another program wrote the file, or if parts of it are missing.
    """
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}") from error
    if "quantized" not in facts:
        raise ValueError(f"{path} was not written by save_quantized")
    for name, (rows, columns, n_bits) in json.loads(facts.pop("quantized")).items():
        if name not in tensors or name + ".scale" not in tensors:
            raise ValueError(f"{path} holds no codes or no scales of {name}")
        codes = unpack_bits(tensors[name], rows * columns, n_bits).reshape(rows, columns)
        scale = tensors.pop(name + ".scale").float()[:, None]
        zero = tensors.pop(name + ".zero", None)
        zero = (torch.zeros_like(scale) if zero is None else
                unpack_bits(zero, len(scale), n_bits).float()[:, None])
        tensors[name] = Quantized(codes, scale, zero, n_bits)
    return tensors, facts
