"""Solutions of chapter 02, each with the mistakes that learners make."""

import numpy as np

from helpers.exercises import exercise


def houses(seed, n=8, d=3):
    """theta (d,), X (n, d), y (n,) and a learning rate, drawn from `seed`."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=d), rng.normal(size=(n, d)), rng.normal(size=n), 0.1 * (seed + 1)


@exercise(
    "02.1",
    tests="10^(1/0.4) ≈ 316 times more steps, within what can be read off the panel",
    hints=("Two decades of steps lower the loss by 0.8 of a decade. How many are needed for one?",
           "loss ∝ steps^−0.4. Set (factor)^−0.4 = 1/10 and solve for the factor."),
    cases=((),),
    rtol=0.2,
    wrong={
        "2.5 is the number of decades, 1/0.4: return the factor, 10^2.5. (If you meant 10^0.4: "
        "that is how much ten times more steps help; the question runs the other way.)":
            lambda: 10**0.4,
        "A tenth of the loss for ten times the steps would need the exponent 1; here it is 0.4.":
            lambda: 10.0,
        "That is right for features or samples (exponent 0.8). Read the panel of the steps.":
            lambda: 10 ** (1 / 0.8),
        "That is the width of the panel. Across it the loss falls by six only: extend the line.":
            lambda: 100.0,
    },
)
def steps_for_a_tenth():
    """How many times more steps divide the loss by ten."""
    return 10 ** (1 / 0.4)


@exercise(
    "02.2",
    tests="three sets of data against the solution; theta itself is left unchanged",
    hints=("The gradient of 1/n Σ(ŷ − y)² has one number per parameter: 2/n Xᵀ(Xθ − y).",
           "residuals = X @ theta - y, shape (n,). Then X.T @ residuals sums over the samples."),
    cases=tuple(houses(seed) for seed in range(3)),
    wrong={
        "The sign is flipped: this climbs. The gradient points uphill, so subtract it.":
            lambda theta, X, y, lr: theta + lr * 2 / len(y) * X.T @ (X @ theta - y),
        "The factor 2 is missing: d(ŷ − y)² is 2(ŷ − y)dŷ. This is claim K3's gradient.":
            lambda theta, X, y, lr: theta - lr / len(y) * X.T @ (X @ theta - y),
        "The sum stands where the mean should: divide by n, or the step grows with the data.":
            lambda theta, X, y, lr: theta - lr * 2 * X.T @ (X @ theta - y),
        "The prices are missing: the gradient needs the residuals Xθ − y, not the predictions Xθ.":
            lambda theta, X, y, lr: theta - lr * 2 / len(y) * X.T @ (X @ theta),
        "This is only the change: add it to theta.":
            lambda theta, X, y, lr: -lr * 2 / len(y) * X.T @ (X @ theta - y),
        "Two things are missing: the 2, and the division by n.":
            lambda theta, X, y, lr: theta - lr * X.T @ (X @ theta - y),
        "This is the gradient itself. Take the step: theta − lr · gradient.":
            lambda theta, X, y, lr: 2 / len(y) * X.T @ (X @ theta - y),
    },
)
def gradient_step(theta, X, y, lr):
    """One step of gradient descent on the MSE, 1/n Σ(ŷ − y)². Return the new theta, (d,)."""
    residuals = X @ theta - y  # (n,)
    return theta - lr * 2 / len(y) * X.T @ residuals


def top(x, intercept=True):
    """Largest eigenvalue of XᵀX/n for one feature."""
    X = np.column_stack([np.ones(len(x)), x]) if intercept else x[:, None]
    return np.linalg.eigvalsh(X.T @ X / len(x))[-1]


@exercise(
    "02.3",
    tests="the raw areas, areas in thousands, a centred feature and a random one",
    hints=("Build X with a column of ones; the Hessian of the MSE is 2/n XᵀX.",
           "The bound is 2 over the Hessian's largest eigenvalue: np.linalg.eigvalsh, last entry."),
    cases=((np.arange(100, 1001, 100.0),), (np.arange(0.1, 1.01, 0.1),),
           (np.array([-2.0, -1, 0, 1, 2]),), (np.random.default_rng(3).normal(2, 3, 20),)),
    wrong={
        "Twice too large: this is the bound for the article's gradient, without the factor 2 (K3).":
            lambda x: 2 / top(x),
        "That is 1/h_max, where the steepest direction is hit exactly. Stable up to 2/h_max.":
            lambda x: 0.5 / top(x),
        "The column of ones is missing: the intercept is a parameter too and steepens the bowl.":
            lambda x: 1 / top(x, intercept=False),
        "XᵀX was not divided by n: the loss is a mean, so its Hessian is 2/n XᵀX.":
            lambda x: 1 / (len(x) * top(x)),
        "That is 2/h_min. The steepest direction sets the bound: take the largest eigenvalue.":
            lambda x: 1 / np.linalg.eigvalsh(
                np.array([[1, x.mean()], [x.mean(), np.mean(x**2)]]))[0],
    },
)
def largest_lr(x):
    """The stability bound of the MSE of a line with intercept, on one feature x of shape (n,)."""
    X = np.column_stack([np.ones(len(x)), x])  # (n, 2)
    H = 2 / len(x) * X.T @ X
    return 2 / np.linalg.eigvalsh(H)[-1]


@exercise(
    "02.4",
    tests="κ = 10, 21 and 1000 at three tolerances: a whole number of steps, about (κ/4) ln(1/tol)",
    hints=("With η = 2/(h_max + h_min), work out 1 − ηh for h_min: it is (κ − 1)/(κ + 1).",
           "The loss is the error squared: solve ((κ − 1)/(κ + 1))^(2t) ≤ tolerance, round up."),
    cases=((10.0, 1e-6), (21.2, 1e-3), (1000.0, 1e-2)),
    wrong={
        "Twice too many: the loss is the *square* of the error, so it shrinks by factor² a step.":
            lambda kappa, tolerance: np.ceil(
                np.log(tolerance) / np.log((kappa - 1) / (kappa + 1))),
        "The factor 1 − 1/κ belongs to η = 1/h_max. With η = 2/(h_max + h_min) it is smaller.":
            lambda kappa, tolerance: np.ceil(np.log(tolerance) / 2 / np.log(1 - 1 / kappa)),
        "√κ is what momentum reaches. For plain descent κ itself stands in the factor.":
            lambda kappa, tolerance: np.ceil(
                np.log(tolerance) / 2 / np.log((kappa**0.5 - 1) / (kappa**0.5 + 1))),
        "Rounded down: one step earlier the loss is still above the tolerance. Round up.":
            lambda kappa, tolerance: np.floor(
                np.log(tolerance) / 2 / np.log((kappa - 1) / (kappa + 1))),
        "The two logarithms have different bases: use the same one above and below.":
            lambda kappa, tolerance: np.ceil(
                np.log10(tolerance) / 2 / np.log((kappa - 1) / (kappa + 1))),
    },
)
def steps_needed(kappa, tolerance):
    """Steps of gradient descent until the loss is at most `tolerance` times its start, at worst."""
    factor = (kappa - 1) / (kappa + 1)  # error of the slowest direction, per step
    return int(np.ceil(np.log(tolerance) / (2 * np.log(factor))))


@exercise(
    "02.5",
    tests="three spectra: N ∝ C^(1/(1+p)), loss ∝ C^−((q−1)/(1+p))",
    hints=("The loss is about N^−(q−1) + t^−((q−1)/p). At the best N neither term is wasted: they "
           "are of the same size.",
           "Equal terms mean N = t^(1/p), so t = N^p and C = N·t = N^(1+p). Solve for N."),
    cases=((3.0, 2.5), (1.5, 1.4), (2.0, 1.8)),
    wrong={
        "That splits C evenly, N ∝ C^½. It is right only if both exponents are equal (p = 1).":
            lambda p, q: (0.5, (q - 1) / 2),
        "You used t alone: n = t^(1/p). But C = N·t, so t itself is N^p.":
            lambda p, q: (1 / p, (q - 1) / p),
        "The minus sign already stands in C^−k: return k positive.":
            lambda p, q: (1 / (1 + p), -(q - 1) / (1 + p)),
        "N and t are swapped: p/(1+p) is the exponent of the steps.":
            lambda p, q: (p / (1 + p), (q - 1) / (1 + p)),
        "The loss is N^−(q−1) at the best N: multiply the exponent of N by q − 1, not by q.":
            lambda p, q: (1 / (1 + p), q / (1 + p)),
        "N is right, but its loss falls as N^−(q−1) = C^−(q−1)/(1+p); the steps' (q−1)/p is only "
        "for t alone.":
            lambda p, q: (1 / (1 + p), (q - 1) / p),
        "All of C went into features: N ∝ C leaves one step. The steps need their share.":
            lambda p, q: (1.0, q - 1),
    },
)
def compute_optimal(p, q):
    """(g, k) of N ∝ C^g and loss ∝ C^−k at the best N, where C = N·t."""
    g = 1 / (1 + p)  # equal terms: N = t^(1/p), so C = N·t = N^(1 + p)
    return g, g * (q - 1)
