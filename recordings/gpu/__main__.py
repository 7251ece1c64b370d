"""Measure what only a GPU can show: `make gpu`.

Phases, in this order: twins, mfu, sweep, write, model. Each row is written the moment it is there,
and skipped when called again. `pack` makes the folder .gpu for a machine without a network.
"""

import argparse
import os
import sys

import torch

from helpers import data
from recordings.gpu.kit import Kit, find_carried, say

LIMITS = {"twins": 40, "mfu": 150, "sweep": 200, "write": 60, "model": 120}  # seconds


def main(words: list[str] | None = None) -> int:
    """Run the phases asked for, within the budget; the exit status is 2 if none could run."""
    environment = os.environ
    parser = argparse.ArgumentParser("make gpu", description=__doc__.splitlines()[0])
    parser.add_argument("phases", nargs="*", default=environment.get("GPU_PHASES", "").split(),
                        help=f"of {', '.join(LIMITS)}, or pack; all by default (GPU_PHASES)")
    parser.add_argument("--seconds", type=float, default=environment.get("GPU_SECONDS", "480"),
                        help="budget of the whole call (GPU_SECONDS, 480)")
    parser.add_argument("--toy", action="store_true", help="all phases small, on the CPU")
    parser.add_argument("--folder", default=data.DATA, type=type(data.DATA),
                        help="where sweeps/, sealed/ and models/ are written")
    chosen = parser.parse_args(words)
    if unknown := set(chosen.phases) - {*LIMITS, "pack"}:
        parser.error(f"no phase {', '.join(sorted(unknown))}: expected {', '.join(LIMITS)} or pack")
    if not chosen.seconds > 0:
        parser.error(f"{chosen.seconds} seconds: expected more than 0")
    if "pack" in chosen.phases:
        from recordings.gpu.pack import pack

        pack()
        return 0
    if not chosen.toy and not torch.cuda.is_available():
        say("no NVIDIA card is seen here: nothing was measured (--toy tries all phases small)")
        return 2
    find_carried()
    kit = Kit(chosen.folder, chosen.seconds, chosen.toy)
    for name, seconds in LIMITS.items():
        if name in (chosen.phases or LIMITS) and kit.end_in > 2:
            kit.begin(kit.end_in if kit.toy else seconds)
            say(f"{name}: at most {kit.left:.0f} s")
            phase_of(name)(kit)
    return 0


def phase_of(name: str):
    """The function of a phase; imported late, so that one phase's trouble stays its own."""
    from importlib import import_module

    return getattr(import_module(f"recordings.gpu.{name}"), name)


if __name__ == "__main__":
    sys.exit(main())
