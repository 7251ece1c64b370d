"""Codes as bytes, sparse rows, and compressed models as files: safetensors, never pickle."""

import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from helpers.compress.quantize import BITS, STATE, Quantized, half_scale
from helpers.foundations import rules
from helpers.foundations.accepts import accepts, need

FILE = rules.a(str, os.PathLike)  # rule: a path
TENSOR, COUNT = rules.a(torch.Tensor), rules.integer(0)


def _csr(value):
    """Rule: values, their columns, and the starts of the rows, that belong together."""
    values, columns, starts = (TENSOR(rules.a(dict)(value).get(part)) for part in
                               ("values", "columns", "starts"))
    starts, columns = (rules.tensor(1, floating=False)(index).long() for index in (starts, columns))
    if values.shape != columns.shape or (columns < 0).any() or not len(starts) or (
            starts[0], starts[-1]) != (0, len(values)) or (starts.diff() < 0).any():
        raise ValueError("expected a column ≥ 0 for each value, and starts that rise from 0 to "
                         "their number")
    return value


@accepts(codes=TENSOR, n_bits=BITS)
def check_codes(codes: torch.Tensor, n_bits: int) -> None:
    """Raise TypeError or ValueError unless `codes` are int8 values that fit into n_bits bits."""
    if codes.dtype != torch.int8:
        raise TypeError(f"expected int8 codes, got {codes.dtype}")
    half = 2 ** (n_bits - 1)
    if codes.numel() and not -half <= int(codes.min()) <= int(codes.max()) < half:
        raise ValueError(f"codes from {codes.min()} to {codes.max()} do not fit into "
                         f"{n_bits} bits")


@accepts(packed=TENSOR, n=COUNT, n_bits=BITS)
def check_packed(packed: torch.Tensor, n: int, n_bits: int) -> None:
    """Raise TypeError or ValueError unless `packed` are the bytes of n codes of n_bits bits."""
    if packed.dtype != torch.uint8 or packed.ndim != 1:
        raise TypeError(f"expected bytes in a row, got {packed.dtype} of {tuple(packed.shape)}")
    if len(packed) != (n * n_bits + 7) // 8:
        raise ValueError(f"{len(packed)} bytes do not hold {n} codes of {n_bits} bits: expected "
                         f"{(n * n_bits + 7) // 8}")


@accepts(codes=TENSOR)
def pack_int4(codes):
    """Bytes (uint8, ⌈n/2⌉) of n codes −8 … 7, the first of two in the low half of its byte."""
    check_codes(codes, 4)
    half_bytes = (codes.flatten() & 15).to(torch.uint8)  # −8 … −1 become 8 … 15
    half_bytes = torch.cat([half_bytes, half_bytes.new_zeros(len(half_bytes) % 2)])
    return half_bytes[0::2] | half_bytes[1::2] << 4


@accepts(packed=TENSOR, n=COUNT)
def unpack_int4(packed, n):
    """The n codes (int8, shape (n,)) that `pack_int4` packed; errors as `unpack_bits`."""
    check_packed(packed, n, 4)
    half_bytes = torch.stack([packed & 15, packed >> 4], dim=1).flatten()[:n]
    return (half_bytes ^ 8).to(torch.int8) - 8  # 8 … 15 become −8 … −1 again


@accepts(codes=TENSOR, n_bits=BITS)
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


@accepts(packed=TENSOR, n=COUNT, n_bits=BITS)
def unpack_bits(packed: torch.Tensor, n: int, n_bits: int) -> torch.Tensor:
    """The n codes (int8, shape (n,)) that `pack_bits` packed.

    Raises TypeError or ValueError for bytes that do not hold n codes of n_bits bits.
    """
    check_packed(packed, n, n_bits)
    bits = (packed[:, None].int() >> torch.arange(8) & 1).flatten()[:n * n_bits]
    codes = (bits.reshape(n, n_bits) << torch.arange(n_bits)).sum(1)
    half = 2 ** (n_bits - 1)
    return ((codes ^ half) - half).to(torch.int8)


@accepts(w=TENSOR, needs=need(lambda w: w.ndim == 2, "a matrix"),
         index=rules.one_of(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64))
def to_csr(w, index=torch.int32):
    """Compressed sparse rows of a matrix: its non-zero values, their columns, each row's start.

    w: (rows, columns) → dict of `values` (nnz,), `columns` (nnz,) of dtype `index`, and `starts`
    (rows + 1,) int32: row i holds values[starts[i]:starts[i + 1]]. NaN is a value like any other.
    Raises ValueError if a column number does not fit into `index`.
    """
    if w.shape[1] - 1 > torch.iinfo(index).max:
        raise ValueError(f"{w.shape[1]} columns do not fit into {index}")
    rows, columns = w.nonzero(as_tuple=True)
    starts = torch.zeros(len(w) + 1, dtype=torch.int32)
    starts[1:] = torch.bincount(rows, minlength=len(w)).cumsum(0)
    return {"values": w[rows, columns], "columns": columns.to(index), "starts": starts}


@accepts(packed=_csr, n_columns=COUNT, needs=need(lambda packed, n_columns: bool(
    (packed["columns"].long() < n_columns).all()), "columns below n_columns"))
def from_csr(packed, n_columns):
    """The matrix (rows, n_columns) that `to_csr` packed. Raises ValueError for other parts."""
    counts = packed["starts"].diff().long()
    rows = torch.repeat_interleave(torch.arange(len(counts)), counts)
    w = packed["values"].new_zeros(len(counts), n_columns)
    w[rows, packed["columns"].long()] = packed["values"]
    return w


@accepts(n_columns=rules.integer(0, 2**31))
def index_type(n_columns: int) -> torch.dtype:
    """The smallest integer type that holds the numbers of so many columns."""
    fits = (t for t in (torch.uint8, torch.int16) if n_columns - 1 <= torch.iinfo(t).max)
    return next(fits, torch.int32)


def _texts(facts):
    """Rule: text by name."""
    return dict(zip(facts, rules.each(rules.text)(facts.values()), strict=True))


@accepts(path=FILE, tensors=rules.a(dict), key=rules.text, layout=rules.a(dict), facts=_texts,
         needs=need(lambda key, facts: key not in facts, "facts under other names"))
def write_file(path: str | Path, tensors: dict, key: str, layout: dict, facts: dict) -> None:
    """One safetensors file: tensors, `layout` as JSON under `key`, facts (text), and a checksum.

    It is written beside `path` first: an OSError (a full disk) leaves what stood there. The
    checksum follows the JSON, in the room of its spaces.
    """
    tensors = {name: t.detach().cpu().clone(memory_format=torch.contiguous_format)
               for name, t in tensors.items()}
    plain, text = json.dumps(layout), json.dumps(layout, separators=(",", ":"))
    sealed = f"{text} {_sum(tensors, {**facts, key: text})}".ljust(len(plain))
    beside = Path(f"{os.fspath(path)}.{os.getpid()}.part")
    try:
        with open(beside, "wb") as file:
            file.write(save(tensors, {key: sealed, **facts}))
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


@accepts(path=FILE, key=rules.text, writer=rules.text, build=rules.function)
def read_file(path: str | Path, key: str, writer: str, build: Callable):
    """What `build(tensors, layout, facts)` makes of a file that `write_file` wrote for `writer`.

    Raises ValueError, naming the file and the cure, if it is foreign, cut short or altered.
    """
    if Path(path).exists() and not Path(path).is_file():
        raise ValueError(f"{path} is no file: expected one of {writer}")
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file ({error}): write it anew with "
                         f"{writer}") from None
    if key not in facts:
        raise ValueError(f"{path} was not written by {writer}: expected a file of it")
    try:
        text = facts.pop(key)
        layout, end = json.JSONDecoder().raw_decode(text)
        whole = text[end:].strip() == _sum(tensors, {**facts, key: text[:end]})
        made = build(tensors, layout, facts)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError,
            ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}): write it anew with {writer}") from None
    if not whole:
        raise ValueError(f"{path} was altered, its checksum is not that of its content: write it "
                         f"anew with {writer}")
    return made


def _sum(tensors: dict, facts: dict) -> str:
    total = zlib.crc32(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(tensors):
        t = tensors[name].contiguous()
        total = zlib.crc32(f"{name} {t.dtype} {tuple(t.shape)}".encode(), total)
        total = zlib.crc32(t.reshape(-1).view(torch.uint8).numpy(), total)
    return f"{total:08x}"


@accepts(quantized=STATE, path=FILE, facts=_texts)
def save_quantized(quantized: dict, path: str | Path, **facts: str) -> None:
    """Write a state dict of `Quantized` matrices and plain vectors to one safetensors file.

    Codes and zero points are packed into their bits, scales are fp16; zero points that are all 0
    are left out. `facts` (text) go into the header. An OSError leaves what stood at `path`. Raises
    ValueError for what could not be read back, such as scales that are no fp16 numbers.
    """
    tensors, matrices = {}, {}
    for name, w in quantized.items():
        parts = {name: w}
        if isinstance(w, Quantized):
            parts = {name: pack_bits(w.codes, w.n_bits), f"{name}.scale": w.scale.half().flatten()}
            if not torch.equal(half_scale(w.scale), w.scale):
                raise ValueError(f"{name}: expected scales that are fp16 numbers, see half_scale")
            if w.zero.any():
                parts[f"{name}.zero"] = pack_bits(w.zero.to(torch.int8), w.n_bits)
            matrices[name] = [*w.codes.shape, w.n_bits]
        if twice := tensors.keys() & parts.keys():
            raise ValueError(f"{min(twice)} is the name of two tensors")
        tensors |= parts
    write_file(path, tensors, "quantized", matrices, facts)


@accepts(path=FILE)
def load_quantized(path: str | Path) -> tuple[dict, dict[str, str]]:
    """The state dict and the facts of a file that `save_quantized` wrote; scales in fp32.

    Raises ValueError, naming the file, if it is foreign, cut short or altered.
    """
    return read_file(path, "quantized", "save_quantized", _unpacked)


def _unpacked(tensors: dict, matrices: dict, facts: dict) -> tuple[dict, dict[str, str]]:
    for name, (rows, columns, n_bits) in matrices.items():
        if name not in tensors or name + ".scale" not in tensors:
            raise ValueError(f"it holds no codes or no scales of {name}")
        codes = unpack_bits(tensors[name], rows * columns, n_bits).reshape(rows, columns)
        scale = tensors.pop(name + ".scale").float()[:, None]
        zero = tensors.pop(name + ".zero", None)
        zero = (torch.zeros_like(scale) if zero is None else
                unpack_bits(zero, len(scale), n_bits).float()[:, None])
        tensors[name] = Quantized(codes, scale, zero, n_bits)
    return STATE(tensors), facts
