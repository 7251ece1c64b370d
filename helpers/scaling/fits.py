"""L(N, D) of runs and its bootstrap; the other laws from `approaches`. numpy and scipy only.

`python -m helpers.fits runs.csv` (see `helpers.scaling.report`) does it for a file of runs.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from helpers.foundations.accepts import accepts, need, same_length
from helpers.foundations.rules import a, anything, integer, one_of, reals
from helpers.scaling import checks, solvers
from helpers.scaling.approaches import (  # noqa: F401
    IsoFLOP,
    Kaplan,
    PowerLaw,
    envelope,
    fit_kaplan,
    fit_power_law,
    fit_power_law_offset,
    isoflop,
    kaplan_loss,
    parabola,
    seed_noise,
)
from helpers.scaling.checks import (
    ABOVE_0,
    BROADCAST,
    DELTA,
    FROM_0,
    LEVEL,
    POSITIVE,
    REALS,
    SEED,
)
from helpers.scaling.solvers import huber, objective, project  # noqa: F401


@accepts(N=POSITIVE, D=POSITIVE, E=REALS, A=REALS, B=REALS, alpha=REALS, beta=REALS,
         needs=BROADCAST)
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

    @accepts(N=POSITIVE, D=POSITIVE, needs=BROADCAST)
    def predict(self, N, D):
        """Loss in nats per token at N parameters and D tokens; one row per resample."""
        return parametric_loss(N, D, *self._rows(np.ndim(N * D)))

    @accepts(C=POSITIVE)
    def allocate(self, C):
        """(N*, D*) of least loss at C = 6ND training FLOPs (Hoffmann et al. 2022, eq. 4)."""
        _, A, B, alpha, beta = self._rows(C.ndim)
        G = (alpha * A / (beta * B)) ** (1 / (alpha + beta))
        N = G * (C / 6) ** (beta / (alpha + beta))
        return N, C / 6 / N

    @accepts(C=POSITIVE)
    def tokens_per_parameter(self, C):
        """D*/N* at C training FLOPs."""
        N, D = self.allocate(C)
        return D / N

    def _rows(self, ndim):
        values = (self.E, self.A, self.B, self.alpha, self.beta)
        return [np.reshape(v, np.shape(v) + (1,) * ndim * np.ndim(v)) for v in values]


@accepts(E=FROM_0, A=ABOVE_0, B=ABOVE_0, alpha=ABOVE_0, beta=ABOVE_0, objective=FROM_0,
         gradient=lambda g: g if g == math.inf else FROM_0(g), n_agree=integer(0),
         n_starts=integer(0), loose=a(tuple))
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
    loose: tuple[str, ...] = ()  # parameters that the runs do not fix; the others they do

    @property
    def verified(self) -> bool:
        """Whether the gradient vanishes here and at least two starts ended here."""
        return self.gradient <= 1e-6 and self.n_agree >= 2


@accepts(N=anything, D=anything, loss=anything, delta=DELTA, weights=anything)
def fit_parametric(N, D, loss, delta: float = 1e-3, weights=None) -> Parametric:
    """Fit L(N, D) by the Huber loss on log L, summed over runs (Hoffmann et al. 2022, eq. 3).

    N parameters, D tokens, loss in nats per token: arrays (n,); weights (n,) multiply each run's
    term; with δ = ∞ the fit is least squares. Starts come from a grid over α and β with E, A, B
    solved linearly; Newton's method refines six far apart. Runs that want E below 0 get E = 0.
    `loose` names what they do not fix: E where 0 fits as well, an exponent and its factor likewise.
    Raises ValueError for bad input, if no start reaches an optimum, if the loss does not fall with
    both N and D, or if an exponent is less than half of its error: the message names it.
    """
    N, D, loss = checks.runs(N, D, loss)
    weights = checks.weights_of(weights, len(N))
    n, d = N / stats.gmean(N), D / stats.gmean(D)
    start = solvers.starts(n, d, loss)
    found, f, norm = solvers.newton(start, np.tile(weights, (len(start), 1)), np.log(n), np.log(d),
                                    np.log(loss), delta)
    p = found[np.argmin(np.where((norm <= 1e-6) | (norm.min() > 1e-6), f, np.inf))]
    loose = checks.loose(p, n, d, loss, weights, delta)
    if norm.min() > 1e-6:
        raise ValueError("no optimum was found: these runs do not determine E, A, B, α and β")
    least, slope = objective(p, n, d, loss, delta, weights)
    found, end = (np.maximum(q, _least_log(loss)) for q in (found, p))  # any E this small is 0
    agree = (np.abs(found - end).max(1) < 1e-4) & (norm <= 1e-6)
    gradient = np.abs(slope).max() / (min(delta, 1) * weights.sum())
    return Parametric(*(float(v) for v in (*_natural(p, N, D, loss), least, gradient)),
                      int(agree.sum()), len(start), loose)


@accepts(E=reals(1, 0, least=1), A=reals(1, 0), B=reals(1, 0), alpha=reals(1), beta=reals(1),
         n_resamples=integer(1), needs=(
             same_length("E", "A", "B", "alpha", "beta"),
             need(lambda E, n_resamples: len(E) <= n_resamples, "no more laws than resamples")))
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

    @accepts(name=one_of("E", "A", "B", "alpha", "beta", "exp_N", "exp_D"), level=LEVEL)
    def interval(self, name: str, level: float = 0.95) -> tuple[float, float]:
        """Percentile interval of a parameter, or of `exp_N` or `exp_D`."""
        low, high = percentiles(getattr(self, name), level)
        return float(low), float(high)

    @accepts(C=POSITIVE, level=LEVEL)
    def allocate_interval(self, C, level: float = 0.95):
        """((low, high) of N*, (low, high) of D*) at C training FLOPs, in the shape of C."""
        return tuple(percentiles(part, level) for part in self.allocate(C))

    @accepts(N=POSITIVE, D=POSITIVE, noise=FROM_0, seed=SEED, level=LEVEL, needs=BROADCAST)
    def predict_interval(self, N, D, noise: float = 0.0, seed: int = 0, level: float = 0.95):
        """(low, high) of a new run's loss; `noise` is the standard deviation of its log loss."""
        found = self.predict(N, D)
        draws = np.random.default_rng(seed).normal(0, noise, found.shape)
        return percentiles(found * np.exp(draws), level)


@accepts(values=reals(least=1), level=LEVEL, needs=need(lambda values: values.ndim > 0, "rows"))
def percentiles(values, level: float = 0.95):
    """(low, high): the middle `level` of resampled values (n, ...), of shape (...) each."""
    return tuple(np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0))


@accepts(N=anything, D=anything, loss=anything, n_resamples=integer(1), seed=SEED, delta=DELTA,
         weights=anything, groups=anything)
def bootstrap_parametric(N, D, loss, n_resamples: int = 4000, seed: int = 0,
                         delta: float = 1e-3, weights=None, groups=None) -> Bootstrap:
    """Refit L(N, D) on runs drawn with replacement; resamples that reach no optimum are left out.

    With `groups` (n,), labels such as the trunk that branches share, whole groups are drawn. Where
    the drawn runs want no floor at all, E comes out as 0. All resamples are refitted at once, as
    multiplicities over the same runs, from the fit of all runs; where one of the first 50 ends
    lower from a start of the grid, all are refitted from there too. Raises ValueError as
    `fit_parametric` does, for fewer than six groups, or if fewer than half of the resamples
    converge.
    """
    N, D, loss = checks.runs(N, D, loss)
    weights = checks.weights_of(weights, len(N))
    counts = solvers.draw(len(N), n_resamples, np.random.default_rng(seed), groups) * weights
    point = fit_parametric(N, D, loss, delta, weights)
    start = [math.log(point.A) - point.alpha * np.log(N).mean(),
             math.log(point.B) - point.beta * np.log(D).mean(),
             math.log(max(point.E, 0.01 * loss.min())),  # from 0 there is no slope back
             point.alpha, point.beta]
    n, d = N / stats.gmean(N), D / stats.gmean(D)
    found, _, norm = solvers.refit(start, solvers.starts(n, d, loss), counts, np.log(n), np.log(d),
                                   np.log(loss), delta)
    kept = (norm <= 1e-6) & (found[:, 3:] > 0).all(1)
    if kept.sum() < n_resamples / 2:
        raise ValueError(f"only {kept.sum()} of {n_resamples} resamples reach an optimum: "
                         "too few runs or groups fix the law")
    return Bootstrap(*_natural(found[kept].T, N, D, loss), n_resamples)


def _natural(p, N, D, loss) -> tuple:
    a, b, e, alpha, beta = p
    E = np.where(e > _least_log(loss)[2], np.exp(e), 0.0)
    return (E, np.exp(a + alpha * np.log(N).mean()), np.exp(b + beta * np.log(D).mean()),
            alpha, beta)


def _least_log(loss) -> np.ndarray:
    """Least (log A, log B, log E, α, β) that counts: an E that no run feels is 0."""
    return np.array([-np.inf, -np.inf, np.log(checks.LEAST_SHARE * loss.min()), -np.inf, -np.inf])
