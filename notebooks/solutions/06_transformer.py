"""Solutions of chapter 06, each with its cases and the mistakes that are known."""

import numpy as np

from helpers.exercises import exercise

FIRST, LAST = 1.748, 1.437  # bits per byte of the 5-gram after 0.35 and 3.5 million tokens
GAIN = FIRST - LAST
SOLID = 0.99  # the transformer's fall in the stored run; other machines' lie near it


@exercise(
    "06.1",
    tests="the fall of the dashed line over its decade, within what can be read off",
    hints=("The dashed line in the right panel: read its height at its first and its last point.",
           "The printed lines above the figure give both heights; subtract the last from the "
           "first."),
    cases=((),),
    rtol=0.12,
    wrong={
        "The sign: the line falls by a positive number.": lambda: -GAIN,
        "That is the factor between the two heights. The question asks for the difference.":
            lambda: FIRST / LAST,
        "That is the height at the end. Subtract it from the height at the first point.":
            lambda: LAST,
        "That is the height at the first point. Subtract the one at the end from it.":
            lambda: FIRST,
        "That is about the fall of the solid line, the transformer's. The dashed one is asked for.":
            lambda: SOLID,
        "That is the fall per factor e. A decade is ln 10 = 2.3 of those.":
            lambda: GAIN / np.log(10),
    },
)
def gain_of_tenfold_text():
    """Bits per byte (positive) by which the 5-gram over tokens falls as its text grows tenfold."""
    return GAIN


def look_back(seq):
    """How far back position j lies from position i: i − j, of shape (seq, seq)."""
    return np.subtract.outer(np.arange(seq), np.arange(seq))


@exercise(
    "06.2",
    tests="four masks, from a width of one to one wider than the text",
    hints=("With i down the rows and j along the columns, i − j says how far back j lies. "
           "np.arange(seq)[:, None] - np.arange(seq) holds it for all pairs.",
           "Allowed distances are 0, 1, … width − 1: two comparisons, joined by &."),
    cases=((5, 2), (4, 1), (6, 3), (3, 9)),
    wrong={
        "One too many: position i itself is one of the `width` positions.":
            lambda seq, width: (look_back(seq) >= 0) & (look_back(seq) <= width),
        "It looks ahead: nothing may stand right of the diagonal.":
            lambda seq, width: np.abs(look_back(seq)) < width,
        "Rows and columns are swapped: row i looks at columns j ≤ i.":
            lambda seq, width: (look_back(seq) <= 0) & (look_back(seq) > -width),
        "That marks what is forbidden. True means: may look.":
            lambda seq, width: (look_back(seq) < 0) | (look_back(seq) >= width),
        "The diagonal is missing: the first position would have nobody to look at.":
            lambda seq, width: (look_back(seq) > 0) & (look_back(seq) < width),
        "The width is not used: that is the plain causal mask.":
            lambda seq, width: look_back(seq) >= 0,
    },
)
def window_mask(seq, width):
    """Boolean array (seq, seq): may position i look at position j?"""
    back = np.arange(seq)[:, None] - np.arange(seq)  # how far back j lies from i
    return (back >= 0) & (back < width)


@exercise(
    "06.3",
    tests="four caches, from one layer to the size of a 7B model",
    hints=("What does each layer keep for each token?",
           "Per layer and token one key and one value, each d_model numbers long."),
    cases=((1, 64, 1, 4), (4, 64, 128, 4), (32, 4096, 2048, 2), (12, 768, 1024, 1)),
    wrong={
        "Keys and values are both kept: a factor 2 is missing.":
            lambda n_layer, d_model, n_tokens, size: n_layer * d_model * n_tokens * size,
        "Queries are not kept: only the newest token asks.":
            lambda n_layer, d_model, n_tokens, size: 3 * n_layer * d_model * n_tokens * size,
        "The cache grows linearly with the tokens; the scores are not kept.":
            lambda n_layer, d_model, n_tokens, size: 2 * n_layer * d_model * n_tokens**2 * size,
        "Every layer has its own keys and values.":
            lambda n_layer, d_model, n_tokens, size: 2 * d_model * n_tokens * size,
        "That counts numbers; each takes bytes_per_number bytes.":
            lambda n_layer, d_model, n_tokens, size: 2 * n_layer * d_model * n_tokens,
    },
)
def cache_bytes(n_layer, d_model, n_tokens, bytes_per_number):
    """Bytes that a KV cache holds for one sequence of n_tokens."""
    return 2 * n_layer * d_model * n_tokens * bytes_per_number


def tempered(logits, temperature):
    """The distribution ∝ exp(logits / temperature)."""
    p = np.exp((logits - logits.max()) / temperature)
    return p / p.sum()


def entropy(p):
    """In nats."""
    return -np.sum(p[p > 0] * np.log(p[p > 0]))


@exercise(
    "06.4",
    tests="four sets of logits, from even to nearly certain, also where exp(logits) overflows",
    hints=("First the probabilities: softmax(logits / temperature); subtract the maximum before "
           "np.exp. Then H = −Σ p log₂ p.",
           "A probability can round to 0, and 0 · log 0 counts as 0: sum over p[p > 0] alone."),
    cases=((np.array([4.0, 2.0, 0.0]), 0.5), (np.zeros(8), 3.0), (np.array([1.0, -1, 0.5, 2]), 2.0),
           (np.array([2000.0, 1999, 0]), 1.0)),
    wrong={
        "That is the entropy H itself, in bits. Return 2^H.":
            lambda logits, temperature: entropy(tempered(logits, temperature)) / np.log(2),
        "The bases differ: an entropy in nats belongs to e^H, one in bits to 2^H.":
            lambda logits, temperature: 2 ** entropy(tempered(logits, temperature)),
        "The temperature is not used.": lambda logits, temperature: np.exp(
            entropy(tempered(logits, 1.0))),
        "The temperature divides the logits; you multiplied.":
            lambda logits, temperature: np.exp(entropy(tempered(logits, 1 / temperature))),
        "You divided the probabilities by the temperature, as the article does (K9). Divide the "
        "logits.": lambda logits, temperature: np.exp(
            entropy(tempered(tempered(logits, 1.0), temperature))),
        "The minus sign is missing: H = −Σ p log₂ p.":
            lambda logits, temperature: np.exp(-entropy(tempered(logits, temperature))),
        "np.exp overflowed, or 0 · log 0 became nan. Subtract the maximum first, and sum over the "
        "p > 0.": lambda logits, temperature: np.exp(entropy(tempered(logits, temperature))) * (
            np.nan if logits.max() > 700 else 1),
    },
)
def effective_choices(logits, temperature):
    """2^H, where H is the entropy in bits of the distribution ∝ exp(logits / temperature)."""
    z = np.asarray(logits) / temperature
    p = np.exp(z - z.max())
    p = p / p.sum()
    p = p[p > 0]  # 0 · log 0 counts as 0
    return 2 ** -np.sum(p * np.log2(p))


@exercise(
    "06.5",
    tests="four shapes, from this chapter's model to a long context",
    hints=("Per token a block's matrices take 12 d_model² multiply-adds.",
           "Scores and mixing take seq · d_model multiply-adds each; divide by the sum of all."),
    cases=((16, 128), (64, 128), (768, 1024), (4096, 131072)),
    wrong={
        "Scores and mixing are two products, seq · d_model each; the masked half is counted too.":
            lambda d_model, seq: seq / (seq + 12 * d_model),
        "That is the ratio to the matrices, not the share of the whole.":
            lambda d_model, seq: seq / (6 * d_model),
        "A block has 12 d_model² weights: qkv 3, out 1, up 4, down 4.":
            lambda d_model, seq: 2 * seq / (2 * seq + 4 * d_model),
        "That is the matrices' share.": lambda d_model, seq: 6 * d_model / (seq + 6 * d_model),
        "The work per token grows with seq, not with seq².":
            lambda d_model, seq: seq**2 / (seq**2 + 6 * d_model),
    },
)
def share_of_attention(d_model, seq):
    """Share of a block's forward FLOPs that is spent on scores and mixing (0 … 1)."""
    return 2 * seq * d_model / (2 * seq * d_model + 12 * d_model**2)
