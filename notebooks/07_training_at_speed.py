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
# # 07 · Training at speed
#
# **The question:** where does the time of a training step go, what does it hold in memory, and
# how much faster can the same machine give the same loss?
#
# When you are through, you can
#
# 1. compute the FLOPs and the bytes of a run, and say when C = 6ND is right;
# 2. place each operation under a roofline, and measure a change so that the comparison is fair;
# 3. measure the batch size beyond which more devices buy little, and plan a run's time and cost.
#
# Runs in about 2 minutes on a CPU; allow two hours to work through. On a GPU the timed sections
# run on the GPU; they were not timed there yet. Before this: chapter 06.
#
# | symbol | code | meaning | unit |
# |---|---|---|---|
# | N | `N`, `N_total` | parameters without the embedding, and all of them | – |
# | D | `D` | training tokens | tokens |
# | C | `C` | training FLOPs, exact unless 6ND is written | FLOP |
# | | `batch, seq, d_model, n_head, n_layer, vocab` | sizes of tensors; batch in windows | – |
# | I | `intensity` | FLOPs per byte that is moved | FLOP/byte |
# | | `peak_flops`, `bandwidth` | what the device can compute and move | FLOP/s, byte/s |
# | MFU | `mfu` | model FLOPs utilisation: C per second over the peak | – |
# | G, Σ | `signal`, `noise` | true gradient (its squared length); variance of one window's | – |
# | B_noise, B_crit | `noise_scale`, `critical` | noise equals signal; from runs | windows |
# | S, S_min | `S`, `S_min` | steps to one loss; with an endless batch | steps |
# | a | `exponent` | time ∝ N^a | – |
# | g | `gain` | weights after the activation start with deviation g/√d_in | – |

# %% tags=["imports"]
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from IPython.display import IFrame
from ipywidgets import Dropdown, FloatLogSlider, FloatSlider, IntSlider
from tensorboard import program
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import distributed as dist
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter

from helpers import claims, data, fits, plots, runtime, widgets
from helpers.exercises import check, hint, solution
from helpers.transformer import attention, training
from helpers.transformer.flops import flops_per_token, n_params
from helpers.transformer.models import GPT, GPTConfig
from helpers.transformer.steps import prepare, token_loss

# %% tags=["config"]
rng = runtime.setup(seed=7)
DEVICE = runtime.device()
SHAPE = GPTConfig(context=128, n_layer=4, n_head=4, d_model=64)  # a small GPT that reads bytes
SMALL = GPTConfig(context=64, n_layer=2, n_head=2, d_model=32)  # for runs that must be short
BATCH, SEQ = 16, 128  # windows per step, tokens per window
WIDTHS = np.array([16, 32, 64, 128, 256, 512, 1024])  # d_model, for arithmetic
TIMED_WIDTHS, TIMED_BATCH = (16, 32, 64, 96, 128, 192), 8  # d_model, for the clock; windows
SEQS, BATCHES = (64, 128, 256, 512), (1, 2, 4, 8, 16, 32)
TARGET, EARLY, NOISE_WINDOWS = 2.5, 3.2, 128  # nats/token, twice; windows
DEPTHS, SEEDS = (2, 4, 8, 16, 32), (0, 1, 2)
TOKENS_PER_PARAMETER = 20
train_docs, held_out = data.split_documents(data.prose())
train_tokens, val_tokens = data.encode(train_docs), data.encode(held_out)
drawn = data.TokenBatches(train_tokens, BATCH, SEQ, seed=0)[0]  # one batch: (batch, seq + 1)
home = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)  # goes when the kernel ends
folder = Path(home.name)  # for this notebook's files
os.environ["KINETO_LOG_LEVEL"] = "99"  # the profiler's own messages: none

# %% [markdown]
# ## 1 · What a step costs
#
# Chapter 06 counted the FLOPs of all matrix products, `flops_per_token`. The literature writes
# C = 6ND instead: each parameter costs a multiplication and an addition, and forward plus backward
# is three times forward. That leaves the scores of the attention out.
#
# ## Predict first
#
# Write down an answer to each before you go on.
#
# 1. Our model has four layers, `d_model` 64 and windows of 128 tokens. Exact FLOPs over 6·N_total:
#    1.03, 1.3 or 2?
# 2. Eight changes will be timed in section 5: fused operations, a larger batch, two threads,
#    bfloat16, gradient accumulation, recomputation, `torch.compile`, two processes. Which one
#    brings most at this size, and which make the step *slower*?
# 3. Twice the parameters, same tokens: twice the time?

# %%
shapes = [GPTConfig(context=SEQ, n_layer=4, n_head=4, d_model=int(d)) for d in WIDTHS]
ratios = np.array([[flops_per_token(s, SEQ) / (6 * n) for n in n_params(s)] for s in shapes])
(ax,) = plots.panels()
ax.plot(WIDTHS, ratios, "o-", label=("exact / 6N", "exact / 6N_total"))
ax.axhspan(1, 1.1, color="0.85", label="6ND within 10 %")
print("exact / 6N_total:", {int(WIDTHS[i]): f"{ratios[i, 1]:.3f}" for i in (0, 2, -1)})
ax.set_xscale("log")
plots.label(ax, "d_model (4 layers, 128 tokens, 256 bytes)", "ratio of FLOPs", "Is C = 6ND?", "x")

# %% [markdown]
# **Reading.** The two conventions differ from the exact count by 30 per cent and more at our size,
# and come close to it at d_model 1024. What 6·N_total·D leaves out are the scores and the mix.
# They are 2 · seq · d_model multiply-adds per token and layer against 12 · d_model² for the
# matrices, so their share falls as seq / (6 d_model). 6ND with N leaves the output layer out as
# well. So 6ND is right when d_model is large against seq / 6, and at this course's sizes we count
# exactly.
#
# ## 2 · What a step holds in memory
#
# **State.** Each parameter has a weight, a gradient and Adam's two averages: four float32 numbers,
# 16 bytes. It does not depend on the batch. (Large models often hold weights and gradients in 16
# bits, and beside them a float32 copy of the weights: 2 + 2 + 4 + 4 + 4 is 16 again.)
#
# **Activations.** The backward pass needs what the forward pass computed. Count it tensor by
# tensor. A normalisation keeps its input, and a mean and a scale per position. A matrix product
# keeps its input. The attention kernel keeps q, k, v, its result and one sum per head; v is a slice
# of the joint product, which therefore stays whole. GELU keeps its input, four times as wide.
# Numbers per token and layer:
#
# $$18\, d_\text{model} + n_\text{head} + 4$$
#
# Nothing in it is quadratic in seq: the kernel computes scores in tiles and forgets them
# (FlashAttention). Two functions below look at what PyTorch really holds. The first asks autograd
# for each tensor that it saves, and counts each piece of memory once. The second collects the
# state after one step. The third line of the figure below, *recomputed*, is explained under it.
# Then the articles' claim: does the total grow linearly with N?

# %%
def held(config, batch, seq, **settings):
    """Bytes that one forward pass keeps for the backward pass, weights left out."""
    model, kept = GPT(config), {}
    settings = training.TrainConfig(lr=1, n_steps=100, batch_size=batch, **settings)
    prepare(model, settings)
    tokens = torch.zeros(batch, seq + 1, dtype=torch.int64)
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), tokens)}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with (torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
          torch.autocast("cpu", torch.bfloat16, enabled=settings.dtype == "bfloat16")):
        token_loss(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    return sum(piece.nbytes() for at, piece in kept.items() if at not in own)


def state_tensors(config):
    """Weights, gradients and the optimiser's tensors, all of them, after one step."""
    model, settings = GPT(config), training.TrainConfig(lr=1e-3, n_steps=100, batch_size=2)
    optimizer = training.make_optimizer(model, settings)
    training.run_steps(model, optimizer, [drawn[:2]], settings, 0, 1)
    kept = [t for state in optimizer.state.values() for t in state.values()]
    return [*model.parameters(), *(p.grad for p in model.parameters()), *kept]

# %% tags=["essential"]
def training_bytes(config):
    weights, gradients, moments = 4, 4, 4 + 4  # bytes per parameter
    return (weights + gradients + moments) * n_params(config)[1]


def activation_bytes(config, batch, seq):
    d = config.d_model
    attention = (1 + 1 + 2 + 3 + 1) * d + config.n_head  # norm, qkv's input, q k, qkv, mix; sums
    mlp = (1 + 1 + 4 + 4) * d  # norm's input, up's, gelu's, down's
    per_layer = attention + mlp + 2 * 2  # each norm: a mean and a scale
    ends = 2 * d + 2 + config.vocab + 2  # last norm, head; probabilities; ids of 8 bytes
    rotation = seq * d // config.n_head  # once for all windows and layers
    return 4 * (batch * seq * (config.n_layer * per_layer + ends) + rotation)

# %% tags=["check"]
sizes = [t.nbytes for t in state_tensors(SHAPE)]
counters = 4 * len(list(GPT(SHAPE).parameters()))  # Adam's step number, one per tensor
assert sum(sizes) == training_bytes(SHAPE) + counters
for config, batch, seq in ((SHAPE, 2, 128), (SHAPE, 16, 128), (SHAPE, 4, 32), (SMALL, 3, 64)):
    assert held(config, batch, seq) == activation_bytes(config, batch, seq)
print(f"state: {training_bytes(SHAPE):,} bytes, plus {counters} of counters: exact")
print(f"activations, batch {BATCH}: {activation_bytes(SHAPE, BATCH, SEQ):,} bytes: exact, as in "
      "three other shapes")

# %%
kinds = {"fused attention, float32": {}, "scores kept, bfloat16": {"dtype": "bfloat16"},
         "blocks recomputed, float32": {"recompute": True}}
long = GPTConfig(context=512, n_layer=4, n_head=4, d_model=64)
per_token = {name: [held(long, 4, s, **how) / (4 * s) for s in SEQS]
             for name, how in kinds.items()}
ax, right = plots.panels(2)
for name, bytes_held in per_token.items():
    ax.plot(SEQS, np.array(bytes_held) / 1024, "o-", label=name)
for n_layer, marker in zip((2, 4, 8), "s^D", strict=True):
    shape = GPTConfig(context=SEQ, n_layer=n_layer, n_head=4, d_model=64)
    mib = [held(shape, b, SEQ) / 2**20 for b in BATCHES[1:5]]
    right.plot(BATCHES[1:5], mib, marker + "-", label=f"{n_layer} layers")
    print(f"{n_layer} layers, {BATCHES[1:5]} windows:", *(f"{m:.1f}" for m in mib), "MiB")
print({name: f"{v[0] / 1024:.1f} → {v[-1] / 1024:.1f} KiB" for name, v in per_token.items()})
again, part, plain = (held(SHAPE, b, SEQ, recompute=r)
                      for b, r in ((16, True), (4, False), (16, False)))
print(f"recomputing keeps {again / plain:.1%}; a part of 4 windows out of 16, {part / plain:.1%}")
ax.set_ylim(0)
plots.label(right, "batch (windows of 128 tokens)", "held (MiB)", "Batch and depth, fused, float32")
plots.label(ax, "tokens per window, seq", "held per token (KiB)", "A 4-layer GPT, batch 4")

# %% tags=["verdict"]
widths = [GPTConfig(n_layer=4, n_head=4, d_model=d) for d in TIMED_WIDTHS]
N_all = [n_params(s)[1] for s in widths]
state = fits.fit_power_law(N_all, [sum(t.nbytes for t in state_tensors(s)) for s in widths])
whole = fits.fit_power_law(N_all, [training_bytes(s) + held(s, BATCH, SEQ) for s in widths])
linear = [abs(fit.exponent + 1) < 0.02 for fit in (state, whole)]
claims.verdict("K13", holds=linear[0] if linear[0] == linear[1] else None,
        measured="bytes ∝ N_total^a: weights, gradients and Adam a = "
        f"{plots.interval(-state.exponent, -state.high, -state.low)}, linear; with "
        f"activations of {BATCH} windows "
        f"{plots.interval(-whole.exponent, -whole.high, -whole.low)}. "
        f"At d_model {SHAPE.d_model} activations are {plain / training_bytes(SHAPE):.1f} times "
        "the state, and these grow with batch and depth",
        state=round(-state.exponent, 3), whole=round(-whole.exponent, 3))

# %% [markdown]
# **Reading.** On the left, a flat line means bytes ∝ seq. With the fused kernel the line is flat.
# The attention that we shall use with bfloat16 keeps its weights (6 bytes for each pair of
# positions and head), so its line climbs: the total has a part ∝ seq². On the right, twice the
# windows hold twice the bytes; each layer adds the same amount, on top of what embedding and loss
# hold.
#
# *Checkpointing* (`recompute=True`) keeps each block's input alone and runs the block again in the
# backward pass: less memory for one more forward pass, a third more FLOPs. What it costs in time
# stands in section 5. *Gradient accumulation* holds the activations of one part of the batch at a
# time.
#
# The claim, "resources grow linearly with model size", was put to memory: bytes ∝ N_total^a,
# fitted over six widths, once for the state and once with the activations. The state is linear,
# exactly. The activations grow with d_model, and N with its square, so the total grows more
# slowly.
#
# ## 3 · Where the time goes
#
# A device computes at most `peak_flops` and moves at most `bandwidth`. An operation that does I
# FLOPs for each byte it moves can therefore reach
#
# $$\text{attainable FLOP/s} = \min(\text{peak\_flops},\ \text{bandwidth} \times I)$$
#
# the *roofline* (Williams et al. 2009). Left of the corner, at I = peak / bandwidth, memory is the
# limit; right of it, arithmetic. A product of (m, k) and (k, n) does 2mnk FLOPs on mk + kn + mn
# numbers; an operation on each number alone does a few FLOPs for each it reads and writes.
#
# The list holds the model's operations at our shape: name, what to run, FLOPs, bytes. (FLOPs per
# number are counted by hand: 5 for softmax, 7 for a norm, 8 for GELU, 12 for AdamW.)

# %%
def medians(jobs, n_rounds=5, least=0.0):
    """Median seconds of each job, all taking turns: A B A B … A turn lasts `least` seconds."""
    def finished(job):
        return lambda: (job(), runtime.synchronize(DEVICE))
    turns = runtime.take_turns({k: finished(job) for k, job in jobs.items()}, n_rounds, least)
    return {name: np.median(seconds) for name, seconds in turns.items()}


rows, d, ones = BATCH * SEQ, SHAPE.d_model, lambda *shape: torch.ones(shape, device=DEVICE)
X, up, W_qkv, W_up = ones(rows, d), ones(rows, 4 * d), ones(d, 3 * d), ones(d, 4 * d)
q, scores = ones(64, SEQ, d // 4), ones(64, SEQ, SEQ)  # 16 windows × 4 heads
flat = torch.nn.Parameter(ones(n_params(SHAPE)[1]))
flat.grad, adam = torch.ones_like(flat), torch.optim.AdamW([flat], fused=True)

# %% tags=["nbval-ignore-output"]
# uncompared: speeds belong to the machine
OPERATIONS = {  # name: what to run, FLOPs, numbers moved
    "qkv product": (lambda: X @ W_qkv, 2 * rows * d * 3 * d, rows * d + 3 * d**2 + rows * 3 * d),
    "MLP up": (lambda: X @ W_up, 2 * rows * d * 4 * d, rows * d + 4 * d**2 + rows * 4 * d),
    "scores": (lambda: q @ q.mT, 2 * scores.numel() * d // 4, 2 * q.numel() + scores.numel()),
    "softmax": (lambda: scores.softmax(-1), 5 * scores.numel(), 2 * scores.numel()),
    "layer norm": (lambda: F.layer_norm(X, (d,)), 7 * X.numel(), 2 * X.numel()),
    "GELU": (lambda: F.gelu(up), 8 * up.numel(), 2 * up.numel()),
    "AdamW": (adam.step, 12 * flat.numel(), 7 * flat.numel())}
peak, peak_low = (runtime.peak_flops(DEVICE, dtype=t) for t in (torch.float32, torch.bfloat16))
bandwidth, FAST = runtime.bandwidth(DEVICE), runtime.fast_dtype(DEVICE)
print(f"GFLOP/s: float32 {peak / 1e9:.0f}, bfloat16 {peak_low / 1e9:.0f}; fast dtype: {FAST}")
print(f"{bandwidth / 1e9:.0f} GB/s, so the corner is at {peak / bandwidth:.1f} FLOP/byte")
times = medians({name: run for name, (run, _, _) in OPERATIONS.items()}, least=0.02)
line = np.geomspace(0.2, 100, 60)
(ax,) = plots.panels(height=3.8)
ax.plot(line, np.minimum(peak, bandwidth * line) / 1e9, "k", label="roofline, float32")
for (name, (_, n, moved)), marker in zip(OPERATIONS.items(), "osD^vP*", strict=True):
    rate, roof = n / times[name], min(peak, bandwidth * n / moved / 4)
    ax.plot(n / moved / 4, rate / 1e9, marker, label=f"{name}: {rate / roof:.0%} of its roof")
plots.label(ax, "intensity (FLOP/byte)", "rate (GFLOP/s)", "Operations of our model", "xy")

# %% [markdown]
# **Reading.** The elementwise operations lie far left: they move numbers and hardly compute. The
# products lie to the right, more so the wider they are. A GPU's corner is further out: 989e12 /
# 3.35e12 = 295 FLOP/byte for bfloat16 on an H100, where products as narrow as ours would wait for
# memory. A point *above* the slanted roof is no error: the roof was measured with vectors too long
# for any cache, and these tensors may fit into one. A point far below its roof pays for something
# that the two rates leave out, such as several passes over its input, exponentials, or the cost of
# the call; the roofline does not say which.
#
# ### What the profiler says
#
# The roofline takes operations one at a time. `torch.profiler` watches a real step and says how
# long each took. Its trace, a JSON file, opens in `chrome://tracing` or Perfetto. In the figure,
# `mm` and `bmm` are products, a name with `backward` is its gradient, `sdp` is the fused
# attention. If elementwise names stand high, more FLOP/s will not help; fewer passes over memory
# will.
#
# **TensorBoard.** A run's losses can be written to a file as it goes, and read by TensorBoard, a
# page in the browser. After the profile we write a short run's losses, read them back from the
# file, and start the page. (In a stored notebook the frame is empty: its server ended with the
# run.)

# %%
settings, batches = training.TrainConfig(1e-3, 100), data.TokenBatches(train_tokens, BATCH, SEQ)
optimizer = training.make_optimizer(model := GPT(SHAPE).to(DEVICE), settings)
losses = training.run_steps(model, optimizer, batches, settings, 0, 2)  # start-up: not profiled
with torch.profiler.profile() as profiler:
    losses += training.run_steps(model, optimizer, batches, settings, 2, 4)
profiler.export_chrome_trace(str(folder / "trace.json"))
own_time = {e.key: e.self_cpu_time_total / 2e3 for e in profiler.key_averages()}  # ms per step
print("a trace is written:", (folder / "trace.json").stat().st_size > 100_000)

# %%
top = sorted(own_time, key=own_time.get)[-8:]
(ax,) = plots.panels(height=3.0)
ax.barh([name.replace("aten::", "").replace("_scaled_dot_product", "sdp") for name in top],
        [own_time[name] for name in top])
total = sum(own_time.values())
print("eight names hold over half of the step:", sum(own_time[n] for n in top) > total / 2)
plots.label(ax, "own time per step (ms)", "", f"Longest operations (step: {total:.0f} ms)")

# %%
losses += training.run_steps(model, optimizer, batches, settings, 4, 24)
with SummaryWriter(folder / "logs" / "first run") as writer:
    for step, loss in enumerate(losses):
        writer.add_scalar("loss", loss, step)
events = EventAccumulator(str(folder / "logs" / "first run")).Reload()
assert np.allclose([event.value for event in events.Scalars("loss")], losses)
print(f"{len(losses)} losses written, and the same read back")

# %%
board = program.TensorBoard()
options = "--host 127.0.0.1 --port 0 --load_fast=false"
board.configure(argv=[None, "--logdir", str(folder / "logs"), *options.split()])
url = board.launch()
while not (runs := json.load(urllib.request.urlopen(url + "data/runs", timeout=10))):
    time.sleep(0.1)  # it reads the folder in the background
print(url, "shows the runs", runs)
IFrame(url, width="100%", height=400)

# %% [markdown]
# ## 4 · The parts of a faster step
#
# **bfloat16.** A bfloat16 number is a float32 with 8 instead of 24 binary digits of precision: same
# range, half the bytes, and processors with instructions for it multiply it several times as fast.
# Products of many terms bear the rounding; sums, softmax and Adam do not, and stay in float32. That
# division of labour is *mixed precision*; `torch.autocast` applies it.
#
# For the attention on a CPU the course has a bfloat16 version of its own. It keeps the weights w
# for the backward pass, whose formulas follow from y = w v with w = softmax(s):
#
# $$dw = dy\, v^T, \qquad ds = w \odot \big(dw - \textstyle\sum_k w_k\, dw_k\big), \qquad
#   dq = ds\, k, \quad dk = ds^T q, \quad dv = w^T dy$$
#
# **A loss that writes once.** The gradient of the cross-entropy is (p − onehot) / n. The
# probabilities p are there already, so the gradient can be written over them: no second
# tensor of that size is needed.
#
# **Gradient accumulation.** The gradient of a mean is the mean of the parts' gradients, if each
# part counts by its size. So a batch can be worked off in `n_micro` parts, and only one part's
# activations are held.
#
# **Is it still the same training?** Rounding changes each step a little. The yardstick is the
# change that another seed makes. We train the small model with float32 and with bfloat16, three
# seeds each, and compare the loss on held-out text.
#
# The three parts follow in this order, attention, loss and accumulation, same training.

# %% tags=["essential"]
class AttentionBF16(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v):
        q, k, v = q.bfloat16(), k.bfloat16(), v.bfloat16()
        future = torch.full(q.shape[1:2] * 2, -1e9, device=q.device).triu(1)
        w = torch.bmm(q, k.mT).float().add_(future)
        torch.softmax(w, -1, out=w)  # the weights, where the scores stood
        rounded = w.bfloat16()
        ctx.save_for_backward(q, k, v, w, rounded)
        return torch.bmm(rounded, v)

    @staticmethod
    def backward(ctx, dy):
        q, k, v, w, rounded = ctx.saved_tensors
        dy = dy.bfloat16()
        wdw = torch.bmm(dy, v.mT).float().mul_(w)
        ds = wdw.addcmul_(w, wdw.sum(-1, keepdim=True), value=-1).bfloat16()  # w (dw − Σ w dw)
        return torch.bmm(ds, k), torch.bmm(ds.mT, q), torch.bmm(rounded.mT, dy)

# %% tags=["check"]
exact = [torch.from_numpy(rng.normal(size=(8, 64, 16))).requires_grad_() for _ in range(3)]
low, dy = [x.detach().float().requires_grad_() for x in exact], torch.ones(8, 64, 16).tril()
y, y_low = attention.attention(*exact)[0], AttentionBF16.apply(low[0] / 4, *low[1:])  # q / √16
pairs = [(y, y_low), *zip(torch.autograd.grad(y, exact, dy.double()),
                          torch.autograd.grad(y_low, low, dy.bfloat16()), strict=True)]
assert max((b.double() - a).norm() / a.norm() for a, b in pairs) < 0.02
print("AttentionBF16: output and gradients within 2 % of float64 attention by the formula")

# %% tags=["essential"]
class CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, targets):
        p, ctx.dtype = logits.float().softmax(-1), logits.dtype
        ctx.save_for_backward(p, targets)
        return -p.gather(1, targets[:, None]).clamp(min=1e-37).log().mean()

    @staticmethod
    def backward(ctx, dloss):
        p, targets = ctx.saved_tensors
        p.scatter_add_(1, targets[:, None], p.new_full((len(p), 1), -1.0))
        return p.mul_(dloss / len(p)).to(ctx.dtype), None


def accumulate(model, tokens, config):
    total = 0.0
    for part in tokens.tensor_split(config.n_micro):
        low = config.dtype == "bfloat16"
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=low):
            logits = model(part[:, :-1])
        loss = token_loss(logits.flatten(0, 1), part[:, 1:].flatten())
        share = len(part) / len(tokens)  # so that unequal parts count by their size
        (share * loss).backward()
        total += share * loss.detach()
    return total

# %% tags=["check"]
logits, targets = torch.from_numpy(rng.normal(0, 3, (40, 256))).float(), torch.arange(40)
for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 1e-3)):
    z = logits.to(dtype).requires_grad_()
    found, expected = CrossEntropy.apply(z, targets), F.cross_entropy(z.float(), targets)
    gradients = [torch.autograd.grad(f, z)[0].float() for f in (found, expected)]
    assert torch.isclose(found, expected, rtol=1e-6)
    assert torch.allclose(*gradients, atol=tolerance)
window_ids, model = torch.from_numpy(drawn[:7, :65]), GPT(SMALL)
for n_micro in (1, 3):  # 7 windows: parts of 3, 2 and 2
    model.zero_grad()
    accumulate(model, window_ids, training.TrainConfig(1, 100, batch_size=7, n_micro=n_micro))
    gradients[n_micro // 2] = torch.cat([p.grad.flatten() for p in model.parameters()])
assert torch.allclose(*gradients, atol=1e-6)
print("CrossEntropy: as torch's, value and gradient; 7 windows in 3 parts: gradient of the whole")

# %%
validation, ends = data.windows(val_tokens, 32, SMALL.context), {"float32": [], "bfloat16": []}
for dtype, seed in ((dtype, seed) for dtype in ends for seed in SEEDS):
    how = training.TrainConfig(4e-3, 100, batch_size=8, seq=64, warmup_steps=20, dtype=dtype)
    batches = data.TokenBatches(train_tokens, 8, 64, seed)
    ends[dtype].append(training.train(GPT(SMALL, seed), batches, how, validation)[0].loss)
change = np.abs(np.subtract(ends["bfloat16"], ends["float32"])).mean()
print("mean change below the spread of three seeds:", bool(change < np.ptp(ends["float32"])))

# %% [markdown]
# **Data parallel.** Two processes hold the same weights. Each takes half of the batch, computes its
# gradient, and all take the mean: an *all-reduce*. Then each makes the same optimiser step, so the
# weights stay the same without being sent. It is gradient accumulation, side by side.
#
# One message holds all gradients, since each message costs a fixed time. `torchrun` (the module
# `torch.distributed.run`) starts the processes and tells each its number, the *rank*; `gloo` is the
# library that carries messages between CPUs (on GPUs: `nccl`). The script that both run trains four
# times, A B A B: process 0 alone, both together, and again. Before they train together they meet at
# a file, `init_process_group`. (With several machines it is an address; torchrun sets it.)

# %%
SCRIPT = """
import json, os, sys, time
from pathlib import Path
import numpy as np, torch.distributed as dist
from helpers import data, runtime
from helpers.transformer import models, training

runtime.setup()
rank, result = int(os.environ["RANK"]), []
for turn in ("alone 1", "both 1", "alone 2", "both 2"):
    if turn[0] == "a" and rank > 0:
        continue  # on to the next meeting, and wait there
    if turn[0] == "b":
        place = Path(turn[-1]).resolve().as_uri()
        dist.init_process_group("gloo", place, rank=rank, world_size=2)
    for dtype in ("float32", sys.argv[1]):
        config = training.TrainConfig(lr=2e-3, n_steps=12, warmup_steps=2, dtype=dtype)
        batches = data.TokenBatches(np.load("tokens.npy"), config.batch_size, config.seq)
        model, clock = models.GPT(models.GPTConfig()), []
        losses = training.run_steps(model, training.make_optimizer(model, config), batches, config,
                                    0, 12, lambda step, loss: clock.append(time.perf_counter()))
        result.append((losses, float(np.median(np.diff(clock)))))
    if turn[0] == "b":
        dist.destroy_process_group()
Path(f"out{rank}.json").write_text(json.dumps(result))
"""

# %%
def launch():
    """Run SCRIPT in two processes: (losses, seconds per step), A B A B, each with two dtypes."""
    (folder / "run.py").write_text(SCRIPT, encoding="utf-8")
    np.save(folder / "tokens.npy", train_tokens[:100_000])
    settings = {"OMP_NUM_THREADS": "1", "USE_LIBUV": "0", "PYTHONPATH": str(runtime.ROOT)}
    settings |= {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2",
               "--standalone", "--local-addr", "127.0.0.1", "--log-dir", "said", "run.py", FAST]
    done = subprocess.run(command, cwd=folder, env={**os.environ, **settings}, timeout=300,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "out0.json").read_text())


def second_core():
    """Share of a second core that is free now: two threads sort at once, against one alone."""
    numbers, seconds = np.random.default_rng(0).normal(size=500_000), {1: 0.0, 2: 0.0}
    for n in 20 * (1, 2):
        with ThreadPoolExecutor(n) as pool:
            start = time.perf_counter()
            list(pool.map(np.sort, n * [numbers]))
            seconds[n] += time.perf_counter() - start
    return min(1.0, max(0.0, 2 * seconds[1] / seconds[2] - 1))

# %% tags=["essential"]
def average(tensors):
    message = torch.cat([t.flatten() for t in tensors])
    dist.all_reduce(message)  # the sum, in every process
    message /= dist.get_world_size()
    for t, mean in zip(tensors, message.split([t.numel() for t in tensors]), strict=True):
        t.copy_(mean.view_as(t))

# %% tags=["check"]
spare, launched = second_core(), launch()
alone, both = ([losses for losses, _ in launched[i::4]] for i in (0, 2))  # float32
assert np.allclose([alone[1], *both], alone[0], rtol=1e-5)
print(f"{len(both[0])} losses from two processes equal one process's to five digits, both times")

# %% [markdown]
# ## 5 · Row by row
#
# Now all changes on one model, each timed against the last row that was kept. On a busy machine
# times drift, so we let the two variants take turns, A B A B, and compare medians. A change is kept
# if it saves at least 2 per cent. Else it is noted and dropped; the next row builds on what was
# kept. Two rows need a second core. `second_core` has measured how much of one is free: where two
# cores are halves of one, they share its units, and even a quiet machine gives about a half.
#
# The first row is what one writes first: three products for q, k and v, one head after the other
# with the formula, PyTorch's ready loss, one Adam update per tensor, four windows at a time.

# %%
class NaiveAttention(torch.nn.Module):
    """q, k, v by three products, one head after the other, by the formula."""

    def __init__(self, config):
        super().__init__()
        self.n_head, d = config.n_head, config.d_model
        self.q, self.k, self.v, self.out = (torch.nn.Linear(d, d, bias=False) for _ in range(4))

    def forward(self, x, turn, cache=None):
        q, k, v = (layer(x).chunk(self.n_head, dim=-1) for layer in (self.q, self.k, self.v))
        heads = [attention.attention(*(attention.rotate(x[h], turn) for x in (q, k)), v[h])[0]
                 for h in range(self.n_head)]
        return self.out(torch.cat(heads, dim=-1))


def naive_gpt(config):
    """A GPT with naive attention and the same weights as `GPT(config)`."""
    model = GPT(config)
    for block in model.blocks:
        fused, block.attn = block.attn, NaiveAttention(config)
        parts = (*fused.qkv.weight.chunk(3), fused.out.weight)
        for layer, weight in zip(block.attn.children(), parts, strict=True):
            layer.weight.data.copy_(weight.data)
    return model


slow, quick = (make(SMALL)(window_ids[:, :-1]) for make in (naive_gpt, GPT))
torch.testing.assert_close(slow, quick, rtol=0, atol=1e-5)
print("naive and fused model give the same logits")

# %%
def stepper(naive, batch, threads, dtype, n_micro=1, recompute=False, compiled=False):
    """One training step as a function without arguments, in the given variant."""
    model = (naive_gpt if naive else GPT)(SHAPE).to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=not naive, foreach=False)
    config = training.TrainConfig(lr=1, n_steps=100, batch_size=batch, dtype=dtype, n_micro=n_micro,
                         recompute=recompute)
    tokens = torch.from_numpy(drawn[:batch]).to(DEVICE)
    if not naive:
        prepare(model, config)
    for block in model.blocks if compiled else ():
        block.compile()  # one block's code serves all

    def step():
        torch.set_num_threads(threads)
        optimizer.zero_grad()
        if naive:
            logits = model(tokens[:, :-1])
            F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        else:
            accumulate(model, tokens, config)
        optimizer.step()
    return step

# %%
def first_step(step):
    """Seconds of a first step, in which torch.compile works; None where it cannot."""
    start = time.perf_counter()
    with warnings.catch_warnings(), torch.compiler.config.patch(force_disable_caches=True):
        warnings.simplefilter("ignore")
        try:
            step()
        except Exception as error:
            return print("torch.compile is not possible here:", type(error).__name__)
    return time.perf_counter() - start


def row(name, ms, above, naive, cores):
    """Print one line of the table; MFU is against the highest rate of the cores in use."""
    mfu = flops_per_token(SHAPE, SEQ) * 1e6 / ms / (cores * max(peak, peak_low))
    word = "start" if above == 1 else "kept" if above >= 1.02 else "dropped"
    word = word if cores == 1 or spare > 0.2 else "not judged: no free core"
    print(f"{name:<36}{ms:>8.1f}{above:>9.2f}{naive:>9.2f}{mfu:>8.1%}   {word}")
    return word == "kept"


def paid_off(compiling, saved):
    """Say after how many steps the seconds of compiling have come back."""
    steps = f"{compiling / saved:,.0f} steps" if saved > 0 else "never here, a step takes longer"
    print(f"torch.compile: {compiling:.0f} s of compiling, paid off after: {steps}")

# %% tags=["nbval-ignore-output"]
# uncompared: times belong to the machine
now = {"naive": True, "batch": 4, "threads": 1, "dtype": "float32"}
CHANGES = {"fused: q k v, attention, loss, Adam": {"naive": False}, "batch: 4 → 16": {"batch": 16},
           "threads: 1 → 2": {"threads": 2}, f"products: float32 → {FAST}": {"dtype": FAST},
           "accumulation: 1 → 4 parts": {"n_micro": 4}, "blocks recomputed": {"recompute": True},
           "blocks by torch.compile": {"compiled": True}}
base, first, gain, spare = stepper(**now), None, 1.0, min(spare, second_core())
print(f"{'what is changed':<36}{'ms/1,000':>8}{'× kept':>9}{'× naive':>9}{'MFU':>8}   "
      f"(second core: {spare:.0%} free)")
for name, trial in ((name, {**now, **change}) for name, change in CHANGES.items()):
    new = stepper(**trial)
    if (compiling := first_step(new)) is None:
        break
    before, after = (1e6 * t / (SEQ * w["batch"]) for t, w in zip(
        medians({"kept": base, "new": new}).values(), (now, trial), strict=True))
    if first is None:
        row("naive", first := before, 1, 1, 1)
    ratio = before / after  # of this pair; gains multiply, whatever the clock does in between
    if row(name, after, ratio, gain * ratio, trial["threads"]):
        now, base, gain = trial, new, gain * ratio
torch.set_num_threads(1)
one, two = (1e6 / (SEQ * BATCH) * np.mean([s for _, s in launched[i::4]]) for i in (1, 3))
row("processes: 1 → 2 (× one process)", two, one / two, first / two, 2)
if compiling is not None:
    paid_off(compiling, (before - after) * SEQ * trial["batch"] / 1e6)

# %% [markdown]
# **Reading.** Compare your prediction. "ms/1,000" is the time for 1,000 tokens; "× kept" says how
# many times as fast the row is as the last one kept, in the same turns; "× naive" multiplies these
# gains up. (The times drift with the machine, the gains hardly.) MFU stands for one
# core's highest measured rate (bfloat16's where it is fast), so a float32 row cannot come near
# 100 %: its own roof is lower. The FLOPs in it are those of the model; work done twice by
# recomputation does not count. A machine without fast bfloat16 stays at float32 in that row.
#
# Accumulation and recomputation save no time: they buy memory (section 2), and the table shows
# their price. `torch.compile` merges elementwise operations into fewer passes. It asks for its time
# first; the last line says when that has come back, if ever. Two threads share each product and
# wait for each other after it; two processes meet once a step. (Their row stands against process 0
# alone, in the same script and not compiled.) Both need a second core that is free. If another
# program sits there, a thread waits for it at every product, and a step may take many times as
# long. Then the row says "not judged".
#
# What pays depends on the shape and the machine, and a table like this holds for one of each.
#
# **When one device is too small.** *Data parallel* copies the model; the batch must be large
# enough to share. If the model does not fit: *tensor parallel* splits each matrix over devices
# with fast links, *pipeline parallel* gives each device some of the layers and keeps them busy
# with parts of the batch, and sharded data parallel (ZeRO, FSDP) spreads the 16 bytes per
# parameter over the processes. On a shared cluster, a scheduler (Slurm, Kubernetes, Ray) hands out
# whole devices, and a job must be able to stop and resume (`helpers.transformer.checkpoints`).
#
# ## 6 · How large a batch?
#
# More devices can work on a larger batch. When does that stop helping? The gradient of a batch is
# the true gradient G plus noise, whose variance falls as 1/batch. While the noise is larger than
# the signal, averaging helps; beyond, it polishes a direction that is good already. The *noise
# scale* is the batch where both are equal (McCandlish et al. 2018). Two mean squared lengths, of
# gradients over b and over B windows, are enough:
#
# $$|G|^2 = \frac{B\,|G_B|^2 - b\,|G_b|^2}{B - b}, \qquad
#   \operatorname{tr}\Sigma = \frac{|G_b|^2 - |G_B|^2}{1/b - 1/B}, \qquad
#   B_\text{noise} = \frac{\operatorname{tr}\Sigma}{|G|^2}$$
#
# Now the other side: real trainings. If noise is all that matters, the steps S to a given loss
# obey S = S_min (1 + B_crit / batch): few windows, many steps; many windows, S_min steps and no
# fewer. (With T = S · batch, the windows read, it is (S/S_min − 1)(T/T_min − 1) = 1.) We train the
# small model to one held-out loss with six batch sizes. The learning rate grows with √batch, a
# rule of thumb for Adam; we did not tune it for each.

# %% tags=["essential"]
def noise_scale(g_small, g_big, b_small, b_big):
    signal = (b_big * g_big - b_small * g_small) / (b_big - b_small)  # |G|² of the true gradient
    noise = (g_small - g_big) / (1 / b_small - 1 / b_big)  # summed variance of one item's
    return noise / signal

# %% tags=["check"]
true = rng.normal(size=500)
single = true + 4 * rng.normal(size=(4000, 500))  # per coordinate: noise 4² beside signal
expected = 16 * 500 / (true @ true)
pooled = single.reshape(40, 100, 500).mean(axis=1)  # 40 batches of 100
found = noise_scale((single**2).sum(1).mean(), (pooled**2).sum(1).mean(), 1, 100)
assert abs(found / expected - 1) < 0.05
print(f"noise_scale: {found:.1f} where {expected:.1f} was put in")

# %%
def train_to(target, batch, most=2000):
    """(steps, model) when the held-out loss is first below target, looked at every 5 steps."""
    config = training.TrainConfig(1e-3 * batch**0.5, most, batch, seq=64, warmup_steps=20)
    optimizer = training.make_optimizer(model := GPT(SMALL), config)
    batches = data.TokenBatches(train_tokens, batch, 64)
    for stop in range(5, most, 5):
        training.run_steps(model, optimizer, batches, config, stop - 5, stop)
        if training.evaluate(model, validation) < target:
            return stop, model


def measured_noise(model):
    """Noise scale in windows, from the gradients of NOISE_WINDOWS single windows."""
    single = []
    for window in data.windows(train_tokens, NOISE_WINDOWS, 64):
        model.zero_grad()
        accumulate(model, torch.from_numpy(window[None]), training.TrainConfig(lr=1, n_steps=100))
        single.append(torch.cat([p.grad.flatten() for p in model.parameters()]).double())
    single = torch.stack(single)
    return noise_scale((single**2).sum(1).mean().item(), (single.mean(0) ** 2).sum().item(),
                       1, NOISE_WINDOWS)


reached = {batch: train_to(TARGET, batch) for batch in BATCHES}
early, late = map(measured_noise, (train_to(EARLY, 16)[1], reached[16][1]))
S = np.array([steps for steps, _ in reached.values()])
falls, rises = bool((np.diff(S) < 0).all()), bool((np.diff(S * np.array(BATCHES)) > 0).all())
print(f"each larger batch needs fewer steps: {falls}; and more tokens: {rises}")
print(f"the noise scale has grown since the loss was {EARLY}:", bool(late > early))

# %% tags=["nbval-ignore-output"]
# uncompared: hundreds of float32 steps end in other digits on another processor
def fit_steps(batch, S):
    """(S_min, B_crit) of S = S_min (1 + B_crit / batch), least squares of relative errors."""
    terms = np.column_stack([1 / S, 1 / (batch * S)])
    S_min, slope = np.linalg.lstsq(terms, np.ones(len(S)))[0]
    return S_min, slope / S_min


sizes = np.array(BATCHES)
S_min, critical = fit_steps(sizes, S)
without = [fit_steps(np.delete(sizes, i), np.delete(S, i))[1] for i in range(len(S))]
print(f"steps: {dict(zip(BATCHES, S.tolist(), strict=True))}")
print(f"B_crit = {plots.interval(critical, min(without), max(without), 1)} windows of 64 tokens "
      f"(leaving one size out); S_min = {S_min:.0f} steps")
print(f"noise scale: {early:.1f} windows at loss {EARLY}, {late:.1f} at loss {TARGET}")
(ax,) = plots.panels()
line, fewer = np.geomspace(1, 32, 50), 1 - S[1:] / S[:-1]
print(f"each doubling saves {fewer.min():.0%} to {fewer.max():.0%} of the steps")
ax.plot(BATCHES, S, "o", label=f"measured, loss {TARGET}")
ax.plot(line, S_min * (1 + critical / line), label=f"fitted, B_crit = {critical:.1f}")
ax.axvline(late, color="C2", ls="--", label=f"noise scale at the end, {late:.0f}")
print("their ratio is between 1/10 and 10:", bool(0.1 < critical / late < 10))
plots.label(ax, "batch (windows of 64 tokens)", "steps", "Steps to one loss", "xy")

# %% [markdown]
# **Reading.** By the law, twice the batch halves the steps at the left end and saves none at the
# right. The measured points bend less: each doubling still saves some steps, and costs more tokens
# (printed above). The fitted curve misses them at both ends. (Two possible reasons, not tested:
# each run passes through losses with smaller noise scales on its way, and the rate was set by a
# rule.) So there is no sharp limit, and the two ways to find it agree in order of magnitude, not
# better. Kaplan et al.
# publish B_crit = 2·10⁸ tokens / L^4.76 for their data and tokens; it too grows as the loss L
# falls. Its numbers do not carry over to a byte model.
#
# In practice: use the smallest batch that keeps the device busy, unless time matters more than
# FLOPs.
#
# ## 7 · Time against size
#
# The claim: training time grows as a power law in model size, time ∝ N^a. C = 6ND says a = 1 if D
# is fixed, and a = 2 if D grows with N (chapter 09: it should). The clock may differ: small
# products leave the processor waiting. We time one step for six widths, and multiply for D = 20 N;
# those longer runs are arithmetic, not run. Beside them we fit the exact FLOPs of the same models.

# %% tags=["nbval-ignore-output"]
# uncompared: times belong to the machine
def timed_step(config):
    """One float32 step with TIMED_BATCH windows, as a function."""
    model, how = GPT(config).to(DEVICE), training.TrainConfig(1, 100, batch_size=TIMED_BATCH)
    optimizer = training.make_optimizer(model, how)
    tokens = torch.from_numpy(drawn[:TIMED_BATCH]).to(DEVICE)
    prepare(model, how)
    return lambda: (optimizer.zero_grad(), accumulate(model, tokens, how), optimizer.step())


N_all = np.array(N_all, dtype=float)
seconds = medians({s.d_model: timed_step(s) for s in widths}, n_rounds=7)
per_token_s = np.array([*seconds.values()]) / (TIMED_BATCH * SEQ)
times = {"fixed tokens": 1e6 * per_token_s,
         f"D = {TOKENS_PER_PARAMETER} N": TOKENS_PER_PARAMETER * N_all * per_token_s}
slopes = {name: fits.fit_power_law(N_all, y) for name, y in times.items()}
slopes |= {"exact FLOPs": fits.fit_power_law(N_all, [flops_per_token(s, SEQ) for s in widths]),
           "three smallest": fits.fit_power_law(N_all[:3], per_token_s[:3]),
           "three largest": fits.fit_power_law(N_all[3:], per_token_s[3:])}
for name, fit in slopes.items():
    print(f"{name}: a = {plots.interval(-fit.exponent, -fit.high, -fit.low, 2)}")
(ax,) = plots.panels()
for name, y in times.items():
    text = plots.interval(-slopes[name].exponent, -slopes[name].high, -slopes[name].low, 2)
    ax.plot(N_all, y, "o", label=f"{name}: a = {text}")
    ax.plot(N_all, slopes[name].predict(N_all), "k:", lw=1)
plots.label(ax, "N_total", "time (s)", "Time to train (10⁶ tokens, or 20 per parameter)", "xy")

# %% tags=["verdict"]
fixed, grown, flops, small, large = (-fit.exponent for fit in slopes.values())
below, rises, more = bool(fixed < 1), bool(large > small), grown - fixed
claims.verdict("K12", holds=None if rises else True,
        measured=f"at fixed tokens the exponent over these sizes is below 1: {below} (exact FLOPs: "
        f"{flops:.2f}). It is larger for the three largest than for the three smallest: {rises}, "
        f"so one power law does not cover all sizes. With D ∝ N it is {more:.2f} more",
        below_one=below, rises=rises, more=more, exact_flops=flops)

# %% [markdown]
# **Reading.** A straight line through all points is a fair description and a wrong law: the slope
# rises along it. Compare it with that of the FLOPs. These rise more slowly than N too, since the
# scores grow with d_model only. But the time rises more slowly still: the smaller the model, the
# fewer FLOPs it gets done in a second. (Probably calls take longer than their arithmetic there; not
# tested.) A large model's rate cannot go on rising, so its time follows C, and C approaches 6ND
# (section 1). An exponent measured on small models would promise large ones too cheaply. And "time
# against size" says nothing until it is said what happens to the tokens.
#
# ## 8 · Speed is no use if nothing is learnt: depth
#
# The claim: ReLU prevents vanishing gradients. Chapter 04 measured it on plain networks, and found
# that it depends on the gain g: entries drawn with a standard deviation of g/√d_in shrink the
# gradient with g = 1, hold it with √2 (He) and let it explode with 2. Does that carry over to
# transformer blocks, and does depth then need ReLU?
#
# Here are whole blocks, at initialisation, in float64: the gradient of the loss with respect to
# the stream below the first block, over the same above the last. A ratio near 1 means that the
# first block gets as much gradient as the last. "Alone" removes both residual connections and
# norms (and draws the matrices that write into the stream without the extra 1/√(2 n_layer) that is
# meant for residuals). The gain is that of the matrix that follows the activation; g = 1 is the
# course's.

# %%
def gradient_ratio(depth, act, residual, norm, gain, seed):
    """Length of the gradient below the first block over that above the last."""
    model = GPT(GPTConfig(n_layer=depth, n_head=4, d_model=32), seed).double()
    tokens = torch.from_numpy(data.windows(train_tokens, len(SEEDS), 128)[seed].reshape(3, 43))
    turn, scale = attention.rotation(torch.arange(42), 8), 1 if residual else (2 * depth) ** 0.5
    first = x = (model.wte(tokens[:, :-1]) / 0.02).detach().requires_grad_()  # unit size
    for b in model.blocks:
        norm1, norm2 = (b.norm1, b.norm2) if norm else 2 * (lambda v: v,)
        x = residual * x + scale * b.attn(norm1(x), turn)
        x = residual * x + gain * scale * b.down(act(b.up(norm2(x))))
    logits = F.linear(model.norm(x), model.wte.weight).flatten(0, 1)
    loss = F.cross_entropy(logits, tokens[:, 1:].flatten())
    below, above = torch.autograd.grad(loss, (first, x))
    return (below.norm() / above.norm()).item()


kinds = {"sigmoid alone, g = 1": (torch.sigmoid, 0, 0, 1), "ReLU alone, g = 1": (F.relu, 0, 0, 1),
         "ReLU alone, g = √2": (F.relu, 0, 0, 2**0.5), "ReLU alone, g = 2": (F.relu, 0, 0, 2),
         "ReLU + norm, g = 1": (F.relu, 0, 1, 1),
         "sigmoid + norm + residual": (torch.sigmoid, 1, 1, 1),
         "GELU + norm + residual (ours)": (F.gelu, 1, 1, 1)}
deep = {name: [np.exp(np.mean([np.log(gradient_ratio(n, *how, s)) for s in SEEDS]))
               for n in DEPTHS] for name, how in kinds.items()}

# %%
(ax,) = plots.panels(height=3.8)
for (name, ratio), marker in zip(deep.items(), "os^vPD*", strict=True):
    ax.plot(DEPTHS, ratio, marker + "-", label=name)
    print(f"{name}: {ratio[-1]:.2g} at {DEPTHS[-1]} blocks, "
          f"× {ratio[-1] ** (1 / DEPTHS[-1]):.2f} per block")
plots.label(ax, "blocks", "gradient below / above", "Does it reach the first block?", "y")

# %% tags=["verdict"]
sigmoid, low, he, high, _, repaired, ours = (ratios[-1] for ratios in deep.values())
kept = {bool(ratio > 0.1) for ratio in (low, he, high)}
claims.verdict("K5", holds=kept.pop() if len(kept) == 1 else None,
        measured=f"through {DEPTHS[-1]} blocks ReLU alone leaves {low:.1g}, {he:.1g} and "
        f"{high:.1g} of the gradient with g = 1, √2 and 2, so it depends on the initialisation, as "
        f"in chapter 04. With residual connections and norms a sigmoid leaves {repaired:.2f} of it",
        relu_gain_1=low, relu_he=he, relu_gain_2=high, sigmoid=sigmoid,
        sigmoid_repaired=repaired, ours=ours)

# %% [markdown]
# **Reading.** On this axis a straight line is a constant factor per block: exponential in depth.
# ReLU alone vanishes with g = 1 and explodes with g = 2, as in chapter 04. With √2, which held the
# gradient there, it fades here: an attention stands in each block too, and √2 was derived for
# layers with ReLU only. So the verdict is the same in both chapters, *it depends*: a ReLU lets a
# gradient pass, and what becomes of it through many layers is decided by the weights. Norms
# without residuals leave a ratio that wanders. With residual connections and norms the gradient
# has a way through that no factor touches, and it arrives even with a sigmoid. That is what depth
# needs, and not ReLU.
#
# ## 9 · Planning a run
#
# Time is FLOPs over what the devices do: peak × MFU × number. Energy is device-hours × watts, cost
# device-hours × price. The peaks below are dense figures from the makers' data sheets; watts and
# price you enter yourself. A machine's advertised figure may be twice as high, for matrices of
# which half the entries are zero (2:4 sparsity). Published MFUs: GPT-3 21.3 %, PaLM-540B 46.2 %,
# Llama 3 38 to 43 %.
#
# The table: TFLOP/s of bfloat16 products, of float16 on the T4, which has no fast bfloat16; GB/s;
# GB. A gap means that we could not confirm the figure.
#
# ### Play: the planner
#
# Choose a model, tokens, a device. "This machine" has the float32 peak that was measured in
# section 3. Guess first: how many days does a 1-billion-parameter model with 20 tokens per
# parameter need on one H100 at an MFU of 40 %?

# %% tags=["essential"]
def plan(N, D, peak_flops, mfu, n_devices=1, watts=0.0, price=0.0):
    seconds = 6 * N * D / (peak_flops * mfu * n_devices)
    device_hours = seconds / 3600 * n_devices
    return {"seconds": seconds, "bytes": 16 * N, "device_hours": device_hours,
            "kWh": device_hours * watts / 1000, "cost": device_hours * price}

# %% tags=["check"]
gpt3 = plan(175e9, 300e9, peak_flops=1.0, mfu=1.0)["seconds"]  # at 1 FLOP/s seconds are FLOPs
assert abs(gpt3 / 3.14e23 - 1) < 0.01  # published
two, four = (plan(1e9, 2e10, 312e12, 0.4, n, watts=400, price=2.0) for n in (2, 4))
assert np.isclose(two["seconds"], 2 * four["seconds"])  # twice the devices: half the time,
assert np.isclose(two["cost"], four["cost"])  # the same cost
assert np.isclose(two["kWh"], two["device_hours"] * 0.4)
print(f"plan: GPT-3 takes {gpt3:.3g} FLOPs by 6ND (published: 3.14e23)")

# %%
gpus = data.table("published/gpu_specs.csv").set_index("gpu")
gpus["peak"] = gpus.bf16_dense_TFLOPs.fillna(gpus.fp16_dense_TFLOPs)
print(gpus[["peak", "mem_GBps", "mem_GB"]].to_string())

# %% tags=["widget"]
peaks = {**{name: 1e12 * p for name, p in gpus.peak.items()}, "this machine": peak}
memory = {**{name: 1e9 * m for name, m in gpus.mem_GB.items()},
          "this machine": runtime.memory_bytes(DEVICE)}
sizes = np.geomspace(1e6, 1e12, 40)


def planner(N, ratio, device, mfu, n_devices, watts, price):
    p = plan(N, ratio * N, peaks[device], mfu, n_devices, watts, price)
    days = plan(sizes, ratio * sizes, peaks[device], mfu, n_devices)["seconds"] / 86400
    room = "fits" if p["bytes"] < n_devices * memory[device] else "does not fit, even spread"
    return widgets.picture(
        [widgets.series("line", sizes, days, f"{n_devices} × {device}", 0),
         widgets.series("points", [N], [p["seconds"] / 86400], "your run", 3)],
        "parameters", "days", (1e6, 1e12), (1e-6, 1e9), "Time at this many tokens per parameter",
        log="xy", text=f"{N:.3g} parameters, {ratio * N:.3g} tokens: "
        f"{p['seconds'] / 86400:.3g} days, "
        f"{p['device_hours']:.3g} device-hours, {p['kWh']:.3g} kWh, cost {p['cost']:.3g}. State "
        f"{p['bytes'] / 1e9:.3g} GB: {room} (activations not counted)")


widgets.explore(planner,
        N=FloatLogSlider(1e9, min=6, max=12, step=0.1, description="parameters"),
        ratio=FloatLogSlider(20, min=0, max=3, step=0.1, description="tokens per parameter"),
        device=Dropdown(value="H100 SXM5 80GB", options=list(peaks), description="device"),
        mfu=FloatSlider(0.4, min=0.05, max=0.7, step=0.05, description="MFU"),
        n_devices=IntSlider(1, 1, 1024, description="devices"),
        watts=IntSlider(700, 50, 1500, step=50, description="watts per device"),
        price=FloatSlider(2.0, min=0, max=10, step=0.1, description="price per device-hour"))

# %% [markdown]
# ## Exercises
#
# Write the functions, run their cell, then the check below it. `hint("07.1")` gives a hint, called
# again a second one; `solution("07.1")` shows ours.

# %% tags=["exercise"]
def width_for_ten_per_cent():
    """The d_model at which the exact FLOPs are 1.1 times 6·N_total·D. Read the first figure."""
    return NotImplemented

# %% tags=["exercise-check"]
check("07.1", width_for_ten_per_cent)
# hint("07.1")
# solution("07.1")

# %% tags=["exercise"]
def utilisation(tokens_per_second, flops_per_token, peak_flops):
    """MFU as a share, 0 … 1. flops_per_token counts forward and backward pass."""
    return NotImplemented


def matmul_intensity(m, k, n, bytes_per_number):
    """FLOPs per byte of the product (m, k) @ (k, n): each matrix is read or written once."""
    return NotImplemented

# %% tags=["exercise-check"]
check("07.2", utilisation)
# hint("07.2")
# solution("07.2")
check("07.3", matmul_intensity)
# hint("07.3")
# solution("07.3")

# %% tags=["exercise"]
def combine(gradients, sizes):
    """Gradient (d,) of the mean loss over all windows, from each part's: gradients (n_parts, d)
    of the parts' mean losses, sizes (n_parts,) in windows."""
    return NotImplemented


def largest_run(device_hours, peak_flops, mfu, tokens_per_parameter):
    """(N, D), not rounded, of the run with D = tokens_per_parameter · N and C = 6ND that takes
    just these device-hours."""
    return NotImplemented

# %% tags=["exercise-check"]
check("07.4", combine)
# hint("07.4")
# solution("07.4")
check("07.5", largest_run)
# hint("07.5")
# solution("07.5")

# %% [markdown]
# ## Recap
#
# - 6ND is right when d_model is large against seq / 6 and the vocabulary is small against the rest;
#   else count.
# - State takes 16 bytes per parameter; activations grow with batch, depth and seq, and can be
#   traded for time.
# - Measure changes in turns, each against the last one kept, and drop what does not pay.
# - ReLU alone keeps no gradient through many blocks, unless the weights happen to suit. Residual
#   connections and norms keep it with any activation tried here.
# - A batch beyond the noise scale buys few steps. Time is a power of size only over ranges, and
#   only once the tokens are fixed as a rule.
#
# **Limits.** One machine, one shape, short runs; the rate was not tuned for each batch; D = 20 N
# was not run. Two processes on one machine share its memory and have no network between them.
#
# **To read.** Williams, Waterman & Patterson, *Roofline* (2009); McCandlish et al., *An empirical
# model of large-batch training* (2018, arXiv:1812.06162); Chowdhery et al., *PaLM*, appendix B, for
# MFU; Dao et al., *FlashAttention* (2022); Karpathy's nanoGPT, for a fast and short loop.
#
# Next: **08 · Scaling sweeps**.
