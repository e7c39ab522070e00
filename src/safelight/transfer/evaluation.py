"""What a classifier is worth: numbers with intervals, and its answers for new pictures."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
from scipy.special import softmax

from safelight.datasets import ImageDataset
from safelight.images import resize
from safelight.metrics import ClassRow, Interval, classification_metrics, per_class_table
from safelight.transfer import backbones, models
from safelight.transfer.config import TrainConfig
from safelight.transfer.feature_cache import FeatureCache
from safelight.transfer.features import BATCH_SIZE, FeatureExtractor, Progress
from safelight.transfer.plan import Plan


@dataclasses.dataclass(frozen=True, eq=False)
class ClassificationReport:
    """Numbers on a test part; `metrics` and `per_class` carry intervals.

    Attributes:
        metrics: accuracy, loss (nats per image), balanced_accuracy, macro_f1, roc_auc.
        per_class: Precision, recall and F1 of each class.
        confusion_matrix: `(num_classes, num_classes)` counts, true classes in rows.
        class_names: In the order of the columns.
        labels: `(num_test,)`.
        probabilities: `(num_test, num_classes)`.
        files: A name per image.
    """

    metrics: dict[str, Interval]
    per_class: list[ClassRow]
    confusion_matrix: np.ndarray
    class_names: tuple[str, ...]
    labels: np.ndarray
    probabilities: np.ndarray
    files: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As it stands in `metrics.json`."""
        return {
            **{name: interval.to_dict() for name, interval in self.metrics.items()},
            "per_class": [row.to_dict() for row in self.per_class],
            "confusion_matrix": self.confusion_matrix.tolist(),
            "class_names": list(self.class_names),
            "num_test": len(self.labels),
        }


def predict_probabilities(
    classifier: keras.Model,
    dataset: ImageDataset,
    *,
    config: TrainConfig,
    cache: FeatureCache | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Class probabilities, the frozen part taken from the cache where it was computed before.

    Args:
        classifier: As trained; a float32 model from uint8 images to probabilities.
        dataset: The images.
        config: The settings of its training: they say where it was cut and in which precision it
            computes.
        cache: As in training.
        progress: Called with (done, total).

    Returns:
        `(len(dataset), num_classes)` float64, rows that sum to one.
    """
    plan = Plan.make(classifier, config)
    if plan.cut is None:
        return predict(classifier, (dataset.read(i) for i in range(len(dataset))))
    extractor = FeatureExtractor(classifier, precision=config.precision, cache=cache)
    features = extractor.extract(dataset, plan.kept_layers, progress=progress)
    tail = models.build_tail(classifier, plan.kept_layers, precision=extractor.precision)
    logits = []
    for start in range(0, len(dataset), BATCH_SIZE):
        chosen = np.arange(start, min(start + BATCH_SIZE, len(dataset)))
        rows = [features[layer].gather(chosen) for layer in plan.kept_layers]
        logits.append(tail.predict_on_batch(rows if len(rows) > 1 else rows[0]))
    return softmax(np.concatenate(logits).astype(np.float64), axis=1)


def evaluate(
    classifier: keras.Model,
    dataset: ImageDataset,
    *,
    config: TrainConfig,
    cache: FeatureCache | None = None,
    progress: Progress | None = None,
    groups: np.ndarray | None = None,
    confidence: float = 0.95,
) -> ClassificationReport:
    """Judges a classifier on pictures that it has not seen.

    Args:
        classifier: As trained.
        dataset: The test part, with the classes it was trained on.
        config: As in `predict_probabilities`.
        cache: As in training.
        progress: Called with (done, total).
        groups: `(n,)`; where given, intervals come from resampling whole groups.
        confidence: Coverage of the intervals.
    """
    probabilities = predict_probabilities(
        classifier, dataset, config=config, cache=cache, progress=progress
    )
    return report_on(
        dataset.labels,
        probabilities,
        class_names=dataset.class_names,
        files=dataset.files,
        groups=groups,
        confidence=confidence,
    )


def report_on(
    labels: np.ndarray,
    probabilities: np.ndarray,
    *,
    class_names: Sequence[str],
    files: Sequence[str] = (),
    groups: np.ndarray | None = None,
    confidence: float = 0.95,
) -> ClassificationReport:
    """The report for labels `(n,)` and probabilities `(n, num_classes)` that are already there."""
    from sklearn.metrics import confusion_matrix

    metrics = classification_metrics(labels, probabilities, confidence=confidence, groups=groups)
    table = per_class_table(
        labels, probabilities, class_names=class_names, confidence=confidence, groups=groups
    )
    matrix = confusion_matrix(labels, probabilities.argmax(1), labels=np.arange(len(class_names)))
    return ClassificationReport(
        metrics, table, matrix, tuple(class_names), labels, probabilities, tuple(files)
    )


def predict(classifier: keras.Model, images: Iterable[np.ndarray]) -> np.ndarray:
    """Class probabilities of pictures of any sizes, through the joined model in float32.

    Args:
        classifier: From uint8 images to probabilities.
        images: Arrays `(height, width, 3)` uint8, sizes may differ; a generator is read batch by
            batch.

    Returns:
        `(number of images, num_classes)` float64.
    """
    pixels = next(la for la in classifier.layers if isinstance(la, backbones.ImageResizing))
    size = (pixels.height, pixels.width)
    whole = models.build_pixel_model(classifier)
    # One batch at a time, so that a folder of large pictures never lies in memory as a whole.
    resized = (resize(image, size) for image in images)
    logits = []
    while batch := list(itertools.islice(resized, BATCH_SIZE)):
        logits.append(whole.predict_on_batch(np.stack(batch)))
    if not logits:
        return np.zeros((0, classifier.output_shape[-1]))
    return softmax(np.concatenate(logits).astype(np.float64), axis=1)
