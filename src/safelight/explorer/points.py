"""What the page shows besides the decoder: training pictures, axes, ranges, draws of the prior.

Everything here is about the latents that the decoder takes; of two stochastic layers these are the
first one's, and the second one's only shape the prior from which samples are drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from keras import ops
from numpy.typing import NDArray

from safelight.datasets import ImageDataset
from safelight.generative import pictures, records
from safelight.runs import Run
from safelight.vae import experiment
from safelight.vae.latent_paths import prior_quantiles
from safelight.vae.models import VAE
from safelight.vae.objectives import kl_per_unit
from safelight.vae.priors import StandardNormal
from safelight.vae.probes import choose

Progress = Callable[[int, int], None]

NUM_DRAWS = 3_000
# Of a normal prior these are the places of -3.3 and +3.3.
_ENDS = (0.0005, 0.5, 0.9995)


@dataclass(frozen=True, eq=False)
class Points:
    """Training pictures and where they lie.

    Attributes:
        images: `(n, height, width, channels)` uint8, as they are in the data set.
        means: `(n, visible_dim)` float32, latent means.
        labels: `(n,)` integers, or `None` without classes.
        kl: `(visible_dim,)` nats that each unit holds on average over them, against N(0, 1).
    """

    images: NDArray[np.uint8]
    means: NDArray[np.float32]
    labels: NDArray[np.int64] | None
    kl: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Direction:
    """An axis that the plane can have.

    Attributes:
        name: What it is called.
        axis: `(visible_dim,)`, of length one.
        middle: `(visible_dim,)`, where its numbers begin.
    """

    name: str
    axis: NDArray[np.float64]
    middle: NDArray[np.float64]


def find_points(
    run: Run,
    model: VAE,
    dataset: ImageDataset,
    num_points: int,
    *,
    progress: Progress | None = None,
) -> Points:
    """Encodes some of the pictures that a run learned from.

    Args:
        run: Trained.
        model: Its model.
        dataset: The data set it was trained on.
        num_points: Pictures at most, drawn by the run's seed.
        progress: Called with (done, total) while pictures are read.

    Raises:
        ValueError: The run's training pictures are not in the data set, or a conditional model's
            classes are others.
    """
    config = experiment.settings_of(run)
    part = records.find_part(run, dataset, "train")
    part = part.subset(choose(len(part), num_points, seed=config.seed))
    names = class_names(run)
    if names:
        pictures.check_classes(part, run, names)
    height, width, channels = model.image_shape
    found = pictures.load_images(part, (height, width), channels=channels, progress=progress)
    images = found.images
    labels = part.labels if names else None
    told = labels if model.num_classes else None
    mean, log_variance = model.encode(experiment.learned_part(images, config), told)
    seen = slice(model.visible_dim)
    posterior = (ops.convert_to_tensor(each[:, seen]) for each in (mean, log_variance))
    kl = ops.convert_to_numpy(kl_per_unit(*posterior))
    return Points(images, mean[:, seen], labels, kl.mean(axis=0, dtype="float64"))


def class_names(run: Run) -> list[str]:
    """The classes of a run's pictures; none where it was not told of at least two."""
    names = [str(name) for name in run.config["dataset"]["class_names"]]
    return names if len(names) > 1 else []


def find_directions(shown: Points, *, conditional: bool = False) -> list[Direction]:
    """Planes on which more is to be seen than on two units: at most four axes.

    The first two principal axes of the classes' mean latents, where there are three classes or
    more, and those of all latent means; none with fewer than three units, which a plane shows.

    Args:
        shown: At least three pictures.
        conditional: Whether the model is told the class, which its latents need not know then:
            there are no axes between classes.
    """
    means, labels = shown.means.astype("float64"), shown.labels
    if means.shape[1] < 3 or len(means) < 3:
        return []
    found = []
    if labels is not None and len(np.unique(labels)) > 2 and not conditional:
        classes = np.stack([means[labels == label].mean(axis=0) for label in np.unique(labels)])
        found = _principal(classes, "class axis")
    return found + _principal(means, "principal axis")


def _principal(rows: NDArray[np.float64], name: str) -> list[Direction]:
    middle = rows.mean(axis=0)
    _, scales, axes = np.linalg.svd(rows - middle, full_matrices=False)
    shares = scales**2 / max((scales**2).sum(), np.finfo(float).tiny)
    # An axis has no sign of its own: its largest number is to be positive on every machine.
    axes *= np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, None]
    return [
        Direction(f"{name} {i + 1} ({100 * shares[i]:.0f} %)", axes[i], middle) for i in range(2)
    ]


def draw_from_prior(model: VAE, *, seed: int, num: int = NUM_DRAWS) -> NDArray[np.float32] | None:
    """Latents from a learned prior, which a browser does not know; `None` for N(0, 1).

    Args:
        model: As trained.
        seed: Of the draws.
        num: How many.

    Returns:
        `(num, visible_dim)`. Of two layers the first one's, each given a draw of the second.
    """
    if isinstance(model.prior, StandardNormal):
        return None
    drawn = ops.convert_to_numpy(model.prior.sample((num, model.latent_dim), seed))
    return drawn[:, : model.visible_dim].astype("float32")


def ranges(model: VAE, means: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Where each unit's slider begins, rests and ends, `(3, visible_dim)`.

    From the quantile 0.0005 of the prior over its median to 0.9995, further out where pictures lie
    there.

    Args:
        model: As trained.
        means: Latent means of pictures, `(n, visible_dim)`, or `None`.
    """
    places = prior_quantiles(model, _ENDS)[:, : model.visible_dim]
    if means is not None:
        places[0] = np.minimum(places[0], means.min(axis=0))
        places[2] = np.maximum(places[2], means.max(axis=0))
    return places.astype("float32")
