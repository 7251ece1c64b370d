"""Solutions of chapter 09, each with its cases and the mistakes that are known."""

import numpy as np

from helpers.exercises import exercise


@exercise(
    "09.1",
    tests="the half-width at which two errors cancel, within what can be read off the panel",
    hints=("Find the curve of the centre 3 × N*. Where does it cross the dashed line?",
           "The axis is logarithmic: the crossing lies between the marks of 10 and 20, nearer to "
           "20 than to 10."),
    cases=((),),
    rtol=0.15,
    wrong={
        "That is the centre of the grid, 3 × N*. The question is about its half-width.":
            lambda: 3.0,
        "That is the fitted N* divided by the true one where it is right. Read the other axis.":
            lambda: 1.0,
        "At width 2 the curve is at its farthest from the truth, not on it.": lambda: 2.0,
        "At 8 the fitted N* is still too large. Go on to the right, to the dashed line.":
            lambda: 8.0,
        "That is the crossing of the other curve: a third of N*, not three times N*.":
            lambda: 3.7,
    },
)
def width_that_hides_it():
    """The half-width at which a grid centred at 3 × N* gives the right N*."""
    return 15.5


def _tokens(C, A, B, al, be, G, a):
    N = G * (C / 6) ** a
    return C / 6 / N**2


@exercise(
    "09.2",
    tests="four budgets and laws, Hoffmann's printed and the replication's among them",
    hints=("First N*: the formula with G stands in section 3. Then D* = C / 6N*.",
           "N = (alpha·A / (beta·B))**(1/(alpha+beta)) · (C/6)**(beta/(alpha+beta)); the answer is "
           "C/6/N, divided by N once more."),
    cases=((5.76e23, 406.4, 410.7, 0.34, 0.28), (5.76e23, 482.01, 2085.43, 0.3478, 0.3658),
           (1e12, 50.0, 5000.0, 0.4, 0.65), (6e10, 3.0, 7.0, 0.5, 0.5)),
    wrong={
        "Upside down: that is parameters per token.":
            lambda *law: 1 / tokens_per_parameter(*law),
        "C = 6ND: the budget enters as C/6.":
            lambda C, A, B, al, be: tokens_per_parameter(6 * C, A, B, al, be),
        "The exponents are swapped: N* grows with β/(α+β), whatever falls faster needs less.":
            lambda C, A, B, al, be: _tokens(C, A, B, al, be, (al * A / be / B) ** (1 / (al + be)),
                                            al / (al + be)),
        "G is upside down: a larger A asks for a larger model.":
            lambda C, A, B, al, be: _tokens(C, A, B, al, be, (be * B / al / A) ** (1 / (al + be)),
                                            be / (al + be)),
        "The terms need not be equal at the optimum, only their slopes: α and β belong into G.":
            lambda C, A, B, al, be: _tokens(C, A, B, al, be, (A / B) ** (1 / (al + be)),
                                            be / (al + be)),
        "That is D*. Divide by N*.":
            lambda C, A, B, al, be: (tokens_per_parameter(C, A, B, al, be) * C / 6) ** 0.5,
        "That is N*. From it comes D* = C / 6N*, and from both the ratio.":
            lambda C, A, B, al, be: (C / 6 / tokens_per_parameter(C, A, B, al, be)) ** 0.5,
        "20 is one law at one budget. These laws differ.": lambda *law: 20.0,
    },
)
def tokens_per_parameter(C, A, B, alpha, beta):
    """D*/N* at C = 6ND training FLOPs, for the law with these constants."""
    G = (alpha * A / (beta * B)) ** (1 / (alpha + beta))
    N = G * (C / 6) ** (beta / (alpha + beta))
    return C / 6 / N / N


def _laws(seed, n, spread):
    return np.exp(np.random.default_rng(seed).normal(0.1 * seed, spread, n))


def _around(centre, sd, width=1.96):
    return np.exp(centre - width * sd), np.exp(centre + width * sd)


@exercise(
    "09.3",
    tests="three sets of laws, one of which agree so well that only the noise counts",
    hints=("Work with np.log(predicted): its mean is the centre, its variance is one of two parts.",
           "sd = sqrt(variance of the logs + noise²); then exp(centre ∓ 1.96 sd)."),
    cases=((_laws(1, 6, 0.3), 0.2), (_laws(0, 40, 0.1), 0.3), (_laws(2, 9, 1e-3), 0.4)),
    wrong={
        "The noise is missing: this is where the laws differ, not where one run may end.":
            lambda p, s: _around(np.log(p).mean(), np.log(p).std()),
        "The laws' own spread is missing: this is what seeds do if the law is known exactly.":
            lambda p, s: _around(np.log(p).mean(), s),
        "Variances add, standard deviations do not: take the root of the sum of squares.":
            lambda p, s: _around(np.log(p).mean(), np.log(p).std() + s),
        "noise is a standard deviation of *log* loss: take logarithms first, exp at the end.":
            lambda p, s: (p.mean() - 1.96 * np.hypot(p.std(), s),
                          p.mean() + 1.96 * np.hypot(p.std(), s)),
        "One standard deviation holds 68 %. For 95 % it takes 1.96 of them.":
            lambda p, s: _around(np.log(p).mean(), np.hypot(np.log(p).std(), s), 1),
        "Divided by n − 1; the text asks for the mean squared deviation, n.":
            lambda p, s: _around(np.log(p).mean(), np.hypot(np.log(p).std(ddof=1), s)),
        "That is the standard error of the mean. More drawings do not make a new run more certain.":
            lambda p, s: _around(np.log(p).mean(), np.hypot(np.log(p).std() / len(p) ** 0.5, s)),
        "The interval is still one of logarithms: take exp of both ends.":
            lambda p, s: tuple(np.log(prediction_interval(p, s))),
    },
)
def prediction_interval(predicted, noise):
    """The middle 95 % (low, high) of a new run's loss, without drawing any noise."""
    logs = np.log(predicted)
    sd = np.sqrt(logs.var() + noise**2)
    return np.exp(logs.mean() - 1.96 * sd), np.exp(logs.mean() + 1.96 * sd)


@exercise(
    "09.4",
    tests="three pairs of exponents, Kaplan's published one among them",
    hints=("The outer power α_D moves no optimum. Minimise (N_c/N)^r + 6 N D_c / C, r = α_N/α_D.",
           "The derivative is zero where N^(r+1) ∝ C. Put r = α_N/α_D into 1/(r+1)."),
    cases=((0.076, 0.103), (0.34, 0.28), (0.1, 0.5)),
    wrong={
        "That is the exponent of D*. The two add up to 1.":
            lambda alpha_N, alpha_D: alpha_N / (alpha_N + alpha_D),
        "That is r = α_N/α_D, the power of N inside the bracket; the answer is 1/(r + 1).":
            lambda alpha_N, alpha_D: alpha_N / alpha_D,
        "That is how the loss falls with C at the optimum, not how N grows.":
            lambda alpha_N, alpha_D: alpha_N * alpha_D / (alpha_N + alpha_D),
        "Inside the bracket D stands with the power 1, not α_D.":
            lambda alpha_N, alpha_D: alpha_D / (alpha_N / alpha_D + alpha_D),
        "Half and half holds only if α_N = α_D.": lambda alpha_N, alpha_D: 0.5,
        "That is what Kaplan et al. printed. It does not follow from this form.":
            lambda alpha_N, alpha_D: 0.73,
    },
)
def kaplan_exponent(alpha_N, alpha_D):
    """a in N* ∝ C^a for Kaplan's form, at C = 6ND."""
    return alpha_D / (alpha_N + alpha_D)


@exercise(
    "09.5",
    tests="too small and too large models under three laws; at factor 1 the price is 1",
    hints=("At the optimum αA/N^α = βB/D^β. So the share of A/N^α in the reducible loss is "
           "β/(α+β). What is the other's?",
           "factor · N* multiplies A/N^α by factor^−α; D*/factor multiplies B/D^β by factor^β. Add "
           "the two shares, each with its multiplier."),
    cases=((2.0, 0.34, 0.28), (0.25, 0.34, 0.28), (1.0, 0.4, 0.65), (10.0, 0.4, 0.65),
           (0.1, 0.7, 0.2)),
    wrong={
        "The shares are swapped: the term with the larger exponent has the smaller share.":
            lambda f, al, be: (al * f**-al + be * f**be) / (al + be),
        "The shares are equal only if α = β.": lambda f, al, be: (f**-al + f**be) / 2,
        "At the same compute a larger model sees fewer tokens: the second term changes too.":
            lambda f, al, be: (be * f**-al + al) / (al + be),
        "More parameters leave fewer tokens, D*/factor, so the second term grows with factor.":
            lambda f, al, be: (be * f**-al + al * f**-be) / (al + be),
        "A larger model lowers the first term: its power is −α.":
            lambda f, al, be: (be * f**al + al * f**-be) / (al + be),
        "That is the increase. The question is the factor: add 1.":
            lambda f, al, be: (be * f**-al + al * f**be) / (al + be) - 1,
        "That is the parabola of section 2. It is right near the optimum only.":
            lambda f, al, be: 1 + al * be * np.log(f) ** 2 / 2,
    },
)
def price_of_a_wrong_size(factor, alpha, beta):
    """By which factor the reducible loss L − E is larger than at the optimum."""
    return (beta * factor**-alpha + alpha * factor**beta) / (alpha + beta)
