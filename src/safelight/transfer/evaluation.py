"""What a classifier is worth: numbers with intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from safelight.datasets import ImageDataset
from safelight.metrics import ClassRow, Interval, classification_metrics, per_class_table
from safelight.transfer.config import TrainConfig
from safelight.transfer.feature_cache import FeatureCache
from safelight.transfer.features import Progress
from safelight.transfer.prediction import predict_probabilities


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
