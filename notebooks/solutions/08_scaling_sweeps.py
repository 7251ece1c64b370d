"""Solutions of chapter 08, each with its cases and the mistakes that are known."""

import numpy as np

from helpers.exercises import exercise

GOAL = 1.244  # nats: N = 443 thousand at 2 M tokens
BELOW, ABOVE = (2.829, 1.257), (4.0, 1.223)  # M tokens and nats of N = 197 thousand around it
SHARE = np.log(BELOW[1] / GOAL) / np.log(BELOW[1] / ABOVE[1])
MAKE_UP = BELOW[0] * (ABOVE[0] / BELOW[0]) ** SHARE


@exercise(
    "08.1",
    tests="about 3.2 M: 1.6 times the tokens, within what can be read off",
    hints=("Find the largest model's point at 2 M tokens. How high is it?",
           "Go right from there, at the same height, to the line of N = 197 thousand: the crossing "
           "lies between its last two points."),
    cases=((),),
    rtol=0.12,
    wrong={
        "That is the tokens of the larger model. At 2 M the smaller one's loss is higher.":
            lambda: 2.0,
        "That is the factor on the tokens. Multiply by the 2 M of the larger model.":
            lambda: MAKE_UP / 2,
        "That is the loss, on the vertical axis. The question asks for tokens.": lambda: GOAL,
        "With 4 M the costs are about equal, 2 M of the one and 4 M of the other; but then the "
        "smaller model is already better.": lambda: 4.06,
        "In units of M: divide by 2²⁰.": lambda: MAKE_UP * 2**20,
    },
)
def tokens_to_make_up():
    """M tokens (M = 2²⁰) that N = 197 thousand needs for the loss of N = 443 thousand at 2 M."""
    return MAKE_UP


@exercise(
    "08.2",
    tests="four lists of token counts, unsorted ones too, with short and long cool-downs",
    hints=("How far does the trunk have to go for the longest run?",
           "The trunk stops where the longest branch begins, at (1 − decay_fraction) · max(D). "
           "What does each branch add?"),
    cases=(([100, 200, 400], 0.2), ([1000], 0.1), ([8, 4, 2, 1], 0.5), ([300, 300, 300], 0.2)),
    wrong={
        "That is what separate runs cost: the trunk is shared.": lambda D, f: sum(D),
        "The branches are trained too: each adds its cool-down.": lambda D, f: (1 - f) * max(D),
        "The trunk need not go on through the last cool-down.":
            lambda D, f: max(D) + f * sum(D),
        "Each branch is as long as its own D demands, not the longest one's.":
            lambda D, f: (1 - f) * max(D) + f * max(D) * len(D),
        "The lists are not always sorted: the largest D sets the trunk, not the last.":
            lambda D, f: (1 - f) * D[-1] + f * sum(D),
        "The longest run sets the trunk, wherever it stands in the list.":
            lambda D, f: (1 - f) * D[0] + f * sum(D),
        "Only the trunk's constant-rate part is shared.":
            lambda D, f: f * max(D) + (1 - f) * sum(D),
    },
)
def tokens_trained(token_counts, decay_fraction):
    """Tokens that a trunk with cool-down branches trains in all, for a list of token counts D."""
    return (1 - decay_fraction) * max(token_counts) + decay_fraction * sum(token_counts)


def runs_of(seed, n_groups, n_seeds):
    """Losses (n_groups, n_seeds): groups far apart, seeds within one per cent."""
    rng = np.random.default_rng(seed)
    level = rng.uniform(1, 3, (n_groups, 1))
    return level * np.exp(rng.normal(0, 0.01 * level, (n_groups, n_seeds)))


@exercise(
    "08.3",
    tests="4 groups of 3 seeds, 6 of 2, and a single group of 5",
    hints=("Take logarithms first. What is left of each group when its own mean is subtracted?",
           "Square these, add them all up, divide by n_groups · (n_seeds − 1), take the root."),
    cases=((runs_of(0, 4, 3),), (runs_of(1, 6, 2),), (runs_of(2, 1, 5),)),
    wrong={
        "Of the logarithm of the loss: σ is a relative error, not nats.":
            lambda x: np.sqrt(x.var(axis=1, ddof=1).mean()),
        "Divided by n, not n − 1: each group's mean was estimated from the same seeds.":
            lambda x: np.sqrt(np.log(x).var(axis=1).mean()),
        "Pool the variances, not the standard deviations: their mean is too small.":
            lambda x: np.log(x).std(axis=1, ddof=1).mean(),
        "That is the variance. Take the root.": lambda x: np.log(x).var(axis=1, ddof=1).mean(),
        "Each group has its own mean: this one mixes the differences between groups in.":
            lambda x: np.log(x).std(ddof=1),
        "Along the other axis: seeds stand in a row, groups in rows below each other.":
            lambda x: np.sqrt(np.log(x).var(axis=0).mean()),
        "Divide by the degrees of freedom, n_groups · (n_seeds − 1), not by all runs less one.":
            lambda x: np.sqrt(((np.log(x) - np.log(x).mean(axis=1, keepdims=True)) ** 2).sum()
                              / max(x.size - 1, 1)),
    },
)
def pooled_noise(losses):
    """σ: pooled standard deviation of the log loss; losses (n_groups, n_seeds) in nats."""
    log_loss = np.log(losses)
    off = log_loss - log_loss.mean(axis=1, keepdims=True)
    n_groups, n_seeds = log_loss.shape
    return np.sqrt((off**2).sum() / (n_groups * (n_seeds - 1)))


@exercise(
    "08.4",
    tests="a wider model, a narrower one, and the base itself",
    hints=("One of the three does not depend on the width at all.",
           "With r = base_width / width: which two get the factor r?"),
    cases=((0.006, 16, 96), (0.003, 64, 32), (0.01, 48, 48)),
    wrong={
        "The embedding's rate stays: only hidden matrices have a rate that falls with the width.":
            lambda lr, b, w: (lr * b / w, lr * b / w, b / w),
        "The other way round: the hidden matrices' rate falls with the width, the embedding's "
        "stays.": lambda lr, b, w: (lr * b / w, lr, b / w),
        "Upside down: wider means a lower rate and smaller logits.":
            lambda lr, b, w: (lr, lr * w / b, w / b),
        "That is this chapter's rule, with −0.75. With μP the hidden rate goes as 1/width.":
            lambda lr, b, w: (lr, lr * (b / w) ** 0.75, b / w),
        "The logits are scaled too: without it they would grow as training goes on, wider faster.":
            lambda lr, b, w: (lr, lr * b / w, 1.0),
        "The factor on the logits is base_width / width, no root.":
            lambda lr, b, w: (lr, lr * b / w, (b / w) ** 0.5),
        "At base_width the factor is 1: it is base_width / width, not 1 / width.":
            lambda lr, b, w: (lr, lr * b / w, 1 / w),
    },
)
def mup_settings(lr, base_width, width):
    """(rate of the embedding, rate of the hidden matrices, factor on the logits) under μP."""
    return lr, lr * base_width / width, base_width / width


@exercise(
    "08.5",
    tests="γ below, at and above 1, equal exponents and unequal ones",
    hints=("With f = N^γ, D = C / N^γ, and the second term is B N^(γβ) / C^β. It grows with N.",
           "Derivatives: α A N^(−α) = γβ B N^(γβ) C^(−β). Gather the powers of N on one side."),
    cases=((0.34, 0.28, 0.85), (0.5, 0.5, 0.6), (0.35, 0.37, 1.0), (0.2, 0.6, 1.3)),
    wrong={
        "That is the case γ = 1, C = 6ND. Here a token's FLOPs grow as N^γ.":
            lambda al, be, ga: be / (al + be),
        "That is the exponent of D*: D* = C / f.": lambda al, be, ga: al / (al + ga * be),
        "γ belongs to β: the second term is B N^(γβ) / C^β.":
            lambda al, be, ga: be / (ga * al + be),
        "That is the exponent of f, the FLOPs per token at the best size. N is f^(1/γ).":
            lambda al, be, ga: ga * be / (al + ga * be),
        "Dividing by γ at the end is not enough: γ also decides where the optimum lies.":
            lambda al, be, ga: be / (al + be) / ga,
        "α and β are swapped: the faster the token term falls, the more the budget goes to N.":
            lambda al, be, ga: al / (be + ga * al),
    },
)
def size_exponent(alpha, beta, gamma):
    """a in N* ∝ C^a for L = E + A/N^alpha + B/D^beta and C = f D, f ∝ N^gamma FLOPs a token."""
    return beta / (alpha + gamma * beta)
