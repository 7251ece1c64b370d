"""Scaling laws from runs: power law, L(N, D), bootstrap, allocation. numpy and scipy only."""

from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class PowerLaw:
    """y = scale · x^−exponent, with the exponent's 95 % interval and R² in log–log space."""

    scale: float
    exponent: float
    low: float
    high: float
    r2: float

    def predict(self, x):
        """y at x, in the units of the fitted y."""
        return self.scale * np.asarray(x, dtype=float) ** -self.exponent


def fit_power_law(x, y) -> PowerLaw:
    """Least squares of log y on log x; the interval is Student's t on the slope.

    Raises ValueError for fewer than three points, or values that are not positive and finite.
    """
    x, y = _columns(3, x=x, y=y)
    line = stats.linregress(np.log(x), np.log(y))
    half = line.stderr * stats.t.ppf(0.975, len(x) - 2)
    return PowerLaw(float(np.exp(line.intercept)), float(-line.slope), float(-line.slope - half),
                    float(-line.slope + half), float(line.rvalue**2))


def parametric_loss(N, D, E, A, B, alpha, beta):
    """L(N, D) = E + A/N^α + B/D^β in nats per token (Hoffmann et al. 2022, eq. 2)."""
    return E + A / N**alpha + B / D**beta


def huber(residual, delta):
    """Huber loss: quadratic up to `delta`, linear beyond, so that a stray run pulls less."""
    size = np.abs(residual)
    return np.where(size <= delta, size**2 / 2, delta * (size - delta / 2))


@dataclass(frozen=True)
class Parametric:
    """L(N, D) = E + A/N^α + B/D^β in nats per token, and the sum of Huber losses it reached."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float
    objective: float

    @property
    def exp_N(self) -> float:
        """a in N* ∝ C^a: β/(α+β)."""
        return self.beta / (self.alpha + self.beta)

    @property
    def exp_D(self) -> float:
        """b in D* ∝ C^b: α/(α+β)."""
        return self.alpha / (self.alpha + self.beta)

    def predict(self, N, D):
        """Loss in nats per token at N parameters and D tokens."""
        N, D = np.asarray(N, dtype=float), np.asarray(D, dtype=float)
        return parametric_loss(N, D, self.E, self.A, self.B, self.alpha, self.beta)

    def allocate(self, C):
        """(N*, D*) of least loss at C = 6ND training FLOPs (Hoffmann et al. 2022, eq. 4)."""
        G = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        N = G * (np.asarray(C, dtype=float) / 6) ** self.exp_N
        return N, np.asarray(C, dtype=float) / 6 / N


def fit_parametric(N, D, loss, delta: float = 1e-3) -> Parametric:
    """Fit L(N, D) by the Huber loss on log L, summed over runs (Hoffmann et al. 2022, eq. 3).

    N parameters, D tokens, loss in nats per token: arrays of one length. Starts come from a grid
    over α and β with E, A, B solved linearly; Newton's method refines the five best. Raises
    ValueError for bad input, if no start reaches an optimum (the data do not fix the law), or if
    the loss does not fall with both N and D.
    """
    N, D, loss = _runs(N, D, loss)
    x, y = _centred(N), _centred(D)
    starts = _grid(x, y, loss)
    found, f, converged = _newton(starts, np.ones((len(starts), len(N))), x, y, loss, delta)
    if not converged.any():
        raise ValueError("no optimum was found: these runs do not determine E, A, B, α and β")
    best = np.flatnonzero(converged)[np.argmin(f[converged])]
    if found[best, 3:].min() <= 0:
        raise ValueError(f"alpha = {found[best, 3]:.3g}, beta = {found[best, 4]:.3g}: in these "
                         "runs the loss does not fall with both N and D")
    return Parametric(*(float(v) for v in _natural(found[best], N, D)), float(f[best]))


@dataclass(frozen=True)
class Bootstrap:
    """Resampled parameters, arrays of shape (n_converged,); `n_resamples` were tried."""

    E: np.ndarray
    A: np.ndarray
    B: np.ndarray
    alpha: np.ndarray
    beta: np.ndarray
    n_resamples: int

    @property
    def exp_N(self) -> np.ndarray:
        """a in N* ∝ C^a of each resample."""
        return self.beta / (self.alpha + self.beta)

    def predict(self, N: float, D: float) -> np.ndarray:
        """Each resample's loss at one (N, D)."""
        return parametric_loss(N, D, self.E, self.A, self.B, self.alpha, self.beta)

    def interval(self, name: str, level: float = 0.95) -> tuple[float, float]:
        """Percentile interval of a parameter, or of `exp_N`."""
        low, high = np.quantile(getattr(self, name), [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)


def bootstrap_parametric(N, D, loss, n_resamples: int = 4000, seed: int = 0,
                         delta: float = 1e-3) -> Bootstrap:
    """Refit L(N, D) on runs drawn with replacement; resamples that reach no optimum are left out.

    Where the drawn runs want no floor at all, E comes out as 0.

    All resamples are refitted at once: each is a vector of multiplicities over the same runs.
    """
    N, D, loss = _runs(N, D, loss)
    x, y = _centred(N), _centred(D)
    point = fit_parametric(N, D, loss, delta)
    start = np.array([np.log(point.A) - point.alpha * np.log(N).mean(),
                      np.log(point.B) - point.beta * np.log(D).mean(),
                      np.log(point.E), point.alpha, point.beta])
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(N), np.full(len(N), 1 / len(N)), n_resamples).astype(float)
    kept = []
    for block in np.array_split(counts, -(-n_resamples // 500)):  # bounds the memory in use
        found, _, converged = _newton(np.tile(start, (len(block), 1)), block, x, y, loss, delta)
        kept.append(found[converged])
    return Bootstrap(*_natural(np.concatenate(kept).T, N, D), n_resamples)


def _columns(least: int, **columns) -> list[np.ndarray]:
    arrays = {name: np.asarray(values, dtype=float).ravel() for name, values in columns.items()}
    if len({len(a) for a in arrays.values()}) > 1:
        raise ValueError(f"{', '.join(arrays)} differ in length: "
                         f"{', '.join(str(len(a)) for a in arrays.values())}")
    for name, a in arrays.items():
        if not (np.isfinite(a) & (a > 0)).all():
            raise ValueError(f"{name} holds values that are not positive and finite")
        if len(a) < least:
            raise ValueError(f"{len(a)} points are too few: expected at least {least}")
    return list(arrays.values())


def _runs(N, D, loss) -> list[np.ndarray]:
    N, D, loss = _columns(6, N=N, D=D, loss=loss)
    for name, a in (("N", N), ("D", D)):
        if len(np.unique(a)) < 3:
            raise ValueError(f"{len(np.unique(a))} different values of {name}: expected at least 3")
    return [N, D, loss]


def _centred(a: np.ndarray) -> np.ndarray:
    return np.log(a) - np.log(a).mean()


def _natural(p: np.ndarray, N: np.ndarray, D: np.ndarray) -> tuple:
    a, b, e, alpha, beta = p
    return (np.exp(e), np.exp(a + alpha * np.log(N).mean()),
            np.exp(b + beta * np.log(D).mean()), alpha, beta)


def _grid(x, y, loss, n_best: int = 5) -> np.ndarray:
    """Best starts (log A, log B, log E, α, β), with x and y the centred logs of N and D."""
    alpha, beta = (g.ravel() for g in np.meshgrid(*[np.linspace(0.05, 2, 24)] * 2))
    terms = np.stack([np.exp(-alpha[:, None] * x), np.exp(-beta[:, None] * y),
                      np.ones((len(alpha), len(x)))], axis=-1) / loss[:, None]  # (grid, n, 3)
    scale = np.sqrt((terms**2).sum(1, keepdims=True))
    unit = terms / scale
    gram = unit.transpose(0, 2, 1) @ unit + 1e-9 * np.eye(3)
    solved = np.linalg.solve(gram, unit.sum(1)[..., None])[..., 0]  # target: terms @ (A,B,E) = 1
    amount = np.maximum(solved / scale[:, 0], 1e-6 * loss.mean())
    misfit = ((np.einsum("gnk,gk->gn", terms, amount) - 1) ** 2).sum(1)
    best = np.argsort(misfit)[:n_best]
    return np.column_stack([np.log(amount[best]), alpha[best], beta[best]])


def _newton(p, counts, x, y, loss, delta, n_steps: int = 2000):
    """Damped Newton on many problems at once: p (m, 5), counts (m, n) → p, objective, converged.

    Where the runs want E below 0, log E falls until its gradient vanishes: E is 0 in effect.
    """
    z = np.zeros((3, len(x), 5))  # gradient of each log term with respect to p
    z[0, :, 0], z[1, :, 1], z[2, :, 2], z[0, :, 3], z[1, :, 4] = 1, 1, 1, -x, -y
    pairs = np.einsum("kni,knj->knij", z, z).reshape(3, len(x), 25)

    def value(p, counts):
        terms = np.stack([p[:, :1] - p[:, 3:4] * x, p[:, 1:2] - p[:, 4:5] * y,
                          np.repeat(p[:, 2:3], len(x), 1)])  # (3, m, n)
        total = np.logaddexp.reduce(terms)
        residual = total - np.log(loss)
        return (counts * huber(residual, delta)).sum(1), residual, np.exp(terms - total)

    p, damping, live = p.copy(), np.full(len(p), 1e-3), np.arange(len(p))
    (f, residual, share), norm = value(p, counts), np.full(len(p), np.inf)
    scale = delta * counts.sum(1)  # the largest gradient there can be
    for _ in range(n_steps):
        J = np.einsum("kmn,kni->mni", share[:, live], z)
        slope = counts[live] * np.clip(residual[live], -delta, delta)
        gradient = np.einsum("mn,mni->mi", slope, J)
        norm[live] = np.abs(gradient).max(1)
        go = (norm[live] > 1e-9 * scale[live]) & (damping[live] < 1e5)
        if not go.any():
            break
        live, J, slope, gradient = live[go], J[go], slope[go], gradient[go]
        outer = counts[live] * (np.abs(residual[live]) <= delta) - slope
        H = (J * outer[..., None]).transpose(0, 2, 1) @ J
        H += np.einsum("kmn,knp->mp", share[:, live] * slope, pairs).reshape(-1, 5, 5)
        values, vectors = np.linalg.eigh(H)
        bent = np.abs(values) + damping[live, None] * np.abs(values).max(1, keepdims=True)
        step = np.einsum("mij,mj,mkj,mk->mi", vectors, 1 / bent, vectors, gradient)
        trial = p[live] - np.clip(step, -1, 1)
        new_f, new_residual, new_share = value(trial, counts[live])
        better = new_f <= f[live]
        won = live[better]
        p[won], f[won], residual[won] = trial[better], new_f[better], new_residual[better]
        share[:, won] = new_share[:, better]
        damping[live] = np.clip(damping[live] * np.where(better, 0.1, 10), 1e-14, 1e6)
    return p, f, norm <= 1e-6 * scale
