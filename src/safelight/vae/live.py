"""Looking on while a model is trained: in a notebook as it goes, and afterwards as a film."""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safelight import plots
from safelight.files import StrPath
from safelight.plots.latents import PRIOR_RADIUS
from safelight.vae.moments import Moment
from safelight.vae.planes import Plane
from safelight.vae.priors import StandardNormal

MAX_FRAMES = 160
_NUM_POINTS, _NUM_SCORED = 2000, 500
_NUM_PAIRS, _NUM_SAMPLES, _NUM_ROWS = 10, 30, 3


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
    """What a training looked like.

    Attributes:
        epochs: Done, in parts of one too.
        seconds: Since the training began.
        elbo: Of the first 500 of the pictures that are watched, nats per image.
        standard_prior: Whether the model's prior is N(0, I), not a learned one.
        means: `(n, latent_dim)` float16, where they all lie.
        reconstructions: uint8 `(10, height, width, channels)`, of the first ten.
        samples: uint8 `(3, 10, height, width, channels)`, always of the same noise.
    """

    epochs: float
    seconds: float
    elbo: float
    standard_prior: bool
    means: np.ndarray
    reconstructions: np.ndarray
    samples: np.ndarray


class _Share:
    """Says when something is due again that may take a share of the time, and no more.

    The first time does not count: much is loaded and compiled then that the next ones find there.
    """

    def __init__(self, share: float) -> None:
        self._share, self._next = share, -math.inf

    def spend(self, act: Callable[[], Any], *, due: bool = False) -> None:
        """Acts, if it is time."""
        started = time.perf_counter()
        if started < self._next and not due:
            return
        act()
        now = time.perf_counter()
        first = self._next == -math.inf
        self._next = now + (0.0 if first else (now - started) * (1 / self._share - 1))


class LiveView:
    """Shows a training while it runs: where pictures lie, what comes back of them, samples, ELBO.

        view = vae.LiveView(test_images, test_labels)
        vae.train(model, images, config=config, callback=view)
        view.save_film("latent_space.gif")

    Args:
        images: uint8 `(n, height, width, channels)` to look at, the first 2,000 of them; best such
            that the model does not learn from.
        labels: `(n,)` integers. They colour the points; a conditional model needs them.
        class_names: A name per class.
        show: Whether to draw in the cell of the notebook; `None`: where there is a notebook.
        share: Of the time for drawing there, at most; keeping frames may take half as much.
        seed: Of the samples.

    Attributes:
        frames: Kept so far, at most 160: if there are more, every second one is dropped.

    Raises:
        ValueError: No images, a share outside of (0, 1), or labels that do not fit.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray | None = None,
        *,
        class_names: Sequence[str] | None = None,
        show: bool | None = None,
        share: float = 0.15,
        seed: int = 0,
    ) -> None:
        fitting = labels is None or len(labels) == len(images)
        if not len(images) or not 0 < share < 1 or not fitting:
            raise ValueError(
                f"{len(images)} images, {'no' if labels is None else len(labels)} labels, share "
                f"{share}: expected at least one image, a label for each or none, and a share "
                "between 0 and 1."
            )
        self.images = np.asarray(images[:_NUM_POINTS])
        self.labels = None if labels is None else np.asarray(labels[:_NUM_POINTS])
        self.class_names, self.seed = class_names, seed
        self.frames: list[Frame] = []
        self._shown = _in_notebook() if show is None else show
        self._drawing, self._keeping = _Share(share), _Share(share / 2)
        self._plane: Plane | None = None
        self._handle: Any = None

    def look(self, moment: Moment) -> None:
        """Keeps and draws the moment, unless it is too early for either."""
        due = moment.finished or not moment.epochs
        self._keeping.spend(lambda: self._keep(moment), due=due)
        if self._shown and self.frames:
            self._drawing.spend(self._display, due=due)

    def figure(self, frame: int = -1) -> plots.Picture:
        """A frame as a picture, on the scales of the whole film and in its last frame's plane.

        Raises:
            ValueError: There is none yet.
        """
        return self._draw(range(len(self.frames))[frame], *self._last_plane())

    def save_film(self, path: StrPath, *, frames_per_second: float | None = None) -> Path:
        """Writes the frames as a moving picture, in the plane in which the last one varies most.

        Args:
            path: `.gif`, `.webp`, or `.png` for an animated PNG.
            frames_per_second: The last one stays for two seconds. By default what lets the film
                last eight seconds, from 4 to 12.

        Returns:
            The path.

        Raises:
            ValueError: There is no frame yet, or the file has another ending.
        """
        plane, limits = self._last_plane()
        return plots.save_film(
            lambda i: self._draw(i, plane, limits),
            len(self.frames),
            path,
            frames_per_second=frames_per_second or min(12, max(4, len(self.frames) / 8)),
        )

    def _last_plane(self) -> tuple[Plane, NDArray[np.float64]]:
        """The plane in which the last frame varies most, and where all frames lie in it."""
        if not self.frames:
            raise ValueError("no frame was kept yet: train with `callback=` this view first.")
        plane = Plane.of(self.frames[-1].means)
        return plane, _limits(plane, self.frames)

    def _keep(self, moment: Moment) -> None:
        frame = _frame_of(moment, self.images, self.labels, self.seed)
        # A training that diverges ends with a message of its own.
        if math.isfinite(frame.elbo) and np.isfinite(frame.means).all():
            self.frames.append(frame)
        if len(self.frames) > MAX_FRAMES:
            last = self.frames[-1]
            self.frames = [*self.frames[:-1:2], last]

    def _draw(self, index: int, plane: Plane, limits: NDArray[np.float64]) -> plots.Picture:
        frame = self.frames[index]
        shown = self.images[: len(frame.reconstructions)]
        seconds, elbos = np.array([(f.seconds, f.elbo) for f in self.frames]).T
        return plots.plot_training_moment(
            plane.place(frame.means),
            self.labels,
            pictures={
                "pictures, and below them what comes back": np.stack(
                    [shown, frame.reconstructions]
                ),
                "samples, of the same noise all along": frame.samples,
            },
            curve=(seconds, elbos, index),
            limits=limits,
            title=f"{len(frame.means):,} pictures after {_count(frame.epochs)} epochs, "
            f"{frame.seconds:.0f} s",
            scatter={
                "class_names": self.class_names,
                "unit_names": plane.names,
                "show_prior": plane.whole and frame.standard_prior,
            },
        )

    def _display(self) -> None:
        """Draws the newest frame into the cell, in a plane that does not jump."""
        plane = Plane.of(self.frames[-1].means)
        self._plane = plane.turned_like(self._plane) if self._plane else plane
        limits = _limits(self._plane, self.frames[-1:])
        self._handle = _show(self._draw(len(self.frames) - 1, self._plane, limits), self._handle)


def _frame_of(moment: Moment, images: np.ndarray, labels: np.ndarray | None, seed: int) -> Frame:
    model = moment.load()
    told = labels if model.num_classes else None
    asked = np.arange(_NUM_SAMPLES) % model.num_classes if model.num_classes else None
    few = None if told is None else told[:_NUM_SCORED]
    elbo = model.elbo(images[:_NUM_SCORED], few, seed=seed)["elbo"].mean()
    returned = model.reconstruct(images[:_NUM_PAIRS], None if told is None else told[:_NUM_PAIRS])
    samples = model.sample(_NUM_SAMPLES, labels=asked, seed=seed)
    return Frame(
        epochs=moment.epochs,
        seconds=moment.seconds,
        elbo=float(elbo),
        standard_prior=isinstance(model.prior, StandardNormal),
        means=model.encode(images, told)[0].astype("float16"),
        reconstructions=_bytes(returned),
        samples=_bytes(samples.reshape(_NUM_ROWS, -1, *samples.shape[1:])),
    )


def _count(epochs: float) -> str:
    return f"{epochs:.1f}" if epochs >= 1 else f"{epochs:.2f}"


def _bytes(pictures: np.ndarray) -> np.ndarray:
    return np.rint(255 * np.clip(pictures, 0, 1)).astype("uint8")


def _limits(plane: Plane, frames: Sequence[Frame]) -> NDArray[np.float64]:
    """A square `(2, 2)`, from and to of both axes, that holds nearly all points of the frames."""
    points = np.concatenate([plane.place(frame.means) for frame in frames])
    low, high = np.quantile(points, (0.001, 0.999), axis=0)
    if plane.whole and frames[-1].standard_prior:  # and the circle that holds 95 % of the prior
        low, high = np.minimum(low, -PRIOR_RADIUS), np.maximum(high, PRIOR_RADIUS)
    middle, half = (low + high) / 2, 0.53 * max(float((high - low).max()), 1e-3)
    return np.stack([middle - half, middle + half], axis=1)


def _in_notebook() -> bool:
    """Whether this runs in a kernel that shows pictures; a terminal's IPython does not."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return hasattr(shell, "kernel")


def _show(figure: plots.Picture, handle: Any) -> Any:
    """Shows a figure in the cell, in place of the one before; returns the place."""
    from IPython.display import display

    if handle is None:
        return display(figure, display_id=True)
    handle.update(figure)
    return handle
