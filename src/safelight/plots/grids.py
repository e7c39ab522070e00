"""Pictures side by side."""

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from safelight.plots.style import INK, NORMAL, SMALL, as_data, new_figure, shorten


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
    pictures = [displayable(image, value_range) for image in images]
    return draw_grid(pictures, [str(title) for title in titles or []], columns)


def displayable(image: ArrayLike, value_range: tuple[float, float] | None) -> NDArray[np.float32]:
    """Return a picture as (h, w, 3) floats from 0, black, to 1, white.

    Args:
        image: (h, w), (h, w, 1) or (h, w, 3).
        value_range: as in `plot_image_grid`.

    Raises:
        ValueError: if it has no picture's shape, or values above the range that its type promises.
    """
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


def draw_grid(
    pictures: Sequence[NDArray[Any]],
    titles: Sequence[str],
    columns: int | None,
    *,
    cell: float = 1.9,
) -> Figure:
    """Draw pictures, each (h, w, 3) floats from 0 to 1, in cells of `cell` inches under titles."""
    columns = columns or min(len(pictures), max(3, math.ceil(math.sqrt(len(pictures) * 1.6))), 8)
    rows = math.ceil(len(pictures) / columns)
    shape = float(np.median([p.shape[0] / p.shape[1] for p in pictures]))
    lines = max((title.count("\n") + 1 for title in titles), default=0)
    height = cell * min(max(shape, 0.3), 3.0) + 0.19 * lines + 0.06
    figure = new_figure(columns * (cell + 0.1), rows * height)
    for index, ax in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        ax.set_axis_off()
        if index < len(pictures):
            # Few pixels are shown as squares; photographs are smoothed.
            smooth = "nearest" if max(pictures[index].shape[:2]) < 64 else "antialiased"
            ax.imshow(pictures[index], interpolation=smooth)
        if index < len(titles):
            title = "\n".join(
                shorten(line, int(cell / 0.075)) for line in titles[index].split("\n")
            )
            as_data([ax.set_title(title, fontsize=SMALL, color=INK, pad=3)])
    return figure


def as_pictures(pictures: ArrayLike, *axes: str) -> NDArray[np.float32]:
    """Return an array of pictures of one size as floats from 0, black, to 1, white.

    Args:
        pictures: (..., height, width, 1 or 3) or (..., height, width): integers from 0 to 255 or
            floats from 0 to 1.
        axes: what the leading axes are called, for the error.

    Returns:
        (..., height, width, 3) float32.

    Raises:
        ValueError: if the shape is another one, or a value is out of its range or NaN.
    """
    array = np.asarray(pictures)
    if array.ndim == len(axes) + 2 and array.shape[-1] > 3:
        array = array[..., None]
    if array.ndim != len(axes) + 3 or array.shape[-1] not in (1, 3) or array.size == 0:
        raise ValueError(
            f"pictures of shape {np.shape(pictures)}; pass ({', '.join(axes)}, height, width, "
            "1 or 3), with at least one picture."
        )
    white = 255 if np.issubdtype(array.dtype, np.integer) else 1
    low, high = float(array.min()), float(array.max())
    if not (low >= -1e-3 and high <= white + 1e-3):
        raise ValueError(
            f"pictures of {array.dtype} from {low:g} to {high:g}; pass integers from 0 to 255 or "
            "floats from 0 to 1. NaN comes from a model whose training diverged."
        )
    rows = array.reshape(-1, *array.shape[-2:])  # as if it were one tall picture
    return displayable(rows, None).reshape(*array.shape[:-1], 3)


def fill_rows(pictures: NDArray[np.float32], columns: int) -> NDArray[np.float32]:
    """Break (n, h, w, 3) pictures into (rows, columns, h, w, 3), the last row filled with white."""
    white = np.ones((-len(pictures) % columns, *pictures.shape[1:]), pictures.dtype)
    return np.concatenate([pictures, white]).reshape(-1, columns, *pictures.shape[1:])


def draw_mosaic(
    pictures: NDArray[np.float32],
    *,
    title: str,
    row_names: Sequence[str] = (),
    column_names: Sequence[str] = (),
    axis_names: tuple[str, str] = ("", ""),
    breaks: tuple[Sequence[int], Sequence[int]] = ((), ()),
) -> Figure:
    """Draw a table of equally large pictures as one image, so that hundreds take no time.

    Args:
        pictures: (rows, columns, h, w, 3) floats from 0 to 1.
        title: what is seen.
        row_names: a name per row, at its left.
        column_names: a name per column, below; every second, third ... where they lack the room.
        axis_names: what the names below and at the left are.
        breaks: the rows, and the columns, before which there is a wide gap.
    """
    num_rows, num_columns, height, width = pictures.shape[:4]
    shape = math.sqrt(height / width)
    cell = min(1.0, 10.5 * shape / num_columns, 8.5 / shape / num_rows)  # inches, of a square one
    image, rows, columns, side = paste(pictures, cell, breaks)
    row_names = [shorten(name, 26) for name in row_names]
    left = 0.085 * max(map(len, row_names), default=0) + 0.3 * bool(axis_names[1]) + 0.2
    below = 0.25 * bool(column_names) + 0.25 * bool(axis_names[0]) + 0.15
    inches = max(left + cell * image.shape[1] / side, 4.5)
    lines = textwrap.wrap(title, int((inches - 0.3) / 0.09))
    figure = new_figure(inches, cell * image.shape[0] / side + below + 0.2 * len(lines) + 0.1)
    figure.suptitle("\n".join(lines), fontsize=NORMAL, color=INK)
    ax = figure.subplots()
    ax.imshow(image, interpolation="antialiased")
    if not axis_names[0]:  # which is wider than a small image, and in the middle of it
        # In the middle of its room the image would take from the names' room what it leaves free.
        ax.set_anchor("W")
    ax.set_yticks(rows[: len(row_names)], row_names)
    every = math.ceil(0.085 * max(map(len, column_names), default=1) / (cell / shape))
    ax.set_xticks(columns[: len(column_names)][::every], column_names[::every])
    _show_names_alone(ax, axis_names)
    return figure


def paste(
    pictures: NDArray[np.float32], cell: float, breaks: tuple[Sequence[int], Sequence[int]]
) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[Any], float]:
    """Paste pictures into one, white between them.

    Args:
        pictures: (rows, columns, h, w, 3) floats from 0 to 1.
        cell: inches that one will have.
        breaks: the rows, and the columns, before which there is a wide gap.

    Returns:
        (height, width, 3); the middle of each row and of each column in its pixels; the side of
        a square picture in them.
    """
    height, width = pictures.shape[2:4]
    # Few pixels become squares that are as sharp as the print; photographs are smoothed.
    zoom = max(1, round(250 * cell / max(height, width))) if max(height, width) < 64 else 1
    pictures = pictures.repeat(zoom, axis=2).repeat(zoom, axis=3)
    height, width = pictures.shape[2:4]
    side = math.sqrt(height * width)
    tops, bottom = _places(len(pictures), height, side, breaks[0])
    lefts, right = _places(pictures.shape[1], width, side, breaks[1])
    image = np.ones((bottom, right, 3), np.float32)
    for row, top in enumerate(tops):
        for column, left in enumerate(lefts):
            image[top : top + height, left : left + width] = pictures[row, column]
    return image, np.add(tops, (height - 1) / 2), np.add(lefts, (width - 1) / 2), side


def _places(count: int, size: int, side: float, breaks: Sequence[int]) -> tuple[list[int], int]:
    """First pixel of each picture along one axis, and the number of pixels in all."""
    starts, place = [], 0
    for index in range(count):
        place += round(0.3 * side) if index in breaks else 0
        starts.append(place)
        place += size + max(1, round(0.05 * side))
    return starts, starts[-1] + size


def _show_names_alone(ax: Axes, axis_names: tuple[str, str]) -> None:
    """Leave of the axes no more than the names."""
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0, labelsize=SMALL, colors=INK)
    ax.set_xlabel(axis_names[0], fontsize=SMALL, color=INK)
    ax.set_ylabel(axis_names[1], fontsize=SMALL, color=INK)
    as_data([*ax.get_xticklabels(), *ax.get_yticklabels()])
