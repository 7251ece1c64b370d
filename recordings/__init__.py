"""The course's recorded runs: one script a table of `data/sweeps`, all behind `make record`."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
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
            try:
                recorded = pd.read_csv(path)
            except ValueError as error:
                raise ValueError(f"{path} is no table: {error}") from None
            rows = len(recorded)
            if "seconds" in recorded:
                minutes = f"≤ {recorded.seconds.sum() / 60:.0f}"
        needs = f" ({table.needs})" if table.needs else ""
        lines.append(f"{name:20} {rows:>4} {minutes:>7}  {table.makes}{needs}")
    return "\n".join(lines)


def one_of(*allowed: str | int) -> Callable:
    """For argparse's `type`: a word that stands for one of these; `choices` refuses an empty list.

    Raises argparse's error, which names them.
    """
    def check(word: str) -> str | int:
        if word not in (by_word := {str(value): value for value in allowed}):
            raise argparse.ArgumentTypeError(f"{word}: expected one of {', '.join(by_word)}")
        return by_word[word]

    return check


def count(word: str) -> int:
    """For argparse's `type`: a whole number from 1 on."""
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word}: expected a whole number, 1 or more")
    return int(word)


def replace_whole(path: Path, text: str) -> None:
    """Write a table anew: it is there as a whole, or as it was, whatever happens meanwhile."""
    part = path.with_name(f"{path.name}.part")
    try:
        with open(part, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
