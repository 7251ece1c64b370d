"""Live pictures: sliders over one pure function, drawn on a canvas in the browser.

The function maps slider values to a `picture`. Python computes it; the browser draws it, so a
slider answers without a round of image encoding.
"""

import io
import itertools
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import anywidget
import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import traitlets

from helpers import plots
from helpers.foundations import rules
from helpers.foundations.accepts import accepts, shown

KINDS = ("line", "dash", "points", "cells")
MOST_CORNERS = 10_000  # that `explore` tries before it shows


def _values(values) -> np.ndarray:
    """Rule: real numbers, also those that cannot be drawn (NaN, ±∞) → float64 array (n,)."""
    values = values.detach().cpu() if hasattr(values, "detach") else values
    try:
        array = np.asarray(values)
    except ValueError:
        raise ValueError("expected numbers, got rows of unequal length") from None
    if array.dtype.kind not in "biuf" and array.size:
        raise TypeError(f"expected numbers, got {array.dtype}")
    return array.astype(float).ravel()


def _series(one) -> Mapping:
    if not isinstance(one, Mapping) or not one.keys() >= {"kind", "x", "y", "label"}:
        raise TypeError("expected what series returns")
    return one


def _limits(pair) -> tuple[float, float]:
    """Rule: two real numbers."""
    pair = _values(pair)
    if len(pair) != 2:
        raise ValueError("expected two numbers, low and high")
    return tuple(pair.tolist())


def _control(control: ipywidgets.Widget) -> ipywidgets.Widget:
    """Rule: a control with one value: a slider, a choice, a box to tick, a line of text."""
    if not isinstance(control, ipywidgets.Widget) or not hasattr(control, "value"):
        raise TypeError(f"expected a control with a value, got {type(control).__name__}")
    if isinstance(control.value, tuple):
        raise ValueError(f"expected a control with one value, {type(control).__name__} has several")
    return control


def _controls(controls) -> dict[str, ipywidgets.Widget]:
    """Rule: controls by their names."""
    if not isinstance(controls, Mapping):
        raise TypeError("expected controls by their names")
    for name, control in controls.items():
        try:
            extremes(control)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name}: {error}") from None
    return dict(controls)


@accepts(kind=rules.anything, x=_values, y=_values, label=rules.text,
         color=rules.maybe(rules.integer(0)), shade=rules.maybe(rules.reals(finite=False)))
def series(kind: str, x, y, label: str = "", color: int | None = None, shade=None) -> dict:
    """One set of points: `kind` is "line", "dash", "points" or "cells"; x and y of equal length.

    Cells are unit squares around their points, as dark as `shade` says, 0 (white) … 1. `color` is
    a number in the palette (by default the order in the picture); a series without a label stays
    out of the legend. Raises ValueError for an unknown kind or unequal lengths.
    """
    shade = np.clip(np.ones(len(x)) if shade is None else shade, 0, 1)
    if kind not in KINDS or not len(x) == len(y) == shade.size:
        raise ValueError(f"kind={kind!r} with {len(x)} x, {len(y)} y and {shade.size} shade "
                         f"values: expected one of {KINDS} and equal lengths")
    return {"kind": kind, "x": x.tolist(), "y": y.tolist(), "label": label,
            **({"shade": shade.ravel().tolist()} if kind == "cells" else {}),
            **({} if color is None else {"color": color})}


@accepts(drawn=rules.each(_series), xlabel=rules.text, ylabel=rules.text, xlim=_limits,
         ylim=_limits, title=rules.text, log=plots.LOG, text=rules.text)
def picture(drawn: list[dict], xlabel: str, ylabel: str, xlim: tuple, ylim: tuple,
            title: str = "", log: str = "", text: str = "") -> dict:
    """What a widget shows: series, axis names with units, fixed limits, and a line of text.

    Limits are fixed so that the eye sees the curve move, not the axes. `log` holds "x", "y" or
    both. Values that are not finite or not on the axis are left out of the drawing. Raises
    ValueError for limits that are empty, not finite, or not positive on a log axis.
    """
    for name, (low, high) in (("x", xlim), ("y", ylim)):
        if not low < high or math.isinf(high - low) or (name in log and low <= 0):
            raise ValueError(f"{name}lim=({low}, {high}) with log={log!r}: expected low < high, "
                             "positive on a log axis, both finite")
    kept = []
    for one in drawn:
        seen = [math.isfinite(a) and math.isfinite(b)
                and ("x" not in log or a > 0) and ("y" not in log or b > 0)
                for a, b in zip(one["x"], one["y"], strict=True)]
        kept.append({**one, **{name: [*itertools.compress(one[name], seen)]
                               for name in ("x", "y", "shade") if name in one}})
    return {"series": kept, "xlabel": xlabel, "ylabel": ylabel, "title": title, "text": text,
            "log": log, "xlim": [*xlim], "ylim": [*ylim]}


class Canvas(anywidget.AnyWidget):
    """A picture on an HTML canvas, with its text below for those who cannot see it."""

    _esm = Path(__file__).with_name("canvas.js")
    picture = traitlets.Dict().tag(sync=True)
    colors = traitlets.List(list(plots.COLORS)).tag(sync=True)


@accepts(show=rules.function, controls=_controls)
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


@accepts(control=_control)
def extremes(control: ipywidgets.Widget) -> tuple:
    """The lowest and highest value of a slider, all options of a choice, or the present text.

    Raises ValueError for a choice without options and a slider whose ends are not finite.
    """
    if hasattr(control, "options"):
        ends = tuple(value for _, value in control._options_full)
        if not ends:
            raise ValueError(f"{control.description!r} has no options")
        return ends
    if hasattr(control, "base"):
        ends = control.base**control.min, control.base**control.max
    elif getattr(control, "min", None) is not None:
        ends = control.min, control.max
    else:
        return (False, True) if isinstance(control.value, bool) else (control.value,)
    if any(isinstance(end, float) and not math.isfinite(end) for end in ends):
        raise ValueError(f"{control.description!r} runs from {ends[0]} to {ends[1]}: "
                         "expected finite ends")
    return ends


@accepts(show=rules.function, controls=_controls)
def explore(show: Callable[..., dict], **controls: ipywidgets.Widget) -> Explorer:
    """Sliders over `show`, a pure function from their values to a `picture`.

    Calls `show` once at each corner of the sliders' ranges first, so a widget that would break at
    an end fails here, where it is seen, and not under an instructor's hand; the error names the
    corner. Raises ValueError for more than 10,000 corners.
    """
    ends = [*map(extremes, controls.values())]
    if (n_corners := math.prod(map(len, ends))) > MOST_CORNERS:
        raise ValueError(f"{len(controls)} controls have {n_corners} corners: expected at most "
                         f"{MOST_CORNERS}; take fewer controls, or fewer options")
    for corner in itertools.product(*ends):
        values = dict(zip(controls, corner, strict=True))
        try:
            drawn = show(**values)
            if not isinstance(drawn, Mapping) or "series" not in drawn:
                raise TypeError(f"show returned {shown(drawn)}: expected what picture returns")
        except Exception as error:
            error.add_note(f"at the corner {', '.join(f'{k}={v!r}' for k, v in values.items())}")
            raise
    return Explorer(show, controls)
