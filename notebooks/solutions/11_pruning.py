"""Solutions of chapter 11, each with its cases and the mistakes that are known."""

import numpy as np

from helpers.exercises import IN_PLACE, exercise


@exercise(
    "11.1",
    tests="the density at which both take the same number of bytes",
    hints=("Find the crossing of the int32 curve with the black line, and read the density below.",
           "Four bytes for each weight of the dense matrix; how many for each kept weight in CSR?"),
    cases=((),),
    wrong={
        "A single zero saves nothing: each kept weight costs its column too.": lambda: 1.0,
        "That is the crossing of the other curve, with one or two bytes for each column.":
            lambda: 0.745,
        "A kept weight costs 4 + 4 bytes instead of 4: twice as much, not four times.":
            lambda: 0.25,
        "A tenth is where a sparse kernel may begin to be fast. Bytes pay much earlier.":
            lambda: 0.1,
        "With eight bytes for each column (int64) it would be that; int32 takes four.":
            lambda: 1 / 3,
        "With one byte for each column it would be that; int32 takes four.": lambda: 0.8,
        "That is the other curve's height at density 0.5. The density is asked where a curve is 1.":
            lambda: 0.673,
        "That is the curve's height at density 1. The density is asked where the height is 1.":
            lambda: 2.0,
        "A density is a share between 0 and 1, not per cent.": lambda: 49.0,
    },
    rtol=0.04,
)
def break_even_density():
    """The density (0 … 1) at which CSR with int32 columns takes as many bytes as dense."""
    n, rows = 4 * 12 * 128**2, 4 * (3 * 128 + 128 + 4 * 128 + 128)  # weights, rows of the blocks
    return (4 * n - 4 * rows) / ((4 + 4) * n)  # dense bytes = value, column, and row starts


def _sparse(seed, shape, density):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape) * (rng.random(shape) < density)


@exercise(
    "11.2",
    tests="four arrays, one of a size that is no multiple of 8, one without a zero, one all zeros",
    hints=("How many bits does the bitmap have: one for each weight, or for each non-zero weight?",
           "Bytes of n bits: n divided by 8, rounded up. The values come on top, 4 bytes each."),
    cases=((_sparse(0, (5, 7), 0.4),), (_sparse(1, (16, 8), 0.5),), (_sparse(2, (3, 3), 2),),
           (np.zeros((4, 9)),)),
    wrong={
        "A bit, not a byte, says whether a weight is there: divide by 8.":
            lambda w: 4 * np.count_nonzero(w) + w.size,
        "The last byte counts even if it is part empty: round up.":
            lambda w: 4 * np.count_nonzero(w) + w.size // 8,
        "The bitmap needs a bit for each weight, zero or not, to say where the zeros are.":
            lambda w: 4 * np.count_nonzero(w) + -(-np.count_nonzero(w) // 8),
        "Values count as float32, four bytes each, whatever the dtype of w (.nbytes says eight).":
            lambda w: w[w != 0].nbytes + -(-w.size // 8),
        "Those are bits; eight of them make a byte.": lambda w: 32 * np.count_nonzero(w) + w.size,
        "One bitmap for the whole array: only its last byte may be part empty, not each row's.":
            lambda w: 4 * np.count_nonzero(w) + np.packbits(w != 0, axis=1).nbytes,
        "There are whole bytes only: round the bitmap up.":
            lambda w: 4 * np.count_nonzero(w) + w.size / 8,
        "One byte too many where the bits fill whole bytes: round up, do not always add 1.":
            lambda w: 4 * np.count_nonzero(w) + w.size // 8 + 1,
        "len(w) counts the rows; w.size counts the weights.":
            lambda w: 4 * np.count_nonzero(w) + -(-len(w) // 8),
        "Negative weights are weights too: count w != 0, not w > 0.":
            lambda w: 4 * np.count_nonzero(w > 0) + -(-w.size // 8),
        "The bytes are asked, not their share of the dense bytes.":
            lambda w: (4 * np.count_nonzero(w) + -(-w.size // 8)) / (4 * w.size),
        "Only the non-zero values are stored: these are the bytes with all of them.":
            lambda w: 4 * w.size + -(-w.size // 8),
        "Those are the values alone. The bitmap comes on top.":
            lambda w: 4 * np.count_nonzero(w),
        "That is the bitmap alone. The values come on top, four bytes each.":
            lambda w: -(-w.size // 8),
        "That counts the zeros; the weights that are *not* zero are stored.":
            lambda w: 4 * np.count_nonzero(w == 0) + -(-w.size // 8),
    },
)
def bitmap_bytes(w):
    """Bytes of w as a bitmap and values: one bit per weight, four bytes per non-zero weight."""
    return 4 * np.count_nonzero(w) + -(-w.size // 8)


def _by_magnitude(w, budget):
    sizes = np.sort(np.abs(w), axis=None)
    return np.mean(np.cumsum(sizes) <= budget * sizes.sum())


def _largest_first(w, budget):
    energy = np.sort(w**2, axis=None)[::-1]
    return np.mean(np.cumsum(energy) <= budget * energy.sum())


def _not_a_share(w, budget):
    return np.mean(np.cumsum(np.sort(w**2, axis=None)) <= budget)


def _one_too_many(w, budget):
    energy = np.sort(w**2, axis=None)
    removed = np.cumsum(energy) - energy < budget * energy.sum()
    return np.mean(removed)


def _unsorted(w, budget):
    energy = w.ravel() ** 2
    return np.mean(np.cumsum(energy) <= budget * energy.sum())


def _signed(w, budget):
    energy = np.sort(w, axis=None) ** 2
    return np.mean(np.cumsum(energy) <= budget * energy.sum())


def _sorted_in_place(w, budget):
    w *= w
    flat = w.ravel()
    flat.sort()
    return np.mean(np.cumsum(flat) <= budget * flat.sum())


def _weights(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


@exercise(
    "11.3",
    tests="five arrays (Gaussian, heavy-tailed, all weights equal), and a budget met exactly",
    hints=("In which order does magnitude pruning remove weights, and what does each cost?",
           "Sort all w² and take the cumulative sum. Its k-th entry is what the k smallest cost."),
    cases=((_weights(0, 20, 30), 0.3), (_weights(1, 50), 0.5), (_weights(2, 8, 8) ** 3, 0.01),
           (0.01 * _weights(3, 40, 5), 0.2), (np.ones((2, 4)), 0.5)),
    wrong={
        "Energy is the sum of squares; that budget counts magnitudes.": _by_magnitude,
        "The largest weights go first here: magnitude pruning starts with the smallest.":
            _largest_first,
        "The budget is a share of Σ w², not an amount.": _not_a_share,
        "Off by one: the weight that crosses the budget must stay.": _one_too_many,
        "Sort first: weights go in the order of their size, not of their place.": _unsorted,
        "Sort by size, not by sign: large negative weights came first.": _signed,
        "At most: a weight that meets the budget exactly goes too.":
            lambda w, budget: np.mean(np.cumsum(np.sort(w**2, axis=None)) < budget * np.sum(w**2)),
        "One too few: the last weight that still fits the budget goes too.":
            lambda w, budget: sparsity_for_budget(w, budget) - 1 / w.size,
        "A share between 0 and 1 is asked, not per cent.":
            lambda w, budget: 100 * sparsity_for_budget(w, budget),
        "Divide by the number of weights, w.size; len(w) counts the rows.":
            lambda w, budget: w.size * sparsity_for_budget(w, budget) / len(w),
        "That counts weights, not energy: the small ones cost less than their share.":
            lambda w, budget: np.mean(w**2 <= np.quantile(w**2, budget)),
        "Add up squares on both sides; here magnitudes are held against a sum of squares.":
            lambda w, budget: np.mean(np.cumsum(np.sort(np.abs(w), axis=None))
                                      <= budget * np.sum(w**2)),
        "That compares each weight with the budget alone; add up what goes, from the smallest.":
            lambda w, budget: np.mean(w**2 <= budget * np.sum(w**2)),
        "That compares each weight with the largest one; the budget is a share of the sum.":
            lambda w, budget: np.mean(np.abs(w) <= budget * np.abs(w).max()),
        "The budget is what may go; here it is what must stay.":
            lambda w, budget: sparsity_for_budget(w, 1 - budget),
        "That is the density; the sparsity is asked.":
            lambda w, budget: 1 - sparsity_for_budget(w, budget),
        "That is a count; divide by the number of weights.":
            lambda w, budget: w.size * sparsity_for_budget(w, budget),
        "The cube law is for evenly spread weights; here take the weights themselves.":
            lambda w, budget: budget ** (1 / 3),
        "np.sort(w**2, axis=0) sorts each column by itself; sort all together, with axis=None.":
            lambda w, budget: np.mean(np.cumsum(np.sort(w**2, axis=0)) <= budget * np.sum(w**2)),
        "np.sort(w**2) sorts each row by itself; sort all weights together, with axis=None.":
            lambda w, budget: np.mean(np.cumsum(np.sort(w**2)) <= budget * np.sum(w**2)),
        IN_PLACE: _sorted_in_place,
    },
)
def sparsity_for_budget(w, budget):
    """Largest sparsity at which magnitude pruning removes at most `budget` of Σ w².

    w: array of any shape; budget: 0 … 1 → number of removed weights / number of weights.
    """
    energy = np.sort(w**2, axis=None)
    return np.mean(np.cumsum(energy) <= budget * energy.sum())


def _only_zero(w, X, j):
    return np.where(np.arange(len(w)) == j, 0, w)


def _wrong_sign(w, X, j):
    inverse = np.linalg.inv(X.T @ X)
    return w + w[j] / inverse[j, j] * inverse[:, j]


def _hessian_itself(w, X, j):
    H = X.T @ X
    return w - w[j] / H[j, j] * H[:, j]


def _not_divided(w, X, j):
    inverse = np.linalg.inv(X.T @ X)
    return w - w[j] * inverse[:, j]


def _only_the_change(w, X, j):
    others = np.delete(np.arange(len(w)), j)
    out = -w
    out[others] = np.linalg.lstsq(X[:, others], X @ w, rcond=None)[0] - w[others]
    return out


def _as_regression(w, X, j, sign=1):
    """w with the others refitted; sign −1: they move the wrong way."""
    others, out = np.delete(np.arange(len(w)), j), np.where(np.arange(len(w)) == j, 0, w)
    out[others] += sign * np.linalg.lstsq(X[:, others], X[:, j] * w[j], rcond=None)[0]
    return out


def _whole_diagonal(w, X, j):
    inverse = np.linalg.inv(X.T @ X)
    return w - w[j] / np.diag(inverse) * inverse[:, j]


def _entrywise(w, X, j):
    H = X.T @ X
    return w - w[j] * H[j, j] / H[:, j]


def _times_hessian(w, X, j):
    H = X.T @ X
    return w - w[j] * H[j, j] * np.linalg.inv(H)[:, j]


def _compensated_in_place(w, X, j):
    inverse = np.linalg.inv(X.T @ X)
    w -= w[j] / inverse[j, j] * inverse[:, j]
    return w


def _neuron(seed, n, p):
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((n, p)) @ rng.standard_normal((p, p))  # correlated inputs
    return rng.standard_normal(p), mixed


@exercise(
    "11.4",
    tests="four neurons with correlated inputs; w[j] is 0 and the outputs are closest",
    hints=("Set the derivative of δᵀHδ + 2λ(w_j + δ_j) to zero: δ = −λ H⁻¹ u, with u the unit "
           "vector of j.",
           "Row j says δ_j = −λ [H⁻¹]_jj, and the constraint says δ_j = −w_j: that gives λ."),
    cases=((*_neuron(0, 30, 4), 0), (*_neuron(1, 50, 6), 3), (*_neuron(2, 20, 3), 2),
           (*_neuron(3, 80, 8), 5)),
    wrong={
        "w[j] is gone, but the other weights have not moved.": _only_zero,
        "The sign is wrong: w[j] has doubled instead of vanishing.": _wrong_sign,
        "Solve H δ ∝ u: the column of the *inverse* of H is needed, not of H.": _hessian_itself,
        "The constraint fixes the length of the step: divide by the j-th diagonal of the inverse.":
            _not_divided,
        "That is the change δ of the others; return the new weights w + δ.": _only_the_change,
        "Return p weights, with 0 at place j; these are only the others.":
            lambda w, X, j: np.delete(_as_regression(w, X, j), j),
        "w[j] must be 0 at the end; here only the others have moved.":
            lambda w, X, j: _as_regression(w, X, j) + w[j] * np.eye(len(w))[j],
        "The others move the wrong way: they must take over what w[j] did, not double the gap.":
            lambda w, X, j: _as_regression(w, X, j, sign=-1),
        "That is w itself: nothing has changed.": lambda w, X, j: w.copy(),
        "That is half the step: with λ from the constraint, w[j] becomes 0.":
            lambda w, X, j: (w + remove_and_compensate(w, X, j)) / 2,
        "Divide by one number, the j-th entry of the diagonal, not by the whole diagonal.":
            _whole_diagonal,
        "H⁻¹ is the inverse of the matrix, not one over each entry.": _entrywise,
        "1 / [H⁻¹]_jj is not H_jj: take the entry of the inverse.": _times_hessian,
        IN_PLACE: _compensated_in_place,
    },
)
def remove_and_compensate(w, X, j):
    """Weights with w[j] = 0 whose outputs on X differ least from those of w.

    w: (p,); X: (n, p) of rank p; j: index → new array (p,).
    """
    inverse = np.linalg.inv(X.T @ X)
    return w - w[j] / inverse[j, j] * inverse[:, j]
