"""Record what quantisation costs: `data/sweeps/quantization.csv`, one row a compressed model.

    make record TABLE=quantization RECORD_ARGS="[PART …] [WIDTH …]"

Parts: weights, tuned, cache, inputs, decode (all by default); widths: those of the family (all by
default). Rows that are there are skipped, so two processes can share the work by widths.
`latency` instead times one-token decoding and writes `data/sweeps/latency_quantization.csv` anew.
"""

import argparse
import csv
import io
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from safetensors.torch import save_file

from helpers import corpora, data, runtime
from helpers.compress import decode
from helpers.compress.cache import Cached, QuantizedCache, head_grids
from helpers.compress.gptq import gptq_model
from helpers.compress.packing import save_quantized
from helpers.compress.quantize import (
    RoundedInputs,
    dequantize_state,
    quantize_state,
    stop_rounding,
    train_rounded,
)
from helpers.scaling import ledger
from helpers.transformer import checkpoints, training
from helpers.transformer.flops import flops_per_token, n_params
from helpers.transformer.training import TrainConfig
from recordings import count, family, one_of, replace_whole

RECIPE = "56e93315d9671707"  # of the rows, see `ledger.key`
PARTS = ("weights", "tuned", "cache", "inputs", "decode")
BITS = (2, 3, 4, 5, 6, 7, 8)
N_CALIBRATION = 64  # windows of training text for GPTQ and for the cache's fixed scales
N_DECODED = 100  # held-out windows that are read one token at a time
DECODED = (64, 128, 320)  # widths whose decoding is examined and timed
TUNE_LR, TUNE_SEEDS = 5e-4, {2: (1,), 3: (1, 2), 4: (1,)}  # of training through rounding, by bits


def group_of(d_model: int) -> int:
    """Weights that share a scale: 32, or 24 where 32 does not divide the rows."""
    return 24 if d_model % 32 else 32


class Recorder:
    """One dense model, its examination, and rows about it."""

    def __init__(self, options, texts, d_model: int, n_steps: int, merges):
        self.options, self.d_model, self.n_steps, self.merges = options, d_model, n_steps, merges
        self.file = family.trained(d_model, n_steps)
        self.model, _ = checkpoints.load_tokenised(self.file)
        self.dense = {name: w.clone() for name, w in self.model.state_dict().items()}
        self.train, held, self.tokens_per_byte = texts
        self.held = {n: data.windows(held, n, family.SEQ)
                     for n in (options.windows, min(options.windows, N_DECODED))}
        self.calibration = data.windows(self.train, N_CALIBRATION, family.SEQ)
        self.group = group_of(d_model)

    def evaluate(self, state: dict | None = None, model=None) -> float:
        """Held-out loss with these weights (by default the dense), or of this model."""
        self.model.load_state_dict(state or self.dense)
        return training.evaluate(model or self.model, self.held[self.options.windows])

    def bytes_of(self, quantized: dict | None) -> int:
        """Size of the file as it lies on disk; of the dense model's own if nothing is given."""
        if quantized is None:
            return self.file.stat().st_size
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.safetensors"
            facts = {"config": json.dumps(asdict(self.model.config)),
                     "merges": json.dumps(self.merges)}
            if any(not isinstance(w, torch.Tensor) for w in quantized.values()):
                save_quantized(quantized, path, **facts)
            else:
                save_file(quantized, path, facts)
            return path.stat().st_size

    def row(self, method: str, find, n_bits: int = 32, group="", tune_steps: int = 0,
            cache: str = "", input_bits: int = 32, seed: int = 0, n_windows: int = 0) -> None:
        """Add a row unless it is there; `find()` gives loss, bytes, and bytes of a full cache."""
        shape, n_windows = self.model.config, n_windows or self.options.windows
        done = {"method": method, "d_model": self.d_model, "n_steps": self.n_steps,
                "n_bits": n_bits, "group": group, "tune_steps": tune_steps, "cache": cache,
                "input_bits": input_bits, "seed": seed, "n_windows": n_windows}
        key = ledger.key(done, RECIPE)
        if key in ledger.keys(self.options.out):
            return
        begin = time.perf_counter()
        loss, size, cache_bytes = find()
        N, N_total = n_params(shape)
        steps = self.n_steps + tune_steps
        ledger.append(self.options.out, {
            "key": key, **done, "n_layer": shape.n_layer, "N": N, "N_total": N_total,
            "C": float(steps * family.BATCH * family.SEQ * flops_per_token(shape, family.SEQ)),
            "loss": loss, "bpb": data.bits_per_byte(loss, self.tokens_per_byte), "bytes": size,
            "cache_bytes": cache_bytes, "dtype": "bfloat16" if tune_steps else "float32",
            "seconds": round(time.perf_counter() - begin, 1),
            "device": runtime.device_name(torch.device("cpu")), "torch": torch.__version__,
            "onnxruntime": onnxruntime.__version__, "commit": training.commit()})
        sys.stderr.write(f"{self.d_model} {method} {n_bits} bits {group} {cache} "
                         f"inputs {input_bits}: {loss:.4f}, {size} bytes\n")

    def found(self, quantized: dict):
        """Loss and bytes of a quantised model."""
        return self.evaluate(dequantize_state(quantized)), self.bytes_of(quantized), 0

    def weights(self) -> None:
        """Dense, in halves, and quantised after training."""
        self.row("dense", lambda: (self.evaluate(), self.bytes_of(None), 0))
        halves = {name: w.half() for name, w in self.dense.items()}
        self.row("fp16", lambda: (self.evaluate(halves), self.bytes_of(halves), 0), 16)
        full = self.n_steps == family.BASE and self.d_model != 320
        for group in ("row", self.group) if full else (self.group,):
            for n_bits in BITS if full else (2, 3, 4, 8) if self.d_model == 320 else (2, 3, 4):
                self.row("rtn", lambda b=n_bits, g=group: self.found(
                    quantize_state(self.dense, b, g)), n_bits, group)
                self.row("gptq", lambda b=n_bits, g=group: self.found(self.gptq(b, g)),
                         n_bits, group)

    def gptq(self, n_bits: int, group, **options) -> dict:
        """The dense model by GPTQ."""
        self.model.load_state_dict(self.dense)
        return gptq_model(self.model, self.calibration, n_bits, group, **options)

    def tuned(self) -> None:
        """Trained through rounding, after the dense run."""
        for n_bits, seeds in TUNE_SEEDS.items():
            for seed in seeds:
                self.row("qat", lambda b=n_bits, s=seed: self.tune(b, s), n_bits, self.group,
                         self.options.tune_steps, seed=seed)

    def tune(self, n_bits: int, seed: int):
        """Loss and bytes after training through rounding."""
        n_steps = self.options.tune_steps
        config = TrainConfig(lr=TUNE_LR, n_steps=n_steps, batch_size=family.BATCH, seq=family.SEQ,
                             warmup_steps=n_steps // 10, decay_fraction=0.8, seed=seed,
                             dtype="bfloat16")
        runtime.setup(seed)
        model, _ = checkpoints.load_tokenised(self.file)
        train_rounded(model, n_bits, self.group)
        batches = data.TokenBatches(self.train, family.BATCH, family.SEQ, seed)
        training.run_steps(model, training.make_optimizer(model, config), batches, config, 0,
                           n_steps)
        stop_rounding(model)
        return self.found(quantize_state(model.state_dict(), n_bits, self.group))

    def cache(self) -> None:
        """Dense weights, quantised keys and values."""
        one = torch.from_numpy(self.calibration[:1, :-1])
        full = 2 * self.model.config.n_layer * self.d_model * family.SEQ * 4  # bytes in fp32
        self.row("cache", lambda: (self.evaluate(), self.bytes_of(None), full), cache="fp32")

        def find(n_bits, grids):
            def make():
                return QuantizedCache(family.SEQ, n_bits, grids)
            kept = make()
            with torch.no_grad():
                self.model(one, kept)
            loss = self.evaluate(model=Cached(self.model, make))
            return loss, self.bytes_of(None), kept.n_bytes()

        for n_bits in (8, 4, 3, 2):
            self.row("cache", lambda b=n_bits: find(b, None), cache=f"{n_bits} token")
            self.row("cache", lambda b=n_bits: find(b, head_grids(
                self.model, self.calibration, b)), cache=f"{n_bits} head")

    def inputs(self) -> None:
        """Weights and the inputs of the matrix products quantised."""
        for n_bits, group, input_bits in ((8, "row", 8), (8, "row", 6), (8, "row", 4),
                                          (4, self.group, 8)):
            def find(b=n_bits, g=group, a=input_bits):
                quantized = (quantize_state(self.dense, b, g) if b == 8 else self.gptq(b, g))
                with RoundedInputs(self.model, a):
                    return self.found(quantized)
            self.row("rtn" if n_bits == 8 else "gptq", find, n_bits, group,
                     input_bits=input_bits)

    def graphs(self) -> dict:
        """ONNX graphs of one decoding step: fp32, int8, and GPTQ's int4 with an int8 head."""
        self.model.load_state_dict(self.dense)
        plain = decode.decode_graph(self.model)
        int4 = decode.decode_graph(self.model, self.gptq(4, self.group, embed_bits=8))
        return {"fp32": plain, "int8": decode.int8_graph(plain), "int4": int4}

    def decode(self) -> None:
        """The loss of what ONNX Runtime computes, read one token at a time."""
        if self.d_model not in DECODED:
            return
        windows = self.held[min(self.options.windows, N_DECODED)]
        self.model.load_state_dict(self.dense)
        self.row("dense", lambda: (training.evaluate(self.model, windows), self.bytes_of(None), 0),
                 n_windows=len(windows))
        graphs = {}
        for name, n_bits in (("fp32", 32), ("int8", 8), ("int4", 4)):
            def find(name=name):
                graphs.update(graphs or self.graphs())
                graph = graphs[name]
                return decode.decoded_loss(decode.Decoder(graph), windows), graph.ByteSize(), 0
            self.row("onnx", find, n_bits, {8: "row", 4: self.group}.get(n_bits, ""),
                     n_windows=len(windows))

    def latency(self, n_rounds: int) -> list[dict]:
        """Milliseconds per token of a window read one token at a time, all taking turns."""
        tokens = self.calibration[:1, :-1]
        graphs = {f"ONNX Runtime {name}": decode.Decoder(g) for name, g in self.graphs().items()}
        rounded, _ = checkpoints.load_tokenised(self.file)
        rounded.load_state_dict(dequantize_state(quantize_state(self.dense, 4, self.group)))
        self.model.load_state_dict(self.dense)
        jobs = {"PyTorch fp32": lambda: decode.read_eager(self.model, tokens),
                "PyTorch int4 dequantised": lambda: decode.read_eager(rounded, tokens)}
        jobs |= {name: lambda d=decoder: d.read(tokens) for name, decoder in graphs.items()}
        seconds = runtime.take_turns(jobs, n_rounds)
        base = np.median(seconds["PyTorch fp32"])
        shape = f"d_model {self.d_model}, {self.model.config.n_layer} layers, 1 token"
        return [{"shape": shape, "d_model": self.d_model, "what": name,
                 "ms": round(1e3 * float(np.median(s)) / tokens.shape[1], 4),
                 "ratio": round(float(base / np.median(s)), 3), "n_rounds": n_rounds,
                 "device": runtime.device_name(torch.device("cpu")), "torch": torch.__version__,
                 "onnxruntime": onnxruntime.__version__, "commit": training.commit()}
                for name, s in seconds.items()]


def write_latency(path: Path, rows: list[dict]) -> None:
    """Write the table anew."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    replace_whole(path, text.getvalue())


def main(words: list[str]) -> int:
    """Record what the words ask for, the course's width first."""
    parser = argparse.ArgumentParser("make record TABLE=quantization",
                                     description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", type=one_of(*PARTS, "latency", *family.LAYERS),
                        metavar="PART or WIDTH", help=f"parts {', '.join(PARTS)}; or latency "
                        f"alone; widths {', '.join(map(str, family.LAYERS))}")
    parser.add_argument("--folder", type=Path, default=data.DATA / "sweeps")
    parser.add_argument("--windows", type=count, default=500, help="held-out windows")
    parser.add_argument("--tune-steps", type=count, default=family.TUNE)
    options = parser.parse_args(words)
    options.out = options.folder / "quantization.csv"
    widths = [w for w in options.what if isinstance(w, int)]
    parts = [w for w in options.what if isinstance(w, str)]
    if "latency" in parts and set(parts) != {"latency"}:
        parser.error("latency stands alone, or with widths")
    has = {"weights": {*family.LAYERS}, "decode": {*DECODED}, "latency": {*DECODED}}
    for part in parts:
        if widths and not has.get(part, {128}) & {*widths}:
            parser.error(f"{part} is recorded at the widths {sorted(has.get(part, {128}))} alone")
    if not options.folder.is_dir():
        parser.error(f"--folder {options.folder}: expected a folder that is there")
    for d_model in widths or family.LAYERS:  # before hours of work
        for n_steps in family.lengths(d_model)[:None if "weights" in (parts or PARTS) else 1]:
            family.trained(d_model, n_steps)
    runtime.setup()
    merges = checkpoints.load_tokenised(family.trained(128, family.BASE))[1]
    texts = corpora.tokenised(merges)
    if "latency" in parts:
        rows = [row for d in widths or DECODED for row in
                Recorder(options, texts, d, family.lengths(d)[0], merges).latency(15)]
        write_latency(options.folder / "latency_quantization.csv", rows)
        return 0
    for d_model in widths or family.LAYERS:
        work = Recorder(options, texts, d_model, family.lengths(d_model)[0], merges)
        for part in parts or PARTS:
            if part in ("weights", "decode") or d_model == 128:
                getattr(work, part)()
        for n_steps in family.lengths(d_model)[1:] if "weights" in (parts or PARTS) else ():
            Recorder(options, texts, d_model, n_steps, merges).weights()  # equal total FLOPs
    return 0
