"""Figures in one style: arrays and an axis in, the axis out. No torch."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from helpers.foundations import rules
from helpers.foundations.accepts import accepts, need

COLORS = tuple(sns.color_palette("colorblind").as_hex())  # told apart by colour-blind readers

LOG = rules.one_of("", "x", "y", "xy", "yx")  # which directions are logarithmic
PARTS = ("series", "xlabel", "ylabel", "title", "log", "xlim", "ylim")  # of a picture


def _picture(value) -> Mapping:
    """Rule: what `helpers.widgets.picture` returns."""
    if not isinstance(value, Mapping) or not value.keys() >= set(PARTS):
        raise TypeError("expected what helpers.widgets.picture returns")
    return value


def _bound(value):
    """Rule: a number that may be infinite, but is one."""
    if isinstance(value, float | np.floating) and np.isinf(value):
        return value
    return rules.number()(value)


@accepts(n=rules.integer(1, 100), title=rules.text, height=rules.number(above=0))
def panels(n: int = 1, title: str = "", height: float = 3.4) -> tuple[Axes, ...]:
    """A figure with `n` panels side by side in the course's style; returns their axes."""
    sns.set_theme(style="whitegrid", palette=COLORS, font_scale=0.9)
    figure, axes = plt.subplots(1, n, figsize=(4.6 * n if n > 1 else 6.0, height),
                                layout="constrained", squeeze=False)
    if title:
        figure.suptitle(title)
    return tuple(axes[0])


@accepts(ax=rules.a(Axes), x=rules.text, y=rules.text, title=rules.text, log=LOG)
def label(ax: Axes, x: str, y: str, title: str = "", log: str = "") -> None:
    """Name an axis' two directions with units; `log` holds "x", "y" or both.

    Comes last in a figure's cell, and so returns nothing that the cell would print. Raises
    ValueError if a log axis has nothing positive to show.
    """
    ax.set(xlabel=x, ylabel=y, title=title)
    for name in log:
        drawn, positive = (getattr(ax.dataLim, f"{what}{name}") for what in ("interval", "minpos"))
        if np.isfinite(drawn).all() and np.isinf(positive):
            raise ValueError(f"log={log!r}: expected positive {name} values, there are none")
        ax.set(**{f"{name}scale": "log"})
        axis, (low, high) = getattr(ax, f"{name}axis"), sorted(getattr(ax, f"get_{name}lim")())
        axis.set_major_locator(LogLocator(subs=(1,) if high / low > 100 else (1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda v, _: number(v)))
        axis.set_minor_formatter(NullFormatter())
    if ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=True, fontsize="small")


@accepts(v=rules.number())
def number(v: float) -> str:
    """A tick label: plain from 0.001 up to 100,000 and at 0, else a power of ten."""
    if v == 0 or 1e-3 <= abs(v) < 1e5:
        return f"{v:g}"
    front, power = f"{abs(v):.2e}".split("e")
    front = "" if float(front) == 1 else f"{float(front):g}\\!\\times\\!"
    return f"${'-' * (v < 0)}{front}10^{{{int(power)}}}$"


@accepts(value=rules.number(), low=_bound, high=_bound, digits=rules.integer(0, 17),
         needs=need(lambda low, high: low <= high, "low ≤ high"))
def interval(value: float, low: float, high: float, digits: int = 3) -> str:
    """`0.340 (0.331 … 0.349)`: a fitted figure with its interval, for a legend or a title."""
    return f"{value:.{digits}f} ({low:.{digits}f} … {high:.{digits}f})"


@accepts(picture=_picture, ax=rules.a(Axes))
def draw(picture: Mapping, ax: Axes) -> Axes:
    """Draw a widget's picture (see `helpers.widgets.picture`) with matplotlib."""
    for number, one in enumerate(picture["series"]):
        color = COLORS[one.get("color", number) % len(COLORS)]
        if one["kind"] == "cells":
            ax.bar(one["x"], 1, 1, np.subtract(one["y"], 0.5), label=one["label"],
                   color=[(color, shade) for shade in one["shade"]])
            continue
        style = {"line": "-", "dash": "--", "points": "o"}[one["kind"]]
        ax.plot(one["x"], one["y"], style, color=color, label=one["label"], markersize=4)
    ax.set(xlim=picture["xlim"], ylim=picture["ylim"])
    label(ax, picture["xlabel"], picture["ylabel"], picture["title"], picture["log"])
    return ax


@accepts(ax=rules.a(Axes), x=rules.reals(1, least=2), y=rules.reals(1, least=2),
         z=rules.reals(2), n_levels=rules.integer(1, 1000), needs=(
             need(lambda x, y, z: z.shape == (len(y), len(x)), "z of shape (len(y), len(x))"),
             need(lambda z: z.max() > z[z > 0].min(initial=np.inf), "two positive values in z")))
def contours(ax: Axes, x: np.ndarray, y: np.ndarray, z: np.ndarray, n_levels: int = 12) -> Axes:
    """Level lines of z (shape (len(y), len(x))), spaced evenly in log z.

    What is not positive has no line. Raises ValueError unless two values of z are positive.
    """
    low, high = np.log(z[z > 0].min()), np.log(z.max())
    ax.contour(x, y, z, levels=np.exp(np.linspace(low, high, n_levels)), cmap="Greys_r",
               linewidths=0.8)
    return ax


@accepts(ax=rules.a(Axes), z=rules.reals(2, least=1), x_ticks=rules.each(rules.anything),
         y_ticks=rules.each(rules.anything), unit=rules.text, needs=need(
             lambda z, x_ticks, y_ticks: z.shape == (len(y_ticks), len(x_ticks)),
             "z of shape (len(y_ticks), len(x_ticks))"))
def heatmap(ax: Axes, z: np.ndarray, x_ticks: list[str], y_ticks: list[str],
            unit: str = "") -> Axes:
    """A table of numbers as colours, with tick labels and the unit beside the colour bar."""
    sns.heatmap(z, ax=ax, cmap="viridis", xticklabels=x_ticks, yticklabels=y_ticks,
                cbar_kws={"label": unit})
    return ax
