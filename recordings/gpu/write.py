"""Writing and compression: generation with a KV cache; sparse and int8 products against bf16."""

import time

import numpy as np
import torch
from torch.nn import functional as F

from helpers import runtime
from helpers.transformer.models import GPT, GPTConfig, generate
from recordings.gpu.kit import Kit

SHAPE = GPTConfig(vocab=1024, context=512, n_layer=6, n_head=6, d_model=384)
BATCHES, N_NEW = (1, 32, 256), 128
PRODUCTS = ((1024, 4096, 1024), (4096, 4096, 4096), (8192, 8192, 8192))  # rows, inner, columns
TOY = GPTConfig(vocab=64, context=16, n_layer=1, n_head=2, d_model=16)


def writing(kit: Kit, model: GPT, batch: int) -> dict:
    """Tokens per second of `generate` for so many texts at once."""
    n_new = 8 if kit.toy else N_NEW
    prompt = np.zeros((batch, 4), dtype=np.int64)
    generate(model, prompt, 4, np.random.default_rng(0))
    runtime.synchronize(kit.device)
    begin = time.perf_counter()
    tokens = generate(model, prompt, n_new, np.random.default_rng(0))
    runtime.synchronize(kit.device)
    seconds = time.perf_counter() - begin
    made = tokens.shape[1] - 4
    return {"ms": 1e3 * seconds / made, "rate": batch * made / seconds, "ratio": float("nan"),
            "error": 0.0}


def halved(w: torch.Tensor) -> torch.Tensor:
    """w with the two smaller of every four neighbours set to zero."""
    groups = w.reshape(-1, 4)
    keep = groups.abs().argsort(1, descending=True)[:, :2]
    mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(1, keep, True)
    return (groups * mask).reshape(w.shape)


def jobs_of(x: torch.Tensor, w: torch.Tensor) -> dict:
    """The product x wᵀ in bf16, with 2:4 sparse weights, and in int8: (call, its meaning).

    Both errors are against the product in float32 of the weights that were given.
    """
    sparse = torch.sparse.to_sparse_semi_structured(halved(w)) if x.is_cuda else halved(w)
    scale_x, scale_w = x.abs().amax() / 127, w.abs().amax() / 127
    x8, w8 = ((t / s).round().clamp(-127, 127).to(torch.int8) for t, s in ((x, scale_x),
                                                                           (w, scale_w)))
    return {"bf16": (lambda: F.linear(x, w), lambda y: y),
            "2:4 sparse": (lambda: F.linear(x, sparse), lambda y: y),
            "int8": (lambda: torch._int_mm(x8, w8.t()), lambda y: y * (scale_x * scale_w))}


def product(kit: Kit, size: tuple, kind: str, n_rounds: int = 7) -> dict:
    """Milliseconds of one kind of product, its speed over bf16 in turns, its relative error."""
    rows, inner, columns = (64, 64, 64) if kit.toy else size
    generator = torch.Generator(kit.device).manual_seed(0)
    x, w = (torch.randn(n, inner, device=kit.device, generator=generator, dtype=torch.float32
                        ).bfloat16() for n in (rows, columns))
    jobs = jobs_of(x, w)

    def finished(job):
        job()
        runtime.synchronize(kit.device)

    times = runtime.take_turns({name: lambda j=jobs[name][0]: finished(j)
                                for name in dict.fromkeys(("bf16", kind))}, n_rounds, 0.02)
    exact = x.float() @ w.float().t()
    call, meaning = jobs[kind]
    error = ((meaning(call()).float() - exact).norm() / exact.norm()).item()
    ms = 1e3 * float(np.median(times[kind]))
    return {"ms": ms, "rate": 2 * rows * inner * columns / ms * 1e3,
            "ratio": float(np.median(times["bf16"]) / np.median(times[kind])), "error": error}


def write(kit: Kit) -> None:
    """Rows of gpu_write.csv; `rate` is tokens/s for writing, FLOP/s for products."""
    model = GPT(TOY if kit.toy else SHAPE).to(kit.device).eval()
    for batch in BATCHES:
        kit.row("write", {"what": "generate", "size": f"batch {batch}"},
                lambda b=batch: writing(kit, model, b))
    for size in PRODUCTS:
        for kind in ("bf16", "2:4 sparse", "int8"):
            kit.row("write", {"what": kind, "size": " × ".join(map(str, size))},
                    lambda s=size, k=kind: product(kit, s, k))
