"""Where in a picture a classifier finds what it answers."""

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from safelight.plots.grids import displayable
from safelight.plots.style import INK, SMALL, as_data, new_figure, shorten

COLOURS = "inferno"
"""Of Matplotlib's: even steps to the eye, in grey and for any colour vision too."""

_LONGEST = 360  # pixels of a side that is drawn
_PANEL = 1.9  # inches
_STRONG = 0.5  # of the strongest place: there the line is drawn


def plot_explanations(
    images: Sequence[ArrayLike],
    maps: Sequence[ArrayLike] | NDArray[np.floating],
    *,
    titles: Sequence[str],
    occlusions: Sequence[ArrayLike] | NDArray[np.floating] | None = None,
    columns: int | None = None,
) -> Figure:
    """Draw pictures, each with its map laid over it at its right, and lines of text over both.

    Args:
        images: (h, w), (h, w, 1) or (h, w, 3) arrays; shapes may differ.
        maps: one (height, width) for each, of any size, as `transfer.explanations.Explainer` gives
            them: positive where a place speaks for the answer; what is negative counts as 0.
        titles: a few lines for each.
        occlusions: one (height, width) for each, drawn at the right of the maps in the same way:
            what covering a place costs, less what it costs on average.
        columns: pictures in a row; chosen if None.

    Raises:
        ValueError: if the numbers do not fit, or a map is none or not finite.
    """
    extra = [] if occlusions is None else [occlusions]
    if {len(each) for each in (images, titles, *extra)} != {len(maps)} or not len(maps):
        raise ValueError(
            f"{len(images)} images, {len(maps)} maps, {len(titles)} titles"
            f"{'' if occlusions is None else f', {len(occlusions)} occlusions'}: pass at least one "
            "image, and one of each per image."
        )
    panels = 2 + len(extra)
    columns = columns or min(len(images), 3 if panels == 2 else 2)
    rows = math.ceil(len(images) / columns)
    # One picture alone is drawn larger, also because the words below need the room.
    cell = _PANEL * (1.6 if columns == 1 else 1)
    lines = max(str(title).count("\n") + 1 for title in titles)
    # What the bar and its words need; pictures that are not square leave some of it free.
    shape = float(np.median([np.shape(image)[0] / np.shape(image)[1] for image in images]))
    height = rows * (cell * min(max(shape, 0.3), 3.0) + 0.15 * lines + 0.12) + 0.7
    figure = new_figure(columns * (panels * cell + 0.15), height)
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for index, ax in enumerate(axes.flat[: len(images)]):
        _draw(ax, images[index], [each[index] for each in (maps, *extra)])
        title = [shorten(line, int(panels * cell / 0.072)) for line in titles[index].split("\n")]
        as_data([ax.set_title("\n".join(title), fontsize=SMALL, color=INK, pad=3)])
    _draw_legend(figure, axes, occluded=occlusions is not None)
    return figure


def lay_over(image: NDArray[np.float32], strength: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lay a map over a picture: in grey, and coloured the more the stronger a place is.

    Args:
        image: (h, w, 3) floats from 0 to 1.
        strength: (h, w) floats from 0 to 1.

    Returns:
        (h, w, 3) floats from 0 to 1.
    """
    grey = (image @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]
    colours = matplotlib.colormaps[COLOURS](strength)[..., :3]
    share = 0.7 * np.sqrt(strength)[..., None]  # what is weak lets the picture through
    return ((1 - share) * grey + share * colours).astype(np.float32)


def strength_of(found: ArrayLike, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Make a map's positive part as large as a picture, its strongest place being 1.

    Args:
        found: (height, width), of any size.
        shape: height and width of the picture.

    Raises:
        ValueError: if it is no map, or not finite.
    """
    array = np.asarray(found, np.float32)
    if array.ndim != 2 or not array.size or not np.isfinite(array).all():
        raise ValueError(f"a map of shape {array.shape}: pass (height, width), all of it finite.")
    plane = Image.fromarray(np.maximum(array, 0))
    large = np.asarray(plane.resize(shape[::-1], Image.Resampling.BILINEAR))
    return (large / max(float(large.max()), 1e-12)).astype(np.float32)


def _draw(ax: Axes, image: ArrayLike, maps: Sequence[ArrayLike]) -> None:
    """The picture, and each map over it, side by side as one image."""
    picture = _of_a_size_to_draw(displayable(image, None))
    height, width = picture.shape[:2]
    gap = max(2, width // 40)
    panels = [picture]
    for number, found in enumerate(maps, start=1):
        strength = strength_of(found, (height, width))
        panels += [np.ones((height, gap, 3), np.float32), lay_over(picture, strength)]
        if strength.max() > _STRONG > strength.min():
            across = np.arange(width) + number * (width + gap)
            line: dict[str, Any] = {"colors": "white", "linewidths": 0.9}
            ax.contour(across, np.arange(height), strength, levels=[_STRONG], **line)
    ax.imshow(np.concatenate(panels, axis=1), interpolation="antialiased")
    ax.set_aspect("equal")


def _of_a_size_to_draw(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """Few pixels as sharp squares, so that lines over them are fine; many no more than print."""
    longest = max(picture.shape[:2])
    if longest <= _LONGEST // 2:
        zoom = _LONGEST // longest
        return picture.repeat(zoom, axis=0).repeat(zoom, axis=1)
    step = max(1, longest / _LONGEST)
    size = (max(1, round(picture.shape[1] / step)), max(1, round(picture.shape[0] / step)))
    pixels = Image.fromarray((255 * picture).round().astype(np.uint8))
    resized = pixels.resize(size, Image.Resampling.LANCZOS)
    return (np.asarray(resized) / 255).astype(np.float32)


def _draw_legend(figure: Figure, axes: NDArray[np.object_], *, occluded: bool) -> None:
    """A bar in the colours that the map has over a middle grey, and what they mean."""
    grey, steps = np.full((1, 256, 3), 0.5, np.float32), np.linspace(0, 1, 256, dtype=np.float32)
    colours = ListedColormap(lay_over(grey, steps[None])[0])
    mappable = ScalarMappable(Normalize(0, 100), colours)
    bar = figure.colorbar(
        mappable, ax=axes.ravel().tolist(), location="bottom", aspect=40, shrink=0.6, pad=0.02
    )
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=SMALL, colors=INK, length=0)
    bar.set_ticks([0, 50, 100], labels=["nothing", "half", "the strongest place"])
    told = "Coloured: what speaks for the answer; white line: half of the strongest place."
    if occluded:
        told += " Right: where a patch over the picture costs the answer more than elsewhere."
    wide = int(figure.get_figwidth() / 0.07)
    bar.set_label("\n".join(textwrap.wrap(told, wide)), fontsize=SMALL, color=INK)
