"""Quantisers of matrices and models, against PyTorch's own and the error law; QAT."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import data
from helpers.compress import quantize
from helpers.transformer import training
from helpers.transformer.models import GPT, GPTConfig


@pytest.fixture
def w():
    values = np.random.default_rng(0).normal(size=(24, 64)).astype(np.float32)
    return torch.from_numpy(values)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group_size", [24 * 64, 64, 16])
@pytest.mark.parametrize("n_bits", range(2, 9))
def test_equals_torch_bit_for_bit(w, n_bits, group_size, symmetric):
    scale, zero = quantize.fit_scale(w, n_bits, group_size, symmetric)
    ours = quantize.dequantize(quantize.quantize(w, scale, zero, n_bits), scale, zero)
    low, high = -(2 ** (n_bits - 1)), 2 ** (n_bits - 1) - 1
    rows = torch.fake_quantize_per_channel_affine(
        w.reshape(-1, group_size), scale.flatten(), zero.flatten().int(), 0, low, high)
    assert torch.equal(ours, rows.reshape(w.shape))
    if group_size == w.numel():
        whole = torch.fake_quantize_per_tensor_affine(w, scale.item(), int(zero), low, high)
        assert torch.equal(ours, whole)


@pytest.mark.parametrize("n_bits", range(2, 9))
def test_symmetric_error_is_at_most_half_a_step_and_the_largest_weight_is_exact(w, n_bits):
    scale, zero = quantize.fit_scale(w, n_bits, 64)
    codes = quantize.quantize(w, scale, zero, n_bits)
    error = (quantize.dequantize(codes, scale, zero) - w).abs()
    assert (error <= scale / 2 * (1 + 1e-5)).all()
    assert (codes.abs().amax(1) == 2 ** (n_bits - 1) - 1).all()


def test_affine_holds_zero_exactly_and_fits_one_sided_values_better(w):
    x = torch.nn.functional.gelu(w)
    x[:, 0] = 0
    error = {}
    for symmetric in (True, False):
        scale, zero = quantize.fit_scale(x, 8, 64, symmetric)
        back = quantize.dequantize(quantize.quantize(x, scale, zero, 8), scale, zero)
        assert (back[:, 0] == 0).all()
        error[symmetric] = (back - x).square().mean().item()
    assert error[True] / error[False] > 2.5


def test_squared_error_is_a_twelfth_of_the_squared_step():
    x = torch.from_numpy(np.random.default_rng(1).uniform(-1, 1, 200_000)).float()
    for n_bits in (4, 6, 8):
        scale, zero = quantize.fit_scale(x, n_bits, len(x))
        codes = quantize.quantize(x, scale, zero, n_bits)
        mse = (quantize.dequantize(codes, scale, zero) - x).square().mean()
        assert mse.item() == pytest.approx(scale.item() ** 2 / 12, rel=0.02)


def test_a_group_of_zeros_stays_zero():
    for symmetric in (True, False):
        x = torch.zeros(2, 8)
        scale, zero = quantize.fit_scale(x, 4, 8, symmetric)
        codes = quantize.quantize(x, scale, zero, 4)
        assert torch.equal(quantize.dequantize(codes, scale, zero), x)


def test_an_outlier_harms_its_own_group_only(w):
    planted = w.clone()
    planted[0, 0] = 1000
    for group, harmed in (("tensor", w.numel()), ("row", 64), (16, 16)):
        codes, scale, zero = quantize.quantize_matrix(planted, 4, group)
        flat = quantize.dequantize(codes, scale, zero).flatten()
        clean = quantize.dequantize(*quantize.quantize_matrix(w, 4, group)).flatten()
        assert (flat[1:harmed] == 0).all()
        assert torch.equal(flat[harmed:], clean[harmed:])


@pytest.mark.parametrize(("bad", "n_bits", "group_size", "error", "says"), [
    (torch.ones(4, 8, dtype=torch.int32), 4, 8, TypeError, "floating-point"),
    (torch.ones(4, 8), 1, 8, ValueError, "n_bits=1"),
    (torch.ones(4, 8), 9, 8, ValueError, "n_bits=9"),
    (torch.ones(4, 8), 4, 5, ValueError, "group_size=5"),
    (torch.ones(4, 8), 4, 16, ValueError, "divide their rows"),
    (torch.ones(4, 8), 4, 0, ValueError, "group_size=0"),
    (torch.ones(0, 8), 4, 8, ValueError, "group_size=8"),
    (torch.full((4, 8), torch.nan), 4, 8, ValueError, "not finite"),
])
def test_what_cannot_be_quantised_gets_a_clear_error(bad, n_bits, group_size, error, says):
    with pytest.raises(error, match=says):
        quantize.fit_scale(bad, n_bits, group_size)


@pytest.mark.parametrize("symmetric", [True, False])
def test_weights_of_any_size_are_rounded_within_a_step(symmetric):
    rng = np.random.default_rng(2)
    for _ in range(100):
        shape = rng.integers(1, 5), 4 * rng.integers(1, 6)
        size = 10 ** rng.uniform(-12, 6, shape)  # groups that mix tiny and huge
        w = torch.from_numpy(rng.choice([-1, 0, 1], shape) * size).float()
        n_bits = int(rng.integers(2, 9))
        scale, zero = quantize.fit_scale(w, n_bits, 4, symmetric)
        back = quantize.dequantize(quantize.quantize(w, scale, zero, n_bits), scale, zero)
        assert ((back - w).reshape(len(scale), -1).abs() <= scale * (1 + 1e-4)).all()


@pytest.fixture
def model():
    return GPT(GPTConfig(vocab=64, context=16, n_layer=1, n_head=2, d_model=32))


def test_a_quantised_model_leaves_gains_and_originals_alone(model):
    before = {name: w.clone() for name, w in model.state_dict().items()}
    state = quantize.dequantize_state(quantize.quantize_state(model.state_dict(), 3, 16))
    for name, w in model.state_dict().items():
        assert torch.equal(w, before[name])
        assert torch.equal(state[name], w) == (w.ndim == 1)
    model.load_state_dict(state)


@pytest.mark.parametrize(("n_bits", "of_embedding"), [(2, 6), (4, 6), (8, 8)])
def test_the_embedding_keeps_at_least_six_bits(model, n_bits, of_embedding):
    quantized = quantize.quantize_state(model.state_dict(), n_bits, "row")
    for name, w in quantized.items():
        if isinstance(w, quantize.Quantized):
            assert w.n_bits == (of_embedding if name == "wte.weight" else n_bits)
            assert torch.equal(w.scale.half().float(), w.scale)  # a file can hold it


def test_scales_as_fp16_are_never_zero_or_infinite():
    scale = quantize.half_scale(torch.tensor([1e-12, 0.1, 1e9]))
    assert (scale > 0).all()
    assert scale.isfinite().all()


@pytest.mark.parametrize("n_bits", [2, 3, 8])
def test_straight_through_rounds_forward_and_passes_the_gradient(w, n_bits):
    w = w.double().requires_grad_()
    rounded = quantize.RoundThrough.apply(w, n_bits, 16)
    codes = quantize.quantize_matrix(w.detach(), n_bits, 16, symmetric=False)
    assert torch.equal(rounded.detach(), quantize.dequantize(*codes))
    (rounded**2).sum().backward()
    assert torch.equal(w.grad, 2 * rounded.detach())  # not 2 w


def test_training_rounded_moves_the_true_weights_and_can_be_ended(model):
    tokens = np.random.default_rng(0).integers(64, size=600)
    config = training.TrainConfig(lr=1e-2, n_steps=8, batch_size=4, seq=16, warmup_steps=1)
    before = model.blocks[0].up.weight.detach().clone()
    quantize.train_rounded(model, 3, 16)
    assert len(model.blocks[0].up.weight.unique()) < before.numel() / 2  # on the grid
    losses = training.run_steps(model, training.make_optimizer(model, config),
                                data.TokenBatches(tokens, 4, 16), config, 0, 8)
    assert np.isfinite(losses).all()
    quantize.stop_rounding(model)
    after = model.blocks[0].up.weight.detach()
    assert not torch.equal(after, before)
    assert len(after.unique()) > before.numel() / 2  # the true weights, not rounded
    assert set(model.state_dict()) == set(GPT(model.config).state_dict())


def test_rounded_inputs_change_the_outputs_only_inside_the_context(model):
    tokens = torch.arange(16)[None]
    with torch.no_grad():
        before = model(tokens)
        with quantize.RoundedInputs(model, 8):
            fine = (model(tokens) - before).abs().max()
        with quantize.RoundedInputs(model, 2):
            coarse = (model(tokens) - before).abs().max()
        assert torch.equal(model(tokens), before)
    assert 0 < fine < coarse / 10


few = settings(max_examples=40, deadline=None, derandomize=True, database=None)


@few
@given(st.integers(0, 2**32), st.integers(-1, 10), st.integers(-1, 9), st.booleans(),
       st.sampled_from([1.0, 1e-35, 1e-8, 1e5, 3e38, float("nan"), float("inf")]))
def test_any_matrix_is_rounded_within_a_step_or_refused(seed, n_bits, group, symmetric, size):
    w = torch.from_numpy(np.random.default_rng(seed).normal(size=(3, 8)) * size).float()
    fits = (2 <= n_bits <= 8 and group in (1, 2, 4, 8) and
            w.abs().max() <= 65504 * (2 ** (n_bits - 1) - 1))
    if not fits:
        with pytest.raises(ValueError, match=r"expected|finite|group_size"):
            quantize.quantize_matrix(w, n_bits, group, symmetric)
        return
    codes, scale, zero = quantize.quantize_matrix(w, n_bits, group, symmetric)
    assert codes.dtype == torch.int8
    assert -(2 ** (n_bits - 1)) <= codes.min() <= codes.max() < 2 ** (n_bits - 1)
    error = (quantize.dequantize(codes, scale, zero) - w).abs().reshape(len(scale), -1)
    lost = (scale / 1000 + 2**-24) * 2**n_bits  # the scale's own rounding, at the grid's end
    assert (error <= scale + lost).all()


def test_zero_points_as_bytes_do_not_wrap(w):
    scale, zero = quantize.fit_scale(w, 8, 64, symmetric=False)
    codes = quantize.quantize(w, scale, zero, 8)
    assert torch.equal(quantize.quantize(w, scale, zero.to(torch.int8), 8), codes)
    assert torch.equal(quantize.dequantize(codes, scale, zero.to(torch.int8)),
                       quantize.dequantize(codes, scale, zero))


def test_two_byte_weights_are_rounded_as_their_float32(w):
    for dtype in (torch.float16, torch.bfloat16):
        small = (w * 1e-6).to(dtype)
        for ours, theirs in zip(quantize.quantize_matrix(small, 4, 16),
                                quantize.quantize_matrix(small.float(), 4, 16), strict=True):
            assert torch.equal(ours, theirs)


GOOD = {"scale": torch.ones(2, 1), "zero": torch.zeros(2, 1)}


@pytest.mark.parametrize(("change", "says"), [
    ({"scale": torch.tensor([[1.0], [0.0]])}, "positive"), ({"scale": -GOOD["scale"]}, "positive"),
    ({"scale": torch.tensor([[1.0], [torch.nan]])}, "positive"),
    ({"scale": torch.tensor([[1.0], [torch.inf]])}, "positive"),
    ({"scale": torch.ones(3, 1), "zero": torch.zeros(3, 1)}, "equal groups"),
    ({"scale": torch.ones(2)}, "equal|n_groups"), ({"zero": torch.zeros(1, 1)}, "equal|n_groups"),
    ({"zero": GOOD["zero"] + 200}, "-128 to 127"), ({"zero": GOOD["zero"] + 0.5}, "whole")])
def test_scales_and_zero_points_that_do_not_fit_are_refused(change, says):
    given = GOOD | change
    with pytest.raises(ValueError, match=says):
        quantize.quantize(torch.ones(2, 4), **given, n_bits=4)
    with pytest.raises(ValueError, match=says):
        quantize.dequantize(torch.ones(2, 4, dtype=torch.int8), **given)
    with pytest.raises(TypeError, match="int8"):
        quantize.dequantize(torch.ones(2, 4), **GOOD)


def test_a_state_that_cannot_be_rounded_names_its_matrix(model):
    state = dict(model.state_dict())
    for bad, says in ((torch.full((4, 16), torch.nan), "finite"), (torch.ones(4, 17), "divide"),
                      (torch.ones(0, 16), "divide")):
        with pytest.raises(ValueError, match=f"odd: .*{says}"):
            quantize.quantize_state(state | {"odd": bad}, 4, 16)


def test_names_of_a_compiled_model_become_plain_and_its_embedding_keeps_its_bits(model):
    named = {f"_orig_mod.{name}": w for name, w in model.state_dict().items()}
    quantized = quantize.quantize_state(named, 3, 16)
    assert quantized.keys() == model.state_dict().keys()
    assert quantized["wte.weight"].n_bits == 6


def test_a_model_that_rounds_is_refused_and_one_that_cannot_round_stays(model):
    quantize.train_rounded(model, 4, 16)
    for call in (lambda: quantize.train_rounded(model, 4, 16),
                 lambda: quantize.quantize_state(model.state_dict(), 4, 16)):
        with pytest.raises(ValueError, match=r"call stop_rounding\(model\) first"):
            call()
    quantize.stop_rounding(model)
    with pytest.raises(ValueError, match="does not divide"):
        quantize.train_rounded(model, 4, 24)
    assert set(model.state_dict()) == set(GPT(model.config).state_dict())


def test_inputs_are_rounded_no_more_after_entering_twice(model):
    rounded, tokens = quantize.RoundedInputs(model, 2), torch.arange(16)[None]
    with torch.no_grad():
        before = model(tokens)
        with rounded, rounded:
            assert not torch.equal(model(tokens), before)
        assert torch.equal(model(tokens), before)
