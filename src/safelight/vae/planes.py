"""A plane to look at a latent space in: its units if there are two, else principal components."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True, eq=False)
class Plane:
    """Two directions of a latent space.

    Attributes:
        centre: `(latent_dim,)`, the middle of the plane.
        axes: `(latent_dim, 2)`, orthonormal.
        names: What the two are called.
        whole: Whether the plane is all of the latent space, so that its numbers are latent units.
    """

    centre: NDArray[np.float64]
    axes: NDArray[np.float64]
    names: tuple[str, str]
    whole: bool

    @classmethod
    def of(cls, means: NDArray[np.floating]) -> Plane:
        """The plane in which latent means vary most.

        Args:
            means: `(n, latent_dim)`. Of one unit the second direction means nothing; of one mean
                the plane is that of the first two units.
        """
        latent_dim = means.shape[1]
        if latent_dim == 1:
            names = ("latent unit 0", "nothing: spread to be seen")
            return cls(np.zeros(1), np.array([[1.0, 0.0]]), names, whole=False)
        if latent_dim == 2:
            names = ("first latent unit", "second latent unit")
            return cls(np.zeros(2), np.eye(2), names, whole=True)
        centre = means.mean(0, dtype="float64")
        if len(means) < 2:  # which vary in no direction
            return cls(
                centre, np.eye(latent_dim, 2), ("latent unit 0", "latent unit 1"), whole=False
            )
        _, vectors = np.linalg.eigh(np.cov((means - centre).T))
        names = ("first principal component of the means", "second principal component")
        return cls(centre, vectors[:, :-3:-1], names, whole=False)

    def place(self, means: NDArray[np.floating]) -> NDArray[np.float64]:
        """Where latent means `(n, latent_dim)` lie in the plane, `(n, 2)`."""
        placed = (means - self.centre) @ self.axes
        if len(self.axes) == 1:
            # A line of points would hide how many there are.
            placed[:, 1] = np.random.default_rng(0).uniform(-1, 1, len(placed))
        return placed

    def turned_like(self, other: Plane) -> Plane:
        """The same plane, its axes turned and mirrored to lie as near to another's as they can.

        Components have no sign, and two of like variance no order, so what is looked at again and
        again would jump. By orthogonal Procrustes (Schönemann 1966, Psychometrika 31/1).
        """
        left, _, right = np.linalg.svd(self.axes.T @ other.axes)
        return dataclasses.replace(self, axes=self.axes @ left @ right)
