"""ONNX Runtime's decoding computes what PyTorch computes."""

import numpy as np
import pytest
import torch

from helpers.compress import decode, quantize
from helpers.transformer.models import GPT, GPTConfig

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
