"""One-token decoding by ONNX Runtime: the GPT as a graph, with fp32, int8 or int4 matrices."""

import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch.nn import functional as F

from helpers.compress.quantize import DENSE, STATE, Quantized, dequantize_state
from helpers.foundations import rules
from helpers.foundations.accepts import accepts
from helpers.transformer.attention import KVCache, rotation
from helpers.transformer.models import GPT, a_gpt, plain_gpt
from helpers.transformer.tensors import model_of, weights_of

OPSETS = (("", 23), ("com.microsoft", 1))


class Graph:
    """Nodes, constants and ends of an ONNX graph while it is built."""

    def __init__(self):
        self.nodes, self.constants, self.inputs, self.outputs = [], [], [], []

    def constant(self, name: str, values) -> str:
        """Add a constant array; return its name."""
        values = np.ascontiguousarray(torch.as_tensor(values).detach().numpy())
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def node(self, op: str, inputs: list[str], *outputs: str, **attributes) -> str:
        """Add one operation; return the name of its first output."""
        self.nodes.append(helper.make_node(op, inputs, outputs, **attributes))
        return outputs[0]

    def linear(self, x: str, name: str, w) -> str:
        """x wᵀ: by MatMulNBits where `w` is Quantized with groups in rows, else by MatMul in fp32.

        MatMulNBits reads 4 or 8 bits. Raises ValueError for other widths and other groups.
        """
        if not isinstance(w, Quantized):
            return self.node("MatMul", [x, self.constant(name, w.T)], f"{name}.y")
        (rows, columns), n_groups = w.codes.shape, len(w.scale) // len(w.codes)
        size = columns // n_groups if n_groups else 0
        if w.n_bits not in (4, 8) or size not in (16, 32, 64, 128, 256):
            raise ValueError(f"{name}: {w.n_bits} bits in groups of {size}: MatMulNBits takes 4 "
                             "or 8 bits in groups of 16, 32, 64, 128 or 256 inside a row")
        half = 2 ** (w.n_bits - 1)
        codes = (w.codes.int() + half).to(torch.uint8).reshape(rows, n_groups, size)
        zeros = (w.zero.int() + half).to(torch.uint8).reshape(rows, n_groups)
        if w.n_bits == 4:
            codes, zeros = _halves(codes), _halves(F.pad(zeros, (0, n_groups % 2)))
        inputs = [x, self.constant(f"{name}.codes", codes),
                  self.constant(f"{name}.scale", w.scale.float().reshape(rows, n_groups)),
                  self.constant(f"{name}.zero", zeros)]
        return self.node("MatMulNBits", inputs, f"{name}.y", domain="com.microsoft", N=rows,
                         K=columns, bits=w.n_bits, block_size=size, accuracy_level=4)


def _halves(values):
    return values[..., 0::2] | values[..., 1::2] << 4


@accepts(model=plain_gpt, quantized=rules.maybe(STATE))
def decode_graph(model: GPT, quantized: dict | None = None) -> onnx.ModelProto:
    """The step from one token and all earlier keys and values to logits and the longer cache.

    Inputs: token and position (batch, 1) int64; per block `past.i.k` and `past.i.v` (batch,
    n_head, length, d_head). Outputs: logits (batch, 1, vocab), and `now.i.k`, `now.i.v` with one
    more token. `quantized` (of `quantize_state` or `gptq_model`) gives the weights; its `Quantized`
    matrices of 4 or 8 bits are multiplied as codes. The embedding stands in the graph in fp32, for
    looking up and, unless it has 4 or 8 bits, for the head. Raises ValueError for a model that
    lost heads, and for weights that are not finite or of another model's shapes.
    """
    weights, config, g = quantized or DENSE(weights_of(model)), model.config, Graph()
    for block in model_of(config, dequantize_state(weights)).blocks:  # or what does not fit
        if block.attn.n_head != config.n_head:
            raise ValueError(f"expected all {config.n_head} heads, got {block.attn.n_head}")
    weights = {name: w.float() if isinstance(w, torch.Tensor) else w for name, w in weights.items()}
    n_head, d_head = config.n_head, config.d_model // config.n_head
    info = helper.make_tensor_value_info
    g.inputs += [info(name, TensorProto.INT64, ["batch", 1]) for name in ("token", "position")]
    turn = rotation(torch.arange(config.context), d_head)
    cos, sin = g.constant("cos", turn.real), g.constant("sin", turn.imag)
    third = g.constant("third", [config.d_model] * 3)
    table = dequantize_state(weights)["wte.weight"]
    x = g.node("Gather", [g.constant("wte", table), "token"], "x")

    def norm(x, name):
        gain = g.constant(name, weights[name])
        return g.node("LayerNormalization", [x, gain], f"{name}.y", axis=-1, epsilon=1e-5)

    def linear(x, name):
        return g.linear(x, name, weights[name])

    for i in range(config.n_layer):
        b = f"blocks.{i}"
        y = linear(norm(x, f"{b}.norm1.weight"), f"{b}.attn.qkv.weight")
        g.node("Split", [y, third], *(f"{b}.{part}" for part in "qkv"), axis=-1)
        q, k = (g.node("RotaryEmbedding", [f"{b}.{part}", cos, sin, "position"], f"{b}.{part}turn",
                       num_heads=n_head, interleaved=1) for part in "qk")
        past, now = ([f"{when}.{i}.{part}" for part in "kv"] for when in ("past", "now"))
        y = g.node("Attention", [q, k, f"{b}.v", "", *past], f"{b}.mix", *now,
                   q_num_heads=n_head, kv_num_heads=n_head)
        x = g.node("Add", [x, linear(y, f"{b}.attn.out.weight")], f"{b}.x")
        y = linear(norm(x, f"{b}.norm2.weight"), f"{b}.up.weight")
        y = linear(g.node("Gelu", [y], f"{b}.gelu"), f"{b}.down.weight")
        x = g.node("Add", [x, y], f"{b}.y")
        shape = ["batch", n_head, None, d_head]
        g.inputs += [info(name, TensorProto.FLOAT, shape) for name in past]
        g.outputs += [info(name, TensorProto.FLOAT, shape) for name in now]
    head = weights["wte.weight"]
    head = head if isinstance(head, Quantized) and head.n_bits in (4, 8) else table
    logits = g.linear(norm(x, "norm.weight"), "head", head)
    g.outputs.insert(0, info(logits, TensorProto.FLOAT, ["batch", 1, config.vocab]))
    graph = helper.make_graph(g.nodes, "one token", g.inputs, g.outputs, g.constants)
    opsets = [helper.make_opsetid(*opset) for opset in OPSETS]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.helper.set_model_props(made, {"onnx.quant.pre_process": "onnxruntime.quant"})  # is simple
    return made


@accepts(graph=rules.a(onnx.ModelProto))
def int8_graph(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with int8 matrices, one scale per output channel, and inputs rounded to 8 bits.

    By ONNX Runtime's `quantize_dynamic`: weights symmetric, and each product's inputs affine with
    one scale that is found while the graph runs. The codes −127 … 127 then become 1 … 255 with zero
    point 128: the same whole numbers by another kernel. That for int8 × uint8 adds two products in
    16 bits on CPUs without VNNI, which cuts off 2 · 127 · 255 (see "reduce_range" in its docs).
    """
    with tempfile.TemporaryDirectory() as folder:
        before, after = (Path(folder) / f"{name}.onnx" for name in ("before", "after"))
        onnx.save(graph, before)
        quantize_dynamic(before, after, op_types_to_quantize=["MatMul"], per_channel=True,
                         weight_type=QuantType.QInt8)
        made = onnx.load(after)
    for one in made.graph.initializer:
        if one.data_type == TensorProto.INT8:  # a matrix, or its zero points
            codes = numpy_helper.to_array(one).astype(np.int16) + 128
            one.CopyFrom(numpy_helper.from_array(codes.astype(np.uint8), one.name))
    return made


@accepts(graph=rules.a(onnx.ModelProto))
class Decoder:
    """An ONNX Runtime session of a decoding graph, on one CPU thread, with its growing cache.

    Raises ValueError for another graph, and for tokens out of the vocabulary or the context.
    """

    def __init__(self, graph: onnx.ModelProto):
        sizes = {one.name: one.dims for one in graph.graph.initializer}
        if not {"wte", "cos"} <= sizes.keys():
            raise ValueError("expected a graph of decode_graph")
        (self.vocab, _), (self.context, _) = sizes["wte"], sizes["cos"]
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors alone
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(graph.SerializeToString(), options,
                                                    providers=["CPUExecutionProvider"])
        self.outputs = [one.name for one in self.session.get_outputs()]
        caches = self.session.get_inputs()[2:]
        self.past, (_, self.n_head, _, self.d_head) = [c.name for c in caches], caches[0].shape
        self.reset()

    @accepts(batch=rules.integer(1))
    def reset(self, batch: int = 1) -> None:
        """Forget all tokens; expect `batch` texts from now on."""
        empty = np.zeros((batch, self.n_head, 0, self.d_head), dtype=np.float32)
        self.kept = [onnxruntime.OrtValue.ortvalue_from_numpy(empty) for _ in self.past]
        self.batch, self.length = batch, 0

    def _check(self, tokens: np.ndarray, end: int) -> None:
        low, high = tokens.min(), tokens.max()  # Gather counts negative ids from the end
        if low < 0 or high >= self.vocab:
            raise ValueError(f"token ids from {low} to {high}: expected 0 … {self.vocab - 1}")
        if end > self.context:
            raise ValueError(f"{end} tokens are longer than the context of {self.context}")

    @accepts(tokens=rules.integers(1, least=1))
    def step(self, tokens: np.ndarray) -> np.ndarray:
        """Logits (batch, vocab) after the next tokens (batch,), the batch told to `reset`."""
        if len(tokens) != self.batch:
            raise ValueError(f"{len(tokens)} tokens for {self.batch} texts: expected one each")
        self._check(tokens, self.length + 1)
        return self._step(tokens)

    def _step(self, tokens: np.ndarray) -> np.ndarray:
        binding = self.session.io_binding()
        binding.bind_cpu_input("token", tokens[:, None])
        binding.bind_cpu_input("position", np.full((len(tokens), 1), self.length))
        for name, kept in zip(self.past, self.kept, strict=True):
            binding.bind_ortvalue_input(name, kept)
        for name in self.outputs:
            binding.bind_output(name, "cpu")
        self.session.run_with_iobinding(binding)
        logits, *self.kept = binding.get_outputs()
        self.length += 1
        return logits.numpy()[:, 0]

    @accepts(tokens=rules.integers(2, least=1))
    def read(self, tokens: np.ndarray) -> np.ndarray:
        """Logits (batch, seq, vocab) of texts (batch, seq), read one token at a time."""
        self._check(tokens, tokens.shape[1])
        self.reset(len(tokens))
        return np.stack([self._step(tokens[:, t]) for t in range(tokens.shape[1])], axis=1)


@accepts(model=a_gpt, tokens=rules.integers(2, low=0, least=1))
@torch.inference_mode()
def read_eager(model: GPT, tokens: np.ndarray) -> np.ndarray:
    """What `Decoder.read` does, by PyTorch in eager mode with the model's own KV cache."""
    cache, tokens = KVCache(model.config.context), torch.from_numpy(tokens)
    return torch.cat([model(tokens[:, t:t + 1], cache) for t in range(tokens.shape[1])],
                     dim=1).numpy()


@accepts(decoder=rules.a(Decoder), windows=rules.integers(2, low=0, least=2))
def decoded_loss(decoder: Decoder, windows: np.ndarray) -> float:
    """Mean loss (nats per token) on windows (n, seq + 1), read one by one, one token at a time."""
    decoder._check(windows, windows.shape[1] - 1)  # the last tokens are read by nobody
    total = 0.0
    for window in windows:
        logits = torch.from_numpy(decoder.read(window[None, :-1])[0])
        total += F.cross_entropy(logits, torch.from_numpy(window[1:])).item()
    return total / len(windows)
