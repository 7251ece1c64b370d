"""The dense models that Part IV compresses, and those that compressed models must beat.

`make record TABLE=family` trains them into `data/models/` and into the folder `runs/`, which git
ignores, and writes one row a run into `data/sweeps/family.csv`. All read the same text in the same
order.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict

from helpers import corpora, data, runtime
from helpers.foundations.tokens import bpe_train
from helpers.scaling import ledger, sweeps
from helpers.transformer import checkpoints, training
from helpers.transformer.flops import flops_per_token
from helpers.transformer.models import GPT, GPTConfig
from helpers.transformer.training import TrainConfig
from helpers.transformer.trunks import branches
from recordings import one_of

RUNS, LEDGER = runtime.ROOT / "runs", "sweeps/family.csv"
VOCAB, SEQ, BATCH = 1024, 128, 16
BASE, TUNE = 3072, 384  # steps of the course's model, and of any fine-tuning after it
LAYERS = {128: 4, 96: 4, 64: 4, 48: 4, 32: 4, 320: 6}  # by d_model
KEPT = {(128, BASE): "gpt_prose", (64, 11059): "gpt_small"}  # in data/models


def shape(d_model: int) -> GPTConfig:
    """The model of this width: heads of 16 channels, of 32 in the largest."""
    return GPTConfig(VOCAB, SEQ, LAYERS[d_model], d_model // (32 if d_model > 128 else 16), d_model)


def config(d_model: int, n_steps: int) -> TrainConfig:
    """A run of this width: the rate falls with the width as in chapter 08."""
    return TrainConfig(lr=round(2e-3 * (128 / d_model) ** 0.75, 6), n_steps=n_steps,
                       batch_size=BATCH, seq=SEQ, decay_fraction=0.4, dtype="bfloat16")


def lengths(d_model: int) -> list[int]:
    """Steps of the runs: the course model's own, and as many as its total FLOPs would buy.

    Total: training and fine-tuning of the course's model. The smallest width has the first
    alone; the largest has half of it.
    """
    per_step = {d: flops_per_token(shape(d), SEQ) for d in (128, d_model)}
    equal = (BASE + TUNE) * per_step[128] / per_step[d_model]
    return {32: [BASE], 320: [BASE // 2]}.get(d_model, [BASE, int(equal)])


def file_of(d_model: int, n_steps: int):
    """Where a run's weights stand."""
    name = KEPT.get((d_model, n_steps))
    return data.DATA / f"models/{name}.safetensors" if name else (
        RUNS / f"gpt_{d_model}_{n_steps}.safetensors")


def trained(d_model: int, n_steps: int):
    """The file of a run. Raises FileNotFoundError, naming what makes it."""
    if not (file := file_of(d_model, n_steps)).is_file():
        raise FileNotFoundError(f"{file} is missing: make it with: make record TABLE=family "
                                f"RECORD_ARGS={d_model}")
    return file


def key(run: TrainConfig, d_model: int) -> str:
    """The key of a run's row."""
    return ledger.key(asdict(run) | {"d_model": d_model}, sweeps.RECIPES[0])


def train(d_model: int) -> None:
    """Train one width to all its lengths off one trunk, unless rows and weights are all there."""
    runtime.setup()
    configs = [config(d_model, n) for n in lengths(d_model)]
    if ({key(run, d_model) for run in configs} <= ledger.keys(data.DATA / LEDGER)
            and all(file_of(d_model, run.n_steps).is_file() for run in configs)):
        return
    merges = bpe_train(bytes(corpora.load("prose")[0]), VOCAB)
    tokens, held, tokens_per_byte = corpora.tokenised(merges)
    batches = data.TokenBatches(tokens, BATCH, SEQ)
    validation = data.windows(held, 1000, SEQ)
    trunk = GPT(shape(d_model))
    show = training.Progress(trunk.config, configs[-1], 1e11, say)
    optimizer, begin = training.make_optimizer(trunk, configs[-1]), time.perf_counter()
    for run, model in branches(trunk, optimizer, batches, configs, on_trunk=show):
        loss = training.evaluate(model, validation)
        record = training.record(model, run, loss, time.perf_counter() - begin, tokens_per_byte)
        row = {"key": key(run, d_model), **asdict(record)}
        file = file_of(d_model, run.n_steps)
        file.parent.mkdir(exist_ok=True)
        checkpoints.save_model(model, file, commit=record.commit, torch=record.torch,
                               merges=json.dumps(merges))
        ledger.append(data.DATA / LEDGER, row)


def say(text: str) -> None:
    """Show a line in place of the one before."""
    sys.stderr.write(f"\r{text}   ")


def main(words: list[str]) -> int:
    """Train the widths named, or all."""
    parser = argparse.ArgumentParser("make record TABLE=family", description=__doc__)
    parser.add_argument("widths", nargs="*", type=one_of(*LAYERS), metavar="WIDTH",
                        help=f"of {', '.join(map(str, LAYERS))}; all by default")
    for d_model in parser.parse_args(words).widths or LAYERS:
        train(d_model)
    return 0
