"""What fits accept, and what runs fix: checks of columns before a fit, of the law after it."""

import math
from numbers import Real

import numpy as np
from scipy import special

from helpers.foundations import rules
from helpers.foundations.accepts import accepts, need

LEAST, MOST = 1e-5, 1e8  # tokens per parameter of a run; beyond, a column is in the wrong unit
GAP = 1e6  # between neighbouring values of one column; wider, two units are mixed
EXPONENTS = (0.01, 3.0)  # α and β outside are at the end of what runs can tell apart
FLAT = 1e-12  # smallest eigenvalue of the scaled Hessian that counts as curved
LEAST_SHARE = 1e-6  # of a term in the loss of the run where it weighs most; below, it is absent


def _wide(rule):
    """`rule` for whole numbers of any size too, such as C = 10**21, and for columns of them."""
    def widened(values):
        try:
            array = np.asarray(None if hasattr(values, "detach") else values)
        except ValueError:
            return rule(values)  # rows of unequal length: the rule says so
        if array.dtype == object and all(
                isinstance(v, Real) and not isinstance(v, bool) for v in array.flat):
            values = array.astype(float) if array.ndim else float(array)
        return rule(values)

    return widened


def _width(value):
    """Rule: Huber's δ > 0; ∞ makes it least squares."""
    if isinstance(value, float | np.floating) and value == math.inf:
        return math.inf
    return rules.number(LEAST_DELTA)(value)


def _numbers(values):
    """Rule: real numbers → float64 array; NaN and ∞ pass, and come out as such."""
    array = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
    if array.dtype.kind not in "iufb" and array.size:
        raise TypeError(f"expected numbers, got {array.dtype}")
    return array.astype(float)


LEAST_DELTA = 1e-8  # below, no residual is ever within δ, and Newton's method has nothing to bend
DELTA, NUMBERS = _width, _numbers
REALS, POSITIVE, COLUMN = (_wide(r) for r in (rules.reals(), rules.reals(above=0),
                                              rules.reals(1, above=0)))
ABOVE_0, FROM_0, NUMBER = (_wide(r) for r in (rules.number(above=0), rules.number(0),
                                              rules.number()))
FIVE, LINE = rules.reals(1, least=5), rules.reals(1, least=1)  # a law's parameters; logs
BROADCAST = need(lambda N, D: _fit_together(N, D), "shapes that fit together")
LEVEL, SEED = rules.number(above=0, below=1), rules.integer(0)


def _fit_together(*arrays) -> bool:
    try:
        return np.broadcast(*arrays) is not None
    except ValueError:
        return False


@accepts(least=rules.integer(1))
def columns(least: int, **named) -> list[np.ndarray]:
    """Arrays (n,) of one length, positive and finite, at least `least` long.

    Raises ValueError, or TypeError for what is no number; either names the column and the value.
    """
    arrays = {name: _column(name, values) for name, values in named.items()}
    if len({len(a) for a in arrays.values()}) > 1:
        raise ValueError(f"{', '.join(arrays)} differ in length: "
                         f"{', '.join(str(len(a)) for a in arrays.values())}")
    for name, a in arrays.items():
        if not (good := np.isfinite(a) & (a > 0)).all():
            i = int(np.argmin(good))
            raise ValueError(f"{name} holds values that are not positive and finite: "
                             f"{name}[{i}] = {a[i]:g}")
        if len(a) < least:
            raise ValueError(f"{len(a)} points are too few: expected at least {least}")
    return list(arrays.values())


def _column(name: str, values) -> np.ndarray:
    try:
        array = _wide(_numbers)(values)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name}: {error}") from None
    if array.ndim != 1:
        raise ValueError(f"{name}: expected one value for each point, got shape {array.shape}")
    return array


@accepts(N=rules.anything, D=rules.anything, loss=rules.anything, least=rules.integer(1))
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


@accepts(weights=rules.anything, n=rules.integer(1))
def weights_of(weights, n: int) -> np.ndarray:
    """Weights (n,), ones by default; ValueError unless they are positive and finite."""
    weights = np.ones(n) if weights is None else _column("weights", weights)
    if len(weights) != n or not (good := np.isfinite(weights) & (weights > 0)).all():
        what = f"{len(weights)} of them" if len(weights) != n else (
            f"weights[{np.argmin(good)}] = {weights[np.argmin(good)]:g}")
        raise ValueError(f"weights: expected {n} positive and finite values, got {what}")
    return weights


@accepts(groups=rules.anything, n=rules.integer(1), least=rules.integer(1))
def groups_of(groups, n: int, least: int = 1) -> np.ndarray:
    """Index (n,) of each run's group, from labels (n,), `least` of them different."""
    labels, expected = np.asarray(groups), f"groups: expected {n} labels, at least {least}"
    if labels.shape != (n,):
        raise ValueError(f"{expected} of them different, got shape {labels.shape}")
    missing = np.array([v is None or v != v for v in labels.tolist()])  # NaN and NaT differ from
    if missing.any():                                                   # themselves
        raise ValueError(f"groups: no label at index {np.argmax(missing)}")
    try:
        found, index = np.unique(labels, return_inverse=True)
    except TypeError:
        raise TypeError("groups: expected labels of one kind, all numbers or all text") from None
    if len(found) < least:
        raise ValueError(f"{expected} of them different, got {len(found)}")
    return index


@accepts(p=FIVE, n=LINE, d=LINE, loss=LINE, weights=LINE, delta=DELTA)
def loose(p, n, d, loss, weights, delta) -> tuple[str, ...]:
    """Names of the parameters that the runs leave open at the optimum p; the others they fix.

    n and d (m,) are N and D over their geometric means. E is open where its interval reaches 0, and
    so are an exponent and its factor. Raises ValueError that names the parameter if the runs leave
    no law: a term that no run feels, an exponent outside 0.01 … 3 or less than half of its own
    error, a Hessian that has no inverse.

    The errors are two standard errors of Huber's estimate, without the five residuals that any
    fit can make 0, and with the part of E's own error that E ≥ 0 allows.
    """
    cures = ("a wider range of N at large D", "a wider range of D at large N",
             "runs nearer the floor, with more N and more D")
    E, alpha, beta = np.exp(p[2]), p[3], p[4]
    terms = np.array([np.exp(p[0]) * n**-alpha, np.exp(p[1]) * d**-beta, E * n**0])
    fitted = terms.sum(0)
    share, residual = terms / fitted, np.log(fitted / loss)
    if min(alpha, beta) <= 0:
        raise ValueError(f"alpha = {alpha:.3g}, beta = {beta:.3g}: in these runs the loss does not "
                         "fall with both N and D")
    J = np.array([*share[:2], 1 / fitted, -share[0] * np.log(n), -share[1] * np.log(d)]).T
    scale = np.sqrt((weights[:, None] * J**2).sum(0)) + 1e-300
    values, vectors = np.linalg.eigh((J / scale).T @ (weights[:, None] * J / scale))
    pull = np.clip(residual, -delta, delta)
    size = max(1.4826 * np.median(np.sort(np.abs(residual))[5:]), 1e-15)
    bend = special.erf(delta / size / 2**0.5)  # share of the residuals within δ, were they normal
    noise = (pull**2).sum() / (len(n) - 5) / bend**2
    cov = noise * weights.mean() * (vectors / np.maximum(values, 1e-300)) @ vectors.T
    cov /= np.outer(scale, scale)
    tilt = cov[:, 2] / cov[2, 2]  # what a rise of E by 1 does to each parameter
    rest = np.maximum(np.diag(cov) - tilt * cov[:, 2], 0)
    gone = share.max(1) < LEAST_SHARE
    push = (weights * pull / fitted).sum() / bend / weights.mean() if gone[2] else 0.0
    up = (np.sqrt(push**2 + 4 * noise**2 / cov[2, 2]) - push) * cov[2, 2] / noise
    ends = np.array([min(E, 2 * cov[2, 2] ** 0.5), up])[:, None]
    error = np.sqrt(4 * rest + (tilt * ends) ** 2).mean(0)
    found = ()
    for k, (name, value) in enumerate((("alpha", alpha), ("beta", beta))):
        found += (name, "AB"[k]) if error[3 + k] > value else ()
        if gone[k] or not EXPONENTS[0] < value < EXPONENTS[1] or error[3 + k] > 2 * value:
            raise ValueError(f"{name} = {value:.3g} ± {error[3 + k]:.2g}: these runs do not "
                             f"fix {name} and {'AB'[k]}; add {cures[k]}")
    if values[0] < FLAT:
        k = np.argmax(np.abs(vectors[:, 0])) % 3
        raise ValueError(f"these runs do not fix {('alpha and A', 'beta and B', 'E')[k]}; "
                         f"add {cures[k]}")
    return found + (("E",) if gone[2] or E < ends[1] else ())
