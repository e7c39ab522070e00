"""How good generated pictures are, judged by features: arrays in, numbers out.

    frechet_distance(real, fake)
    estimate_frechet_distance(real, fake)  # without its bias, with its standard error
    kernel_distance(real, fake)
    fidelity = compare_neighbourhoods(real, fake)
    fidelity.precision, fidelity.recall

Features are rows `(num_pictures, num_features)` that a network gives for real pictures and for
generated ones. No number here means anything without the network's name and the number of pictures:
they belong into the protocol beside it.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import ArrayLike, NDArray

NUM_NEIGHBOURS = 5
_ROWS = 2000  # distances in memory at a time: these times all rows of the other side


def frechet_distance(real: ArrayLike, fake: ArrayLike) -> float:
    """Squared Wasserstein-2 distance of two Gaussians with the features' means and covariances.

    |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)): Frechet 1957, Dowson & Landau 1982; on features of a
    network Heusel et al. 2017 (arXiv 1706.08500). It is biased upwards by an amount that shrinks
    with the number of pictures, so compare only at equal numbers.

    Args:
        real: `(n, num_features)`, n at least 2.
        fake: `(m, num_features)`, m at least 2.

    Returns:
        At least 0, in squared units of the features.

    Raises:
        ValueError: Rows of different length, too few of them, or not finite.
    """
    real, fake = _check(real, fake, 2)
    parts = [(rows.mean(0), np.atleast_2d(np.cov(rows, rowvar=False))) for rows in (real, fake)]
    return frechet_distance_of_gaussians(*parts[0], *parts[1])


def frechet_distance_of_gaussians(
    mean: ArrayLike, covariance: ArrayLike, other_mean: ArrayLike, other_covariance: ArrayLike
) -> float:
    """As `frechet_distance`, of two Gaussians that are given.

    Args:
        mean: `(num_features,)`.
        covariance: `(num_features, num_features)`.
        other_mean: The other's.
        other_covariance: The other's.
    """
    shift = np.asarray(mean, np.float64) - np.asarray(other_mean, np.float64)
    first, second = np.asarray(covariance, np.float64), np.asarray(other_covariance, np.float64)
    # (C C')^(1/2) has the trace of (C^(1/2) C' C^(1/2))^(1/2), which is symmetric: no complex
    # numbers, and singular covariances do no harm.
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(0)).sum()
    distance = shift @ shift + np.trace(first) + np.trace(second) - 2 * shared
    return float(max(distance, 0.0))


@dataclasses.dataclass(frozen=True)
class Distance:
    """A distance between what real and generated pictures are drawn from.

    Attributes:
        value: Its estimate, free of bias (of the Frechet distance, to first order in 1/n); it may
            be negative where there is no difference to be seen.
        standard_error: Of it, over draws of both sides' pictures.
        plain: What the pictures at hand give; for a Frechet distance larger by its bias.
    """

    value: float
    standard_error: float
    plain: float

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, normal approximation."""
        margin = 1.96 * self.standard_error
        return self.value - margin, self.value + margin


def estimate_frechet_distance(
    real: ArrayLike, fake: ArrayLike, *, num_blocks: int = 20, seed: int = 0
) -> Distance:
    """The Frechet distance that infinitely many pictures would give, with its standard error.

    The distance of samples is too large by terms in 1/n and 1/m (Chong & Forsyth 2020, arXiv
    1911.07023), so that two generators judged at different numbers of pictures cannot be compared.
    The delete-a-block jackknife (Quenouille 1956; Efron & Stein 1981) takes them off: with g
    blocks, the estimate is g F - (g - 1) times the mean of F without each block in turn, and the
    scatter of these gives the standard error. Left is what is of order 1/n^2.

    Args:
        real: `(n, num_features)`, n at least 2 and at least `num_blocks`.
        fake: `(m, num_features)`, likewise.
        num_blocks: Into which both sides are dealt out.
        seed: Of the dealing.

    Raises:
        ValueError: Rows of different length, too few of them, or not finite; fewer than 2 blocks.
    """
    if num_blocks < 2:
        raise ValueError(f"num_blocks={num_blocks}: expected 2 or more.")
    real, fake = _check(real, fake, max(num_blocks, 4))
    rng = np.random.default_rng(seed)
    dealt = [rng.permutation(len(rows)) % num_blocks for rows in (real, fake)]
    plain = frechet_distance(real, fake)
    without = np.array(
        [frechet_distance(real[dealt[0] != i], fake[dealt[1] != i]) for i in range(num_blocks)]
    )
    value = num_blocks * plain - (num_blocks - 1) * without.mean()
    variance = (num_blocks - 1) * without.var()
    return Distance(float(value), float(np.sqrt(variance)), plain)


def kernel_distance(real: ArrayLike, fake: ArrayLike) -> Distance:
    """Squared maximum mean discrepancy with the kernel (x y / num_features + 1)^3, without bias.

    Binkowski et al. 2018 (arXiv 1801.01401), who call it kernel inception distance; the U-statistic
    of Gretton et al. 2012 (JMLR 13, equation 3), of all pictures at once instead of subsets. Unlike
    the Frechet distance it makes no assumption about the features, and it sees third moments.

    Args:
        real: `(n, num_features)`, n at least 2.
        fake: `(m, num_features)`, m at least 2.

    Returns:
        In units of the kernel; its standard error is that of the U-statistic's first-order part.

    Raises:
        ValueError: Rows of different length, too few of them, or not finite.
    """
    real, fake = _check(real, fake, 2)
    of_real = _mean_kernels(real, real, same=True) - _mean_kernels(real, fake)
    of_fake = _mean_kernels(fake, fake, same=True) - _mean_kernels(fake, real)
    value = float(of_real.mean() + of_fake.mean())
    variance = sum(4 * each.var(ddof=1) / len(each) for each in (of_real, of_fake))
    return Distance(value, float(np.sqrt(variance)), value)


def _mean_kernels(
    rows: NDArray[np.float64], others: NDArray[np.float64], *, same: bool = False
) -> NDArray[np.float64]:
    """For each row the mean kernel with all others; of the same rows not with itself."""
    found = np.empty(len(rows))
    for start in range(0, len(rows), _ROWS):
        some = rows[start : start + _ROWS]
        sums = _cube(some @ others.T / rows.shape[1] + 1).sum(1)
        if same:
            sums -= _cube(np.square(some).sum(1) / rows.shape[1] + 1)
        found[start : start + len(some)] = sums / (len(others) - same)
    return found


def _cube(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    return numbers * numbers * numbers  # ten times as fast as a power


@dataclasses.dataclass(frozen=True)
class Neighbourhoods:
    """Shares of pictures that lie where the others do; all but `density` between 0 and 1.

    Attributes:
        precision: Of the generated pictures, how many lie within a real one's neighbourhood: are
            they believable? (Kynkaanniemi et al. 2019, arXiv 1904.06991)
        recall: Of the real pictures, how many lie within a generated one's: is everything drawn?
        density: In how many real neighbourhoods a generated picture lies, over the number that
            would be expected; an outlier with a wide neighbourhood counts less than in precision
            (Naeem et al. 2020, arXiv 2002.09797).
        coverage: Of the real pictures, how many have a generated one in their neighbourhood.
        num_neighbours: k: a neighbourhood reaches to the k-th nearest of its own side.
    """

    precision: float
    recall: float
    density: float
    coverage: float
    num_neighbours: int


def compare_neighbourhoods(
    real: ArrayLike, fake: ArrayLike, *, num_neighbours: int = NUM_NEIGHBOURS
) -> Neighbourhoods:
    """How far real and generated pictures lie in each other's neighbourhoods.

    Args:
        real: `(n, num_features)`, n more than `num_neighbours`.
        fake: `(m, num_features)`, m more than `num_neighbours`.
        num_neighbours: k.

    Raises:
        ValueError: Rows of different length, too few of them, or not finite.
    """
    if num_neighbours < 1:
        raise ValueError(f"num_neighbours={num_neighbours}: expected 1 or more.")
    real, fake = _about_middle(*_check(real, fake, num_neighbours + 1))
    reach_of_real = _reaches(real, num_neighbours)
    reach_of_fake = _reaches(fake, num_neighbours)
    hits, recalled = np.zeros(len(fake)), np.zeros(len(real), bool)
    covered = np.zeros(len(real), bool)
    for start in range(0, len(fake), _ROWS):
        rows = slice(start, start + _ROWS)
        squares = _squared_distances(fake[rows], real)
        inside = squares <= reach_of_real
        hits[rows] = inside.sum(1)
        covered |= inside.any(0)
        recalled |= (squares <= reach_of_fake[rows, None]).any(0)
    return Neighbourhoods(
        precision=float((hits > 0).mean()),
        recall=float(recalled.mean()),
        density=float(hits.mean() / num_neighbours),
        coverage=float(covered.mean()),
        num_neighbours=num_neighbours,
    )


def _about_middle(
    real: NDArray[np.float64], fake: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Far from the origin, squares of features would hide the distances between them."""
    middle = real.mean(0)
    return real - middle, fake - middle


def _reaches(rows: NDArray[np.float64], num_neighbours: int) -> NDArray[np.float64]:
    """Squared distance of each row to its k-th nearest among the others."""
    found = np.empty(len(rows))
    for start in range(0, len(rows), _ROWS):
        some = slice(start, start + _ROWS)
        squares = _squared_distances(rows[some], rows)
        # The nearest of all is the row itself.
        found[some] = np.partition(squares, num_neighbours, axis=1)[:, num_neighbours]
    return found


def _squared_distances(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    squares = np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * (a @ b.T)
    return squares.clip(0)


def _check(
    real: ArrayLike, fake: ArrayLike, least: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    both = np.asarray(real, np.float64), np.asarray(fake, np.float64)
    shapes = [rows.shape for rows in both]
    if any(len(shape) != 2 for shape in shapes) or shapes[0][1] != shapes[1][1]:
        raise ValueError(
            f"features have shapes {shapes[0]} and {shapes[1]}: expected (num_pictures, "
            "num_features), the same features for real and generated pictures."
        )
    if min(shapes[0][0], shapes[1][0]) < least:
        raise ValueError(
            f"{shapes[0][0]} real and {shapes[1][0]} generated pictures: expected at least {least} "
            "of each."
        )
    if not all(np.isfinite(rows).all() for rows in both):
        raise ValueError("features that are not finite: expected numbers.")
    return both
