"""Under `helpers.fits`: checked columns, the objective of L(N, D), its grid and Newton's method."""

import numpy as np

LEAST, MOST = 1e-5, 1e8  # tokens per parameter of a run; beyond, a column is in the wrong unit
GAP = 1e6  # between neighbouring values of one column; wider, two units are mixed
EXPONENTS = (0.01, 3.0)  # α and β outside are at the end of what runs can tell apart
FLAT = 1e-12  # smallest eigenvalue of the scaled Hessian that counts as curved
LEAST_SHARE = 1e-6  # of a term in the loss of the run where it weighs most; below, it is absent
# Of the Hessian's sums, and of the monomials 1, −x, x², −y, y², xy, which one each entry needs
TERMS = np.array([[0, 3, 4, 0, 3], [3, 1, 5, 3, 1], [4, 5, 2, 4, 5], [0, 3, 4, 0, 3],
                  [3, 1, 5, 3, 1]])
POWERS = np.array([[0, 0, 0, 1, 3], [0, 0, 0, 1, 3], [0, 0, 0, 1, 3], [1, 1, 1, 2, 5],
                   [3, 3, 3, 5, 4]])


def columns(least: int, **named) -> list[np.ndarray]:
    """Arrays of one length, positive and finite, at least `least` long; else ValueError."""
    arrays = {name: np.asarray(values, dtype=float).ravel() for name, values in named.items()}
    if len({len(a) for a in arrays.values()}) > 1:
        raise ValueError(f"{', '.join(arrays)} differ in length: "
                         f"{', '.join(str(len(a)) for a in arrays.values())}")
    for name, a in arrays.items():
        if not (np.isfinite(a) & (a > 0)).all():
            raise ValueError(f"{name} holds values that are not positive and finite")
        if len(a) < least:
            raise ValueError(f"{len(a)} points are too few: expected at least {least}")
    return list(arrays.values())


def runs(N, D, loss, least: int = 6) -> list[np.ndarray]:
    """Checked columns of runs: N parameters, D tokens, loss in nats per token, each (n,).

    Raises ValueError for bad columns, fewer than three values of N or D, and units that cannot be
    meant: values below 1, a gap of 10⁶ within a column, 10⁸ tokens per parameter, a loss above 100.
    """
    N, D, loss = columns(least, N=N, D=D, loss=loss)
    for name, what, a in (("N", "parameters", N), ("D", "tokens", D)):
        if len(np.unique(a)) < 3:
            raise ValueError(f"{len(np.unique(a))} different values of {name}: expected at least 3")
        if a.min() < 1:
            raise ValueError(f"{name} = {a.min():g} is below 1: {name} counts {what}, not millions "
                             "or billions of them")
        a = np.sort(a)
        i = np.argmax(a[1:] / a[:-1])
        if a[i + 1] / a[i] >= GAP:
            raise ValueError(f"{name} jumps from {a[i]:g} to {a[i + 1]:g}: are some values in "
                             f"millions or billions of {what}?")
    i = np.argmax(np.abs(np.log(D / N)))
    if not LEAST < D[i] / N[i] < MOST:
        raise ValueError(f"N = {N[i]:g} with D = {D[i]:g} is {D[i] / N[i]:.1g} tokens per "
                         "parameter: is one of them in millions or billions?")
    if loss.max() > 100:
        raise ValueError(f"loss = {loss.max():g} is no loss in nats per token")
    return [N, D, loss]


def weights_of(weights, n: int) -> np.ndarray:
    """Weights (n,), ones by default; ValueError unless they are positive and finite."""
    weights = np.ones(n) if weights is None else np.asarray(weights, dtype=float).ravel()
    if len(weights) != n or not (np.isfinite(weights) & (weights > 0)).all():
        raise ValueError(f"weights: expected {n} positive and finite values")
    return weights


def huber(residual, delta):
    """Huber loss: quadratic up to `delta`, linear beyond, so that a stray run pulls less."""
    size = np.abs(residual)
    return np.where(size <= delta, size**2 / 2, delta * (size - delta / 2))


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


def newton(p, counts, x, y, log_loss, delta, n_steps: int = 2000):
    """Damped Newton on m problems at once, with exact gradient and Hessian.

    p (m, 5) as in `objective`, for the centred logs x and y of N and D (n,); counts (m, n) are
    weights times multiplicities; log_loss (n,) or (m, n). Returns p, objective (m,), and the
    gradient's largest component (m,) over the largest it could be.

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
        norm[live] = np.abs(gradient).max(1) / (delta * counts.sum(1))
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


def in_blocks(p, counts, x, y, log_loss, delta, size: int = 20_000):
    """`newton` over blocks of problems, so that memory and cache do not grow with their number."""
    blocks = np.array_split(np.arange(len(p)), -(-counts.size // size))
    shared = np.ndim(log_loss) == 1
    found = [newton(p[i], counts[i], x, y, log_loss if shared else log_loss[i], delta)
             for i in blocks]
    return [np.concatenate(part) for part in zip(*found, strict=True)]


def draw(n: int, n_resamples: int, rng, groups=None) -> np.ndarray:
    """Multiplicities (n_resamples, n) of runs, or of whole groups, drawn with replacement."""
    index = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    if len(index) != n or (n_groups := index.max() + 1) < 6:
        raise ValueError(f"groups: expected {n} labels, at least 6 of them different")
    return rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), n_resamples)[:, index] * 1.0


def refuse_flat(p, n, d, loss, weights) -> None:
    """ValueError that names the parameter which the runs do not fix, at the optimum p.

    n and d (m,) are N and D over their geometric means. Flat means: a term that no run feels, an
    exponent outside 0.01 … 3 or within two standard errors of 0, a Hessian that has no inverse.
    """
    cures = ("a wider range of N at large D", "a wider range of D at large N",
             "runs nearer the floor, with more N and more D")
    E, alpha, beta = np.exp(p[2]), p[3], p[4]
    terms = np.array([np.exp(p[0]) * n**-alpha, np.exp(p[1]) * d**-beta, E * n**0])
    share, residual = terms / terms.sum(0), np.log(terms.sum(0) / loss)
    if min(alpha, beta) <= 0:
        raise ValueError(f"alpha = {alpha:.3g}, beta = {beta:.3g}: in these runs the loss does not "
                         "fall with both N and D")
    J = np.array([*share, -share[0] * np.log(n), -share[1] * np.log(d)]).T
    scale = np.sqrt((weights[:, None] * J**2).sum(0)) + 1e-300
    values, vectors = np.linalg.eigh((J / scale).T @ (weights[:, None] * J / scale))
    spread = 1.86 * np.median(np.abs(residual)) * np.sqrt(weights.mean() / max(1 - 5 / len(n), 0.1))
    error = spread * np.sqrt((vectors**2 / np.maximum(values, 1e-300)).sum(1)) / scale
    for k, (name, value) in enumerate((("alpha", alpha), ("beta", beta), ("E", E))):
        gone = share[k].max() < LEAST_SHARE
        if k < 2 and (gone or not EXPONENTS[0] < value < EXPONENTS[1] or 2 * error[3 + k] > value):
            raise ValueError(f"{name} = {value:.3g} ± {2 * error[3 + k]:.2g}: these runs do not "
                             f"fix {name} and {'AB'[k]}; add {cures[k]}")
        if gone or (k == np.argmax(np.abs(vectors[:, 0])) % 3 and values[0] < FLAT):
            raise ValueError(f"{name} = {value:.2g}: these runs do not fix {name}; add {cures[k]}")
