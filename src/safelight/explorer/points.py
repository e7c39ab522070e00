"""What the page shows besides the decoder: training pictures, the axes of a plane, ranges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from keras import ops
from numpy.typing import NDArray

from safelight.datasets import ImageDataset
from safelight.explorer.subjects import Subject
from safelight.generative import pictures, records
from safelight.runs import Run
from safelight.vae.objectives import kl_per_unit
from safelight.vae.probes import choose

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Points:
    """Training pictures and where they lie.

    Attributes:
        images: `(n, height, width, channels)` uint8, as they are in the data set.
        means: `(n, num_units)` float32, latent means.
        labels: `(n,)` integers, or `None` without classes.
        kl: `(num_units,)` nats that each unit holds on average over them, against N(0, 1).
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
        axis: `(num_units,)`, of length one.
        middle: `(num_units,)`, where its numbers begin.
    """

    name: str
    axis: NDArray[np.float64]
    middle: NDArray[np.float64]


def find_points(
    subject: Subject,
    dataset: ImageDataset,
    num_points: int,
    *,
    progress: Progress | None = None,
) -> Points:
    """Encodes some of the pictures that a run learned from.

    Args:
        subject: A model that can encode.
        dataset: The data set it was trained on.
        num_points: Pictures at most, drawn by the run's seed.
        progress: Called with (done, total) while pictures are read.

    Raises:
        ValueError: The run's training pictures are not in the data set, or a conditional model's
            classes are others.
    """
    assert subject.encode is not None
    run = subject.run
    part = records.find_part(run, dataset, "train")
    part = part.subset(choose(len(part), num_points, seed=subject.seed))
    names = class_names(run)
    if names:
        pictures.check_classes(part, run, names)
    height, width, channels = subject.image_shape
    found = pictures.load_images(part, (height, width), channels=channels, progress=progress)
    labels = part.labels if names else None
    mean, log_variance = subject.encode(found.images, labels)
    kl = kl_per_unit(*(ops.convert_to_tensor(each) for each in (mean, log_variance)))
    kl = ops.convert_to_numpy(kl).mean(axis=0, dtype="float64")
    return Points(found.images, mean, labels, kl)


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


def ranges(subject: Subject, means: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Where each unit's slider begins, rests and ends, `(3, num_units)`.

    From the quantile 0.0005 of the prior over its median to 0.9995, further out where pictures lie
    there.

    Args:
        subject: The model.
        means: Latent means of pictures, `(n, num_units)`, or `None`.
    """
    places = subject.places.copy()
    if means is not None:
        places[0] = np.minimum(places[0], means.min(axis=0))
        places[2] = np.maximum(places[2], means.max(axis=0))
    return places.astype("float32")
