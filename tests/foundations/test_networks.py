"""Networks by hand, random features and glyphs, against torch, scikit-learn and closed forms."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from helpers.foundations import networks

ACTIVATIONS = ("relu", "tanh", "sigmoid")


@pytest.fixture
def rng():
    return np.random.default_rng(4)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_and_slope_are_those_of_torch(name, rng):
    z = np.append(rng.normal(0, 5, 50), (-800.0, 0.0, 800.0))
    leaf = torch.tensor(z, requires_grad=True)
    getattr(torch, name)(leaf).sum().backward()
    value, slope = networks.activate(name, z)
    assert np.allclose(value, getattr(torch, name)(leaf.detach()))
    assert np.allclose(slope, leaf.grad)


def test_linear_activation_changes_nothing_and_an_unknown_one_is_refused():
    z = np.array([-1.0, 0.0, 2.0])
    value, slope = networks.activate("linear", z)
    assert np.array_equal(value, z)
    assert value is not z
    assert np.array_equal(slope, np.ones(3))
    with pytest.raises(ValueError, match="activate: name='swish': expected one of 'relu'"):
        networks.activate("swish", z)


def test_weights_have_the_gain_over_the_root_of_their_inputs_and_biases_are_zero(rng):
    sizes = (400, 100, 300)
    theta = networks.init_mlp(sizes, 1.7, rng)
    assert len(theta) == 400 * 100 + 100 + 100 * 300 + 300
    for W, b in networks.layers_of(theta, sizes):
        assert np.isclose(W.std() * np.sqrt(len(W)), 1.7, rtol=0.02)
        assert not b.any()


def test_layers_are_views_that_cover_theta_once():
    sizes = (3, 2, 4)
    theta = np.arange(3 * 2 + 2 + 2 * 4 + 4, dtype=float)
    layers = networks.layers_of(theta, sizes)
    assert [(W.shape, b.shape) for W, b in layers] == [((3, 2), (2,)), ((2, 4), (4,))]
    assert np.array_equal(np.concatenate([a.ravel() for pair in layers for a in pair]), theta)
    layers[1][1][0] = -1
    assert theta[-4] == -1


@pytest.mark.parametrize(("length", "message"), [(5, "5 parameters.*need 20"),
                                                 (17, "17 parameters.*need 20"),
                                                 (21, "21 parameters.*need 20")])
def test_parameters_that_do_not_fit_the_sizes_are_refused(length, message):
    with pytest.raises(ValueError, match=message):
        networks.layers_of(np.zeros(length), (3, 2, 4))


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("sizes", [(5, 3), (5, 7, 3), (5, 7, 6, 4, 3)])
def test_loss_and_gradient_are_those_of_autograd(name, sizes, rng):
    X, y = rng.normal(size=(11, 5)), rng.integers(3, size=11)
    theta = networks.init_mlp(sizes, 1.5, rng) + 0.1  # biases that are not zero
    leaf = torch.tensor(theta, requires_grad=True)
    h, at = torch.tensor(X), 0
    for number, (n_in, n_out) in enumerate(pairwise(sizes), 2):
        W, b = leaf[at:at + n_in * n_out].reshape(n_in, n_out), leaf[at + n_in * n_out:][:n_out]
        h = h @ W + b
        h = getattr(torch, name)(h) if number < len(sizes) else h
        at += n_in * n_out + n_out
    reference = torch.nn.functional.cross_entropy(h, torch.tensor(y))
    reference.backward()
    logits, cache = networks.forward(theta, sizes, X, name)
    loss, delta = networks.softmax_loss(logits, y)
    assert np.allclose(logits, h.detach())
    assert np.isclose(loss, reference.item())
    assert np.abs(networks.backward(theta, sizes, cache, delta) - leaf.grad.numpy()).max() < 1e-12


def test_equal_logits_cost_the_logarithm_of_the_number_of_classes():
    loss, delta = networks.softmax_loss(np.full((2, 10), 3.0), np.array([0, 9]))
    assert np.isclose(loss, np.log(10))
    assert np.allclose(delta.sum(axis=1), 0)


def test_huge_logits_neither_overflow_nor_change_their_arguments():
    logits, labels = np.array([[1e4, -1e4], [-1e4, 1e4]]), np.array([0, 0])
    before = logits.copy()
    loss, delta = networks.softmax_loss(logits, labels)
    assert np.isclose(loss, 1e4)
    assert np.isfinite(delta).all()
    assert np.array_equal(logits, before)


def test_a_unit_silent_on_all_data_gets_a_gradient_of_exactly_zero(rng):
    sizes, X, y = (4, 3, 2), rng.normal(size=(20, 4)), rng.integers(2, size=20)
    theta = networks.init_mlp(sizes, 1.0, rng)
    networks.layers_of(theta, sizes)[0][1][1] = -100  # the second unit's bias
    logits, cache = networks.forward(theta, sizes, X, "relu")
    gradient = networks.backward(theta, sizes, cache, networks.softmax_loss(logits, y)[1])
    W, b = networks.layers_of(gradient, sizes)[0]
    assert not W[:, 1].any()
    assert b[1] == 0
    assert W[:, 0].any()


def test_relu_features_keep_their_size_whatever_their_number(rng):
    X = rng.normal(size=(50, 9))
    few, many = (np.linalg.norm(networks.relu_features(X, rng.normal(size=(9, n))))
                 for n in (500, 5000))
    assert np.isclose(few, many, rtol=0.1)


@pytest.mark.parametrize("n_features", [3, 20, 60])
def test_feature_fit_is_the_shortest_least_squares_fit_and_ridge(n_features, rng):
    A, T = rng.normal(size=(20, n_features)), rng.normal(size=(20, 2))
    assert np.allclose(networks.feature_fit(A, T), np.linalg.lstsq(A, T, rcond=None)[0])
    reference = Ridge(0.7, fit_intercept=False).fit(A, T).coef_.T
    assert np.allclose(networks.feature_fit(A, T, 0.7), reference)


def test_glyphs_have_the_shape_asked_for_and_all_ten_labels(rng):
    images, labels = networks.glyphs(200, rng, side=7)
    assert images.shape == (200, 49)
    assert set(labels) == set(range(10))
    assert networks.glyphs(0, rng)[0].shape == (0, 100)


def test_glyphs_without_noise_lie_between_0_and_1_and_repeat_with_their_seed():
    first, again = (networks.glyphs(30, np.random.default_rng(7), noise=0.0) for _ in range(2))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert first[0].min() >= 0
    assert 0.5 < first[0].max() <= 1


def test_of_still_glyphs_a_1_has_the_least_ink_and_an_8_the_most(rng):
    images, labels = networks.glyphs(400, rng, side=12, bend=0.0, tilt=0.0, noise=0.0)
    ink = np.array([images[labels == k].sum(axis=1).mean() for k in range(10)])
    assert np.argmin(ink) == 1  # two strokes
    assert np.argmax(ink) == 8  # all seven


def test_still_glyphs_have_the_symmetries_of_a_seven_stroke_display():
    class Middle:  # a generator that draws the middle of each range, and each digit once
        normal = staticmethod(lambda mean, deviation, size: np.full(size, float(mean)))
        uniform = staticmethod(lambda low, high, size: np.full(size, np.add(low, high) / 2))
        integers = staticmethod(lambda high, size: np.arange(high))

    image = networks.glyphs(10, Middle, side=15)[0].reshape(10, 15, 15)
    for k in (0, 3, 8):
        assert np.allclose(image[k], image[k, ::-1])
    assert np.allclose(image[5], image[2, :, ::-1])
    assert np.allclose(image[9], image[6, ::-1, ::-1])
    assert len(np.unique(image.round(6), axis=0)) == 10
    assert image[8].max() > 0.9


def test_glyphs_tilt_bend_and_noise_do_what_they_say():
    def drawn(**change):
        given = {"side": 12, "bend": 0.0, "tilt": 0.0, "noise": 0.0, **change}
        return networks.glyphs(300, np.random.default_rng(3), **given)[0]

    still = drawn()
    assert np.isclose((drawn(noise=0.2) - still).std(), 0.2, rtol=0.05)
    for change in ({"bend": 0.1}, {"tilt": 0.3}):
        assert np.abs(drawn(**change) - still).max() > 0.3


def test_glyphs_of_the_same_digit_are_nearer_than_those_of_others(rng):
    images, labels = networks.glyphs(900, rng)
    away = np.linalg.norm(images[:800] - images[800:, None], axis=2)
    assert np.mean(labels[np.argmin(away, axis=1)] == labels[800:]) > 0.6


SIZES, THETA, X5 = (3, 2, 4), np.linspace(-1, 1, 20), np.arange(15.0).reshape(5, 3)
LOGITS, CACHE = networks.forward(THETA, SIZES, X5, "tanh")
DRAW = np.random.default_rng(0)


@pytest.mark.parametrize(("message", "call"), [
    ("activate: z=.* nan at index 1", lambda: networks.activate("relu", [0, np.nan])),
    ("activate: name=None", lambda: networks.activate(None, [0.0])),
    ("init_mlp: sizes=.*at least 2, got 1", lambda: networks.init_mlp((3,), 1.0, DRAW)),
    ("init_mlp: sizes=.* whole number ≥ 1, at index 1",
     lambda: networks.init_mlp((3, 0, 2), 1, DRAW)),
    ("init_mlp: sizes=.* got float, at index 0", lambda: networks.init_mlp((3.5, 2), 1, DRAW)),
    ("init_mlp: sizes=3", lambda: networks.init_mlp(3, 1.0, DRAW)),
    ("init_mlp: gain=nan", lambda: networks.init_mlp(SIZES, np.nan, DRAW)),
    ("init_mlp: rng=7: expected Generator", lambda: networks.init_mlp(SIZES, 1.0, 7)),
    ("layers_of: theta=.* nan at index 0", lambda: networks.layers_of([np.nan] * 20, SIZES)),
    (r"forward: X=.* got shape \(3,\)", lambda: networks.forward(THETA, SIZES, X5[0], "relu")),
    ("forward: X=.* each input", lambda: networks.forward(THETA, SIZES, X5[:, :2], "relu")),
    ("forward: 19 parameters.* need 20", lambda: networks.forward(THETA[1:], SIZES, X5, "relu")),
    ("forward: name='swish'", lambda: networks.forward(THETA, SIZES, X5, "swish")),
    (r"forward: X=.* nan at index \(4, 0\)",
     lambda: networks.forward(THETA, SIZES, np.where(X5 == 12, np.nan, X5), "relu")),
    ("softmax_loss: labels=.* got -1 at index 1",
     lambda: networks.softmax_loss(LOGITS[:2], [0, -1])),
    ("softmax_loss: .* below the number", lambda: networks.softmax_loss(LOGITS[:2], [0, 4])),
    ("softmax_loss: labels=.* got float64", lambda: networks.softmax_loss(LOGITS[:2], [0.0, 1.0])),
    ("softmax_loss: labels=.* got bool", lambda: networks.softmax_loss(LOGITS[:2], [True, False])),
    ("softmax_loss: expected equal lengths", lambda: networks.softmax_loss(LOGITS, [0])),
    (r"softmax_loss: labels=.* \(5, 1\)",
     lambda: networks.softmax_loss(LOGITS, np.zeros((5, 1), int))),
    ("softmax_loss: logits=.* at least 1", lambda: networks.softmax_loss(np.empty((0, 4)), [])),
    ("softmax_loss: logits=.* inf", lambda: networks.softmax_loss([[np.inf, 0]], [0])),
    ("backward: .* `forward` cached", lambda: networks.backward(THETA, SIZES, CACHE[:1], LOGITS)),
    ("backward: .* `forward` cached", lambda: networks.backward(THETA, SIZES, CACHE, LOGITS[:1])),
    ("backward: cache=None", lambda: networks.backward(THETA, SIZES, None, LOGITS)),
    ("backward: ", lambda: networks.backward(THETA, SIZES, [1, 2], LOGITS)),
    ("relu_features: W=.* at least 1", lambda: networks.relu_features(X5, np.empty((3, 0)))),
    ("relu_features: .* each column", lambda: networks.relu_features(X5, np.ones((2, 7)))),
    ("feature_fit: lam=-1", lambda: networks.feature_fit(X5, X5, -1)),
    (r"feature_fit: T=.* got shape \(5,\)", lambda: networks.feature_fit(X5, X5[:, 0], 1)),
    ("feature_fit: expected equal lengths", lambda: networks.feature_fit(X5, X5[:4], 1)),
    ("feature_fit: .*full rank", lambda: networks.feature_fit(np.eye(5, 3) * [1, 1, 0], X5)),
])
def test_a_bad_argument_is_named_with_its_place_and_what_was_expected(message, call):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_narrow_integers_do_not_wrap_and_lists_will_do():
    pixels = np.array([[200, 100, 50]], np.uint8)
    for name in (*ACTIVATIONS, "linear"):
        narrow, _ = networks.forward(THETA.tolist(), [np.int8(3), 2, 4], pixels, name)
        assert np.array_equal(narrow, networks.forward(THETA, SIZES, pixels.astype(float), name)[0])
    loss, _ = networks.softmax_loss(np.array([[0, 200]], np.uint8), np.array([0], np.uint8))
    assert loss == 200
    assert networks.relu_features(pixels, np.full((3, 4), 2, np.uint8)).tolist() == [[350.0] * 4]
    assert networks.activate("tanh", np.array([9], np.uint8))[1] == 1 - np.tanh(9.0) ** 2


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 5), min_size=2, max_size=4), st.sampled_from(ACTIVATIONS[1:]),
       st.integers(1, 6), st.integers(0, 2**32))
def test_any_network_has_the_gradient_of_small_differences(sizes, name, n, seed):
    rng = np.random.default_rng(seed)
    theta = networks.init_mlp(sizes, 1.0, rng)
    X, y = rng.normal(size=(n, sizes[0])), rng.integers(sizes[-1], size=n)
    loss = lambda theta: networks.softmax_loss(networks.forward(theta, sizes, X, name)[0], y)[0]
    logits, cache = networks.forward(theta, sizes, X, name)
    gradient = networks.backward(theta, sizes, cache, networks.softmax_loss(logits, y)[1])
    way = rng.normal(size=len(theta))
    slope = (loss(theta + 1e-6 * way) - loss(theta - 1e-6 * way)) / 2e-6
    assert np.isclose(gradient @ way, slope, rtol=1e-5, atol=1e-7)
