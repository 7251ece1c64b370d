"""Run the benchmarks beside this file, or those named: `python tests/benchmarks start widget`.

Each `bench_<name>.py` has a function `rows` that yields (what, value, unit, bound), the bound as
text: "≤ 10", "≥ 1.6", or "" for a figure without one. The exit status is 1 if a value breaks its
bound.
"""

import argparse
import sys
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))  # the repository: benchmarks use tests.browser.lab


def keeps(value: float, bound: str) -> bool:
    """Whether a value is within "≤ x", "≥ x" or ""."""
    if not bound:
        return True
    sign, limit = bound.split()
    return {"≤": value <= float(limit), "≥": value >= float(limit)}[sign]


every = sorted(f.stem[6:] for f in HERE.glob("bench_*.py"))
parser = argparse.ArgumentParser("make bench", description=__doc__.splitlines()[0])
parser.add_argument("names", nargs="*", metavar="NAME", help="; ".join(every))
chosen = parser.parse_args().names
if unknown := [name for name in chosen if name not in every]:
    parser.error(f"there is no benchmark {', '.join(unknown)}: expected {', '.join(every)}")
within = True
for name in chosen or every:
    for what, value, unit, bound in import_module(f"bench_{name}").rows():
        kept = keeps(value, bound)
        print(f"{what:66} {value:8.2f} {unit:3} {bound:7} {'' if kept else 'NOT KEPT'}", flush=True)
        within &= kept
sys.exit(not within)
