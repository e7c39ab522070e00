"""How good a generator is, by one protocol for all: features of real and of generated pictures.

    score = score_pictures(features, train=..., real=..., fake=...)

Pictures that judge were never learned from. Every number comes with an interval; a share has
Wilson's, a distance that of the jackknife.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hypergeom

from safelight import sample_quality
from safelight.metrics import Interval
from safelight.sample_quality import Distance

INTERVALS = (
    "95 %; Frechet distance by jackknife and kernel distance by the variance of its U-statistic, "
    "over draws of both sides; shares by Wilson, over draws of what is counted"
)
# Of real pictures that were not learned from, the part nearer to a learned one than any of the
# others: what lies that near is called a copy.
COPY_PART = 0.01
MAX_PICTURES = 10_000  # of either side, for a score
MIN_PICTURES = 20  # on each side: as many blocks has the jackknife
MAX_LEARNED = 20_000  # training pictures among which copies are sought
_ENOUGH = 2  # pictures for each feature, so that a Frechet distance is all but free of its bias
_ROWS = 1000
_QUANTILE = 1.959964
_TAIL = 0.025


@dataclasses.dataclass(frozen=True)
class Features:
    """What pictures are compared by.

    Attributes:
        extract: From uint8 pictures, or floats in [0, 1], `(n, height, width, channels)`, to `(n,
            num_features)`.
        protocol: What they are, in a line; without it no number means anything.
        classify: From pictures to class numbers, where the features are a classifier's.
        num_classes: That it knows.
    """

    extract: Callable[[np.ndarray], NDArray[np.floating]]
    protocol: str
    classify: Callable[[np.ndarray], NDArray[np.integer]] | None = None
    num_classes: int = 0


@dataclasses.dataclass(frozen=True)
class Score:
    """What generated pictures are worth.

    Attributes:
        frechet: Frechet distance, its bias at this number of pictures taken off.
        frechet_plain: As the pictures at hand give it; for other numbers of pictures another.
        kernel: Squared maximum mean discrepancy.
        precision: Of generated pictures, how many are believable.
        recall: Of real pictures, how many could have been generated.
        density: As precision, but outliers count less; 1 is as among real pictures.
        coverage: Of real pictures, how many have a generated one near.
        copies: Of generated pictures, how many are nearer to a learned one than all but 1 % of real
            unseen pictures are; an interval above 1 % says that pictures were learned by heart.
            They are sought in 20,000 learned pictures at most. `None` where there are none.
        num_real: Pictures that judged.
        num_fake: Pictures that were judged.
        num_features: Of each.
    """

    frechet: Interval
    frechet_plain: float
    kernel: Interval
    precision: Interval
    recall: Interval
    density: float
    coverage: Interval
    copies: Interval | None
    num_real: int
    num_fake: int
    num_features: int

    @property
    def beware(self) -> str:
        """What to know of a Frechet distance of so few pictures; empty where they suffice."""
        few = min(self.num_real, self.num_fake)
        if few >= _ENOUGH * self.num_features:
            return ""
        return (
            f"{few} pictures are few for {self.num_features} features: the Frechet distance keeps "
            "part of its bias. Hold it against that of real pictures (`safelight compare`), or go "
            "by the kernel distance, which has none."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; without `copies` where they were not sought, with `beware`."""
        found = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        found |= {"beware": self.beware}
        return {
            name: value.to_dict() if isinstance(value, Interval) else value
            for name, value in found.items()
            if value is not None
        }


def score_features(
    train: NDArray[Any] | None, real: NDArray[Any], fake: NDArray[Any], *, seed: int = 0
) -> Score:
    """The score of generated pictures whose features are known.

    Args:
        train: `(k, num_features)` of pictures that were learned from; `None` to seek no copies.
        real: `(n, num_features)` of pictures that were not, at least 20.
        fake: `(m, num_features)` of generated ones, at least 20.
        seed: Of the jackknife's blocks.

    Raises:
        ValueError: Too few rows, of different length, or not finite.
    """
    frechet = sample_quality.estimate_frechet_distance(real, fake, seed=seed)
    kernel = sample_quality.kernel_distance(real, fake)
    near = sample_quality.compare_neighbourhoods(real, fake)
    num_real, num_fake = len(real), len(fake)
    return Score(
        frechet=_interval(frechet),
        frechet_plain=frechet.plain,
        kernel=_interval(kernel),
        precision=wilson(near.precision, num_fake),
        recall=wilson(near.recall, num_real),
        density=near.density,
        coverage=wilson(near.coverage, num_real),
        copies=None if train is None else _copies(train, real, fake),
        num_real=num_real,
        num_fake=num_fake,
        num_features=real.shape[1],
    )


def _copies(train: NDArray[Any], real: NDArray[Any], fake: NDArray[Any]) -> Interval:
    """The share of `fake` within the reach of `train` that 1 % of `real` are in."""
    # Of n draws the k-th has k / (n + 1) below it on average, which is what "weibull" goes by: with
    # fewer than 99 it is the nearest, and the interval says how little that tells.
    num_real, num_fake = len(real), len(fake)
    reach = np.quantile(nearest(train, real), COPY_PART, method="weibull")
    num = int((nearest(train, fake) < reach).sum())
    # The reach is an estimate too, so that the share counts as one of fewer pictures.
    found = wilson(num / num_fake, num_real * num_fake / (num_real + num_fake))
    # Where few real ones lie so near that is too sure. If both sides were alike, at most so many
    # of the nearest would be real with this probability (hypergeometric):
    rank = math.ceil(COPY_PART * (num_real + 1))
    nearest_of_all = num + rank - 1
    chance = hypergeom.cdf(rank - 1, num_real + num_fake, num_real, nearest_of_all)
    if chance > _TAIL:
        return dataclasses.replace(found, low=min(found.low, COPY_PART))
    return found


def draw_labels(learned: NDArray[np.integer], num: int, seed: int) -> NDArray[np.integer]:
    """Classes for a conditional model's pictures, as often as among those that it learned from.

    With as many of every class it would be held against data that have others: a perfect model
    would be at a distance.

    Args:
        learned: `(k,)` labels of the training part.
        num: How many to draw.
        seed: Of the draw.
    """
    return np.random.default_rng([seed, 2]).choice(learned, num)


def nearest(rows: NDArray[Any], others: NDArray[Any]) -> NDArray[np.float64]:
    """Squared distance of each of `others`, `(n, d)`, to the nearest of `rows`, `(k, d)`."""
    found = [_nearest(rows, others[start : start + _ROWS])[0] for start in _starts(others)]
    return np.concatenate(found)


def nearest_rows(rows: NDArray[Any], others: NDArray[Any]) -> NDArray[np.intp]:
    """Which of `rows`, `(k, d)`, is nearest to each of `others`, `(n, d)`."""
    found = [_nearest(rows, others[start : start + _ROWS])[1] for start in _starts(others)]
    return np.concatenate(found)


def _starts(rows: NDArray[Any]) -> range:
    return range(0, len(rows), _ROWS)


def _nearest(
    rows: NDArray[Any], some: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """In float32 and by products: a hundred times as fast as differences, exact enough to rank."""
    rows, some = np.asarray(rows, "float32"), np.asarray(some, "float32")
    squares = np.square(rows).sum(1) - 2 * (some @ rows.T)
    which = squares.argmin(1)
    # The distance itself from differences: of near neighbours products leave nothing but rounding.
    return np.square(some - rows[which], dtype="float64").sum(1), which


def _interval(distance: Distance) -> Interval:
    low, high = distance.interval
    return Interval(distance.value, low, high)


def wilson(share: float, num: float) -> Interval:
    """A share of so many with Wilson's 95 % interval (1927, doi:10.1080/01621459.1927.10502953)."""
    z = _QUANTILE
    middle = (share + z**2 / (2 * num)) / (1 + z**2 / num)
    half = z * math.sqrt(share * (1 - share) / num + z**2 / (4 * num**2)) / (1 + z**2 / num)
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half))
