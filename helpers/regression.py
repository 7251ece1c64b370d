"""Linear regression from its parts: design matrix, MSE and gradient, least squares, ridge."""

import numpy as np


def design_matrix(x):
    """One row [1, features] per example, so that the intercept is a parameter like the others.

    x: (n,) for one feature or (n, d) → (n, 2) or (n, 1 + d), float64. Raises ValueError (from
    numpy) for x of another dimension.
    """
    features = np.asarray(x, dtype=float)
    if features.ndim == 1:
        features = features[:, None]
    return np.hstack([np.ones((len(features), 1)), features])


def mse(theta, X, y):
    """Mean squared error of the predictions X θ, in the unit of y squared.

    theta: (p,), X: (n, p), y: (n,) → scalar.
    """
    return np.mean((X @ theta - y) ** 2)


def mse_gradient(theta, X, y):
    """Gradient of `mse` in θ, factor 2 included: 2/n Xᵀ(Xθ − y).

    theta: (p,), X: (n, p), y: (n,) → (p,). Without the 2 it is the gradient of half the MSE.
    """
    return 2 / len(y) * X.T @ (X @ theta - y)


def normal_equations(X, y):
    """θ from XᵀX θ = Xᵀy: short, but the condition number of X enters squared.

    X: (n, p), y: (n,) → (p,). Raises numpy's LinAlgError if XᵀX is exactly singular; if it is
    only nearly so, the answer is wrong without a warning. `least_squares` is the safe way.
    """
    return np.linalg.solve(X.T @ X, X.T @ y)


def least_squares(X, y):
    """θ with the lowest MSE, by X = QR and then R θ = Qᵀy.

    X: (n, p), y: (n,) → (p,). Raises ValueError if the columns of X are linearly dependent,
    which includes n < p: then more than one θ is best.
    """
    Q, R = np.linalg.qr(X)
    if np.linalg.matrix_rank(R) < X.shape[1]:
        raise ValueError("the columns of X are linearly dependent: no unique least-squares fit")
    return np.linalg.solve(R, Q.T @ y)


def standardise(x, reference):
    """x in units of the reference's columns: minus their mean, over their standard deviation.

    x: (n, d), reference: (m, d) → (n, d) without unit. The reference is the training set also
    when x is held out. A constant column of the reference gives numpy's division warning.
    """
    return (x - reference.mean(axis=0)) / reference.std(axis=0)


def ridge(X, y, lam, penalise_intercept=False):
    """θ that minimises mse(θ) + λ Σ θ_j², as least squares with one extra row per parameter.

    X: (n, p) with the ones in column 0, y: (n,) → (p,). `lam` is scikit-learn's alpha / n.
    The sum leaves θ_0 out unless `penalise_intercept`. Raises ValueError if lam < 0, or for
    linearly dependent columns if lam = 0.
    """
    if lam < 0:
        raise ValueError(f"lam={lam}: expected a penalty of 0 or more")
    penalty = np.full(X.shape[1], np.sqrt(len(y) * lam))
    if not penalise_intercept:
        penalty[0] = 0
    rows = np.vstack([X, np.diag(penalty)])
    return least_squares(rows, np.concatenate([y, np.zeros(X.shape[1])]))


def shrinkage(X, lam):
    """Factors s²/(s² + nλ) by which ridge shrinks a fit along each principal direction.

    X: (n, 1 + d) with the ones in column 0 → (min(n, d),), in [0, 1], largest first. s are the
    singular values of the centred features; the intercept is not penalised.
    """
    s = np.linalg.svd(X[:, 1:] - X[:, 1:].mean(axis=0), compute_uv=False)
    return s**2 / (s**2 + len(X) * lam)
