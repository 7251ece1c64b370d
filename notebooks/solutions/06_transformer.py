"""Solutions of chapter 06, each with its cases and the mistakes that are known."""

import numpy as np

from helpers.exercises import IN_PLACE, exercise


@exercise(
    "06.1",
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


def _without_the_crossing_token(p, top_p):
    order = np.argsort(-p)
    keep = np.cumsum(p[order]) <= top_p
    q = np.zeros_like(p)
    q[order[keep]] = p[order[keep]]
    return q / max(q.sum(), 1e-300)


def _not_renormalised(p, top_p):
    order = np.argsort(-p)
    kept = order[np.cumsum(p[order]) - p[order] < top_p]
    q = np.zeros_like(p)
    q[kept] = p[kept]
    return q


def _unsorted(p, top_p):
    q = np.where(np.cumsum(p) - p < top_p, p, 0)
    return q / q.sum()


def _threshold(p, top_p):
    q = np.where(p >= 1 - top_p, p, 0)
    return q / max(q.sum(), 1e-300)


def _in_place(p, top_p):
    order = np.argsort(-p)
    p[order[np.cumsum(p[order]) - p[order] >= top_p]] = 0
    p /= p.sum()
    return p


@exercise(
    "06.2",
    tests="five distributions, sorted and not, with top_p from 0.1 to 1",
    hints=("Sort the probabilities, and keep the order to come back.",
           "Keep a token while the sum of those before it is below top_p: "
           "np.cumsum(sorted) - sorted < top_p."),
    cases=((np.array([0.3, 0.02, 0.28, 0.4]), 0.5), (np.array([0.4, 0.35, 0.25]), 0.1),
           (np.array([0.2, 0.3, 0.5]), 1.0), (np.array([0.06, 0.9, 0.04]), 0.95),
           (np.array([0.1, 0.5, 0.15, 0.25]), 0.7)),
    wrong={
        "The token that crosses top_p is kept too, or a confident model could keep nothing.":
            _without_the_crossing_token,
        "What is left no longer sums to one: renormalise.": _not_renormalised,
        "The tokens come unsorted: take them from the likeliest down.": _unsorted,
        "Zero the rest, but keep their places: as many numbers out as in.":
            lambda p, top_p: top_p_probabilities(p, top_p)[top_p_probabilities(p, top_p) > 0],
        "top_p bounds the sum of what is kept, not each probability.": _threshold,
        IN_PLACE: _in_place,
    },
)
def top_p_probabilities(p, top_p):
    """Keep the likeliest tokens until their sum reaches top_p; zero the rest; renormalise."""
    order = np.argsort(-p)
    kept = order[np.cumsum(p[order]) - p[order] < top_p]
    q = np.zeros_like(p)
    q[kept] = p[kept]
    return q / q.sum()


@exercise(
    "06.3",
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
