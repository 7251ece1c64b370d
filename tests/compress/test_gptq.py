"""GPTQ against rounding to nearest, brute force, and the outputs that it protects."""

import itertools

import numpy as np
import pytest
import torch

from helpers.compress import gptq, quantize
from helpers.transformer.models import GPT, GPTConfig


def correlated(d: int, n: int = 400) -> torch.Tensor:
    """XᵀX of inputs that share a few directions."""
    rng = np.random.default_rng(d)
    x = rng.normal(size=(n, 4)) @ rng.normal(size=(4, d)) + 0.3 * rng.normal(size=(n, d))
    return torch.from_numpy(x.T @ x)


def normal(rows: int, columns: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(rows, columns)))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group", [16, 64])
@pytest.mark.parametrize("n_bits", [2, 3, 4, 8])
def test_uncorrelated_inputs_give_rounding_to_nearest(n_bits, group, symmetric):
    w = normal(8, 64)
    ours = gptq.gptq(w, 3 * torch.eye(64, dtype=torch.float64), n_bits, group, symmetric)
    nearest = quantize.quantize_matrix(w, n_bits, group, symmetric)
    assert all(torch.equal(a.double(), b.double()) for a, b in zip(ours, nearest, strict=True))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group", [16, 64])
@pytest.mark.parametrize("n_bits", [2, 3, 4, 8])
def test_correlated_inputs_make_the_output_error_smaller(n_bits, group, symmetric):
    w, H = normal(16, 64), correlated(64)
    ours = quantize.dequantize(*gptq.gptq(w, H, n_bits, group, symmetric))
    nearest = quantize.dequantize(*quantize.quantize_matrix(w, n_bits, group, symmetric))
    assert gptq.output_error(w, ours, H) < 0.5 * gptq.output_error(w, nearest, H)


def test_the_output_error_is_the_squared_change_of_the_outputs():
    x, w = normal(30, 8), normal(5, 8)
    rounded = w.round()
    direct = ((x @ (rounded - w).T) ** 2).sum().item()
    assert gptq.output_error(w, rounded, x.T @ x) == pytest.approx(direct)


def test_no_rounding_on_the_same_grid_is_much_better_than_gptq():
    w, H = normal(6, 4), correlated(4)
    codes, scale, zero = gptq.gptq(w, H, 2, 4)
    ours = gptq.output_error(w, quantize.dequantize(codes, scale, zero), H)
    every = torch.tensor(list(itertools.product(range(-2, 2), repeat=4)), dtype=torch.int8)
    best = sum(min(gptq.output_error(w[i : i + 1], ((q - zero[i]) * scale[i])[None], H)
                   for q in every) for i in range(len(w)))
    assert best <= ours * (1 + 1e-9)
    assert ours < 3 * best


def test_one_column_and_a_dead_input_are_taken():
    codes, *_ = gptq.gptq(normal(3, 1), torch.ones(1, 1, dtype=torch.float64), 4, 1)
    assert codes.shape == (3, 1)
    H = correlated(8)
    H[2] = H[:, 2] = 0  # an input that never came
    assert quantize.dequantize(*gptq.gptq(normal(3, 8), H, 4, 8)).isfinite().all()


def test_without_any_input_there_is_a_clear_error():
    with pytest.raises(torch.linalg.LinAlgError):
        gptq.gptq(normal(3, 4), torch.zeros(4, 4, dtype=torch.float64), 4, 4)


@pytest.fixture
def model():
    return GPT(GPTConfig(vocab=64, context=16, n_layer=2, n_head=2, d_model=32))


@pytest.fixture
def windows():
    return np.random.default_rng(1).integers(64, size=(40, 17))


def test_calibration_sums_the_products_of_each_layers_inputs(model, windows):
    found = gptq.calibrate(model, windows)
    assert len(found) == 8
    seen = []
    handle = model.blocks[1].down.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        model(torch.from_numpy(windows[:, :-1]))
    handle.remove()
    x = seen[0].flatten(0, 1).double()
    assert torch.allclose(found["blocks.1.down.weight"], x.T @ x, rtol=1e-6)
    assert not model.blocks[1].down._forward_pre_hooks  # nothing is left behind


def test_a_whole_model_is_rounded_and_left_as_it_was(model, windows):
    before = {name: w.clone() for name, w in model.state_dict().items()}
    quantized = gptq.gptq_model(model, windows, 3, 16)
    assert all(torch.equal(before[name], w) for name, w in model.state_dict().items())
    plain = quantize.quantize_state(before, 3, 16)
    assert quantized.keys() == plain.keys()
    state = quantize.dequantize_state(quantized)
    tokens, nearest = torch.from_numpy(windows[:, :-1]), quantize.dequantize_state(plain)
    with torch.no_grad():
        true = model(tokens)
        errors = []
        for weights in (state, nearest):
            model.load_state_dict(weights)
            errors.append((model(tokens) - true).square().mean().item())
    assert errors[0] < errors[1]
    for name, w in quantized.items():
        if isinstance(w, quantize.Quantized):
            assert w.scale.shape == plain[name].scale.shape
            assert w.n_bits == plain[name].n_bits
