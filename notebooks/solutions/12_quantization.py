"""Solutions of chapter 12: quantization."""

import numpy as np
import torch

from helpers.exercises import IN_PLACE, exercise


@exercise(
    "12.1", tests="the number of weights that share the planted weight's scale",
    hints=("The step belongs to a group. Who is in the group of weight [0, 0]?",
           "The group is the first 32 weights of row 0; the planted one itself is not counted."),
    cases=((),),
    wrong={
        "You counted the planted weight itself; the question asks for the others.": lambda: 32,
        "That is the rest of its row: right for one scale per row. Here a row has two groups.":
            lambda: 63,
        "You counted the whole row; here a row of 64 has two groups of 32.": lambda: 64,
        "That is the rest of the matrix: right for one scale per tensor.": lambda: 256 * 64 - 1,
        "A step is shared: the neighbours in the group are rounded on the coarser grid as well.":
            lambda: 0,
    })
def weights_at_risk():
    """The other members of the group of 32."""
    return 32 - 1


@exercise(
    "12.2", tests="share of fp32 for 2 to 8 bits, three group sizes, with and without zero point",
    hints=("A group costs its codes, one scale and perhaps one zero point. Divide by g weights.",
           "(n_bits + (scale_bits + (n_bits if affine else 0)) / group_size) / 32"),
    cases=((4, 32, 16, False), (8, 64, 16, True), (3, 128, 32, True), (2, 16, 16, False)),
    wrong={
        "You left the scales out: they are stored too, one for each group.":
            lambda b, g, s, affine: b / 32,
        "Each weight pays a whole scale in your count; a group of g weights shares it.":
            lambda b, g, s, affine: (b + s + (b if affine else 0)) / 32,
        "You divided the codes by the group size too; each weight has a code of its own.":
            lambda b, g, s, affine: (b + s + (b if affine else 0)) / g / 32,
        "These are bits per weight; the question asks for the share of fp32, which has 32.":
            lambda b, g, s, affine: b + (s + (b if affine else 0)) / g,
        "The zero point belongs to the group like the scale; you gave one to each weight.":
            lambda b, g, s, affine: (b + (b if affine else 0) + s / g) / 32,
        "You forgot the zero points of the affine grid.": lambda b, g, s, affine: (b + s / g) / 32,
    })
def share_of_fp32(n_bits, group_size, scale_bits, affine):
    """Bits per weight with scale and zero point shared by a group, over 32."""
    per_group = scale_bits + (n_bits if affine else 0)
    return (n_bits + per_group / group_size) / 32


def _search(w, n_bits, fractions, error, q_min=None, q_max=None):
    m = 2 ** (n_bits - 1) - 1
    q_min, q_max = -m - 1 if q_min is None else q_min, m if q_max is None else q_max
    errors = []
    for c in fractions:
        scale = c * w.abs().max() / m
        codes = (w / scale).round().clamp(q_min, q_max)
        errors.append(float(error(w, codes, codes * scale, q_min, q_max)))
    return errors


def _squared(w, codes, back, q_min, q_max):
    return (back - w).square().mean()


def _wide_step(w, n_bits, fractions):
    m = 2 ** (n_bits - 1) - 1
    scale, errors = w.abs().max() / m, []
    for c in fractions:
        codes = (w.clamp(-c * w.abs().max(), c * w.abs().max()) / scale).round()
        errors.append((codes * scale - w).square().mean().item())
    return fractions[errors.index(min(errors))]


def _tails(seed: int, n: int, dof: float) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_t(dof, n))


def _clip_in_place(w, n_bits, fractions):
    best = best_clip(w, n_bits, fractions)
    w.clamp_(-best * w.abs().max(), best * w.abs().max())
    return best


@exercise(
    "12.3", tests="the best clipping fraction of heavy-tailed weights at 4, 3 and 2 bits",
    hints=("For each c: make the scale, round, clip the codes, measure the error of all weights.",
           "codes = (w / s).round().clamp(-2**(n_bits-1), 2**(n_bits-1) - 1); "
           "error = (codes * s - w).square().mean()"),
    cases=((_tails(1, 4000, 4), 4, [0.02, *np.linspace(0.1, 1, 10)]),
           (_tails(2, 2000, 6), 3, [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]),
           (_tails(3, 1000, 30), 2, [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3])),
    wrong={
        "The finest step seems best to you: clip the codes, and count the clipped weights' errors.":
            lambda w, b, cs: cs[int(np.argmin(_search(w, b, cs, _squared, -1e9, 1e9)))],
        "You clipped the weights but kept the wide step; c must make the step finer.": _wide_step,
        "You returned the place in the list; the question asks for the fraction that stands there.":
            lambda w, b, cs: int(np.argmin(_search(w, b, cs, _squared))),
        "You returned the least error; the question asks for the fraction that reaches it.":
            lambda w, b, cs: min(_search(w, b, cs, _squared)),
        "You took the mean absolute error; squaring makes the few clipped weights count more.":
            lambda w, b, cs: cs[int(np.argmin(_search(
                w, b, cs, lambda w, codes, back, low, high: (back - w).abs().mean())))],
        IN_PLACE: _clip_in_place,
    })
def best_clip(w, n_bits, fractions):
    """Try each fraction; all weights, clipped ones too, count in the error."""
    q_min, q_max = -(2 ** (n_bits - 1)), 2 ** (n_bits - 1) - 1
    errors = []
    for c in fractions:
        scale = c * w.abs().max() / q_max
        back = (w / scale).round().clamp(q_min, q_max) * scale
        errors.append((back - w).square().mean().item())
    return fractions[errors.index(min(errors))]


def _pack2(codes, shifts=(0, 2, 4, 6), mask=3, offset=0, drop=False):
    codes = codes.flatten().to(torch.int64) + offset
    codes = codes[: len(codes) // 4 * 4] if drop else torch.cat(
        [codes, codes.new_zeros(-len(codes) % 4)])
    return ((codes.reshape(-1, 4) & mask) << torch.tensor(shifts)).sum(1).to(torch.uint8)


def _codes(seed: int, n: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(-2, 2, n).astype(np.int8))


@exercise(
    "12.4", tests="bytes of 8, 13, 1 and 0 codes and of both ends of the range",
    hints=("Keep the two low bits of each code (−2 becomes 2, −1 becomes 3), then shift them.",
           "q = (codes & 3).to(torch.uint8), filled up with zeros; then "
           "q[0::4] | q[1::4] << 2 | q[2::4] << 4 | ..."),
    cases=((_codes(1, 8),), (_codes(2, 13),),
           (torch.tensor([-2, -2, -2, -2, 1], dtype=torch.int8),),
           (torch.tensor([-1], dtype=torch.int8),), (torch.zeros(0, dtype=torch.int8),)),
    wrong={
        "Your first code sits in the highest bits; it belongs in the lowest.":
            lambda codes: _pack2(codes, (6, 4, 2, 0)),
        "You dropped the codes that did not fill a byte; fill it up with zeros.":
            lambda codes: _pack2(codes, drop=True),
        "You kept the sign bits: mask each code with 3, or it floods its neighbours.":
            lambda codes: _pack2(codes, mask=-1),
        "You shifted int8 codes, so the highest bit became a sign: go to torch.uint8 first.":
            lambda codes: _pack2(codes).to(torch.int8),
        "You added 2 to make codes positive; pack_int4 keeps the low bits, so −1 becomes 3.":
            lambda codes: _pack2(codes, offset=2),
        "You shifted by one bit per place; each code needs two.":
            lambda codes: _pack2(codes, (0, 1, 2, 3)),
    })
def pack_2bit(codes):
    """Two low bits of each code, four to a byte, the first lowest."""
    q = (codes.flatten() & 3).to(torch.uint8)
    q = torch.cat([q, q.new_zeros(-len(q) % 4)])
    return q[0::4] | q[1::4] << 2 | q[2::4] << 4 | q[3::4] << 6
