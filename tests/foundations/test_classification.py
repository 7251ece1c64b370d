"""Losses, fits, counts, curves and intervals agree with libraries, closed forms and simulation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression

from helpers.foundations import classification as c
from helpers.foundations.regression import design_matrix


def problem(seed=0, n=300, d=4):
    """X (n, 1 + d) and labels (n,) drawn from a logistic model."""
    rng = np.random.default_rng(seed)
    X = design_matrix(rng.normal(1, 2, (n, d)))
    return X, (rng.random(n) < c.sigmoid(X @ rng.normal(0, 0.7, d + 1))).astype(float)


def scores(seed, n=200, decimals=8):
    """Labels and noisy scores; few decimals make ties."""
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=n)
    return y, np.round(rng.normal(y, 1.0), decimals)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("z", "expected"), [
    (0.0, 0.5), (np.log(3), 0.75), (-800.0, 0.0), (1e300, 1.0), (-1e300, 0.0),
    (np.inf, 1.0), (-np.inf, 0.0)])
def test_sigmoid_is_right_at_any_size(z, expected):
    assert np.isclose(c.sigmoid(z), expected, rtol=1e-12, atol=0)


def test_sigmoid_keeps_the_digits_of_tiny_probabilities():
    z = np.array([-700.0, -40.0, -3.0, 5.0])
    assert np.allclose(c.sigmoid(z), torch.sigmoid(torch.tensor(z)).numpy(), rtol=1e-12, atol=0)


def test_cross_entropy_of_a_coin_is_one_bit_and_a_confident_mistake_costs_its_logit():
    assert np.isclose(c.cross_entropy(np.zeros(4), np.array([0, 1, 1, 0])) / np.log(2), 1)
    assert c.cross_entropy(np.array([1000.0]), np.array([0])) == 1000
    assert c.cross_entropy(np.array([1000.0]), np.array([1])) == 0


@pytest.mark.parametrize("shape", [(7,), (5, 3)])
def test_cross_entropy_and_its_gradient_agree_with_autograd(shape):
    rng = np.random.default_rng(1)
    z, y = rng.normal(0, 4, shape), rng.random(shape)  # probabilities as labels too
    z_torch = torch.tensor(z, requires_grad=True)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(z_torch, torch.tensor(y))
    loss.backward()
    assert np.isclose(c.cross_entropy(z, y), loss.item(), rtol=1e-12)
    assert np.allclose(c.cross_entropy_gradient(z, y), z_torch.grad, rtol=1e-10)


@pytest.mark.parametrize("f", [c.cross_entropy, c.cross_entropy_gradient])
def test_unequal_shapes_are_refused_instead_of_broadcast(f):
    with pytest.raises(ValueError, match=r"logits \(5, 1\), labels \(5,\)"):
        f(np.zeros((5, 1)), np.zeros(5))


@pytest.mark.parametrize("lam", [1e-3, 0.1, 10.0])
def test_the_penalised_fit_agrees_with_scikit_learn(lam):
    X, y = problem()
    theta = c.logistic_regression(X, y, lam)
    library = LogisticRegression(C=1 / (2 * len(y) * lam), tol=1e-12, max_iter=10_000)
    library.fit(X[:, 1:], y)
    assert np.allclose(theta, [*library.intercept_, *library.coef_[0]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(40))
def test_the_fit_without_penalty_ends_where_the_gradient_is_zero(seed):
    X, y = problem(seed, n=1000, d=5)
    theta = c.logistic_regression(X, y)
    assert np.abs(X.T @ c.cross_entropy_gradient(X @ theta, y)).max() < 1e-9
    assert np.isclose(c.sigmoid(X @ theta).mean(), y.mean())


def test_the_intercept_is_not_penalised():
    y = np.array([1.0] * 9 + [0.0])
    theta = c.logistic_regression(design_matrix(np.zeros(10)), y, lam=100.0)
    assert np.allclose(theta, [np.log(9), 0])


def test_a_fit_far_from_its_start_still_arrives():
    X, y = problem(3)
    X = X * np.array([1, 1e3, 1e-3, 1, 1])
    theta = c.logistic_regression(X, y)
    assert np.allclose(X @ theta, problem(3)[0] @ c.logistic_regression(problem(3)[0], y))


def test_separable_classes_have_no_fit_without_a_penalty():
    X, y = design_matrix(np.arange(10.0)), (np.arange(10) > 4).astype(float)
    with pytest.raises(ValueError, match="a line separates the classes"):
        c.logistic_regression(X, y)
    assert np.isfinite(c.logistic_regression(X, y, 1e-6)).all()


@pytest.mark.parametrize(("x", "y"), [
    ([0, 0, 1, 2], [0, 1, 1, 1]), ([-4, -3, 0.5, 0.5, 0.5, 2, 5], [0, 0, 1, 0, 0, 1, 1])])
def test_both_classes_on_the_separating_line_itself_do_not_make_a_fit(x, y):
    X, y = design_matrix(np.array(x, float)), np.array(y, float)
    with pytest.raises(ValueError, match="a line separates the classes"):
        c.logistic_regression(X, y)
    assert np.isfinite(c.logistic_regression(X, y, 1e-4)).all()


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_alone_has_no_fit_without_a_penalty(label):
    with pytest.raises(ValueError, match="a line separates the classes"):
        c.logistic_regression(design_matrix(np.arange(5.0)), np.full(5, label))


def test_one_mixed_example_among_separated_ones_is_fitted():
    X = design_matrix(np.array([-30.0, -2, -1, 0, 1, 2, 30]))
    y = np.array([0.0, 0, 1, 0, 1, 1, 1])
    theta = c.logistic_regression(X, y)
    assert np.abs(X.T @ c.cross_entropy_gradient(X @ theta, y)).max() < 1e-9


def test_linearly_dependent_columns_need_a_penalty():
    X, y = problem()
    X = np.column_stack([X, np.zeros(len(X))])
    with pytest.raises(ValueError, match="expected linearly independent columns, or lam > 0"):
        c.logistic_regression(X, y)
    assert np.isfinite(c.logistic_regression(X, y, 1e-3)).all()


def test_separation_is_named_as_soon_as_all_are_right_not_when_the_steps_run_out():
    X, y = design_matrix(np.arange(10.0)), (np.arange(10) > 4).astype(float)
    with pytest.raises(ValueError, match="a line separates the classes"):
        c.logistic_regression(X, y, n_steps=6)


def test_a_step_that_would_land_higher_is_halved():
    rng = np.random.default_rng(238)
    X = design_matrix(rng.standard_t(1, size=(40, 4)))  # a few huge features: Newton overshoots
    y = (rng.random(40) < c.sigmoid(X @ rng.normal(0, 3, 5))).astype(float)
    theta = c.logistic_regression(X, y, 1e-6)
    penalty = np.append(0, np.full(4, 2e-6))
    assert np.abs(X.T @ c.cross_entropy_gradient(X @ theta, y) + penalty * theta).max() < 1e-9


def test_too_few_steps_are_reported():
    with pytest.raises(ValueError, match="not zero after 2 steps"):
        c.logistic_regression(*problem(), n_steps=2)


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 30), (30, 30), (7, 12), (980, 1000)])
def test_wilson_agrees_with_scipy_and_stays_within_0_and_1(k, n):
    low, high = c.wilson_interval(k, n, c=1.959963984540054)
    assert np.allclose((low, high), binomtest(k, n).proportion_ci(method="wilson"))
    assert -1e-12 <= low < high <= 1 + 1e-12


def test_both_intervals_take_arrays_and_are_symmetric_under_swapping_success_and_failure():
    k = np.arange(11)
    for interval in (c.wald_interval, c.wilson_interval):
        low, high = interval(k, 10)
        assert np.allclose(low, 1 - high[::-1])


def test_simulated_coverage_of_wilson_is_near_95_percent_where_wald_fails():
    k = np.random.default_rng(0).binomial(50, 0.98, 4000)
    covered = {f: np.mean((f(k, 50)[0] <= 0.98) & (f(k, 50)[1] >= 0.98))
               for f in (c.wald_interval, c.wilson_interval)}
    assert covered[c.wilson_interval] > 0.9
    assert covered[c.wald_interval] < 0.7


@pytest.mark.parametrize("seed", range(5))
def test_counts_and_their_shares_agree_with_scikit_learn(seed):
    y, score = scores(seed)
    guess = score > 0.3
    assert np.array_equal(c.confusion_matrix(y, guess), metrics.confusion_matrix(y, guess))
    assert np.allclose(c.precision_recall_f1(y, guess),
                       [f(y, guess) for f in (metrics.precision_score, metrics.recall_score,
                                              metrics.f1_score)])


def test_counts_of_one_class_keep_their_place_and_empty_input_counts_nothing():
    assert c.confusion_matrix([1, 1], [1, 1]).tolist() == [[0, 0], [0, 2]]
    assert c.confusion_matrix([], []).tolist() == [[0, 0], [0, 0]]


def test_a_share_of_nothing_is_nan():
    precision, recall, f1 = c.precision_recall_f1([0, 1], [0, 0])
    assert np.isnan(precision)
    assert recall == f1 == 0
    assert np.isnan(c.precision_recall_f1([0], [0])).all()


def test_a_confusion_matrix_refuses_unequal_shapes():
    with pytest.raises(ValueError, match="of one shape"):
        c.confusion_matrix(np.zeros((3, 1)), np.zeros(3))


def test_a_confusion_matrix_refuses_probabilities_and_other_labels():
    for y, predicted in (([0, 1], [0.2, 0.7]), ([-1, 1], [0, 1]), ([0, 2], [0, 1])):
        with pytest.raises(ValueError, match="only 0 and 1"):
            c.confusion_matrix(y, predicted)


@pytest.mark.parametrize("f", [c.roc_curve, c.roc_auc_score])
@pytest.mark.parametrize("labels", [[], [0, 0, 0], [1, 1, 1]])
def test_a_missing_class_is_refused_instead_of_nan(f, labels):
    with pytest.raises(ValueError, match="expected both classes"):
        f(np.array(labels, float), np.arange(float(len(labels))))


@pytest.mark.filterwarnings("error")
def test_infinite_scores_tie_like_others():
    y, score = np.array([0, 1, 0, 1, 1]), np.array([np.inf, np.inf, -np.inf, -np.inf, 0.0])
    fpr, tpr, _ = c.roc_curve(y, score)
    assert np.allclose(fpr, [0, 1 / 2, 1 / 2, 1])
    assert np.allclose(tpr, [0, 1 / 3, 2 / 3, 1])
    assert np.isclose(c.roc_auc_score(y, score), np.trapezoid(tpr, fpr))


@pytest.mark.parametrize("decimals", [8, 1, 0])
@pytest.mark.parametrize("seed", range(3))
def test_roc_and_auc_agree_with_scikit_learn_with_and_without_ties(seed, decimals):
    y, score = scores(seed, decimals=decimals)
    ours, reference = c.roc_curve(y, score), metrics.roc_curve(y, score, drop_intermediate=False)
    assert all(map(np.allclose, ours, reference))
    auc = c.roc_auc_score(y, score)
    assert np.isclose(auc, metrics.roc_auc_score(y, score))
    assert np.isclose(auc, np.trapezoid(ours[1], ours[0]))
    assert np.isclose(c.roc_auc_score(y, -score), 1 - auc)
    assert np.isclose(c.roc_auc_score(y, np.exp(score)), auc)


@pytest.mark.parametrize(("score", "auc"), [([1, 2], 1), ([2, 1], 0), ([1, 1], 0.5)])
def test_auc_of_two_examples(score, auc):
    assert c.roc_auc_score(np.array([0, 1]), np.array(score)) == auc


@pytest.mark.parametrize("n_bins", [1, 5, 10])
def test_the_calibration_curve_agrees_with_scikit_learn(n_bins):
    rng = np.random.default_rng(2)
    p = rng.random(500) ** 2
    y = (rng.random(500) < p).astype(float)
    happened, predicted, count = c.calibration_curve(y, p, n_bins)
    assert np.allclose((happened, predicted), calibration_curve(y, p, n_bins=n_bins))
    assert count.sum() == 500


def test_empty_bins_are_left_out_and_edges_belong_somewhere():
    happened, predicted, count = c.calibration_curve(np.array([0.0, 1, 1]), np.array([0.0, 1, 1]))
    assert (happened.tolist(), predicted.tolist(), count.tolist()) == ([0, 1], [0, 1], [1, 2])


def test_a_probability_on_an_edge_belongs_to_the_bin_above():
    _, predicted, count = c.calibration_curve(np.zeros(3), np.array([0.2, 0.5, 0.7]), n_bins=2)
    assert np.allclose(predicted, [0.2, 0.6])
    assert count.tolist() == [1, 2]


@pytest.mark.parametrize("p", [[0.5, 1.5], [-0.1, 0.5], [np.nan, 0.5]])
def test_a_calibration_curve_refuses_what_is_no_probability(p):
    with pytest.raises(ValueError, match="between 0 and 1"):
        c.calibration_curve(np.zeros(2), np.array(p))


def test_calibration_error_weighs_each_bin_with_its_count():
    y, p = np.array([1.0, 0, 0, 0]), np.array([0.95, 0.25, 0.25, 0.25])
    assert np.isclose(c.expected_calibration_error(y, p), (0.05 + 3 * 0.25) / 4)


def test_calibration_error_is_near_zero_for_true_probabilities_and_grows_with_sharpened_ones():
    rng = np.random.default_rng(4)
    z = rng.normal(0, 1.5, 40_000)
    y = (rng.random(40_000) < c.sigmoid(z)).astype(float)
    errors = [c.expected_calibration_error(y, c.sigmoid(scale * z)) for scale in (1, 2, 4)]
    assert errors[0] < 0.01 < 0.08 < errors[1] < errors[2]


def test_calibration_error_by_hand():
    assert c.expected_calibration_error(np.array([1.0, 0, 0, 0]), np.full(4, 0.75)) == 0.5


Y4, S4 = np.array([0, 1, 0, 1]), np.array([0.1, 0.9, 0.3, 0.4])
NAN4, X4 = np.array([0.1, np.nan, 0.3, np.nan]), design_matrix([1.0, 2, 3, 4])
once = settings(max_examples=40, deadline=None, derandomize=True)


def test_scores_in_narrow_integers_do_not_wrap():
    fpr, tpr, thresholds = c.roc_curve([0, 1, 0, 1], np.array([0, 200, 30, 90], np.uint8))
    assert fpr.tolist() == [0, 0, 0, 0.5, 1]
    assert tpr.tolist() == [0, 0.5, 1, 1, 1]
    assert thresholds.tolist() == [np.inf, 200, 90, 30, 0]
    assert c.roc_auc_score(np.array([0, 1, 0, 1], np.uint8), [0, 200, 30, 90]) == 1
    assert c.wilson_interval(np.uint8(200), np.uint8(250)) == c.wilson_interval(200, 250)
    assert c.wald_interval(np.uint8(200), np.uint8(250)) == c.wald_interval(200, 250)
    assert c.cross_entropy(np.array([200], np.uint8), np.array([0], np.uint8)) == 200


SCORED = (c.roc_curve, c.roc_auc_score)
BINNED = (c.calibration_curve, c.expected_calibration_error)
COUNTED = (c.confusion_matrix, c.precision_recall_f1)


@pytest.mark.parametrize("f", SCORED)
def test_a_score_that_is_not_a_number_is_refused_with_its_place(f):
    with pytest.raises(ValueError, match=f"{f.__name__}: score=.* got nan at index 1"):
        f([0, 1, 0, 1], NAN4)


@pytest.mark.parametrize("f", [*SCORED, *BINNED, *COUNTED])
@pytest.mark.parametrize("labels", [[0, 2, 0, 1], [-1, 1, -1, 1], [0, 0.5, 0, 1], [0, np.nan, 0, 1],
                                    list("0101"), [0, 1, 0, None]])
def test_labels_other_than_0_and_1_are_refused_everywhere(f, labels):
    with pytest.raises((ValueError, TypeError), match=f"{f.__name__}: y=.*only 0 and 1"):
        f(labels, [1, 0, 0, 1])
    with pytest.raises((ValueError, TypeError), match=r"logistic_regression: y=.*only 0 and 1"):
        c.logistic_regression(X4, labels, 1)


@pytest.mark.parametrize("f", [*SCORED, *BINNED])
@pytest.mark.parametrize("second", [[0.1, 0.9, 0.3], np.full((4, 1), 0.5), 0.5])
def test_a_label_without_its_score_is_refused(f, second):
    with pytest.raises(ValueError, match=f"{f.__name__}: .*(equal lengths|in 1-d)"):
        f(Y4, second)


@pytest.mark.parametrize(("message", "call"), [
    ("sigmoid: z=nan", lambda: c.sigmoid(np.nan)),
    ("cross_entropy: y=.*≥ 0 and ≤ 1, got 2.0 at index 3",
     lambda: c.cross_entropy(S4, [0, 1, 1, 2])),
    ("cross_entropy_gradient: y=.* got -1.0", lambda: c.cross_entropy_gradient(S4, [0, 1, 1, -1])),
    ("cross_entropy: z=.* nan at index 1", lambda: c.cross_entropy(NAN4, Y4)),
    ("cross_entropy: z=.* inf at index 0", lambda: c.cross_entropy([np.inf], [0])),
    ("cross_entropy: z=.* at least 1", lambda: c.cross_entropy([], [])),
    ("cross_entropy_gradient: z=.* at least 1", lambda: c.cross_entropy_gradient([], [])),
    (r"logistic_regression: X=.* nan at index \(1, 0\)",
     lambda: c.logistic_regression(NAN4[:, None], Y4)),
    ("logistic_regression: lam=-1", lambda: c.logistic_regression(X4, Y4, -1)),
    ("logistic_regression: lam=nan", lambda: c.logistic_regression(X4, Y4, np.nan)),
    ("logistic_regression: n_steps=-1", lambda: c.logistic_regression(X4, Y4, 1, -1)),
    ("logistic_regression: n_steps=1.5", lambda: c.logistic_regression(X4, Y4, 1, 1.5)),
    (r"logistic_regression: y=.* \(4, 1\)", lambda: c.logistic_regression(X4, Y4[:, None])),
    ("logistic_regression: expected equal", lambda: c.logistic_regression(X4, Y4[:3])),
    ("wald_interval: k=.*k at most n", lambda: c.wald_interval(11, 10)),
    ("wilson_interval: k=.*k at most n", lambda: c.wilson_interval([1, 11], 10)),
    ("wilson_interval: n=0", lambda: c.wilson_interval(0, 0)),
    ("wald_interval: n=0", lambda: c.wald_interval(0, 0)),
    ("wilson_interval: k=-1", lambda: c.wilson_interval(-1, 10)),
    ("wilson_interval: k=2.5: expected whole", lambda: c.wilson_interval(2.5, 10)),
    ("wilson_interval: k=.*nan", lambda: c.wilson_interval(np.nan, 10)),
    ("wilson_interval: c=-1", lambda: c.wilson_interval(1, 10, -1)),
    ("wald_interval: c=nan", lambda: c.wald_interval(1, 10, np.nan)),
    ("wilson_interval: .* equal shapes", lambda: c.wilson_interval([[1], [2]], [10, 20])),
    ("confusion_matrix: predicted=.* got 0.5", lambda: c.confusion_matrix([0], [0.5])),
    ("precision_recall_f1: .* one shape", lambda: c.precision_recall_f1([0, 1], [1])),
    ("confusion_matrix: .* one-dim", lambda: c.confusion_matrix([[0, 1]], [[0, 1]])),
    ("calibration_curve: n_bins=0", lambda: c.calibration_curve(Y4, S4, 0)),
    ("expected_calibration_error: n_bins=-3", lambda: c.expected_calibration_error(Y4, S4, -3)),
    ("expected_calibration_error: n_bins=2.5", lambda: c.expected_calibration_error(Y4, S4, 2.5)),
    ("expected_calibration_error: p=.* at least 1", lambda: c.expected_calibration_error([], [])),
    ("expected_calibration_error: p=.*not logits.* nan at index 1",
     lambda: c.expected_calibration_error(Y4, NAN4)),
])
def test_a_bad_argument_is_named_with_its_place_and_what_was_expected(message, call):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_lists_tensors_and_bools_are_as_good_as_arrays():
    y = torch.tensor([0, 1, 0, 1])
    assert c.roc_auc_score(y, S4.tolist()) == 1
    assert c.confusion_matrix(Y4 > 0, y).tolist() == [[2, 0], [0, 2]]
    assert c.expected_calibration_error(Y4.tolist(), [0.0, 1, 0, 1]) == 0
    assert np.allclose(c.logistic_regression(X4.tolist(), Y4 > 0, 0.1),
                       c.logistic_regression(X4, Y4.astype(float), 0.1))


@once
@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2, max_size=30))
def test_any_scores_give_rates_within_0_and_1_and_the_share_of_ordered_pairs(pairs):
    y, score = np.array(pairs).T
    if not 0 < y.sum() < len(y):
        with pytest.raises(ValueError, match=r"roc_auc_score: .*both classes"):
            c.roc_auc_score(y, score)
        return
    fpr, tpr, thresholds = c.roc_curve(y, score)
    for rate in (fpr, tpr):
        assert rate[0] == 0
        assert rate[-1] == 1
        assert (np.diff(rate) >= 0).all()
    assert (np.diff(thresholds) < 0).all()
    higher = np.sign(score[y == 1][:, None] - score[y == 0])
    assert np.isclose(c.roc_auc_score(y, score), np.mean(higher + 1) / 2)


@once
@given(st.integers(1, 10**6), st.floats(0, 1), st.floats(0, 5))
def test_both_intervals_hold_the_share_that_was_seen(n, share, width):
    k = round(share * n)
    for interval in (c.wald_interval, c.wilson_interval):
        low, high = interval(k, n, width)
        assert low - 1e-12 <= k / n <= high + 1e-12


@once
@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(0, 1)), min_size=1, max_size=20))
def test_no_labels_cost_less_than_their_own_entropy(pairs):
    z, y = np.array(pairs).T
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.nansum(y * np.log(y) + (1 - y) * np.log1p(-y)) / len(y)
    assert c.cross_entropy(z, y) >= entropy * (1 - 1e-9) - 1e-9
