"""A KV cache that holds keys and values as packed codes."""

import numpy as np
import torch
from torch import nn

from helpers.compress.packing import pack_bits, unpack_bits
from helpers.compress.quantize import BITS, dequantize, fit_scale, half_scale, quantize
from helpers.foundations import rules
from helpers.foundations.accepts import accepts, need
from helpers.transformer.attention import KVCache
from helpers.transformer.models import GPT, a_gpt


def _room(given) -> str:
    """A need of `append`: keys and values that fit the cache, its bits and what it holds."""
    cache, layer, k, v = (given[name] for name in ("self", "layer", "k", "v"))
    if k.shape != v.shape or k.shape[-1] * cache.n_bits % 8 or not k.numel():
        return (f"keys {tuple(k.shape)}, values {tuple(v.shape)}: expected one shape, d_head · "
                f"{cache.n_bits} bits whole bytes")
    if cache.length + k.shape[2] > cache.context:
        return (f"{cache.length + k.shape[2]} tokens are longer than the cache's context of "
                f"{cache.context}")
    if cache.grids and layer not in cache.grids:
        return "the grids are those of another model: expected head_grids of this one"
    kept = cache.kept.get(layer, ((k,),))[0][0].shape
    return "" if bool(cache.length) == (layer in cache.kept) and kept[:2] == k.shape[:2] else (
        f"keys {tuple(k.shape)}: expected the texts and the model whose keys are kept, or a new "
        "cache")


@accepts(context=rules.integer(1), n_bits=BITS, grids=rules.maybe(rules.a(dict)))
class QuantizedCache(KVCache):
    """Keys and values as codes of n_bits bits, packed, on affine grids.

    Each token of each head has its own scale, found when it arrives; or each head has one scale
    for all tokens, found beforehand (`grids` from `head_grids`). Attention gets the dequantised
    keys and values, the newest token's too. Raises ValueError unless d_head · n_bits is a multiple
    of 8, for tokens beyond the context, and for keys of other texts or another model.
    """

    def __init__(self, context: int, n_bits: int, grids: dict | None = None):
        super().__init__(context)
        self.n_bits, self.grids = n_bits, grids

    @accepts(layer=rules.a(nn.Module), k=rules.tensor(4), v=rules.tensor(4), needs=_room)
    def append(self, layer: nn.Module, k, v):
        """Store the new keys and values of `layer`, (batch, n_head, seq, d_head); return all."""
        both = []
        for number, x in enumerate((k, v)):
            fixed = self.grids and self.grids[layer][number]  # (scale, zero), (n_head, 1) each
            new = self.encode(x, fixed)
            if self.length:
                new = tuple(torch.cat([old, late], dim=2) for old, late in
                            zip(self.kept[layer][number], new, strict=True))
            both.append(new)
        self.kept[layer] = tuple(both)
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


@accepts(model=a_gpt, windows=rules.integers(2, low=0, least=2), n_bits=BITS, needs=need(
    lambda model, windows: 2 <= windows.shape[1] <= model.config.context + 1,
    "windows (n, seq + 1) that the model's context holds"))
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


@accepts(model=rules.a(nn.Module), make=rules.function)
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
