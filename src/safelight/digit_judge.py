"""A classifier of digits whose features judge generated ones.

Distances of digits in the features of an ImageNet network say little, and differ from paper to
paper; so generated digits are judged by a network that knows digits. It is small and trained from
scratch in about a minute, and what it is stands in its `protocol`, beside every number from it.

    judge = train_judge(train_images, train_labels)
    judge.features(samples)  # (num_images, 64)
"""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

NUM_FEATURES = 64
_EPOCHS, _BATCH_SIZE, _LEARNING_RATE = 4, 128, 2e-3
_ROWS = 1000


@dataclasses.dataclass(frozen=True)
class Judge:
    """A trained classifier.

    Attributes:
        model: From pictures in [0, 1] to `[features, logits]`.
        protocol: What it is and how it was trained, in a line.
    """

    model: keras.Model
    protocol: str

    def features(self, images: np.ndarray) -> NDArray[np.float32]:
        """The last hidden layer.

        Args:
            images: `(num_images, height, width, channels)`, uint8, or floats in [0, 1].

        Returns:
            `(num_images, 64)`.
        """
        return self._answers(images)[0]

    def classify(self, images: np.ndarray) -> NDArray[np.int64]:
        """The likeliest class of each picture; `images` as in `features`."""
        return self._answers(images)[1].argmax(1)

    def _answers(self, images: np.ndarray) -> list[NDArray[np.float32]]:
        """Features and logits, `(num_images, ...)` each.

        Raises:
            ValueError: Pictures of another shape or range.
        """
        images = np.asarray(images)
        shape = tuple(self.model.inputs[0].shape[1:])
        if images.ndim != 4 or images.shape[1:] != shape or not len(images):
            raise ValueError(f"images have shape {images.shape}: expected (num_images, *{shape}).")
        if images.dtype == np.uint8:
            images = images / np.float32(255)
        elif images.min() < 0 or images.max() > 1:
            raise ValueError(
                f"images have values from {images.min():.3g} to {images.max():.3g}: expected "
                "floats in [0, 1], or uint8."
            )
        parts = [
            [ops.convert_to_numpy(part) for part in self.model(images[start : start + _ROWS])]
            for start in range(0, len(images), _ROWS)
        ]
        return [np.concatenate(column) for column in zip(*parts, strict=True)]


def build_network(image_shape: tuple[int, int, int], num_classes: int, seed: int) -> keras.Model:
    """Two strided convolutions of 3 x 3 and 32 and 64 filters, then 64 features, then the classes.

    Args:
        image_shape: `(height, width, channels)`.
        num_classes: Number of labels.
        seed: Of the weights.
    """
    keras.utils.set_random_seed(seed)
    inputs = x = keras.Input(image_shape)
    for filters in (32, 64):
        x = layers.Conv2D(filters, 3, 2, "same", activation="relu")(x)
    x = layers.Dropout(0.25, seed=seed)(layers.Flatten()(x))
    features = layers.Dense(NUM_FEATURES, "relu", name="features")(x)
    logits = layers.Dense(num_classes, name="logits")(features)
    return keras.Model(inputs, [features, logits], name="judge")


def train_judge(images: np.ndarray, labels: np.ndarray, *, seed: int = 0) -> Judge:
    """Trains a judge of these classes.

    Args:
        images: `(num_images, height, width, channels)` uint8.
        labels: `(num_images,)` integers from 0.
        seed: Of weights, order and dropout.
    """
    num_classes = int(np.max(labels)) + 1
    network = build_network(tuple(images.shape[1:]), num_classes, seed)
    trained = keras.Model(network.inputs, network.outputs[1])
    steps = _EPOCHS * -(-len(images) // _BATCH_SIZE)
    rate = keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    trained.compile(keras.optimizers.Adam(rate), loss)
    trained.fit(images / np.float32(255), labels, batch_size=_BATCH_SIZE, epochs=_EPOCHS, verbose=0)
    said = (
        f"{NUM_FEATURES} features of a classifier with two strided convolutions, trained on "
        f"{len(images):,} pictures of {num_classes} classes for {_EPOCHS} epochs with seed {seed}"
    )
    return Judge(network, said)
