"""The course's recorded runs: one script a table of `data/sweeps`, all behind `make record`."""

from typing import NamedTuple

import pandas as pd

from helpers import data


class Table(NamedTuple):
    """A recording: the file in data/sweeps, its script with its words, what it makes and needs."""

    file: str
    script: str
    words: str
    makes: str
    needs: str = ""


TABLES = {
    "prose": Table("prose_cpu.csv", "sweeps", "standard", "sizes × token counts: chapters 08, 09"),
    "scan": Table("scan_cpu.csv", "sweeps", "scan", "learning rates and batches around the rule"),
    "language": Table("language.csv", "sweeps", "language", "a made-up language of known entropy"),
    "lever": Table("data_lever.csv", "sweeps", "lever", "repeated, spoilt, filtered, mixed texts"),
    "hero1": Table("hero_cpu.csv", "sweeps", "hero1", "the first run that was foretold",
                   "data/sealed/prediction_1.json (TABLE=seal1 wrote it)"),
    "hero2": Table("hero_cpu.csv", "sweeps", "hero2", "the second run that was foretold",
                   "data/sealed/prediction_2.json (TABLE=seal2 wrote it)"),
    "seal1": Table("", "sweeps", "seal1", "the first prediction, once", "prose"),
    "seal2": Table("", "sweeps", "seal2", "the second prediction, once", "prose"),
    "family": Table("family.csv", "family", "", "dense models of Part IV, and their files"),
    "pruning": Table("pruning.csv", "pruning", "", "pruned models of chapter 11", "family"),
    "pruning_latency": Table("latency_pruning.csv", "pruning", "latency", "their times, in turns",
                             "a quiet machine"),
    "quantization": Table("quantization.csv", "quantization", "", "rounded models of chapter 12",
                          "family"),
    "quantization_latency": Table("latency_quantization.csv", "quantization", "latency",
                                  "their times, in turns", "family; a quiet machine"),
    "distillation": Table("distillation.csv", "distillation", "distil", "students of chapter 13",
                          "family"),
    "stack": Table("stack.csv", "distillation", "stack", "pruned, rounded, coded models", "family"),
    "codec": Table("codec.csv", "distillation", "codec", "the held-out text, compressed", "family"),
}


def listing() -> str:
    """A line a table: name, rows and their minutes (as recorded, at most), what and from what."""
    lines = [f"{'TABLE':20} {'rows':>4} {'minutes':>7}  makes (needs)"]
    for name, table in TABLES.items():
        rows, minutes = "", ""
        if table.file and (path := data.DATA / "sweeps" / table.file).exists():
            recorded = pd.read_csv(path)
            rows = len(recorded)
            if "seconds" in recorded:
                minutes = f"≤ {recorded.seconds.sum() / 60:.0f}"
        needs = f" ({table.needs})" if table.needs else ""
        lines.append(f"{name:20} {rows:>4} {minutes:>7}  {table.makes}{needs}")
    return "\n".join(lines)
