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
# 3. train it on real text, compare it with a 5-gram model and with `xz`, and sample from it.
#
# Runs in about 2 minutes on a CPU. The same cells run on a GPU; not timed there yet. Before this:
# chapter 02.

# %% [markdown]
# | symbol | code | meaning | unit |
# |---|---|---|---|
# | $N$ | `N`, `N_total` | parameters without embeddings, and all of them | – |
# | $D$ | `D` | training tokens (here one token is one byte of text) | tokens |
# | $C$ | `C` | training FLOPs: a multiplication and an addition count as two | FLOP |
# | $L$ | `loss` | mean cross-entropy of the next token | nats per token |
# | | `bpb` | the same in bits per byte of text | bits |
# | $T$ | `temperature` | divides the logits before sampling | – |
# | | `batch, seq, d_model, n_head, d_head` | sizes of tensors | – |

# %% tags=["imports"]
import lzma
from math import log, sqrt

import numpy as np
import torch
from ipywidgets import FloatSlider, IntSlider
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from helpers import data, plots, runtime, training, widgets
from helpers.claims import verdict
from helpers.exercises import check, hint, solution
from helpers.models import GPTConfig, check_tokens, generate, init_weights
from helpers.text import ngram_loss

# %% tags=["config"]
rng = runtime.setup(seed=0)
DEVICE = runtime.device()
SMALL = GPTConfig(context=32, n_layer=2, n_head=2, d_model=16)  # for the checks
SHAPE = GPTConfig(context=128, n_layer=4, n_head=4, d_model=64)  # the model that is trained
N_STEPS = {"quick": 2000, "full": 20000}[runtime.profile()]
RUN = training.TrainConfig(lr=2e-3, n_steps=N_STEPS, batch_size=4, seq=128)
N_VALIDATION = 400  # windows of 128 bytes
N_GRAM = 5

# %% [markdown]
# ## Text as numbers
#
# The text is the collected addresses of US presidents to Congress, 1790 to 2026. A token is one
# byte, so the vocabulary has 256 ids and no tokeniser is needed. Whole documents are held out:
# a document's own phrases must not appear on both sides.

# %%
train_docs, held_out = data.split_documents(data.prose())
train_tokens, val_tokens = data.encode(train_docs), data.encode(held_out)
print(f"{len(train_docs)} documents, {len(train_tokens):,} tokens to train on")
print(f"{len(held_out)} documents, {len(val_tokens):,} tokens held out")
print(train_tokens[:12], "=", repr(data.decode(train_tokens[:12])))

# %% [markdown]
# ## Predict first
#
# Three ways to guess the next byte of a president's speech, all measured below in bits per byte
# (8 means no idea, 0 means certainty):
#
# - `xz -9`, which looks for repeated strings;
# - a 5-gram model, which counts what followed each four bytes;
# - a transformer with 0.2 million parameters, trained for about a minute.
#
# The last two read the same megabyte of speeches.
#
# Write down your order and a number for each before you go on.

# %% [markdown]
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
print("attention equals torch's scaled_dot_product_attention")

# %%
print(np.round(weights[0].numpy(), 2))

# %% [markdown]
# Each row sums to one and is zero right of the diagonal. The first position has nobody to look
# at but itself.
#
# ## Where is a token?
#
# The mix above does not know the order of the tokens it looks at. *Rotary positions* tell it:
# take the numbers of $q$ and $k$ in pairs, and turn each pair by an angle that grows with the
# position $i$, fast for the first pair, slower for the next. A dot product of two turned pairs
# depends on the difference of their angles alone, so a score depends on *how far back* a token
# stands, wherever the two are.

# %% tags=["essential"]
def rotation(positions, d_head, base=1000.0):
    """Cosine and sine, each (seq, d_head/2), of every position's angles."""
    pair = torch.arange(0, d_head, 2, device=positions.device)
    angle = positions[:, None] * base ** (-pair / d_head)  # slower and slower
    return angle.cos(), angle.sin()


def rotate(x, turn):
    """Turn each pair of numbers in x (..., seq, d_head) by its position's angle."""
    cos, sin = turn
    a, b = x.chunk(2, dim=-1)  # pair i: number i of the first half, number i of the second
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


# %% tags=["check"]
here, later = (rotation(torch.arange(5.0) + shift, 8) for shift in (0.0, 40.0))
torch.testing.assert_close(rotate(q, here) @ rotate(k, here).mT,
                           rotate(q, later) @ rotate(k, later).mT, rtol=0, atol=1e-4)
as_complex = torch.polar(torch.ones(5, 4), torch.atan2(*here[::-1])) * torch.complex(
    *q.float().chunk(2, dim=-1))
torch.testing.assert_close(rotate(q.float(), here),
                           torch.cat([as_complex.real, as_complex.imag], dim=-1))
print("a rotation by complex numbers agrees, and 40 places further on the scores are the same")

# %% [markdown]
# ## Many heads
#
# One product makes $q$, $k$ and $v$ for all heads; the heads work side by side on slices of
# width $d_\text{head} = d_\text{model} / n_\text{head}$; a last product mixes them. The `cache`
# keeps the keys and values of earlier tokens during generation; it is explained further down.

# %% tags=["essential"]
class CausalSelfAttention(nn.Module):
    """Multi-head causal attention, (batch, seq, d_model) → the same shape."""

    def __init__(self, config):
        super().__init__()
        self.n_head = config.n_head
        self.qkv = nn.Linear(config.d_model, 3 * config.d_model, bias=False)
        self.out = nn.Linear(config.d_model, config.d_model, bias=False)

    def forward(self, x, turn, cache=None):
        batch, seq, _ = x.shape
        qkv = self.qkv(x).view(batch, seq, 3, self.n_head, -1).permute(2, 0, 3, 1, 4)
        (q, k), v = rotate(qkv[:2], turn), qkv[2]  # each (batch, n_head, seq, d_head)
        if cache is not None:
            k, v = cache.append(self, k, v)  # with all earlier keys and values
        y = F.scaled_dot_product_attention(q, k, v, is_causal=seq > 1)
        return self.out(y.transpose(1, 2).reshape(batch, seq, -1))


# %% tags=["check"]
layer = CausalSelfAttention(SMALL).double()
x = torch.from_numpy(rng.normal(size=(3, 7, SMALL.d_model)))
turn = rotation(torch.arange(7.0, dtype=torch.float64), SMALL.d_model // SMALL.n_head)
slabs = [slab.chunk(SMALL.n_head, dim=-1) for slab in layer.qkv(x).chunk(3, dim=-1)]
heads = [attention(rotate(q, turn), rotate(k, turn), v)[0] for q, k, v in zip(*slabs, strict=True)]
torch.testing.assert_close(layer(x, turn), layer.out(torch.cat(heads, dim=-1)))
print(f"{SMALL.n_head} heads at once equal {SMALL.n_head} single heads side by side")

# %% [markdown]
# ## One block
#
# Each position carries a vector of $d_\text{model}$ numbers from layer to layer, the *residual
# stream* $x$. A block adds two things to it: what the heads found, and what a small network makes
# of each position on its own. (*Norm* shifts and scales a vector to mean 0 and variance 1; *gelu*
# is a smooth $\max(0, x)$.) Both read a normalised copy (*pre-norm*), so the stream itself runs
# from the first layer to the last without passing a non-linearity:
#
# $$x \leftarrow x + \operatorname{attn}(\operatorname{norm}_1 x), \qquad
#   x \leftarrow x + W_\text{down}\,\operatorname{gelu}(W_\text{up}\operatorname{norm}_2 x)$$

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
still = rotation(torch.zeros(x.shape[1], dtype=torch.float64), turn[0].shape[1] * 2)
torch.testing.assert_close(block(x, still), reference(x, src_mask=mask))
print("without rotation, block equals torch's TransformerEncoderLayer with the same weights")

# %% [markdown]
# ## The whole model
#
# Token embeddings start the stream, blocks work on it, and the *logits*, one score per possible
# next byte, are its dot products with the token embeddings. Softmax makes them probabilities; the
# loss, the *cross-entropy*, is the mean of minus the log of the probability given to the byte that
# came. The output layer (also called head; no attention head) is *tied* to the embedding: one
# matrix serves both. Weights are drawn by numpy's generator, the same on every machine.

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
# same experiment shows what that does. It also divides *probabilities* by the temperature and
# then samples them as if they were logits.

# %%
changed, place = tokens.clone(), 20
changed[:, place] = (changed[:, place] + 1) % SMALL.vocab
moved = (small(changed) - small(tokens)).abs().amax(dim=(0, 2))
print("largest change before the token:", moved[:place].max().item())
print("the token's own position moves: ", bool(moved[place] > 0.01))

# %%
embed, convolve = nn.Embedding(SMALL.vocab, 16), nn.Conv1d(16, SMALL.vocab, 9, padding="same")
article = [convolve(embed(t).transpose(1, 2)) for t in (tokens, changed)]
leak = (article[1] - article[0]).abs()[:, :, :place].max().item()
print("the article's convolution lets an earlier position see the change:", leak > 0.01)

# %%
logits = np.array([4.0, 2.0, 0.0])
softmax = lambda z: np.exp(z - z.max()) / np.exp(z - z.max()).sum()
right, theirs = softmax(logits / 0.5), softmax(softmax(logits) / 0.5)
print("logits / T:       ", np.round(right, 3))
print("probabilities / T:", np.round(theirs, 3))

# %% tags=["verdict"]
verdict("K9", bool(moved[:place].max() < 1e-6 and leak < 1e-6 and np.allclose(right, theirs)),
        f"an unmasked convolution changes earlier outputs when a later token changes, ours by "
        f"{moved[:place].max().item():.1g}; at T = 0.5 the likeliest token should get "
        f"{right[0]:.2f}, dividing probabilities gives it {theirs[0]:.2f}",
        likeliest=right[0], likeliest_in_article=theirs[0])

# %% [markdown]
# Nor does the vocabulary survive: with one id per *occurrence* no id is ever seen twice, and
# there is nothing to learn from. Here an id is a byte value, and most occur thousands of times.
#
# ## What one token costs
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
    """(N without the embedding, N_total) of a GPT."""
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
# 29 % of the work, and 23 % if the head is counted. Chapter 08 shows how such a choice of counting
# moves a scaling exponent.
#
# ## Train it
#
# One run: AdamW, a short warm-up, a constant rate, and a cool-down over the last fifth of the
# steps. `helpers.training` holds the loop. The same cell runs on CPU, CUDA and MPS.

# %%
model = GPT(SHAPE, RUN.seed).to(DEVICE)
batches = data.TokenBatches(train_tokens, RUN.batch_size, RUN.seq, RUN.seed)
validation = data.windows(val_tokens, N_VALIDATION, RUN.seq)
run, losses = training.train(model, batches, RUN, validation)
print(f"{run.n_steps} steps, {run.D:,} tokens, {run.C:.3g} FLOPs")
print(f"validation: about {run.bpb:.1f} bits per byte")

# %% tags=["nbval-ignore-output"]
# uncompared: speed and the last digits belong to this machine
print(f"{run.loss:.4f} nats per byte = {run.bpb:.4f} bits per byte")
print(f"{run.D / run.seconds:,.0f} tokens/s on {run.device}, {run.seconds:.0f} s")

# %%
(ax,) = plots.panels()
steps, smooth = np.arange(len(losses)), np.convolve(losses, np.ones(50) / 50, "valid")
ax.plot(steps[49:], smooth, label="training, mean of 50 steps")
ax.axhline(run.loss, ls="--", color="C1", label="validation at the end")
ax.axhline(log(256), ls=":", color="C7", label="blind guess, ln 256")
ax.axvspan(0.8 * RUN.n_steps, RUN.n_steps, alpha=0.15, label="cool-down")
plots.label(ax, "step", "loss / nats per token", "One run on a megabyte of speeches", log="x")
first, before, last = np.mean(losses[:10]), np.mean(losses[-600:-400]), np.mean(losses[-200:])
print(f"mean training loss: first 10 steps {first:.1f}, before the cool-down {before:.1f}, "
      f"last 200 steps {last:.1f}")
print("lower after the cool-down:", last < before)

# %% [markdown]
# *Reading.* The model first learns which bytes are common, then which follow which. In the last
# fifth, with a falling rate, noise that the constant rate kept stirring up settles. The figure
# cannot separate that from ordinary progress; chapter 02 could. Chapter 08 builds on it to get many
# token counts out of one run.
#
# ## The rivals
#
# `xz` sees the held-out text alone, then with the training text in front of it. The 5-gram model
# counts how often each byte followed each context of four, three, … bytes, and mixes the orders
# by Witten and Bell's rule: the more different bytes followed a context, the more weight goes to
# the shorter one. It gets the very windows that the transformer read, then all 11 MB.

# %%
text = b"".join(bytes(w[1:].astype(np.uint8)) for w in validation)  # the bytes that are scored
xz = len(lzma.compress(text, preset=9)) * 8 / len(text)
primed = lzma.compress(bytes(train_tokens) + text, preset=9)
xz_primed = (len(primed) - len(lzma.compress(bytes(train_tokens), preset=9))) * 8 / len(text)
print(f"xz -9: {xz:.2f} bits per byte, {xz_primed:.2f} after reading the training text")

# %%
read = np.concatenate([batches[step][:, :-1].ravel() for step in range(RUN.n_steps)])
gram_bpb, gram_all_bpb = (data.bits_per_byte(ngram_loss(t, validation, SHAPE.vocab, N_GRAM))
                          for t in (read, train_tokens))
recorded = data.table("sweeps/course_model.csv").iloc[0]
print(f"{N_GRAM}-gram: {gram_bpb:.2f} bits per byte, {gram_all_bpb:.2f} with all the text")
print(f"the same shape, batch {recorded.batch_size}, after {recorded.D:,} tokens: "
      f"{recorded.bpb:.2f} (recorded run)")
rivals = {"xz -9": xz, "xz -9 primed with all the text": xz_primed,
          f"{N_GRAM}-gram, equal text": gram_bpb, f"{N_GRAM}-gram, all the text": gram_all_bpb}
for name, bits in rivals.items():
    print(f"fewer bits than {name}: {run.bpb < bits} now, {recorded.bpb < bits} recorded")

# %% [markdown]
# *Reading.* On the same megabyte the table of counts needs fewer bits than a minute of training:
# counting uses every byte at once, gradient steps learn slowly. The table knows only four bytes of
# context, though, and even all the text does not bring it down to the transformer of the longer
# recorded run, which reads up to 127 bytes back. How fast the loss falls with more tokens, and what
# a larger model would reach, is the question of chapter 08.
#
# ## Sampling
#
# The model gives logits; to write, draw the next token from
# $p_i \propto e^{z_i / T}$. A small $T$ sharpens, $T \to 0$ always takes the likeliest, *top-k*
# keeps the $k$ likeliest and renormalises.

# %% tags=["essential"]
def sample_token(logits, rng, temperature=1.0, top_k=0):
    """Draw one token id from logits of shape (vocab,)."""
    if temperature == 0:
        return int(logits.argmax())
    z = np.asarray(logits, dtype=np.float64) / temperature
    if top_k:
        z[z < np.sort(z)[-min(top_k, len(z))]] = -np.inf
    p = np.exp(z - z.max())
    return int(rng.choice(len(p), p=p / p.sum()))


# %% tags=["check"]
draws = np.array([sample_token(logits, rng, temperature=0.5) for _ in range(4000)])
shares = np.bincount(draws, minlength=3) / len(draws)
assert np.all(np.abs(shares - right) < 4 * np.sqrt(right * (1 - right) / len(draws)))
assert {sample_token(logits, rng, 5.0, top_k=2) for _ in range(200)} == {0, 1}
print("4000 draws at T = 0.5:", np.round(shares, 3), "formula:", np.round(right, 3))

# %% [markdown]
# Writing one token needs the keys and values of all earlier ones. They do not change, so they
# are kept: the *KV cache*. Each new token then costs one position's work instead of all.

# %%
prompt = list(b"The people of ")
kept = generate(model, prompt, 60, rng, temperature=0)
full = list(prompt)
for _ in range(60):
    full.append(int(model(torch.tensor([full], device=DEVICE))[0, -1].argmax()))
print("with and without the cache the same 60 tokens:", kept == full)

# %% tags=["nbval-ignore-output"]
# uncompared: the text turns on the last bits of the trained weights
for temperature in (0, 0.7, 1.2):
    written = generate(model, prompt, 100, np.random.default_rng(1), temperature)
    print(f"T = {temperature}: {data.decode(written)!r}")

# %% [markdown]
# ## Where does it look?
#
# The attention weights of one head, for one sentence of the held-out text.

# %%
sentence = torch.from_numpy(val_tokens[600:624].astype(np.int64))[None].to(DEVICE)
seen = {}
hook = model.blocks[0].attn.register_forward_pre_hook(lambda m, args: seen.update(x=args[0]))
model(sentence)
hook.remove()
attn = model.blocks[0].attn
q, k, v = (s.unflatten(-1, (attn.n_head, -1)).transpose(1, 2)
           for s in attn.qkv(seen["x"]).chunk(3, dim=-1))
turn = rotation(torch.arange(sentence.shape[1], device=DEVICE), q.shape[-1])
maps = attention(rotate(q, turn), rotate(k, turn), v)[1][0].detach().cpu().numpy()

# %%
letters = [chr(t).replace(" ", "␣") for t in sentence[0].tolist()]
axes = plots.panels(4, "First layer: where each head looks", height=4.4)
for h, ax in enumerate(axes):
    plots.heatmap(ax, maps[h], letters, letters, "weight" if h == 3 else "")
    ax.tick_params(axis="both", labelrotation=0)
    plots.label(ax, "token looked at", "token that looks" if h == 0 else "", f"head {h}")
distance = np.arange(maps.shape[1])[:, None] - np.arange(maps.shape[1])
reach = (maps * distance).sum(2)[8:].mean(1)
print("weights sum to one:", np.allclose(maps.sum(2), 1, atol=1e-5))
print("every head looks back at least half a byte on average:", bool((reach > 0.5).all()))

# %% [markdown]
# *Reading.* Nothing stands above the diagonal: the mask works. In this first layer most weight lies
# on the byte itself and the one or two before it; the heads differ in how far back they look. One
# sentence shows what heads can do, not what each is for.
#
# ## Exercises
#
# Replace `return NotImplemented`, run the cell, then run the check. `hint("06.1")` helps once,
# again a second time; `solution("06.1")` shows ours.

# %% tags=["exercise"]
def cache_bytes(n_layer, d_model, n_tokens, bytes_per_number):
    """Bytes that a KV cache holds for one sequence of n_tokens."""
    return NotImplemented


# %% tags=["exercise-check"]
check("06.1", cache_bytes)
# hint("06.1")
# solution("06.1")

# %% tags=["exercise"]
def top_p_probabilities(p, top_p):
    """Keep the likeliest tokens until their sum reaches top_p; zero the rest; renormalise.

    p: probabilities of shape (vocab,), not sorted. The token that crosses top_p is kept.
    """
    return NotImplemented


# %% tags=["exercise-check"]
check("06.2", top_p_probabilities)
# hint("06.2")
# solution("06.2")

# %% tags=["exercise"]
def share_of_attention(d_model, seq):
    """Share of a block's forward FLOPs that is spent on scores and mixing (0 … 1)."""
    return NotImplemented


# %% tags=["exercise-check"]
check("06.3", share_of_attention)
# hint("06.3")
# solution("06.3")

# %% [markdown]
# ## Play: temperature and top-k
#
# The next byte after *"The people of "*, as the trained model sees it. Move the sliders and
# watch the distribution; the text below names the likeliest bytes and the entropy.

# %%
with torch.no_grad():
    next_logits = model(torch.tensor([prompt], device=DEVICE))[0, -1].cpu().double().numpy()


def next_byte(temperature, top_k):
    """The 30 likeliest next bytes at this temperature, cut to the top k."""
    order = np.argsort(-next_logits)[:30]
    z = next_logits / temperature
    z = np.where(z >= np.sort(z)[-top_k], z, -np.inf)
    p = softmax(z)
    bits = abs((p[p > 0] * np.log2(p[p > 0])).sum())
    best = ", ".join(f"{chr(i)!r} {p[i]:.2f}" for i in order[:5])
    return widgets.picture(
        [widgets.series("points", range(30), p[order], "probability"),
         widgets.series("dash", range(30), softmax(next_logits)[order], "at T = 1")],
        "rank of the byte", "probability", (-1, 30), (0, 1), "Next byte",
        text=f"{best} … entropy {bits:.2f} bits")


# %% tags=["widget", "nbval-ignore-output"]
# uncompared: the logits come from the trained weights
widgets.explore(next_byte, temperature=FloatSlider(1.0, min=0.1, max=3, description="temperature"),
                top_k=IntSlider(256, min=1, max=256, description="top k"))

# %% [markdown]
# ## Recap
#
# - Attention is a weighted mean of earlier values; the mask makes it causal, and a perturbation
#   test would show a leak.
# - Parameters and FLOPs follow from the shape; at this size the exact count is
#   1.4 times $6ND$ (1.3 times with all parameters).
# - A minute of training loses to a table of counts on the same text; the longer recorded run beats
#   it, even with all the text.
#
# *Limits.* One short run, one seed, byte tokens. How the loss depends on size and tokens is
# chapter 08; making the loop fast is chapter 07 (planned).
#
# *Read next.* Vaswani et al. 2017, *Attention Is All You Need* (arXiv:1706.03762); Radford et
# al. 2019, *Language Models are Unsupervised Multitask Learners*; Karpathy's nanoGPT, whose
# `model.py` this one can be compared with line by line.
