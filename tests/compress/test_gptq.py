"""GPTQ against rounding to nearest, brute force, and the outputs that it protects."""

import itertools

import numpy as np
import pytest
import torch

from helpers.compress import gptq, quantize
from helpers.compress.prune import shrink_mlp
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


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("group", "size"), [("tensor", 12), ("row", 4), (2, 2)])
def test_without_any_input_it_rounds_to_nearest_and_the_outputs_do_not_change(
        group, size, symmetric):
    w, H = normal(3, 4), torch.zeros(4, 4, dtype=torch.float64)
    ours, nearest = gptq.gptq(w, H, 4, size, symmetric), quantize.quantize_matrix(
        w, 4, group, symmetric)
    assert all(torch.equal(a.double(), b.double()) for a, b in zip(ours, nearest, strict=True))
    assert gptq.output_error(w, quantize.dequantize(*ours), H) == 0


def test_dead_inputs_are_rounded_to_nearest_and_do_not_disturb_the_others():
    w, H, alive = normal(4, 8), correlated(8), [0, 1, 3, 4, 5, 7]
    H[[2, 6]] = 0
    H[:, [2, 6]] = 0
    codes = gptq.gptq(w, H, 4, 1)[0]
    small = gptq.gptq(w[:, alive], H[alive][:, alive], 4, 1, damping=0.01 * 6 / 8)  # same sum
    assert torch.equal(codes[:, alive], small[0])
    nearest = quantize.quantize_matrix(w, 4, 1, symmetric=False)[0]
    assert torch.equal(codes[:, [2, 6]], nearest[:, [2, 6]])


@pytest.mark.parametrize(("change", "says"), [
    ({"w": torch.full((3, 4), torch.nan)}, "w="), ({"H": torch.full((4, 4), torch.nan)}, "H="),
    ({"H": torch.eye(5)}, "shape"), ({"H": -torch.eye(4)}, "positive definite"),
    ({"H": torch.ones(4, 4), "damping": 0.0}, "positive definite"), ({"group_size": 3}, "groups"),
    ({"damping": -1.0}, "damping"), ({"n_bits": 1}, "n_bits"), ({"n_bits": 9}, "n_bits")])
def test_what_gptq_cannot_round_gets_a_clear_error(change, says):
    given = {"w": normal(3, 4), "H": torch.eye(4), "n_bits": 4, "group_size": 2} | change
    with pytest.raises(ValueError, match=f"gptq: .*{says}"):
        gptq.gptq(**given)


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


def test_one_scale_for_a_whole_matrix_is_taken(model, windows):
    quantized = gptq.gptq_model(model, windows, 4, "tensor")
    plain = quantize.quantize_state(model.state_dict(), 4, "tensor")
    for name, w in plain.items():
        if isinstance(w, quantize.Quantized):
            assert quantized[name].scale.shape == w.scale.shape == (1, 1)
    assert not torch.equal(quantized["blocks.0.up.weight"].codes, plain["blocks.0.up.weight"].codes)


def test_a_pruned_layer_without_inputs_is_rounded_to_nearest(model, windows):
    with torch.no_grad():
        model.blocks[0].up.weight.zero_()  # nothing reaches `down`
    quantized = gptq.gptq_model(model, windows, 4, 16)
    nearest = quantize.quantize_state(model.state_dict(), 4, 16)
    for ours, theirs in zip(quantized["blocks.0.down.weight"][:3],
                            nearest["blocks.0.down.weight"][:3], strict=True):
        assert torch.equal(ours, theirs)


def test_a_layer_with_bad_numbers_is_named_and_the_model_stays(model, windows):
    model.blocks[1].down.weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"blocks\.1\.down\.weight"):
        gptq.gptq_model(model, windows, 4, 16)
    model.blocks[1].down.weight.data[0, 0] = 0
    model.blocks[0].norm2.weight.data.fill_(1e38)  # its square overflows
    before = {name: w.clone() for name, w in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"blocks\.0\.up\.weight: .*H="):
        gptq.gptq_model(model, windows, 4, 16)
    assert all(torch.equal(before[name], w) for name, w in model.state_dict().items())


def test_a_compiled_or_shrunk_model_is_rounded_under_a_plain_models_names(model, windows):
    plain = gptq.gptq_model(model, windows, 4, 16)
    wrapped = torch.nn.Module()  # as torch.compile does
    wrapped._orig_mod = model
    compiled = gptq.gptq_model(wrapped, windows, 4, 16)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(plain.values(), compiled.values(),
                                                       strict=True))
    assert plain.keys() == compiled.keys()
    shrink_mlp(model.blocks[0], range(16))
    assert gptq.gptq_model(model, windows, 4, 16)["blocks.0.down.weight"].codes.shape == (32, 16)


@pytest.mark.parametrize("change", [{"windows": np.full((2, 5), 64)}, {"n_bits": 9}, {"group": 5},
                                    {"windows": np.full((2, 40), 1)}, {"group": "column"},
                                    {"windows": np.full((2, 5), -1)}, {"windows": [[1.0, 2.0]]}])
def test_bad_arguments_of_a_whole_model_are_refused(model, windows, change):
    given = {"windows": windows, "n_bits": 4, "group": 16} | change
    with pytest.raises((ValueError, TypeError), match=r"expected|context|does not divide"):
        gptq.gptq_model(model, **given)
