"""Solutions of chapter 13, each with the mistakes that learners make."""

import numpy as np

from helpers import data
from helpers.exercises import exercise
from helpers.transformer.models import probabilities


def crossing(what, rival):
    """Length of text, in bytes, from which an int8 model and its file beat a rival; recorded."""
    rows = data.table("sweeps/codec.csv")
    model = rows[(rows.what == what) & (rows.format == "int8")].iloc[0]
    return 8 * model.model_bytes / (rows.bpb[rows.what == rival].iloc[0] - model.bpb)


def softmax(z, temperature=1.0):
    """Probabilities of logits (vocab,)."""
    p = np.exp((z - z.max()) / temperature)
    return p / p.sum()


def predictions(seed, n=6, vocab=5):
    """p (n, vocab) and tokens (n,), drawn from `seed`."""
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(vocab), n), rng.integers(vocab, size=n)


@exercise(
    "13.1",
    tests="between 5.6 and 7.4 million bytes, within what can be read off the figure",
    hints=("Find the horizontal line of xz primed and the falling curve of the small int8 model.",
           "They cross between 10^6 and 10^7 bytes. That part of the axis is logarithmic: its "
           "middle is about 3 million."),
    cases=((),),
    rtol=0.15,
    wrong={
        "That is where int8 crosses the line of bz2, or int4 that of xz primed. Asked for: int8 "
        "and xz primed.": lambda: crossing("gpt_small", "bz2 -9"),
        "There int8 crosses the line of plain xz, or int4 that of bz2. Asked for: int8 and xz "
        "primed.": lambda: crossing("gpt_small", "xz -9e"),
        "That is where the curve crosses gzip's line. The rival asked for is xz primed.":
            lambda: crossing("gpt_small", "gzip -9"),
        "That is the larger model against bz2. Asked for: the small one, and xz primed.":
            lambda: crossing("gpt_prose", "bz2 -9"),
        "That is the larger model, gpt_prose. Asked for: the small one.":
            lambda: crossing("gpt_prose", "xz -9e primed"),
        "That is in millions of bytes, or a power of ten: return bytes.":
            lambda: crossing("gpt_small", "xz -9e primed") / 1e6,
        "That is in kilobytes: return bytes.":
            lambda: crossing("gpt_small", "xz -9e primed") / 1e3,
    },
)
def paying_length():
    """Length of text, in bytes, from which the small int8 model and its file beat xz primed."""
    rows = data.table("sweeps/codec.csv")
    model = rows[(rows.what == "gpt_small") & (rows.format == "int8")].iloc[0]
    rival = rows[rows.what == "xz -9e primed"].iloc[0]
    return 8 * model.model_bytes / (rival.bpb - model.bpb)


@exercise(
    "13.2",
    tests="four texts, one of them certain, one of a single token",
    hints=("The token that came at place i has the probability p[i, tokens[i]].",
           "p[np.arange(len(tokens)), tokens] picks them all. Then −log₂, and the sum."),
    cases=(predictions(0), predictions(1, 1), predictions(2, 20, 3),
           (np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([0, 1]))),
    wrong={
        "These are nats: the logarithm to base e. Bits need base 2.":
            lambda p, tokens: -np.log(p[np.arange(len(tokens)), tokens]).sum(),
        "That is the mean, the cross-entropy. A file holds all tokens: take the sum.":
            lambda p, tokens: -np.log2(p[np.arange(len(tokens)), tokens]).mean(),
        "Each token was rounded up to whole bits, as in a Huffman code. Arithmetic coding does not "
        "round until the end.":
            lambda p, tokens: np.ceil(-np.log2(p[np.arange(len(tokens)), tokens])).sum(),
        "That is the cost of the likeliest token at each place. The token that came is the one "
        "to send.":
            lambda p, tokens: -np.log2(p.max(axis=1)).sum(),
        "That is the entropy of the predictions: what the model expects to pay. The text decides "
        "what it does pay.":
            lambda p, tokens: -(p * np.log2(np.where(p > 0, p, 1))).sum(),
        "These are bytes: the bits were divided by 8. Asked for: bits.":
            lambda p, tokens: -np.log2(p[np.arange(len(tokens)), tokens]).sum() / 8,
        "That is the mean in nats, the loss. Asked for: the sum over the tokens, in bits.":
            lambda p, tokens: -np.log(p[np.arange(len(tokens)), tokens]).mean(),
        "One number for each token. Add them up: asked for is the whole text.":
            lambda p, tokens: -np.log2(p[np.arange(len(tokens)), tokens]),
        "p[:, tokens] takes all tokens from every row. Row i predicts token i alone: pick "
        "p[i, tokens[i]].":
            lambda p, tokens: -np.log2(p[:, tokens]).sum(),
        "p[tokens] picks rows by the token. The rows are places, the columns are tokens.":
            lambda p, tokens: -np.log2(p[tokens]).sum(),
        "Each cost was weighted by its probability, as in an entropy. The tokens came: each counts "
        "once.":
            lambda p, tokens: -(p[np.arange(len(tokens)), tokens]
                                * np.log2(p[np.arange(len(tokens)), tokens])).sum(),
        "That is the entropy of the predictions, in nats. Asked for: the cost of this text, in "
        "bits.":
            lambda p, tokens: -(p * np.log(np.where(p > 0, p, 1))).sum(),
        "The sign: log₂ of a probability is negative, a length is not.":
            lambda p, tokens: np.log2(p[np.arange(len(tokens)), tokens]).sum(),
    },
)
def code_length(p, tokens):
    """Bits that an ideal coder needs for all tokens (n,), where p[i] (vocab,) predicts token i."""
    return -np.log2(p[np.arange(len(tokens)), tokens]).sum()


def shrink(symbols, p, order=1, inclusive=False, nested=True, ends=False, late=False, own=False):
    """The interval of `symbols`, with mistakes to choose from."""
    low, width = 0.0, 1.0
    for s in symbols[::order]:
        share = p[s] if own else sum(p[:s + inclusive])
        low += (width * (p[s] if late else 1) if nested else 1.0) * share
        width *= p[s]
    return (low, low + width) if ends else (low, width)


@exercise(
    "13.3",
    tests="four messages, among them one symbol and a run of equal ones",
    hints=("A symbol s keeps the part from p[0] + … + p[s−1], of length p[s], of what is left.",
           "In each step: low += width · sum(p[:s]), then width *= p[s]. In this order."),
    cases=(([2, 0, 1], [0.5, 0.3, 0.2]), ([1], [0.25, 0.5, 0.25]), ([0, 0, 0], [0.9, 0.05, 0.05]),
           ([1, 2, 1, 0], [0.2, 0.7, 0.1])),
    wrong={
        "These are both ends. Return the low end and the width.":
            lambda symbols, p: shrink(symbols, p, ends=True),
        "The low end moves by a share of the *present* interval: multiply by the width.":
            lambda symbols, p: shrink(symbols, p, nested=False),
        "The symbols came in the wrong order: the first one makes the first cut.":
            lambda symbols, p: shrink(symbols, p, order=-1),
        "The low end skips the symbol's own part: only the parts *before* it, sum(p[:s]).":
            lambda symbols, p: shrink(symbols, p, inclusive=True),
        "The width was updated before the low end. The low end needs the *old* width: first low, "
        "then width.":
            lambda symbols, p: shrink(symbols, p, late=True),
        "The low end moves by all parts *before* the symbol, p[0] + … + p[s−1], not by p[s].":
            lambda symbols, p: shrink(symbols, p, own=True),
        "Low end and width are swapped: return (low, width).":
            lambda symbols, p: shrink(symbols, p)[::-1],
        "That is the width alone. Return the low end too: (low, width).":
            lambda symbols, p: shrink(symbols, p)[1],
    },
)
def interval_of(symbols, p):
    """(low end, width) of the part of [0, 1) for `symbols`, each drawn with probabilities p."""
    low, width = 0.0, 1.0
    for s in symbols:
        low, width = low + width * sum(p[:s]), width * p[s]
    return low, width


@exercise(
    "13.4",
    tests="a model that pays late, one that pays early, two that never pay (one just as good)",
    hints=("With the model the total is M + n·bpb/8 bytes; without it n·bpb_rival/8. Equate them.",
           "n = 8 M / (bpb_rival − bpb). If the model's bpb is not smaller, no n is long enough."),
    cases=((160_000, 1.45, 2.1), (3_000_000, 1.4, 1.5), (5_000, 0.9, 2.0), (1000, 2.2, 2.0),
           (1000, 2.0, 2.0)),
    wrong={
        "That counts a bit as a byte: bpb are bits per byte, so the model's bytes need the 8.":
            lambda model_bytes, bpb, bpb_rival: (
                model_bytes / (bpb_rival - bpb) if bpb < bpb_rival else np.inf),
        "A negative length: if the model's bpb is not smaller, it never pays. Return infinity.":
            lambda model_bytes, bpb, bpb_rival: 8 * model_bytes / (bpb_rival - bpb),
        "With the size of the difference a worse model seems to pay too. It never does: infinity.":
            lambda model_bytes, bpb, bpb_rival: 8 * model_bytes / abs(bpb_rival - bpb),
        "The difference is the wrong way round: what is saved is bpb_rival − bpb.":
            lambda model_bytes, bpb, bpb_rival: 8 * model_bytes / (bpb - bpb_rival),
        "0 would mean that the model pays at once. If it never pays, return infinity.":
            lambda model_bytes, bpb, bpb_rival: (
                8 * model_bytes / (bpb_rival - bpb) if bpb < bpb_rival else 0),
        "That asks when the rival's file alone is as long as the model. The compressed text itself "
        "must be sent too.":
            lambda model_bytes, bpb, bpb_rival: (
                8 * model_bytes / bpb_rival if bpb < bpb_rival else np.inf),
        "That divides by the model's own bpb. What counts is what it saves: the difference.":
            lambda model_bytes, bpb, bpb_rival: (
                8 * model_bytes / bpb if bpb < bpb_rival else np.inf),
        "You divided by 8 where you should multiply: 8 bits are one byte.":
            lambda model_bytes, bpb, bpb_rival: (
                model_bytes / 8 / (bpb_rival - bpb) if bpb < bpb_rival else np.inf),
    },
)
def break_even(model_bytes, bpb, bpb_rival):
    """Length n of text, in bytes, from which on model and file together are the shorter ones."""
    return 8 * model_bytes / (bpb_rival - bpb) if bpb < bpb_rival else np.inf


def logits(seed, temperature, vocab=6):
    """z and z_teacher (vocab,), and the temperature."""
    rng = np.random.default_rng(seed)
    return 2 * rng.normal(size=vocab), 2 * rng.normal(size=vocab), temperature


def reverse_gradient(z, z_teacher, temperature):
    """Gradient in z of T² KL(softmax(z/T) ‖ softmax(z_teacher/T)): the wrong way round."""
    p = softmax(z, temperature)
    log_ratio = np.log(p / softmax(z_teacher, temperature))
    return temperature * p * (log_ratio - (p * log_ratio).sum())


@exercise(
    "13.5",
    tests="T = 1, 2, 5 and 50: T (softmax(z/T) − softmax(z_t/T)), which sums to zero",
    hints=("Only −Σ q log p depends on z. Its derivative in z/T is p − q, where q sums to 1.",
           "The chain rule gives 1/T, the factor T² stands in front: T (p − q) is left. "
           "`probabilities(z, T)` is the softmax of z/T."),
    cases=(logits(0, 1.0), logits(1, 2.0), logits(2, 5.0), logits(3, 50.0)),
    wrong={
        "The chain rule is missing: z stands divided by T, which gives 1/T. T², less one, is T.":
            lambda z, z_teacher, temperature: temperature**2 * (
                softmax(z, temperature) - softmax(z_teacher, temperature)),
        "The factor T² is missing: this is the gradient of the KL alone, which fades as 1/T².":
            lambda z, z_teacher, temperature: (
                softmax(z, temperature) - softmax(z_teacher, temperature)) / temperature,
        "One factor T is missing: T² · 1/T = T.":
            lambda z, z_teacher, temperature: (
                softmax(z, temperature) - softmax(z_teacher, temperature)),
        "The sign: to lower p where it is above q the gradient there must be positive.":
            lambda z, z_teacher, temperature: temperature * (
                softmax(z_teacher, temperature) - softmax(z, temperature)),
        "Both softmaxes need the temperature: softmax(z/T), not softmax(z).":
            lambda z, z_teacher, temperature: temperature * (softmax(z) - softmax(z_teacher)),
        "Only the student's logits were divided by T. The teacher's need it as well.":
            lambda z, z_teacher, temperature: temperature * (
                softmax(z, temperature) - softmax(z_teacher)),
        "The logits were multiplied by T. A high temperature divides them.":
            lambda z, z_teacher, temperature: temperature * (
                softmax(z, 1 / temperature) - softmax(z_teacher, 1 / temperature)),
        "That is the gradient of KL(student ‖ teacher). The teacher's probabilities come first.":
            reverse_gradient,
        "Divided by the number of logits: the KL is a sum over the vocabulary, not a mean.":
            lambda z, z_teacher, temperature: temperature * (
                softmax(z, temperature) - softmax(z_teacher, temperature)) / len(z),
        "That is the difference of the logits. The gradient is one of probabilities: softmax "
        "first.":
            lambda z, z_teacher, temperature: z - z_teacher,
        "That is the limit for large T, (centred z − centred z_t) / vocab. Here T is finite.":
            lambda z, z_teacher, temperature: (
                z - z.mean() - z_teacher + z_teacher.mean()) / len(z),
    },
)
def soft_gradient(z, z_teacher, temperature):
    """Gradient in z (vocab,) of T² KL(softmax(z_teacher/T) ‖ softmax(z/T)), for one token."""
    return temperature * (probabilities(z, temperature) - probabilities(z_teacher, temperature))
