"""Where intervals come from: Wilson's score for proportions, the bootstrap for everything else.

`safelight.metrics` says what the intervals mean; this module only draws and counts.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]

_CHUNK_ELEMENTS = 200_000
_MAX_JACKKNIFE_BLOCKS = 1_000
_ROUNDING = 1e-12  # of a mean, relative to the numbers that it is of


class Resampling:
    """Which images are drawn together, how often, and what follows from their number.

    Args:
        num_images: n.
        groups: (n,) numbers, images of one group are drawn together; None for each on its own.
        num_resamples: how many resamples.
        confidence: coverage of the intervals, between 0 and 1.
        seed: seed of the drawing.

    Raises:
        ValueError: if groups do not fit the images or a number is out of range.
    """

    def __init__(
        self,
        num_images: int,
        groups: ArrayLike | None,
        num_resamples: int,
        confidence: float,
        seed: int,
    ) -> None:
        if not 0 < confidence < 1 or num_resamples < 1:
            raise ValueError(
                f"confidence={confidence}, num_resamples={num_resamples}: confidence lies "
                "between 0 and 1, and at least one resample is drawn."
            )
        units = np.arange(num_images) if groups is None else np.asarray(groups)
        if units.shape != (num_images,):
            raise ValueError(
                f"groups has shape {units.shape}; pass one number per image: ({num_images},)."
            )
        _, self.unit_of_image = np.unique(units, return_inverse=True)
        self.num_units = int(self.unit_of_image.max()) + 1
        self.num_images, self.num_resamples = num_images, num_resamples
        self.confidence, self.seed, self.grouped = confidence, seed, groups is not None

    @property
    def unseen_rate(self) -> float:
        """The largest rate that leaves all units clean with probability (1 - confidence) / 2."""
        return 1 - ((1 - self.confidence) / 2) ** (1 / self.num_units)

    def quantile(self, num_units: int) -> float:
        """Normal quantile, or Student's where the units are groups, of which there are so many.

        A single group is as doubtful as two: of its own spread nothing is known.
        """
        from scipy.special import ndtri, stdtrit

        tail = (1 + self.confidence) / 2
        if not self.grouped:
            return float(ndtri(tail))
        return float(stdtrit(max(num_units, 2) - 1, tail))

    def weights(self) -> Iterator[NDArray[np.float64]]:
        """Yield (chunk, num_images) counts of how often each image was drawn."""
        rng = np.random.default_rng(self.seed)
        chunk = max(1, _CHUNK_ELEMENTS // self.num_images)
        for start in range(0, self.num_resamples, chunk):
            rows = min(chunk, self.num_resamples - start)
            drawn = rng.integers(self.num_units, size=(rows, self.num_units))
            drawn += np.arange(rows)[:, None] * self.num_units
            counts = np.bincount(drawn.ravel(), minlength=rows * self.num_units)
            yield counts.reshape(rows, -1)[:, self.unit_of_image].astype(np.float64)

    def leave_out(self) -> Iterator[NDArray[np.float64]]:
        """Yield weights with one block of units left out in each row."""
        # The skewness that BCa needs is the same for blocks of units, so many images cost no more.
        num_blocks = min(self.num_units, _MAX_JACKKNIFE_BLOCKS)
        block_of_unit = np.random.default_rng(self.seed).permutation(self.num_units) % num_blocks
        block_of_image = block_of_unit[self.unit_of_image]
        chunk = max(1, _CHUNK_ELEMENTS // self.num_images)
        for start in range(0, num_blocks, chunk):
            left_out = np.arange(start, min(start + chunk, num_blocks))
            yield (block_of_image[None, :] != left_out[:, None]).astype(np.float64)


def proportion(
    hits: NDArray[np.bool_],
    plan: Resampling,
    *,
    among: NDArray[np.bool_] | None = None,
) -> tuple[float, float, float]:
    """Give the share of hits among some images, and both ends of Wilson's interval.

    Args:
        hits: (n,) which images count.
        plan: how images hang together; with groups, their effective number takes the place of n.
        among: (n,) which images are looked at; all if None.

    Returns:
        Three fractions; NaN where no image is looked at.

    Source: Wilson 1927, doi:10.1080/01621459.1927.10502953; Korn and Graubard 1998.
    """
    among = np.ones(len(hits), bool) if among is None else among
    total = int(among.sum())
    if total == 0:
        return math.nan, math.nan, math.nan
    share = float(hits[among].mean())
    units = plan.unit_of_image[among]
    count = _effective_count(hits[among], units) if plan.grouped else total
    square = plan.quantile(len(np.unique(units))) ** 2 / count
    centre = (share + square / 2) / (1 + square)
    half = math.sqrt(share * (1 - share) * square + square**2 / 4) / (1 + square)
    # At 0 and 1 one end is the value itself; rounding must not put it on the wrong side.
    return share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def _effective_count(hits: NDArray[np.bool_], units: NDArray[np.int64]) -> float:
    """How many independent images would give the variance seen between groups."""
    _, units = np.unique(units, return_inverse=True)
    num_units, total, share = int(units.max()) + 1, len(hits), hits.mean()
    if share in (0.0, 1.0) or num_units < 2:
        # Nothing shows how alike the images of a group are, so each group counts once.
        return num_units
    sums = np.bincount(units, weights=hits - share)
    variance = num_units / (num_units - 1) * (sums**2).sum() / total**2
    return min(float(total), share * (1 - share) / variance) if variance > 0 else float(total)


def bootstrap(
    statistic: Statistic, plan: Resampling
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Compute statistics and their BCa intervals, value by value.

    Args:
        statistic: (rows, num_images) weights -> (rows, num_values); NaN where it is not defined.
        plan: what is drawn together, and how often.

    Returns:
        Values, lower ends and upper ends, each (num_values,). Ends are NaN with a single unit, and
        equal to the value where no resample differs from it.

    Source: Efron 1987, doi:10.1080/01621459.1987.10478410.
    """
    values = statistic(np.ones((1, plan.num_images)))[0]
    if plan.num_units < 2:
        return values, np.full_like(values, np.nan), np.full_like(values, np.nan)
    replicates = np.concatenate([statistic(weights) for weights in plan.weights()])
    left_out = np.concatenate([statistic(weights) for weights in plan.leave_out()])
    ends = [_bca(value, replicates[:, i], left_out[:, i], plan) for i, value in enumerate(values)]
    lows, highs = np.array(ends).T
    return values, lows, highs


def _bca(
    value: float, replicates: NDArray[np.float64], left_out: NDArray[np.float64], plan: Resampling
) -> tuple[float, float]:
    """Efron 1987, equations 2.3 and 6.6, with Hesterberg's wider quantiles for few units."""
    from scipy.special import ndtr, ndtri, stdtrit

    replicates, left_out = replicates[~np.isnan(replicates)], left_out[~np.isnan(left_out)]
    if math.isnan(value) or len(replicates) == 0:
        return math.nan, math.nan
    if np.ptp(replicates) == 0:
        return value, value
    # What differs by rounding alone is equal: of ties, half counts as below.
    near = _ROUNDING * np.abs(replicates).max()
    below = ((replicates < value - near).mean() + (replicates <= value + near).mean()) / 2
    bias = ndtri(np.clip(below, 0.5 / len(replicates), 1 - 0.5 / len(replicates)))
    deviation = left_out.mean() - left_out if len(left_out) else np.zeros(1)
    spread = (deviation**2).sum()
    acceleration = (deviation**3).sum() / (6 * spread**1.5) if spread > 0 else 0.0
    wide = math.sqrt(plan.num_units / (plan.num_units - 1))
    reach = wide * stdtrit(plan.num_units - 1, (1 + plan.confidence) / 2)
    shifted = bias + np.array([-reach, reach])
    low, high = np.quantile(replicates, ndtr(bias + shifted / (1 - acceleration * shifted)))
    return float(low), float(high)
