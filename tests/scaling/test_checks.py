"""What the fits accept: valid input of any kind gives the same law, the rest is refused by name."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.scaling import checks, fits, solvers

LAW = fits.Parametric(1.69, 406.4, 410.7, 0.34, 0.28, objective=0.0)
RNG = np.random.default_rng(0)
N, D = np.exp(RNG.uniform(11.5, 20.7, 12)), np.exp(RNG.uniform(16, 25, 12))
LOSS = LAW.predict(N, D) * np.exp(0.003 * RNG.normal(size=12))
few = settings(max_examples=40, deadline=None, derandomize=True)
positive = st.floats(1e-3, 1e3)
ROW = "holds values that are not positive and finite: "
NO_NUMBERS = (math.nan, math.inf, -1.0, 0.0)
FITS = {
    "power law": lambda a, b, c: fits.fit_power_law(a, c),
    "offset": lambda a, b, c: fits.fit_power_law_offset(a, c),
    "isoflop": lambda a, b, c: fits.isoflop(a, c),
    "envelope": lambda a, b, c: fits.envelope(b, c, a, [1e9]),
    "kaplan": fits.fit_kaplan,
    "law": fits.fit_parametric,
    "bootstrap": lambda a, b, c: fits.bootstrap_parametric(a, b, c, 10),
}


@few
@given(x=st.lists(positive, min_size=3, max_size=9, unique=True), scale=positive,
       exponent=st.floats(-2, 2).filter(lambda v: abs(v) > 0.01))
def test_an_exact_power_law_is_found_from_any_points(x, scale, exponent):
    if max(x) / min(x) < 1.1:
        return
    fit = fits.fit_power_law(x, scale * np.array(x) ** -exponent)
    assert fit.exponent == pytest.approx(exponent, rel=1e-5, abs=1e-6)
    assert fit.predict(x) == pytest.approx(scale * np.array(x) ** -exponent, rel=1e-6)


@few
@given(C=st.floats(1e12, 1e28), factor=st.floats(0.2, 5), E=st.floats(0, 3),
       alpha=st.floats(0.1, 1), beta=st.floats(0.1, 1))
def test_an_allocation_is_the_least_loss_of_its_budget(C, factor, E, alpha, beta):
    law = fits.Parametric(E, 400.0, 400.0, alpha, beta, objective=0.0)
    N_opt, D_opt = law.allocate(C)
    assert 6 * N_opt * D_opt == pytest.approx(C)
    assert law.predict(N_opt, D_opt) <= law.predict(N_opt * factor, D_opt / factor) * (1 + 1e-12)


@few
@given(middle=st.floats(1e4, 1e9), width=st.floats(1.5, 50), bend=st.floats(0.01, 2))
def test_isoflop_finds_any_valley(middle, width, bend):
    sizes = middle * np.geomspace(1 / width, 2 * width, 6)
    valley = fits.isoflop(sizes, 2 + bend * np.log(sizes / middle) ** 2)
    assert (valley.N_opt, valley.loss) == pytest.approx((middle, 2), rel=1e-4)
    assert not valley.edge


@few
@given(residual=st.lists(st.floats(-1e6, 1e6), min_size=1), delta=st.floats(1e-6, 1e6))
def test_huber_never_exceeds_either_of_its_parts(residual, delta):
    found, size = fits.huber(residual, delta), np.abs(residual)
    assert (found <= size**2 / 2 * (1 + 1e-9)).all()
    assert (found <= delta * size * (1 + 1e-9)).all()
    assert np.array_equal(fits.huber(residual, math.inf), size**2 / 2)


@few
@given(rows=st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=50),
       level=st.floats(0.01, 0.99))
def test_percentiles_lie_in_order_among_the_rows(rows, level):
    low, high = fits.percentiles(rows, level)
    assert min(rows) <= low <= high <= max(rows)


@few
@given(at=st.integers(0, 11), bad=st.sampled_from(NO_NUMBERS), fit=st.sampled_from([*FITS]))
def test_a_bad_value_is_named_with_its_row(at, bad, fit):
    spoiled = LOSS.copy()
    spoiled[at] = bad
    with pytest.raises(ValueError, match=rf"{ROW}\w+\[{at}\] = "):
        FITS[fit](N, D, spoiled)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("bad", [list("abcdefghijkl"), ["3.1"] * 12, [None] * 12, [3j] * 12,
                                 LOSS[:11], LOSS[0], LOSS[:, None], [[3.0], [3.0, 2.0]], [], "3.1"])
def test_what_is_no_column_of_numbers_is_refused(fit, bad):
    with pytest.raises((ValueError, TypeError), match=r"loss|y"):
        FITS[fit](N, D, bad)


@pytest.mark.parametrize(("name", "bad"), [
    ("weights", [1.0] * 11), ("weights", [1.0] * 11 + [math.nan]), ("weights", np.ones((12, 1))),
    ("weights", ["1"] * 12), ("groups", [*"abcdefghijk", None]), ("groups", "a"),
    ("groups", np.array([*range(11), "a"], object)), ("groups", [math.nan, *range(11)]),
    ("groups", np.arange(24).reshape(12, 2)),
    ("n_resamples", 0), ("n_resamples", -5), ("n_resamples", 2.5), ("n_resamples", True),
    ("seed", -1), ("seed", 1.5), ("seed", None), ("delta", 0)])
def test_a_bootstrap_refuses_what_it_cannot_draw(name, bad):
    with pytest.raises((ValueError, TypeError), match=name):
        fits.bootstrap_parametric(N, D, LOSS, **{name: bad})


MANY = fits.Bootstrap(*(np.full(5, v) for v in (1.69, 406.4, 410.7, 0.34, 0.28)), 5)


@pytest.mark.parametrize("law", [LAW, MANY, fits.Kaplan(1e13, 1e13, 0.1, 0.1, 0.0)])
@pytest.mark.parametrize("bad", [0, -1e9, math.nan, math.inf, "1e9", None, [1e9, math.nan], 1j])
def test_a_law_refuses_sizes_and_budgets_that_cannot_be(law, bad):
    calls = [lambda: law.predict(bad, 1e9), lambda: law.predict(1e9, bad)]
    if law is not MANY and isinstance(law, fits.Parametric):
        calls += [lambda: law.allocate(bad), lambda: law.tokens_per_parameter(bad)]
    for call in calls:
        with pytest.raises((ValueError, TypeError), match=r"[a-z_]+: [NDC]="):
            call()


@pytest.mark.parametrize(("call", "name"), [
    (lambda: MANY.interval("gamma"), "name"), (lambda: MANY.interval("E", 1), "level"),
    (lambda: MANY.interval("E", 0), "level"), (lambda: MANY.interval("E", math.nan), "level"),
    (lambda: MANY.interval("n_resamples"), "name"),
    (lambda: MANY.allocate_interval(-1), "C"), (lambda: MANY.allocate_interval(1e20, 95), "level"),
    (lambda: MANY.predict_interval(1e9, 1e9, -1), "noise"),
    (lambda: MANY.predict_interval(1e9, 1e9, math.nan), "noise"),
    (lambda: MANY.predict_interval(1e9, 1e9, 0, -1), "seed"),
    (lambda: MANY.predict_interval([1e9, 1e9], [1e9] * 3), "shapes that fit"),
    (lambda: fits.percentiles([]), "values"), (lambda: fits.percentiles(3.0), "rows"),
    (lambda: fits.percentiles([1, math.nan]), "values"),
    (lambda: fits.Parametric(1, 2, 3, -0.3, 0.3, 0.0), "alpha"),
    (lambda: fits.Parametric(-1, 2, 3, 0.3, 0.3, 0.0), "E"),
    (lambda: fits.Parametric(1, math.nan, 3, 0.3, 0.3, 0.0), "A"),
    (lambda: fits.Bootstrap([1.0], [1.0], [1.0], [1.0], [1.0, 2.0], 2), "beta"),
    (lambda: fits.Bootstrap([], [], [], [], [], 2), "E"),
    (lambda: fits.Bootstrap([1.0] * 3, *([[1.0] * 3] * 4), 2), "resamples"),
    (lambda: fits.parametric_loss(0, 1e9, 1, 2, 3, 0.3, 0.3), "N"),
    (lambda: fits.parametric_loss(1e9, 1e9, 1, 2, 3, math.nan, 0.3), "alpha"),
    (lambda: fits.kaplan_loss(1e9, 1e9, 1, 0, 0.1, 0.1), "D_c"),
    (lambda: fits.huber(1.0, 0), "delta"), (lambda: fits.huber("a", 1.0), "residual"),
    (lambda: fits.parabola([1, 2], [1, 2]), "3 different"),
    (lambda: fits.parabola([1, 2, 2], [1, 2, 3]), "3 different"),
    (lambda: fits.parabola([1, 2, 3], [1, 2, math.nan]), "loss"),
    (lambda: fits.project(0.3, [0.3], N, D, LOSS), "equal shapes"),
    (lambda: fits.project(0.3, 0.3, N, D, LOSS[:5]), "equal lengths"),
    (lambda: fits.objective([1.0] * 4, N, D, LOSS), "five parameters"),
    (lambda: fits.envelope([1, 2, 3], [3, 2, 1], [5, 5, 5], [0.0]), "budgets"),
    (lambda: fits.envelope([1, 2, 2], [3, 2, 1], [5, 5, 5], [1.5]), "5 has two losses at C = 2"),
    (lambda: fits.seed_noise([0, 0, None], [1, 1, 1]), "groups"),
    (lambda: fits.seed_noise([0, 0, 1], [1, math.nan, 1]), "log_loss"),
    (lambda: fits.seed_noise([0, 0], [1, 1, 1]), "groups"),
    (lambda: solvers.draw(12, 0, RNG), "n_resamples"),
    (lambda: checks.runs(N, D, LOSS, 0), "least"),
])
def test_an_argument_that_cannot_be_meant_is_named(call, name):
    with pytest.raises((ValueError, TypeError), match=name):
        call()


def test_numbers_of_every_type_give_one_answer():
    for C in (10**21, np.float32(1e21), np.array(1e21)):
        assert LAW.allocate(C)[0] == pytest.approx(LAW.allocate(1e21)[0], rel=1e-6)
    assert LAW.allocate([10**21, 10**22])[0].shape == (2,)
    groups = fits.seed_noise(list("aabb"), [1, 2, 3, 5])[0]
    assert groups == fits.seed_noise([7, 7, 9, 9], np.array([1, 2, 3, 5], np.uint8))[0]
    assert fits.isoflop([10**6, 10**7, 10**8], [3, 2, 3]).N_opt == pytest.approx(1e7)
