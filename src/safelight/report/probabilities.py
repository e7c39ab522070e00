"""A classifier's answers, out of predictions.csv: how sure it was of which, and how often right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from safelight.metrics import Interval
from safelight.report.reading import Reading
from safelight.resampling import Resampling, proportion
from safelight.trained_runs import read_probabilities

THRESHOLDS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
_CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False)
class Answers:
    """What a classifier said of its test part.

    Attributes:
        files: A name per picture.
        labels: `(n,)` true classes.
        probabilities: `(n, num_classes)`, rows that sum to one.
    """

    files: Sequence[str]
    labels: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True)
class Sure:
    """Pictures on which it is at least so sure.

    Attributes:
        threshold: The smallest probability of the answer.
        number: Such pictures.
        share: Of all.
        accuracy: Among them; None where there are none.
    """

    threshold: float
    number: int
    share: float
    accuracy: Interval | None


def read_answers(reading: Reading) -> Answers | None:
    """The answers of a run; None where it has no predictions.csv.

    Raises:
        ValueError: The file lacks a column, or holds something else than numbers.
    """
    table, names = reading.predictions, reading.class_names
    if not table or not table.get("file"):
        return None
    if "label" not in table:
        raise ValueError("predictions.csv has no column 'label'")
    places = {name: place for place, name in enumerate(names)}
    unknown = sorted(set(table["label"]) - set(places))
    if unknown:
        raise ValueError(f"predictions.csv has the label {unknown[0]!r}, which is no class")
    rows = read_probabilities(table, names)
    return Answers(table["file"], np.array([places[label] for label in table["label"]]), rows)


def answered_when_sure(reading: Reading) -> list[Sure]:
    """How many pictures are answered, and how often right, if only sure answers count.

    The thresholds were chosen before any run, so that the intervals (Wilson's) hold for each.

    Returns:
        A row per threshold; none where predictions.csv is missing or damaged.
    """
    try:
        answers = read_answers(reading)
    except ValueError:
        return []
    if answers is None:
        return []
    sure, right = answers.probabilities.max(1), answers.probabilities.argmax(1) == answers.labels
    plan = Resampling(len(right), None, 1, _CONFIDENCE, 0)
    rows = []
    for threshold in THRESHOLDS:
        among = sure >= threshold
        number = int(among.sum())
        accuracy = Interval(*proportion(right, plan, among=among)) if number else None
        rows.append(Sure(threshold, number, number / len(right), accuracy))
    return rows
