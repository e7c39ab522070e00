"""What changed over the epochs of a training."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from safelight.plots.style import (
    BLUE,
    INK,
    NORMAL,
    PALE,
    SMALL,
    VERMILION,
    epoch_ticks,
    new_figure,
    signed,
    style_axes,
)

_TOLD_APART = {"real_accuracy": "real, taken for real", "fake_accuracy": "generated, found out"}
_LOSSES = {"generator_loss": "generator", "discriminator_loss": "discriminator"}
_DIVERSITY = {"diversity": "diversity"}
_ELBO = {
    "elbo": "ELBO, the bound on log p(x)",
    "reconstruction": "reconstruction, log p(x|z)",
    "kl": "KL of q(z|x) from the prior",
}


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
    figure = new_figure(4.6 * len(panels), 3.4)
    best = _best_epoch(history, monitor)
    for ax, key in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw_curves(ax, history, key, best)
    return figure


def plot_elbo_history(history: Mapping[str, Sequence[float]]) -> Figure:
    """Draw the ELBO, and the two terms it is made of, over the epochs.

    The first epochs may be hundreds of nats away: where they would press the rest into a line,
    they are left outside the frame, and the title of the panel says so.

    Args:
        history: `elbo`, `reconstruction` and `kl`, and `val_elbo` and so on: nats per image, one
            number per epoch, NaN where there was none. `epoch` numbers them (from 1 if it is
            missing). Other keys are left out.

    Raises:
        ValueError: if none of the three is in it, or no epoch.
    """
    panels = [key for key in _ELBO if any(len(history.get(k, ())) for k in (key, f"val_{key}"))]
    if not panels:
        raise ValueError(
            f"history of {sorted(history)}: pass 'elbo', 'reconstruction' or 'kl' with an epoch."
        )
    figure = new_figure(4.3 * len(panels), 3.7)
    for ax, key in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw_curves(ax, history, key, None)
        outside = _frame_late_epochs(ax, [history.get(k, ()) for k in (key, f"val_{key}")])
        ax.set_title(f"{_ELBO[key]}\n{outside}", fontsize=NORMAL, color=INK)
        ax.set_ylabel("nats per image")
        _write_last(ax, history, key)
    for ax in figure.axes[1:]:
        ax.legend().remove()
    return figure


def plot_game_history(history: Mapping[str, Sequence[float]]) -> Figure:
    """Draw how a game went: who is found out, who pays, and how varied what is drawn is.

    Args:
        history: `real_accuracy`, `fake_accuracy` (fractions), `generator_loss`,
            `discriminator_loss` and `diversity`: one number per epoch, NaN where there was none.
            `epoch` numbers them (from 1 if it is missing). Other keys are left out.

    Raises:
        ValueError: if there is no epoch of these.
    """
    panels = [
        ("told apart by the discriminator", "pictures (%)", 100.0, _TOLD_APART),
        ("losses", "loss", 1.0, _LOSSES),
        ("difference of two generated pictures", "times that of two real ones", 1.0, _DIVERSITY),
    ]
    if not any(len(history.get(key, ())) for *_, lines in panels for key in lines):
        raise ValueError(f"history of {sorted(history)}: pass 'generator_loss' with an epoch.")
    figure = new_figure(4.3 * len(panels), 3.7)
    axes = figure.subplots(1, len(panels))
    for ax, (title, unit, scale, lines) in zip(axes, panels, strict=True):
        first, length = int(next(iter(history.get("epoch", ())), 1)), 1
        for (key, label), colour in zip(lines.items(), (BLUE, VERMILION), strict=False):
            values = scale * np.asarray(history.get(key, ()), dtype=float)
            known = np.flatnonzero(np.isfinite(values))
            marker = "o" if len(known) <= 3 else ""
            ax.plot(first + known, values[known], color=colour, lw=2.2, marker=marker, label=label)
            length = max(length, len(values))
        ax.set_xlim(first - 0.5, first + length - 0.5)
        ax.xaxis.set_major_locator(epoch_ticks())
        ax.set_xlabel("epoch")
        ax.set_ylabel(unit)
        ax.set_title(title, fontsize=NORMAL, color=INK)
        style_axes(ax)
        if len(lines) > 1:
            ax.legend(frameon=False, fontsize=NORMAL, labelcolor=INK)
    axes[0].axhline(50, color=PALE, lw=1, zorder=0)
    axes[0].set_ylim(0, 104)
    axes[2].axhline(1, color=PALE, lw=1, zorder=0)
    axes[2].set_ylim(bottom=0)
    return figure


def plot_learning_curve(
    sizes: ArrayLike,
    accuracies: ArrayLike,
    *,
    curve_sizes: ArrayLike,
    curve: ArrayLike,
    coverage: float,
    seen: tuple[float, float, float, float] | None = None,
) -> Figure:
    """Draw accuracy against the number of pictures learned from, and what it promises for more.

    Args:
        sizes: numbers of pictures that were tried, (s,).
        accuracies: fractions, (repetitions, s).
        curve_sizes: numbers of pictures of the curve, (m,), ascending.
        curve: middle, low and high end of its range, fractions, (m, 3).
        coverage: how often the range is to hold the truth, a fraction.
        seen: a number of pictures with the accuracy that a test part showed for it, and the ends
            of its interval.
    """
    sizes, tried = np.asarray(sizes, dtype=float), 100 * np.asarray(accuracies, dtype=float)
    where, (middle, low, high) = np.asarray(curve_sizes), 100 * np.asarray(curve, dtype=float).T
    figure = new_figure(6.4, 4)
    ax = figure.subplots()
    ax.fill_between(where, low, high, color=BLUE, alpha=0.16, lw=0, label=f"{coverage:.0%} range")
    measured = where <= sizes[-1]
    ax.plot(where[measured], middle[measured], color=BLUE, lw=2.2, label="fitted curve")
    ax.plot(where[~measured], middle[~measured], color=BLUE, lw=2.2, ls=(0, (4, 2)))
    rows = np.broadcast_to(sizes, tried.shape)
    ax.plot(rows.ravel(), tried.ravel(), "o", ms=4, color=PALE, label="one training")
    ax.plot(sizes, tried.mean(0), "o", ms=7, color=BLUE, label="mean of the trainings")
    if seen is not None:
        number, value, bottom, top = seen
        ends = [[100 * (value - bottom)], [100 * (top - value)]]
        ax.errorbar(
            [number], [100 * value], ends, fmt="D", ms=7, color=VERMILION, capsize=3,
            label="test part, 95 %",
        )  # fmt: skip
    ax.set_xscale("log", base=2)
    ticks = [*sizes, *([seen[0], 2 * seen[0]] if seen is not None else [])]
    ax.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks], rotation=45)
    ax.minorticks_off()
    ax.set_xlabel("labelled pictures to learn from")
    ax.set_ylabel("accuracy (%)")
    style_axes(ax)
    ax.legend(frameon=False, fontsize=SMALL, labelcolor=INK, loc="lower right")
    return figure


def _write_last(ax: Axes, history: Mapping[str, Sequence[float]], key: str) -> None:
    """Write the last number of validation, or else of training, at the end of its curve."""
    for name in (f"val_{key}", key):
        values = np.asarray(history.get(name, ()), dtype=float)
        known = np.flatnonzero(np.isfinite(values))
        if len(known):
            first, last = int(next(iter(history.get("epoch", ())), 1)), int(known[-1])
            ax.annotate(
                signed(values[last]), (first + last, values[last]), (6, 0),
                textcoords="offset points", annotation_clip=False,
                color=INK, fontsize=SMALL, va="center",
            )  # fmt: skip
            return


def _frame_late_epochs(ax: Axes, curves: Sequence[Sequence[float]]) -> str:
    """Frame what comes after the first tenth of the epochs, if the rest is far; say what is out."""
    values = [np.asarray(curve, dtype=float) for curve in curves]
    late = np.concatenate([v[math.ceil(len(v) / 10) if len(v) >= 5 else 0 :] for v in values])
    every, late = (array[np.isfinite(array)] for array in (np.concatenate(values), late))
    if len(late) == 0 or np.ptp(every) <= 2 * np.ptp(late):
        return ""
    middle, half = (late.min() + late.max()) / 2, max(0.58 * np.ptp(late), 0.5)
    low, high = middle - half, middle + half
    outside = every[(every < low) | (every > high)]
    ax.set_ylim(low, high)
    if len(outside) == 0:
        return ""
    farthest = outside[np.argmax(np.abs(outside - late.mean()))]
    return f"not shown: the first epochs, from {signed(farthest)}"


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
    for name, label, colour in ((key, "training", PALE), (f"val_{key}", "validation", BLUE)):
        values = scale * np.asarray(history.get(name, ()), dtype=float)
        epochs = first + np.arange(len(values))
        num_epochs = max(num_epochs, len(values))
        if len(values):
            known = np.isfinite(values)
            # Dots say which epochs were looked at; where they would touch, the line alone is shown.
            marker = "o" if known.sum() <= 3 or (known.sum() <= 40 and not known.all()) else ""
            look: dict[str, Any] = {"linewidth": 2.2, "marker": marker, "markersize": 5}
            ax.plot(epochs[known], values[known], color=colour, label=label, **look)
        if name.startswith("val_") and best is not None and best < len(values):
            mark: dict[str, Any] = {
                "markersize": 8,
                "clip_on": False,
                "label": f"best epoch: {first + best}",
            }
            ax.plot([first + best], [values[best]], "o", color=VERMILION, **mark)
    ax.set_xlim(first - 0.5, first + num_epochs - 0.5)
    ax.xaxis.set_major_locator(epoch_ticks())
    ax.set_xlabel("epoch")
    ax.set_ylabel(unit)
    style_axes(ax)
    ax.legend(frameon=False, fontsize=NORMAL, labelcolor=INK)
