# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,-all
#     formats: ipynb,py:percent
#     notebook_metadata_filter: kernelspec,jupytext,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 04 · Neural networks
#
# **The question:** what do width, depth and more examples buy a neural network, and when does a
# bigger one do worse?
#
# When you are through, you can
#
# 1. write a multilayer perceptron and its gradient by hand, and check them against autograd;
# 2. predict from activation and initialisation whether gradients vanish with depth, and measure it;
# 3. measure how the error falls with width and with samples, and show when a bigger model is worse.
#
# Runs in about 1 minute on a CPU; allow two hours to work through. A GPU changes nothing here.
#
# | symbol | code | meaning | unit |
# |---|---|---|---|
# | x, y | `X`, `y` | an image as a row of pixels; its digit 0–9 | grey value, – |
# | θ | `theta` | all weights and biases, in one flat vector | – |
# | W, b | `W`, `b` | weights and biases of one layer | – |
# | z, h | `z`, `h` | a layer's values before and after the activation | – |
# | φ, φ′ | `activate` | activation (value) and its derivative (slope) | – |
# | δ | `delta` | gradient of the loss in a layer's output | nats |
# | ℓ, p | `logits`, – | the network's ten outputs; the probabilities made of them | – |
# | L | `loss` | mean cross-entropy per image | nats |
# | error | `error` | share of held-out images whose digit is guessed wrong | – |
# | g | `gain` | weights start with standard deviation g / √(inputs of the unit) | – |
# | w, d | `width`, `depth` | units in a hidden layer; number of hidden layers | – |
# | D | `D` | training images | – |
# | F | `n_features` | random features in section 6 | – |
# | T, v | `T`, `fits` | targets and fitted weights in section 6 | – |
# | s, λ | `s`, `lam` | singular values of the features; ridge penalty | –, – |
# | k, q | `exponent`, – | exponent of a power law, error ∝ D^−k or w^−k; a factor on D | – |

# %% tags=["imports"]
from itertools import pairwise

import contourpy
import numpy as np
import torch
from ipywidgets import Dropdown, FloatLogSlider, IntSlider
from sklearn.datasets import load_digits
from sklearn.linear_model import Ridge

from helpers.claims import verdict
from helpers.exercises import check, hint, solution
from helpers.fits import fit_power_law
from helpers.foundations.classification import sigmoid
from helpers.foundations.networks import glyphs
from helpers.foundations.regression import adam_step, cosine
from helpers.plots import COLORS, interval, label, panels
from helpers.runtime import setup
from helpers.widgets import explore, picture, series

# %% tags=["config"]
rng = setup(seed=4)
N_HELD = 500  # digits held out; 1,297 remain to train on
N_GLYPHS, N_GLYPHS_HELD = 30_000, 4000  # drawn images for the width law
HE = 2**0.5  # gain for ReLU
LR, BATCH, WARMUP, N_STEPS = 0.01, 64, 20, 500  # Adam with a cosine, unless said otherwise
GAINS = (0.1, 1.0, HE, 4.0)  # tried for the first loss
DEPTHS, DEEP_WIDTH, N_IMAGES, N_SEEDS = (2, 5, 10, 20, 30, 50), 64, 200, 5
VANISHES = 0.9  # a gradient that each layer multiplies by less has vanished: 0.9^50 = 0.005
TRAIN_DEPTH, N_STARTS, SGD_RATE, ADAM_RATE = 20, 3, 0.01, 0.001  # learning through many layers
BIG_RATES = (0.0, 1.0, 10.0, 100.0)  # of one single step, for dead units
D_GRID = np.array([20, 40, 80, 160, 320, 640, 1280])  # the law is fitted from the second on
N_SPLITS, NARROW, WIDE = 8, 4, 64
W_GRID = np.array([4, 6, 8, 12, 16, 24, 32, 48, 64, 96])
W_DATA, W_STEPS, W_SEEDS, W_LINE = (1000, N_GLYPHS), 2000, 3, 32  # the law is fitted up to W_LINE
MORE, MORE_SEEDS = 4, 2  # times the glyphs and steps, to see whether they are what runs out
D_FIXED, F_FIXED, F_SMALL, LABEL_NOISE, LAM, N_DRAWS = 200, 200, 50, 0.2, 0.1, 10
F_GRID = (10, 20, 50, 100, 150, 180, 200, 220, 250, 300, 500, 1000, 2000)
D_SWEEP = (50, 100, 150, 180, 200, 220, 250, 300, 500, 1000, 1250)
MLP_GRID, MLP_SEEDS, MLP_LR = (1, 2, 4, 8, 16, 32, 64, 128), 4, 0.02
PLAY_WIDTHS, PLAY_DEPTHS, PLAY_LR = (1, 2, 4, 8, 16, 32), (1, 2, 3, 4), 0.03

# %% [markdown]
# ## 1 · Two sets of images
#
# *Digits* are real: 1,797 handwritten digits of 8 × 8 pixels, which come with scikit-learn. That is
# few. So we also *draw* digits, with seven strokes each, randomly stretched, bent and turned: the
# *glyphs*. Of these we can have as many as we like.
#
# Both are split before anything is computed from them. Then we subtract the mean training image
# and divide by one number, the standard deviation of all training pixels. (Chapter 01 divided each
# column by its own. Here some corner pixels are 0 in every image and have no deviation.)

# %%
digits = load_digits()
images, labels = digits.data / 16, digits.target
order = rng.permutation(len(labels))
X = images[order[:-N_HELD]]
centre, scale = X.mean(axis=0), X.std()
X, y = (X - centre) / scale, labels[order[:-N_HELD]]
X_held, y_held = (images[order[-N_HELD:]] - centre) / scale, labels[order[-N_HELD:]]
print(f"{len(X)} digits to train on, {len(X_held)} held out, {X.shape[1]} pixels")

# %%
G_raw, y_glyphs = glyphs(N_GLYPHS, rng)
G_held_raw, y_glyphs_held = glyphs(N_GLYPHS_HELD, rng)
G, G_held = ((g - G_raw.mean(axis=0)) / G_raw.std() for g in (G_raw, G_held_raw))
for ax, (name, pool, of) in zip(panels(2, "One of each", height=2.6),
                                (("digits", images, labels), ("glyphs", G_raw, y_glyphs)),
                                strict=True):
    side = int(pool.shape[1] ** 0.5)
    chosen = np.pad([pool[np.argmax(of == k)].reshape(side, side) for k in range(10)],
                    ((0, 0), (1, 1), (1, 1)))
    ax.imshow(np.hstack(np.hstack(chosen.reshape(2, 5, side + 2, side + 2))), cmap="Greys")
    ax.grid(False)
    label(ax, "pixel", "pixel", f"{name}, {side} × {side}")
print(f"glyphs: {len(G)} to train on, {len(G_held)} held out, {G.shape[1]} pixels")

# %% [markdown]
# ## 2 · A network is layers → loss → optimiser → update
#
# A **layer** multiplies by a matrix, adds a bias and bends the result with an *activation* φ:
#
# $$z = hW + b, \qquad h_{next} = \varphi(z) .$$
#
# Without φ, two layers would be one: (hW₁)W₂ = h(W₁W₂). Three common ones: ReLU, max(0, z); the
# sigmoid, 1/(1 + e^−z), which squeezes everything into 0 … 1; and tanh, into −1 … 1. A **multilayer
# perceptron** (MLP) stacks *hidden* layers of this kind. Its last layer is linear and gives ten
# numbers, the *logits*: the larger, the more that digit is believed.
#
# A layer from n inputs to m outputs has n·m weights and m biases. All of them stand in one flat
# vector θ, as in chapter 02, so that the optimisers from there work as they are. `layers_of` cuts θ
# into matrices again (views, no copies).
#
# **Initialisation.** The sum hW over n inputs of size about 1 has a standard deviation of √n times
# that of the weights. So weights are drawn with standard deviation g/√n: then z has size about g,
# for any n. The number g is the *gain*.

# %% tags=["essential"]
def activate(name, z):
    if name == "relu":
        return np.maximum(z, 0), (z > 0) * 1.0
    value = {"tanh": np.tanh, "linear": np.copy, "sigmoid": sigmoid}[name](z)
    slope = {"tanh": 1 - value**2, "linear": np.ones_like(z), "sigmoid": value * (1 - value)}
    return value, slope[name]


def init_mlp(sizes, gain, rng):
    parts = []
    for n_in, n_out in pairwise(sizes):
        parts.append(gain / np.sqrt(n_in) * rng.standard_normal(n_in * n_out))
        parts.append(np.zeros(n_out))
    return np.concatenate(parts)


def layers_of(theta, sizes):
    layers, at = [], 0
    for n_in, n_out in pairwise(sizes):
        W = theta[at:at + n_in * n_out].reshape(n_in, n_out)
        layers.append((W, theta[at + W.size:at + W.size + n_out]))
        at += W.size + n_out
    if at != len(theta):
        raise ValueError(f"{len(theta)} parameters, but the sizes {sizes} need {at}")
    return layers

# %% tags=["check"]
z_test = np.linspace(-3, 3, 7) + 0.1
for name in ("relu", "tanh", "sigmoid"):
    z_torch = torch.tensor(z_test, requires_grad=True)
    getattr(torch, name)(z_torch).sum().backward()
    value, slope = activate(name, z_test)
    assert np.allclose(value, getattr(torch, name)(z_torch.detach()))
    assert np.allclose(slope, z_torch.grad)
sizes = (64, 32, 10)
theta = init_mlp(sizes, HE, np.random.default_rng(0))
in_torch = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Linear(32, 10))
assert len(theta) == sum(p.numel() for p in in_torch.parameters())
assert abs(layers_of(theta, sizes)[0][0].std() * np.sqrt(64) / HE - 1) < 0.05
print(f"activations and slopes: as torch; {sizes}: {len(theta):,} parameters, as torch")

# %% [markdown]
# **Forward:** go through the layers, and keep each layer's input h and slope φ′(z): the way back
# needs them. **Loss:** turn the logits ℓ into probabilities (*softmax*), and take minus the
# logarithm of the probability given to the true digit, the *cross-entropy*:
#
# $$p_j = \frac{e^{\ell_j}}{\sum_i e^{\ell_i}}, \qquad L = -\log p_y, \qquad
# \frac{\partial L}{\partial \ell_j} = p_j - [j = y] .$$
#
# The bracket is 1 for the true digit and 0 for the others. So the gradient in the logits is what
# the network believes minus the truth.

# %% tags=["essential"]
def forward(theta, sizes, X, name):
    layers, h, cache = layers_of(theta, sizes), X, []
    for number, (W, b) in enumerate(layers, 1):
        value, slope = activate(name if number < len(layers) else "linear", h @ W + b)
        cache.append((h, slope))
        h = value
    return h, cache


def softmax_loss(logits, labels):
    rows = np.arange(len(labels))
    log_p = logits - logits.max(axis=1, keepdims=True)
    log_p = log_p - np.log(np.exp(log_p).sum(axis=1, keepdims=True))
    delta = np.exp(log_p)
    delta[rows, labels] -= 1
    return -log_p[rows, labels].mean(), delta / len(labels)

# %% tags=["check"]
logits, cache = forward(theta, sizes, X, "relu")
by_hand = np.maximum(X @ theta[:2048].reshape(64, 32), 0) @ theta[2080:2400].reshape(32, 10)
assert np.allclose(logits, by_hand)  # the biases start at zero
logits_torch = torch.tensor(logits, requires_grad=True)
reference = torch.nn.functional.cross_entropy(logits_torch, torch.tensor(y))
reference.backward()
loss, delta = softmax_loss(logits, y)
assert np.isclose(loss, reference.item())
assert np.allclose(delta, logits_torch.grad, atol=1e-12)
print(f"forward: as two matrix products; loss {loss:.3f} and its gradient: as torch")

# %% [markdown]
# **Backpropagation** is the chain rule, walked from the last layer to the first. Suppose we know δ,
# the gradient of the loss in a layer's output. Then
#
# $$\delta_z = \delta \odot \varphi'(z), \qquad
# \nabla_W L = h^\top \delta_z, \qquad \nabla_b L = \sum_{rows} \delta_z, \qquad
# \delta_{before} = \delta_z W^\top .$$
#
# In words: multiply by the slope; the weights' gradient is input times that; hand the rest down
# through the same weights. (⊙ multiplies elementwise.) Note the product that builds up on the way
# down: **slope, weights, slope, weights, …** Section 3 lives on it.

# %% tags=["essential"]
def backward(theta, sizes, cache, delta):
    parts = []
    for (W, _), (h, slope) in zip(reversed(layers_of(theta, sizes)), reversed(cache), strict=True):
        delta = delta * slope
        parts = [(h.T @ delta).ravel(), delta.sum(axis=0), *parts]
        delta = delta @ W.T
    return np.concatenate(parts)

# %% tags=["check"]
for name in ("relu", "tanh", "sigmoid"):
    sizes = (64, 32, 16, 10)
    theta = init_mlp(sizes, HE, np.random.default_rng(1))
    logits, cache = forward(theta, sizes, X, name)
    gradient = backward(theta, sizes, cache, softmax_loss(logits, y)[1])
    leaves = [torch.tensor(a, requires_grad=True) for W_b in layers_of(theta, sizes) for a in W_b]
    h = torch.tensor(X)
    for k in (0, 2, 4):
        h = h @ leaves[k] + leaves[k + 1]
        h = getattr(torch, name)(h) if k < 4 else h
    torch.nn.functional.cross_entropy(h, torch.tensor(y)).backward()
    autograd = np.concatenate([leaf.grad.ravel().numpy() for leaf in leaves])
    assert np.abs(gradient - autograd).max() < 1e-10
print("backward: equal to autograd to 1e-10 for three activations, two hidden layers")

# %% [markdown]
# Before a network has learnt anything, it should believe nothing: each digit has probability 1/10,
# and the loss is ln 10. Is it so? Below, the same network with four gains.
#
# Then we train: 500 steps of Adam on random batches of 64 images, with a cosine that lowers the
# rate to zero (both from chapter 02). An MLP without hidden layer is *softmax regression*, the
# linear model for ten classes: our baseline.

# %%
print(f"ln 10 = {np.log(10):.3f} nats")
for gain in GAINS:
    logits, _ = forward(init_mlp((64, 64, 10), gain, np.random.default_rng(0)), (64, 64, 10), X,
                        "relu")
    print(f"gain {gain:.2f}: logits of size {logits.std():.2g}, first loss "
          f"{softmax_loss(logits, y)[0]:.3f} nats")

# %%
def train(sizes, X, y, rng, n_steps=N_STEPS, name="relu", gain=HE, lr=LR, batch=BATCH):
    theta, state = init_mlp(sizes, gain, rng), (0, 0.0, 0.0)
    for step in range(n_steps):
        rows = rng.integers(len(y), size=batch)
        logits, cache = forward(theta, sizes, X[rows], name)
        gradient = backward(theta, sizes, cache, softmax_loss(logits, y[rows])[1])
        theta, state = adam_step(theta, state, gradient, lr * cosine(step, n_steps, WARMUP))
    return theta

# %%
def error_rate(theta, sizes, X, y, name="relu"):
    return np.mean(forward(theta, sizes, X, name)[0].argmax(axis=1) != y)


for sizes in ((64, 10), (64, 64, 10)):
    theta = train(sizes, X, y, np.random.default_rng(0))
    wrong = round(error_rate(theta, sizes, X_held, y_held) * N_HELD)
    print(f"{sizes}: {len(theta):,} parameters, {wrong} of {N_HELD} held-out digits wrong")

# %% [markdown]
# **Reading.** Small logits give ln 10; a large gain makes the untrained network sure of random
# digits, and it pays for it. One hidden layer saves nearly half of the linear model's mistakes.
# That is one split and one start: an example, no law.
#
# ## 3 · Depth: what happens to a signal in fifty layers
#
# Every layer multiplies the signal on the way up, and the gradient on the way down, by some factor.
# If the factor is 0.7, fifty layers make it 0.7⁵⁰ ≈ 2 · 10⁻⁸. For ReLU we can work it out. Its
# input z has size g times that of h. It sets the negative half to zero, which keeps half of the
# squares. So
#
# $$\text{factor} = \frac{g}{\sqrt 2} .$$
#
# The way down has the same factor: half of the slopes are 1, the others 0. Hence g = √2 (He et al.,
# 2015), with factor 1. With g = 1 the factor is 0.71. (A linear layer of torch draws its weights
# evenly between ±1/√n unless told otherwise. That is g = 1/√3, and factor 0.41.) For the sigmoid
# the slope is at most ¼, so with g = 1 the factor is at most about ¼.
#
# Two repairs work from outside. A **residual connection** adds the layer's input to its output, h +
# φ(hW): the gradient has a way down past the layer. **RMS normalisation** divides each row of h by
# its root mean square before the layer. (The transformer of chapter 06 has both.)
#
# ## Predict first
#
# The article says: "ReLU prevents vanishing gradients." We measure the gradient of the loss in the
# **first** layer's weights, before any training, for 2 to 50 hidden layers of 64 units. Write down
# for 50 layers whether it vanishes, stays or explodes: sigmoid; ReLU with g = 1, √2 and 2; sigmoid
# with residual connections and normalisation; ReLU, g = √2, with residual connections alone.

# %%
def first_gradient(depth, name, gain, residual, norm, seed):
    """Norm of the loss's gradient in the first layer's weights, at the start (by autograd)."""
    draw = np.random.default_rng((seed, depth))
    weights = [torch.tensor(draw.normal(0, gain / DEEP_WIDTH**0.5, (DEEP_WIDTH, DEEP_WIDTH)))
               for _ in range(depth)]
    head = torch.tensor(draw.normal(0, 1 / DEEP_WIDTH**0.5, (DEEP_WIDTH, 10)))
    weights[0].requires_grad_()
    h = torch.tensor(X[:N_IMAGES])
    for W in weights:
        u = h / (h**2).mean(dim=1, keepdim=True).sqrt() if norm else h
        a = getattr(torch, name)(u @ W)
        h = h + a if residual else a
    torch.nn.functional.cross_entropy(h @ head, torch.tensor(y[:N_IMAGES])).backward()
    return weights[0].grad.norm().item()


draw, sizes = np.random.default_rng((0, 5)), (DEEP_WIDTH,) * 6 + (10,)
theta = np.concatenate([np.append(draw.normal(0, DEEP_WIDTH**-0.5, pair), np.zeros(pair[1]))
                        for pair in pairwise(sizes)])
logits, cache = forward(theta, sizes, X[:N_IMAGES], "tanh")
ours = backward(theta, sizes, cache, softmax_loss(logits, y[:N_IMAGES])[1])[:64 * 64]
assert np.isclose(np.linalg.norm(ours), first_gradient(5, "tanh", 1, False, False, 0))
print("five layers without repairs: first_gradient agrees with our backward")

# %%
NETS = {"sigmoid, g = 1": ("sigmoid", 1, False, False), "tanh, g = 1": ("tanh", 1, False, False),
        "ReLU, g = 1": ("relu", 1, False, False), "ReLU, g = √2": ("relu", HE, False, False),
        "ReLU, g = 2": ("relu", 2, False, False),
        "ReLU, g = √2, residual": ("relu", HE, True, False),
        "ReLU, g = 1, norm": ("relu", 1, False, True),
        "sigmoid, g = 1, norm": ("sigmoid", 1, False, True),
        "ReLU, g = √2, residual + norm": ("relu", HE, True, True),
        "sigmoid, g = 1, residual + norm": ("sigmoid", 1, True, True)}
norms = {net: np.array([[first_gradient(d, *how, seed) for d in DEPTHS] for seed in range(N_SEEDS)])
         for net, how in NETS.items()}
factors = {net: np.exp(np.polyfit(DEPTHS, np.log(v).T, 1)[0]) for net, v in norms.items()}
for net, f in factors.items():
    print(f"{net:32}: × {interval(f.mean(), f.min(), f.max(), 2)} per layer, "
          f"50 layers {np.median(norms[net][:, -1]):.0e}")

# %%
plain, repaired = panels(2, "Gradient of the first layer, at the start", height=4.6)
for number, (net, v) in enumerate(norms.items()):
    ax, f = (plain, repaired)[number // 5], factors[net]
    ax.plot(DEPTHS, np.median(v, axis=0), ("o-", "D:", "s-", "^--", "v-.")[number % 5], alpha=0.8,
            label=f"{net}: × {interval(f.mean(), f.min(), f.max(), 2)}")
    ax.set_ylim(1e-34, 1e36)
for ax, which in ((plain, "plain layers"), (repaired, "with repairs")):
    label(ax, "hidden layers", "gradient norm (nats)",
          f"{which}: × per layer (lowest … highest start)", "y")
lowest = min(norms, key=lambda net: np.median(norms[net][:, -1]))
print(f"median of {N_SEEDS} starts; lowest after 50 layers: {lowest}")

# %% [markdown]
# **Reading.** On the log axis most curves are straight: each layer multiplies the gradient by one
# factor, printed with its smallest and largest value over five starts. For plain ReLU it follows
# g/√2 closely, and comes out a little lower. So ReLU vanishes with g = 1, holds with √2 and
# explodes with 2. Tanh with g = 1 loses as little as ReLU with √2. The plain sigmoid is hopeless.
#
# The repairs outweigh the activation: *with residual connections and normalisation the sigmoid
# neither vanishes nor explodes.* One of the two alone is not always enough. Residual connections
# alone, with ReLU and g = √2, explode: every layer adds to h, and to the gradient. Normalisation
# alone repairs ReLU with g = 1. It raises the sigmoid's factor (to divide h by something below 1
# also enlarges the gradient on its way down), but leaves it far below 1.
#
# Does it matter for learning? Twenty layers, 300 steps on batches of 64, three starts each: first
# plain descent, then Adam, which divides each step by the gradient's own size (chapter 02).

# %%
for name, gain in (("sigmoid", 1.0), ("relu", 1.0), ("relu", HE)):
    for how in ("plain", "Adam"):
        sizes, ends = (64,) * (TRAIN_DEPTH + 1) + (10,), []
        for seed in range(N_STARTS):
            draw = np.random.default_rng(seed)
            theta, state = init_mlp(sizes, gain, draw), (0, 0.0, 0.0)
            for _ in range(300):
                rows = draw.integers(len(y), size=BATCH)
                logits, cache = forward(theta, sizes, X[rows], name)
                delta = softmax_loss(logits, y[rows])[1]
                gradient = backward(theta, sizes, cache, delta)
                if how == "plain":
                    theta = theta - SGD_RATE * gradient
                else:
                    theta, state = adam_step(theta, state, gradient, ADAM_RATE)
            ends.append(softmax_loss(forward(theta, sizes, X, name)[0], y)[0])
        print(f"{name:7}, gain {gain:.2f}, {how:5}: loss above 2 nats in {sum(e > 2 for e in ends)}"
              f" of {N_STARTS} starts, below 1 nat in {sum(e < 1 for e in ends)}")

# %% tags=["verdict"]
low, he, high, cured = (factors[net] for net in (
    "ReLU, g = 1", "ReLU, g = √2", "ReLU, g = 2", "sigmoid, g = 1, residual + norm"))
kept = [bool(f.max() > VANISHES) for f in (low, he, high)]
verdict("K5", holds=kept[0] if len(set(kept)) == 1 else None,
        measured=f"each plain ReLU layer multiplies the gradient by "
        f"{interval(low.mean(), low.min(), low.max(), 2)} with g = 1 (it vanishes), "
        f"{interval(he.mean(), he.min(), he.max(), 2)} with g = √2 (it holds) and "
        f"{interval(high.mean(), high.min(), high.max(), 2)} with g = 2 (it explodes). So it "
        f"depends on the initialisation. Sigmoid layers with residual connections and "
        f"normalisation keep it without ReLU: {cured.mean():.2f}",
        relu_gain_1=low.mean(), relu_he=he.mean(), relu_gain_2=high.mean(),
        sigmoid=factors["sigmoid, g = 1"].mean(), sigmoid_repaired=cured.mean())

# %% [markdown]
# **Reading of the training.** A factor of 0.7 per layer stops plain descent at this rate, but not
# Adam. A factor of 0.23 stops both. So a vanished gradient is a matter of degree, and of the
# optimiser. (One rate for each; residual connections were not trained here.)
#
# ## 4 · Dead units
#
# ReLU has a way of its own to lose a gradient. If z is negative for **every** training image, the
# slope is 0 everywhere, and so is the gradient of that unit's weights. Nothing can wake it but a
# change of its input. In a first layer the input is the data, and never changes. The unit is
# *dead*.
#
# One step that is too long can be enough. Below, once with centred pixels and once with the mean
# image left in (divided by the same number), so that no input is ever negative and all can push a
# unit the same way. One step of descent on all images, at four rates; then 100 steps of Adam at a
# sensible rate.

# %%
def dead(theta, sizes, pixels):
    """Which units of the first layer are silent for every image: (width,), true or false."""
    return forward(theta, sizes, pixels, "relu")[1][0][1].max(axis=0) == 0


pixels, sizes = images[order[:-N_HELD]] / scale, (64, 64, 10)
for inputs, what in ((X, "centred"), (pixels, "not centred")):
    for rate in BIG_RATES:
        theta, state = init_mlp(sizes, HE, np.random.default_rng(0)), (0, 0.0, 0.0)
        for step in range(101):
            logits, cache = forward(theta, sizes, inputs, "relu")
            gradient = backward(theta, sizes, cache, softmax_loss(logits, y)[1])
            if step == 0:
                theta = theta - rate * gradient
                killed = dead(theta, sizes, inputs)
            else:
                theta, state = adam_step(theta, state, gradient, LR)
        largest = np.abs(layers_of(gradient, sizes)[0][0][:, killed]).max(initial=0)
        still = np.sum(killed & dead(theta, sizes, inputs))
        after = (f"; after 100 more steps {still:2} of these, largest entry of their gradient "
                 f"{largest}") if killed.any() else ""
        print(f"{what:11}, rate {rate:5.1f}: {killed.sum():2} of 64 dead{after}")

# %% [markdown]
# **Reading.** On centred inputs even the longest step kills no unit. Without centring two units are
# silent from the start (rate 0). One step at a rate of 1 silences several more, at 10 about half
# of all, and a hundred sensible steps revive none: their gradient is not small but exactly zero. A
# single slope of ReLU is either whole or gone.
#
# ## 5 · A first scaling law on images
#
# Two questions. How does the error fall with the number of **samples**, and how with **width**?
# Chapter 02 had theory for its linear model. Here we have to measure: train many networks, and look
# whether the points lie on a line when both axes are logarithmic,
#
# $$\text{error} \approx c\,D^{-k} \qquad\text{or}\qquad \text{error} \approx c\,w^{-k} .$$
#
# *Samples*, on the real digits: D from 20 to 1,280, for two networks with one hidden layer, of 4
# and of 64 units. Eight times over, with another split and another start, so that together they
# test on most of the digits there are. *Width* on the glyphs, since to see how far width reaches we
# want far more images than there are digits: w from 4 to 96, three starts each, once with 1,000
# training images and once with 30,000.
#
# ## Predict first: what limits what?
#
# Of the four curves, which will be straight, and which will bend? And for 64 units: how many times
# more digits do we need for half of the error?

# %%
def digits_error(D, width, seed):
    mixed = np.random.default_rng(seed).permutation(len(labels))
    fit, held, sizes = mixed[:D], mixed[-N_HELD:], (64, width, 10)
    centre, scale = images[fit].mean(axis=0), images[fit].std()
    draw = np.random.default_rng((seed, D))
    theta = train(sizes, (images[fit] - centre) / scale, labels[fit], draw)
    return error_rate(theta, sizes, (images[held] - centre) / scale, labels[held])

# %%
by_D = {w: np.array([[digits_error(D, w, seed) for D in D_GRID] for seed in range(N_SPLITS)])
        for w in (NARROW, WIDE)}
for w, errors in by_D.items():
    print(f"{w:2} units:", ", ".join(f"{D}: {100 * e:.0f} %" for D, e in
                                     zip(D_GRID, errors.mean(axis=0), strict=True)))

# %%
def glyphs_error(D, width, seed, pool=(G, y_glyphs), n_steps=W_STEPS):
    sizes, draw = (100, width, 10), np.random.default_rng((seed, width, D))
    theta = train(sizes, pool[0][:D], pool[1][:D], draw, n_steps)
    return error_rate(theta, sizes, G_held, y_glyphs_held)


by_w = {D: np.array([[glyphs_error(D, w, seed) for w in W_GRID] for seed in range(W_SEEDS)])
        for D in W_DATA}
for D, errors in by_w.items():
    print(f"{D:5} glyphs:", ", ".join(f"{w}: {100 * e:.0f} %" for w, e in
                                      zip(W_GRID, errors.mean(axis=0), strict=True)))
fresh = [glyphs(N_GLYPHS, rng) for _ in range(MORE)]
pool = ((np.concatenate([g for g, _ in fresh]) - G_raw.mean(axis=0)) / G_raw.std(),
        np.concatenate([of for _, of in fresh]))
for w in (W_LINE, W_GRID[-1]):
    before = by_w[N_GLYPHS][:, W_GRID == w].mean()
    after = np.mean([glyphs_error(len(pool[1]), w, seed, pool, MORE * W_STEPS)
                     for seed in range(MORE_SEEDS)])
    print(f"{w} units, {MORE} × glyphs and steps: error × {after / before:.1f}")

# %%
in_D = {w: fit_power_law(D_GRID[1:], e.mean(axis=0)[1:]) for w, e in by_D.items()}
line = W_GRID <= W_LINE
in_w = {D: fit_power_law(W_GRID[line], e.mean(axis=0)[line]) for D, e in by_w.items()}
all_w = {D: fit_power_law(W_GRID, e.mean(axis=0)) for D, e in by_w.items()}
for name, laws in (("samples from 40, units", in_D), (f"width to {W_LINE}, glyphs", in_w),
                   ("all widths, glyphs", all_w)):
    print(f"{name}:", {which: interval(law.exponent, law.low, law.high, 2)
                       for which, law in laws.items()})

# %%
left, right = panels(2, "Two scaling laws: digits (left), glyphs (right)", height=3.8)
for ax, grid, curves, laws, unit in ((left, D_GRID, by_D, in_D, "units"),
                                     (right, W_GRID, by_w, in_w, "glyphs")):
    for k, (which, e) in enumerate(curves.items()):
        law = laws[which]
        ax.plot(grid, 100 * e.mean(axis=0), "os"[k], color=COLORS[k], label=f"{which} {unit}, "
                f"exponent {interval(law.exponent, law.low, law.high, 2)}")
        ax.plot(grid, 100 * law.predict(grid), ":", color=COLORS[k])
label(left, "training digits", "held-out error (%)", f"against samples, line from {D_GRID[1]}",
      "xy")
label(right, "hidden units", "held-out error (%)", f"against width, line up to {W_LINE}", "xy")
above = by_w[N_GLYPHS].mean(axis=0)[-1] / in_w[N_GLYPHS].predict(W_GRID[-1])
print(f"{N_GLYPHS} glyphs, {W_GRID[-1]} units: {above:.1f} × the error on the line")

# %% [markdown]
# **Reading.** *Samples:* with 64 units the points follow a line from 40 to 1,280 digits. The fit
# leaves out D = 20 (two images of each digit), and that point lies near the line all the same.
# Solve 2 = q^k for the factor q on D, and you have the price of half of the error (exercise 04.1).
# With 4 units the line is half as steep. *Width:* with 30,000 glyphs the line is steep up to 32
# units. Beyond, the points leave it (the dotted lines show the fit up to 32), and a fit over all
# widths has a lower exponent. So **an exponent belongs to its window.** With 1,000 glyphs the
# exponent is less than half, and the points flatten too: more units help less when data are few.
#
# Do images or steps run out beyond 32 units? With four times as many of both (printed) the error
# falls, but nearly by the same factor at 32 and at 96 units. To straighten the line it would have
# to fall to less than half at 96 alone. So within that budget most of the bend stays; we did not
# find what makes it. A bend need not be a shortage.
#
# So the two laws limit each other. A line in D is flatter where the model is too small, and a line
# in width is flatter where the data are too few. Chapter 08 fits both at once, for language models:
# one term for the model, one for the data, and a floor.
#
# The intervals say how well the mean points lie on their line (Student's t on the slope), no more.
# The glyphs are all judged on the same 4,000 held-out images; near 3 % that is some 120 mistakes.
#
# ## 6 · More parameters than samples
#
# With 1,000 glyphs and 96 units we fitted more than 10,000 parameters, and the last step in width
# still helped. Should a model with more parameters than samples not learn everything by heart, and
# fail? To see when it does, take a network whose optimum we can compute. The first layer is random
# and stays as it is. Its F units are the *random features* of an image. Only the last layer is
# fitted, by least squares, to targets T: 0.9 for the true digit, −0.1 for the others.
#
# Write the features of all D images as a matrix A of shape (D, F), and A = U diag(s) Vᵀ (the
# singular value decomposition). With ridge penalty λ on the weights v,
#
# $$v = V\,\mathrm{diag}\!\left(\frac{s}{s^2+\lambda}\right) U^\top T, \qquad
# \lambda = 0:\quad \frac{s}{s^2} = \frac1s .$$
#
# In words: split the targets into the directions that the features offer, and divide each part by
# its singular value. A small s means a direction in which the features hardly differ: whatever the
# targets hold there, noise or not, is blown up by 1/s. For F > D many v fit perfectly, and this
# formula gives the shortest. (Here λ multiplies a sum over images; in chapter 01 it stood beside a
# mean, so this λ is D times that one.)
#
# ## Predict first: 200 digits, a fifth of the labels drawn at random
#
# Sketch the held-out error against F, from 10 to 2,000 features, without a penalty. Where is it
# lowest, where highest? Then: with 200 features, does the error fall when we go from 100 digits to
# 200?

# %% tags=["essential"]
def relu_features(X, W):
    return np.maximum(X @ W, 0) / np.sqrt(W.shape[1])


def feature_fit(A, T, lam=0.0):
    U, s, Vt = np.linalg.svd(A, full_matrices=False)
    return Vt.T @ ((s / (s**2 + lam))[:, None] * (U.T @ T))

# %% tags=["check"]
W = np.random.default_rng(0).standard_normal((64, 60))
for rows in (40, 200):  # fewer and more images than features
    A, T = relu_features(X[:rows], W), np.eye(10)[y[:rows]]
    assert np.allclose(feature_fit(A, T), np.linalg.lstsq(A, T, rcond=None)[0])
    assert np.allclose(feature_fit(A, T, 0.3), Ridge(0.3, fit_intercept=False).fit(A, T).coef_.T)
print("feature_fit: as lstsq without penalty, as scikit-learn's Ridge with one")

# %%
def feature_run(D, n_features, seed, noise=LABEL_NOISE):
    """Error without and with ridge, size of the weights, smallest singular value: (4,)."""
    draw = np.random.default_rng((seed, D, n_features))
    mixed = draw.permutation(len(X))[:D]
    given = np.where(draw.random(D) < noise, draw.integers(10, size=D), y[mixed])
    W = draw.normal(0, 1 / 8, (64, n_features))
    A, A_held = relu_features(X[mixed], W), relu_features(X_held, W)
    fits = [feature_fit(A, np.eye(10)[given] - 0.1, lam) for lam in (0.0, LAM)]
    errors = [np.mean((A_held @ fit).argmax(axis=1) != y_held) for fit in fits]
    return *errors, np.linalg.norm(fits[0]), np.linalg.svd(A, compute_uv=False)[-1]


in_F = np.array([[feature_run(D_FIXED, F, seed) for F in F_GRID] for seed in range(N_DRAWS)])
for F, (error, ridge_error, size, s_min) in zip(F_GRID, np.median(in_F, axis=0), strict=True):
    print(f"{F:4} features: error {100 * error:.1f} %, ridge {100 * ridge_error:.1f} %, weights "
          f"{size:6.0f}, s_min {s_min:.1g}")

# %%
sweep = {F: np.array([[feature_run(D, F, seed) for D in D_SWEEP] for seed in range(N_DRAWS)])
         for F in (F_SMALL, F_FIXED)}
for F, runs in sweep.items():
    print(f"{F} features, % wrong by digits:", ", ".join(f"{D}: {100 * e:.1f}" for D, e in zip(
        D_SWEEP, np.median(runs[..., 0], axis=0), strict=True)))
for F in (F_SMALL, F_FIXED, F_GRID[-1]):
    clean = np.median([feature_run(D_FIXED, F, seed, noise=0)[0] for seed in range(N_DRAWS)])
    print(f"{D_FIXED} digits, all labels right, {F} features: {100 * clean:.1f} %")

# %%
def noisy_mlp(width, seed):
    draw = np.random.default_rng((seed, width))
    mixed = draw.permutation(len(X))[:D_FIXED]
    given = np.where(draw.random(D_FIXED) < LABEL_NOISE, draw.integers(10, size=D_FIXED), y[mixed])
    sizes = (64, width, 10)
    theta = train(sizes, X[mixed], given, draw, lr=MLP_LR)
    return error_rate(theta, sizes, X[mixed], given), error_rate(theta, sizes, X_held, y_held)


trained = np.mean([[noisy_mlp(w, seed) for w in MLP_GRID] for seed in range(MLP_SEEDS)], axis=0)
for w, (fitted, held) in zip(MLP_GRID, trained, strict=True):
    print(f"width {w:3}: {100 * fitted:.0f} % wrong on the labels given, "
          f"{100 * held:.0f} % held out")

# %%
left, middle, right = panels(3, f"{100 * LABEL_NOISE:.0f} % of the labels random, median of "
                             f"{N_DRAWS} draws", height=3.6)
left.plot(F_GRID, 100 * np.median(in_F[..., 0], axis=0), "o-", label="no penalty")
left.plot(F_GRID, 100 * np.median(in_F[..., 1], axis=0), "s--", label=f"ridge, λ = {LAM}")
middle.plot(F_GRID, np.median(in_F[..., 2], axis=0), "o-", label="size of the weights")
middle.plot(F_GRID, 1 / np.median(in_F[..., 3], axis=0), "s--", label="1 / smallest singular value")
for F, runs in sweep.items():
    right.plot(D_SWEEP, 100 * np.median(runs[..., 0], axis=0), "o-", label=f"{F} features")
label(left, "features F", "held-out error (%)", f"{D_FIXED} digits", "x")
label(middle, "features F", "size (no unit)", f"{D_FIXED} digits, no penalty", "xy")
label(right, "training digits", "held-out error (%)", "more data, no penalty", "x")
print("peak at", F_GRID[int(np.argmax(np.median(in_F[..., 0], axis=0)))], "features")

# %% [markdown]
# **Reading.** *Left:* **double descent.** The error falls, rises to a peak where F equals the
# number of digits, and falls again. At the peak there are as many unknowns as equations: exactly
# one v fits. It is huge, and hardly better than guessing (90 % wrong).
# *Middle:* the weights' size has its peak at the same place, and so has 1/s for the smallest
# singular value, as the formula wants. Beyond the peak the smallest s grows again: with more
# features than digits there is a choice, and the shortest v need not be huge. The ridge penalty
# caps s/(s² + λ), and the peak is gone.
#
# Are the wrong labels to blame? With all labels right (printed) the peak is nearly as high: noise
# does not make it. But then 2,000 features end far below 50, while with a fifth of the labels
# random they end about where 50 did. So the noise decides what the second descent is worth. With
# ridge, more features are better or as good nearly all the way, noise and all.
#
# *Right:* the same peak, met by adding **data**. With 200 features, going from 100 to 200 digits
# makes the error far worse. With 50 features the error is highest at 50 digits, the first point.
#
# The trained MLP (printed) does not show a peak on this grid. From 16 units on it fits all given
# labels, a fifth of them random, and its held-out error goes on falling or stays. But it is another
# model, found by 500 steps of Adam (at twice the rate, so that it does fit) and not exactly.
#
# **The claim (K15):** "Bigger models generalise better." We hold three pairs of a small and a big
# model against each other: 50 and 200 random features with 200 digits (chosen at the peak: one
# clear exception is enough), the same with 1,250 digits, and the narrowest and widest network of
# section 5 on 30,000 glyphs. Each change is a median, with the lowest and highest of all draws.

# %% tags=["verdict"]
def said(c, digits=1):
    return interval(np.median(c), c.min(), c.max(), digits)


change = 100 * (sweep[F_FIXED] - sweep[F_SMALL])  # percentage points: (draws, D, figure)
few, ridge_few = change[:, D_SWEEP.index(D_FIXED), :2].T
many, ridge_many = change[:, -1, :2].T
widened = 100 * (by_w[N_GLYPHS][:, -1] - by_w[N_GLYPHS][:, 0])
better = {bool(c.max() < 0) for c in (few, many, widened)}  # in every draw
verdict("K15", holds=None if len(better) == 2 else better.pop(),
        measured=f"from {F_SMALL} to {F_FIXED} random features the held-out error changes by "
        f"{said(few)} percentage points with {D_FIXED} digits and by {said(many)} with "
        f"{D_SWEEP[-1]}; with a ridge penalty by {said(ridge_few)} and {said(ridge_many)}. From "
        f"{W_GRID[0]} to {W_GRID[-1]} trained units on {N_GLYPHS} glyphs it changes by "
        f"{said(widened, 0)}. It depends on the number of samples, on the penalty and on how the "
        f"model is fitted", change_few=np.median(few), change_many=np.median(many),
        change_width=np.median(widened), change_ridge_few=np.median(ridge_few))

# %% [markdown]
# ## Exercises
#
# Write the function, run its cell, then the check below it. `hint("04.1")` gives a hint, called
# again a second one; `solution("04.1")` shows ours.

# %% tags=["exercise"]
def data_for_half():
    """The factor q on the digits that halves the error of 64 units, by the law of section 5.

    Compute it from the exponent in the legend (left panel), to two digits.
    """
    return NotImplemented

# %% tags=["exercise-check"]
check("04.1", data_for_half)
# hint("04.1")
# solution("04.1")

# %% tags=["exercise"]
def count_parameters(sizes):
    """Number of weights and biases of an MLP; sizes as in the text, such as (64, 32, 10)."""
    return NotImplemented

# %% tags=["exercise-check"]
check("04.2", count_parameters)
# hint("04.2")
# solution("04.2")

# %% tags=["exercise"]
def swish(z):
    """Value and slope of swish, φ(z) = z · sigmoid(z), at an array z: a pair (value, slope)."""
    return NotImplemented

# %% tags=["exercise-check"]
check("04.3", swish)
# hint("04.3")
# solution("04.3")

# %% tags=["exercise"]
def numeric_gradient(loss, theta, step):
    """Gradient (p,) of loss(theta) by central differences, θᵢ ± step for each parameter alone."""
    return NotImplemented

# %% tags=["exercise-check"]
check("04.4", numeric_gradient)
# hint("04.4")
# solution("04.4")

# %% tags=["exercise"]
def leaky_gain(slope):
    """Gain g that keeps the size of the signal for leaky ReLU: z if z > 0, else slope · z.

    Derive it as for ReLU in section 3: z is symmetric about 0, size means root mean square.
    """
    return NotImplemented

# %% tags=["exercise-check"]
check("04.5", leaky_gain)
# hint("04.5")
# solution("04.5")

# %% tags=["exercise"]
def rms_norm_backward(h, delta):
    """Gradient of the loss in h (n, m), if delta (n, m) is its gradient in u.

    u = h / r, where r is the root mean square of each row of h. Mind that r depends on h too.
    """
    return NotImplemented

# %% tags=["exercise-check"]
check("04.6", rms_norm_backward)
# hint("04.6")
# solution("04.6")

# %% [markdown]
# ## Play: what can a small network draw?
#
# Two spirals, 200 points to train on, 1,000 held out. The line is where the network is undecided.
# First guess: how many units in one hidden layer does it take to follow the spirals? Then: what
# does a second layer buy at the same width? Try ReLU with one unit in each of three or four layers,
# and find out with section 4 why it draws no line at all. Each network is one start, so a
# neighbour may do worse by bad luck.

# %%
def spirals(n, rng):
    arm, radius = rng.integers(2, size=n), np.sqrt(rng.uniform(0.05, 1, n))
    angle = 2 * np.pi * 1.1 * radius + np.pi * arm
    points = 2 * radius[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
    return points + rng.normal(0, 0.2, (n, 2)), arm


P, arm = spirals(200, np.random.default_rng(0))
P_held, arm_held = spirals(1000, np.random.default_rng(1))
side = np.linspace(-2.6, 2.6, 53)
plane = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
drawn = {}
for name in ("relu", "tanh", "sigmoid"):
    for depth in PLAY_DEPTHS:
        for width in PLAY_WIDTHS:
            sizes = (2,) + (width,) * depth + (2,)
            theta = train(sizes, P, arm, np.random.default_rng((width, depth)), name=name,
                          lr=PLAY_LR)
            edge = np.diff(forward(theta, sizes, plane, name)[0]).reshape(53, 53)
            drawn[name, depth, width] = (
                contourpy.contour_generator(side, side, edge).lines(0), len(theta),
                *(100 * (1 - error_rate(theta, sizes, *held, name)) for held in
                  ((P, arm), (P_held, arm_held))))
print(f"{len(drawn)} networks trained, {PLAY_WIDTHS[0]} to {PLAY_WIDTHS[-1]} units per layer")

# %% tags=["widget"]
def boundary(width, depth, activation):
    lines, n_parameters, seen, unseen = drawn[activation, depth, round(width)]
    drawing = [series("points", *P[arm == k].T, f"spiral {k + 1}", k) for k in (0, 1)]
    drawing += [series("line", *line.T, "" if k else "undecided", 2)
                for k, line in enumerate(lines)]
    return picture(drawing, "x₁ (no unit)", "x₂ (no unit)", (-2.6, 2.6), (-2.6, 2.6),
                   "Where the network is undecided",
                   text=f"{depth} × {width:.0f} {activation} units, {n_parameters} parameters: "
                        f"{seen:.1f} % right on the points shown, {unseen:.1f} % held out")


explore(boundary,
        width=FloatLogSlider(4, base=2, min=0, max=5, step=1, description="units per layer"),
        depth=IntSlider(1, PLAY_DEPTHS[0], PLAY_DEPTHS[-1], description="hidden layers"),
        activation=Dropdown(options=["relu", "tanh", "sigmoid"], description="activation"))

# %% [markdown]
# ## Recap
#
# - A network is matrix, bias, bend, repeated. Its gradient is the same products walked backwards,
#   and ten lines of numpy agree with autograd.
# - At the start, each plain ReLU layer multiplies the gradient by about g/√2. So it is the
#   initialisation that keeps it; residual connections with normalisation keep it even for the
#   sigmoid.
# - A ReLU unit that is silent on all data gets a gradient of exactly zero. Centre the inputs.
# - The error falls as a power of the samples while the model is large enough, and of the width
#   while the data suffice. An exponent belongs to its window.
# - Least squares on as many random features as samples is at its worst, with noise in the labels or
#   without. A ridge penalty removes the peak.
#
# **Limits.** Small images, one or two hidden layers, one training recipe for all sizes (a larger
# network might want another learning rate). Gradients were measured at the start only. Double
# descent was measured with least squares on fixed features, not with trained networks.
#
# **To read.** He et al., *Delving deep into rectifiers* (2015); Glorot & Bengio, *Understanding
# the difficulty of training deep feedforward neural networks* (2010); Belkin et al., *Reconciling
# modern machine-learning practice and the bias–variance trade-off* (2019); Nakkiran et al., *Deep
# double descent* (2019); Hestness et al., *Deep learning scaling is predictable, empirically*
# (2017).
#
# Next: **05 · Data pipeline**.
