"""Solutions of chapter 01, and the mistakes that its checker knows."""

import numpy as np

from helpers.exercises import IN_PLACE, exercise
from helpers.foundations.regression import design_matrix, mse, mse_gradient, ridge, shrinkage


def _problem(seed: int, n: int, d: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parameters, design matrix and noisy targets with a mean far from zero."""
    rng = np.random.default_rng(seed)
    X = design_matrix(rng.normal(3, 2, (n, d)) * np.arange(1, d + 1))
    theta = rng.normal(0, 2, d + 1) + np.eye(d + 1)[0] * 10
    return theta + rng.normal(0, 0.2, d + 1), X, X @ theta + rng.normal(0, 3, n)


@exercise("01.1", tests="k is within a third of a decade of the figure's crossing",
          hints=("Find 1e-6 on the vertical axis, go right to the upper curve, then down.",
                 "The axis shows κ = 10^k; return k. The error there is about 1e-16 κ²."),
          cases=((),), rtol=0.07,
          wrong={"You read QR's curve: it would reach 1e-6 only right of the figure's edge. "
                 "The normal equations are the upper curve.": lambda: 10.7,
                 "That is the condition number; the exercise asks for its power of ten, k.":
                 lambda: 1e5,
                 "That is the power of ten of the error, not of κ.": lambda: -6,
                 "There the normal equations have lost every digit (error about 1). "
                 "Stop at an error of 1e-6.": lambda: 8})
def digits_spent():
    """The k at which the error of the normal equations reaches 1e-6 for κ = 10^k."""
    return 5.0


def _r_squared_in_place(theta, X, y):
    y -= X @ theta
    return 1 - np.mean(y**2) / np.var(y + X @ theta)


@exercise("01.2", tests="3 data sets, one of them with parameters that predict badly",
          hints=("Both sums run over the examples; the lower one is about the mean of y.",
                 "1 - ((y - X @ theta)**2).sum() / ((y - y.mean())**2).sum()"),
          cases=(_problem(1, 30, 2), _problem(2, 50, 4),
                 (np.array([1.0, -1.0, 0.5]), *_problem(3, 20, 2)[1:])),
          wrong={"That is the unexplained share; R² is 1 minus it.":
                 lambda t, X, y: mse(t, X, y) / np.var(y),
                 "The lower sum is about zero; take y minus its mean.":
                 lambda t, X, y: 1 - mse(t, X, y) / np.mean(y**2),
                 "That is the MSE. Divide it by the variance of y and take it from 1.":
                 lambda t, X, y: mse(t, X, y),
                 "You divided the roots (RMSE over standard deviation); R² compares the squares.":
                 lambda t, X, y: 1 - np.sqrt(mse(t, X, y) / np.var(y)),
                 "That is the variance of the predictions over that of y. It equals R² only at "
                 "the least-squares fit.": lambda t, X, y: np.var(X @ t) / np.var(y),
                 IN_PLACE: _r_squared_in_place})
def r_squared(theta, X, y):
    """Share of the variance of y (n,) that the predictions X θ explain: at most 1."""
    unexplained = ((y - X @ theta) ** 2).sum()
    return 1 - unexplained / ((y - y.mean()) ** 2).sum()


def _penalty(theta, first=0.0):
    return np.concatenate([[first], theta[1:]])


def _ridge_gradient_in_place(theta, X, y, lam):
    gradient = mse_gradient(theta, X, y)
    theta[0] = 0
    return gradient + 2 * lam * theta


@exercise("01.3", tests="3 problems, with 1 to 4 features and different λ",
          hints=("The MSE's part is mse_gradient. Differentiate λ θ_j² for one j ≥ 1.",
                 "Add 2 λ θ, with a zero in place of θ_0. Copy θ before you set that zero."),
          cases=((*_problem(4, 20, 1), 0.5), (*_problem(5, 30, 3), 2.0),
                 (*_problem(6, 40, 4), 10.0)),
          wrong={"The penalty's gradient lacks the factor 2 of the square.":
                 lambda t, X, y, lam: mse_gradient(t, X, y) + lam * _penalty(t),
                 "The intercept is penalised; its entry gets nothing from λ.":
                 lambda t, X, y, lam: mse_gradient(t, X, y) + 2 * lam * t,
                 "The sign of the penalty is flipped: J adds it.":
                 lambda t, X, y, lam: mse_gradient(t, X, y) - 2 * lam * _penalty(t),
                 "The penalty is divided by n; in this J only the MSE is a mean.":
                 lambda t, X, y, lam: mse_gradient(t, X, y) + 2 * lam / len(y) * _penalty(t),
                 "The MSE's gradient lacks its factor 2.":
                 lambda t, X, y, lam: mse_gradient(t, X, y) / 2 + 2 * lam * _penalty(t),
                 "The MSE's gradient is summed over the examples; take the mean.":
                 lambda t, X, y, lam: mse_gradient(t, X, y) * len(y) + 2 * lam * _penalty(t),
                 "The residual is Xθ − y: with y − Xθ the sign of the MSE's part is flipped.":
                 lambda t, X, y, lam: -mse_gradient(t, X, y) + 2 * lam * _penalty(t),
                 "The whole gradient has the opposite sign.":
                 lambda t, X, y, lam: -mse_gradient(t, X, y) - 2 * lam * _penalty(t),
                 "Both factors 2 are missing: this is the gradient of J/2.":
                 lambda t, X, y, lam: mse_gradient(t, X, y) / 2 + lam * _penalty(t),
                 "The penalty is missing.": lambda t, X, y, lam: mse_gradient(t, X, y),
                 IN_PLACE: _ridge_gradient_in_place})
def ridge_gradient(theta, X, y, lam):
    """Gradient (1 + d,) of J in θ; column 0 of X is ones, and the intercept is not penalised."""
    penalty = 2 * lam * theta
    penalty[0] = 0
    return mse_gradient(theta, X, y) + penalty


def _singular(X):
    return np.linalg.svd(X[:, 1:] - X[:, 1:].mean(axis=0), compute_uv=False)


def _all_penalised(X, lam):
    s = np.linalg.svd(X, compute_uv=False)
    return np.sum(s**2 / (s**2 + len(X) * lam))


@exercise("01.4", tests="3 design matrices, from no penalty to a strong one",
          hints=("`shrinkage(X, lam)` gives the factor of each direction of the features.",
                 "Add the factors, and 1 for the intercept, which is not shrunk."),
          cases=((_problem(8, 30, 4)[1], 3.0), (_problem(7, 20, 2)[1], 0.0),
                 (_problem(9, 15, 6)[1], 100.0)),
          wrong={"The intercept is missing; it is free and counts as one.":
                 lambda X, lam: shrinkage(X, lam).sum(),
                 "You counted the columns; the penalty does not change their number.":
                 lambda X, lam: X.shape[1],
                 "The penalty lacks the factor n: the factors are s²/(s² + nλ).":
                 lambda X, lam: 1 + shrinkage(X, lam / len(X)).sum(),
                 "You averaged the factors; they add up.":
                 lambda X, lam: 1 + shrinkage(X, lam).mean(),
                 "The singular values are not squared.":
                 lambda X, lam: 1 + np.sum(_singular(X) / (_singular(X) + len(X) * lam)),
                 "The column of ones is shrunk like the others; centre the features and leave it "
                 "out.": _all_penalised})
def effective_parameters(X, lam):
    """Effective number of parameters of a ridge fit with free intercept: 1 to 1 + d."""
    return 1 + shrinkage(X, lam).sum()


def _mean_errors(X, y, lambdas, n_folds, swap=False, everything=False):
    fold = np.arange(len(y)) % n_folds
    errors = np.zeros(len(lambdas))
    for k in range(n_folds):
        fit = (fold == k) if swap else (fold != k)
        judge = np.ones(len(y), bool) if everything else ~fit
        for i, lam in enumerate(lambdas):
            errors[i] += mse(ridge(X[fit], y[fit], lam), X[judge], y[judge]) / n_folds
    return errors


def _block_errors(X, y, lambdas, n_folds):
    order = np.argsort(np.arange(len(y)) % n_folds, kind="stable")  # blocks become every k-th
    back = np.empty_like(order)
    back[order] = np.arange(len(y))
    return _mean_errors(X[back], y[back], lambdas, n_folds)


def _few(seed: int, n: int, d: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = design_matrix(rng.normal(size=(n, d)))
    return X, 20 + X[:, 1:] @ rng.normal(size=d) + rng.normal(0, noise, n)


_GRID = np.array([0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0])


@exercise("01.5", tests="the λ of 3 training sets, with 4, 5 and 6 folds",
          hints=("For each λ and each fold: a mask `np.arange(len(y)) % n_folds != k` selects "
                 "what to fit on, its opposite what to judge on.",
                 "Collect mse(ridge(X[fit], y[fit], lam), X[~fit], y[~fit]), average over the "
                 "folds, and return lambdas[argmin]."),
          cases=((*_few(1, 20, 8, 3.0), _GRID, 4), (*_few(2, 30, 8, 4.0), _GRID, 5),
                 (*_few(3, 24, 6, 2.0), _GRID, 6)),
          wrong={"You judged on the examples you fitted on: that always picks the smallest λ.":
                 lambda X, y, lams, k: lams[np.argmin([mse(ridge(X, y, a), X, y) for a in lams])],
                 "You returned the place in the list; return the λ that stands there.":
                 lambda X, y, lams, k: int(np.argmin(_mean_errors(X, y, lams, k))),
                 "Your folds are blocks; example i belongs to fold i % n_folds.":
                 lambda X, y, lams, k: lams[np.argmin(_block_errors(X, y, lams, k))],
                 "You took the λ with the highest error.":
                 lambda X, y, lams, k: lams[np.argmax(_mean_errors(X, y, lams, k))],
                 "You fitted on the one fold and judged on the others; it is the other way round.":
                 lambda X, y, lams, k: lams[np.argmin(_mean_errors(X, y, lams, k, swap=True))],
                 "You returned the error; return the λ that has it.":
                 lambda X, y, lams, k: _mean_errors(X, y, lams, k).min()})
def choose_lambda(X, y, lambdas, n_folds):
    """The entry of `lambdas` with the lowest mean held-out MSE over n_folds folds."""
    fold = np.arange(len(y)) % n_folds
    errors = []
    for lam in lambdas:
        judged = [mse(ridge(X[fold != k], y[fold != k], lam), X[fold == k], y[fold == k])
                  for k in range(n_folds)]
        errors.append(np.mean(judged))
    return lambdas[int(np.argmin(errors))]
