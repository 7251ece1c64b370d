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
        "That is the rest of its row: right for one scale per row. Here a row has four groups.":
            lambda: 127,
        "You counted the whole row; here a row of 128 has four groups of 32.": lambda: 128,
        "That is the rest of the matrix: right for one scale per tensor.": lambda: 512 * 128 - 1,
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


def _hessian(seed: int, d: int) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(4 * d, d))
    x[:, 1:] += 0.8 * x[:, :1]  # inputs that move together
    return x.T @ x


def _solve_in_place(H, change):
    H[0, 0] += 1
    return -change * np.linalg.solve(H[1:, 1:], H[1:, 0])


@exercise(
    "12.4", tests="the moves of 1, 3 and 7 other weights, and that nothing moves without a change",
    hints=("Split δ into its first entry and the rest r: which terms of δᵀHδ hold r, and what is "
           "their derivative?",
           "2 H[1:, 0] · change + 2 H[1:, 1:] r = 0: a linear system for r (np.linalg.solve)."),
    cases=((_hessian(1, 2), 0.5), (_hessian(2, 4), -0.2), (_hessian(3, 8), 1.0),
           (_hessian(4, 3), 0.0)),
    wrong={
        "The sign is turned: the others must go against the change, or they double the harm.":
            lambda H, change: change * np.linalg.solve(H[1:, 1:], H[1:, 0]),
        "You let each weight make up for all of it alone; they share the work: solve the system.":
            lambda H, change: -change * H[1:, 0] / np.diag(H)[1:],
        "You used the inverse of all of H without dividing by its first entry.":
            lambda H, change: change * np.linalg.inv(H)[1:, 0],
        "You left the others where they were; that is rounding to nearest.":
            lambda H, change: np.zeros(len(H) - 1),
        "You returned the first weight's change too; the question asks for the others alone.":
            lambda H, change: np.append(change, -change * np.linalg.solve(H[1:, 1:], H[1:, 0])),
        "You multiplied by the block of H where the system asks you to divide by it.":
            lambda H, change: -change * H[1:, 1:] @ H[1:, 0],
        IN_PLACE: _solve_in_place,
    })
def make_up(H, change):
    """Zero derivative in the rest r of δ: H[1:, 1:] r = −H[1:, 0] · change."""
    return -change * np.linalg.solve(H[1:, 1:], H[1:, 0])
