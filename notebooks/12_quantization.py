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
# A weight of the course's model takes 32 bits. **How few bits are enough, what does each bit cost
# that you take away, and is the result better than a smaller model of the same size?**
#
# After this notebook you can
#
# 1. quantise a tensor by hand, predict its error from the number of bits, and say why one outlier
#    can ruin it;
# 2. round a model with GPTQ, train it through the rounding, and say from how many bits on each is
#    worth its effort;
# 3. measure bytes in a file, loss on held-out text and milliseconds per token, each against a dense
#    rival of the same cost.
#
# Runs in about 1 minute on a CPU. A GPU changes nothing here. Before this: chapters 06 and 08.
#
# The articles name "better compression" as a lever that cuts storage, transfer and compute. This
# chapter measures all three.
#
# | symbol | code | meaning | unit |
# |---|---|---|---|
# | $w$ | `w`, `W` | weights: a matrix (rows are output channels), the one we look at | – |
# | $b$ | `n_bits` | bits of one code | bits |
# | $g$ | `group_size` | weights that share one scale | – |
# | $s$ | `scale` | distance between two neighbouring levels | as $w$ |
# | $z$ | `zero` | the code that stands for 0 (zero point) | – |
# | $q$ | `codes` | the integers that are stored | – |
# | $\hat w$ | `dequantize(…)` | the weights that the codes stand for | as $w$ |
# | $m$ | `steps` | levels above zero of a symmetric grid: $2^{b-1}-1$ | – |
# | $X$, $H$ | `H` | inputs of a layer, one row a token; $X^TX$ | – |
# | $U$ | `U` | upper triangle with $U^TU = H^{-1}$ | – |
# | $L$, rise | `loss`, `rise` | held-out loss; its rise over the dense model's | nats/token, % |
# | $N$ | `N` | weights without the embedding | – |
# | $1 - N_{eff}/N$ | `lost` | share of $N$ that a dense model of the same loss does not need | – |
# | $\gamma$ | `gamma` | bits after which the lost share of $N$ falls by a factor e | bits |
#
# *Dense* means: not compressed, fp32. A grid is named after the weights that share a scale: *per
# tensor* ($g$ is the size of the tensor), *per row* (each output channel has its scale) or *per
# group* (here 32 neighbours in a row).

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

from helpers import data, runtime
from helpers.compress.cache import QuantizedCache
from helpers.compress.decode import Decoder, decode_graph
from helpers.compress.gptq import calibrate, gptq_model, output_error
from helpers.compress.packing import check_codes, check_packed, load_quantized, save_quantized
from helpers.compress.quantize import EMBED_BITS, Quantized, check_groups, half_scale
from helpers.corpora import tokenised
from helpers.exercises import check, hint, solution
from helpers.fits import fit_power_law, fit_power_law_offset
from helpers.plots import interval, label, panels
from helpers.transformer import training
from helpers.transformer.checkpoints import load_tokenised
from helpers.widgets import explore, picture, series

# %% tags=["config"]
SEED = 0
N_WINDOWS, SEQ = 32, 128  # held-out windows of the live examinations, and tokens in each
N_CALIBRATION = 32  # windows of training text that GPTQ looks at, live
N_CHECKED = 2  # windows on which ONNX Runtime is compared with PyTorch
MATRIX = "blocks.0.up.weight"  # the matrix we look at closely
BITS = (2, 3, 4, 6, 8)
GROUPS = ("tensor", "row", 32)  # what shares one scale
NAMES = {"tensor": "one scale per tensor", "row": "one per row", 32: "one per 32 weights"}
LAW_BITS = (3, 4, 5, 6, 7, 8)  # the bits that the law of the error is fitted on
OUTLIERS = (1, 2, 4, 8, 16, 32, 64)  # size of the planted weight, in largest weights
VARIANTS = {"4 bits, symmetric grids": (4, {"symmetric": True}),  # with one scale per 32 weights
            "3 bits, symmetric grids": (3, {"symmetric": True}),
            "4 bits, the embedding too": (4, {"embed_bits": 4})}
BARS = {8: 0.5, 4: 3.0}  # percent: rises of the loss that int8 and int4 may cost
SHARE = 0.16  # of fp32: what the int4 file may take
GAMMA_KUMAR = 2.67  # bits; Kumar et al. 2024, for weights
WIDTHS = (32, 48, 64, 96, 128)  # the dense family at equal data
N_BOOTSTRAP = 1000

# %% [markdown]
# ## The model and its examination
#
# The model is the course's GPT: width 128, four layers, 1024 tokens. The examination is prose that
# it never saw. Weights are quantised from fp32. The live losses are computed in float64, so that
# the printed digits speak of the weights and not of the machine's sums.
#
# There are two kinds of numbers in this chapter. *Live* ones are computed here, on a few windows of
# text. *Recorded* ones come from `data/sweeps/quantization.csv`: the same functions, for many
# models, on 500 windows (`make record TABLE=quantization` makes it again).

# %%
rng = runtime.setup(SEED)
model, merges = load_tokenised(data.path("models/gpt_prose.safetensors"))
weights = {name: w.clone() for name, w in model.state_dict().items()}  # fp32
train_tokens, held_out, tokens_per_byte = tokenised(merges)
windows = data.windows(held_out, N_WINDOWS, SEQ)
calibration = data.windows(train_tokens, N_CALIBRATION, SEQ)
model = model.double()


def held_out_loss(state: dict) -> float:
    """Loss of the model with the weights of `state`, in nats per token."""
    model.load_state_dict(state)
    return training.evaluate(model, windows)



def rise_of(quantized: dict) -> float:
    """Rise of the held-out loss in percent of the dense model's."""
    return 100 * (held_out_loss(dequantize_state(quantized)) / base_loss - 1)


base_loss = held_out_loss(weights)
n_weights, embedding = sum(w.numel() for w in weights.values()), weights["wte.weight"].numel()
print(f"{n_weights:,} weights, {embedding / n_weights:.1%} of them in the embedding")
print(f"held-out loss, dense: {base_loss:.3f} nats/token; guessing: {np.log(1024):.3f}")

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
# - **Affine**: the grid runs from the smallest to the largest weight (or to 0, if all have one
#   sign): $s = (\max w - \min w)/(2^b - 1)$. The smallest weight gets the lowest code:
#   $z = -2^{b-1} - \operatorname{round}(\min w / s)$. As $z$ is an integer, 0 stays exactly 0.
#
# In words: cut the tensor into groups of $g$ neighbours in a row; find $s$ and $z$ of each group;
# round. Only codes, scales and zero points are kept. `check_groups` refuses sizes that do not
# divide a row.
#
# PyTorch has the same step inside: its `fake_quantize` rounds to the grid and comes straight back,
# with scales and zero points from outside. It multiplies by $1/s$ where the formula divides; so
# does the code. The check hands it our scales; the results must be identical.


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
six = torch.tensor([0.9, -0.31, 0.06, 0.5, -0.75, 1.2])
for name, symmetric in (("symmetric", True), ("affine", False)):
    scale, zero = fit_scale(six, 4, 6, symmetric)
    codes = quantize(six, scale, zero, 4)
    back = dequantize(codes, scale, zero)
    print(f"{name:9}  step {scale.item():.4f}, zero point {zero.item():2.0f}, codes "
          f"{codes.tolist()}\n           {[f'{v:.2f}' for v in six.tolist()]} become\n"
          f"           {[f'{v:.2f}' for v in back.tolist()]}")

# %% [markdown]
# ## The law of the error, and its enemy
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
#
# The same cell tests the weak point. The step follows the *largest* weight of a group, so one
# weight decides how well all others are kept. We plant one weight in the matrix: 1, 2, 4 … times
# as large as its largest. Then we measure the error of all *other* weights, at 4 bits, against
# their error without the plant. The grids here are symmetric.


# %%
def rounding_mse(w, n_bits, group_size):
    """Mean squared error of rounding `w` to its symmetric grid; the first weight is left out."""
    scale, zero = fit_scale(w, n_bits, group_size)
    error = dequantize(quantize(w, scale, zero, n_bits), scale, zero) - w
    return error.flatten()[1:].double().square().mean().item()


sizes = {"tensor": W.numel(), "row": W.shape[1], 32: 32}
steps = 2.0 ** (np.array(LAW_BITS) - 1) - 1
mse = {g: np.array([rounding_mse(W, b, sizes[g]) for b in LAW_BITS]) for g in GROUPS}
step2 = {g: (fit_scale(W, 2, sizes[g])[0].double() ** 2).mean().item() for g in GROUPS}  # m = 1
laws, harms = {g: fit_power_law(steps, mse[g]) for g in GROUPS}, {}
for g, size in product(GROUPS, OUTLIERS):
    planted = W.clone()
    planted[0, 0] = size * W.abs().max()
    harms[g, size] = rounding_mse(planted, 4, sizes[g]) / rounding_mse(W, 4, sizes[g])
found = {g: interval(law.exponent, law.low, law.high) for g, law in laws.items()}
for g in GROUPS:
    print(f"{NAMES[g]:20} mse ∝ steps^-{found[g]}, "
          f"mse / (s²/12) = {np.exp(np.log(mse[g] * steps**2 * 12 / step2[g]).mean()):.3f}; "
          f"planted ×{OUTLIERS[-1]}: × {harms[g, OUTLIERS[-1]]:.3g}")
assert all(abs(law.exponent - 2) < 0.05 for law in laws.values())

# %%
left, right = panels(2, title=f"Rounding {MATRIX}")
for n, g in enumerate(laws):
    left.plot(LAW_BITS, mse[g], f"C{n}o", label=f"exponent −{found[g]}")
    left.plot(LAW_BITS, step2[g] / steps**2 / 12, f"C{n}--")
    right.plot(OUTLIERS, [harms[g, size] for size in OUTLIERS], "o-", label=NAMES[g])
right.set_xscale("log", base=2), right.set_xticks(OUTLIERS, OUTLIERS), left.set_ylim(1e-8, 1e-2)
label(left, "bits of one code", "mse (weights²)", "power law in the steps; dashes $s^2/12$", "y")
label(right, "planted weight / largest weight", "error of the others / before", "4 bits", "y")

# %% [markdown]
# **Reading.** The points lie on dashed lines that were not fitted to them. In the number of
# steps the exponent is −2: 6 dB for each doubling. A smaller group moves the whole line down and
# leaves its slope alone, because it shrinks the step $s$. The printed ratios to $s^2/12$ have a
# reason too: in each group the largest weight sits on a level and has no error at all. One of 32
# weights leaves $31/32 \approx 0.969$ of the error; one of a row of 128, $127/128 \approx 0.992$.
#
# On the right, one scale for the tensor: twice the outlier, twice the step, four times the error.
# Then the curve goes flat. From ×16 on half a step, $16/14$ of the old largest weight, is more than
# any other weight: all are rounded to 0, and their error is the weight itself. The matrix is gone,
# for the sake of one number. With a scale for each
# row the same weight hurts its own row only; with groups, its group only. **Granularity is
# insurance**: it does not make outliers rarer, it limits who pays.
#
# ## Predict first: the whole model
#
# Now all matrices are quantised: embedding, attention, MLP. The norm gains stay; they are a tiny
# part. The embedding is the output head too, and it is sensitive. It
# keeps at least six bits; the table below says what four would cost. Nothing is retrained. From
# here on grids are affine unless said otherwise. Write down your guesses before you run on:
#
# - At 8 bits and one scale per row, does the loss rise by more or less than 0.5 %?
# - At 4 bits and one scale for 32 weights, by more or less than 3 %?
# - Which is better: 4 bits with one scale per tensor, or 3 bits with one per 32 weights?
#
# In words: for each matrix, fit scales, round them to fp16 (that is how the file will hold them;
# `half_scale`), quantise. `Quantized` is a tuple of codes, scale, zero point and bits. The check
# counts: a row on a 3-bit grid can hold at most 8 different weights.


# %% tags=["essential"]
def quantize_matrix(w, n_bits, group, symmetric=True):
    group_size = {"tensor": w.numel(), "row": w.shape[-1]}.get(group, group)
    scale, zero = fit_scale(w, n_bits, group_size, symmetric)
    scale = half_scale(scale)
    return quantize(w, scale, zero, n_bits), scale, zero


def quantize_state(state, n_bits, group, symmetric=False, embed_bits=EMBED_BITS):
    bits = {name: max(n_bits, embed_bits) if name == "wte.weight" else n_bits for name in state}
    return {name: Quantized(*quantize_matrix(w, bits[name], group, symmetric), bits[name])
            if w.ndim == 2 else w for name, w in state.items()}


def dequantize_state(quantized):
    return {name: dequantize(*w[:3]).float() if isinstance(w, Quantized) else w
            for name, w in quantized.items()}


# %% tags=["check"]
rounded = dequantize_state(quantize_state(weights, 3, "row"))
for name, w in weights.items():
    if w.ndim == 2:
        levels = 2**EMBED_BITS if name == "wte.weight" else 2**3
        assert max(len(row.unique()) for row in rounded[name]) <= levels
        step = (w.amax(1).clamp(min=0) - w.amin(1).clamp(max=0)) / (levels - 1)
        assert ((rounded[name] - w).abs() <= 1.01 * step[:, None]).all()  # fp16 scales
print("at most 8 values a row, 64 in the embedding; each weight moved by at most a step")

# %%
rise = {(b, g): rise_of(quantize_state(weights, b, g)) for b in BITS for g in GROUPS}
for g in GROUPS:
    print(f"{NAMES[g]:20} " + "  ".join(
        f"{b} bits {round(rise[b, g], 2) + 0.0:+6.2f} %" for b in BITS))
for what, (b, change) in VARIANTS.items():
    print(f"one per 32 weights, {what}: {rise_of(quantize_state(weights, b, 32, **change)):+.2f} %")
assert max(rise[8, "row"] / BARS[8], rise[4, 32] / BARS[4]) <= 1

# %% [markdown]
# **Reading.** At 8 bits hardly anything happens, whatever shares a scale. At 4 bits one scale per
# 32 weights costs less than 1 %, and one scale per tensor five times as much. Three bits in small
# groups do about as well as four bits with one scale per tensor. At 2 bits nothing of this is of
# use. The symmetric grid costs a little at 4 bits and dearly at 3. It leaves one code idle, 1 of 16
# or 1 of 8, and it must reach as far down as up, even where the weights of a group do not. (Which
# of the two costs more is not tested here.) And an embedding of 4 bits, a seventh of all weights,
# would nearly double the rise.
#
# ## Real bytes: two codes in one byte
#
# So far nothing has become smaller. Dequantised weights are fp32 numbers that merely look
# quantised. Even the int8 codes waste half a byte each at 4 bits. To *store* 4-bit codes we must
# put two into one byte:
#
# $$\text{byte} = (q_1 \bmod 16) + 16\,(q_2 \bmod 16).$$
#
# The remainder modulo 16 keeps the low four bits: −1 becomes 15, −8 becomes 8. If the number of
# codes is odd, the last byte is filled up with a 0; so the reader must be told the length. Other
# widths need codes that straddle two bytes: `pack_bits` in `helpers/compress/packing.py` does that
# for 2 to 8 bits, and at 4 bits writes the same bytes.


# %% tags=["essential"]
def pack_int4(codes):
    check_codes(codes, 4)
    half_bytes = (codes.flatten() & 15).to(torch.uint8)  # −8 … −1 become 8 … 15
    half_bytes = torch.cat([half_bytes, half_bytes.new_zeros(len(half_bytes) % 2)])
    return half_bytes[0::2] | half_bytes[1::2] << 4


def unpack_int4(packed, n):
    check_packed(packed, n, 4)
    half_bytes = torch.stack([packed & 15, packed >> 4], dim=1).flatten()[:n]
    return (half_bytes ^ 8).to(torch.int8) - 8  # 8 … 15 become −8 … −1 again


# %% tags=["check"]
for n in (0, 1, 2, 7, 1000):
    codes = torch.from_numpy(rng.integers(-8, 8, n).astype(np.int8))
    codes[:2] = torch.tensor([-8, 7], dtype=torch.int8)[:n]  # both ends of the range
    packed, padded = pack_int4(codes), [*codes.tolist(), 0]
    by_hand = [padded[i] % 16 + 16 * (padded[i + 1] % 16) for i in range(0, n, 2)]
    assert packed.tolist() == by_hand
    assert torch.equal(unpack_int4(packed, n), codes)
print("equal to arithmetic on Python integers; back again for 0, odd, even lengths and both ends")

# %% [markdown]
# ## The model in a file
#
# A weight costs its code and its share of scale and zero point. With fp16 scales and an affine grid
# that is
#
# $$\text{bits per weight} = b + \frac{16 + b}{g} .$$
#
# Four bits in groups of 32 are 4.625 bits, not 4. We write the model to disk with everything that
# is needed to read it back: header, tokeniser, norm gains in fp32. We count the bytes of the
# *file*. The rivals are the same weights in fp32 and in fp16: half the bytes for hardly any work.
# Then the files are read back, as by someone who has nothing else.

# %%
folder = tempfile.TemporaryDirectory()
facts = {"config": json.dumps(asdict(model.config)), "merges": json.dumps(merges)}
files = {name: Path(folder.name) / f"{name}.safetensors"
         for name in ("fp32", "fp16", "int8 row", "int4 row", "int4 32")}
save_file(weights, files["fp32"], facts)
save_file({name: w.half() for name, w in weights.items()}, files["fp16"], facts)
for name, key in (("int8 row", (8, "row")), ("int4 row", (4, "row")), ("int4 32", (4, 32))):
    quantized = quantize_state(weights, *key)
    save_quantized(quantized, files[name], **facts)
    assert rise_of(load_quantized(files[name])[0]) == rise[key]
n_bytes = {name: file.stat().st_size for name, file in files.items()}
for name, size in n_bytes.items():
    print(f"{name:9} {size:9,} bytes on disk, {size / n_bytes['fp32']:6.1%} of fp32")
halves = {name: w.float() for name, w in load_file(files["fp16"]).items()}
assert abs(held_out_loss(halves) / base_loss - 1) < 1e-4
print("read back: fp16 within 0.01 % of the dense loss, the others exactly the table's losses")
assert n_bytes["int4 32"] <= SHARE * n_bytes["fp32"]
folder.cleanup()

# %% [markdown]
# **Reading.** The formula says $4.625/32 = 14.5$ % for groups of 32; the embedding's six bits, the
# header and the tokeniser bring the file to just under 16 %. Two warnings. The fp16 file is half of
# fp32 at no cost that one can see. So "six times smaller" than fp32 is three times smaller than
# what anybody would use. And scales cost bytes too: groups of 32 make the file about a tenth
# larger than rows.
#
# ## GPTQ: let the others make up for it
#
# Rounding to nearest (RTN) treats each weight alone. But what counts is the *output* of the layer,
# $X w^T$, and its inputs $X$ are correlated. If rounding makes one weight too large, a neighbour
# that sees nearly the same input can be made a little smaller. The change of the outputs, summed
# over all tokens of a calibration text, is
#
# $$\|X\hat w^T - X w^T\|^2 = \operatorname{tr}\,(\hat w - w)\,H\,(\hat w - w)^T, \qquad H = X^TX
# .$$
#
# This is a bowl whose curvature we know. So: round column 1. Move all later columns to where the
# bowl is lowest, given that error. Round column 2, and so on. The best move has a closed form. With
# $U$ the upper triangle of $U^TU = H^{-1}$, and $e_j = w_{:,j} - \hat w_{:,j}$ the error of column
# $j$ (one number a row),
#
# $$w_{:,k} \leftarrow w_{:,k} - \frac{e_j}{U_{jj}}\,U_{jk} \quad\text{for all } k > j .$$
#
# This is GPTQ (Frantar et al. 2022). Two details: 1 % of the mean of $H$'s diagonal is added to
# the diagonal (*damping*: rare inputs must not promise too much), and a group's scale is fitted
# when its first column is reached.


# %% tags=["essential"]
def gptq(w, H, n_bits, group_size, symmetric=False, damping=0.01):
    w, d_in = w.double().clone(), w.shape[1]
    H = H + damping * H.diagonal().mean() * torch.eye(d_in, dtype=H.dtype)
    U = torch.linalg.cholesky(torch.linalg.inv(H), upper=True)  # UᵀU = H⁻¹
    codes, scales, zeros = torch.empty_like(w, dtype=torch.int8), [], []
    for j in range(d_in):
        if j % group_size == 0:
            group = w[:, j : j + group_size].contiguous()
            scale, zero = fit_scale(group, n_bits, group_size, symmetric)
            scale = half_scale(scale)
            scales.append(scale), zeros.append(zero)
        codes[:, j] = quantize(w[:, j], scale, zero, n_bits)
        error = (w[:, j] - dequantize(codes[:, j], scale, zero)) / U[j, j]
        w[:, j + 1 :] -= error[:, None] * U[j, j + 1 :]
    flat = (torch.cat(x, dim=1).reshape(-1, 1).float() for x in (scales, zeros))
    return codes, *flat  # groups in the order of quantize_matrix


# %% tags=["check"]
model.load_state_dict(weights)
hessians = calibrate(model, calibration)  # of each linear layer's inputs
alone, ratios = torch.eye(W.shape[1], dtype=torch.float64), []
for b in (3, 4):  # uncorrelated inputs: nothing to make up for, so the same codes as RTN
    for ours, nearest in zip(gptq(W, alone, b, 32), quantize_matrix(W.double(), b, 32, False),
                             strict=True):
        assert torch.equal(ours.double(), nearest.double())
    for name, H in hessians.items():
        w = weights[name]
        nearest, ours = quantize_matrix(w, b, 32, False), gptq(w, H, b, 32)
        ratios.append(output_error(w, dequantize(*ours), H)
                      / output_error(w, dequantize(*nearest), H))
assert max(ratios) < 1
print(f"H = 1: equal to RTN. {len(hessians)} layers, 3 and 4 bits: squared output error against RTN"
      f"\n{min(ratios):.2f} … {max(ratios):.2f}, on the calibration text")

# %%
for b in (4, 3):
    model.load_state_dict(weights)
    ours = rise_of(gptq_model(model, calibration, b, 32))
    print(f"{b} bits, one scale per 32 weights: loss +{rise[b, 32]:.2f} % by RTN, "
          f"+{ours:.2f} % by GPTQ, on text that neither saw")
    assert ours < rise[b, 32]

# %% [markdown]
# **Reading.** About half the damage is gone on these windows, and nothing was trained: GPTQ saw a
# few thousand tokens of training text. In each of the 16 layers the outputs moved less than
# with RTN, though nothing in the algorithm guarantees that: it looks ahead one column at a time.
# The embedding is left to RTN. It is a table as well as a head, and what is best for the one is not
# for the other.
#
# For LLaMA-7B the GPTQ repository reports *perplexities* on WikiText2 ($e^L$, with $L$ in nats per
# token): 5.68 in fp16; at 4 bits 6.29 by RTN and 6.09 by GPTQ; at 3 bits 25.54 and 8.07. The order
# is the same. The gap at 3 bits is larger than ours.
#
# ## Training through the rounding
#
# GPTQ looks at one layer at a time. Training sees the whole. But rounding has derivative zero
# nearly everywhere, so no gradient comes through. The trick is a white lie, the *straight-through
# estimator*: round on the way forward; on the way back, pretend that nothing was rounded:
#
# $$\hat w = \text{round to grid}(w), \qquad \frac{\partial L}{\partial w} :=
#   \frac{\partial L}{\partial \hat w} .$$
#
# The optimiser moves the true, unrounded weights; the loss sees the rounded ones. This is
# quantisation-aware training (QAT). It costs training steps, so its fair rival is a model that was
# *trained* for those steps and then rounded. That rival exists: the course's model was trained for
# 3,072 steps, QAT adds 384, and the rival has 3,456 dense steps. All are recorded; the dense ones
# are rounded by RTN and by GPTQ.


# %% tags=["essential"]
class RoundThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, n_bits, group):
        return dequantize(*quantize_matrix(w, n_bits, group, symmetric=False))

    @staticmethod
    def backward(ctx, dy):
        return dy, None, None  # as if nothing had been rounded


# %% tags=["check"]
w, x = W.double().requires_grad_(), W[:4].double()
rounded = dequantize(*quantize_matrix(w.detach(), 3, 32, symmetric=False))
out, by_hand = RoundThrough.apply(w, 3, 32), w + (rounded - w).detach()  # autograd's own parts
assert torch.equal(out.detach(), rounded)
found, expected = (torch.autograd.grad(((x @ v.T) ** 3).mean(), w)[0] for v in (out, by_hand))
assert torch.allclose(found, expected, rtol=1e-9)
print("forward: exactly the rounded weights; backward: the gradient of w + (ŵ − w).detach()")

# %%
grid = data.table("sweeps/quantization.csv")
whole = grid[(grid.n_windows == 500) & (grid.input_bits == 32) & grid.cache.isna()]


def recorded(method: str, d_model=128, n_steps=3072, **equal):
    """Rows of the grid on 500 windows: method dense, fp16, rtn, gptq or qat."""
    rows = whole[(whole.method == method) & (whole.d_model == d_model) & (whole.n_steps == n_steps)]
    for name, value in equal.items():
        rows = rows[rows[name] == value]
    return rows.sort_values("n_bits")


dense = {n: recorded("dense", n_steps=n).loss.item() for n in (3072, 3456)}
curves = {"RTN, 3,072 steps": recorded("rtn", group="32"),
          "RTN, 3,456 steps": recorded("rtn", n_steps=3456, group="32"),
          "GPTQ, 3,072 steps": recorded("gptq", group="32"),
          "GPTQ, 3,456 steps": recorded("gptq", n_steps=3456, group="32"),
          "QAT, 3,072 + 384 steps": recorded("qat", seed=1)}
for name, rows in curves.items():
    few = rows[rows.n_bits <= 4]
    print(f"{name:23} " + "  ".join(f"{b} bits: {loss:.3f}" for b, loss in
                                    zip(few.n_bits, few.loss, strict=True)))
print(f"dense: {dense[3072]:.3f} after 3,072 steps, {dense[3456]:.3f} after 3,456")
print("QAT at 3 bits, two seeds:", *(f"{loss:.4f}" for loss in recorded("qat", n_bits=3).loss))
for b in (4, 3):
    nearest, ours = (recorded(m, n_bits=b, group="32").loss.item() for m in ("rtn", "gptq"))
    gone = (nearest - ours) / (nearest - dense[3072])
    print(f"{b} bits, 3,072 steps: GPTQ takes away {gone:.0%} of RTN's rise")

# %%
(ax,) = panels(title="Width 128, one scale per 32 weights, 500 windows")
for name, rows in curves.items():
    few = rows[rows.n_bits <= 4]
    ax.plot(few.n_bits, 100 * (few.loss / dense[3456] - 1), "o-", label=name)
ax.axhline(100 * (dense[3072] / dense[3456] - 1), color="0.4", linestyle="--",
           label="dense, 3,072 steps")
ax.set_xticks((2, 3, 4))
label(ax, "bits of one code (embedding: at least 6)", "loss above dense, 3,456 steps (%)", log="y")

# %% [markdown]
# **Reading.** The fewer the bits, the more the training through rounding is worth. At 2 bits QAT
# takes back more than half of what GPTQ loses. At 3 bits it still beats its fair rival, the longer
# dense training with GPTQ on top, but only just. The lead is several times the difference between
# two seeds of QAT. But QAT also had a bonus: its learning rate was picked among four on the
# held-out text, at 3 bits. How much of the small lead that explains was not measured. At 4 bits QAT
# loses: the steps were better spent on dense training, and GPTQ costs little there. So: GPTQ at 4
# bits, QAT at 2, and at 3 QAT by a hair.
#
# On 500 windows GPTQ's gain over RTN is a little smaller than on our few live ones.
#
# ## What else can be rounded: inputs and the KV cache
#
# Weights are not all that is stored and multiplied. A product of integers needs integer *inputs*
# as well: each token's inputs get their own affine scale, found while the model runs (*dynamic*).
# And a decoder keeps keys and values of all earlier tokens. That cache grows with the text and
# with every user. `QuantizedCache` stores it as packed codes. There are two choices of scale: one
# for each token and head (16 numbers here), found when the token arrives; or one for each head,
# fixed beforehand on training text.
#
# Live, we test that the cache gives what it should. Token by token or a whole window at once must
# come to the same logits. In fp32 a token needs 8 bytes for each layer and unit of the width: a key
# and a value of 4 bytes each. The rest is recorded. There *8 token* means 8 bits and a scale for
# each token and head, and *8 head* a fixed scale for each head. The dense rival is narrower: width
# 64, whose cache has half the bytes, trained for as many FLOPs as 3,456 steps of width 128.

# %%
model.load_state_dict(weights)
tokens, fp32 = torch.from_numpy(windows[:2, :40]), 8 * model.config.n_layer * model.config.d_model
for n_bits in (8, 4):
    cache, at_once = QuantizedCache(SEQ, n_bits), QuantizedCache(SEQ, n_bits)
    with torch.no_grad():
        slow = torch.cat([model(tokens[:, t:t + 1], cache) for t in range(40)], dim=1)
        assert torch.allclose(slow, model(tokens, at_once), atol=1e-9)
    print(f"{n_bits} bits: same both ways, {cache.n_bytes() / tokens.numel() / fp32:.1%} of fp32")

# %%
kept = grid[(grid.n_windows == 500) & (grid.method == "cache")].set_index("cache")
rival = recorded("dense", 64, 11059).assign(cache_bytes=kept.cache_bytes["fp32"] / 2).iloc[0]
for name, row in [*kept.iterrows(), ("rival", rival)]:
    print(f"cache {name:7} {row.cache_bytes / kept.cache_bytes['fp32']:6.1%} of bytes, "
          f"{row.bpb:.3f} bits per byte of text, loss {100 * (row.loss / dense[3072] - 1):+.2f} %")
for row in grid[(grid.input_bits < 32) & (grid.n_windows == 500)].itertuples():
    print(f"weights {row.n_bits} bits ({row.method}), inputs {row.input_bits} bits: "
          f"loss {100 * (row.loss / dense[3072] - 1):+.2f} %")

# %% [markdown]
# **Reading.** Eight bits per token and head cost nothing that one can measure, for less than a
# third of the bytes. Four bits cost about a quarter of a percent at a sixth. The fixed scales save
# bytes (a handful of them serves all tokens, and is not counted). But one grid must do for every
# token, and they need about one bit more for the same loss: 4 bits with fixed scales and 3 bits
# with their own stand at the same loss, and the fixed ones are smaller. With heads of 16 numbers a
# scale and a zero point are dear, 1.5 bits for each number; with heads of 128 they would be a fifth
# of a bit. Two bits fail both ways. The dense rival, though trained for more FLOPs, has a larger
# cache *and* a higher loss than 4 bits per token and head: here rounding wins clearly.
#
# Inputs of 8 bits cost next to nothing; at 4 bits they cost more than weights at 4 bits do.
#
# ## Time: decoding with a kept library
#
# Is the int4 model faster? Not if we turn the codes back into fp32 before the first product: then
# the same matrices of the same type are multiplied. Speed needs a kernel that reads the packed
# codes. What PyTorch has for that on a CPU is deprecated or private; ONNX Runtime has one that is
# kept. `decode_graph` writes the step from one token and its cache to the next logits as a graph of
# operations. The matrices are fp32; or int8 by its own `quantize_dynamic` (one scale per row,
# inputs rounded too); or our GPTQ codes of 4 bits, with the head at 8, in its operation
# `MatMulNBits`.
#
# A fast path that computes something else is worth nothing. So each is examined by real decoding,
# one token at a time, one text at a time: recorded for the losses below, and live on a few texts
# for fp32 and for 4 bits (by RTN, which is quicker).

# %%
model.float().load_state_dict(weights)
texts = windows[:N_CHECKED, :-1]
with torch.inference_mode():
    ours = model(torch.from_numpy(texts)).numpy()
graph = decode_graph(model)
theirs = Decoder(graph).read(texts)
assert np.abs(theirs - ours).max() < 1e-4
int4 = quantize_state(weights, 4, 32, embed_bits=8)
model.load_state_dict(dequantize_state(int4))
with torch.inference_mode():
    ours = model(torch.from_numpy(texts)).numpy()
difference = Decoder(decode_graph(model, int4)).read(texts) - ours
model.double()
print(f"{len(texts)} texts of {SEQ} tokens, {len(graph.graph.node)} operations for each token\n"
      "fp32: logits equal to PyTorch's to 1e-4")
assert difference.std() < 0.1 * ours.std()
print("int4: the kernel also rounds its inputs, so logits differ, by less than a tenth of their "
      "spread")

# %%
latency = data.table("sweeps/latency_quantization.csv")
decoded = grid[grid.n_windows == 100]
onnx = decoded[decoded.method == "onnx"].set_index(["d_model", "n_bits"])
exact = decoded[decoded.method == "dense"].set_index("d_model").loss
KINDS = {"PyTorch fp32": 0, "PyTorch int4 dequantised": 0, "ONNX Runtime fp32": 32,
         "ONNX Runtime int8": 8, "ONNX Runtime int4": 4}
for d, (what, n_bits) in product(sorted(exact.index), KINDS.items()):
    time = latency[(latency.d_model == d) & (latency.what == what)]
    risen = 100 * (onnx.loss[d, n_bits] / exact[d] - 1) if n_bits else 0.0
    print(f"width {d:3}  {what:25} {time.ms.item():.3f} ms a token, × {time.ratio.item():.2f}"
          + (f", loss {round(risen, 2) + 0.0:+.2f} %, {onnx.bytes[d, n_bits] / 1000:.0f} kB"
             if n_bits else ""))
    assert n_bits in (0, 32) or (time.ratio.item() >= 2.5 and risen <= BARS[n_bits])
small = load_tokenised(data.path("models/gpt_small.safetensors"))[0]  # width 64, 11,059 steps
small_loss = training.evaluate(small, data.windows(held_out, 100, SEQ))
ms = latency.set_index(["what", "d_model"]).ms
for d, what, loss in ((128, "ONNX Runtime int4", onnx.loss[128, 4]),
                      (64, "ONNX Runtime fp32", small_loss)):
    print(f"on these 100 windows: width {d:3}, {what}: loss {loss:.3f}, {ms[what, d]:.3f} ms"
          + " (trained for longer: the rival)" * (d == 64))

# %%
(ax,) = panels(title="Decoding, one thread")
for what in ("PyTorch fp32", "ONNX Runtime fp32", "ONNX Runtime int8", "ONNX Runtime int4"):
    losses = [onnx.loss.get((d, KINDS[what]), exact[d]) for d in (64, 128)]
    ax.plot([ms[what, 64], ms[what, 128]], losses, "o-", label=what)
ax.plot(ms["ONNX Runtime fp32", 64], small_loss, "k*", markersize=12,
        label="width 64, trained for longer, fp32")
ax.set_xlim(0.08, 0.52)
label(ax, "time per token (ms)", "held-out loss (nats/token)", "lines: width 64 to 128", "x")

# %% [markdown]
# **Reading.** The printed lines hold both bars: int8 at most 0.5 % and int4 at most 3 % more loss,
# and each at least 2.5 times as fast as eager PyTorch. But look where the speed comes from. At
# width 64 ONNX Runtime in *fp32* is nearly as fast as with int4: most of the gain is the library's,
# not the bits'. Few bits pay where the matrices are large: at width 128 a little, at width 320 a
# lot. Int4 that is turned back into fp32 for PyTorch multiplies the same matrices as fp32 does;
# what is printed there beside 1 is the noise of the measurement. And look at the bytes: these
# graphs hold the embedding in fp32 *besides* the head, so they are larger than our files.
#
# The star is the dense rival: width 64 in fp32, by ONNX Runtime as well, trained for as many FLOPs
# as 3,456 steps of width 128. It is a little faster than int4 at width 128, and its loss is a
# little higher. So neither beats the other. At these widths rounding does not win the race against
# time as it wins the one against bytes; at width 320 no rival of equal time was trained.
#
# ## A law for bits: effective parameters
#
# Chapter 08 fitted loss against size. Turn that law around: which *dense* model would have the loss
# of our rounded one? Its size is the effective number of parameters, $N_{eff} \le N$. With
# $L(N) = E + A N^{-\alpha}$ from the dense family (all widths, equal data), and measured from each
# model's own dense loss,
#
# $$\frac{N_{eff}}{N} = \left(\frac{L(\text{dense}) - E}{L(b \text{ bits}) - E}\right)^{1/\alpha}.$$
#
# Kumar et al. 2024 propose, for weights of $b$ bits, $N_{eff}/N = 1 - e^{-b/\gamma}$, and report
# $\gamma \approx 2.67$ for models that were *trained* at that precision. The lost share
# $1 - N_{eff}/N$ is then a straight line on a log axis, which passes through 1 at 0 bits. The law
# of the error suggests another line. If the loss rises with the squared error, it falls by 4 a bit:
# $k\,e^{-b/\gamma}$ with $\gamma = 1/\ln 4 \approx 0.72$, and a factor $k$ that need not be 1. We
# fit Kumar's form to 2–8 bits, and the line with a free factor to 3–6. Groups are 32 weights (24 at
# width 48, whose rows 32 does not divide). The intervals come from resampling the five widths.

# %%
family = whole[(whole.method == "dense") & (whole.n_steps == 3072) & whole.d_model.isin(WIDTHS)]
law = fit_power_law_offset(family.N, family.loss)
grouped = whole[(whole.n_steps == 3072) & whole.d_model.isin(WIDTHS) & (whole.group != "row")]
own = grouped.d_model.map(family.set_index("d_model").loss)
grouped = grouped.assign(lost=1 - ((own - law.offset) / (grouped.loss - law.offset))
                         ** (1 / law.exponent))
bits, lost = np.arange(2, 9), {}
for method in ("rtn", "gptq"):
    rows = grouped[grouped.method == method]
    lost[method] = rows.pivot(index="d_model", columns="n_bits", values="lost").to_numpy()
    print(f"{method:4} lost share of N, mean of the widths: " + "  ".join(
        f"{b} bits: {v:.3f}" for b, v in zip((2, 3, 4), lost[method].mean(0)[:3], strict=True)))
qat = grouped[(grouped.method == "qat") & (grouped.seed == 1)].sort_values("n_bits")
qat_lost = 1 - ((dense[3456] - law.offset) / (qat.loss - law.offset)) ** (1 / law.exponent)
print("qat  lost share of N, width 128:          "
      + "  ".join(f"{b} bits: {v:.3f}" for b, v in zip(qat.n_bits, qat_lost, strict=True)))
print(f"dense family: E {law.offset:.2f}, exponent "
      f"{interval(law.exponent, law.low, law.high)}, R² {law.r2:.4f}")

# %%
trial = np.linspace(0.2, 20, 4000)  # values of γ, bits


def kumar_gamma(share):
    """γ of the least squared error of 1 − e^(−b/γ) against measured N_eff / N."""
    return trial[((share - np.exp(-bits / trial[:, None])) ** 2).sum(1).argmin()]


def free_line(share):
    """γ and k of k e^(−b/γ), least squares of the logs at 3 to 6 bits."""
    slope, intercept = np.polyfit(bits[1:5], np.log(np.maximum(share[1:5], 1e-4)), 1)
    return -1 / slope, np.exp(intercept)


gammas, fitted = {}, {}
for name, shares in lost.items():
    draws = [shares[rng.integers(len(shares), size=len(shares))].mean(0)
             for _ in range(N_BOOTSTRAP)]
    for form, fit in (("Kumar's form", kumar_gamma), ("free factor", lambda s: free_line(s)[0])):
        low, high = np.percentile([fit(d) for d in draws], (2.5, 97.5))
        gammas[name, form] = fit(shares.mean(0)), low, high
        print(f"{name:4} {form:12} γ = {interval(*gammas[name, form], 2)} bits")
    kumar, free = (interval(*gammas[name, form], 2) for form in ("Kumar's form", "free factor"))
    fitted[name] = f"{name.upper()}: Kumar γ {kumar},\n   free γ {free}"
    said = np.exp(-6 / gammas[name, "Kumar's form"][0])
    print(f"     lost share at 6 bits: {shares.mean(0)[4]:.3f}, by Kumar's form {said:.2f}")

# %%
(ax,) = panels(title="Share of the parameters that rounding costs")
for n, (name, shares) in enumerate(lost.items()):
    gamma, (free, k) = gammas[name, "Kumar's form"], free_line(shares.mean(0))
    ax.plot(bits, shares.mean(0), f"C{n}o", label=fitted[name])
    ax.plot(bits, np.exp(-bits / gamma[0]), f"C{n}:", bits, k * np.exp(-bits / free), f"C{n}-")
ax.plot(qat.n_bits, qat_lost, "C3s", label="QAT, width 128"), ax.set_ylim(1e-4, 4)
ax.plot(bits, np.exp(-bits / GAMMA_KUMAR), "--", color="0.4", label=f"published γ {GAMMA_KUMAR}")
label(ax, "bits of one code", "$1 - N_{eff}/N$", "dotted: Kumar's form; solid: free factor", "y")

# %% [markdown]
# **Reading.** Kumar's form does not fit rounding *after* training. Measured shares fall from nearly
# 1 at 2 bits to a hundredth or two at 6. A curve that must start at 1 and fall at one rate cannot
# do both: its fitted γ is a compromise that is too kind at 2 bits and far too harsh at 6. With a
# free factor the points from 3 to 6 bits do lie on a line. One more bit divides the lost share by
# about $e^{1/\gamma} \approx 3$, not quite by the 4 of the error law. (The embedding's six bits,
# which do not change there, may be why; that is not tested here.)
#
# The published γ belongs to models *trained* at their precision. Our QAT points, measured from the
# dense model of 3,456 steps, do lie near that line at 3 and 4 bits, and above it at 2. Three points
# of one width are a hint and no test. Two more warnings. The dense
# law has five points and three parameters, so its exponent has a wide interval, and each $N_{eff}$
# inherits that. And the intervals of γ know only about the choice of widths.
#
# ## The rival: a smaller model of the same bytes
#
# A compressed model is worth something only if it beats the *smaller dense model that costs the
# same*. Two comparisons, both against bytes of the file. **Equal data**: every width saw the same
# 6.3 million tokens (3,072 steps); each is rounded by GPTQ to 2–8 bits, or stored in fp16. To
# compare bits at equal bytes we interpolate: for each number of bits a line runs through the
# widths, straight in the log of the bytes. **Equal training FLOPs**: every model cost as much as
# 3,456 steps of width 128, so the small ones were trained for longer; only 2–4 bits were recorded
# there. Dettmers & Zettlemoyer 2023 found, in more than 35,000 experiments with large models, that
# 4 bits is almost always best at equal total bits.

# %%
def undominated(rows):
    """The rows for which no other file is both smaller and better, smallest first."""
    rows = rows.sort_values(["bytes", "loss"])
    return rows[rows.loss < rows.loss.cummin().shift(fill_value=np.inf)]


even = whole[(whole.n_steps == 3072) & whole.d_model.isin(WIDTHS) & (whole.group != "row")]
flops = whole[np.isclose(whole.C, recorded("dense", n_steps=3456).C.item(), rtol=0.01)]
rounded = even[even.method == "gptq"].sort_values("bytes")
for size in (110, 150, 200, 300, 400):  # kB
    at = {b: np.interp(np.log(1000 * size), np.log(rows.bytes), rows.loss)
          for b, rows in rounded.groupby("n_bits") if b > 2}
    print(f"equal data, {size} kB: " + "  ".join(f"{b} bits: {at[b]:.3f}" for b in (3, 4, 5, 8))
          + f"  best: {min(at, key=at.get)} bits")
for row in undominated(flops[flops.method.isin(("gptq", "qat", "fp16"))]).itertuples():
    print(f"equal FLOPs, undominated: {row.bytes / 1000:5.0f} kB, width {row.d_model:3}, "
          f"{row.method} {row.n_bits} bits, loss {row.loss:.3f}")
for n in (3072, 17347):
    own = recorded("dense", 48, n).loss.item()
    three = recorded("gptq", 48, n, group="24", n_bits=3).loss.item()
    print(f"width 48 after {n:6,} steps: dense {own:.3f}, 3 bits by GPTQ {three:.3f}")

# %%
left, right = panels(2, title="Loss against bytes: compressed models and their dense rivals")
for ax, rows in ((left, even), (right, flops)):
    for d in sorted(rows.d_model.unique()):
        line = rows[(rows.d_model == d) & (rows.method == "gptq")].sort_values("bytes")
        ax.plot(line.bytes / 1000, line.loss, "o-", color=f"C{WIDTHS.index(d)}",
                label=f"GPTQ, width {d}")
    halves = rows[rows.method == "fp16"].sort_values("bytes")
    ax.plot(halves.bytes / 1000, halves.loss, "k^--", label="dense, fp16")
tuned = flops[(flops.method == "qat") & (flops.seed == 1)].sort_values("bytes")
right.plot(tuned.bytes / 1000, tuned.loss, "s-", color="C7", label="QAT, width 128")
for ax, title in ((left, "equal data (2–8 bits)"), (right, "equal training FLOPs (2–4 bits)")):
    ax.set_ylim(2.8, 3.7)
    label(ax, "file (kB)", "held-out loss (nats/token)", title, "x")

# %% [markdown]
# **Reading.** On the left rounding wins clearly. The line of the dense models in fp16 runs far
# above the rounded ones: for the bytes of a width in fp16 one gets a wider model with 4 bits and a
# lower loss. The printed lines compare the bits at equal bytes. At each of these sizes 4 bits are
# best, and 5 come close behind. Two bits of a wide model lose against 4 bits of a narrower one.
# (Most points of 2 bits lie above the frame.) That agrees with the published finding.
#
# On the right the rival is stronger, since width 128 is not the best size for these FLOPs: width
# 96, trained for longer, has the lower loss even dense. The list holds no model of width 128 at
# all. QAT's 3 bits are beaten by width 96 at 4, with fewer bytes. So at equal training FLOPs the
# best small file is a *narrower model, trained for longer, at 4 bits*.
#
# But look at the last two lines. Width 48, trained nearly six times as long, is much better dense
# and *worse* at 3 bits. Kumar et al. 2024 report the same: more training data can hurt a model that
# is rounded afterwards.
#
# ## Exercises
#
# **12.1** (read off) `harms` plants weight `[0, 0]` of a matrix with rows of 128. There is one
# scale per 32 weights. How many *other* weights are then rounded with a larger step? Compare the
# figure of outliers: why is the curve of the groups so low?

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
# Leave out the header; all weights have the same width.

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
# Find the best $c$ of a list for a symmetric grid with one scale for all of `w`.

# %% tags=["exercise"]
def best_clip(w, n_bits, fractions):
    """The number c in `fractions` whose scale gives the least mean squared error.

    `w` is a torch tensor; codes run from -2**(n_bits-1) to 2**(n_bits-1) - 1. All weights count in
    the error, the clipped ones too.
    """
    return NotImplemented


# %% tags=["exercise-check"]
check("12.3", best_clip)
# hint("12.3")
# solution("12.3")

# %% [markdown]
# **12.4** (derive and implement) The heart of GPTQ. Rounding has changed the *first* weight of a
# row by `change` (new minus old). The others may now move by $\delta_2, \dots, \delta_d$ to make
# up for it. The change of the outputs is $\delta^T H \delta$ with $\delta_1$ = `change`. Set its
# derivative with respect to the others to zero and solve. No damping.

# %% tags=["exercise"]
def make_up(H, change):
    """The best moves of the other weights, (d − 1,). H: (d, d) numpy array, symmetric."""
    return NotImplemented


# %% tags=["exercise-check"]
check("12.4", make_up)
# hint("12.4")
# solution("12.4")

# %% [markdown]
# ## Play: bits, groups, and the grid
#
# The curve is the histogram of all weights in the blocks, each as a place in its group's range: 0
# is the smallest weight of the group, 1 the largest. The points are the levels of the affine grid.
# Watch what the group does to the *curve*, and what bits do to the *points*. Loss, bytes and
# milliseconds are the recorded ones. Beside the loss stands the dense rival: what a smaller model
# in fp16 would reach with the same bytes, read off between the widths. Two settings were timed in
# ONNX Runtime: 4 bits per 32 weights (the head at 8) and 8 bits per row. Its rival there is dense
# fp32.

# %% tags=["widget"]
def places(group):
    """Share of the block weights (%) in 40 bins of their group's range."""
    counts = 0
    for name, w in weights.items():
        if name.startswith("blocks.") and w.ndim == 2:
            rows = w if group == "row" else w.reshape(-1, 32)
            low, high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
            counts = counts + np.histogram((rows - low) / (high - low), 40, (0, 1))[0]
    return 100 * counts / counts.sum()


shapes, middle = {g: places(g) for g in ("row", "32")}, (np.arange(40) + 0.5) / 40
costs = {(m, b, g): recorded(m, n_bits=b, group=g).iloc[0]
         for m in ("rtn", "gptq") for b in range(2, 9) for g in shapes}
speed = {(8, "row"): ms["ONNX Runtime int8", 128], (4, "32"): ms["ONNX Runtime int4", 128]}
halves = even[even.method == "fp16"].sort_values("bytes")

# %% tags=["widget"]
def grid_picture(n_bits: int, group: str, method: str) -> dict:
    """Histogram of the weights inside their group's range, the levels, and what they cost."""
    row, n_levels = costs[method, n_bits, group], 2**n_bits
    rival = np.interp(np.log(row.bytes), np.log(halves.bytes), halves.loss)
    time = (f"{speed[n_bits, group]:.3f} ms a token (dense {ms['ONNX Runtime fp32', 128]:.3f})"
            if (n_bits, group) in speed else "not timed")
    text = (f"{n_bits} bits, one scale per {group}, {method.upper()}: loss {row.loss:.3f} "
            f"nats/token ({100 * (row.loss / dense[3072] - 1):+.2f} %), "
            f"file {row.bytes / 1000:.0f} kB (dense fp16 of these bytes: loss {rival:.3f}), {time}")
    levels = np.arange(n_levels) / (n_levels - 1)
    lines = [series("line", middle, shapes[group], "all weights"),
             series("points", levels, np.zeros(n_levels), "levels")]
    return picture(lines, "place in the range of its group", "share of the weights (%)",
                   (-0.05, 1.05), (-0.5, 12), "Does the grid fit the weights?", "", text)


explore(grid_picture,
        n_bits=ipywidgets.IntSlider(value=4, min=2, max=8, description="bits of one code"),
        group=ipywidgets.Dropdown(options=[("row", "row"), ("32 weights", "32")], value="32",
                                  description="one scale per"),
        method=ipywidgets.Dropdown(options=[("nearest", "rtn"), ("GPTQ", "gptq")], value="rtn",
                                   description="rounding"))

# %% [markdown]
# ## Recap
#
# - A quantiser is a scale, a zero point and a rounding. The squared error is $s^2/12$: with twice
#   the steps it falls by 4, about 6 dB per bit.
# - The step follows the largest weight of a group. Small groups limit what an outlier can spoil and
#   cost $(16 + b)/g$ bits per weight.
# - GPTQ lets later columns make up for earlier errors and takes away a good part of the damage.
#   Training through the rounding wins at 2 bits, just so at 3, and not at 4.
# - Bytes are counted in a file, speed with a kernel that reads the codes, and both against a dense
#   rival. At equal training FLOPs the best rival was a smaller model at 4 bits.
#
# **Limits.** One small family, one text, one thread of one kind of processor. Widths jump in coarse
# steps, so "best bits" means best between these. QAT had one learning rate and 384 steps. The int4
# file that is small and the int4 graph that is fast are two files.
#
# **T13**, the articles' claim that better compression cuts storage, transfer and compute: storage
# and transfer yes, by six against fp32 and by three against fp16; time yes, with a kernel and
# matrices that are large enough. Chapter 13 gathers the verdict.
#
# **What to read next.** Frantar et al. 2022 (GPTQ). Lin et al. 2023 (AWQ) and Xiao et al. 2022
# (SmoothQuant) move outliers from where they hurt to where they do not. Kumar et al. 2024 write
# bits into the scaling law. Chapter 13 puts pruning, quantisation and entropy coding on top of each
# other.
