"""What a classifier gets right and wrong, what that costs, how sure it is, its worst mistakes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import Bbox
from numpy.typing import ArrayLike, NDArray

from safelight.metrics import (
    Interval,
    calibration_bins,
    confident_mistakes,
    expected_calibration_error,
    format_percent,
)
from safelight.plots.grids import displayable, draw_grid
from safelight.plots.style import (
    BLUE,
    INK,
    NORMAL,
    ORANGE,
    PALE,
    SMALL,
    TEXT,
    VERMILION,
    Picture,
    as_data,
    figure_of,
    given_or_new,
    new_figure,
    shorten,
    style_axes,
)

_METRICS = {"balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1", "roc_auc": "ROC AUC"}


def plot_confusion_matrix(
    matrix: ArrayLike, class_names: Sequence[str], *, ax: Axes | None = None
) -> Figure:
    """Draw which class was taken for which: counts, and the share of each true class.

    Args:
        matrix: (num_classes, num_classes) counts, true classes in rows, as scikit-learn gives it.
        class_names: num_classes names.
        ax: where to draw; a new figure if None.

    Raises:
        ValueError: if matrix and names do not fit.
    """
    matrix = np.asarray(matrix)
    num_classes = len(class_names)
    if matrix.shape != (num_classes, num_classes):
        raise ValueError(f"matrix of shape {matrix.shape} for {num_classes} class_names: no fit.")
    names = [shorten(name, 26) for name in class_names]
    cell = 1.2 if num_classes <= 4 else 0.72 if num_classes <= 12 else 0.34
    side = 2 + cell * max(num_classes, 2)
    ax = given_or_new(ax, side, side)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    edges = np.arange(num_classes + 1) - 0.5
    ax.pcolormesh(edges, edges, shares, cmap="Blues", vmin=0, vmax=1, edgecolors="white")
    for (row, column), count in np.ndenumerate(matrix):
        share = shares[row, column]
        text = f"{count:g}\n{100 * share:.0f} %" if cell > 0.5 and count else f"{count:g}"
        if count or cell > 0.5:
            ax.text(
                column, row, text, ha="center", va="center", fontsize=7 + 6 * (cell - 0.34) / 0.86,
                color="white" if share > 0.55 else INK if count else PALE,
            )  # fmt: skip
    # A name stands upright where it is wider than its cell; a letter takes about 0.095 inches.
    upright = max(map(len, names)) * 0.095 > cell
    ax.set_xticks(range(num_classes), names, rotation=90 if upright else 0)
    ax.set_yticks(range(num_classes), names)
    ax.set_ylim(num_classes - 0.5, -0.5)
    ax.set_aspect("equal")
    ax.set_xlabel("predicted class")
    ax.set_ylabel("true class")
    style_axes(ax, grid=False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    as_data([*ax.get_xticklabels(), *ax.get_yticklabels()])
    return figure_of(ax)


def plot_mistakes(
    images: Sequence[ArrayLike] | Mapping[int, ArrayLike],
    labels: ArrayLike,
    *,
    probabilities: ArrayLike,
    class_names: Sequence[str],
    num_images: int = 12,
    columns: int = 4,
) -> Figure:
    """Draw the pictures on which the classifier is wrong and most sure of it.

    Args:
        images: the n pictures, or a mapping that has at least those of `confident_mistakes`.
        labels: (n,) integers.
        probabilities: (n, num_classes).
        class_names: num_classes names.
        num_images: how many at most.
        columns: pictures in a row.

    Raises:
        ValueError: if the arrays do not fit each other.
    """
    probabilities = np.asarray(probabilities)
    worst = confident_mistakes(labels, probabilities, num_images=num_images)
    if len(worst) == 0:
        figure = new_figure(5, 1.2)
        figure.text(0.5, 0.5, f"No mistake among {len(probabilities)} images", ha="center", **TEXT)
        return figure
    titles = []
    for index in worst:
        guess = int(probabilities[index].argmax())
        true = class_names[int(np.asarray(labels)[index])]
        sure = f"{100 * float(probabilities[index, guess]):.0f} % sure"
        titles.append(f"true: {shorten(true, 18)}\nsays: {shorten(class_names[guess], 18)}\n{sure}")
    pictures = [displayable(images[int(index)], None) for index in worst]
    return draw_grid(pictures, titles, min(columns, len(worst)))


def plot_intervals(
    intervals: Mapping[str, Interval],
    *,
    label: str = "percent, with 95 % interval",
    ax: Axes | None = None,
) -> Figure:
    """Draw fractions with their intervals, one line each (a forest plot).

    Args:
        intervals: name to interval, from top to bottom; fractions, so leave the loss out.
        label: what the axis says.
        ax: where to draw; a new figure if None.

    Raises:
        ValueError: if there is nothing to draw.
    """
    if not intervals:
        raise ValueError("no intervals; pass at least one name with its Interval.")
    names = [shorten(_METRICS.get(name, name), 36) for name in intervals]
    ax = given_or_new(ax, 7.2, 1.1 + 0.42 * len(names))
    for row, interval in enumerate(intervals.values()):
        ends = [100 * interval.low, 100 * interval.high]
        ax.plot(ends, [row, row], color=BLUE, linewidth=2.5, alpha=0.6)
        ax.plot([100 * interval.value], [row], "o", color=BLUE, markersize=7)
        text = "not defined" if math.isnan(interval.value) else format_percent(interval)
        ax.text(1.02, row, text, transform=ax.get_yaxis_transform(), **TEXT)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlabel(label)
    style_axes(ax, grid=False)
    ax.grid(axis="x", color="#E6E6E6")
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    as_data(ax.get_yticklabels())
    return figure_of(ax)


def plot_comparison(results: Mapping[str, tuple[Interval, float]]) -> Figure:
    """Draw accuracy and training time side by side, one line per way of training.

    Args:
        results: name to (accuracy as a fraction, seconds), from top to bottom.

    Raises:
        ValueError: if there is nothing to draw or a time is not above zero.
    """
    times = [seconds for _, seconds in results.values()]
    if not times or not min(times) > 0:
        raise ValueError("pass at least one result, each with more than zero seconds.")
    figure = new_figure(9.0, 1.2 + 0.45 * len(results))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[3, 2])
    accuracies = {name: accuracy for name, (accuracy, _) in results.items()}
    plot_intervals(accuracies, label="test accuracy (%), with 95 % interval", ax=left)
    right.barh(range(len(times)), times, height=0.45, color=ORANGE)
    for row, seconds in enumerate(times):
        right.text(seconds, row, f" {_duration(seconds)}", **TEXT)
    right.set_xlim(0, 1.3 * max(times))
    right.set_xlabel("training time")
    style_axes(right, grid=False)
    right.spines[["left", "bottom"]].set_visible(False)
    right.tick_params(bottom=False, labelbottom=False, left=False, labelleft=False)
    return figure


def plot_sweep(
    names: Sequence[str],
    seconds: ArrayLike,
    accuracies: ArrayLike,
    *,
    recommended: int,
    threshold: float | None = None,
) -> Picture:
    """Draw accuracy against training time, one labelled point per way of training.

    Args:
        names: of the ways, for example the layers that were unfrozen.
        seconds: (n,), drawn on a logarithmic axis.
        accuracies: mean, low and high end of its interval, fractions, (n, 3).
        recommended: the row to mark.
        threshold: the accuracy that is good enough to be recommended, a fraction.

    Raises:
        ValueError: if the arrays do not fit each other or a time is not above zero.
    """
    times, found = np.asarray(seconds, dtype=float), 100 * np.asarray(accuracies, dtype=float)
    if not (len(names) and times.shape == (len(names),) and found.shape == (len(names), 3)):
        raise ValueError(
            f"{len(names)} names, seconds {times.shape}, accuracies {found.shape}: pass a time and "
            "three numbers for each name."
        )
    if not (np.isfinite(times) & (times > 0)).all():
        raise ValueError(f"seconds={times.tolist()}: pass times above zero.")
    middle, low, high = found[:, 0], np.clip(found[:, 1], 0, 100), np.clip(found[:, 2], 0, 100)
    figure = new_figure(6.8, 4.8)
    ax = figure.subplots()
    marked = np.arange(len(names)) == recommended
    words = "recommended: the fastest above that line" if threshold is not None else "recommended"
    for rows, colour, marker, label in (
        (~marked, BLUE, "o", "mean over the splits, 95 % interval"),
        (marked, VERMILION, "D", words),
    ):
        ends = np.stack([middle - low, high - middle])[:, rows]
        ax.errorbar(
            times[rows], middle[rows], ends, fmt=marker, ms=8, color=colour, capsize=3, lw=1.8,
            label=label,
        )  # fmt: skip
    if threshold is not None:
        dashes: dict[str, Any] = {"color": "#888888", "lw": 1.2, "ls": (0, (4, 3)), "zorder": 1}
        ax.axhline(100 * threshold, label="best mean less one standard error", **dashes)
    _frame_sweep(ax, times, low, high)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=SMALL)
    points = np.stack([times, middle, low, high])
    line = None if threshold is None else 100 * threshold
    _label_points(ax, [shorten(name, 40) for name in names], points, line)
    return figure


def _frame_sweep(
    ax: Axes, times: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> None:
    """Axes with room for labels around the outermost points, and ticks that are easy to read."""
    ax.set_xscale("log")
    span = max(times.max() / times.min(), 4)
    ax.set_xlim(times.min() / span**0.2, times.max() * span**0.45)
    room = 0.12 * max(np.nanmax(high) - np.nanmin(low), 2)
    ax.set_ylim(np.nanmin(low) - room, np.nanmax(high) + room)
    subs = (1, 2, 3, 5) if span < 10 else (1, 2, 5) if span < 1000 else (1,)
    ax.xaxis.set_major_locator(LogLocator(subs=subs))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    ax.set_xlabel("seconds of training per split, without extraction")
    ax.set_ylabel("accuracy (%)")
    style_axes(ax)


def _label_points(
    ax: Axes, names: Sequence[str], points: NDArray[np.float64], line: float | None
) -> None:
    """Write a name beside each point, where it covers neither a point nor another name.

    Args:
        ax: finished otherwise.
        names: n.
        points: x, y and the ends of the bar through it, (4, n).
        line: the height of a line that no name should cover.
    """
    figure_of(ax).draw_without_rendering()  # only now has everything its place
    pixels, frame = ax.transData.transform, ax.bbox
    taken = []
    for x, y, low, high in points.T:
        (left, bottom), (_, top), (_, middle) = pixels([(x, low), (x, high), (x, y)])
        taken.append(Bbox.from_extents(left - 5, bottom, left + 5, top))
        taken.append(Bbox.from_extents(left - 9, middle - 9, left + 9, middle + 9))
    if line is not None:
        height = pixels((points[0, 0], line))[1]
        taken.append(Bbox.from_extents(frame.x0, height - 1, frame.x1, height + 1))
    for name, (x, y, low, high) in zip(names, points.T, strict=True):
        near = [(9, 0, y), (-9, 0, y), (9, 10, y), (-9, 10, y), (9, -10, y), (-9, -10, y)]
        far = [(side, up, y) for up in (24, -24, 42, -42, 60, -60, 78) for side in (24, -24)]
        tried: list[tuple[int, int, Text, Bbox]] = []
        for right, up, anchor in [*near, (0, 10, high), (0, -10, low), *far]:
            text = ax.annotate(
                name, (x, anchor), (right, up), textcoords="offset points", color=INK,
                fontsize=NORMAL, va="center", ha=("center", "left", "right")[int(np.sign(right))],
                # Where it stands farther off, a thin line says whose it is.
                arrowprops={"arrowstyle": "-", "color": "#888888", "lw": 0.8, "shrinkA": 0}
                if abs(right) > 9 else None,
            )  # fmt: skip
            text.set_in_layout(False)
            as_data([text])
            text.get_window_extent()  # puts it into its place
            box = Text.get_window_extent(text).padded(2)  # without its line
            inside = frame.contains(*box.min) and frame.contains(*box.max)
            tried.append((9 * (not inside) + box.count_overlaps(taken), len(tried), text, box))
            if tried[-1][0] == 0:
                break
        best = min(tried, key=lambda each: each[:2])
        for each in tried:
            if each is not best:
                each[2].remove()
        taken.append(best[3])


def plot_reliability(
    labels: ArrayLike, probabilities: ArrayLike, *, num_bins: int = 15, ax: Axes | None = None
) -> Figure:
    """Draw how often the classifier is right against how sure it says it is.

    Below the diagonal it boasts. The area of a point shows how many images it stands for.

    Args:
        labels: (n,) integers.
        probabilities: (n, num_classes).
        num_bins: bins of equal width over (0, 1].
        ax: where to draw; a new figure if None.

    Raises:
        ValueError: if the arrays do not fit each other.
    """
    ax = given_or_new(ax, 4.6, 4.6)
    ax.plot([0, 100], [0, 100], color=PALE, linewidth=1.5, zorder=1, label="as good as its word")
    ax.legend(frameon=False, fontsize=NORMAL, labelcolor=INK, loc="upper left")
    num_images = len(np.asarray(labels))
    for confidence, accuracy, count in calibration_bins(labels, probabilities, num_bins=num_bins):
        x, low, high = 100 * confidence, 100 * accuracy.low, 100 * accuracy.high
        ax.plot([x, x], [low, high], color=BLUE, linewidth=2, alpha=0.5)
        area = 25 + 400 * count / num_images
        ax.scatter([x], [100 * accuracy.value], s=area, color=BLUE, zorder=3)
    error = 100 * expected_calibration_error(labels, probabilities, num_bins=num_bins)
    ax.set_title(f"expected calibration error {error:.1f} %", fontsize=NORMAL, color=INK)
    ax.set_xlim(0, 103)
    ax.set_ylim(0, 103)
    ax.set_aspect("equal")
    ax.set_xlabel("confidence (%)")
    ax.set_ylabel("accuracy (%), with 95 % interval")
    style_axes(ax)
    return figure_of(ax)


def _duration(seconds: float) -> str:
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.{0 if seconds >= 10 * size else 1}f} {unit}"
    return f"{seconds:.{0 if seconds >= 10 else 1}f} s"
