"""Power laws; envelope and IsoFLOP (Hoffmann's approaches 1 and 2); Kaplan's form; seed noise."""

from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from helpers.foundations.accepts import accepts, need, same_length
from helpers.foundations.rules import anything, reals
from helpers.scaling import checks
from helpers.scaling.checks import ABOVE_0, BROADCAST, COLUMN, DELTA, FROM_0, POSITIVE
from helpers.scaling.solvers import huber


@dataclass(frozen=True)
class PowerLaw:
    """y = offset + scale · x^−exponent; 95 % intervals of exponent and offset; R² of log y."""

    scale: float
    exponent: float
    low: float
    high: float
    r2: float
    offset: float = 0.0
    offset_low: float = 0.0
    offset_high: float = 0.0

    @accepts(x=POSITIVE)
    def predict(self, x):
        """y at x > 0, in the units of the fitted y."""
        return self.offset + self.scale * x**-self.exponent


@accepts(x=anything, y=anything)
def fit_power_law(x, y) -> PowerLaw:
    """Least squares of log y on log x; the interval is Student's t on the slope.

    A constant y has exponent 0 and r2 1. For a rise, y ∝ x^a, give 1/x. Raises ValueError for
    fewer than three points, values not positive and finite, or x all the same.
    """
    x, y = checks.columns(3, x=x, y=y)
    if np.ptp(y) == 0 < np.ptp(x):
        return PowerLaw(float(y[0]), 0.0, 0.0, 0.0, 1.0)
    line = stats.linregress(np.log(x), np.log(y))
    half = line.stderr * stats.t.ppf(0.975, len(x) - 2)
    return PowerLaw(float(np.exp(line.intercept)), float(-line.slope), float(-line.slope - half),
                    float(-line.slope + half), float(line.rvalue**2))


@accepts(x=anything, y=anything)
def fit_power_law_offset(x, y) -> PowerLaw:
    """Least squares of y's relative errors for y = offset + scale · x^−exponent.

    Intervals are profiles: what a likelihood-ratio (F) test at 5 % does not reject, with the other
    two parameters refitted. An exponent's `low` of 0 goes with `offset_low` −∞: no floor is needed.
    Raises ValueError for fewer than five points or different x, bad values, a y that does not fall,
    or points that fix no exponent between 0.01 and 10.
    """
    x, y = checks.columns(5, x=x, y=y)
    if (found := len(np.unique(x))) < 5 or np.ptp(y) == 0:
        raise ValueError(f"{found} different values of x, {len(np.unique(y))} of y: too few")
    return PowerLaw(*offset_profile(x, y))


@dataclass(frozen=True)
class IsoFLOP:
    """The least loss of one budget: at N_opt; `edge`: at or beyond the smallest or largest run."""

    N_opt: float
    loss: float
    curvature: float  # d²loss / d(log N)²
    edge: bool


@accepts(N=COLUMN, loss=reals(1), needs=(same_length("N", "loss"), need(
    lambda N: len(np.unique(N)) >= 3, "at least 3 different values")))
def parabola(N, loss):
    """(N_opt, least loss, curvature) of the parabola in log N through runs of one budget."""
    middle = np.log(N).mean()
    c, b, a = np.polynomial.polynomial.polyfit(np.log(N) - middle, loss, 2)
    if a <= 0:
        raise ValueError(f"curvature {2 * a:.3g}: these runs show no valley; widen their range")
    return np.exp(middle - b / (2 * a)), c - b**2 / (4 * a), 2 * a


@accepts(N=anything, loss=anything)
def isoflop(N, loss) -> IsoFLOP:
    """Approach 2: the optimum of runs that spent one budget, N and loss (n,).

    For the exponent of N*: `fit_power_law(1 / C, N_opt)`. Raises ValueError for bad columns, fewer
    than three different N, or runs without a valley (Hoffmann et al. 2022, section 3.2).
    """
    N, loss = checks.columns(3, N=N, loss=loss)
    if len(np.unique(N)) < 3:
        raise ValueError(f"{len(np.unique(N))} different values of N: expected at least 3")
    with np.errstate(over="ignore"):
        N_opt, least, curvature = parabola(N, loss)
    if not 0 < N_opt < np.inf:
        raise ValueError(f"curvature {curvature:.3g}: these runs show no valley; widen their range")
    edge = not N.min() < N_opt < N.max() or N[np.argmin(loss)] in (N.min(), N.max())
    return IsoFLOP(float(N_opt), float(least), float(curvature), bool(edge))


@accepts(C=anything, loss=anything, N=anything, budgets=POSITIVE)
def envelope(C, loss, N, budgets):
    """Approach 1: (N_opt, loss, edge) of least loss at each budget, arrays of its shape (b,).

    C, loss, N (n,) hold the training curves of several sizes; each is interpolated in log C and
    log loss, and counts only between its ends. Where no curve reaches, N_opt and loss are NaN;
    edge: N_opt is NaN, or the smallest or largest size whose curve reaches (Hoffmann et al. 2022,
    section 3.1). Raises ValueError for bad columns, or two losses of one size at one C.
    """
    C, loss, N = checks.columns(2, C=C, loss=loss, N=N)
    sizes, at = np.unique(N), []
    for size in sizes:
        x, y = np.log(C[N == size]), np.log(loss[N == size])
        order = np.argsort(x)
        if len(np.unique(x)) < len(x):
            twice = np.exp(x[order][np.argmin(np.diff(x[order]))])
            raise ValueError(f"N = {size:g} has two losses at C = {twice:g}: take their mean first")
        at.append(np.interp(np.log(budgets), x[order], y[order], left=np.inf, right=np.inf))
    best, least, reach = np.argmin(at, axis=0), np.min(at, axis=0), np.isfinite(at)
    reached, last = reach.any(0), len(sizes) - 1 - np.argmax(reach[::-1], axis=0)
    edge = ~reached | (best == np.argmax(reach, axis=0)) | (best == last)
    return np.where(reached, sizes[best], np.nan), np.where(reached, np.exp(least), np.nan), edge


@accepts(x=COLUMN, y=COLUMN, needs=same_length("x", "y"))
def offset_profile(x, y) -> tuple:
    """Fit y = offset + scale · x^−exponent by relative errors: the fields of `PowerLaw`."""
    log_x, n = np.log(x) - np.log(x).mean(), len(x)
    u = 1 / y

    def solve(p):  # for exponents p (g,): offset, scale, error, and the offset's variance factor
        w = np.exp(-np.outer(p, log_x)) / y
        uw, ww, det = w @ u, (w**2).sum(1), (w**2).sum(1) * (u @ u) - (w @ u) ** 2
        c, s = (ww * u.sum() - uw * w.sum(1)) / det, ((u @ u) * w.sum(1) - uw * u.sum()) / det
        return c, s, ((c[:, None] * u + s[:, None] * w - 1) ** 2).sum(1), ww / det

    grid = ends = np.geomspace(0.01, 10, 120)
    for _ in range(5):  # close in on the least error
        i = min(max(np.argmin(solve(grid)[2]), 1), len(grid) - 2)
        p, grid = grid[i], np.linspace(grid[i - 1], grid[i + 1], 120)
    offset, scale, error, _ = (float(v[0]) for v in solve([p]))
    if scale <= 0 or not ends[1] < p < ends[-2]:
        raise ValueError(f"exponent {p:.3g}, scale {scale:.3g}: these points do not fix a fall "
                         "towards an offset; add points nearer the floor")
    limit = error * (1 + stats.f.ppf(0.95, 1, n - 3) / (n - 3)) + 1e-16 * n
    over = lambda v: solve([v])[2][0] - limit
    low, high = (optimize.brentq(over, p, end) if over(end) > 0 else end for end in ends[[0, -1]])
    c, _, errors, factor = solve(np.linspace(low, high, 400))
    half = np.sqrt(np.maximum(limit - errors, 0) * factor)  # for one exponent: a parabola in c
    log_y, fitted = np.log(y), np.log(offset + scale * np.exp(-p * log_x))
    return (float(scale * np.exp(p * np.log(x).mean())), float(p),
            float(low) if low > ends[0] else 0.0, float(high) if high < ends[-1] else np.inf,
            float(1 - ((fitted - log_y) ** 2).sum() / ((log_y - log_y.mean()) ** 2).sum()), offset,
            float((c - half).min()) if low > ends[0] else -np.inf, float((c + half).max()))


@accepts(N=POSITIVE, D=POSITIVE, N_c=ABOVE_0, D_c=ABOVE_0, alpha_N=ABOVE_0, alpha_D=ABOVE_0,
         needs=BROADCAST)
def kaplan_loss(N, D, N_c, D_c, alpha_N, alpha_D):
    """L(N, D) = [(N_c/N)^(α_N/α_D) + D_c/D]^α_D in nats per token (Kaplan et al. 2020, eq. 1.5)."""
    return ((N_c / N) ** (alpha_N / alpha_D) + D_c / D) ** alpha_D


@accepts(N_c=ABOVE_0, D_c=ABOVE_0, alpha_N=ABOVE_0, alpha_D=ABOVE_0, objective=FROM_0)
@dataclass(frozen=True)
class Kaplan:
    """Kaplan's L(N, D), which has no floor, and the sum of Huber losses it reached."""

    N_c: float
    D_c: float
    alpha_N: float
    alpha_D: float
    objective: float

    @accepts(N=POSITIVE, D=POSITIVE, needs=BROADCAST)
    def predict(self, N, D):
        """Loss in nats per token at N parameters and D tokens."""
        return kaplan_loss(N, D, self.N_c, self.D_c, self.alpha_N, self.alpha_D)


@accepts(N=anything, D=anything, loss=anything, delta=DELTA)
def fit_kaplan(N, D, loss, delta: float = 1e-3) -> Kaplan:
    """Fit Kaplan's form with the objective of `fit_parametric`; ValueError as there."""
    N, D, loss = checks.runs(N, D, loss, 5)
    x, y, z = np.log(N / stats.gmean(N)), np.log(D / stats.gmean(D)), np.log(loss)

    def f(p, delta):  # p = (log N_c, log D_c, log of α_N/α_D, log α_D), centred
        ratio, power = np.exp(np.clip(p[2:], -9, 9))  # a search may step far out
        u, v = ratio * (p[0] - x), p[1] - y
        total = np.logaddexp(u, v)
        share, r = np.exp(u - total), power * total - z
        along = power * np.array([share * ratio, 1 - share, share * u, total])
        return huber(r, delta).sum(), along @ np.clip(r, -delta, delta)

    found = []
    for ratio in (0.3, 1.0, 3.0):
        for power in (0.05, 0.2, 0.6):
            p = [z.mean() / power / ratio, z.mean() / power, np.log(ratio), np.log(power)]
            for d in (1.0, delta, delta):  # near first; again with a fresh Hessian
                p = optimize.minimize(f, p, d, "BFGS", jac=True, options={"gtol": 1e-10}).x
            found.append((f(p, delta)[0], *p))
    least, n, d, ratio, power = min(found)
    ratio, power = np.exp(np.clip((ratio, power), -9, 9))
    return Kaplan(*(float(v) for v in (stats.gmean(N) * np.exp(n), stats.gmean(D) * np.exp(d),
                                       ratio * power, power, least)))


@accepts(groups=anything, log_loss=reals(1, least=2))
def seed_noise(groups, log_loss) -> tuple[float, np.ndarray]:
    """Pooled standard deviation of log loss within groups of equal runs, and weights per run.

    A weight is the pooled variance over the group's own, which counts as much as its degrees of
    freedom; the pooled one counts as four more, since three seeds tell little about a variance.
    Pass the weights to `fit_parametric`. ValueError if no group has two
    runs, or a label is missing.
    """
    index = checks.groups_of(groups, len(log_loss))
    count = np.bincount(index)
    mean = np.bincount(index, log_loss) / count
    square = np.bincount(index, (log_loss - mean[index]) ** 2)
    if (count < 2).all():
        raise ValueError("no group holds two runs: nothing tells how much seeds differ")
    pooled = square.sum() / (count - 1).sum()
    if pooled == 0:
        return 0.0, np.ones(len(index))
    return float(np.sqrt(pooled)), ((count + 3) / (4 + square / pooled))[index]
