"""Scores in which every image counts as often as its weight says: what the bootstrap resamples.

Each function takes what is known of n images and gives a `Statistic`, from weights `(rows, n)` to
one score or several for each row.
"""

import numpy as np
from numpy.typing import NDArray

from safelight.resampling import Statistic


def means(columns: NDArray[np.float64]) -> Statistic:
    """Weights -> (rows, num_columns): the mean of each column of `(n, num_columns)`."""
    return lambda weights: weights @ columns / weights.sum(axis=1, keepdims=True)


def counts(
    labels: NDArray[np.int64], predictions: NDArray[np.int64], num_classes: int
) -> Statistic:
    """Weights -> (rows, 3, num_classes): true positives, images, predictions of each class."""
    eye = np.eye(num_classes)
    columns = np.concatenate(
        [eye[labels] * (labels == predictions)[:, None], eye[labels], eye[predictions]], axis=1
    )
    return lambda weights: (weights @ columns).reshape(len(weights), 3, num_classes)


def f1_by_class(
    labels: NDArray[np.int64], predictions: NDArray[np.int64], num_classes: int
) -> Statistic:
    """Weights -> (rows, num_classes): F1 of each class, NaN where it has neither."""
    count = counts(labels, predictions, num_classes)

    def f1(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        hits, images, predicted = np.moveaxis(count(weights), 1, 0)
        return divide(2 * hits, images + predicted)

    return f1


def roc_auc(positive: NDArray[np.bool_], scores: NDArray[np.float64]) -> Statistic:
    """Weights -> (rows,) probability that a positive outranks a negative, ties counting half."""
    positives, negatives = np.flatnonzero(positive), np.flatnonzero(~positive)
    negatives = negatives[np.argsort(scores[negatives])]
    below = np.searchsorted(scores[negatives], scores[positives], side="left")
    not_above = np.searchsorted(scores[negatives], scores[positives], side="right")
    tied = bool((below != not_above).any())

    def area(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        passed = np.zeros((len(weights), len(negatives) + 1))
        np.cumsum(np.take(weights, negatives, axis=1), axis=1, out=passed[:, 1:])
        outranked = np.take(passed, below, axis=1)
        if tied:
            outranked = (outranked + np.take(passed, not_above, axis=1)) / 2
        drawn = np.take(weights, positives, axis=1)
        won = np.einsum("bi,bi->b", drawn, outranked)
        return divide(won, drawn.sum(axis=1) * passed[:, -1])

    return area


def divide(top: NDArray[np.float64], bottom: NDArray[np.float64]) -> NDArray[np.float64]:
    """Top / bottom, NaN where bottom is 0, without a warning."""
    return np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 0)


def mean_of_defined(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of each row over what is not NaN."""
    defined = ~np.isnan(values)
    return divide(np.where(defined, values, 0).sum(axis=1), defined.sum(axis=1).astype(float))
