"""A sweep with branches, one thread a trial, against each run trained alone on two threads."""

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from helpers import corpora, data, runtime
from helpers.scaling import sweeps
from helpers.scaling.sweeps import Trial, learning_rate
from helpers.transformer import training
from helpers.transformer.models import GPT

TOKENS = tuple(512 * round(256 * 2**(i / 2)) for i in range(7))  # 0.125M … 1M by factors of √2
GRID = [Trial(d, n_layer, learning_rate(d), TOKENS) for d, n_layer in ((48, 3), (64, 4), (96, 4))]
SEEDS = 3  # of one run, for the noise that losses are compared with


def alone(trial: Trial, D: int, text) -> tuple[float, float]:
    """(loss, seconds) of one run from its first step to its last, in float32 on two threads."""
    runtime.setup(trial.seed)
    torch.set_num_threads(2)
    batches = data.TokenBatches(text[0], trial.batch_size, trial.seq, trial.seed)
    validation = data.windows(text[1], trial.n_validation, trial.seq)
    begin = time.perf_counter()
    record, _ = training.train(GPT(trial.shape, trial.seed), batches, trial.config(D), validation)
    return record.loss, time.perf_counter() - begin


def rows():
    dtype = runtime.fast_dtype(runtime.device())
    text = corpora.load("prose")
    with tempfile.TemporaryDirectory() as folder:
        path, begin = Path(folder) / "ledger.csv", time.perf_counter()
        list(sweeps.sweep([replace(t, dtype=dtype) for t in GRID], path, n_workers=2))
        together = time.perf_counter() - begin
        swept = pd.read_csv(path).set_index(["d_model", "D"]).loss
        repeats = [replace(GRID[0], tokens=TOKENS[:1], seed=seed, dtype=dtype)
                   for seed in range(SEEDS)]
        list(sweeps.sweep(repeats, path, n_workers=2))
        table = pd.read_csv(path)
        noise = table[(table.d_model == GRID[0].d_model) & (table.D == TOKENS[0])].loss.std()
    seconds, gaps = 0.0, []
    for trial in GRID:
        for D in TOKENS:
            loss, taken = alone(trial, D, text)
            seconds += taken
            gaps.append(swept[trial.d_model, D] - loss)
    n = len(GRID) * len(TOKENS)
    yield f"{n} runs: separate on two threads over one sweep", seconds / together, "×", "≥ 4"
    shared = sum(TOKENS) / (0.8 * max(TOKENS) + 0.2 * sum(TOKENS))
    yield "of which tokens not trained twice", shared, "×", ""
    yield "mean gap of the losses, in seeds' standard deviations", np.mean(gaps) / noise, "σ", ""
    yield ("median size of the gap, in seeds' standard deviations",
           statistics.median(map(abs, gaps)) / noise, "σ", "≤ 2")
