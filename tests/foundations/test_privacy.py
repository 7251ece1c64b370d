"""Masking of personal data; DP-SGD and its accountant against integrals and closed forms."""

import re
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from helpers.foundations import privacy

TEXT = "We met in 1931. It cost $1,234,567.89 and 12.5 per cent. Section 4.2.1 was read. The end."

often = settings(max_examples=40, deadline=None, derandomize=True)
PLAIN_E_MAIL = re.compile(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b")  # right, but quadratic


def exact_delta(eps, sigma):
    """δ of one Gaussian step of sensitivity 1 (Balle & Wang 2018, theorem 8)."""
    return norm.cdf(0.5 / sigma - eps * sigma) - np.exp(eps) * norm.cdf(-0.5 / sigma - eps * sigma)


@pytest.mark.parametrize(("datum", "kind"), [
    ("jane.doe+x@mail.example.org", "e-mail"), ("DE12 3456 7890 1234 5678 90", "IBAN"),
    ("4111 1111 1111 1111", "card"), ("4111-1111-1111-1111", "card"), ("10.0.255.1", "IP address"),
    ("+1 555-123-4567", "phone"), ("(555) 123-4567", "phone"), ("born 12/05/1974", "birth date"),
    ("date of birth: 1974-05-12", "birth date")])
def test_ordinary_spellings_are_found_by_kind_and_masked(datum, kind):
    sentence = f"Write {datum} down."
    assert privacy.scrub(sentence)[1][0][0] == kind
    assert privacy.scrub(sentence)[0].count(f"[{kind}]") == len(privacy.scrub(sentence)[1]) == 1


@pytest.mark.parametrize("clean", [
    "", TEXT, "in 1776, 1812 and 1865", "300.1.2.3", "the years 1861-1865", "3.14159", "a @ b",
    "born free", "was born in a log cabin"])
def test_years_amounts_and_sections_are_left_alone(clean):
    assert privacy.scrub(clean) == (clean, [])


@often
@given(st.text("ab.@-+é 1\n", max_size=60))
def test_addresses_are_those_of_the_plain_pattern(tried):
    masked, found = privacy.scrub(tried)
    expected = PLAIN_E_MAIL.findall(tried)
    assert [datum for kind, datum in found if kind == "e-mail"] == expected
    if len(found) == len(expected):
        assert masked == PLAIN_E_MAIL.sub("[e-mail]", tried)


@pytest.mark.parametrize("unit", ["a.", "-", "a@", "a@b.", "a@-.", "1 ", "DE12 ", "born 1"])
def test_the_time_of_masking_grows_as_the_text_does(unit):
    def seconds(n):
        best = []
        for _ in range(3):
            start = time.process_time()
            privacy.scrub(unit * (n // len(unit)))
            best.append(time.process_time() - start)
        return min(best)

    assert seconds(20_000) < 10 * seconds(5_000)  # as its square: 16 times


def test_a_long_address_is_masked_whole():
    address = "x" * 200 + "." + "y" * 200 + "@mail.example"
    assert privacy.scrub(f"to {address}.") == ("to [e-mail].", [("e-mail", address)])


@pytest.mark.parametrize("kind", privacy.PII)
def test_a_planted_datum_is_in_the_text_and_is_masked(kind):
    rng = np.random.default_rng(0)
    for _ in range(20):
        planted, datum = privacy.plant_pii(TEXT, kind, awkward=False, rng=rng)
        assert datum in planted
        assert "#" not in datum
        assert datum not in privacy.scrub(planted)[0]


def test_names_are_not_found():
    planted, datum = privacy.plant_pii(TEXT, "name", awkward=False, rng=np.random.default_rng(1))
    assert datum in privacy.scrub(planted)[0]


def test_without_noise_and_clip_the_private_gradient_is_the_mean():
    rows = np.random.default_rng(2).normal(size=(50, 4))
    found = privacy.private_gradient(rows, 1e9, 0.0, 50, np.random.default_rng(0))
    assert np.allclose(found, rows.mean(axis=0))


def test_clipping_keeps_short_gradients_and_shortens_long_ones():
    rows = np.array([[0.3, 0.4], [30.0, 40.0], [0.0, 0.0]])
    found = [privacy.private_gradient(row[None], 1.0, 0.0, 1, np.random.default_rng(0))
             for row in rows]
    assert np.allclose(found, [[0.3, 0.4], [0.6, 0.8], [0, 0]])


def test_an_empty_batch_gives_noise_alone():
    rng = np.random.default_rng(3)
    drawn = [privacy.private_gradient(np.zeros((0, 3)), 2.0, 1.5, 10, rng) for _ in range(4000)]
    assert np.std(drawn) == pytest.approx(1.5 * 2.0 / 10, rel=0.03)
    assert np.mean(drawn) == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize(("alpha", "q", "sigma"), [
    (2, 0.1, 1.0), (8, 0.05, 1.5), (20, 0.1, 4.0), (3, 0.9, 0.7), (64, 0.01, 2.0)])
def test_the_divergence_is_the_integral_of_its_definition(alpha, q, sigma):
    def integrand(x):
        ratio = np.logaddexp(np.log1p(-q), np.log(q) + (2 * x - 1) / (2 * sigma**2))
        return np.exp(norm.logpdf(x, 0, sigma) + alpha * ratio)
    moment = quad(integrand, -20 * sigma, 20 * sigma + alpha, points=[0, alpha], limit=400)[0]
    expected = np.log(moment) / (alpha - 1)
    assert privacy.rdp_step(alpha, q, sigma) == pytest.approx(expected, rel=1e-6)


def test_taking_every_example_is_the_plain_gaussian_and_the_limit_of_sampling():
    assert privacy.rdp_step(5, 1, 2.0) == pytest.approx(5 / 8)
    assert privacy.rdp_step(5, 1 - 1e-9, 2.0) == pytest.approx(5 / 8, rel=1e-6)


def test_two_orders_by_hand():
    q, sigma = 0.2, 1.3
    assert privacy.rdp_step(2, q, sigma) == pytest.approx(
        np.log(1 + q**2 * (np.exp(1 / sigma**2) - 1)))


@pytest.mark.parametrize("sigma", [4, 10, 20])
def test_the_bound_lies_above_the_exact_gaussian_and_near_it(sigma):
    bound = privacy.privacy_spent(1, sigma, 20, 1e-5)
    assert exact_delta(bound, sigma / 20**0.5) <= 1e-5
    assert exact_delta(0.85 * bound, sigma / 20**0.5) >= 1e-5


@pytest.mark.parametrize(("sigma", "expected"), [
    (0.6, 35.92114850), (1, 9.992858994), (4, 1.335558554), (16, 0.2745909564)])
def test_the_bound_is_that_of_a_kept_accountant_library(sigma, expected):
    """Figures of Google's dp-accounting 0.6, RdpAccountant with integer orders 2 to 256."""
    assert privacy.privacy_spent(0.1, sigma, 200, 1e-4) == pytest.approx(expected, rel=1e-8)


def test_privacy_costs_more_for_more_steps_less_noise_larger_batches_and_smaller_delta():
    base = privacy.privacy_spent(0.1, 2.0, 100, 1e-5)
    assert base < privacy.privacy_spent(0.1, 2.0, 200, 1e-5)
    assert base < privacy.privacy_spent(0.1, 1.5, 100, 1e-5)
    assert base < privacy.privacy_spent(0.2, 2.0, 100, 1e-5)
    assert base < privacy.privacy_spent(0.1, 2.0, 100, 1e-7)


def test_an_epsilon_below_zero_is_zero():
    assert privacy.privacy_spent(0.001, 1000.0, 1, 0.5) == 0


def test_logistic_gradients_are_the_derivatives_and_do_not_overflow():
    rng = np.random.default_rng(4)
    X, y, theta = rng.normal(size=(6, 3)), np.array([0, 1, 1, 0, 1, 0]), rng.normal(size=3)
    loss = lambda t: np.logaddexp(0, X @ t) - y * (X @ t)
    steps = 1e-6 * np.eye(3)
    numeric = np.array([(loss(theta + d) - loss(theta - d)) / 2e-6 for d in steps]).T
    assert np.allclose(privacy.logistic_gradients(theta, X, y), numeric, atol=1e-8)
    assert np.isfinite(privacy.logistic_gradients(1e6 * theta, X, y)).all()


def separable(n=400, seed=5):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    return np.column_stack([np.ones(n), rng.normal(size=(n, 2)) + 3 * (2 * y - 1)[:, None]]), y


def test_training_learns_with_little_noise_and_not_with_much():
    X, y = separable()
    right = [np.mean((X @ privacy.train_private(X, y, 0.1, sigma, 1.0, 0.5, 50,
                                                np.random.default_rng(6)) > 0) == y)
             for sigma in (0.5, 500.0)]
    assert right[0] > 0.97 > right[1]


def test_a_split_uses_each_row_once_and_scales_by_the_public_rows():
    rng = np.random.default_rng(7)
    X, y = rng.normal(5, 2, size=(2000, 3)), np.arange(2000)
    X[:, 0] += 0.001 * y  # no two parts have equal means
    Z, labels, Z_test, answers = privacy.public_split(X, y, 1000, 700, rng)
    assert Z.shape == (700, 4)
    assert Z_test.shape == (300, 4)
    assert len(set(labels) | set(answers)) == 1000
    assert (Z[:, 0] == 1).all()
    assert abs(Z).max() <= 3
    public = X[np.setdiff1d(y, np.concatenate([labels, answers]))]
    for scaled, which in ((Z, labels), (Z_test, answers)):
        expected = np.clip((X[which] - public.mean(axis=0)) / public.std(axis=0), -3, 3)
        assert np.allclose(scaled[:, 1:], expected)


def test_an_attacker_is_sure_without_noise_and_guesses_with_much():
    X, y = separable(100)
    how = {"q": 0.2, "lr": 0.5, "n_steps": 150}
    true, false = privacy.accusation_rates(X, y, 20, np.random.default_rng(8), clip=1e9, sigma=0,
                                           **how)
    assert (true, false) == (1, 0)
    true, false = privacy.accusation_rates(X, y, 200, np.random.default_rng(9), clip=1.0,
                                           sigma=100, **how)
    assert abs(true - false) < 0.3


@pytest.mark.parametrize(("q", "sigma", "delta"), [
    (0, 1, 1e-5), (-0.1, 1, 1e-5), (1.1, 1, 1e-5), (0.1, 0, 1e-5), (1, 0, 1e-5), (0.1, -1, 1e-5),
    (0.1, 1, 0), (0.1, 1, 1), (float("nan"), 1, 1e-5)])
def test_no_epsilon_is_given_where_none_holds(q, sigma, delta):
    with pytest.raises(ValueError, match="expected 0 < q"):
        privacy.privacy_spent(q, sigma, 10, delta)


@pytest.mark.parametrize("q", [0, 1.5])
def test_a_batch_needs_a_probability(q):
    with pytest.raises(ValueError, match="probability"):
        privacy.train_private(np.ones((5, 2)), np.ones(5), q, 1.0, 1.0, 0.5, 3,
                              np.random.default_rng(0))


def test_with_all_examples_and_no_noise_training_is_gradient_descent():
    X, y = separable(50)
    found = privacy.train_private(X, y, 1, 0, 1e9, 0.5, 20, np.random.default_rng(0))
    theta = np.zeros(3)
    for _ in range(20):
        theta -= 0.5 * (1 / (1 + np.exp(-X @ theta)) - y) @ X / 50
    assert np.allclose(found, theta)


def test_batches_are_poisson_samples_and_the_divisor_is_their_expected_size(monkeypatch):
    sizes, divisors = [], set()
    def spy(per_example, clip, sigma, expected_batch, rng):
        sizes.append(len(per_example))
        divisors.add(expected_batch)
        return np.zeros(3)
    monkeypatch.setattr(privacy, "private_gradient", spy)
    X, y = separable(400)
    privacy.train_private(X, y, 0.1, 1.0, 1.0, 0.5, 2000, np.random.default_rng(10))
    assert divisors == {40}
    assert np.mean(sizes) == pytest.approx(40, abs=0.6)
    assert np.var(sizes) == pytest.approx(400 * 0.1 * 0.9, rel=0.15)


def test_one_example_more_moves_the_sum_by_the_clip_at_most():
    rows = np.random.default_rng(11).normal(0, 5, size=(20, 4))
    sums = [privacy.private_gradient(r, 0.7, 0.0, 1, np.random.default_rng(0))
            for r in (rows, rows[1:])]
    assert np.linalg.norm(sums[0] - sums[1]) == pytest.approx(0.7)


@often
@given(st.integers(0, 6), st.integers(1, 4), st.floats(1e-3, 1e3), st.integers(1, 20),
       st.integers(0, 9))
def test_a_private_gradient_is_the_sum_of_clipped_rows_over_the_expected_size(
        n, d, clip, expected, seed):
    rows = 100 * np.random.default_rng(seed).normal(size=(n, d))
    short = [row * min(1, clip / np.linalg.norm(row)) for row in rows]
    found = privacy.private_gradient(rows, clip, 0, expected, np.random.default_rng(0))
    assert np.allclose(found, np.sum(short, axis=0) / expected if n else 0)
    assert np.linalg.norm(found) <= n * clip / expected * (1 + 1e-9)


@often
@given(st.floats(1e-4, 1), st.floats(0.5, 50), st.integers(0, 500), st.floats(1e-9, 0.1))
def test_epsilon_is_finite_and_more_steps_never_cost_less(q, sigma, n_steps, delta):
    less, more = (privacy.privacy_spent(q, sigma, n, delta, 40) for n in (n_steps, n_steps + 1))
    assert 0 <= less <= more < np.inf


def test_no_step_costs_nothing():
    assert privacy.privacy_spent(0.1, 1.0, 0, 1e-5) == 0
    X, y = separable(20)
    assert (privacy.train_private(X, y, 0.5, 1, 1, 0.5, 0, np.random.default_rng(0)) == 0).all()


NAN, INF, RNG = float("nan"), float("inf"), np.random.default_rng(0)
ROWS, Z, Y = np.ones((3, 2)), np.ones((5, 2)), [0, 1, 0, 1, 1]
HOW = {"q": 0.5, "sigma": 1.0, "clip": 1.0, "lr": 0.1, "n_steps": 2, "rng": RNG}


@pytest.mark.parametrize(("call", "said"), [
    (lambda: privacy.private_gradient(ROWS, 0, 1, 3, RNG), "clip=0: expected a finite number > 0"),
    (lambda: privacy.private_gradient(ROWS, INF, 1, 3, RNG), "clip=inf: expected a finite number"),
    (lambda: privacy.private_gradient(ROWS, -1, 1, 3, RNG), "clip=-1"),
    (lambda: privacy.private_gradient(ROWS, 1, NAN, 3, RNG), "sigma=nan: expected a finite number"),
    (lambda: privacy.private_gradient(ROWS, 1, -1, 3, RNG), "sigma=-1"),
    (lambda: privacy.private_gradient(ROWS, 1, 1, 0, RNG), "expected_batch=0: .* > 0"),
    (lambda: privacy.private_gradient([1.0, 2.0], 1, 1, 3, RNG), "per_example.*2-d"),
    (lambda: privacy.private_gradient([[1, NAN]], 1, 1, 3, RNG), "per_example.*got nan at index"),
    (lambda: privacy.private_gradient(ROWS, 1, 1, 3, None), "rng=None: expected Generator"),
    (lambda: privacy.rdp_step(2.5, 0.1, 1), "alpha=2.5: expected a whole number"),
    (lambda: privacy.rdp_step(1, 0.1, 1), "alpha=1: expected a whole number ≥ 2"),
    (lambda: privacy.rdp_step(2, 0, 1), "q=0: expected a finite number > 0 and ≤ 1"),
    (lambda: privacy.rdp_step(2, NAN, 1), "q=nan"),
    (lambda: privacy.rdp_step(2, 0.1, 0), "sigma=0"),
    (lambda: privacy.privacy_spent(0.1, 1, -5, 1e-5), "n_steps=-5: expected a whole number ≥ 0"),
    (lambda: privacy.privacy_spent(0.1, 1, 2.5, 1e-5), "n_steps=2.5"),
    (lambda: privacy.privacy_spent(0.1, 1, 5, NAN), "expected 0 < q"),
    (lambda: privacy.privacy_spent("0.1", 1, 5, 1e-5), "q='0.1': expected a number, got str"),
    (lambda: privacy.privacy_spent(0.1, 1, 5, 1e-5, 1), "largest_order=1"),
    (lambda: privacy.train_private(Z, [0, 1, 2, 1, 1], **HOW), "y.*0 and 1"),
    (lambda: privacy.train_private(Z, [0, 1], **HOW), "equal lengths, got X 5, y 2"),
    (lambda: privacy.train_private(Z, Y, **HOW | {"n_steps": -1}), "n_steps=-1"),
    (lambda: privacy.train_private(Z, Y, **HOW | {"clip": 0}), "clip=0"),
    (lambda: privacy.logistic_gradients([1.0], Z, Y), "one column a weight"),
    (lambda: privacy.public_split(Z, Y, 2, 3, RNG), "expected fewer rows than y has"),
    (lambda: privacy.public_split(Z, Y, 1, 2, RNG), "n_public=1"),
    (lambda: privacy.accusation_rates(Z, Y, 1, **HOW), "n_runs=1: expected a whole number ≥ 2"),
    (lambda: privacy.scrub(None), "text=None: expected str, got NoneType"),
    (lambda: privacy.plant_pii("x", "shoe size", False, RNG), "kind='shoe size': expected one of"),
])
def test_what_makes_no_sense_is_refused_by_name(call, said):
    with pytest.raises((TypeError, ValueError), match=said):
        call()
