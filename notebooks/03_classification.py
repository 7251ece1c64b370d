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
# # 03 · Classification and metrics
#
# **The question:** how does a model learn to say "yes, with 80 %", and which number tells us
# whether it is any good?
#
# After this notebook you can
#
# 1. derive the gradient of cross-entropy, fit logistic regression, and say why weights run away;
# 2. compute precision, recall, F1, ROC, AUC and calibration, and choose the one a task needs;
# 3. put an interval on an accuracy, and recognise one that says nothing.
#
# Runs in about 1 minute on a CPU; allow two hours to work through. A GPU changes nothing here.
#
# | symbol | code | meaning | unit |
# |---|---|---|---|
# | $n$, $d$ | `len(y)`, `d` | examples, features | – |
# | $X$, $\theta$ | `X`, `theta` | design matrix with a first column of ones; parameters | – |
# | $y$ | `y` | label, 0 or 1 | – |
# | $z = X\theta$ | `z` | logit: the log-odds of class 1 | – |
# | $\hat p = \sigma(z)$ | `p` | predicted probability of class 1 | – |
# | $L$ | `cross_entropy` | mean cross-entropy | nats per example; / ln 2: bits |
# | $\lambda$ | `lam` | strength of the L2 penalty | – |
# | $\pi$ | `base`, `prevalence` | share of class 1 | – |
# | $H$ | – | Hessian of the objective, as in chapter 02 | – |
# | $h$ | `leverage` | leverage: weight of an example's own label in its prediction | – |
# | $t$ | `t` | threshold: predict 1 if $\hat p \ge t$ | – |
# | $k$, $c$ | `k`, `c` | successes among $n$; 1.96 for 95 % intervals | – |
# | $a$ | `share` | the true accuracy, or another true share | – |
# | $T$ | `T` | temperature that divides the logits | – |

# %% tags=["imports"]
import numpy as np
import torch
from ipywidgets import Dropdown, FloatSlider
from scipy.optimize import minimize_scalar
from scipy.stats import binom, binomtest, norm
from sklearn import metrics
from sklearn.calibration import calibration_curve as sklearn_calibration_curve
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import LogisticRegression

from helpers import runtime
from helpers.claims import verdict
from helpers.exercises import check, hint, solution
from helpers.foundations.regression import descend, design_matrix, least_squares, standardise
from helpers.plots import COLORS, label, panels
from helpers.widgets import explore, picture, series

# %% tags=["config"]
N_FIT = 300  # patients to fit on; the others are held out
LR, HALF_STEPS = 0.5, 2000  # gradient descent: its rate, and its steps on half of the loss
LAM = 1e-3  # penalty of the breast-cancer models
RUN_STEPS = 30_000  # gradient descent without a penalty
N_COINS, D_COINS, N_DRAWS = 1000, 10, 400  # the article's set-up, drawn many times
D_GRID, MIN_DRAWS = (2, 5, 10, 20, 50, 100, 200, 400), 40  # features; draws of the largest
ARTICLE_ACCURACY = 0.8
CHEAP = ("mean texture", "mean smoothness")  # the features of the two-feature model
COST_FP, COST_FN = 1, 10  # cost of a false alarm and of a missed tumour
PREVALENCES, N_SUBSETS = (0.35, 0.10, 0.03), 2000
D_SIM, SPREAD, N_SMALL, N_CALIBRATE, N_TEST = 20, 1.5, 100, 1000, 20_000  # known truth
LAM_TINY, LAM_SIM = 1e-6, 0.02
N_COVER, SHARES = 50, np.linspace(0.5, 0.999, 500)  # test examples; true accuracies
N_SPLITS = 200  # of the diabetes patients
RIVALS = (1e-6, 0.1)  # penalties of the two rivals in the paired comparison
rng = runtime.setup(3)

# %% [markdown]
# ## Predict first
#
# The second article draws 1000 examples with 10 features, uniform between 0 and 1. The labels are
# coin flips: the features have no say in them. It fits logistic regression and reports an accuracy
# of about 80 %. Write down three guesses. What accuracy would you get on those 1000 examples? On
# 1000 new ones? How often would pure luck give 80 %? Section 3 answers.
#
# ## 1 · From a score to a probability
#
# A line gives any number; a probability lies between 0 and 1. So let the line be the **logit**
# $z$: the logarithm of the odds $\hat p/(1-\hat p)$. Odds of 3 to 1 have the logit ln 3 ≈ 1.1.
# Solved for $\hat p$ this is the *sigmoid*:
#
# $$z = X\theta = \ln\frac{\hat p}{1-\hat p}, \qquad
# \hat p = \sigma(z) = \frac{1}{1+e^{-z}} .$$
#
# How bad is a probability? Pay the logarithm of what you gave to the thing that happened:
#
# $$L = -\frac1n\sum_i \bigl[y_i\ln\hat p_i + (1-y_i)\ln(1-\hat p_i)\bigr]
# = \frac1n\sum_i \bigl[\ln(1+e^{z_i}) - y_i z_i\bigr] .$$
#
# In words: if $y=1$ the price is $-\ln\hat p$, if $y=0$ it is $-\ln(1-\hat p)$. Why the logarithm?
# The probability of all labels together is a product; its logarithm is a sum. So the lowest price
# belongs to the model that makes the observed labels most probable. The price is called
# **cross-entropy**. With the natural logarithm it is in *nats*; divided by ln 2 it is in *bits*.
#
# The form on the right follows from $\ln\hat p = z - \ln(1+e^z)$ and
# $\ln(1-\hat p) = -\ln(1+e^z)$, and never takes the logarithm of 0. The derivative of
# $\ln(1+e^z)$ is $\sigma(z)$, so the gradient is short:
#
# $$\frac{\partial L}{\partial z_i} = \frac{\hat p_i - y_i}{n}, \qquad
# \nabla_\theta L = X^\top \frac{\hat p - y}{n} .$$
#
# `np.logaddexp(0, z)` is ln(1 + eᶻ) without overflow. The shapes are compared first; section 4
# shows why. The check uses random numbers.
#
# Then come labels that do depend on the features. scikit-learn ships the Wisconsin breast-cancer
# data (Wolberg, Street and Mangasarian, 1995): thirty measurements of the cells of each tumour. We
# write $y = 1$ for malignant (scikit-learn writes 0). As in chapter 01, features are standardised
# with the mean and deviation of the patients we fit on. The figure then draws the price of one
# example, and the mean price: once in full, and once as the article writes it, without the half
# for $y=0$.

# %% tags=["essential"]
def sigmoid(z):
    return np.exp(-np.logaddexp(0, -z))


def cross_entropy(z, y):
    if np.shape(z) != np.shape(y):
        raise ValueError(f"logits {np.shape(z)}, labels {np.shape(y)}: expected equal shapes")
    return np.mean(np.logaddexp(0, z) - y * z)


def cross_entropy_gradient(z, y):
    if np.shape(z) != np.shape(y):
        raise ValueError(f"logits {np.shape(z)}, labels {np.shape(y)}: expected equal shapes")
    return (sigmoid(z) - y) / np.size(y)


# %% tags=["check"]
X_any, y_any, theta_any = rng.normal(size=(50, 4)), rng.integers(2, size=50), rng.normal(size=4)
theta_torch = torch.tensor(theta_any, requires_grad=True)
loss = torch.nn.functional.binary_cross_entropy_with_logits(
    torch.tensor(X_any) @ theta_torch, torch.tensor(y_any).double())
loss.backward()
z = X_any @ theta_any
assert np.isclose(cross_entropy(z, y_any), loss.item())
assert np.allclose(X_any.T @ cross_entropy_gradient(z, y_any), theta_torch.grad)
assert np.array_equal(sigmoid(np.array([-1e4, 0.0, 1e4])), [0, 0.5, 1])
print(f"as torch and its autograd; a logit of 1000 costs {cross_entropy(1000.0, 0.0):.0f} nats if "
      "wrong, not infinity")

# %%
data = load_breast_cancer()
malignant = (data.target == 0).astype(float)
fit, held = np.split(rng.permutation(len(malignant)), [N_FIT])
X = design_matrix(standardise(data.data, data.data[fit]))
X_fit, y_fit, X_held, y_held = X[fit], malignant[fit], X[held], malignant[held]
base = y_fit.mean()
print(f"{len(fit)} patients to fit on, {100 * base:.1f} % malignant; {len(held)} held out, "
      f"{100 * y_held.mean():.1f} % malignant; {X.shape[1] - 1} features")

# %%
p = np.linspace(0.001, 0.999, 999)
right_price, wrong_price = -np.log2(p), -np.log2(1 - p)  # if y = 1, if y = 0
mean_price = base * right_price + (1 - base) * wrong_price
left, right = panels(2, "What a predicted probability costs")
left.plot(p, right_price, label="y = 1: −log₂ p")
left.plot(p, wrong_price, "--", label="y = 0: −log₂(1 − p)")
label(left, "predicted probability p of class 1", "price (bits)", "one example")
right.plot(p, mean_price, label="cross-entropy")
right.plot(p, base * right_price, "--", label="the article's half")
right.plot(base, mean_price.min(), "o", color=COLORS[3], label="lowest")
label(right, "the same p for everybody", "mean price (bits per patient)", "the fitted patients")
print(f"p = 0.5 costs {right_price[499]:.0f} bit; p = 0.99 costs {right_price[989]:.4f} bits if "
      f"right, {wrong_price[989]:.2f} if wrong; the same p for everybody costs at least "
      f"{mean_price.min():.3f}, at p = {p[mean_price.argmin()]:.3f}; the half is lowest at {p[-1]}")

# %% [markdown]
# **Reading.** *Left:* a fair coin costs one bit, whatever happens. Being right becomes cheap
# slowly; being wrong becomes dear without bound. *Right:* if all patients must get the same p, the
# cheapest is the share of malignant ones, the *base rate*. Its price is the *entropy* of that
# share: what it costs to know the base rate and nothing else. A model has to beat this.
#
# ### Half of a loss (K6)
#
# The article's loss is $-\frac1N\sum y\ln\hat y$, the first half alone. Being benign costs nothing
# whatever we say, so the half asks for one thing only: say "malignant". The dashed line falls all
# the way to p = 1. **The experiment:** train the same model on the whole and on the half, by
# gradient descent, on features scaled to 0 … 1; then on the half with standardised features. The
# claim holds if the half's held-out accuracy is at most one point below that of the whole.
#
# **Exercise 03.1** first. Read off the left panel: y was 1 and the price was 3 bits. What
# probability had been predicted for class 1?

# %% tags=["exercise"]
def probability_for_three_bits():
    """The p, between 0 and 1, that costs 3 bits if y = 1."""
    return NotImplemented


# %% tags=["exercise-check"]
check("03.1", probability_for_three_bits)
# hint("03.1")
# solution("03.1")

# %% tags=["verdict"]
low, high = data.data[fit].min(axis=0), data.data[fit].max(axis=0)
X_unit = design_matrix((data.data - low) / (high - low))
whole = lambda z: cross_entropy_gradient(z, y_fit)
half = lambda z: -y_fit * sigmoid(-z) / len(y_fit)  # derivative of −mean(y ln σ(z))
says, accuracy = {}, {}
for name, features, slope in (("whole, 0 … 1", X_unit, whole), ("half, 0 … 1", X_unit, half),
                              ("half, standardised", X, half)):
    path = descend(lambda theta, F=features, g=slope: F[fit].T @ g(F[fit] @ theta),
                   np.zeros(X.shape[1]), LR, HALF_STEPS)
    for step in (20, HALF_STEPS):
        z = features @ path[step]
        says[name], accuracy[name] = sigmoid(z[held]), np.mean((z[held] > 0) == y_held)
        print(f"{name:18}, step {step:4}: the article's loss "
              f"{np.mean(y_fit * np.logaddexp(0, -z[fit])):.5f} nats, held-out accuracy "
              f"{100 * accuracy[name]:.1f} %")
lowest = says["half, 0 … 1"].min()
verdict("K6", holds=bool(accuracy["half, 0 … 1"] > accuracy["whole, 0 … 1"] - 0.01),
        measured=f"trained on the half alone, the model gives every held-out patient at least "
                 f"p = {lowest:.3g}; its accuracy is {accuracy['half, 0 … 1']:.3g}, the share of "
                 f"class 1; trained on the whole it is {accuracy['whole, 0 … 1']:.3g}.",
        lowest_p=lowest, accuracy_half=accuracy["half, 0 … 1"],
        accuracy_whole=accuracy["whole, 0 … 1"])

# %% [markdown]
# **Reading.** On features from 0 to 1 the "loss" goes to zero and every patient is called
# malignant. On standardised features it looks better at first: they average zero, so the two
# classes' means lie on opposite sides of zero, and slopes that push one up push the other down. But
# at step 2000 both the "loss" *and* the accuracy are lower. A falling loss shows progress only if
# the loss asks for the right thing.
#
# ## 2 · The fit, and weights that run away
#
# Cross-entropy has no closed form for its lowest point, but it is a bowl without other hollows
# (convex). **Newton's method** takes the parabola that fits the bowl where we stand, and jumps to
# *its* lowest point:
#
# $$J(\theta) = L(\theta) + \lambda\sum_{j\ge1}\theta_j^2, \qquad
# \theta \leftarrow \theta - H^{-1}\nabla J, \qquad
# H = \frac1n X^\top \mathrm{diag}\bigl(\hat p(1-\hat p)\bigr) X + 2\lambda P .$$
#
# $H$ is the Hessian of chapter 02, here with the weight $\hat p(1-\hat p)$ on each example. $P$ is
# the identity with a zero for the intercept. A jump that would land higher is halved until it does
# not. A handful of jumps do. (scikit-learn writes $C = 1/(2n\lambda)$ for the same penalty.)
#
# One thing can go wrong. If some line (with three features a plane, and so on) separates the
# classes, then θ, 2θ, 3θ … all classify everything correctly, and each is *cheaper* than the last.
# There is no lowest point. The function says so instead of returning whatever it had reached.

# %% tags=["essential"]
def logistic_regression(X, y, lam=0.0, n_steps=50):
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


# %% tags=["check"]
library = LogisticRegression(C=1 / (2 * N_FIT * LAM), tol=1e-10, max_iter=10_000)
theta_full, theirs = logistic_regression(X_fit, y_fit, LAM), library.fit(X_fit[:, 1:], y_fit)
assert np.allclose(theta_full, [*theirs.intercept_, *theirs.coef_[0]], rtol=1e-3, atol=1e-3)
try:
    logistic_regression(X, malignant)
except ValueError as error:
    print(f"all {len(X)} patients, no penalty: {error}")
print(f"λ = {LAM}: as scikit-learn's LogisticRegression")

# %%
path = descend(lambda theta: X_fit.T @ cross_entropy_gradient(X_fit @ theta, y_fit),
               np.zeros(X.shape[1]), LR, RUN_STEPS)
steps = np.unique(np.geomspace(1, RUN_STEPS, 60).astype(int))
length = np.linalg.norm(path[steps, 1:], axis=1)
loss_fit = np.array([cross_entropy(X_fit @ theta, y_fit) for theta in path[steps]])
loss_held = np.array([cross_entropy(X_held @ theta, y_held) for theta in path[steps]])
best = loss_held.argmin()
for step in (steps[best], RUN_STEPS):
    z, z_held = X_fit @ path[step], X_held @ path[step]
    print(f"step {step:5}: slopes of length {np.linalg.norm(path[step, 1:]):4.1f}, loss fitted "
          f"{cross_entropy(z, y_fit):.3f}, held out {cross_entropy(z_held, y_held):.3f} nats, "
          f"held-out accuracy {100 * np.mean((z_held > 0) == y_held):.1f} %")
price, wrong = np.logaddexp(0, z_held) - y_held * z_held, (z_held > 0) != y_held
longer = X_held @ path[steps[best]] * length[-1] / length[best]
print(f"the last step's {wrong.sum()} wrong patients pay {price[wrong].sum() / price.sum():.3f} of "
      f"its loss; the best step's θ made as long costs {cross_entropy(longer, y_held):.3f} nats")
ours = cross_entropy(X_held @ theta_full, y_held)
print(f"λ = {LAM}: slopes of length {np.linalg.norm(theta_full[1:]):.2f}, loss held out {ours:.3f} "
      f"nats, held-out accuracy {100 * np.mean((X_held @ theta_full > 0) == y_held):.1f} %")

# %%
left, right = panels(2, "Gradient descent on separable classes, no penalty")
left.plot(steps, length, label="no penalty")
left.axhline(np.linalg.norm(theta_full[1:]), color="k", ls=":", label=f"λ = {LAM}, at its minimum")
label(left, "step", "length of the slopes (no unit)", "the weights", log="x")
right.plot(steps, np.column_stack([loss_fit, loss_held]), label=["fitted patients", "held out"])
right.axhline(ours, color="k", ls=":", label=f"held out, λ = {LAM}")
label(right, "step", "cross-entropy (nats per patient)", "the loss", log="xy")
print(f"held-out loss: the last is {loss_held[-1] / loss_held[best]:.0f} times the lowest")

# %% [markdown]
# **Reading.** The fitted loss keeps falling and the weights keep growing; neither would ever stop.
# Growing weights make predictions more certain, the wrong ones included, and the first figure
# showed what a confident mistake costs. So the held-out loss rises about tenfold while the held-out
# accuracy loses a few points only: the few wrong patients pay nearly all of it. Length alone would
# not do this: the best step's θ, made just as long, costs far less. The direction turns too, and
# makes more mistakes. Even all 569 patients can be separated (the message under the check).
#
# So use a penalty, or stop early. The best step was found by looking at the held-out patients, so
# its loss is flattered. λ = 0.001 was set beforehand and not tuned; exercise 01.5 showed how one
# would choose it inside the training set.
#
# ## 3 · Coins
#
# Now the article's coins. The features carry no information about the label. So whatever a model
# says about a new example, it is right with probability ½, and its number of hits on $n$ new
# examples is binomial: mean $n/2$, standard deviation $\sqrt{n}/2$. On average no model can do
# better, however large.
#
# On the examples that were fitted the model can do better than that, because it has seen the coins.
# By how much? Each fitted prediction listens to its own label. In least squares on labels ±1, the
# own label enters the prediction with a weight $h$, the *leverage*, on average $(d+1)/n$. All other
# labels together are noise of variance $h - h^2$. So the prediction has the sign of its own label
# with probability
#
# $$\Phi\!\left(\frac{h}{\sqrt{h-h^2}}\right) = \Phi\!\left(\sqrt{\frac{h}{1-h}}\right),
# \qquad h = \frac{d+1}{n},$$
#
# where $\Phi$ is the cumulative normal distribution (the noise is a sum of many labels, so nearly
# normal). That is about least squares. We shall see how well it serves logistic regression, with up
# to 400 features of pure noise. **The experiment for K7:** draw, fit and count 400 times. The claim
# holds if a single draw reaches 80 %, be it on fitted or on new examples.

# %%
def coin_accuracies(n, d, n_draws):
    """Accuracy on n fitted and on n new examples of coin-flip labels, per draw: (n_draws, 2)."""
    hits = []
    for _ in range(n_draws):
        X, y = design_matrix(rng.random((2 * n, d))), rng.integers(2, size=2 * n)
        theta = logistic_regression(X[:n], y[:n])
        hits.append(((X @ theta > 0) == (y == 1)).reshape(2, n).mean(axis=1))
    return np.array(hits)


coins = coin_accuracies(N_COINS, D_COINS, N_DRAWS)
for name, values in zip(("fitted", "new"), coins.T, strict=True):
    print(f"{name:6} examples: mean {100 * values.mean():.1f} %, standard deviation "
          f"{100 * values.std():.2f} %, {100 * values.min():.1f} … {100 * values.max():.1f} %")
print(f"binomial: mean 50 %, standard deviation {100 * 0.5 / N_COINS**0.5:.2f} %")

# %%
draws = np.maximum(MIN_DRAWS, 1000 // np.array(D_GRID))
grid = np.array([coin_accuracies(N_COINS, d, n).mean(axis=0)
                 for d, n in zip(D_GRID, draws, strict=True)])
leverage = (np.array(D_GRID) + 1) / N_COINS
theory = norm.cdf(np.sqrt(leverage / (1 - leverage)))
for d, n, (seen, new), expected in zip(D_GRID, draws, grid, theory, strict=True):
    print(f"{d:3} features: fitted {100 * seen:.1f} % (formula {100 * expected:.1f}), "
          f"new {100 * new:.1f} % (coins 50 ± {100 / (N_COINS * n) ** 0.5:.1f})")

# %%
left, right = panels(2, f"Coin-flip labels, {N_COINS} examples")
bins = np.arange(0.4445, 0.6, 0.01)
left.hist(coins, bins, histtype="stepfilled", alpha=0.6, label=["fitted examples", "new ones"])
at = np.linspace(0.44, 0.6, 200)
left.plot(at, N_DRAWS * 0.01 * norm.pdf(at, 0.5, 0.5 / N_COINS**0.5), "k", label="binomial")
left.axvline(ARTICLE_ACCURACY, color=COLORS[3], ls="--", label="the article")
label(left, "accuracy", "draws", f"{N_DRAWS} draws, {D_COINS} features")
left.legend(loc=(0.46, 0.4), fontsize="small")
right.plot(D_GRID, grid, "o", label=["fitted", "new"])
right.plot(D_GRID, theory, "--", color=COLORS[0], label="formula, fitted")
right.axhline(ARTICLE_ACCURACY, color=COLORS[3], ls="--", label="the article")
label(right, "features", "accuracy", "mean over the draws", log="x")
print(f"highest of {N_DRAWS} draws: {100 * coins[:, 0].max():.1f} % fitted, "
      f"{100 * coins[:, 1].max():.1f} % new")

# %% tags=["verdict"]
luck = binom.logsf(int(ARTICLE_ACCURACY * N_COINS) - 1, N_COINS, 0.5) / np.log(10)
low, high = np.percentile(coins, (2.5, 97.5), axis=0)
enough = int(np.argmax(grid[:, 0] > ARTICLE_ACCURACY - 0.01))
verdict("K7", holds=bool(coins.max() >= ARTICLE_ACCURACY),
        measured=f"new examples: {100 * coins[:, 1].mean():.1f} % (95 % of draws "
                 f"{100 * low[1]:.1f} … {100 * high[1]:.1f}); fitted ones: "
                 f"{100 * coins[:, 0].mean():.1f} % ({100 * low[0]:.1f} … {100 * high[0]:.1f}). "
                 f"Chance gives 80 % or more of {N_COINS} new examples with probability "
                 f"10^{luck:.0f}; about {D_GRID[enough]} features instead of {D_COINS} give it on "
                 "the fitted ones.",
        new=coins[:, 1].mean(), fitted=coins[:, 0].mean(), fitted_highest=coins[:, 0].max(),
        log10_luck=luck)

# %% [markdown]
# **Reading.** On new examples the accuracies scatter around 50 % just as the binomial says, and
# their means lie within the ± two standard errors printed beside them. On the fitted ones the
# least-squares formula holds to a few tenths of a point, and is a point low for 400 features. With
# 10 features the gain is about 4 points. It takes hundreds of columns of noise to reach the
# article's 80 % (claim K7), and even then new examples stay near 50 %: what was learnt is the coins
# themselves.
#
# ## 4 · Accuracies that are none
#
# ### A million comparisons (K8)
#
# The article's code compares predictions of shape (1000, 1) with labels of shape (1000,). Array
# libraries *broadcast*: each prediction is compared with each label. **The experiment:** do that
# with the coins, then shuffle the labels. That must change an accuracy, if it is one. Then do it
# with the held-out patients, once with perfect predictions and once with "benign" for all. The
# claim holds if perfect predictions score 1.
#
# ### Equality of real numbers (K11)
#
# The first article judges a regression by the share of outputs that *equal* their targets. **The
# experiment** in the second cell below: fit chapter 01's diabetes scores by least squares, and
# compare with a model that always says the most frequent score (the lowest one, if several are).
# Then round predictions and targets to a coarser unit. All numbers are means over 200 random
# splits: in one split the constant hits perhaps one target, perhaps none. The claim holds if the
# share of equal outputs is higher for the model with the smaller error.

# %% tags=["verdict"]
X_coin, y_coin = design_matrix(rng.random((N_COINS, D_COINS))), rng.integers(2, size=N_COINS)
z_coin = (X_coin @ logistic_regression(X_coin, y_coin))[:, None]  # (1000, 1)
p_coin = sigmoid(z_coin)
shuffled = rng.permutation(y_coin)
table = np.equal(np.round(p_coin), y_coin)
in_torch = torch.eq(torch.round(torch.tensor(p_coin)), torch.tensor(y_coin))
print(f"NumPy compares {table.shape} pairs, PyTorch {tuple(in_torch.shape)}: means "
      f"{table.mean():.4f} and {in_torch.double().mean():.4f}")
for name, y in (("true", y_coin), ("shuffled", shuffled)):
    print(f"{name:8} labels: pair by pair {np.mean(np.round(p_coin[:, 0]) == y):.4f}, "
          f"broadcast {np.mean(np.round(p_coin) == y):.4f}")
perfect, constant = ((np.round(p[:, None]) == y_held).mean() for p in (y_held, 0 * y_held))
try:
    cross_entropy(z_coin, y_coin)
except ValueError as error:
    print(f"caught by the shape check: {error}")
verdict("K8", holds=bool(np.isclose(perfect, 1)),
        measured=f"{table.size:,} comparisons instead of {N_COINS}; shuffling the labels leaves "
                 f"the value as it is. On the patients, perfect predictions score {perfect:.3g} "
                 f"and 'all benign' {constant:.3g}: the useless model wins.",
        perfect=perfect, constant=constant, comparisons=table.size)

# %% tags=["verdict"]
features, score = load_diabetes(return_X_y=True, scaled=False)
units, found = (1, 10, 100, 1000), []
for _ in range(N_SPLITS):
    known, rest = np.split(rng.permutation(len(score)), [N_FIT])
    Z, truth = design_matrix(standardise(features, features[known])), score[rest]
    values, counts = np.unique(score[known], return_counts=True)
    guesses = (Z[rest] @ least_squares(Z[known], score[known]),
               np.full(len(rest), values[counts.argmax()]))
    found.append([[np.mean((guess - truth) ** 2) ** 0.5, np.mean(guess == truth),
                   *(np.mean(np.round(guess / u) == np.round(truth / u)) for u in units)]
                  for guess in guesses])
rmse, equal, *rounded = np.mean(found, axis=0).T  # each: the fit's and the constant's
for i, name in enumerate(("least squares", "one constant")):
    print(f"{name}: RMSE {rmse[i]:.1f} points; equal {100 * equal[i]:.2f} %; rounded to 1, 10, "
          "100, 1000 points: " + ", ".join(f"{100 * r[i]:.1f}" for r in rounded) + " %")
verdict("K11", holds=bool(equal[0] > equal[1]),
        measured=f"the fit's outputs equal {100 * equal[0]:.2g} % of the targets, a constant's "
                 f"{100 * equal[1]:.2g} %, although the fit's error is {rmse[0]:.0f} "
                 f"instead of {rmse[1]:.0f} points; by the choice of a rounding unit the same fit "
                 "gets from 0 to 100 %.",
        fit_equal=equal[0], constant_equal=equal[1])

# %% [markdown]
# **Reading.** *K8.* If a share $\hat\pi$ is predicted to be 1 and a share $\pi$ is 1, the broadcast
# mean is $\hat\pi\pi + (1-\hat\pi)(1-\pi)$. Nothing in it knows which prediction belongs to which
# label. One line before each comparison prevents this: `assert p.shape == y.shape`. *K11.* The
# better model's outputs, real numbers, hit no target exactly; a constant hits a few. Rounding does
# not help: then the unit decides the number. Choose the metric by what the output is and what is
# done with it (sections 5 to 8 explain the words that are new):
#
# | the output is … | judge it by | mind |
# |---|---|---|
# | a real number | RMSE or mean absolute error, with unit | outliers weigh more in RMSE |
# | a class, all about equally frequent | accuracy with its interval | compare with the base rate |
# | a class, one rare or one mistake dearer | precision and recall, or the cost | the threshold |
# | a ranking | AUC | says nothing about probabilities |
# | a probability | cross-entropy, calibration | neither asks for a decision |
# | the next token of a text | cross-entropy, bits per byte | chapter 06 |
#
# ## 5 · Which mistakes?
#
# An accuracy counts all mistakes alike. The **confusion matrix** keeps them apart: true and false
# positives (TP, FP), true and false negatives (TN, FN), where *positive* means "predicted 1".
#
# $$\text{precision} = \frac{TP}{TP+FP}, \qquad \text{recall} = \frac{TP}{TP+FN}, \qquad
# F_1 = \frac{2}{1/\text{precision} + 1/\text{recall}} = \frac{2\,TP}{2\,TP + FP + FN} .$$
#
# In words. Precision: which share of the alarms is right? Recall: which share of the tumours is
# found? F1: their harmonic mean, which lies nearer the smaller one.
#
# We judge two models from here on: all thirty features, and a cheap one that knows two of them, the
# cells' texture and smoothness. It makes mistakes enough to look at. **Exercise 03.2**, a cousin of
# F1, stands below them.

# %% tags=["essential"]
def confusion_matrix(y, predicted):
    if np.shape(y) != np.shape(predicted) or not np.isin([y, predicted], (0, 1)).all():
        raise ValueError("expected arrays of one shape that hold only 0 and 1, no probabilities")
    return np.bincount(2 * np.array(y, int) + np.array(predicted, int), minlength=4).reshape(2, 2)


def precision_recall_f1(y, predicted):
    (_, fp), (fn, tp) = confusion_matrix(y, predicted)
    share = lambda part, whole: part / whole if whole else np.nan
    return share(tp, tp + fp), share(tp, tp + fn), share(2 * tp, 2 * tp + fp + fn)


# %% tags=["check"]
some_y, some_guess = rng.integers(2, size=(2, 200))
assert np.array_equal(confusion_matrix(some_y, some_guess),
                      metrics.confusion_matrix(some_y, some_guess))
reference = [f(some_y, some_guess) for f in (metrics.precision_score, metrics.recall_score,
                                             metrics.f1_score)]
assert np.allclose(precision_recall_f1(some_y, some_guess), reference)
print("confusion matrix, precision, recall and F1 agree with scikit-learn")

# %%
columns = [0] + [1 + list(data.feature_names).index(name) for name in CHEAP]
theta_cheap = logistic_regression(X_fit[:, columns], y_fit, LAM)
p_full, p_cheap = sigmoid(X_held @ theta_full), sigmoid(X_held[:, columns] @ theta_cheap)
for name, p in (("thirty features", p_full), ("two features", p_cheap)):
    (tn, fp), (fn, tp) = confusion_matrix(y_held, p >= 0.5)
    print(f"{name:15}: TP {tp:2}, FP {fp:2}, FN {fn:2}, TN {tn}; accuracy "
          f"{(tp + tn) / len(held):.3f}, precision {{:.3f}}, recall {{:.3f}}, F1 {{:.3f}}".format(
              *precision_recall_f1(y_held, p >= 0.5)))

# %% tags=["exercise"]
def f_beta(tp, fp, fn, beta):
    """Exercise 03.2. If recall matters beta times as much as precision, one uses

    F_beta = (1 + beta²) / (1/precision + beta²/recall).

    Compute it from the counts of true positives, false positives and false negatives.
    """
    return NotImplemented


# %% tags=["exercise-check"]
check("03.2", f_beta)
# hint("03.2")
# solution("03.2")

# %% [markdown]
# **Reading.** The cheap model's accuracy sounds fair, until we remember that "benign" for everybody
# is right for more than three in five. Its recall sounds worse: it misses more than a third of the
# tumours.
#
# ## 6 · Every threshold at once
#
# "Malignant if $\hat p \ge 0.5$" is one choice of many. Lower the threshold $t$ from above the
# highest score, and each step lets one more patient in. The **ROC curve** shows what that buys: the
# true positive rate TPR = TP/(TP + FN), which is the recall, against the false positive rate
# FPR = FP/(FP + TN).
#
# The area under it (**AUC**) has a second meaning. It is the chance that a random positive scores
# higher than a random negative, ties counting half:
#
# $$\mathrm{AUC} = P(s_+ > s_-) + \tfrac12 P(s_+ = s_-) .$$
#
# In words: sort the negatives, find the place of each positive among them, average. Only the order
# of the scores matters. The check computes the area under the curve as well.
#
# Which point of the curve is best depends on what mistakes cost. Say a false alarm costs 1 and a
# missed tumour 10. Then the mean cost per patient at threshold $t$ is
# $1\cdot FPR\,(1-\pi) + 10\,(1-TPR)\,\pi$, with $\pi$ the share of malignant patients.

# %% tags=["essential"]
def roc_curve(y, score):
    if not 0 < np.sum(y) < len(y):
        raise ValueError("expected both classes: a rate of an absent class is 0/0")
    order = np.argsort(-score, kind="stable")
    score, y = score[order], y[order]
    last = np.append(score[1:] != score[:-1], True)  # the last of each group of equal scores
    tp = np.cumsum(y)[last]
    fp = np.cumsum(1 - y)[last]
    thresholds = np.append(np.inf, score[last])
    return np.append(0, fp) / fp[-1], np.append(0, tp) / tp[-1], thresholds


def roc_auc_score(y, score):
    if not 0 < np.sum(y) < len(y):
        raise ValueError("expected both classes: AUC compares one with the other")
    negative = np.sort(score[y == 0])
    below = np.searchsorted(negative, score[y == 1], side="left")
    not_above = np.searchsorted(negative, score[y == 1], side="right")
    return np.mean(below + not_above) / 2 / len(negative)


# %% tags=["check"]
for scores in (p_cheap, np.round(p_cheap, 1)):  # without and with many ties
    fpr, tpr, thresholds = roc_curve(y_held, scores)
    reference = metrics.roc_curve(y_held, scores, drop_intermediate=False)
    assert all(map(np.allclose, (fpr, tpr, thresholds), reference))
    assert np.isclose(roc_auc_score(y_held, scores), np.trapezoid(tpr, fpr))
    assert np.isclose(roc_auc_score(y_held, scores), metrics.roc_auc_score(y_held, scores))
print("ROC and AUC agree with scikit-learn; rank statistic and area agree, with ties too")

# %%
fpr, tpr, thresholds = roc_curve(y_held, p_cheap)
prevalence = y_held.mean()
cost = COST_FP * fpr * (1 - prevalence) + COST_FN * (1 - tpr) * prevalence
cheapest, at_half = cost.argmin(), np.sum(thresholds >= 0.5) - 1  # the last one not below 0.5
for name, i in (("t = 0.5", at_half), (f"t = {thresholds[cheapest]:.3f}", cheapest)):
    print(f"{name}: FPR {fpr[i]:.3f}, TPR {tpr[i]:.3f}, cost {cost[i]:.3f} per patient")
print(f"alarm for all: cost {COST_FP * (1 - prevalence):.3f}; AUC: two features "
      f"{roc_auc_score(y_held, p_cheap):.3f}, thirty {roc_auc_score(y_held, p_full):.3f}")

# %%
left, right = panels(2, f"{len(held)} held-out patients")
left.plot(*roc_curve(y_held, p_full)[:2], label="thirty features")
left.plot(fpr, tpr, "--", label="two features")
left.plot([0, 1], [0, 1], "k:", label="scores at random")
right.plot(thresholds[1:], cost[1:], "--", color=COLORS[1], label="two features")
for i, mark, name in ((at_half, "o", "t = 0.5"), (cheapest, "s", "cheapest t")):
    left.plot(fpr[i], tpr[i], mark, color=COLORS[3], label=name)
    right.plot(thresholds[i], cost[i], mark, color=COLORS[3], label=name)
label(left, "false positive rate", "true positive rate (recall)", "ROC")
label(right, "threshold t (probability)", "cost per patient (false alarms)", "a miss costs 10")
print(f"marked: the first score from {thresholds[at_half]:.3f} up, and from "
      f"{thresholds[cheapest]:.3f} up, raises the alarm")

# %% [markdown]
# **Reading.** A model has one AUC but many thresholds, each a point of its curve. When misses are
# dear, the cheap model should sound the alarm far below 0.5; at 0.5 it would cost more than
# alarming everyone. The cheapest threshold was found on the same patients on whom its cost is
# stated, so that cost is probably a little too low.
#
# **Exercise 03.3.** If the probabilities are right, no search is needed. Derive the threshold: at
# which $\hat p$ does an alarm cost as much, on average, as no alarm? (Right decisions cost 0.)
# Compare yours for costs of 1 and 10 with the one the search has found.

# %% tags=["exercise"]
def best_threshold(cost_fp, cost_fn):
    """The probability of class 1 from which on "predict 1" is the cheaper decision."""
    return NotImplemented


# %% tags=["exercise-check"]
check("03.3", best_threshold)
# hint("03.3")
# solution("03.3")

# %% [markdown]
# ## 7 · Rare classes
#
# In a screening few people are ill. **Predict first:** keep the cheap model at t = 0.5, keep all
# benign patients, and remove malignant ones until 3 % are left. What happens to the accuracy, to
# the AUC, to recall and to precision?
#
# TPR and FPR are shares *within* a class, so removing patients at random leaves them alone, on
# average over many removals.
# Precision mixes the classes. By Bayes' rule it is
#
# $$\text{precision} = \frac{TPR\,\pi}{TPR\,\pi + FPR\,(1-\pi)} .$$

# %%
ill, well = np.flatnonzero(y_held == 1), np.flatnonzero(y_held == 0)
(tn, fp), (fn, tp) = confusion_matrix(y_held, p_cheap >= 0.5)
tpr_half, fpr_half = tp / (tp + fn), fp / (fp + tn)
for target in PREVALENCES:
    n_ill, found = round(target / (1 - target) * len(well)), []
    for _ in range(N_SUBSETS):
        kept = np.append(well, rng.choice(ill, n_ill, replace=False))
        y, p = y_held[kept], p_cheap[kept]
        found.append([np.mean((p >= 0.5) == y), roc_auc_score(y, p),
                      *precision_recall_f1(y, p >= 0.5)[:2]])
    accuracy_, auc_, precision_, recall_ = np.mean(found, axis=0)
    share = n_ill / len(kept)
    bayes = tpr_half * share / (tpr_half * share + fpr_half * (1 - share))
    print(f"{100 * share:4.1f} % ill: accuracy {accuracy_:.3f} ('benign' for all "
          f"{1 - share:.3f}), AUC {auc_:.3f}, recall {recall_:.3f}, precision {precision_:.3f} "
          f"(Bayes {bayes:.3f})")

# %% [markdown]
# **Reading.** The rarer the illness, the *higher* the accuracy; and yet it falls behind that of a
# rule which finds nobody. This is the accuracy paradox. AUC and recall do not move, but for the
# chance of who was removed. Precision falls as Bayes says, until most alarms are false. A precision
# or F1 from a balanced test set does not carry over to a screening; TPR and FPR do, as long as the
# ill and the well remain the same kinds of people.
#
# ## 8 · Does 90 % mean 90 %?
#
# The threshold in section 6 and Bayes' rule need probabilities that are right. A model is
# **calibrated** if, of all the cases to which it gives 0.9, nine in ten happen, and likewise for
# every other number. Sort predictions into ten bins of equal width (0 to 0.1, and so on), and
# compare the mean prediction $\bar p_b$ of bin $b$ with the share of ones $\bar y_b$. The *expected
# calibration error* (ECE) is the mean gap, each bin with its count $n_b$:
#
# $$\mathrm{ECE} = \sum_b \frac{n_b}{n}\,\lvert \bar y_b - \bar p_b\rvert .$$
#
# To judge probabilities we need a truth. So draw one: 20 normal features, logits with a standard
# deviation of 1.5, labels by those probabilities. 100 examples and nearly no penalty make an
# over-confident model.
#
# **Temperature scaling** repairs it with one number: divide all logits by $T$, chosen to minimise
# the cross-entropy on examples that were neither fitted nor used for the test.

# %% tags=["essential"]
def calibration_curve(y, p, n_bins=10):
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("expected probabilities between 0 and 1, not logits")
    bins = np.minimum((p * n_bins).astype(int), n_bins - 1)
    count = np.bincount(bins, minlength=n_bins)
    full = count > 0
    happened = np.bincount(bins, weights=y, minlength=n_bins)[full] / count[full]
    predicted = np.bincount(bins, weights=p, minlength=n_bins)[full] / count[full]
    return happened, predicted, count[full]


def expected_calibration_error(y, p, n_bins=10):
    happened, predicted, count = calibration_curve(y, p, n_bins)
    return np.sum(count * np.abs(happened - predicted)) / len(y)


# %% tags=["check"]
happened, predicted, count = calibration_curve(y_held, p_cheap)
assert np.allclose((happened, predicted), sklearn_calibration_curve(y_held, p_cheap, n_bins=10))
assert np.array_equal(count, [c for c in np.histogram(p_cheap, 10, (0, 1))[0] if c])
assert np.isclose(expected_calibration_error(np.array([1.0, 0, 0, 0]), np.full(4, 0.75)), 0.5)
print("calibration curve agrees with scikit-learn; ECE of '75 %' for 1 in 4 is 0.5")

# %%
def simulate(n):
    """Design matrix, labels and true logits of n examples."""
    F = rng.normal(size=(n, D_SIM))
    z = F @ true_theta
    return design_matrix(F), (rng.random(n) < sigmoid(z)).astype(float), z


true_theta = SPREAD / D_SIM**0.5 * rng.choice([-1.0, 1.0], D_SIM)
(X_s, y_s, _), (X_c, y_c, _), (X_t, y_t, z_true) = map(simulate, (N_SMALL, N_CALIBRATE, N_TEST))
theta_sure = logistic_regression(X_s, y_s, LAM_TINY)
price = lambda T: cross_entropy(X_c @ theta_sure / T, y_c)
T = minimize_scalar(price, bounds=(0.1, 50), method="bounded", options={"xatol": 1e-8}).x
logits = {"over-confident": X_t @ theta_sure, f"divided by T = {T:.2f}": X_t @ theta_sure / T,
          f"fitted with λ = {LAM_SIM}": X_t @ logistic_regression(X_s, y_s, LAM_SIM),
          "the truth": z_true}
for name, z in logits.items():
    print(f"{name:20}: cross-entropy {cross_entropy(z, y_t):.3f} nats, ECE "
          f"{expected_calibration_error(y_t, sigmoid(z)):.3f}, AUC {roc_auc_score(y_t, z):.4f}, "
          f"accuracy {np.mean((z > 0) == y_t):.4f}")
print(f"a fair coin: {np.log(2):.3f} nats")

# %%
left, right = panels(2, f"Predicted and true, {N_TEST:,} new examples")
left.plot([0, 1], [0, 1], "k:", label="calibrated")
for (name, z), style in zip(logits.items(), ("o-", "s--", "^-."), strict=False):
    happened, predicted, _ = calibration_curve(y_t, sigmoid(z))
    left.plot(predicted, happened, style, label=name)
    right.hist(sigmoid(z), 20, histtype="step", lw=1.5, ls=style[1:], label=name)
label(left, "mean predicted probability", "share that happened", "reliability")
label(right, "predicted probability", "examples", "how often each was said")
happened, predicted, count = calibration_curve(y_t, sigmoid(logits["over-confident"]))
print(f"over-confident model, last bin: says {predicted[-1]:.3f}, happens {happened[-1]:.3f}, "
      f"{100 * count[-1] / N_TEST:.0f} % of the examples")

# %% [markdown]
# **Reading.** The over-confident curve is too flat: near 1 it promises more than happens, near 0 it
# nearly rules out what does happen. That is paid for: its cross-entropy lies nearer to a fair
# coin's than to the truth's. Dividing by T removes most of the calibration error, and leaves AUC
# and accuracy exactly as they were: T > 0 changes neither the order of the logits nor their sign.
# A larger penalty from the start ends at about the same loss. What is still missing to the truth
# cannot be had by rescaling: 100 examples leave the direction of θ uncertain, and the AUC, which no
# T can move, lies below that of the truth. Even the true probabilities have an ECE above 0, by
# chance alone. Remember the temperature; chapter 06 samples text with it.
#
# ## 9 · How sure is an accuracy?
#
# An accuracy is $k$ successes among $n$. Which true accuracies $a$ are compatible with it? The
# standard error of a share is $\sqrt{a(1-a)/n}$. The *Wald* interval puts the observed $k/n$ into
# it. *Wilson's* interval asks which $a$ lie within $c = 1.96$ of *their own* standard errors:
#
# $$\text{Wald:}\quad \frac kn \pm c\sqrt{\frac{\frac kn(1-\frac kn)}{n}}, \qquad
# \text{Wilson:}\quad \Bigl|\frac kn - a\Bigr| \le c\sqrt{\frac{a(1-a)}{n}}
# \;\Longrightarrow\;
# \frac{k + \frac{c^2}2 \pm c\sqrt{\frac{k(n-k)}n + \frac{c^2}4}}{n + c^2} .$$
#
# Do they cover the true accuracy in 95 % of the tests? No simulation is needed: for each $a$, add
# up the binomial probabilities of all $k$ whose interval contains it.

# %% tags=["essential"]
def wald_interval(k, n, c=1.96):
    share = k / n
    half = c * np.sqrt(share * (1 - share) / n)
    return share - half, share + half


def wilson_interval(k, n, c=1.96):
    centre = (k + c**2 / 2) / (n + c**2)
    half = c / (n + c**2) * np.sqrt(k * (n - k) / n + c**2 / 4)
    return centre - half, centre + half


# %% tags=["check"]
for k, n in ((0, 20), (19, 20), (262, 269), (500, 1000)):
    reference = binomtest(k, n).proportion_ci(method="wilson")
    assert np.allclose(wilson_interval(k, n, norm.ppf(0.975)), reference)
half_width = np.diff(wald_interval(500, 1000))[0] / 2
assert np.isclose(half_width, 1.96 * (0.25 / 1000) ** 0.5)
print(f"Wilson's interval agrees with scipy; 500 hits of 1000: 50 % ± {100 * half_width:.2f} %")

# %%
k = np.arange(N_COVER + 1)
chance = binom.pmf(k, N_COVER, SHARES[:, None])  # (shares, k)
(ax,) = panels()
for name, interval, style in (("Wilson", wilson_interval, "-"), ("Wald", wald_interval, "--")):
    low, high = interval(k, N_COVER)
    inside = (low <= SHARES[:, None]) & (SHARES[:, None] <= high)
    covered = 100 * np.sum(chance * inside, axis=1)
    ax.plot(SHARES, covered, style, label=name)
    print(f"{name:6}: covers {covered.mean():.1f} % on average, {covered.min():.0f} % at worst "
          f"at {SHARES[covered.argmin()]:.3f}, {covered[SHARES > 0.95].mean():.1f} % above 0.95; "
          f"all {N_COVER} right: {low[-1]:.3f} … {high[-1]:.3f}")
ax.axhline(95, color="k", lw=1, ls=":", label="95 %")
ax.set_ylim(0, 101)
label(ax, "true accuracy a", "tests whose interval covers a (%)",
      f"Coverage of two 95 % intervals, {N_COVER} test examples")

# %% [markdown]
# **Reading.** The saws' teeth are the whole numbers $k$ entering and leaving. Wilson's interval
# stays within a few points of 95 %, but for one dip just below 1, where the interval of 49 hits no
# longer reaches $a$ and only the perfect test does. Wald's collapses where good classifiers live:
# with all 50 right it claims certainty, a width of zero. Use Wilson's.
#
# **Two models on the same test** need a third look. Both were right on most patients; those tell
# nothing about the difference. Only the patients on whom *exactly one* is right do. If the models
# were equally good, each of these would be a coin flip (McNemar's test). Our thirty-feature model
# against two rivals, one with hardly any penalty and one with a hundred times ours:

# %%
model = (X_held @ theta_full > 0) == y_held
for lam in (LAM, *RIVALS):
    hits = (X_held @ logistic_regression(X_fit, y_fit, lam) > 0) == y_held
    low, high = wilson_interval(hits.sum(), len(hits))
    ours, its = int(np.sum(model & ~hits)), int(np.sum(hits & ~model))
    pairs = "ours" if lam == LAM else (f"only ours right {ours}, only this one {its}, chance of "
                                       f"that {binomtest(ours, ours + its).pvalue:.3f}")
    print(f"λ = {lam:g}: {hits.sum()} of {len(hits)} right, {low:.3f} … {high:.3f}; {pairs}")

# %% [markdown]
# **Reading.** The last number is the chance that fair coins come out at least as uneven. All three
# intervals overlap, so by themselves they tell nobody apart. The paired count uses the same answers
# and does: with hardly any penalty the model is never right where ours is wrong, and chance would
# rarely do that. Against the large penalty the disagreements go both ways, and the test cannot tell
# which model is better.
#
# **Exercise 03.4.** How many test examples do you need for ± 1 percentage point? Turn Wald's
# formula around. (It is good enough for planning, unless you expect an accuracy very near 1.)
#
# **Exercise 03.5. More than two classes.** With $m$ classes an example has $m$ logits, and the
# *softmax* turns them into probabilities. The price is again −ln of what was given to the class
# that happened:
#
# $$\hat p_{ij} = \frac{e^{Z_{ij}}}{\sum_l e^{Z_{il}}}, \qquad
# L = -\frac1n\sum_i \ln \hat p_{i,y_i} .$$
#
# Derive the gradient in the logits. It looks much like the one in section 1. Chapter 04 begins its
# backward pass with it, and chapter 06 uses it with one class per token. Logits may be as large as
# 1000: subtracting each row's maximum first changes no probability and prevents overflow.

# %% tags=["exercise"]
def examples_needed(share, half_width):
    """Fewest test examples for which Wald's 95 % interval is share ± half_width, or narrower.

    Use c = 1.96. Return a whole number. (A planning rule: guess `share` before the test.)
    """
    return NotImplemented


# %% tags=["exercise-check"]
check("03.4", examples_needed)
# hint("03.4")
# solution("03.4")

# %% tags=["exercise"]
def softmax_gradient(Z, y):
    """Gradient (n, m) of the mean cross-entropy in the logits Z (n, m); y (n,) holds 0 … m − 1."""
    return NotImplemented


# %% tags=["exercise-check"]
check("03.5", softmax_gradient)
# hint("03.5")
# solution("03.5")

# %% [markdown]
# ## Play: threshold and prevalence
#
# The cheap model on the held-out patients. Move the threshold and watch who is caught and who is
# alarmed for nothing. Then lower the prevalence to 1 % and try to get the precision above one half.
# What does it cost in recall? On the view "ROC", which of the two sliders moves the point?

# %% tags=["widget"]
edges = np.linspace(0, 1, 21)
middles = (edges[1:] + edges[:-1]) / 2
shapes = {c: np.histogram(p_cheap[y_held == c], edges)[0] / np.sum(y_held == c) for c in (0, 1)}


def screening(t, percent, view):
    prevalence, predicted = percent / 100, p_cheap >= t
    tpr_t, fpr_t = predicted[ill].mean(), predicted[well].mean()
    tp, fn = (1000 * prevalence * share for share in (tpr_t, 1 - tpr_t))
    fp, tn = (1000 * (1 - prevalence) * share for share in (fpr_t, 1 - fpr_t))
    precision = f"{tp / (tp + fp):.2f}" if tp + fp else "undefined (no alarm)"
    text = (f"of 1000: TP {tp:.1f}, FP {fp:.1f}, FN {fn:.1f}, TN {tn:.1f}; precision {precision}, "
            f"recall {tpr_t:.2f}, F1 {2 * tp / (2 * tp + fp + fn):.2f}")
    if view == "ROC":
        return picture([series("line", fpr, tpr, "two features", 0),
                        series("points", [fpr_t], [tpr_t], "your threshold", 3)],
                       "false positive rate", "true positive rate", (0, 1), (0, 1.02), "ROC",
                       text=text)
    people = {c: 1000 * shapes[c] * abs(1 - c - prevalence) for c in (0, 1)}
    drawn = [series("line", middles, people[c], ("benign", "malignant")[c], c) for c in (0, 1)]
    drawn.append(series("dash", [t, t], [0, 100], "your threshold", 3))
    return picture(drawn, "predicted probability", "patients per bin of 0.05", (0, 1), (0, 160),
                   "1000 patients", text=text)


explore(screening,
        t=FloatSlider(0.5, min=0.02, max=0.98, step=0.01, description="threshold"),
        percent=FloatSlider(35, min=1, max=99, step=1, description="prevalence (%)"),
        view=Dropdown(options=["scores", "ROC"], description="view"))

# %% [markdown]
# ## Recap
#
# - Cross-entropy is the price, −ln p, of what happened; its gradient in the logit is p̂ − y. Half of
#   it has its minimum at "always 1" (K6).
# - If a line separates the classes, unpenalised weights grow for ever, and so does the price of the
#   mistakes on new patients.
# - Nothing predicts coins (K7). On its own examples a model with noise features scores above chance
#   by an amount that (d + 1)/n predicts.
# - Check shapes before you compare (K8), and never compare real numbers for equality (K11).
# - Counts, rates, ranking, probabilities: four questions, four metrics. Rare classes change
#   precision, not the ROC curve. Temperature changes probabilities, not ranks.
# - An accuracy is a share with an interval: use Wilson's. Compare two models by the examples on
#   which they disagree.
#
# **Limits.** One small set of patients and one random split of it: the printed metrics would move
# with another split, by about the widths of their intervals. The intervals assume independent
# examples. Calibration was judged where the truth was drawn by us.
#
# **To read.** Wilson, *Probable inference, the law of succession, and statistical inference*
# (1927); Fawcett, *An introduction to ROC analysis* (2006); Guo et al., *On calibration of modern
# neural networks* (2017); Sur & Candès, *A modern maximum-likelihood theory for high-dimensional
# logistic regression* (2019), on what happens when $d/n$ is not small.
#
# Next: **04 · Neural networks**, whose last layer is this chapter's model.
