"""Random changes of a picture that leave its label true, from Keras' own layers.

Two uses of the same layers. Where the trunk is frozen, an image has a few numbered *views*, each a
function of its content, the number and the settings alone, so that the trunk's activations for it
can be kept (`ViewMaker`). Where it is not, every batch is changed afresh (`BatchAugmenter`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from typing import Any

import keras
import numpy as np

from safelight.environment import describe_keras
from safelight.transfer.config import Augmentation


def build_augmentation(augmentation: Augmentation) -> list[keras.layers.Layer]:
    """The Keras layers for it, in the order flip, rotation, zoom, translation, contrast.

    Quarter turns are not among them, Keras has no layer for these. Every layer has a seed generator
    of its own in `layer.generator`. Layers take float images `(batch, height, width, 3)`, values 0
    to 255, and return the same shape; edges are reflected.
    """
    a, layers = augmentation, keras.layers
    pipeline: list[keras.layers.Layer] = []
    # Two layers: Keras' own "horizontal_and_vertical" draws once and does both or neither.
    if a.horizontal_flip:
        pipeline.append(layers.RandomFlip("horizontal", seed=1, dtype="float32"))
    if a.vertical_flip:
        pipeline.append(layers.RandomFlip("vertical", seed=6, dtype="float32"))
    if a.rotation:
        pipeline.append(layers.RandomRotation(a.rotation, seed=2, dtype="float32"))
    if a.zoom:
        pipeline.append(layers.RandomZoom(a.zoom, seed=3, dtype="float32"))
    if a.translation:
        shift = (a.translation, a.translation)
        pipeline.append(layers.RandomTranslation(*shift, seed=4, dtype="float32"))
    if a.contrast:
        pipeline.append(layers.RandomContrast(a.contrast, seed=5, dtype="float32"))
    return pipeline


def turn(images: np.ndarray, symmetry: int) -> np.ndarray:
    """Images `(..., height, width, channels)` under one of `Augmentation.symmetries`.

    Quarter turns exchange height and width.
    """
    turned = np.rot90(images, symmetry & 3, axes=(-3, -2))
    return turned[..., ::-1, :] if symmetry & 4 else turned


class BatchAugmenter:
    """Changes each image of a batch differently; the same `key` gives the same changes.

    Args:
        augmentation: What may happen.

    The random layers hold state, so one call at a time is let in: it may be used from many threads.
    """

    def __init__(self, augmentation: Augmentation) -> None:
        self._layers = build_augmentation(augmentation)
        self._turns = augmentation.quarter_turns
        self._lock = threading.Lock()
        self._apply = self._compiled()

    def _compiled(self) -> Any:
        def apply(images: Any) -> Any:
            for layer in self._layers:
                images = layer(images, training=True)
            return images

        if keras.backend.backend() != "tensorflow":
            return apply
        import tensorflow as tf

        # As one graph a picture takes 6 ms instead of 28 ms; any batch size shares the one trace.
        traced = tf.autograph.experimental.do_not_convert(apply)
        return tf.function(traced, reduce_retracing=True)

    def __call__(self, images: np.ndarray, key: tuple[int, ...]) -> np.ndarray:
        """The changed images.

        Args:
            images: `(batch, height, width, 3)` float32, 0 to 255.
            key: Integers that name this draw, such as `(seed, epoch, batch)`.

        Returns:
            float32 of the same shape, clipped to 0 to 255.

        Raises:
            ValueError: Quarter turns of pictures that are not square.
        """
        if self._turns:
            images = self._turn(images, key)
        if not self._layers:
            return images
        words = np.random.SeedSequence(key).generate_state(2 * len(self._layers)).reshape(-1, 2)
        with self._lock:
            for layer, state in zip(self._layers, words, strict=True):
                layer.generator.state.assign(state.astype(layer.generator.state.dtype))
            changed = keras.ops.convert_to_numpy(self._apply(keras.ops.convert_to_tensor(images)))
        return np.clip(changed, 0.0, 255.0)

    def _turn(self, images: np.ndarray, key: tuple[int, ...]) -> np.ndarray:
        if images.shape[1] != images.shape[2]:
            raise ValueError(
                f"quarter_turns with pictures of {images.shape[1]} x {images.shape[2]} pixels: "
                "expected square ones."
            )
        draws = np.random.default_rng([*key, 90]).integers(0, 4, len(images))
        return np.stack([turn(image, draw) for image, draw in zip(images, draws, strict=True)])


class ViewMaker:
    """Numbered views of an image, each the same whenever and wherever it is asked for.

    View 0 is the image itself. View k > 0 depends on the image's content digest, k, the
    augmentation and the seed, and, but for flips and quarter turns, on the random numbers of Keras
    and its backend: not on its neighbours in the batch, not on the order. So a view's activations
    can be kept, and an extraction that was interrupted goes on with the same views.

    Flips and quarter turns are dealt out in turn, not drawn: with `horizontal_flip` every odd view
    is mirrored, with both flips four views hold all four mirrors, with quarter turns eight views
    all eight. A few draws would often repeat one. Without any other change a view is such a
    symmetry and nothing else, and its activations serve training and test alike.

    Args:
        augmentation: What may happen.
        seed: Another seed gives other views.
    """

    def __init__(self, augmentation: Augmentation, *, seed: int = 0) -> None:
        upright = dataclasses.replace(
            augmentation, horizontal_flip=False, vertical_flip=False, quarter_turns=False
        )
        self._augment = BatchAugmenter(upright)
        self.augmentation, self.seed = augmentation, seed

    def __call__(self, image: np.ndarray, digest: str, view: int) -> np.ndarray:
        """View `view` of one image.

        Args:
            image: `(height, width, 3)` float32, 0 to 255.
            digest: SHA-256 hex digest of its content.
            view: 0 for the image itself.
        """
        if view == 0:
            return image
        words = hashlib.sha256(digest.encode()).digest()[:16]
        key = (self.seed, view, *np.frombuffer(words, "<u4").tolist())
        return self._augment(turn(image, self._symmetry(view))[None], key)[0]

    def _symmetry(self, view: int) -> int:
        symmetries = self.augmentation.symmetries
        return symmetries[view % len(symmetries)]

    def describe(self, view: int) -> dict[str, Any]:
        """What view `view` depends on besides the image: part of the key of its activations."""
        if view == 0:
            return {"view": 0}
        if self.augmentation.is_exact:
            return {"view": "exact", "symmetry": self._symmetry(view)}
        settings = dataclasses.asdict(self.augmentation)
        # The backends' generators differ, whichever engine computes the activations.
        by = {"drawn by": describe_keras()}
        return {"view": view, "seed": self.seed, "flips": "dealt", **by, **settings}
