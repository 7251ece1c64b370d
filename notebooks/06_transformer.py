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
# # 06 · Transformer
#
# **How does a stack of matrix products learn to continue a text, and what does one token cost?**
#
# You will
#
# 1. build a GPT from one attention head up, and check each part against PyTorch's own;
# 2. test that no position sees the future, and count the parameters and the FLOPs of all matrix
#    products exactly;
# 3. train it on real text, compare it with counting and with `xz`, sample from it, save it, and
#    look inside.
#
# Runs in about 3 minutes on a CPU. The same cells run on a GPU; not timed there yet. Before this:
# chapters 02 and 05.
#
# | symbol | code | meaning | unit |
# |---|---|---|---|
# | $N$ | `N`, `N_total` | parameters without embeddings, and all of them | – |
# | $D$ | `D` | training tokens | tokens |
# | $C$ | `C` | training FLOPs: a multiplication and an addition count as two | FLOP |
# | $L$ | `loss` | mean cross-entropy of the next token | nats per token |
# | | `bpb` | the same in bits per byte of text | bits per byte |
# | $q, k, v$ | `q, k, v` | query, key and value of each position | – |
# | $w_{ij}, y_i$ | `weights, mix` | share of position $j$ in what $i$ gets; what $i$ gets | – |
# | $\mathrm{i}$ | | imaginary unit: upright, unlike the position $i$ | – |
# | $z_i, p_i$ | `logits`, `p` | score and probability of token $i$ | – |
# | $T$ | `temperature` | divides the logits before sampling | – |
# | | `batch, seq, d_model, n_head, d_head` | sizes of tensors | – |

# %% tags=["imports"]
import contextlib
import lzma
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import log, sqrt
from pathlib import Path

import numpy as np
import torch
from IPython.display import display
from ipywidgets import Dropdown, FloatSlider, IntSlider, Label, Text
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from helpers import data, plots, runtime, widgets
from helpers.claims import verdict
from helpers.exercises import check, hint, solution
from helpers.foundations.tokens import bpe_decode, bpe_encode, bpe_train, ngram_loss
from helpers.transformer import checkpoints, training
from helpers.transformer.models import GPTConfig, check_tokens, generate, init_weights

# %% tags=["config"]
rng = runtime.setup(seed=0)
DEVICE = runtime.device()
VOCAB = 1024  # tokens: 256 bytes and 768 merges
SMALL = GPTConfig(VOCAB, context=32, n_layer=2, n_head=2, d_model=16)  # for the checks
D_HEAD = SMALL.d_model // SMALL.n_head
SHAPE = GPTConfig(VOCAB, context=128, n_layer=4, n_head=4, d_model=128)  # the model to be trained
N_STEPS = {"quick": 1700, "full": 10000}[runtime.profile()]
RUN = training.TrainConfig(lr=2e-3, n_steps=N_STEPS, batch_size=16, seq=128, decay_fraction=0.4,
                           dtype=runtime.fast_dtype(DEVICE))
LOOKS = tuple(N_STEPS * tenths // 10 for tenths in (1, 2, 4, 10))  # steps at which we measure
N_GRAM = 5  # tokens or bytes: four of context and the one that follows
LENGTHS, N_STREAMS, N_REPEATS = (16, 32, 64, 128, 256), 32, 3  # for the speed of writing
SHORT = training.TrainConfig(lr=2e-3, n_steps=40, batch_size=4, seq=32, warmup_steps=5)
HALF = SHORT.n_steps // 2  # where this run is interrupted

# %% [markdown]
# ## Text as numbers
#
# The text is the collected addresses of US presidents to Congress, 1790 to 2026. Byte-pair
# encoding (chapter 05) turns it into tokens: 256 single bytes, and 768 merges of frequent
# neighbours, learnt here from the training text alone. Whole documents are held out: a document's
# own phrases must not appear on both sides.
#
# A token is a piece of a word, so *nats per token* depends on the pieces. We compare in *bits per
# byte*: all the bits that the held-out text costs, divided by its bytes.
#
# The documents are joined by a line break. The article marks the end of a text with a token of its
# own (EOS), so that a generator knows when to stop. We write a fixed number of tokens, and need
# none.

# %%
train_docs, held_out = data.split_documents(data.prose())
train_bytes, held_bytes = bytes(data.encode(train_docs)), bytes(data.encode(held_out))
merges = bpe_train(train_bytes, VOCAB)
train_tokens, val_tokens = bpe_encode(train_bytes, merges), bpe_encode(held_bytes, merges)
print(f"{len(train_docs)} documents, {len(train_tokens):,} tokens to train on")
print(f"{len(held_out)} documents, {len(val_tokens):,} tokens held out")
pieces = [bpe_decode([t], merges).decode() for t in bpe_encode(b"My fellow citizens,", merges)]
print("|".join(pieces))

# %% [markdown]
# ## Predict first
#
# Ways to guess how a president's speech goes on, all measured below on the same held-out text, in
# bits per byte (8 means no idea, 0 means certainty):
#
# - `xz -9`, a compressor that looks for repeated strings: alone, and after reading the training
#   text;
# - a 5-gram model, which counts what followed each four bytes; and one that counts tokens;
# - a transformer with 0.9 million parameters that reads the training text about once, in about
#   two minutes.
#
# Write down your order and a number for each before you go on.
#
# ## One attention head
#
# Each position asks a question $q$, offers a key $k$ and carries a value $v$. Position $i$ mixes
# the values of all positions $j \le i$ with weights that sum to one:
#
# $$w_{ij} = \operatorname{softmax}_j\!\left(\frac{q_i \cdot k_j}{\sqrt{d_\text{head}}}\right),
# \qquad y_i = \sum_{j \le i} w_{ij} v_j$$
#
# In words: score all pairs, forbid the future by setting its scores to $-\infty$, turn scores
# into weights, take the weighted mean. The root keeps the scores' spread near one when
# $d_\text{head}$ grows. *Softmax* turns scores $s_j$ into weights $e^{s_j} / \sum_k e^{s_k}$:
# positive, and of sum one.

# %% tags=["essential"]
def attention(q, k, v):
    """Causal attention: q, k, v of shape (..., seq, d_head) → the mix, and its weights."""
    seq, d_head = q.shape[-2:]
    scores = q @ k.transpose(-2, -1) / sqrt(d_head)  # (..., seq, seq)
    future = torch.ones(seq, seq, dtype=torch.bool, device=q.device).triu(1)
    weights = scores.masked_fill(future, float("-inf")).softmax(-1)
    return weights @ v, weights


# %% tags=["check"]
q, k, v = (torch.from_numpy(rng.normal(size=(2, 5, 8))) for _ in range(3))
mix, weights = attention(q, k, v)
torch.testing.assert_close(mix, F.scaled_dot_product_attention(q, k, v, is_causal=True))
print("attention equals torch's scaled_dot_product_attention; the weights of five positions:")
print(np.round(weights[0].numpy(), 2))

# %% [markdown]
# Each row is one position that looks. It sums to one and is zero right of the diagonal. The first
# position has nobody to look at but itself.
#
# ## Where is a token?
#
# The mix above does not know the order of the tokens it looks at. *Rotary positions* tell it:
# take the numbers of $q$ and $k$ in pairs of neighbours $(a, b)$, and turn each pair by an angle
# $\varphi$ that grows with the position, fast for the first pair, slower for the next. Turning is a
# product of complex numbers:
#
# $$a' + b'\,\mathrm{i} = e^{\mathrm{i}\varphi}\,(a + b\,\mathrm{i}),
# \qquad \varphi = \text{position} \cdot \text{base}^{-\text{pair}/d_\text{head}}$$
#
# with pair = 0, 2, 4, … `rotation` makes the factors $e^{\mathrm{i}\varphi}$, of shape (seq,
# d_head/2); `rotate` applies them to x, (…, seq, d_head). A dot product of two turned pairs
# depends on the difference of their angles alone, so a score depends on *how far back* a token
# stands, wherever the two are.

# %% tags=["essential"]
def rotation(positions, d_head, base=1000.0):
    pair = torch.arange(0, d_head, 2, device=positions.device)
    angle = positions[:, None] * base ** (-pair / d_head)  # slower and slower
    return torch.polar(torch.ones_like(angle), angle)


def rotate(x, turn):
    x = x.float() if x.dtype == torch.bfloat16 else x
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))  # (..., seq, d_head/2)
    return torch.view_as_real(pairs * turn).flatten(-2)


# %% tags=["check"]
here, later = (rotation(torch.arange(5.0, dtype=torch.float64) + shift, 8) for shift in (0, 40))
torch.testing.assert_close(rotate(q, here) @ rotate(k, here).mT,
                           rotate(q, later) @ rotate(k, later).mT)
angle = torch.arange(5.0, dtype=torch.float64)[:, None] * 1000.0 ** (-torch.arange(0, 8, 2) / 8)
a, b, cos, sin = q[..., ::2], q[..., 1::2], angle.cos(), angle.sin()
by_hand = torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)
torch.testing.assert_close(rotate(q, here), by_hand, rtol=0, atol=1e-6)
print("rotate equals cosines and sines by hand; 40 places further on the scores are the same")

# %% [markdown]
# ## Many heads
#
# One product makes $q$, $k$ and $v$ for all heads; the heads work side by side on slices of
# width $d_\text{head} = d_\text{model} / n_\text{head}$; a last product mixes them. The formula of
# `attention` is left to torch's own function, which we have just seen to be equal. The `cache`
# keeps the keys and values of earlier tokens during generation; it is explained further down.

# %% tags=["essential"]
class CausalSelfAttention(nn.Module):
    """Multi-head causal attention, (batch, seq, d_model) → the same shape."""

    def __init__(self, config):
        super().__init__()
        self.n_head = config.n_head
        self.qkv = nn.Linear(config.d_model, 3 * config.d_model, bias=False)
        self.out = nn.Linear(config.d_model, config.d_model, bias=False)
        self.mix = F.scaled_dot_product_attention  # chapter 07 puts a faster one here

    def forward(self, x, turn, cache=None):
        batch, seq, _ = x.shape
        qkv = self.qkv(x).view(batch, seq, 3, self.n_head, -1).transpose(1, 3)
        q, k, v = qkv.unbind(2)  # each (batch, n_head, seq, d_head)
        q, k = rotate(q, turn), rotate(k, turn)
        if cache is not None:
            k, v = cache.append(self, k, v)  # with all earlier keys and values
        y = self.mix(q, k, v, is_causal=seq > 1)
        return self.out(y.transpose(1, 2).reshape(batch, seq, -1))


# %% tags=["check"]
layer = CausalSelfAttention(SMALL).double()
x = torch.from_numpy(rng.normal(size=(3, 7, SMALL.d_model)))
turn = rotation(torch.arange(7.0, dtype=torch.float64), D_HEAD)
slabs = [slab.chunk(SMALL.n_head, dim=-1) for slab in layer.qkv(x).chunk(3, dim=-1)]
heads = [attention(rotate(q, turn), rotate(k, turn), v)[0] for q, k, v in zip(*slabs, strict=True)]
torch.testing.assert_close(layer(x, turn), layer.out(torch.cat(heads, dim=-1)))
print(f"{SMALL.n_head} heads at once equal {SMALL.n_head} single heads side by side")

# %% [markdown]
# ## One block
#
# Each position carries a vector of $d_\text{model}$ numbers from layer to layer, the *residual
# stream* $x$. A block adds two things to it: what the heads found, and what a small network makes
# of each position on its own. (*Norm* shifts and scales a vector to mean 0 and variance 1, then
# multiplies each entry by a learnt gain; *gelu* is a smooth $\max(0, x)$.) Both read a normalised
# copy (*pre-norm*), so the stream itself runs from the first layer to the last without passing a
# non-linearity:
#
# $$x \leftarrow x + \operatorname{attn}(\operatorname{norm}_1 x), \qquad
#   x \leftarrow x + W_\text{down}\,\operatorname{gelu}(W_\text{up}\operatorname{norm}_2 x)$$
#
# The article also puts *dropout* between its layers: during training it sets random activations to
# zero, against learning a text by heart. Our run reads each token about once, so there is little to
# learn by heart, and we leave it out.

# %% tags=["essential"]
class Block(nn.Module):
    """A pre-norm transformer block, (batch, seq, d_model) → the same shape."""

    def __init__(self, config):
        super().__init__()
        self.norm1 = nn.LayerNorm(config.d_model, bias=False)
        self.attn = CausalSelfAttention(config)
        self.norm2 = nn.LayerNorm(config.d_model, bias=False)
        self.up = nn.Linear(config.d_model, 4 * config.d_model, bias=False)
        self.down = nn.Linear(4 * config.d_model, config.d_model, bias=False)

    def forward(self, x, turn, cache=None):
        x = x + self.attn(self.norm1(x), turn, cache)
        return x + self.down(F.gelu(self.up(self.norm2(x))))


# %% tags=["check"]
block = Block(SMALL).double()
reference = nn.TransformerEncoderLayer(
    SMALL.d_model, SMALL.n_head, 4 * SMALL.d_model, dropout=0.0, activation=F.gelu,
    batch_first=True, norm_first=True, bias=False, dtype=torch.float64)
ours = (block.attn.qkv, block.attn.out, block.up, block.down, block.norm1, block.norm2)
for theirs, mine in zip(reference.parameters(), ours, strict=True):
    theirs.data.copy_(mine.weight)
mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=torch.float64)
still = rotation(torch.zeros(x.shape[1], dtype=torch.float64), D_HEAD)
torch.testing.assert_close(block(x, still), reference(x, src_mask=mask))
print("without rotation, block equals torch's TransformerEncoderLayer with the same weights")

# %% [markdown]
# ## The whole model
#
# Token embeddings start the stream, blocks work on it, and the *logits*, one score per possible
# next token, are its dot products with the token embeddings. Softmax makes them probabilities; the
# loss, the *cross-entropy*, is the mean of minus the log of the probability given to the token that
# came. The output layer (also called head; no attention head) is *tied* to the embedding: one
# matrix serves both. Two helpers: `init_weights` draws the weights with numpy's generator, the same
# on every machine; `check_tokens` refuses ids outside the vocabulary and texts longer than the
# context.

# %% tags=["essential"]
class GPT(nn.Module):
    """Tokens (batch, seq) → logits of the next token (batch, seq, vocab)."""

    def __init__(self, config, seed=0):
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab, config.d_model)  # token embedding, also the head
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = nn.LayerNorm(config.d_model, bias=False)
        init_weights(self, seed)

    def forward(self, tokens, cache=None):
        start = 0 if cache is None else cache.length
        check_tokens(tokens, start, self.config)
        positions = torch.arange(start, start + tokens.shape[1], device=tokens.device)
        turn = rotation(positions, self.config.d_model // self.config.n_head)
        x = self.wte(tokens)  # (batch, seq, d_model)
        for block in self.blocks:
            x = block(x, turn, cache)
        if cache is not None:
            cache.length += tokens.shape[1]
        return F.linear(self.norm(x), self.wte.weight)  # logits: (batch, seq, vocab)


# %% tags=["check"]
small = GPT(SMALL)
tokens = torch.from_numpy(rng.integers(0, SMALL.vocab, (4, SMALL.context)))
untrained = F.cross_entropy(small(tokens).flatten(0, 1), tokens.flatten()).item()
assert abs(untrained - log(SMALL.vocab)) < 0.1
print(f"untrained loss {untrained:.1f} nats; a blind guess costs ln {SMALL.vocab} = "
      f"{log(SMALL.vocab):.3f}")

# %% [markdown]
# ## Does it see the future?
#
# Change one token and look at the logits of the positions before it. In a causal model they do
# not move at all. The article's generator convolves over the whole context without a mask; the
# same experiment shows what that does. A model that sees the next token while it learns to predict
# it can simply copy it. When it writes, there is nothing to copy.
#
# The article has two more peculiarities. Its vocabulary gives each *occurrence* of a word an id of
# its own, `range(len(words))`: no id ever comes twice, so what is learnt about one is never of use
# again. And it divides *probabilities* by the temperature, then samples them as if they were
# logits. What should happen is $p_i \propto e^{z_i / T}$: a low $T$ makes the likeliest token
# likelier.

# %%
changed, place = tokens.clone(), 20
changed[:, place] = (changed[:, place] + 1) % SMALL.vocab
moved = (small(changed) - small(tokens)).abs().amax(dim=(0, 2))
print(f"before the token: {moved[:place].max():.1g}; itself moves: {bool(moved[place] > 0.01)}")
embed, convolve = nn.Embedding(SMALL.vocab, 16), nn.Conv1d(16, SMALL.vocab, 9, padding="same")
article = [convolve(embed(t).transpose(1, 2)) for t in (tokens, changed)]
leak = (article[1] - article[0]).abs()[:, :, :place].max().item()
print("the article's convolution lets an earlier position see the change:", leak > 0.01)

# %% tags=["verdict"]
logits, softmax = np.array([4.0, 2.0, 0.0]), lambda z: np.exp(z) / np.exp(z).sum()
right, theirs = softmax(logits / 0.5), softmax(softmax(logits) / 0.5)
n_ids, n_words = len(words := held_out[0].split()), len(set(words))  # the article's, and ours
verdict("K9", bool(leak < 1e-6 and n_ids == n_words and np.allclose(right, theirs)),
        f"the {n_words} different words of one address get {n_ids:,} ids; a later token moves "
        f"earlier outputs of the convolution, ours by {moved[:place].max().item():.1g}; at T = 0.5 "
        f"the likeliest token should get {right[0]:.2f} and gets {theirs[0]:.2f}",
        likeliest=right[0], likeliest_in_article=theirs[0])

# %% [markdown]
# ## Parameters and FLOPs, by hand
#
# Each weight of a matrix takes one multiplication and one addition per token. Scores and mixing
# take `seq · d_model` of each per layer. The backward pass does the same work twice, once for
# the inputs and once for the weights:
#
# $$C_\text{token} = 3 \cdot 2\,\big(N_\text{mat} + 2\, n_\text{layer} \cdot \text{seq} \cdot
# d_\text{model}\big), \qquad N_\text{mat} = 12\, n_\text{layer}\, d_\text{model}^2 +
# \text{vocab} \cdot d_\text{model}$$
#
# PyTorch's counter is the judge; like us it counts matrix products only, the masked half of the
# scores included. It does not know the fused attention kernel of a CPU and would
# leave its work out, so the check asks for the plain one.

# %% tags=["essential"]
def n_params(config):
    """(N without the embedding, N_total) of a GPT with this config; norms are counted."""
    per_layer = 12 * config.d_model**2 + 2 * config.d_model  # qkv 3, out 1, up 4, down 4; norms
    N = config.n_layer * per_layer + config.d_model  # non-embedding
    N_total = N + config.vocab * config.d_model
    return N, N_total


def flops_per_token(config, seq):
    """Exact training FLOPs per token of a GPT read in windows of `seq` tokens."""
    N_mat = config.n_layer * 12 * config.d_model**2 + config.vocab * config.d_model
    scores_and_mix = 2 * config.n_layer * seq * config.d_model  # multiply-adds of q·k and w·v
    forward = 2 * (N_mat + scores_and_mix)
    return 3 * forward  # the backward pass costs twice the forward pass


# %% tags=["check"]
counted = sum(p.numel() for p in small.parameters())
assert n_params(SMALL) == (counted - small.wte.weight.numel(), counted)
with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
    small(tokens).sum().backward()
assert counter.get_total_flops() == flops_per_token(SMALL, SMALL.context) * tokens.numel()
print(f"{counted:,} parameters and {counter.get_total_flops():,} FLOPs: both counts are exact")

# %%
N, N_total = n_params(SHAPE)
exact = flops_per_token(SHAPE, RUN.seq)
print(f"N = {N:,}, N_total = {N_total:,}, {exact:,} training FLOPs per token")
print(f"exact / 6N       = {exact / (6 * N):.3f}")
print(f"exact / 6N_total = {exact / (6 * N_total):.3f}")

# %% [markdown]
# The familiar $C = 6ND$ leaves out the scores, and `N` leaves out the head. At this size that is
# 25 % of the work; with `N_total`, which counts the head, 12 %. Chapter 08 shows how such a choice
# of counting moves a scaling exponent.
#
# ## Train it
#
# One run: AdamW, a short warm-up, a constant rate, and a cool-down over the last two fifths
# of the steps. `helpers.transformer.training` holds the loop; where the machine multiplies numbers
# of 16 bits (*bfloat16*) much faster, it uses them in the matrix products. It also puts an
# equivalent, faster attention into the blocks' place for it, `mix` (chapter 07). The same cell runs
# on CPU, CUDA and
# MPS. It keeps to one thread, like everything here: a second one would wait at every product for
# whatever else the machine is doing, such as your browser.
#
# The model is judged on all of the held-out text, in windows of 128 tokens laid end to end; on
# every fourth window on the way.
#
# ## The rivals
#
# `xz` sees the held-out text alone, then with the training text in front of it. The 5-gram models
# count how often each byte (or token) followed each context of four, three, … of them, and mix the
# orders by Witten and Bell's rule: the more different ones followed a context, the more weight goes
# to the shorter one. The model over tokens counts the very tokens that the transformer has read up
# to then.
#
# All rivals may look across the borders of our windows; the transformer starts each of them with
# nothing to look back at.

# %%
model = GPT(SHAPE, RUN.seed).to(DEVICE)
batches = data.TokenBatches(train_tokens, RUN.batch_size, RUN.seq, RUN.seed)
ends_meet = np.lib.stride_tricks.sliding_window_view(val_tokens, RUN.seq + 1)[::RUN.seq]
validation, scored = ends_meet.copy(), ends_meet[:, 1:].ravel()
held_text = bpe_decode(scored, merges)  # the bytes on which all rivals are judged
tokens_per_byte = len(scored) / len(held_text)
line, on_the_way = Label("the run starts"), []
progress = training.Progress(SHAPE, RUN, runtime.peak_flops(
    DEVICE, dtype=getattr(torch, RUN.dtype)), lambda text: setattr(line, "value", text))


def on_step(step, loss):
    progress(step, loss)
    if step + 1 in LOOKS[:-1]:
        on_the_way.append(training.evaluate(model, validation[::4]))


display(line)
run, losses = training.train(model, batches, RUN, validation, on_step, tokens_per_byte)
print(f"{run.n_steps} steps, {run.D:,} tokens, {run.C:.3g} FLOPs")

# %%
size = lambda text: len(lzma.compress(text, preset=9))
with ThreadPoolExecutor(2) as pool:
    held, both, before = pool.map(size, (held_text, train_bytes + held_text, train_bytes))
rivals = {"xz -9": held * 8 / len(held_text),
          "xz -9 after the training text": (both - before) * 8 / len(held_text)}
for name, bits in rivals.items():
    print(f"{name}: {bits:.2f} bits per byte; the transformer needs fewer: {run.bpb < bits}")

# %%
as_bytes = [np.frombuffer(text, dtype=np.uint8) for text in (train_bytes, held_text)]
rivals["5-gram over bytes"] = bits = data.bits_per_byte(ngram_loss(*as_bytes, 256, N_GRAM))
print(f"5-gram over bytes: {bits:.2f} bits per byte; the transformer needs fewer: {run.bpb < bits}")
read = np.concatenate([batches[step][:, :-1].ravel() for step in range(RUN.n_steps)])
looks = np.array(LOOKS) * RUN.batch_size * RUN.seq  # tokens read until then
grams = [data.bits_per_byte(ngram_loss(read[:n], scored, VOCAB, N_GRAM), tokens_per_byte)
         for n in looks]
curve = [data.bits_per_byte(nats, tokens_per_byte) for nats in (*on_the_way, run.loss)]
for n, bits in zip(looks, grams, strict=True):
    print(f"5-gram over {n:,} tokens: {bits:.2f} bits per byte")
print("the transformer needs fewer bits than it at the end:", curve[-1] < grams[-1])
print("the two differ by less than 0.1 bits per byte:", abs(curve[-1] - grams[-1]) < 0.1)
behind = np.subtract(curve, grams)  # bits per byte that the transformer needs more
print("it is behind after the first tenth:", behind[0] > 0,
      "and less so at each later point:", bool(np.all(np.diff(behind) < 0)))
levels = {"blind guess": log(VOCAB)} | {
    f"counts of {what}": ngram_loss(read, scored, VOCAB, n)
    for n, what in ((1, "single tokens"), (2, "pairs"))}
print({name: f"{nats:.2f} nats per token" for name, nats in levels.items()})

# %%
left, right_ax = plots.panels(2, f"One run on {run.D / 1e6:.1f} million tokens of speeches")
left.plot(np.arange(49, len(losses)), np.convolve(losses, np.ones(50) / 50, "valid"),
          label="training, mean of 50 steps")
for style, (name, nats) in zip((":", "--", "-."), levels.items(), strict=True):
    left.axhline(nats, ls=style, color="C7", label=name)
left.axvspan(RUN.n_steps - RUN.decay_steps, RUN.n_steps, alpha=0.15, label="cool-down")
plots.label(left, "step", "loss (nats per token)", "learning", log="x")
right_ax.plot(looks, curve, "o-", label="transformer")
right_ax.plot(looks, grams, "s--", label="5-gram over tokens")
for number, (name, bits) in enumerate(rivals.items()):
    right_ax.axhline(bits, ls=":", color=plots.COLORS[number + 2], label=name)
right_ax.set_ylim(1.2, 3.4)
plots.label(right_ax, "tokens read", "held-out text (bits per byte)", "against its rivals", log="x")
_ = right_ax.legend(loc="upper right", fontsize="x-small")

# %% [markdown]
# *Reading.* *Left:* the grey lines are three levels of knowledge. The curve passes the one that
# knows only how common each token is, then the one that knows which token follows which. (Their
# levels are those of the held-out text, the curve is that of the batches, which are new to the
# model.) In the last two fifths of the steps the rate falls, and noise that the constant
# rate kept stirring up settles. The figure cannot separate that from ordinary progress; chapter 02
# could.
#
# *Right:* at the end the transformer beats the compressor, even one that has read the training
# text, and the counts of bytes. The counts of *tokens* are the strong rival: a table has learnt a
# token once it is counted, while a gradient step changes the weights only a little. At the first
# tenth of the tokens the table is far ahead. The gap closes with every point; at the end of the
# quick run the transformer is still slightly behind, as the printed line says. `PROFILE=full` goes
# over the text five times and shows whether it passes. The table sees four tokens back, the
# transformer up to 127; that may be why it catches up, but this figure does not test it. (The first
# three points of the transformer come from a quarter of the windows, and at the full rate; a run
# that ended there, with a cool-down, should lie a little lower.) How the loss falls with tokens and
# size is the question of chapter 08.
#
# ## Sampling
#
# The model gives logits $z$; to write, draw the next token from a distribution. Three dials:
#
# - *temperature*: $p_i \propto e^{z_i / T}$. A small $T$ sharpens, $T \to 0$ always takes the
#   likeliest;
# - *top-k*: keep the $k$ likeliest tokens, set the others to zero, divide by what is left;
# - *top-p* (nucleus): keep the likeliest tokens until their sum reaches top-p, the one that
#   crosses it included; the same division.
#
# Top-k keeps a fixed number. Top-p keeps few tokens where the model is sure and many where it is
# not. The draw itself: take a random number $u$ between 0 and 1, add up the probabilities in the
# order of the ids, and take the token whose share holds $u$.

# %% tags=["essential"]
def probabilities(logits, temperature=1.0, top_k=0, top_p=1.0):
    """Distribution of the next token: p ∝ exp(logits / temperature), cut and rescaled."""
    z = np.asarray(logits, dtype=np.float64)
    with np.errstate(over="ignore"):  # far below the largest at a low temperature: −∞, p = 0
        p = np.exp((z - z.max(axis=-1, keepdims=True)) / temperature)
    p /= p.sum(axis=-1, keepdims=True)
    if not top_k and top_p >= 1:
        return p
    order = np.argsort(-p, axis=-1, kind="stable")  # likeliest first
    ranked = np.take_along_axis(p, order, axis=-1)
    before = np.cumsum(ranked, axis=-1) - ranked  # what the likelier ones hold
    keep = (before < top_p) & (np.arange(p.shape[-1]) < (top_k or p.shape[-1]))
    keep[..., 0] = True  # the likeliest stays, whatever top_p
    np.put_along_axis(p, order, np.where(keep, ranked, 0), axis=-1)
    return p / p.sum(axis=-1, keepdims=True)


def sample_tokens(logits, rng, temperature=1.0, top_k=0, top_p=1.0):
    """Draw one token id for each row of logits; temperature 0 takes the likeliest."""
    if temperature == 0:
        return np.asarray(logits).argmax(axis=-1)
    p = probabilities(logits, temperature, top_k, top_p)
    u = rng.random(p.shape[:-1])[..., None]  # where u falls among the cumulated shares
    return np.minimum((np.cumsum(p, axis=-1) <= u).sum(axis=-1), p.shape[-1] - 1)


# %% tags=["check"]
z, n_draws = rng.normal(0, 1.5, 8), 20_000
p = torch.from_numpy(z / 0.7).softmax(-1).numpy()  # torch's softmax, and the cuts by hand
ranked = sorted(p, reverse=True)
crossing = next(i for i in range(8) if sum(ranked[:i + 1]) >= 0.8)
cuts = {"T = 0.7": ({}, 0.0), "top-k 3": ({"top_k": 3}, ranked[2]),
        "top-p 0.8": ({"top_p": 0.8}, ranked[crossing])}
for name, (choice, least) in cuts.items():
    formula = np.where(p >= least, p, 0) / p[p >= least].sum()
    np.testing.assert_allclose(probabilities(z, 0.7, **choice), formula)
    drawn = sample_tokens(np.tile(z, (n_draws, 1)), rng, 0.7, **choice)
    share = np.bincount(drawn, minlength=8) / n_draws
    assert np.all(np.abs(share - formula) <= 4 * np.sqrt(formula * (1 - formula) / n_draws))
    print(f"{name}: {np.sum(formula > 0)} tokens kept, shares of {n_draws:,} draws as the formula")

# %%
def what_follows(ids):
    """Logits of the next token after the ids, (vocab,)."""
    with torch.inference_mode():
        return model(torch.from_numpy(ids)[None].to(DEVICE))[0, -1].cpu().double().numpy()


prompt = bpe_encode(b"The people of the United States have", merges)
next_logits = what_follows(prompt)
order = np.argsort(-next_logits)
choices = {"temperature": [{"temperature": t} for t in (0.5, 1, 2)],
           "top_k": [{"top_k": k} for k in (0, 10, 3)],
           "top_p": [{"top_p": s} for s in (1, 0.7, 0.4)]}
found = {name: [probabilities(next_logits, **one) for one in several]
         for name, several in choices.items()}
bits = {name: [-np.sum(p[p > 0] * np.log2(p[p > 0])) for p in ps] for name, ps in found.items()}
print("entropy rises with the temperature:", bool(np.all(np.diff(bits["temperature"]) > 0)))
print("and falls as a cut gets tighter:",
      all(np.all(np.diff(bits[name]) < 0) for name in ("top_k", "top_p")))
print("tokens that top-k keeps:", [int(np.sum(p > 0)) for p in found["top_k"]])
sure = what_follows(bpe_encode(b"The people of the United", merges))
kept = [np.sum(probabilities(z, top_p=0.9) > 0) for z in (sure, next_logits)]
print("top-p 0.9 keeps fewer tokens after “United” than after “United States have”:",
      bool(kept[0] < kept[1]))

# %%
axes = plots.panels(3, "Next token after “The people of the United States have”")
for ax, (name, ps) in zip(axes, found.items(), strict=True):
    for marker, one, p in zip("sov", choices[name], ps, strict=True):
        value = "no cut" if one[name] == 0 or one == {"top_p": 1} else f"{one[name]:g}"
        kept = f": {np.sum(p > 0)} kept" if name == "top_p" and one["top_p"] < 1 else ""
        ax.plot(range(1, 21), p[order][:20], f"{marker}-", ms=4, label=value + kept)
    ax.set(xticks=(1, 5, 10, 15, 20), ylim=(1e-3, 1))
    plots.label(ax, "rank of the token", "probability", name.replace("_", "-"), log="y")

# %% [markdown]
# *Reading.* On a logarithmic axis a temperature changes the slope: 0.5 makes the curve steeper, 2
# flatter. A cut moves what it keeps upwards, all by the same factor, and ends the curve: beyond it
# the probability is exactly zero. (Top-p's legend counts the tokens kept; a cut beyond rank 20
# lies outside the picture.) The cuts take away the long tail: many tokens, each unlikely, from
# which one bad draw can derail a text.
#
# ## The KV cache
#
# Writing one token needs the keys and values of all earlier ones. In a causal model they do not
# change when a token is added, so they are kept: the *KV cache*. Each new token then costs one
# position's work instead of all. `append` writes the new ones behind the old ones and gives back
# all of them. It needs memory in return: two vectors of $d_\text{model}$ numbers per layer and
# token. The helper `generate` is the loop: read what is new, draw a token, read that one.

# %% tags=["essential"]
class KVCache:
    """Keys and values of all tokens read so far, per attention layer."""

    def __init__(self, context: int):
        self.context, self.length, self.kept = context, 0, {}

    def append(self, layer: nn.Module, k, v):
        """Add the new keys and values of `layer`, (batch, n_head, seq, d_head); return all."""
        start, end = self.length, self.length + k.shape[2]
        if layer not in self.kept:
            room = (*k.shape[:2], self.context, k.shape[3])
            self.kept[layer] = k.new_empty(room), v.new_empty(room)
        for kept, new in zip(self.kept[layer], (k, v), strict=True):
            kept[:, :, start:end] = new
        return tuple(kept[:, :, :end] for kept in self.kept[layer])


# %% tags=["check"]
def rewrite(model, prompt, n_tokens, rng, temperature):
    """`generate` without a cache: read everything again for each new token."""
    tokens = np.array(prompt)
    for _ in range(n_tokens):
        with torch.inference_mode():
            logits = model(torch.from_numpy(tokens)[None].to(DEVICE))[0, -1].cpu().numpy()
        tokens = np.append(tokens, sample_tokens(logits, rng, temperature))
    return tokens


cache = KVCache(SMALL.context)
one_by_one = torch.cat([small(tokens[:, i:i + 1], cache) for i in range(SMALL.context)], dim=1)
torch.testing.assert_close(one_by_one, small(tokens))
for temperature in (0, 1):
    kept, full = (write(model, prompt, 100, np.random.default_rng(1), temperature)
                  for write in (generate, rewrite))
    assert np.array_equal(kept, full)
print("with the cache: the same logits, and the same 100 tokens, likeliest or drawn")

# %%
fresh = GPT(replace(SHAPE, context=LENGTHS[-1])).to(DEVICE)  # speed does not ask for training


def medians(text, n_tokens, **ways):
    """Seconds that each way of writing takes, in turns, medians in the order given."""
    def job(write):
        return lambda: (write(fresh, text, n_tokens, np.random.default_rng(0), 1.0),
                        runtime.synchronize(DEVICE))
    turns = runtime.take_turns({name: job(write) for name, write in ways.items()}, N_REPEATS)
    return [np.median(seconds) for seconds in turns.values()]


first, streams = np.array([5]), np.arange(N_STREAMS)[:, None]
one_each = lambda model, rows, *rest: [generate(model, row, *rest) for row in rows]
cached, recomputed = np.array([medians(first, n - 1, cached=generate, recomputed=rewrite)
                               for n in LENGTHS]).T
together, singly = medians(streams, 31, together=generate, singly=one_each)
speed_up, gain = recomputed / cached, singly / together
print(f"the cache is at least 2 times as fast at {LENGTHS[-1]} tokens:", bool(speed_up[-1] >= 2))
print("its gain is larger for the longest text than for the shortest:", speed_up[-1] > speed_up[0])
print(f"{N_STREAMS} texts at once are at least 2 times as fast as one by one:", bool(gain >= 2))

# %%
left, right_ax = plots.panels(2, "What writing costs on this machine")
left.plot(LENGTHS, 1000 * recomputed, "s--", label="everything again")
left.plot(LENGTHS, 1000 * cached, "o-", label="with the cache")
plots.label(left, "tokens written", "time (ms)", f"gain at the end: {speed_up[-1]:.0f} times", "xy")
left.set_xticks(LENGTHS, LENGTHS)
right_ax.bar(["one by one", "at once"], [N_STREAMS * 31 / singly, N_STREAMS * 31 / together])
plots.label(right_ax, f"{N_STREAMS} texts of 32 tokens", "tokens per second",
            f"gain: {gain:.0f} times")

# %% [markdown]
# *Reading.* Without the cache each token costs a pass over the whole text; with it, a pass over
# one position. For the shortest text both cost about the same: there, most of the time probably
# goes into calling dozens of small functions and not into their arithmetic. The gain grows with
# the text. Many texts at once share those calls, so a batch writes far more tokens per second than
# one text after the other. A server uses both.
#
# Now let the trained model write, at several settings, beside the exact figures of this machine.

# %% tags=["nbval-ignore-output"]
# uncompared: speed, the last digits and the texts belong to this machine's weights
print(f"transformer: {run.loss:.4f} nats per token = {run.bpb:.4f} bits per byte, "
      f"{run.D / run.seconds:,.0f} tokens/s on {run.device}, {run.seconds:.0f} s")
print({k: f"{bits:.4f}" for k, bits in {**rivals, "token 5-gram": grams[-1]}.items()})
print("transformer − 5-gram over tokens on the way:", np.round(behind, 2), "bits per byte")
for choice in ({"temperature": 0}, {"temperature": 0.7}, {"top_p": 0.9}, {"temperature": 1.3}):
    written = generate(model, prompt, 60, np.random.default_rng(1), **choice)
    print(f"{choice}: {bpe_decode(written, merges).decode('utf-8', 'replace')!r}")

# %% [markdown]
# ## Keep it
#
# A *checkpoint* holds what a run needs to go on: the weights, Adam's two averages, the config and
# the number of the next step. (The order of the data follows from seed and step, so it needs no
# place.) Ours is a `safetensors` file: plain numbers with a header. Loading it cannot execute
# anything, unlike a pickle. The header also holds a hash of the numbers (sha256).
#
# The test: a short run of a small model in one go; the same run interrupted half-way, saved,
# loaded and continued. Both lists of losses should be equal to the last bit. A third run, which
# loses Adam's averages on the way, shows that this comparison can fail. Then one bit of the file is
# flipped.

# %%
short_batches = data.TokenBatches(train_tokens, SHORT.batch_size, SHORT.seq, SHORT.seed)


def steps(model, optimizer, start, stop):
    return training.run_steps(model, optimizer, short_batches, SHORT, start, stop)


through, halved = GPT(SMALL), GPT(SMALL)
in_one_go = steps(through, training.make_optimizer(through, SHORT), 0, SHORT.n_steps)
optimizer = training.make_optimizer(halved, SHORT)
first_half = steps(halved, optimizer, 0, HALF)

# %%
with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
    checkpoints.save_run("run.safetensors", halved, optimizer, SHORT, step=HALF)
    saved = Path("run.safetensors").read_bytes()
    resumed, optimizer, config, step = checkpoints.load_run("run.safetensors")
second_half = steps(resumed, optimizer, step, config.n_steps)
print(f"resumed at step {step}; losses equal bit for bit:", first_half + second_half == in_one_go)
without = steps(halved, training.make_optimizer(halved, SHORT), HALF, SHORT.n_steps)
print("the same without Adam's averages:", first_half + without == in_one_go)

# %%
altered = bytearray(saved)
altered[-1] ^= 1
with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
    Path("run.safetensors").write_bytes(altered)
    try:
        checkpoints.load_run("run.safetensors")
    except ValueError as error:
        print("refused:", str(error).split(":")[0])  # the rest names both hashes

# %%
with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
    checkpoints.save_model(model, "model.safetensors", text="presidential addresses")
    back, size = checkpoints.load_model("model.safetensors"), Path("model.safetensors").stat()
pairs = zip(model.parameters(), back.parameters(), strict=True)
same = all(torch.equal(mine.cpu(), loaded) for mine, loaded in pairs)
print(f"the trained model: {size.st_size / 1e6:.2f} MB, {size.st_size / N_total:.2f} bytes per "
      f"parameter, loaded without a change: {same}")

# %% [markdown]
# ## Where does it look?
#
# Each layer has a place, `mix`, for the function that does the attention. We put ours there, which
# also hands out the weights, and read three sentences: one held out, a plain phrase, and a list of
# words that comes twice.

# %%
SENTENCES = {"held out": bpe_decode(val_tokens[5000:5040], merges),
             "phrase": b"The Congress of the United States and the people of the United States",
             "twice": b" Congress, peace, war, Mexico. Congress, peace, war, Mexico."}


def attention_maps(ids):
    """Weights of all layers and heads, (n_layer, n_head, seq, seq), and the logits."""
    seen, kernels = [], [block.attn.mix for block in model.blocks]

    def watch(q, k, v, is_causal):
        mixed, weights = attention(q, k, v)
        seen.append(weights[0])
        return mixed

    for block in model.blocks:
        block.attn.mix = watch
    with torch.inference_mode():
        logits = model(ids)
    for block, kernel in zip(model.blocks, kernels, strict=True):
        block.attn.mix = kernel
    return torch.stack(seen).cpu().numpy(), logits


# %%
maps, shown = {}, {}
for name, sentence in SENTENCES.items():
    ids = torch.from_numpy(bpe_encode(sentence, merges)[:24])[None].to(DEVICE)
    shown[name] = [bpe_decode([t], merges).decode("utf-8", "replace") for t in ids[0].tolist()]
    maps[name], with_ours = attention_maps(ids)
    torch.testing.assert_close(with_ours, model(ids).detach(), rtol=0, atol=1e-3)
print("sums:", {name: f"{m.sum(-1).min():.4f} … {m.sum(-1).max():.4f}" for name, m in maps.items()})
print("nobody looks ahead:", all(np.triu(m, 1).max() == 0 for m in maps.values()))

# %%
axes = plots.panels(4, "First layer: where each head looks in the phrase", height=4.6)
names = [piece.replace(" ", "␣") for piece in shown["phrase"]]
for h, ax in enumerate(axes):
    plots.heatmap(ax, maps["phrase"][0, h], names, names, "weight" if h == 3 else "")
    itself = maps["phrase"][0, h].diagonal()[1:].mean()  # the first token has no choice
    plots.label(ax, "token looked at", "token that looks" if h == 0 else "",
                f"head {h + 1}: {itself:.0%} on the token itself")

# %% [markdown]
# *Reading.* Nothing stands above the diagonal: the mask works. The heads differ: some put most of
# their weight on the token itself, others on tokens further back. (The titles give the mean share,
# without the first token, which has no choice.) Which head does what is an accident of the run:
# another machine or seed deals the roles otherwise. Deeper layers look different: the second widget
# below shows them. The maps show where a head *can take* values from, not what it does with them,
# and a large weight on a small value moves little. So a map is a hint for an experiment and no
# explanation of an output.
#
# ## Exercises
#
# Replace `return NotImplemented`, run the cell, then run the checks. `hint("06.1")` helps once,
# again a second time; `solution("06.1")` shows ours.
#
# 1. Read it off the right panel "against its rivals": the dashed line, from its first point to its
#    last.
# 2. A *sliding window* saves work in long texts: each position looks at the latest `width`
#    positions alone. Make its mask; $i$ down the rows, $j$ along the columns.
# 3. How much memory does the cache of one text take?
# 4. The entropy $H = -\sum_i p_i \log_2 p_i$ of a distribution is hard to picture. $2^H$ is
#    easier: so many equally likely tokens would be as uncertain.
# 5. In long contexts, scores and mixing take over. Which share of a block do they have? Count all
#    `seq` positions, masked or not, and no head.

# %% tags=["exercise"]
def gain_of_tenfold_text():
    """Bits per byte (positive) by which the 5-gram over tokens falls as its text grows tenfold."""
    return NotImplemented


def window_mask(seq, width):
    """Boolean (seq, seq): may position i (row) look at j? Only at the `width` latest, i included.

    Causal; near the start there are fewer than `width`.
    """
    return NotImplemented


def cache_bytes(n_layer, d_model, n_tokens, bytes_per_number):
    """Bytes that a KV cache holds for one sequence of n_tokens."""
    return NotImplemented


def effective_choices(logits, temperature):
    """2^H, H being the entropy in bits of p ∝ exp(logits / temperature); logits (vocab,)."""
    return NotImplemented


def share_of_attention(d_model, seq):
    """Share of a block's forward FLOPs for scores and mixing (0 … 1), as `flops_per_token`."""
    return NotImplemented


# %% tags=["exercise-check"]
check("06.1", gain_of_tenfold_text)
check("06.2", window_mask)
check("06.3", cache_bytes)
check("06.4", effective_choices)
check("06.5", share_of_attention)
# hint("06.1")
# solution("06.1")
# the same for "06.2" to "06.5"

# %% [markdown]
# ## Play
#
# First, let it write. Change the prompt, the temperature, the cut. The same random numbers are used
# each time, so only your choice changes the text. The last 80 tokens of a long prompt are read: 32
# more have to fit into the context. An empty prompt is read as a new line. The picture shows the
# distribution of the first token to be written. Before you move a slider: what will a temperature
# of 0.1 do to the text, what will 2 do?
#
# Second, look where it looks. Each row is a token that looks, each column one that is looked at;
# darkness is the square root of the weight, so that small weights show. The text line names the
# three largest weights of the token in brackets. In the sentence "twice", does a head
# look from a word to what followed it the first time? A model as small as ours may have none.

# %% tags=["widget", "nbval-ignore-output"]
# uncompared: the text comes from the trained weights
def live(prompt, temperature, top_p):
    ids = bpe_encode(prompt.encode() or b"\n", merges)[-80:]  # an empty prompt: a new line
    z = what_follows(ids)
    p, plain = probabilities(z, temperature, top_p=top_p), probabilities(z)
    rank = np.argsort(-plain)[:30]
    written = generate(model, ids, 32, np.random.default_rng(1), temperature, top_p=top_p)
    said, text, likeliest = (bpe_decode(part, merges).decode("utf-8", "replace")
                             for part in (ids, written[len(ids):], rank[:1]))
    return widgets.picture(
        [widgets.series("points", range(1, 31), p[rank], "with your choice"),
         widgets.series("dash", range(1, 31), plain[rank], "temperature 1, no cut")],
        "rank of the token", "probability", (0, 31), (0, 1), "The first token to be written",
        text=f"{(p > 0).sum()} tokens kept, likeliest {likeliest!r} {p.max():.2f} · "
             f"{said}▸{text}")


widgets.explore(live, prompt=Text("The people of the United States have", description="prompt"),
                temperature=FloatSlider(0.8, min=0.1, max=2, step=0.05, description="temperature"),
                top_p=FloatSlider(0.95, min=0.05, max=1, step=0.05, description="top-p"))

# %% tags=["widget", "nbval-ignore-output"]
# uncompared: the weights are those of the trained model
def attention_map(sentence, layer, head, place):
    names, weights = shown[sentence], maps[sentence][layer - 1, head - 1]
    place = min(place, len(names))
    y, x = np.tril_indices(len(names))
    row = weights[place - 1]
    best = ", ".join(f"{names[j]!r} ({j + 1}) {row[j]:.2f}" for j in np.argsort(-row)[:3]
                     if j < place)
    marked = "".join([*names[:place - 1], f"[{names[place - 1]}]", *names[place:]])
    return widgets.picture(
        [widgets.series("cells", x + 1, y + 1, "weight", 0, np.sqrt(weights[y, x])),
         widgets.series("points", [0], [place], "your token", 1)],
        "place of the token looked at", "place of the token that looks", (-0.5, 25), (0, 29),
        f"Layer {layer}, head {head}: rows read upwards",
        text=f"{names[place - 1]!r} ({place}) looks at {best} · {marked}")


widgets.explore(attention_map, sentence=Dropdown(options=list(maps), description="sentence"),
                layer=IntSlider(1, 1, SHAPE.n_layer, description="layer"),
                head=IntSlider(1, 1, SHAPE.n_head, description="head"),
                place=IntSlider(16, 1, 24, description="token that looks"))

# %% [markdown]
# ## Recap
#
# - Attention is a weighted mean of earlier values; the mask makes it causal, and a perturbation
#   test would show a leak.
# - Parameters and FLOPs follow from the shape; at this size the exact count is 1.3 times $6ND$
#   (1.1 times with all parameters).
# - The transformer needs fewer bits than `xz` and than counts of bytes. Counts of tokens are still
#   slightly ahead of it in the quick run: a strong baseline belongs in every comparison.
# - Sampling is a formula over the logits; a KV cache and a batch make writing fast and change no
#   token.
# - A checkpoint holds weights, optimiser, config, step and hash; a resumed run is the same run.
#
# *Limits.* One short run, one seed, one small model. A context of 128 tokens. How the loss depends
# on size and tokens is chapter 08; making the loop fast is chapter 07.
#
# *Read next.* Vaswani et al. 2017, *Attention Is All You Need* (arXiv:1706.03762); Su et al. 2021,
# *RoFormer* (arXiv:2104.09864), on rotary positions; Holtzman et al. 2020, *The Curious Case of
# Neural Text Degeneration* (arXiv:1904.09751), on top-p; Jain & Wallace 2019, *Attention is not
# Explanation* (arXiv:1902.10186); Karpathy's nanoGPT, whose `model.py` this one can be compared
# with line by line.
