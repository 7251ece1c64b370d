"""Fits recover a known truth, agree with numpy and scikit-learn, and refuse what has no answer."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from helpers.foundations import networks, regression

TRUTH = np.array([5.0, -2.0, 0.5, 3.0])


@pytest.fixture
def problem():
    """X (60, 4) with features far from centred, and noisy targets of TRUTH."""
    rng = np.random.default_rng(0)
    X = regression.design_matrix(rng.normal(4, [1, 2, 3], (60, 3)))
    return X, X @ TRUTH + rng.normal(0, 1, 60)


def objective(theta, X, y, lam, free):
    return regression.mse(theta, X, y) + lam * np.sum(theta[free:] ** 2)


@pytest.mark.parametrize(("x", "shape"), [
    ([1, 2, 3], (3, 2)), (np.ones((5, 4)), (5, 5)), (np.empty(0), (0, 2)), ([[7]], (1, 2))])
def test_a_design_matrix_puts_ones_before_the_features(x, shape):
    X = regression.design_matrix(x)
    assert X.shape == shape
    assert X.dtype == np.float64
    assert np.array_equal(X[:, 0], np.ones(len(X)))
    assert np.array_equal(X[:, 1:], np.reshape(x, (shape[0], shape[1] - 1)))


def test_a_design_matrix_needs_one_or_two_dimensions():
    with pytest.raises(ValueError, match=r"design_matrix: x=.* in 1 or 2-d"):
        regression.design_matrix(np.ones((2, 2, 2)))


def test_mse_is_the_mean_of_squared_residuals():
    X = regression.design_matrix([1.0, 2.0])
    assert regression.mse(np.array([0.0, 1.0]), X, np.array([2.0, 5.0])) == (1 + 9) / 2


def test_the_gradient_is_the_slope_of_the_mse_and_does_not_depend_on_repeating_data(problem):
    X, y = problem
    theta, h = np.array([1.0, 2.0, -1.0, 0.3]), 1e-5
    slopes = [(regression.mse(theta + step, X, y) - regression.mse(theta - step, X, y)) / (2 * h)
              for step in h * np.eye(4)]
    assert np.allclose(regression.mse_gradient(theta, X, y), slopes, rtol=1e-6)
    assert np.allclose(regression.mse_gradient(theta, X, y),
                       regression.mse_gradient(theta, np.tile(X, (3, 1)), np.tile(y, 3)))


@pytest.mark.parametrize("solve", [regression.normal_equations, regression.least_squares])
def test_a_fit_agrees_with_lstsq_and_leaves_orthogonal_residuals(problem, solve):
    X, y = problem
    theta = solve(X, y)
    assert np.allclose(theta, np.linalg.lstsq(X, y, rcond=None)[0], rtol=1e-9)
    assert np.allclose(X.T @ (y - X @ theta), 0, atol=1e-8)
    assert np.allclose(regression.mse_gradient(theta, X, y), 0, atol=1e-8)
    assert np.allclose(solve(X, X @ TRUTH), TRUTH)


def test_the_ten_houses_lie_on_a_line_through_the_origin():
    areas = np.arange(100, 1001, 100)
    assert np.allclose(regression.least_squares(regression.design_matrix(areas), 2 * areas),
                       [0, 2], atol=1e-9)


def test_qr_keeps_digits_that_the_normal_equations_lose():
    rng = np.random.default_rng(3)
    z, w = rng.normal(size=(2, 50))
    X, truth = regression.design_matrix(np.column_stack([z, z + 1e-6 * w])), np.ones(3)
    lost = [np.abs(solve(X, X @ truth) - truth).max()
            for solve in (regression.normal_equations, regression.least_squares)]
    assert lost[1] < 1e-8
    assert lost[0] > 1000 * lost[1]


@pytest.mark.parametrize("X", [
    regression.design_matrix(np.ones(5)),                              # a constant feature
    regression.design_matrix(np.outer(np.arange(5), [1, 2])),          # one twice the other
    regression.design_matrix(np.random.default_rng(0).normal(size=(3, 5))),  # n < p
])
def test_dependent_columns_are_refused_unless_a_penalty_decides(X):
    y = np.arange(len(X), dtype=float)
    with pytest.raises(ValueError, match="linearly dependent"):
        regression.least_squares(X, y)
    with pytest.raises(ValueError, match="linearly dependent"):
        regression.ridge(X, y, 0)
    assert np.isfinite(regression.ridge(X, y, 0.1)).all()


def test_a_held_out_set_is_standardised_with_the_reference_alone():
    rng = np.random.default_rng(1)
    x, reference = rng.normal(5, 3, (10, 2)), rng.normal(-2, 9, (40, 2))
    expected = StandardScaler().fit(reference).transform(x)
    assert np.allclose(regression.standardise(x, reference), expected)
    own = regression.standardise(reference, reference)
    assert np.allclose([own.mean(axis=0), own.std(axis=0)], [[0, 0], [1, 1]])


@pytest.mark.parametrize("lam", [1e-3, 1.0, 50.0])
def test_ridge_agrees_with_scikit_learn_with_alpha_n_lambda(problem, lam):
    X, y = problem
    free = Ridge(alpha=len(y) * lam).fit(X[:, 1:], y)
    assert np.allclose(regression.ridge(X, y, lam), [free.intercept_, *free.coef_])
    penalised = Ridge(alpha=len(y) * lam, fit_intercept=False).fit(X, y)
    assert np.allclose(regression.ridge(X, y, lam, penalise_intercept=True), penalised.coef_)


@pytest.mark.parametrize("penalise_intercept", [False, True])
def test_ridge_is_the_lowest_point_of_its_objective(problem, penalise_intercept):
    X, y = problem
    theta, free = regression.ridge(X, y, 2.0, penalise_intercept), int(not penalise_intercept)
    best = objective(theta, X, y, 2.0, free)
    for step in 1e-3 * np.vstack([np.eye(4), -np.eye(4)]):
        assert objective(theta + step, X, y, 2.0, free) > best


def test_ridge_without_penalty_is_least_squares_and_with_a_huge_one_the_mean(problem):
    X, y = problem
    assert np.allclose(regression.ridge(X, y, 0), regression.least_squares(X, y))
    assert np.allclose(regression.ridge(X, y, 1e9), [y.mean(), 0, 0, 0], atol=1e-5)
    assert np.allclose(regression.ridge(X, y, 1e9, penalise_intercept=True), 0, atol=1e-5)


def test_only_with_a_free_intercept_are_the_slopes_blind_to_a_shift_of_the_targets(problem):
    X, y = problem
    shifts = [regression.ridge(X, y + 1000, 1.0, p) - regression.ridge(X, y, 1.0, p)
              for p in (False, True)]
    assert np.allclose(shifts[0], [1000, 0, 0, 0])
    assert np.abs(shifts[1][1:]).max() > 1


def test_the_length_of_the_slopes_falls_with_the_penalty(problem):
    X, y = problem
    lengths = [np.linalg.norm(regression.ridge(X, y, lam)[1:]) for lam in (0, 0.1, 1, 10, 100)]
    assert np.all(np.diff(lengths) < 0)


def test_a_negative_penalty_is_refused(problem):
    with pytest.raises(ValueError, match="lam=-1"):
        regression.ridge(*problem, -1)


def test_shrinkage_factors_turn_the_least_squares_fit_into_ridge(problem):
    X, y = problem
    U = np.linalg.svd(X[:, 1:] - X[:, 1:].mean(axis=0), full_matrices=False)[0]
    factors = regression.shrinkage(X, 3.0)
    assert np.all((factors > 0) & (factors < 1))
    assert np.allclose(X @ regression.ridge(X, y, 3.0), y.mean() + U @ (factors * (U.T @ y)))
    assert np.allclose(regression.shrinkage(X, 0), 1)


def test_shrinkage_of_one_feature_is_the_textbook_ratio():
    X = regression.design_matrix(np.arange(10.0))
    spread = np.sum((np.arange(10.0) - 4.5) ** 2)
    assert np.allclose(regression.shrinkage(X, 0.7), spread / (spread + 10 * 0.7))


AREA = np.arange(100, 1001, 100.0)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def bowl(h):
    """The gradient of ½ Σ h θ²."""
    return lambda theta: np.asarray(h) * theta


def test_descend_keeps_the_start_and_each_step():
    start = np.array([3.0, -1.0])
    path = regression.descend(bowl([1.0, 4.0]), start, 0.1, 30)
    steps = np.arange(31)[:, None]
    np.testing.assert_allclose(path, start * (1 - 0.1 * np.array([1.0, 4.0])) ** steps)
    assert start.tolist() == [3.0, -1.0]


def test_descend_without_steps_stays():
    assert regression.descend(bowl([1.0]), np.array([2.0]), 0.1, 0).tolist() == [[2.0]]


@pytest.mark.parametrize("feature", [AREA, AREA / 1000, (AREA - AREA.mean()) / AREA.std()])
def test_hessian_is_the_derivative_of_the_gradient(feature):
    X = regression.design_matrix(feature)
    columns = [regression.mse_gradient(one, X, AREA) - regression.mse_gradient(np.zeros(2), X, AREA)
               for one in np.eye(2)]
    np.testing.assert_allclose(regression.mse_hessian(X), np.array(columns).T, rtol=1e-9,
                               atol=1e-12)


@pytest.mark.parametrize(("multiple", "shrinks"), [(0.1, True), (0.99, True), (1.01, False)])
def test_the_stability_bound_separates_shrinking_from_growing(rng, multiple, shrinks):
    H = regression.mse_hessian(rng.normal(size=(50, 4)))
    lr = multiple * regression.stability_bound(H)
    end = regression.descend(lambda e: H @ e, np.ones(4), lr, 3000)[-1]
    assert (np.linalg.norm(end) < 2) == shrinks


def test_the_raw_areas_overflow_at_the_articles_rate():
    X = regression.design_matrix(AREA)
    H = regression.mse_hessian(X) / 2  # the article's gradient leaves out the factor 2
    assert regression.stability_bound(H) == pytest.approx(5.19e-6, rel=1e-3)
    with np.errstate(over="ignore", invalid="ignore"):
        half = lambda t: regression.mse_gradient(t, X, 2 * AREA) / 2
        path = regression.descend(half, np.zeros(2), 0.1, 100)
    assert np.isfinite(path[66]).all()
    assert not np.isfinite(path[67:]).all(axis=1).any()


def test_condition_number_of_standardised_features_is_one():
    scaled = regression.design_matrix((AREA - AREA.mean()) / AREA.std())
    assert regression.condition_number(regression.mse_hessian(scaled)) == pytest.approx(1)
    raw = regression.design_matrix(AREA)
    assert regression.condition_number(regression.mse_hessian(raw)) == pytest.approx(
        np.linalg.cond(raw) ** 2)


def test_loss_after_steps_equals_real_steps(rng):
    X, y = rng.normal(size=(30, 3)), rng.normal(size=30)
    best = np.linalg.lstsq(X, y, rcond=None)[0]
    h, V = np.linalg.eigh(regression.mse_hessian(X))
    path = regression.descend(lambda t: regression.mse_gradient(t, X, y), np.ones(3), 0.2, 20)
    expected = [regression.mse(theta, X, y) - regression.mse(best, X, y) for theta in path]
    e = V.T @ (np.ones(3) - best)
    np.testing.assert_allclose(networks.loss_after_steps(np.arange(21), h, e, 0.2), expected,
                               rtol=1e-7, atol=1e-12)
    assert networks.loss_after_steps(7, h, e, 0.2) == pytest.approx(expected[7])


@pytest.mark.parametrize("method", ["momentum", "adam"])
def test_optimisers_equal_torch(rng, method):
    X, y = rng.normal(size=(20, 5)), rng.normal(size=20)
    twin = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    theta, velocity, state = np.zeros(5), np.zeros(5), (0, 0.0, 0.0)
    library = (torch.optim.SGD([twin], lr=0.01, momentum=0.9) if method == "momentum"
               else torch.optim.Adam([twin], lr=0.01, betas=(0.8, 0.99), eps=1e-6))
    for _ in range(100):
        gradient = regression.mse_gradient(theta, X, y)
        if method == "momentum":
            theta, velocity = regression.momentum_step(theta, velocity, gradient, 0.01, 0.9)
        else:
            theta, state = regression.adam_step(theta, state, gradient, 0.01, 0.8, 0.99, 1e-6)
        library.zero_grad()
        ((torch.tensor(X) @ twin - torch.tensor(y)) ** 2).mean().backward()
        library.step()
    np.testing.assert_allclose(theta, twin.detach().numpy(), rtol=1e-10)


def test_adams_first_step_is_the_rate_whatever_the_gradients_size():
    gradient = np.array([1e-3, -1.0, 1e6])
    theta, (step, _, _) = regression.adam_step(np.zeros(3), (0, 0.0, 0.0), gradient, 0.1)
    np.testing.assert_allclose(theta, -0.1 * np.sign(gradient), rtol=1e-4)
    assert step == 1


def test_sgd_on_equal_rows_is_full_descent(rng):
    X, y = np.tile([1.0, 2.0], (6, 1)), np.full(6, 3.0)
    path = regression.sgd(np.zeros(2), X, y, [0.05, 0.1, 0.02], 2, rng)
    theta = np.zeros(2)
    for lr, there in zip([0.05, 0.1, 0.02], path[1:], strict=True):
        theta = theta - lr * regression.mse_gradient(theta, X, y)
        np.testing.assert_allclose(there, theta)


def test_sgd_takes_the_full_step_on_average(rng):
    X, y = rng.normal(size=(40, 2)), rng.normal(size=40)
    first = np.array([regression.sgd(np.ones(2), X, y, [0.1], 5, rng)[1] for _ in range(4000)])
    error = first.mean(axis=0) - (1 - 0.1 * regression.mse_gradient(np.ones(2), X, y))
    assert (abs(error) < 4 * first.std(axis=0) / np.sqrt(4000)).all()


def test_cosine_rises_falls_and_equals_torch():
    assert [regression.cosine(s, 100, 4) for s in range(4)] == [0.25, 0.5, 0.75, 1]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    library = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=96)
    for step in range(4, 100):
        assert regression.cosine(step, 100, 4) == pytest.approx(library.get_last_lr()[0])
        optimizer.step()
        library.step()


def test_loss_with_features_is_the_tail():
    signal = np.array([4.0, 2.0, 1.0])
    assert networks.loss_with_features(np.array([0, 1, 2, 3]), signal).tolist() == [7, 3, 1, 0]
    assert networks.loss_with_features(2, signal) == 1


def test_smallest_fit_is_the_least_norm_solution(rng):
    X, y = rng.normal(size=(4, 9)), rng.normal(size=4)
    np.testing.assert_allclose(networks.smallest_fit(X, y), np.linalg.lstsq(X, y, rcond=None)[0])


def test_enough_samples_leave_no_loss_and_none_of_it_all(rng):
    eigenvalues, signal = np.arange(1, 31) ** -2.0, np.arange(1, 31) ** -1.8
    assert networks.loss_with_samples(30, eigenvalues, signal, rng) < 1e-10
    assert networks.loss_with_samples(0, eigenvalues, signal, rng) == pytest.approx(signal.sum())


@pytest.mark.parametrize(("p", "q"), [(2.0, 1.8), (1.5, 2.2)])
def test_steps_and_features_follow_the_predicted_exponents(p, q):
    i = np.arange(1, 100_001.0)
    x = np.geomspace(100, 10_000, 9).astype(int)
    slope = lambda losses: -np.polyfit(np.log(x), np.log(losses), 1)[0]
    by_steps = networks.loss_after_steps(x, 2 * i**-p, np.sqrt(i ** (p - q)), 0.25)
    assert slope(by_steps) == pytest.approx((q - 1) / p, rel=0.03)
    assert slope(networks.loss_with_features(x, i**-q)) == pytest.approx(q - 1, rel=0.04)


X4, Y4 = np.vander([1.0, 2, 3, 5], 2, increasing=True), np.array([1.0, 3, 2, 5])
HOLED = np.where(np.eye(4, 2, -2) > 0, np.nan, X4)  # nan in row 2, column 0
ZERO2, RNG = np.zeros(2), np.random.default_rng(0)
STATE = (0, 0.0, 0.0)
BAD = {  # call: what the message says
    "design_matrix: x=.* got nan at index 1": lambda: regression.design_matrix([1, np.nan]),
    "design_matrix: .*rows of unequal length": lambda: regression.design_matrix([[1], [1, 2]]),
    r"mse: X=.* got nan at index \(2, 0\)": lambda: regression.mse(ZERO2, HOLED, Y4),
    "mse: theta=.* X of shape": lambda: regression.mse(np.zeros(3), X4, Y4),
    r"mse: y=.* got shape \(4, 1\)": lambda: regression.mse(ZERO2, X4, Y4[:, None]),
    r"mse: X=.* at least 1": lambda: regression.mse(ZERO2, np.empty((0, 2)), []),
    r"mse_gradient: y=.* got shape \(4, 1\)":
        lambda: regression.mse_gradient(ZERO2, X4, Y4[:, None]),
    "mse_gradient: .* X of shape": lambda: regression.mse_gradient(ZERO2, X4, Y4[:1]),
    r"normal_equations: X=.* nan at index \(2, 0\)": lambda: regression.normal_equations(HOLED, Y4),
    "normal_equations: .* independent columns":
        lambda: regression.normal_equations(X4[:, [0, 0]], Y4),
    "normal_equations: expected equal lengths": lambda: regression.normal_equations(X4, Y4[:3]),
    r"least_squares: X=.* nan at index \(2, 0\)": lambda: regression.least_squares(HOLED, Y4),
    "least_squares: y=.* inf at index 3":
        lambda: regression.least_squares(X4, np.append(Y4[:3], np.inf)),
    "least_squares: expected equal lengths": lambda: regression.least_squares(X4, Y4[:1]),
    "ridge: lam=nan": lambda: regression.ridge(X4, Y4, np.nan),
    "ridge: lam=inf": lambda: regression.ridge(X4, Y4, np.inf),
    r"ridge: X=.* nan at index \(2, 0\)": lambda: regression.ridge(HOLED, Y4, 1),
    "ridge: penalise_intercept=2": lambda: regression.ridge(X4, Y4, 1, 2),
    "shrinkage: lam=-1": lambda: regression.shrinkage(X4, -1),
    "shrinkage: .* penalty above 0": lambda: regression.shrinkage(np.ones((4, 2)), 0),
    "standardise: reference=.* column 0 is constant": lambda: regression.standardise(X4, X4),
    "standardise: .* column 1 is constant":
        lambda: regression.standardise(X4, np.c_[Y4, [0.1, 0.1, 0.1, 0.1]]),
    r"standardise: x=.* nan at index \(2, 0\)":
        lambda: regression.standardise(HOLED[:, :1], X4[:, 1:]),
    "standardise: .* the same columns": lambda: regression.standardise(X4, X4[:, 1:]),
    "descend: lr=nan": lambda: regression.descend(bowl([1.0]), [1.0], np.nan, 3),
    "descend: lr=-0.1": lambda: regression.descend(bowl([1.0]), [1.0], -0.1, 3),
    "descend: n_steps=-1": lambda: regression.descend(bowl([1.0]), [1.0], 0.1, -1),
    "descend: n_steps=2.5": lambda: regression.descend(bowl([1.0]), [1.0], 0.1, 2.5),
    "descend: theta=.* nan at index 0": lambda: regression.descend(bowl([1.0]), [np.nan], 0.1, 3),
    "descend: gradient=3": lambda: regression.descend(3, [1.0], 0.1, 3),
    r"gradient: expected shape \(2,\), got \(\)":
        lambda: regression.descend(lambda t: 1.0, [1.0, 2.0], 0.1, 3),
    r"mse_hessian: X=.* nan at index \(2, 0\)": lambda: regression.mse_hessian(HOLED),
    "stability_bound: .* symmetric": lambda: regression.stability_bound([[1, 2], [0, 1]]),
    "stability_bound: .* eigenvalues from -1": lambda: regression.stability_bound(np.diag([1, -1])),
    "stability_bound: .* from 0 to 0": lambda: regression.stability_bound(np.zeros((2, 2))),
    "condition_number: .* positive definite": lambda: regression.condition_number(np.ones((2, 2))),
    "momentum_step: beta=1": lambda: regression.momentum_step(ZERO2, ZERO2, ZERO2, 0.1, 1),
    "momentum_step: beta=-0.5": lambda: regression.momentum_step(ZERO2, ZERO2, ZERO2, 0.1, -0.5),
    "momentum_step: expected equal shapes":
        lambda: regression.momentum_step(ZERO2, ZERO2, ZERO2[:, None], 0.1, 0.5),
    "adam_step: beta1=1.0": lambda: regression.adam_step(ZERO2, STATE, ZERO2, 0.1, 1.0),
    "adam_step: beta2=nan": lambda: regression.adam_step(ZERO2, STATE, ZERO2, 0.1, 0.9, np.nan),
    "adam_step: eps=-1": lambda: regression.adam_step(ZERO2, STATE, ZERO2, 0.1, eps=-1),
    "adam_step: state=None": lambda: regression.adam_step(ZERO2, None, ZERO2, 0.1),
    r"adam_step: state=\(-1": lambda: regression.adam_step(ZERO2, (-1, 0.0, 0.0), ZERO2, 0.1),
    "adam_step: .* averages of theta's shape":
        lambda: regression.adam_step(ZERO2, (1, np.zeros(3), np.zeros(3)), ZERO2, 0.1),
    "adam_step: expected equal shapes": lambda: regression.adam_step(ZERO2, STATE, [[0.0, 0]], 0.1),
    "sgd: batch_size=0": lambda: regression.sgd(ZERO2, X4, Y4, [0.1], 0, RNG),
    "sgd: rates=.* nan at index 1": lambda: regression.sgd(ZERO2, X4, Y4, [0.1, np.nan], 2, RNG),
    r"sgd: rates=0.1.* got shape \(\)": lambda: regression.sgd(ZERO2, X4, Y4, 0.1, 2, RNG),
    "sgd: rng=0": lambda: regression.sgd(ZERO2, X4, Y4, [0.1], 2, 0),
    "cosine: step=-1": lambda: regression.cosine(-1, 10, 2),
    "cosine: step=10.* below n_steps": lambda: regression.cosine(10, 10, 2),
    "cosine: .* below n_steps": lambda: regression.cosine(3, 10, 10),
    "loss_after_steps: steps=-1": lambda: networks.loss_after_steps(-1, [1.0], [1.0], 0.1),
    "loss_after_steps: steps=1.5": lambda: networks.loss_after_steps(1.5, [1.0], [1.0], 0.1),
    "loss_after_steps: expected equal lengths":
        lambda: networks.loss_after_steps(1, [1.0], [1.0, 2.0], 0.1),
    "loss_with_features: N=-1": lambda: networks.loss_with_features(-1, [1.0]),
    "loss_with_features: .* at most the number": lambda: networks.loss_with_features(2, [1.0]),
    "loss_with_features: signal=.* -1.0 at index 0": lambda: networks.loss_with_features(0, [-1.0]),
    "smallest_fit: .* at most as many as columns": lambda: networks.smallest_fit(X4, Y4),
    "smallest_fit: .* independent rows": lambda: networks.smallest_fit(np.ones((2, 3)), [1, 1]),
    "loss_with_samples: D=3.* at most the number":
        lambda: networks.loss_with_samples(3, [1.0, 1], [1.0, 1], RNG),
    "loss_with_samples: eigenvalues=.* 0.0 at index 0":
        lambda: networks.loss_with_samples(1, [0.0], [1.0], RNG),
    "loss_with_samples: expected equal lengths":
        lambda: networks.loss_with_samples(1, [1.0, 1], [1.0], RNG),
}


@pytest.mark.parametrize(("message", "call"), BAD.items(), ids=BAD)
def test_a_bad_argument_is_named_with_its_place_and_what_was_expected(message, call):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


@pytest.mark.parametrize("width", [np.uint8, np.int8, np.int32])
def test_narrow_integers_do_not_wrap(width):
    x, y = np.array([100, 120, 90, 60], width), np.array([50, 100, 20, 90], width)
    X, wide = regression.design_matrix(x), y.astype(float)
    narrow = np.column_stack([np.ones(4, width), x])
    for solve in (regression.least_squares, regression.normal_equations):
        assert np.allclose(solve(narrow, y), solve(X, wide), rtol=1e-9)
    assert np.allclose(regression.mse_hessian(narrow), X.T @ X / 2)
    assert regression.mse(np.zeros(2, width), narrow, y) == np.mean(wide**2)
    assert np.allclose(regression.mse_gradient(np.zeros(2, width), narrow, y), -X.T @ wide / 2)
    assert np.allclose(regression.standardise(x[:, None], x[:, None]).std(), 1)
    assert np.allclose(networks.loss_with_features(0, y), wide.sum())


def test_a_path_that_left_the_finite_numbers_goes_on():
    gone = np.array([np.nan, np.inf])
    with np.errstate(invalid="ignore"):
        assert np.isnan(regression.mse(gone, X4, Y4))
        assert np.isnan(regression.mse_gradient(gone, X4, Y4)).all()
        assert np.isnan(regression.adam_step(gone, STATE, gone, 0.1)[0]).all()
        assert np.isnan(regression.momentum_step(gone, gone, gone, 0.1, 0.5)[0]).all()


def test_lists_are_as_good_as_arrays():
    theta = regression.ridge(X4.tolist(), Y4.tolist(), 0)
    assert np.allclose(theta, np.linalg.lstsq(X4, Y4, rcond=None)[0])
    assert regression.mse(theta.tolist(), X4.tolist(), Y4.tolist()) == regression.mse(theta, X4, Y4)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.integers(3, 30), st.integers(1, 3), st.floats(1e-3, 1e3),
       st.floats(1e-3, 1e3))
def test_every_fit_is_where_its_gradient_is_zero_whatever_the_units(seed, n, d, unit, lam):
    rng = np.random.default_rng(seed)
    X = regression.design_matrix(unit * rng.normal(size=(n + d, d)))
    y = rng.normal(size=n + d)
    theta, shrunk = regression.least_squares(X, y), regression.ridge(X, y, lam * unit**2)
    size = np.abs(X).max(axis=0)
    assert np.allclose(X.T @ (X @ theta - y) / size, 0, atol=1e-8 * n)
    penalty = np.append(0, 2 * lam * unit**2 * shrunk[1:])
    assert np.allclose((regression.mse_gradient(shrunk, X, y) + penalty) / size, 0, atol=1e-8)
    assert regression.mse(theta, X, y) <= regression.mse(shrunk, X, y) * (1 + 1e-9)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(-1, 30), st.integers(-1, 30), st.integers(-1, 30))
def test_a_schedule_is_a_share_of_its_peak_or_a_refusal(step, n_steps, warmup_steps):
    if 0 <= step < n_steps and 0 <= warmup_steps < n_steps:
        assert 0 < regression.cosine(step, n_steps, warmup_steps) <= 1
    else:
        with pytest.raises(ValueError, match="cosine: "):
            regression.cosine(step, n_steps, warmup_steps)
