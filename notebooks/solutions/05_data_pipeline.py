"""Solutions of chapter 05, each with the mistakes that learners make."""

from itertools import pairwise

import numpy as np

from helpers.exercises import exercise


@exercise(
    "05.1",
    tests="2^(1/β), between 6 and 7.5 for the β in the panel's bracket",
    hints=("distinct words ∝ words^β, with β in the right panel's title. Which factor of words "
           "gives the factor 2 in distinct words?",
           "Set factor^β = 2 and solve for the factor."),
    cases=((),),
    rtol=0.15,
    wrong={
        "Twice the text for twice the words would need the exponent 1. Here β is far below one.":
            lambda: 2.0,
        "That is how much twice the text helps, 2^β. The question runs the other way.":
            lambda: 2**0.363,
        "1/β is the number of doublings of the text: return the factor, 2^(1/β).":
            lambda: 1 / 0.363,
        "That is ten to the power 1/β: it would make the distinct words ten times as many.":
            lambda: 10 ** (1 / 0.363),
        "That is 2/β. The exponent belongs in the exponent: 2^(1/β).":
            lambda: 2 / 0.363,
    },
)
def text_for_twice_the_words():
    """How many times more text doubles the number of distinct words."""
    return 2 ** (1 / 0.363)


@exercise(
    "05.2",
    tests="three models on three tokenisers: nats per token × tokens / bytes / ln 2",
    hints=("First the whole text: how many nats does it cost in all? Then divide by its bytes.",
           "One nat is 1/ln 2 bits: divide by np.log(2), do not multiply."),
    cases=((2.3, 1000, 1000), (5.2, 2100, 10_000), (3.8, 650, 2000)),
    wrong={
        "These are nats per byte still: divide by ln 2.":
            lambda loss, n_tokens, n_bytes: loss * n_tokens / n_bytes,
        "You multiplied by ln 2. A bit is smaller than a nat, so there are more of them.":
            lambda loss, n_tokens, n_bytes: loss * n_tokens / n_bytes * np.log(2),
        "The ratio is upside down: a token holds several bytes, so a byte costs less than a token.":
            lambda loss, n_tokens, n_bytes: loss / np.log(2) * n_bytes / n_tokens,
        "These are bits per token. Another tokeniser would give another number for the same model.":
            lambda loss, n_tokens, n_bytes: loss / np.log(2),
        "log₁₀ is not it: the loss uses natural logarithms, so 1 nat = 1/ln 2 bits.":
            lambda loss, n_tokens, n_bytes: loss * n_tokens / n_bytes / np.log10(2),
        "That is the cost of the whole text in bits. Divide by its bytes.":
            lambda loss, n_tokens, n_bytes: loss * n_tokens / np.log(2),
    },
)
def text_bits_per_byte(loss, n_tokens, n_bytes):
    """Bits per byte of a text of n_bytes bytes, from a mean loss in nats per token."""
    return loss * n_tokens / n_bytes / np.log(2)


def pair_counts(words, counts, weigh=True, across=False):
    """Totals of adjacent pairs; with or without the words' counts, or across the borders too."""
    totals = {}
    if across:
        words = [[i for word, n in zip(words, counts, strict=True) for i in word * n]]
        counts = [1]
    for word, count in zip(words, counts, strict=True):
        for pair in pairwise(word):
            totals[pair] = totals.get(pair, 0) + (count if weigh else 1)
    return totals


def top_pair(totals, tie=min):
    """The most frequent pair, ties broken by `tie`."""
    most = max(totals.values())
    return tie(pair for pair, n in totals.items() if n == most)


def most_frequent_letters(words, counts):
    """The two most frequent tokens, which need not stand side by side."""
    totals = {}
    for word, count in zip(words, counts, strict=True):
        for token in word:
            totals[token] = totals.get(token, 0) + count
    return tuple(sorted(totals, key=lambda t: (-totals[t], t))[:2])


WORDS = ((((97, 98, 99), (97, 98), (98, 99), (99, 100), (120,)), (5, 2, 4, 11, 30)),
         (((3, 1), (2, 5), (1, 2, 9, 1, 2)), (4, 4, 1)),
         (((104, 111, 116), (104, 111, 103), (116, 111), (7, 8, 7, 8, 7, 8)), (3, 1, 6, 1)))


@exercise(
    "05.3",
    tests="three word lists: counts as weights, borders kept, ties to the smallest ids",
    hints=("Count each adjacent pair of each word, as many times as the word occurs.",
           "totals[pair] = totals.get(pair, 0) + count. Then the largest total; among equals, "
           "min() of the pairs compares the left id first."),
    cases=WORDS,
    wrong={
        "Each word was counted once: add the word's count, not 1.":
            lambda words, counts: top_pair(pair_counts(words, counts, weigh=False)),
        "Among equals take the smallest ids, the left one first: not the pair seen first, nor the "
        "largest ids.":
            lambda words, counts: top_pair(pair_counts(words, counts), tie=max),
        "The words were joined: a pair must lie inside one word.":
            lambda words, counts: top_pair(pair_counts(words, counts, across=True)),
        "These are the two most frequent tokens. Count *adjacent pairs* instead.":
            most_frequent_letters,
        "The pair is reversed: left id first.":
            lambda words, counts: top_pair(pair_counts(words, counts))[::-1],
        "That is how often the pair occurs: return the pair itself.":
            lambda words, counts: max(pair_counts(words, counts).values()),
    },
)
def next_merge(words, counts):
    """The pair of ids, (left, right), that byte-pair encoding merges next."""
    totals = {}
    for word, count in zip(words, counts, strict=True):
        for pair in pairwise(word):
            totals[pair] = totals.get(pair, 0) + count
    most = max(totals.values())
    return min(pair for pair, n in totals.items() if n == most)


@exercise(
    "05.4",
    tests="three pairs (similarity, rows, wanted chance): the least whole number of bands",
    hints=("One band agrees with probability s^r, so all b bands miss with (1 − s^r)^b.",
           "Solve (1 − s^r)^b ≤ 1 − chance for b with logarithms, and round up."),
    cases=((0.3, 2, 0.6), (0.5, 4, 0.95), (0.8, 5, 0.99)),
    wrong={
        "Rounded down: with that many bands the chance is still a little too small. Round up.":
            lambda similarity, rows, chance: np.floor(
                np.log(1 - chance) / np.log(1 - similarity**rows)),
        "That is the exact solution; bands are whole. Round up.":
            lambda similarity, rows, chance: np.log(1 - chance) / np.log(1 - similarity**rows),
        "The rows are missing: a band agrees only if all its rows do, with probability s^r.":
            lambda similarity, rows, chance: np.ceil(
                np.log(1 - chance) / np.log(1 - similarity)),
        "You made all bands *hit*. One is enough: all must miss with probability 1 − chance.":
            lambda similarity, rows, chance: np.ceil(
                np.log(chance) / np.log(similarity**rows)),
        "(1 − s^r)^b is the chance that all bands *miss*: set it to 1 − chance, not to chance.":
            lambda similarity, rows, chance: np.ceil(
                np.log(chance) / np.log(1 - similarity**rows)),
        "1/s^r bands give one agreeing band on average, but the chance of none is then about 1/e.":
            lambda similarity, rows, chance: np.ceil(1 / similarity**rows),
        "chance/s^r adds the bands' chances up. They overlap, so their union is smaller.":
            lambda similarity, rows, chance: np.ceil(chance / similarity**rows),
    },
)
def bands_needed(similarity, rows, chance):
    """Least number of bands that finds a pair of this similarity with at least this chance."""
    return int(np.ceil(np.log(1 - chance) / np.log(1 - similarity**rows)))


@exercise(
    "05.5",
    tests="4·n·d floating-point operations, for three shapes",
    hints=("Write the gradient as two products: X θ, then Xᵀ times the residuals.",
           "Each of the n·d entries of X is multiplied once and added once in each product."),
    cases=((10, 4), (1000, 10), (32, 4096)),
    wrong={
        "That is the prediction Xθ alone. The gradient Xᵀr costs as much again.":
            lambda n, d: 2 * n * d,
        "Each entry of X takes part in a multiplication *and* an addition: 2 FLOPs, not 1.":
            lambda n, d: 2 * n * d / 2,
        "6 per entry is a network's price, with a pass back through each layer's input as well. "
        "A linear model needs no gradient of its input.":
            lambda n, d: 6 * n * d,
        "n·d² is the price of forming XᵀX. A gradient step never forms it.":
            lambda n, d: 2 * n * d**2,
        "That is the update of the parameters alone: two FLOPs for each of d.":
            lambda n, d: 2 * d,
    },
)
def step_flops(n, d):
    """FLOPs of one full-batch gradient step of linear regression; terms without n·d left out."""
    return 4 * n * d


def letter(choice):
    """A function of no arguments that answers with `choice`."""
    return lambda: choice


@exercise(
    "05.6",
    tests="(c): the steepest direction sets the rate, the flattest the time; scaling helps",
    hints=("Chapter 02: which number limits the rate, which sets the waiting time?",
           "The bound is 2/h_max, the wait κ = h_max/h_min steps. What does scaling do?"),
    cases=((),),
    wrong={
        "(a) The lowest loss of least squares is the same in any unit; only the way there changes.":
            letter("a"),
        "(b) Scaling changes nothing about the noise in the labels, or about what can be learnt.":
            letter("b"),
        "(d) Overflow comes from a rate above 2/h_max. A small enough rate works on raw features.":
            letter("d"),
        "(e) Min–max and standardising are straight-line maps: a skewed feature stays skewed.":
            letter("e"),
    },
)
def why_scale():
    """Why features are scaled before gradient descent."""
    return "c"


@exercise(
    "05.7",
    tests="three lists of probabilities: the sum of −log₂ p",
    hints=("A sign that the model gave the probability p costs −log₂ p bits in the best code.",
           "Cross-entropy is the mean cost of a sign; the question asks for the whole text."),
    cases=((np.array([0.5, 0.25, 0.125]),), (np.array([1.0, 0.9, 0.01, 0.3]),),
           (np.full(10, 1 / 256),)),
    wrong={
        "These are nats: use log₂, or divide by ln 2.": lambda p: -np.log(p).sum(),
        "That is the mean per sign, the cross-entropy itself. The whole text is n times that.":
            lambda p: -np.log2(p).mean(),
        "The sign is missing: log₂ of a probability is negative, a length is not.":
            lambda p: np.log2(p).sum(),
        "That is −Σ p log₂ p, the entropy's formula. What happened counts once, with weight 1.":
            lambda p: -(p * np.log2(p)).sum(),
        "You averaged the probabilities first. Costs add up, so take the logarithms first.":
            lambda p: -len(p) * np.log2(p.mean()),
    },
)
def ideal_bits(p):
    """Bits that the best code needs for a text whose signs the model gave probabilities p."""
    return -np.log2(p).sum()


@exercise(
    "05.8",
    tests="(b): whatever has seen the held-out rows can no longer be judged by them",
    hints=("Which habits of section 5 were harmless, which not? What did each have access to?",
           "The held-out score stands for data that nobody has seen. When is that no longer so?"),
    cases=((),),
    wrong={
        "(a) Speed is no reason: the statistics of the whole set cost about the same.":
            letter("a"),
        "(c) Section 5 measured it: min–max alone moved the score by less than a point. The "
        "reason is what a step *could* use.":
            letter("c"),
        "(d) A split does not remove duplicates; they must be found, and kept on one side.":
            letter("d"),
        "(e) A model gets no better by it: it trains on fewer rows. Only the score gets honest.":
            letter("e"),
    },
)
def why_split_first():
    """Why the split comes before every step that is fitted."""
    return "b"


@exercise(
    "05.9",
    tests="three pairs of points: slope on log–log axes, and the value predicted at a third x",
    hints=("On log–log axes y = c·x^g is a straight line. Its slope g is a ratio of two "
           "differences of logarithms.",
           "Then go on from the second point: y₂ · (x₃/x₂)^g."),
    cases=((1.0, 8.0, 10.0, 4.0, 100.0), (10.0, 3.0, 1000.0, 0.3, 1e5), (2.0, 5.0, 8.0, 20.0, 4.0)),
    wrong={
        "That is the straight line on ordinary axes. A power law is straight on log–log axes.":
            lambda x1, y1, x2, y2, x3: ((y2 - y1) / (x2 - x1),
                                        y2 + (y2 - y1) / (x2 - x1) * (x3 - x2)),
        "Only y is on a log axis here: that is an exponential, not a power law.":
            lambda x1, y1, x2, y2, x3: (np.log(y2 / y1) / (x2 - x1),
                                        y2 * (y2 / y1) ** ((x3 - x2) / (x2 - x1))),
        "The slope is upside down: log y over log x.":
            lambda x1, y1, x2, y2, x3: (np.log(x2 / x1) / np.log(y2 / y1),
                                        y2 * (x3 / x2) ** (np.log(x2 / x1) / np.log(y2 / y1))),
        "The sign of the slope is flipped: a falling law has a negative slope.":
            lambda x1, y1, x2, y2, x3: (-np.log(y2 / y1) / np.log(x2 / x1),
                                        y2 * (x3 / x2) ** (-np.log(y2 / y1) / np.log(x2 / x1))),
        "The slope is right; you then went on from the first point's value over the second's x.":
            lambda x1, y1, x2, y2, x3: (np.log(y2 / y1) / np.log(x2 / x1),
                                        y1 * (x3 / x2) ** (np.log(y2 / y1) / np.log(x2 / x1))),
    },
)
def power_law(x1, y1, x2, y2, x3):
    """(slope on log–log axes, y at x3) of the power law through (x1, y1) and (x2, y2)."""
    slope = np.log(y2 / y1) / np.log(x2 / x1)
    return slope, y2 * (x3 / x2) ** slope
