"""ONNX Runtime's decoding computes what PyTorch computes."""

import numpy as np
import pytest
import torch

from helpers.compress import decode, quantize
from helpers.compress.prune import shrink_heads, shrink_mlp
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


def test_int8_products_are_whole_numbers_on_every_cpu():
    g = decode.Graph()
    w = torch.tensor([[1.0] * 64, [-1.0] * 64, [1.0, -1.0] * 32])  # codes ±127, inputs 255
    y = g.linear("x", "w", w)
    ends = [decode.helper.make_tensor_value_info(*end) for end in (("x", 1, [1, 64]),
                                                                   (y, 1, [1, 3]))]
    made = decode.helper.make_model(
        decode.helper.make_graph(g.nodes, "product", ends[:1], ends[1:], g.constants),
        opset_imports=[decode.helper.make_opsetid(*opset) for opset in decode.OPSETS],
        ir_version=10)
    small = decode.int8_graph(made)
    session = decode.onnxruntime.InferenceSession(small.SerializeToString(),
                                                  providers=["CPUExecutionProvider"])
    found = session.run(None, {"x": np.ones((1, 64), dtype=np.float32)})[0]
    np.testing.assert_allclose(found, [[64, -64, 0]], rtol=1e-6)


@pytest.mark.parametrize(("tokens", "says"), [
    ([[-1]], "from -1 to -1: expected 0 … 63"), ([[64]], "from 64"), ([[1] * 25], "25 tokens"),
    ([[]], "at least 1"), ([1, 2], "2-d")])
def test_tokens_that_the_graph_would_misread_are_refused(model, tokens, says):
    decoder = decode.Decoder(decode.decode_graph(model))
    with pytest.raises(ValueError, match=says):
        decoder.read(tokens)
    with pytest.raises(TypeError, match="whole numbers"):
        decoder.read([[1.5]])


def test_steps_are_counted_and_belong_to_their_texts(model):
    decoder = decode.Decoder(decode.decode_graph(model))
    decoder.reset(2)
    with pytest.raises(ValueError, match="1 tokens for 2 texts"):
        decoder.step([3])
    with pytest.raises(ValueError, match="from -1 to 4"):
        decoder.step([4, -1])
    for _ in range(24):
        decoder.step([3, 4])
    with pytest.raises(ValueError, match="25 tokens"):
        decoder.step([3, 4])


def test_other_models_and_graphs_are_refused(model):
    thin = GPT(model.config)
    shrink_heads(thin.blocks[0].attn, [0])
    codes = quantize.quantize_state(thin.state_dict(), 4, 16)
    for one, quantized in ((thin, None), (model, codes)):
        with pytest.raises(ValueError, match="expected all 2 heads, got 1"):
            decode.decode_graph(one, quantized)
    with pytest.raises(ValueError, match="14 tensors: expected 8"):
        decode.decode_graph(GPT(GPTConfig(vocab=64, n_layer=1)), dict(model.state_dict()))
    empty = decode.helper.make_model(decode.helper.make_graph([], "none", [], []))
    with pytest.raises(ValueError, match="a graph of decode_graph"):
        decode.Decoder(empty)


def test_a_model_in_float64_or_with_fewer_channels_is_decoded(model):
    thin = GPT(model.config).double()
    shrink_mlp(thin.blocks[0], range(8))
    with torch.no_grad():
        true = thin(torch.from_numpy(TOKENS)).numpy()
    assert np.abs(decode.Decoder(decode.decode_graph(thin)).read(TOKENS) - true).max() < 1e-4
