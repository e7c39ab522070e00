"""What is handed to a model that draws: pictures and labels, refused where they do not fit."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np


def check_images(images: Any, image_shape: tuple[int, ...]) -> Any:
    """Pictures as they were passed, an array at least.

    Args:
        images: `(num_images, *image_shape)` uint8.
        image_shape: `(height, width, channels)`.

    Raises:
        ValueError: Another dtype or shape.
    """
    images = images if hasattr(images, "dtype") else np.asarray(images)
    dtype, shape = keras.backend.standardize_dtype(images.dtype), tuple(images.shape)
    if dtype != "uint8" or len(shape) != 4 or shape[1:] != tuple(image_shape):
        raise ValueError(
            f"images have dtype {dtype} and shape {shape}: expected uint8, 0 to 255, and "
            f"{('num_images', *image_shape)}. Scale values in [0, 1] by 255 and round; "
            "resize other sizes, and give grey pictures an axis for their one channel."
        )
    return images


def check_labels(labels: Any, num: int, num_classes: int) -> np.ndarray:
    """Labels as an array of integers.

    Args:
        labels: `(num,)`, from 0 to `num_classes - 1`.
        num: How many there have to be.
        num_classes: Classes of the model.

    Raises:
        ValueError: Another dtype or shape, or a class that there is not.
    """
    labels = np.asarray(labels)
    known = labels.dtype.kind in "iu" and labels.shape == (num,)
    if not known or not np.all((labels >= 0) & (labels < num_classes)):
        values = f", from {labels.min()} to {labels.max()}" if known else ""
        raise ValueError(
            f"labels have dtype {labels.dtype} and shape {labels.shape}{values}: expected {num} "
            f"integers from 0 to {num_classes - 1}, one for each picture, as numbers of classes."
        )
    return labels
