"""Several ways to do one thing, each a line with the range it may lie in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from safelight.plots.style import (
    BLUE,
    INK,
    ORANGE,
    PALE,
    SMALL,
    VERMILION,
    as_data,
    figure_of,
    given_or_new,
    shorten,
    style_axes,
)

_LOOKS = [
    (BLUE, "-", "o"),
    (VERMILION, "-", "s"),
    (INK, "--", "D"),
    (ORANGE, "--", "^"),
    ("#009E73", ":", "v"),
    ("#CC79A7", ":", "P"),
]  # colours of Okabe and Ito; lines and marks tell them apart without colour, too
_MOST_TICKS = 8


def plot_curves(
    curves: Mapping[str, Sequence[Sequence[float]]],
    *,
    xlabel: str,
    ylabel: str,
    levels: Mapping[str, float] | None = None,
    log: str = "",
    ax: Axes | None = None,
) -> Figure:
    """Draw a line for each way, with a mark and a bar where it was measured.

    Args:
        curves: for each name its points, rows `(x, y)` or `(x, y, low, high)`.
        xlabel: what x is, with its unit.
        ylabel: what y is, with its unit.
        levels: values of y to compare with, by name: thin lines across.
        log: the axes in powers: "", "x", "y" or "xy".
        ax: where to draw.

    Raises:
        ValueError: no curve, or a point that is neither two numbers nor four.
    """
    points = {name: _check(name, rows) for name, rows in curves.items()}
    if not points:
        raise ValueError("no curves: pass at least one.")
    ax = given_or_new(ax, 6.6, 4.2)
    for number, (name, rows) in enumerate(points.items()):
        _draw(ax, shorten(name, 48), rows, number)
    for name, value in (levels or {}).items():
        ax.axhline(value, color=PALE, lw=1.2, zorder=0)
        ax.annotate(
            shorten(name, 48), (1, value), (-3, 2), xycoords=("axes fraction", "data"),
            textcoords="offset points", ha="right", va="bottom", color=INK, fontsize=SMALL,
        )  # fmt: skip
    _scale(ax, np.unique(np.concatenate([rows[:, 0] for rows in points.values()])), log)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    style_axes(ax)
    _name_lines(ax, [float(rows[-1, 1]) for rows in points.values()])
    return figure_of(ax)


def _name_lines(ax: Axes, ends: list[float]) -> None:
    """Above the axes, where no line or bar can be; in the order of the lines' last points."""
    handles, names = (found[-len(ends) :] for found in ax.get_legend_handles_labels())
    order = np.argsort(ends)[::-1]
    legend = ax.legend(
        [handles[i] for i in order], [names[i] for i in order], frameon=False, fontsize=SMALL,
        labelcolor=INK, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.3,
    )  # fmt: skip
    as_data(legend.get_texts())


def _check(name: str, rows: Sequence[Sequence[float]]) -> np.ndarray:
    found = np.asarray(rows, dtype=float)
    if found.ndim != 2 or found.shape[1] not in (2, 4) or not len(found):
        raise ValueError(
            f"the points of {name!r} have shape {found.shape}: expected rows (x, y) or "
            "(x, y, low, high)."
        )
    return found[np.argsort(found[:, 0])]


def _draw(ax: Axes, name: str, rows: np.ndarray, number: int) -> None:
    colour, line, mark = _LOOKS[number % len(_LOOKS)]
    ends = None if rows.shape[1] == 2 else [rows[:, 1] - rows[:, 2], rows[:, 3] - rows[:, 1]]
    ax.errorbar(
        rows[:, 0], rows[:, 1], ends, color=colour, ls=line, marker=mark, lw=2, ms=6, capsize=3,
        label=name,
    )  # fmt: skip


def _scale(ax: Axes, places: np.ndarray, log: str) -> None:
    if "y" in log:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    if "x" in log:
        ax.set_xscale("log")
        if len(places) <= _MOST_TICKS:
            ax.set_xticks(places, [f"{place:g}" for place in places])
            ax.xaxis.set_minor_locator(NullLocator())
