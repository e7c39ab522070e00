"""Whether a game goes wrong while it is played: collapse, or a discriminator that is never wrong.

A generator that draws one picture over and over can look as good as one that has learned, by the
losses alone. So generated pictures are looked at: how much they differ from each other, and, where
a classifier is at hand, how many classes there are.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

NUM_WATCHED = 500
_LEAST_DIVERSITY, _LEAST_ENTROPY = 0.5, 0.7
_SURE = 0.98  # of all pictures told apart: the generator learns little from one that knows


@dataclasses.dataclass(frozen=True)
class Sight:
    """What some generated pictures are like.

    Attributes:
        diversity: Mean squared distance of two of them, over that of two real ones; 1 is as varied.
        num_seen: Classes that a classifier sees at least one of; `None` without classifier.
        entropy: Of the classes, over the largest possible; 1 if all are equally frequent.
        num_classes: That there are.
    """

    diversity: float
    num_seen: int | None = None
    entropy: float = math.nan
    num_classes: int = 0

    def words(self) -> str:
        """For a line of progress."""
        seen = "" if self.num_seen is None else f", {self.num_seen}/{self.num_classes} classes"
        return f"diversity {self.diversity:.2f}{seen}"


class Watch:
    """Looks at generated pictures.

    Args:
        images: uint8 `(n, height, width, channels)`, of the training part.
        classify: From float pictures in [0, 1] to class numbers; `None` where nobody knows.
        num_classes: That `classify` knows.
    """

    def __init__(
        self,
        images: np.ndarray,
        classify: Callable[[np.ndarray], np.ndarray] | None = None,
        num_classes: int = 0,
    ) -> None:
        some = images[np.linspace(0, len(images) - 1, min(len(images), NUM_WATCHED)).astype(int)]
        self._spread = max(spread(some / np.float32(255)), 1e-12)
        self._classify, self._num_classes = classify, num_classes

    def look(self, pictures: np.ndarray) -> Sight:
        """What pictures are like, floats in [0, 1]."""
        diversity = spread(pictures) / self._spread
        if self._classify is None:
            return Sight(diversity)
        counts = np.bincount(self._classify(pictures), minlength=self._num_classes)
        return Sight(
            diversity, int((counts > 0).sum()), relative_entropy(counts), self._num_classes
        )


def spread(pictures: np.ndarray) -> float:
    """Mean squared distance of two different pictures, summed over pixels.

    It is twice the sum of the pixels' variances: with n pictures, of n - 1 degrees of freedom.
    """
    rows = np.asarray(pictures, "float64").reshape(len(pictures), -1)
    return float(2 * rows.var(0, ddof=1).sum()) if len(rows) > 1 else 0.0


def relative_entropy(counts: np.ndarray) -> float:
    """Entropy of frequencies over the logarithm of their number: 0 for one class, 1 for equal.

    Args:
        counts: `(num_classes,)`, at least two.
    """
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum() / math.log(len(counts)))


def advise(sight: Sight, real_accuracy: float, fake_accuracy: float, loss: str) -> str:
    """What is wrong and what to do about it; empty where nothing is.

    Args:
        sight: What generated pictures are like.
        real_accuracy: Of real pictures, how many the discriminator took for real in an epoch.
        fake_accuracy: Of generated ones, how many it found out.
        loss: Of the training; with the Wasserstein loss 0 is no threshold.
    """
    remedy = (
        "try --penalty r1, a smaller --discriminator-learning-rate, or --augmentation all with few "
        "pictures"
    )
    collapsed = sight.diversity < _LEAST_DIVERSITY or sight.entropy < _LEAST_ENTROPY
    if collapsed:
        seen = (
            ""
            if sight.num_seen is None
            else (
                f", {sight.num_seen} of {sight.num_classes} classes with an entropy of "
                f"{sight.entropy:.2f} (1 is even)"
            )
        )
        return (
            f"generated pictures are much alike (they differ {sight.diversity:.2f} times as much "
            f"as real ones{seen}): the generator has collapsed, or has hardly begun; "
            f"{remedy}."
        )
    if loss != "wasserstein" and min(real_accuracy, fake_accuracy) > _SURE:
        return (
            f"the discriminator tells {real_accuracy:.1%} of real and {fake_accuracy:.1%} of "
            f"generated pictures: it has won, and little is left to learn from it; {remedy}."
        )
    return ""
