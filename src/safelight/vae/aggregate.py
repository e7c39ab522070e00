"""The aggregate posterior of a set of pictures, q(z) = 1/N sum of q(z|x_n): where all of them lie.

It is a mixture of N diagonal Gaussians, one a picture, and here nothing of it is approximated: a
density at z sums over all N pictures, block by block, by log-sum-exp. Arrays only, no Keras.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

_LOG_2PI = math.log(2 * math.pi)
_BLOCK_VALUES = 2_000_000  # log densities at a time: 16 MB
_REACH = 6.0  # standard deviations beyond the outermost means, for integrals
_MAX_POINTS = 1024  # of a grid along one unit


@dataclasses.dataclass(frozen=True, eq=False)
class AggregatePosterior:
    """q(z) of N pictures.

    Attributes:
        mean: `(num_images, latent_dim)` float64, of q(z|x).
        log_variance: The same shape.

    Raises:
        ValueError: Arrays of other shapes, no picture, or numbers that are not finite.
    """

    mean: NDArray[np.float64]
    log_variance: NDArray[np.float64]

    def __post_init__(self) -> None:
        for name in ("mean", "log_variance"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float64))
        mean, log_variance = self.mean, self.log_variance
        if mean.ndim != 2 or not len(mean) or mean.shape != log_variance.shape:
            raise ValueError(
                f"mean {mean.shape} and log_variance {log_variance.shape}: expected two arrays of "
                "(num_images, latent_dim), as from `model.encode`, with at least one image."
            )
        if not (np.isfinite(mean).all() and np.isfinite(log_variance).all()):
            raise ValueError(
                "mean or log_variance is not finite: the encoder's weights, or what it makes of a "
                "picture, are not. Was its training stable?"
            )

    def __len__(self) -> int:
        return len(self.mean)

    @property
    def latent_dim(self) -> int:
        """The number of latent units."""
        return self.mean.shape[1]

    def draw(self, num_draws: int, *, seed: int) -> NDArray[np.float64]:
        """Draws from q(z|x) of every picture: `(num_draws, num_images, latent_dim)`."""
        noise = np.random.default_rng(seed).normal(size=(num_draws, *self.mean.shape))
        return self.mean + np.exp(self.log_variance / 2) * noise

    def sample(self, num: int, *, seed: int) -> NDArray[np.float64]:
        """Draws from q(z), `(num, latent_dim)`: of a picture at random, from its q(z|x)."""
        rng = np.random.default_rng(seed)
        rows = rng.integers(len(self), size=num)
        noise = rng.normal(size=(num, self.latent_dim))
        return self.mean[rows] + np.exp(self.log_variance[rows] / 2) * noise

    def log_density(self, z: ArrayLike) -> NDArray[np.float64]:
        """Log q(z), `(num,)` nats, of `(num, latent_dim)`."""
        return self._log_sums(np.asarray(z, np.float64)) - math.log(len(self))

    def own_log_density(self, z: ArrayLike) -> NDArray[np.float64]:
        """Log q(z_n|x_n), `(...,)` nats, where row n of `(..., num_images, latent_dim)` is z_n."""
        squares = np.square(np.asarray(z, np.float64) - self.mean) * np.exp(-self.log_variance)
        return -0.5 * (squares + self.log_variance + _LOG_2PI).sum(-1)

    def log_sums_of_others(self, z: ArrayLike) -> NDArray[np.float64]:
        """The logarithm of the sum of q(z_n|x_m) over the other pictures m: `(..., num_images)`.

        That of all would not do: where a picture lies by itself its own term is all that a float
        of the sum can hold.

        Args:
            z: `(..., num_images, latent_dim)`; row n belongs to picture n.

        Returns:
            Nats; minus infinity where there is no other picture.
        """
        z = np.asarray(z, np.float64)
        rows = z.reshape(-1, self.latent_dim)
        own = np.arange(len(rows)) % len(self)
        return self._log_sums(rows, own).reshape(z.shape[:-1])

    def marginals(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The density of each unit by itself, on a grid that holds all of its mass.

        Returns:
            Places `(latent_dim, num_points)`, equally spaced, and densities there. A grid has at
            most 1,024 points: what is narrower than a step of it is widened to one, so that its
            mass is kept, and divergences from the prior are too low where much is.
        """
        deviation = np.exp(self.log_variance / 2)
        low, high = _reach(self.mean, deviation)
        finest = ((high - low) / deviation.min(0)).max()
        num_points = int(np.clip(2 * finest, 64, _MAX_POINTS))
        # A grid whose points a spike falls between would not see it; the sum over one whose step is
        # a Gaussian's deviation is right to a part in 10^8.
        narrowest = (high - low) / (num_points - 1 - 2 * _REACH)
        deviation = np.maximum(deviation, narrowest)
        places = np.linspace(*_reach(self.mean, deviation), num_points, axis=1)
        blunt = AggregatePosterior(self.mean, 2 * np.log(deviation))
        units = range(self.latent_dim)
        return places, np.stack([blunt.marginal_density(unit, places[unit]) for unit in units])

    def marginal_density(self, unit: int, places: ArrayLike) -> NDArray[np.float64]:
        """The density of one unit by itself at `(num_points,)` places."""
        places = np.asarray(places, np.float64)
        step = max(1, _BLOCK_VALUES // len(places))
        sums = [
            self._unit_densities(unit, places, slice(start, start + step)).sum(1)
            for start in range(0, len(self), step)
        ]
        return np.sum(sums, axis=0) / len(self)

    def plane_density(
        self, units: tuple[int, int], places: tuple[ArrayLike, ArrayLike]
    ) -> NDArray[np.float64]:
        """The joint density of two units, `(num_second, num_first)`, rows for the second unit.

        Args:
            units: The first and the second.
            places: `(num_first,)` and `(num_second,)` values of each.
        """
        first, second = (np.asarray(along, np.float64) for along in places)
        step = max(1, _BLOCK_VALUES // max(len(first), len(second)))
        total = np.zeros((len(second), len(first)))
        for start in range(0, len(self), step):
            some = slice(start, start + step)
            # Within a picture's q(z|x) units are independent, so that a product of matrices sums.
            rows = self._unit_densities(units[1], second, some)
            total += rows @ self._unit_densities(units[0], first, some).T
        return total / len(self)

    def _unit_densities(
        self, unit: int, places: NDArray[np.float64], some: slice
    ) -> NDArray[np.float32]:
        """Of some pictures, `(num_points, num_pictures)`."""
        log_deviation = self.log_variance[some, unit] / 2
        z = (places[:, None] - self.mean[some, unit]) * np.exp(-log_deviation)
        log_density = -0.5 * (z * z + _LOG_2PI) - log_deviation
        return np.exp(log_density.astype(np.float32))

    def _log_sums(
        self, z: NDArray[np.float64], skipped: NDArray[np.int64] | None = None
    ) -> NDArray[np.float64]:
        """Log of the sum of q(z|x_n) over pictures, but for the one that a row skips."""
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            raise ValueError(f"z has shape {z.shape}: expected (num, {self.latent_dim}).")
        factors, constants = self._quadratic()
        found, step = np.empty(len(z)), max(1, _BLOCK_VALUES // len(self))
        for start in range(0, len(z), step):
            rows = z[start : start + step]
            terms = np.concatenate([rows * rows, rows], axis=1) @ factors
            terms += constants
            if skipped is not None:
                terms[np.arange(len(rows)), skipped[start : start + step]] = -np.inf
            found[start : start + step] = _log_sum_exp(terms)
        return found

    def _quadratic(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Log q(z|x_n) = [z^2, z] @ factors + constants, of all pictures at once."""
        precision = np.exp(-self.log_variance)
        factors = np.concatenate([-0.5 * precision, precision * self.mean], axis=1).T
        constants = self.mean**2 * precision + self.log_variance + _LOG_2PI
        return np.ascontiguousarray(factors), -0.5 * constants.sum(1)


def _reach(
    mean: NDArray[np.float64], deviation: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where the mass of each unit begins and ends."""
    return (mean - _REACH * deviation).min(0), (mean + _REACH * deviation).max(0)


def _log_sum_exp(terms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the last axis; the exponentials, all of them at most 1, in float32, which is faster."""
    peak = terms.max(1)
    finite = np.where(np.isfinite(peak), peak, 0.0)
    shrunk = np.exp((terms - finite[:, None]).astype(np.float32))
    with np.errstate(divide="ignore"):  # nothing to sum where there is no other picture
        return finite + np.log(shrunk.sum(1, dtype=np.float64))
