"""Solutions of chapter 04, each with the mistakes that learners make."""

from itertools import pairwise

import numpy as np

from helpers.exercises import IN_PLACE, exercise


@exercise(
    "04.1",
    tests="q = 2^(1/0.67) ≈ 2.8, from the exponent in the legend",
    hints=("The error is c · D^−k. Multiply D by a factor q: what is the error multiplied by?",
           "Solve q^−k = 1/2 for q, with the k that stands in the legend for 64 units."),
    cases=((),),
    rtol=0.03,
    wrong={
        "Twice the data would halve the error if the exponent were 1. It is smaller.":
            lambda: 2.0,
        "That is 2^k: by how much the error falls when the digits are doubled. The question goes "
        "the other way.":
            lambda: 2**0.67,
        "That is 1/k: how many times the digits have to be doubled. What factor do these doublings "
        "make together?":
            lambda: 1 / 0.67,
        "That is 2/k, or a number read by eye. The exponent stands above the factor: a power of 2, "
        "not a multiple.":
            lambda: 2 / 0.67,
        "That factor is below 1: fewer digits. More digits make the error smaller, so q > 1.":
            lambda: 0.5 ** (1 / 0.67),
        "That is the curve of 4 units. Read the one of 64.":
            lambda: 2 ** (1 / 0.33),
        "A factor of 4 belongs to the exponent ½. Rounded errors may suggest it; take the exponent "
        "in the legend.":
            lambda: 4.0,
    },
)
def data_for_half():
    """The factor q on the digits that halves the error of 64 units."""
    return 2 ** (1 / 0.67)


@exercise(
    "04.2",
    tests="four networks, with one, no, two and three hidden layers",
    hints=("A layer from n units to m units is a table of weights and a list of biases. How many "
           "entries has each?",
           "Add (n + 1) · m over all neighbouring pairs in sizes: zip(sizes[:-1], sizes[1:])."),
    cases=(((64, 32, 10),), ((64, 10),), ((100, 20, 30, 10),), ((2, 3, 5, 4, 2),)),
    wrong={
        "The biases are missing: one for each unit that is not an input.":
            lambda sizes: sum(a * b for a, b in pairwise(sizes)),
        "One bias per layer was counted. Every unit of the layer has its own.":
            lambda sizes: sum(a * b + 1 for a, b in pairwise(sizes)),
        "The output units have biases as well as the hidden ones.":
            lambda sizes: sum(a * b for a, b in pairwise(sizes)) + sum(sizes[1:-1]),
        "The inputs got biases too. Pixels are given, only units after them have one.":
            lambda sizes: sum(a * b for a, b in pairwise(sizes))
            + sum(sizes),
        "That is the number of units. Count the connections between them.":
            lambda sizes: sum(sizes),
        "Only the hidden layers were counted. The output layer has weights and biases as well.":
            lambda sizes: sum((a + 1) * b for a, b in pairwise(sizes[:-1])),
        "Each bias was attached to the layer's inputs: (m + 1) · n. It belongs to its outputs.":
            lambda sizes: sum(a * (b + 1) for a, b in pairwise(sizes)),
    },
)
def count_parameters(sizes):
    """Number of weights and biases of an MLP."""
    return sum((n_in + 1) * n_out for n_in, n_out in pairwise(sizes))


def sigmoid(z):
    """1/(1 + e^−z) without overflow."""
    return (1 + np.tanh(z / 2)) / 2


@exercise(
    "04.3",
    tests="value and slope at 0, at small and large z of both signs, and at a matrix",
    hints=("Product rule: φ′ = sigmoid + z · sigmoid′. And sigmoid′ stands in `activate`.",
           "With s = sigmoid(z), sigmoid′ = s · (1 − s). Put it into the product rule, and return "
           "value and slope as a pair."),
    cases=((np.linspace(-4, 4, 9),), (np.array([0.0, -30.0, 30.0]),),
           (np.random.default_rng(4).normal(size=(2, 3)),)),
    wrong={
        "The product rule has two terms: sigmoid itself stands in the slope too.":
            lambda z: (z * sigmoid(z), z * sigmoid(z) * (1 - sigmoid(z))),
        "You took z as a constant when you differentiated: z · sigmoid′ is missing.":
            lambda z: (z * sigmoid(z), sigmoid(z)),
        "That slope is the sigmoid's own. The product rule has two terms: sigmoid + z · sigmoid′.":
            lambda z: (z * sigmoid(z), sigmoid(z) * (1 - sigmoid(z))),
        "That is the sigmoid and its slope. Swish multiplies by z.":
            lambda z: (sigmoid(z), sigmoid(z) * (1 - sigmoid(z))),
        "Value and slope are in the wrong order.":
            lambda z: (sigmoid(z) + z * sigmoid(z) * (1 - sigmoid(z)), z * sigmoid(z)),
        "The slope of the sigmoid is s · (1 − s), not 1 − s²: that is tanh.":
            lambda z: (z * sigmoid(z), sigmoid(z) + z * (1 - sigmoid(z) ** 2)),
        "Swish is cut off like ReLU here. It goes a little below 0 for negative z.":
            lambda z: (np.maximum(z * sigmoid(z), 0),
                       np.where(z > 0, sigmoid(z) + z * sigmoid(z) * (1 - sigmoid(z)), 0)),
    },
)
def swish(z):
    """Value and slope of swish, φ(z) = z · sigmoid(z), at an array z: a pair (value, slope)."""
    s = 1 / (1 + np.exp(-z))
    return z * s, s + z * s * (1 - s)


def cubic(theta):
    """A loss that is bent, so that one-sided differences are off."""
    return np.sum(theta**3) + theta[0] * theta[-1]


def waves(theta):
    """Another one."""
    return np.sum(np.sin(theta) * np.arange(1, len(theta) + 1))


def differences(loss, theta, up, down, over):
    """(loss(θ + up · e) − loss(θ − down · e)) / over, for each parameter."""
    return np.array([(loss(theta + up * e) - loss(theta - down * e)) / over
                     for e in np.eye(len(theta))])


def without_restoring(loss, theta, step):
    """Moves theta itself, and leaves it moved."""
    gradient = np.zeros(len(theta))
    for i in range(len(theta)):
        theta[i] += step
        high = loss(theta)
        theta[i] -= 2 * step
        gradient[i] = (high - loss(theta)) / (2 * step)
    return gradient


def all_at_once(loss, theta, step):
    """Moves every parameter together."""
    return np.full(len(theta), (loss(theta + step) - loss(theta - step)) / (2 * step))


def no_copy(loss, theta, step):
    """up and down are two names of theta itself."""
    gradient = np.zeros(len(theta))
    for i in range(len(theta)):
        up = theta
        up[i] += step
        down = theta
        down[i] -= step
        gradient[i] = (loss(up) - loss(down)) / (2 * step)
    return gradient


def restored_with_an_error(loss, theta, step):
    """The right gradient, but theta comes back changed."""
    gradient = differences(loss, theta.copy(), step, step, 2 * step)
    theta += step
    return gradient


@exercise(
    "04.4",
    tests="two bent losses in 2 to 4 parameters, steps of 0.1 and 0.01; theta is left unchanged",
    hints=("For each i: move θᵢ up by step and down by step, and compare the two losses.",
           "Divide by the distance between the two points, 2 · step. np.eye(len(theta)) has one "
           "direction per row."),
    cases=((cubic, np.array([0.5, -1.0]), 0.1), (waves, np.array([0.3, 1.0, -2.0, 0.7]), 0.1),
           (cubic, np.array([1.0, 2.0, 3.0]), 0.01)),
    wrong={
        "That is the forward difference, from θ to θ + step. Go to both sides: its error is of "
        "order step², not step.":
            lambda loss, theta, step: differences(loss, theta, step, 0, step),
        "That is the backward difference, from θ − step to θ. Go to both sides: its error is of "
        "order step², not step.":
            lambda loss, theta, step: differences(loss, theta, 0, step, step),
        "`up = theta` makes no copy: both names are the same array, and the two losses are equal. "
        "Use theta.copy().":
            no_copy,
        "The two points lie step away from θ on either side, not step/2.":
            lambda loss, theta, step: differences(loss, theta, step / 2, step / 2, step),
        "The two points are 2 · step apart: divide by that.":
            lambda loss, theta, step: differences(loss, theta, step, step, step),
        "All parameters were moved together. Move one at a time.":
            all_at_once,
        "The sign is flipped: loss above minus loss below.":
            lambda loss, theta, step: -differences(loss, theta, step, step, 2 * step),
        "The difference was not divided by 2 · step.":
            lambda loss, theta, step: differences(loss, theta, step, step, 1),
        "θᵢ was not put back before the next one was moved.":
            without_restoring,
        IN_PLACE: restored_with_an_error,
    },
)
def numeric_gradient(loss, theta, step):
    """Gradient (p,) of loss(theta) by central differences, θᵢ ± step for each parameter alone."""
    return np.array([(loss(theta + step * e) - loss(theta - step * e)) / (2 * step)
                     for e in np.eye(len(theta))])


@exercise(
    "04.5",
    tests="slopes 0 (ReLU), 0.1, 0.5 and 1 (linear): √(2 / (1 + slope²))",
    hints=("Half of the z are positive and keep their square. What becomes of the squares of the "
           "other half?",
           "Mean square out = g² · mean square in · (average of 1 and slope²). Nothing should "
           "change: solve for g."),
    cases=((0.1,), (0.5,), (0.0,), (1.0,)),
    wrong={
        "That is ReLU's gain: the negative half is not lost, it is kept times the slope.":
            lambda slope: 2**0.5,
        "Squares count: the negative half keeps slope² of its mean square, not slope.":
            lambda slope: (2 / (1 + slope)) ** 0.5,
        "That is g². The size is a root mean square, so take the root.":
            lambda slope: 2 / (1 + slope**2),
        "Upside down: that is the factor for g = 1. The gain has to undo it.":
            lambda slope: ((1 + slope**2) / 2) ** 0.5,
        "The half is missing: each sign has half of the z. A slope of 1 must give g = 1.":
            lambda slope: 1 / (1 + slope**2) ** 0.5,
        "Roots do not add: average the squares 1 and slope² first, then take one root.":
            lambda slope: 2**0.5 / (1 + slope),
        "The sizes of the halves were averaged. Average their squares.":
            lambda slope: 2 / (1 + slope),
    },
)
def leaky_gain(slope):
    """Gain g that keeps the size of the signal for leaky ReLU: z if z > 0, else slope · z."""
    return np.sqrt(2 / (1 + slope**2))


def rms(h, axis=1):
    """Root mean square along an axis, kept."""
    return np.sqrt(np.mean(h**2, axis=axis, keepdims=True))


def rows(seed, n=3, d=4):
    """h and delta, drawn from `seed`."""
    rng = np.random.default_rng(seed)
    return rng.normal(1, 2, (n, d)), rng.normal(size=(n, d))


@exercise(
    "04.6",
    tests="three random batches; the result is orthogonal to each row of h",
    hints=("r = √(mean of h²), so ∂r/∂hⱼ = hⱼ / (m · r). Then u = h/r has two terms: through h, "
           "and through r.",
           "Through r: ∂L/∂r = −Σ delta · h / r² over the row, times ∂r/∂h. Add delta / r to it, "
           "and check the shapes: r is (n, 1)."),
    cases=(rows(0), rows(1, 2, 6), rows(2, 1, 3)),
    wrong={
        "r was taken as a constant. It depends on h as well: there is a second term.":
            lambda h, delta: delta / rms(h),
        "The sum over the row stands where its mean should: ∂r/∂h brings 1/m.":
            lambda h, delta: (delta - h / rms(h) * np.sum(delta * h / rms(h), axis=1,
                                                          keepdims=True)) / rms(h),
        "The second term is subtracted: a larger h makes r larger, and so u smaller.":
            lambda h, delta: (delta + h / rms(h) * np.mean(delta * h / rms(h), axis=1,
                                                           keepdims=True)) / rms(h),
        "The second term needs u = h/r, not h.":
            lambda h, delta: (delta - h * np.mean(delta * h, axis=1, keepdims=True)) / rms(h),
        "The division by r is missing.":
            lambda h, delta: delta - h / rms(h) * np.mean(delta * h / rms(h), axis=1,
                                                          keepdims=True),
        "Each hⱼ changes r, and r changes every uᵢ of the row: the second term needs the sum over "
        "the row, not the element alone.":
            lambda h, delta: (delta - (h / rms(h)) ** 2 * delta / h.shape[1]) / rms(h),
        "The mean runs over the batch. Each row has its own r: average over axis 1.":
            lambda h, delta: (delta - h / rms(h, 0) * np.mean(delta * h / rms(h, 0), axis=0,
                                                              keepdims=True)) / rms(h, 0),
        "That is the backward pass of a plain centring. The row's mean is not subtracted here.":
            lambda h, delta: delta - delta.mean(axis=1, keepdims=True),
    },
)
def rms_norm_backward(h, delta):
    """Gradient of the loss in h (n, m), if delta (n, m) is its gradient in u = h / r."""
    r = np.sqrt(np.mean(h**2, axis=1, keepdims=True))  # (n, 1)
    u = h / r
    return (delta - u * np.mean(delta * u, axis=1, keepdims=True)) / r
