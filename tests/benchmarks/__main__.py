"""Run the benchmarks beside this file, or those named: `python tests/benchmarks start widget`.

Each `bench_<name>.py` has a function `rows` that yields (what, value, unit, bound). The exit
status is 1 if a value is above its bound.
"""

import sys
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))  # the repository: benchmarks use tests.browser.lab
within = True
for name in sys.argv[1:] or sorted(f.stem[6:] for f in HERE.glob("bench_*.py")):
    for what, value, unit, bound in import_module(f"bench_{name}").rows():
        print(f"{what:48} {value:8.1f} {unit:3} (bound {bound:g} {unit})", flush=True)
        within &= value <= bound
sys.exit(not within)
