"""Solutions of chapter 00, each with its cases and the mistakes that are known."""

import numpy as np

from helpers.exercises import exercise


@exercise(
    "00.1",
    tests="four losses, from zero to the blind guess over 256 bytes",
    hints=("One bit is 0.693 nats: is the number of bits larger or smaller?",
           "Divide by the natural logarithm of 2."),
    cases=((np.log(2),), (0.0,), (np.log(256),), (1.25,)),
    wrong={
        "A bit is smaller than a nat, so there are more of them: divide.":
            lambda loss: loss * np.log(2),
        "The unit changes, not the value: no logarithm of the loss is taken.":
            lambda loss: np.log2(np.maximum(loss, 1e-9)),
        "log10 converts to decimal digits; bits are powers of 2.":
            lambda loss: loss / np.log(10),
        "exp gives the perplexity; bits are the same loss in another unit.":
            lambda loss: np.exp(loss),
    },
)
def nats_to_bits(loss):
    """A loss in nats, converted to bits: one bit is ln 2 nats."""
    return loss / np.log(2)


@exercise(
    "00.2",
    tests="three trainings, from this course's model to GPT-3's size on a thousand GPUs",
    hints=("How many operations are there in all, and how many are done in a second?",
           "6 N D / (flops_per_second · mfu) seconds; a day has 86,400."),
    cases=((1e6, 2e7, 1e11, 0.3), (1.25e8, 2.5e9, 3.12e14, 0.371),
           (1.75e11, 3e11, 1e3 * 3.12e14, 0.213)),
    wrong={
        "That is in seconds; a day has 86,400.": lambda N, D, f, mfu: 6 * N * D / (f * mfu),
        "The backward pass costs twice the forward pass: 6 per parameter and token, not 2.":
            lambda N, D, f, mfu: 2 * N * D / (f * mfu) / 86400,
        "Reaching less of the peak takes longer: divide by mfu.":
            lambda N, D, f, mfu: 6 * N * D / f * mfu / 86400,
        "The peak is never reached: mfu is missing.": lambda N, D, f, mfu: 6 * N * D / f / 86400,
        "That is in hours; 24 of them make a day.":
            lambda N, D, f, mfu: 6 * N * D / (f * mfu) / 3600,
    },
)
def training_days(N, D, flops_per_second, mfu):
    """Days to train N parameters on D tokens, C = 6 N D."""
    return 6 * N * D / (flops_per_second * mfu) / 86400


@exercise(
    "00.3",
    tests="the three exponents of the figure",
    hints=("Let compute grow by a factor f. What does the reducible loss grow by?",
           "It grows by f^−exponent. Set that to 1/2 and solve for f."),
    cases=((0.05,), (0.1,), (0.2,)),
    wrong={
        "That is what the loss keeps when compute doubles: the question is the other way round.":
            lambda exponent: 2**-exponent,
        "A power law is not a proportion: twice the compute would halve the loss only at "
        "exponent 1. Solve f^−exponent = 1/2 for f.": lambda exponent: 2 / exponent,
        "That is ln 2 over the exponent: the logarithm of the factor. Take its exponential.":
            lambda exponent: np.log(2) / exponent,
        "A halving, not a tenth: 10^(1/exponent) leaves 10 % of the reducible loss.":
            lambda exponent: 10 ** (1 / exponent),
        "The sign: with less compute the loss grows. The factor is above 1.":
            lambda exponent: 0.5 ** (1 / exponent),
    },
)
def compute_to_halve(exponent):
    """By which factor must compute grow until the reducible loss, C^−exponent, is halved?"""
    return 2 ** (1 / exponent)
