"""The articles' claims: show a computed verdict, store it in the notebook, gather all of them."""

import json

import numpy as np
from IPython.display import display

from helpers.data import table
from helpers.runtime import ROOT

VERDICT = "application/vnd.scaling-workbook.verdict+json"


def verdict(claim: str, holds: bool | None, measured: str, **figures: float) -> None:
    """Show the verdict on a claim of the articles and store it in the notebook's output.

    `claim` is its number in `data/claims.csv`; `holds` comes from a comparison in the calling
    cell (None: it depends, and `measured` says on what). Raises ValueError for an unknown claim
    and TypeError if `holds` is not a bool or None.
    """
    claims = table("claims.csv").set_index("claim")
    if claim not in claims.index:
        raise ValueError(f"no claim {claim!r} in data/claims.csv")
    if holds is not None and not isinstance(holds, bool | np.bool_):
        raise TypeError(f"holds={holds!r}: expected a comparison's result, or None")
    word = "it depends" if holds is None else "confirmed" if holds else "refuted"
    says = claims.loc[claim, "says"]
    row = {"claim": claim, "verdict": word, "measured": measured,
           "figures": {k: float(f"{v:.6g}") for k, v in figures.items()}}
    display({
        "text/plain": f"{claim} {word}: {measured}",
        "text/markdown": f"> **{claim} · {word}**\n>\n> *The article:* {says}\n>\n"
                         f"> *Measured:* {measured}",
        VERDICT: row,
    }, raw=True)


def verdicts() -> list[dict]:
    """All verdicts stored in the notebooks' outputs, each with its notebook's name."""
    rows = []
    for file in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(file.read_text(encoding="utf-8"))["cells"]:
            for output in cell.get("outputs", []):
                if row := output.get("data", {}).get(VERDICT):
                    rows.append({**row, "notebook": file.stem})
    return rows
