"""Linear regression from its parts: least squares, ridge, descent, and its own scaling laws."""

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


def descend(gradient, theta, lr, n_steps):
    """The path of gradient descent: theta ← theta − lr · gradient(theta), n_steps times.

    gradient: function (p,) → (p,); theta: (p,) start, left unchanged → (n_steps + 1, p). A rate
    above the stability bound gives values that grow, and in the end inf and nan.
    """
    path = [theta]
    for _ in range(n_steps):
        path.append(path[-1] - lr * gradient(path[-1]))
    return np.array(path)


def mse_hessian(X):
    """Second derivatives of the mean squared error in θ: H = 2/n XᵀX, whatever θ and y are.

    X: (n, p) → (p, p), in the unit of y² per unit of θ squared.
    """
    return 2 / len(X) * X.T @ X


def stability_bound(H):
    """The learning rate above which gradient descent on a bowl with Hessian H diverges: 2/h_max.

    H: (p, p), symmetric and positive definite → scalar.
    """
    return 2 / np.linalg.eigvalsh(H)[-1]


def condition_number(H):
    """Steepest over flattest curvature, κ = h_max / h_min.

    H: (p, p), symmetric and positive definite → scalar ≥ 1.
    """
    h = np.linalg.eigvalsh(H)
    return h[-1] / h[0]


def loss_after_steps(steps, h, e, lr):
    """Loss above its minimum after full-batch descent on a bowl: ½ Σ h e² (1 − lr·h)^(2·steps).

    h: (p,) curvatures (eigenvalues of the Hessian), e: (p,) start minus minimum along the same
    directions; steps: an integer or (k,) integers → scalar or (k,). Exact, up to rounding.
    """
    shrink = (1 - lr * h) ** (2 * np.asarray(steps)[..., None])
    return np.sum(h * e**2 * shrink, axis=-1) / 2


def momentum_step(theta, velocity, gradient, lr, beta):
    """One step of momentum as in PyTorch: v ← beta·v + gradient, θ ← θ − lr·v.

    All of shape (p,) → (theta, velocity), new arrays. At a steady gradient the step is
    lr / (1 − beta) times it. Source: Polyak 1964.
    """
    velocity = beta * velocity + gradient
    return theta - lr * velocity, velocity


def adam_step(theta, state, gradient, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    """One step of Adam; `state` is (step, mean, square) and starts as (0, 0.0, 0.0).

    theta, gradient: (p,) → (theta, state), new objects. Averages of the gradient and of its
    square, both corrected for their start at zero. Source: Kingma & Ba 2014, Algorithm 1.
    """
    step, mean, square = state[0] + 1, state[1], state[2]
    mean = beta1 * mean + (1 - beta1) * gradient
    square = beta2 * square + (1 - beta2) * gradient**2
    mean_hat = mean / (1 - beta1**step)
    square_hat = square / (1 - beta2**step)
    return theta - lr * mean_hat / (np.sqrt(square_hat) + eps), (step, mean, square)


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


def cosine(step, n_steps, warmup_steps):
    """Share of the peak learning rate at a step: linear warm-up, then half a cosine towards 0.

    step: 0 … n_steps − 1. Source: Loshchilov & Hutter 2016, without restarts.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    done = (step - warmup_steps) / (n_steps - warmup_steps)
    return (1 + np.cos(np.pi * done)) / 2


def loss_with_features(N, signal):
    """Loss of the best predictor from the first N independent features: what the rest explains.

    signal: (n_features,) variance of y that each feature explains; N: an integer or (k,)
    integers, at most n_features → scalar or (k,).
    """
    tail = np.append(np.cumsum(signal[::-1])[::-1], 0.0)
    return tail[N]


def smallest_fit(X, y):
    """The shortest θ that fits all samples, Xᵀ(XXᵀ)⁻¹y, where rows are fewer than columns.

    X: (D, p) of rank D < p, y: (D,) → (p,). Gradient descent from θ = 0 ends here.
    """
    return X.T @ np.linalg.solve(X @ X.T, y)


def loss_with_samples(D, eigenvalues, signal, rng):
    """Loss, on fresh data, of the smallest fit to D random samples without label noise.

    eigenvalues, signal: (n_features,) variance of each Gaussian feature, and variance of y that
    it explains; D well below n_features; draws from the numpy generator `rng` → scalar.
    """
    w = np.sqrt(signal / eigenvalues)
    X = rng.standard_normal((D, len(eigenvalues))) * np.sqrt(eigenvalues)
    return np.sum(eigenvalues * (smallest_fit(X, X @ w) - w) ** 2)
