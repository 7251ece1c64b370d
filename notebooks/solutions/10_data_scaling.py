"""Solutions of chapter 10, each with the mistakes that learners make."""

import numpy as np

from helpers.corpora import effective_tokens, grammar
from helpers.exercises import exercise


def scores(seed, n=40, rate=0.3):
    """Surprise of n passages, higher for noise; which of them are noise; a share to keep."""
    rng = np.random.default_rng(seed)
    is_noise = rng.random(n) < rate
    return rng.normal(2.4 + 0.4 * is_noise, 0.3), is_noise, (0.25, 0.5, 0.4)[seed]


def kept(score, keep, sign=1):
    """The places of the passages with the least (or, sign −1, the most) surprise."""
    return np.argsort(sign * score, kind="stable")[:round(keep * len(score))]


def chain(seed, n):
    """A first-order chain, p(next | last) of shape (n, n)."""
    return grammar(seed, n)[0]


def rate_in_nats(p, weights=None):
    """Entropy rate with the right shares of the time, or with other weights."""
    values, vectors = np.linalg.eig(p.T)
    steady = vectors[:, values.real.argmax()].real
    weights = steady / steady.sum() if weights is None else weights
    return float(weights @ -(p * np.log(p)).sum(axis=1))


def three_losses(E, B, beta, D):
    """Losses at D, 2D and 4D under E + B/D^β."""
    return tuple(E + B / (k * D) ** beta for k in (1, 2, 4))


@exercise(
    "10.1",
    tests="16.388 GB: the first pass, and repeats that add up to R* passes",
    hints=("Let R grow in D' = U + U R* (1 − e^(−R/R*)). What becomes of the exponential?",
           "It goes to 0, and D' to U + U R*. Put in U = 1 GB."),
    cases=((),),
    rtol=1e-3,
    wrong={
        "That is what the repeats add. The first pass counts too: 1 + R*.":
            lambda: 15.388,
        "That is 16 epochs (10.6 passes). Let R grow without end.":
            lambda: effective_tokens(1.0, 16.0, 15.388),
        "Repeats are worth something: with U = 1 only, R* would be 0.":
            lambda: 1.0,
        "The first pass is not multiplied by R*: the two terms U and U R* are added.":
            lambda: 15.388 * 15.388,
        "1 − 1/e of the limit is reached at R = R*. Let R grow further.":
            lambda: effective_tokens(1.0, 16.388, 15.388),
    },
)
def most_from_a_gigabyte():
    """The most fresh text, in GB, that 1 GB is worth, however often it is read."""
    return 1.0 * (1 + 15.388)


@exercise(
    "10.2",
    tests="after 1, 4 and 16 epochs: U R* (e^(−(e−1)/R*) − e^(−e/R*)) for e epochs",
    hints=("After e epochs D = e·U. Use `effective_tokens` at e and at e + 1.",
           "effective_tokens(unique, (epochs + 1) * unique, R_star) minus the same at epochs."),
    cases=((1000.0, 1, 15.388), (2e5, 4, 5.0), (100.0, 16, 15.388)),
    wrong={
        "This is all that the text is worth after one more epoch. Subtract what it was before.":
            lambda unique, epochs, R_star:
                effective_tokens(unique, (epochs + 1) * unique, R_star),
        "One too far: e epochs are R = e − 1 repeats.":
            lambda unique, epochs, R_star: unique * R_star * (
                np.exp(-epochs / R_star) - np.exp(-(epochs + 1) / R_star)),
        "This is the last epoch that has been read, not the next one.":
            lambda unique, epochs, R_star: unique * R_star * (
                np.exp(-(epochs - 2) / R_star) - np.exp(-(epochs - 1) / R_star)),
        "That is the slope at the epoch's beginning. It falls while you read: take the difference.":
            lambda unique, epochs, R_star: unique * np.exp(-(epochs - 1) / R_star),
        "In passes, not in tokens: multiply by U.":
            lambda unique, epochs, R_star: R_star * (
                np.exp(-(epochs - 1) / R_star) - np.exp(-epochs / R_star)),
    },
)
def next_epoch(unique, epochs, R_star):
    """Fresh tokens that one more epoch adds after `epochs` ≥ 1 of them."""
    before, after = (effective_tokens(unique, e * unique, R_star) for e in (epochs, epochs + 1))
    return after - before


@exercise(
    "10.3",
    tests="three pools of 40 passages whose scores overlap, with 25, 50 and 40 % kept",
    hints=("np.argsort(score) lists the passages from the least surprise to the most.",
           "Take the first round(keep * n) of them; the mean of is_noise there is the share."),
    cases=tuple(scores(seed) for seed in range(3)),
    wrong={
        "The wrong end: the filter keeps the passages with the *least* surprise.":
            lambda score, is_noise, keep: is_noise[kept(score, keep, -1)].mean(),
        "That is the share of all noise that got through. Divide by the number kept.":
            lambda score, is_noise, keep: is_noise[kept(score, keep)].sum() / is_noise.sum(),
        "That is the share of good text among what is kept: one minus what was asked for.":
            lambda score, is_noise, keep: 1 - is_noise[kept(score, keep)].mean(),
        "Divide by the number of passages that are kept, not by all of them.":
            lambda score, is_noise, keep: is_noise[kept(score, keep)].sum() / len(score),
        "That is the noise of the whole pool: nothing was filtered.":
            lambda score, is_noise, keep: is_noise.mean(),
    },
)
def noise_kept(score, is_noise, keep):
    """Share of noise among the `keep` share of passages with the least surprise."""
    n_kept = round(keep * len(score))
    return is_noise[np.argsort(score)[:n_kept]].mean()


@exercise(
    "10.4",
    tests="three random chains of 3, 5 and 8 symbols, in bits",
    hints=("One row of p is a distribution; its entropy in bits is −Σ p log₂ p. The rate is a mean "
           "of these: how much of the time is the chain in each row?",
           "The shares π of the time satisfy π = π p. Start with any, multiply by p until nothing "
           "changes; then π @ (entropy of each row)."),
    cases=((chain(0, 3),), (chain(1, 5),), (chain(2, 8),)),
    wrong={
        "Those are nats: divide by log 2 for bits.":
            rate_in_nats,
        "Each row counts the same here. Weight it by the share of the time the chain is in it.":
            lambda p: rate_in_nats(p, np.full(len(p), 1 / len(p))) / np.log(2),
        "The rows are added up, without weights: take their mean over the time, π.":
            lambda p: rate_in_nats(p, np.ones(len(p))) / np.log(2),
        "That is the entropy of single symbols. Who knows the last symbol is less surprised.":
            lambda p: -sum(np.linalg.matrix_power(p, 500)[0]
                           * np.log2(np.linalg.matrix_power(p, 500)[0])),
        "p has rows for the last symbol: this weights them by one step from an even start. Go on "
        "until the shares do not change.":
            lambda p: rate_in_nats(p, p.mean(axis=0)) / np.log(2),
    },
)
def entropy_of_chain(p):
    """Entropy rate in bits per symbol of p(next | last), shape (n, n)."""
    time_share = np.full(len(p), 1 / len(p))
    for _ in range(1000):
        time_share = time_share @ p
    return float(time_share @ -(p * np.log2(p)).sum(axis=1))


@exercise(
    "10.5",
    tests="three laws with known E: the floor comes back exactly",
    hints=("Write x = first − E, and so on. Doubling D multiplies each x by the same factor, 2^−β: "
           "so (second − E)² = (first − E)(third − E).",
           "Multiply out: E² drops out, and what is left is linear in E."),
    cases=tuple(three_losses(*law) for law in ((1.7, 400.0, 0.28, 1e9), (2.69, 3e5, 1.0, 2**18),
                                              (0.0, 5.0, 0.5, 100.0))),
    rtol=1e-3,
    atol=1e-6,
    wrong={
        "The last loss is not the floor: more data would still lower it.":
            lambda first, second, third: third,
        "That goes on by the last step once more: right only for β = 1.":
            lambda first, second, third: 2 * third - second,
        "The geometric mean's rule holds for losses *above the floor*: subtract E from all three.":
            lambda first, second, third: third**2 / second,
        "A sign is turned: the denominator is first + third − 2 second.":
            lambda first, second, third: (second**2 - first * third) / (
                first + third - 2 * second),
        "Only the next step was taken off. There are endlessly many, each smaller by the same "
        "factor: add up the series.":
            lambda first, second, third: third - (second - third) ** 2 / (first - second),
    },
)
def floor_from_doublings(first, second, third):
    """E from the losses at D, 2D and 4D, if L = E + B/D^β exactly."""
    return (first * third - second**2) / (first + third - 2 * second)
