"""Sweeps of Part III: which trials, by which rules, into which ledger; predictions and heroes."""

import argparse
import hashlib
import json
import os
import sys
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd

from helpers import data, runtime
from helpers.scaling import fits, ledger, sweeps
from helpers.scaling.engines import ENGINES
from helpers.scaling.sweeps import Trial, learning_rate
from helpers.transformer.flops import flops_per_token, n_params
from recordings import count

M = 2**20
PROSE, HERO_LEDGER = "sweeps/prose_cpu.csv", "sweeps/hero_cpu.csv"
PREDICTION, RESULT = "sealed/prediction_{}.json", "sealed/hero_{}.json"
DEPTHS = {16: 2, 24: 2, 32: 3, 48: 3, 64: 4, 96: 4}  # d_model: n_layer
LARGER = {128: 5, 192: 6, 256: 8}  # PROFILE=full goes on to these
TOKENS = tuple(512 * round(1024 * 2**(i / 2)) for i in range(7))  # 0.5M … 4M by factors of √2
MORE_TOKENS = tuple(512 * round(1024 * 2**(i / 2)) for i in (7, 8))  # 5.7M, 8M


@dataclass(frozen=True)
class Hero:
    """A run of at least ten times the sweep's largest compute, and how it is foretold."""

    trial: Trial
    count: str  # column of N: without the embedding (N), or by FLOPs (N_flops)
    least_D: int  # shorter runs are not fitted


HEROES = {  # the second was sealed after the first was opened, by another count and cut
    1: Hero(Trial(192, 6, learning_rate(192), (10 * M,)), "N", M),
    2: Hero(Trial(176, 6, learning_rate(176), (19 * M // 2,)), "N_flops", TOKENS[3]),
}


def standard() -> list[Trial]:
    """The sweep of chapters 08 and 09: six sizes × seven token counts, four sizes three times.

    The smallest sizes go on to twice the tokens, at no more compute than the largest take.
    """
    if runtime.profile() == "full":
        return [Trial(d, n_layer, learning_rate(d), TOKENS + MORE_TOKENS, seed)
                for d, n_layer in (DEPTHS | LARGER).items() for seed in (0, 1, 2)]
    small = [Trial(d, n_layer, learning_rate(d), TOKENS + MORE_TOKENS * (d < 64))
             for d, n_layer in DEPTHS.items()]
    return small + [Trial(d, DEPTHS[d], learning_rate(d), TOKENS, seed)
                    for d in (24, 32, 48, 64) for seed in (1, 2)]


def scan() -> list[Trial]:
    """Learning rates around the rule at three sizes, and batches of half and twice the size.

    The rate goes with the root of the batch.
    """
    chosen = [(d, 4, factor) for d in (16, 32, 96) for factor in (0.35, 0.6, 1, 1.7, 2.8)]
    chosen += [(32, batch, factor) for batch in (2, 8) for factor in (0.6, 1, 1.7)]
    chosen += [(96, batch, 1) for batch in (2, 8)]
    return [Trial(d, DEPTHS[d], round(factor * learning_rate(d) * (batch / 4) ** 0.5, 6),
                  (M // 2, M), batch_size=batch) for d, batch, factor in chosen]


def language() -> list[Trial]:
    """Chapter 10: the made-up language, whose entropy is known; one layer, two seeds."""
    return [Trial(d, 1, learning_rate(d), powers(16, 21), seed, data="language")
            for seed in (0, 1) for d in (8, 12, 16, 24, 32, 48)]


def lever() -> list[Trial]:
    """Chapter 10: repeated, spoilt, duplicated, filtered, pruned and mixed texts; two layers."""
    pools = [f"prose:pool=2^{k}" for k in (13, 15, 16, 17, 18)]
    spoilt = [f"prose:{kind}={rate}" for kind in ("noise", "duplicate") for rate in (0.1, 0.3, 0.5)]
    pruned = [pools[2], f"{pools[3]}:filter=0.5", f"{pools[3]}:hard=0.5"]
    filtered = [f"{pools[2]}:noise=0.3{rest}" for rest in ("", ":filter=0.25")]
    mixed = [f"{text}:mix={share}" for share in (0.0, 0.25, 0.5, 0.75, 1.0)
             for text in ("prose", "code")]
    chosen = [  # d_model, texts, token counts, number of seeds
        *((d, ["prose", *pools[:2]], powers(15, 19), 3) for d in (64, 32, 16)),
        (64, pools[2:], powers(17, 19), 3), (32, spoilt + pruned, powers(17, 19), 3),
        (64, filtered, powers(15, 19), 2), (16, mixed, powers(17, 19), 2)]
    return [Trial(d, 2, learning_rate(d), tokens, seed, data=text)
            for d, texts, tokens, n_seeds in chosen for text in texts for seed in range(n_seeds)]


def powers(low: int, high: int) -> tuple[int, ...]:
    """2^low … 2^high."""
    return tuple(2**k for k in range(low, high + 1))


def say(text: str) -> None:
    """Show a line in place of the one before."""
    sys.stderr.write(f"\r{text}   ")


def seal(number: int) -> None:
    """Predict a hero run from the standard sweep, as chapter 09 does, before it is made."""
    hero = HEROES[number]
    runs = data.table(PROSE)
    runs["N_flops"] = runs.C / 6 / runs.D
    fitted = runs[runs.D >= hero.least_D]
    columns = (fitted[hero.count], fitted.D, fitted.loss)
    law = fits.fit_parametric(*columns)
    trunk, run = (fitted.groupby(names).ngroup() for names in (["N", "seed"], ["N", "D"]))
    boot = fits.bootstrap_parametric(*columns, groups=trunk)
    N, D = n_params(hero.trial.shape)[0], hero.trial.tokens[0]
    C = float(D * flops_per_token(hero.trial.shape, hero.trial.seq))
    counted = {"N": N, "N_flops": C / 6 / D}[hero.count]
    noise, _ = fits.seed_noise(run, np.log(fitted.loss))
    low, high = boot.predict_interval(counted, D, noise)
    plan = {name: value for name, value in asdict(hero.trial).items()
            if name not in ("tokens", "dtype")}
    ledger.seal(data.DATA / PREDICTION.format(number), {
        "run": {**plan, "N": N, "D": D, "C": C}, "loss": float(law.predict(counted, D)),
        "low": float(low), "high": float(high),
        "law": {name: getattr(law, name) for name in ("E", "A", "B", "alpha", "beta")},
        "fitted": {"file": PROSE, "sha256": data.manifest()[PROSE]["sha256"], "count": hero.count,
                   "least_D": hero.least_D, "n_runs": len(fitted),
                   "largest_C": float(fitted.C.max())}})


def open_envelope(number: int) -> None:
    """Write a hero run's row beside its prediction, with the prediction's hash."""
    rows = pd.read_csv(data.DATA / HERO_LEDGER)
    row = rows[rows.d_model == HEROES[number].trial.d_model].iloc[-1]
    digest = hashlib.sha256((data.DATA / PREDICTION.format(number)).read_bytes()).hexdigest()
    ledger.seal(data.DATA / RESULT.format(number),
                {"prediction_sha256": digest, "row": json.loads(row.to_json())})


SWEEPS = {"standard": ("prose_cpu", standard), "scan": ("scan_cpu", scan),
          "hero1": ("hero_cpu", lambda: [HEROES[1].trial]),
          "hero2": ("hero_cpu", lambda: [HEROES[2].trial]), "lever": ("data_lever", lever),
          "language": ("language", language)}


def main(words: list[str]) -> int:
    """Record one sweep, with a bar and the time left."""
    parser = argparse.ArgumentParser("make record", description=__doc__)
    parser.add_argument("sweep", choices=[*SWEEPS, "seal1", "seal2"])
    parser.add_argument("--engine", default="processes", choices=ENGINES)
    parser.add_argument("--workers", type=count, default=os.cpu_count(), help="processes at a time")
    parser.add_argument("--dtype", default=None, choices=["float32", "bfloat16"],
                        help="of the matrix products; by default what this device does fast")
    chosen = parser.parse_args(words)
    number = int(chosen.sweep[-1]) if chosen.sweep[-1].isdigit() else 0
    if chosen.sweep.startswith("seal"):
        if (path := data.DATA / PREDICTION.format(number)).exists():
            parser.error(f"{path} is sealed: a prediction is made once")
        seal(number)
        return 0
    if number and not (data.DATA / PREDICTION.format(number)).exists():
        parser.error(f"there is no data/{PREDICTION.format(number)}: seal the prediction first")
    name, trials = SWEEPS[chosen.sweep]
    if chosen.sweep == "standard" and runtime.profile() == "full":
        name = "prose_full"
    dtype = chosen.dtype or runtime.fast_dtype(runtime.device())
    path = data.DATA / "sweeps" / f"{name}.csv"
    for status in sweeps.sweep([replace(t, dtype=dtype) for t in trials()], path, chosen.workers,
                               chosen.engine):
        say(f"{status}\n{status.note}\n" if status.note else str(status))
    if number and not (data.DATA / RESULT.format(number)).exists():
        open_envelope(number)
    return 0
