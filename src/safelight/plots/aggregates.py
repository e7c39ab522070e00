"""All pictures at once: where they lie against where samples come from, rate against distortion."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import ArrayLike, NDArray

from safelight.plots.style import (
    BLUE,
    INK,
    NORMAL,
    PALE,
    SMALL,
    VERMILION,
    Picture,
    as_data,
    figure_of,
    given_or_new,
    new_figure,
    signed,
    style_axes,
)

_SHARES = (0.9, 0.5)  # of the mass within a contour
_DASHES = (0, (4, 2))


def plot_aggregate(
    aggregate: ArrayLike,
    prior: ArrayLike,
    *,
    places: tuple[ArrayLike, ArrayLike],
    unit_names: tuple[str, str],
    marginals: Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike]],
) -> Picture:
    """Draw where all pictures lie in the latent space against where samples are drawn from.

    At the left two units together: the smallest regions that hold 50 and 90 % of the aggregate
    posterior q(z), filled, and of the prior p(z), dashed. What is dashed and not filled is where
    samples come from and no picture has ever been. At the right units by themselves.

    Args:
        aggregate: (m, n) density of q(z) over a plane, a row for each value of the second unit.
        prior: the same of p(z).
        places: (n,) values of the first unit and (m,) of the second, equally spaced.
        unit_names: of the two.
        marginals: title to (k,) values of a unit, its density under q, and under p.

    Raises:
        ValueError: if shapes do not fit, or a density is negative or nothing at all.
    """
    first, second = (np.asarray(along, dtype=float) for along in places)
    planes = [np.asarray(each, dtype=float) for each in (aggregate, prior)]
    shape = (len(second), len(first))
    if any(p.shape != shape or p.min() < 0 or not 0 < p.max() < math.inf for p in planes):
        raise ValueError(
            f"densities of shapes {[p.shape for p in planes]} over {shape[1]} and {shape[0]} "
            f"places: pass two of {shape}, not negative, and finite."
        )
    rows = max(1, math.ceil(len(marginals) / 3))
    figure = new_figure(5.4 + (6.3 if marginals else 0), 5.4)
    left, *right = figure.subfigures(1, 2 if marginals else 1, squeeze=False)[0]
    ax = left.subplots()
    _draw_plane(ax, (first, second), planes)
    ax.set_xlabel(unit_names[0])
    ax.set_ylabel(unit_names[1])
    style_axes(ax)
    if right:
        axes = right[0].subplots(rows, min(3, len(marginals)), squeeze=False).ravel()
        _draw_marginals(axes, marginals)
    handles = [
        Patch(color=BLUE, alpha=0.45, label="aggregate posterior q(z): all pictures"),
        Line2D([], [], color=VERMILION, linestyle=_DASHES, label="prior p(z): samples"),
    ]
    figure.legend(
        handles=handles, loc="outside upper center", ncols=2, frameon=False, fontsize=NORMAL,
        labelcolor=INK,
    )  # fmt: skip
    return figure


def plot_rate_distortion(
    rates: ArrayLike,
    distortions: ArrayLike,
    *,
    betas: Sequence[float],
    ax: Axes | None = None,
) -> Figure:
    """Draw what latents hold against what is lost without more, one model a point (Alemi 2018).

    Models on one of the diagonal lines have the same ELBO. Without latents a model is at the foot,
    with rate 0; one that copies every pixel is at the left.

    Args:
        rates: KL of q(z|x) from the prior, nats per image: value, low and high end, (n, 3).
        distortions: minus the log-likelihood, nats per image, (n, 3).
        betas: the weight of the KL divergence that each model was trained with, n.
        ax: where to draw; a new figure if None.

    Raises:
        ValueError: if the arrays do not fit each other, or hold no point.
    """
    rate, distortion = np.asarray(rates, dtype=float), np.asarray(distortions, dtype=float)
    if rate.shape != (len(betas), 3) or distortion.shape != rate.shape or not len(betas):
        raise ValueError(
            f"rates {rate.shape}, distortions {distortion.shape}, {len(betas)} betas: pass three "
            "numbers of each for every beta, and at least one beta."
        )
    ax = given_or_new(ax, 6.4, 5.0)
    order = np.argsort(rate[:, 0])
    x, y = distortion[order], rate[order]
    ax.plot(x[:, 0], y[:, 0], color=BLUE, linewidth=1.2, alpha=0.5, zorder=2)
    ax.errorbar(
        x[:, 0], y[:, 0], xerr=_reach(x), yerr=_reach(y), fmt="o", color=BLUE, markersize=7,
        capsize=3, linewidth=1.8, zorder=3,
    )  # fmt: skip
    _frame(ax, x, y)
    _draw_elbo_lines(ax)
    best = int(np.argmin(x[:, 0] + y[:, 0]))
    for i, beta in enumerate(np.asarray(betas, dtype=float)[order]):
        elbo = f", ELBO {signed(-(x[i, 0] + y[i, 0]))}" if i == best else ""
        text = ax.annotate(
            f"β = {beta:g}{elbo}", (x[i, 0], y[i, 0]), (9, 6), textcoords="offset points",
            color=INK, fontsize=NORMAL, weight="bold" if i == best else "normal", zorder=4,
        )  # fmt: skip
        text.set_bbox({"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1})
    ax.set_xlabel("distortion: −log p(x|z) (nats per image)")
    ax.set_ylabel("rate: KL of q(z|x) from the prior (nats per image)")
    title = "grey lines: the same ELBO, the better the farther down left"
    ax.set_title(title, fontsize=NORMAL, color=INK)
    style_axes(ax, grid=False)
    return figure_of(ax)


def _draw_plane(
    ax: Axes,
    places: tuple[NDArray[np.float64], NDArray[np.float64]],
    planes: Sequence[NDArray[np.float64]],
) -> None:
    aggregate, prior = planes
    levels = _levels(aggregate)
    if levels[0] < levels[1]:
        ax.contourf(*places, aggregate, [*levels, aggregate.max()], colors=BLUE, alpha=0.3)
        ax.contourf(*places, aggregate, [levels[1], aggregate.max()], colors=BLUE, alpha=0.35)
    if (lines := _levels(prior))[0] < lines[1]:
        ax.contour(*places, prior, lines, colors=VERMILION, linewidths=1.6, linestyles=[_DASHES])
    ax.set_aspect("equal", adjustable="datalim")
    shares = " and ".join(f"{100 * share:.0f} %" for share in sorted(_SHARES))
    ax.set_title(f"two units together: regions that hold {shares}", fontsize=NORMAL, color=INK)


def _levels(density: NDArray[np.float64]) -> list[float]:
    """Densities above which lie the shares of the mass, rising."""
    values = np.sort(density.ravel())[::-1]
    mass = np.cumsum(values)
    rows = np.searchsorted(mass, np.array(_SHARES) * mass[-1])
    return [float(values[row]) for row in rows]


def _draw_marginals(
    axes: NDArray[np.object_], marginals: Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike]]
) -> None:
    for ax, (name, curves) in zip(axes, marginals.items(), strict=False):
        places, aggregate, prior = (np.asarray(curve, dtype=float) for curve in curves)
        ax.fill_between(places, aggregate, color=BLUE, alpha=0.35, linewidth=0)
        ax.plot(places, aggregate, color=BLUE, linewidth=1.2)
        ax.plot(places, prior, color=VERMILION, linewidth=1.4, linestyle=_DASHES)
        as_data([ax.set_title(name, fontsize=SMALL, color=INK)])
        ax.set_ylim(0, None)
        style_axes(ax, grid=False)
        ax.spines["left"].set_visible(False)
        ax.tick_params(left=False, labelleft=False, labelsize=SMALL)
    for ax in axes[len(marginals) :]:
        ax.set_axis_off()


def _reach(ends: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far an interval reaches to both sides of its value, (2, n)."""
    return np.maximum(np.stack([ends[:, 0] - ends[:, 1], ends[:, 2] - ends[:, 0]]), 0)


def _frame(ax: Axes, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    """Room for the names at the right of the points."""
    for values, limit, more in ((x, ax.set_xlim, 0.35), (y, ax.set_ylim, 0.14)):
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        span = max(high - low, 0.02 * abs(high), 1e-3)
        limit(low - 0.12 * span, high + more * span)


def _draw_elbo_lines(ax: Axes) -> None:
    """Lines along which rate and distortion have the same sum, and the ELBO at their lower ends."""
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    step = _round_step((right + high - left - low) / 9)
    for total in np.arange(math.ceil((left + low) / step) * step, right + high, step):
        ax.plot([left, right], [total - left, total - right], color=PALE, linewidth=0.9, zorder=1)
        if left < total - low < right - 0.04 * (right - left):
            ax.annotate(
                signed(-total, 0 if step >= 1 else 2), (total - low, low), (2, 3),
                textcoords="offset points", color="#777777", fontsize=SMALL,
            )  # fmt: skip
    ax.set_xlim(left, right)
    ax.set_ylim(low, high)


def _round_step(wanted: float) -> float:
    """The next of 1, 2, 5, 10, ... times a power of ten."""
    power = 10.0 ** math.floor(math.log10(wanted))
    return next(power * step for step in (1, 2, 5, 10) if power * step >= wanted)
