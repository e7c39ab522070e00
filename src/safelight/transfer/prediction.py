"""What a classifier says of pictures: from cached activations, or from the pictures alone."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator

import keras
import numpy as np
from scipy.special import softmax

from safelight.datasets import ImageDataset
from safelight.images import resize
from safelight.transfer import backbones, models
from safelight.transfer.augmentation import ViewMaker, turn
from safelight.transfer.config import TrainConfig
from safelight.transfer.feature_cache import FeatureCache
from safelight.transfer.features import (
    BATCH_SIZE,
    FeatureExtractor,
    FeatureLayer,
    Features,
    Progress,
)
from safelight.transfer.plan import Plan


def predict_logits(
    classifier: keras.Model,
    dataset: ImageDataset,
    *,
    config: TrainConfig,
    cache: FeatureCache | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Logits, the frozen part taken from the cache where it was computed before.

    Args:
        classifier: As trained; a float32 model from uint8 images to probabilities.
        dataset: The images.
        config: The settings of its training: they say where it was cut and in which precision it
            computes.
        cache: As in training.
        progress: Called with (done, total).

    Returns:
        `(len(dataset), num_classes)` float64, the mean over the views that the classifier averages.
    """
    plan = Plan.make(classifier, config)
    if plan.cut is None:
        return _from_pixels(classifier, _read_all(dataset)).logits
    kept = _extract(
        classifier, dataset, config, cache, len(models.symmetries_of(classifier)), progress
    )
    tail = models.build_tail(classifier, plan.kept_layers, precision=kept.precision)
    return np.mean([_run(tail, kept, view) for view in range(kept.num_views)], axis=0)


def predict_features(
    classifier: keras.Model,
    dataset: ImageDataset,
    *,
    config: TrainConfig,
    cache: FeatureCache | None = None,
) -> np.ndarray:
    """What the head sees of each picture itself, from the cache as in `predict_logits`.

    Returns:
        `(len(dataset), num_features)` float32.
    """
    plan = Plan.make(classifier, config)
    if plan.cut is None:
        return _from_pixels(classifier, _read_all(dataset)).features
    kept = _extract(classifier, dataset, config, cache, 1, None)
    if not plan.fine_tunes:
        return np.concatenate([kept.rows[layer].gather() for layer in plan.head_layers], axis=1)
    tail = models.build_tail(
        classifier, plan.kept_layers, precision=kept.precision, below_head=True
    )
    return _run(tail, kept, 0).astype("float32")


@dataclasses.dataclass(frozen=True, eq=False)
class _Kept:
    """Activations of all pictures and views that a tail starts from."""

    rows: dict[FeatureLayer, Features]
    num_views: int
    precision: str


def _extract(
    classifier: keras.Model,
    dataset: ImageDataset,
    config: TrainConfig,
    cache: FeatureCache | None,
    num_views: int,
    progress: Progress | None,
) -> _Kept:
    extractor = FeatureExtractor(
        classifier, precision=config.precision, cache=cache, engine=config.engine
    )
    rows = extractor.extract(
        dataset,
        Plan.make(classifier, config).kept_layers,
        views=ViewMaker(config.augmentation.exact),
        num_views=num_views,
        progress=progress,
    )
    return _Kept(rows, num_views, extractor.precision)


def _run(tail: keras.Model, kept: _Kept, view: int) -> np.ndarray:
    """The tail's output for one view of all pictures, float64 for logits."""
    found, number = [], next(iter(kept.rows.values())).num_images
    for start in range(0, number, BATCH_SIZE):
        chosen = np.arange(start, min(start + BATCH_SIZE, number))
        rows = [features.gather(chosen, view=view) for features in kept.rows.values()]
        found.append(tail.predict_on_batch(rows if len(rows) > 1 else rows[0]))
    return np.concatenate(found).astype(np.float64)


def _read_all(dataset: ImageDataset) -> Iterator[np.ndarray]:
    return (dataset.read(i) for i in range(len(dataset)))


def predict_probabilities(
    classifier: keras.Model,
    dataset: ImageDataset,
    *,
    config: TrainConfig,
    cache: FeatureCache | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Class probabilities `(len(dataset), num_classes)`, float64, as in `predict_logits`."""
    logits = predict_logits(classifier, dataset, config=config, cache=cache, progress=progress)
    return softmax(logits, axis=1)


@dataclasses.dataclass(frozen=True, eq=False)
class Answers:
    """What a classifier says of pictures.

    Attributes:
        logits: `(n, num_classes)` float64, the mean over the views that it looks at.
        features: `(n, num_features)` float32, what its head sees of the picture itself.
    """

    logits: np.ndarray
    features: np.ndarray

    @property
    def probabilities(self) -> np.ndarray:
        """`(n, num_classes)` float64."""
        return softmax(self.logits, axis=1)


def answer(classifier: keras.Model, images: Iterable[np.ndarray]) -> Answers:
    """What a classifier says of pictures of any sizes, through the joined model in float32.

    Args:
        classifier: From uint8 images to probabilities.
        images: Arrays `(height, width, 3)` uint8, sizes may differ; a generator is read batch by
            batch.
    """
    return _from_pixels(classifier, images)


def predict(classifier: keras.Model, images: Iterable[np.ndarray]) -> np.ndarray:
    """Class probabilities of pictures, `(number of images, num_classes)` float64; as `answer`."""
    return answer(classifier, images).probabilities


def _from_pixels(classifier: keras.Model, images: Iterable[np.ndarray]) -> Answers:
    entrance = backbones.find_resizing(classifier)
    whole = models.build_pixel_model(classifier, with_features=True)
    # One batch at a time, so that a folder of large pictures never lies in memory as a whole.
    resized = (resize(image, (entrance.height, entrance.width)) for image in images)
    logits = [np.zeros((0, classifier.output_shape[-1]))]
    features = [np.zeros((0, whole.output_shape[1][-1]), "float32")]
    while batch := list(itertools.islice(resized, BATCH_SIZE)):
        pixels = np.stack(batch)
        by_view = [
            whole.predict_on_batch(np.ascontiguousarray(turn(pixels, symmetry)))
            for symmetry in entrance.symmetries
        ]
        logits.append(np.mean([np.asarray(each[0], np.float64) for each in by_view], axis=0))
        features.append(by_view[0][1])
    return Answers(np.concatenate(logits), np.concatenate(features))
