"""Solutions of chapter 07, each with the mistakes that learners make."""

import numpy as np

from helpers.exercises import exercise


@exercise(
    "07.1",
    tests="about 208: 20/12 · seq minus a little for the embedding, within what can be read off",
    hints=("Which curve belongs to N_total, and where does it enter the grey band?",
           "To be exact: 2 · n_layer · seq · d is a tenth of 12 · n_layer · d² + vocab · d."),
    cases=((),),
    rtol=0.15,
    wrong={
        "That is where the curve of N enters the band. Read that of N_total.": lambda: 261.0,
        "There the curve is 5 % above 1. The band ends at 10 %.": lambda: 421.0,
        "At 128 the curve still lies above the band: the ratio is still near 1.16.":
            lambda: 128.0,
        "That is our model's width, where the ratio is 1.3.": lambda: 64.0,
        "That is the ratio. The question asks for d_model, on the horizontal axis.": lambda: 1.1,
    },
)
def width_for_ten_per_cent():
    """The d_model at which the exact FLOPs are 1.1 times 6·N_total·D."""
    n_layer, seq, vocab = 4, 128, 256
    return (20 * n_layer * seq - vocab) / (12 * n_layer)


@exercise(
    "07.2",
    tests="a laptop, an A100 and an H100",
    hints=("How many FLOPs does the model get done in a second?",
           "Tokens per second times FLOPs per token is FLOP/s; what share of the peak is it?"),
    cases=((40_000.0, 1.6e6, 9e10), (180_000.0, 8.6e8, 3.12e14), (1e4, 4.2e10, 9.894e14)),
    wrong={
        "Upside down: the peak goes below.": lambda t, f, p: p / (t * f),
        "In per cent. The function returns a share, 0 … 1.": lambda t, f, p: 100 * t * f / p,
        "No factor 3: flops_per_token holds the backward pass already.":
            lambda t, f, p: 3 * t * f / p,
        "No factor 6 either: that is for parameters, and these are FLOPs already.":
            lambda t, f, p: 6 * t * f / p,
        "Tokens per second are multiplied by FLOPs per token, not divided.":
            lambda t, f, p: t / f / p,
        "That is FLOP/s. Divide by the peak.": lambda t, f, p: t * f,
    },
)
def utilisation(tokens_per_second, flops_per_token, peak_flops):
    """MFU as a share, 0 … 1."""
    return tokens_per_second * flops_per_token / peak_flops


@exercise(
    "07.3",
    tests="three shapes, in float32 and bfloat16",
    hints=("m·n numbers are computed; each takes k multiplications and k additions.",
           "Three matrices are moved: m·k and k·n numbers read, m·n written. Mind their size."),
    cases=((2048, 64, 192, 4), (2048, 4096, 4096, 2), (1, 4096, 4096, 2)),
    wrong={
        "The additions are missing: a product takes 2mkn FLOPs.":
            lambda m, k, n, b: m * k * n / (b * (m * k + k * n + m * n)),
        "The result is missing: m·n numbers are written.":
            lambda m, k, n, b: 2 * m * k * n / (b * (m * k + k * n)),
        "That is per number. Divide by the bytes of each.":
            lambda m, k, n, b: 2 * m * k * n / (m * k + k * n + m * n),
        "The second matrix has k·n numbers, the first m·k; both are read.":
            lambda m, k, n, b: 2 * m * k * n / (b * (m * k + m * n)),
        "Upside down: FLOPs per byte, not bytes per FLOP.":
            lambda m, k, n, b: b * (m * k + k * n + m * n) / (2 * m * k * n),
    },
)
def matmul_intensity(m, k, n, bytes_per_number):
    """FLOPs per byte of the product (m, k) @ (k, n)."""
    moved = bytes_per_number * (m * k + k * n + m * n)
    return 2 * m * k * n / moved


def parts(seed, sizes):
    """Gradients (n_parts, 3) drawn from `seed`, and the parts' sizes."""
    return np.random.default_rng(seed).normal(size=(len(sizes), 3)), np.array(sizes)


def scaled_in_place(gradients, sizes):
    """The right value, but the caller's gradients are changed."""
    gradients *= (sizes / sizes.sum())[:, None]
    return gradients.sum(axis=0)


@exercise(
    "07.4",
    tests="parts of unequal size, one part alone, and equal parts",
    hints=("A part of 3 windows out of 7 has said 3/7 of the whole mean.",
           "Weights sizes / sizes.sum(), shape (n_parts,): stand them upright with [:, None]."),
    cases=(parts(0, [3, 2, 2]), parts(1, [5]), parts(2, [4, 4, 4, 4])),
    wrong={
        "A plain mean gives a window in a small part more weight than one in a large part.":
            lambda gradients, sizes: gradients.mean(axis=0),
        "The sum is larger by the number of parts: the step would grow with it.":
            lambda gradients, sizes: gradients.sum(axis=0),
        "Weighted, but not divided by the number of all windows.":
            lambda gradients, sizes: (sizes[:, None] * gradients).sum(axis=0),
        "Divided by the sizes: this gives small parts the larger weight.":
            lambda gradients, sizes: (gradients / sizes[:, None]).sum(axis=0),
        "You averaged over the parameters. Sum over the parts: axis 0.":
            lambda gradients, sizes: gradients.mean(axis=1),
        "It changes its argument in place: the caller's data are altered. Work on a copy.":
            scaled_in_place,
    },
)
def combine(gradients, sizes):
    """Gradient of the mean loss over all windows, shape (d,)."""
    share = sizes / sizes.sum()  # (n_parts,)
    return (share[:, None] * gradients).sum(axis=0)


@exercise(
    "07.5",
    tests="a night on a laptop, a day on eight H100s, one token per parameter",
    hints=("Device-hours are FLOPs: times 3600, times the peak, times the MFU.",
           "C = 6 · N · (ratio · N). Solve for N: a square root."),
    cases=((10.0, 9e10, 0.5, 20.0), (192.0, 9.894e14, 0.4, 20.0), (1.0, 3.12e14, 0.3, 1.0)),
    wrong={
        "Hours are not seconds: × 3600.":
            lambda h, p, m, r: ((h * p * m / 6 / r) ** 0.5, (h * p * m * r / 6) ** 0.5),
        "The MFU is missing: no run reaches the peak.":
            lambda h, p, m, r: ((3600 * h * p / 6 / r) ** 0.5, (3600 * h * p * r / 6) ** 0.5),
        "The 6 is missing: forward and backward, multiplication and addition.":
            lambda h, p, m, r: ((3600 * h * p * m / r) ** 0.5, (3600 * h * p * m * r) ** 0.5),
        "That is the even split, D = N. D is ratio · N, so the ratio goes under the root.":
            lambda h, p, m, r: ((3600 * h * p * m / 6) ** 0.5, r * (3600 * h * p * m / 6) ** 0.5),
        "The root is missing: C grows as N², since D grows with N.":
            lambda h, p, m, r: (3600 * h * p * m / 6 / r, 3600 * h * p * m / 6),
        "N and D are swapped: return (N, D).":
            lambda h, p, m, r: ((600 * h * p * m * r) ** 0.5, (600 * h * p * m / r) ** 0.5),
    },
)
def largest_run(device_hours, peak_flops, mfu, tokens_per_parameter):
    """(N, D) of the run with D = tokens_per_parameter · N that takes just these device-hours."""
    C = 3600 * device_hours * peak_flops * mfu
    N = (C / (6 * tokens_per_parameter)) ** 0.5
    return N, tokens_per_parameter * N
