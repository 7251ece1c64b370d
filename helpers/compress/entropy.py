"""Entropy coding: the exact coder in fractions, integers by their histogram, whole models."""

import hashlib
import json
import struct
import zlib
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import asdict
from fractions import Fraction
from itertools import accumulate
from math import ceil

import constriction
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save

from helpers.compress.quantize import STATE, Quantized, dequantize, dequantize_state, half_scale
from helpers.foundations import rules
from helpers.foundations.accepts import accepts, need
from helpers.transformer.models import GPT, GPTConfig
from helpers.transformer.tensors import model_of

FORMAT = "gpt, entropy coded, 1"


def _exact(predict: Callable) -> Callable:
    """Rule: a function whose answers are checked: exact probabilities with sum 1."""
    rules.function(predict)

    def checked(seen):
        p = rules.each(_fraction)(predict(seen))
        if sum(p) != 1 or min(p) < 0:
            raise ValueError(f"predict gave probabilities with sum {float(sum(p))!r}: expected "
                             "fractions ≥ 0 with sum 1 exactly")
        return p

    return checked


def _fraction(value) -> Fraction:
    """Rule: a finite number → fraction, exactly."""
    return value if isinstance(value, Fraction) else Fraction(rules.number()(value))


@accepts(counts=rules.reals(low=0, high=2.0**63))
def entropy(counts):
    """−Σ p log₂ p in bits per symbol, p = counts / sum; 0 for no counts. Source: Shannon 1948.

    Raises ValueError for counts that are negative or not finite.
    """
    p = np.asarray(counts, dtype=float)
    p = p[p > 0] / p.sum()
    return float(-(p * np.log2(p)).sum()) + 0.0  # + 0.0 turns -0 into 0


@accepts(symbols=rules.each(rules.integer(0)), predict=_exact, needs=need(
    lambda symbols, predict: all(one < len(predict(symbols[:i])) for i, one in enumerate(symbols)),
    "symbols that predict knows"))
def shrink_interval(symbols, predict):
    """The part of [0, 1) that stands for `symbols`: (low end, width) as exact fractions.

    predict(symbols so far) → probabilities of the next symbol 0, 1, …, as fractions with sum 1.
    Raises ValueError for others, and for a symbol that has none.
    Source: Rissanen & Langdon 1979.
    """
    low, width = Fraction(0), Fraction(1)
    for i, symbol in enumerate(symbols):
        p = predict(symbols[:i])
        low, width = low + width * sum(p[:symbol]), width * p[symbol]
    return low, width


@accepts(low=_fraction, width=_fraction, needs=need(
    lambda low, width: 0 <= low <= low + max(width, 0) <= 1, "an interval inside 0 … 1"))
def shortest_point(low, width):
    """Digits, as text, of the shortest binary fraction 0.… that leads into [low, low + width).

    Whatever digits follow, it stays inside. At most ⌈−log₂ width⌉ + 1 digits. Raises ValueError
    for an empty interval, which has none, and one that is not inside [0, 1].
    """
    if width <= 0:
        raise ValueError("the interval is empty: a symbol had probability 0")
    n = 0
    while (k := ceil(low * 2**n)) + 1 > (low + width) * 2**n:
        n += 1
    return f"{k:0{n}b}" if n else ""


@accepts(bits=rules.text, n_symbols=rules.integer(0), predict=_exact,
         needs=need(lambda bits: set(bits) <= {"0", "1"}, "digits 0 and 1"))
def follow_point(bits, n_symbols, predict):
    """The `n_symbols` symbols whose interval holds the binary fraction 0.bits.

    predict: as in `shrink_interval`. Raises ValueError for other digits than 0 and 1.
    """
    point, symbols = Fraction(int(bits or "0", 2), 2 ** len(bits)), []
    for _ in range(n_symbols):
        p = predict(symbols)
        ends = list(accumulate(p))
        symbol = bisect_right(ends, point)
        symbols.append(symbol)
        point = (point - ends[symbol] + p[symbol]) / p[symbol]  # where it lies in that part
    return symbols


def _raw(value):
    """Rule: bytes, as such or as numbers 0 … 255."""
    raw = isinstance(value, bytes | bytearray | memoryview)
    return bytes(value) if raw else rules.integers(1, 0, 255)(value).astype(np.uint8).tobytes()


@accepts(codes=rules.anything)
def encode_integers(codes):
    """Bytes (uint8) of int8 codes of any shape: their histogram, then a range coder's output.

    4 bytes of a CRC-32 of the rest, 4 for the number of codes, 2 for the smallest and largest, 2
    for each count between (in units of the largest count / 65535), then the coder's words. Raises
    TypeError for another dtype.
    """
    codes = np.asarray(codes)
    if codes.dtype != np.int8:
        raise TypeError(f"expected int8 codes, got {codes.dtype}")
    body = struct.pack("<I", codes.size)
    if codes.size:
        low, high = int(codes.min()), int(codes.max())
        symbols = codes.ravel().astype(np.int32) - low
        counts = np.bincount(symbols)
        counts = (-(-counts * 65535 // counts.max())).astype("<u2")  # rounded up: none becomes 0
        body += struct.pack("<bb", low, high) + counts.tobytes()
        if low < high:  # a single value needs no bits
            coder = constriction.stream.queue.RangeEncoder()
            coder.encode(symbols, _histogram_model(counts))
            body += coder.get_compressed().astype("<u4").tobytes()
    return np.frombuffer(struct.pack("<I", zlib.crc32(body)) + body, dtype=np.uint8)


@accepts(packed=_raw)
def decode_integers(packed):
    """The int8 codes, (n,), that `encode_integers` packed.

    Raises ValueError for bytes that are truncated, altered or of something else.
    """
    if len(packed) < 8 or zlib.crc32(packed[4:]) != struct.unpack_from("<I", packed)[0]:
        raise ValueError(f"{len(packed)} bytes that encode_integers did not write: truncated or "
                         "altered")
    (n,) = struct.unpack_from("<I", packed, 4)
    if not n:
        return np.zeros(0, dtype=np.int8)
    low, high = struct.unpack_from("<bb", packed, 8)
    if low == high:
        return np.full(n, low, dtype=np.int8)
    end = 10 + 2 * (high - low + 1)
    words = np.frombuffer(packed[end:], "<u4").astype(np.uint32)
    coder = constriction.stream.queue.RangeDecoder(words)
    symbols = coder.decode(_histogram_model(np.frombuffer(packed[10:end], "<u2")), n)
    return (symbols + low).astype(np.int8)


def _histogram_model(counts: np.ndarray):
    return constriction.stream.model.Categorical(counts.astype(float), perfect=False)


def _merges(values):
    """Rule: pairs of token ids, each of an earlier token, as a file holds them."""
    pairs = [tuple(pair) for pair in rules.each(rules.each(rules.integer(0, 2**16 - 1)))(values)]
    for i, pair in enumerate(pairs):
        if len(pair) != 2 or max(pair) >= 256 + i:
            raise ValueError(f"expected pairs of earlier tokens, got {pair} for token {256 + i}")
    return pairs


@accepts(config=rules.a(GPTConfig), quantized=STATE, merges=_merges, needs=need(
    lambda config, merges: 256 + len(merges) <= config.vocab or not merges,
    "no more tokens than the model knows"))
def pack_model(config: GPTConfig, quantized: dict, merges: list[tuple[int, int]]) -> bytes:
    """A quantised model and its tokeniser as the bytes of one safetensors file, entropy-coded.

    quantized: a state dict with `Quantized` matrices (`quantize_state`, `gptq_model`). Their codes
    and zero points are coded by their own histograms; scales and norm gains are fp16. A shrunk
    model's matrices have the shapes they have. Raises ValueError, naming the tensor, for what could
    not be read back: another config's, matrices that are not `Quantized`, numbers beyond fp16.
    """
    model_of(config, dequantize_state(quantized))  # says what does not fit
    tensors = {"merges": np.array(merges, dtype=np.uint16).reshape(-1, 2)}
    for name, w in quantized.items():
        if isinstance(w, Quantized):
            if not torch.equal(half_scale(w.scale), w.scale):
                raise ValueError(f"{name}: expected scales that are fp16 numbers, see half_scale")
            tensors[name] = encode_integers(w.codes.numpy())
            tensors[name + ".scale"] = w.scale.half().numpy()
            tensors[name + ".zero"] = encode_integers(w.zero.to(torch.int8).numpy())
        else:
            if w.ndim == 2 or not w.half().isfinite().all():
                raise ValueError(f"{name}: expected a matrix as Quantized, or a vector of fp16 "
                                 "numbers: see quantize_state")
            tensors[name] = w.half().numpy()
    shape = json.dumps(asdict(config))
    facts = {"format": FORMAT, "config": shape, "sha256": _sha256(shape, tensors)}
    return save(tensors, {"facts": json.dumps(facts)})  # one entry: the order of more is random


@accepts(blob=_raw)
def unpack_model(blob: bytes) -> tuple[GPT, list[tuple[int, int]]]:
    """The model (fp32) and the merges that `pack_model` packed.

    Raises ValueError for bytes that are truncated, altered or of something else.
    """
    try:
        tensors = load(blob)
        header = json.loads(blob[8:8 + int.from_bytes(blob[:8], "little")])
        facts = json.loads(header["__metadata__"]["facts"])
        written, shape, digest = facts["format"], facts["config"], facts["sha256"]
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"no file of pack_model, pack the model again: {type(error).__name__}: "
                         f"{error}") from None
    if written != FORMAT or digest != _sha256(shape, tensors):
        raise ValueError(f"format {written!r}, expected {FORMAT!r}; or the shape or the numbers "
                         "were altered: not as pack_model wrote them")
    merges, state = [tuple(pair) for pair in tensors.pop("merges").tolist()], {}
    config = GPTConfig(**json.loads(shape))
    for name in [name for name in tensors if name.endswith(".weight")]:
        if (scale := tensors.get(name + ".scale")) is None:
            state[name] = torch.from_numpy(tensors[name]).float()
            continue
        codes, zero = (torch.from_numpy(decode_integers(tensors[name + end]))
                       for end in ("", ".zero"))
        narrow = name.endswith(("out.weight", "down.weight"))  # those that shrink by columns
        codes = codes.view((config.d_model, -1) if narrow else (-1, config.d_model))
        state[name] = dequantize(codes, torch.from_numpy(scale).float(), zero.view(-1, 1))
    return model_of(config, state), merges


def _sha256(shape: str, tensors: dict[str, np.ndarray]) -> str:
    parts = [repr(shape).encode()]
    parts += [f"{name} {w.dtype} {w.shape}".encode() + w.tobytes()
              for name, w in sorted(tensors.items())]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()
