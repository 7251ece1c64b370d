"""Linear regression from its parts: least squares, ridge, and descent with its optimisers."""

import numpy as np

from helpers.foundations import rules
from helpers.foundations.accepts import accepts, need, same_length, same_shape

_WALKED = rules.reals(1, finite=False, nan=True)  # parameters on a path that may diverge
_ANY_SHAPE, _STEP = rules.reals(finite=False, nan=True), rules.integer(0)
_TABLE, _COLUMN = rules.reals(2, least=1), rules.reals(1)
_FIT = need(lambda theta, X, y: X.shape == (len(y), len(theta)), "X of shape (len(y), len(theta))")


def _gradient(function):
    """Rule: a function θ → array of the same shape; another shape is refused when it comes."""
    rules.function(function)

    def checked(theta):
        slope = np.asarray(function(theta))
        if slope.shape != theta.shape:
            raise ValueError(f"gradient: expected shape {theta.shape}, got {slope.shape}")
        return slope

    return checked


def _varied(reference):
    """Rule: columns of which none is constant: their deviation is not 0."""
    reference = rules.reals((1, 2), least=1)(reference)
    still = (np.ptp(reference, axis=0) == 0) | (reference.std(axis=0) == 0)
    if still.any():
        raise ValueError(f"expected columns that vary, column {np.argmax(still)} is constant")
    return reference


def _bowl(definite: bool):
    """Rule: a symmetric matrix without negative eigenvalues, or (`definite`) with none of 0."""
    expected = f"expected a symmetric, positive {'definite' if definite else 'semidefinite'} matrix"

    def rule(H):
        H = rules.reals(2, least=1)(H)
        if H.shape[0] != H.shape[1] or not np.allclose(H, H.T, 0, 1e-8 * np.abs(H).max()):
            raise ValueError(expected)
        h = np.linalg.eigvalsh(H)
        rounding = len(H) * np.finfo(float).eps * np.abs(h).max()
        if h[-1] <= 0 or h[0] < -rounding or (definite and h[0] <= rounding):
            raise ValueError(f"{expected}, got eigenvalues from {h[0]:.3g} to {h[-1]:.3g}")
        return H

    return rule


def _adam_state(state):
    """Rule: (step, mean, square), each average a number or of the parameters' shape."""
    if not isinstance(state, tuple | list) or len(state) != 3:
        raise ValueError("expected (step, mean, square), at the start (0, 0.0, 0.0)")
    return _STEP(state[0]), _ANY_SHAPE(state[1]), _ANY_SHAPE(state[2])


@accepts(x=rules.reals((1, 2)))
def design_matrix(x):
    """One row [1, features] per example, so that the intercept is a parameter like the others.

    x: (n,) for one feature or (n, d) → (n, 2) or (n, 1 + d), float64.
    """
    features = np.asarray(x, dtype=float)
    if features.ndim == 1:
        features = features[:, None]
    return np.hstack([np.ones((len(features), 1)), features])


@accepts(theta=_WALKED, X=_TABLE, y=_COLUMN, needs=_FIT)
def mse(theta, X, y):
    """Mean squared error of the predictions X θ, in the unit of y squared.

    theta: (p,), X: (n, p), y: (n,) → scalar. theta may come from a path that diverged: inf, nan.
    """
    return np.mean((X @ theta - y) ** 2)


@accepts(theta=_WALKED, X=_TABLE, y=_COLUMN, needs=_FIT)
def mse_gradient(theta, X, y):
    """Gradient of `mse` in θ, factor 2 included: 2/n Xᵀ(Xθ − y).

    theta: (p,), X: (n, p), y: (n,) → (p,). Without the 2 it is the gradient of half the MSE.
    """
    return 2 / len(y) * X.T @ (X @ theta - y)


@accepts(X=rules.reals(2))
def independent(X):
    """Whether no column of X (n, p) is a sum of others, up to rounding, whatever their units."""
    return np.linalg.matrix_rank(X / np.maximum(np.linalg.norm(X, axis=0), 1e-300)) == X.shape[1]


@accepts(X=_TABLE, y=_COLUMN, needs=(
    same_length("X", "y"), need(lambda X: independent(X), "linearly independent columns")))
def normal_equations(X, y):
    """θ from XᵀX θ = Xᵀy: short, but the condition number of X enters squared.

    X: (n, p), y: (n,) → (p,). Raises ValueError if the columns of X are linearly dependent; if they
    are only nearly so, the answer is wrong without a warning. `least_squares` is the safe way.
    """
    return np.linalg.solve(X.T @ X, X.T @ y)


@accepts(X=_TABLE, y=_COLUMN, needs=same_length("X", "y"))
def least_squares(X, y):
    """θ with the lowest MSE, by X = QR and then R θ = Qᵀy.

    X: (n, p), y: (n,) → (p,). Raises ValueError if the columns of X are linearly dependent,
    which includes n < p: then more than one θ is best.
    """
    Q, R = np.linalg.qr(X)
    if np.linalg.matrix_rank(R) < X.shape[1]:
        raise ValueError("the columns of X are linearly dependent: no unique least-squares fit")
    return np.linalg.solve(R, Q.T @ y)


@accepts(x=rules.reals((1, 2)), reference=_varied, needs=need(
    lambda x, reference: x.shape[1:] == reference.shape[1:] and x.ndim == reference.ndim,
    "the same columns in both"))
def standardise(x, reference):
    """x in units of the reference's columns: minus their mean, over their standard deviation.

    x: (n, d), reference: (m, d) → (n, d) without unit. The reference is the training set also
    when x is held out. Raises ValueError for a constant column of the reference.
    """
    return (x - reference.mean(axis=0)) / reference.std(axis=0)


@accepts(X=_TABLE, y=_COLUMN, lam=rules.number(0), penalise_intercept=rules.a(bool, np.bool_),
         needs=same_length("X", "y"))
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


@accepts(X=_TABLE, lam=rules.number(0), needs=need(
    lambda X, lam: lam > 0 or independent(X - [0, *X[:, 1:].mean(axis=0)]),
    "a penalty above 0 where features are linearly dependent"))
def shrinkage(X, lam):
    """Factors s²/(s² + nλ) by which ridge shrinks a fit along each principal direction.

    X: (n, 1 + d) with the ones in column 0 → (min(n, d),), in [0, 1], largest first. s are the
    singular values of the centred features; the intercept is not penalised. Raises ValueError for
    linearly dependent features if lam = 0: then some factors would be 0/0.
    """
    s = np.linalg.svd(X[:, 1:] - X[:, 1:].mean(axis=0), compute_uv=False)
    return s**2 / (s**2 + len(X) * lam)


@accepts(gradient=_gradient, theta=rules.reals(1, least=1), lr=rules.number(0),
         n_steps=rules.integer(0))
def descend(gradient, theta, lr, n_steps):
    """The path of gradient descent: theta ← theta − lr · gradient(theta), n_steps times.

    gradient: function (p,) → (p,); theta: (p,) start, left unchanged → (n_steps + 1, p). A rate
    above the stability bound gives values that grow, and in the end inf and nan. Raises ValueError
    if the gradient has another shape than theta.
    """
    path = [theta]
    for _ in range(n_steps):
        path.append(path[-1] - lr * gradient(path[-1]))
    return np.array(path)


@accepts(X=_TABLE)
def mse_hessian(X):
    """Second derivatives of the mean squared error in θ: H = 2/n XᵀX, whatever θ and y are.

    X: (n, p) → (p, p), in the unit of y² per unit of θ squared.
    """
    return 2 / len(X) * X.T @ X


@accepts(H=_bowl(definite=False))
def stability_bound(H):
    """The learning rate above which gradient descent on a bowl with Hessian H diverges: 2/h_max.

    H: (p, p), symmetric, no eigenvalue negative, one positive → scalar.
    """
    return 2 / np.linalg.eigvalsh(H)[-1]


@accepts(H=_bowl(definite=True))
def condition_number(H):
    """Steepest over flattest curvature, κ = h_max / h_min.

    H: (p, p), symmetric and positive definite, beyond rounding → scalar ≥ 1.
    """
    h = np.linalg.eigvalsh(H)
    return h[-1] / h[0]


@accepts(theta=_ANY_SHAPE, velocity=_ANY_SHAPE, gradient=_ANY_SHAPE, lr=rules.number(0),
         beta=rules.number(0, below=1), needs=same_shape("theta", "velocity", "gradient"))
def momentum_step(theta, velocity, gradient, lr, beta):
    """One step of momentum as in PyTorch: v ← beta·v + gradient, θ ← θ − lr·v.

    All of shape (p,) → (theta, velocity), new arrays; 0 ≤ beta < 1. At a steady gradient the step
    is lr / (1 − beta) times it. Source: Polyak 1964.
    """
    velocity = beta * velocity + gradient
    return theta - lr * velocity, velocity


@accepts(theta=_ANY_SHAPE, state=_adam_state, gradient=_ANY_SHAPE, lr=rules.number(0),
         beta1=rules.number(0, below=1), beta2=rules.number(0, below=1), eps=rules.number(0),
         needs=(same_shape("theta", "gradient"), need(
             lambda theta, state: all(a.shape in ((), theta.shape) for a in state[1:]),
             "averages of theta's shape")))
def adam_step(theta, state, gradient, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    """One step of Adam; `state` is (step, mean, square) and starts as (0, 0.0, 0.0).

    theta, gradient: (p,) → (theta, state), new objects; betas below 1. Averages of the gradient and
    of its square, both corrected for their start at zero. Source: Kingma & Ba 2014, Algorithm 1.
    """
    step, mean, square = state[0] + 1, state[1], state[2]
    mean = beta1 * mean + (1 - beta1) * gradient
    square = beta2 * square + (1 - beta2) * gradient**2
    mean_hat = mean / (1 - beta1**step)
    square_hat = square / (1 - beta2**step)
    return theta - lr * mean_hat / (np.sqrt(square_hat) + eps), (step, mean, square)


@accepts(theta=rules.reals(1, least=1), X=_TABLE, y=_COLUMN, rates=rules.reals(1, 0),
         batch_size=rules.integer(1), rng=rules.a(np.random.Generator), needs=_FIT)
def sgd(theta, X, y, rates, batch_size, rng):
    """The path of stochastic gradient descent on the MSE, one learning rate per step.

    theta: (p,), X: (n, p), y: (n,), rates: (n_steps,) → (n_steps + 1, p). Each step draws
    batch_size rows with replacement from the numpy generator `rng`.
    """
    path = [theta]
    for lr in rates:
        rows = rng.integers(len(y), size=batch_size)
        path.append(path[-1] - lr * mse_gradient(path[-1], X[rows], y[rows]))
    return np.array(path)


@accepts(step=rules.integer(0), n_steps=rules.integer(1), warmup_steps=rules.integer(0), needs=need(
    lambda step, n_steps, warmup_steps: step < n_steps and warmup_steps < n_steps,
    "a step and a warm-up below n_steps"))
def cosine(step, n_steps, warmup_steps):
    """Share of the peak learning rate at a step: linear warm-up, then half a cosine towards 0.

    step: 0 … n_steps − 1; warmup_steps < n_steps. Source: Loshchilov & Hutter 2016, no restarts.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    done = (step - warmup_steps) / (n_steps - warmup_steps)
    return (1 + np.cos(np.pi * done)) / 2
