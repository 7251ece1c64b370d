"""The quantised KV cache and ONNX Runtime's decoding compute what PyTorch computes."""

import numpy as np
import pytest
import torch

from helpers.compress import cache, decode, quantize
from helpers.models import GPT, GPTConfig, KVCache

TOKENS = np.random.default_rng(0).integers(64, size=(3, 17))


@pytest.fixture(scope="module")
def model():
    made = GPT(GPTConfig(vocab=64, context=24, n_layer=2, n_head=2, d_model=32), seed=1)
    with torch.no_grad():
        made.wte.weight.mul_(20)  # as after training: logits that differ
    return made


@torch.no_grad()
def logits(model, kept=None):
    return model(torch.from_numpy(TOKENS), kept).numpy()


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("n_bits", [2, 3, 4, 8])
def test_a_cache_fed_token_by_token_equals_one_fed_at_once(model, n_bits, fixed):
    grids = cache.head_grids(model, TOKENS, n_bits) if fixed else None
    at_once = logits(model, cache.QuantizedCache(24, n_bits, grids))
    slow, tokens = cache.QuantizedCache(24, n_bits, grids), torch.from_numpy(TOKENS)
    with torch.no_grad():
        one_by_one = torch.cat([model(tokens[:, t:t + 1], slow) for t in range(17)], dim=1)
    assert slow.length == 17
    assert np.abs(one_by_one.numpy() - at_once).max() < 1e-3 * np.abs(at_once).max()


@pytest.mark.parametrize("n_bits", [2, 3, 4, 8])
def test_the_cache_takes_the_bytes_of_its_codes_and_scales(model, n_bits):
    kept = cache.QuantizedCache(24, n_bits)
    logits(model, kept)
    values = 2 * 2 * 3 * 17 * 32  # layers, keys and values, texts, tokens, d_model
    assert kept.n_bytes() == values * n_bits // 8 + values // 16 * 3
    fixed = cache.QuantizedCache(24, n_bits, cache.head_grids(model, TOKENS, n_bits))
    logits(model, fixed)
    assert fixed.n_bytes() == values * n_bits // 8


def test_fewer_bits_move_the_logits_further(model):
    true, errors = logits(model, KVCache(24)), []
    for n_bits in (8, 4, 2):
        errors.append(np.abs(logits(model, cache.QuantizedCache(24, n_bits)) - true).mean())
    assert errors[0] < errors[1] < errors[2]
    examined = cache.Cached(model, lambda: cache.QuantizedCache(24, 8))
    with torch.no_grad():
        assert np.abs(examined(torch.from_numpy(TOKENS)).numpy() - true).mean() == errors[0]


def test_the_graph_in_fp32_equals_pytorch(model):
    decoder = decode.Decoder(decode.decode_graph(model))
    assert np.abs(decoder.read(TOKENS) - logits(model)).max() < 1e-4
    assert np.abs(decoder.read(TOKENS[:1]) - logits(model)[:1]).max() < 1e-4  # begins anew
    assert np.abs(decode.read_eager(model, TOKENS) - logits(model)).max() < 1e-4


@pytest.mark.parametrize(("n_bits", "group"), [(4, 16), (4, 32), (8, 32), (8, "row")])
def test_codes_in_the_graph_equal_their_weights_in_pytorch(model, n_bits, group):
    quantized = quantize.quantize_state(model.state_dict(), n_bits, group, embed_bits=8)
    rounded = GPT(model.config)
    rounded.load_state_dict(quantize.dequantize_state(quantized))
    true = logits(rounded)
    found = decode.Decoder(decode.decode_graph(model, quantized)).read(TOKENS)
    assert np.abs(found - true).mean() < 0.05 * true.std()  # the kernel rounds its inputs too
    plain = logits(model)
    assert np.corrcoef(found.ravel(), true.ravel())[0, 1] > 0.995
    assert n_bits == 8 or np.abs(found - true).mean() < np.abs(found - plain).mean()


def test_int8_is_smaller_and_nearly_the_same(model):
    graph = decode.decode_graph(model)
    small = decode.int8_graph(graph)
    assert small.ByteSize() < 0.6 * graph.ByteSize()
    true = logits(model)
    assert np.corrcoef(decode.Decoder(small).read(TOKENS[:1]).ravel(), true[:1].ravel())[0, 1] > .99


def test_what_the_kernel_cannot_read_gets_a_clear_error(model):
    for n_bits, group in ((3, 16), (4, 8), (4, "tensor")):
        quantized = quantize.quantize_state(model.state_dict(), n_bits, group)
        with pytest.raises(ValueError, match="MatMulNBits takes 4"):
            decode.decode_graph(model, quantized)


def test_the_decoders_loss_is_the_models(model):
    windows = np.random.default_rng(2).integers(64, size=(4, 17))
    with torch.no_grad():
        scores = model(torch.from_numpy(windows[:, :-1])).flatten(0, 1)
    true = torch.nn.functional.cross_entropy(scores, torch.from_numpy(windows[:, 1:]).flatten())
    decoder = decode.Decoder(decode.decode_graph(model))
    assert decode.decoded_loss(decoder, windows) == pytest.approx(true.item(), abs=1e-4)
