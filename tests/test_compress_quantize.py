"""Quantisers, packing and files, against PyTorch's own, exact arithmetic and the error law."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from helpers.compress import quantize
from helpers.models import GPT, GPTConfig


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


ENDS = ([], [-8], [7], [0], [-8, 7, -8], [-8] * 6, [7] * 5, list(range(-8, 8)))
DRAWN = [np.random.default_rng(n).integers(-8, 8, n).tolist() for n in range(66)]


@pytest.mark.parametrize("values", [*ENDS, *DRAWN], ids=lambda v: f"{len(v)} codes")
def test_int4_comes_back_from_half_the_bytes(values):
    codes = torch.tensor(values, dtype=torch.int8)
    packed = quantize.pack_int4(codes)
    assert packed.dtype == torch.uint8
    padded = [*values, 0]
    assert packed.tolist() == [padded[i] % 16 + 16 * (padded[i + 1] % 16)
                               for i in range(0, len(values), 2)]
    assert quantize.unpack_int4(packed, len(values)).tolist() == values


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


def test_bad_codes_and_bad_bytes_get_clear_errors():
    with pytest.raises(TypeError, match="int8"):
        quantize.pack_int4(torch.zeros(3))
    for value in (8, -9):
        with pytest.raises(ValueError, match="4 bits"):
            quantize.pack_int4(torch.tensor([0, value], dtype=torch.int8))
    with pytest.raises(TypeError, match="bytes"):
        quantize.unpack_int4(torch.zeros(2, dtype=torch.int8), 3)
    for n in (1, 2, 5):
        with pytest.raises(ValueError, match="2 bytes do not hold"):
            quantize.unpack_int4(torch.zeros(2, dtype=torch.uint8), n)


def test_rounding_a_model_leaves_gains_and_originals_alone():
    model = GPT(GPTConfig(n_layer=1, n_head=2, d_model=32))
    before = {name: w.clone() for name, w in model.state_dict().items()}
    rounded = quantize.round_state(model.state_dict(), 3, 16)
    for name, w in model.state_dict().items():
        assert torch.equal(w, before[name])
        assert torch.equal(rounded[name], w) == (w.ndim == 1)
    model.load_state_dict(rounded)


@pytest.mark.parametrize("group", ["tensor", "row", 16])
@pytest.mark.parametrize(("n_bits", "share"), [(4, 0.20), (8, 0.33)])
def test_a_file_gives_back_the_rounded_weights_and_is_really_small(tmp_path, n_bits, group, share):
    state = dict(GPT(GPTConfig(n_layer=2, d_model=32)).state_dict())
    if group != 16:
        state["odd"] = torch.linspace(-1, 1, 15).reshape(3, 5)
    file = tmp_path / "model.safetensors"
    quantize.save_quantized(state, file, n_bits, group, config="{}")
    back, facts = quantize.load_quantized(file)
    rounded = quantize.round_state(state, n_bits, group)
    assert facts == {"config": "{}"}
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], w) for name, w in rounded.items())
    assert file.stat().st_size < share * 4 * sum(w.numel() for w in state.values())


def test_tiny_and_huge_weights_survive_fp16_scales(tmp_path):
    state = {"tiny": torch.full((2, 4), 1e-12), "zero": torch.zeros(2, 4),
             "huge": torch.full((2, 4), 1e5)}
    quantize.save_quantized(state, tmp_path / "model.safetensors", 4, "row")
    back, _ = quantize.load_quantized(tmp_path / "model.safetensors")
    assert all(w.isfinite().all() for w in back.values())
    assert back["huge"][0, 0].item() == pytest.approx(1e5, rel=1e-3)
    assert back["zero"].abs().max() == 0


def test_files_of_other_widths_and_other_makers_are_refused(tmp_path):
    with pytest.raises(ValueError, match="n_bits=3"):
        quantize.save_quantized({"w": torch.ones(2, 4)}, tmp_path / "m.safetensors", 3, "row")
    save_file({"w": torch.ones(2, 4)}, tmp_path / "m.safetensors", {"config": json.dumps({})})
    with pytest.raises(ValueError, match="not written by save_quantized"):
        quantize.load_quantized(tmp_path / "m.safetensors")
