"""What attention is made of: the formula, rotary positions, the cache of keys and values.

`torch.compile` traces these functions with their rules, as long as no rule calls numpy.
"""

from math import sqrt

import torch
from torch import nn

from helpers.foundations import rules
from helpers.foundations.accepts import accepts, need


@accepts(q=rules.tensor(), k=rules.tensor(), v=rules.tensor(), needs=need(
    lambda q, k, v: q.ndim > 1 and q.numel() > 0 and q.shape == k.shape
    and v.shape[:-1] == q.shape[:-1], "equal shapes (..., seq, d_head), not empty"))
def attention(q, k, v):
    """Causal attention by the formula: q, k, v (..., seq, d_head) → the mix, and its weights.

    Weights have shape (..., seq, seq), rows sum to 1 (Vaswani et al. 2017, eq. 1). Raises
    ValueError for unequal shapes.
    """
    seq, d_head = q.shape[-2:]
    scores = q @ k.transpose(-2, -1) / sqrt(d_head)  # (..., seq, seq)
    future = torch.ones(seq, seq, dtype=torch.bool, device=q.device).triu(1)
    weights = scores.masked_fill(future, float("-inf")).softmax(-1)
    return weights @ v, weights


@accepts(positions=rules.a(torch.Tensor), d_head=rules.integer(2), base=rules.number(above=0),
         needs=(need(lambda positions: positions.ndim == 1, "one position for each token, (seq,)"),
                need(lambda d_head: d_head % 2 == 0, "an even width, whole pairs")))
def rotation(positions, d_head, base=1000.0):
    """Each position's angles as complex numbers of length 1, (seq, d_head/2) (Su et al. 2021).

    Raises ValueError for an odd `d_head`, or positions that are not of shape (seq,).
    """
    pair = torch.arange(0, d_head, 2, device=positions.device)
    angle = positions[:, None] * base ** (-pair / d_head)  # slower and slower
    return torch.polar(torch.ones_like(angle), angle)


@accepts(x=rules.tensor(), turn=rules.a(torch.Tensor), needs=need(
    lambda x, turn: turn.is_complex() and turn.ndim == 2
    and x.shape[-2:] == (turn.shape[0], 2 * turn.shape[1]),
    "x (..., seq, d_head) and the complex numbers (seq, d_head/2) of `rotation`"))
def rotate(x, turn):
    """Turn each pair of neighbours in x (..., seq, d_head) by its position's angle.

    In float32 if x is bfloat16: complex numbers are no coarser. Raises ValueError if `turn` (of
    `rotation`) is for another number of positions or another width.
    """
    x = x.float() if x.dtype == torch.bfloat16 else x
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))  # (..., seq, d_head/2)
    return torch.view_as_real(pairs * turn).flatten(-2)


def _room(given) -> str:
    """A need of `KVCache.append`: place for the new keys, behind others of the same texts."""
    cache, layer, k, v = (given[name] for name in ("self", "layer", "k", "v"))
    if k.ndim != 4 or k.shape != v.shape:
        return (f"keys {tuple(k.shape)}, values {tuple(v.shape)}: expected one shape, (batch, "
                "n_head, seq, d_head)")
    if cache.length + k.shape[2] > cache.context:
        return (f"{cache.length + k.shape[2]} tokens are longer than the cache's context of "
                f"{cache.context}")
    if layer not in cache.kept:
        return cache.length and "the cache holds another model's keys: expected a new KVCache"
    kept = cache.kept[layer][0].shape
    return "" if (*kept[:2], kept[3]) == (*k.shape[:2], k.shape[3]) else (
        f"keys {tuple(k.shape)} behind kept ones {tuple(kept)}: expected the same batch, heads and "
        "width; other texts need a new KVCache")


@accepts(context=rules.integer(1))
class KVCache:
    """Keys and values of all tokens read so far, per attention layer, in room for `context`.

    For one batch of texts and one model: others raise ValueError, and so does a token too many.
    """

    def __init__(self, context: int):
        self.context, self.length, self.kept = context, 0, {}

    @accepts(layer=rules.a(nn.Module), k=rules.tensor(), v=rules.tensor(), needs=_room)
    def append(self, layer: nn.Module, k, v):
        """Add the new keys and values of `layer`, (batch, n_head, seq, d_head); return all."""
        start, end = self.length, self.length + k.shape[2]
        if layer not in self.kept:
            room = (*k.shape[:2], self.context, k.shape[3])
            self.kept[layer] = k.new_empty(room), v.new_empty(room)
        for kept, new in zip(self.kept[layer], (k, v), strict=True):
            kept[:, :, start:end] = new
        return tuple(kept[:, :, :end] for kept in self.kept[layer])
