"""What is packed comes back, byte for byte; what was altered gives an error and never a text."""

import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from helpers.compress import codec, entropy
from helpers.compress.prune import shrink_heads, shrink_mlp
from helpers.compress.quantize import dequantize_state, quantize_state
from helpers.foundations.tokens import bpe_encode, bpe_train
from helpers.runtime import ROOT
from helpers.transformer.models import GPT, GPTConfig

SHAPE = GPTConfig(vocab=262, context=12, n_layer=1, n_head=2, d_model=16)
MERGES = bpe_train(b"the state of the union, the state of the art", 262)
MODEL = GPT(SHAPE)
TEXT = "The state of the union is 标度律.\r\n\0\xff".encode() + bytes(range(250, 256))
few = settings(max_examples=25, deadline=None, derandomize=True, database=None)


@pytest.fixture(scope="module")
def blob():
    return codec.compress(MODEL, MERGES, TEXT, n_streams=3)


@few
@given(st.binary(max_size=120), st.integers(1, 40))
def test_any_bytes_come_back(text, n_streams):
    packed = codec.compress(MODEL, MERGES, text, n_streams)
    assert codec.decompress(MODEL, MERGES, packed) == text


@pytest.mark.parametrize("text", [b"", b"\n", b"\xff", b"\0" * 300, b"the state of " * 40,
                                  bytes(range(256)) * 2], ids=lambda t: f"{len(t)} bytes")
def test_extreme_texts_come_back(text):
    for n_streams in (1, 7, 300):
        packed = codec.compress(MODEL, MERGES, text, n_streams)
        assert codec.decompress(MODEL, MERGES, packed) == text


def test_text_comes_back_from_a_model_in_float64_or_with_rounded_weights():
    for model in (GPT(SHAPE).double(), GPT(SHAPE)):
        state = quantize_state(GPT(SHAPE).float().state_dict(), 4, "row")
        model.load_state_dict(dequantize_state(state))
        assert codec.decompress(model, MERGES, codec.compress(model, MERGES, TEXT)) == TEXT


def test_the_file_is_as_long_as_the_cross_entropy_of_its_predictions():
    tokens = np.random.default_rng(0).integers(262, size=4000)
    words, bits = codec.encode_tokens(MODEL, tokens, 16)
    assert len(bits) == 4000
    assert 32 * len(words) == pytest.approx(bits.sum(), rel=0.005)


@pytest.mark.parametrize("n_streams", [1, 2, 5])
def test_predictions_are_the_model_s_own_and_follow_the_newline(n_streams):
    tokens = np.random.default_rng(1).integers(262, size=11 * n_streams)
    _, bits = codec.encode_tokens(MODEL, tokens, n_streams)
    rows = tokens.reshape(n_streams, 11)
    read = np.hstack([np.full((n_streams, 1), 10), rows[:, :-1]])
    with torch.no_grad():
        p = MODEL(torch.from_numpy(read)).double().log_softmax(-1).numpy() / np.log(2)
    expected = -np.take_along_axis(p, rows[..., None], axis=2)[..., 0]
    assert np.allclose(bits.reshape(n_streams, 11), expected, atol=1e-4)


def test_a_full_context_goes_on_from_its_last_half():
    tokens = np.random.default_rng(2).integers(262, size=(2, 30))
    predict = codec.Predictor(MODEL, 2)
    p = [predict(column) for column in tokens.T]
    with torch.no_grad():
        for at, start in ((12, 7), (18, 7), (19, 14), (25, 14)):  # 12 read; then 6 and 6 more
            fresh = MODEL(torch.from_numpy(tokens[:, start:at + 1]))[:, -1].softmax(-1)
            assert np.allclose(p[at], fresh, atol=1e-5), at


@few
@given(st.integers(0, 2000), st.integers(1, 70))
def test_streams_are_as_numpy_cuts_them(n_tokens, n_streams):
    cut = np.array_split(np.arange(n_tokens), n_streams)
    assert codec.stream_lengths(n_tokens, n_streams) == [len(part) for part in cut]


def test_every_flipped_byte_raises_an_error(blob):
    for place in range(len(blob)):
        altered = bytearray(blob)
        altered[place] ^= 1 << place % 8
        with pytest.raises(ValueError, match=r"expected|altered|truncated"):
            codec.decompress(MODEL, MERGES, bytes(altered))


def test_every_truncation_and_every_tail_raises_an_error(blob):
    for end in range(len(blob)):
        with pytest.raises(ValueError, match=r"expected a file|truncated"):
            codec.decompress(MODEL, MERGES, blob[:end])
    with pytest.raises(ValueError, match="truncated, or altered"):
        codec.decompress(MODEL, MERGES, blob + b"x")


def test_a_foreign_file_a_later_version_and_another_model_are_told_apart(blob):
    later = blob[:4] + b"\x02" + blob[5:]
    other = GPT(SHAPE, seed=1)
    for model, merges, file, message in (
            (MODEL, MERGES, b"\x1f\x8b" + bytes(99), "beginning b'SLWZ'"),
            (MODEL, MERGES, later, "version 2: expected 1"),
            (other, MERGES, blob, "same weights and merges"),
            (MODEL, MERGES[::-1], blob, "same weights and merges")):
        with pytest.raises(ValueError, match=message):
            codec.decompress(model, merges, file)


def test_other_arithmetic_is_noticed_before_and_after_decoding(blob, monkeypatch):
    original = codec.probabilities
    monkeypatch.setattr(codec, "probabilities", lambda z: original(z * (1 + 1e-6)))
    with pytest.raises(ValueError, match="computes other last digits"):
        codec.decompress(MODEL, MERGES, blob)
    monkeypatch.setattr(codec, "probabilities", lambda z: original(z * 1.01))
    monkeypatch.setattr(codec, "probe", lambda *_: blob[39:47])  # as if it had not been noticed
    with pytest.raises(ValueError, match="computes other last digits"):
        codec.decompress(MODEL, MERGES, blob)


@pytest.mark.parametrize(("text", "n_streams", "error"), [
    ("text", 1, TypeError), (None, 1, TypeError), (b"x", 0, ValueError), (b"x", 2**16, ValueError)])
def test_bad_arguments_are_refused(text, n_streams, error):
    with pytest.raises(error, match="expected"):
        codec.compress(MODEL, MERGES, text, n_streams)


def test_a_model_with_too_few_tokens_is_refused():
    with pytest.raises(ValueError, match="knows 100 tokens"):
        codec.compress(GPT(GPTConfig(vocab=100, context=8, n_layer=1, d_model=16)), [], b"x")


DECODE = """
import sys
from helpers import runtime
from helpers.compress import codec
from tests.compress.test_codec import MERGES, MODEL
runtime.setup()
sys.stdout.buffer.write(codec.decompress(MODEL, MERGES, sys.stdin.buffer.read()))
"""


def test_a_second_process_unpacks_what_the_first_packed():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    packed = codec.compress(MODEL, MERGES, TEXT, n_streams=3)
    torch.set_num_threads(threads)
    done = subprocess.run([sys.executable, "-c", DECODE], input=packed, capture_output=True,
                          cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert done.stdout == TEXT, done.stderr.decode()


def test_a_known_answer():
    """Two tokens of probability ½ in turn: 0.0101… in binary, one third."""
    class Even(torch.nn.Module):
        config = SHAPE

        def forward(self, tokens, cache):
            cache.length += tokens.shape[1]
            return torch.full((*tokens.shape, 262), -1e9).index_fill(
                2, torch.tensor([65, 66]), 0.0)

    tokens = np.array([65, 66] * 16)
    words, bits = codec.encode_tokens(Even(), tokens, 1)
    assert np.allclose(bits, 1)
    assert words[0] / 2**32 == pytest.approx(1 / 3, abs=1e-4)
    assert np.array_equal(codec.decode_tokens(Even(), words, 32, 1), tokens)


@few
@given(st.lists(st.integers(0, 3), max_size=25), st.lists(st.integers(1, 9), min_size=4,
                                                          max_size=4))
def test_the_exact_coder_returns_the_message_within_two_digits_of_its_width(message, counts):
    p = [Fraction(c, sum(counts)) for c in counts]
    low, width = entropy.shrink_interval(message, lambda seen: p)
    digits = entropy.shortest_point(low, width)
    assert entropy.follow_point(digits, len(message), lambda seen: p) == message
    assert -np.log2(float(width)) - 1e-9 <= len(digits) < 2 - np.log2(float(width))
    inside = Fraction(int(digits or "0", 2), 2 ** len(digits))
    assert low <= inside
    assert inside + Fraction(1, 2 ** len(digits)) <= low + width


def test_the_exact_coder_by_hand():
    p = [Fraction(1, 2), Fraction(1, 4), Fraction(1, 4)]
    assert entropy.shrink_interval([0, 2, 1], lambda seen: p) == (Fraction(7, 16), Fraction(1, 32))
    assert entropy.shortest_point(Fraction(7, 16), Fraction(1, 32)) == "01110"
    assert entropy.shortest_point(Fraction(0), Fraction(1)) == ""
    assert entropy.follow_point("01110", 3, lambda seen: p) == [0, 2, 1]
    with pytest.raises(ValueError, match="the interval is empty"):
        entropy.shortest_point(Fraction(1, 3), Fraction(0))


@pytest.mark.parametrize("counts", [[3, 1], [1, 1, 1, 1], [0, 5, 0, 2], [7]])
def test_entropy_is_scipy_s(counts):
    assert entropy.entropy(counts) == pytest.approx(stats.entropy(counts, base=2))


def test_the_entropy_of_nothing_is_zero():
    assert entropy.entropy([]) == entropy.entropy([0, 0]) == 0


@few
@given(st.lists(st.integers(-128, 127), max_size=300))
def test_integers_come_back(values):
    codes = np.array(values, dtype=np.int8)
    back = entropy.decode_integers(entropy.encode_integers(codes))
    assert back.dtype == np.int8
    assert np.array_equal(back, codes)


@pytest.mark.parametrize("codes", [
    np.zeros(0, np.int8), np.array([-128], np.int8), np.array([127, -128], np.int8),
    np.zeros(100_000, np.int8), np.r_[np.zeros(200_000, np.int8), np.int8(5)],
    np.repeat(np.arange(-7, 8, dtype=np.int8), 65_535), np.zeros((3, 5), np.int8)],
    ids=lambda codes: f"{codes.size}")
def test_extreme_integers_come_back(codes):
    packed = entropy.encode_integers(codes)
    assert np.array_equal(entropy.decode_integers(packed), codes.ravel())


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 0.97])
def test_coded_integers_are_as_long_as_their_entropy_with_any_share_of_zeros(share):
    rng = np.random.default_rng(0)
    codes = np.where(rng.random(60_000) < share, 0, rng.normal(0, 3, 60_000).round().clip(-7, 7))
    bound = entropy.entropy(np.bincount(codes.astype(int) + 7)) / 8 * len(codes)
    assert bound <= len(entropy.encode_integers(codes.astype(np.int8))) < 1.005 * bound + 60


def test_altered_or_truncated_integers_raise_an_error():
    packed = entropy.encode_integers(np.random.default_rng(0).integers(-7, 8, 400).astype(np.int8))
    for place in range(len(packed)):
        altered = packed.copy()
        altered[place] ^= 1 << place % 8
        for wrong in (altered, packed[:place]):
            with pytest.raises(ValueError, match="truncated or altered"):
                entropy.decode_integers(wrong)


def test_integers_of_another_type_are_refused():
    with pytest.raises(TypeError, match="expected int8 codes, got int64"):
        entropy.encode_integers(np.arange(3))


@pytest.mark.parametrize(("n_bits", "group", "symmetric"), [
    (8, "row", True), (4, 8, True), (4, 8, False), (3, "tensor", False)])
def test_a_packed_model_has_the_rounded_weights_and_the_merges(n_bits, group, symmetric):
    state = quantize_state(MODEL.state_dict(), n_bits, group, symmetric=symmetric)
    model, merges = entropy.unpack_model(entropy.pack_model(SHAPE, state, MERGES))
    assert merges == MERGES
    assert model.config == SHAPE
    for name, w in dequantize_state(state).items():
        assert torch.equal(model.state_dict()[name], w if w.ndim == 2 else w.half().float()), name


def test_packed_models_that_were_altered_truncated_or_foreign_raise_an_error():
    blob = entropy.pack_model(SHAPE, quantize_state(MODEL.state_dict(), 4, 8), MERGES)
    end = 8 + int.from_bytes(blob[:8], "little")  # of the header: each of its bytes is tried
    for place in (*range(end), *range(end, len(blob), 101)):
        altered = bytearray(blob)
        altered[place] ^= 1
        for wrong in (bytes(altered), blob[:place]):
            with pytest.raises(ValueError, match=r"pack_model"):
                entropy.unpack_model(wrong)


def test_a_model_is_packed_into_the_same_bytes_each_time():
    state = quantize_state(MODEL.state_dict(), 4, 8)
    assert len({entropy.pack_model(SHAPE, state, MERGES) for _ in range(20)}) == 1


def test_bpe_tokens_of_any_bytes_are_known_to_the_model():
    tokens = bpe_encode(bytes(range(256)) + b" the state", MERGES)
    assert 0 <= tokens.min()
    assert tokens.max() < SHAPE.vocab


@pytest.mark.parametrize(("call", "error"), [
    (lambda: codec.encode_tokens(MODEL, [262], 1), ValueError),
    (lambda: codec.encode_tokens(MODEL, [-1], 1), ValueError),
    (lambda: codec.encode_tokens(MODEL, [1.5], 1), TypeError),
    (lambda: codec.encode_tokens(MODEL, [1], 1, start=262), ValueError),
    (lambda: codec.decode_tokens(MODEL, [-1], 1, 1), ValueError),
    (lambda: codec.decode_tokens(MODEL, [1], -1, 1), ValueError),
    (lambda: codec.stream_lengths(3, 0), ValueError),
    (lambda: codec.Predictor(MODEL, 2)(np.array([1])), ValueError),
    (lambda: codec.compress(MODEL, [(300, 1)], b"x"), ValueError),
    (lambda: codec.compress(MODEL, [(97, 98, 99)], b"x"), TypeError),
    (lambda: codec.compress(GPT(SHAPE).bfloat16(), MERGES, b"x"), ValueError),
    (lambda: codec.probe(GPT(GPTConfig(vocab=262, context=1, d_model=16)), 1), ValueError),
    (lambda: codec.decompress(MODEL, MERGES, "text"), TypeError)])
def test_what_cannot_be_coded_gets_a_clear_error(call, error):
    with pytest.raises(error, match="expected"):
        call()


def test_the_smallest_context_and_a_shrunk_model_code_any_text():
    small = GPT(GPTConfig(vocab=262, context=2, n_layer=1, n_head=2, d_model=16))
    shrink_heads(small.blocks[0].attn, [1])
    for n_streams in (1, 3):
        assert codec.decompress(small, [], codec.compress(small, [], TEXT, n_streams)) == TEXT


def halves(seen):
    return [Fraction(1, 2)] * 2


@pytest.mark.parametrize(("call", "says"), [
    (lambda: entropy.entropy([1, -1]), "counts"), (lambda: entropy.entropy([np.nan]), "counts"),
    (lambda: entropy.shrink_interval([2], halves), "symbols that predict knows"),
    (lambda: entropy.shrink_interval([-1], halves), "symbols"),
    (lambda: entropy.shrink_interval([0], lambda seen: [0.3, 0.3]), "sum 1"),
    (lambda: entropy.shrink_interval([0], lambda seen: [2, -1]), "sum 1"),
    (lambda: entropy.shortest_point(0.5, 0.75), "inside 0 … 1"),
    (lambda: entropy.shortest_point(0.0, float("nan")), "width"),
    (lambda: entropy.follow_point("012", 2, halves), "digits 0 and 1"),
    (lambda: entropy.follow_point("01", -1, halves), "n_symbols"),
    (lambda: entropy.decode_integers([256]), "255")])
def test_what_has_no_exact_code_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_counts_of_narrow_integers_do_not_wrap():
    assert entropy.entropy(np.array([200, 200], dtype=np.uint8)) == 1


def thin_model():
    model = GPT(GPTConfig(vocab=262, context=12, n_layer=2, n_head=2, d_model=16), seed=2)
    shrink_mlp(model.blocks[0], [3, 1, 2, 7])
    shrink_heads(model.blocks[1].attn, [1])
    return model


def test_a_shrunk_or_compiled_model_comes_back_from_its_bytes():
    model = thin_model()
    named = {f"_orig_mod.{name}": w for name, w in model.state_dict().items()}
    state = quantize_state(named, 4, 4)
    back, merges = entropy.unpack_model(entropy.pack_model(model.config, state, MERGES))
    assert merges == MERGES
    model.load_state_dict({name: w if w.ndim == 2 else w.half().float()
                           for name, w in dequantize_state(state).items()})
    tokens = torch.arange(12)[None]
    with torch.no_grad():
        assert torch.equal(back(tokens), model(tokens))


@pytest.mark.parametrize(("change", "says"), [
    ({"config": GPTConfig(vocab=262, context=12, n_layer=3, n_head=2, d_model=16)}, "tensors"),
    ({"merges": [(70000, 1)]}, "65535"), ({"merges": [(97, 256)]}, "earlier tokens"),
    ({"merges": MERGES * 2}, "no more tokens"),
    ({"quantized": dict(MODEL.state_dict())}, "as Quantized")])
def test_what_could_not_be_unpacked_is_not_packed(change, says):
    state = quantize_state(MODEL.state_dict(), 4, 8)
    with pytest.raises(ValueError, match=says):
        entropy.pack_model(**{"config": SHAPE, "quantized": state, "merges": MERGES} | change)
    scaled = {name: w._replace(scale=w.scale * 1.001) if isinstance(w, tuple) else w
              for name, w in state.items()}
    with pytest.raises(ValueError, match="fp16 numbers"):
        entropy.pack_model(SHAPE, scaled, MERGES)
