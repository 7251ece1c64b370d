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
# # 10 · Data scaling
#
# **The question:** what is a token worth if it comes again, if it is noise, or if it is from
# another kind of text?
#
# When you are through, you can
#
# 1. turn a held-out loss into *fresh tokens*, and say what repeats, noise and copies cost in that
#    one unit;
# 2. write a filter that does not see the labels, and say when filtering a small pool stops paying;
# 3. work out the entropy rate of a language, and hold the fitted $E$ of a scaling law against it.
#
# Runs in about 1 minute on a CPU. A GPU changes nothing here. Before this: chapter 08.
#
# | symbol | code | meaning | unit |
# |---|---|---|---|
# | $D$ | `D` | training tokens, each time counted that one is read | tokens (bytes) |
# | $U$ | `U` | different tokens among them | tokens |
# | $R$ | – | repeats: $D/U - 1$; the number of epochs is $R + 1$ | – |
# | $R^*$ | `R_star` | how fast repeats lose their worth | repeats |
# | $D'$ | `worth` | fresh tokens that would do as much | tokens |
# | $N$ | `N` | parameters without the embedding | – |
# | $L$ | `loss` | loss on held-out text | nats per token |
# | $r$ | `rate` | share of the passages that is spoilt | – |
# | $p(c \mid a, b)$ | `p` | the language: probability of $c$ after the symbols $a$, $b$ | – |
# | $\pi(a, b)$ | `share` | share of the time that $a, b$ is what came last | – |
# | $H$ | `entropy` | entropy rate of the language | nats per symbol |
# | $E, A, B, \alpha, \beta$ | `E, A, B, alpha, beta` | $L(N, D)$ of chapter 08 | – |

# %% tags=["imports"]
import collections
import itertools

import numpy as np
import torch
from ipywidgets import Dropdown, FloatLogSlider, IntSlider
from scipy.integrate import quad

from helpers import corpora, data, fits, runtime
from helpers.claims import verdict
from helpers.exercises import check, hint, solution
from helpers.plots import interval, label, panels
from helpers.scaling import sweeps
from helpers.transformer import training
from helpers.transformer.models import GPT
from helpers.widgets import explore, picture, series

# %% tags=["config"]
rng = runtime.setup(seed=10)
FIRST, LAST = 2**17, 2**19  # fewest and most tokens of the runs that are compared
SIZES = (16, 32, 64)  # d_model; two layers each
POOLS = ("prose:pool=2^13", "prose:pool=2^15", "prose")  # 8 kB, 32 kB, more than is read
RATES = (0.1, 0.3, 0.5)  # share of the passages that is spoilt
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # share of code in a mixture
MOST_EPOCHS = 16  # the law of repeats is fitted up to here
PUBLISHED = 15.388  # R* of Muennighoff et al. 2023
GRID = np.geomspace(1, 3000, 400)  # values of R* that are tried
EPOCHS = np.geomspace(1, 64)  # where the laws of repeats are drawn
LIVE = dict(tokens=(2**17,), seed=0, data="prose:pool=2^12")  # 32 epochs of 4 kB
N_LIVE_WINDOWS = 100  # of held-out text
NOISY, FILTERED = "prose:pool=2^16:noise=0.3", "prose:pool=2^16:noise=0.3:filter=0.25"
PRUNED = {"random half": "prose:pool=2^16", "likely half": "prose:pool=2^17:filter=0.5",
          "unlikely half": "prose:pool=2^17:hard=0.5"}
FIRST_LANGUAGE = 2**18  # shorter runs in the made-up language are shown but not fitted
SUBSETS = ((16, 2**21), (32, 2**21), (48, 2**20), (48, 2**21))  # widest d_model, most tokens
N_RESAMPLES = 1000
DELTA = 1e-3  # Huber, as in chapter 08

# %% [markdown]
# ## 1 · The runs, and one unit for all of them
#
# The recorded runs of this chapter are small: GPTs of two layers, `d_model` 16, 32 and 64, trained
# on up to half a million bytes. They differ in **what they read**. Each text has a name that says
# how it was made; `helpers.corpora.load(name)` makes it again, the same on every machine:
#
# - `prose` is the text of chapter 05, documents that share passages with the held-out ones left
#   out; a run of half a million tokens meets nothing of it twice;
# - `prose:pool=2^13` is 2¹³ bytes of it, cut into passages of 1024 bytes in random order;
# - `prose:noise=0.3` has 30 % of its passages spoilt, and so on: steps from left to right.
#
# The held-out text is clean prose for all of them, unless we say otherwise. So losses compare.

# %%
runs = data.table("sweeps/data_lever.csv")
runs["U"] = [2.0 ** int(name[13:15]) if name.startswith("prose:pool=") else np.inf
             for name in runs.data]
print(f"{len(runs)} runs of {runs.data.nunique()} texts; N: {sorted(runs.N.unique().tolist())}")

# %% [markdown]
# Seeds differ in their first weights and in the order of what they read. Their scatter (standard
# deviation; exams on prose, without the 8 kB texts) is the ruler for the differences below.

# %%
def losses(d_model, text, D=LAST):
    rows = runs[(runs.d_model == d_model) & (runs.data == text) & (runs.D == D)]
    return rows.loss.to_numpy()  # one for each seed


on_prose = runs.data.str.startswith("prose") & (runs.U > 2**13)
groups = runs[on_prose & (runs.D == LAST)].groupby(["d_model", "data"]).loss
noise = float(np.sqrt(groups.var().mean()))
print(f"seed noise at {LAST:,} tokens: {noise:.2g} nats per token")

# %% [markdown]
# **The unit.** A loss of 2.1 nats says little. "As good as 300,000 fresh tokens" says more. So we
# first measure what fresh text gives. In the range of our runs the loss on it is nearly a straight
# line on log–log axes, $L \approx \text{scale} \cdot D^{-\text{exponent}}$ (there is a floor
# further down; we are far from it). Read backwards, the line turns a loss into fresh tokens $D'$.

# %%
fresh = {}
for d_model in SIZES:
    rows = runs[(runs.d_model == d_model) & (runs.data == "prose") & (runs.D >= FIRST)]
    fresh[d_model] = law = fits.fit_power_law(rows.D, rows.loss)
    print(f"d_model {d_model}: exponent {interval(law.exponent, law.low, law.high)}, "
          f"twice the text: loss × {2**-law.exponent:.2f}")

# %%
def worth(d_model, loss):
    law = fresh[d_model]
    return (np.asarray(loss) / law.scale) ** (-1 / law.exponent)


print(f"d_model 32, loss 2: as good as {worth(32, 2.0):,.3g} fresh tokens")

# %% [markdown]
# ## Predict first
#
# All for 524,288 tokens read. Write down three answers before you go on.
#
# (a) A run reads 32 kB sixteen times. How many *fresh* tokens is that worth: 10 %, 50 % or nearly
# all of what it read? (b) In another run 30 % of the passages have their bytes in random order. Is
# that as bad as reading 30 % less, better, or worse? (c) Two models read the same 8 kB 64 times,
# one with sixteen times the parameters. Which one has the lower loss on new text?
#
# ## 2 · Repeats
#
# Muennighoff et al. (2023) gave repeats a law. The first pass over $U$ tokens counts in full. Each
# further pass is worth less than the one before, by the same factor each time:
#
# $$D' = U + U R^* \left(1 - e^{-R/R^*}\right), \qquad R = D/U - 1$$
#
# In words: after $x$ repeats, what is read next is worth $e^{-x/R^*}$ of fresh text; add it all up.
# With $R^* = \infty$ a repeat is as good as fresh text. However often you repeat, you get no more
# than $U(1 + R^*)$.

# %% tags=["essential"]
def effective_tokens(unique, D, R_star):
    U = np.minimum(unique, D)
    R = D / U - 1
    return U + U * R_star * (1 - np.exp(-R / R_star))

# %% tags=["check"]
for epochs in (1, 4, 16, 60):  # add up the shrinking passes by numerical integration
    repeats = quad(lambda x: np.exp(-x / PUBLISHED), 0, epochs - 1)[0]
    assert np.isclose(effective_tokens(1000, 1000 * epochs, PUBLISHED), 1000 * (1 + repeats))
assert effective_tokens(1000, 600, PUBLISHED) == 600  # nothing is repeated
print("effective_tokens: equal to the integral;",
      *(f"{e} epochs are worth {effective_tokens(1.0, e, PUBLISHED):.3g}," for e in (4, 16)),
      f"the limit is {1 + PUBLISHED:.3g}")

# %%
for text in ("prose:pool=2^15", "prose:pool=2^16", "prose:pool=2^17", "prose:pool=2^18", "prose"):
    found = losses(64, text)
    told = f"{LAST / 2 ** int(text[13:]):.0f} epochs" if text != "prose" else "fresh"
    print(f"d_model 64, {told:>9}: loss {found.mean():.3f}, "
          f"worth {worth(64, found.mean()) / LAST:.0%} of fresh text")

# %% [markdown]
# **Fitting $R^*$.** One number for each size of model. For each value of $R^*$ on a grid, the law
# says how many fresh tokens each repeated run is worth, and the fresh line says which loss goes
# with that; we take the value with the smallest squared error of $\log L$. The interval comes from
# drawing whole runs (all token counts of one text and seed) with replacement; the fresh line is
# taken as known, so it is a little too narrow. Runs of more than 16 epochs are left out. An upper
# end of 3000 is the end of the grid: then the runs do not say that repeats lose anything.

# %%
fitted = {}
for d_model in SIZES:
    rows = runs[(runs.d_model == d_model) & (runs.U <= 2**18) & (runs.D >= FIRST)
                & runs.data.str.fullmatch(r"prose:pool=2\^\d+") & (runs.D <= MOST_EPOCHS * runs.U)]
    D, U, L = (rows[name].to_numpy(dtype=float)[:, None] for name in ("D", "U", "loss"))
    error = np.log(L / fresh[d_model].predict(effective_tokens(U, D, GRID))) ** 2  # (run, R*)
    trunks = rows.groupby(["data", "seed"]).ngroup().to_numpy()
    by_trunk = np.array([error[trunks == t].sum(axis=0) for t in np.unique(trunks)])
    drawn = rng.multinomial(len(by_trunk), np.full(len(by_trunk), 1 / len(by_trunk)), N_RESAMPLES)
    ends = np.quantile(GRID[(drawn @ by_trunk).argmin(axis=1)], [0.025, 0.975])
    fitted[d_model] = GRID[error.sum(axis=0).argmin()], *ends
    print(f"d_model {d_model}: R* = {interval(*fitted[d_model], 0)} from {len(rows)} runs; "
          f"published: {PUBLISHED:.1f}")

# %%
left, right = panels(2, "Repeats", height=3.8)
for color, d_model in enumerate(SIZES):
    for text, style in zip(POOLS, (":", "--", "-"), strict=True):
        mean = runs[(runs.d_model == d_model) & (runs.data == text)].groupby("D").loss.mean()
        left.plot(mean.index, mean, style, color=f"C{color}",
                  label=f"d_model {d_model}" if text == "prose" else None)
    rows = runs[(runs.d_model == d_model) & runs.data.isin(POOLS[:2]) & (runs.D >= FIRST)]
    right.plot(rows.D / rows.U, worth(d_model, rows.loss) / rows.D, "o", color=f"C{color}", ms=4)
    right.plot(EPOCHS, effective_tokens(1, EPOCHS, fitted[d_model][0]) / EPOCHS, f"C{color}",
               label=f"R* = {interval(*fitted[d_model], 0)}")
right.plot(EPOCHS, effective_tokens(1, EPOCHS, PUBLISHED) / EPOCHS, "k--", label="published: 15.4")
label(left, "D / tokens", "loss / nats per token", "line: fresh, dashes: 32 kB, dots: 8 kB", "xy")
label(right, "epochs", "D' / D", "worth of a token that is read", "x")
print("points at more than", MOST_EPOCHS, "epochs are drawn, but not fitted")

# %% [markdown]
# **Reading.** Compare the dashes with the lines. With 32 kB, read up to 16 times, the loss goes on
# falling, and the smaller two models hardly notice that they have read it all before. The largest
# model notices more; of the three it has the smallest $R^*$, the nearest to the published one. The
# law knows $U$ and $D$ alone; the paper has a second one for the model's size. So an $R^*$ should
# be quoted with the size of model at which it was measured.
#
# Look at the dots last. On 8 kB the curve of the largest model turns *up*. No $R^*$ can describe
# that: $D'$ stops growing, but it never falls. What comes next is about that turn.
#
# ### Bigger is better, and when it is not (K15)
#
# **The claim:** "Bigger models generalise better." *The experiment:* three sizes, three amounts of
# text, the same number of tokens read by all of them. Only the share of repeats differs.

# %%
table = {text: [losses(d_model, text).mean() for d_model in SIZES] for text in POOLS}
print("different bytes |", " | ".join(f"d_model {d}" for d in SIZES))
for text, row in table.items():
    name = "fresh" if text == "prose" else f"{runs[runs.data == text].U.iloc[0] / 1024:.0f} kB"
    print(f"{name:>15} |", " | ".join(f"{loss:10.3f}" for loss in row))

# %% tags=["verdict"]
grow = {text: losses(SIZES[-1], text).mean() - losses(SIZES[0], text).mean() for text in POOLS}
signs = {bool(change < 0) for change in grow.values() if abs(change) > 3 * noise}
verdict("K15", holds=None if len(signs) == 2 else signs.pop(),
        measured=f"from d_model {SIZES[0]} to {SIZES[-1]}, 16 times the parameters, the held-out "
        f"loss changes by {grow['prose']:+.2f} nats per token with fresh text, by "
        f"{grow[POOLS[1]]:+.2f} with 32 kB read 16 times and by {grow[POOLS[0]]:+.2f} with 8 kB "
        f"read 64 times. Bigger is better while there is enough text that differs",
        change_fresh=grow["prose"], change_32kB=grow[POOLS[1]], change_8kB=grow[POOLS[0]])

# %% [markdown]
# **See it live.** What happens to the model on 8 kB? It learns them by heart. To see it within
# seconds, take 4 kB and read them 32 times, with the smallest and the largest model. Each is then
# examined twice: on what it has read, and on what it has not.

# %%
pool, held_out = corpora.load(LIVE["data"])
exams = {"read": data.windows(pool, 31, 128),
         "new": data.windows(held_out, N_LIVE_WINDOWS, 128)}
gap = {}
for d_model in SIZES[::2]:
    trial = sweeps.Trial(d_model, 2, sweeps.learning_rate(d_model), **LIVE)
    model, config = GPT(trial.shape, trial.seed), trial.config(*trial.tokens)
    batches = data.TokenBatches(pool, trial.batch_size, trial.seq, trial.seed)
    training.run_steps(model, training.make_optimizer(model, config), batches, config, 0,
                       config.n_steps)
    gap[d_model] = {name: training.evaluate(model, windows) for name, windows in exams.items()}
    print(f"d_model {d_model}: loss on what it read below 2: {gap[d_model]['read'] < 2}; "
          f"new minus read, in whole nats: {gap[d_model]['new'] - gap[d_model]['read']:.0f}")

# %% [markdown]
# **Reading.** The small model does hardly better on what it has read than on new text: it has no
# room for 4 kB by heart, so it keeps what is common in them, which is what new text shares with
# them. The large one has begun to learn its pages by heart. Its loss on them says little about new
# text any more. Read on, and the gap widens until the loss on new text turns up, as the dots did.
#
# ## 3 · Noise and copies
#
# Two kinds of bad text, at a known rate $r$. *Noise*: the bytes of a passage in random order. Each
# letter is still there, no word is. *Copies*: a passage is overwritten by one and the same passage,
# a notice, say, that stands on every page.

# %%
clean = corpora.load("prose:pool=2^14")[0].reshape(-1, corpora.PASSAGE)
spoilt = corpora.load("prose:pool=2^14:noise=0.5")[0].reshape(-1, corpora.PASSAGE)
changed = (clean != spoilt).any(axis=1)
place = int(np.argmax(changed))
print(f"{changed.sum()} of {len(clean)} passages are spoilt; one of them begins")
print(" before:", data.decode(clean[place, :60]).replace("\n", "↵"))
print(" after: ", data.decode(spoilt[place, :60]).replace("\n", "↵"))

# %%
cost = {(kind, 0.0): losses(32, "prose") for kind in ("noise", "duplicate")}
for kind in ("noise", "duplicate"):
    for rate in RATES:
        cost[kind, rate] = losses(32, f"prose:{kind}={rate}")
        left_over = worth(32, cost[kind, rate].mean()) / LAST
        print(f"{kind:>9} {rate:.0%}: loss {cost[kind, rate].mean():.2f}, worth {left_over:.0%} of "
              f"fresh text; without the bad part {1 - rate:.0%} would be left")

# %%
left, right = panels(2, "A share r of bad text, d_model 32, 524,288 tokens read", height=3.8)
for kind, mark in (("noise", "o-"), ("duplicate", "s--")):
    mean = np.array([cost[kind, rate].mean() for rate in (0.0, *RATES)])
    left.plot((0, *RATES), mean, mark, label={"noise": kind, "duplicate": "one passage"}[kind])
    right.plot((0, *RATES), worth(32, mean) / LAST, mark)
left.errorbar((0, *RATES), [cost["noise", r].mean() for r in (0.0, *RATES)], noise, fmt="none",
              color="C0", capsize=3)
right.plot((0, 0.5), (1, 0.5), "k:", label="bad part thrown away: 1 − r")
label(left, "share r of bad passages", "loss / nats per token", "bar: noise between seeds")
label(right, "share r of bad passages", "D' / D", "worth in fresh tokens")
print("30 % noise costs", f"{cost['noise', 0.3].mean() - cost['noise', 0.0].mean():.2f} nats")

# %% [markdown]
# **Reading.** The dotted line is what you would get if bad text were merely useless: reading
# $D$ tokens with a share $r$ of noise would be worth $(1-r)D$ fresh ones. The noise lies **below**
# it. So it does not only waste its own steps, it does harm: here 30 % noise costs at least as
# much as throwing away half of the text. We did not test why.
#
# The copies stay near the dotted line. At 10 % their cost is not larger than the noise between
# seeds; at 50 % it is roughly that of the steps spent on them.
#
# ## 4 · A filter against quantity
#
# If a machine can tell noise from text, the noise can be thrown away. But every filter throws away
# text as well. What is the better use of the same FLOPs: read the whole pool, or the best part of
# it, more often?
#
# Our filter is the simplest that works. Count pairs of bytes in a small clean sample (64 passages
# that no pool contains). A passage's *surprise* is its mean $-\log p(\text{byte} \mid \text{byte
# before})$. The filter sees no labels. It keeps the share of the pool with the least surprise.

# %% tags=["essential"]
def surprise(passages, clean):
    counts = np.full((256, 256), 0.5)
    np.add.at(counts, (clean[:, :-1], clean[:, 1:]), 1)
    nats = -np.log(counts / counts.sum(axis=1, keepdims=True))
    return nats[passages[:, :-1], passages[:, 1:]].mean(axis=1)

# %% tags=["check"]
sample, asked = clean[:3], clean[3].tolist()
pairs = collections.Counter(two for row in sample.tolist() for two in itertools.pairwise(row))
before = collections.Counter(a for row in sample.tolist() for a in row[:-1])
by_hand = [-np.log((pairs[a, b] + 0.5) / (before[a] + 128)) for a, b in itertools.pairwise(asked)]
assert np.isclose(surprise(clean[3:4], sample)[0], np.mean(by_hand))
print("surprise: equal to counting by hand, pair after pair")

# %%
noisy = corpora.load(NOISY)[0].reshape(-1, corpora.PASSAGE)
truth = corpora.load("prose:pool=2^16")[0].reshape(-1, corpora.PASSAGE)
is_noise = (noisy != truth).any(axis=1)
score = surprise(noisy, clean)
kept = {row.tobytes() for row in corpora.load(FILTERED)[0].reshape(-1, corpora.PASSAGE)}
caught = [row.tobytes() in kept for row in noisy[is_noise]]
print(f"{is_noise.mean():.0%} of {len(noisy)} passages are noise; kept: {len(kept)} passages, "
      f"{sum(caught)} of them noise")
print(f"surprise of text {score[~is_noise].min():.2f} … {score[~is_noise].max():.2f}, of noise "
      f"{score[is_noise].min():.2f} … {score[is_noise].max():.2f} nats per byte")

# %% [markdown]
# The noise is easy to tell. The filter keeps a quarter of the pool, 16 kB of 64, so it also throws
# away good text: 45 of 64 passages were good, and only 16 are kept. Now train on both, at equal
# FLOPs.

# %%
(ax,) = panels(height=3.8)
for text, name in ((NOISY, "the whole pool: 64 kB, 30 % noise"),
                   (FILTERED, "filtered: 16 kB of text")):
    rows = runs[(runs.d_model == 64) & (runs.data == text)]
    mean = rows.groupby("D").loss.mean()
    ax.plot(mean.index, mean, "o-", label=name)
    ax.plot(rows.D, rows.loss, "k.", ms=3)
label(ax, "D / tokens, and FLOPs in proportion", "loss / nats per token",
      "The same FLOPs, d_model 64", "xy")
gain = (runs[runs.data == NOISY].groupby("D").loss.mean()
        - runs[runs.data == FILTERED].groupby("D").loss.mean())
print("nats gained by the filter:", {f"{D:,}": f"{g:+.2f}" for D, g in gain.items()})

# %% [markdown]
# **Reading.** With few tokens the filtered text wins clearly: hardly anything is repeated yet, and
# no step goes to noise. The last entry of the printed line is the run that reads its 16 kB 32
# times. There the filter loses: the text that was thrown away is missing now.
# A filter should be the milder, the longer you mean to train; "the best quarter" has no meaning
# without a budget.
#
# **Data pruning** goes one step further and throws away *clean* text, the easy or the hard half.
# Which half should it be?

# %%
for name, text in PRUNED.items():
    found = losses(32, text)
    print(f"{name:>13} of 128 kB: loss {found.mean():.3f} (noise {noise:.2f})")

# %% [markdown]
# The three differ by no more than the noise. On this text, with this score, pruning
# cannot be told from leaving out passages at random. Sorscher et al. (2022) report better than a
# power law with a good score on images; a pair count is not one.
#
# ## 5 · Mixing prose and code
#
# The second text is code, the sources of a Python library. One model, one budget: how much of it
# should be code? Each mixture is examined twice, on held-out prose and on held-out code.

# %%
exam = {kind: np.array([losses(16, f"{kind}:mix={share if kind == 'prose' else 1 - share}").mean()
                        for share in SHARES]) for kind in ("prose", "code")}
for share, x, y in zip(SHARES, *exam.values(), strict=True):
    print(f"{share:.0%} code: {x:.2f} on prose, {y:.2f} on code")

# %%
left, right = panels(2, "A mixture of two texts, d_model 16", height=3.8)
for kind in exam:
    left.plot(SHARES, exam[kind], "o-", label=f"held-out {kind}")
right.plot(exam["prose"], exam["code"], "o-", color="C2")
for share, x, y in zip(SHARES, *exam.values(), strict=True):
    right.annotate(f" {share:.0%}", (x, y), va="bottom")
right.set_xlim(None, exam["prose"].max() + 0.1)
label(left, "share of code", "loss / nats per token", "two exams")
label(right, "loss on prose / nats per token", "loss on code / nats per token",
      "what can be had (beside it: share of code)", "y")
gain, price = (exam[kind][i] - exam[kind][j] for kind, i, j in (("code", 0, 1), ("prose", 1, 0)))
print(f"the first quarter of code gains {gain:.2f} on code and costs {price:.2f} on prose")
print("prose alone, examined on code:", {
    f"{D:,}": f"{losses(16, 'code:mix=1.0', D).mean():.2f}" for D in (FIRST, 2 * FIRST, LAST)})

# %% [markdown]
# **Reading.** Who reads prose alone gets *worse* at code with every doubling (last printed line):
# surer of what comes after each letter, while in code something else comes. Both ends of the
# left panel are bad bargains: the first quarter of code gains far more on code than it costs on
# prose, and at the other end it is the other way round. The right panel shows the choice: any
# mixture on the bent line can be had. Which one is best depends on what each exam is worth to you.
# So a text has no "quality" as such, only one for an exam.
#
# ### The data lever on one axis (K16)
#
# **The claim:** "Scaling is compute, quality data and better compression." Here is the part about
# data (chapters 11 to 13 treat compression, chapter 15 puts all of it together). *The experiment:*
# the same model, `d_model` 32, and the same training FLOPs; only the text differs. Beside it the
# compute lever: half the tokens.

# %%
base = losses(32, "prose").mean()
axis = {"half the tokens (compute)": losses(32, "prose", LAST // 2).mean() - base}
axis |= {f"{rate:.0%} noise": cost["noise", rate].mean() - base for rate in RATES}
axis |= {f"{rate:.0%} one passage": cost["duplicate", rate].mean() - base for rate in RATES}
axis |= {"32 kB, 16 times": losses(32, POOLS[1]).mean() - base,
         "8 kB, 64 times": losses(32, POOLS[0]).mean() - base}
for name, nats in sorted(axis.items(), key=lambda pair: -pair[1]):
    print(f"{name:>26}: {nats:+.2f} nats per token")

# %% tags=["verdict"]
halved, noise_30, repeats_16 = (axis[name] for name in (
    "half the tokens (compute)", "30% noise", "32 kB, 16 times"))
matters = {bool(cost > halved / 2) for cost in (noise_30, repeats_16)}
verdict("K16", holds=None if len(matters) == 2 else matters.pop(),
        measured=f"at equal FLOPs 30 % noise costs {noise_30:.2f} nats per token, half the tokens "
        f"{halved:.2f}: this defect of the data weighs as much as a factor of compute. But 16 "
        f"epochs of 32 kB cost {repeats_16:.2f}. It depends on the defect, the model's size and "
        f"the budget. Chapters 13 and 15 add compression", halved_tokens=halved,
        noise_30=noise_30, repeats_16=repeats_16)

# %% [markdown]
# ## 6 · A language whose entropy is known
#
# $L = E + A/N^\alpha + B/D^\beta$. In chapter 08 the fit gave an $E$, "what is left with endless
# $N$ and $D$". Is it true? For prose nobody knows. So we make a language for which we do know.
#
# It has 64 symbols. The next one, $c$, depends on the last two, $a$ and $b$, by a fixed table
# $p(c \mid a, b)$ drawn once (`corpora.grammar`). The scores in the table are sums over 64
# directions of falling weight: a few large regularities, and a long tail of ever smaller ones.
# Chapter 02 showed that such a tail makes power laws.
#
# The best predictor there can be knows the table. Its loss is the **entropy rate**:
#
# $$H = -\sum_{a,b} \pi(a,b) \sum_c p(c \mid a,b) \log p(c \mid a,b), \qquad
# \pi(b,c) = \sum_a \pi(a,b)\, p(c \mid a,b)$$
#
# In words: the mean surprise at the next symbol, for each pair that may come before, weighted by
# $\pi$, the share of the time that the pair is there. $\pi$ stays as it is when the text moves on
# by one symbol. So start with any shares, move on again and again, and stop when nothing changes.

# %% tags=["essential"]
def entropy_rate(p):
    time_share = np.full(p.shape[:2], 1 / p.shape[0] ** 2)
    for _ in range(1000):
        after = np.einsum("ab,abc->bc", time_share, p)  # one symbol on, (a, b) has become (b, c)
        done, time_share = np.abs(after - time_share).sum() < 1e-13, after
        if done:
            break
    nats = -(p * np.log(p)).sum(axis=2)  # of the next symbol after each pair
    return float((time_share * nats).sum()), time_share

# %% tags=["check"]
tiny = corpora.grammar(seed=1, n=6)
step = np.zeros((6, 6, 6, 6))  # from the pair (a, b) to the pair (b, c)
for b in range(6):
    step[:, b, b] = tiny[:, b]
values, vectors = np.linalg.eig(step.reshape(36, 36).T)
steady = vectors[:, values.real.argmax()].real.reshape(6, 6)
assert np.isclose(values.real.max(), 1)
assert np.allclose(entropy_rate(tiny)[1], steady / steady.sum())
print("entropy_rate: its shares of the time are the eigenvector with eigenvalue 1")

# %%
p = corpora.grammar()
entropy, pi = entropy_rate(p)
pairs_of = np.einsum("ab,abc->bc", pi, p)  # (b, c): share of each pair of neighbours
single = pairs_of.sum(axis=0)
one_back = -(pairs_of * np.log(pairs_of / pairs_of.sum(axis=1, keepdims=True))).sum()
print(f"entropy rate H = {entropy:.4f} nats; knowing one symbol back {one_back:.4f}, none "
      f"{-(single * np.log(single)).sum():.4f}, nothing at all {np.log(len(p)):.4f}")

# %%
_, text = corpora.load("language")
windows = data.windows(text, 1000, 128).astype(int)  # those that the recorded runs are judged on
nats = -np.log(p[windows[:, :-2], windows[:, 1:-1], windows[:, 2:]])
error = nats.std() / nats.size**0.5
print(f"the table's own loss on the held-out text: {nats.mean():.3f} ± {error:.3f}")
print(f"a window's first guess sees one symbol: the floor is {(one_back - entropy) / 128:.4f} "
      "higher")

# %% [markdown]
# The formula and the text agree. Now the test: GPTs of one layer, six widths, six token counts, two
# seeds, trained on the language. The fit sees their losses, not $H$. (Two symbols back is all there
# is to see, so one layer of attention is enough.)

# %%
language = data.table("sweeps/language.csv")
used = language[language.D >= FIRST_LANGUAGE]
trunks = used.groupby(["d_model", "seed"]).ngroup().to_numpy()
law = fits.fit_parametric(used.N, used.D, used.loss, DELTA)
boot = fits.bootstrap_parametric(used.N, used.D, used.loss, N_RESAMPLES, 0, DELTA, groups=trunks)
assert abs(law.E / entropy - 1) < 0.03
print(f"fitted E = {interval(law.E, *boot.interval('E'))}, true H = {entropy:.3f}: "
      f"{100 * (law.E / entropy - 1):+.1f} %")
print(f"best run: {used.loss.min():.3f}, {100 * (used.loss.min() / entropy - 1):.1f} % above H")

# %%
left, right = panels(2, "A language of known entropy", height=3.8)
for color, (d_model, rows) in enumerate(language.groupby("d_model")):
    mean = rows.groupby("D").loss.mean() - entropy
    left.plot(mean.index, mean, "o", color=f"C{color}", ms=4, label=f"d_model {d_model}")
    D = np.geomspace(FIRST_LANGUAGE, language.D.max())
    left.plot(D, law.predict(rows.N.iloc[0], D) - entropy, color=f"C{color}", lw=1)
right.hist(boot.E, bins=30, color="C0")
right.axvline(entropy, color="k", label=f"true H = {entropy:.3f}")
right.axvline(used.loss.min(), color="C1", ls="--", label="best run")
label(right, "fitted E / nats per symbol", "resamples",
      f"E = {interval(law.E, *boot.interval('E'))}")
label(left, "D / symbols", "loss − H / nats per symbol", "excess over the true entropy", "xy")
print(f"α = {interval(law.alpha, *boot.interval('alpha'), 2)}, "
      f"β = {interval(law.beta, *boot.interval('beta'), 2)}")

# %% [markdown]
# **Reading.** The fitted floor lies closer to the true entropy than the best run does: the law has
# seen past its data. Left, the steep part at the fewest tokens is where the models find out that
# the symbol *before* the last one matters too; some seeds find it later than others. No power law
# describes a discovery, so those token counts are not fitted.
#
# The exponents are far larger than those of prose. They belong to the tail of this table, not to
# language as such.
#
# How far can one trust such an $E$? Take away the best runs, and fit again.

# %%
for widest, longest in SUBSETS:
    few = used[(used.d_model <= widest) & (used.D <= longest)]
    E = fits.fit_parametric(few.N, few.D, few.loss, DELTA).E
    best = few.loss.min() / entropy - 1
    print(f"d_model up to {widest}, {longest:>9,} symbols: best run {100 * best:.1f} % above H, "
          f"E {100 * (E / entropy - 1):+.1f} %")

# %% [markdown]
# The error of $E$ stays small in all rows, smaller than the distance of the best run among them.
# That is no licence for prose. Nobody knows its floor, nor whether it follows this law all the way
# down.
#
# ## Exercises
#
# Write the functions, run the cell, then the checks below. `hint("10.1")` gives a hint, called
# again a second one; `solution("10.1")` shows ours.

# %% tags=["exercise"]
def most_from_a_gigabyte():
    """You own 1 GB of text, and R* is the published 15.388. What is the most fresh text, in GB,
    that it is worth, however often you read it?
    """
    return NotImplemented


def next_epoch(unique, epochs, R_star):
    """Fresh tokens that one more epoch adds after `epochs` ≥ 1 of them: D' after, less before."""
    return NotImplemented


def noise_kept(score, is_noise, keep):
    """Share of noise (0 … 1) among the `keep` share of passages with the least surprise.

    score (n,) nats per byte; is_noise (n,) bool; round(keep · n) passages are kept.
    """
    return NotImplemented

# %% tags=["exercise"]
def entropy_of_chain(p):
    """Entropy rate in **bits** per symbol of p(next | last): (n, n), all > 0, rows sum to 1."""
    return NotImplemented


def floor_from_doublings(first, second, third):
    """E from the losses at D, 2D and 4D, if L = E + B/D^β exactly. Derive it: β and B drop out."""
    return NotImplemented

# %% tags=["exercise-check"]
check("10.1", most_from_a_gigabyte)
check("10.2", next_epoch)
check("10.3", noise_kept)
check("10.4", entropy_of_chain)
check("10.5", floor_from_doublings)
# hint("10.1")
# solution("10.1")
# the same for "10.2" to "10.5"

# %% [markdown]
# ## Play: how often may I read it?
#
# You have so many different tokens and read them so often. The line is what the law makes of the
# fresh line for your $R^*$; the points are recorded runs. First choose a size and 8 kB, and look
# for the $R^*$ that follows the points as long as possible. Then try the same $R^*$ with another
# size.

# %% tags=["widget"]
seen = np.geomspace(FIRST, LAST, 60)
points = {(d, k): runs[(runs.d_model == d) & (runs.data == f"prose:pool=2^{k}") & (runs.D >= FIRST)]
          .groupby("D").loss.mean() for d in SIZES for k in range(13, 19)}


def repeated(d_model, log_unique, R_star):
    unique, found = 2.0**log_unique, points[d_model, log_unique]
    curve = fresh[d_model].predict(effective_tokens(unique, seen, R_star))
    told = effective_tokens(unique, LAST, R_star)
    return picture([series("dash", seen, fresh[d_model].predict(seen), "fresh", 7),
                    series("line", seen, curve, "the law", 0),
                    series("points", found.index, found, "recorded", 1)],
                   "D / tokens", "loss / nats per token", (1e5, 6e5), (1.4, 3.8),
                   f"{unique / 1024:.0f} kB of different text", log="x",
                   text=f"{LAST / unique:.0f} epochs of {unique / 1024:.0f} kB are worth "
                        f"{told / unique:.1f} fresh passes: loss {curve[-1]:.2f}")


explore(repeated, d_model=Dropdown(options=[(str(d), d) for d in SIZES], value=64,
                                   description="d_model"),
        log_unique=IntSlider(13, 13, 18, description="log₂ of different tokens"),
        R_star=FloatLogSlider(15, base=10, min=0, max=3, step=0.05, description="R*"))

# %% [markdown]
# ## Recap
#
# - Give each text the same unit: the fresh tokens that would do as much.
# - Repeats cost little for small models, more for large ones; past some number of epochs a large
#   model gets worse, and no law of effective data says so (K15).
# - Noise costs more than its share; copies cost little while they are few.
# - A filter buys quality with quantity. Which one is short depends on the budget.
# - For a language of known entropy the fitted $E$ is right within the printed error.
#
# **Limits.** Models of at most 100,000 parameters, half a million tokens, one kind of noise that is
# easy to see, learning rates by a rule and not tuned for each text. The seeds scatter; differences
# of about the printed noise mean nothing. The held-out text is clean prose: another exam, another
# best text.
#
# **Read next.** Muennighoff et al. 2023, *Scaling data-constrained language models*
# (arXiv:2305.16264); Sorscher et al. 2022, *Beyond neural scaling laws* (arXiv:2206.14486);
# Shannon 1948, section 7, for the entropy of a language with a finite memory.
#
# Next: **11 · Pruning**, where the model gets smaller instead of the text better.
