"""The course's recorded runs: which trials, by which rules, into which ledger.

`make sweep` records the standard sweep; `make sweep SWEEP=scan` another one of `--help`'s list.
What a ledger holds is kept: interrupt at will and call again.
"""

import argparse
import os
import sys
from dataclasses import asdict, replace

from helpers import checkpoints, corpora, data, ledger, runtime, sweeps, training
from helpers.models import GPT, GPTConfig
from helpers.sweeps import Trial, learning_rate

M = 2**20
MODEL, MODEL_RECORD = "models/gpt_prose.safetensors", "sweeps/course_model.csv"
DEPTHS = {16: 2, 24: 2, 32: 3, 48: 3, 64: 4, 96: 4}  # d_model: n_layer
LARGER = {128: 5, 192: 6, 256: 8}  # PROFILE=full goes on to these
TOKENS = tuple(512 * round(1024 * 2**(i / 2)) for i in range(7))  # 0.5M … 4M by factors of √2
MORE_TOKENS = tuple(512 * round(1024 * 2**(i / 2)) for i in (7, 8))  # 5.7M, 8M
HERO = Trial(192, 6, learning_rate(192), (10 * M,))  # 13 times the largest compute of the grid


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
    """Learning rates around the rule at three sizes, and batches of half and twice the size."""
    trials = []
    for d in (16, 32, 96):
        tokens = (M, 4 * M) if d == 32 else (M // 2, M)
        for factor in (0.25, 0.5, 1, 2, 4):
            trials.append(Trial(d, DEPTHS[d], factor * learning_rate(d), tokens))
        for batch in (2, 8):  # the rate goes with the root of the batch
            trials += [Trial(d, DEPTHS[d], factor * learning_rate(d) * (batch / 4) ** 0.5, tokens,
                             batch_size=batch) for factor in (0.5, 1, 2)]
    return trials


def course_model() -> None:
    """Train the model that chapters 05, 11 and 12 start from; write its file and its record."""
    runtime.setup()
    config = training.TrainConfig(lr=3e-3, n_steps=12000, batch_size=8)
    train_tokens, held_out = corpora.load("prose")
    batches = data.TokenBatches(train_tokens, config.batch_size, config.seq)
    validation = data.windows(held_out, 1000, config.seq)
    model = GPT(GPTConfig(context=config.seq)).to(runtime.device())
    show = training.Progress(model.config, config, runtime.peak_flops(runtime.device()), say)
    record, _ = training.train(model, batches, config, validation, show)
    checkpoints.save_model(model, data.DATA / MODEL, commit=record.commit, torch=record.torch)
    (data.DATA / MODEL_RECORD).unlink(missing_ok=True)
    ledger.append(data.DATA / MODEL_RECORD,
                  {"key": ledger.key(asdict(config), ledger.code_hash(sweeps.CODE)),
                   **asdict(record)})


def say(text: str) -> None:
    """Show a line in place of the one before."""
    sys.stderr.write(f"\r{text}   ")


SWEEPS = {"standard": ("prose_cpu", standard), "scan": ("scan_cpu", scan)}


def main() -> int:
    """Record one sweep, with a bar and the time left; Ctrl-C stops it and loses nothing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sweep", nargs="?", default="standard", choices=[*SWEEPS, "model"])
    parser.add_argument("--engine", default="processes", help="processes, or ray")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes at a time")
    chosen = parser.parse_args()
    if chosen.sweep == "model":
        course_model()
        return 0
    name, trials = SWEEPS[chosen.sweep]
    if chosen.sweep == "standard" and runtime.profile() == "full":
        name = "prose_full"
    dtype = runtime.fast_dtype(runtime.device())
    path = data.DATA / "sweeps" / f"{name}.csv"
    try:
        for status in sweeps.sweep([replace(t, dtype=dtype) for t in trials()], path,
                                   chosen.workers, chosen.engine):
            say(f"{status}\n{status.note}\n" if status.note else str(status))
    except KeyboardInterrupt:
        sys.stderr.write(f"\nstopped; {path.name} keeps what is done: call again to go on\n")
        return 130
    sys.stderr.write("\nnow run: python -m helpers.data --seal\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
