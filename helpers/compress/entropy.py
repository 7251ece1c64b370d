"""Entropy coding: the exact coder in fractions, integers by their histogram, whole models."""

import hashlib
import json
import struct
import zlib
from bisect import bisect_right
from dataclasses import asdict
from fractions import Fraction
from itertools import accumulate
from math import ceil

import constriction
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save

from helpers.compress.quantize import Quantized, dequantize
from helpers.transformer.models import GPT, GPTConfig

FORMAT = "gpt, entropy coded, 1"


def entropy(counts):
    """−Σ p log₂ p in bits per symbol, p = counts / sum; 0 for no counts. Source: Shannon 1948."""
    p = np.asarray(counts, dtype=float)
    p = p[p > 0] / p.sum()
    return float(-(p * np.log2(p)).sum()) + 0.0  # + 0.0 turns -0 into 0


def shrink_interval(symbols, predict):
    """The part of [0, 1) that stands for `symbols`: (low end, width) as exact fractions.

    predict(symbols so far) → probabilities of the next symbol 0, 1, …, as fractions with sum 1.
    Source: Rissanen & Langdon 1979.
    """
    low, width = Fraction(0), Fraction(1)
    for i, symbol in enumerate(symbols):
        p = predict(symbols[:i])
        low, width = low + width * sum(p[:symbol]), width * p[symbol]
    return low, width


def shortest_point(low, width):
    """Digits, as text, of the shortest binary fraction 0.… that leads into [low, low + width).

    Whatever digits follow, it stays inside. At most ⌈−log₂ width⌉ + 1 digits. Raises ValueError
    for an empty interval, which has none.
    """
    if width <= 0:
        raise ValueError("the interval is empty: a symbol had probability 0")
    n = 0
    while (k := ceil(low * 2**n)) + 1 > (low + width) * 2**n:
        n += 1
    return f"{k:0{n}b}" if n else ""


def follow_point(bits, n_symbols, predict):
    """The `n_symbols` symbols whose interval holds the binary fraction 0.bits."""
    point, symbols = Fraction(int(bits or "0", 2), 2 ** len(bits)), []
    for _ in range(n_symbols):
        p = predict(symbols)
        ends = list(accumulate(p))
        symbol = bisect_right(ends, point)
        symbols.append(symbol)
        point = (point - ends[symbol] + p[symbol]) / p[symbol]  # where it lies in that part
    return symbols


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


def decode_integers(packed):
    """The int8 codes, (n,), that `encode_integers` packed.

    Raises ValueError for bytes that are truncated, altered or of something else.
    """
    raw = np.asarray(packed, dtype=np.uint8).tobytes()
    if len(raw) < 8 or zlib.crc32(raw[4:]) != struct.unpack_from("<I", raw)[0]:
        raise ValueError(f"{len(raw)} bytes that encode_integers did not write: truncated or "
                         "altered")
    (n,) = struct.unpack_from("<I", raw, 4)
    if not n:
        return np.zeros(0, dtype=np.int8)
    low, high = struct.unpack_from("<bb", raw, 8)
    if low == high:
        return np.full(n, low, dtype=np.int8)
    end = 10 + 2 * (high - low + 1)
    words = np.frombuffer(raw[end:], "<u4").astype(np.uint32)
    coder = constriction.stream.queue.RangeDecoder(words)
    symbols = coder.decode(_histogram_model(np.frombuffer(raw[10:end], "<u2")), n)
    return (symbols + low).astype(np.int8)


def _histogram_model(counts: np.ndarray):
    return constriction.stream.model.Categorical(counts.astype(float), perfect=False)


def pack_model(config: GPTConfig, quantized: dict, merges: list[tuple[int, int]]) -> bytes:
    """A quantised model and its tokeniser as the bytes of one safetensors file, entropy-coded.

    quantized: a state dict with `Quantized` matrices (`quantize_state`, `gptq_model`). Their codes
    and zero points are coded by their own histograms; scales and norm gains are fp16.
    """
    tensors = {"merges": np.array(merges, dtype=np.uint16).reshape(-1, 2)}
    for name, w in quantized.items():
        if isinstance(w, Quantized):
            tensors[name] = encode_integers(w.codes.numpy())
            tensors[name + ".scale"] = w.scale.half().numpy()
            tensors[name + ".zero"] = encode_integers(w.zero.to(torch.int8).numpy())
        else:
            tensors[name] = w.half().numpy()
    shape = json.dumps(asdict(config))
    facts = {"format": FORMAT, "config": shape, "sha256": _sha256(shape, tensors)}
    return save(tensors, {"facts": json.dumps(facts)})  # one entry: the order of more is random


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
        raise ValueError(f"no file of pack_model: {type(error).__name__}: {error}") from None
    if written != FORMAT or digest != _sha256(shape, tensors):
        raise ValueError(f"format {written!r}, expected {FORMAT!r}; or the shape or the numbers "
                         "were altered: not as pack_model wrote them")
    model, state = GPT(GPTConfig(**json.loads(shape))), {}
    for name, w in model.state_dict().items():
        if w.ndim == 2:
            codes, zero = (torch.from_numpy(decode_integers(tensors[name + end])).view(shape)
                           for end, shape in (("", w.shape), (".zero", (-1, 1))))
            scale = torch.from_numpy(tensors[name + ".scale"]).float()
            state[name] = dequantize(codes, scale, zero)
        else:
            state[name] = torch.from_numpy(tensors[name]).float()
    model.load_state_dict(state)
    return model, [tuple(pair) for pair in tensors["merges"].tolist()]


def _sha256(shape: str, tensors: dict[str, np.ndarray]) -> str:
    parts = [repr(shape).encode()]
    parts += [f"{name} {w.dtype} {w.shape}".encode() + w.tobytes()
              for name, w in sorted(tensors.items())]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()
