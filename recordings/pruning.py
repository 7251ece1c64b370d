"""The recorded runs of chapter 11: pruned models with their losses and files, and latencies.

`make record TABLE=pruning` makes all rows of sweeps/pruning.csv that are missing; `untuned`,
`tuned` or `large` name a part, `backwards` takes the rows from the end, so that two processes can
share them; `latency` makes sweeps/latency_pruning.csv.
"""

import argparse
import copy
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy import sparse

from helpers import corpora, data, runtime
from helpers.compress import prune as p
from helpers.scaling import ledger
from helpers.transformer import checkpoints, training
from helpers.transformer.flops import flops_per_token
from helpers.transformer.models import GPT, KVCache
from helpers.transformer.training import TrainConfig
from recordings import one_of
from recordings.family import BASE, BATCH, SEQ, TUNE, VOCAB, shape, trained

LEDGER, LATENCY = "sweeps/pruning.csv", "sweeps/latency_pruning.csv"
RECIPE = "60b75f7838faa114"  # of the rows, see `ledger.key`
PARTS = ("untuned", "tuned", "large")
N_WINDOWS, RATE = 500, 7e-4
LARGE, LARGE_BASE, LARGE_TUNE = 320, BASE // 2, 96  # the wide model and its steps
SPARSITIES = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
SMALL, DRAWS = (0.01, 0.02, 0.04, 0.08), (0, 1, 2)  # sparsities and seeds of the random control
DENSITIES = (0.5, 0.3, 0.2, 0.1, 0.05)
PATTERNS = ((2, 4), (4, 8), (1, 4))
THIN = ((0.5, 1.0), (1.0, 0.5), (0.5, 0.5), (0.25, 1.0))  # shares of MLP width and of heads
N_ROUNDS, LEAST = 15, 0.1  # turns of timing, seconds each


def stages(density: float) -> tuple[float, ...]:
    """Four falling densities, each the same share of the one before."""
    return tuple(density ** (k / 4) for k in (1, 2, 3, 4))


def wanted() -> list[tuple]:
    """(part, d_model, method, scheme, density, detail, seed), in the order of importance.

    detail: a matrix that is cut alone, N:M, or shares of MLP width and heads.
    """
    def untuned(method, density, detail="", seed=0):
        return "untuned", 128, method, "untuned", density, detail, seed

    def tuned(method, density, detail="", scheme="one-shot"):
        return "tuned", 128, method, scheme, density, detail, 0

    names = [f"blocks.{i}.{part}.weight" for i in range(4)
             for part in ("attn.qkv", "attn.out", "up", "down")]
    rows = [untuned("dense", 1.0)]
    rows += [untuned(m, round(1 - s, 2)) for s in SPARSITIES for m in ("global", "layer")]
    rows += [untuned("random", round(1 - s, 2), seed=k) for s in SMALL for k in DRAWS]
    rows += [untuned("random", round(1 - s, 2), seed=k) for s in (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
             for k in DRAWS]
    rows += [untuned("one matrix", d, name) for d in (0.3, 0.1) for name in names]
    rows += [untuned("N:M", n / m, f"{n}:{m}") for n, m in PATTERNS]
    rows += [untuned("thin", 1.0, f"mlp {a:g} heads {b:g}") for a, b in THIN]
    rows += [tuned("dense", 1.0), tuned("thin", 1.0, "mlp 0.5 heads 1")]
    rows += [tuned("layer", d) for d in DENSITIES]
    rows += [tuned("N:M", 0.5, "2:4"), tuned("global", 0.1), tuned("layer", 0.1, scheme="stages")]
    rows += [tuned("thin", 1.0, f"mlp {a:g} heads {b:g}") for a, b in THIN[1:]]
    rows += [tuned("random", 0.5), tuned("global", 0.3), tuned("layer", 0.05, scheme="stages"),
             tuned("N:M", 0.25, "1:4"), tuned("random", 0.2), tuned("global", 0.5)]
    rows += [tuned("layer", 0.2, scheme="stages"), tuned("global", 0.2), tuned("global", 0.05),
             tuned("global", 0.1, scheme="stages"), tuned("N:M", 0.5, "4:8")]
    large = [("untuned", "dense", 1.0, "")]
    large += [("untuned", "layer", d, "") for d in (0.8, 0.7, 0.6, 0.5, 0.3, 0.2)]
    large += [("untuned", "N:M", 0.5, "2:4"), ("untuned", "thin", 1.0, "mlp 0.5 heads 1")]
    large += [("one-shot", "dense", 1.0, ""), ("one-shot", "layer", 0.2, ""),
              ("one-shot", "thin", 1.0, "mlp 0.5 heads 1"), ("one-shot", "layer", 0.5, "")]
    return rows + [("large", LARGE, m, scheme, d, detail, 0) for scheme, m, d, detail in large]


def mask_maker(method: str, detail: str, seed: int):
    """The function (weights, density) → mask of a method."""
    if method == "random":
        return lambda weights, d: p.random_mask(weights, d, np.random.default_rng(seed))
    if method == "N:M":
        return lambda weights, _d: p.nm_mask(weights, *map(int, detail.split(":")))
    if method == "one matrix":
        return lambda weights, d: p.layer_mask({detail: weights[detail]}, d)
    return p.magnitude_mask if method == "global" else p.layer_mask


def thin(model: GPT, mlp: float, heads: float) -> None:
    """Keep these shares of each block's MLP channels and heads: those of the largest scores."""
    for block in model.blocks:
        for share, scores, shrink, part in ((mlp, p.channel_scores, p.shrink_mlp, block),
                                            (heads, p.head_scores, p.shrink_heads, block.attn)):
            order = scores(part).argsort(descending=True, stable=True)
            if share < 1:
                shrink(part, order[:round(share * len(order))].sort().values)


def step_flops(model: GPT) -> float:
    """Training FLOPs of one step; zeros that a mask leaves are multiplied like other weights."""
    config, d_model = model.config, model.config.d_model
    full = config.n_layer * 12 * d_model**2
    gone = full - sum(w.numel() for w in p.matrices(model).values())
    lost = sum(d_model - block.attn.out.weight.shape[1] for block in model.blocks)
    return BATCH * SEQ * (flops_per_token(config, SEQ) - 6 * (gone + 2 * SEQ * lost))


def record(base: GPT, row: tuple, key: str, texts: tuple, n_steps: int, facts: dict) -> dict:
    """Prune, tune and examine a copy of the model: one row."""
    _, d_model, method, scheme, density, detail, seed = row
    tokens, validation, tokens_per_byte = texts
    model, start = copy.deepcopy(base), time.perf_counter()
    n_base = LARGE_BASE if d_model == LARGE else BASE
    C = n_base * step_flops(model)
    mask_of = mask_maker(method, detail, seed)
    if method == "thin":
        thin(model, float(detail.split()[1]), float(detail.split()[3]))
    if scheme == "untuned":
        n_steps = 0
        p.apply_mask(model, mask_of(p.matrices(model), density))
    else:
        config = TrainConfig(lr=RATE, n_steps=n_steps, batch_size=BATCH, seq=SEQ, warmup_steps=20,
                             decay_fraction=0.5, seed=seed + 1, dtype="bfloat16")
        densities = stages(density) if scheme == "stages" else (density,)
        p.tune(model, mask_of, densities, data.TokenBatches(tokens, BATCH, SEQ, seed + 1), config)
    loss = training.evaluate(model, validation)
    seconds = round(time.perf_counter() - start, 1)
    N = sum(int((w != 0).sum()) for name, w in model.named_parameters() if name != "wte.weight")
    with tempfile.TemporaryDirectory() as folder:
        sizes = [p.save_pruned(model, Path(folder) / "file", method not in ("dense", "thin"),
                               dtype, **facts) for dtype in (torch.float32, torch.float16)]
    return {"key": key, "method": method, "scheme": scheme, "density": density, "detail": detail,
            "d_model": d_model, "n_layer": model.config.n_layer, "N": N,
            "N_total": N + model.wte.weight.numel(), "tune_steps": n_steps,
            "C": C + n_steps * step_flops(model), "loss": loss,
            "bpb": data.bits_per_byte(loss, tokens_per_byte), "bytes": sizes[0],
            "bytes_fp16": sizes[1], "seed": seed, "dtype": "bfloat16" if n_steps else "float32",
            "seconds": seconds, "device": runtime.device_name(torch.device("cpu")),
            "torch": torch.__version__, "commit": training.commit()}


def key_of(row: tuple) -> str:
    """The key of a row of `wanted`."""
    n_steps = LARGE_TUNE if row[1] == LARGE else TUNE
    return ledger.key({"row": list(row), "rate": RATE, "steps": n_steps}, RECIPE)


def grid(parts: list[str], backwards: bool) -> None:
    """Make the rows of these parts that are missing."""
    runtime.setup()
    path, bases, texts = data.DATA / LEDGER, {}, None
    rows = {key_of(row): row for row in wanted() if row[0] in parts}
    missing = [key for key in rows if key not in ledger.keys(path)]
    files = {d: trained(d, LARGE_BASE if d == LARGE else BASE)
             for d in {rows[key][1] for key in missing}}  # all of them, before hours of work
    for key in missing[::-1] if backwards else missing:
        if key in ledger.keys(path):
            continue  # another process was quicker
        row = rows[key]
        n_steps = LARGE_TUNE if row[1] == LARGE else TUNE
        if row[1] not in bases:
            bases[row[1]] = checkpoints.load_tokenised(files[row[1]])
        model, merges = bases[row[1]]
        if texts is None:
            tokens, held, tokens_per_byte = corpora.tokenised(merges)
            texts = tokens, data.windows(held, N_WINDOWS, SEQ), tokens_per_byte
        ledger.append(path, record(model, row, key, texts, n_steps, {"merges": json.dumps(merges)}))


def decoding(model: GPT):
    """A call that reads one token after 64 others."""
    cache, one = KVCache(SEQ), torch.ones(1, 1, dtype=torch.int64)
    model(torch.ones(1, 64, dtype=torch.int64), cache)

    def step():
        cache.length = 64
        return model(one, cache)

    return step


def rivals(d_model: int, vocab: int = VOCAB) -> dict[str, GPT]:
    """The dense model of this width, pruned ones, and narrower dense ones; random weights."""
    dense = GPT(replace(shape(d_model), vocab=vocab))
    models = {"dense": dense} | {f"mlp {a:g} heads {b:g}": copy.deepcopy(dense) for a, b in THIN}
    for a, b in THIN:
        thin(models[f"mlp {a:g} heads {b:g}"], a, b)
    models["half masked"] = copy.deepcopy(dense)
    p.apply_mask(models["half masked"], p.layer_mask(p.matrices(dense), 0.5))
    models["2:4 masked"] = copy.deepcopy(dense)
    p.apply_mask(models["2:4 masked"], p.nm_mask(p.matrices(dense), 2, 4))
    if d_model == 128 and vocab == VOCAB:
        models |= {f"width {d}": GPT(shape(d)) for d in (96, 64, 48, 32)}
    return models


def jobs_of(d_model: int) -> dict[str, dict]:
    """What is timed at this width: batches, single tokens, batches of bytes, one matrix alone.

    With bytes for tokens (vocab 256) the head, which no pruning touches, is a quarter as large.
    """
    models, rng = rivals(d_model), np.random.default_rng(0)
    tokens = torch.from_numpy(rng.integers(0, 256, (BATCH, SEQ)))
    x = rng.standard_normal((d_model, BATCH * SEQ), dtype=np.float32)
    up, columns = models["dense"].blocks[0].up.weight.detach(), torch.from_numpy(x)
    csr = {d: sparse.csr_matrix(up.numpy() * p.layer_mask({"up": up}, d)["up"].numpy())
           for d in (0.5, 0.2, 0.1, 0.05)}
    return {"batch": {name: lambda m=m: m(tokens) for name, m in models.items()},
            "token": {name: decoding(m) for name, m in models.items()},
            "batch of bytes": {name: lambda m=m: m(tokens)
                               for name, m in rivals(d_model, 256).items()},
            "matrix": {"dense": lambda: up @ columns} | {
                f"CSR {d:g}": lambda w=w: w @ x for d, w in csr.items()}}


@torch.inference_mode()
def latency() -> None:
    """Time each kind of job in turns; ratio: dense time over this time; low, high: 10 and 90 %."""
    runtime.setup()
    for d_model in (64, 128, 320):
        for what, group in jobs_of(d_model).items():
            times = runtime.take_turns(group, N_ROUNDS, LEAST)
            for name, seconds in times.items():
                ratios = times["dense"] / seconds
                row = {"d_model": d_model, "model": name, "what": what}
                ledger.append(data.DATA / LATENCY, {
                    "key": ledger.key(row, ""), **row, "ms": 1e3 * float(np.median(seconds)),
                    "ratio": float(np.median(ratios)), "low": float(np.quantile(ratios, 0.1)),
                    "high": float(np.quantile(ratios, 0.9)), "n_rounds": N_ROUNDS,
                    "device": runtime.device_name(torch.device("cpu")),
                    "torch": torch.__version__, "commit": training.commit()})


def main(words: list[str]) -> int:
    """Make the rows of the parts named, or all of pruning.csv; or the latencies."""
    parser = argparse.ArgumentParser("make record TABLE=pruning", description=__doc__)
    parser.add_argument("parts", nargs="*", type=one_of(*PARTS, "backwards", "latency"),
                        metavar="PART", help=f"{', '.join(PARTS)}, backwards, or latency alone")
    chosen = parser.parse_args(words).parts
    if chosen == ["latency"]:
        latency()
        return 0
    if "latency" in chosen:
        parser.error("latency stands alone")
    grid([w for w in chosen if w in PARTS] or PARTS, "backwards" in chosen)
    return 0
