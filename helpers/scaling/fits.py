"""Scaling laws from runs: power law, L(N, D), bootstrap, IsoFLOP, envelope. numpy and scipy only.

`python -m helpers.scaling.fits runs.csv` (columns N, D, loss) prints L(N, D) and draws runs.png.
"""

import math
import sys
from dataclasses import dataclass

import numpy as np
from scipy import stats

from helpers.scaling import approaches, solvers
from helpers.scaling.approaches import (  # noqa: F401
    IsoFLOP,
    Kaplan,
    envelope,
    fit_kaplan,
    isoflop,
    kaplan_loss,
    parabola,
    seed_noise,
)
from helpers.scaling.solvers import huber, objective, project  # noqa: F401


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

    def predict(self, x):
        """y at x, in the units of the fitted y."""
        return self.offset + self.scale * np.asarray(x, dtype=float) ** -self.exponent


def fit_power_law(x, y) -> PowerLaw:
    """Least squares of log y on log x; the interval is Student's t on the slope.

    A constant y has exponent 0 and r2 1. For a rise, y ∝ x^a, give 1/x. Raises ValueError for
    fewer than three points, values not positive and finite, or x all the same.
    """
    x, y = solvers.columns(3, x=x, y=y)
    if np.ptp(y) == 0 < np.ptp(x):
        return PowerLaw(float(y[0]), 0.0, 0.0, 0.0, 1.0)
    line = stats.linregress(np.log(x), np.log(y))
    half = line.stderr * stats.t.ppf(0.975, len(x) - 2)
    return PowerLaw(float(np.exp(line.intercept)), float(-line.slope), float(-line.slope - half),
                    float(-line.slope + half), float(line.rvalue**2))


def fit_power_law_offset(x, y) -> PowerLaw:
    """Least squares of y's relative errors for y = offset + scale · x^−exponent.

    Intervals are profiles: what a likelihood-ratio (F) test at 5 % does not reject, with the other
    two parameters refitted. An exponent's `low` of 0 goes with `offset_low` −∞: no floor is needed.
    Raises ValueError for fewer than five points or different x, bad values, a y that does not fall,
    or points that fix no exponent between 0.01 and 10.
    """
    x, y = solvers.columns(5, x=x, y=y)
    if (found := len(np.unique(x))) < 5 or np.ptp(y) == 0:
        raise ValueError(f"{found} different values of x, {len(np.unique(y))} of y: too few")
    return PowerLaw(*approaches.offset_profile(x, y))


def parametric_loss(N, D, E, A, B, alpha, beta):
    """L(N, D) = E + A/N^α + B/D^β in nats per token (Hoffmann et al. 2022, eq. 2)."""
    return E + A / N**alpha + B / D**beta


class _Law:
    """What one law and a set of resampled ones have in common."""

    @property
    def exp_N(self):
        """a in N* ∝ C^a: β/(α+β)."""
        return self.beta / (self.alpha + self.beta)

    @property
    def exp_D(self):
        """b in D* ∝ C^b: α/(α+β)."""
        return self.alpha / (self.alpha + self.beta)

    def predict(self, N, D):
        """Loss in nats per token at N parameters and D tokens; one row per resample."""
        N, D = np.asarray(N, dtype=float), np.asarray(D, dtype=float)
        return parametric_loss(N, D, *self._rows(np.ndim(N * D)))

    def allocate(self, C):
        """(N*, D*) of least loss at C = 6ND training FLOPs (Hoffmann et al. 2022, eq. 4)."""
        C = np.asarray(C, dtype=float)
        _, A, B, alpha, beta = self._rows(C.ndim)
        G = (alpha * A / (beta * B)) ** (1 / (alpha + beta))
        N = G * (C / 6) ** (beta / (alpha + beta))
        return N, C / 6 / N

    def tokens_per_parameter(self, C):
        """D*/N* at C training FLOPs."""
        N, D = self.allocate(C)
        return D / N

    def _rows(self, ndim):
        values = (self.E, self.A, self.B, self.alpha, self.beta)
        return [np.reshape(v, np.shape(v) + (1,) * ndim * np.ndim(v)) for v in values]


@dataclass(frozen=True)
class Parametric(_Law):
    """L(N, D) = E + A/N^α + B/D^β in nats per token, and the sum of Huber losses it reached."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float
    objective: float
    gradient: float = math.inf  # largest component over the largest it could be; centred logs
    n_agree: int = 0  # of the starts that were refined, how many ended at this optimum
    n_starts: int = 0

    @property
    def verified(self) -> bool:
        """Whether the gradient vanishes here and at least two starts ended here."""
        return self.gradient <= 1e-6 and self.n_agree >= 2


def fit_parametric(N, D, loss, delta: float = 1e-3, weights=None) -> Parametric:
    """Fit L(N, D) by the Huber loss on log L, summed over runs (Hoffmann et al. 2022, eq. 3).

    N parameters, D tokens, loss in nats per token: arrays (n,); weights (n,) multiply each run's
    term. Starts come from a grid over α and β with E, A, B solved linearly; Newton's method refines
    six far apart. Raises ValueError for bad input, if no start reaches an optimum, if the loss does
    not fall with both N and D, or if the runs do not fix a parameter: the message names it.
    """
    N, D, loss = solvers.runs(N, D, loss)
    weights = solvers.weights_of(weights, len(N))
    n, d = N / stats.gmean(N), D / stats.gmean(D)
    start = solvers.starts(n, d, loss)
    found, f, norm = solvers.newton(start, np.tile(weights, (len(start), 1)), np.log(n), np.log(d),
                                    np.log(loss), delta)
    p = found[np.argmin(np.where((norm <= 1e-6) | (norm.min() > 1e-6), f, np.inf))]
    solvers.refuse_flat(p, n, d, loss, weights)
    if norm.min() > 1e-6:
        raise ValueError("no optimum was found: these runs do not determine E, A, B, α and β")
    least, slope = objective(p, n, d, loss, delta, weights)
    agree = (np.abs(found - p).max(1) < 1e-4) & (norm <= 1e-6)
    gradient = np.abs(slope).max() / (delta * weights.sum())
    return Parametric(*(float(v) for v in (*_natural(p, N, D), least, gradient)), int(agree.sum()),
                      len(start))


@dataclass(frozen=True)
class Bootstrap(_Law):
    """Resampled parameters, arrays (n_converged,), of `n_resamples`; so are all it returns."""

    E: np.ndarray
    A: np.ndarray
    B: np.ndarray
    alpha: np.ndarray
    beta: np.ndarray
    n_resamples: int

    @property
    def n_converged(self) -> int:
        """How many resamples reached an optimum whose loss falls with N and with D."""
        return len(self.E)

    @property
    def share_without_floor(self) -> float:
        """Share of the resamples whose E is 0 (below 10⁻⁴ nats): they want no floor."""
        return float(np.mean(self.E < 1e-4))

    def interval(self, name: str, level: float = 0.95) -> tuple[float, float]:
        """Percentile interval of a parameter, or of `exp_N` or `exp_D`."""
        low, high = percentiles(getattr(self, name), level)
        return float(low), float(high)

    def allocate_interval(self, C, level: float = 0.95):
        """((low, high) of N*, (low, high) of D*) at C training FLOPs, in the shape of C."""
        return tuple(percentiles(part, level) for part in self.allocate(C))

    def predict_interval(self, N, D, noise: float = 0.0, seed: int = 0, level: float = 0.95):
        """(low, high) of a new run's loss; `noise` is the standard deviation of its log loss."""
        found = self.predict(N, D)
        draws = np.random.default_rng(seed).normal(0, noise, found.shape)
        return percentiles(found * np.exp(draws), level)


def percentiles(values, level: float = 0.95):
    """(low, high): the middle `level` of resampled values (n, ...), of shape (...) each."""
    return tuple(np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0))


def bootstrap_parametric(N, D, loss, n_resamples: int = 4000, seed: int = 0,
                         delta: float = 1e-3, weights=None, groups=None) -> Bootstrap:
    """Refit L(N, D) on runs drawn with replacement; resamples that reach no optimum are left out.

    With `groups` (n,), labels such as the trunk that branches share, whole groups are drawn. Where
    the drawn runs want no floor at all, E comes out as 0. All resamples are refitted at once, as
    multiplicities over the same runs. Raises ValueError as `fit_parametric` does, for fewer than
    six groups, or if fewer than half of the resamples converge.
    """
    N, D, loss = solvers.runs(N, D, loss)
    weights = solvers.weights_of(weights, len(N))
    point = fit_parametric(N, D, loss, delta, weights)
    counts = weights * solvers.draw(len(N), n_resamples, np.random.default_rng(seed), groups)
    start = [math.log(point.A) - point.alpha * np.log(N).mean(),
             math.log(point.B) - point.beta * np.log(D).mean(),
             math.log(point.E), point.alpha, point.beta]
    x, y = np.log(N / stats.gmean(N)), np.log(D / stats.gmean(D))
    found, _, norm = solvers.in_blocks(np.tile(start, (n_resamples, 1)), counts, x, y, np.log(loss),
                                       delta)
    kept = (norm <= 1e-6) & (found[:, 3:] > 0).all(1)
    if kept.sum() < n_resamples / 2:
        raise ValueError(f"only {kept.sum()} of {n_resamples} resamples reach an optimum: "
                         "too few runs or groups fix the law")
    return Bootstrap(*_natural(found[kept].T, N, D), n_resamples)


def _natural(p, N, D) -> tuple:
    a, b, e, alpha, beta = p
    return (np.exp(e), np.exp(a + alpha * np.log(N).mean()), np.exp(b + beta * np.log(D).mean()),
            alpha, beta)


def main(path: str) -> None:
    """Print the law of the runs in a CSV file with 95 % intervals; draw it beside the file."""
    import pandas as pd

    from helpers import plots

    rows = pd.read_csv(path)
    if missing := {"N", "D", "loss"} - set(rows):
        raise ValueError(f"{path} has no column {', '.join(sorted(missing))}")
    law = fit_parametric(rows.N, rows.D, rows.loss)
    boot = bootstrap_parametric(rows.N, rows.D, rows.loss)
    for name in ("E", "A", "B", "alpha", "beta", "exp_N", "exp_D"):
        low, high = boot.interval(name)
        sys.stdout.write(f"{name:>5} = {getattr(law, name):.4g} ({low:.4g} … {high:.4g})\n")
    sys.stdout.write(f"{len(rows)} runs; {boot.n_converged} of {boot.n_resamples} resamples "
                     f"converged, {100 * boot.share_without_floor:.1f} % of them without a floor\n")
    (ax,) = plots.panels(height=4)
    C = np.geomspace(6 * (rows.N * rows.D).min(), 6 * (rows.N * rows.D).max())
    ax.plot(6 * rows.N * rows.D, rows.loss, "o", ms=4, label="runs")
    ax.fill_between(C, *percentiles(boot.predict(*law.allocate(C))), alpha=0.3)
    ax.plot(C, law.predict(*law.allocate(C)), label="fitted optimum, 95 %")
    title = f"N* ∝ C^{plots.interval(law.exp_N, *boot.interval('exp_N'))}"
    plots.label(ax, "6ND / FLOPs", "loss / nats per token", title, log="x")
    ax.figure.savefig(path.removesuffix(".csv") + ".png")


if __name__ == "__main__":
    main(*sys.argv[1:])
