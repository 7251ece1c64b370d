"""Solutions of chapter 08, each with its cases and the mistakes that are known."""

from helpers.exercises import exercise


@exercise(
    "08.1",
    tests="four exponents, Kaplan's and Hoffmann's among them",
    hints=("Write the term for N and for 2N, and divide.", "A and N cancel: 2 to which power?"),
    cases=((0.5,), (0.34,), (0.076,), (1.0,)),
    wrong={
        "It shrinks: the exponent is negative.": lambda alpha: 2**alpha,
        "The factor is a power of 2: (2N)^−α / N^−α.": lambda alpha: alpha / 2,
        "The exponent is not the factor.": lambda alpha: 1 - alpha,
        "Doubling multiplies N by 2, not by e.": lambda alpha: 2.718281828459045**-alpha,
        "That is how much is lost; the factor is what remains.": lambda alpha: 1 - 2**-alpha,
        "alpha is an exponent of N, not a divisor.": lambda alpha: 1 / (2 * alpha),
    },
)
def factor_per_doubling(alpha):
    """Factor by which the term A / N^alpha shrinks when N doubles."""
    return 2**-alpha


@exercise(
    "08.2",
    tests="four lists of token counts, unsorted ones too, with short and long cool-downs",
    hints=("How far does the trunk have to go for the longest run?",
           "The trunk stops where the longest branch begins, at (1 − decay_fraction) · max(D); "
           "each branch adds decay_fraction of its own D."),
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


def _with(C, A, B, alpha, beta, G, a):
    N = G * (C / 6) ** a
    return N, C / 6 / N


@exercise(
    "08.3",
    tests="four budgets and laws, Chinchilla's among them",
    hints=("At the optimum αA/N^α = βB/D^β: both terms fall at the same rate.",
           "N* = G (C/6)^a with G = (αA / βB)^(1/(α+β)) and a = β/(α+β); D* = C / 6N*."),
    cases=((2.21e19, 406.4, 410.7, 0.34, 0.28), (1e12, 50.0, 200.0, 0.4, 0.35),
           (6.0, 2.0, 1.0, 1.0, 1.0), (1e21, 482.0, 2085.4, 0.348, 0.366)),
    wrong={
        "The order is (N*, D*).": lambda *law: compute_optimal(*law)[::-1],
        "The exponents are swapped: N* grows as C^(β/(α+β)), D* as C^(α/(α+β)).":
            lambda C, A, B, al, be: _with(C, A, B, al, be, (al * A / be / B) ** (1 / (al + be)),
                                          al / (al + be)),
        "C = 6ND, so the budget enters as C / 6.":
            lambda C, A, B, al, be: ((al * A / be / B) ** (1 / (al + be)) * C ** (be / (al + be)),
                                     C / ((al * A / be / B) ** (1 / (al + be))
                                          * C ** (be / (al + be)))),
        "The derivative brings down α and β: the terms themselves need not be equal.":
            lambda C, A, B, al, be: _with(C, A, B, al, be, (A / B) ** (1 / (al + be)),
                                          be / (al + be)),
        "Half and half is the optimum only if α = β and A = B.":
            lambda C, A, B, al, be: ((C / 6) ** 0.5, (C / 6) ** 0.5),
        "G is upside down: a larger A asks for a larger model.":
            lambda C, A, B, al, be: _with(C, A, B, al, be, (be * B / al / A) ** (1 / (al + be)),
                                          be / (al + be)),
    },
)
def compute_optimal(C, A, B, alpha, beta):
    """(N*, D*) that minimise A / N^alpha + B / D^beta subject to 6 N D = C."""
    G = (alpha * A / (beta * B)) ** (1 / (alpha + beta))
    N = G * (C / 6) ** (beta / (alpha + beta))
    return N, C / 6 / N
