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
# and what do you save: bytes, time, or neither?**
#
# After this notebook you can
#
# 1. prune by magnitude, and predict how fast the loss rises from one number per mask;
# 2. say where that law ends, and what a few steps of fine-tuning repair;
# 3. tell a smaller *count* from a smaller *file* and from a faster *model*, and measure all three.
#
# Runs in about 1 minute on a CPU, the same on a GPU (all runs stay on the CPU). Before this:
# chapter 06.
#
# ## Symbols
#
# | symbol | code | meaning | unit |
# |---|---|---|---|
# | $w$ | `w`, `weights` | a matrix, and the block matrices of the model by name | – |
# | $d$ | `density` | share of the weights that stay | – |
# | $s$ | `sparsity` | share that goes: $s = 1 - d$ | – |
# | $m$ | `mask` | true where a weight stays | – |
# | $e$ | `energy` | share of $\sum w^2$ that the mask removes | – |
# | $L$ | `loss` | held-out loss (one token is one byte) | nats/token |
# | $\Delta L$ | `rise` | $L$ after pruning minus $L$ before | nats/token |
# | $k$ | `curvature` | $\Delta L$ per unit of $e$ | nats/token |

# %% tags=["imports"]
import copy

import numpy as np
import torch
from ipywidgets import Dropdown, SelectionSlider
from safetensors import torch as safetensors
from scipy import sparse
from torch import nn
from torch.nn.utils import prune as torch_prune

from helpers import checkpoints, data, plots, runtime, training, widgets
from helpers.compress.prune import apply_mask, matrices, random_mask
from helpers.exercises import check, hint, solution
from helpers.fits import fit_power_law

# %% tags=["config"]
rng = runtime.setup(seed=0)
N_WINDOWS, SEQ = 48, 128  # the examination: held-out windows and their length
SPARSITIES = np.array([0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95])
FIT_LOW, FIT_HIGH = 0.15, 0.4  # the law is fitted on these sparsities
SMALL, N_DRAWS = np.array([0.01, 0.02, 0.04, 0.08]), 3  # for the random control
N_STEPS = {"quick": 48, "full": 1200}[runtime.profile()]  # of fine-tuning
TUNE = training.TrainConfig(lr=1e-3, n_steps=N_STEPS, batch_size=4, warmup_steps=5, seed=1)
STAGES = (0.56, 0.32, 0.18, 0.10)  # densities: each stage keeps the same share of the last
TOLERANCE = 0.02  # nats/token: two tuned losses closer than this count as equal
HALF = 128  # of the 256 hidden channels of each MLP
N_ROUNDS = 21  # of timing

# %% [markdown]
# ## The model and its examination
#
# The model is the course's trained GPT. The examination is held-out text: whole documents that it
# never saw. We work in float64, so that every machine prints the same digits.
#
# Only the matrices inside the blocks are pruned. The embedding stays: it is also the output head,
# and each byte needs its row.

# %%
train_docs, held_out = data.split_documents(data.prose())
windows = data.windows(data.encode(held_out), N_WINDOWS, SEQ)
model = checkpoints.load_model(data.path("models/gpt_prose.safetensors")).double()
weights = matrices(model)
n_weights = sum(w.numel() for w in weights.values())
n_all = sum(p.numel() for p in model.parameters())
print(f"{len(weights)} matrices hold {n_weights:,} of {n_all:,} weights")
base = training.evaluate(model, windows)
print(f"dense model: {base:.3f} nats/token; knowing nothing: ln 256 = {np.log(256):.3f}")

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
# $$m_i = \big[\,|w_i| \text{ is among the } \operatorname{round}(d\,n) \text{ largest}\,\big].$$
#
# The bracket is true or false; $n$ counts the weights.
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
# $$\Delta L \approx \tfrac12 \sum_{i\ \text{removed}} h_i\, w_i^2 \;\approx\; k\, e,
# \qquad e = \frac{\sum_{i\ \text{removed}} w_i^2}{\sum_i w_i^2}.$$
#
# Here $h_i$ is the curvature of the loss along $w_i$. Both steps are assumptions. The first leaves
# out the terms of *pairs* of weights, as if they cancelled; the second says that the curvature has
# nothing to do with the size of the weight. Then one number per mask, the removed energy $e$, gives
# the rise.
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
# One function makes a mask per sparsity, applies it to a copy of the model, and takes the
# examination. No weight is trained.

# %%
def loss_without(mask):
    """Held-out loss of a copy of the model with the mask applied, in nats/token."""
    student = copy.deepcopy(model)
    apply_mask(student, mask)
    return training.evaluate(student, windows)


def scan(mask_of, sparsities):
    """Removed energy and loss at each sparsity: two arrays."""
    masks = [mask_of(weights, 1 - s) for s in sparsities]
    return (np.array([removed_energy(weights, m) for m in masks]),
            np.array([loss_without(m) for m in masks]))


# %%
METHODS = {"global": magnitude_mask, "per layer": layer_mask,
           "random": lambda weights, density: random_mask(weights, density, rng)}
energy, loss = {}, {}
for name, mask_of in METHODS.items():
    energy[name], loss[name] = scan(mask_of, SPARSITIES)
for s in (0.2, 0.5, 0.7, 0.9):
    at = list(SPARSITIES).index(s)
    print(f"sparsity {s:.1f}: " + ", ".join(f"{name} {loss[name][at]:.3f}" for name in METHODS))

# %%
(ax,) = plots.panels(title="Loss against density, no fine-tuning")
for name, style in zip(METHODS, ("o-", "s-", "^-"), strict=True):
    ax.plot(np.r_[1, 1 - SPARSITIES], np.r_[base, loss[name]], style, label=name, markersize=4)
ax.axhline(base, color="black", linewidth=0.8, label="dense")
ax.axhline(np.log(256), color="black", linestyle=":", label="knowing nothing: ln 256")
ax.invert_xaxis()
_ = plots.label(ax, "density: share of block weights that stay", "held-out loss (nats/token)")

# %% [markdown]
# *Reading.* From left to right weights disappear. First comes a **plateau**: the curve is flat
# although every fifth weight is gone. Then it bends, and then it **collapses**. The random control
# has no plateau: it rises from the first weight on. So the plateau is not a gift of the model
# alone. It comes from choosing the small weights.
#
# The far end is no law at all. A broken model can be *worse* than knowing nothing, because it is
# wrong with confidence, and the curve need not even be monotone there. The zigzag of the random
# curve has a simpler cause: each point is a single new draw.
#
# ## Does the law hold?
#
# Near the dense model we fit $\Delta L = c\,s^p$: the random control on small sparsities, the mean
# over a few draws; the two magnitude masks on the range from the config cell. Theory says
# $p = 1$ and $p = 3$. `fit_power_law` fits a *fall* $x^{-p}$, so it is given $x = 1/s$. With the
# curvature $k$ of the *random* masks it also says where the
# *magnitude* curve must lie, without a fit.

# %%
draws = [scan(METHODS["random"], SMALL) for _ in range(N_DRAWS)]
small_energy = np.mean([e for e, _ in draws], axis=0)
small_rise = np.mean([one for _, one in draws], axis=0) - base
near = (SPARSITIES >= FIT_LOW) & (SPARSITIES <= FIT_HIGH)
laws = {name: fit_power_law(1 / SPARSITIES[near], loss[name][near] - base)
        for name in ("global", "per layer")}
laws["random"] = fit_power_law(1 / SMALL, small_rise)  # 1 / s: the exponent of a rise
for name, law in laws.items():
    theory = 1 if name == "random" else 3
    print(f"{name}: exponent {plots.interval(law.exponent, law.low, law.high, 2)}, "
          f"theory {theory}, R² {law.r2:.3f}")

# %%
curvature = (small_rise / small_energy).mean()
print(f"random masks: k = {curvature:.3g} nats/token for all of the energy")
for name in ("global", "per layer"):
    ratio = (loss[name] - base)[near] / (curvature * energy[name][near])
    print(f"{name}: measured rise / predicted rise = {ratio.min():.2f} … {ratio.max():.2f}")

# %%
doubled = [list(SPARSITIES).index(s) for s in (0.2, 0.4)]
for name in ("global", "per layer"):
    low, high = loss[name][doubled] - base
    less, more = energy[name][doubled]
    print(f"{name}: from 20 % to 40 % the rise grows by a factor of {high / low:.1f}, "
          f"the removed energy by {more / less:.1f}")
low, high = small_rise[-2:]
print(f"random: from {SMALL[-2]:.0%} to {SMALL[-1]:.0%} by a factor of {high / low:.1f}")

# %%
left, right = plots.panels(2, "Near the dense model: two laws in sparsity, one in energy")
for name, law in laws.items():
    s, e, y = ((SMALL, small_energy, small_rise) if name == "random" else
               (SPARSITIES[near], energy[name][near], loss[name][near] - base))
    left.plot(s, y, "o", markersize=4, label=f"{name}: s^{law.exponent:.2f} "
                                             f"({law.low:.2f} … {law.high:.2f})")
    left.plot(s, law.predict(1 / s), color=left.lines[-1].get_color())
    right.plot(e, y, "o", markersize=4, label=name)
right.plot(e_line := np.geomspace(1e-3, 0.1), curvature * e_line, "k:",
           label="k e, k from random masks")
plots.label(left, "sparsity s", "rise of the loss (nats/token)", log="xy")
_ = plots.label(right, "removed energy e", "rise of the loss (nats/token)", log="xy")

# %% [markdown]
# *Reading.* Left: nearly straight lines, so power laws over these ranges, steep for magnitude and
# flat for random. But theory's 3 lies below both intervals, and a doubling multiplies the rise by
# more than 8. Which of the two steps of the theory is to blame? Not the cube: the energy grows by
# 8.4 from 20 % to 40 %. It is $\Delta L = k\,e$: the rise grows a little faster than the energy,
# for the random masks too. The next terms of the expansion already count.
#
# Right: against the removed energy, all three gather near *one* dotted line, within about a third.
# It was not fitted to the magnitude masks: its height is the mean of the random ones. All three
# cross it from below, for that reason. At equal energy the magnitude masks cost no less
# than the random ones. So magnitude pruning has no special knowledge of the network. It is good
# because it removes many weights and little energy.
#
# *Against the literature.* Rosenfeld et al. (2021) describe the error of pruned networks by a law
# in density with a transition between two plateaus. Our curve has the first plateau and the
# transition. Nothing was retrained here, so its far end is not the second plateau but collapse.
#
# ## What breaks first
#
# The global mask removes the least energy of all masks of its density. By the law it should be the
# best. Is it? Look at what it leaves in each matrix at a density of 30 %, and at what each matrix
# costs when it is the only one that is cut.

# %%
mask = magnitude_mask(weights, 0.3)
kept = {name: float(m.double().mean()) for name, m in mask.items()}
alone = {name: loss_without({name: m}) - base for name, m in layer_mask(weights, 0.3).items()}
fewest, worst = min(kept, key=kept.get), max(alone, key=alone.get)
print(f"global, density 0.30: {fewest} keeps {kept[fewest]:.3f}, {worst} {kept[worst]:.3f}")
print(f"cut alone, {worst} costs {alone[worst]:.3f} nats/token with 0.300 of its\n"
      f"weights left, {loss_without({worst: mask[worst]}) - base:.3f} with {kept[worst]:.3f}")
better = [("global" if g < p else "per layer")
          for g, p in zip(loss["global"], loss["per layer"], strict=True)]
for s, name in zip(SPARSITIES, better, strict=True):
    if s in (0.2, 0.5, 0.8, 0.9):
        print(f"sparsity {s:.2f}: lower loss with {name}")

# %% [markdown]
# *Reading.* The law says global; the measurement says per layer, from a sparsity of 0.2 up to 0.8,
# at 0.7 by more than half a nat. What fails is the assumption that size and curvature have nothing
# to do with each other. The attention of the first block has small weights, so the global rule
# cuts deep there; and a cut of its qkv matrix costs most of all. At 0.9 the order turns round, but
# both models are ruined by then. From here on we prune per layer.
#
# ## Fine-tuning: all at once, or in stages?
#
# A pruned model can be trained on, with the mask held fixed. After each step the removed weights
# are set to zero again. The textbook advice is to prune in *stages* and to train between them:
# the model repairs a small wound better than a large one. But steps cost. So we compare at **the
# same number of steps**, the same batches and the same learning rates:
#
# - *one-shot*: the last density at step 0, then all steps;
# - *equal stages*: four densities, a quarter of the steps for each;
# - *early stages*: the same four densities within the first quarter, the rest for the last one;
# - *dense*: no pruning, the same steps. This is the control: fine-tuning alone changes the loss.


# %%
def tune(start, densities, gap):
    """Fine-tune a copy of `start`, pruning to the next density every `gap` steps."""
    student, done, losses = copy.deepcopy(start), 0, []
    optimizer = training.make_optimizer(student, TUNE)
    for stage, density in enumerate(densities, 1):
        mask = layer_mask(matrices(student), density)
        apply_mask(student, mask)
        stop = TUNE.n_steps if stage == len(densities) else stage * gap
        losses += training.run_steps(student, optimizer, batches, TUNE, done, stop,
                                     lambda _step, _loss, mask=mask: apply_mask(student, mask))
        done = stop
    return training.evaluate(student, windows), losses


# %%
batches = data.TokenBatches(data.encode(train_docs), TUNE.batch_size, SEQ, TUNE.seed)
quarter = TUNE.n_steps // 4
tuned = {"one-shot": tune(model, STAGES[-1:], 0),
         "equal stages": tune(model, STAGES, quarter),
         "early stages": tune(model, STAGES, quarter // 3),
         "dense": tune(model, (1.0,), 0)}
untuned = loss["per layer"][list(SPARSITIES).index(0.9)]
print(f"density 0.10 without fine-tuning: {untuned:.3f}")
for name, (after, _) in tuned.items():
    print(f"{name}, {TUNE.n_steps} steps: {after:.3f}")

# %%
gain = tuned["one-shot"][0] - min(tuned["equal stages"][0], tuned["early stages"][0])
word = "stages win" if gain > TOLERANCE else "one-shot wins" if gain < -TOLERANCE else "a draw"
print(f"one-shot minus the better of the staged runs: {gain:+.3f} → {word} (within {TOLERANCE})")
repaired = (untuned - tuned["one-shot"][0]) / (untuned - base)
print(f"one-shot fine-tuning takes back {repaired:.0%} of the rise")

# %%
(ax,) = plots.panels(title=f"{TUNE.n_steps} steps of fine-tuning towards density 0.10")
for name, (after, losses) in tuned.items():
    ax.plot(losses, label=f"{name}: held-out {after:.2f} at the end", linewidth=1.2)
ax.set_ylim(top=1.5 * max(max(losses) for _, losses in tuned.values()))  # room for the legend
_ = plots.label(ax, "step", "training loss (nats/token)")

# %% [markdown]
# *Reading.* Each stage shows as a jump, each followed by a repair. The last cut is the deepest
# one, and after it only the remaining steps count. *Equal stages* spends three quarters of its
# steps on densities that it then leaves; watch where its curve ends. So with a budget as short as
# this, the advice "prune in stages" depends on *where* the steps go, and the cell above says who
# won. Had we given each stage the full number of steps, stages would cost four times as much; the
# comparison would no longer be fair. `PROFILE=full` repeats the comparison with 25 times the steps.
#
# The dense control matters too: a small batch and a fresh optimiser can make a good model worse.
# What is left after tuning should be held against *that* figure.
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
# (not with) 2, row 1 those from 2 up to 3. A value costs four bytes and its
# column four more as int32, or one as uint8: our matrices have at most 256 columns.


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
    packed, reference = to_csr(w, torch.uint8), sparse.csr_matrix(w.numpy())
    for ours, theirs in (("values", "data"), ("columns", "indices"), ("starts", "indptr")):
        np.testing.assert_array_equal(packed[ours].numpy(), getattr(reference, theirs))
    assert torch.equal(from_csr(packed, w.shape[1]), w), name
print(f"{len(weights)} matrices: the arrays of scipy.sparse, and back again without a change")


# %%
def packed_bytes(student, index):
    """Size of a safetensors file with CSR block matrices and everything else as it is."""
    tensors = dict(student.state_dict())
    for name, w in matrices(student).items():
        del tensors[name]
        tensors |= {f"{name}.{part}": array for part, array in to_csr(w, index).items()}
    return len(safetensors.save(tensors))


csr = {torch.int32: [], torch.uint8: []}
for s in SPARSITIES:
    student = copy.deepcopy(dense)
    apply_mask(student, layer_mask(weights, 1 - s))
    for index, sizes in csr.items():
        sizes.append(packed_bytes(student, index))
    if s in (0.1, 0.5, 0.9):
        print(f"density {1 - s:.1f}: int32 {csr[torch.int32][-1] / full_file:.3f} of the dense "
              f"file, uint8 {csr[torch.uint8][-1] / full_file:.3f}")

# %%
(ax,) = plots.panels(title="What the file costs")
ax.axhline(full_file / 1e6, color="black", label="dense float32, with or without zeros")
for (index, sizes), style in zip(csr.items(), ("o-", "s-"), strict=True):
    name = str(index).removeprefix("torch.")
    ax.plot(1 - SPARSITIES, np.array(sizes) / 1e6, style, label=f"CSR, columns as {name}")
ax.invert_xaxis()
_ = plots.label(ax, "density: share of block weights that stay", "file size (MB)")

# %% [markdown]
# *Reading.* At high density CSR is *larger* than the dense file. The lines are straight: bytes per
# kept weight times density. What does not shrink with density is the embedding, so no curve ends
# at zero. Where a curve crosses the black line is the subject of exercise 11.1.
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
# \|\text{down}_{:,j}\|$: what a channel hears, times what it says.


# %% tags=["essential"]
def channel_scores(block):
    return block.up.weight.detach().norm(dim=1) * block.down.weight.detach().norm(dim=0)


def shrink_mlp(block, keep):
    up, down = block.up.weight.detach()[keep], block.down.weight.detach()[:, keep]
    for layer, w in ((block.up, up), (block.down, down)):
        layer.weight = nn.Parameter(w.clone())
        layer.out_features, layer.in_features = w.shape


# %% tags=["check"]
thin, zeroed = copy.deepcopy(model), copy.deepcopy(model)  # in float64
for small, large in zip(thin.blocks, zeroed.blocks, strict=True):
    keep = channel_scores(large).argsort(descending=True, stable=True)[:HALF]
    shrink_mlp(small, keep)
    gone = torch.ones(4 * large.up.in_features, dtype=torch.bool)
    gone[keep] = False
    large.up.weight.data[gone], large.down.weight.data[:, gone] = 0, 0
tokens = torch.from_numpy(windows[:16, :-1])  # (16, 128)
with torch.no_grad():
    torch.testing.assert_close(thin(tokens), zeroed(tokens), rtol=0, atol=1e-5)
thin.float()
print(f"up is now {tuple(small.up.weight.shape)}: logits as with zeroed channels, to 1e-5")


# %%
def report(name, student):
    """Print what a model costs: non-zero weights, FLOPs that are executed, bytes, loss."""
    shown = matrices(student)
    nonzero = sum(int((w != 0).sum()) for w in shown.values())
    products = sum(w.numel() for w in shown.values()) + student.wte.weight.numel()  # and the head
    loss = training.evaluate(copy.deepcopy(student).double(), windows)
    print(f"{name}: {nonzero:,} non-zero block weights, {2 * products / 1e6:.3f} MFLOP/token, "
          f"file {len(safetensors.save(student.state_dict())):,} bytes, loss {loss:.3f}")


for name, student in (("dense", dense), ("half masked", masked), ("half MLP", thin)):
    report(name, student)

# %% [markdown]
# The FLOPs are those of the matrix products per token, forward; attention adds the same amount to
# all three. The masked model executes *every* product of the dense one: half of its factors are
# zero, and the hardware multiplies by them. Now the clock. The three take turns (A B C A B C …),
# so that a disturbance of the machine hits all of them. The same for one matrix and a sparse
# kernel.


# %% tags=["nbval-ignore-output"]
# uncompared: timings differ from machine to machine
up = masked.blocks[0].up.weight.detach()
sparse_up = {d: sparse.csr_matrix(up.numpy() * layer_mask({"up": up}, d)["up"].numpy())
             for d in (0.5, 0.1)}
x = torch.from_numpy(rng.standard_normal((up.shape[1], tokens.numel())).astype(np.float32))
models = {"dense": dense, "half masked": masked, "half MLP": thin}
products = {"dense": lambda: up @ x, "CSR at 0.5": lambda: sparse_up[0.5] @ x.numpy(),
            "CSR at 0.1": lambda: sparse_up[0.1] @ x.numpy()}
with torch.no_grad():
    whole = runtime.take_turns(
        {name: lambda m=m: m(tokens) for name, m in models.items()}, N_ROUNDS)
    single = runtime.take_turns(products, N_ROUNDS)
for title, seconds in (("whole model", whole), ("one matrix", single)):
    for name, times in seconds.items():
        speed = np.median(seconds["dense"] / times)
        print(f"{title}, {name}: {1e3 * np.median(times):.2f} ms, {speed:.2f}× the dense speed")

# %% [markdown]
# *Reading.* The masked model is as slow as the dense one, within the noise: same products, same
# time. The thin model is faster, but not by its share of FLOPs: attention scores, softmax and norms
# take time, stay as they are, and are not in the count.
# The sparse kernel does fewer products, but it must look up each column. At
# half density that costs more than it saves. At a tenth it can win on one matrix; but look back at
# what a density of 0.10 does to the loss. Where the loss is still good, speed comes from *smaller
# dense matrices*.
#
# ## What each kind costs, at equal bytes
#
# Structured pruning takes whole channels, good weights and bad. That costs loss. The fair
# comparison is at equal bytes: the thin file against a masked model, packed as CSR, that is no
# larger.

# %%
thin_file = len(safetensors.save(thin.state_dict()))
csr_files = np.array(csr[torch.uint8])
no_larger = csr_files <= thin_file
rival = SPARSITIES[no_larger].min()
thin_loss = training.evaluate(copy.deepcopy(thin).double(), windows)
print(f"thin model: {thin_file:,} bytes, loss {thin_loss:.3f}")
print(f"masked, density {1 - rival:.2f}, as CSR: {csr_files[no_larger].max():,} bytes, "
      f"loss {loss['per layer'][list(SPARSITIES).index(rival)]:.3f}")
thin_tuned, _ = tune(copy.deepcopy(thin).double(), (1.0,), 0)
masked_tuned, _ = tune(model, (1 - rival,), 0)
print(f"after {TUNE.n_steps} steps: thin {thin_tuned:.3f}, masked {masked_tuned:.3f}, "
      f"dense {tuned['dense'][0]:.3f}")

# %% [markdown]
# *Reading.* At equal bytes the masked model was freer in what to keep; the thin one is the only
# one that is faster. Fine-tuning narrows the gap. The articles promise that compression saves
# storage, transfer and compute. For pruning: storage and transfer, *if* the zeros are left out of
# the file; compute only if the matrices shrink.
#
# ## Exercises
#
# Replace `return NotImplemented`, run the cell, then run the check. `hint("11.1")` helps once,
# again a second time; `solution("11.1")` shows ours.
#
# 11.1 is read off a figure, 11.2 writes a rule down, 11.3 turns the law round, and 11.4 derives
# what the other weights should do when one goes. Chapter 12 builds on such a step to quantise.

# %% tags=["exercise"]
def break_even_density():
    """The density (0 … 1) at which the CSR file with int32 columns is as large as the dense.

    Read the figure "What the file costs", or add up bytes. Two digits are enough.
    """
    return NotImplemented


# %% tags=["exercise-check"]
check("11.1", break_even_density)
# hint("11.1")
# solution("11.1")

# %% tags=["exercise"]
def geometric_densities(final, n_stages):
    """Densities after each of n_stages, ending at `final`, each the same share of the last.

    Before the first stage the density is 1. `STAGES` is the case (0.10, 4), rounded. Returns an
    array of shape (n_stages,).
    """
    return NotImplemented


# %% tags=["exercise-check"]
check("11.2", geometric_densities)
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
# Choose a way of pruning and a sparsity. All losses were measured above, without fine-tuning. The
# text gives loss and bytes. Look for the first sparsity whose file is less than half as large, and
# for what that costs.


# %%
def pruned(method, sparsity):
    """The measured curves, with one point marked."""
    x = SPARSITIES
    at = int(np.flatnonzero(np.isclose(SPARSITIES, sparsity))[0])
    others = [widgets.series("dash", x, loss[name], name, color)
              for color, name in enumerate(METHODS) if name != method]
    return widgets.picture(
        [*others, widgets.series("line", x, loss[method], method, list(METHODS).index(method)),
         widgets.series("points", x[[at]], loss[method][[at]], "chosen", 3)],
        "sparsity", "held-out loss (nats/token)", (0, 1), (0, 1.05 * max(map(max, loss.values()))),
        "Loss against sparsity",
        text=f"{method}, sparsity {sparsity:.2f}: loss {loss[method][at]:.3f} nats/token "
             f"({loss[method][at] - base:+.3f}), CSR file {csr[torch.uint8][at] / 1e6:.2f} MB, "
             f"dense file {full_file / 1e6:.2f} MB")


# %% tags=["widget"]
widgets.explore(pruned, method=Dropdown(options=list(METHODS), description="method"),
                sparsity=SelectionSlider(options=SPARSITIES.tolist(), value=0.5,
                                         description="sparsity"))

# %% [markdown]
# ## Recap
#
# - Near a trained model the loss rises with the removed energy, here a little faster than in
#   proportion. In theory the rise grows with the cube of the sparsity for magnitude pruning, and
#   linearly for random pruning; we measured exponents somewhat above both.
# - The law takes all weights for equally important. Where that fails, global and per layer part.
#   A short fine-tuning takes back a part of the rise. Where its steps go decides about stages.
# - Fewer non-zero weights, fewer bytes, and less time are three things. A mask gives the first,
#   a sparse format the second below a break-even density, smaller matrices the third.
#
# *Limits.* One small model, one text, one seed, and fine-tuning of a few dozen steps. The true
# rival of a pruned model is a *smaller dense model* of the same bytes, trained with the same
# FLOPs. The ledger of chapter 08 has no run with as many FLOPs. Look there at width 48 all the
# same: a smaller file than the two above, trained with fewer FLOPs. How does its loss compare?
# Patterns that some accelerators speed up (two of every four weights) gain nothing on a CPU, and
# are not measured here.
#
# *Read next.* Rosenfeld et al. 2021 (arXiv:2006.10621) on the law of pruning; Frantar et al. 2023
# (arXiv:2309.08520) on laws for sparse models that are trained from the start; Mishra et al. 2021
# on 2:4 sparsity in hardware.
