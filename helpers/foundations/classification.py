"""Two classes: cross-entropy and its fit, the counts and curves that judge it, and their noise."""

import numpy as np

from helpers.foundations import rules
from helpers.foundations.accepts import accepts, need, same_length
from helpers.foundations.regression import independent

_LOGITS, _SOFT_LABELS = rules.reals(least=1), rules.reals(None, 0, 1, least=1)
_PAIRED = need(lambda y, predicted: y.shape == predicted.shape and y.ndim == 1,
               "one-dimensional arrays of one shape")
_BOTH = need(lambda y: 0 < y.sum() < len(y), "both classes, 0 and 1")
_COUNTED = (need(lambda k, n: not k.ndim or not n.ndim or k.shape == n.shape,
                 "equal shapes, or one number"),
            need(lambda k, n: np.all(k <= n), "k at most n"))


def _probabilities(values):
    """Rule: probabilities, not logits → float64 array, at least one."""
    try:
        return rules.reals(1, 0, 1, least=1)(values)
    except ValueError as error:
        raise ValueError(f"expected probabilities between 0 and 1, not logits: {error}") from None


def _counts(least: int):
    """Rule: whole numbers of things, also as float → float64 array, so that no product wraps."""
    numbers = rules.reals(low=least)

    def rule(values):
        counts = numbers(values)
        if np.any(counts % 1):
            raise ValueError("expected whole numbers")
        return counts

    return rule


@accepts(z=rules.reals(finite=False))
def sigmoid(z):
    """Probability of class 1 for the logit z: 1 / (1 + e^−z), without overflow at any z.

    z: scalar or array of any shape (log-odds, no unit; ±∞ too) → the same shape, in [0, 1].
    """
    return np.exp(-np.logaddexp(0, -z))


@accepts(z=_LOGITS, y=_SOFT_LABELS)
def cross_entropy(z, y):
    """Mean cross-entropy of labels y under the logits z, in nats per example.

    z, y: arrays of the same shape, z finite; y is 0 or 1, or a probability of class 1 → scalar
    ≥ 0. From logits, so that a confident mistake costs |z| and never log 0. Divide by ln 2 for
    bits. Raises ValueError if the shapes differ: (n, 1)
    against (n,) would be n² comparisons.
    """
    if np.shape(z) != np.shape(y):
        raise ValueError(f"logits {np.shape(z)}, labels {np.shape(y)}: expected equal shapes")
    return np.mean(np.logaddexp(0, z) - y * z)


@accepts(z=_LOGITS, y=_SOFT_LABELS)
def cross_entropy_gradient(z, y):
    """Gradient of `cross_entropy` in the logits: (sigmoid(z) − y) / n.

    z, y: arrays of the same shape with n entries → the same shape. For logits z = X θ the chain
    rule gives the gradient in θ: Xᵀ times this. Raises ValueError if the shapes differ.
    """
    if np.shape(z) != np.shape(y):
        raise ValueError(f"logits {np.shape(z)}, labels {np.shape(y)}: expected equal shapes")
    return (sigmoid(z) - y) / np.size(y)


@accepts(X=rules.reals(2, least=1), y=rules.labels(), lam=rules.number(0), n_steps=rules.integer(1),
         needs=(same_length("X", "y"), need(lambda X, lam: lam > 0 or independent(X),
                                            "linearly independent columns, or lam > 0")))
def logistic_regression(X, y, lam=0.0, n_steps=50):
    """θ that minimises cross_entropy(X θ, y) + λ Σ θ_j² (intercept left out), by Newton's method.

    X: (n, p) with the ones in column 0, y: (n,) of 0 and 1 → (p,). scikit-learn's C is
    1 / (2 n λ). A step that would raise the objective is halved. Raises ValueError for lam = 0
    if a line separates the classes, examples on the line itself aside (then no θ is lowest), or if
    n_steps were not enough, or if columns are linearly dependent and lam = 0.
    """
    penalty = np.full(X.shape[1], 2.0 * lam)
    penalty[0] = 0
    objective = lambda theta: cross_entropy(X @ theta, y) + penalty @ theta**2 / 2
    theta = np.zeros(X.shape[1])
    for _ in range(n_steps):
        z = X @ theta
        gradient = X.T @ cross_entropy_gradient(z, y) + penalty * theta
        weight = sigmoid(z) * sigmoid(-z) / len(y)  # p (1 − p) / n
        step = np.linalg.solve((X.T * weight) @ X + np.diag(penalty), gradient)
        arrived = np.abs(gradient).max() < 1e-10
        endless = arrived and np.abs(X @ step).max() > 0.1  # flat, and yet a long way to go
        if endless or (lam == 0 and ((z > 0) == (y > 0)).all()):
            raise ValueError("a line separates the classes: no θ is lowest; use lam > 0")
        if arrived:
            return theta
        while objective(theta - step) > objective(theta) + 1e-12:  # more than rounding
            step = step / 2
        theta = theta - step
    raise ValueError(f"the gradient is not zero after {n_steps} steps; use lam > 0 or more steps")


@accepts(k=_counts(0), n=_counts(1), c=rules.number(0), needs=_COUNTED)
def wald_interval(k, n, c=1.96):
    """Interval of a share from k successes of n: share ± c standard errors.

    k: scalar or array, 0 … n, with n ≥ 1; c = 1.96 is meant to cover 95 % → (low, high). It is too
    short for small n or shares near 0 and 1, and may reach beyond them; at k = 0 and k = n it has
    no width. See `wilson_interval`.
    """
    share = k / n
    half = c * np.sqrt(share * (1 - share) / n)
    return share - half, share + half


@accepts(k=_counts(0), n=_counts(1), c=rules.number(0), needs=_COUNTED)
def wilson_interval(k, n, c=1.96):
    """Interval of a share from k successes of n: all shares within c of *their* standard errors.

    k: scalar or array, 0 … n, with n ≥ 1; c = 1.96 covers about 95 % (on average over the true
    share; less for some, most so very near 0 and 1) → (low, high) in [0, 1] but for rounding.
    Source: Wilson 1927.
    """
    centre = (k + c**2 / 2) / (n + c**2)
    half = c / (n + c**2) * np.sqrt(k * (n - k) / n + c**2 / 4)
    return centre - half, centre + half


@accepts(y=rules.labels(None), predicted=rules.labels(None), needs=_PAIRED)
def confusion_matrix(y, predicted):
    """Counts [[TN, FP], [FN, TP]]: rows are the true class 0 and 1, columns the predicted one.

    y, predicted: (n,) of 0 and 1 (or bool) → (2, 2) integers, as scikit-learn orders them.
    Raises ValueError if the shapes differ, or for other values, such as probabilities.
    """
    if np.shape(y) != np.shape(predicted) or not np.isin([y, predicted], (0, 1)).all():
        raise ValueError("expected arrays of one shape that hold only 0 and 1, no probabilities")
    return np.bincount(2 * np.array(y, int) + np.array(predicted, int), minlength=4).reshape(2, 2)


@accepts(y=rules.labels(None), predicted=rules.labels(None), needs=_PAIRED)
def precision_recall_f1(y, predicted):
    """Precision, recall and their harmonic mean F1, for class 1.

    y, predicted: (n,) of 0 and 1 → three numbers in [0, 1]; a share of nothing is nan (precision
    if no 1 is predicted, recall if there is none).
    """
    (_, fp), (fn, tp) = confusion_matrix(y, predicted)
    share = lambda part, whole: part / whole if whole else np.nan
    return share(tp, tp + fp), share(tp, tp + fn), share(2 * tp, 2 * tp + fp + fn)


@accepts(y=rules.labels(), score=rules.reals(1, finite=False),
         needs=(same_length("y", "score"), _BOTH))
def roc_curve(y, score):
    """False and true positive rates at every threshold that changes the prediction score ≥ t.

    y: (n,) of 0 and 1, both present; score: (n,), any scale → fpr, tpr, thresholds, each (m + 1,)
    for m distinct scores, from (0, 0) at the threshold inf to (1, 1). Equal scores move together:
    one sloped piece, not a stair. Raises ValueError if a class is missing.
    """
    if not 0 < np.sum(y) < len(y):
        raise ValueError("expected both classes: a rate of an absent class is 0/0")
    order = np.argsort(-score, kind="stable")
    score, y = score[order], y[order]
    last = np.append(score[1:] != score[:-1], True)  # the last of each group of equal scores
    tp = np.cumsum(y)[last]
    fp = np.cumsum(1 - y)[last]
    thresholds = np.append(np.inf, score[last])
    return np.append(0, fp) / fp[-1], np.append(0, tp) / tp[-1], thresholds


@accepts(y=rules.labels(), score=rules.reals(1, finite=False),
         needs=(same_length("y", "score"), _BOTH))
def roc_auc_score(y, score):
    """Chance that a random example of class 1 scores higher than one of class 0; ties count half.

    y: (n,) of 0 and 1, both present; score: (n,) → scalar in [0, 1]. Equal to the area under
    `roc_curve`, and to the Mann–Whitney statistic over the number of pairs. Raises ValueError if
    a class is missing.
    """
    if not 0 < np.sum(y) < len(y):
        raise ValueError("expected both classes: AUC compares one with the other")
    negative = np.sort(score[y == 0])
    below = np.searchsorted(negative, score[y == 1], side="left")
    not_above = np.searchsorted(negative, score[y == 1], side="right")
    return np.mean(below + not_above) / 2 / len(negative)


@accepts(y=rules.labels(), p=_probabilities, n_bins=rules.integer(1, 10**6),
         needs=same_length("y", "p"))
def calibration_curve(y, p, n_bins=10):
    """What was predicted and what happened, in bins of equal width over [0, 1].

    y: (n,) of 0 and 1; p: (n,) predicted probabilities of class 1 → share of ones, mean
    prediction and count of each bin that is not empty. A p on an edge belongs to the bin above
    (scikit-learn: below), as p · n_bins rounds; p = 1 to the last. Raises ValueError for p outside
    [0, 1].
    """
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("expected probabilities between 0 and 1, not logits")
    bins = np.minimum((p * n_bins).astype(int), n_bins - 1)
    count = np.bincount(bins, minlength=n_bins)
    full = count > 0
    happened = np.bincount(bins, weights=y, minlength=n_bins)[full] / count[full]
    predicted = np.bincount(bins, weights=p, minlength=n_bins)[full] / count[full]
    return happened, predicted, count[full]


@accepts(y=rules.labels(), p=_probabilities, n_bins=rules.integer(1, 10**6),
         needs=same_length("y", "p"))
def expected_calibration_error(y, p, n_bins=10):
    """Mean over the examples of |share of ones − mean prediction| in their bin.

    y, p, n_bins as in `calibration_curve` → scalar in [0, 1]. Depends on the bins, and is above 0
    by chance alone: compare models on the same data and bins. Source: Naeini et al. 2015.
    """
    happened, predicted, count = calibration_curve(y, p, n_bins)
    return np.sum(count * np.abs(happened - predicted)) / len(y)
