"""Networks by hand (numpy), drawn digits, random features, what a linear fit with few loses.

A network's parameters are one flat vector. `sizes` are the units of each layer, input and output
included: (64, 32, 10) has one hidden layer.
"""

from itertools import pairwise

import numpy as np

from helpers.foundations import rules
from helpers.foundations.accepts import accepts, need, same_length
from helpers.foundations.classification import sigmoid
from helpers.foundations.regression import independent

CORNERS = np.array([[-1, -2], [1, -2], [-1, 0], [1, 0], [-1, 2], [1, 2]]) / 2  # x, y of an 8
STROKES = ((0, 1), (0, 2), (1, 3), (2, 3), (2, 4), (3, 5), (4, 5))  # corners that each one joins
LIT = ("1110111", "0010010", "1011101", "1011011", "0111010",  # strokes of the digits 0 … 9
       "1101011", "1101111", "1010010", "1111111", "1111011")
_ACTIVATION = rules.one_of("relu", "tanh", "sigmoid", "linear")
_GENERATOR = rules.a(np.random.Generator)
_TABLE = rules.reals(2, least=1)
_UNITS = rules.each(rules.integer(1), least=2)


def _sizes(values):
    """Rule: units of at least two layers → tuple."""
    return tuple(_UNITS(values))


def _cut(given) -> str:
    """A need: as many parameters as the layers of these sizes have."""
    theta, sizes = given["theta"], given["sizes"]
    wanted = sum((n_in + 1) * n_out for n_in, n_out in pairwise(sizes))
    return "" if len(theta) == wanted else (
        f"{len(theta)} parameters, but the sizes {sizes} need {wanted}")


def _cached(sizes, cache, delta) -> bool:
    """A need: the inputs and slopes of each layer, for as many examples as delta has."""
    wanted = [((len(delta), n_in), (len(delta), n_out)) for n_in, n_out in pairwise(sizes)]
    return delta.shape == wanted[-1][1] and [(h.shape, slope.shape) for h, slope in cache] == wanted


@accepts(name=_ACTIVATION, z=rules.reals())
def activate(name, z):
    """An activation's value and its slope at z, elementwise: two arrays of z's shape.

    name: "relu", "tanh", "sigmoid" or "linear". The slope of ReLU at exactly 0 is taken as 0.
    """
    if name == "relu":
        return np.maximum(z, 0), (z > 0) * 1.0
    value = {"tanh": np.tanh, "linear": np.copy, "sigmoid": sigmoid}[name](z)
    slope = {"tanh": 1 - value**2, "linear": np.ones_like(z), "sigmoid": value * (1 - value)}
    return value, slope[name]


@accepts(sizes=_sizes, gain=rules.number(0), rng=_GENERATOR)
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


@accepts(theta=rules.reals(1), sizes=_sizes, needs=_cut)
def layers_of(theta, sizes):
    """θ cut into layers: a list of (W, b), shapes (n_in, n_out) and (n_out,), views of theta.

    Writing to a view changes theta, if that is an array of float64. Raises ValueError if theta has
    not the length that sizes need.
    """
    layers, at = [], 0
    for n_in, n_out in pairwise(sizes):
        W = theta[at:at + n_in * n_out].reshape(n_in, n_out)
        layers.append((W, theta[at + W.size:at + W.size + n_out]))
        at += W.size + n_out
    if at != len(theta):
        raise ValueError(f"{len(theta)} parameters, but the sizes {sizes} need {at}")
    return layers


@accepts(theta=rules.reals(1), sizes=_sizes, X=rules.reals(2), name=_ACTIVATION, needs=(
    _cut, need(lambda X, sizes: X.shape[1] == sizes[0], "a column of X for each input")))
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


@accepts(logits=_TABLE, labels=rules.integers(1, 0), needs=(same_length("logits", "labels"), need(
    lambda logits, labels: labels.max(initial=0) < logits.shape[1], "labels below the number of "
    "columns")))
def softmax_loss(logits, labels):
    """Mean cross-entropy in nats of logits (n, k), and its gradient with respect to them (n, k).

    labels: (n,) integers from 0 to k − 1, n ≥ 1. Each row's largest logit is subtracted first,
    so that no exponential overflows.
    """
    rows = np.arange(len(labels))
    log_p = logits - logits.max(axis=1, keepdims=True)
    log_p = log_p - np.log(np.exp(log_p).sum(axis=1, keepdims=True))
    delta = np.exp(log_p)
    delta[rows, labels] -= 1
    return -log_p[rows, labels].mean(), delta / len(labels)


@accepts(theta=rules.reals(1), sizes=_sizes, cache=rules.a(list, tuple), delta=rules.reals(2),
         needs=(_cut, need(_cached, "what `forward` cached for these sizes and examples")))
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


@accepts(X=rules.reals(2), W=_TABLE, needs=need(
    lambda X, W: X.shape[1] == len(W), "a row of W for each column of X"))
def relu_features(X, W):
    """Random features max(0, XW) / √n_features of the rows of X; W is drawn once and kept.

    X: (n, d), W: (d, n_features) → (n, n_features). Source: Rahimi & Recht 2007.
    """
    return np.maximum(X @ W, 0) / np.sqrt(W.shape[1])


@accepts(A=_TABLE, T=rules.reals(2), lam=rules.number(0), needs=(same_length("A", "T"), need(
    lambda A, lam: lam > 0 or np.linalg.matrix_rank(A) == min(A.shape),
    "features of full rank (none dead, no row twice), or lam > 0")))
def feature_fit(A, T, lam=0.0):
    """Weights of lowest Σ(A w − T)² + lam Σw²; at lam = 0 the shortest of the best.

    A: (n, n_features), T: (n, k) targets → (n_features, k). `lam` is n times the λ of chapter 01.
    Raises ValueError at lam = 0 if A lacks full rank, by a dead feature or a repeated row: no
    singular value is cut off as in lstsq, so the weights would be rounding errors over 0.
    """
    U, s, Vt = np.linalg.svd(A, full_matrices=False)
    return Vt.T @ ((s / (s**2 + lam))[:, None] * (U.T @ T))


@accepts(steps=rules.integers((0, 1), 0, 2**62), h=rules.reals(1), e=rules.reals(1),
         lr=rules.number(0), needs=same_length("h", "e"))
def loss_after_steps(steps, h, e, lr):
    """Loss above its minimum after full-batch descent on a bowl: ½ Σ h e² (1 − lr·h)^(2·steps).

    h: (p,) curvatures (eigenvalues of the Hessian), e: (p,) start minus minimum along the same
    directions; steps: an integer or (k,) integers → scalar or (k,). Exact, up to rounding.
    """
    shrink = (1 - lr * h) ** (2 * np.asarray(steps)[..., None])
    return np.sum(h * e**2 * shrink, axis=-1) / 2


@accepts(N=rules.integers((0, 1), 0), signal=rules.reals(1, 0), needs=need(
    lambda N, signal: N.max(initial=0) <= len(signal), "N at most the number of features"))
def loss_with_features(N, signal):
    """Loss of the best predictor from the first N independent features: what the rest explains.

    signal: (n_features,) variance of y that each feature explains; N: an integer or (k,)
    integers, at most n_features → scalar or (k,).
    """
    tail = np.append(np.cumsum(signal[::-1])[::-1], 0.0)
    return tail[N]


@accepts(X=rules.reals(2), y=rules.reals(1), needs=(same_length("X", "y"), need(
    lambda X: independent(X @ X.T), "linearly independent rows, at most as many as columns")))
def smallest_fit(X, y):
    """The shortest θ that fits all samples, Xᵀ(XXᵀ)⁻¹y, where rows are fewer than columns.

    X: (D, p) of rank D ≤ p, y: (D,) → (p,). Gradient descent from θ = 0 ends here.
    """
    return X.T @ np.linalg.solve(X @ X.T, y)


@accepts(D=rules.integer(0), eigenvalues=rules.reals(1, above=0), signal=rules.reals(1, 0),
         rng=_GENERATOR, needs=(same_length("eigenvalues", "signal"), need(
             lambda D, eigenvalues: len(eigenvalues) >= D, "D at most the number of features")))
def loss_with_samples(D, eigenvalues, signal, rng):
    """Loss, on fresh data, of the smallest fit to D random samples without label noise.

    eigenvalues, signal: (n_features,) variance of each Gaussian feature, and variance of y that
    it explains; D well below n_features; draws from the numpy generator `rng` → scalar.
    """
    w = np.sqrt(signal / eigenvalues)
    X = rng.standard_normal((D, len(eigenvalues))) * np.sqrt(eigenvalues)
    return np.sum(eigenvalues * (smallest_fit(X, X @ w) - w) ** 2)


def _draws(value):
    """Rule: a generator of random numbers."""
    if not all(hasattr(value, name) for name in ("integers", "normal", "uniform")):
        raise TypeError(f"expected a numpy generator, got {type(value).__name__}")
    return value


@accepts(n=rules.integer(0), rng=_draws, side=rules.integer(1),
         bend=rules.number(0, 1e9), tilt=rules.number(0, 1e9), noise=rules.number(0, 1e9))
def glyphs(n: int, rng: np.random.Generator, side: int = 10, bend: float = 0.1,
           tilt: float = 0.15, noise: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """Any number of random images of the digits 0–9, drawn with seven strokes each.

    Returns images (n, side²), grey values from 0 to 1 plus Gaussian noise of standard deviation
    `noise`, and labels (n,), each digit equally likely. Each glyph is stretched, moved and rotated
    (`tilt`: standard deviation in radians), and each of its six corners moved (`bend`: standard
    deviation in widths of a glyph). Draws from the numpy generator `rng`.
    """
    labels, angle = rng.integers(10, size=n), rng.normal(0, tilt, n)
    corners = CORNERS + rng.normal(0, bend, (n, 6, 2))
    corners = corners * rng.uniform((0.41, 0.47), (0.6, 0.68), (n, 2))[:, None]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])  # (2, 2, n)
    corners = np.einsum("ijn,ncj->nci", turn, corners) + rng.uniform(-0.25, 0.25, (n, 1, 2))
    pixel = np.linspace(-1, 1, side)
    pixels = np.stack(np.meshgrid(pixel, pixel), axis=-1).reshape(-1, 2)
    images = np.zeros((n, side**2))
    for number, (start, end) in enumerate(STROKES):
        drawn = np.array([lit[number] == "1" for lit in LIT])[labels]
        origin, along = corners[drawn, start], corners[drawn, end] - corners[drawn, start]
        away = pixels - origin[:, None]  # (n_drawn, side², 2)
        share = np.einsum("npi,ni->np", away, along) / np.sum(along**2, axis=1)[:, None]
        away = away - np.clip(share, 0, 1)[..., None] * along[:, None]  # from the nearest point
        ink = np.exp(-np.sum(away**2, axis=-1) / (2 * 0.1**2))
        images[drawn] = np.maximum(images[drawn], ink)
    return images + rng.normal(0, noise, images.shape), labels
