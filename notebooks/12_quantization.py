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
# # 12 · Quantization
#
# A weight of the course's model takes 32 bits. **How few bits are enough, and what does each bit
# that you take away cost?**
#
# After this notebook you can
#
# 1. quantise a tensor by hand, with one scale for all of it, for each row, or for each group;
# 2. predict the error from the number of bits, and say why one outlier can ruin it;
# 3. write a model to disk with two weights in each byte, and measure bytes and loss.
#
# The articles name "better compression" as a lever that saves storage, transfer and compute.
# This chapter measures the first two. It also says plainly where the third does not follow.
#
# Runs in about 1 minute on a CPU, the same on a GPU (all runs stay on the CPU). Before this:
# chapter 06.

# %% [markdown]
# ## Symbols
#
# | symbol | code | meaning | unit |
# |---|---|---|---|
# | $w$ | `w`, `W` | weights: a tensor, the matrix we look at | – |
# | $b$ | `n_bits` | bits of one code | bits |
# | $g$ | `group_size` | weights that share one scale | – |
# | $s$ | `scale` | distance between two neighbouring levels | as $w$ |
# | $z$ | `zero` | the code that stands for 0 (zero point) | – |
# | $q$ | `codes` | the integers that are stored | – |
# | $\hat w$ | `dequantize(…)` | the weights that the codes stand for | as $w$ |
# | $m$ | `steps` | levels above zero: $2^{b-1}-1$ | – |
# | mse | `mse` | mean of $(w-\hat w)^2$ | as $w^2$ |
# | $L$ | `loss` | held-out loss | nats/token |
#
# A grid is named after the weights that share a scale: *per tensor* ($g$ is the size of the
# tensor), *per row* ($g$ is the length of a row, so each output channel has its scale) or *per
# group*.

# %% tags=["imports"]
import json
import tempfile
from dataclasses import asdict
from itertools import product
from pathlib import Path

import ipywidgets
import numpy as np
import torch
from safetensors.torch import load_file, save_file

from helpers import checkpoints, data, runtime, training
from helpers.compress.quantize import (
    check_groups,
    check_int4,
    check_packed,
    load_quantized,
    save_quantized,
)
from helpers.exercises import check, hint, solution
from helpers.fits import fit_power_law
from helpers.flops import flops_per_token
from helpers.plots import interval, label, panels
from helpers.widgets import explore, picture, series

# %% tags=["config"]
SEED = 0
MODEL = "models/gpt_prose.safetensors"
MATRIX = "blocks.0.up.weight"  # the matrix we look at closely
N_WINDOWS = 100  # held-out windows of 128 tokens
BITS = (2, 3, 4, 5, 6, 8)
GROUPS = ("tensor", "row", 32)  # what shares one scale
NAMES = {"tensor": "one scale per tensor", "row": "one per row", 32: "one per 32 weights"}
LAW_BITS = (3, 4, 5, 6, 7, 8)  # the bits that the law of the error is fitted on
OUTLIERS = (1, 2, 4, 8, 16, 32, 64)  # size of the planted weight, in largest weights
ALLOWED = (0.5, 3, 10)  # percent: rises of the loss that one may accept
FLOOR = 0.01  # percent: smaller loss increases are drawn here

# %% [markdown]
# ## The model and its examination
#
# The model is the course's GPT. The examination is text that it never saw: whole documents that
# were held out. Weights are quantised from fp32. The loss is computed in float64, so that a
# change in the fourth digit means the weights and not the rounding of the sum. Chapter 11 prints
# another loss for the same model, because it reads 48 windows and not 100.

# %%
rng = runtime.setup(SEED)
model = checkpoints.load_model(data.path(MODEL)).double()
weights = {name: w.float() for name, w in model.state_dict().items()}
held_out = data.encode(data.split_documents(data.prose())[1])
windows = data.windows(held_out, N_WINDOWS, model.config.context)
n_weights = sum(w.numel() for w in weights.values())
in_matrices = sum(w.numel() for w in weights.values() if w.ndim == 2)


def held_out_loss(state: dict) -> float:
    """Loss of the model with the weights of `state`, in nats per token."""
    model.load_state_dict(state)
    return training.evaluate(model, windows)


base_loss = held_out_loss(weights)
print(f"{n_weights} weights, {in_matrices / n_weights:.1%} of them in matrices")
print(f"held-out loss with fp32 weights: {base_loss:.3f} nats/token")

# %% [markdown]
# ## A scale and a grid
#
# Take six weights and four bits. Four bits make 16 codes: −8 … 7. We need a rule from weight to
# code and back. The simplest rule divides by a step $s$ and rounds:
#
# $$q = \operatorname{clip}\!\left(\operatorname{round}\!\left(\frac{w}{s}\right) + z,\;
#   -2^{b-1},\; 2^{b-1}-1\right), \qquad \hat w = s\,(q - z).$$
#
# There are two usual choices of $s$ and $z$.
#
# - **Symmetric**: $z = 0$ and $s = \max|w| / (2^{b-1}-1)$. The largest weight gets the last code.
#   The lowest code is never used, which is the price of the simple rule.
# - **Affine**: the grid runs from the smallest to the largest weight,
#   $s = (\max w - \min w)/(2^b - 1)$, and $z$ is the integer code of 0. So 0 stays exactly 0.
#
# In words: cut the tensor into groups of $g$ neighbours in a row; find $s$ and $z$ of each group;
# round. Only codes, scales and zero points are kept. `check_groups` refuses sizes that do not
# divide a row.
#
# PyTorch has the same step inside: its `fake_quantize` rounds to the grid and comes straight back,
# with scales and zero points from outside. The check hands it ours; the results must be identical.


# %% tags=["essential"]
def fit_scale(w, n_bits, group_size, symmetric=True):
    check_groups(w, n_bits, group_size)
    groups = w.reshape(-1, group_size)  # (n_groups, group_size), neighbours in a row
    if symmetric:
        scale = groups.abs().amax(1, keepdim=True) / (2 ** (n_bits - 1) - 1)
        zero = torch.zeros_like(scale)
    else:
        low = groups.amin(1, keepdim=True).clamp(max=0)  # 0 is on the grid, always
        scale = (groups.amax(1, keepdim=True).clamp(min=0) - low) / (2**n_bits - 1)
        zero = -(2 ** (n_bits - 1)) - (low / scale).round()
    flat = scale < 1e-30  # a group of zeros, or as good as: any scale will do
    return scale.masked_fill(flat, 1.0), zero.masked_fill(flat, 0.0)


def quantize(w, scale, zero, n_bits):
    q_min, q_max = -(2 ** (n_bits - 1)), 2 ** (n_bits - 1) - 1
    codes = (w.reshape(len(scale), -1) * (1 / scale)).round() + zero
    return codes.clamp(q_min, q_max).to(torch.int8).reshape(w.shape)


def dequantize(codes, scale, zero):
    return ((codes.reshape(len(scale), -1) - zero) * scale).reshape(codes.shape)


# %% tags=["check"]
W = weights[MATRIX]
for b, g, symmetric in product((2, 4, 8), (W.numel(), W.shape[1], 32), (True, False)):
    scale, zero = fit_scale(W, b, g, symmetric)
    ours = dequantize(quantize(W, scale, zero, b), scale, zero)
    grid = -(2 ** (b - 1)), 2 ** (b - 1) - 1
    theirs = torch.fake_quantize_per_channel_affine(
        W.reshape(-1, g), scale.flatten(), zero.flatten().int(), 0, *grid)
    assert torch.equal(ours, theirs.reshape(W.shape))
    if g == W.numel():
        assert torch.equal(ours, torch.fake_quantize_per_tensor_affine(
            W, scale.item(), int(zero), *grid))
    half_step = scale / 2 * (1 if symmetric else 2)  # affine: rounding z may cost half a step
    assert ((ours - W).reshape(-1, g).abs() <= half_step * (1 + 1e-5)).all()
print("2, 4 and 8 bits, three group sizes, both rules: every bit equal to PyTorch's own")

# %%
# Now the six weights. Each error is at most half a step.
six = torch.tensor([0.9, -0.31, 0.06, 0.5, -0.75, 1.2])
scale, zero = fit_scale(six, 4, 6)
codes = quantize(six, scale, zero, 4)
back = dequantize(codes, scale, zero)
print(f"step {scale.item():.4f}\nweights", [f"{v:.2f}" for v in six.tolist()])
print("codes  ", codes.tolist())
print("back   ", [f"{v:.2f}" for v in back.tolist()])

# %% [markdown]
# ## When the zero point pays
#
# Weights lie on both sides of zero, about equally far. Activations after the GELU do not: they
# start a little below zero and reach far above it. A symmetric grid then keeps half its codes for
# values that never come. We catch these activations in the first block, give each token its own
# scale (called *dynamic*, because the scale is found while the model runs) and compare.

# %%
seen = []
handle = model.blocks[0].down.register_forward_pre_hook(lambda layer, given: seen.append(given[0]))
training.evaluate(model, windows[:8])
handle.remove()
activations = seen[0].flatten(0, 1).float()  # (tokens, d_ff)


def rounding_mse(w, n_bits, group_size, symmetric=True):
    """Mean squared error of rounding `w` to its grid."""
    scale, zero = fit_scale(w, n_bits, group_size, symmetric)
    return (dequantize(quantize(w, scale, zero, n_bits), scale, zero) - w).double().square().mean()


print(f"after the GELU: from {activations.min():.2f} to {activations.max():.1f}, "
      f"{(activations < 0).double().mean():.0%} below zero")
for name, x in (("weights, per row", W), ("activations, per token", activations)):
    gain = rounding_mse(x, 8, x.shape[1]) / rounding_mse(x, 8, x.shape[1], symmetric=False)
    print(f"{name}: the affine grid divides the squared error by {gain:.2f}")

# %% [markdown]
# For one-sided values the affine grid is nearly half as wide. The step halves, so the squared
# error falls by a factor near 4: the zero point is worth about one bit. For weights at 8 bits it
# is worth little. From here on the grids are symmetric, until the bits get scarce.
#
# ## The law of the error
#
# Inside one step the true weight can lie anywhere. If each place is equally likely, the error is
# uniform on $[-s/2, s/2]$, and its mean square is
#
# $$\mathrm{mse} = \frac{1}{s}\int_{-s/2}^{s/2} e^2\,de = \frac{s^2}{12},
#   \qquad s = \frac{\max|w|}{m}, \quad m = 2^{b-1}-1 .$$
#
# So the squared error is a power law in the number of steps with exponent 2. One more bit about
# doubles the steps and so divides the squared error by about 4. In decibels that is
# $10\log_{10}4 \approx 6.02$: "six dB per bit". Nothing here was fitted. Does it hold on weights?

# %%
sizes = {"tensor": W.numel(), "row": W.shape[1], 32: 32}
steps = 2.0 ** (np.array(LAW_BITS) - 1) - 1
mse = {g: np.array([rounding_mse(W, b, sizes[g]) for b in LAW_BITS]) for g in GROUPS}
laws = {g: fit_power_law(steps, mse[g]) for g in GROUPS}
for g, law in laws.items():
    print(f"{NAMES[g]:20} mse ∝ steps^-{interval(law.exponent, law.low, law.high)}")
assert all(abs(law.exponent - 2) < 0.05 for law in laws.values())
per_bit = fit_power_law(2.0 ** np.array(LAW_BITS), mse["row"])
dB = 10 * np.log10(2)
print(f"against bits: {interval(dB * per_bit.exponent, dB * per_bit.low, dB * per_bit.high, 2)}"
      f" dB per bit; against doublings of the steps: {dB * laws['row'].exponent:.2f} dB")

# %%
(ax,) = panels(title=f"Rounding error of {MATRIX}")
power = W.double().square().mean().item()
for number, (g, law) in enumerate(laws.items()):
    step2 = (fit_scale(W, 2, sizes[g])[0].double() ** 2).mean().item()  # at 2 bits: one step
    name = f"{NAMES[g]}: exponent {interval(law.exponent, law.low, law.high)}"
    ax.plot(LAW_BITS, mse[g] / power, "o", color=f"C{number}", label=name)
    ax.plot(LAW_BITS, step2 / steps**2 / 12 / power, "--", color=f"C{number}")
_ = label(ax, "bits of one code", "squared error / squared weights",
          "points measured, dashes $s^2/12$: no fit", log="y")

# %% [markdown]
# **Reading.** The points lie on dashed lines that were not fitted to them. In the number of steps
# the slope is −2, within a hundredth or so: 6 dB for each doubling. In *bits* the slope is a bit
# steeper than 6.02 dB, which surprises at first. The reason is the code that the symmetric rule
# leaves out: from 3 to 4 bits the steps grow from 3 to 7, more than double. A smaller group moves
# the whole line down and leaves its slope alone, because it shrinks the step $s$.
#
# The points of groups of 32 lie 3 to 5 % *below* their line, too little to see on this axis. In
# each group the largest of the 32 weights sits on a level and has no error at all: that is 3 %.
#
# ## Outliers
#
# The step follows the *largest* weight of the group. So one weight decides how well all others
# are kept. To see it, plant one weight in the matrix: 1, 2, 4 … times as large as its largest.
# Then measure the error of all *other* weights, at 4 bits, against the error without the plant.


# %%
def harm(size: float, group_size: int) -> float:
    """By what factor one planted weight raises the squared error of all others, at 4 bits."""
    planted = W.clone()
    planted[0, 0] = size * W.abs().max()
    errors = []
    for w in (W, planted):
        scale, zero = fit_scale(w, 4, group_size)
        e = (dequantize(quantize(w, scale, zero, 4), scale, zero) - w).double()
        errors.append(e.flatten()[1:].square().mean().item())
    return errors[1] / errors[0]


harms = {g: [harm(size, sizes[g]) for size in OUTLIERS] for g in GROUPS}
for g in GROUPS:
    print(f"{NAMES[g]:20} planted ×{OUTLIERS[-1]}: error of the others × {harms[g][-1]:.2f}")

# %%
(ax,) = panels(title="One outlier among all weights of a matrix, 4 bits")
for g in GROUPS:
    ax.plot(OUTLIERS, harms[g], "o-", label=NAMES[g])
ax.set_xscale("log", base=2)
ax.set_xticks(OUTLIERS, OUTLIERS)
_ = label(ax, "planted weight / largest weight", "error of the others / error before", log="y")

# %% [markdown]
# **Reading.** With one scale for the tensor the curve first rises with slope 2: the step doubles,
# the squared error grows fourfold. Then it goes flat. There every other weight has been rounded to
# 0, and an error cannot exceed the weight itself: the matrix is gone, for the sake of one number.
# With a scale for each row the same weight can hurt its own row only; with groups, its group only.
# **Granularity is insurance**: it does not make outliers rarer, it limits who pays.
#
# Does this model have outliers? The largest weight, in standard deviations, tells. For a normal
# distribution a matrix of this size would reach about $\sqrt{2\ln n}$.

# %%
crest = {name: (w.abs().max() / w.std()).item() for name, w in weights.items() if w.ndim == 2}
worst = max(crest, key=crest.get)
normal = (2 * np.log(weights[worst].numel())) ** 0.5
print(f"largest weight, in standard deviations: {np.median(list(crest.values())):.1f} in the median"
      f" matrix, {crest[worst]:.1f} in\n{worst}, where a normal one would reach {normal:.1f}")

# %% [markdown]
# So there are outliers, but mild ones, in some of the matrices. With one scale per tensor, each of
# them sets the step of its whole matrix.
#
# ## Predict first: the whole model
#
# Now all matrices are quantised: embeddings, attention, MLP. The norm gains stay as they are; they
# are a tiny part. Nothing is retrained. Write down your guesses before you run on:
#
# - At 8 bits, does the loss rise by more or less than 0.5 %?
# - At how many bits does it rise by more than 3 %, with one scale for each tensor?
# - Which is better: 4 bits with one scale per tensor, or 3 bits with one per 32 weights?
#
# In words: for each matrix, fit scales, round them to fp16 (that is how the file will hold
# them), quantise, and put the dequantised weights into the model. The check counts: a row on a
# symmetric 3-bit grid can hold at most 7 different weights, and the vectors must not have moved.


# %% tags=["essential"]
def quantize_matrix(w, n_bits, group, symmetric=True):
    group_size = {"tensor": w.numel(), "row": w.shape[-1]}.get(group, group)
    scale, zero = fit_scale(w, n_bits, group_size, symmetric)
    scale = scale.half().clamp(2**-24, 65504).float()  # stored in 2 bytes, never as 0 or infinity
    return quantize(w, scale, zero, n_bits), scale, zero


def round_state(state, n_bits, group, symmetric=True):
    return {name: dequantize(*quantize_matrix(w, n_bits, group, symmetric)) if w.ndim == 2 else w
            for name, w in state.items()}


# %% tags=["check"]
rounded = round_state(weights, 3, "row")
for name, w in weights.items():
    assert rounded[name].shape == w.shape
    if w.ndim == 2:
        assert max(len(row.unique()) for row in rounded[name]) <= 7
        bound = w.abs().amax(1, keepdim=True) / 3 / 2 * 1.01  # half a step, fp16 scales allowed for
        assert ((rounded[name] - w).abs() <= bound).all()
    else:
        assert torch.equal(rounded[name], w)
print(f"{len(rounded)} tensors: at most 7 values a row, errors within half a step, gains untouched")

# %%
loss = {(b, g): held_out_loss(round_state(weights, b, g)) for b in BITS for g in GROUPS}
increase = {key: 100 * (value / base_loss - 1) for key, value in loss.items()}
print(f"loss in nats/token (fp32: {base_loss:.3f}) and its rise in percent")
print("bits " + "".join(f"{NAMES[g]:>22}" for g in GROUPS))
for b in BITS:
    print(f"{b:4} " + "".join(f"{loss[b, g]:13.3f} {round(increase[b, g], 1) + 0.0:6.1f} %"
                              for g in GROUPS))
assert abs(increase[8, "row"]) < 0.5
assert increase[4, 32] < increase[4, "tensor"]

# %% [markdown]
# Near a minimum the loss is a bowl: it rises with the *square* of how far the weights are moved. If
# that is all, the rise must follow the law of the error, $\Delta L \propto m^{-2}$, and we can fit
# the exponent as before. The fit leaves out both ends: at 8 bits there is hardly a rise to fit, and
# 2 bits are no small push.

# %%
drawn = {g: [max(increase[b, g], FLOOR) for b in BITS] for g in GROUPS}  # a logarithm needs > 0
middle = slice(BITS.index(3), BITS.index(6) + 1)
all_steps = 2.0 ** (np.array(BITS) - 1) - 1
rises = {g: fit_power_law(all_steps[middle], drawn[g][middle]) for g in GROUPS}
for g, law in rises.items():
    print(f"{NAMES[g]:20} rise ∝ steps^-{interval(law.exponent, law.low, law.high, 2)}")

# %%
(ax,) = panels(title="Quantised without retraining")
for number, (g, law) in enumerate(rises.items()):
    ax.plot(BITS, drawn[g], "o", color=f"C{number}",
            label=f"{NAMES[g]}: exponent {interval(law.exponent, law.low, law.high, 2)}")
    ax.plot(BITS, law.predict(all_steps), "--", color=f"C{number}")
_ = label(ax, "bits of one code", "rise of the held-out loss (%)",
          f"dashes: fitted at 3 to 6 bits; below {FLOOR} % drawn there", log="y")

# %% [markdown]
# **Reading.** Your guesses first: at 8 bits the rise is far below 0.5 %; with one scale per tensor
# it passes 3 % at 5 bits; and 3 bits in groups of 32 beat 4 bits with one scale per tensor.
#
# At 8 bits hardly anything happens: a few hundredths of a percent, not far from the dashes, which
# were fitted without it. In the middle the rise is roughly a power law in the steps with an
# exponent a little above 2; the intervals are wide, because each fit has four points. From 6 to 4
# bits the chain holds for rows and groups: bits set the step, the step sets the squared error, the
# squared error sets the loss. The "cliff" below 4 bits has two causes. The steps run out: from 4
# to 3 to 2 bits they fall from 7 to 3 to 1. And the bowl ends: from 4 to 3 bits the squared error
# grows by $(7/3)^2 \approx 5.4$, but the rise of the loss by 8 to 10 for groups and rows.
#
# At 2 bits the dashes mean nothing any more. A model that knows nothing, and gives each of the 256
# bytes the same chance, has the loss $\ln 256 \approx 5.55$, a rise of about 400 %. All three are
# near there or worse; that two dashes pass through such points is chance. From 3 to 6 bits, one
# scale for fewer weights moves the line down.
#
# Compare with LLaMA-7B, rounded to nearest with an affine grid per row (table of the GPTQ
# repository): a WikiText2 perplexity of 6.29 at 4 bits and 25.54 at 3, from 5.68 in fp16.
# Logarithms turn that into a loss that rises by about 6 % and by about 87 %. An affine grid has
# $2^b - 1$ steps, so from 4 to 3 bits the law allows a factor $(15/7)^2 \approx 4.6$. There it is
# about 15. A rise of 87 % is no small push any more, and the bowl is no guide so far from its
# bottom.
#
# ## When bits are scarce, no code may lie idle
#
# The symmetric grid leaves one code out. At 8 bits that is 1 of 256, at 2 bits 1 of 4. The affine
# rule uses them all. It also follows a group whose largest and smallest weights differ in size, as
# they do in a group of 32. Its zero points cost space: one more code for each group.

# %%
for b in (4, 3, 2):
    affine = held_out_loss(round_state(weights, b, 32, symmetric=False))
    print(f"{b} bits, groups of 32: symmetric {loss[b, 32]:.3f}, affine {affine:.3f} nats/token")

# %% [markdown]
# **Reading.** The fewer the bits, the more the idle code costs. At 3 bits the affine grid halves
# the rise; at 2 bits it takes the loss from that of a model that knows nothing to half of it. The
# zero point costs $b$ bits for each group: at most an eighth of a bit per weight here.
#
# ## Real bytes: two codes in one byte
#
# So far nothing has become smaller. `round_state` gives back fp32 numbers that merely look
# quantised. Even the int8 codes waste half a byte each at 4 bits. To *store* 4-bit codes we must
# put two into one byte:
#
# $$\text{byte} = (q_1 \bmod 16) + 16\,(q_2 \bmod 16).$$
#
# The remainder modulo 16 keeps the low four bits: −1 becomes 15, −8 becomes 8. If the number of
# codes is odd, the last byte is filled up with a 0; so the reader must be told the length.


# %% tags=["essential"]
def pack_int4(codes):
    check_int4(codes)
    half_bytes = (codes.flatten() & 15).to(torch.uint8)  # −8 … −1 become 8 … 15
    half_bytes = torch.cat([half_bytes, half_bytes.new_zeros(len(half_bytes) % 2)])
    return half_bytes[0::2] | half_bytes[1::2] << 4


def unpack_int4(packed, n):
    check_packed(packed, n)
    half_bytes = torch.stack([packed & 15, packed >> 4], dim=1).flatten()[:n]
    return (half_bytes ^ 8).to(torch.int8) - 8  # 8 … 15 become −8 … −1 again


# %% tags=["check"]
for n in (0, 1, 2, 7, 1000):
    codes = torch.from_numpy(rng.integers(-8, 8, n).astype(np.int8))
    packed, padded = pack_int4(codes), [*codes.tolist(), 0]
    by_hand = [padded[i] % 16 + 16 * (padded[i + 1] % 16) for i in range(0, n, 2)]
    assert packed.tolist() == by_hand
    assert torch.equal(unpack_int4(packed, n), codes)
for ends in ([-8], [7], [-8, 7, -8], [-8] * 4, [7] * 5):
    codes = torch.tensor(ends, dtype=torch.int8)
    assert unpack_int4(pack_int4(codes), len(ends)).tolist() == ends
print("equal to arithmetic on Python integers; back again for 0, odd, even lengths and both ends")

# %% [markdown]
# ## The model in a file
#
# A weight costs its code and its share of the scale. With fp16 scales that is
#
# $$\text{bits per weight} = b + \frac{16}{g} .$$
#
# Four bits in groups of 32 are 4.5 bits, not 4. We write the model to disk, with a header, norm
# gains in fp32 and everything that is needed to read it back, and count the bytes of the *file*.
# The rivals are the same weights in fp32 and in fp16: half the bytes for no work at all.
#
# Then the files are read back, as by someone who has nothing else. The weights must equal the
# rounded ones exactly, and the loss with them. Last, the formula should say what the disk says,
# except for the header and the norm gains. Then we may use it for widths that we did not write.

# %%
folder = tempfile.TemporaryDirectory()
config = json.dumps(asdict(model.config))
files = {name: Path(folder.name) / f"{name}.safetensors"
         for name in ("fp32", "fp16", "int8 row", "int4 row", "int4 32")}
save_file(weights, files["fp32"], {"config": config})
save_file({name: w.half() for name, w in weights.items()}, files["fp16"], {"config": config})
save_quantized(weights, files["int8 row"], 8, "row", config=config)
save_quantized(weights, files["int4 row"], 4, "row", config=config)
save_quantized(weights, files["int4 32"], 4, 32, config=config)
n_bytes = {name: file.stat().st_size for name, file in files.items()}
for name, size in n_bytes.items():
    print(f"{name:9} {size:7} bytes on disk, {size / n_bytes['fp32']:6.1%} of fp32")

# %%
for name, key in (("int8 row", (8, "row")), ("int4 row", (4, "row")), ("int4 32", (4, 32))):
    state, facts = load_quantized(files[name])
    assert all(torch.equal(state[k], w) for k, w in round_state(weights, *key).items())
    read_back = held_out_loss(state)
    assert read_back == loss[key]
    print(f"{name}: read back, loss {read_back:.3f}, the same as in the table")
assert json.loads(facts["config"]) == asdict(model.config)
halves = {name: w.float() for name, w in load_file(files["fp16"]).items()}
print(f"fp16: read back, loss {held_out_loss(halves):.3f}")
assert n_bytes["int4 32"] <= 0.16 * n_bytes["fp32"]


# %%
def payload(n_bits: int, group: str | int) -> float:
    """Bytes of codes and scales of all matrices, by the formula."""
    matrices = [w for w in weights.values() if w.ndim == 2]
    size = {"tensor": lambda w: w.numel(), "row": lambda w: w.shape[1]}
    return sum(w.numel() * (n_bits + 16 / size.get(group, lambda w: group)(w)) / 8
               for w in matrices)


for name, key in (("int8 row", (8, "row")), ("int4 32", (4, 32))):
    print(f"{name}: formula {payload(*key):.0f} bytes, the file has "
          f"{n_bytes[name] / payload(*key) - 1:.1%} more")
rest = n_bytes["int4 32"] - payload(4, 32)  # header and norm gains

# %%
(ax,) = panels(title="What a byte on disk buys")
for g in GROUPS:
    ax.plot([(payload(b, g) + rest) / 1000 for b in BITS], drawn[g], "o-", label=NAMES[g])
_ = label(ax, "file (kB)", "rise of the held-out loss (%)",
          f"fp16 stands outside, at {n_bytes['fp16'] / 1000:.0f} kB", log="y")

# %%
for allowed in ALLOWED:
    good = [key for key in loss if increase[key] <= allowed]
    b, g = min(good, key=lambda key: payload(*key))
    kilo = (payload(b, g) + rest) / 1000
    print(f"loss at most {allowed:4} % up: {b} bits, {NAMES[g]}, {kilo:.0f} kB "
          f"({1000 * kilo / n_bytes['fp32']:.0%} of fp32)")

# %% [markdown]
# **Reading.** Go along the curves from right to left. At first the file shrinks and the loss
# hardly moves; then each further bit is paid for, and dearly. Scales cost bytes too: groups of 16
# would cost as much as one more bit for every code. The lowest curve at a file size is the best
# buy. Here it is one scale per row at nearly every size: at equal *bits* groups of 32 have the
# smaller loss, at equal *bytes* they do not earn their scales. The printed lines name the smallest
# file for a rise that you can bear. All of this is for symmetric grids.
#
# Two warnings. The fp16 file is half of fp32, and the printed loss shows no cost. So "seven times
# smaller" than fp32 is three and a half times smaller than what anybody would use. And the header
# is paid once: it shows in a model of a few hundred kB and vanishes in a large one.
#
# ## Bytes, not speed
#
# Is the int4 model faster? **Not here.** We read codes and turn them back into fp32 before the
# first multiplication. From then on the same matrices of the same type are multiplied.

# %%
state, facts = load_quantized(files["int4 32"])
in_memory = sum(w.numel() * w.element_size() for w in state.values())
print(f"on disk {n_bytes['int4 32']} bytes, in memory after reading {in_memory} bytes")
# the same model shape, so one count; training spends 6 FLOPs for each multiply-add
print(f"multiply-adds per token before and after: the same, "
      f"{flops_per_token(model.config, model.config.context) // 6}")
folder.cleanup()

# %% [markdown]
# Weight-only int4 that is dequantised to fp32 saves disk and transfer. It saves memory and time
# only with a kernel that reads the packed codes and unpacks them on the way to the multiplier. Then
# one-token decoding, which waits for weights to arrive from memory, gains most. Of the article's
# three savings (storage, transfer, compute) this chapter has shown two.
#
# ## Exercises
#
# **12.1** (read off) `harm` plants weight `[0, 0]` of a matrix with rows of 64. There is one scale
# per 32 weights. How many *other* weights can get a larger error? Compare the figure of
# outliers: why is the curve of the groups so low?

# %% tags=["exercise"]
def weights_at_risk():
    """Number of other weights whose step grows with the planted one, in groups of 32."""
    return NotImplemented


# %% tags=["exercise-check"]
check("12.1", weights_at_risk)
# hint("12.1")
# solution("12.1")

# %% [markdown]
# **12.2** (apply) How large is the file, as a share of fp32, if each group of $g$ weights has a
# scale of `scale_bits` bits, and an affine grid adds a zero point of $b$ bits to each group?
# Leave out the header.

# %% tags=["exercise"]
def share_of_fp32(n_bits, group_size, scale_bits, affine):
    """Bits per weight, all included, divided by 32. `affine` is True or False."""
    return NotImplemented


# %% tags=["exercise-check"]
check("12.2", share_of_fp32)
# hint("12.2")
# solution("12.2")

# %% [markdown]
# **12.3** (implement) The step need not reach the largest weight. A scale of
# $s = c\,\max|w|/m$ with $c < 1$ clips the few largest weights and rounds all others more finely.
# Find the best $c$ of a list for a symmetric grid.

# %% tags=["exercise"]
def best_clip(w, n_bits, fractions):
    """The number c in `fractions` whose scale gives the least mean squared error.

    `w` is a torch tensor; codes run from -2**(n_bits-1) to 2**(n_bits-1) - 1.
    """
    return NotImplemented


# %% tags=["exercise-check"]
check("12.3", best_clip)
# hint("12.3")
# solution("12.3")

# %% [markdown]
# **12.4** (derive and implement) Codes of two bits run from −2 to 1, and four fit into a byte.
# Derive the formula of the byte, as above for `pack_int4`: the first code in the
# lowest bits. Fill the last byte up
# with zeros.

# %% tags=["exercise"]
def pack_2bit(codes):
    """Bytes (torch.uint8, ⌈n/4⌉ of them) of n codes −2 … 1 (torch.int8); n may be 0."""
    return NotImplemented


# %% tags=["exercise-check"]
check("12.4", pack_2bit)
# hint("12.4")
# solution("12.4")

# %% [markdown]
# ## Play: bits, groups, and the grid
#
# Each weight is divided by the largest of its group, so that all groups share one axis. The curve
# is the histogram, the points are the levels. Watch what a smaller group does to the *curve*, and
# what bits do to the *points*. Error, bytes and loss stand below; the losses are those measured
# above.


# %% tags=["widget"]
def grid_picture(n_bits: int, group: str | int) -> dict:
    """Histogram of all weights over their group's largest, the levels, and what they cost."""
    matrices = {name: w for name, w in weights.items() if w.ndim == 2}
    m = 2 ** (n_bits - 1) - 1
    noise, x = [], []
    for w in matrices.values():
        codes, scale, zero = quantize_matrix(w, n_bits, group)
        x.append((w.reshape(len(scale), -1) / scale / m).flatten())
        noise.append((dequantize(codes, scale, zero) - w).flatten())
    edges = np.linspace(-1.025, 1.025, 42)
    share = 100 * np.histogram(torch.cat(x), edges)[0] / in_matrices
    power = torch.cat([w.flatten() for w in matrices.values()]).double().square().sum()
    error = 10 * torch.log10(torch.cat(noise).double().square().sum() / power)
    text = (f"{n_bits} bits, {NAMES[group]}: error {error:.1f} dB of the weights, file "
            f"{(payload(n_bits, group) + rest) / 1000:.0f} kB, loss {loss[n_bits, group]:.3f} "
            f"nats/token (fp32 {base_loss:.3f})")
    lines = [series("line", (edges[1:] + edges[:-1]) / 2, share, "all weights"),
             series("points", np.arange(-m, m + 1) / m, np.zeros(2 * m + 1), "levels")]
    return picture(lines, "weight / largest weight of its group", "share of the weights (%)",
                   (-1.1, 1.1), (-0.6, 12), "Does the grid fit the weights?", "", text)


explore(grid_picture,
        n_bits=ipywidgets.SelectionSlider(options=BITS, value=4, description="bits"),
        group=ipywidgets.Dropdown(options=[(NAMES[g], g) for g in GROUPS], value="row",
                                  description="scales"))

# %% [markdown]
# ## Recap
#
# - A quantiser is a scale, a zero point and a rounding. The squared error is $s^2/12$: with twice
#   the steps it falls by 4, about 6 dB per bit.
# - The step follows the largest weight of a group. Small groups limit what an outlier can spoil and
#   cost $16/g$ bits per weight.
# - The held-out loss rises like the squared error of the weights, as long as the rise is small.
# - Two int4 codes in a byte, fp16 scales, a header: count the bytes of the file, not of the idea.
#   Against fp16 the gain is half of what it is against fp32.
#
# **Limits.** One small model, one text, no retraining, no calibration. Activations and the KV cache
# stayed in floating point, and nothing became faster. A fair rival at equal bytes is a smaller
# model that was trained as well.
#
# **What to read next.** Frantar et al. 2022 (GPTQ) round one column at a time and let the other
# columns make up for the error. Lin et al. 2023 (AWQ) and Xiao et al. 2022 (SmoothQuant) move
# outliers from where they hurt to where they do not. Kumar et al. 2024 write bits into the scaling
# law itself. Chapter 13 (planned)
# puts pruning, quantisation and entropy coding on top of each other.
