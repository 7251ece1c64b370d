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
# # 11 · Pruning
#
# A trained model has many weights close to zero. **How many can go before the model gets worse,
# what do you save (bytes, time, or neither), and would a smaller model have been better?**
#
# After this notebook you can
#
# 1. prune by magnitude, and predict how fast the loss rises from one number per mask;
# 2. tell a smaller *count* from a smaller *file* and a *faster* model, and measure all three;
# 3. hold a pruned model against the dense model that costs the same, and say who wins.
#
# Runs in about 1 minute on a CPU. A GPU changes nothing here. Before this: chapter 06; chapter 08
# for the last section.
#
# ## Symbols
#
# | symbol | code | meaning | unit |
# |---|---|---|---|
# | $w$ | `w`, `weights` | a matrix, and the block matrices of the model by name | – |
# | $d$ | `density` | share of the block weights that stay | – |
# | $s$ | `sparsity` | share that goes: $s = 1 - d$ | – |
# | $b$ | `mask` | 1 (true) where a weight stays, else 0 | – |
# | $n{:}m$ | `n`, `m` | of every $m$ neighbours in a row, $n$ stay | – |
# | $e$ | `energy` | share of $\sum w^2$ that the mask removes | – |
# | $L$ | `loss` | held-out loss | nats/token |
# | $\Delta L$ | `rise` | $L$ after pruning minus $L$ before | nats/token |
# | $k$ | `curvature` | $\Delta L$ per unit of $e$ | nats/token |
# | $H_{ii}$ | – | second derivative of the loss by weight $w_i$ | nats/token |
# | $p$ | `exponent` | power in a law of the rise, or of the tuned loss | – |
# | $a$, $c$ | `scale`, `offset` | factor and floor of the law of the tuned loss | nats/token |
# | $C$ | `C` | training FLOPs, fine-tuning included | FLOP |

# %% tags=["imports"]
import copy
import tempfile
from pathlib import Path

import numpy as np
import torch
from ipywidgets import Dropdown, SelectionSlider
from safetensors import torch as safetensors
from scipy import sparse
from torch import nn
from torch.nn.utils import prune as torch_prune

from helpers import corpora, data, plots, runtime, widgets
from helpers.compress import prune
from helpers.compress.prune import apply_mask, index_type, matrices, random_mask
from helpers.exercises import check, hint, solution
from helpers.fits import fit_power_law, fit_power_law_offset
from helpers.transformer import checkpoints, training
from helpers.transformer.models import generate

# %% tags=["config"]
rng = runtime.setup(seed=0)
N_WINDOWS, SEQ = 48, 128  # the live examination: held-out windows and their length in tokens
FIT_LOW, FIT_HIGH = 0.15, 0.4  # sparsities on which the law of magnitude pruning is fitted
LIVE = (0.2, 0.5)  # sparsities that are measured here; the others are recorded
SWAPPED = (0.5, 0.3, 0.2)  # densities at which one matrix of the global mask is exchanged
RECORDED, TIMED = "sweeps/pruning.csv", "sweeps/latency_pruning.csv"
TUNE = training.TrainConfig(lr=7e-4, n_steps=16, batch_size=8, warmup_steps=2, seed=1)
HELD_OUT_DENSITY = 0.05  # the density law is fitted without it and must foretell it

# %% [markdown]
# ## The model and its examination
#
# The model is the course's GPT: four blocks of width 128, trained on a few million tokens of prose.
# The examination is held-out text: whole documents that it never saw. What is measured *here* is
# computed in float64 on a few windows, so that every machine prints the same digits. The larger
# tables are *recorded*: `make record TABLE=pruning` made them with the functions of this notebook,
# on more windows. So a live loss and a recorded loss of the same model differ a little; compare
# within one examination.
#
# Only the matrices inside the blocks are pruned. The embedding stays: it is also the output head,
# and each token needs its row.
#
# **The rule of this part.** A compressed model is compared with a smaller dense model that costs
# the same. So dense *rivals* were trained on the same text: four blocks of width 96, 64 or 48. Each
# had as many training FLOPs as the course's model *and* its later fine-tuning together. A rival is
# small from the start, so these FLOPs buy it more steps.

# %%
model, merges = checkpoints.load_tokenised(data.path("models/gpt_prose.safetensors"))
train_tokens, held_out, tokens_per_byte = corpora.tokenised(merges)
windows = data.windows(held_out, N_WINDOWS, SEQ)
model = model.double()
weights = matrices(model)
n_weights = sum(w.numel() for w in weights.values())
print(f"{len(weights)} matrices hold {n_weights:,} of the model's "
      f"{(n_all := sum(p.numel() for p in model.parameters())):,} weights "
      f"({n_weights / n_all:.1%})")
live_base = training.evaluate(model, windows)
print(f"dense model: {live_base:.3f} nats/token, "
      f"{data.bits_per_byte(live_base, tokens_per_byte):.3f} bits per byte; "
      f"knowing nothing: ln 1024 = {np.log(1024):.3f}")

# %% [markdown]
# ## Predict first
#
# You delete 20 % of these weights, the smallest ones. The loss rises by some small amount. Now
# you delete 40 % instead. **By what factor is the rise larger: about 2, 4, 8, or more?** And if the
# weights are drawn at random, not by size, first 4 % and then 8 %?
#
# Write the two factors down before you go on.
#
# ## Which weights go
#
# The rule is short: a small weight matters little. So sort the weights by $|w|$ and keep the
# largest share $d$:
#
# $$b_i = \big[\,|w_i| \text{ is among the } \operatorname{round}(d\,N) \text{ largest}\,\big].$$
#
# The bracket is 1 if true, else 0; $N$ is the number of weights.
#
# Among the largest *of what*? **Global**: of all matrices together. A matrix of small weights can
# then lose nearly everything. **Per layer**: of each matrix by itself, so each keeps the share
# $d$. The two functions differ only in what they sort together.


# %% tags=["essential"]
def magnitude_mask(weights, density):
    if not 0 <= density <= 1:
        raise ValueError(f"density={density}: expected 0 … 1")
    sizes = torch.cat([w.abs().flatten() for w in weights.values()])
    order = sizes.argsort(descending=True, stable=True)
    keep = torch.zeros(len(sizes), dtype=torch.bool)
    keep[order[:round(density * len(sizes))]] = True
    parts = zip(weights, keep.split([w.numel() for w in weights.values()]), strict=True)
    return {name: part.view(weights[name].shape) for name, part in parts}


def layer_mask(weights, density):
    return {name: magnitude_mask({name: w}, density)[name] for name, w in weights.items()}


# %% tags=["check"]
layers = {name: nn.Linear(w.shape[1], w.shape[0]) for name, w in list(weights.items())[:4]}
for name, layer in layers.items():
    layer.weight = nn.Parameter(weights[name].clone())
ours = magnitude_mask({name: weights[name] for name in layers}, density=0.3)
torch_prune.global_unstructured([(layer, "weight") for layer in layers.values()],
                                torch_prune.L1Unstructured, amount=0.7)
assert all(torch.equal(layer.weight_mask.bool(), ours[name]) for name, layer in layers.items())
assert all(abs(m.double().mean() - 0.3) < 1e-3 for m in layer_mask(weights, 0.3).values())
print("global: the mask of torch.nn.utils.prune; per layer: the same density in each matrix")

# %% [markdown]
# ## A law, before any measurement
#
# A trained model sits near a minimum. So the first-order effect of a small change is about zero,
# and the second order decides. Removing weight $i$ changes it by $-w_i$:
#
# $$\Delta L \approx \tfrac12 \sum_{i\ \text{removed}} H_{ii}\, w_i^2 \;\approx\; k\, e,
# \qquad e = \frac{\sum_{i\ \text{removed}} w_i^2}{\sum_i w_i^2}.$$
#
# Here $H_{ii}$ is the curvature of the loss along $w_i$. Both steps are assumptions. The first
# leaves out the terms of *pairs* of weights, as if they cancelled. The second says that the
# curvature has nothing to do with the size of the weight. Then one number per mask, the removed
# energy $e$, gives the rise.
#
# Now the sparsity. A **random** mask removes the share $s$ of everything, so $e = s$. A
# **magnitude** mask removes all $|w| < t$. If weights near zero are spread evenly, then
# $s \propto t$ and $\sum w^2 \propto \int_0^t w^2\,dw \propto t^3$. So
#
# $$\Delta L \propto s \ \text{(random)}, \qquad \Delta L \propto s^3 \ \text{(magnitude)}.$$
#
# Twice the sparsity: a factor 2 and a factor 8. That is the answer to the question above, *if*
# the assumptions hold. We measure next.


# %% tags=["essential"]
def removed_energy(weights, mask):
    removed = sum((w[~mask[name]] ** 2).sum() for name, w in weights.items())
    return float(removed / sum((w**2).sum() for w in weights.values()))


# %% tags=["check"]
even = {"w": torch.linspace(-1, 1, 100_001, dtype=torch.float64)}  # spread evenly: exactly s³
for sparsity in (0.1, 0.4, 0.8):
    by_size = removed_energy(even, magnitude_mask(even, 1 - sparsity))
    by_chance = removed_energy(even, random_mask(even, 1 - sparsity, rng))
    assert abs(by_size / sparsity**3 - 1) < 1e-3
    assert abs(by_chance / sparsity - 1) < 0.03
print("evenly spread weights: magnitude removes s³ of the energy, random removes s")

# %% [markdown]
# ## The whole curve
#
# Mask a copy of the model, take the examination; no weight is trained. First a few points here,
# then the recorded curves. For the random control, each recorded point is the mean of three draws.
# A rival of width $v$ has $(v / 128)^2$ of the block weights: that is its density, with no zeros.


# %%
def loss_without(mask):
    student = copy.deepcopy(model)
    apply_mask(student, mask)
    return training.evaluate(student, windows)


for s in LIVE:
    print(f"sparsity {s}: global {loss_without(magnitude_mask(weights, 1 - s)):.3f}, "
          f"per layer {loss_without(layer_mask(weights, 1 - s)):.3f}, "
          f"random {loss_without(random_mask(weights, 1 - s, rng)):.2f}")

# %%
runs = data.table(RECORDED).fillna({"detail": ""})
here = runs[runs.d_model == 128]
untuned, tuned = here[here.scheme == "untuned"], here[here.scheme != "untuned"]
base = untuned.loc[untuned.method == "dense", "loss"].item()
LABEL = {"global": "global", "layer": "per layer", "random": "random"}
curve = {name: untuned[untuned.method == method].groupby("density").loss.mean()
         .sort_index(ascending=False) for method, name in LABEL.items()}
print(f"recorded, dense: {base:.3f}")
for d in (0.8, 0.7, 0.5, 0.3, 0.1):
    print(f"density {d}: " + ", ".join(f"{name} {one[d]:.3f}" for name, one in curve.items()))
large = runs[(runs.d_model == 320) & (runs.scheme == "untuned")].set_index(["method", "density"])
wide = large.loss["layer"] - large.loss["dense", 1.0].item()
for d in (0.5, 0.3):
    print(f"rise, per layer, density {d}: width 320 {wide[d]:.3f}, "
          f"width 128 {curve['per layer'][d] - base:.3f}")
files = data.table("sweeps/quantization.csv")  # chapter 12's table has the dense models' files
files = files[(files.n_windows == 500) & (files.d_model <= 128)]
family = files[files.method == "dense"]
rivals = family[abs(family.C / tuned.C.max() - 1) < 0.01].set_index("d_model").sort_index()
rivals["density"] = (rivals.index / 128) ** 2
print("dense rivals: " + ", ".join(f"density {one.density:.2f} loss {one.loss:.3f}"
                                   for one in rivals.itertuples() if one.density < 1))

# %%
(ax,) = plots.panels(title="Loss against density, no fine-tuning")
for (name, one), style in zip(curve.items(), ("o-", "s-", "^-"), strict=True):
    ax.plot(np.r_[1, one.index], np.r_[base, one], style, label=name, markersize=4)
ax.plot(rivals.density, rivals.loss, "kD", markersize=5, label="dense rivals")
ax.axhline(np.log(1024), color="black", linestyle=":", label="knowing nothing: ln 1024")
plots.label(ax, "density: share of block weights that stay", "held-out loss (nats/token)")

# %% [markdown]
# *Reading.* From right to left weights disappear. First comes a **plateau**: the curve is nearly
# flat although every fifth weight is gone. Then it bends, and then it **collapses**. The random
# control has no plateau: it rises from the smallest cut on. So the plateau is not a gift of the
# model alone. It comes from choosing the small weights.
#
# At the left end a broken model can be *worse* than knowing nothing. It then gives the right token,
# on a geometric average, less than one chance in 1024.
#
# The diamonds are the rivals with as many block weights; the one at density 1 is the course's model
# with the extra steps. All lie below all three curves. But nothing here was trained after the cut.
# Fine-tuning comes later, and then the comparison is fair.
#
# Two printed lines are about a larger model, of width 320 and six blocks, trained on half as many
# tokens. At both densities it loses far less. Width, depth and tokens all differ, so we cannot say
# which of them helps.
#
# ## Does the law hold?
#
# Near the dense model we fit $\Delta L \propto s^p$: the random control on small sparsities, the
# two magnitude masks on the range from the config cell. Theory says $p = 1$ and $p = 3$.
# `fit_power_law` fits a *fall* $x^{-p}$, so it is given $x = 1/s$. With the curvature $k$ of the
# *random* masks the theory also says where the *magnitude* curve must lie, without a fit.

# %%
near = {}  # name: sparsities, removed energies, rises of the loss
for name, mask_of in (("global", magnitude_mask), ("per layer", layer_mask)):
    part = curve[name][(curve[name].index >= 1 - FIT_HIGH) & (curve[name].index <= 1 - FIT_LOW)]
    e = np.array([removed_energy(weights, mask_of(weights, d)) for d in part.index])
    near[name] = 1 - part.index.to_numpy(), e, part.to_numpy() - base
part = curve["random"][curve["random"].index > 0.91]
near["random"] = 1 - part.index.to_numpy(), 1 - part.index.to_numpy(), part.to_numpy() - base
laws = {name: fit_power_law(1 / s, rise) for name, (s, _, rise) in near.items()}
power = {name: f"{name}: p = {plots.interval(law.exponent, law.low, law.high, 2)}"
         for name, law in laws.items()}
for name, law in laws.items():
    print(f"{power[name]}, theory {1 if name == 'random' else 3}, R² {law.r2:.3f}")
s, e, rise = near["random"]
curvature = (rise / e).mean()
print(f"random masks: k = {curvature:.3g} nats/token for all of the energy; "
      f"from 4 % to 8 % the rise grows by a factor of {rise[-1] / rise[-2]:.1f}")
for name in ("global", "per layer"):
    s, e, rise = near[name]
    ratio, (low, high) = rise / (curvature * e), (np.argmin(abs(s - x)) for x in (0.2, 0.4))
    print(f"{name}: measured / predicted rise {ratio.min():.2f} … {ratio.max():.2f}; from 20 % "
          f"to 40 % the\n  rise grows by a factor of {rise[high] / rise[low]:.1f}, the removed "
          f"energy by {e[high] / e[low]:.1f}")

# %%
left, right = plots.panels(2, "Near the dense model: two laws in sparsity, one in energy")
for name, (s, e, rise) in near.items():
    left.plot(s, rise, "o", markersize=4, label=power[name])
    left.plot(s, laws[name].predict(1 / s), color=left.lines[-1].get_color())
    right.plot(e, rise, "o", markersize=4, label=name)
right.plot(line := np.geomspace(1e-3, 0.1), curvature * line, "k:", label="k e, k from random")
plots.label(left, "sparsity s", "rise of the loss (nats/token)", log="xy")
plots.label(right, "removed energy e", "rise of the loss (nats/token)", log="xy")

# %% [markdown]
# *Reading.* Left: nearly straight lines, so power laws over these ranges, steep for magnitude and
# flat for random. But theory's 3 and 1 lie just below the three intervals. Which step of the theory
# is to blame? The cube only a little: from 20 % to 40 % the energy grows by not much more than 8.
# The rest is $\Delta L = k\,e$. The rise grows faster than the energy, for the random masks too. So
# it would if the next terms of the expansion already counted; that we did not test.
#
# Right: against the removed energy, the magnitude masks lie near the dotted line, which was not
# fitted to them: its height is the mean of the random masks. How near, the ratios above say. So
# magnitude pruning needs no special knowledge of the network. It removes many weights and little
# energy.
#
# *Against the literature.* Rosenfeld et al. (2021) describe the error of pruned networks by a law
# in density with a transition between two plateaus. Our curve has the first plateau and the
# transition. Nothing was retrained here, so its far end is not the second plateau but collapse.
#
# ## What breaks first
#
# By the law only the energy counts. Then a matrix cut alone would cost what its energy says. Each
# of the 16 matrices was cut alone, to a density of 10 %. (`blocks.0` is the first block.)

# %%
alone = untuned[(untuned.method == "one matrix") & (untuned.density == 0.1)]
alone = alone.set_index("detail").loss.sort_values(ascending=False) - base
mask = layer_mask(weights, 0.1)
share = {n: float((weights[n][~mask[n]] ** 2).sum() / sum((w**2).sum() for w in weights.values()))
         for n in weights}
cost = {n: alone[n] / share[n] for n in alone.index}
for name in (*alone.index[:3], *alone.index[-2:]):
    print(f"{name:24} rise {alone[name]:.3f} nats/token, {cost[name]:5.1f} per unit of energy")
print(f"rise per unit of energy: {max(cost.values()) / min(cost.values()):.0f} times between the "
      "extremes")
dear = max(cost, key=cost.get)
print(f"dearest per unit of energy: {dear}; live losses:")
for d in SWAPPED:
    by_size, by_layer = magnitude_mask(weights, d), layer_mask(weights, d)
    swapped = {**by_size, dear: by_layer[dear]}
    print(f"density {d}: global, which keeps {by_size[dear].double().mean():.2f} of it, "
          f"{loss_without(by_size):.3f};\n  the same with it per layer "
          f"{loss_without(swapped):.3f}; per layer everywhere {loss_without(by_layer):.3f}")

# %%
(ax,) = plots.panels(title="Each matrix cut alone to density 0.10")
for part, style in (("attn.qkv", "o"), ("attn.out", "s"), ("up", "^"), ("down", "D")):
    names = [f"blocks.{i}.{part}.weight" for i in range(4)]
    ax.plot(range(4), [alone[n] for n in names], style + "-", markersize=5, label=part)
ax.set_xticks(range(4))
plots.label(ax, "number of the block, from 0", "rise of the loss (nats/token)", log="y")

# %% [markdown]
# *Reading.* The axis is logarithmic. The qkv matrix of the first block costs far more than any
# other, its out matrix comes second, and each of the rest less than a tenth of the first. The
# energy does not explain it: per unit of energy the matrices differ by the factor printed above.
# So curvature is *not* the same everywhere, and $\Delta L = k\,e$ with one $k$ cannot hold for each
# matrix by itself. The masks above mixed all matrices, and cut less deep.
#
# The global mask removes the least energy of all masks of its density. By the law it should win.
# The curves say that per layer is better, clearly so from a sparsity of 0.5 on. The last lines test
# a cause. The matrix that is dearest per unit of energy has small weights, so the global mask keeps
# less of it than of the rest. Give this one matrix its per-layer mask, and leave the global mask
# elsewhere. The loss falls to about that of per layer: at these densities one matrix of 16 explains
# nearly all of the difference.
#
# ## A pattern that hardware likes: N of every M
#
# Free choice makes an irregular pattern, which hardware cannot use well. Some accelerators skip
# zeros if they come in a fixed pattern: of every 4 neighbours in a row, 2 are zero (2:4). The rule
# per group is the old one: keep the $n$ largest of each $m$.


# %% tags=["essential"]
def nm_mask(weights, n, m):
    mask = {}
    for name, w in weights.items():
        if w.shape[1] % m or not 0 <= n <= m:
            raise ValueError(f"{n} of every {m} does not fit rows of {w.shape[1]} weights")
        order = w.abs().reshape(-1, m).argsort(dim=1, descending=True, stable=True)
        keep = torch.zeros(order.shape, dtype=torch.bool)
        mask[name] = keep.scatter_(1, order[:, :n], True).view(w.shape)
    return mask


# %% tags=["check"]
for n, m in ((2, 4), (4, 8), (1, 4)):
    for name, keep in nm_mask(weights, n, m).items():
        assert (keep.view(-1, m).sum(1) == n).all(), name
        sizes = np.sort(weights[name].abs().numpy().reshape(-1, m), axis=1)[:, m - n:]
        ours = weights[name].abs()[keep].numpy().reshape(-1, n)
        np.testing.assert_array_equal(np.sort(ours, axis=1), sizes)
print("every group keeps exactly n weights, and they are the n largest (numpy's sort)")

# %%
for detail, d, free in (("2:4", 0.5, 0.5), ("4:8", 0.5, 0.5), ("1:4", 0.25, 0.2)):
    one = untuned[(untuned.method == "N:M") & (untuned.detail == detail)].loss.item()
    print(f"{detail}, density {d}: loss {one:.3f}; per layer, density {free}: "
          f"{curve['per layer'][free]:.3f}")

# %% [markdown]
# *Reading.* The pattern costs. At the same density, free choice within each matrix keeps more
# energy than a choice within each group of 4, and a group of 8 lies between. The gain would be
# time, where hardware has units for it: NVIDIA's, from Ampere on, have twice the peak rate of
# dense products with 2:4 (Mishra et al. 2021). We have no such path on the CPU. And 1:4 is worse
# here than a free choice that keeps even fewer weights. Below, the 2:4
# model is timed as it is: dense matrices with zeros.
#
# ## Fine-tuning: all at once, or in stages?
#
# A pruned model can be trained on, with the mask held fixed: after each step the removed weights
# are set to zero again. `tune` does that. Here only a few steps, to see it work.

# %%
batches = data.TokenBatches(train_tokens, TUNE.batch_size, SEQ, TUNE.seed)
student = copy.deepcopy(model).float()
before = loss_without(layer_mask(weights, 0.3))
prune.tune(student, layer_mask, (0.3,), batches, TUNE)
after = training.evaluate(student, windows)
zeros = sum(int((w == 0).sum()) for w in matrices(student).values()) / n_weights
print(f"density 0.30: loss {before:.1f} before, {after:.1f} after {TUNE.n_steps} steps; "
      f"still {zeros:.2f} zeros")

# %% [markdown]
# The recorded runs take 384 steps, an eighth of the training before them. The textbook advice is to
# prune in *stages* and to train between them: the model repairs a small wound better than a large
# one. But steps cost. So the comparison is at **the same number of steps**, batches and rates:
#
# - *one-shot*: the last density at step 0, then all steps;
# - *stages*: four densities, a quarter of the steps for each;
# - *dense*: no pruning, the same steps. This is the control: training on alone changes the loss.
#
# And how does the tuned loss depend on density? We try $L(d) = c + a\,d^{-p}$ and put it to a test:
# fit it without the lowest density, then foretell that one.

# %%
control = tuned.loc[tuned.method == "dense", "loss"].item()
print(f"dense: {base:.3f}, with the same steps {control:.3f}")
table = tuned[tuned.method.isin(LABEL)].pivot_table(
    index="density", columns=["method", "scheme"], values="loss").sort_index(ascending=False)
for d, row in table.iterrows():
    print(f"density {d:4}: " + ", ".join(f"{LABEL[m]} {how} {x:.3f}"
                                         for (m, how), x in row.dropna().items()))
for _, row in tuned[tuned.method == "N:M"].iterrows():
    print(f"{row.detail}, density {row.density}: {row.loss:.3f}")

# %%
points = table["layer", "one-shot"].dropna()
d, y = np.r_[1, points.index], np.r_[control, points]
law = fit_power_law_offset(d, y)
print(f"L(d) = {law.offset:.3f} + {law.scale:.4f} d^−p, p = "
      f"{plots.interval(law.exponent, law.low, law.high, 2)}, R² {law.r2:.3f}")
early = fit_power_law_offset(d[d > HELD_OUT_DENSITY], y[d > HELD_OUT_DENSITY])
print(f"fitted without density {HELD_OUT_DENSITY}: p = "
      f"{plots.interval(early.exponent, early.low, early.high, 2)}; it foretells "
      f"{float(early.predict(HELD_OUT_DENSITY)):.2f}, measured "
      f"{y[d == HELD_OUT_DENSITY][0]:.2f}")

# %%
(ax,) = plots.panels(title="After 384 steps of fine-tuning", height=5)
x = np.geomspace(0.05, 1)
ax.plot(x, early.predict(x), "k--", linewidth=1, label=f"fitted without {HELD_OUT_DENSITY}")
p = plots.interval(law.exponent, law.low, law.high, 2)
ax.plot(x, law.predict(x), color=plots.COLORS[7], label=f"c + a d^−p, p = {p}")
for (m, how), style in zip(table.columns, ("o", "v", "s", "p", "^", "x"), strict=False):
    ax.plot(table[m, how].dropna(), style, markersize=5, label=f"{LABEL[m]}, {how}")
ax.plot([1], [control], "k*", label="dense control")
ax.plot(rivals.density, rivals.loss, "kD", markersize=4, label="dense rivals")
ax.plot(curve["per layer"], "k:", label="per layer, untuned")
ax.set_ylim(control - 0.2, 8)
plots.label(ax, "density", "held-out loss (nats/token)", log="x")

# %% [markdown]
# *Reading.* The dotted curve is where the per-layer models started; fine-tuning takes back most of
# the rise. The diamonds, dense rivals of the same total FLOPs, lie well below the pruned models of
# like density.
#
# At the same number of steps, one-shot beats stages wherever both were run. Stages spend three
# quarters of the steps on densities that they then leave. After the last and deepest cut, only a
# quarter is left. Its learning rates are also the lowest: over the second half of the steps the
# schedule lets the rate fall to zero. We did not separate the two. If each stage had the full
# number of steps, stages would cost four times as much.
#
# A pattern still costs more than free choice at the same density, but far less than before tuning.
#
# The power law with a floor does **not** stand the test. Fitted down to density 0.1 it foretells
# a far higher loss at 0.05 than was measured (dashed). With all points (grey) its interval is so
# wide that it says little. The points bend the other way at the low end: as in the second half of
# Rosenfeld's transition. (Frantar et al. 2023 also put a power of the density plus a constant into
# their law, but for models that are sparse from the start.) Here the law describes the upper part
# at best, and ends above density 0.05.
#
# ## Bytes: a zero is not free
#
# The masked model has fewer weights. Does the file know? `save` makes the bytes that the file on
# disk will hold.

# %%
dense = copy.deepcopy(model).float()
masked = copy.deepcopy(dense)
apply_mask(masked, layer_mask(weights, 0.5))
full_file, masked_file = (len(safetensors.save(m.state_dict())) for m in (dense, masked))
print(f"dense {full_file:,} bytes, half of it zeros {masked_file:,} bytes")

# %% [markdown]
# A zero in a float32 array takes four bytes, like any number. To save bytes we must leave the
# zeros out, and then write down *where* the others stood. **Compressed sparse rows** (CSR) does it
# with three arrays: the values; the column of each value; and for each row, where it starts.
#
# | | column 0 | column 1 | column 2 | column 3 |
# |---|---|---|---|---|
# | row 0 | 0 | 5 | 0 | 7 |
# | row 1 | 0 | 0 | 0 | 9 |
#
# becomes `values = 5 7 9`, `columns = 1 3 3`, `starts = 0 2 3`. Row 0 holds the values from 0 up to
# (not with) 2, row 1 those from 2 up to 3. A value costs four bytes. Its column costs four more as
# int32, or one as uint8 in matrices of up to 256 columns; `down` has 512, so it needs int16.


# %% tags=["essential"]
def to_csr(w, index=torch.int32):
    if w.shape[1] - 1 > torch.iinfo(index).max:
        raise ValueError(f"{w.shape[1]} columns do not fit into {index}")
    rows, columns = w.nonzero(as_tuple=True)
    starts = torch.zeros(len(w) + 1, dtype=torch.int32)
    starts[1:] = torch.bincount(rows, minlength=len(w)).cumsum(0)
    return {"values": w[rows, columns], "columns": columns.to(index), "starts": starts}


def from_csr(packed, n_columns):
    counts = packed["starts"].diff().long()
    rows = torch.repeat_interleave(torch.arange(len(counts)), counts)
    w = packed["values"].new_zeros(len(counts), n_columns)
    w[rows, packed["columns"].long()] = packed["values"]
    return w


# %% tags=["check"]
for name, w in matrices(masked).items():
    packed, reference = to_csr(w, index_type(w.shape[1])), sparse.csr_matrix(w.numpy())
    for ours, theirs in (("values", "data"), ("columns", "indices"), ("starts", "indptr")):
        np.testing.assert_array_equal(packed[ours].numpy(), getattr(reference, theirs))
    assert torch.equal(from_csr(packed, w.shape[1]), w), name
print(f"{len(weights)} matrices: the arrays of scipy.sparse, and back again without a change")

# %%
DENSITIES = np.round(np.arange(0.05, 1.01, 0.05), 2)
csr = {"int32": [], "smallest": []}
for d in DENSITIES:
    mask = layer_mask(weights, d)
    for kind, sizes in csr.items():
        packed = [to_csr(w.float() * mask[n], torch.int32 if kind == "int32" else
                         index_type(w.shape[1])) for n, w in weights.items()]
        sizes.append(sum(part.nbytes for one in packed for part in one.values()) / n_weights / 4)
    if d in (0.9, 0.5, 0.1):
        print(f"density {d}: CSR / dense bytes: int32 {csr['int32'][-1]:.3f}, "
              f"smallest type {csr['smallest'][-1]:.3f}")
with tempfile.TemporaryDirectory() as folder:
    size = prune.save_pruned(masked, file := Path(folder) / "half.safetensors", sparse=True)
    same = all(torch.equal(p, q) for p, q in zip(prune.load_pruned(file).parameters(),
                                                 masked.parameters(), strict=True))
print(f"whole model, half of it as CSR, on disk: {size:,} bytes; read back equal: {same}")

# %%
(ax,) = plots.panels(title="What the block matrices cost")
ax.axhline(1, color="black", label="dense float32, with or without zeros")
for (kind, sizes), style in zip(csr.items(), ("-", "--"), strict=True):
    ax.plot(DENSITIES, sizes, style, label=f"CSR, columns as {kind}"
            + (" type that fits" if kind == "smallest" else ""))
ax.set_xlim(0, 1)
plots.label(ax, "density: share of block weights that stay", "bytes / dense bytes")

# %% [markdown]
# *Reading.* At high density CSR is *larger* than the dense matrices. The lines are straight: bytes
# per kept weight times density, and a little for the row starts. Where a curve crosses the black
# line is the subject of exercise 11.1. The figure counts block matrices. A file also holds the
# embedding, which does not shrink with density. (Recorded files are a few kB larger than the one
# above: their headers also hold the merges of the tokeniser.)
#
# ## Structured pruning: matrices that really shrink
#
# Remove whole **channels** of the MLP instead of single weights. Channel $j$ is row $j$ of `up`
# together with column $j$ of `down`. Without it both matrices are smaller, and stay dense:
#
# $$\text{down}\cdot\operatorname{gelu}(\text{up}\cdot x) = \sum_j \text{down}_{:,j}\,
# \operatorname{gelu}(\text{up}_{j,:}\cdot x).$$
#
# The sum only loses terms. We drop those with the smallest $\|\text{up}_{j,:}\|\cdot
# \|\text{down}_{:,j}\|$: what a channel hears, times what it says. Attention is a sum too, over
# **heads**: each reads values $V_h x$ and writes $O_h V_h x$ into the stream. The score of a head
# is $\|O_h V_h\|$, the root of the sum of squares of that matrix product. To remove head $h$, its
# rows of queries, keys and values leave `qkv`, its columns leave `out`.


# %% tags=["essential"]
def channel_scores(block):
    return block.up.weight.detach().norm(dim=1) * block.down.weight.detach().norm(dim=0)


def shrink_mlp(block, keep):
    up, down = block.up.weight.detach()[keep], block.down.weight.detach()[:, keep]
    for layer, w in ((block.up, up), (block.down, down)):
        layer.weight = nn.Parameter(w.clone())
        layer.out_features, layer.in_features = w.shape


def head_scores(attn):
    values = attn.qkv.weight.detach().unflatten(0, (3, attn.n_head, -1))[2]
    out = attn.out.weight.detach().unflatten(1, (attn.n_head, -1))  # (d_model, n_head, d_head)
    return (out.transpose(0, 1) @ values).norm(dim=(1, 2))  # values: (n_head, d_head, d_model)


def shrink_heads(attn, keep):
    if not len(keep):
        raise ValueError("at least one head must stay")
    qkv = attn.qkv.weight.detach().unflatten(0, (3, attn.n_head, -1))[:, keep].flatten(0, 2)
    out = attn.out.weight.detach().unflatten(1, (attn.n_head, -1))[:, keep].flatten(1)
    for layer, w in ((attn.qkv, qkv), (attn.out, out)):
        layer.weight = nn.Parameter(w.clone())
        layer.out_features, layer.in_features = w.shape
    attn.n_head = len(keep)


# %% tags=["check"]
thin, fewer, zeroed, silent = (copy.deepcopy(model) for _ in range(4))  # in float64
for i in range(model.config.n_layer):
    small, large = thin.blocks[i], zeroed.blocks[i]
    keep = channel_scores(large).argsort(descending=True)[:256].sort().values  # half of 512
    shrink_mlp(small, keep)
    large.down.weight.data[:, np.setdiff1d(np.arange(512), keep)] = 0
    small, large = fewer.blocks[i].attn, silent.blocks[i].attn
    heads = head_scores(large).argsort(descending=True)[:4].sort().values  # half of 8
    shrink_heads(small, heads)
    large.out.weight.data.view(128, 8, 16)[:, np.setdiff1d(np.arange(8), heads)] = 0
tokens = torch.from_numpy(windows[:16, :-1])  # (16, 128)
with torch.no_grad():
    torch.testing.assert_close(thin(tokens), zeroed(tokens), rtol=0, atol=1e-5)
    torch.testing.assert_close(fewer(tokens), silent(tokens), rtol=0, atol=1e-5)
story = [generate(m, windows[0, :8], 40, rng, temperature=0) for m in (fewer, silent)]
assert np.array_equal(*story)  # one token at a time, with the cache of keys and values
print("half of the channels, half of the heads: smaller matrices, logits as masked, to 1e-5")

# %% [markdown]
# ## Time
#
# Now the clock. Times differ from machine to machine, so this table is recorded (one core of an
# x86 CPU; `make record TABLE=pruning_latency` measures yours). The models of one width took turns
# (A B C A B C …), so that a disturbance of the machine hits all of them. Two uses: 16 windows of
# 128 tokens at once, and one token after 64 others, with the cache of keys and values.

# %%
timed = data.table(TIMED).set_index(["d_model", "what", "model"])
clock = timed.ratio
NAMES = {"half masked": "half masked", "2:4 masked": "2:4 masked",
         "mlp 0.5 heads 1": "half MLP", "mlp 0.25 heads 1": "quarter MLP",
         "mlp 1 heads 0.5": "half heads", "mlp 0.5 heads 0.5": "half of both"}
print("speed over dense: 16 × 128 tokens at once / one token at a time")
for name, shown in NAMES.items():
    print(f"{shown:12} " + "   ".join(
        f"width {v}: {clock[v, 'batch', name]:.2f} / {clock[v, 'token', name]:.2f}"
        for v in (64, 128, 320)))
print(f"dense of width 32 over dense of width 128: {clock[128, 'batch', 'width 32']:.2f} / "
      f"{clock[128, 'token', 'width 32']:.2f}")
print("one matrix, width 128, CSR kernel over dense: " + ", ".join(
    f"density {d} {clock[128, 'matrix', f'CSR {d}']:.2f}" for d in (0.5, 0.2, 0.1, 0.05)))

# %%
for v, n_layer, vocab, bar in ((64, 4, 1024, 1.2), (64, 4, 256, 1.2), (320, 6, 1024, 1.3)):
    total = 12 * n_layer * v**2 + vocab * v + 2 * n_layer * SEQ * v  # blocks, head, scores
    most = total / (total - 4 * n_layer * v**2)  # half of the MLP's 8 n_layer v² are gone
    what = "batch" if vocab == 1024 else "batch of bytes"
    ratio, low, high = timed.loc[(v, what, "mlp 0.5 heads 1"), ["ratio", "low", "high"]]
    print(f"half MLP, width {v}, vocabulary {vocab:,}: {ratio:.2f} times as fast, {low:.2f} … "
          f"{high:.2f} in the middle\n  80 % of turns; the products alone would give {most:.2f}; "
          f"we asked for {bar}: {'reached' if ratio >= bar else 'missed'}")

# %% [markdown]
# *Reading.* A masked model does every product of the dense one: half of its factors are zero, and
# the CPU multiplies by them. So it takes the same time, and so does 2:4. The thin models are
# faster. For half the MLP we also printed what the products that are gone would give, if products
# took all of the time. The measured gain stays a little below that. The head, a product with the
# whole vocabulary, stays, and so do the attention scores; both weigh more in a narrow model. So
# less can be won at width 64, and there we miss our own bar, by little. With bytes for tokens the
# head is a quarter as large, and the same blocks reach it. At width 320 we pass it.
#
# One token at a time, the thin models of width 64 and 128 gain little. Nor does a much smaller
# *dense* model gain much there, as the row of width 32 shows: so it is not the products that take
# the time. At width 320 they do.
#
# The CSR kernel does fewer products but must look up each column. At density 0.5 it is slower than
# the dense product, at 0.2 faster. Look back at what such a density does to the loss.
#
# ## The rival: a smaller dense model
#
# Now all costs at once. The comparison is at equal bytes, at equal latency, and at equal training
# FLOPs (the course's model plus fine-tuning). All models took the same examination. Between two
# rivals we *interpolate*: a straight line in the logarithm of the cost. "Time" is that of a batch,
# as a share of the dense model's of width 128. The files of masked models are CSR files.

# %%
rivals["bytes_fp16"] = files[(files.method == "fp16") & files.n_steps.isin(rivals.n_steps)
                             ].set_index("d_model").bytes
rivals["time"] = [1 / clock.get((128, "batch", f"width {v}"), 1.0) for v in rivals.index]
for v, row in rivals.iterrows():
    print(f"dense, width {v}: {row.bytes / 1e6:.2f} MB, time {row.time:.2f}, loss {row.loss:.3f}, "
          f"{row.C:.3g} FLOPs")

# %%
one_shot = tuned[tuned.scheme == "one-shot"].sort_values("bytes").copy()
as_masked = clock[128, "batch", "half masked"]  # at any density: a mask skips no product
one_shot["time"] = [1 / clock.get((128, "batch", x), as_masked) for x in one_shot.detail]
pruned, thins, pattern = (one_shot[one_shot.method == m] for m in ("layer", "thin", "N:M"))
start = untuned[untuned.method.isin(("layer", "thin", "N:M"))]
start = start.set_index(["method", "detail", "density"]).loss
for kind, rows in (("per layer", pruned), ("pattern", pattern), ("thin", thins)):
    for _, row in rows.iterrows():
        same, late = (np.interp(np.log(row[x]), np.log(rivals[x]), rivals.loss)
                      for x in ("bytes", "time"))
        what = NAMES.get(row.detail, row.detail or f"density {row.density}")
        print(f"{kind}, {what}: {row.bytes / 1e6:.2f} MB, loss {row.loss:.3f} "
              f"(untuned {start[row.method, row.detail, row.density]:.2f}); "
              f"dense of these bytes {same:.3f}, of its time {late:.3f}")
half = pruned[pruned.density == 0.5].bytes_fp16.item()
same = np.interp(np.log(half), np.log(rivals.bytes_fp16), rivals.loss)
print(f"16-bit values, density 0.5: {half / 1e6:.2f} MB, dense of these bytes {same:.3f}")
extra = tuned.C.max() - untuned.C.max()
print(f"fine-tuning alone: {extra:.3g} FLOPs; dense from scratch:")
for _, row in family[family.C < 3 * extra].iterrows():
    print(f"  width {row.d_model}, {row.C:.3g} FLOPs, {row.bytes / 1e6:.2f} MB: "
          f"loss {row.loss:.3f}")

# %%
axes = plots.panels(3, "Pruned and tuned, against dense models; densities from 0.5 to 0.1")
shown = pruned[pruned.density >= 0.1]
for ax, x, scale in zip(axes, ("bytes", "time", "C"), (1e6, 1, 1e12), strict=True):
    ax.plot(rivals[x] / scale, rivals.loss, "ko-", markersize=4, label="dense, equal total FLOPs")
    ax.plot(shown[x] / scale, shown.loss, "C0s", markersize=4, label="per layer, masked")
    ax.plot(thins[x] / scale, thins.loss, "C1^", markersize=5, label="thin")
shorter = family[family.C < 0.99 * tuned.C.max()]
axes[2].plot(shorter.C / 1e12, shorter.loss, "k.", label="dense, shorter runs")
axes[2].plot(0 * shown.C + extra / 1e12, shown.loss, "C0s", mfc="none", label="fine-tuning alone")
plots.label(axes[0], "file, float32 (MB)", "held-out loss (nats/token)", log="x")
plots.label(axes[1], "time of a batch / dense time", "")
plots.label(axes[2], "training FLOPs (10¹²)", "", log="x")

# %% [markdown]
# *Reading.* The dense rivals win all three comparisons, against masks, patterns and thin models.
# The model of width 64 has less than half the bytes of the one pruned to density 0.5, and a lower
# loss. A masked model takes its full time, so there its rival is the dense model of width 128 or
# nearly so. With values in 16 bits both sides shrink, the CSR files by less, since column numbers
# stay as they are. (We count these bytes; the losses are those in float32.) The thin models were
# fine-tuned at their smaller size, so their total FLOPs lie a little to the left of the rivals'.
#
# But see *which* cost counts. The hollow squares count fine-tuning alone, as if the large model had
# been there for nothing. Pruning to densities of 0.5 and 0.3 then beats even a dense model from
# scratch that had more than twice these FLOPs, though in a larger file. So: prune if the large
# model exists and you cannot pay for a new training. If you can, train the small model. (One text,
# one budget: the model is large for its few million tokens, and at these total FLOPs the dense
# width of 96 is already better than 128.)
#
# The articles promise that compression saves storage, transfer and compute. For pruning: storage
# and transfer, *if* the zeros are left out of the file; compute only if the matrices shrink.
#
# ## Exercises
#
# Replace `return NotImplemented`, run the cell, then run the check. `hint("11.1")` helps once,
# again a second time; `solution("11.1")` shows ours.
#
# 11.1 is read off a figure, 11.2 counts the bytes of another format, 11.3 turns the law round, and
# 11.4 derives what the other weights should do when one goes. Chapter 12 builds on such a step to
# quantise.

# %% tags=["exercise"]
def break_even_density():
    """The density (0 … 1) at which CSR with int32 columns takes as many bytes as dense float32.

    Read the figure "What the block matrices cost", or add up bytes. Two digits are enough.
    """
    return NotImplemented


# %% tags=["exercise-check"]
check("11.1", break_even_density)
# hint("11.1")
# solution("11.1")

# %% tags=["exercise"]
def bitmap_bytes(w):
    """Bytes of w as a bitmap and values: one bit per weight, four bytes per non-zero weight.

    The bit says whether the weight is there. One bitmap holds the bits of the whole array; eight
    bits fill a byte, only the last byte may be part empty. Values count as float32, whatever the
    dtype of w. w: array of any shape → int. (Against CSR: which one wins at a density of 0.5?)
    """
    return NotImplemented


# %% tags=["exercise-check"]
check("11.2", bitmap_bytes)
# hint("11.2")
# solution("11.2")

# %% tags=["exercise"]
def sparsity_for_budget(w, budget):
    """Largest sparsity at which magnitude pruning removes at most `budget` of Σ w².

    By the law, equal budgets cost equal loss: so one could choose the density of each layer.
    w: array of any shape; budget: 0 … 1 → number of removed weights / number of weights.
    """
    return NotImplemented


# %% tags=["exercise-check"]
check("11.3", sparsity_for_budget)
# hint("11.3")
# solution("11.3")

# %% tags=["exercise"]
def remove_and_compensate(w, X, j):
    """Weights with w[j] = 0 whose outputs on X differ least from those of w.

    The outputs of a neuron are X w. Find the change δ of *all* weights with w[j] + δ[j] = 0 for
    which |X δ|² is least (with H = XᵀX: set up the Lagrangian), and return w + δ.
    w: (p,); X: (n, p) of rank p; j: index → new array (p,).
    """
    return NotImplemented


# %% tags=["exercise-check"]
check("11.4", remove_and_compensate)
# hint("11.4")
# solution("11.4")

# %% [markdown]
# ## Play: how sparse?
#
# Choose a way of pruning and a density: you get the nearest that was recorded. Losses, files and
# times are the recorded ones; for masked models the time was taken at density 0.5 (a mask skips no
# product). The line below names the dense rival of the same bytes. Look for the first density at
# which a masked model's file is less than half of the dense one, and for what that costs. Which way
# of pruning changes the time? Does any beat its rival?

# %% tags=["widget"]
WAYS = {"global, untuned": ("global", "untuned"), "per layer, untuned": ("layer", "untuned"),
        "per layer, tuned": ("layer", "one-shot"), "thin, tuned": ("thin", "one-shot")}
whole = untuned[untuned.method == "dense"].iloc[0]
stay = here.assign(density=(here.N - (whole.N - n_weights)) / n_weights)  # N counts norms too
ROWS = {name: stay[(here.method == m) & (here.scheme == how)].sort_values("density")
        for name, (m, how) in WAYS.items()}


def choose(way, density):
    row = ROWS[way].iloc[int(abs(ROWS[way].density - density).argmin())]
    drawn = [widgets.series("line" if name == way else "dash", one.density, one.loss, name, i)
             for i, (name, one) in enumerate(ROWS.items())]
    drawn += [widgets.series("points", rivals.density, rivals.loss, "dense rivals", 7),
              widgets.series("points", [row.density], [row.loss], "chosen", 4)]
    same = np.interp(np.log(row.bytes), np.log(rivals.bytes), rivals.loss)
    ms = timed.ms[128, "batch", row.detail or "half masked"]
    return widgets.picture(
        drawn, "density", "held-out loss (nats/token)", (0, 1), (2.5, 9), "Loss against density",
        text=f"{way}, {NAMES.get(row.detail, 'density')} {row.density:.2f}: loss {row.loss:.3f} "
             f"nats/token ({row.loss - base:+.3f}), file {row.bytes / 1e6:.2f} of "
             f"{whole.bytes / 1e6:.2f} MB, batch {ms:.1f} of "
             f"{timed.ms[128, 'batch', 'dense']:.1f} ms; dense rival of these bytes: {same:.3f}")


widgets.explore(choose, way=Dropdown(options=list(WAYS), description="way of pruning"),
                density=SelectionSlider(options=sorted(curve["per layer"].index), value=0.5,
                                        description="density to keep"))

# %% [markdown]
# ## Recap
#
# - Near a trained model the loss rises with the removed energy, here a little faster than in
#   proportion. In theory the rise grows with the cube of the sparsity for magnitude pruning, and
#   linearly for random pruning; we measured exponents somewhat above both.
# - The law takes all weights for equally important. Where that fails, global and per layer part:
#   at the densities we tested, because of one matrix.
# - Fewer non-zero weights, fewer bytes, and less time are three things. A mask gives the first,
#   a sparse format the second below a break-even density, smaller matrices the third.
# - At equal total FLOPs, smaller dense models beat the pruned ones here, in bytes and in time.
#   Pruning pays where the large model is already paid for.
#
# *Limits.* Small models, one text, one seed, one short fine-tuning with one learning rate. Times
# are of one core of one CPU.
#
# *Read next.* Rosenfeld et al. 2021 (arXiv:2006.10621) on the law of pruning; Frantar et al. 2023
# (arXiv:2309.08520) on laws for sparse models that are trained from the start; Mishra et al. 2021
# on 2:4 sparsity in hardware. Next: **12 · Quantization**, fewer bits instead of fewer weights.
