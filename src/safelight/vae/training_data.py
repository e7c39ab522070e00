"""What a training sees: pictures checked, binarised where they are to be, with their labels."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from safelight.generative import pictures
from safelight.generative.inputs import check_images
from safelight.vae.config import TrainConfig
from safelight.vae.models import VAE


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingData:
    """Pictures and labels as the training sees them.

    Attributes:
        images: `(n, height, width, channels)` uint8 to learn from.
        labels: `(n,)` integers of a conditional model.
        held_out: Those to watch, black and white where the model's are.
        held_out_labels: Theirs.
    """

    images: np.ndarray
    labels: np.ndarray | None
    held_out: np.ndarray | None
    held_out_labels: np.ndarray | None

    @classmethod
    def of(cls, model: VAE, images: Any, validation: Any, config: TrainConfig) -> TrainingData:
        """From what `train` is passed.

        Raises:
            ValueError: Images of another shape or dtype than the model's, or none.
        """
        found, labels = _pair(model, images)
        if config.binarization == "static":
            found = pictures.binarize(found, seed=config.seed)
        if validation is None:
            return cls(found, labels, None, None)
        held_out, held_out_labels = _pair(model, validation)
        if config.binarization == "static" or model.binarization == "dynamic":
            # Training and validation pictures must not share their draws.
            held_out = pictures.binarize(held_out, seed=config.seed + 1)
        return cls(found, labels, held_out, held_out_labels)

    def as_tuple(self) -> tuple[np.ndarray | None, ...]:
        """All of it, in this order."""
        return self.images, self.labels, self.held_out, self.held_out_labels


def _pair(model: VAE, data: Any) -> tuple[np.ndarray, np.ndarray | None]:
    images, labels = data if isinstance(data, tuple) else (data, None)
    images = np.asarray(check_images(images, model.image_shape))
    if not len(images):
        raise ValueError("no images were passed: expected at least one.")
    return images, model._check_labels(labels, len(images))
