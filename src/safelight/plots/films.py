"""A training as it goes: one picture of a moment, and many of them as a film."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from safelight.files import StrPath, atomic_path
from safelight.plots.grids import as_pictures, paste
from safelight.plots.latents import plot_latent_scatter
from safelight.plots.style import BLUE, INK, NORMAL, PALE, SMALL, VERMILION, Picture, style_axes

_INCHES = (9.6, 5.4)
_HOLD = 2.0  # seconds that the last frame stays
_EARLY = 0.1  # of the time, whose values need not fit into the curve's panel


def plot_training_moment(
    z: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    pictures: Mapping[str, ArrayLike],
    curve: tuple[ArrayLike, ArrayLike, int],
    limits: ArrayLike,
    title: str,
    scatter: Mapping[str, Any] | None = None,
) -> Picture:
    """Draw what a training has come to: the latent plane, pictures, and the ELBO so far.

    Nothing in it finds its own place, so that many of them make a film in which only what changes
    moves.

    Args:
        z: (n, 2) latent means, or two principal components of them.
        labels: (n,) integers from 0.
        pictures: one or two tables of pictures (rows, columns, height, width, channels), each under
            what it is called.
        curve: seconds of all moments, rising; ELBO of all, nats per image; the one that this is.
        limits: (2, 2), from and to of the first axis and of the second.
        title: which moment this is.
        scatter: arguments of `plot_latent_scatter`.

    Raises:
        ValueError: if shapes do not fit.
    """
    figure = Picture(figsize=_INCHES, facecolor="white")
    plane = figure.add_axes((0.075, 0.115, 0.45, 0.80))
    plot_latent_scatter(z, labels, ax=plane, **(scatter or {}))
    plane.set_title(title, fontsize=NORMAL, color=INK)
    (left, right), (bottom, top) = np.asarray(limits, dtype=float)
    plane.set(aspect="auto", xlim=(left, right), ylim=(bottom, top))
    _draw_tables(figure, pictures)
    _draw_curve(figure.add_axes((0.635, 0.115, 0.35, 0.235)), curve)
    return figure


def save_film(
    draw: Callable[[int], Figure],
    num_frames: int,
    path: StrPath,
    *,
    frames_per_second: float = 12,
    dpi: int = 100,
) -> Path:
    """Write figures as a moving picture that has its name only when it is whole.

    Args:
        draw: gives the figure of a frame, counted from 0; all of one size.
        num_frames: how many there are.
        path: the file; its ending says the format: .gif, .webp or, for an animated PNG, .png.
        frames_per_second: the last one stays for two seconds.
        dpi: dots per inch.

    Returns:
        The path.

    Raises:
        ValueError: if the ending is another one, or there is no frame.
    """
    path = Path(path)
    if path.suffix.lower() not in (".gif", ".webp", ".png") or num_frames < 1:
        raise ValueError(
            f"{path.name} of {num_frames} frames; pass a file name that ends in .gif, .webp or "
            ".png, and at least one frame."
        )
    milliseconds = [round(1000 / frames_per_second)] * num_frames
    milliseconds[-1] = round(1000 * _HOLD)
    frames = [_rasterise(draw(index), dpi) for index in range(num_frames)]
    if path.suffix.lower() == ".gif":
        frames = _with_one_palette(frames)
    with atomic_path(path) as partial:
        frames[0].save(
            partial,
            format=path.suffix[1:].upper(),
            save_all=True,
            append_images=frames[1:],
            duration=milliseconds,
            loop=0,
        )
    return path


def _rasterise(figure: Figure, dpi: int) -> Image.Image:
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[:, :, :3].copy())


def _with_one_palette(frames: list[Image.Image]) -> list[Image.Image]:
    """In 256 colours, the same in all frames, or what does not move would flicker."""
    some = [frames[i] for i in sorted({0, len(frames) // 2, len(frames) - 1})]
    strip = Image.fromarray(np.concatenate([np.asarray(frame) for frame in some]))
    palette = strip.quantize(256, method=Image.Quantize.MEDIANCUT)
    return [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]


def _draw_tables(figure: Figure, pictures: Mapping[str, ArrayLike]) -> None:
    """Tables of pictures in the upper right, each as large as the room lets it be."""
    top, left, width = 0.945, 0.56, 0.425
    tables = {name: as_pictures(table, "rows", "columns") for name, table in pictures.items()}
    room = (top - 0.44) / max(sum(len(table) for table in tables.values()), 1)
    for name, table in tables.items():
        cell = room * _INCHES[1]
        image, *_ = paste(table, cell, ((), ()))
        height = room * len(table)
        ax = figure.add_axes((left, top - height, width, height), anchor="NW")
        ax.imshow(image, interpolation="antialiased")
        ax.set_axis_off()
        ax.set_title(name, fontsize=SMALL, color=INK, loc="left", pad=3)
        top -= height + 0.055


def _draw_curve(ax: Axes, curve: tuple[ArrayLike, ArrayLike, int]) -> None:
    seconds, elbos = np.asarray(curve[0], dtype=float), np.asarray(curve[1], dtype=float)
    here = curve[2]
    ax.plot(seconds, elbos, color=PALE, linewidth=1.5)
    ax.plot(seconds[: here + 1], elbos[: here + 1], color=BLUE, linewidth=2.2)
    ax.plot(seconds[here], elbos[here], "o", color=VERMILION, markersize=7, clip_on=False)
    ax.set(xlim=(0, max(seconds[-1], 1e-3)), ylim=_late_range(seconds, elbos))
    ax.set_title(f"ELBO {elbos[here]:.1f} nats".replace("-", "−"), fontsize=SMALL, color=INK)
    ax.set_xlabel("seconds of training")
    ax.set_ylabel("nats per image")
    style_axes(ax)
    ax.tick_params(labelsize=SMALL)
    for label in (ax.xaxis.label, ax.yaxis.label):
        label.set_fontsize(SMALL)


def _late_range(seconds: NDArray[np.float64], elbos: NDArray[np.float64]) -> tuple[float, float]:
    """From below to above what the ELBO is after the first tenth of the time."""
    late = elbos[seconds >= _EARLY * seconds[-1]]
    low, high = float(late.min()), float(max(late.max(), elbos.max()))
    room = max(0.08 * (high - low), 0.5)
    return low - room, high + room
