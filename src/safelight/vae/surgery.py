"""ELBO surgery: what the KL divergence of an ELBO is made of (Hoffman & Johnson 2016).

Over a set of N pictures, with q(z) = 1/N sum of q(z|x_n) their aggregate posterior,

    mean KL(q(z|x_n) || p(z)) = I(n; z) + KL(q(z) || p(z)).

The first term is what the latents know of which picture it was; the second how far the place where
pictures lie is from the prior that samples are drawn from. The sum tells nothing of the two: a
model with good reconstructions and bad samples has much of the second. docs/theory/surgery.md has
the derivation.

    cut = dissect(model, images)
    cut.mutual_information, cut.aggregate_kl, cut.monte_carlo_error
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from safelight.vae import priors
from safelight.vae.aggregate import AggregatePosterior
from safelight.vae.models import VAE

NUM_DRAWS = 4
MAX_IMAGES = 10_000  # the time grows with the square of their number
_BATCH_SIZE = 1000


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Surgery:
    """The two parts of the KL divergence, in nats per image.

    All numbers are of this set of pictures, whose aggregate posterior is what it is; so errors are
    those of the draws of z alone (standard deviations).

    Attributes:
        kl: Mean KL(q(z|x) || p(z)); `mutual_information` plus `aggregate_kl`.
        mutual_information: I(n; z): what a draw of z tells of the number of its picture. At least
            0, at most log(num_images): where it is near that, every picture is told from every
            other, and more pictures would give more.
        aggregate_kl: KL(q(z) || p(z)), at least 0 but for the error of the draws.
        monte_carlo_error: Of `mutual_information`, and of `aggregate_kl` where the prior has the KL
            divergence in closed form.
        most_information: The mean KL divergence of q(z|x_n) from the aggregate of the others. What
            latents know of a picture among all pictures of the kind is, in expectation, no less
            than `mutual_information`, and no more than this or `kl`. NaN for a single picture.
        kl_per_unit: `(latent_dim,)` mean KL divergence of each unit; `None`, like the next, unless
            the prior is the standard normal.
        aggregate_kl_per_unit: `(latent_dim,)`, KL(q(z_j) || p(z_j)) of each unit by itself; the
            difference of the two is what that unit knows of the picture's number.
        num_images: N.
        num_draws: Of z, for each image.
    """

    kl: float
    mutual_information: float
    aggregate_kl: float
    monte_carlo_error: float
    most_information: float
    kl_per_unit: NDArray[np.float64] | None
    aggregate_kl_per_unit: NDArray[np.float64] | None
    num_images: int
    num_draws: int

    @property
    def total_correlation(self) -> float | None:
        """What of `aggregate_kl` is in no unit by itself, but in how they hang together, nats."""
        if self.aggregate_kl_per_unit is None:
            return None
        return self.aggregate_kl - float(self.aggregate_kl_per_unit.sum())

    @property
    def sentence(self) -> str:
        """In words, with what the mutual information is at most."""
        return (
            f"KL {self.kl:.1f} = {self.mutual_information:.1f} mutual information (at most log "
            f"{self.num_images:,} = {math.log(self.num_images):.1f}) + {self.aggregate_kl:.1f} "
            "aggregate against prior"
        )

    @property
    def protocol(self) -> str:
        """How it was made, in a line that belongs beside the numbers."""
        return (
            f"ELBO surgery (Hoffman & Johnson 2016) on {self.num_images:,} images, "
            f"{self.num_draws} draws of z for each, against the aggregate posterior of all"
        )

    def to_dict(self) -> dict[str, Any]:
        """As it stands in `metrics.json`."""
        found = dataclasses.asdict(self)
        return {**found, "total_correlation": self.total_correlation, "sentence": self.sentence}


def dissect(
    model: VAE,
    images: np.ndarray,
    labels: np.ndarray | None = None,
    *,
    num_draws: int = NUM_DRAWS,
    seed: int = 0,
) -> Surgery:
    """Cuts a model's KL divergence on a set of pictures into its two parts.

    Some 2 seconds a draw for 10,000 pictures; the time grows with the square of their number.

    Args:
        model: As trained, with any prior.
        images: `(num_images, height, width, channels)` uint8, at most 10,000; where the model
            binarises, drawn black and white already (`draw_pixels`).
        labels: `(num_images,)` integers for a conditional model.
        num_draws: Of z for each image, at least 2.
        seed: Of the draws.

    Raises:
        ValueError: Arrays that do not fit the model, too many images, too few draws, or a model
            with two stochastic layers.
    """
    check_one_layer(model)
    if len(images) > MAX_IMAGES:
        raise ValueError(
            f"{len(images):,} images: expected at most {MAX_IMAGES:,}, as the time grows with the "
            "square of their number; pass some of them, drawn at random."
        )
    return dissect_posterior(
        AggregatePosterior(*model.encode(images, labels)),
        model.prior,
        num_draws=num_draws,
        seed=seed,
    )


def check_one_layer(model: VAE) -> None:
    """Makes sure that q(z|x) is the diagonal Gaussian that `AggregatePosterior` takes it for.

    Raises:
        ValueError: The model has two stochastic layers.
    """
    if not model.prior.one_layer:
        raise ValueError(
            "the model has two stochastic layers, where q(z|x) is no diagonal Gaussian and has no "
            "aggregate in closed form: expected a model with one (second_latent_dim=0)."
        )


def dissect_posterior(
    aggregate: AggregatePosterior, prior: Any, *, num_draws: int = NUM_DRAWS, seed: int = 0
) -> Surgery:
    """The same for posteriors that are already there.

    Args:
        aggregate: Of the pictures.
        prior: A layer as in `safelight.vae.priors`.
        num_draws: Of z for each picture, at least 2.
        seed: Of the draws.

    Raises:
        ValueError: Too few draws.
    """
    if num_draws < 2:
        raise ValueError(f"num_draws={num_draws}: expected 2 or more, to know the error.")
    z = aggregate.draw(num_draws, seed=seed)
    own, others = aggregate.own_log_density(z), aggregate.log_sums_of_others(z)
    # Their own terms added like this, no draw tells more than log N.
    information = own - np.logaddexp(own, others) + math.log(len(aggregate))
    closed = kl_per_unit(aggregate.mean, aggregate.log_variance, prior)
    kl = float((own - log_prior(prior, z)).mean() if closed is None else closed.sum())
    num_others = len(aggregate) - 1
    to_others = float((own - others).mean()) + math.log(num_others) if num_others else math.nan
    units = closed if isinstance(prior, priors.StandardNormal) else None
    return Surgery(
        kl=kl,
        mutual_information=float(information.mean()),
        aggregate_kl=kl - float(information.mean()),
        monte_carlo_error=_error(information),
        most_information=to_others,
        kl_per_unit=units,
        aggregate_kl_per_unit=None if units is None else _marginal_divergences(aggregate),
        num_images=len(aggregate),
        num_draws=num_draws,
    )


def kl_per_unit(
    mean: np.ndarray, log_variance: np.ndarray, prior: Any
) -> NDArray[np.float64] | None:
    """Mean KL divergence of posteriors from the prior, of each unit.

    Args:
        mean: `(num_images, latent_dim)`, of q(z|x).
        log_variance: The same shape.
        prior: A layer as in `safelight.vae.priors`.

    Returns:
        `(latent_dim,)` nats; `None` where the prior has it not in closed form.
    """
    unit = ops.zeros((1, mean.shape[1]))
    if prior.kl_per_unit(unit, unit) is None:
        return None
    return _in_batches(prior.kl_per_unit, mean, log_variance).mean(0)


def log_prior(prior: Any, z: NDArray[np.float64]) -> NDArray[np.float64]:
    """The prior's log density of `(..., latent_dim)`, in nats; in batches: it may be a mixture."""
    return _in_batches(prior.log_density, z.reshape(-1, z.shape[-1])).reshape(z.shape[:-1])


def _in_batches(function: Callable[..., Any], *rows: np.ndarray) -> NDArray[np.float64]:
    """What a function of float32 tensors gives for rows of arrays, put together."""
    parts = []
    for start in range(0, len(rows[0]), _BATCH_SIZE):
        some = (each[start : start + _BATCH_SIZE].astype("float32") for each in rows)
        found = function(*map(ops.convert_to_tensor, some))
        parts.append(ops.convert_to_numpy(found).astype("float64"))
    return np.concatenate(parts)


def _error(values: NDArray[np.float64]) -> float:
    """Of the mean over `(num_draws, num_images)`, for other draws for the same images."""
    num_draws, num_images = values.shape
    return float(np.sqrt(values.var(axis=0, ddof=1).sum() / num_draws)) / num_images


def _marginal_divergences(aggregate: AggregatePosterior) -> NDArray[np.float64]:
    """KL(q(z_j) || N(0, 1)) of each unit, by the trapezoid rule."""
    places, density = aggregate.marginals()
    log_normal = -0.5 * (places**2 + math.log(2 * math.pi))
    # Where the density is nothing, so is its product with its logarithm.
    log_ratio = np.log(np.maximum(density, np.finfo(float).tiny)) - log_normal
    return np.asarray(np.trapezoid(density * log_ratio, places, axis=1))
