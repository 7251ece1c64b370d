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
# # 08 · Scaling sweeps
#
# **Can a few small runs say how good a larger one will be, before it is paid for?**
#
# You will
#
# 1. run a small sweep yourself, several token counts off one trunk, and check that each branch
#    equals a separate run;
# 2. fit $L(N, D) = E + A/N^\alpha + B/D^\beta$ to recorded runs, with intervals;
# 3. predict a run of four times the largest compute, and open the envelope.
#
# Runs in about 1 minute on a CPU. The live part runs on a GPU too; not timed there yet. Before
# this: chapter 06.

# %% [markdown]
# | symbol | code | meaning | unit |
# |---|---|---|---|
# | $N$ | `N` | parameters without the embedding | – |
# | $D$ | `D` | training tokens (bytes of text) | tokens |
# | $C$ | `C` | training FLOPs: exact in the ledger, $6ND$ where $N^*$, $D^*$ are sought | FLOP |
# | $L$ | `loss` | validation loss | nats per token |
# | $E$ | `E` | irreducible loss: what is left with endless $N$ and $D$ | nats per token |
# | $A, B, \alpha, \beta$ | `A, B, alpha, beta` | how the two reducible parts fall | – |
# | $a = \beta/(\alpha+\beta)$ | `exp_N` | $N^* \propto C^a$; exercise 08.3 derives it | – |
# | $N^*, D^*$ | `N_opt, D_opt` | size and tokens of least loss at a given $C = 6ND$ | – |

# %% tags=["imports"]
import numpy as np
from ipywidgets import FloatLogSlider
from scipy.special import huber as scipy_huber

from helpers import data, fits, plots, runtime, sweeps, training, widgets
from helpers.claims import verdict
from helpers.exercises import check, hint, solution
from helpers.models import GPT, GPTConfig

# %% tags=["config"]
rng = runtime.setup(seed=0)
DEVICE = runtime.device()
LIVE = sweeps.Trial(d_model=16, n_layer=2, lr=6e-3, tokens=(2**15, 2**16, 2**17))
N_LIVE_VALIDATION = 100  # windows
HELD_OUT = 96  # d_model of the run that the fit must not see
TRANSIENT = 1000  # shorter runs, in steps, are shown but not fitted
DELTA = 1e-3  # Huber: relative errors above 0.1 % count linearly
N_RESAMPLES = {"quick": 1000, "full": 4000}[runtime.profile()]
CHINCHILLA = dict(E=np.exp(0.5267228), A=np.exp(6.0073404), B=np.exp(6.0179186),
                  alpha=0.33917084, beta=0.2849083)  # Hoffmann et al. 2022, unrounded
ROUNDED = dict(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)  # as printed in the paper

# %% [markdown]
# ## One trunk, many branches
#
# A loss counts as "the loss after $D$ tokens" only if the learning rate has come down by then: a
# run stopped in full flight looks worse than it is. Does each $D$ need a run of its own? No. Keep
# the rate constant, and for each $D$ split off a *branch* at $0.8\,D$ that cools down and ends at
# $D$. The trunk goes on as if nothing had happened. The branch has seen the same batches at the
# same rates as a separate run of that length.
#
# `sweeps.run_trial` does this. Check it on a small model against separate runs:

# %%
branches = list(sweeps.run_trial(LIVE, N_LIVE_VALIDATION))
print("tokens:", [f"{r.D:,}" for r in branches])
falls = np.diff([r.loss for r in branches]) < 0
print("each longer branch ends at a lower loss:", bool(falls.all()))

# %%
train_docs, held_out_docs = data.split_documents(data.prose())
batches = data.TokenBatches(data.encode(train_docs), LIVE.batch_size, LIVE.seq, LIVE.seed)
validation = data.windows(data.encode(held_out_docs), N_LIVE_VALIDATION, LIVE.seq)
for r in branches:
    shape = GPTConfig(context=LIVE.seq, n_layer=LIVE.n_layer, n_head=1, d_model=LIVE.d_model)
    model = GPT(shape, LIVE.seed).to(DEVICE)
    alone, _ = training.train(model, batches, LIVE.config(r.D), validation)
    print(f"D = {r.D:>7,}: branch equals separate run: {abs(alone.loss - r.loss) < 1e-6}")

# %%
cool = 0.2  # share of a run that cools down
shared = (1 - cool) * max(LIVE.tokens) + cool * sum(LIVE.tokens)
print(f"tokens trained: {shared:,.0f} with branches, {sum(LIVE.tokens):,} separately")

# %% [markdown]
# ## The ledger
#
# `make sweep` runs the course's grid: five sizes of the chapter-06 transformer, five token counts
# each, three seeds in the middle. A run is a row; each row says which device, versions, commit
# and seed made it. Rows that exist are skipped, so an interrupted sweep goes on where it was.
#
# What is held fixed: text, tokeniser, context, batch, schedule, optimiser. What follows $N$ by a
# rule: depth, and the learning rate $0.05\, d_\text{model}^{-0.75}$.

# %%
runs = data.table(sweeps.SWEEP)
known, future = runs[runs.d_model < HELD_OUT], runs[runs.d_model == HELD_OUT].iloc[0]
print(f"{len(known)} runs to fit: N {known.N.min():,} … {known.N.max():,}, "
      f"D {known.D.min():,} … {known.D.max():,}")
print(f"compute {known.C.min():.2g} … {known.C.max():.2g} FLOPs; held out: one run of "
      f"{future.C:.2g}")

# %%
first = known[known.seed == 0].sort_values(["N", "D"])
first.pivot(index="N", columns="D", values="loss").round(3)

# %% [markdown]
# ## Predict first
#
# Look at the table before any fit. (a) Going down a column, how much does the loss fall from one
# size to the next, where $N$ grows 2.2 to 2.7 times? (b) Going along a row, each time $D$ doubles?
# (c) The held-out run has more than twice the largest $N$ and twice the largest $D$ of the table.
# Write down its loss, and how sure you are, as an interval.

# %% [markdown]
# ## How noisy is one run?
#
# The middle sizes were trained with three seeds: other weights, other order of the text.

# %%
groups = known.groupby(["N", "D"]).loss
seeds = groups.std()[groups.count() == 3]
noise = float(np.sqrt((seeds**2).mean()))
print(f"seed noise: {noise:.4f} nats over {len(seeds)} groups, "
      f"{100 * noise / known.loss.mean():.2f} % of the loss")

# %% [markdown]
# ## One variable at a time

# %%
left, right = plots.panels(2, "Validation loss of the recorded runs", height=4.2)
for N, rows in first.groupby("N"):
    left.plot(rows.D, rows.loss, "o-", label=f"N = {N / 1e3:.0f}k", ms=4)
for D, rows in first.groupby("D"):
    right.plot(rows.N, rows.loss, "o-", label=f"D = {D / 2**20:g}M", ms=4)
plots.label(left, "D / tokens", "loss / nats per token", "more tokens", log="xy")
plots.label(right, "N / parameters", "loss / nats per token", "more parameters", log="xy")

# %%
for name, fixed, value in (("D", "N", known.N.max()), ("N", "D", known.D.max())):
    rows = first[first[fixed] == value]
    law = fits.fit_power_law(rows[name], rows.loss)
    print(f"L ∝ {name}^-{plots.interval(law.exponent, law.low, law.high)}, "
          f"R² {law.r2:.3f}, at {fixed} = {value:,}")

# %% [markdown]
# *Reading.* Nearly straight lines on log axes, so nearly power laws, but they bend: small models
# gain less and less from more tokens, and the two smallest sizes meet on the left. A bend means
# that something else sets a floor. (It also means that the printed intervals, which take the
# misses for noise, are only rough.) One law for both directions:
#
# $$L(N, D) = E + \frac{A}{N^\alpha} + \frac{B}{D^\beta}$$
#
# In words: text has an entropy $E$ that no model beats; too few parameters cost $A/N^\alpha$
# more; too few tokens cost $B/D^\beta$ more.

# %% tags=["essential"]
def parametric_loss(N, D, E, A, B, alpha, beta):
    """L(N, D) in nats per token."""
    return E + A / N**alpha + B / D**beta


# %% tags=["check"]
assert parametric_loss(1e9, 1e99, **CHINCHILLA) - CHINCHILLA["E"] < 1
for name, constants in (("unrounded", CHINCHILLA), ("rounded", ROUNDED)):
    law = fits.Parametric(**constants, objective=0.0)
    N_opt, D_opt = law.allocate(2.21e19)
    grid = np.geomspace(1e7, 1e10, 20001)
    best = grid[np.argmin(parametric_loss(grid, 2.21e19 / 6 / grid, **constants))]
    assert abs(best / N_opt - 1) < 1e-3  # the closed form sits at the bottom of the valley
    print(f"Chinchilla, {name}: N* = {N_opt / 1e6:.0f}M, D* = {D_opt / 1e9:.2f}B at 2.21e19 FLOPs")

# %% [markdown]
# (The paper's Table A3 says 400M and 9.2B for this budget. Its own printed constants give the
# second line: two digits are too few for an exponent. Rounding is not harmless here.)
#
# ## The objective
#
# Errors are relative, so compare logarithms; a stray run must not bend the law, so use the Huber
# loss, quadratic up to $\delta$ and linear beyond; and *sum* over the runs:
#
# $$\min \sum_i \operatorname{Huber}_\delta\big(\log L(N_i, D_i) - \log L_i\big)$$

# %% tags=["essential"]
def huber(residual, delta):
    """Quadratic up to delta, linear beyond."""
    size = np.abs(residual)
    return np.where(size <= delta, size**2 / 2, delta * (size - delta / 2))


# %% tags=["check"]
residual = rng.normal(0, 3 * DELTA, 1000)
np.testing.assert_allclose(huber(residual, DELTA), scipy_huber(DELTA, residual))
print("huber equals scipy's")

# %% [markdown]
# `fits.fit_parametric` tries a grid of exponents, solves the rest linearly, and refines the best
# starts with Newton's method until the gradient vanishes. The interval comes from the bootstrap:
# draw as many runs with replacement, refit, repeat. It treats runs as independent, though branches
# of one trunk are not: read the intervals as lower bounds of the uncertainty. An interval of $E$
# that reaches down to 0 says that some resamples want no floor at all: so few runs, of such small
# models, do not fix it.
#
# Runs of fewer than 1000 steps are left out: look at the first column of the table, where the two
# smallest sizes are level. The cut is a choice, and not a clean one: in the second column they have
# hardly parted either, and it is fitted. Set `TRANSIENT` to 0 or 2000 to see how far the prediction
# moves.

# %%
known = known[known.n_steps >= TRANSIENT]
law = fits.fit_parametric(known.N, known.D, known.loss, DELTA)
boot = fits.bootstrap_parametric(known.N, known.D, known.loss, N_RESAMPLES, 0, DELTA)
print(f"{len(known)} runs; {len(boot.E)} of {N_RESAMPLES} resamples converged")
for name in ("E", "alpha", "beta", "exp_N"):
    print(f"{name:>5} = {plots.interval(getattr(law, name), *boot.interval(name))}")

# %%
(ax,) = plots.panels(height=3.8)
fitted = law.predict(known.N, known.D)
for N in np.unique(known.N):
    mine = (known.N == N).to_numpy()
    ax.plot(known.D[mine], 100 * (fitted[mine] / known.loss[mine] - 1), "o", ms=4,
            label=f"N = {N / 1e3:.0f}k")
ax.axhspan(*(100 * noise / known.loss.mean() * np.array([-1, 1])), alpha=0.2, label="seeds, ±1 sd")
plots.label(ax, "D / tokens", "fit − run / % of the loss", "What the law leaves over", log="x")
worst = np.abs(fitted / known.loss - 1)
print(f"mean miss {100 * worst.mean():.2f} %, largest {100 * worst.max():.2f} %")

# %% [markdown]
# *Reading.* The band is one standard deviation of the seeds' noise; about a third of the points may
# lie outside by chance. What chance does not explain is a pattern: points of one size that lie on
# one side, or wander from one side to the other. The law is a good summary of these runs, not the
# truth about them.

# %% tags=["verdict"]
rows = first[first.D == first.D.max()]
doublings = np.diff(np.log2(rows.N))
gains = -np.diff(rows.loss) / doublings  # nats per doubling of N
error = noise * np.sqrt(2) * np.hypot(1 / doublings[0], 1 / doublings[-1])
verdict("K14", bool(gains.min() > 0 and gains[0] - gains[-1] > 2 * error),
        f"a doubling of N gains {gains[0]:.2f} nats between the two smallest sizes, "
        f"{gains[-1]:.2f} between the two largest (one seed each; the difference is "
        f"{gains[0] - gains[-1]:.3f} ± {error:.3f}); in the law the gains end at "
        f"E = {plots.interval(law.E, *boot.interval('E'), 2)}",
        E=law.E, gain_small=gains[0], gain_large=gains[-1], error=error)

# %% [markdown]
# ## The envelope
#
# The fit has never seen the largest run. Its prediction, with a 95 % interval (from the resampled
# laws, widened by the noise of one seed):

# %%
predicted = float(law.predict(future.N, future.D))
spread = boot.predict(future.N, future.D) + rng.normal(0, noise, len(boot.E))
low, high = np.quantile(spread, [0.025, 0.975])
print(f"N = {future.N:,}, D = {future.D:,}, {future.C / known.C.max():.1f} times the largest "
      f"compute fitted")
print(f"predicted loss {plots.interval(predicted, low, high)} nats per token")

# %%
print(f"measured loss  {future.loss:.3f}")
print(f"error {100 * (predicted / future.loss - 1):+.1f} %, inside the interval: "
      f"{bool(low <= future.loss <= high)}")

# %% tags=["readme"]
(ax,) = plots.panels(height=4.2)
for N, rows in first.groupby("N"):
    ax.plot(6 * N * rows.D, rows.loss, "o", ms=4, label=f"N = {N / 1e3:.0f}k")
C, C_future = np.geomspace(1e10, 5e13, 50), 6 * future.N * future.D
ax.plot(C, law.predict(*law.allocate(C)), "k--", lw=1, label="fitted optimum")
ax.errorbar(C_future, predicted, [[predicted - low], [high - predicted]], fmt="_", color="k",
            capsize=4, label="prediction, 95 %")
ax.plot(C_future, future.loss, "*", ms=12, label="held-out run")
plots.label(ax, "6ND / FLOPs", "loss / nats per token", "A run nobody fitted", log="xy")
_ = ax.set_yticks([1, 1.2, 1.4, 1.6, 1.8, 2, 2.2])

# %% [markdown]
# *Reading.* Each size runs along its own curve and leaves the common front when its parameters run
# out. The dashed line is where the best choice of $N$ at each $C$ would lie. (Points below it, at
# the left, show where the law fits badly.) The printed error is that of one run with one seed, one
# step further out; it says nothing about ten steps. Chapter 09 (planned) asks for a harder proof:
# a prediction sealed before the run.
#
# ## Counting changes the exponent
#
# Fit the same runs with all parameters instead of $N$:

# %%
for name, count in (("without the embedding", known.N), ("all parameters", known.N_total)):
    other = fits.fit_parametric(count, known.D, known.loss, DELTA)
    print(f"{name:>22}: alpha {other.alpha:.2f}, N* ∝ C^{other.exp_N:.2f}")

# %% [markdown]
# Nothing about the models has changed, only what is called their size. The embedding is 40 % of the
# smallest model and 8 % of the largest, so the choice moves the exponent, here by less than the
# interval above is wide; published exponents can be compared only after asking what was counted.
#
# ## Exercises

# %% tags=["exercise"]
def factor_per_doubling(alpha):
    """Factor by which the term A / N^alpha shrinks when N doubles."""
    return NotImplemented


# %% tags=["exercise-check"]
check("08.1", factor_per_doubling)
# hint("08.1")
# solution("08.1")

# %% tags=["exercise"]
def tokens_trained(token_counts, decay_fraction):
    """Tokens that a trunk with cool-down branches trains in all, for a list of token counts D.

    Each branch cools down over the last decay_fraction of its D.
    """
    return NotImplemented


# %% tags=["exercise-check"]
check("08.2", tokens_trained)
# hint("08.2")
# solution("08.2")

# %% tags=["exercise"]
def compute_optimal(C, A, B, alpha, beta):
    """(N*, D*) that minimise A / N^alpha + B / D^beta subject to 6 N D = C.

    Put D = C / (6 N) into the loss, set its derivative with respect to N to zero, solve.
    """
    return NotImplemented


# %% tags=["exercise-check"]
check("08.3", compute_optimal)
# hint("08.3")
# solution("08.3")

# %% [markdown]
# ## Play: spend a budget
#
# Drag the compute. The curve is the fitted loss against $N$ when $D = C / 6N$: too small a model
# on the left, too few tokens on the right. The runs reach up to the compute printed under "The
# ledger"; beyond that the law is guessing.

# %%
def valley(C):
    """Fitted loss against N at fixed C, with its lowest point."""
    N = np.geomspace(1e3, 1e8, 200)
    N_opt, D_opt = law.allocate(C)
    best = float(law.predict(N_opt, D_opt))
    return widgets.picture(
        [widgets.series("line", N, law.predict(N, C / 6 / N), "loss at this compute"),
         widgets.series("points", [N_opt], [best], "optimum"),
         widgets.series("dash", [1e3, 1e8], [law.E, law.E], "E")],
        "N / parameters", "loss / nats per token", (1e3, 1e8), (0.5, 4), "Size at fixed compute",
        log="x", text=f"C = {C:.2g}: N* = {N_opt:,.0f}, D* = {D_opt:,.0f}, "
                      f"{D_opt / N_opt:.2g} tokens per parameter, loss {best:.2f}")


# %% tags=["widget"]
widgets.explore(valley, C=FloatLogSlider(1e12, min=10, max=16, step=0.1, description="FLOPs"))

# %% [markdown]
# ## Recap
#
# - One trunk with cool-down branches gives every $D$ for at most a fifth more than the longest run
#   alone, if each $D$ is half the next.
# - $L(N, D)$ needs five numbers; the interval says how well the runs fix each.
# - A prediction for a run outside the fit is a harder test than the fit itself.
#
# *Limits.* One text, one context, at most a few seeds; learning rates by a rule, not tuned at
# each point. The exponents belong to this set-up.
#
# *Read next.* Hoffmann et al. 2022 (arXiv:2203.15556); Besiroglu et al. 2024 (arXiv:2404.10102),
# who found what went wrong in its third approach; Hägele et al. 2024 (arXiv:2405.18392) on
# cool-down branches.
