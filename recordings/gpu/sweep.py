"""The law continued: L(N, D) on code that is never repeated, then three runs foretold and made.

Several sizes train at once, each on a stream of its own, one captured graph a step: a small model
alone would leave most of the card idle.
"""

import json
import lzma
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from helpers import corpora, data, fits, runtime
from helpers.scaling import ledger
from helpers.transformer.flops import flops_per_token, n_params
from helpers.transformer.models import GPTConfig
from helpers.transformer.training import TrainConfig, wsd
from recordings.gpu.fast import Run, examine
from recordings.gpu.kit import CARRIED, Kit, say

SEQ, BATCH = 256, 64  # bytes per window, windows per step
M = 2**20
SIZES = {64: 4, 96: 4, 128: 4, 192: 4, 256: 5, 320: 5, 384: 6}  # d_model: n_layer
TOKENS = (2 * M, 4 * M, 7 * M, 12 * M, 20 * M)
HEROES = ((512, 8, 92 * M), (576, 8, 74 * M), (512, 10, 76 * M))  # d_model, n_layer, D
HELD_OUT = M  # bytes at the end, cut off before anything is trained on
TOYS = dict.fromkeys((8, 12, 16, 20, 24, 32), 1)


def shape_of(d_model: int, n_layer: int) -> GPTConfig:
    """Heads of 32 channels, of 16 in the smallest."""
    return GPTConfig(vocab=256, context=SEQ, n_layer=n_layer, d_model=d_model,
                     n_head=max(1, d_model // (32 if d_model % 64 == 0 else 16)))


def config_of(d_model: int, D: int, batch: int) -> TrainConfig:
    """The rate falls with the width, by chapter 08's rule."""
    return TrainConfig(lr=round(4e-3 * (64 / d_model) ** 0.75, 6), n_steps=D // (batch * SEQ),
                       batch_size=batch, seq=SEQ, warmup_steps=min(100, D // (batch * SEQ) // 4),
                       decay_fraction=0.2)


def code_text(kit: Kit) -> tuple[torch.Tensor, torch.Tensor]:
    """Code to train on and windows to examine on, on the device, as bytes."""
    packed = CARRIED / "code.xz"
    if packed.exists() and not kit.toy:
        raw = np.frombuffer(lzma.decompress(packed.read_bytes()), dtype=np.uint8)
        train, held = raw[:-HELD_OUT], raw[-HELD_OUT:]
    else:
        train, held = corpora.load("code")
    held = data.windows(held, 64 if kit.toy else 2000, SEQ)
    return (torch.from_numpy(np.array(train)).to(kit.device),
            torch.from_numpy(held).to(kit.device))


def columns(run: Run, D: int, loss: float) -> dict:
    """What a finished run's row says beside its name."""
    shape = run.model.config
    N, N_total = n_params(shape)
    return {"N": N, "N_total": N_total, "C": float(D * flops_per_token(shape, SEQ)), "loss": loss,
            "bpb": data.bits_per_byte(loss), "lr": run.config.lr, "seq": SEQ, "dtype": "bfloat16"}


def name_of(run: Run, D: int) -> dict:
    """What was asked for: the run's name in the ledger."""
    shape = run.model.config
    return {"data": "code", "d_model": shape.d_model, "n_layer": shape.n_layer, "D": D,
            "batch": run.config.batch_size}


def cool_down(run: Run, D: int, validation: torch.Tensor) -> float:
    """Loss of the branch that ends at D; the trunk is left where it was."""
    end = config_of(run.model.config.d_model, D, run.config.batch_size)
    rates = end.lr * torch.tensor([wsd(i, end.n_steps, end.warmup_steps, end.decay_steps)
                                   for i in range(end.n_steps)], device=run.rates.device)
    with run.branch(rates):
        while int(run.at) < end.n_steps:
            run.step()
        return examine(run.model, validation)


def grid(kit: Kit, text: torch.Tensor, validation: torch.Tensor) -> None:
    """Trunks of all sizes side by side, a branch from each to each token count."""
    sizes, tokens, batch = ((TOYS, tuple(t // 2048 for t in TOKENS), 2) if kit.toy else
                            (SIZES, TOKENS, BATCH))
    runs = []
    for d_model, n_layer in sizes.items():
        config = replace(config_of(d_model, tokens[-1], batch), decay_fraction=0.0)
        run = Run(shape_of(d_model, n_layer), config, text, low=not kit.toy)
        if all(kit.has("sweep", name_of(run, D)) for D in tokens):
            continue
        run.graph()
        runs.append((run, torch.cuda.Stream() if kit.device.type == "cuda" else None))
    at = {id(run): int(run.at) for run, _ in runs}
    for D in tokens:
        fork = D // (batch * SEQ) - config_of(64, D, batch).decay_steps
        for step in range(fork):
            for run, stream in runs:
                if step >= at[id(run)]:
                    with torch.cuda.stream(stream):
                        run.step()
        at = {id(run): max(fork, at[id(run)]) for run, _ in runs}
        if kit.device.type == "cuda":
            torch.cuda.synchronize()
        for run, _ in runs:
            kit.row("sweep", name_of(run, D), lambda r=run, D=D: columns(
                r, D, cool_down(r, D, validation)))


def predict(kit: Kit, number: int, shape: GPTConfig, D: int) -> dict:
    """Seal the loss of a hero run, foretold from the grid, with an interval; return what it says.

    A prediction that is there is read, never written again.
    """
    path = kit.folder / "sealed" / f"gpu_prediction_{number}.json"
    if not path.exists():
        rows = pd.read_csv(kit.path("sweep"))
        rows = rows[rows.card == kit.facts["card"]]
        largest = float(rows[rows.batch > 0].C.max())
        N = rows.C / 6 / rows.D  # the count that fitted better in chapter 09
        law = fits.fit_parametric(N, rows.D, rows.loss)
        boot = fits.bootstrap_parametric(N, rows.D, rows.loss, 1000, groups=rows.d_model)
        counted = flops_per_token(shape, SEQ) / 6
        low, high = boot.predict_interval(counted, D, noise=0.002)
        path.parent.mkdir(parents=True, exist_ok=True)
        ledger.seal(path, {"run": {"data": "code", "d_model": shape.d_model,
                                   "n_layer": shape.n_layer, "D": D},
                           "loss": float(law.predict(counted, D)), "low": float(low),
                           "high": float(high), "n_runs": len(rows), "largest_C": largest,
                           "law": {k: getattr(law, k) for k in ("E", "A", "B", "alpha", "beta")}})
    return json.loads(path.read_text(encoding="utf-8"))


def heroes(kit: Kit, text: torch.Tensor, validation: torch.Tensor) -> None:
    """Rows of gpu_heroes.csv: each foretold in a sealed file before its run starts."""
    chosen = ((40, 1, M // 64),) if kit.toy else HEROES
    for number, (d_model, n_layer, D) in enumerate(chosen, 1):
        shape, batch = shape_of(d_model, n_layer), 2 if kit.toy else 2 * BATCH
        D = D // (batch * SEQ) * batch * SEQ

        def made(shape=shape, D=D, number=number, batch=batch):
            said = predict(kit, number, shape, D)
            run = Run(shape, config_of(shape.d_model, D, batch), text, low=not kit.toy,
                      compile_=not kit.toy)
            run.graph()
            begin, first = time.monotonic(), int(run.at)
            for step in range(first, run.config.n_steps):
                run.step()
                if step == first + 50:  # what it takes is known before much is spent
                    runtime.synchronize(kit.device)
                    left = (run.config.n_steps - step) * (time.monotonic() - begin) / 50
                    if left > kit.left:
                        raise RuntimeError(f"{left:.0f} s more are needed, {kit.left:.0f} are left")
            loss = examine(run.model, validation)
            return {**columns(run, D, loss), "predicted": said["loss"], "low": said["low"],
                    "high": said["high"], "inside": said["low"] <= loss <= said["high"]}

        kit.row("heroes", {"number": number, "data": "code", "d_model": d_model,
                           "n_layer": n_layer, "D": D, "batch": batch}, made)


def sweep(kit: Kit) -> None:
    """The grid, then the runs that it foretells."""
    text, validation = code_text(kit)
    say(f"{len(text) / 1e6:.0f} MB of code to train on")
    grid(kit, text, validation)
    heroes(kit, text, validation)
