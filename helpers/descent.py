"""Gradient descent from its parts: steps, bounds, schedules, and the scaling laws of a line."""

import numpy as np

from helpers.regression import mse_gradient


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
