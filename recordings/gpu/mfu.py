"""Speed: chapter 07's table on the device, each row above the one before; then larger models."""

import time

import numpy as np
import torch

from helpers import data, runtime
from helpers.transformer import training
from helpers.transformer.flops import flops_per_token, n_params
from helpers.transformer.models import GPT, GPTConfig
from helpers.transformer.training import TrainConfig
from recordings.gpu.fast import Run
from recordings.gpu.kit import Kit, say

WARM, TIMED = 5, 20  # steps; two in all at toy size
TABLE = (  # change, its batch and how it is run; each adds one thing to the row above
    ("eager fp32", 32, {"course": "float32"}),
    ("TF32", 32, {"course": "float32", "tf32": True}),
    ("bf16", 32, {"course": "bfloat16"}),
    ("data and rates on the device", 32, {"fused": False}),
    ("fused optimiser", 32, {"fused": True}),
    ("CUDA graph", 32, {"graph": True}),
    ("torch.compile", 32, {"compile_": True, "graph": True}),
    ("four times the batch", 128, {"compile_": True, "graph": True}),
)
SHAPE = GPTConfig(vocab=1024, context=256, n_layer=6, n_head=6, d_model=384)
LARGE = {  # name: shape, batches to try, the largest first
    "50M": (GPTConfig(vocab=50304, context=1024, n_layer=8, n_head=8, d_model=512), (64, 32)),
    "124M": (GPTConfig(vocab=50304, context=1024, n_layer=12, n_head=12, d_model=768), (32, 16)),
    "350M": (GPTConfig(vocab=50304, context=1024, n_layer=24, n_head=16, d_model=1024), (16, 8)),
}
TOY = GPTConfig(vocab=64, context=16, n_layer=1, n_head=2, d_model=16)


def data_sheet_peak(name: str) -> float:
    """Dense bf16 FLOP/s of the card by its maker's data sheet; NaN for one that is not listed."""
    sheet = data.table("published/gpu_specs.csv")
    rows = sheet[[card.split()[0] in name and ("PCIe" in card) == ("PCIe" in name)
                  for card in sheet.gpu]]
    return float(rows.bf16_dense_TFLOPs.iloc[0]) * 1e12 if len(rows) else float("nan")


def timed(kit: Kit, step, tokens_per_step: int) -> float:
    """Tokens per second of `step`, after a warm-up."""
    warm, n = (1, 1) if kit.toy else (WARM, TIMED)
    for _ in range(warm):
        step()
    runtime.synchronize(kit.device)
    start = time.perf_counter()
    for _ in range(n):
        step()
    runtime.synchronize(kit.device)
    return n * tokens_per_step / (time.perf_counter() - start)


def course_step(kit: Kit, shape: GPTConfig, config: TrainConfig, text: np.ndarray):
    """A call that takes one step as the course's notebooks do."""
    model = GPT(shape).to(kit.device)
    optimizer = training.make_optimizer(model, config)
    batches = data.TokenBatches(text, config.batch_size, config.seq)
    at = iter(range(config.n_steps))

    def step():
        i = next(at)
        training.run_steps(model, optimizer, batches, config, i, i + 1)

    return step


def measure(kit: Kit, shape: GPTConfig, batch: int, how: dict, peaks: dict) -> dict:
    """Speed, share of the peaks and memory of one way to train one shape."""
    n_steps = WARM + TIMED + 10
    config = TrainConfig(lr=3e-4, n_steps=n_steps, batch_size=batch, seq=shape.context,
                         warmup_steps=2, dtype=how.get("course", "bfloat16"))
    text = np.random.default_rng(0).integers(
        shape.vocab, size=(n_steps + 2) * batch * shape.context + 1)
    on_gpu = kit.device.type == "cuda"
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    torch.set_float32_matmul_precision("high" if how.get("tf32") else "highest")
    begin = time.perf_counter()
    if "course" in how:
        step = course_step(kit, shape, config, text)
    else:
        run = Run(shape, config, torch.from_numpy(text).to(kit.device),
                  low=on_gpu, fused=how.get("fused", True),
                  compile_=on_gpu and how.get("compile_", False))
        if how.get("graph"):
            run.graph()
        step = run.step
        step()
    prepared = time.perf_counter() - begin
    speed = timed(kit, step, batch * shape.context)
    torch.set_float32_matmul_precision("highest")
    rate = speed * flops_per_token(shape, shape.context)
    return {"N": n_params(shape)[0], "N_total": n_params(shape)[1], "batch": batch,
            "tokens_per_s": speed, "mfu": rate / peaks["sheet"],
            "of_matmul": rate / peaks["matmul"], "prepare_s": prepared,
            "memory_GB": torch.cuda.max_memory_allocated() / 1e9 if on_gpu else float("nan")}


def mfu(kit: Kit) -> None:
    """Rows of gpu_speed.csv; those of the table first, one change each."""
    n, low = (256, torch.float32) if kit.toy else (8192, torch.bfloat16)
    peaks = {"matmul": runtime.peak_flops(kit.device, n, 10, low),
             "sheet": data_sheet_peak(kit.facts["card"])}
    say(f"matmul {peaks['matmul'] / 1e12:.1f} TFLOP/s, data sheet {peaks['sheet'] / 1e12:.1f}")
    for change, batch, how in TABLE:
        shape, batch = (TOY, 2) if kit.toy else (SHAPE, batch)
        kit.row("speed", {"model": "table", "change": change},
                lambda s=shape, b=batch, h=how: measure(kit, s, b, h, peaks))
    for name, (shape, batches) in LARGE.items():
        for batch in batches:
            if kit.has("speed", {"model": name, "change": "all"}):
                break
            one, b = (TOY, 2) if kit.toy else (shape, batch)
            kit.row("speed", {"model": name, "change": "all"}, lambda s=one, b=b: measure(
                kit, s, b, {"compile_": True, "graph": True}, peaks))
