"""What a classifier says of pictures: from cached activations, or from the pictures alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import keras
import numpy as np
from scipy.special import softmax

from safelight.datasets import ImageDataset
from safelight.images import resize
from safelight.transfer import backbones, models
from safelight.transfer.augmentation import ViewMaker, turn
from safelight.transfer.config import TrainConfig
from safelight.transfer.feature_cache import FeatureCache
from safelight.transfer.features import BATCH_SIZE, FeatureExtractor, Progress
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
        return _logits(classifier, (dataset.read(i) for i in range(len(dataset))))
    extractor = FeatureExtractor(
        classifier, precision=config.precision, cache=cache, engine=config.engine
    )
    num_views = len(models.symmetries_of(classifier))
    features = extractor.extract(
        dataset,
        plan.kept_layers,
        views=ViewMaker(config.augmentation.exact),
        num_views=num_views,
        progress=progress,
    )
    tail = models.build_tail(classifier, plan.kept_layers, precision=extractor.precision)
    logits = []
    for start in range(0, len(dataset), BATCH_SIZE):
        chosen = np.arange(start, min(start + BATCH_SIZE, len(dataset)))
        by_view = []
        for view in range(num_views):
            rows = [features[layer].gather(chosen, view=view) for layer in plan.kept_layers]
            by_view.append(tail.predict_on_batch(rows if len(rows) > 1 else rows[0]))
        logits.append(np.mean(np.asarray(by_view, np.float64), axis=0))
    return np.concatenate(logits)


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


def predict(classifier: keras.Model, images: Iterable[np.ndarray]) -> np.ndarray:
    """Class probabilities of pictures of any sizes, through the joined model in float32.

    Args:
        classifier: From uint8 images to probabilities.
        images: Arrays `(height, width, 3)` uint8, sizes may differ; a generator is read batch by
            batch.

    Returns:
        `(number of images, num_classes)` float64.
    """
    return softmax(_logits(classifier, images), axis=1)


def _logits(classifier: keras.Model, images: Iterable[np.ndarray]) -> np.ndarray:
    entrance = backbones.find_resizing(classifier)
    whole = models.build_pixel_model(classifier)
    # One batch at a time, so that a folder of large pictures never lies in memory as a whole.
    resized = (resize(image, (entrance.height, entrance.width)) for image in images)
    logits = []
    while batch := list(itertools.islice(resized, BATCH_SIZE)):
        pixels = np.stack(batch)
        by_view = [
            whole.predict_on_batch(np.ascontiguousarray(turn(pixels, symmetry)))
            for symmetry in entrance.symmetries
        ]
        logits.append(np.mean(np.asarray(by_view, np.float64), axis=0))
    return np.concatenate(logits) if logits else np.zeros((0, classifier.output_shape[-1]))
