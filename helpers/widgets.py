"""Live pictures: sliders over one pure function, drawn on a canvas in the browser.

The function maps slider values to a `picture`. Python computes it; the browser draws it, so a
slider answers without a round of image encoding.
"""

import io
import itertools
import math
from collections.abc import Callable
from pathlib import Path

import anywidget
import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import traitlets

from helpers import plots

KINDS = ("line", "dash", "points", "cells")


def series(kind: str, x, y, label: str = "", color: int | None = None, shade=None) -> dict:
    """One set of points: `kind` is "line", "dash", "points" or "cells"; x and y of equal length.

    Cells are unit squares around their points, as dark as `shade` says, 0 (white) … 1. `color` is
    a number in the palette (by default the order in the picture); a series without a label stays
    out of the legend. Raises ValueError for an unknown kind or unequal lengths.
    """
    x, y = np.asarray(x, dtype=float).ravel(), np.asarray(y, dtype=float).ravel()
    shade = np.clip(np.asarray(np.ones(len(x)) if shade is None else shade, dtype=float), 0, 1)
    if kind not in KINDS or not len(x) == len(y) == shade.size:
        raise ValueError(f"kind={kind!r} with {len(x)} x, {len(y)} y and {shade.size} shade "
                         f"values: expected one of {KINDS} and equal lengths")
    return {"kind": kind, "x": x.tolist(), "y": y.tolist(), "label": label,
            **({"shade": shade.ravel().tolist()} if kind == "cells" else {}),
            **({} if color is None else {"color": color})}


def picture(drawn: list[dict], xlabel: str, ylabel: str, xlim: tuple, ylim: tuple,
            title: str = "", log: str = "", text: str = "") -> dict:
    """What a widget shows: series, axis names with units, fixed limits, and a line of text.

    Limits are fixed so that the eye sees the curve move, not the axes. `log` holds "x", "y" or
    both. Values that are not finite or not on the axis are left out of the drawing. Raises
    ValueError for limits that are empty, or not positive on a log axis.
    """
    for name, (low, high) in (("x", xlim), ("y", ylim)):
        if not low < high or (name in log and low <= 0):
            raise ValueError(f"{name}lim=({low}, {high}) with log={log!r}: expected low < high, "
                             "positive on a log axis")
    kept = []
    for one in drawn:
        seen = [math.isfinite(a) and math.isfinite(b)
                and ("x" not in log or a > 0) and ("y" not in log or b > 0)
                for a, b in zip(one["x"], one["y"], strict=True)]
        kept.append({**one, **{name: [*itertools.compress(one[name], seen)]
                               for name in ("x", "y", "shade") if name in one}})
    return {"series": kept, "xlabel": xlabel, "ylabel": ylabel, "title": title, "text": text,
            "log": log, "xlim": list(map(float, xlim)), "ylim": list(map(float, ylim))}


class Canvas(anywidget.AnyWidget):
    """A picture on an HTML canvas, with its text below for those who cannot see it."""

    _esm = Path(__file__).with_name("canvas.js")
    picture = traitlets.Dict().tag(sync=True)
    colors = traitlets.List(list(plots.COLORS)).tag(sync=True)


class Explorer(ipywidgets.VBox):
    """Sliders above their picture; `values` is what they say, `show` is the pure function."""

    def __init__(self, show: Callable[..., dict], controls: dict[str, ipywidgets.Widget]):
        self.show, self.controls = show, controls
        self.canvas = Canvas(picture=show(**self.values))
        for control in controls.values():
            control.style.description_width = "11em"
            control.layout.width = "36em"
            control.observe(self.update, "value")
        super().__init__([*controls.values(), self.canvas])

    @property
    def values(self) -> dict:
        """The controls' present values by name."""
        return {name: control.value for name, control in self.controls.items()}

    def update(self, _change=None) -> None:
        """Compute the picture for the present values; an error is shown in the text, and raised."""
        try:
            self.canvas.picture = self.show(**self.values)
        except Exception as error:
            self.canvas.picture = {**self.canvas.picture, "series": [],
                                   "text": f"{type(error).__name__}: {error}"}
            raise

    def __repr__(self) -> str:
        said = ", ".join(f"{c.description} {c.value}" for c in self.controls.values())
        return f"Explorer({said})"

    def _repr_mimebundle_(self, **kwargs):
        bundle = super()._repr_mimebundle_(**kwargs) or {}
        image = io.BytesIO()
        (ax,) = plots.panels()
        plots.draw(self.canvas.picture, ax).figure.savefig(image, format="png", dpi=72)
        plt.close(ax.figure)
        return {**bundle, "text/plain": f"{self!r}\n{self.canvas.picture['text']}",
                "image/png": image.getvalue()}


def extremes(control: ipywidgets.Widget) -> tuple:
    """The lowest and highest value of a slider, all options of a choice, or the present text."""
    if hasattr(control, "options"):
        return tuple(value for _, value in control._options_full)
    if hasattr(control, "base"):
        return control.base**control.min, control.base**control.max
    if hasattr(control, "min"):
        return control.min, control.max
    return (control.value,)  # a line of text


def explore(show: Callable[..., dict], **controls: ipywidgets.Widget) -> Explorer:
    """Sliders over `show`, a pure function from their values to a `picture`.

    Calls `show` once at each corner of the sliders' ranges first, so a widget that would break at
    an end fails here, where it is seen, and not under an instructor's hand.
    """
    for corner in itertools.product(*map(extremes, controls.values())):
        show(**dict(zip(controls, corner, strict=True)))
    return Explorer(show, controls)
