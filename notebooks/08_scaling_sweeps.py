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
# **The question:** can a few small runs show a law, and how sure is each number in it?
#
# When you are through, you can
#
# 1. set up a sweep: what is held fixed, what follows the size by a rule, and how one run per size
#    gives every token count;
# 2. fit L(N), L(D), L(C) and L(N, D) with intervals, next to the noise of the seeds, and say which
#    runs must stay out;
# 3. show what another way of counting does to an exponent, and whether the same law holds for
#    images.
#
# Runs in about 1 minute on a CPU; allow two hours to work through. The live runs are small; the
# sweep itself was recorded (`make record TABLE=prose`). A GPU changes nothing here. Before this:
# chapters 02, 06 and 07.
#
# | symbol | code | meaning | unit |
# |---|---|---|---|
# | N | `N`, `N_total` | parameters without the embedding, and all of them | – |
# | D | `D` | training tokens, here bytes of text; in section 9: images | tokens |
# | M | `M` | 2²⁰, about a million | – |
# | C | `C` | training FLOPs, exact unless 6ND is written | FLOP |
# | L | `loss` | loss on held-out text | nats per token |
# | E | `E` | irreducible loss: what is left with endless N and D | nats per token |
# | A, B, α, β | `A, B, alpha, beta` | L = E + A/N^α + B/D^β | – |
# | δ | `delta` | residual of log L beyond which a run counts linearly | – |
# | η | `lr` | learning rate at its peak | – |
# | d | `d_model` | width of a transformer | – |
# | σ | `noise` | standard deviation of log L between seeds | – |
# | k, p, L_∞ | `scale, exponent, offset` | one variable: L = L_∞ + k D^−p | – |
# | ν | `nu` | degrees of freedom | – |
# | s | `slope` | −Δ log L / Δ log D, the local exponent | – |
# | γ | `gamma` | FLOPs per token ∝ N^γ | – |
# | a | `a` | N* ∝ C^a: how the best size grows with the compute | – |
# | w | `w` | hidden units of an image network (section 9) | – |

# %% tags=["imports"]
import contextlib
import copy
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from ipywidgets import Dropdown, IntSlider
from scipy.special import huber as scipy_huber
from scipy.stats import chi2

from helpers import corpora, data, fits, plots, runtime, widgets
from helpers.claims import verdict
from helpers.exercises import check, hint, solution
from helpers.foundations.networks import backward, forward, glyphs, init_mlp, softmax_loss
from helpers.foundations.regression import adam_step
from helpers.scaling import ledger, sweeps
from helpers.transformer import training
from helpers.transformer.flops import training_bytes
from helpers.transformer.models import GPT
from helpers.transformer.training import make_optimizer, run_steps, wsd

# %% tags=["config"]
rng = runtime.setup(seed=8)
DEVICE = runtime.device()
M = 2**20
LIVE = sweeps.Trial(d_model=16, n_layer=2, lr=sweeps.learning_rate(16), n_validation=50,
                    tokens=(100 * 512, 141 * 512, 200 * 512))  # 100, 141 and 200 steps
RECORDED, SCANNED = "sweeps/prose_cpu.csv", "sweeps/scan_cpu.csv"
RULE = -0.75  # η ∝ d_model to this power
SCAN_D = M  # the token count at which all sizes were scanned
FACTORS = (0.6, 1, 1.7)  # times the rule's rate: a factor of nearly three from end to end
DELTA = 1e-3  # Huber: a run that is off by more than 0.1 % counts linearly
N_RESAMPLES, N_QUICK = {"quick": (1000, 400), "full": (4000, 1000)}[runtime.profile()]
SIDE, N_GLYPHS, N_GLYPHS_HELD = 10, 32_000, 4000  # images: pixels a side, to train on, held out
WIDTHS = np.array([3, 4, 6, 8, 12, 16, 24, 32, 48, 64])  # hidden units
IMAGES = np.array([2000, 3500, 6000, 10_500, 18_000, 32_000])
IMAGE_BATCH, IMAGE_WARMUP, IMAGE_SEEDS = 16, 20, 3
IMAGE_LR, IMAGE_RULE = 0.03, -0.25  # η = 0.03 w^−0.25

# %% [markdown]
# ## 1 · One trunk, many branches
#
# "The loss after D tokens" is a fair figure only if the learning rate has come down by then. A run
# that is stopped in full flight looks worse than it is (chapter 02, *warm-up–stable–decay*). Does
# each D need a run of its own, then?
#
# No. The rate is constant up to the last fifth of a run, so all runs of one size begin alike. Train
# one *trunk* at the constant rate. At 0.8 D take a copy, the *branch*, let it cool down, and it
# ends at D. The trunk goes on as if nothing had happened (Hägele et al. 2024).
#
# In words: for each D, shortest first, move the trunk to the fork; copy the model **and** the
# optimiser's memory; train the copy to its end. A branch has then seen the same batches at the same
# rates as a run of its own. `run_steps` is chapter 07's loop over the steps from one number to
# another.

# %% tags=["essential"]
def branches(trunk, optimizer, batches, configs, done=0, on_fork=None, on_trunk=None,
             on_branch=None):
    for config in configs:
        fork = config.n_steps - config.decay_steps
        run_steps(trunk, optimizer, batches, config, done, fork, on_trunk)
        done = fork
        if on_fork:
            on_fork(fork)
        model = copy.deepcopy(trunk)
        branch = make_optimizer(model, config)
        branch.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # else shared, and changed
        run_steps(model, branch, batches, config, fork, config.n_steps, on_branch)
        yield config, model

# %% tags=["check"]
train_tokens, held_out = corpora.load("prose")
batches = data.TokenBatches(train_tokens, LIVE.batch_size, LIVE.seq, LIVE.seed)
validation = data.windows(held_out, LIVE.n_validation, LIVE.seq)
configs = [LIVE.config(D) for D in LIVE.tokens]
trunk = GPT(LIVE.shape, LIVE.seed).to(DEVICE)
shared = {config.D: training.evaluate(model, validation) for config, model in branches(
    trunk, make_optimizer(trunk, configs[-1]), batches, configs)}
for config in configs:
    alone, _ = training.train(GPT(LIVE.shape, LIVE.seed).to(DEVICE), batches, config, validation)
    assert abs(alone.loss - shared[config.D]) < 1e-6
print(f"{len(shared)} branches end at the losses of {len(configs)} separate runs, to 1e-6 nats")

# %%
cool = LIVE.decay_fraction
grid = 0.5 * M * 2 ** (np.arange(7) / 2)  # 0.5 M … 4 M by factors of √2, as recorded below
for name, counts in (("the three above", LIVE.tokens), ("seven from 0.5 M to 4 M", grid)):
    with_branches = (1 - cool) * max(counts) + cool * sum(counts)
    print(f"{name}: {with_branches / max(counts):.2f} times the tokens of the longest run with "
          f"branches, {sum(counts) / max(counts):.2f} times separately")

# %% [markdown]
# The saving grows with the number of token counts: they share all that runs at the constant rate.
# What they also share is luck. Branches of one trunk have the same start and the same order of the
# text, so they are **not independent runs**. Section 4 comes back to this, and the intervals of
# section 6 respect it.
#
# ## 2 · A ledger, and a sweep that can be stopped
#
# A sweep takes hours, and something will go wrong in them. So each finished run is written at once
# as one row of a table, the *ledger*: what was trained, how, on what device, with which versions
# and seed, and the loss. A row's `key` is a hash of the run's settings and of its recipe's name.
# Before a run starts, its key is looked up: what is there is not trained again, and a run with
# altered settings is another run. The recipe names what the code computes, and gets a new name when
# the numbers change. Trunks save a checkpoint at each fork, and every minute.
#
# `sweeps.sweep` does this; it yields its status after each row. We break out of it after the first
# row, as Ctrl-C would, look at what is left, and call it again.

# %%
home = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)  # goes when the kernel ends
path = Path(home.name) / "small.csv"
with contextlib.closing(sweeps.sweep([LIVE], path, n_workers=1)) as going:
    for status in going:
        if status.done == 1:
            break
saved = [*path.with_suffix(".trials").glob("*.safetensors")]
print(f"stopped after {status.done} of {status.total} runs; {len(saved)} checkpoint on disk")

# %%
done = [status.done for status in sweeps.sweep([LIVE], path, n_workers=1)]
rows = pd.read_csv(path)
same = dict(zip(rows.D, rows.loss, strict=True)) == shared
print(f"called again: from {done[0]} to {done[-1]} runs; equal to the last digit to the branches "
      f"above, which nobody interrupted: {same}")

# %%
with open(path, "a") as file:
    file.write("9f3c0e,prose,2,16,2")  # the power fails in the middle of a line
begun, *rest = sweeps.sweep([LIVE], path, n_workers=1)
print(begun.note)
print(f"{begun.done} of {begun.total} runs are there, {len(rest)} more steps needed")

# %% [markdown]
# A torn line is cut off and reported, and only that run would be trained again.
#
# **Where trials run.** Trials do not talk to each other, so they can run anywhere. The *engine*
# decides: local processes, one thread each (`make record`), or a Ray cluster of several machines
# (`pip install -e .[cluster]`, then `python -m recordings prose --engine ray`). Ray finds the
# cluster by `RAY_ADDRESS`; all machines need the same checkout at the same path, on a disk they
# share if trials are to go on elsewhere from their checkpoints. Either way the process that you
# started is the only one that writes the ledger. A worker that dies is replaced, and its trial goes
# on from its last checkpoint.
#
# ## 3 · What is held fixed, and what follows the size
#
# To see what size does, all else must be the same, or at least equally good. The recorded sweep:
#
# - **fixed:** the text, tokens (bytes), windows of 128, batches of 4 windows (512 tokens), Adam's
#   averages, 50 steps of warm-up, a cool-down of 20 %, the held-out windows;
# - **follows d_model by a rule:** the depth (2 to 4 layers), heads of 16 channels, and the learning
#   rate, $\eta = 0.05\, d_\text{model}^{-0.75}$.
#
# Why not one rate for all? What is best for a small model is too high for a large one (figure
# below). And if the rate is good for one size only, the sweep measures the rate and not the size:
# tuning alone moved Porian et al.'s (2024) exponent a from 0.57 to 0.50. So the rule has to be
# checked. A second recorded sweep trained three sizes at 0.35, 0.6, 1, 1.7 and 2.8 times the rule's
# rate. Through the best of them and its two neighbours we draw a parabola in log η; its lowest
# point is the best rate. (If the best is the first or the last of the scan, the valley was missed,
# and we say so.)

# %%
def best_rate(lr, loss):
    """(best rate, least loss, edge) by a parabola through the best run and its neighbours."""
    i = int(np.argmin(loss))
    if i in (0, len(loss) - 1):
        return lr[i], loss[i], True
    return *fits.parabola(lr[i - 1:i + 2], loss[i - 1:i + 2])[:2], False


scan = data.table(SCANNED).sort_values("lr")
scan["rule"] = scan.d_model.map(sweeps.learning_rate) * (scan.batch_size / 4) ** 0.5
scan["factor"] = (scan.lr / scan.rule).round(2)
valleys = {}
for (d, D), runs in scan[scan.batch_size == 4].groupby(["d_model", "D"]):
    valleys[d, D] = rate, least, edge = best_rate(runs.lr.to_numpy(), runs.loss.to_numpy())
    cost = dict(zip(runs.factor, runs.loss - least, strict=True))
    times = rate / sweeps.learning_rate(d)
    print(f"d_model {d}, D = {D / M:g} M: best at {times:.2f} × the rule's rate"
          f"{' (the scan ends there)' if edge else ''}; above the least loss by",
          ", ".join(f"{cost[factor]:.3f} nats at × {factor}" for factor in FACTORS))

# %%
tuned = np.array([(d, rate) for (d, D), (rate, *_) in valleys.items() if D == SCAN_D])
line = fits.fit_power_law(*tuned.T)
shown = plots.interval(-line.exponent, -line.high, -line.low, 2)
print(f"best rate ∝ d_model^{shown} at D = {SCAN_D / M:g} M; the rule has {RULE}")
tried = scan[(scan.D == SCAN_D) & scan.factor.isin(FACTORS) & (scan.d_model > 16)]
best = tried.loc[tried.groupby(["d_model", "batch_size"]).loss.idxmin()]  # of the rates tried
print(best[["d_model", "batch_size", "factor", "n_steps", "loss", "seconds"]].round(3).to_string(
    index=False))

# %%
left, right = plots.panels(2, "Is the rule any good?", height=3.8)
left.set_xlim(4e-4, 0.12)  # room for the legend
for k, (d, runs) in enumerate(scan[(scan.batch_size == 4) & (scan.D == SCAN_D)].groupby("d_model")):
    color, (rate, least, _) = plots.COLORS[k], valleys[d, SCAN_D]
    left.plot(runs.lr, runs.loss - least, "o-", ms=4, color=color, label=f"d_model {d}")
    left.axvline(sweeps.learning_rate(d), color=color, ls=":")
    right.plot(d, rate, "o", color=color)
right.plot(tuned[:, 0], line.predict(tuned[:, 0]), color="0.3", label=f"fit: exponent {shown}")
rule_rates = [sweeps.learning_rate(d) for d in tuned[:, 0]]
right.plot(tuned[:, 0], rule_rates, "k:", label=f"the rule: {RULE}")
plots.label(right, "d_model", "best learning rate", "The best rate", "xy")
plots.label(left, "learning rate", "loss above the least / nats", "Dotted: the rule's rates", "x")

# %% [markdown]
# *Reading.* Left: each size has its own valley. The rule is close to the bottom for the smallest
# and for the largest size. The middle one would like a rate about half as high again, and at 1 M
# tokens the rule costs it more than the noise of the seeds (section 4). That is the price of a
# rule, and an error in the law that no interval below contains. Each point is one run with one
# seed. Right: three sizes leave one degree of freedom, and the interval of the exponent is so wide
# that it says nothing. A rule with three scanned sizes is judged by what it costs, not by its
# exponent.
#
# The batch (the table gives the best of the rates tried, at 1 M tokens): half the windows per step
# mean twice the steps and, on this machine, much more time. 2 windows instead of 4 gain less than
# the noise; 8 lose more than the noise. So we took 4. (Each batch has a rate that grows with the
# root of the batch. The seconds are those of a machine that also did other things.)
#
# **μP, the alternative.** One can also write the network so that the best rate does *not* depend on
# the width (Yang et al. 2022, "maximal update parametrisation"). With Adam: the rate of the hidden
# matrices falls as 1/d_model, that of embeddings and norms stays, and the logits are multiplied by
# base width / d_model. Then one tunes a small model and copies its rate to the large one. Our rule
# uses one rate for all tensors, with an exponent between these two, 0 and −1. It is simpler, and
# has to be checked at each width; μP needs no scan at each width, but says nothing of depth or of
# D. We did not run it. Exercise 08.4 computes its rates.
#
# ## Predict first
#
# The sweep: six sizes from 6 thousand to 443 thousand parameters; token counts from 0.5 M by
# factors of √2 to 4 M (for the four smaller sizes to 8 M); the four middle sizes with three seeds.
# Write down, before you go on:
#
# 1. By how much do two runs differ that differ in the seed alone, in per cent of the loss?
# 2. Twice the tokens: by how many nats does the loss of the largest model fall, from 2 M to 4 M?
#    Of the smallest?
# 3. Plot log L against log D. Straight, or bent? Which way?
# 4. Count the embedding as parameters too. Does the exponent a, of the best size, change by about
#    0.01, or by more than 0.05?

# %%
every = ledger.latest(data.table(RECORDED), "d_model", "n_layer", "D", "seed")
every["trunk"] = every.d_model * 10 + every.seed
alone = every[every.seed == 0]  # the first seed has all sizes and all token counts
mean = every.groupby(["N", "N_total", "D", "C"], as_index=False).loss.mean()  # of the seeds
table = alone.pivot(index="N", columns="D", values="loss")
sizes, tokens = table.index.to_numpy(), table.columns.to_numpy()
n_seeds = every.groupby("N").seed.nunique().to_numpy()
print(f"{len(every)} runs off {every.trunk.nunique()} trunks; seeds per size: {n_seeds}; "
      f"{every.C.min():.2g} … {every.C.max():.2g} FLOPs each")
print(f"the longest reads {tokens.max() / len(train_tokens):.0%} of the text; losses, first seed:")
print(table.rename(columns=lambda D: f"{D / M:.3g} M").map("{:.3f}".format).to_string())

# %% [markdown]
# ## 4 · How noisy is one run?
#
# A difference between two runs means nothing until we know how much two *equal* runs differ. Where
# a size and a D were run with several seeds (other weights, another order of the text), take the
# variance of log L within each such group, and *pool*: add up all squared deviations, divide by all
# degrees of freedom,
#
# $$\sigma^2 = \frac{\sum_g \sum_i (\log L_{gi} - \overline{\log L}_g)^2}{\sum_g (n_g - 1)} .$$
#
# On logarithms σ is a relative error. A variance estimated with ν degrees of freedom is itself
# uncertain: νσ̂²/σ² follows a χ² distribution with ν degrees, which gives its interval. But what is
# ν? If branches of one trunk were independent, two for each group of three seeds. If they all share
# the trunk's luck, two for each *size*.

# %%
cells = every.d_model * 10**8 + every.D
noise, _ = fits.seed_noise(cells, np.log(every.loss))
for name, nu in (("branches independent", int((every.groupby(cells).size() - 1).sum())),
                 ("trunks independent", int((n_seeds - 1).sum()))):
    low, high = noise * np.sqrt(nu / chi2.ppf([0.975, 0.025], nu))
    print(f"seed noise {plots.interval(100 * noise, 100 * low, 100 * high, 2)} % of the loss, "
          f"{name}: {nu} degrees of freedom")
# %%
off = np.log(every.loss) - np.log(every.loss).groupby(cells).transform("mean")
off = every.assign(off=off).pivot(index="trunk", columns="D", values="off").to_numpy()
off = off[np.abs(off).sum(axis=1) > 0]  # the sizes with several seeds
neighbours = np.corrcoef(off[:, :-1].ravel(), off[:, 1:].ravel())[0, 1]
print(f"that is {noise * every.loss.mean():.4f} nats at the mean loss; deviations of neighbouring "
      f"branches correlate with {neighbours:.2f}")

# %% [markdown]
# *Reading.* The deviations of neighbouring branches go together almost perfectly: a trunk with luck
# keeps it at each D. So the second interval is the honest one, and the seeds of one trunk count
# once, however many branches it has. Two runs with other seeds differ by about √2 σ. That is less
# than any step from one size to the next in the table, so even single seeds show the order of the
# sizes. And along *one* trunk the luck cancels: its curve is much smoother than σ suggests. So we
# look along D on one trunk, and along N on means over seeds.
#
# ## 5 · One variable at a time
#
# At a fixed size, what do more tokens bring? Two candidates: a plain power law, and one that falls
# towards an *offset*, a floor,
#
# $$L = k\, D^{-p} \qquad\text{or}\qquad L = L_\infty + k\, D^{-p} .$$
#
# **But first: which runs may be fitted?** A network begins near ln 256 = 5.5 nats, learns the
# frequencies of single letters within some hundred steps, and only then the long tail of things
# that a law describes. What comes before is the *transient*. A run that ends in it tells of the
# start and not of the size, and in a fit it bends the exponents. Where does it end?
#
# *A necessary sign.* Take the local exponent between two neighbouring token counts, s = −Δ log L /
# Δ log D. Under the second law its value at D is p (L − L_∞)/L, which falls as D grows, whatever
# the constants are. As long as s still rises, no such law holds yet.
#
# *Our criterion.* A law is there to predict. So fit all sizes but the largest with the law of
# section 6, L(N, D), predict the largest, and see how far off it is (root mean square over its
# runs). Do so with all token counts, without the first, without the first two, … and keep the cut
# that predicts best.

# %%
L = table.to_numpy()
slope = -np.diff(np.log(L), axis=1) / np.diff(np.log(tokens))  # (sizes, steps)
change = np.diff(slope, axis=1)
print(f"s falls in {(change < 0).sum()} of {np.isfinite(change).sum()} steps, at the left end in "
      f"all sizes: {bool((change[:, 0] < 0).all())}")
miss = []
for D in tokens[:5]:
    rows = every[every.D >= D]
    shown, unseen = rows[rows.N < sizes[-1]], rows[rows.N == sizes[-1]]
    law = fits.fit_parametric(shown.N, shown.D, shown.loss, DELTA)
    miss.append(100 * np.sqrt(np.mean((law.predict(unseen.N, unseen.D) / unseen.loss - 1) ** 2)))
first = int(np.argmin(miss))
late, kept = every[every.D >= tokens[first]], mean[mean.D >= tokens[first]]
print("the largest size is missed by", ", ".join(f"{v:.2f} % (from {D / M:.2g} M)"
                                                for v, D in zip(miss, tokens, strict=False)))
print(f"the law is fitted from D = {tokens[first] / M:.3g} M: {len(late)} of {len(every)} runs")

# %%
left, right = plots.panels(2, "Where does the law begin? (first seed, same colours)", height=3.9)
for n, losses, s in zip(sizes, L, slope, strict=True):
    left.plot(tokens / M, losses, "o-", ms=4)
    right.plot(np.sqrt(tokens[1:] * tokens[:-1]) / M, s, "o-", ms=4,
               label=f"N = {n / 1e3:.0f} thousand")
right.axvline(tokens[first] / M / 2**0.1, color="0.4", ls="--")
plots.label(right, "D / M tokens", "local exponent s", "It should fall; dashed: the cut", "x")
plots.label(left, "D / M tokens", "loss / nats per token", "Loss against tokens", "x")

# %%
for D in tokens[:4]:
    rows = every[every.D >= D]
    law = fits.fit_parametric(rows.N, rows.D, rows.loss, DELTA)
    boot = fits.bootstrap_parametric(rows.N, rows.D, rows.loss, N_QUICK, 0, DELTA,
                                     groups=rows.trunk)
    print(f"from {D / M:.2g} M, {len(rows):3} runs: " + ", ".join(
        f"{name} {plots.interval(getattr(law, name), *boot.interval(name), 2)}"
        for name in ("E", "alpha", "beta")))

# %% [markdown]
# *Reading.* Lines that bend on log axes: each √2 of tokens brings less than the one before. The
# necessary sign is there from the start: the grid begins after the steepest part. (In the two steps
# in which s does not fall, it rises too little to be seen.) The criterion is stricter and leaves
# the first token counts out. It is a choice all the same. The errors of prediction do not differ
# much, and they come from one trunk. (They are also no test of the law any more, since we have
# chosen by them. Chapter 09 makes a real one.) So move the cut, and see what the constants do: the
# last lines fit all sizes. α rises and β falls, but each value lies inside the intervals of the
# others.
#
# Now the two candidates, along D at fixed N and along N at fixed D. R² is the share of the variance
# of log L that the law explains.

# %%
def both_laws(x, y):
    """The plain power law and the one with an offset (None where the points fix none)."""
    try:
        return fits.fit_power_law(x, y), fits.fit_power_law_offset(x, y)
    except ValueError:
        return fits.fit_power_law(x, y), None

# %%
def told(plain, offset):
    """The two fits in one line."""
    if offset is None:
        end = "no offset is fixed"
    else:
        floor = plots.interval(offset.offset, offset.offset_low, offset.offset_high, 2)
        end = (f"with offset {plots.interval(offset.exponent, offset.low, offset.high, 2)}, R² "
               f"{offset.r2:.4f}, floor {floor}")
    exponent = plots.interval(plain.exponent, plain.low, plain.high)
    return f"plain {exponent}, R² {plain.r2:.4f}; {end}"

# %%
last = tokens[np.isfinite(L).all(axis=0)][-1]  # the longest that all sizes have
left, right = plots.panels(2, "One variable at a time: fits with an offset", height=4.2)
for ax, name, fixed, values, unit in (
        (left, "D", "N", (sizes[0], sizes[2], sizes[-1]), "parameters"),
        (right, "N", "D", (tokens[first], 2 * M, last), "tokens")):
    for k, value in enumerate(values):
        rows = alone[alone.D >= tokens[first]] if name == "D" else mean
        rows = rows[rows[fixed] == value]
        plain, offset = both_laws(rows[name], rows.loss)
        curve, x = offset or plain, np.geomspace(rows[name].min(), rows[name].max())
        ax.plot(rows[name] / 1e3, rows.loss, "o", color=plots.COLORS[k], ms=4)
        ax.plot(x / 1e3, curve.predict(x), color=plots.COLORS[k], label=f"{value:,} {unit}: "
                + plots.interval(curve.exponent, curve.low, curve.high, 2))
        print(f"L({name}), {value:,} {unit}: {told(plain, offset)}")
    ax.set_ylim(1.1, 2.15)
plots.label(left, "D / thousand tokens", "loss / nats per token", "more tokens (first seed)", "x")
plots.label(right, "N / thousand parameters", "loss / nats per token", "more parameters (mean)",
            "x")

# %% [markdown]
# *Reading.* The plain law reaches an R² that looks fine and is the wrong law: the points bend
# around its line, and its exponent depends on the window that it is fitted on (the widget at the
# end shows how). With an offset R² is nearer to 1 still, and the exponent is another one, several
# times larger. So "the exponent of L(D)" means nothing until one says which of the two was fitted.
# An R² near 1 proves little: most smooth falls have it.
#
# Look at the floors. That of L(D) is lower for larger models: what stops a small model is its size,
# not the text. So a floor along one axis can be lowered along the other. Along N the floors differ
# by less than their intervals are wide: six sizes, with the seeds' noise on each, fix no floor
# well. Section 6 puts both axes together.
#
# ## L(C): the lower envelope
#
# With a budget of C FLOPs one can train a small model for long or a large one briefly. The least
# loss over all choices is the *lower envelope* of the curves. Each size's curve is interpolated in
# log C and log L. Where the best size at some C is the smallest or the largest of those whose
# curves reach that C, a size outside the grid may be better, and the point is left out.

# %%
def envelope_law(C, loss, N):
    """(budgets, least losses, plain power law) of the envelope, without points at the edge."""
    budgets = np.sort(C)
    _, least, edge = fits.envelope(C, loss, N, budgets)
    return budgets[~edge], least[~edge], fits.fit_power_law(budgets[~edge], least[~edge])


budgets, least, front = envelope_law(kept.C.to_numpy(), kept.loss, kept.N)
(ax,) = plots.panels(height=4)
ax.set_xlim(1e10, 2e13)  # room for the legend
for n, rows in kept.groupby("N"):
    ax.plot(rows.C, rows.loss, "o-", ms=3, lw=0.7, label=f"N = {n / 1e3:.0f} thousand")
ax.plot(budgets, front.predict(budgets), "k--",
        label=f"L ∝ C^−{plots.interval(front.exponent, front.low, front.high)}")
print(f"L ∝ C^-{plots.interval(front.exponent, front.low, front.high)}, R² {front.r2:.4f}, over "
      f"{len(budgets)} of {len(kept)} budgets, {budgets.min():.2g} … {budgets.max():.2g} FLOPs")
plots.label(ax, "C / FLOPs", "loss / nats per token", "The lower envelope", "xy")

# %% [markdown]
# *Reading.* A size leads for a while, then its parameters run out and a larger one takes over. The
# dashed line goes as far as there is a choice of sizes on both sides. Its interval is too narrow:
# neighbouring points of the envelope are read off the same runs. And this is a plain power law over
# a short window. Far enough out it would promise a loss of 0, and text has an entropy.
#
# ## 6 · L(N, D)
#
# One law for both directions (Hoffmann et al. 2022):
#
# $$L(N, D) = E + \frac{A}{N^\alpha} + \frac{B}{D^\beta}$$
#
# In words: text has an entropy E that no model beats; too few parameters cost A/N^α more; too few
# tokens cost B/D^β more. Which constants? The errors are relative, so compare logarithms. A stray
# run must not bend the law, so take the Huber loss: quadratic up to δ, linear beyond. And *sum*
# over the runs:
#
# $$\min \sum_i \operatorname{Huber}_\delta\big(\log L(N_i, D_i) - \log L_i\big)$$

# %% tags=["essential"]
def parametric_loss(N, D, E, A, B, alpha, beta):
    return E + A / N**alpha + B / D**beta


def huber(residual, delta):
    size = np.abs(residual)
    return np.where(size <= delta, size**2 / 2, delta * (size - delta / 2))

# %% tags=["check"]
true = dict(E=0.8, A=20.0, B=600.0, alpha=0.35, beta=0.5)
N_grid, D_grid = (v.ravel() for v in np.meshgrid(sizes, tokens))
law = fits.fit_parametric(N_grid, D_grid, parametric_loss(N_grid, D_grid, **true), DELTA)
assert all(abs(getattr(law, name) / value - 1) < 1e-3 for name, value in true.items())
residual = rng.normal(0, 3 * DELTA, 1000)
np.testing.assert_allclose(huber(residual, DELTA), scipy_huber(DELTA, residual))
print("from exact losses on our grid the fit finds the law they were made with; huber as scipy's")

# %% [markdown]
# `fits.fit_parametric` starts from a grid over α and β, refines the best starts with Newton's
# method, and checks that the gradient vanishes and that several starts agree (chapter 09 opens it).
# Where the runs do not fix an exponent it refuses with a message; a floor E that they do not fix is
# named in `loose`.
#
# **Intervals** come from the bootstrap: draw as many *trunks* as there are, with replacement, and
# refit with all their branches; the middle 95 % of 1,000 refits. Whole trunks, because branches of
# one trunk share their luck. Drawing single runs would pretend to more data than there are.

# %%
law = fits.fit_parametric(late.N, late.D, late.loss, DELTA)
boot = fits.bootstrap_parametric(late.N, late.D, late.loss, N_RESAMPLES, 0, DELTA,
                                 groups=late.trunk)
for name in ("E", "alpha", "beta", "exp_N"):
    print(f"{name:>5} = {plots.interval(getattr(law, name), *boot.interval(name))}")
print(f"{len(late)} runs; optimum verified: {law.verified}; of the resamples "
      f"{boot.n_converged / N_RESAMPLES:.0%} converged, {boot.share_without_floor:.0%} of them "
      "without a floor")

# %%
(ax,) = plots.panels(height=3.9)
missed = 100 * (law.predict(late.N, late.D) / late.loss - 1)
ax.set_xlim(0.9, 24)  # room for the legend
for n in sizes:
    mine = late.N == n
    ax.plot(late.D[mine] / M, missed[mine], "o", ms=4, label=f"N = {n / 1e3:.0f} thousand")
ax.axhspan(-200 * noise, 200 * noise, alpha=0.2, label="seeds, ±2 σ")
plots.label(ax, "D / M tokens", "fit − run / % of the loss", "What the law leaves over", "x")

# %%
print(f"mean miss {np.abs(missed).mean():.2f} %, largest {np.abs(missed).max():.2f} %; outside of "
      f"±2 σ: {np.mean(np.abs(missed) > 200 * noise):.0%} of the runs")
full = mean.pivot(index="N", columns="D", values="loss").dropna(axis=1)
print("smallest minus largest size, nats, by D:", *(full.iloc[0] - full.iloc[-1]).round(2))

# %% [markdown]
# *Reading.* If only seeds spoke, about 5 % of the runs would lie outside the band. There are more,
# and they show a pattern: for the smallest size the fit begins far above the runs and ends below
# them. That size gains less from tokens than the law says, so the gap between the smallest and the
# largest size grows with D (printed), where a sum of two terms wants it constant. The law is a
# summary of these runs, good to the mean miss printed above, and not the truth about them. The
# intervals of its constants say how far other trunks would move them **if the law is right**. (They
# are wide because a resample may lack the only trunk of the smallest or of the largest size.) They
# know nothing of a law that is not right.
#
# **The claim** under test says that performance improves with size "within a certain range". At the
# largest D: what does a doubling of N gain, from one size to the next, against the noise of those
# means? Does a larger model ever lose? And does the gain depend on the tokens?

# %% tags=["verdict"]
doublings = np.diff(np.log2(sizes))
gains = -np.diff(full.to_numpy(), axis=0)[:, first:] / doublings[:, None]  # nats per doubling of N
few, many = gains[[0, -1], -1]  # at the largest D of all sizes
single = noise * full.to_numpy()[:, -1] / np.sqrt(n_seeds)  # standard error of each mean
error = np.hypot(np.hypot(*single[:2]) / doublings[0], np.hypot(*single[-2:]) / doublings[-1])
verdict("K14", bool(gains[:, -1].min() > 0 and few - many > 2 * error),
        f"at D = {full.columns[-1] / M:g} M a doubling of N gains {few:.3f} nats between the two "
        f"smallest sizes, {many:.3f} between the two largest (the difference is {few - many:.3f} ± "
        f"{error:.3f}); of {gains.size} steps to a larger model {(gains < 0).sum()} lose. In the "
        f"law the gains end at E = {plots.interval(law.E, *boot.interval('E'), 2)}",
        E=law.E, gain_small=few, gain_large=many, error=error, losing=(gains < 0).sum())

# %% [markdown]
# *Reading.* The gains shrink, and no size was reached at which they stop: the range of the claim
# ends beyond our grid. What would end it sooner is a lack of tokens. In the law a doubling of N
# gains the same nats at every D; but B/D^β remains: at a fixed D the loss of an endless model is
# E + B/D^β, the *data-limited plateau*. Over-fitting cannot show here: no run reads the
# text twice (printed above the table). Chapter 10 repeats its data, and chapter 04
# showed a larger network that was worse.
#
# ## 7 · The same runs, counted otherwise
#
# What is the *size* of a model, and what did its training cost? Papers count differently: N without
# the embedding (Kaplan et al.), all parameters; C = 6ND, or each FLOP. The head, the output layer,
# costs FLOPs even where it shares the embedding's parameters, as ours does. Nothing about the runs
# changes. What becomes of the exponents?
#
# If a token costs f FLOPs and f ∝ N^γ, the best split of C = f D between the two terms of the law
# has N* ∝ C^a with
#
# $$a = \frac{\beta}{\alpha + \gamma\beta} .$$
#
# With 6ND, γ = 1. (Exercise 08.5 derives this. Ours is not quite a power of N; γ is fitted.)

# %%
FLOPS = every.C / every.D  # per token, exact
HEAD = 6 * every.vocab * every.d_model  # of these, the output layer's
ways = {"N, 6ND": (every.N, 6 * every.N), "N, exact": (every.N, FLOPS),
        "N, exact without head": (every.N, FLOPS - HEAD),
        "N_total, 6 N_total D": (every.N_total, 6 * every.N_total),
        "N_total, exact": (every.N_total, FLOPS)}
fitted = {}
for name, count in (("N", late.N), ("N_total", late.N_total)):
    fitted[name] = (fits.fit_parametric(count, late.D, late.loss, DELTA),
                    fits.bootstrap_parametric(count, late.D, late.loss, N_RESAMPLES, 0, DELTA,
                                              groups=late.trunk))

# %%
counted = {}
for name, (count, flops) in ways.items():
    runs = every.assign(size=count, cost=flops * every.D)[every.D >= tokens[first]]
    runs = runs.groupby(["size", "cost"], as_index=False).loss.mean()
    gamma = fits.fit_power_law(count, 1 / flops).exponent
    one, all_drawn = fitted[name.split(",")[0]]
    a, resampled = (p.beta / (p.alpha + gamma * p.beta) for p in (one, all_drawn))
    line = envelope_law(runs.cost.to_numpy(), runs.loss, runs["size"])[2]
    counted[name] = ((a, *np.quantile(resampled, [0.025, 0.975])),
                     (line.exponent, line.low, line.high))
    print(f"{name}: γ {gamma:.2f}, α {one.alpha:.2f}, a {plots.interval(*counted[name][0])}, "
          f"L ∝ C^-{plots.interval(*counted[name][1])}")
    if name == "N, exact":
        less = resampled - fitted["N"][1].exp_N  # resample by resample
        low, high = np.quantile(less, [0.025, 0.975])
        print(f"   a is {plots.interval(a - one.exp_N, low, high)} more than by 6ND, on the same "
              "resamples")

# %%
axes = plots.panels(2, "Five ways to count the same runs (95 % intervals)", height=3.4)
for j, (ax, what) in enumerate(zip(axes, ("a in N* ∝ C^a", "exponent of L(C)"), strict=True)):
    value, low, high = np.array([both[j] for both in counted.values()]).T
    ax.errorbar(value, -np.arange(5), xerr=[value - low, high - value], fmt="o", capsize=4)
    ax.set_yticks(-np.arange(5), list(counted) if j == 0 else [""] * 5)
    ax.locator_params(axis="x", nbins=5)
    plots.label(ax, what, "", ("best size", "lower envelope")[j])

# %% [markdown]
# *Reading.* Runs, losses and noise are the same in all five lines. What moves is the meaning of "N"
# and of "C". The intervals of a overlap, and yet the difference is no accident: all lines stand on
# the same runs and share their luck. On the same resamples, counting all FLOPs instead of 6ND
# raises a, and the interval of that difference stays clear of 0 (printed below the second line). At
# our sizes the embedding is up to two fifths of all parameters, and 6ND leaves out up to two thirds
# of the FLOPs. With the sizes of published models the ways of counting come closer together
# (chapter 07, first figure). Even so, Porian et al. found one cause of the gap between Kaplan's and
# Hoffmann's exponents here: counting the last layer's FLOPs moved a from 0.84 to 0.71. An exponent
# without its convention cannot be compared with another.
#
# ## 8 · Time and memory
#
# Chapter 07 gave the verdicts on K12 and K13: time and memory as laws of the size. The ledger has
# the seconds of each run as well. They come from a machine that did other things too, so that its
# clock is coarse. Memory needs no clock: weights, gradients and Adam's moments take 16 bytes per
# parameter, all parameters counted.

# %%
longest = every[every.D == full.columns[-1]]
for what, cost in (("time", longest.seconds), ("exact FLOPs", longest.C)):
    fit = fits.fit_power_law(longest.N, 1 / cost)
    print(f"{what} ∝ N^{plots.interval(fit.exponent, fit.low, fit.high, 2)}")
held = training_bytes(LIVE.shape) / every[every.d_model == LIVE.d_model].iloc[0][["N_total", "N"]]
print(f"state of the smallest: {held.N_total:g} bytes per parameter, {held.N:.1f} if the embedding "
      "is not counted")

# %% [markdown]
# *Reading.* Both exponents, at the largest D that all sizes have, are below 1: the small models pay
# for scores and head, which do not grow with N, and the clock adds what each call costs besides its
# FLOPs. Memory is linear in N_total by construction, and not in N.
#
# ## 9 · The same law for images?
#
# Text is one kind of data. Take another: drawn digits of 10 × 10 pixels (chapter 04), a network
# with one hidden layer of w units, and the cross-entropy of the ten classes. As for text, each
# image is seen once, so D is the number of images; N counts all parameters, 111 w + 10. There are
# three seeds, and the rate follows a rule, $0.03\,w^{-1/4}$, tried out at the corners of the grid
# in the first lines below.
#
# **Predict:** what will E be? (What is the entropy of the label, given a readable image?) And will
# the exponents be larger or smaller than those of text?

# %%
images, labels = glyphs(N_GLYPHS, rng, SIDE)
held_images, held_labels = glyphs(N_GLYPHS_HELD, rng, SIDE)
centre, scale = images.mean(axis=0), images.std()


def image_loss(w, D, seed, factor=1.0):
    """Held-out cross-entropy (nats per image) of w hidden units after D images, each seen once."""
    layers, draw, n_steps = (SIDE**2, w, 10), np.random.default_rng((seed, w)), D // IMAGE_BATCH
    order, state = np.random.default_rng(seed).permutation(N_GLYPHS), (0, 0.0, 0.0)
    theta, lr = init_mlp(layers, 2**0.5, draw), factor * IMAGE_LR * w**IMAGE_RULE
    for step in range(n_steps):
        chosen = order[step * IMAGE_BATCH:(step + 1) * IMAGE_BATCH]
        logits, cache = forward(theta, layers, (images[chosen] - centre) / scale, "relu")
        gradient = backward(theta, layers, cache, softmax_loss(logits, labels[chosen])[1])
        rate = lr * wsd(step, n_steps, IMAGE_WARMUP, round(0.2 * n_steps))
        theta, state = adam_step(theta, state, gradient, rate)
    logits, _ = forward(theta, layers, (held_images - centre) / scale, "relu")
    return softmax_loss(logits, held_labels)[0]

# %%
for w, D in ((WIDTHS[0], IMAGES[0]), (WIDTHS[0], IMAGES[-1]), (WIDTHS[-1], IMAGES[0]),
             (WIDTHS[-1], IMAGES[-1])):
    tried = [image_loss(w, D, 0, factor) for factor in FACTORS]
    print(f"{w} units, {D:,} images: loss", ", ".join(
        f"{loss:.2f} at × {factor}" for loss, factor in zip(tried, FACTORS, strict=True)))

# %%
per_seed = np.array([[[image_loss(w, D, seed) for D in IMAGES] for w in WIDTHS]
                     for seed in range(IMAGE_SEEDS)])
image_L = per_seed.mean(axis=0)  # (widths, images)
image_N = 111 * WIDTHS + 10
image_noise = np.sqrt(np.log(per_seed).var(axis=0, ddof=1).mean())
print(f"seed noise {100 * image_noise:.0f} % of the loss")
print("narrowest minus widest, nats, by D:", *(image_L[0] - image_L[-1]).round(2))
# %%
grid = (v.ravel() for v in np.meshgrid(image_N, IMAGES, indexing="ij"))
image_law = fits.fit_parametric(*grid, image_L.ravel(), DELTA)
print(f"L(N, D): these runs do not fix {', '.join(image_law.loose)}; "
      f"E below 1e-6 nats: {image_law.E < 1e-6}")
assert image_law.loose == ("E",)

# %%
left, right = plots.panels(2, "Images: fits with an offset", height=4)
left.set_ylim(0.04, 2.5), right.set_ylim(0.04, 2.5)
for ax, name, x_all, curves, values, unit in (
        (left, "D", IMAGES, image_L, WIDTHS, "units"),
        (right, "N", image_N, image_L.T, IMAGES, "images")):
    for k, i in enumerate((0, len(values) // 2, -1)):
        plain, offset = both_laws(x_all, curves[i])
        curve = offset or plain
        ax.plot(x_all, curves[i], "o", color=plots.COLORS[k], ms=4)
        ax.plot(x_all, curve.predict(x_all), color=plots.COLORS[k], label=f"{values[i]:,} {unit}: "
                + plots.interval(curve.exponent, curve.low, curve.high, 2))
        print(f"L({name}) with {values[i]:,} {unit}: {told(plain, offset)}")
plots.label(left, "D / images", "loss / nats per image", "more images", "xy")
plots.label(right, "N / parameters", "loss / nats per image", "more parameters", "xy")

# %% [markdown]
# *Reading.* The same form again: each line bends towards a floor, and the floor along D is lower
# for wider networks. What the narrowest network costs more than the widest is much the same at each
# D, in nats (printed), as a *sum* of a term in N and a term in D says. Two things differ. With an
# offset, the exponents of the wider networks, and of those that saw more images, are larger than
# any that text has in section 5. (Why, we did not test.) And E: the fit of L(N, D) says that these
# runs do not fix E; what it finds is as good as 0 (printed). That is what we expect. Who sees a
# clear digit knows its label, so the entropy of the label is close to zero. For text it is not: the
# next letter is uncertain even to those who know the language.
#
# Seeds differ more here than for text (printed); the points are means over three. The rule of the
# rate is coarser too: with few images a higher rate would do better.
#
# ## Exercises
#
# Replace `return NotImplemented`, run the cell, then the checks. `hint("08.1")` helps once, again a
# second time; `solution("08.1")` shows ours.
#
# 1. Read it off "Loss against tokens" (or the table of losses): a smaller model can make up for
#    its size with more tokens.
# 2. How many tokens does a trunk with its branches train in all?
# 3. Pool the seed noise yourself, as in section 4. Every group has the same number of seeds.
# 4. μP's rates, as section 3 says them.
# 5. Derive a for f ∝ N^γ. Put D = C/f into A/N^α + B/D^β, set the derivative with respect to N to
#    zero, and see which power of C comes out.

# %% tags=["exercise"]
def tokens_to_make_up():
    """M tokens (M = 2²⁰) that N = 197 thousand needs for the loss of N = 443 thousand at 2 M."""
    return NotImplemented


def tokens_trained(token_counts, decay_fraction):
    """Tokens that a trunk with cool-down branches trains in all, for a list of token counts D.

    Each branch cools down over the last decay_fraction of its D.
    """
    return NotImplemented


def pooled_noise(losses):
    """σ: pooled standard deviation of the log loss; losses (n_groups, n_seeds) in nats."""
    return NotImplemented


def mup_settings(lr, base_width, width):
    """(rate of the embedding, rate of the hidden matrices, factor on the logits) under μP.

    lr is the best rate of both at base_width, where the factor is 1.
    """
    return NotImplemented


def size_exponent(alpha, beta, gamma):
    """a in N* ∝ C^a for L = E + A/N^alpha + B/D^beta and C = f D, f ∝ N^gamma FLOPs a token."""
    return NotImplemented

# %% tags=["exercise-check"]
check("08.1", tokens_to_make_up)
check("08.2", tokens_trained)
check("08.3", pooled_noise)
check("08.4", mup_settings)
check("08.5", size_exponent)
# hint("08.1")
# solution("08.1")
# the same for "08.2" to "08.5"

# %% [markdown]
# ## Play: the sweep explorer
#
# Choose what the horizontal axis shows, and which line of the table is held fixed (1 is the
# smallest size or token count; for C it has no effect). Choose how size and cost are counted. Then
# put runs of the transient back in or take more out: "from token count" 1 uses all. Before you move
# it: will the exponent of L(D) rise or fall as early runs are left out? The text line gives both
# fits.

# %%
def explored(axis, line, counting, start):
    """The first seed's runs along one axis and both fits, as a picture."""
    count, flops = ways[counting]
    runs = every.assign(size=count, cost=flops * every.D)
    runs = runs[(runs.D >= tokens[start - 1]) & (runs.seed == 0)]
    column = {"D at fixed size": "D", "size at fixed D": "size", "C, lower envelope": "cost"}[axis]
    other = {"D": "size", "size": "D"}.get(column)
    if other:
        values = np.unique(runs[other])
        held = values[min(line, len(values)) - 1]
        x, y = runs.loc[runs[other] == held, [column, "loss"]].to_numpy().T
        name = f"{'size' if other == 'size' else 'D'} {held:,.0f}"
    else:
        x, y, _ = envelope_law(runs.cost.to_numpy(), runs.loss, runs["size"])
        name = f"{len(x)} budgets"
    plain, offset = both_laws(x, y)
    at = np.geomspace(x.min(), x.max(), 60)
    drawn = [widgets.series("points", runs[column], runs.loss, "all runs", 7),
             widgets.series("points", x, y, name, 0),
             widgets.series("dash", at, plain.predict(at), "plain", 1)]
    drawn += [widgets.series("line", at, offset.predict(at), "with offset", 2)] if offset else []
    return widgets.picture(drawn, UNIT[column], "loss / nats per token", SPAN[column], (1.1, 2.6),
                           axis, log="xy", text=f"{name}: {told(plain, offset)}")

# %% tags=["widget"]
UNIT = {"D": "D / tokens", "size": "size / parameters", "cost": "C / FLOPs"}
SPAN = {"D": (4e5, 1e7), "size": (5e3, 6e5), "cost": (1e10, 2e13)}  # axes that stand still
widgets.explore(explored, axis=Dropdown(options=["D at fixed size", "size at fixed D",
                                                 "C, lower envelope"], description="axis"),
                line=IntSlider(3, 1, 7, description="line held fixed"),
                counting=Dropdown(options=list(ways), description="counting"),
                start=IntSlider(1, 1, 3, description="from token count"))

# %% [markdown]
# ## Recap
#
# - One trunk with cool-down branches gives every D for little more than the longest run; the
#   branches are not independent, and intervals are drawn over trunks.
# - A run is a row with a key. What is there is not trained again, so a sweep survives anything.
# - What cannot be the same for all sizes follows a rule, and the rule is checked by a scan.
# - Leave out the transient by a criterion that the data can fail, and say what moving the cut does.
# - An exponent belongs to a form (with or without offset), a window and a way of counting. Its
#   interval holds only within these.
# - Images follow the same form with other constants, and with a floor near zero.
#
# **Limits.** One text, one context, one rule for the rate, scanned at three sizes and not perfect
# at the middle one. The two ends of the grid have one seed. The intervals assume the law.
#
# **To read.** Hoffmann et al. 2022 (arXiv:2203.15556) for L(N, D); Kaplan et al. 2020
# (arXiv:2001.08361); Porian et al. 2024 (arXiv:2406.19146) on what moves exponents; Hägele et al.
# 2024 (arXiv:2405.18392) on branches; Yang et al. 2022, *Tensor Programs V* (arXiv:2203.03466) on
# μP.
#
# The law fits the runs it was fitted to. Does it say anything about a run that nobody has made,
# ten times as large? And given a budget, which N and D should it be? Next: **09 ·
# Compute-optimal**.
