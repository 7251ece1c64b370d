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
# # 13 · Distillation and compression of data
#
# **The question:** a language model gives each next token a probability. How short a file does
# that make of a text, when do the model's own bytes pay, and can a small model learn from a large
# one's probabilities?
#
# When you are through, you can
#
# 1. say what cross-entropy means in bytes, and compress a text with the GPT, without loss;
# 2. count a model's bytes honestly: pruned, quantised, entropy-coded, with its tokeniser;
# 3. write Hinton's distillation loss, and say when it beats more training and when it does not.
#
# Runs in about 1 minute on a CPU; allow two hours to work through. A GPU changes nothing here.
#
# | symbol | code | meaning | unit |
# |---|---|---|---|
# | $p$ | `p` | predicted probabilities of the next token | – |
# | $-\log_2 p$ | `bits` | code length of the token that came | bits |
# | $H$ | `entropy(counts)` | entropy of a histogram | bits per symbol |
# | bpb | `bpb` | compressed bits per byte of text | bits/byte |
# | $M$ | `model_bytes` | bytes of the packed model, tokeniser included | bytes |
# | $n$ | `length` | length of a text | bytes |
# | $z$, $z_t$ | `z`, `z_teacher` | logits of student and teacher | – |
# | $q$ | – | the teacher's probabilities | – |
# | $y$ | `targets` | the token that came | – |
# | $T$ | `temperature` | divides the logits: high is softer | – |
# | $w$ | `weight` | the teacher's share of the loss | – |
# | $C$ | `C`, `C_teacher` | training FLOPs of the student; of the teacher's forward passes | FLOPs |
# | $L$ | `loss` | held-out loss | nats/token |

# %% tags=["imports"]
import bz2
import gzip
import lzma
import tempfile
from bisect import bisect_right
from fractions import Fraction
from itertools import accumulate
from math import ceil
from pathlib import Path

import constriction
import numpy as np
import torch
import zstandard
from ipywidgets import Dropdown, FloatLogSlider
from scipy import stats
from torch.nn import functional as F

from helpers import corpora, data, runtime, training
from helpers.claims import verdict
from helpers.compress import prune
from helpers.compress.codec import START, compress, decompress, stream_lengths
from helpers.compress.course import load_model
from helpers.compress.entropy import decode_integers, encode_integers, pack_model, unpack_model
from helpers.compress.packing import save_quantized
from helpers.compress.quantize import Quantized, quantize_state
from helpers.exercises import check, hint, solution
from helpers.models import GPT, GPTConfig, KVCache, probabilities
from helpers.plots import COLORS, label, panels
from helpers.text import bpe_decode, bpe_encode
from helpers.widgets import explore, picture, series

# %% tags=["config"]
SEED = 0
SMALL, LARGE = "models/gpt_small.safetensors", "models/gpt_prose.safetensors"  # widths 64, 128
SENTENCE = b"I thank the Congress of the United States for purple cheese."
N_LIVE = 65_536  # bytes of held-out text that are compressed here
N_STREAMS = 64  # pieces of a text that step through the model together
PROMPT = b"the state of the"
TEMPERATURES = (1, 2, 5, 20, 100)
N_WINDOWS = 48  # held-out windows of 128 tokens, for losses computed here
DENSITY, BITS, GROUP = 0.7, 4, 32  # the stack: weights kept, bits of a code, weights to a scale
LENGTHS = np.geomspace(1e4, 1e9, 200)  # lengths of text, bytes
PUBLISHED = ("gzip", "LZMA2", "Transformer 200K", "Transformer 3.2M", "Chinchilla 70B")

# %% [markdown]
# ## 1 · Surprise is length
#
# Two models come with the course. Both read the prose of chapter 05 as BPE tokens. The large one
# has width 128: it is the one that chapters 11 and 12 compressed. The small one has width 64 and
# was trained for longer, so that both cost about as many training FLOPs. None of them has seen
# the held-out text.

# %%
rng = runtime.setup(SEED)
small, merges = load_model(data.path(SMALL))
large, _ = load_model(data.path(LARGE))
held_out = bytes(corpora.load("prose")[1])
tokens = bpe_encode(held_out, merges)
for name, model in (("small", small), ("large", large)):
    print(f"{name}: width {model.config.d_model}, "
          f"{sum(w.numel() for w in model.parameters())} weights")
print(f"held-out text: {len(held_out)} bytes, {len(tokens)} tokens")

# %% [markdown]
# Think of a sender and a receiver who own the same predictor. The sender wants to name the next
# symbol in as few bits as possible. Shannon's answer (1948): a symbol of probability $p$ is worth
#
# $$-\log_2 p \text{ bits.}$$
#
# A symbol with $p = 1/2$ costs one bit, with $p = 1/1024$ ten. What was expected is cheap.
# **Arithmetic coding** reaches this length for a whole message, symbol by symbol:
#
# - Start with the interval [0, 1).
# - Cut it into parts as long as the probabilities of the first symbol. Keep the part of the symbol
#   that came.
# - Cut that part by the probabilities of the second symbol, and so on. The width left over is the
#   product of all probabilities.
# - Send the shortest binary fraction that leads into the interval, whatever digits may follow. An
#   interval of width $2^{-k}$ holds one with at most $k + 1$ digits.
#
# The receiver cuts the same intervals and sees in which part the fraction lies. With exact
# fractions the whole coder takes a few lines. `predict` maps the symbols so far to the
# probabilities of the next.

# %% tags=["essential"]
def shrink_interval(symbols, predict):
    low, width = Fraction(0), Fraction(1)
    for i, symbol in enumerate(symbols):
        p = predict(symbols[:i])
        low, width = low + width * sum(p[:symbol]), width * p[symbol]
    return low, width


def shortest_point(low, width):
    if width <= 0:
        raise ValueError("the interval is empty: a symbol had probability 0")
    n = 0
    while (k := ceil(low * 2**n)) + 1 > (low + width) * 2**n:
        n += 1
    return f"{k:0{n}b}" if n else ""


def follow_point(bits, n_symbols, predict):
    point, symbols = Fraction(int(bits or "0", 2), 2 ** len(bits)), []
    for _ in range(n_symbols):
        p = predict(symbols)
        ends = list(accumulate(p))
        symbol = bisect_right(ends, point)
        symbols.append(symbol)
        point = (point - ends[symbol] + p[symbol]) / p[symbol]  # where it lies in that part
    return symbols

# %% tags=["check"]
def by_counts(seen):
    """Symbols 0, 1, 2: each as likely as often it came before, plus one."""
    counts = [1 + seen.count(symbol) for symbol in range(3)]
    return [Fraction(count, sum(counts)) for count in counts]


for _ in range(50):
    message = rng.choice(3, size=40, p=(0.8, 0.15, 0.05)).tolist()
    low, width = shrink_interval(message, by_counts)
    digits = shortest_point(low, width)
    assert follow_point(digits, 40, by_counts) == message
    assert len(digits) < 2 - np.log2(float(width))
print("50 messages: back without loss, less than two digits above −log₂ of the width")

# %%
fixed = lambda seen: [Fraction(1, 2), Fraction(1, 4), Fraction(1, 4)]
for message in ([0], [0, 2], [0, 2, 1], [0, 0, 0, 0, 0]):
    low, width = shrink_interval(message, fixed)
    print(f"symbols {message}: from {float(low):.4f}, width {float(width):.4f}, "
          f"digits {shortest_point(low, width)!r}, −log₂ width = {-np.log2(float(width)):.0f}")

# %% [markdown]
# Five times the likely symbol 0 costs five digits; the two rarer symbols cost two digits each. The
# digits are as many as $-\log_2$ of the width says (here exactly, since all probabilities are
# powers of two; else up to two more for the whole message). The sum of $-\log_2 p$ over a text is the length of its file. Its
# mean is the **cross-entropy**. The loss that we have minimised since chapter 06 was a file length
# all the time: nats per token, divided by $\ln 2$, are bits per token.
#
# ## 2 · The GPT as the predictor
#
# Now `predict` becomes the model. Two things need care.
#
# *Speed.* One token at a time is slow. So the text is cut into 64 pieces of equal length, the
# **streams**, which step through the model together. The KV cache of chapter 06 holds what they
# have read. When it is full, at 128 tokens, a new one begins with the last 64.
#
# *Exactness.* The receiver must compute the same probabilities, to the last digit. A product of
# matrices of another shape may round differently. So the sender does not read its text in one go,
# though it could: it takes the same small steps, in the same shapes, as the receiver must.

# %% tags=["essential"]
class Predictor:
    def __init__(self, model, n_streams):
        self.model, self.context = model, model.config.context
        self.cache = KVCache(self.context)
        self.recent = np.empty((n_streams, 0), dtype=np.int64)

    @torch.inference_mode()
    def __call__(self, tokens):
        self.recent = np.hstack([self.recent, tokens[:, None]])[:, -(self.context // 2):]
        new = tokens[:, None]
        if self.cache.length == self.context:
            self.cache, new = KVCache(self.context), self.recent
        logits = self.model(torch.from_numpy(new), self.cache)[:, -1]
        return probabilities(logits.numpy())

# %% tags=["check"]
streams = tokens[:2 * 150].reshape(2, 150)
predict = Predictor(small, n_streams=2)
stepped = np.stack([predict(column) for column in streams.T], axis=1)  # (2, 150, vocab)
with torch.no_grad():
    for seen in (1, 60, 128):
        whole = small(torch.from_numpy(streams[:, :seen]))[:, -1].softmax(-1)
        assert np.allclose(stepped[:, seen - 1], whole, atol=1e-5)
    again = small(torch.from_numpy(streams[:, 129 - 64:129]))[:, -1].softmax(-1)
assert np.allclose(stepped[:, 128], again, atol=1e-5)
assert np.allclose(stepped.sum(axis=2), 1)
print("step by step as in one go; at the 129th token the last 64 are read again")

# %% [markdown]
# The coder itself comes from the package `constriction`. It does what the fractions did, in 32-bit
# integers, and takes a whole step of streams at once: one row of probabilities for each symbol.
# All streams share one coder, so there is one output. Each piece is taken to follow a newline
# (`START`).

# %% tags=["essential"]
def encode_tokens(model, tokens, n_streams, start=START):
    lengths = stream_lengths(len(tokens), n_streams)
    grid = np.full((n_streams, lengths[0]), start, dtype=np.int64)
    inside = np.arange(lengths[0]) < np.array(lengths)[:, None]  # (n_streams, steps)
    grid[inside] = tokens
    coder, bits = constriction.stream.queue.RangeEncoder(), np.zeros(grid.shape)
    family = constriction.stream.model.Categorical(perfect=False)
    predict, read = Predictor(model, n_streams), np.full(n_streams, start)
    for step, here in enumerate(inside.T):
        p, read = predict(read)[here], grid[:, step]
        coder.encode(read[here].astype(np.int32), family, p)
        bits[here, step] = -np.log2(p[np.arange(len(p)), read[here]])
    return coder.get_compressed(), bits[inside]


def decode_tokens(model, words, n_tokens, n_streams, start=START):
    lengths = stream_lengths(n_tokens, n_streams)
    grid = np.full((n_streams, lengths[0]), start, dtype=np.int64)
    inside = np.arange(lengths[0]) < np.array(lengths)[:, None]
    coder = constriction.stream.queue.RangeDecoder(words)
    family = constriction.stream.model.Categorical(perfect=False)
    predict, read = Predictor(model, n_streams), np.full(n_streams, start)
    for step, here in enumerate(inside.T):
        grid[here, step] = coder.decode(family, predict(read)[here])
        read = grid[:, step]
    return grid[inside]

# %% tags=["check"]
for n_tokens, n_streams in ((0, 3), (1, 1), (50, 8), (700, 5)):
    words, bits = encode_tokens(small, tokens[:n_tokens], n_streams)
    assert np.array_equal(decode_tokens(small, words, n_tokens, n_streams), tokens[:n_tokens])
    assert len(bits) == n_tokens
    assert 32 * len(words) <= bits.sum() * 1.001 + 64  # whole words of 32 bits, and the end
print("0, 1, 50 and 700 tokens come back; the words are as long as −Σ log₂ p, and two at most")

# %%
ids = bpe_encode(SENTENCE, merges)
words, bits = encode_tokens(small, ids, n_streams=1)
for i, cost in zip(ids, bits, strict=True):
    print(f"{bpe_decode([i], merges).decode()!r:>12} {cost:5.1f} bits")
print(f"{len(SENTENCE)} bytes cost {bits.sum():.0f} bits, or {bits.sum() / len(SENTENCE):.2f} bits "
      f"per byte; the coder wrote {len(words)} words of 32 bits")

# %%
(ax,) = panels(title="What each token of one sentence costs the small model")
ax.bar(range(len(ids)), bits, color=COLORS[0])
ax.axhline(bits.mean(), color="k", ls="--", label="mean: the cross-entropy of this sentence")
ax.set_xticks(range(len(ids)), [bpe_decode([i], merges).decode() for i in ids], rotation=60)
label(ax, "token", "−log₂ p (bits)")

# %% [markdown]
# **Reading.** "I thank the Congress of the United States" is what such a model has read hundreds
# of times, and "States" after "United" costs next to nothing. Purple cheese comes as a surprise:
# the words are not in the vocabulary, so they fall into pieces, and each piece is dear. The
# printed sum is the file's length, up to the rounding to whole words of 32 bits. Nothing is lost
# if the model is wrong. It only pays.
#
# ## Predict first
#
# Now 65,536 bytes of held-out text. gzip and xz know nothing of English, but find repetitions; bz2
# sorts the text first and then counts; zstd is a modern relative of gzip. All run at their
# strongest setting. The GPT has learnt from 10 MB of such prose.
#
# Write down, in percent of the text: gzip, the best of the four, and the small GPT. Then: how long
# must a text be, until file *and model together* are smaller than the file of bz2?

# %%
text = held_out[:N_LIVE]
rivals = {"gzip -9": lambda t: gzip.compress(t, 9), "bz2 -9": lambda t: bz2.compress(t, 9),
          "zstd -19": zstandard.ZstdCompressor(level=19).compress,
          "xz -9e": lambda t: lzma.compress(t, preset=9 | lzma.PRESET_EXTREME)}
for name, pack in rivals.items():
    print(f"{name:>9}: {len(pack(text)) / len(text):.0%} of the text")
blob = compress(small, merges, text, N_STREAMS)
print(f"small GPT: {len(blob) / len(text):.0%} of the text")
assert decompress(small, merges, blob) == text
print("unpacked: every byte as it was")

# %%
words, bits = encode_tokens(small, bpe_encode(text, merges), N_STREAMS)
bound = bits.sum() / 8  # bytes
assert len(blob) < 1.01 * bound
assert abs(32 * len(words) / bits.sum() - 1) < 0.005
print(f"cross-entropy of these predictions: {8 * bound / len(text):.3f} bits per byte")
print(f"range coder's words:                {32 * len(words) / len(text):.3f}")
print(f"whole file, with header and checks: {8 * len(blob) / len(text):.3f}")
for other in (b"", b"x", rng.bytes(999), "标度律".encode()):
    packed = compress(small, merges, other, n_streams=1)
    assert decompress(small, merges, packed) == other
    print(f"{len(other):4} other bytes: {len(packed)} bytes in the file")

# %% [markdown]
# The coder loses next to nothing against the cross-entropy: the file is as good as the predictions
# are. Random bytes do not shrink, nothing can do that. Here they even grow, because the model
# gives most of its probability to English, and each step away from it is paid.
#
# **A file of this kind is brittle.** If one bit flips, every later interval is cut wrongly, and the
# rest would be fluent nonsense. So the file carries three fingerprints: of itself, of the model
# and of this machine's arithmetic (probabilities of a fixed input). If any does not match, there is
# an error, and no text.

# %%
packed = compress(small, merges, SENTENCE, n_streams=1)
altered = bytearray(packed)
altered[60] ^= 1
for name, model, file in (("one bit flipped", small, bytes(altered)),
                          ("five bytes short", small, packed[:-5]),
                          ("another model", large, packed), ("no such file", small, b"GIF89a")):
    try:
        decompress(model, merges, file)
    except ValueError as error:
        print(f"{name}: {str(error).split(':')[0][:75]}")

# %% [markdown]
# ## 3 · The model's own bytes
#
# The receiver needs the model. As it lies on disk in fp32 it is larger than the whole text. So it
# must be compressed itself. Chapters 11 and 12 have the tools; a third step is new:
#
# 1. **prune**: set the smallest weights to zero;
# 2. **quantise**: integers of a few bits, with a scale for each row or group;
# 3. **entropy-code** the integers: they are not equally frequent (near zero is common), so they
#    have a histogram, and a histogram is a predictor. Its cross-entropy on its own symbols is the
#    **entropy**
#
# $$H = -\sum_i p_i \log_2 p_i \text{ bits per symbol,} \qquad p_i = \text{count}_i / \text{sum}.$$
#
# No coder that treats each integer alike and alone can do better.

# %% tags=["essential"]
def entropy(counts):
    p = np.asarray(counts, dtype=float)
    p = p[p > 0] / p.sum()
    return float(-(p * np.log2(p)).sum()) + 0.0  # + 0.0 turns -0 into 0

# %% tags=["check"]
drawn = np.clip(rng.normal(0, 2, 20_000).round(), -7, 7).astype(np.int8)
counts = np.bincount(drawn.astype(int) + 7)
assert np.isclose(entropy(counts), stats.entropy(counts, base=2))
assert entropy([5, 0, 0]) == 0
assert entropy([1] * 16) == 4
assert np.array_equal(decode_integers(encode_integers(drawn)), drawn)
print(f"20,000 integers from −7 to 7: entropy {entropy(counts):.2f} bits each, "
      f"coded in {8 * len(encode_integers(drawn)) / len(drawn):.2f}, packed as int4 in 4")

# %%
windows = data.windows(tokens, N_WINDOWS, large.config.context)


def held_out_loss(state: dict) -> float:
    """Loss of a model of the large one's shape with these weights, computed in float64."""
    model = GPT(large.config).double()
    model.load_state_dict(state)
    return training.evaluate(model, windows)


pruned = load_model(data.path(LARGE))[0]
prune.apply_mask(pruned, prune.magnitude_mask(prune.matrices(pruned), DENSITY))
codes = {"dense": quantize_state(large.state_dict(), BITS, GROUP, symmetric=True),
         "pruned": quantize_state(pruned.state_dict(), BITS, GROUP, symmetric=True)}
coded = {name: pack_model(large.config, state, merges) for name, state in codes.items()}
loss = {"fp32": held_out_loss(large.state_dict()), "pruned": held_out_loss(pruned.state_dict())}
loss |= {name + " int4": held_out_loss(unpack_model(blob)[0].state_dict())
         for name, blob in coded.items()}

# %%
with tempfile.TemporaryDirectory() as folder:
    save_quantized(codes["dense"], file := Path(folder) / "int4.safetensors")
    int4_bytes = file.stat().st_size
fp32_bytes = data.path(LARGE).stat().st_size
for stage, size, nats in (
        ("fp32", fp32_bytes, loss["fp32"]),
        (f"pruned to {DENSITY:.0%}", fp32_bytes, loss["pruned"]),
        ("int4, packed, not pruned", int4_bytes, loss["dense int4"]),
        ("int4, entropy-coded, not pruned", len(coded["dense"]), loss["dense int4"]),
        ("pruned, int4, packed", int4_bytes, loss["pruned int4"]),
        ("pruned, int4, entropy-coded", len(coded["pruned"]), loss["pruned int4"])):
    print(f"{stage:>31}: {size / 1e3:7.0f} kB, loss {nats:.3f} nats/token")

# %%
for name, state in codes.items():
    matrices = {key: w for key, w in state.items() if isinstance(w, Quantized)}
    bound = sum(w.codes.numel() / 8 * entropy(np.bincount(w.codes.flatten().int() + 128))
                for w in matrices.values())
    real = sum(len(encode_integers(w.codes.numpy())) for w in matrices.values())
    scales = sum(2 * w.scale.numel() for w in matrices.values())
    print(f"{name}: codes {real / 1e3:.0f} kB (entropy bound {bound / 1e3:.0f}), scales "
          f"{scales / 1e3:.0f} kB, all else {(len(coded[name]) - real - scales) / 1e3:.0f} kB")

# %% [markdown]
# **Reading.** Pruning alone saves not one byte: a zero in fp32 is four bytes like any other number.
# It pays only together with the last step, where a common code becomes a short one. Entropy
# coding without pruning gains little, since a grid that follows the largest weight of each group
# is already used rather evenly. The coder comes close to its bound, and the scales have become
# a notable part of the file.
#
# Is the stack a good idea? Look at the two entropy-coded rows. Pruning bought few bytes and
# cost loss. The fair rival is a smaller *dense* model for the same money; it comes next.
