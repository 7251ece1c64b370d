"""Many runs off one trunk: the constant-rate steps that they share are taken once."""

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import pairwise
from math import inf
from pathlib import Path

import torch

from helpers.foundations import rules
from helpers.foundations.accepts import accepts, need
from helpers.transformer import checkpoints
from helpers.transformer.models import GPT, GPTConfig, a_gpt
from helpers.transformer.training import TrainConfig, make_optimizer, run_steps


@accepts(config=rules.a(TrainConfig))
def fork(config: TrainConfig) -> int:
    """The step at which a run leaves its trunk: its cool-down begins."""
    return config.n_steps - config.decay_steps


@accepts(config=rules.a(TrainConfig))
def of_trunk(config: TrainConfig) -> dict:
    """What runs off one trunk have in common: all but length and cool-down."""
    return {name: value for name, value in asdict(config).items()
            if name not in ("n_steps", "decay_fraction")}


def _one_trunk(configs) -> list[TrainConfig]:
    """Rule: runs that fork one after the other, alike but for their length and cool-down."""
    configs = rules.each(rules.a(TrainConfig), least=1)(configs)
    for one, other in pairwise(configs):
        if of_trunk(one) != of_trunk(other) or fork(one) > fork(other):
            raise ValueError("expected runs alike but for their length, shortest first")
    return configs


@accepts(trunk=rules.a(torch.nn.Module), optimizer=rules.a(torch.optim.Optimizer),
         batches=rules.anything, configs=_one_trunk, done=rules.integer(0),
         on_fork=rules.maybe(rules.function), on_trunk=rules.maybe(rules.function),
         on_branch=rules.maybe(rules.function),
         needs=need(lambda done, configs: done <= fork(configs[0]), "no steps beyond a fork"))
def branches(trunk, optimizer, batches, configs, done=0, on_fork=None, on_trunk=None,
             on_branch=None):
    """Yield (config, model) for each run of `configs`, shortest first, off one constant-rate trunk.

    A branch sees exactly the batches and rates of a separate run of that length, so its model is
    the same, bit for bit; only the constant-rate steps are shared. `done`: steps that the trunk
    has behind it; `on_fork(step)` is called when it has come to a branch, `on_trunk(step, loss)`
    and `on_branch(step, loss)` after each step. Raises ValueError for configs that do not share a
    trunk. Source: Hägele et al. 2024 (arXiv:2405.18392).
    """
    for config in configs:
        fork = config.n_steps - config.decay_steps
        run_steps(trunk, optimizer, batches, config, done, fork, on_trunk)
        done = fork
        if on_fork:
            on_fork(fork)
        model = copy.deepcopy(trunk)
        branch = make_optimizer(model, config)
        branch.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # else shared, and changed
        run_steps(model, branch, batches, config, fork, config.n_steps, on_branch)
        yield config, model


@accepts(checkpoint=checkpoints.FILE, shape=rules.a(GPTConfig), config=rules.a(TrainConfig),
         device=rules.anything, facts=rules.anything)
def resume(checkpoint: str | Path, shape: GPTConfig, config: TrainConfig,
           device: torch.device | str = "cpu", **facts: str
           ) -> tuple[GPT, torch.optim.Optimizer, int, float]:
    """Trunk, optimiser, next step and seconds until there, of a checkpoint that `grow` wrote.

    Raises ValueError if the file is damaged, or the trunk is not of this shape, or not one that
    runs like `config` have, or was saved with other facts.
    """
    trunk, optimizer, found, step = checkpoints.load_run(checkpoint, device)
    said = checkpoints.header(checkpoint)
    spent = float(said.get("seconds", "nan"))
    if not (trunk.config == shape and of_trunk(found) == of_trunk(config) and 0 <= spent < inf
            and all(said.get(name, fact) == fact for name, fact in facts.items())):
        raise ValueError(f"{checkpoint} is the trunk of another run: expected {shape}, {config}")
    return trunk, optimizer, step, spent


@accepts(trunk=a_gpt, optimizer=rules.a(torch.optim.Optimizer), batches=rules.anything,
         configs=_one_trunk, done=rules.integer(0), seconds=rules.number(0),
         checkpoint=rules.maybe(checkpoints.FILE), every=rules.number(0),
         on_step=rules.maybe(rules.function), facts=rules.anything)
def grow(trunk: GPT, optimizer: torch.optim.Optimizer, batches, configs: list[TrainConfig],
         done: int = 0, seconds: float = 0.0, checkpoint: str | Path | None = None,
         every: float = 60.0, on_step: Callable[[int, float], None] | None = None, **facts: str
         ) -> Iterator[tuple[TrainConfig, GPT, float]]:
    """Yield (config, model, seconds of the whole run) of `branches`; save the trunk on the way.

    `done` steps in `seconds` lie behind the trunk. It is saved in the `checkpoint` file every so
    many seconds and at each fork, with its seconds and the `facts`. `on_step(step, loss)` is called
    after each step.
    """
    begin = saved = time.perf_counter()

    def save(step: int) -> None:
        nonlocal begin, saved, seconds
        saved = time.perf_counter()
        begin, seconds = saved, seconds + saved - begin  # of the trunk alone
        if checkpoint:
            checkpoints.save_run(checkpoint, trunk, optimizer, configs[-1], step,
                                 seconds=str(seconds), **facts)

    def on_trunk(step: int, loss: float) -> None:
        if on_step:
            on_step(step, loss)
        if time.perf_counter() - saved > every:
            save(step + 1)

    for config, model in branches(trunk, optimizer, batches, configs, done, save, on_trunk,
                                  on_step):
        yield config, model, seconds + time.perf_counter() - begin
        begin = saved = time.perf_counter()
