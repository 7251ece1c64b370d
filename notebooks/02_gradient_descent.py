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
# # 02 · Gradient descent
#
# **The question:** how large a step may a model take, how fast does it then learn, and can we say
# so before we run it?
#
# When you are through, you can
#
# 1. compute the largest stable learning rate, and say at which step a larger one overflows;
# 2. write momentum, Adam and a learning-rate schedule, and say what each of them repairs;
# 3. predict three scaling laws (loss against steps, features and samples) from a spectrum, and
#    measure them.
#
# Runs in about 1 minute on a CPU; allow an hour to work through. A GPU changes nothing here.
#
# | symbol | code | meaning | unit |
# |---|---|---|---|
# | θ, θ* | `theta`, `best` | parameters, and those with the lowest loss | price, price per area |
# | L | `loss` | mean squared error (MSE) | price² |
# | η (the article: α) | `lr` | learning rate | depends on the features |
# | H, h | `H`, `h` | Hessian of L, its eigenvalues (*curvatures*) | loss / θ² |
# | κ | `kappa` | condition number h_max / h_min | – |
# | e | `e` | distance of the start from the minimum, θ − θ*, along each eigenvector | as θ |
# | v, β | `velocity`, `beta` | momentum's sum of gradients, its memory | loss / θ, – |
# | m, r | `mean`, `square` | Adam's averages of the gradient and its square | loss / θ, squared |
# | B, σ² | `BATCH`, `sigma2` | rows per step; variance of the noise in y | –, price² |
# | λᵢ | `eigenvalues` | variance of feature i | – |
# | sᵢ | `signal` | variance of y that feature i explains | – |
# | p, q | `p`, `q` | λᵢ = i^−p, sᵢ = i^−q | – |
# | N, D, t | `N`, `D`, `steps` | features used, training samples, steps taken | – |
# | τ | – | penalty that the shortest fit sets itself | as λᵢ |

# %% tags=["imports"]
import numpy as np
import torch
from ipywidgets import FloatLogSlider, IntSlider

from helpers.claims import verdict
from helpers.exercises import check, hint, solution
from helpers.foundations.regression import design_matrix, mse, mse_gradient
from helpers.plots import contours, interval, label, panels
from helpers.runtime import setup
from helpers.widgets import explore, picture, series

# %% tags=["config"]
rng = setup(seed=2)
AREA = np.arange(100, 1001, 100.0)  # the article's ten houses, m²
PRICE = 2 * AREA  # their prices
ALPHA, L2, N_STEPS = 0.1, 0.01, 100  # the article's learning rate, penalty and iterations
MULTIPLES = (0.5, 0.99, 1.01, 1.1)  # learning rates tried, in units of the bound
BASE_PRICE = 500.0  # added to each price in section 2, so that both parameters matter
TOLERANCE = 1e-6  # "arrived": the loss is this share of its start
BETA, N_WALK = 0.5, 60  # momentum's memory, and the steps drawn in section 3
N_HOUSES, NOISE, BATCH = 1000, 100.0, 10  # noisy houses of section 4; rows per step
FLOOR_RATES, FLOOR_STEPS, N_WALKS = (0.01, 0.02, 0.04), 2000, 16
PEAK, RUN_STEPS, WARMUP, DECAY, N_SEEDS = 0.1, 400, 20, 80, 50  # the schedules
p, q = 2.0, 1.8  # the power-law spectrum of section 5
N_FEATURES, N_RANDOM = 100_000, 8192  # features in the exact sums, and in the random draws
N_GRID = np.geomspace(10, 1000, 13).astype(int)  # features used
T_GRID = np.geomspace(100, 10_000, 13).astype(int)  # steps
D_GRID = np.geomspace(5, 500, 9).astype(int)  # samples
N_BOOTSTRAP = 500

# %% [markdown]
# ## 1 · Ten houses and one step size
#
# Ten houses: areas of 100, 200, … 1000 m², and each costs twice its area. The line is θ = (0, 2).
# Article I looks for it with gradient descent from θ = (0, 0), with the learning rate 0.1.
#
# The whole algorithm is one line, repeated:
#
# $$\theta \leftarrow \theta - \eta\,\nabla L(\theta)$$
#
# In words: ask in which direction the loss rises, and go a little the other way. "A little" is η
# times the gradient. The function below keeps all the points on the way, so that we can look at
# them.
#
# The simplest check is a bowl with one parameter, L = ½ h θ². Its gradient is h θ, so each step
# multiplies θ by (1 − η h), and t steps by (1 − η h)ᵗ.

# %% tags=["essential"]
def descend(gradient, theta, lr, n_steps):
    path = [theta]
    for _ in range(n_steps):
        path.append(path[-1] - lr * gradient(path[-1]))
    return np.array(path)

# %% tags=["check"]
walked = descend(lambda theta: 3.0 * theta, np.array([5.0]), lr=0.25, n_steps=20)
assert np.allclose(walked[:, 0], 5.0 * (1 - 0.25 * 3.0) ** np.arange(21))
print("descend: 20 steps on a bowl with h = 3 agree with 5 · (1 − 0.75)^t")

# %% [markdown]
# ## Predict first
#
# The article's gradient is 1/n Σ(ŷ − y)x, plus its L2 term 0.01 θ. It says that 100 steps with η =
# 0.1 give θ₁ ≈ 200.
#
# Before you run the next cell, write down two numbers. What is θ₁ after **three** steps? By which
# factor is η = 0.1 too large, if it is: 2, 100, or more?

# %%
X = design_matrix(AREA)  # (10, 2): a column of ones, then the areas


def article_gradient(theta):
    return X.T @ (X @ theta - PRICE) / len(PRICE) + L2 * theta


with np.errstate(over="ignore", invalid="ignore"):  # overflow is what we are looking for
    path = descend(article_gradient, np.zeros(2), ALPHA, N_STEPS)
    losses = np.array([mse(theta, X, PRICE) for theta in path])
for step in range(4):
    print(f"step {step}: θ = ({path[step, 0]:.3g}, {path[step, 1]:.3g}), loss {losses[step]:.3g}")
# argmin of True and False: the place of the first False, the first value that is not finite
loss_dies, theta_dies = (int(np.argmin(np.isfinite(v))) for v in (losses, path.sum(axis=1)))
print(f"the loss leaves float64 (above {np.finfo(float).max:.2g}) at step {loss_dies}")
print(f"the parameters leave it at step {theta_dies}; from there on θ₁ is {path[-1, 1]}")

# %% [markdown]
# ### Why: a step that is too long for the curvature
#
# Near its minimum, and for the MSE everywhere, the loss is a bowl: $L = L_{min} + \tfrac12
# (\theta-\theta^*)^T H (\theta-\theta^*)$, where the *Hessian* H is the matrix of the second
# derivatives of L. Along the eigenvectors of H the directions do not mix. Each is the one-parameter
# bowl of the check above: a step multiplies the error along direction i by
#
# $$1 - \eta h_i .$$
#
# - η hᵢ < 1: the error shrinks and keeps its sign.
# - 1 < η hᵢ < 2: it shrinks too, but jumps from one side of the valley to the other.
# - η hᵢ > 2: each jump lands **higher** than the last. The error grows without end.
#
# So all directions are stable only if the steepest one is:
#
# $$\eta < \frac{2}{h_{max}}, \qquad H = \frac2n X^TX, \qquad \kappa = \frac{h_{max}}{h_{min}} .$$
#
# H holds the features and nothing else. Neither the prices nor the start matter for the bound.
#
# The article's gradient is half of the true one (we come back to that), so its bowl is half as
# steep: its Hessian is XᵀX/n, plus the L2 term.

# %% tags=["essential"]
def mse_hessian(X):
    return 2 / len(X) * X.T @ X


def stability_bound(H):
    return 2 / np.linalg.eigvalsh(H)[-1]


def condition_number(H):
    h = np.linalg.eigvalsh(H)
    return h[-1] / h[0]

# %% tags=["check"]
H = mse_hessian(X)
X_torch, y_torch = torch.tensor(X), torch.tensor(PRICE)
loss = lambda theta: ((X_torch @ theta - y_torch) ** 2).mean()
assert np.allclose(H, torch.autograd.functional.hessian(loss, torch.ones(2, dtype=torch.float64)))
ends = [abs(descend(lambda e: H @ e, np.ones(2), m * stability_bound(H), 2000)[-1]).max()
        for m in (0.99, 1.01)]
assert ends[0] < 1 < 1e10 < ends[1]
assert np.isclose(condition_number(H), np.linalg.cond(H))
print("mse_hessian: as autograd; stability_bound: 1 % below it shrinks, 1 % above it explodes")

# %%
H_article = H / 2 + L2 * np.eye(2)
bound = stability_bound(H_article)
print(f"steepest curvature {np.linalg.eigvalsh(H_article)[-1]:.3g}, bound {bound:.3g}")
print(f"the article's learning rate is {ALPHA / bound:.3g} times the bound")
print(f"each step multiplies the error by {1 - ALPHA * 2 / bound:.3g}")

# %%
near = {m: descend(article_gradient, np.zeros(2), m * bound, 60) for m in MULTIPLES}
left, right = panels(2, "Gradient descent on the ten raw areas")
for m, walk in near.items():
    left.plot([mse(theta, X, PRICE) for theta in walk], label=f"{m:g} × bound")
label(left, "step", "loss (price²)", "around the bound", log="y")
left.set_ylim(1e-8, 1e24)
left.legend(loc="upper left", ncols=2, fontsize="small")
right.plot(np.log10(losses[:loss_dies]), "o-", label="the article's rate, 0.1")
right.axhline(np.log10(np.finfo(float).max), color="k", ls="--", label="largest float64")
label(right, "step", "log₁₀ of the loss (price²)", "far above it")
print("loss after 60 steps:", {m: f"{mse(w[-1], X, PRICE):.3g}" for m, w in near.items()})

# %% [markdown]
# **Reading.** *Left:* one per cent on either side of the bound decides between falling and rising.
# Half the bound is 1/h_max, which cancels the steepest direction in a single step; what is left is
# the share of the flat direction. *Right:* far above the bound the loss is a straight line on the
# log axis. Each step multiplies the error by the factor printed above, and the loss, its square,
# gains about nine decimal places. So the computer's numbers end after a few dozen steps, and
# everything after that is `nan`.
#
# The article's result, θ₁ ≈ 200 after 100 iterations, cannot come from its own algorithm. A rate
# ten per cent below the bound finds the slope 2 (next cell); one just below it needs far more than
# 100 steps.

# %% tags=["verdict"]
stable = descend(article_gradient, np.zeros(2), 0.9 * bound, N_STEPS)[-1]
verdict("K1", holds=bool(np.allclose(path[-1], (500, 200), rtol=0.1)),
        measured=f"any rate above {bound:.3g} diverges, and 0.1 is {ALPHA / bound:.3g} times that; "
        f"the loss overflows float64 at step {loss_dies}, θ at step {theta_dies}. "
        f"At 0.9 × bound, 100 iterations give θ₁ = {stable[1]:.3g}, not 200",
        bound=bound, loss_overflow_step=loss_dies, theta_overflow_step=theta_dies,
        theta_1=stable[1])

# %% [markdown]
# ### The missing factor 2
#
# The derivative of (ŷ − y)² is **2** (ŷ − y) x. The article writes 1/n Σ(ŷ − y)x. That is the
# gradient of another loss, 1/(2n) Σ(ŷ − y)², which has the same minimum.
#
# The direction stays the same, so every path of the article's gradient at rate η is a path of the
# true one at rate η/2. But a bound that was worked out for the one is wrong for the other by that
# same factor. Below, a rate that is safe with the article's gradient is used with the true one.

# %% tags=["verdict"]
theta, small = np.array([1.0, 1.0]), 1e-4 * np.eye(2)
numeric = np.array([mse(theta + d, X, PRICE) - mse(theta - d, X, PRICE) for d in small]) / 2e-4
article = X.T @ (X @ theta - PRICE) / len(PRICE)
cosine_between = article @ numeric / np.linalg.norm(article) / np.linalg.norm(numeric)
safe, true_bound = 0.75 * stability_bound(H / 2), stability_bound(H)
end = descend(lambda theta: mse_gradient(theta, X, PRICE), np.zeros(2), safe, 50)[-1]
verdict("K3", holds=bool(np.allclose(article, numeric, rtol=1e-3)),
        measured=f"the true gradient is {numeric[1] / article[1]:.3g} times the article's; the "
        f"cosine between the two is {cosine_between:.3f}, so the direction is right; but the bound "
        f"for the true gradient is {true_bound:.3g}, half of the article's. 0.75 of the article's "
        f"bound, used with the true gradient: loss {mse(end, X, PRICE):.3g} after 50 steps",
        factor=numeric[1] / article[1], true_bound=true_bound)

# %% [markdown]
# ## 2 · Feature scaling is preconditioning
#
# The bound is set by the **steepest** direction, the waiting time by the **flattest**. At η =
# 1/h_max the flattest error is multiplied by 1 − 1/κ per step: about κ steps to make it 2.7 times
# smaller. For the raw areas κ is in the millions.
#
# Since we know the factor of each direction, the loss after t steps needs no run at all:
#
# $$L(t) - L_{min} = \frac12\sum_i h_i\, e_i^2\,(1-\eta h_i)^{2t}$$
#
# In words: turn the start into the directions of H, shrink each by its own factor, add up. This
# one formula will also give us a scaling law in section 5.

# %% tags=["essential"]
def loss_after_steps(steps, h, e, lr):
    shrink = (1 - lr * h) ** (2 * np.asarray(steps)[..., None])
    return np.sum(h * e**2 * shrink, axis=-1) / 2

# %% tags=["check"]
Z = design_matrix(AREA / 1000)  # areas in thousands of m²
h, V = np.linalg.eigh(mse_hessian(Z))
best = np.linalg.lstsq(Z, PRICE, rcond=None)[0]
walked = descend(lambda theta: mse_gradient(theta, Z, PRICE), np.zeros(2), 0.3, 50)
expected = [mse(theta, Z, PRICE) - mse(best, Z, PRICE) for theta in walked]
assert np.allclose(loss_after_steps(np.arange(51), h, V.T @ -best, 0.3), expected, atol=1e-6)
print("loss_after_steps: equal to 50 real steps on the houses")

# %% [markdown]
# Three ways to write the same areas: in m², in thousands of m², and *standardised* (minus their
# mean, divided by their standard deviation). We add a base price of 500 to each house, so that the
# intercept has to be found too, and count the steps until the loss is a millionth of its start.

# %%
scalings = {"m²": AREA, "1000 m²": AREA / 1000,
            "standardised": (AREA - AREA.mean()) / AREA.std()}
grid = np.unique(np.geomspace(1, 1e8, 4000).astype(int))
for name, feature in scalings.items():
    scaled = design_matrix(feature)
    h, V = np.linalg.eigh(mse_hessian(scaled))
    e = -V.T @ np.linalg.lstsq(scaled, PRICE + BASE_PRICE, rcond=None)[0]
    reached = loss_after_steps(grid, h, e, 1 / h[-1]) < TOLERANCE * np.sum(h * e**2) / 2
    print(f"{name:>12}: κ = {h[-1] / h[0]:9.3g}, bound {2 / h[-1]:.3g}, "
          f"{grid[np.argmax(reached)]:.3g} step(s)")

# %% [markdown]
# **Reading.** The data and the model are the same in all three rows; only the units differ. In m²
# the descent would need millions of steps. With standardised areas both directions have the same
# curvature, the valley is round, and one step lands in the middle. Rescaling features is therefore
# *preconditioning*: it changes H, not the problem.
#
# Standardising rescales each axis, no more: features that go up and down together leave the valley
# long and tilted, and turning a million of them into independent ones costs too much. The next two
# methods work on the valley as it is.
#
# ## 3 · Momentum and Adam
#
# **Momentum** keeps a velocity. In the steep direction the gradients change sign and cancel; along
# the valley they agree and add up, to 1/(1 − β) times a single one.
#
# $$v \leftarrow \beta v + \nabla L, \qquad \theta \leftarrow \theta - \eta v$$
#
# **Adam** keeps two running averages for each parameter: m of the gradient and r of its square. It
# steps by η m̂/√r̂. The hats divide by 1 − βᵗ, since the averages start at zero and would be too
# small at first. Multiply a parameter's gradients by 1000, and m̂/√r̂ stays the same: Adam
# rescales each coordinate on the way.

# %% tags=["essential"]
def momentum_step(theta, velocity, gradient, lr, beta):
    velocity = beta * velocity + gradient
    return theta - lr * velocity, velocity


def adam_step(theta, state, gradient, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    step, mean, square = state[0] + 1, state[1], state[2]
    mean = beta1 * mean + (1 - beta1) * gradient
    square = beta2 * square + (1 - beta2) * gradient**2
    mean_hat = mean / (1 - beta1**step)
    square_hat = square / (1 - beta2**step)
    return theta - lr * mean_hat / (np.sqrt(square_hat) + eps), (step, mean, square)

# %% tags=["check"]
twin = {"momentum": torch.zeros(2, dtype=torch.float64, requires_grad=True),
        "Adam": torch.zeros(2, dtype=torch.float64, requires_grad=True)}
library = {"momentum": torch.optim.SGD([twin["momentum"]], lr=1e-6, momentum=0.9),
           "Adam": torch.optim.Adam([twin["Adam"]], lr=0.1)}
ours, state = {"momentum": np.zeros(2), "Adam": np.zeros(2)}, (0, 0.0, 0.0)
velocity = np.zeros(2)
for _ in range(200):
    ours["momentum"], velocity = momentum_step(
        ours["momentum"], velocity, mse_gradient(ours["momentum"], X, PRICE), 1e-6, 0.9)
    ours["Adam"], state = adam_step(
        ours["Adam"], state, mse_gradient(ours["Adam"], X, PRICE), 0.1)
    for name, optimizer in library.items():
        optimizer.zero_grad()
        loss(twin[name]).backward()
        optimizer.step()
assert all(np.allclose(ours[n], twin[n].detach(), rtol=1e-9, atol=1e-9) for n in ours)
print("momentum_step, adam_step: 200 steps equal to torch.optim.SGD and torch.optim.Adam, float64")

# %%
# The loop above ran Adam on the raw areas, with the rate that made gradient descent overflow.
print(f"Adam, η = 0.1, raw areas, 200 steps: θ₁ = {ours['Adam'][1]:.3f}, "
      f"loss {mse(ours['Adam'], X, PRICE):.2g} (start: {mse(np.zeros(2), X, PRICE):.3g})")
print(f"but θ₀ = {ours['Adam'][0]:.2f}, where 0 is right")

# %%
Z = design_matrix(AREA / 1000)
y = PRICE / 1000  # prices in thousands: θ* = (0, 2) again
gradient = lambda theta: mse_gradient(theta, Z, y)
rate = 0.9 * stability_bound(mse_hessian(Z))
paths = {"gradient descent": descend(gradient, np.zeros(2), rate, N_WALK)}
walk, velocity = [np.zeros(2)], np.zeros(2)
for _ in range(N_WALK):
    theta, velocity = momentum_step(walk[-1], velocity, gradient(walk[-1]), rate, BETA)
    walk.append(theta)
paths[f"momentum, β = {BETA}"] = np.array(walk)
walk, state = [np.zeros(2)], (0, 0.0, 0.0)
for _ in range(N_WALK):
    theta, state = adam_step(walk[-1], state, gradient(walk[-1]), ALPHA)
    walk.append(theta)
paths["Adam, η = 0.1"] = np.array(walk)
curves = {name: np.mean((walk @ Z.T - y) ** 2, axis=1) for name, walk in paths.items()}
for name, curve in curves.items():
    print(f"{name}: loss {curve[-1]:.1e} of {curve[0]:.3g} after {N_WALK} steps")

# %%
kappa = condition_number(mse_hessian(Z))
left, right = panels(2, f"Areas and prices in thousands, κ = {kappa:.3g}")
u, v = np.meshgrid(np.linspace(-1, 2.2, 80), np.linspace(-0.5, 3.0, 80))
contours(left, u[0], v[:, 0], ((u[..., None] + v[..., None] * Z[:, 1] - y) ** 2).mean(-1))
for name, walk in paths.items():
    left.plot(*walk.T, ".-", lw=1, ms=4)
    right.plot(curves[name], label=name)
left.plot(0, 2, "k*", ms=10, label="θ*")
label(left, "θ₀ (1000s of price)", "θ₁ (price per m²)", f"{N_WALK} steps, colours as on the right")
label(right, "step", "loss (1000s of price)²", "their loss", log="y")
print("the star marks θ* = (0, 2)")

# %% [markdown]
# **Reading.** The thin ovals are level lines of the loss: a long, tilted valley. Plain descent
# jumps across it and creeps along it. Momentum sways at first, then runs down the valley; its line
# on the right is several times steeper. The best possible gain is from about κ to about √κ steps.
#
# Adam moves each coordinate by about 0.1 a step at first, whatever the slope. That is why it
# survived the raw areas. But here, where both axes have similar units, it is the slowest of the
# three: it rescales along the *axes*, and this valley is tilted, so it swings slowly along it. On
# the raw areas it also left θ₀ wrong: the flat direction is still flat.
#
# ## 4 · Noise, and why the learning rate falls at the end
#
# With many samples nobody computes the full gradient. Stochastic gradient descent (SGD) takes a
# few rows at a time. Their gradient is right on average, and noisy.

# %% tags=["essential"]
def sgd(theta, X, y, rates, batch_size, rng):
    path = [theta]
    for lr in rates:
        rows = rng.integers(len(y), size=batch_size)
        path.append(path[-1] - lr * mse_gradient(path[-1], X[rows], y[rows]))
    return np.array(path)

# %% tags=["check"]
same_rows, same_y = np.tile(Z[3], (10, 1)), np.full(10, y[3])  # any batch is the whole set
walked = sgd(np.zeros(2), same_rows, same_y, [0.3] * 5, 4, np.random.default_rng(0))
full = descend(lambda theta: mse_gradient(theta, same_rows, same_y), np.zeros(2), 0.3, 5)
assert np.allclose(walked, full)
first = [sgd(np.zeros(2), Z, y, [0.3], 1, np.random.default_rng(s))[1] for s in range(2000)]
error = abs(np.mean(first, axis=0) + 0.3 * gradient(np.zeros(2))) / np.std(first, axis=0)
assert (error < 4 / np.sqrt(2000)).all()
print("sgd: equal to descend on equal rows; 2000 noisy first steps average to the full step")

# %% [markdown]
# A thousand houses whose prices scatter by 100 around the line, areas standardised. Near the
# minimum the true gradient vanishes but the noise does not. At a constant rate the two balance at
# a **floor** above the lowest loss:
#
# $$L - L_{min} \approx \frac{\eta\, d\, \sigma^2}{B}$$
#
# with d = 2 parameters. (Each step adds about 4η²σ²/B of variance to a parameter and removes the
# share 4η of it; the balance is ησ²/B for each.)

# %%
many_areas = rng.uniform(100, 1000, N_HOUSES)
Z_many = design_matrix((many_areas - many_areas.mean()) / many_areas.std())
y_many = 2 * many_areas + rng.normal(0, NOISE, N_HOUSES)
best_many = np.linalg.lstsq(Z_many, y_many, rcond=None)[0]
sigma2 = mse(best_many, Z_many, y_many)
for lr in FLOOR_RATES:
    rates = [lr] * FLOOR_STEPS
    walks = np.array([sgd(best_many, Z_many, y_many, rates, BATCH, rng) for _ in range(N_WALKS)])
    excess = np.sum((walks[:, FLOOR_STEPS // 4:] - best_many) ** 2, axis=2)  # as ZᵀZ/n = I
    floor = excess.mean()
    print(f"η = {lr}: floor {floor:.3g} price², predicted {lr * 2 * sigma2 / BATCH:.3g}")

# %% [markdown]
# The floor is proportional to η. A high rate gets near quickly and stays noisy; a low rate is slow
# and ends low. So start high and end low. Two **schedules** do that. Both begin with a linear
# warm-up of w steps: at the start gradients are largest and Adam's averages are formed from few of
# them.
#
# - *Cosine*: after the warm-up, ½(1 + cos π u), where u is the share of the remaining steps
#   already done. The length must be chosen at the beginning.
# - *Warm-up–stable–decay (WSD)*: constant, and in the last k steps 1 − √u, where u is the share of
#   those k steps already done. The cool-down can begin at any time; chapter 08 lives on this.

# %% tags=["essential"]
def wsd(step, n_steps, warmup_steps, decay_steps):
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    left = n_steps - step
    return 1.0 if left > decay_steps else 1 - (1 - left / decay_steps) ** 0.5


def cosine(step, n_steps, warmup_steps):
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    done = (step - warmup_steps) / (n_steps - warmup_steps)
    return (1 + np.cos(np.pi * done)) / 2

# %% tags=["check"]
optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
library = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=80)
for step in range(20, 100):
    assert np.isclose(cosine(step, 100, 20), library.get_last_lr()[0])
    optimizer.step()
    library.step()
shape = [wsd(step, 100, 10, 16) for step in (0, 9, 10, 84, 88, 93, 99)]
assert np.allclose(shape, (0.1, 1, 1, 1, 0.5, 0.25, 1 - (15 / 16) ** 0.5))
print("cosine: as torch's CosineAnnealingLR; wsd: right at the corners and inside the cool-down")

# %%
shares = {"constant": np.ones(RUN_STEPS),
          "cosine": np.array([cosine(s, RUN_STEPS, WARMUP) for s in range(RUN_STEPS)]),
          "WSD": np.array([wsd(s, RUN_STEPS, WARMUP, DECAY) for s in range(RUN_STEPS)])}
excess = {}
for name, share in shares.items():
    walks = np.array([sgd(np.zeros(2), Z_many, y_many, PEAK * share, BATCH, rng)
                      for _ in range(N_SEEDS)])
    excess[name] = np.mean(np.sum((walks - best_many) ** 2, axis=2), axis=0)  # mean over the seeds
    print(f"{name}: {excess[name][-1]:.3g} price² above the lowest loss after {RUN_STEPS} steps")

# %%
left, right = panels(2, f"Three schedules, peak rate {PEAK}, mean of {N_SEEDS} runs")
for name in shares:
    left.plot(shares[name], label=name)
    right.plot(excess[name], label=name)
right.axhline(PEAK * 2 * sigma2 / BATCH, color="k", ls="--", lw=1, label="predicted floor")
label(left, "step", "learning rate / peak")
label(right, "step", "loss above its minimum (price²)", log="y")
print(f"predicted floor at the peak rate: {PEAK * 2 * sigma2 / BATCH:.0f} price²")

# %% [markdown]
# **Reading.** At the constant rate the loss comes near the predicted floor early and stays there
# (somewhat above, since the formula leaves out terms in η²; the printed value is the last step
# alone). Both schedules end several times lower. WSD
# follows the constant line and drops in its last 80 steps. Cosine ends lower still, because it
# spends more steps at low rates; but it had to know the number of steps beforehand.
#
# Nothing here needed the warm-up: this bowl has the same curvature everywhere. It is for networks,
# whose curvature changes most at the start.
#
# ## 5 · A line that obeys scaling laws
#
# Now the bridge to the whole course. Take linear regression with very many independent features.
# Sort them: feature i has variance λᵢ = i^−p and contributes sᵢ = i^−q to the variance of y (so its
# weight is wᵢ² = sᵢ/λᵢ). A few features matter a lot, and very many matter a little.
# Spectra of real images and texts often look like this. Which loss do we get if only N features, D
# samples or t steps are to be had?
#
# **Features.** With the first N features, the others stay unexplained. Their sum is nearly an
# integral:
#
# $$L(N) = \sum_{i>N} i^{-q} \approx \frac{N^{-(q-1)}}{q-1}$$
#
# **Steps.** Feature i has curvature h = 2λᵢ. Its loss shrinks by (1 − 2ηλᵢ)²ᵗ ≈ e^(−4ηλᵢt). Write
# T = 4ηt, take an integral for the sum, and measure i in units of T^(1/p), so i = T^(1/p) v:
#
# $$L(t) \approx \int i^{-q}\, e^{-T i^{-p}}\, di = T^{-(q-1)/p} \int v^{-q}\, e^{-v^{-p}}\, dv$$
#
# The last integral is a number without t in it, so L(t) ∝ t^(−(q−1)/p). Its integrand is nearly
# zero for v < 1 and v^−q for v > 1: features up to T^(1/p) are learnt, and the rest is the tail.
#
# **Samples.** D samples are D equations: they can fix D unknowns. Of all θ that fit them, descent
# from 0 finds the shortest. It acts like the ridge of chapter 01, with a penalty τ that it sets
# itself: feature i keeps the share τ/(λᵢ + τ) of its error, and the learnt shares add up to D:
#
# $$\sum_i \frac{\lambda_i}{\lambda_i+\tau} = D, \qquad
# L(D) \propto \sum_i s_i \left(\frac{\tau}{\lambda_i+\tau}\right)^2$$
#
# (Bordelon et al. 2020 derive this.) The terms on the left are near 1 while i^−p > τ and small
# beyond, so the sum counts up to i = τ^(−1/p): it is proportional to D, and τ ∝ D^−p. On the right,
# the features beyond D keep all their error; they give the tail, D^−(q−1). Those before D keep
# τ²/λᵢ² = τ² i^(2p); together τ² Σ i^(2p−q) ∝ D^(−2p) D^(2p−q+1), the same power again. So
# $L(D) \propto D^{-(q-1)}$. (This needs q − 1 < 2p. With a thinner tail the sum over the learnt
# features does not grow with D, and their small errors τ² set the law.)
#
# All three say the same thing: **a resource buys a number of learnt features, and the loss is the
# tail beyond them.**
#
# ### Predict first: the three exponents
#
# Here p = 2 and q = 1.8. Write down the three exponents. Then: by which factor does the loss fall
# for ten times more features, samples, steps?

# %% tags=["essential"]
def loss_with_features(N, signal):
    tail = np.append(np.cumsum(signal[::-1])[::-1], 0.0)
    return tail[N]


def smallest_fit(X, y):
    return X.T @ np.linalg.solve(X @ X.T, y)


def loss_with_samples(D, eigenvalues, signal, rng):
    w = np.sqrt(signal / eigenvalues)
    X = rng.standard_normal((D, len(eigenvalues))) * np.sqrt(eigenvalues)
    return np.sum(eigenvalues * (smallest_fit(X, X @ w) - w) ** 2)

# %% tags=["check"]
few = np.arange(1, 41.0)
many = np.random.default_rng(0).standard_normal((20_000, 40)) * few ** (-p / 2)
target = many @ few ** ((p - q) / 2)
kept = np.linalg.lstsq(many[:, :10], target, rcond=None)[1][0] / 20_000
assert np.isclose(loss_with_features(10, few**-q), kept, rtol=0.03)
assert np.allclose(smallest_fit(many[:9], target[:9]),
                   np.linalg.lstsq(many[:9], target[:9], rcond=None)[0])
pulled = descend(lambda theta: mse_gradient(theta, many[:5], target[:5]), np.zeros(40), 0.3, 9000)
assert np.allclose(pulled[-1], smallest_fit(many[:5], target[:5]), atol=1e-3)
full = loss_with_samples(40, few**-p, few**-q, np.random.default_rng(1))
assert full < 1e-12 < loss_with_samples(20, few**-p, few**-q, np.random.default_rng(1))
print("features: as a regression on 10 of 40; smallest fit: as lstsq, and as descent from 0")

# %%
i = np.arange(1, N_FEATURES + 1.0)
lam, signal = i**-p, i**-q
loss_N = loss_with_features(N_GRID, signal)
loss_t = loss_after_steps(T_GRID, 2 * lam, np.sqrt(signal / lam), lr=0.25)
exponent = lambda x, y: -np.polyfit(np.log(x), np.log(y), 1)[0]
predicted = {"steps": (q - 1) / p, "features": q - 1, "samples": q - 1}
fitted, spread = {}, {}
for name, x, values in (("steps", T_GRID, loss_t), ("features", N_GRID, loss_N)):
    local = -np.diff(np.log(values)) / np.diff(np.log(x))
    fitted[name], spread[name] = exponent(x, values), (local.min(), local.max())
    print(f"{name}: exponent {interval(fitted[name], *spread[name])}, predicted "
          f"{predicted[name]:.3f}")

# %%
j = np.arange(1, N_RANDOM + 1.0)
draws = [np.array([loss_with_samples(D, j**-p, j**-q, rng) for _ in range(max(10, 2000 // D))])
         for D in D_GRID]
loss_D = np.array([d.mean() for d in draws])
again = [exponent(D_GRID, [rng.choice(d, len(d)).mean() for d in draws])
         for _ in range(N_BOOTSTRAP)]
fitted["samples"], spread["samples"] = exponent(D_GRID, loss_D), np.percentile(again, (2.5, 97.5))
print(f"samples: exponent {interval(fitted['samples'], *spread['samples'])}, predicted "
      f"{predicted['samples']:.3f}")
worst = max(abs(fitted[name] / predicted[name] - 1) for name in fitted)
assert worst < 0.05
print(f"largest deviation of the three from theory: {100 * worst:.1f} %")

# %%
axes = panels(3, "Three scaling laws of one linear regression")
laws = {"steps": (T_GRID, loss_t), "features": (N_GRID, loss_N), "samples": (D_GRID, loss_D)}
for ax, (name, (x, values)) in zip(axes, laws.items(), strict=True):
    theory = np.exp(np.mean(np.log(values)) + predicted[name] * np.mean(np.log(x)))
    ax.plot(x, values, "o", label="measured")
    ax.plot(x, theory * x ** -predicted[name], "--", label=f"theory, slope −{predicted[name]:.1f}")
    label(ax, name, "loss (units of y²)", "exponent " + interval(fitted[name], *spread[name]), "xy")
print({name: f"{values[0]:.3g} → {values[-1]:.3g}" for name, (_, values) in laws.items()})

# %% [markdown]
# **Reading.** Each panel spans two decades and is straight on log–log axes. All three exponents
# agree with those that the spectrum predicted. Ten times the features or samples divide the loss
# by about six; ten times the steps only by about two and a half, because a step has to learn a
# feature whose variance falls as i^−p.
#
# The losses against steps and features are exact sums without error bars; their brackets hold the
# smallest and largest slope between neighbouring points, so they say how straight the line is. The
# loss against samples is a mean over random draws (more of them where D is small and the scatter
# large); its bracket is a 95 % bootstrap interval.
#
# The windows were chosen. Near N ≈ 10 or D ≈ 5 the sum is not yet an integral and the line is
# flatter. As N nears the number of features in the sums, or D that of the random draws, their
# *finite* number shows and the line is steeper; the upper end of the middle bracket is that. The
# exponent is an average over the window. Every measured scaling law has
# such ends, and a fit that includes them gets another exponent.
#
# What carries over to language models: a power law needs no deep network. A long tail of ever
# smaller things to learn is enough. What does not carry over: nobody gives us p and q there, so we
# shall have to measure. And if y carried label noise, its variance would remain at any N, D or t.
# That constant is the E in L = E + A/N^α + B/D^β, which chapter 08 fits. (A, B, α, β are there the
# constants of chapter 00's table, not this chapter's rate, batch and momentum.)

# %% [markdown]
# ## Exercises
#
# Write the function, run its cell, then the check below it. `hint("02.1")` gives a hint, called
# again a second one; `solution("02.1")` shows ours.

# %% tags=["exercise"]
def steps_for_a_tenth():
    """How many times more steps divide the loss by ten? Use the slope in the last left panel."""
    return NotImplemented

# %% tags=["exercise-check"]
check("02.1", steps_for_a_tenth)
# hint("02.1")
# solution("02.1")

# %% tags=["exercise"]
def gradient_step(theta, X, y, lr):
    """One step of gradient descent on the MSE, 1/n Σ(ŷ − y)². Return the new theta, (d,)."""
    return NotImplemented

# %% tags=["exercise-check"]
check("02.2", gradient_step)
# hint("02.2")
# solution("02.2")

# %% tags=["exercise"]
def largest_lr(x):
    """The stability bound of the MSE of a line with intercept, on one feature x of shape (n,)."""
    return NotImplemented

# %% tags=["exercise-check"]
check("02.3", largest_lr)
# hint("02.3")
# solution("02.3")

# %% tags=["exercise"]
def steps_needed(kappa, tolerance):
    """Steps of gradient descent until the loss is at most `tolerance` times its start, at worst.

    The rate is the best one, 2/(h_max + h_min). Derive the factor of the slowest direction.
    """
    return NotImplemented

# %% tags=["exercise-check"]
check("02.4", steps_needed)
# hint("02.4")
# solution("02.4")

# %% tags=["exercise"]
def compute_optimal(p, q):
    """N features for t steps cost C = N·t. Choose N for the lowest loss at each C.

    Then N ∝ C^g and loss ∝ C^−k. Derive and return (g, k), for eigenvalues i^−p, signal i^−q.
    """
    return NotImplemented

# %% tags=["exercise-check"]
check("02.5", compute_optimal)
# hint("02.5")
# solution("02.5")

# %% [markdown]
# ## Play: across the bound
#
# Drag the learning rate, or click it and use the arrow keys. Below half the bound the path bends
# smoothly into the valley; between half and the whole it jumps from side to side; beyond it
# leaves. First guess how many steps it will take. (Areas and prices in thousands, as in
# section 3.)

# %% tags=["widget"]
Z_play, y_play = design_matrix(AREA / 1000), PRICE / 1000
h_play, V_play = np.linalg.eigh(mse_hessian(Z_play))
around = np.stack([np.cos(np.linspace(0, 2 * np.pi, 90)), np.sin(np.linspace(0, 2 * np.pi, 90))])


def trajectory(lr, n_steps):
    walk = descend(lambda theta: mse_gradient(theta, Z_play, y_play), np.zeros(2), lr, n_steps)
    loss, ratio = mse(walk[-1], Z_play, y_play), lr * h_play[-1] / 2
    word = "diverges" if ratio > 1 else "zigzags" if ratio > 0.5 else "converges"
    outside = np.abs(walk).max(axis=1) > 20  # far beyond the picture: leave the rest out
    walk = walk[:np.argmax(outside) + 1] if outside.any() else walk
    half_axes = [np.sqrt(2 * level / h_play) for level in (0.005, 0.05, 0.3, 1.54)]
    levels = [V_play @ (around * lengths[:, None]) for lengths in half_axes]
    drawn = [series("line", c[0], c[1] + 2, color=7) for c in levels]
    drawn += [series("line", *walk.T, "path", 0), series("points", *walk.T, "steps", 0),
              series("points", [0], [2], "minimum", 3)]
    return picture(drawn, "θ₀ (1000s of price)", "θ₁ (price per m²)", (-1, 2.2), (-0.5, 3),
                   "Gradient descent on the loss surface",
                   text=f"lr = {ratio:.2f} × bound: {word}, loss {loss:.2g} after {n_steps} steps "
                        f"(the bound is {2 / h_play[-1]:.3g})")


explore(trajectory,
        lr=FloatLogSlider(0.3, base=10, min=np.log10(0.03), max=np.log10(1.5), step=0.02,
                          description="learning rate"),
        n_steps=IntSlider(40, 1, 100, description="steps"))

# %% [markdown]
# ## Recap
#
# - Descent multiplies the error along each eigenvector of H by 1 − ηh. Everything follows: the
#   bound 2/h_max, the waiting time κ, the overflow.
# - Scaling features, momentum and Adam shorten the wait; a falling rate removes the floor that
#   noise leaves.
# - With a power-law spectrum the same sum is a scaling law, and theory gives its exponents.
#
# **Limits.** All of this is for a bowl, where H is the same everywhere. In a network the curvature
# changes while it learns, and often settles near 2/η (Cohen et al., *Edge of stability*, 2021).
# The features were independent and Gaussian, and the labels free of noise.
#
# **To read.** Goh, *Why momentum really works* (2017); Kingma & Ba, *Adam* (2014); Hägele et al.
# 2024 on WSD; Bordelon, Canatar & Pehlevan, *Spectrum dependent learning curves* (2020) for the
# sample law; Maloney, Roberts & Sully, *A solvable model of neural scaling laws* (2022).
#
# Next: **03 · Classification and metrics**, where the answer is yes or no.
