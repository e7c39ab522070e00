"""Pictures of data and results: arrays in, one figure out.

Every `plot_*` returns a `Picture`, a Matplotlib figure that shows itself where it is the last line
of a notebook cell; those with one panel draw into `ax` if it is given, and return its figure. No
pyplot and no global style is touched, so all of it works in threads and leaves the user's figures
alone. The colours are Okabe and Ito's, which people with any colour vision can tell apart.
"""

import math
import os
import unicodedata
import uuid
from collections.abc import Mapping, Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from safelight.metrics import (
    Interval,
    calibration_bins,
    confident_mistakes,
    expected_calibration_error,
    format_percent,
)

BLUE, VERMILION, ORANGE = "#0072B2", "#D55E00", "#E69F00"
_INK, _PALE = "#333333", "#BBBBBB"
_SMALL, _NORMAL = 9, 11
_TEXT: dict[str, Any] = {"fontsize": _NORMAL, "color": _INK, "va": "center"}
# DejaVu Sans comes with Matplotlib; these are where the systems keep Chinese, Japanese and Korean.
_MORE_FONTS = ["Noto Sans CJK SC", "Noto Sans CJK JP", "PingFang SC", "Hiragino Sans"]
_MORE_FONTS += ["Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Apple SD Gothic Neo"]
_METRICS = {"balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1", "roc_auc": "ROC AUC"}


class Picture(Figure):
    """A figure that shows itself in a notebook without pyplot and without any magic line."""

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        self.savefig(buffer, format="png", dpi=100)
        return buffer.getvalue()


def plot_history(history: Mapping[str, Sequence[float]], *, monitor: str = "val_loss") -> Figure:
    """Draw loss and accuracy over the epochs, and mark the best epoch.

    Args:
        history: `loss` (nats per image) and, where they exist, `accuracy` (fractions), `val_loss`
            and `val_accuracy`: one number per epoch, NaN where there was none. `epoch` numbers
            them (from 1 if it is missing). Other keys are left out.
        monitor: the key by which the best epoch is found: lowest for a loss, else highest.

    Raises:
        ValueError: if there is neither loss nor accuracy in it, or no epoch.
    """
    panels = [key for key in ("loss", "accuracy") if key in history or f"val_{key}" in history]
    if not any(len(history.get(f"{prefix}{p}", ())) for p in panels for prefix in ("", "val_")):
        raise ValueError(f"history of {sorted(history)}: pass 'loss' or 'accuracy' with an epoch.")
    figure = _figure(4.6 * len(panels), 3.4)
    best = _best_epoch(history, monitor)
    for ax, key in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw_curves(ax, history, key, best)
    return figure


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
    names = [_short(name, 26) for name in class_names]
    cell = 1.2 if num_classes <= 4 else 0.72 if num_classes <= 12 else 0.34
    side = 2 + cell * max(num_classes, 2)
    ax = _axes(ax, side, side)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    edges = np.arange(num_classes + 1) - 0.5
    ax.pcolormesh(edges, edges, shares, cmap="Blues", vmin=0, vmax=1, edgecolors="white")
    for (row, column), count in np.ndenumerate(matrix):
        share = shares[row, column]
        text = f"{count:g}\n{100 * share:.0f} %" if cell > 0.5 and count else f"{count:g}"
        if count or cell > 0.5:
            ax.text(
                column, row, text, ha="center", va="center", fontsize=7 + 6 * (cell - 0.34) / 0.86,
                color="white" if share > 0.55 else _INK if count else _PALE,
            )  # fmt: skip
    # A name stands upright where it is wider than its cell; a letter takes about 0.095 inches.
    upright = max(map(len, names)) * 0.095 > cell
    ax.set_xticks(range(num_classes), names, rotation=90 if upright else 0)
    ax.set_yticks(range(num_classes), names)
    ax.set_ylim(num_classes - 0.5, -0.5)
    ax.set_aspect("equal")
    ax.set_xlabel("predicted class")
    ax.set_ylabel("true class")
    _style(ax, grid=False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    _as_data([*ax.get_xticklabels(), *ax.get_yticklabels()])
    return _figure_of(ax)


def plot_image_grid(
    images: Sequence[ArrayLike],
    *,
    titles: Sequence[str] | None = None,
    columns: int | None = None,
    value_range: tuple[float, float] | None = None,
) -> Figure:
    """Draw pictures side by side, each in its own shape.

    Args:
        images: (h, w), (h, w, 1) or (h, w, 3) arrays; shapes may differ.
        titles: a line or two over each picture.
        columns: pictures in a row; chosen if None.
        value_range: what is black and what is white; (0, 255) for integers and (0, 1) for floats
            if None.

    Raises:
        ValueError: if there is no picture, one has no picture's shape, or titles do not fit.
    """
    if len(images) == 0 or (titles is not None and len(titles) != len(images)):
        raise ValueError(
            f"{len(images)} images and {'no' if titles is None else len(titles)} titles; "
            "pass at least one image, and one title per image."
        )
    pictures = [_displayable(image, value_range) for image in images]
    return _draw_grid(pictures, [str(title) for title in titles or []], columns)


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
        figure = _figure(5, 1.2)
        figure.text(0.5, 0.5, f"No mistake among {len(probabilities)} images", ha="center", **_TEXT)
        return figure
    titles = []
    for index in worst:
        guess = int(probabilities[index].argmax())
        true = class_names[int(np.asarray(labels)[index])]
        sure = f"{100 * float(probabilities[index, guess]):.0f} % sure"
        titles.append(f"true: {_short(true, 18)}\nsays: {_short(class_names[guess], 18)}\n{sure}")
    pictures = [_displayable(images[int(index)], None) for index in worst]
    return _draw_grid(pictures, titles, min(columns, len(worst)))


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
    names = [_short(_METRICS.get(name, name), 36) for name in intervals]
    ax = _axes(ax, 7.2, 1.1 + 0.42 * len(names))
    for row, interval in enumerate(intervals.values()):
        ends = [100 * interval.low, 100 * interval.high]
        ax.plot(ends, [row, row], color=BLUE, linewidth=2.5, alpha=0.6)
        ax.plot([100 * interval.value], [row], "o", color=BLUE, markersize=7)
        text = "not defined" if math.isnan(interval.value) else format_percent(interval)
        ax.text(1.02, row, text, transform=ax.get_yaxis_transform(), **_TEXT)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlabel(label)
    _style(ax, grid=False)
    ax.grid(axis="x", color="#E6E6E6")
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    _as_data(ax.get_yticklabels())
    return _figure_of(ax)


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
    figure = _figure(9.0, 1.2 + 0.45 * len(results))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[3, 2])
    accuracies = {name: accuracy for name, (accuracy, _) in results.items()}
    plot_intervals(accuracies, label="test accuracy (%), with 95 % interval", ax=left)
    right.barh(range(len(times)), times, height=0.45, color=ORANGE)
    for row, seconds in enumerate(times):
        right.text(seconds, row, f" {_duration(seconds)}", **_TEXT)
    right.set_xlim(0, 1.3 * max(times))
    right.set_xlabel("training time")
    _style(right, grid=False)
    right.spines[["left", "bottom"]].set_visible(False)
    right.tick_params(bottom=False, labelbottom=False, left=False, labelleft=False)
    return figure


def plot_filters(
    kernels: ArrayLike, *, num_filters: int = 64, columns: int = 16, channel_order: str = "rgb"
) -> Figure:
    """Draw the kernels of a first layer as small pictures.

    Each is scaled by itself: zero is grey, its largest weight is black or white.

    Args:
        kernels: (height, width, 3 | 1, num_kernels), the layout of Keras.
        num_filters: how many at most, from the first on.
        columns: kernels in a row.
        channel_order: "rgb", or "bgr" for networks with Caffe's weights, such as VGG16.

    Raises:
        ValueError: if the kernels do not look at 1 or 3 channels.
    """
    kernels = np.asarray(kernels, np.float32)
    if kernels.ndim != 4 or kernels.shape[2] not in (1, 3) or channel_order not in ("rgb", "bgr"):
        raise ValueError(
            f"kernels of shape {kernels.shape}, channel_order {channel_order!r}; pass a first "
            "layer's (height, width, 3 or 1, num_kernels), and 'rgb' or 'bgr'."
        )
    kernels = kernels[:, :, ::-1] if channel_order == "bgr" else kernels
    kernels = np.moveaxis(kernels, -1, 0)[:num_filters]
    largest = np.maximum(np.abs(kernels).max(axis=(1, 2, 3), keepdims=True), 1e-12)
    tiles = [_displayable(kernel, (-1, 1)) for kernel in kernels / largest]
    return _draw_grid(tiles, [], min(columns, len(tiles)), cell=0.55)


def plot_activations(
    activations: ArrayLike,
    *,
    channels: Sequence[int] | int = 16,
    columns: int = 8,
) -> Figure:
    """Draw what channels of one layer answer to one picture, dark for nothing.

    Args:
        activations: (height, width, channels) of one picture.
        channels: which ones, or how many of those with the largest mean.
        columns: channels in a row.

    Raises:
        ValueError: if the array is no layer's answer to one picture.
    """
    activations = np.asarray(activations, dtype=np.float32)
    if activations.ndim != 3:
        raise ValueError(
            f"activations of shape {activations.shape}; pass one image's (height, width, channels)."
        )
    strongest = np.argsort(-activations.mean(axis=(0, 1)), kind="stable")
    shown = strongest[:channels] if isinstance(channels, int) else np.asarray(channels)
    tiles = np.moveaxis(activations[:, :, shown], -1, 0)
    tiles = tiles - tiles.min(axis=(1, 2), keepdims=True)
    tiles = tiles / np.maximum(tiles.max(axis=(1, 2), keepdims=True), 1e-12)
    tiles = colormaps["magma"](tiles)[..., :3]
    return _draw_grid(tiles, [f"channel {c}" for c in shown], min(columns, len(tiles)), cell=1.1)


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
    ax = _axes(ax, 4.6, 4.6)
    ax.plot([0, 100], [0, 100], color=_PALE, linewidth=1.5, zorder=1, label="as good as its word")
    ax.legend(frameon=False, fontsize=_NORMAL, labelcolor=_INK, loc="upper left")
    num_images = len(np.asarray(labels))
    for confidence, accuracy, count in calibration_bins(labels, probabilities, num_bins=num_bins):
        x, low, high = 100 * confidence, 100 * accuracy.low, 100 * accuracy.high
        ax.plot([x, x], [low, high], color=BLUE, linewidth=2, alpha=0.5)
        area = 25 + 400 * count / num_images
        ax.scatter([x], [100 * accuracy.value], s=area, color=BLUE, zorder=3)
    error = 100 * expected_calibration_error(labels, probabilities, num_bins=num_bins)
    ax.set_title(f"expected calibration error {error:.1f} %", fontsize=_NORMAL, color=_INK)
    ax.set_xlim(0, 103)
    ax.set_ylim(0, 103)
    ax.set_aspect("equal")
    ax.set_xlabel("confidence (%)")
    ax.set_ylabel("accuracy (%), with 95 % interval")
    _style(ax)
    return _figure_of(ax)


def save_figure(figure: Figure | Axes, path: str | os.PathLike[str], *, dpi: int = 150) -> Path:
    """Write a figure to a file that has its name only when it is whole.

    Args:
        figure: what a `plot_*` returned, or Axes, whose whole figure is written.
        path: the file; its ending says the format: .png, .svg or .pdf.
        dpi: dots per inch of a PNG.

    Returns:
        The path.

    Raises:
        ValueError: if the ending is another one.
    """
    path = Path(path)
    figure = figure if isinstance(figure, Figure) else _figure_of(figure)
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ValueError(f"{path.name}: pass a file name that ends in .png, .svg or .pdf.")
    partial = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.partial{path.suffix}")
    try:
        figure.savefig(partial, format=path.suffix[1:].lower(), dpi=dpi)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _figure(width: float, height: float) -> Picture:
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)  # inches
    return Picture(figsize=(width, height), layout=layout, facecolor="white")


def _axes(ax: Axes | None, width: float, height: float) -> Axes:
    return _figure(width, height).subplots() if ax is None else ax


def _figure_of(ax: Axes) -> Figure:
    return cast(Figure, ax.get_figure(root=True))


def _style(ax: Axes, *, grid: bool = True) -> None:
    """Give the one look that all charts share."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("#888888")
    ax.tick_params(labelsize=_NORMAL, colors=_INK)
    ax.xaxis.label.set(size=_NORMAL, color=_INK)
    ax.yaxis.label.set(size=_NORMAL, color=_INK)
    ax.set_axisbelow(True)
    if grid:
        ax.grid(color="#E6E6E6", linewidth=0.8)


@cache
def _fonts() -> list[str]:
    installed = set(fontManager.get_font_names())
    return ["DejaVu Sans", *(name for name in _MORE_FONTS if name in installed)]


def _as_data(texts: Sequence[Text]) -> None:
    """Take texts literally: a class named "$x$" is no formula; and find glyphs for any script."""
    for text in texts:
        text.set_parse_math(False)
        text.set_fontfamily(_fonts())


def _short(name: str, width: int) -> str:
    """Name without control characters, its middle left out where it is too long."""
    name = "".join("?" if unicodedata.category(c)[0] == "C" else c for c in str(name))
    if len(name) <= width:
        return name
    head = (width - 1) * 2 // 3
    return f"{name[:head]}…{name[len(name) - (width - 1 - head) :]}"


def _duration(seconds: float) -> str:
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.{0 if seconds >= 10 * size else 1}f} {unit}"
    return f"{seconds:.{0 if seconds >= 10 else 1}f} s"


def _best_epoch(history: Mapping[str, Sequence[float]], monitor: str) -> int | None:
    values = np.asarray(history.get(monitor, ()), dtype=float)
    if not np.isfinite(values).any():
        return None
    return int(np.nanargmin(values) if monitor.endswith("loss") else np.nanargmax(values))


def _draw_curves(
    ax: Axes, history: Mapping[str, Sequence[float]], key: str, best: int | None
) -> None:
    scale, unit = (100, "accuracy (%)") if key == "accuracy" else (1, "loss (nats per image)")
    first, num_epochs = int(next(iter(history.get("epoch", ())), 1)), 1
    for name, label, colour in ((key, "training", _PALE), (f"val_{key}", "validation", BLUE)):
        values = scale * np.asarray(history.get(name, ()), dtype=float)
        epochs = first + np.arange(len(values))
        num_epochs = max(num_epochs, len(values))
        if len(values):
            marker = "o" if len(values) <= 3 else ""
            ax.plot(epochs, values, color=colour, linewidth=2.2, marker=marker, label=label)
        if name.startswith("val_") and best is not None and best < len(values):
            mark: dict[str, Any] = {"markersize": 8, "label": f"best epoch: {first + best}"}
            ax.plot([first + best], [values[best]], "o", color=VERMILION, **mark)
    ax.set_xlim(first - 0.5, first + num_epochs - 0.5)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    ax.set_xlabel("epoch")
    ax.set_ylabel(unit)
    _style(ax)
    ax.legend(frameon=False, fontsize=_NORMAL, labelcolor=_INK)


def _displayable(image: ArrayLike, value_range: tuple[float, float] | None) -> NDArray[np.float32]:
    """(h, w, 3) floats between 0 and 1."""
    array = np.asarray(image)
    array = array[:, :, None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[2] not in (1, 3) or array.size == 0:
        raise ValueError(f"an image of shape {array.shape}; pass (h, w), (h, w, 1) or (h, w, 3).")
    if value_range is None:
        value_range = (0, 255) if np.issubdtype(array.dtype, np.integer) else (0, 1)
        if array.max() > value_range[1] + 1e-3:
            raise ValueError(
                f"an image of {array.dtype} reaches {array.max():g}; pass value_range=(low, high)."
            )
    low, high = value_range
    scaled = np.clip((array.astype(np.float32) - low) / (high - low), 0, 1)
    return np.repeat(scaled, 3, axis=2) if scaled.shape[2] == 1 else scaled


def _draw_grid(
    pictures: Sequence[NDArray[Any]],
    titles: Sequence[str],
    columns: int | None,
    *,
    cell: float = 1.9,
) -> Figure:
    columns = columns or min(len(pictures), max(3, math.ceil(math.sqrt(len(pictures) * 1.6))), 8)
    rows = math.ceil(len(pictures) / columns)
    shape = float(np.median([p.shape[0] / p.shape[1] for p in pictures]))
    lines = max((title.count("\n") + 1 for title in titles), default=0)
    height = cell * min(max(shape, 0.3), 3.0) + 0.19 * lines + 0.06
    figure = _figure(columns * (cell + 0.1), rows * height)
    for index, ax in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        ax.set_axis_off()
        if index < len(pictures):
            # Few pixels are shown as squares; photographs are smoothed.
            smooth = "nearest" if max(pictures[index].shape[:2]) < 64 else "antialiased"
            ax.imshow(pictures[index], interpolation=smooth)
        if index < len(titles):
            title = "\n".join(_short(line, int(cell / 0.075)) for line in titles[index].split("\n"))
            _as_data([ax.set_title(title, fontsize=_SMALL, color=_INK, pad=3)])
    return figure
