"""The same training on several random splits, or on all folds: what one split alone cannot tell.

Which pictures happen to be in the test part moves accuracy by a point or two. With the activations
of the frozen part in the cache another split costs a head, not a network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from safelight import known_pictures
from safelight.comparison import SPLITS_METHOD, folds_method, join_splits, mean_over_splits
from safelight.datasets import Splits
from safelight.metrics import brier_score, expected_calibration_error
from safelight.transfer.config import TrainConfig
from safelight.transfer.evaluation import ClassificationReport, evaluate, report_on
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
    """Trains and judges anew on each split; what `scores_of` gives for each of them.

    Args:
        splits: As in `judge_on_splits`.
        config: As there.
        cache: As there.
        report: As there.
        stage: As there.
    """
    judged = judge_on_splits(splits, config, cache=cache, report=report, stage=stage)
    return [scores_of(each) for each in judged]


def judge_on_splits(
    splits: Sequence[Splits],
    config: TrainConfig,
    *,
    cache: FeatureCache | None = None,
    report: Report = silent,
    stage: str = "other splits",
) -> list[ClassificationReport]:
    """Trains and judges anew on each split; models are not kept.

    Views, order and inner folds have the same seed every time, so that the splits share
    activations.

    Args:
        splits: Of one data set: as from `datasets.split`, with different seeds, or as from
            `folds.deal_folds`.
        config: What to train and how.
        cache: As in `training.train`.
        report: Told how many splits are done.
        stage: The name of it all in what is reported.

    Returns:
        A report on the test part of each split.

    Raises:
        KeyboardInterrupt: Also where fine-tuning was interrupted: what it left is no training like
            the others, and does not belong in their mean.
    """

    def report_extraction(step: str, done: int, total: int, words: str) -> None:
        # The one part that takes minutes: pictures whose activations are not in the cache.
        if step == EXTRACTING:
            report(step, done, total, words)

    found = []
    for number, each in enumerate(splits):
        report(stage, number, len(splits), "")
        trained = train(each, config, cache=cache, report=report_extraction)
        if trained.interrupted:
            raise KeyboardInterrupt
        groups = each.groups_of(each.test)
        found.append(evaluate(trained.model, each.test, config=config, cache=cache, groups=groups))
    report(stage, len(splits), len(splits), "")
    return found


def summarize_splits(
    splits: Sequence[Splits], judged: Sequence[ClassificationReport]
) -> dict[str, Any]:
    """Means over splits with corrected intervals, as they stand in `metrics.json`.

    Args:
        splits: Two or more random splits, or all folds of a cross-validation.
        judged: The report on the test part of each.

    Returns:
        `mean` (an interval per score), `scores` (a list per score), `seeds`, `test_parts` (a digest
        of each), `test_to_train` and the method; `num_folds` for folds, None for splits.
    """
    columns = {
        name: values
        for name, values in join_splits([scores_of(each) for each in judged]).items()
        if np.isfinite(values).all()
    }
    first = splits[0]
    folds = None if first.fold is None else first.fold[1]
    ratio = (
        1 / (folds - 1) if folds else len(first.test) / (len(first.train) + len(first.validation))
    )
    means = {
        name: mean_over_splits(values, test_to_train=ratio) for name, values in columns.items()
    }
    return {
        "num_splits": len(judged),
        "num_folds": folds,
        "seeds": [each.seed for each in splits],
        "test_parts": [known_pictures.name_part(each.test) for each in splits],
        "strategy": first.strategy,
        "test_to_train": ratio,
        "method": folds_method(folds) if folds else SPLITS_METHOD,
        "mean": {name: interval.to_dict() for name, interval in means.items()},
        "scores": columns,
    }


def pool_folds(
    folds: Sequence[Splits], judged: Sequence[ClassificationReport]
) -> tuple[ClassificationReport, np.ndarray]:
    """One report on all pictures, each as it was judged by the fold that had not seen it.

    Its intervals are those of other pictures under the same networks. ROC AUC also compares
    probabilities of different networks with each other.

    Args:
        folds: All folds of a cross-validation.
        judged: The report on the test part of each.

    Returns:
        The report, in the order of the data set, and the fold of each picture, `(n,)`.

    Raises:
        ValueError: The test parts do not hold every picture exactly once.
    """
    rows = np.concatenate([each.indices["test"] for each in folds])
    order = np.argsort(rows, kind="stable")
    num_all = sum(len(part) for part in folds[0].indices.values())
    if not np.array_equal(rows[order], np.arange(num_all)):
        raise ValueError(
            f"{len(folds)} test parts with {len(rows)} of {num_all} pictures: expected all folds "
            "of a cross-validation, with each picture in one of them."
        )
    files = [name for each in judged for name in each.files]
    parts = [groups for each in folds if (groups := each.groups_of(each.test)) is not None]
    groups = np.concatenate(parts)[order] if parts else None
    report = report_on(
        np.concatenate([each.labels for each in judged])[order],
        np.concatenate([each.probabilities for each in judged])[order],
        class_names=judged[0].class_names,
        files=[files[i] for i in order],
        groups=groups,
    )
    return report, np.repeat(np.arange(len(folds)), [len(each.test) for each in folds])[order]
