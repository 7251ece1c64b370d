"""Codes come back from their bytes, models from their files, and damage is refused."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from helpers.compress import packing, quantize
from helpers.transformer.models import GPT, GPTConfig

WIDTHS = range(2, 9)


@st.composite
def codes_of(draw):
    """Codes of a width, any number of them, the ends of their range included."""
    n_bits = draw(st.sampled_from(WIDTHS))
    half = 2 ** (n_bits - 1)
    values = draw(st.lists(st.integers(-half, half - 1), max_size=70))
    return n_bits, torch.tensor(values, dtype=torch.int8)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(codes_of())
def test_codes_of_any_width_and_number_come_back_from_their_bytes(drawn):
    n_bits, codes = drawn
    packed = packing.pack_bits(codes, n_bits)
    assert packed.dtype == torch.uint8
    assert len(packed) == -(-len(codes) * n_bits // 8)
    assert torch.equal(packing.unpack_bits(packed, len(codes), n_bits), codes)
    whole = sum((int(code) % 2**n_bits) << n_bits * i for i, code in enumerate(codes))
    assert bytes(packed.tolist()) == whole.to_bytes(len(packed), "little")


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.lists(st.integers(-8, 7), max_size=70))
def test_int4_packs_two_codes_to_a_byte_as_pack_bits_does(values):
    codes = torch.tensor(values, dtype=torch.int8)
    packed, padded = packing.pack_int4(codes), [*values, 0]
    assert packed.tolist() == [padded[i] % 16 + 16 * (padded[i + 1] % 16)
                               for i in range(0, len(values), 2)]
    assert torch.equal(packed, packing.pack_bits(codes, 4))
    assert packing.unpack_int4(packed, len(values)).tolist() == values


@pytest.mark.parametrize("n_bits", WIDTHS)
def test_both_ends_of_the_range_and_odd_lengths_come_back(n_bits):
    half = 2 ** (n_bits - 1)
    for values in ([], [-half], [half - 1], [-half] * 7, [half - 1] * 9, [-half, half - 1, 0]):
        codes = torch.tensor(values, dtype=torch.int8)
        packed = packing.pack_bits(codes, n_bits)
        assert packing.unpack_bits(packed, len(values), n_bits).tolist() == values


def test_bad_codes_and_bad_bytes_get_clear_errors():
    with pytest.raises(TypeError, match="int8"):
        packing.pack_int4(torch.zeros(3))
    with pytest.raises(TypeError, match="int8"):
        packing.pack_bits(torch.zeros(3, dtype=torch.int64), 3)
    for value in (8, -9):
        with pytest.raises(ValueError, match="4 bits"):
            packing.pack_int4(torch.tensor([0, value], dtype=torch.int8))
    with pytest.raises(ValueError, match="3 bits"):
        packing.pack_bits(torch.tensor([4], dtype=torch.int8), 3)
    with pytest.raises(TypeError, match="bytes"):
        packing.unpack_int4(torch.zeros(2, dtype=torch.int8), 3)
    for n in (1, 2, 5):
        with pytest.raises(ValueError, match="2 bytes do not hold"):
            packing.unpack_int4(torch.zeros(2, dtype=torch.uint8), n)
    for n_bits in (1, 9):
        with pytest.raises(ValueError, match=f"n_bits={n_bits}"):
            packing.pack_bits(torch.zeros(1, dtype=torch.int8), n_bits)
        with pytest.raises(ValueError, match=f"n_bits={n_bits}"):
            packing.unpack_bits(torch.zeros(1, dtype=torch.uint8), 1, n_bits)


def same(a, b) -> bool:
    return all(torch.equal(a[name], w) for name, w in b.items()) and a.keys() == b.keys()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group", ["tensor", "row", 16])
@pytest.mark.parametrize("n_bits", WIDTHS)
def test_a_file_gives_back_the_rounded_weights(tmp_path, n_bits, group, symmetric):
    state = dict(GPT(GPTConfig(vocab=64, n_layer=1, n_head=2, d_model=32)).state_dict())
    if group != 16:
        state["odd"] = torch.linspace(-1, 1, 15).reshape(3, 5)
    quantized = quantize.quantize_state(state, n_bits, group, symmetric)
    packing.save_quantized(quantized, tmp_path / "m.safetensors", config="{}")
    back, facts = packing.load_quantized(tmp_path / "m.safetensors")
    assert facts == {"config": "{}"}
    assert same(quantize.dequantize_state(back), quantize.dequantize_state(quantized))
    assert all(back[name].n_bits == w.n_bits for name, w in quantized.items()
               if isinstance(w, quantize.Quantized))


def test_a_four_bit_file_takes_at_most_16_percent_of_fp32(tmp_path):
    state = GPT(GPTConfig(vocab=1024, n_layer=4, n_head=8, d_model=128)).state_dict()
    save_file(dict(state), tmp_path / "fp32.safetensors")
    packing.save_quantized(quantize.quantize_state(state, 4, 32), tmp_path / "int4.safetensors")
    whole, small = ((tmp_path / f"{n}.safetensors").stat().st_size for n in ("fp32", "int4"))
    assert small <= 0.16 * whole


def test_tiny_huge_and_empty_groups_survive_a_file(tmp_path):
    state = {"tiny": torch.full((2, 4), 1e-12), "zero": torch.zeros(2, 4),
             "huge": torch.full((2, 4), 1e5)}
    packing.save_quantized(quantize.quantize_state(state, 4, "row"), tmp_path / "m.safetensors")
    back = quantize.dequantize_state(packing.load_quantized(tmp_path / "m.safetensors")[0])
    assert all(w.isfinite().all() for w in back.values())
    assert back["huge"][0, 0].item() == pytest.approx(1e5, rel=1e-2)
    assert back["zero"].abs().max() == 0


def test_files_of_others_and_damaged_files_are_refused(tmp_path):
    file = tmp_path / "m.safetensors"
    save_file({"w": torch.ones(2, 4)}, file, {"config": json.dumps({})})
    with pytest.raises(ValueError, match="not written by save_quantized"):
        packing.load_quantized(file)
    state = {"w": torch.from_numpy(np.random.default_rng(0).normal(size=(8, 16))).float()}
    packing.save_quantized(quantize.quantize_state(state, 4, 16), file)
    whole = file.read_bytes()
    for cut in (0, 5, 40, len(whole) - 1):
        file.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="damaged"):
            packing.load_quantized(file)
    save_file({"w": torch.zeros(3, dtype=torch.uint8)}, file,
              {"quantized": json.dumps({"w": [2, 4, 4]})})
    with pytest.raises(ValueError, match="no codes or no scales of w"):
        packing.load_quantized(file)
    save_file({"w": torch.zeros(3, dtype=torch.uint8), "w.scale": torch.ones(2).half()}, file,
              {"quantized": json.dumps({"w": [2, 4, 4]})})
    with pytest.raises(ValueError, match="3 bytes do not hold 8 codes"):
        packing.load_quantized(file)


def small_state() -> dict:
    w = torch.from_numpy(np.random.default_rng(0).normal(size=(8, 16))).float()
    return quantize.quantize_state({"w": w, "gain": torch.ones(16)}, 4, 16)


def test_any_altered_or_missing_part_of_a_file_is_noticed_and_the_file_named(tmp_path):
    packing.save_quantized(small_state(), file := tmp_path / "m.safetensors", note="fact")
    whole = file.read_bytes()
    for place in range(0, len(whole), 3):
        altered = bytearray(whole)
        altered[place] ^= 1 << place % 8
        for wrong in (bytes(altered), whole[:place]):
            file.write_bytes(wrong)
            with pytest.raises(ValueError, match=r"m\.safetensors .*save_quantized"):
                packing.load_quantized(file)


def test_a_missing_file_a_folder_and_no_path_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError):
        packing.load_quantized(tmp_path / "none")
    with pytest.raises(ValueError, match="is no file"):
        packing.load_quantized(tmp_path)
    with pytest.raises(TypeError, match="path"):
        packing.load_quantized(None)


def test_a_full_disk_leaves_the_older_file_and_nothing_beside_it(tmp_path, monkeypatch):
    packing.save_quantized(small_state(), file := tmp_path / "m")
    before = file.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(packing.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        packing.save_quantized(small_state(), file, note="newer")
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_layout_and_checksum_take_the_room_of_plain_json(tmp_path):
    state = quantize.quantize_state(GPT(GPTConfig(vocab=64, n_layer=1)).state_dict(), 4, 16)
    packing.save_quantized(state, file := tmp_path / "m", config="{}")
    with packing.safe_open(file, "pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}
    layout = {name: [*w.codes.shape, w.n_bits] for name, w in state.items()
              if isinstance(w, quantize.Quantized)}
    save_file(tensors, tmp_path / "plain", {"quantized": json.dumps(layout), "config": "{}"})
    assert file.stat().st_size == (tmp_path / "plain").stat().st_size


@pytest.mark.parametrize(("change", "says"), [
    ({"scale": torch.full((8, 1), 0.1)}, "fp16 numbers"), ({"zero": torch.full((8, 1), 8.0)}, "4"),
    ({"zero": torch.full((8, 1), 300.0)}, "127"), ({"scale": torch.zeros(8, 1)}, "positive"),
    ({"n_bits": 3}, "3 bits"), ({"scale": torch.ones(3, 1)}, "n_groups"), ({"n_bits": 9}, "≤ 8")])
def test_what_could_not_be_read_back_is_not_written(tmp_path, change, says):
    state = small_state()
    with pytest.raises(ValueError, match=says):
        packing.save_quantized({"w": state["w"]._replace(**change)}, tmp_path / "m")
    with pytest.raises(ValueError, match="two tensors"):
        packing.save_quantized({**state, "w.scale": torch.ones(2)}, tmp_path / "m")
    with pytest.raises(ValueError, match="other names"):
        packing.write_file(tmp_path / "m", {}, "quantized", {}, {"quantized": "{}"})
    with pytest.raises(TypeError, match="text"):
        packing.save_quantized(state, tmp_path / "m", steps=3)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("change", [{"columns": torch.tensor([0, 9])}, {"values": torch.ones(3)},
                                    {"columns": torch.tensor([0, -1])}, {"values": None},
                                    {"starts": torch.tensor([0, 2, 1])},
                                    {"starts": torch.tensor([1, 1, 2])}])
def test_rows_that_do_not_belong_together_are_refused(change):
    packed = packing.to_csr(torch.tensor([[0.0, 1.0], [2.0, 0.0]]))
    with pytest.raises((ValueError, TypeError), match="from_csr: "):
        packing.from_csr(packed | change, 2)


def test_nan_is_kept_in_sparse_rows():
    w = torch.tensor([[0.0, torch.nan, 1.0]])
    back = packing.from_csr(packing.to_csr(w), 3)
    assert torch.equal(back.isnan(), w.isnan())
    assert back[0, 2] == 1


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(st.integers(-3, 40), st.integers(-1, 10), st.integers(0, 40))
def test_any_number_of_bytes_is_unpacked_or_refused(n, n_bits, n_bytes):
    packed = torch.arange(n_bytes, dtype=torch.uint8) * 37
    fits = n >= 0 and 2 <= n_bits <= 8 and n_bytes == -(-n * n_bits // 8)
    if fits:
        assert len(packing.unpack_bits(packed, n, n_bits)) == n
    else:
        with pytest.raises(ValueError, match="expected"):
            packing.unpack_bits(packed, n, n_bits)
