"""The articles' claims: show a computed verdict, store it in the notebook, gather all of them."""

import json

import numpy as np
from IPython.display import display

from helpers.data import table
from helpers.foundations import rules
from helpers.foundations.accepts import accepts
from helpers.runtime import ROOT

VERDICT = "application/vnd.scaling-workbook.verdict+json"


def _figures(values: dict) -> dict[str, float]:
    """Rule: each a finite number, or a comparison's result, by its name."""
    kept = {}
    for name, value in values.items():
        try:
            kept[name] = rules.number()(int(value) if isinstance(value, bool | np.bool_) else value)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name}: {error}") from None
    return kept


@accepts(claim=rules.anything, holds=rules.anything, measured=rules.text, figures=_figures)
def verdict(claim: str, holds: bool | None, measured: str, **figures: float) -> None:
    """Show the verdict on a claim of the articles and store it in the notebook's output.

    `claim` is its number in `data/claims.csv`; `holds` comes from a comparison in the calling
    cell (None: it depends, and `measured` says on what). Raises ValueError for an unknown claim
    or a figure that is not finite, and TypeError if `holds` is not a bool or None.
    """
    claims = table("claims.csv").set_index("claim")
    if not isinstance(claim, str) or claim not in claims.index:
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


@accepts()
def verdicts() -> list[dict]:
    """All verdicts stored in the notebooks' outputs, each with its notebook's name.

    Raises ValueError that names a file which is no notebook.
    """
    rows = []
    for file in sorted((ROOT / "notebooks").glob("*.ipynb")):
        try:
            outputs = [output for cell in json.loads(file.read_text(encoding="utf-8"))["cells"]
                       for output in cell.get("outputs", [])]
            rows += [{**output["data"][VERDICT], "notebook": file.stem} for output in outputs
                     if VERDICT in output.get("data", {})]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"{file} is no notebook ({type(error).__name__}: {error}): `make sync`"
                             " makes it anew from its .py") from None
    return rows
