"""Figures in one style: arrays and an axis in, the axis out. No torch."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

COLORS = tuple(sns.color_palette("colorblind").as_hex())  # told apart by colour-blind readers


def panels(n: int = 1, title: str = "", height: float = 3.4) -> tuple[Axes, ...]:
    """A figure with `n` panels side by side in the course's style; returns their axes."""
    sns.set_theme(style="whitegrid", palette=COLORS, font_scale=0.9)
    figure, axes = plt.subplots(1, n, figsize=(4.6 * n if n > 1 else 6.0, height),
                                layout="constrained", squeeze=False)
    if title:
        figure.suptitle(title)
    return tuple(axes[0])


def label(ax: Axes, x: str, y: str, title: str = "", log: str = "") -> None:
    """Name an axis' two directions with units; `log` holds "x", "y" or both.

    Comes last in a figure's cell, and so returns nothing that the cell would print.
    """
    ax.set(xlabel=x, ylabel=y, title=title)
    for name in log:
        ax.set(**{f"{name}scale": "log"})
        axis, (low, high) = getattr(ax, f"{name}axis"), sorted(getattr(ax, f"get_{name}lim")())
        axis.set_major_locator(LogLocator(subs=(1,) if high / low > 100 else (1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda v, _: number(v)))
        axis.set_minor_formatter(NullFormatter())
    if ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=True, fontsize="small")


def number(v: float) -> str:
    """A tick label: plain from 0.001 up to 100,000, else a power of ten."""
    if 1e-3 <= v < 1e5:
        return f"{v:g}"
    power = int(np.floor(np.log10(v) + 1e-9))
    front = f"{v / 10**power:.3g}"
    return f"$10^{{{power}}}$" if front == "1" else f"${front}\\!\\times\\!10^{{{power}}}$"


def interval(value: float, low: float, high: float, digits: int = 3) -> str:
    """`0.340 (0.331 … 0.349)`: a fitted figure with its interval, for a legend or a title."""
    return f"{value:.{digits}f} ({low:.{digits}f} … {high:.{digits}f})"


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


def contours(ax: Axes, x: np.ndarray, y: np.ndarray, z: np.ndarray, n_levels: int = 12) -> Axes:
    """Level lines of z (shape (len(y), len(x))), spaced evenly in log z."""
    low, high = np.log(z[z > 0].min()), np.log(z.max())
    ax.contour(x, y, z, levels=np.exp(np.linspace(low, high, n_levels)), cmap="Greys_r",
               linewidths=0.8)
    return ax


def heatmap(ax: Axes, z: np.ndarray, x_ticks: list[str], y_ticks: list[str],
            unit: str = "") -> Axes:
    """A table of numbers as colours, with tick labels and the unit beside the colour bar."""
    sns.heatmap(z, ax=ax, cmap="viridis", xticklabels=x_ticks, yticklabels=y_ticks,
                cbar_kws={"label": unit})
    return ax
