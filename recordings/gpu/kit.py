"""What the phases share: the clock, the device, and rows with their provenance."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from helpers import runtime
from helpers.scaling import ledger
from helpers.transformer import training

CARRIED = runtime.ROOT / ".gpu"  # what a machine without a network needs; made by `pack`
RECIPE = "gpu-1"  # of the rows, see `ledger.key`


def commit() -> str:
    """The commit that is measured: git's word, or what `pack` wrote where git does not travel."""
    found, note = training.commit(), CARRIED / "commit"
    return note.read_text().strip() if found == "unknown" and note.exists() else found


def driver() -> str:
    """Version of the NVIDIA driver, or "none"."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True,
                              check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "none"


class Kit:
    """One call of `make gpu`: device, folder of tables, seconds left, sizes (whole or toy)."""

    def __init__(self, folder: Path, seconds: float, toy: bool):
        self.device = torch.device("cpu" if toy else "cuda")
        self.folder, self.toy, self.end = folder, toy, time.monotonic() + seconds
        self.phase_end = self.end
        self.facts = {"card": runtime.device_name(self.device), "driver": driver(),
                      "torch": torch.__version__, "commit": commit()}
        folder.mkdir(parents=True, exist_ok=True)

    def begin(self, seconds: float) -> None:
        """Start a phase that may take so many seconds of those that are left."""
        self.phase_end = min(self.end, time.monotonic() + seconds)

    @property
    def left(self) -> float:
        """Seconds that the present phase may still take."""
        return self.phase_end - time.monotonic()

    @property
    def end_in(self) -> float:
        """Seconds left of the whole call."""
        return self.end - time.monotonic()

    def path(self, table: str) -> Path:
        """The file of a table: sweeps/gpu_<table>.csv."""
        return self.folder / "sweeps" / f"gpu_{table}.csv"

    def has(self, table: str, asked: dict) -> bool:
        """Whether the row that was asked for is recorded, on this card."""
        return self._key(asked) in ledger.keys(self.path(table))

    def row(self, table: str, asked: dict, measure: Callable[[], dict]) -> dict | None:
        """Measure what was asked for and append it at once; None if it is there, or no time is.

        `measure` returns the figures. What a card or a version cannot do is no reason to lose the
        other rows: the error is said, and no row is written.
        """
        if self.has(table, asked) or self.left < 2:
            return None
        start = time.monotonic()
        try:
            found = measure()
        except (RuntimeError, ValueError, AttributeError) as error:
            say(f"{table}: {json.dumps(asked)}: {type(error).__name__}: {str(error)[:200]}")
            return None
        row = {"key": self._key(asked), **asked, **found, **self.facts, "seed": 0,
               "seconds": round(time.monotonic() - start, 2), "finished": ledger.now()}
        self.path(table).parent.mkdir(parents=True, exist_ok=True)
        ledger.append(self.path(table), row)
        figures = [f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}"
                   for k, v in (asked | found).items()]
        say(f"{table}: {' '.join(figures)}")
        return row

    def _key(self, asked: dict) -> str:
        return ledger.key({**asked, "card": self.facts["card"]}, RECIPE)


def say(text: str) -> None:
    """A line for whoever waits."""
    sys.stderr.write(f"gpu: {text}\n")
    sys.stderr.flush()


def find_carried() -> None:
    """Let Python see the packages in the carried folder, after the installed ones."""
    site = str(CARRIED / "site")
    if os.path.isdir(site) and site not in sys.path:
        sys.path.append(site)
