"""Under `helpers.fits`: the objective of L(N, D), its grid, and Newton's method."""

import numpy as np

from helpers.foundations.accepts import accepts, need, same_length, same_shape
from helpers.foundations.rules import a as instance
from helpers.foundations.rules import anything, integer, reals
from helpers.scaling.checks import COLUMN, DELTA, FIVE, LINE, NUMBERS, REALS, groups_of

# Of the Hessian's sums, and of the monomials 1, −x, x², −y, y², xy, which one each entry needs
TERMS = np.array([[0, 3, 4, 0, 3], [3, 1, 5, 3, 1], [4, 5, 2, 4, 5], [0, 3, 4, 0, 3],
                  [3, 1, 5, 3, 1]])
POWERS = np.array([[0, 0, 0, 1, 3], [0, 0, 0, 1, 3], [0, 0, 0, 1, 3], [1, 1, 1, 2, 5],
                   [3, 3, 3, 5, 4]])


@accepts(residual=NUMBERS, delta=DELTA)
def huber(residual, delta):
    """Huber loss: quadratic up to `delta`, linear beyond, so that a stray run pulls less."""
    size = np.abs(residual)
    return np.where(size <= delta, size**2 / 2, delta * (size - delta / 2))


@accepts(p=NUMBERS, N=COLUMN, D=COLUMN, loss=COLUMN, delta=DELTA, weights=reals((0, 1), 0),
         needs=(same_length("N", "D", "loss"), need(lambda p: p.shape == (5,), "five parameters")))
def objective(p, N, D, loss, delta=1e-3, weights=1.0):
    """Sum of weighted Huber losses of log L, and its gradient, shape (5,).

    p = (log A, log B, log E, α, β); N, D, loss (n,). Hoffmann et al. 2022, eq. 3.
    """
    a, b, e, alpha, beta = p
    log_N, log_D = np.log(N), np.log(D)
    terms = np.exp([a - alpha * log_N, b - beta * log_D, e + 0 * log_N])
    residual = np.log(terms.sum(0)) - np.log(loss)
    share = terms / terms.sum(0)  # how much of the loss each term makes up
    along = [*share, -share[0] * log_N, -share[1] * log_D]  # d log L / dp
    slope = weights * np.clip(residual, -delta, delta)  # derivative of the Huber loss
    return (weights * huber(residual, delta)).sum(), np.array(along) @ slope


@accepts(alpha=REALS, beta=REALS, N=COLUMN, D=COLUMN, loss=COLUMN,
         needs=(same_length("N", "D", "loss"), same_shape("alpha", "beta")))
def project(alpha, beta, N, D, loss):
    """(E, A, B) of least squared relative error for given α and β, and that error's sum.

    α, β of any one shape (...); N, D, loss (n,) → (..., 3), (...). Negative amounts become 0.
    """
    alpha, beta = np.asarray(alpha)[..., None], np.asarray(beta)[..., None]
    terms = np.stack([N ** (0 * alpha), N**-alpha, D**-beta], axis=-1) / loss[:, None]
    scale = np.sqrt((terms**2).sum(-2, keepdims=True))
    unit = terms / scale
    gram = np.swapaxes(unit, -1, -2) @ unit + 1e-9 * np.eye(3)
    amounts = np.linalg.solve(gram, unit.sum(-2)[..., None]) / np.swapaxes(scale, -1, -2)
    amounts = np.maximum(amounts, 0)
    return amounts[..., 0], ((terms @ amounts - 1) ** 2).sum((-1, -2))


@accepts(N=COLUMN, D=COLUMN, loss=COLUMN, n_cells=integer(1, 24), n_best=integer(1),
         needs=same_length("N", "D", "loss"))
def starts(N, D, loss, n_cells: int = 3, n_best: int = 6) -> np.ndarray:
    """Starts (log A, log B, log E, α, β), (n_best, 5), from a 24 × 24 grid over α and β.

    The grid's best point in each of n_cells² equal cells; of these the n_best best.
    """
    side = np.linspace(0.05, 2, 24)
    alpha, beta = (g.ravel() for g in np.meshgrid(side, side))
    amounts, misfit = project(alpha, beta, N, D, loss)
    cell = (np.arange(576) // 24 * n_cells // 24) * n_cells + np.arange(576) % 24 * n_cells // 24
    order = np.argsort(misfit)
    best = order[np.sort(np.unique(cell[order], return_index=True)[1])][:n_best]
    amounts = np.log(np.maximum(amounts, 1e-6 * loss.mean()))
    return np.column_stack([amounts[best][:, [1, 2, 0]], alpha[best], beta[best]])


@accepts(p=reals(2), counts=reals(2, 0), x=LINE, y=LINE, log_loss=reals((1, 2)), delta=DELTA,
         n_steps=integer(1), needs=same_length("p", "counts"))
def newton(p, counts, x, y, log_loss, delta, n_steps: int = 2000):
    """Damped Newton on m problems at once, with exact gradient and Hessian.

    p (m, 5) as in `objective`, for the centred logs x and y of N and D (n,); counts (m, n) are
    weights times multiplicities; log_loss (n,) or (m, n). Returns p, objective (m,), and the
    gradient's largest component (m,) over the largest it could be (a δ above 1 counts as 1).

    Where the runs want E below 0, log E falls until its gradient vanishes: E is 0 in effect.
    """
    monomials = np.stack([x**0, -x, x * x, -y, y * y, x * y], axis=1)

    def value(p, counts, log_loss):  # objective, shares of the terms (3, m, n), residual, its clip
        terms = np.empty((3, *counts.shape))
        terms[0], terms[1] = p[:, :1] - p[:, 3:4] * x, p[:, 1:2] - p[:, 4:5] * y
        terms[2] = p[:, 2:3]
        total = np.exp(terms, out=terms).sum(0)
        residual = np.log(total) - log_loss
        slope = np.clip(residual, -delta, delta)
        f = np.einsum("mn,mn,mn->m", counts, slope, residual - slope / 2)  # Huber's loss
        return f, np.divide(terms, total, out=terms), residual, slope

    p, norm, live = p.copy(), np.full(len(p), np.inf), np.arange(len(p))
    log_loss, at, damping = np.broadcast_to(log_loss, counts.shape), p, np.full(len(p), 1e-3)
    state, least = value(at, counts, log_loss), np.empty(len(p))
    for _ in range(n_steps):
        least[live], p[live] = state[0], at
        share, residual, slope = state[1], state[2], counts * state[3]
        pull = slope * share
        sums = pull @ monomials[:, [0, 1, 3]]
        gradient = np.stack([*sums[..., 0], sums[0, :, 1], sums[1, :, 2]], axis=1)
        norm[live] = np.abs(gradient).max(1) / (min(delta, 1) * counts.sum(1))
        go = (norm[live] > 1e-9) & (damping < 1e5)
        if not go.any():
            break
        outer = (counts * (np.abs(residual) <= delta) - slope) * share
        sums = np.concatenate([outer * share + pull, outer[[0, 0, 1]] * share[[1, 2, 2]]])
        H = np.moveaxis((sums @ monomials)[TERMS, :, POWERS], -1, 0)
        if not go.all():  # carry on with the others
            live, at, counts, log_loss, damping, H, gradient = (
                v[go] for v in (live, at, counts, log_loss, damping, H, gradient))
            state = tuple(v[..., go, :] if v.ndim > 1 else v[go] for v in state)
        trial = at - np.clip(descent(H, gradient, damping), -1, 1)
        trial[:, 3:] = np.clip(trial[:, 3:], -9, 9)  # far beyond any law; keeps exp finite
        new = value(trial, counts, log_loss)
        better = new[0] <= state[0]
        damping = np.clip(damping * np.where(better, 0.1, 10), 1e-14, 1e6)
        at = np.where(better[:, None], trial, at)
        if better.all():
            state = new
        else:
            state = tuple(np.where(better[:, None] if v.ndim > 1 else better, v, old)
                          for v, old in zip(new, state, strict=True))
    return p, least, norm


@accepts(H=NUMBERS, gradient=NUMBERS, damping=NUMBERS,
         needs=same_length("H", "gradient", "damping"))
def descent(H, gradient, damping):
    """Damped Newton steps (m, 5), downhill also where H (m, 5, 5) is bent the wrong way."""
    size = np.trace(np.abs(H), axis1=1, axis2=2)
    table = np.concatenate([H, gradient[..., None]], axis=2)
    table[:, range(5), range(5)] += (damping * size)[:, None]
    good = np.ones(len(H), dtype=bool)
    for j in range(5):  # Gauss–Jordan: every pivot of a positive definite H is positive
        good &= table[:, j, j] > 1e-15 * size
        row = table[:, j] / np.where(good, table[:, j, j], 1)[:, None]
        table -= table[:, :, j, None] * row[:, None]
        table[:, j] = row
    step = table[..., 5]
    if not good.all():
        values, vectors = np.linalg.eigh(H[~good])
        bent = np.abs(values) + damping[~good, None] * np.abs(values).max(1, keepdims=True)
        step[~good] = np.einsum("mij,mj,mkj,mk->mi", vectors, 1 / bent, vectors, gradient[~good])
    return step


@accepts(p=reals(2), counts=reals(2, 0), x=LINE, y=LINE, log_loss=reals((1, 2)), delta=DELTA,
         size=integer(1), needs=same_length("p", "counts"))
def in_blocks(p, counts, x, y, log_loss, delta, size: int = 20_000):
    """`newton` over blocks of problems, so that memory and cache do not grow with their number."""
    blocks = np.array_split(np.arange(len(p)), -(-counts.size // size))
    shared = np.ndim(log_loss) == 1
    found = [newton(p[i], counts[i], x, y, log_loss if shared else log_loss[i], delta)
             for i in blocks]
    return [np.concatenate(part) for part in zip(*found, strict=True)]


@accepts(n=integer(1), n_resamples=integer(1), rng=instance(np.random.Generator), groups=anything)
def draw(n: int, n_resamples: int, rng, groups=None) -> np.ndarray:
    """Multiplicities (n_resamples, n) of runs, or of whole groups, drawn with replacement."""
    index = groups_of(np.arange(n) if groups is None else groups, n, 6)
    n_groups = index.max() + 1
    return rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), n_resamples)[:, index] * 1.0


@accepts(start=FIVE, others=reals((2,)), counts=reals(2, 0), x=LINE, y=LINE, log_loss=LINE,
         delta=DELTA, n_pilot=integer(1))
def refit(start, others, counts, x, y, log_loss, delta, n_pilot: int = 50):
    """Optima of m resamples of one set of runs, from more starts than one where that changes any.

    All go from `start` (5,). The first `n_pilot` also go from each of `others` (k, 5); those of
    them that lead any resample lower are then tried on all. Returns what `newton` does.
    """
    def tried(p, some):
        return in_blocks(np.tile(p, (len(some), 1)), some, x, y, log_loss, delta)

    def lower(new, old):  # by more than rounding
        better = new[1] < old[1] * (1 - 1e-6) - 1e-9 * min(delta, 1) ** 2
        return (new[2] <= 1e-6) & (better | (old[2] > 1e-6))

    best = tried(start, counts)
    first = [part[:n_pilot] for part in best]
    for p in others:
        pilot = np.tile(p, (len(first[0]), 1))
        if lower(newton(pilot, counts[:n_pilot], x, y, log_loss, delta, 200), first).any():
            new = tried(p, counts)
            better = lower(new, best)
            best = [np.where(better[:, None] if v.ndim > 1 else better, v, old)
                    for v, old in zip(new, best, strict=True)]
    return best
