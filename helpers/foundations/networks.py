"""Multilayer perceptrons by hand (numpy), and random features: parameters are one flat vector.

`sizes` are the units of each layer, input and output included: (64, 32, 10) has one hidden layer.
"""

from itertools import pairwise

import numpy as np

from helpers.foundations.classification import sigmoid


def activate(name, z):
    """An activation's value and its slope at z, elementwise: two arrays of z's shape.

    name: "relu", "tanh", "sigmoid" or "linear"; raises KeyError for another. The slope of ReLU
    at exactly 0 is taken as 0.
    """
    if name == "relu":
        return np.maximum(z, 0), (z > 0) * 1.0
    value = {"tanh": np.tanh, "linear": np.copy, "sigmoid": sigmoid}[name](z)
    slope = {"tanh": 1 - value**2, "linear": np.ones_like(z), "sigmoid": value * (1 - value)}
    return value, slope[name]


def init_mlp(sizes, gain, rng):
    """Random weights of standard deviation gain / √(units that feed them), and biases of zero.

    → flat vector θ (n_parameters,), layer by layer, weights before biases; draws from the numpy
    generator `rng`. A gain of √2 keeps the size of a signal through ReLU: He et al. 2015.
    """
    parts = []
    for n_in, n_out in pairwise(sizes):
        parts.append(gain / np.sqrt(n_in) * rng.standard_normal(n_in * n_out))
        parts.append(np.zeros(n_out))
    return np.concatenate(parts)


def layers_of(theta, sizes):
    """θ cut into layers: a list of (W, b), shapes (n_in, n_out) and (n_out,), views of theta.

    Writing to a view changes theta. Raises ValueError if theta has not the length that sizes need.
    """
    layers, at = [], 0
    for n_in, n_out in pairwise(sizes):
        W = theta[at:at + n_in * n_out].reshape(n_in, n_out)
        layers.append((W, theta[at + W.size:at + W.size + n_out]))
        at += W.size + n_out
    if at != len(theta):
        raise ValueError(f"{len(theta)} parameters, but the sizes {sizes} need {at}")
    return layers


def forward(theta, sizes, X, name):
    """Logits (n, sizes[-1]) of the rows of X (n, sizes[0]), and what `backward` needs.

    `name` is the hidden layers' activation; the last layer is linear. The second result is a list
    with (h, slope) of each layer: its input (n, n_in), its activation's slope (n, n_out).
    """
    layers, h, cache = layers_of(theta, sizes), X, []
    for number, (W, b) in enumerate(layers, 1):
        value, slope = activate(name if number < len(layers) else "linear", h @ W + b)
        cache.append((h, slope))
        h = value
    return h, cache


def softmax_loss(logits, labels):
    """Mean cross-entropy in nats of logits (n, k), and its gradient with respect to them (n, k).

    labels: (n,) integers from 0 to k − 1 (a negative one counts from the end, as everywhere in
    numpy). Each row's largest logit is subtracted first, so that no exponential overflows.
    """
    rows = np.arange(len(labels))
    log_p = logits - logits.max(axis=1, keepdims=True)
    log_p = log_p - np.log(np.exp(log_p).sum(axis=1, keepdims=True))
    delta = np.exp(log_p)
    delta[rows, labels] -= 1
    return -log_p[rows, labels].mean(), delta / len(labels)


def backward(theta, sizes, cache, delta):
    """Gradient of the loss in θ, flat as θ, from delta, its gradient in the logits (n, k).

    `cache` comes from `forward` with the same theta, delta from `softmax_loss`. Source:
    Rumelhart, Hinton & Williams 1986.
    """
    parts = []
    for (W, _), (h, slope) in zip(reversed(layers_of(theta, sizes)), reversed(cache), strict=True):
        delta = delta * slope
        parts = [(h.T @ delta).ravel(), delta.sum(axis=0), *parts]
        delta = delta @ W.T
    return np.concatenate(parts)


def relu_features(X, W):
    """Random features max(0, XW) / √n_features of the rows of X; W is drawn once and kept.

    X: (n, d), W: (d, n_features) → (n, n_features). Source: Rahimi & Recht 2007.
    """
    return np.maximum(X @ W, 0) / np.sqrt(W.shape[1])


def feature_fit(A, T, lam=0.0):
    """Weights of lowest Σ(A w − T)² + lam Σw²; at lam = 0 the shortest of the best.

    A: (n, n_features), T: (n, k) targets → (n_features, k). `lam` is n times the λ of chapter 01.
    At lam = 0, A needs full rank (a dead feature or a repeated row lacks it): unlike lstsq, no tiny
    singular value is cut off, so the weights come out huge, or nan at exactly 0.
    """
    U, s, Vt = np.linalg.svd(A, full_matrices=False)
    return Vt.T @ ((s / (s**2 + lam))[:, None] * (U.T @ T))
