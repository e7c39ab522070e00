"""What more labelled pictures would give: a curve through measured errors, with its uncertainty.

    curve = fit_learning_curve([50, 100, 200, 400], errors, num_pool=500)
    str(curve.gain(600))

The error of a classifier trained on n pictures falls like `a + b n^-c` (Hestness et al. 2017,
arXiv 1712.00409; Mahmood et al. 2022, arXiv 2207.01725, on how far such fits mislead). Three
numbers from five noisy points are never certain, so none is picked: all curves that agree with
the points are kept, each with its weight, and a prediction is a range of what they say.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from safelight.metrics import Interval

_NUM_DRAWS = 20_000
_EXPONENTS = np.geomspace(0.1, 2.0, 40)
_FLOORS = np.linspace(0.0, 1.0, 41)  # the error that remains, as a share of the last one
_NUM_LEVELS = 81
# A third of the belief is in curves that fall for ever: within the range of a few hundred pictures
# many do, and at the edge of an even spread they would hardly be drawn.
_BELIEFS = np.where(_FLOORS == 0, len(_FLOORS) / 2, 1.0)


@dataclasses.dataclass(frozen=True, eq=False)
class LearningCurve:
    """Curves `e(n) = L (r + (1 - r) (n / n_last)^-c)`, drawn by how well they fit.

    Attributes:
        sizes: `(s,)` numbers of training pictures that were tried, ascending.
        errors: `(s,)` mean errors there, fractions.
        standard_errors: `(s,)` of these, from the repetitions.
        levels: `(draws,)` L, the error at the largest size.
        floors: `(draws,)` r.
        exponents: `(draws,)` c.
    """

    sizes: NDArray[np.float64]
    errors: NDArray[np.float64]
    standard_errors: NDArray[np.float64]
    levels: NDArray[np.float64]
    floors: NDArray[np.float64]
    exponents: NDArray[np.float64]

    def draws(self, size: ArrayLike) -> NDArray[np.float64]:
        """`(draws, m)` errors that the curves give for `(m,)` sizes."""
        ratio = np.atleast_1d(np.asarray(size, np.float64)) / self.sizes[-1]
        if (ratio <= 0).any():
            raise ValueError(f"sizes {size!r}: expected positive numbers of pictures.")
        floors = self.floors[:, None]
        fall = (1 - floors) * ratio[None, :] ** -self.exponents[:, None]
        return self.levels[:, None] * (floors + fall)

    def error(
        self, size: float, *, num_test: int | None = None, confidence: float = 0.8
    ) -> Interval:
        """The error with `size` training pictures.

        Args:
            size: Number of pictures.
            num_test: Where given, the range is for the error that so many test pictures will show,
                which adds their chance to it.
            confidence: Coverage.
        """
        values = self.draws(size)[:, 0]
        if num_test is not None:
            noise = np.random.default_rng(0).standard_normal(len(values))
            values = values + noise * np.sqrt(np.clip(values * (1 - values), 0, None) / num_test)
        return _range(values, confidence)

    def gain(self, size: float, *, start: float | None = None, confidence: float = 0.8) -> Interval:
        """By how much the error falls from `start`, or the largest size tried, to `size`."""
        values = self.draws([self.sizes[-1] if start is None else start, size])
        return _range(values[:, 0] - values[:, 1], confidence)

    def to_dict(self) -> dict[str, list[float]]:
        """Measured points as plain JSON types."""
        return {
            "sizes": self.sizes.tolist(),
            "errors": self.errors.tolist(),
            "standard_errors": self.standard_errors.tolist(),
        }


def fit_learning_curve(
    sizes: ArrayLike, errors: ArrayLike, *, num_pool: int, seed: int = 0
) -> LearningCurve:
    """All curves that agree with measured errors, by their likelihood.

    Two kinds of chance are told apart: which pictures a size was trained on differs from point to
    point, while which pictures were there to judge on lifts or lowers the whole curve. Exponents
    are taken from .1 to 2 (log-uniform), the floor is nothing (a third of the belief before the
    points are seen) or anything up to all of the last error, so that "more would not help" is among
    the answers.

    Args:
        sizes: `(s,)` numbers of training pictures, at least three, ascending.
        errors: `(repetitions, s)` fractions.
        num_pool: Pictures that the errors were measured on, all repetitions together.
        seed: Of the drawing.

    Raises:
        ValueError: Fewer than three sizes or two repetitions, or arrays that do not fit.
    """
    sizes, errors = np.asarray(sizes, np.float64), np.asarray(errors, np.float64)
    if errors.ndim != 2 or errors.shape[1:] != sizes.shape or len(sizes) < 3 or len(errors) < 2:
        raise ValueError(
            f"sizes {sizes.shape} and errors {errors.shape}: expected at least three sizes and "
            "errors (repetitions, sizes) of two repetitions or more."
        )
    if (np.diff(sizes) <= 0).any() or not (errors >= 0).all() or not (errors <= 1).all():
        raise ValueError("expected ascending sizes and errors between 0 and 1.")
    means = errors.mean(0)
    last = float(np.clip(means[-1], 0.5 / num_pool, 1))
    common = last * (1 - min(last, 0.99)) / num_pool
    own = _own_variance(errors)
    spread = 4 * math.sqrt(common + own[-1]) + 1e-6
    levels = np.linspace(max(1e-6, last - spread), last + spread, _NUM_LEVELS)
    # (floors, exponents, sizes): the curves of level 1. The squared distance to the points is a
    # parabola in the level, so that no curve is made a second time for another level.
    fall = (sizes / sizes[-1]) ** -_EXPONENTS[:, None]
    shapes = _FLOORS[:, None, None] + (1 - _FLOORS[:, None, None]) * fall
    precision = np.linalg.inv(np.diag(own) + common)
    linear, square = shapes @ precision @ means, ((shapes @ precision) * shapes).sum(-1)
    level = levels[:, None, None]
    weights = level * linear - level**2 * square / 2
    weights = np.exp(weights - weights.max()) * _BELIEFS[:, None]
    chance = weights.ravel() / weights.sum()
    chosen = np.random.default_rng(seed).choice(weights.size, _NUM_DRAWS, p=chance)
    places = np.unravel_index(chosen, weights.shape)
    drawn = (axis[place] for axis, place in zip((levels, _FLOORS, _EXPONENTS), places, strict=True))
    return LearningCurve(sizes, means, np.sqrt(own), *drawn)


def _own_variance(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """`(s,)` variance of each mean that other sizes do not share."""
    number, num_sizes = errors.shape
    # A repetition's pictures may be hard at every size: that part is common to the points.
    centred = errors - errors.mean(1, keepdims=True)
    variance = centred.var(0, ddof=1) * num_sizes / (num_sizes - 1)
    # A few repetitions can agree by luck; no point is then surer than half of what all show, and
    # all are a little less sure, as in Student's distribution.
    luck = (number - 1) / max(number - 3, 1)
    return luck * np.maximum(variance, variance.mean() / 2 + 1e-8) / number


def _range(values: NDArray[np.float64], confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    low, middle, high = np.quantile(values, [tail, 0.5, 1 - tail])
    return Interval(float(middle), float(low), float(high))
