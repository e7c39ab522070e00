"""What a network is fed with, epoch after epoch: cached activations, or pictures changed afresh.

Both are `keras.utils.PyDataset`s, so plain `fit` takes them on every backend. The order of an
epoch is a function of the seed and the epoch's number alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from safelight.datasets import ImageDataset
from safelight.images import resize
from safelight.transfer.augmentation import BatchAugmenter
from safelight.transfer.feature_rows import Features


class _Batches(keras.utils.PyDataset):
    """Order and targets; what an image becomes is the two classes' below."""

    def __init__(
        self, targets: np.ndarray, weights: np.ndarray | None, batch_size: int, seed: int | None
    ) -> None:
        super().__init__()
        self._targets, self._weights = targets, weights
        self._batch_size, self._seed, self._epoch = batch_size, seed, 0
        self._start_epoch()

    def _start_epoch(self) -> None:
        count = len(self._targets)
        if self._seed is None:
            self._order = np.arange(count)
        else:
            self._order = np.random.default_rng([self._seed, self._epoch]).permutation(count)

    def __len__(self) -> int:
        return math.ceil(len(self._targets) / self._batch_size)

    def on_epoch_end(self) -> None:
        self._epoch += 1
        self._start_epoch()

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        start = index * self._batch_size
        chosen = self._order[start : start + self._batch_size]
        inputs = self._inputs(chosen, index)
        if self._weights is None:
            return inputs, self._targets[chosen]
        return inputs, self._targets[chosen], self._weights[chosen]

    def _inputs(self, chosen: np.ndarray, index: int) -> Any:
        raise NotImplementedError


class FeatureBatches(_Batches):
    """Cached activations; while training, an image comes as one of its views, drawn every epoch.

    Args:
        features: Rows of the cut, or a sequence: those of each input of the tail.
        targets: `(num_images, num_classes)` probabilities or one-hot, float32.
        batch_size: Images.
        seed: For training; `None` gives the images themselves (view 0) in their order.
        weights: `(num_images,)` sample weights.
    """

    def __init__(
        self,
        features: Features | Sequence[Features],
        targets: np.ndarray,
        *,
        batch_size: int = 32,
        seed: int | None = None,
        weights: np.ndarray | None = None,
    ) -> None:
        self._features = [features] if isinstance(features, Features) else list(features)
        super().__init__(targets, weights, batch_size, seed)

    def _start_epoch(self) -> None:
        super()._start_epoch()
        self._views = np.zeros(len(self._targets), int)
        if self._seed is not None:
            generator = np.random.default_rng([self._seed, self._epoch, 1])
            self._views = generator.integers(0, self._features[0].num_views, len(self._targets))

    def _inputs(self, chosen: np.ndarray, index: int) -> Any:
        rows = [each.gather(chosen, view=self._views[chosen]) for each in self._features]
        return rows if len(rows) > 1 else rows[0]


class ImageBatches(_Batches):
    """Resized pictures, float32 `(batch, height, width, 3)`; changed afresh while training.

    Args:
        dataset: The images; decoded once if they fit (8-bit, resized pictures are kept as float32
            only while `keep_bytes` allows), else every epoch.
        image_size: Height and width in pixels.
        targets: As in `FeatureBatches`.
        batch_size: Images.
        seed: For training; `None` leaves pictures and order as they are.
        weights: `(num_images,)` sample weights.
        augmenter: What changes the pictures while training.
    """

    KEEP_BYTES = 2 * 2**30

    def __init__(
        self,
        dataset: ImageDataset,
        image_size: tuple[int, int],
        targets: np.ndarray,
        *,
        batch_size: int = 32,
        seed: int | None = None,
        weights: np.ndarray | None = None,
        augmenter: BatchAugmenter | None = None,
    ) -> None:
        self._dataset, self._image_size, self._augmenter = dataset, image_size, augmenter
        needed = len(dataset) * image_size[0] * image_size[1] * 12
        self._kept: dict[int, np.ndarray] | None = {} if needed <= self.KEEP_BYTES else None
        super().__init__(targets, weights, batch_size, seed)

    def _read(self, index: int) -> np.ndarray:
        if self._kept is not None and index in self._kept:
            return self._kept[index]
        image = resize(self._dataset.read(index, mode="RGB"), self._image_size)
        if self._kept is not None:
            self._kept[index] = image
        return image

    def _inputs(self, chosen: np.ndarray, index: int) -> np.ndarray:
        pixels = np.stack([self._read(int(i)) for i in chosen])
        if self._augmenter is None or self._seed is None:
            return pixels
        return self._augmenter(pixels, (self._seed, self._epoch, index))
