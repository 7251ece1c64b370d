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
# that make of a text? When do the model's own bytes pay? And can a small model learn from a large
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
# | $C$ | `C`, `C_teacher` | FLOPs of the student's training; of the teacher's passes | FLOPs |
# | $\mathcal{L}$ | `distillation_loss` | what a taught student minimises | nats/token |
# | $L$ | `loss` | held-out loss | nats/token |

# %% tags=["imports"]
import bz2
import gzip
import lzma
from bisect import bisect_right
from fractions import Fraction
from itertools import accumulate
from math import ceil

import constriction
import numpy as np
import torch
import zstandard
from ipywidgets import Dropdown, FloatLogSlider
from safetensors.torch import save
from torch.nn import functional as F

from helpers import claims, corpora, data, runtime
from helpers.compress import packing, prune
from helpers.compress.codec import START, compress, decompress, stream_lengths
from helpers.compress.entropy import decode_integers, encode_integers, pack_model, unpack_model
from helpers.compress.quantize import Quantized, quantize_state
from helpers.exercises import check, hint, solution
from helpers.foundations.tokens import bpe_decode, bpe_encode
from helpers.plots import COLORS, label, panels
from helpers.transformer import checkpoints, training
from helpers.transformer.models import GPT, GPTConfig, KVCache, probabilities
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
# was trained for longer, so that it cost about as many training FLOPs. Neither has seen the
# held-out text.

# %%
rng = runtime.setup(SEED)
small, merges = checkpoints.load_tokenised(data.path(SMALL))
large, _ = checkpoints.load_tokenised(data.path(LARGE))
train_text, held_out = (bytes(part) for part in corpora.load("prose"))
tokens = bpe_encode(held_out, merges)
for name, model in (("small", small), ("large", large)):
    print(f"{name}: width {model.config.d_model}, "
          f"{sum(w.numel() for w in model.parameters())} weights")
print(f"training text: {len(train_text) / 1e6:.1f} MB")
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
#   interval of width $2^{-k}$ with a whole $k$ holds one with at most $k + 1$ binary digits.
#
# The receiver cuts the same intervals and sees in which part the fraction lies. It must also be
# told the number of symbols. With exact fractions the whole coder takes a few lines. `predict` maps
# the symbols so far to the probabilities of the next.

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
    print(f"symbols {message}: from {low}, width {width}, "
          f"digits {shortest_point(low, width)!r}, −log₂ width = {-np.log2(float(width)):.0f}")

# %% [markdown]
# Five times the likely symbol 0 costs five digits; the two rarer symbols cost two digits each. The
# digits are as many as $-\log_2$ of the width says. Here that is exact, since all probabilities
# are powers of two. Else it is less than two digits more for the whole message. So the sum of
# $-\log_2 p$ over a text is the length of its file. Its mean is the **cross-entropy**. The loss
# that we have minimised since chapter 06 was a file length all the time: nats per token, divided by
# $\ln 2$, are bits per token.
#
# ## 2 · The GPT as the predictor
#
# Now `predict` becomes the model. Two things need care.
#
# *Speed.* One token at a time is slow. So the text is cut into 64 pieces, as equal as can be: the
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
print("0, 1, 50 and 700 tokens come back; the words exceed −Σ log₂ p by at most two words of "
      "32 bits, and a thousandth")

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
ax.set_ylim(0, 15)
label(ax, "token", "−log₂ p (bits)")

# %% [markdown]
# **Reading.** "States" after "United" costs next to nothing, and so does the "k" that ends "thank".
# Purple cheese comes as a surprise: the words have no tokens of their own, so they fall into
# pieces, and most pieces are dear. The coder's words hold the printed sum, rounded up to a multiple
# of 32 bits. Where the model is wrong, nothing is lost: the file only gets longer.
#
# ## Predict first
#
# Now 65,536 bytes of held-out text. gzip and xz know nothing of English, but find repetitions. bz2
# sorts the text first and then counts. zstd is a modern relative of gzip. All run at a slow and
# strong setting. The GPT has learnt from the training text, prose of the same kind.
#
# Write down, in percent of the text: gzip, the best of the four, and the small GPT. Then: the
# model's weights are packed in 8 bits each. How long must a text be, until file *and model
# together* are smaller than the file of bz2?

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
noise = rng.bytes(999)
for other in (b"", b"x", noise, "标度律".encode()):
    packed = compress(small, merges, other, n_streams=1)
    assert decompress(small, merges, packed) == other
    print(f"{len(other):4} other bytes: {len(packed)} bytes in the file")
words, bits = encode_tokens(small, bpe_encode(noise, merges), n_streams=1)
print(f"{len(noise)} random bytes: cross-entropy {bits.sum() / 8:.0f} bytes, coder's words "
      f"{4 * len(words)}; tokens' costs above 24 bits: {np.maximum(bits - 24, 0).sum() / 8:.0f}")

# %% [markdown]
# The file is as good as the predictions are: with header and checks it is longer than the
# cross-entropy by less than one percent.
#
# No coder shrinks random bytes, on average. Here they even grow: the model gave them little
# probability, and that is paid. Yet the words are shorter than the cross-entropy. The coder counts
# probabilities in units of $2^{-24}$ and gives each token at least one unit. So no token costs
# more than about 24 bits, and what some should cost above that is nearly all the difference.
#
# **A file of this kind is brittle.** If one bit flips, later intervals are cut wrongly, and what
# follows would be nonsense or nothing. So the file carries fingerprints: of itself, of the model,
# of the text and of this machine's arithmetic (probabilities of a fixed input). If one does not
# match, there is an error, and no text.

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
        print(f"{name}: {error}")

# %% [markdown]
# ## 3 · The model's own bytes
#
# The receiver needs the model. As it lies on disk in fp32 it is larger than the whole text. So it
# must be compressed itself. Here it is the large one. Chapters 11 and 12 have the tools; a third
# step is new:
#
# 1. **prune**: set the smallest weights to zero;
# 2. **quantise**: integers of a few bits, with a scale for each row or group. Here: 4 bits, a scale
#    for 32 weights, and 6 bits for the embedding;
# 3. **entropy-code** the integers: they are not equally frequent (near zero is common), so they
#    have a histogram, and a histogram is a predictor. Its cross-entropy on its own symbols is the
#    **entropy**
#
# $$H = -\sum_i p_i \log_2 p_i \text{ bits per symbol,} \qquad p_i = \text{count}_i / \text{sum}.$$
#
# No coder that treats each integer alike and alone can do better. The grid of integers is symmetric
# here (chapter 12): then a pruned weight is the code 0 in each group, and the zeros stay together
# in the histogram.

# %% tags=["essential"]
def entropy(counts):
    p = np.asarray(counts, dtype=float)
    p = p[p > 0] / p.sum()
    return float(-(p * np.log2(p)).sum()) + 0.0  # + 0.0 turns -0 into 0

# %% tags=["check"]
drawn = np.clip(rng.normal(0, 2, 20_000).round(), -7, 7).astype(np.int8)
counts = np.bincount(drawn.astype(int) + 7)
reference = torch.special.entr(torch.from_numpy(counts / counts.sum())).sum() / np.log(2)
assert np.isclose(entropy(counts), reference)
assert (entropy([5, 0, 0]), entropy([1] * 16)) == (0, 4)
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


pruned = checkpoints.load_tokenised(data.path(LARGE))[0]
prune.apply_mask(pruned, prune.magnitude_mask(prune.matrices(pruned), DENSITY))
codes = {"dense": quantize_state(large.state_dict(), BITS, GROUP, symmetric=True),
         "pruned": quantize_state(pruned.state_dict(), BITS, GROUP, symmetric=True)}
coded = {name: pack_model(large.config, state, merges) for name, state in codes.items()}
loss = {"fp32": held_out_loss(large.state_dict()), "pruned": held_out_loss(pruned.state_dict())}
loss |= {name + " int4": held_out_loss(unpack_model(blob)[0].state_dict())
         for name, blob in coded.items()}

# %%
def file_bytes(tensors: dict) -> int:
    """Bytes of a safetensors file with these tensors and the tokeniser."""
    return len(save({**tensors, "merges": torch.tensor(merges).short()}))


int4 = {}  # codes packed into their bits; scales, and all that is no matrix, in fp16
for name, w in codes["pruned"].items():
    matrix = isinstance(w, Quantized)
    int4[name] = packing.pack_bits(w.codes, w.n_bits) if matrix else w.half()
    int4 |= {name + ".scale": w.scale.half()} if matrix else {}
for stage, size, nats in (
        ("fp32", file_bytes(large.state_dict()), loss["fp32"]),
        (f"pruned to {DENSITY:.0%}", file_bytes(pruned.state_dict()), loss["pruned"]),
        ("pruned, int4, packed", file_bytes(int4), loss["pruned int4"]),
        ("pruned, int4, entropy-coded", len(coded["pruned"]), loss["pruned int4"]),
        ("not pruned: int4, entropy-coded", len(coded["dense"]), loss["dense int4"])):
    print(f"{stage:>31}: {size / 1e3:7.0f} kB, loss {nats:.3f} nats/token")

# %%
for name, state in codes.items():
    matrices = [w for w in state.values() if isinstance(w, Quantized)]
    bound = sum(w.codes.numel() / 8 * entropy(np.bincount(w.codes.flatten().int() + 128))
                for w in matrices)
    real = sum(len(encode_integers(w.codes.numpy())) for w in matrices)
    weights = sum(w.codes.numel() for w in matrices)
    zeros = sum(int((w.codes == 0).sum()) for w in matrices)
    scales = sum(2 * w.scale.numel() for w in matrices)
    print(f"{name}: {zeros / weights:.0%} of the codes are 0; {8 * real / weights:.2f} bits a code "
          f"(entropy bound {8 * bound / weights:.2f}, packed "
          f"{sum(w.codes.numel() * w.n_bits for w in matrices) / weights:.2f}); codes "
          f"{real / 1e3:.0f} kB, scales {scales / 1e3:.0f} kB, all else "
          f"{(len(coded[name]) - real - scales) / 1e3:.0f} kB")

# %% [markdown]
# **Reading.** Pruning alone saves not one byte: a zero in fp32 is four bytes like any other number.
# Here it pays only with the last step, where a common code becomes a short one. The coder comes
# close to its bound. It saves less than a tenth of the bits of the codes that were not pruned, for
# these are used rather evenly. The scales have become a notable part of the file.
#
# Is the stack a good idea? Look at the two entropy-coded rows. Pruning bought few bytes and cost
# loss. Nearly half as many codes were 0 without it, so little was won. The fair rival is a smaller
# *dense* model for the same training FLOPs; it comes in section 4.

# %% [markdown]
# ### When does the model pay?
#
# With a model of $M$ bytes, a text of $n$ bytes costs $M + n\cdot\text{bpb}/8$ bytes in all. The
# rival needs no model. Below are recorded runs over the *whole* held-out text. Its documents are in
# the order of their years, so the 65,536 bytes above were the oldest. One rival is special: **xz
# primed** reads the training text first, and only what the held-out text adds is counted. It has
# then seen what the models have seen. `gpt_small` and `gpt_prose` are the files of the small and
# the large model.

# %%
runs = data.table("sweeps/codec.csv").fillna({"format": ""})
runs = runs[runs.n_streams.isin((1, N_STREAMS))]
runs["name"] = (runs.what + " " + runs.format).str.strip()
codec = runs.set_index("name")
assert (codec[codec.bound > 0].bytes / codec[codec.bound > 0].bound < 1.005).all()
for name, row in codec.iterrows():
    print(f"{name:>14}: {row.bpb:.3f} bits per byte", end="")
    if row.model_bytes:
        pays = 8 * row.model_bytes / (codec.bpb["bz2 -9"] - row.bpb) / 1e6
        print(f", model {row.model_bytes / 1e3:.0f} kB, with it shorter than bz2 from "
              f"{pays:.2g} MB on", end="")
    print()
fast = codec.loc["gpt_small fp32"]
print(f"recorded speed of {fast.name}, one thread: {fast.kB_per_s_in:.0f} kB/s packing, "
      f"{fast.kB_per_s_out:.0f} kB/s unpacking")

# %%
(ax,) = panels(title="Model and text together", height=4.2)
for number, name in enumerate(("gzip -9", "xz -9e", "bz2 -9", "xz -9e primed")):
    ax.axhline(codec.bpb[name], color=COLORS[number], ls=":", label=name)
for number, name in enumerate(("gpt_small int4", "gpt_small int8", "gpt_prose int8"), 4):
    row = codec.loc[name]
    ax.plot(LENGTHS, 8 * row.model_bytes / LENGTHS + row.bpb, color=COLORS[number], label=name)
ax.axvline(codec.text_bytes.iloc[0], color="k", lw=1, label="the held-out text")
ax.set_ylim(1, 4)
label(ax, "length of the text (bytes)", "bits per byte, model counted", log="x")

# %%
paper = data.table("published/deletang_table1.csv").drop_duplicates("compressor")
paper = paper.set_index("compressor").loc[list(PUBLISHED)]
for name, row in paper.iterrows():
    print(f"{name:>16}: {row.raw_enwik9_pct:5.1f} % of 1 GB of Wikipedia, "
          f"{row.adjusted_enwik9_pct:.1f} % with the model's bytes")

# %% [markdown]
# **Reading.** If the model is free, each GPT row is well below all general compressors, xz primed
# included. With the model's bytes counted, none of them pays at the black line, the length of our
# text. The printed crossings with bz2 begin at about three million bytes. Quantising to int8
# divides the model's bytes by about four and leaves the bits per byte nearly as they were. With
# int4 the curve starts lower and ends a little higher. The larger model predicts somewhat better,
# but its bytes take longer to pay.
#
# Two warnings. The lines of the general compressors are flat by assumption. They may get better on
# longer texts: xz primed, with the training text before ours, is well below plain xz. Against it
# the curves cross later. And xz primed has its price too: the receiver must own the training text.
#
# Delétang et al. (2023) count in the same way, on 1 GB of Wikipedia (LZMA2 is the method of xz).
# There a model of 3.2 million weights pays for itself. The largest one makes the smallest file of
# all, but file and model together are 140 times as long as the text. (It is another text: compare
# the pattern, not the digits.)
#
# ## 4 · Smaller by compression, or smaller from the start?
#
# The rule of this part: a compressed model is compared with the dense model that costs the same.
# The recorded runs below all had the same **total training FLOPs**. The pruned ones are the
# course's model (3,072 steps at width 128), pruned and then tuned for 384 steps. The dense ones of
# width 128, 96 and 64 spent all of it on plain training. Each was then written as fp32, as int8
# with a scale per row and as int4 with a scale per 32 weights (the embedding: 6 bits), the last two
# entropy-coded. The bytes are those of the whole file, tokeniser included. The losses are means
# over 500 held-out windows, not over the 48 of section 3, so the two sets do not compare.

# %%
stack = data.table("sweeps/stack.csv")
stack["model"] = [f"width {d}" + ("" if kept == 1 else f", pruned to {kept:.0%}")
                  for d, kept in zip(stack.d_model, stack.density, strict=True)]
assert stack.C.max() / stack.C.min() < 1.001
for name, rows in stack.groupby("model", sort=False):
    print(f"{name:>25}: " + "; ".join(f"{r.format} {r.bytes / 1e3:.0f} kB, loss {r.loss:.3f}"
                                      for r in rows.itertuples()))

# %%
(ax,) = panels(title="Equal training FLOPs: loss against bytes", height=4.2)
for number, (name, rows) in enumerate(stack.groupby("model", sort=False)):
    style = "s--" if "pruned" in name else "o-"
    ax.plot(rows.bytes / 1e3, rows.loss, style, color=COLORS[number], label=name)
label(ax, "bytes of the file (kB)", "held-out loss (nats/token)",
      "on each line, right to left: fp32, int8, int4", log="x")

# %% [markdown]
# **Reading.** Follow one line from right to left. From fp32 to int8 it is flat: at least about four
# times fewer bytes, and nearly the same loss. To int4 it bends up. So width 96 in int8 is half as
# long as width 64 in fp32, and far better: that is the gain of compression here. To go on to 4 bits
# pays less: width 128 in int4 is about as long as width 96 in int8, and worse. (Rounded to nearest
# here. Chapter 12 has better ways.)
#
# Pruning is another matter. For each pruned file there is a dense one that is smaller *and* better.
# It has width 96: for the same training FLOPs the narrower model took more steps. It beats even the
# dense model of width 128 that had all its FLOPs for plain training. So 128 looks too wide for this
# budget (chapter 09), and the pruned models began with it. These are runs of one seed each. With a
# base model that is given for nothing the question would be another one.
#
# ## 5 · Distillation
#
# A third way to a small model: a large one teaches it. Hinton, Vinyals and Dean (2015) add to the
# usual loss a second one, towards the teacher's probabilities:
#
# $$\mathcal{L} = (1-w)\,\mathrm{CE}(y, \mathrm{softmax}(z)) \;+\; w\,T^2\,
# \mathrm{KL}\big(\mathrm{softmax}(z_t/T)\,\|\,\mathrm{softmax}(z/T)\big),
# \qquad \mathrm{KL}(q\|p) = \sum_i q_i \log\frac{q_i}{p_i}.$$
#
# CE is the cross-entropy of the token that came, as always. KL is the **Kullback–Leibler
# divergence**, a code length as well. Tokens come with the probabilities $q$, and a sender codes
# them by $p$: KL is what the wrong $p$ costs on top, in the mean. It is 0 if the two agree, and
# never negative.
#
# Why should that help? The text says which token came: one of 1,024, and nothing of the others. The
# teacher says of *each* token how likely it was. That is more to learn from at each place. A high
# **temperature** $T$ flattens both distributions, so that the differences among the unlikely tokens
# count more.
#
# Why $T^2$? The gradient of KL in $z$ is $(p-q)/T$ with $p$ and $q$ at temperature $T$. For large
# $T$ the difference $p - q$ itself shrinks as $1/T$. So without the factor the gradient would fade
# as $1/T^2$. For large $T$ its direction is that of the difference of the logits (each with its
# mean taken off): the student is told to copy the logits themselves.

# %% tags=["essential"]
def distillation_loss(z, z_teacher, targets, weight, temperature):
    hard = F.cross_entropy(z, targets)
    log_p = F.log_softmax(z / temperature, dim=-1)
    log_q = F.log_softmax(z_teacher / temperature, dim=-1)
    soft = (log_q.exp() * (log_q - log_p)).sum(dim=-1).mean()  # KL(teacher ‖ student)
    return (1 - weight) * hard + weight * temperature**2 * soft

# %% tags=["check"]
z, z_teacher = torch.from_numpy(rng.normal(size=(2, 7, 30)))
targets = torch.from_numpy(rng.integers(30, size=7))
for T in (1.0, 3.0):
    kl = F.kl_div((z / T).log_softmax(-1), (z_teacher / T).softmax(-1), reduction="batchmean")
    both = 0.4 * F.cross_entropy(z, targets) + 0.6 * T**2 * kl
    assert torch.allclose(distillation_loss(z, z_teacher, targets, 0.6, T), both)
even, tilted = torch.zeros(1, 2), torch.tensor([[np.log(3.0), 0.0]])  # p = ½, ½ and q = ¾, ¼
by_hand = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
assert np.isclose(distillation_loss(even, tilted, torch.tensor([0]), 1, 1), by_hand)
print(f"as torch's kl_div at two temperatures, and as by hand: {by_hand:.4f} nats")

# %%
prompt = torch.from_numpy(bpe_encode(PROMPT, merges))[None]
with torch.no_grad():
    z_teacher, z = (model(prompt)[:, -1].double() for model in (large, small))
q = z_teacher.softmax(-1)[0]
print(f"the teacher after {PROMPT.decode()!r}: " + ", ".join(
    f"{bpe_decode([i], merges).decode()!r} {q[i]:.2f}" for i in q.topk(6).indices.tolist()))
centred = (z - z.mean()) - (z_teacher - z_teacher.mean())
for T in TEMPERATURES:
    (slope,) = torch.autograd.grad(
        distillation_loss(z.requires_grad_(), z_teacher, torch.tensor([0]), 1, T), z)
    size = slope.norm().item()
    print(f"T = {T:3}: length of the gradient {size:.3f}, without T² {size / T**2:.0e}; its cosine "
          f"with the difference of the logits {F.cosine_similarity(slope, centred).item():.2f}")

# %% [markdown]
# The printout shows the size: with $T^2$ it changes by less than a factor of two, without it falls
# by nearly four powers of ten.
#
# ### Predict first: who learns more?
#
# Students of width 32, 768 steps. One learns from the text alone, one also from the course's model
# ($w = 0.9$, $T = 1$). They take the same steps on the same text, in the same order, and so spend
# the same FLOPs of their own.
#
# (a) Which is better, and by more than the seeds scatter? (b) The teacher must read every batch
# too. That costs about three times as much as the small student's own training step. Spend these
# FLOPs on more steps from scratch instead: who is ahead now? (c) And students of width 64 with only
# 131,072 training tokens, read twelve times: does the teacher help more or less than with all the
# text?

# %%
students = data.table("sweeps/distillation.csv")
students["total"] = students.C + students.C_teacher
for r in students[students.d_model > 64].itertuples():
    print(f"teacher of width {r.d_model}: loss {r.loss:.3f}")

# %%
by_text = students[students.teacher == 0].set_index(["d_model", "n_steps", "pool", "seed"]).loss
for r in students[students.d_model <= 64].sort_values(
        ["pool", "d_model", "n_steps", "teacher", "weight", "temperature"]).itertuples():
    gain = by_text[r.d_model, r.n_steps, r.pool, r.seed] - r.loss
    source = (f"teacher {r.teacher}, w {r.weight}, T {r.temperature}, gain {gain:.3f}" if r.teacher
              else "text alone")
    print(f"width {r.d_model}, {r.n_steps:4} steps{', small text' if r.pool else '':12} seed "
          f"{r.seed}: loss {r.loss:.3f}, total {r.total:.2g} FLOPs, {source}")

# %%
def curve(d_model: int, teacher: int, x: str, seed: int = 0):
    """x and loss of the students of a width and seed, whole text, w = 0.9 and T = 1 if taught."""
    rows = students[(students.d_model == d_model) & (students.pool == 0) & (students.seed == seed)
                    & (students.teacher == teacher) & students.weight.isin((0, 0.9))
                    & (students.temperature == 1)].sort_values("n_steps")
    return rows[x], rows.loss


axes = panels(2, "Students of width 32: alone, and taught by the course's model")
for ax, x, unit in zip(axes, ("n_steps", "total"), ("steps", "FLOPs, teacher's passes counted"),
                       strict=True):
    for color, teacher, style, name in ((COLORS[0], 0, "o-", "text alone"),
                                        (COLORS[1], 128, "s--", "teacher of width 128")):
        ax.plot(*curve(32, teacher, x), style, color=color, label=name)
        ax.plot(*curve(32, teacher, x, seed=1), style[0], color=color, mfc="w", label="seed 1")
    label(ax, unit, "held-out loss (nats/token)", "equal " + unit.split(",")[0], log="x")

# %% [markdown]
# **Reading.** (a) At equal steps (left), and so at equal FLOPs of the student, the taught one is
# ahead everywhere. With 768 steps the lead is about three times the difference between the two
# seeds (hollow). It shrinks as the steps grow. A smaller $w$, or $T = 2$, helped less here; both
# differences are of the seeds' size. The teacher of width 320 is slightly better itself. Its
# student is not: the difference is within the seeds' scatter, and the total costs six times the
# FLOPs. A stronger teacher was no better teacher here.
#
# (b) At equal *total* FLOPs (right) the order turns round. The first taught student costs as much
# as 3,072 steps alone, and those end far lower. So here distillation was no cheap training. It can
# pay when the teacher's passes are done already or serve many students, or when text is scarce:
#
# (c) With the small text the student alone is much worse than with the whole text. The taught one
# is as good as the student that had the whole text to itself. The teacher has learnt from all of
# it, and some of that comes through. The gain is more than twice that with the whole text.
#
# ## 6 · One axis for the levers (K16)
#
# **The claim:** "Scaling is compute, quality data and better compression." Chapter 10 tested the
# data part. *The experiment* for compression: four comparisons, each with one thing held equal.
#
# - 8-bit weights: the best dense int8 file that is no longer than the fp32 file of width 64;
# - pruned weights: against the best dense file that is no longer, where pruning does best;
# - a teacher, at equal steps of the student;
# - a teacher, at equal total FLOPs.

# %% tags=["verdict"]
def best_dense(most_bytes: float, forms: tuple) -> float:
    """Lowest loss of a dense model in these formats with at most so many bytes."""
    return stack[(stack.density == 1) & (stack.bytes <= most_bytes)
                 & stack.format.isin(forms)].loss.min()


row = stack.set_index(["d_model", "density", "format"])
fp32_gain = row.loss[64, 1, "fp32"] - best_dense(row.bytes[64, 1, "fp32"], ("int8",))
prune_gain = max(best_dense(r.bytes, ("int8", "int4")) - r.loss  # where pruning does best
                 for r in stack[(stack.density < 1) & (stack.format != "fp32")].itertuples())
alone, taught = (curve(32, teacher, "total") for teacher in (0, 128))
steps_gain = alone[1].iloc[0] - taught[1].iloc[0]  # after 768 steps each
flops_gain = np.interp(np.log(taught[0].iloc[0]), np.log(alone[0]), alone[1]) - taught[1].iloc[0]
helps = [gain > 0 for gain in (fp32_gain, prune_gain, steps_gain, flops_gain)]
claims.verdict("K16", holds=None if len(set(helps)) == 2 else bool(helps[0]),
        measured=f"at equal training FLOPs, 8-bit weights gain {fp32_gain:.3f} nats per token "
        f"over an fp32 model that is no smaller; pruned weights lose {-prune_gain:.3f} or more to "
        f"a smaller dense model. A teacher gains {steps_gain:.2f} at equal steps, but loses "
        f"{-flops_gain:.2f} to longer training if its passes are counted. It depends on the kind "
        "of compression, and on what is held equal", fp32_gain=fp32_gain,
        prune_gain=prune_gain, steps_gain=steps_gain, flops_gain=flops_gain)

# %% [markdown]
# ## Exercises
#
# Write the function, run its cell, then the check below it. `hint("13.1")` gives a hint, called
# again a second one; `solution("13.1")` shows ours. The first is read off the figure "Model and
# text together".

# %% tags=["exercise"]
def paying_length():
    """Length of text, in bytes, from which the small int8 model and its file beat xz primed."""
    return NotImplemented

# %% tags=["exercise-check"]
check("13.1", paying_length)
# hint("13.1")
# solution("13.1")

# %% tags=["exercise"]
def code_length(p, tokens):
    """Bits that an ideal coder needs for all tokens (n,), where p[i] (vocab,) predicts token i."""
    return NotImplemented

# %% tags=["exercise-check"]
check("13.2", code_length)
# hint("13.2")
# solution("13.2")

# %% tags=["exercise"]
def interval_of(symbols, p):
    """(low end, width) of the part of [0, 1) for `symbols`, each drawn with probabilities p.

    symbols: a list of 0, 1, …; p: a list of floats, the same for each symbol. Do not call the
    function of section 1: build the interval yourself.
    """
    return NotImplemented

# %% tags=["exercise-check"]
check("13.3", interval_of)
# hint("13.3")
# solution("13.3")

# %% tags=["exercise"]
def break_even(model_bytes, bpb, bpb_rival):
    """Length n of text, in bytes, from which on model and file together are the shorter ones.

    The model compresses to `bpb` bits per byte, the rival, which needs no model, to `bpb_rival`.
    Return np.inf if no text is long enough.
    """
    return NotImplemented

# %% tags=["exercise-check"]
check("13.4", break_even)
# hint("13.4")
# solution("13.4")

# %% tags=["exercise"]
def soft_gradient(z, z_teacher, temperature):
    """Gradient in z of T² KL(softmax(z_teacher/T) ‖ softmax(z/T)), for one token.

    z and z_teacher are numpy arrays (vocab,). Derive it, then write it down without autograd. It is
    a plain gradient: a sum over the vocabulary, no mean.
    """
    return NotImplemented

# %% tags=["exercise-check"]
check("13.5", soft_gradient)
# hint("13.5")
# solution("13.5")

# %% [markdown]
# ## Play: how much text pays for a model?
#
# Choose a packed model and drag the length of the text. First guess where it passes bz2, and where
# it passes xz that has read the training text. (With a short text your point lies above the frame.)

# %% tags=["widget"]
def balance(length, name):
    row, size = codec.loc[name], length / 8
    megabytes = {name: (row.model_bytes + row.bpb * size) / 1e6}
    megabytes |= {rival: codec.bpb[rival] * size / 1e6 for rival in ("bz2 -9", "xz -9e primed")}
    drawn = [series("dash", LENGTHS[[0, -1]], [codec.bpb[rival]] * 2, rival, number)
             for number, rival in enumerate(("gzip -9", "xz -9e", "bz2 -9", "xz -9e primed"))]
    drawn += [series("line", LENGTHS, 8 * row.model_bytes / LENGTHS + row.bpb, name, 4),
              series("points", [length], [megabytes[name] * 1e6 / size], "your text", 8)]
    shown = ", ".join(f"{who} {total:.3g} MB" for who, total in megabytes.items())
    return picture(drawn, "length of the text (bytes)", "bits per byte, model counted", (1e4, 1e9),
                   (1, 4), "Model and text together", log="x",
                   text=f"{length / 1e6:.3g} MB of text, model counted: {shown}; the shortest is "
                        f"{min(megabytes, key=megabytes.get)}")


explore(balance,
        length=FloatLogSlider(1e6, base=10, min=4, max=9, step=0.05, description="text (bytes)"),
        name=Dropdown(options=list(codec.index[codec.model_bytes > 0]), value="gpt_small int8",
                      description="packed model"))

# %% [markdown]
# ## Recap
#
# - $-\log_2 p$ is a length. A loss in nats per token, over $\ln 2$, is a file's bits per token, and
#   arithmetic coding reaches it.
# - The receiver must compute the same predictions: same shapes, same steps, and a check.
# - Count the model. A text must be long enough to pay for it; quantising brings that length down.
# - Zeros save nothing until they are coded. Entropy coding comes close to the entropy of the codes.
# - A teacher helps a student most when text or steps are few. At equal total FLOPs, training longer
#   was better here.
#
# **Limits.** One kind of text, small models, one family of teachers, one or two seeds. No student
# was trained until its loss stopped falling. The files can be read only where the arithmetic is the
# same, so as an archive format this is a demonstration.
#
# **To read.** Shannon, *A mathematical theory of communication* (1948); MacKay, *Information
# Theory, Inference, and Learning Algorithms*, chapters 4 to 6; Hinton, Vinyals & Dean 2015;
# Busbridge et al. 2025 on a scaling law of distillation, and on teachers that are too strong;
# Delétang et al. 2023, *Language modeling is compression*.
#
# Next: **14 · Serving and evaluation**, where the model answers requests.
