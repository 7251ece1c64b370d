"""A KV cache that holds keys and values as packed codes."""

import numpy as np
import torch
from torch import nn

from helpers.compress.packing import pack_bits, unpack_bits
from helpers.compress.quantize import dequantize, fit_scale, half_scale, quantize
from helpers.transformer.models import GPT, KVCache


class QuantizedCache(KVCache):
    """Keys and values as codes of n_bits bits, packed, on affine grids.

    Each token of each head has its own scale, found when it arrives; or each head has one scale
    for all tokens, found beforehand (`grids` from `head_grids`). Attention gets the dequantised
    keys and values, the newest token's too. d_head · n_bits must be a multiple of 8.
    """

    def __init__(self, context: int, n_bits: int, grids: dict | None = None):
        super().__init__(context)
        self.n_bits, self.grids = n_bits, grids

    def append(self, layer: nn.Module, k, v):
        """Store the new keys and values of `layer`, (batch, n_head, seq, d_head); return all."""
        start, end = self.length, self.length + k.shape[2]
        both = []
        for number, x in enumerate((k, v)):
            fixed = self.grids and self.grids[layer][number]  # (scale, zero), (n_head, 1) each
            new = self.encode(x, fixed)
            if start:
                new = tuple(torch.cat([old, late], dim=2) for old, late in
                            zip(self.kept[layer][number], new, strict=True))
            both.append(new)
        self.kept[layer] = tuple(both)
        assert both[0][0].shape[2] == end
        return tuple(self.decode(kept, layer, number, x) for number, (kept, x) in
                     enumerate(zip(both, (k, v), strict=True)))

    def encode(self, x, fixed):
        """Packed codes (batch, n_head, seq, bytes), and scale and zero point of each token."""
        if fixed:
            scale, zero = (g.repeat(len(x), 1) for g in fixed)  # (batch · n_head, 1)
        else:
            scale, zero = fit_scale(x, self.n_bits, x.shape[-1], symmetric=False)
            scale = half_scale(scale)
        codes = quantize(x.contiguous(), scale, zero, self.n_bits)
        packed = pack_bits(codes, self.n_bits).reshape(*x.shape[:3], -1)
        if fixed:
            return (packed,)
        shape = (*x.shape[:3], 1)
        return packed, scale.half().reshape(shape), zero.to(torch.int8).reshape(shape)

    def decode(self, kept, layer, number, like):
        """All keys or values so far, (batch, n_head, length, d_head), of the type of `like`."""
        shape = (*kept[0].shape[:3], like.shape[-1])
        codes = unpack_bits(kept[0].flatten(), int(np.prod(shape)), self.n_bits).reshape(shape)
        if self.grids:
            scale, zero = (g.repeat(shape[0], 1) for g in self.grids[layer][number])
        else:
            scale, zero = (g.reshape(-1, 1).to(like.dtype) for g in kept[1:])
        return dequantize(codes, scale.to(like.dtype), zero.to(like.dtype))

    def n_bytes(self) -> int:
        """Bytes of all that is kept: codes, and scales (fp16) and zero points (1 byte) if any.

        The fixed scales of the heads belong to the model, and are not counted.
        """
        return sum(t.numel() * t.element_size() for pair in self.kept.values() for kept in pair
                   for t in kept)


@torch.no_grad()
def head_grids(model: GPT, windows: np.ndarray, n_bits: int) -> dict:
    """Scale and zero point of each head's keys and values, that hold all of windows (n, seq + 1).

    → for each attention layer ((scale, zero) of keys, of values), each (n_head, 1).
    """
    cache = KVCache(windows.shape[1] - 1)
    model(torch.from_numpy(windows[:, :-1]), cache)
    found = {}
    for layer, pair in cache.kept.items():
        flat = [x.transpose(0, 1).flatten(1) for x in pair]  # (n_head, all numbers of the head)
        grids = [fit_scale(x, n_bits, x.shape[1], symmetric=False) for x in flat]
        found[layer] = tuple((half_scale(scale), zero) for scale, zero in grids)
    return found


class Cached(nn.Module):
    """The model with a fresh cache from `make` for each batch, so that `evaluate` can examine it.

    Each token sees its own and all earlier keys and values as the cache gives them back: the same
    as decoding token by token.
    """

    def __init__(self, model: GPT, make):
        super().__init__()
        self.model, self.make = model, make

    def forward(self, tokens):
        return self.model(tokens, self.make())
