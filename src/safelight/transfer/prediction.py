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
from safelight.transfer.feature_rows import Features
from safelight.transfer.features import (
    BATCH_SIZE,
    FeatureExtractor,
    FeatureLayer,
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
        return _join_logits(classifier, _from_pixels(classifier, _read_all(dataset)))
    extractor = FeatureExtractor(
        classifier, precision=config.precision, cache=cache, engine=config.engine
    )
    num_views = len(models.symmetries_of(classifier))
    kept = extractor.extract(
        dataset,
        plan.kept_layers,
        views=ViewMaker(config.augmentation.exact),
        num_views=num_views,
        progress=progress,
    )
    tail = models.build_tail(classifier, plan.kept_layers, precision=extractor.precision)
    return np.mean([_run(tail, kept, view) for view in range(num_views)], axis=0)


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
        return answer(classifier, _read_all(dataset)).features
    extractor = FeatureExtractor(
        classifier, precision=config.precision, cache=cache, engine=config.engine
    )
    kept = extractor.extract(dataset, plan.kept_layers)
    if not plan.fine_tunes:
        return np.concatenate([kept[layer].gather() for layer in plan.head_layers], axis=1)
    tail = models.build_tail(
        classifier, plan.kept_layers, precision=extractor.precision, below_head=True
    )
    return _run(tail, kept, 0).astype("float32")


def _run(tail: keras.Model, kept: dict[FeatureLayer, Features], view: int) -> np.ndarray:
    """The tail's output for one view of all pictures, float64."""
    found, number = [], next(iter(kept.values())).num_images
    for start in range(0, number, BATCH_SIZE):
        chosen = np.arange(start, min(start + BATCH_SIZE, number))
        rows = [features.gather(chosen, view=view) for features in kept.values()]
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
    logits = [np.zeros((0, classifier.output_shape[-1]))]
    features = [np.zeros((0, sum(models.head_widths(classifier))), "float32")]
    for some, seen in _from_pixels(classifier, images):
        logits.append(some)
        features.append(seen)
    return Answers(np.concatenate(logits), np.concatenate(features))


def predict(classifier: keras.Model, images: Iterable[np.ndarray]) -> np.ndarray:
    """Class probabilities of pictures, `(number of images, num_classes)` float64; as `answer`."""
    return softmax(_join_logits(classifier, _from_pixels(classifier, images)), axis=1)


def _join_logits(
    classifier: keras.Model, batches: Iterable[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """The logits of all batches; what the head saw is let go, as it may be larger than memory."""
    empty = np.zeros((0, classifier.output_shape[-1]))
    return np.concatenate([empty, *(logits for logits, _ in batches)])


def _from_pixels(
    classifier: keras.Model, images: Iterable[np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Logits, float64, and what the head sees, of one batch after the other."""
    return Predictor(classifier).look(images)


class Predictor:
    """A classifier that was made ready once and answers again and again: for a program that stays.

    It compiles when it answers first, and anew for each new size of a batch.

    Args:
        classifier: From uint8 images to probabilities; it is copied.
    """

    def __init__(self, classifier: keras.Model) -> None:
        self._entrance = backbones.find_resizing(classifier)
        self._whole = models.build_pixel_model(classifier, with_features=True)

    def answer(self, image: np.ndarray) -> Answers:
        """What the classifier says of one picture `(height, width, 3)` uint8, as `answer` does."""
        return Answers(*next(self.look([image])))

    def look(self, images: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Logits, float64, and what the head sees, float32, of one batch after the other."""
        size = (self._entrance.height, self._entrance.width)
        # One batch at a time, so that a folder of large pictures never lies in memory as a whole.
        resized = (resize(image, size) for image in images)
        while batch := list(itertools.islice(resized, BATCH_SIZE)):
            pixels = np.stack(batch)
            by_view = [
                self._whole.predict_on_batch(np.ascontiguousarray(turn(pixels, symmetry)))
                for symmetry in self._entrance.symmetries
            ]
            logits = np.mean([np.asarray(each[0], np.float64) for each in by_view], axis=0)
            yield logits, by_view[0][1]
