"""Solutions of chapter 03, each with the mistakes that learners make."""

import numpy as np

from helpers.exercises import IN_PLACE, exercise


@exercise(
    "03.1",
    tests="p = 1/8 costs 3 bits, within what can be read off the panel",
    hints=("Go to 3 on the vertical axis, right to the falling curve (y = 1), then down.",
           "One bit for each halving of p. How often must 1 be halved?"),
    cases=((),),
    rtol=0.21,  # 0.1 and 0.15 are fair readings
    wrong={
        "That is the other curve, y = 0: it pays −log₂(1 − p). Here y was 1.": lambda: 7 / 8,
        "That is e^−3, a price of 3 nats. A bit is a factor 2, not e.": lambda: np.exp(-3),
        "Halving p costs a bit; a third of p costs log₂ 3 ≈ 1.6. The price is not 1/p.":
            lambda: 1 / 3,
        "p = 0.5 costs one bit. Three bits are three halvings.": lambda: 0.5,
        "At p = 0 the price would be infinite: the curve never touches the axis.":
            lambda: 0.0,
        "That is in per cent. A probability lies between 0 and 1.": lambda: 12.5,
        "That is a price of 3 digits: each digit is a factor of ten. A bit is a factor 2.":
            lambda: 1e-3,
    },
)
def probability_for_three_bits():
    """The p, between 0 and 1, that costs 3 bits if y = 1."""
    return 2.0**-3


def precision_recall(tp, fp, fn):
    """Precision and recall from counts."""
    return tp / (tp + fp), tp / (tp + fn)


def f_weighted(tp, fp, fn, weight):
    """Harmonic mean with weight 1 for 1/precision and `weight` for 1/recall."""
    precision, recall = precision_recall(tp, fp, fn)
    return (1 + weight) / (1 / precision + weight / recall)


@exercise(
    "03.2",
    tests="four sets of counts with β = 2, ½, 1 and 3",
    hints=("First precision = TP/(TP + FP) and recall = TP/(TP + FN), then the formula above.",
           "Or in one line of counts: (1 + β²) TP over (1 + β²) TP + β² FN + FP."),
    cases=((40, 10, 30, 2.0), (40, 10, 30, 0.5), (5, 20, 1, 1.0), (90, 3, 60, 3.0)),
    wrong={
        "β enters squared: the weight of 1/recall is β².":
            lambda tp, fp, fn, beta: f_weighted(tp, fp, fn, beta),
        "Precision and recall are swapped: β² belongs to recall, whose denominator holds the FN.":
            lambda tp, fp, fn, beta: f_weighted(tp, fn, fp, beta**2),
        "The denominator lacks its β²: it is β² · precision + recall.":
            lambda tp, fp, fn, beta: (1 + beta**2) / 2 * f_weighted(tp, fp, fn, 1.0),
        "That is F1: β is not used.": lambda tp, fp, fn, beta: f_weighted(tp, fp, fn, 1.0),
        "That is a weighted arithmetic mean. The harmonic one averages 1/precision and 1/recall.":
            lambda tp, fp, fn, beta: np.dot((1, beta**2), precision_recall(tp, fp, fn))
            / (1 + beta**2),
        "The weights must add up to one: the numerator is 1 + β², not 2.":
            lambda tp, fp, fn, beta: 2 * f_weighted(tp, fp, fn, beta**2) / (1 + beta**2),
        "That is the recall alone. F_beta weighs it against the precision.":
            lambda tp, fp, fn, beta: precision_recall(tp, fp, fn)[1],
    },
)
def f_beta(tp, fp, fn, beta):
    """F_beta from the counts of true positives, false positives and false negatives."""
    precision, recall = tp / (tp + fp), tp / (tp + fn)
    return (1 + beta**2) / (1 / precision + beta**2 / recall)


@exercise(
    "03.3",
    tests="four pairs of costs, with either mistake the dearer one",
    hints=("An alarm is wrong with probability 1 − p, and then costs cost_fp. What does no alarm "
           "cost on average?",
           "Set (1 − p) · cost_fp = p · cost_fn and solve for p."),
    cases=((5.0, 1.0), (1.0, 10.0), (1.0, 1.0), (0.2, 30.0)),
    wrong={
        "The costs are swapped: the dearer a miss, the *lower* the threshold.":
            lambda cost_fp, cost_fn: cost_fn / (cost_fp + cost_fn),
        "These are the odds p/(1 − p) at which to switch. Turn them into a probability.":
            lambda cost_fp, cost_fn: cost_fp / cost_fn,
        "A threshold of 0.5 is right only if both mistakes cost the same.":
            lambda cost_fp, cost_fn: 0.5,
        "That is the logit of the threshold. Send it through the sigmoid.":
            lambda cost_fp, cost_fn: np.log(cost_fp / cost_fn),
        "Both sides need their probability: an alarm costs (1 − p) · cost_fp, not cost_fp.":
            lambda cost_fp, cost_fn: min(1.0, cost_fp / cost_fn),
        "The odds are upside down, and odds are not yet a probability.":
            lambda cost_fp, cost_fn: cost_fn / cost_fp,
    },
)
def best_threshold(cost_fp, cost_fn):
    """The probability of class 1 from which on "predict 1" is the cheaper decision."""
    return cost_fp / (cost_fp + cost_fn)


def size(share, half_width, c=1.96):
    """n of Wald's half-width, not rounded."""
    return c**2 * share * (1 - share) / half_width**2


@exercise(
    "03.4",
    tests="four pairs of share and half-width: 1068 examples for ± 3 points at 50 %",
    hints=("Set c √(share (1 − share)/n) equal to half_width and solve for n.",
           "n ≥ (c/half_width)² · share · (1 − share). Round up: a smaller n is too wide."),
    cases=((0.9, 0.02), (0.5, 0.03), (0.97, 0.01), (0.8, 0.1)),
    rtol=1e-9,
    wrong={
        "The standard error falls with √n: both c and half_width enter squared.":
            lambda share, half_width: int(np.ceil(1.96 * share * (1 - share) / half_width)),
        "That is one standard error. 95 % needs c = 1.96 of them.":
            lambda share, half_width: int(np.ceil(size(share, half_width, 1) - 1e-9)),
        "Four times too many: half_width is already half of the interval's width.":
            lambda share, half_width: int(np.ceil(size(share, half_width / 2) - 1e-9)),
        "Four times too few: `half_width` reaches from the middle to one end, not from end to end.":
            lambda share, half_width: int(np.ceil(size(share, 2 * half_width) - 1e-9)),
        "That takes share = 0.5, the worst case, whatever the share is.":
            lambda share, half_width: int(np.ceil(size(0.5, half_width) - 1e-9)),
        "Rounded down: that n is one too few, its interval is wider than allowed.":
            lambda share, half_width: int(np.floor(size(share, half_width) + 1e-9)),
        "Not yet a whole number: round it up.": lambda share, half_width: size(share, half_width),
        "That is c = 2, a rule of thumb. Here c = 1.96 is asked for.":
            lambda share, half_width: int(np.ceil(size(share, half_width, 2) - 1e-9)),
        "√(share · (1 − share)) enters squared too: no root is left.":
            lambda share, half_width: int(np.ceil(1.96**2 * (share * (1 - share)) ** 0.5
                                                  / half_width**2)),
        "The variance of a share is share · (1 − share), not share alone.":
            lambda share, half_width: int(np.ceil(1.96**2 * share / half_width**2 - 1e-9)),
    },
)
def examples_needed(share, half_width):
    """Fewest test examples for which Wald's 95 % interval is share ± half_width, or narrower."""
    n = (1.96 / half_width) ** 2 * share * (1 - share)
    return int(np.ceil(n))


def softmax(Z, axis=1):
    """Probabilities along an axis."""
    e = np.exp(Z - Z.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def one_hot(Z, y):
    """Rows of zeros with a one at the label."""
    return np.eye(Z.shape[1])[y]


def logits(seed, n, m, scale):
    """Logits (n, m) and labels (n,), drawn from `seed`."""
    rng = np.random.default_rng(seed)
    return scale * rng.normal(size=(n, m)), rng.integers(m, size=n)


def softmax_only(Z, y):
    return softmax(Z)


def overflowing(Z, y):
    with np.errstate(over="ignore", invalid="ignore"):
        e = np.exp(Z)
        return (e / e.sum(axis=1, keepdims=True) - one_hot(Z, y)) / len(y)


def in_place(Z, y):
    Z -= Z.max(axis=1, keepdims=True)
    return (softmax(Z) - one_hot(Z, y)) / len(y)


@exercise(
    "03.5",
    tests="three sets of logits, one with logits around 1000; Z itself is left unchanged",
    hints=("For one example: L = ln Σ_l e^(Z_l) − Z_y. Differentiate both terms in one logit Z_j.",
           "(softmax − one-hot of y) / n, with the softmax along each row. "
           "np.eye(m)[y] is the one-hot matrix."),
    cases=(logits(1, 5, 3, 1.0), logits(2, 8, 4, 2.0), logits(3, 6, 5, 1000.0)),
    wrong={
        "The mean over the n examples is missing: divide by n.":
            lambda Z, y: softmax(Z) - one_hot(Z, y),
        "The sign is flipped: the true class's logit must have a negative gradient.":
            lambda Z, y: (one_hot(Z, y) - softmax(Z)) / len(y),
        "You divided by all n · m numbers; the mean is over the n examples.":
            lambda Z, y: (softmax(Z) - one_hot(Z, y)) / Z.size,
        "The softmax runs down the columns. Each example is a row: its probabilities sum to 1.":
            lambda Z, y: (softmax(Z, axis=0) - one_hot(Z, y)) / len(y),
        "The label is missing: subtract 1 at the true class.": lambda Z, y: softmax(Z) / len(y),
        "Only the true class got a gradient. A higher wrong logit raises the price too.":
            lambda Z, y: (softmax(Z) - 1) * one_hot(Z, y) / len(y),
        "That subtracts the class's number. Subtract 1 in the column of the class instead.":
            lambda Z, y: (softmax(Z) - y[:, None]) / len(y),
        "The label is missing, and so is the mean: subtract 1 at the true class, divide by n.":
            softmax_only,
        "That is one sigmoid per class. The classes exclude each other: use the softmax.":
            lambda Z, y: (np.exp(-np.logaddexp(0, -Z)) - one_hot(Z, y)) / len(y),
        "Overflow: e^1000 is not a number. Subtract each row's maximum first.": overflowing,
        IN_PLACE: in_place,
    },
)
def softmax_gradient(Z, y):
    """Gradient (n, m) of the mean cross-entropy in the logits Z (n, m); y (n,) holds 0 … m − 1."""
    e = np.exp(Z - Z.max(axis=1, keepdims=True))  # (n, m), no overflow
    p = e / e.sum(axis=1, keepdims=True)
    p[np.arange(len(y)), y] -= 1
    return p / len(y)
