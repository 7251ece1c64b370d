"""Personal data: find and mask it in text; train with differential privacy and account for it."""

import re
from inspect import unwrap

import numpy as np

from helpers.foundations import rules
from helpers.foundations.accepts import accepts, need, same_length
from helpers.foundations.classification import sigmoid
from helpers.foundations.regression import design_matrix, standardise

PII = {  # kind: pattern, tried in this order
    # with or without @: a run is taken whole, lest each of its places be tried anew
    "e-mail": re.compile(r"\b[\w.+-]+(@[\w-]+(?:\.[\w-]+)+\b)?|[.+-]+"),
    "IBAN": re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b"),
    "card": re.compile(r"\b\d(?:[ -]?\d){12,18}\b"),
    "IP address": re.compile(r"\b(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}"
                             r"(?:25[0-5]|2[0-4]\d|1?\d?\d)\b"),
    "phone": re.compile(r"(?<![\w$.,])(?:\+\d{1,3}[ -]?)?(?:\(\d{2,4}\) ?|\d{2,4}[ -])"
                        r"\d{3,4}[ -]\d{3,4}\b"),
    "birth date": re.compile(r"\b(?:born|birth)\b\D{0,12}"
                             r"(?:\d{1,2}[./-]\d{1,2}[./-]\d{4}|\d{4}-\d\d-\d\d)"),
}
SAMPLES = {  # kind: usual spellings, and last an awkward one; # is a random digit, @ stays
    "e-mail": ("jane.doe##@mail.example", "j_doe#+news@sub.host.example", "jane dot doe## at mail"),
    "IBAN": ("DE## #### #### #### #### ##", "GB##ABCD##############", "account ### ### ###"),
    "card": ("#### #### #### ####", "####-####-####-####", "#### ######, then #####"),
    "IP address": ("1#.##.1#.2#", "192.168.1.##", "ten dot zero dot #"),
    "phone": ("+1 ###-###-####", "(###) ###-####", "##########"),
    "birth date": ("born 1#/0#/19##", "date of birth: 19##-0#-1#", "born in May 19##"),
    "name": ("Mary Ellen Smith", "Dr. Chen", "my neighbour Tom"),
}


_RNG = rules.a(np.random.Generator)
_TABLE = rules.reals(2, -1e150, 1e150)  # whose squares are finite


def _real(value):
    """Rule: one real number; its range is checked by the function's own first lines."""
    if np.ndim(value) or np.asarray(value).dtype.kind not in "iuf":
        raise TypeError(f"expected a number, got {type(value).__name__}")
    return value


@accepts(text=rules.a(str))
def scrub(text: str) -> tuple[str, list[tuple[str, str]]]:
    """The text with each find replaced by its kind, such as [phone], and the finds (kind, text).

    The patterns are tried in order; what one has masked, the next do not see. Takes a time that
    grows as the text does.
    """
    found = []
    for kind, pattern in PII.items():
        def mask(match: re.Match, kind: str = kind) -> str:
            if kind == "e-mail" and not match[1]:
                return match[0]
            found.append((kind, match[0]))
            return f"[{kind}]"

        text = pattern.sub(mask, text)
    return text, found


@accepts(text=rules.a(str), kind=rules.one_of(*SAMPLES), awkward=rules.a(bool, np.bool_),
         rng=_RNG)
def plant_pii(text: str, kind: str, awkward: bool, rng: np.random.Generator) -> tuple[str, str]:
    """The text with one sentence of personal data in it, and that datum.

    It is put after one of the sentences. `awkward` takes the spelling that a pattern is likely to
    miss.
    """
    *usual, odd = SAMPLES[kind]
    chosen = odd if awkward else usual[rng.integers(len(usual))]
    datum = re.sub("#", lambda _: str(rng.integers(1, 10)), chosen)
    sentences = text.split(". ")
    sentences.insert(int(rng.integers(1, len(sentences) + 1)), f"Contact {datum} for this")
    return ". ".join(sentences), datum


@accepts(per_example=_TABLE, clip=rules.number(above=0, high=1e150),
         sigma=rules.number(0, 1e150), expected_batch=rules.number(above=0), rng=_RNG)
def private_gradient(per_example, clip, sigma, expected_batch, rng):
    """Noisy mean of clipped gradients, shape (d,), from one gradient per row (batch, d).

    Each row is shortened to norm `clip` at most; noise of standard deviation sigma · clip is added
    to each coordinate of the sum; the divisor is the *expected* batch size, since the size drawn
    would tell something about the data (Abadi et al. 2016).
    """
    norms = np.linalg.norm(per_example, axis=1, keepdims=True)
    clipped = per_example * (clip / np.maximum(norms, clip))
    noise = rng.normal(0, sigma * clip, per_example.shape[1])
    return (clipped.sum(axis=0) + noise) / expected_batch


@accepts(alpha=rules.integer(2), q=rules.number(above=0, high=1), sigma=rules.number(1e-150))
def rdp_step(alpha, q, sigma):
    """Rényi divergence of order alpha ≥ 2 (an integer) of one DP-SGD step, in nats.

    Each example is in the batch with probability q; the noise is sigma times the clip. Neighbours
    differ by one example more or less (Mironov, Talwar & Zhang 2019, sections 3.2 and 3.3).
    Raises ValueError unless 0 < q ≤ 1 and sigma > 0.
    """
    if q == 1:
        return alpha / (2 * sigma**2)
    k = np.arange(alpha + 1)
    log_factorial = np.cumsum(np.log(np.maximum(k, 1)))
    log_choose = log_factorial[-1] - log_factorial - log_factorial[::-1]
    terms = log_choose + (alpha - k) * np.log1p(-q) + k * np.log(q) + k * (k - 1) / (2 * sigma**2)
    return np.logaddexp.reduce(terms) / (alpha - 1)


@accepts(q=_real, sigma=_real, n_steps=rules.integer(0), delta=_real,
         largest_order=rules.integer(2))
def privacy_spent(q, sigma, n_steps, delta, largest_order=256):
    """ε such that `n_steps` steps are (ε, delta)-differentially private.

    Divergences of the steps add up; each order gives a valid ε, the least is kept (Canonne, Kamath
    & Steinke 2020, proposition 12). An upper bound: orders are whole numbers up to `largest_order`.
    Raises ValueError unless 0 < q ≤ 1, sigma > 0 and 0 < delta < 1: without noise no ε holds.
    """
    if not (0 < q <= 1 and sigma > 0 and 0 < delta < 1):
        raise ValueError("expected 0 < q ≤ 1, sigma > 0 and 0 < delta < 1")
    alphas = np.arange(2, largest_order + 1)
    total = n_steps * np.array([rdp_step(alpha, q, sigma) for alpha in alphas])
    eps = total + np.log1p(-1 / alphas) - (np.log(delta) + np.log(alphas)) / (alphas - 1)
    return max(eps.min(), 0.0) if n_steps else 0.0  # no step tells nothing


@accepts(theta=rules.reals(1), X=rules.reals(2), y=rules.labels(), needs=(
    same_length("X", "y"), need(lambda theta, X: X.shape[1] == len(theta), "one column a weight")))
def logistic_gradients(theta: np.ndarray, X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Gradient of the cross-entropy of each example, shape (n, d): (σ(xθ) − y) x; y is 0 or 1."""
    return (unwrap(sigmoid)(X @ theta) - y)[:, None] * X


@accepts(X=_TABLE, y=rules.labels(least=1), q=_real, sigma=rules.number(0, 1e150),
         clip=rules.number(above=0, high=1e150), lr=rules.number(above=0),
         n_steps=rules.integer(0), rng=_RNG, needs=same_length("X", "y"))
def train_private(X: np.ndarray, y: np.ndarray, q: float, sigma: float, clip: float, lr: float,
                  n_steps: int, rng: np.random.Generator) -> np.ndarray:
    """DP-SGD on the logistic model: returns theta, shape (d,).

    Each step takes each example with probability q (Poisson sampling: the accountant assumes it).
    The number of examples counts as public. Raises ValueError unless 0 < q ≤ 1.
    """
    if not 0 < q <= 1:
        raise ValueError(f"q is {q}: expected a probability above 0")
    theta = np.zeros(X.shape[1])
    gradients, noisy_mean = unwrap(logistic_gradients), unwrap(private_gradient)  # checked above
    for _ in range(n_steps):
        rows = rng.random(len(X)) < q
        per_example = gradients(theta, X[rows], y[rows])
        theta = theta - lr * noisy_mean(per_example, clip, sigma, q * len(X), rng)
    return theta


def _column(values):
    """Rule: one value per row, of any type."""
    if np.ndim(values) != 1:
        raise ValueError(f"expected one value per row, got shape {np.shape(values)}")
    return np.asarray(values)


@accepts(X=rules.reals(2), y=_column, n_public=rules.integer(2), n_train=rules.integer(1), rng=_RNG,
         needs=(same_length("X", "y"), need(
             lambda y, n_public, n_train: n_public + n_train < len(y), "fewer rows than y has")))
def public_split(X: np.ndarray, y: np.ndarray, n_public: int, n_train: int,
                 rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """A random split: (Z train, y train, Z test, y test), with a column of ones in each Z.

    The first `n_public` rows drawn give the means and standard deviations, and nothing else, so
    that scaling spends no privacy; each column must vary among them. Scaled values are cut off at
    ±3.
    """
    public, train, test = np.split(rng.permutation(len(y)), (n_public, n_public + n_train))
    Z = design_matrix(np.clip(standardise(X, X[public]), -3, 3))
    return Z[train], y[train], Z[test], y[test]


@accepts(X=_TABLE, y=rules.labels(least=1), n_runs=rules.integer(2), rng=_RNG,
         needs=same_length("X", "y"))
def accusation_rates(X: np.ndarray, y: np.ndarray, n_runs: int, rng: np.random.Generator,
                     **how: float) -> tuple[float, float]:
    """(true, false) rates of an attacker who asks whether one marked example was in training.

    That example alone has a further feature; the attacker sees its parameter after each of
    `n_runs` trainings with it and as many with an empty row instead (its gradient is zero, and the
    number of rows stays the same), puts a threshold midway between the two medians
    on half of them, and is judged on the other half. `how` goes to `train_private`.
    """
    without = np.pad(X, ((0, 1), (0, 1)))
    within = without.copy()
    within[-1, -1] = 10.0
    seen = [np.array([train_private(rows, np.append(y, 1), rng=rng, **how)[-1]
                      for _ in range(n_runs)]) for rows in (without, within)]
    threshold = sum(np.median(runs[::2]) for runs in seen) / 2
    false, true = (float(np.mean(runs[1::2] > threshold)) for runs in seen)
    return true, false
