"""Solutions of chapter 12: quantization."""

import numpy as np
import torch

from helpers.exercises import IN_PLACE, exercise


@exercise(
    "12.1", tests="the number of weights that share the planted weight's scale",
    hints=("The step belongs to a group. Who is in the group of weight [0, 0]?",
           "Row 0 is cut into four groups; only the first has a new step. Count its members, "
           "but not the planted one."),
    cases=((),),
    wrong={
        "You counted the planted weight itself; the question asks for the others.": lambda: 32,
        "That is the rest of its row: right for one scale per row. Here a row has four groups.":
            lambda: 127,
        "You counted the whole row; here a row of 128 has four groups of 32.": lambda: 128,
        "That is the rest of the matrix: right for one scale per tensor.": lambda: 512 * 128 - 1,
        "A step is shared: the neighbours in the group are rounded on the coarser grid as well.":
            lambda: 0,
        "That is the number of groups in a row; the question asks for weights.": lambda: 4,
    })
def weights_at_risk():
    """The other members of the group of 32."""
    return 32 - 1


@exercise(
    "12.2", tests="share of fp32 for 2 to 8 bits, three group sizes, with and without zero point",
    hints=("A group costs its codes, one scale and perhaps one zero point. Divide by g weights.",
           "Extras of a group: scale_bits, and n_bits more if the grid is affine. A weight pays "
           "its own code and 1 / g of them; fp32 pays 32 bits."),
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
        "You gave a symmetric grid zero points too; its zero point is 0 and is not stored.":
            lambda b, g, s, affine: (b + (s + b) / g) / 32,
        "A zero point is a code: it has n_bits bits, not as many as a scale.":
            lambda b, g, s, affine: (b + (s + (s if affine else 0)) / g) / 32,
        "That is in percent; the question asks for a share, which is at most about 1.":
            lambda b, g, s, affine: 100 * (b + (s + (b if affine else 0)) / g) / 32,
        "That is the share that is saved; the question asks for the share that is left.":
            lambda b, g, s, affine: 1 - (b + (s + (b if affine else 0)) / g) / 32,
        "That is how many times smaller the file is; the share is one over that.":
            lambda b, g, s, affine: 32 / (b + (s + (b if affine else 0)) / g),
        "The extras of a group are shared by its g weights; you multiplied by g.":
            lambda b, g, s, affine: (b + (s + (b if affine else 0)) * g) / 32,
        "Bits and bytes are mixed: fp32 has 32 bits, or 4 bytes.":
            lambda b, g, s, affine: (b + (s + (b if affine else 0)) / g) / 4,
    })
def share_of_fp32(n_bits, group_size, scale_bits, affine):
    """Bits per weight with scale and zero point shared by a group, over 32."""
    per_group = scale_bits + (n_bits if affine else 0)
    return (n_bits + per_group / group_size) / 32


def _squared(w, back):
    return (back - w).square().mean()


def _search(w, n_bits, fractions, error=_squared, low=None, high=None, largest=None, m=None,
            rounding=torch.round):
    """Errors of all fractions; each option is one slip."""
    half = 2 ** (n_bits - 1)
    low, high = -half if low is None else low, half - 1 if high is None else high
    errors = []
    for c in fractions:
        scale = c * (w.abs().max() if largest is None else largest) / (m or half - 1)
        back = rounding(w / scale).clamp(low, high) * scale
        errors.append(float(error(w, back)))
    return errors


def _least(w, n_bits, fractions, **slip):
    errors = _search(w, n_bits, fractions, **slip)
    return fractions[errors.index(min(errors))]


def _wide_step(w, n_bits, fractions):
    m = 2 ** (n_bits - 1) - 1
    scale, errors = w.abs().max() / m, []
    for c in fractions:
        codes = (w.clamp(-c * w.abs().max(), c * w.abs().max()) / scale).round()
        errors.append((codes * scale - w).square().mean().item())
    return fractions[errors.index(min(errors))]


def _tails(seed: int, n: int, dof: float) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_t(dof, n))


def _even(seed: int, n: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, n))


def _lean(seed: int, n: int) -> torch.Tensor:
    return torch.from_numpy(1 - np.random.default_rng(seed).gamma(2, 1, n))


def _clip_in_place(w, n_bits, fractions):
    best = best_clip(w, n_bits, fractions)
    w.clamp_(-best * w.abs().max(), best * w.abs().max())
    return best


@exercise(
    "12.3", tests="the best fraction for heavy-tailed, even and lopsided weights, at 2 to 4 bits",
    hints=("For each c: make the scale, round, clip the codes, measure the error of all weights.",
           "The largest weight is the largest without its sign. clamp(low, high) clips codes to "
           "the ends that the docstring names. Compare codes · s with w, then take the best c."),
    cases=((_tails(1, 4000, 4), 4, [0.02, *np.linspace(0.1, 1, 26)]),
           (_tails(2, 2000, 6), 3, [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]),
           (_even(3, 500), 2, [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]),
           (_lean(7, 1500), 3, [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])),
    wrong={
        "The finest step seems best to you: clip the codes, and count the clipped weights' errors.":
            lambda w, b, cs: _least(w, b, cs, low=-1e9, high=1e9),
        "You clipped the weights but kept the wide step; c must make the step finer.": _wide_step,
        "You returned the place in the list; the question asks for the fraction that stands there.":
            lambda w, b, cs: int(np.argmin(_search(w, b, cs))),
        "You returned the least error; the question asks for the fraction that reaches it.":
            lambda w, b, cs: min(_search(w, b, cs)),
        "You took the mean absolute error; squaring makes the few clipped weights count more.":
            lambda w, b, cs: _least(w, b, cs, error=lambda w, back: (back - w).abs().mean()),
        "Your codes stop at -m; the lowest code is -2**(n_bits-1), one further.":
            lambda w, b, cs: _least(w, b, cs, low=1 - 2 ** (b - 1)),
        "Your codes go up to 2**(n_bits-1), one code more than n_bits bits can hold.":
            lambda w, b, cs: _least(w, b, cs, high=2 ** (b - 1)),
        "Your codes start at 0; here they have a sign, from -2**(n_bits-1) on.":
            lambda w, b, cs: _least(w, b, cs, low=0, high=2**b - 1),
        "You took the largest weight with its sign; the formula says max |w|.":
            lambda w, b, cs: _least(w, b, cs, largest=w.max()),
        "Your m is 2**n_bits - 1; a symmetric grid has 2**(n_bits-1) - 1 levels above zero.":
            lambda w, b, cs: _least(w, b, cs, m=2**b - 1),
        "Your m is 2**(n_bits-1); there is one level less above zero: 2**(n_bits-1) - 1.":
            lambda w, b, cs: _least(w, b, cs, m=2 ** (b - 1)),
        "You cut the fraction off; a code is the nearest integer: round.":
            lambda w, b, cs: _least(w, b, cs, rounding=torch.trunc),
        "You looked at the largest error alone; the question asks for the mean of the squares.":
            lambda w, b, cs: _least(w, b, cs, error=lambda w, back: (back - w).abs().max()),
        "Errors of opposite sign cancel in your mean: square them first.":
            lambda w, b, cs: _least(w, b, cs, error=lambda w, back: (back - w).mean().abs()),
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
           "Two terms hold r: 2 change · rᵀH[1:, 0], and one quadratic in r. Their derivative is "
           "linear in r; np.linalg.solve(A, b) solves A r = b."),
    cases=((_hessian(1, 2), 0.3), (_hessian(2, 4), -0.2), (_hessian(3, 8), 1.0),
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
        "Half of it: δ₁ and r meet twice in δᵀHδ, in row 1 and in column 1. Count both.":
            lambda H, change: -change / 2 * np.linalg.solve(H[1:, 1:], H[1:, 0]),
        "Twice too much: the derivative of the quadratic part has a factor 2 as well.":
            lambda H, change: -2 * change * np.linalg.solve(H[1:, 1:], H[1:, 0]),
        "You left `change` out: half the change needs half the moves.":
            lambda H, change: -np.linalg.solve(H[1:, 1:], H[1:, 0]),
        "You divided by H's first entry; that one belongs to the weight that is fixed.":
            lambda H, change: -change * H[1:, 0] / H[0, 0],
        "You returned a column, (d − 1, 1); the docstring asks for (d − 1,).":
            lambda H, change: -change * np.linalg.solve(H[1:, 1:], H[1:, :1]),
        "You spread the change evenly; H says which weights see nearly the same input.":
            lambda H, change: np.full(len(H) - 1, -change / (len(H) - 1)),
        IN_PLACE: _solve_in_place,
    })
def make_up(H, change):
    """Zero derivative in the rest r of δ: H[1:, 1:] r = −H[1:, 0] · change."""
    return -change * np.linalg.solve(H[1:, 1:], H[1:, 0])
