"""Latent variables: where pictures lie, what each unit says, how tight bounds on log p(x) are."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib import color_sequences
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import ArrayLike, NDArray

from safelight.plots.style import (
    BLUE,
    INK,
    NORMAL,
    SMALL,
    VERMILION,
    as_data,
    epoch_ticks,
    figure_of,
    given_or_new,
    shorten,
    signed,
    style_axes,
)

PRIOR_RADIUS = math.sqrt(-2 * math.log(0.05))
"""Of the circle that holds 95 % of N(0, I) in a plane; chi-squared, two degrees of freedom."""


def plot_latent_scatter(
    z: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    class_names: Sequence[str] | None = None,
    unit_names: tuple[str, str] = ("first latent unit", "second latent unit"),
    show_prior: bool = True,
    ax: Axes | None = None,
) -> Figure:
    """Draw where pictures lie in a plane of the latent space, each class named where it lies.

    Args:
        z: (n, 2) latent means, or two units or principal components of them.
        labels: (n,) integers from 0; they colour the points.
        class_names: a name per class; its number if None.
        unit_names: what the two columns are called.
        show_prior: whether to draw the circle that holds 95 % of N(0, I). Leave it out where the
            axes are no latent units.
        ax: where to draw; a new figure if None.

    Raises:
        ValueError: if the shapes do not fit, a number is NaN, or a label has no name.
    """
    z, classes = _checked_points(z, labels, class_names)
    ax = given_or_new(ax, 6.4, 6.4)
    # Points in any order, small and pale where there are many: no class lies on top of the others.
    order = np.random.default_rng(0).permutation(len(z))
    colours = BLUE if classes is None else np.asarray(_ten_colours())[classes[order] % 10]
    many = min(1.0, 1000 / len(z))
    ax.scatter(
        z[order, 0], z[order, 1], c=colours, s=3 + 17 * many, alpha=0.45 + 0.35 * many,
        linewidths=0, rasterized=True,
    )  # fmt: skip
    title = f"{len(z):,} pictures in the latent plane" + ("" if labels is None else ", by class")
    if show_prior:
        ax.add_patch(_prior_circle())
        title += "\ndashed: holds 95 % of the prior N(0, I)"
    ax.set_title(title, fontsize=NORMAL, color=INK)
    ax.set_aspect("equal", adjustable="datalim")
    ax.set_xlabel(unit_names[0])
    ax.set_ylabel(unit_names[1])
    style_axes(ax)
    if classes is not None:
        _name_classes(ax, z, classes, class_names)
    return figure_of(ax)


def plot_kl_per_unit(
    history_kl: ArrayLike, *, threshold: float = 0.01, ax: Axes | None = None
) -> Figure:
    """Draw what each latent unit says about a picture, epoch after epoch, as a heat map.

    Units are sorted by their last KL; those below the line have collapsed onto the prior. Colours
    grow with the square root, so that small divergences can be seen beside large ones.

    Args:
        history_kl: (epochs, units) KL divergence in nats, averaged over images.
        threshold: nats that make a unit active. A mean whose variance over images is 0.01, from
            which Burda et al. (2016) count, comes to about half of the default.
        ax: where to draw; a new figure if None.

    Raises:
        ValueError: if the array has another shape, a divergence is negative, or none is known.
    """
    values = np.asarray(history_kl, dtype=float)
    known = np.isfinite(values).any()
    if values.ndim != 2 or not known or np.nanmin(values, initial=0) < -1e-3:
        raise ValueError(
            f"history_kl of shape {values.shape}; pass (epochs, units) of nats, none below zero "
            "and not all of them unknown."
        )
    last = np.nan_to_num(values[-1])
    order = np.argsort(-last, kind="stable")
    num_epochs, num_units = values.shape
    active = int((last > threshold).sum())
    ax = given_or_new(ax, 6.4, min(max(3.2, 1.4 + 0.14 * num_units), 7.5))
    edges = np.arange(num_epochs + 1) + 0.5, np.arange(num_units + 1) - 0.5
    colour = PowerNorm(0.5, vmin=0, vmax=max(float(np.nanmax(values)), threshold))
    mesh = ax.pcolormesh(*edges, values.T[order], cmap="magma", norm=colour, rasterized=True)
    ax.set_ylim(num_units - 0.5, -0.5)
    ax.xaxis.set_major_locator(epoch_ticks())
    every = math.ceil(num_units / 40)
    ax.set_yticks(range(0, num_units, every), [str(unit) for unit in order[::every]])
    ax.set_xlabel("epoch")
    ax.set_ylabel("latent unit, by its last KL")
    style_axes(ax, grid=False)
    ax.tick_params(axis="y", labelsize=SMALL if num_units <= 20 else 7, length=0)
    _mark_active(ax, active, num_units)
    text = f"{active} of {num_units} units active (KL above {threshold:g} nats)"
    ax.set_title(text, fontsize=NORMAL, color=INK)
    bar = figure_of(ax).colorbar(mesh, ax=ax, ticks=MaxNLocator(6), pad=0.02)
    bar.outline.set_visible(False)
    bar.set_label("KL (nats per image)", size=NORMAL, color=INK)
    bar.ax.tick_params(labelsize=SMALL, colors=INK)
    return figure_of(ax)


def plot_bounds(
    ks: ArrayLike,
    bounds: ArrayLike,
    *,
    standard_errors: ArrayLike | None = None,
    exact: float | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw how the importance-weighted bound rises from the ELBO to log p(x) (Burda et al. 2016).

    Args:
        ks: numbers of importance samples, rising; 1 is the ELBO.
        bounds: nats per image, one per k.
        standard_errors: of the bounds; drawn as 95 % intervals.
        exact: log p(x) in nats per image, where it is known.
        ax: where to draw; a new figure if None.

    Raises:
        ValueError: if the arrays do not fit each other, or a k is below 1.
    """
    k, y = np.asarray(ks, dtype=float), np.asarray(bounds, dtype=float)
    error = np.zeros_like(y) if standard_errors is None else np.asarray(standard_errors, float)
    if k.ndim != 1 or not k.size or {y.shape, error.shape} != {k.shape} or k.min() < 1:
        raise ValueError(
            f"{k.size} ks, bounds of shape {y.shape}, standard_errors of shape {error.shape}; pass "
            "at least one k, none below 1, and as many bounds and errors."
        )
    ax = given_or_new(ax, 6.4, 4.0)
    if exact is not None:
        ax.axhline(exact, color=VERMILION, linewidth=1.8)
        _note(ax, float(k[0]), exact, (0, 5), f"log p(x) = {signed(exact, 2)}, exact")
    interval = None if standard_errors is None else 1.96 * error
    ax.errorbar(k, y, interval, color=BLUE, linewidth=2.2, marker="o", markersize=7, capsize=4)
    for place, value in zip(k, y, strict=True):
        name = "ELBO " if place == 1 else ""
        _note(ax, float(place), float(value), (7, -13), f"{name}{signed(value, 2)}")
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator(k.tolist()))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.margins(x=0.14, y=0.2)
    ax.set_xlabel("importance samples k")
    ax.set_ylabel("nats per image" + ("" if interval is None else ", with 95 % interval"))
    title = "ELBO ≤ bound of k samples ≤ log p(x): more samples, a tighter bound"
    ax.set_title(title, fontsize=NORMAL, color=INK)
    style_axes(ax)
    return figure_of(ax)


def _checked_points(
    z: ArrayLike, labels: ArrayLike | None, class_names: Sequence[str] | None
) -> tuple[NDArray[np.float64], NDArray[np.int64] | None]:
    points = np.asarray(z, dtype=float)
    if points.ndim != 2 or points.shape[1] != 2 or not len(points) or not np.isfinite(points).all():
        raise ValueError(
            f"z of shape {points.shape}; pass (n, 2) finite numbers: two latent units, "
            "for instance z[:, [0, 1]], or two principal components."
        )
    if labels is None:
        return points, None
    classes = np.asarray(labels)
    limit = math.inf if class_names is None else len(class_names)
    whole = np.issubdtype(classes.dtype, np.integer)
    if (
        classes.shape != points.shape[:1]
        or not whole
        or not 0 <= classes.min() <= classes.max() < limit
    ):
        raise ValueError(
            f"labels of shape {classes.shape} and {classes.dtype} for {len(points)} points and "
            f"{'no' if class_names is None else len(class_names)} class_names; pass one integer "
            "per point, from 0, and a name for each class."
        )
    return points, classes.astype(np.int64)


def _ten_colours() -> list[tuple[float, float, float]]:
    """Petroff's ten, found by a search for colours that any colour vision can tell apart."""
    return [to_rgb(colour) for colour in color_sequences["petroff10"]]


def _prior_circle() -> Circle:
    return Circle(
        (0, 0), PRIOR_RADIUS, fill=False, edgecolor=INK, linewidth=1.2, linestyle=(0, (4, 3))
    )


def _name_classes(
    ax: Axes, z: NDArray[np.float64], classes: NDArray[np.int64], names: Sequence[str] | None
) -> None:
    """Write each class's name at the median of its points, moved apart where names would meet."""
    found = np.unique(classes)
    places = np.array([np.median(z[classes == c], axis=0) for c in found])
    written = [shorten(str(c) if names is None else names[c], 18) for c in found]
    extent = max(np.ptp(ax.get_xlim()), np.ptp(ax.get_ylim()))
    widths = extent * (0.03 + 0.017 * np.array([len(name) for name in written]))
    for _ in range(200):
        places = _push_apart(places, widths, 0.052 * extent)
    texts = []
    for place, name, c in zip(places, written, found, strict=True):
        colour = _ten_colours()[c % 10]
        ink = "white" if np.dot(to_rgb(colour), (0.3, 0.59, 0.11)) < 0.5 else "black"
        box = {"boxstyle": "round,pad=0.2", "facecolor": colour, "edgecolor": "white"}
        text = ax.text(place[0], place[1], name, ha="center", va="center", color=ink, bbox=box)
        text.set(fontsize=NORMAL, weight="bold")
        texts.append(text)
    as_data(texts)


def _push_apart(
    places: NDArray[np.float64], widths: NDArray[np.float64], height: float
) -> NDArray[np.float64]:
    """Move the names that overlap a little up and down."""
    moved = places.copy()
    for i, j in zip(*np.triu_indices(len(places), 1), strict=True):
        apart = np.abs(places[i] - places[j])
        if apart[0] < (widths[i] + widths[j]) / 2 and apart[1] < height:
            step = 0.25 * (height - apart[1]) + 0.01 * height
            upper, lower = (i, j) if places[i, 1] >= places[j, 1] else (j, i)
            moved[upper, 1] += step
            moved[lower, 1] -= step
    return moved


def _mark_active(ax: Axes, active: int, num_units: int) -> None:
    """Draw the line between units that say something and units that do not."""
    if 0 < active < num_units:
        ax.axhline(active - 0.5, color="white", linewidth=1.6, linestyle=(0, (4, 3)))
        ax.annotate(
            "inactive", (0.99, active - 0.5), (0, -4), ax.get_yaxis_transform(), "offset points",
            color="white", fontsize=SMALL, ha="right", va="top",
        )  # fmt: skip


def _note(ax: Axes, x: float, y: float, offset: tuple[float, float], text: str) -> None:
    ax.annotate(text, (x, y), offset, textcoords="offset points", color=INK, fontsize=SMALL)
