"""What separates two settings: over many splits of one data set, or by two intervals alone.

Scores on random splits of the same pictures are not independent: their training parts overlap. The
plain standard error of their mean is therefore too small, the more so the more splits there are.
Nadeau and Bengio correct it by the ratio of test to training pictures.

References: Nadeau and Bengio 2003, doi:10.1023/A:1024068626366 (equation 9); Bouckaert and Frank
2004, doi:10.1007/978-3-540-24775-3_3, who find its tests repeatable at ten splits and more.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from safelight.metrics import Interval

_INTERVAL = "Student's interval with the variance of Nadeau and Bengio (2003)"
SPLITS_METHOD = f"mean over random splits; {_INTERVAL}"


def folds_method(num_folds: int) -> str:
    """What `SPLITS_METHOD` is for random splits, for the folds of a cross-validation."""
    return f"{num_folds}-fold cross-validation; {_INTERVAL}"


def mean_over_splits(
    scores: ArrayLike, *, test_to_train: float, confidence: float = 0.95
) -> Interval:
    """The mean of a score over repeated splits, with the interval of what other splits would give.

    Args:
        scores: `(num_splits,)`, one per random split, or per fold of a cross-validation.
        test_to_train: Pictures in the test part for each one that was learned from: 1/3 for 75/25
            splits, 1/(k - 1) for k folds.
        confidence: Coverage of the interval.

    Returns:
        The mean and `t * s * sqrt(1/J + test_to_train)` either way, with the standard deviation s
        of the J scores and Student's t of J - 1 degrees of freedom; ends are NaN for one split.

    Raises:
        ValueError: No score, or a ratio or confidence out of range.
    """
    from scipy.special import stdtrit

    scores = _check(scores)
    if not (0 < test_to_train < math.inf and 0 < confidence < 1):
        raise ValueError(
            f"test_to_train={test_to_train}, confidence={confidence}: expected a positive ratio "
            "and a confidence between 0 and 1."
        )
    number, mean = len(scores), float(scores.mean())
    if number == 1:
        return Interval(mean, math.nan, math.nan, "one split shows no spread")
    spread = standard_error(scores, test_to_train=test_to_train)
    reach = float(stdtrit(number - 1, (1 + confidence) / 2) * spread)
    return Interval(mean, mean - reach, mean + reach)


def standard_error(scores: ArrayLike, *, test_to_train: float) -> float:
    """The corrected standard error of the mean of a score over repeated splits.

    Args:
        scores: `(num_splits,)`, as in `mean_over_splits`.
        test_to_train: As in `mean_over_splits`.

    Returns:
        `s * sqrt(1/J + test_to_train)`.

    Raises:
        ValueError: Fewer than two scores.
    """
    scores = _check(scores)
    if len(scores) < 2:
        raise ValueError("one score shows no spread: expected those of two splits or more.")
    return float(scores.std(ddof=1) * math.sqrt(1 / len(scores) + test_to_train))


def paired_over_splits(
    scores_a: ArrayLike, scores_b: ArrayLike, *, test_to_train: float, confidence: float = 0.95
) -> Interval:
    """Score of `a` minus score of `b`, split by split, with the interval as in `mean_over_splits`.

    Pairing takes out which pictures happened to be hard: an interval that holds 0 shows no
    difference.

    Args:
        scores_a: `(num_splits,)` of one setting.
        scores_b: `(num_splits,)` of the other, on the same splits in the same order.
        test_to_train: As in `mean_over_splits`.
        confidence: Coverage of the interval.

    Raises:
        ValueError: Not the same number of splits.
    """
    a, b = _check(scores_a), _check(scores_b)
    if len(a) != len(b):
        raise ValueError(
            f"{len(a)} scores against {len(b)}: expected both settings on the same splits."
        )
    return mean_over_splits(a - b, test_to_train=test_to_train, confidence=confidence)


def independent_difference(a: Interval, b: Interval) -> Interval:
    """What separates two numbers that were measured apart, from their intervals alone.

    The ends lie as far from the difference as the root of the sum of squares of the distances from
    a and b to their own ends, which for Gaussian numbers is exact and follows lopsided intervals
    too (Zou & Donner 2008, doi:10.1002/sim.3095, equations 5 and 6). If the two numbers go up and
    down together the interval is wider than it need be, if one goes up where the other goes down
    it is too narrow, at most by the factor sqrt(2).

    Args:
        a: A number.
        b: Another one, with an interval of the same coverage.

    Returns:
        a minus b; NaN ends where an interval has none.
    """
    value = a.value - b.value
    return Interval(
        value,
        value - math.hypot(a.value - a.low, b.high - b.value),
        value + math.hypot(a.high - a.value, b.value - b.low),
    )


def join_splits(values: Sequence[dict[str, float]]) -> dict[str, list[float]]:
    """A list per name, from a mapping per split; names that a split lacks are left out."""
    names = [name for name in values[0] if all(name in row for row in values)]
    return {name: [float(row[name]) for row in values] for name in names}


def _check(scores: ArrayLike) -> NDArray[np.float64]:
    found = np.asarray(scores, dtype=np.float64)
    if found.ndim != 1 or not len(found) or not np.isfinite(found).all():
        raise ValueError(
            f"scores have the shape {found.shape}: expected one finite number for each split."
        )
    return found
