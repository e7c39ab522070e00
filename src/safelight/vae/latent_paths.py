"""Walks through the latent space, decoded: from one point to another, along a unit, over a plane.

Arrays in, arrays out; `safelight.plots` makes pictures of them.
"""

from __future__ import annotations

import numpy as np
from keras import ops
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri

from safelight.vae.models import VAE
from safelight.vae.priors import StandardNormal

_NUM_DRAWS = 10_000  # of a learned prior, for the quantiles of its units
_PARALLEL = 1e-4  # radians; below it the arc is its chord, to float32's precision


def linear_path(a: ArrayLike, b: ArrayLike, num: int) -> np.ndarray:
    """Points on the straight line from a to b.

    Args:
        a: `(..., latent_dim)`.
        b: The same shape.
        num: Points, both ends among them; at least two.

    Returns:
        `(..., num, latent_dim)` float32.

    Raises:
        ValueError: Shapes that differ, or fewer than two points.
    """
    a, b = _ends(a, b, num)
    steps = np.linspace(0, 1, num)[:, None]
    return _exact_ends((1 - steps) * a[..., None, :] + steps * b[..., None, :], a, b)


def spherical_path(a: ArrayLike, b: ArrayLike, num: int) -> np.ndarray:
    """Points on the arc from a to b: constant turning, the norm going from that of a to that of b.

    Draws from a normal distribution in many dimensions lie near a sphere, which the straight line
    leaves; the arc does not (Shoemake 1985; White 2016, arXiv 1609.04468).

    Args:
        a: `(..., latent_dim)`.
        b: The same shape.
        num: Points, both ends among them; at least two.

    Returns:
        `(..., num, latent_dim)` float32. Where a and b have one norm, so have all points.

    Raises:
        ValueError: Shapes that differ, fewer than two points, an end at the origin, or ends on
            opposite sides of it, between which no arc is the shortest.
    """
    a, b = _ends(a, b, num)
    norms = np.linalg.norm(a, axis=-1), np.linalg.norm(b, axis=-1)
    if min(norms[0].min(), norms[1].min()) == 0:
        raise ValueError("an end is the origin, which has no direction: use a linear path.")
    unit_a, unit_b = a / norms[0][..., None], b / norms[1][..., None]
    # By half angles, which unlike the arc cosine keeps its digits for small and for large ones.
    angle = 2 * np.arctan2(
        np.linalg.norm(unit_a - unit_b, axis=-1), np.linalg.norm(unit_a + unit_b, axis=-1)
    )
    if angle.max() > np.pi - _PARALLEL:
        raise ValueError("the ends are opposite points: no arc is the shortest; use a linear path.")
    steps = np.linspace(0, 1, num)
    angle = np.maximum(angle, _PARALLEL)[..., None]
    shares = [np.sin(s * angle) / np.sin(angle) for s in (1 - steps, steps)]
    arc = shares[0][..., None] * unit_a[..., None, :] + shares[1][..., None] * unit_b[..., None, :]
    arc /= np.linalg.norm(arc, axis=-1, keepdims=True)
    lengths = (1 - steps) * norms[0][..., None] + steps * norms[1][..., None]
    return _exact_ends(arc * lengths[..., None], a, b)


def interpolate(
    model: VAE,
    a: ArrayLike,
    b: ArrayLike,
    *,
    num: int = 10,
    spherical: bool = False,
    label: int | None = None,
) -> np.ndarray:
    """Expected pictures along the way from one latent point to another.

        a, b = model.encode(images[:2])[0]
        pictures = interpolate(model, a, b, num=8, spherical=True)

    Args:
        model: As trained.
        a: `(latent_dim,)` or `(n, latent_dim)`, where the ways begin.
        b: The same shape, where they end.
        num: Pictures, both ends among them.
        spherical: Whether to follow the arc (`spherical_path`) instead of the straight line.
        label: For a conditional model.

    Returns:
        `(num, height, width, channels)` or `(n, num, ...)` float32 in [0, 1].

    Raises:
        ValueError: As `linear_path` and `spherical_path`.
    """
    return _decode(model, (spherical_path if spherical else linear_path)(a, b, num), label)


def units_by_kl(kl_per_unit: ArrayLike) -> np.ndarray:
    """Latent units `(latent_dim,)`, the one with most nats first; ties in their own order."""
    return np.argsort(-np.asarray(kl_per_unit, "float64"), kind="stable")


def prior_quantiles(model: VAE, shares: ArrayLike) -> np.ndarray:
    """Where a share of the prior's draws lies below, unit by unit.

    Args:
        model: As trained.
        shares: `(num,)` between 0 and 1.

    Returns:
        `(num, latent_dim)` float64: those of N(0, 1), or of draws from a learned prior.
    """
    shares = np.asarray(shares, "float64")
    if isinstance(model.prior, StandardNormal):
        return np.tile(ndtri(shares)[:, None], (1, model.latent_dim))
    draws = ops.convert_to_numpy(model.prior.sample((_NUM_DRAWS, model.latent_dim), 0))
    return np.quantile(draws.astype("float64"), shares, axis=0)


def _shown_units(model: VAE, kl_per_unit: ArrayLike) -> np.ndarray:
    """Units that the decoder takes, the one with most nats first."""
    kl = np.asarray(kl_per_unit, "float64")
    if kl.shape not in {(model.latent_dim,), (model.visible_dim,)}:
        raise ValueError(
            f"kl_per_unit of shape {kl.shape}: expected ({model.latent_dim},), a number per unit."
        )
    return units_by_kl(kl[: model.visible_dim])


def traverse(
    model: VAE,
    start: ArrayLike,
    *,
    kl_per_unit: ArrayLike,
    num_units: int | None = None,
    num: int = 9,
    reach: float = 2.5,
    label: int | None = None,
) -> np.ndarray:
    """Expected pictures while one unit at a time moves and the others stay.

    Args:
        model: As trained.
        start: `(latent_dim,)`, for instance the latent mean of an image.
        kl_per_unit: nats of all units, or of those that the decoder takes, as in `VAEReport`; rows
            come in the order of `units_by_kl`, so that units which do nothing come last.
        num_units: Rows; by default all units that the decoder takes.
        num: Pictures in a row.
        reach: Units go from -reach to +reach, in standard deviations of the prior; where it is
            learned, between the quantiles at which these lie in a normal distribution.
        label: For a conditional model.

    Returns:
        `(num_units, num, height, width, channels)` float32 in [0, 1].

    Raises:
        ValueError: Arrays that do not fit the model's latents.
    """
    start = _latents(model, start, "start")
    order = _shown_units(model, kl_per_unit)[:num_units]
    z = np.tile(start, (len(order), num, 1))
    places = prior_quantiles(model, ndtr(np.linspace(-reach, reach, num)))
    z[np.arange(len(order)), :, order] = places[:, order].T
    return _decode(model, z, label)


def latent_manifold(
    model: VAE,
    *,
    num: int = 20,
    kl_per_unit: ArrayLike | None = None,
    label: int | None = None,
) -> np.ndarray:
    """Expected pictures over a plane of the latent space, spaced by quantiles of the prior.

    Each picture stands for an equal share of the prior (Kingma and Welling 2014, figure 4).

    Args:
        model: As trained.
        num: Pictures in a row and in a column.
        kl_per_unit: As for `traverse`; with more than two units the two that hold most span the
            plane, and the others are at the prior's median.
        label: For a conditional model.

    Returns:
        `(num, num, height, width, channels)` float32 in [0, 1]. As on a map, the first unit grows
        to the right and the second upwards.

    Raises:
        ValueError: More than two units and no `kl_per_unit`, or a single unit.
    """
    if model.visible_dim < 2:
        raise ValueError("the model has one latent unit: a plane needs two; use `traverse`.")
    if kl_per_unit is None and model.latent_dim > 2:
        raise ValueError(
            f"the model has {model.latent_dim} latent units: pass kl_per_unit (as in VAEReport), "
            "so that the two which hold most can span the plane."
        )
    first, second = (0, 1) if kl_per_unit is None else _shown_units(model, kl_per_unit)[:2]
    quantiles = prior_quantiles(model, (np.arange(num) + 0.5) / num)
    z = np.tile(prior_quantiles(model, [0.5]), (num, num, 1))
    z[:, :, first] = quantiles[None, :, first]
    z[:, :, second] = quantiles[::-1, None, second]
    return _decode(model, z, label)


def _ends(a: ArrayLike, b: ArrayLike, num: int) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
    if a.shape != b.shape or a.ndim < 1:
        raise ValueError(
            f"ends of shapes {a.shape} and {b.shape}: expected one shape, (..., latent_dim)."
        )
    if num < 2:
        raise ValueError(f"num={num}: a path has two ends, expected at least 2.")
    return a, b


def _exact_ends(path: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    path[..., 0, :], path[..., -1, :] = a, b
    return path.astype("float32")


def _latents(model: VAE, values: ArrayLike, name: str) -> np.ndarray:
    values = np.asarray(values, "float64")
    if values.shape != (model.latent_dim,):
        raise ValueError(
            f"{name} of shape {values.shape}: expected ({model.latent_dim},), a number per unit."
        )
    return values


def _decode(model: VAE, z: np.ndarray, label: int | None) -> np.ndarray:
    """Pictures for latents `(..., latent_dim)`, all in one go."""
    rows = z.reshape(-1, z.shape[-1]).astype("float32")
    labels = None if label is None else np.full(len(rows), label)
    pictures = model.decode(rows, labels)
    return pictures.reshape(*z.shape[:-1], *pictures.shape[1:])
