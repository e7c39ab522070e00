"""Familiarity of a trained classifier: learned beside it, judged on its test part and on others'.

known = learn_familiarity(trained, splits)
known.p_values(predict_features(trained.model, pictures, config=trained.config))
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safelight.datasets import ImageDataset, Splits
from safelight.folds import find_units
from safelight.metrics import Interval
from safelight.resampling import Resampling, proportion
from safelight.runs import Run, atomic_path
from safelight.transfer import models
from safelight.transfer.familiarity import (
    FEWEST,
    Familiarity,
    fit_familiarity,
    nearest_distances,
)
from safelight.transfer.feature_cache import FeatureCache
from safelight.transfer.prediction import predict_features
from safelight.transfer.roots import scaled_roots
from safelight.transfer.training import TrainedClassifier

FALSE_ALARMS = (0.01, 0.05, 0.1)
DISTANCE = "distance"  # the column of predictions.csv
_FILE = "familiarity.npz"


@dataclasses.dataclass(frozen=True, eq=False)
class JudgedFamiliarity:
    """Familiarity on pictures that were not learned from.

    Attributes:
        distances: `(num_test,)`.
        refused: The share of them that is refused at each rate of `FALSE_ALARMS`: the familiar
            pictures among them should be refused as often as stated.
        left_out: For each class what its test pictures look like to somebody who has learned from
            the other classes alone: the probability that one of them lies farther than one of
            another class (AUROC). NaN where that cannot be said. After fine-tuning the features
            themselves have learned from all classes, so it is then too good.
    """

    distances: NDArray[np.float64]
    refused: dict[float, Interval]
    left_out: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """As it stands in `metrics.json`."""
        return {
            "refused": _by_rate(self.refused),
            "left_out_auroc": self.left_out,
        }


def learn_familiarity(
    trained: TrainedClassifier, splits: Splits, *, cache: FeatureCache | None = None
) -> Familiarity | None:
    """What a classifier's own pictures look like to its head.

    Args:
        trained: As from `train`.
        splits: What it was trained on. If the network was fine-tuned on `splits.train`, the
            validation part sets the scale.
        cache: As in training.

    Returns:
        None where fewer than ten pictures (copies and groups count once) are too few to say, and
        where nothing was frozen.
    """
    if trained.cut is None:
        return None  # from random weights it knows nothing that could be unfamiliar
    features = predict_features(trained.model, splits.train, config=trained.config, cache=cache)
    others = predict_features(trained.model, splits.validation, config=trained.config, cache=cache)
    widths, seed = models.head_widths(trained.model), trained.config.seed
    if trained.history:
        # The network has seen the training part, whose features are not those of a new picture.
        if min(len(features), len(others)) < FEWEST:
            return None
        return fit_familiarity(features, widths=widths, held_out=others)
    units = find_units(splits, ("train", "validation"))
    if len(np.unique(units)) < FEWEST:
        return None
    features = np.concatenate([features, others])
    return fit_familiarity(features, widths=widths, units=units, seed=seed)


def judge_familiarity(
    known: Familiarity,
    trained: TrainedClassifier,
    splits: Splits,
    *,
    cache: FeatureCache | None = None,
) -> JudgedFamiliarity:
    """How often test pictures are refused, and whether a class not learned would have been.

    Args:
        known: As from `learn_familiarity`.
        trained: As there.
        splits: As there.
        cache: As in training.
    """
    test = predict_features(trained.model, splits.test, config=trained.config, cache=cache)
    distances = known.distances(test)
    return JudgedFamiliarity(
        distances,
        _refuse(known, distances, splits.groups_of(splits.test)),
        leave_classes_out(known, splits.train, test, splits.test),
    )


def _refuse(
    known: Familiarity, distances: NDArray[np.float64], groups: NDArray[np.int64] | None = None
) -> dict[float, Interval]:
    """The share that is refused at each rate of false alarms, with Wilson's interval."""
    p_values, plan = known.rank(distances), Resampling(len(distances), groups, 1, 0.95, 0)
    return {rate: Interval(*proportion(p_values <= rate, plan)) for rate in FALSE_ALARMS}


def keep_familiarity(
    run: Run, trained: TrainedClassifier, splits: Splits, *, cache: FeatureCache | None = None
) -> JudgedFamiliarity | None:
    """Learns it, writes it into the run, and judges it; None as from `learn_familiarity`."""
    known = learn_familiarity(trained, splits, cache=cache)
    if known is None:
        return None
    with atomic_path(run.path / _FILE) as path:
        path.write_bytes(known.to_bytes())
    return judge_familiarity(known, trained, splits, cache=cache)


def read_familiarity(run: Run) -> Familiarity:
    """What `keep_familiarity` wrote.

    Raises:
        ValueError: It is not there, or damaged.
    """
    return Familiarity.read(run.path / _FILE)


def judge_foreign(run: Run, features: np.ndarray) -> dict[str, Any]:
    """How well a run tells other people's pictures from its own test part.

    Args:
        run: A finished run.
        features: `(n, num_features)` of the foreign pictures, as its head sees them.

    Returns:
        `auroc`, the number of pictures on either side, and the share of the foreign ones that is
        refused at each false-alarm rate, with intervals.

    Raises:
        ValueError: The run does not know what is familiar to it.
    """
    known = read_familiarity(run)
    column = run.predictions.get(DISTANCE)
    if not column:
        raise ValueError(f"{run.path}: its predictions.csv has no distances; train it again.")
    distances = known.distances(features)
    return {
        "auroc": separation(np.array(column, np.float64), distances),
        "num_foreign": len(features),
        "num_familiar": len(column),
        "refused": _by_rate(_refuse(known, distances)),
    }


def _by_rate(refused: dict[float, Interval]) -> dict[str, Any]:
    return {str(rate): share.to_dict() for rate, share in refused.items()}


def leave_classes_out(
    known: Familiarity, learned: ImageDataset, test_features: np.ndarray, test: ImageDataset
) -> dict[str, float]:
    """AUROC of each class against the others for somebody who has learned from the others alone.

    Args:
        known: Fitted on the pictures of `learned`, and perhaps others after them.
        learned: Pictures and labels that may be learned from.
        test_features: `(m, num_features)` of `test`.
        test: Pictures that judge.
    """
    references = known.references[: len(learned)]
    rows, found = scaled_roots(test_features, known.widths.tolist()), {}
    for label, name in enumerate(learned.class_names):
        rest, foreign = references[learned.labels != label], test.labels == label
        found[name] = float("nan")
        if len(rest) >= FEWEST and foreign.any() and not foreign.all():
            distances = nearest_distances(rows, rest)
            found[name] = separation(distances[~foreign], distances[foreign])
    return found


def separation(familiar: NDArray[np.float64], foreign: NDArray[np.float64]) -> float:
    """The probability that a foreign picture lies farther than a familiar one (AUROC)."""
    from sklearn.metrics import roc_auc_score

    is_foreign = np.repeat([0, 1], [len(familiar), len(foreign)])
    return float(roc_auc_score(is_foreign, np.concatenate([familiar, foreign])))
