"""The same training on several random splits: what one split alone cannot tell.

Which pictures happen to be in the test part moves accuracy by a point or two. With the activations
of the frozen part in the cache another split costs a head, not a network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from safelight.comparison import SPLITS_METHOD, join_splits, mean_over_splits
from safelight.datasets import Splits
from safelight.metrics import brier_score, expected_calibration_error
from safelight.transfer.config import TrainConfig
from safelight.transfer.evaluation import ClassificationReport, evaluate
from safelight.transfer.feature_cache import FeatureCache
from safelight.transfer.fine_tuning import Report, silent
from safelight.transfer.training import EXTRACTING, train


def scores_of(judged: ClassificationReport) -> dict[str, float]:
    """The numbers of one split: those with intervals, and two on calibration."""
    return {
        **{name: interval.value for name, interval in judged.metrics.items()},
        "ece": expected_calibration_error(judged.labels, judged.probabilities),
        "brier": brier_score(judged.labels, judged.probabilities),
    }


def train_on_splits(
    splits: Sequence[Splits],
    config: TrainConfig,
    *,
    cache: FeatureCache | None = None,
    report: Report = silent,
    stage: str = "other splits",
) -> list[dict[str, float]]:
    """Trains and judges anew on each split; models are not kept.

    Views, order and folds have the same seed every time, so that the splits share activations.

    Args:
        splits: As from `datasets.split`, of one data set, with different seeds.
        config: What to train and how.
        cache: As in `training.train`.
        report: Told how many splits are done.
        stage: The name of it all in what is reported.

    Returns:
        For each split what `scores_of` gives.
    """

    def report_extraction(step: str, done: int, total: int, words: str) -> None:
        # The one part that takes minutes: pictures whose activations are not in the cache.
        if step == EXTRACTING:
            report(step, done, total, words)

    found = []
    for number, each in enumerate(splits):
        report(stage, number, len(splits), "")
        trained = train(each, config, cache=cache, report=report_extraction)
        groups = each.test.groups if each.strategy == "grouped" else None
        judged = evaluate(trained.model, each.test, config=config, cache=cache, groups=groups)
        found.append(scores_of(judged))
    report(stage, len(splits), len(splits), "")
    return found


def summarize_splits(
    splits: Sequence[Splits], scores: Sequence[dict[str, float]]
) -> dict[str, Any]:
    """Means over splits with corrected intervals, as they stand in `metrics.json`.

    Args:
        splits: Two or more.
        scores: What `scores_of` gave for each.

    Returns:
        `mean` (an interval per score), `scores` (a list per score), `seeds`, `test_to_train` and
        the method.
    """
    columns = {
        name: values for name, values in join_splits(scores).items() if np.isfinite(values).all()
    }
    first = splits[0]
    ratio = len(first.test) / (len(first.train) + len(first.validation))
    means = {
        name: mean_over_splits(values, test_to_train=ratio) for name, values in columns.items()
    }
    return {
        "num_splits": len(scores),
        "seeds": [each.seed for each in splits],
        "strategy": first.strategy,
        "test_to_train": ratio,
        "method": SPLITS_METHOD,
        "mean": {name: interval.to_dict() for name, interval in means.items()},
        "scores": columns,
    }
