"""Scores of oddness: how they differ by class, how well they tell, which pictures are oddest."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from safelight.metrics import Interval
from safelight.plots.grids import as_pictures, draw_grid
from safelight.plots.style import (
    BLUE,
    INK,
    NORMAL,
    ORANGE,
    PALE,
    SMALL,
    VERMILION,
    Picture,
    as_data,
    figure_of,
    given_or_new,
    new_figure,
    shorten,
    style_axes,
)

_COLOURS = (BLUE, VERMILION, ORANGE, "#009E73", "#CC79A7", INK)
_NUM_BINS = 40
_MAX_CLASSES = 4  # that can be told in one panel; beyond, all but the normal one are together


def plot_scores(
    scores: Mapping[str, ArrayLike],
    labels: ArrayLike | None = None,
    *,
    class_names: Sequence[str] = (),
    normal: int = 0,
) -> Picture:
    """Draw how scores of oddness are spread, by class, a panel for each score.

    Scores beyond the outermost two thousandths stand in the bins at the ends.

    Args:
        scores: name to (n,) finite numbers; the name says what the axis is.
        labels: (n,) integers, the class of each picture; None where they are not known.
        class_names: a name for each class.
        normal: the class that is not odd.

    Raises:
        ValueError: if there is no score, or the arrays do not fit each other.
    """
    found = _checked(scores, labels, len(class_names))
    classes = None if labels is None else np.asarray(labels)
    groups = _group(found, classes, class_names, normal)
    rows = math.ceil(len(found) / 2)
    columns = min(len(found), 2)
    figure = new_figure(4.9 * columns, 3.1 * rows + 0.4)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, (name, values) in zip(axes, found.items(), strict=False):
        _draw_histograms(ax, values, groups)
        ax.set_xlabel(name)
    for ax in axes[len(found) :]:
        ax.set_axis_off()
    handles, names = axes[0].get_legend_handles_labels()
    legend = figure.legend(
        handles, names, loc="outside upper center", ncols=len(names), frameon=False,
        fontsize=NORMAL, labelcolor=INK,
    )  # fmt: skip
    as_data(legend.get_texts())
    return figure


def plot_roc(
    scores: Mapping[str, ArrayLike],
    is_anomalous: ArrayLike,
    *,
    aurocs: Mapping[str, Interval] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw, for each score, the share of anomalies found against that of false alarms.

    Args:
        scores: name to (n,), the larger the odder.
        is_anomalous: (n,) bool, some of both.
        aurocs: the area under each curve with its interval, for the legend.
        ax: where to draw; a new figure if None.

    Raises:
        ValueError: if the arrays do not fit each other, or there are no anomalies or nothing else.
    """
    odd = np.asarray(is_anomalous, dtype=bool)
    found = _checked(scores, odd.astype(int), 2)
    if odd.all() or not odd.any():
        raise ValueError(f"{odd.sum()} of {len(odd)} pictures are odd: pass some of both kinds.")
    ax = given_or_new(ax, 5.4, 5.4)
    ax.plot([0, 100], [0, 100], color=PALE, linewidth=1.2, linestyle=(0, (4, 3)))
    for colour, (name, values) in zip(_COLOURS * len(found), found.items(), strict=False):
        area = "" if aurocs is None else f"  {aurocs[name]}"
        ax.plot(*_trace(values, odd), color=colour, linewidth=1.8, label=f"{name}{area}")
    ax.set_xlim(0, 100)
    ax.set_ylim(0, 100.5)
    ax.set_aspect("equal")
    ax.set_xlabel("normal pictures called odd (%)")
    ax.set_ylabel("anomalies found (%)")
    heading = "score" if aurocs is None else "score, AUROC with 95 % interval"
    legend = ax.legend(
        loc="lower right", fontsize=SMALL, labelcolor=INK, title=heading, alignment="left",
        framealpha=0.9, edgecolor="none",
    )  # fmt: skip
    legend.get_title().set(fontsize=SMALL, color=INK)
    as_data(legend.get_texts())
    style_axes(ax)
    return figure_of(ax)


def plot_oddest(
    images: ArrayLike,
    reconstructions: ArrayLike,
    *,
    titles: Sequence[str],
    columns: int = 4,
) -> Figure:
    """Draw pictures, each with what the model makes of it at its right, and a line over both.

    Args:
        images: (n, height, width, channels), the oddest first.
        reconstructions: the same shape.
        titles: n texts.
        columns: pairs in a row.

    Raises:
        ValueError: if the shapes or numbers do not fit.
    """
    left, right = (as_pictures(array, "n") for array in (images, reconstructions))
    if left.shape != right.shape or len(titles) != len(left):
        raise ValueError(
            f"images {np.shape(images)}, reconstructions {np.shape(reconstructions)}, "
            f"{len(titles)} titles: pass one reconstruction and one title per image."
        )
    height, width = left.shape[1:3]
    # Enlarged to squares here, as smoothing would bleed over the gap between the two.
    zoom = max(1, round(140 / max(height, width)))
    left, right = (part.repeat(zoom, axis=1).repeat(zoom, axis=2) for part in (left, right))
    gap = np.ones((*left.shape[:2], max(1, left.shape[2] // 20), 3), np.float32)
    pairs = np.concatenate([left, gap, right], axis=2)
    return draw_grid(list(pairs), titles, min(columns, len(pairs)), cell=2.6)


def _checked(
    scores: Mapping[str, ArrayLike], labels: ArrayLike | None, num_classes: int
) -> dict[str, NDArray[np.float64]]:
    found = {name: np.asarray(values, dtype=float) for name, values in scores.items()}
    shapes = {values.shape for values in found.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1 or not next(iter(shapes))[0]:
        raise ValueError(f"scores of shapes {sorted(shapes)}: pass at least one, each of (n,).")
    if not all(np.isfinite(values).all() for values in found.values()):
        raise ValueError("a score is not finite: it comes from a model whose training diverged.")
    if labels is None:
        return found
    classes = np.asarray(labels)
    fits = {classes.shape} == shapes and np.issubdtype(classes.dtype, np.integer)
    if not fits or not 0 <= classes.min() <= classes.max() < num_classes:
        raise ValueError(
            f"labels of shape {classes.shape} and {classes.dtype} for scores of {shapes.pop()} and "
            f"{num_classes} class_names: pass one integer per score, from 0, and a name per class."
        )
    return found


def _group(
    scores: Mapping[str, NDArray[np.float64]],
    labels: NDArray[np.int64] | None,
    class_names: Sequence[str],
    normal: int,
) -> dict[str, NDArray[np.bool_]]:
    """Which pictures are drawn together, by name: the normal ones first."""
    if labels is None:
        return {"all pictures": np.ones(len(next(iter(scores.values()))), bool)}
    others = [int(label) for label in np.unique(labels) if label != normal]
    groups = {f"{shorten(class_names[normal], 24)} (normal)": labels == normal}
    if len(others) < _MAX_CLASSES:
        return groups | {shorten(class_names[label], 24): labels == label for label in others}
    return groups | {f"the {len(others)} other classes": labels != normal}


def _draw_histograms(
    ax: Axes, values: NDArray[np.float64], groups: Mapping[str, NDArray[np.bool_]]
) -> None:
    low, high = np.quantile(values, [0.002, 0.998])
    span = (high - low) or max(abs(high), 1.0)
    edges = np.linspace(low - 0.01 * span, low + 1.01 * span, _NUM_BINS + 1)
    shown = np.clip(values, edges[0], edges[-1])
    for colour, (name, rows) in zip(_COLOURS, groups.items(), strict=False):
        counts, _ = np.histogram(shown[rows], edges)
        share = 100 * counts / max(1, counts.sum())
        label = f"{name}, {rows.sum():,}"
        ax.stairs(share, edges, fill=True, color=colour, alpha=0.25)
        ax.stairs(share, edges, color=colour, linewidth=1.6, label=label)
    ax.set_ylabel("pictures of the class (%)")
    ax.set_ylim(0, None)
    style_axes(ax)


def _trace(
    values: NDArray[np.float64], odd: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False alarms and anomalies found, in percent, threshold by threshold from the highest."""
    order = np.argsort(-values, kind="stable")
    # Pictures with one score pass a threshold together.
    last = np.append(np.flatnonzero(np.diff(values[order])), len(values) - 1)
    found, alarms = np.cumsum(odd[order])[last], np.cumsum(~odd[order])[last]
    return (
        np.concatenate([[0.0], 100 * alarms / alarms[-1]]),
        np.concatenate([[0.0], 100 * found / found[-1]]),
    )
