"""How good with fewer pictures, and so how good with more: the learning curve of one's own data.

    dealt = deal_sizes(dataset.subset(learned_from))
    measured = measure_learning_curve(dealt, config)
    measured.accuracy(2500)

Only pictures that a model may learn from are used, so the test part stays unseen and can tell
whether what the curve promised for all of them holds. With the activations of the frozen part in
the cache, each of the thirty trainings costs a head.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from safelight import datasets
from safelight.datasets import ImageDataset, Splits
from safelight.metrics import Interval
from safelight.transfer.config import TrainConfig
from safelight.transfer.feature_cache import FeatureCache
from safelight.transfer.fine_tuning import Report, silent
from safelight.transfer.learning_curve import LearningCurve, fit_learning_curve
from safelight.transfer.repetition import train_on_splits

NUM_REPETITIONS = 6
COVERAGE = 0.8
_JUDGED = 0.25
_NUM_SIZES = 5
_FEWEST_SIZES = 3
_FEWEST_PER_CLASS = 4  # so that the head's settings can still be chosen by inner cross-validation


@dataclasses.dataclass(frozen=True, eq=False)
class DealtSizes:
    """Trainings of growing size, each size within the next, and judged on the same pictures.

    Attributes:
        sizes: `(s,)` numbers of pictures to learn from, validation included, ascending.
        splits: One list per repetition, with a split per size; its test part judges.
        num_judged: Different pictures that judge, all repetitions together.
        num_all: All that there is to learn from; a repetition has three quarters of it at most.
    """

    sizes: tuple[int, ...]
    splits: tuple[tuple[Splits, ...], ...]
    num_judged: int
    num_all: int


@dataclasses.dataclass(frozen=True, eq=False)
class MeasuredCurve:
    """Accuracies by number of pictures, and what they promise for more.

    Attributes:
        curve: Of the error, that is 1 - accuracy.
        num_all: All that there is to learn from.
        accuracies: `(repetitions, s)` fractions.
    """

    curve: LearningCurve
    num_all: int
    accuracies: NDArray[np.float64]

    def accuracy(self, size: float, *, num_test: int | None = None) -> Interval:
        """Accuracy after learning from `size` pictures, with its 80 % range.

        Args:
            size: Number of pictures.
            num_test: As in `LearningCurve.error`.
        """
        error = self.curve.error(size, num_test=num_test, confidence=COVERAGE)
        return Interval(1 - error.value, max(1 - error.high, 0.0), min(1 - error.low, 1.0))

    def gain(self, more: int) -> Interval:
        """By how much accuracy rises with `more` pictures on top of all, with its 80 % range."""
        return self.curve.gain(self.num_all + more, start=self.num_all, confidence=COVERAGE)


def deal_sizes(
    dataset: ImageDataset,
    *,
    validation_fraction: float = 0.0,
    strategy: Literal["stratified", "grouped"] = "stratified",
    num_repetitions: int = NUM_REPETITIONS,
    seed: int = 0,
) -> DealtSizes:
    """Deals what may be learned from into smaller trainings, each with pictures to judge it.

    Each repetition keeps a quarter to judge, by the rules of `datasets.split`; of the rest it takes
    everything, a half, a quarter and so on, every class in its share.

    Args:
        dataset: All that may be learned from.
        validation_fraction: Share of each training that decides when to stop.
        strategy: As in `datasets.split`, for the pictures that judge.
        num_repetitions: Two or more.
        seed: Of the first repetition.

    Raises:
        ValueError: A class has too few pictures for three sizes.
    """
    repetitions, judged = [], np.zeros(len(dataset), bool)
    for number in range(num_repetitions):
        outer = datasets.split(
            dataset,
            test_fraction=_JUDGED,
            validation_fraction=0,
            seed=seed + number,
            strategy=strategy,
        )
        judged[outer.indices["test"]] = True
        repetitions.append(shrink(outer, validation_fraction))
    # Where duplicates stay together one repetition may have a few pictures more than another.
    fewest = min(map(len, repetitions))
    repetitions = [each[-fewest:] for each in repetitions]
    sizes = np.mean(
        [[len(s.train) + len(s.validation) for s in each] for each in repetitions], axis=0
    )
    return DealtSizes(
        tuple(round(size) for size in sizes.tolist()),
        tuple(repetitions),
        int(judged.sum()),
        len(dataset),
    )


def shrink(outer: Splits, validation_fraction: float) -> tuple[Splits, ...]:
    """Splits with growing parts of one training part, each within the next.

    Args:
        outer: Its test part judges them all.
        validation_fraction: Share of each part that decides when to stop.

    Returns:
        Five splits or fewer, the smallest training part first; the last has all of it.

    Raises:
        ValueError: A class has too few pictures for three sizes.
    """
    labels = outer.train.labels
    counts = np.bincount(labels, minlength=outer.train.num_classes)
    halvings = [k for k in range(_NUM_SIZES) if counts.min() >> k >= _FEWEST_PER_CLASS]
    if len(halvings) < _FEWEST_SIZES:
        needed = (_FEWEST_PER_CLASS << (_FEWEST_SIZES - 1)) / (1 - _JUDGED)
        name = outer.train.class_names[int(counts.argmin())]
        raise ValueError(
            f"class {name!r} has {counts.min()} pictures left to learn from after a quarter is "
            f"kept to judge: expected about {needed:.0f} of each class before that, since a "
            "learning curve needs three sizes."
        )
    order = _stratified_order(labels, np.random.default_rng(outer.seed))
    found = []
    for halving in reversed(halvings):
        chosen = outer.train.subset(np.sort(order[: len(order) >> halving]))
        found.append(_with_validation(chosen, outer, validation_fraction))
    return tuple(found)


def _with_validation(chosen: ImageDataset, outer: Splits, fraction: float) -> Splits:
    if fraction == 0:
        indices = {
            "train": np.arange(len(chosen)),
            "validation": np.arange(0),
            "test": outer.indices["test"],
        }
        return Splits(
            chosen, chosen.subset([]), outer.test, indices, outer.seed, strategy=outer.strategy
        )
    inner = datasets.split(
        dataclasses.replace(chosen, parts=None),
        test_fraction=fraction,
        validation_fraction=0,
        seed=outer.seed,
        strategy="grouped" if outer.keeps_groups else "stratified",
    )
    indices = {
        "train": inner.indices["train"],
        "validation": inner.indices["test"],
        "test": outer.indices["test"],
    }
    return Splits(inner.train, inner.test, outer.test, indices, outer.seed, strategy=outer.strategy)


def _stratified_order(
    labels: NDArray[np.int64], generator: np.random.Generator
) -> NDArray[np.int64]:
    """A random order of which every beginning has each class in its share, to one picture."""
    places = np.empty(len(labels))
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        places[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return np.argsort(places, kind="stable")


def measure_learning_curve(
    dealt: DealtSizes,
    config: TrainConfig,
    *,
    cache: FeatureCache | None = None,
    report: Report = silent,
) -> MeasuredCurve:
    """Trains at every size, judges, and fits the curve.

    Args:
        dealt: As from `deal_sizes`.
        config: What to train and how.
        cache: As in `training.train`.
        report: Told how many trainings are done.
    """
    every = [split for repetition in dealt.splits for split in repetition]
    scores = train_on_splits(every, config, cache=cache, report=report, stage="trainings")
    accuracies = np.array([each["accuracy"] for each in scores]).reshape(len(dealt.splits), -1)
    curve = fit_learning_curve(dealt.sizes, 1 - accuracies, num_pool=dealt.num_judged)
    return MeasuredCurve(curve, dealt.num_all, accuracies)


def round_steps(num_all: int) -> Sequence[int]:
    """How many more pictures to speak of: about a tenth, a third and as many again, round numbers.

    Beyond that a curve through what was measured is a guess.
    """
    steps = []
    for share in (0.1, 0.33, 1.0):
        unit = 10 ** max(len(str(max(int(num_all * share), 1))) - 1, 0)
        steps.append(max(round(num_all * share / unit), 1) * unit)
    return sorted(set(steps))
