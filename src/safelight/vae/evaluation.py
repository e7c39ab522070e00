"""What a variational autoencoder is worth: numbers with intervals, and how each was made.

report = evaluate(model, (test_images, test_labels), train=(train_images, train_labels))
report.log_likelihood, report.active_units, report.protocol
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from safelight.metrics import INTERVAL_METHOD, Interval, mean_intervals
from safelight.vae.aggregate import AggregatePosterior
from safelight.vae.estimates import (
    LogLikelihood,
    Progress,
    describe_pixels,
    draw_pixels,
    estimate_log_likelihood,
)
from safelight.vae.latent_paths import interpolate, latent_manifold, traverse
from safelight.vae.loops import ACTIVE_VARIANCE
from safelight.vae.models import VAE
from safelight.vae.priors import StandardNormal
from safelight.vae.probes import ProbeReport, choose, probe
from safelight.vae.surgery import MAX_IMAGES, Surgery, dissect, dissect_posterior, kl_per_unit

# What is done with a trained model stands together here for those who use it.
__all__ = [
    "LogLikelihood",
    "VAEReport",
    "active_units",
    "dissect",
    "estimate_log_likelihood",
    "evaluate",
    "interpolate",
    "latent_manifold",
    "posterior_means",
    "probe",
    "squared_errors",
    "traverse",
]
_NUM_RESAMPLES = 1000
_NUM_DRAWS = 2  # of z, for the surgery: many images make up for few draws of each
_MEAN_DRAWS = 16  # of z, for each of two averages that estimate its mean


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class VAEReport:
    """Numbers on a test part, in nats per image; intervals are for other images of the same kind.

    Attributes:
        elbo: Reconstruction less KL, a lower bound on log p(x).
        reconstruction: log p(x|z) at one draw of z for each image, summed over pixels and channels.
        kl: KL divergence of q(z|x) from the prior, summed over units.
        log_likelihood: log p(x) by importance sampling; `None` where it was left out.
        estimate: What that comes from: a value for each image, errors, speed.
        kl_per_unit: `(latent_dim,)`, what each unit holds; the sum is `kl` where the prior has the
            KL divergence in closed form, else these are divergences from the standard normal.
        active_units: Units whose mean varies from picture to picture; see `active_units`.
        reconstruction_error: Root mean square over images, pixels and channels between grey values
            in [0, 1] and the expected picture at the latent mean.
        probes: What latent means know of the labels; `None` where that was not asked.
        surgery: What the KL divergence is made of, on at most 10,000 of the images; `None` for a
            model with two stochastic layers.
        gap: What log p(x) is above the ELBO of the same images, the KL divergence of q(z|x) from
            p(z|x); `None` where log p(x) was left out.
        num_images: Images that this was measured on; log p(x) and `gap` may be of some of them, as
            many as `estimate` has values.
        protocol: How each number was made, in words.
    """

    elbo: Interval
    reconstruction: Interval
    kl: Interval
    log_likelihood: Interval | None
    estimate: LogLikelihood | None
    kl_per_unit: np.ndarray
    active_units: int
    reconstruction_error: Interval
    probes: ProbeReport | None
    num_images: int
    protocol: dict[str, Any]
    surgery: Surgery | None = None
    gap: Interval | None = None

    def to_dict(self) -> dict[str, Any]:
        """As it stands in `metrics.json`; what was not measured is `None`."""
        estimate = self.estimate
        return {
            "elbo": self.elbo.to_dict(),
            "reconstruction": self.reconstruction.to_dict(),
            "kl": self.kl.to_dict(),
            "log_likelihood": self.log_likelihood and self.log_likelihood.to_dict(),
            "gap": self.gap and self.gap.to_dict(),
            "standard_error": estimate and estimate.standard_error,
            "num_importance_samples": estimate.num_importance_samples if estimate else 0,
            "importance_sampling": estimate and estimate.to_dict(),
            "active_units": self.active_units,
            "latent_dim": len(self.kl_per_unit),
            "kl_per_unit": self.kl_per_unit.tolist(),
            "reconstruction_error": self.reconstruction_error.to_dict(),
            "probes": self.probes and self.probes.to_dict(),
            "surgery": self.surgery and self.surgery.to_dict(),
            "num_images": self.num_images,
            "protocol": self.protocol,
        }


def evaluate(
    model: VAE,
    images: np.ndarray | tuple[np.ndarray, np.ndarray],
    *,
    train: tuple[np.ndarray, np.ndarray] | None = None,
    num_importance_samples: int = 5000,
    num_images: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> VAEReport:
    """Judges a model on pictures that it has not seen.

    Where the model binarises, all likelihoods are for one and the same draw of black and white
    pixels; reconstruction error and probes see grey values.

    Args:
        model: As trained.
        images: The test part: uint8 `(n, height, width, channels)`, or `(images, labels)`; a
            conditional model needs the labels.
        train: Training images and labels to fit probes on; used if the test part has labels too and
            the model is not told them.
        num_importance_samples: For log p(x), for each image; 0 leaves it out.
        num_images: Judge on so many, drawn from the test part; by default on all.
        seed: Of that draw, the noise, the pixels, the resampling and the probes.
        progress: Called with (images done, images in all) while log p(x) is estimated.

    Raises:
        ValueError: Arrays that do not fit the model or each other.
    """
    grey, labels = images if isinstance(images, tuple) else (images, None)
    chosen = choose(len(grey), num_images, seed=seed)
    total = len(grey)
    grey, labels = grey[chosen], None if labels is None else np.asarray(labels)[chosen]
    told = labels if model.num_classes else None
    drawn = draw_pixels(model, grey, seed=seed)
    protocol = _protocol(describe_pixels(model, drawn, seed), len(chosen), total, seed)
    values = model.elbo(drawn, told, seed=seed)
    values["reconstruction_error"] = squared_errors(model, grey, told)
    estimate = None
    if num_importance_samples:
        estimate = estimate_log_likelihood(
            model,
            drawn,
            labels=told,
            num_importance_samples=num_importance_samples,
            seed=seed,
            progress=progress,
        )
        values["log_likelihood"] = estimate.values
        values["gap"] = estimate.values - values["elbo"]
        protocol["log_likelihood"] = estimate.protocol
    probes = None
    if train is not None and labels is not None and told is None:
        probes = probe(model, train, (grey, labels), seed=seed)
        protocol["probes"] = probes.protocol
    encoded = model.encoded(drawn, told)
    mean, log_variance = map(ops.convert_to_numpy, model.prior.posterior(*encoded))
    in_use = active_units(*posterior_means(model, encoded, seed=seed))
    surgery = _dissect(model, mean, log_variance, seed)
    protocol["surgery"] = (
        surgery.protocol if surgery else "left out: q(z|x) of two stochastic layers is no Gaussian"
    )
    intervals = mean_intervals(values, num_resamples=_NUM_RESAMPLES, seed=seed)
    return VAEReport(
        elbo=intervals["elbo"],
        reconstruction=intervals["reconstruction"],
        kl=intervals["kl"],
        log_likelihood=intervals.get("log_likelihood"),
        estimate=estimate,
        kl_per_unit=_kl_per_unit(model, mean, log_variance),
        active_units=int(in_use.sum()),
        reconstruction_error=_root(intervals["reconstruction_error"]),
        probes=probes,
        num_images=len(grey),
        protocol=protocol,
        surgery=surgery,
        gap=intervals.get("gap"),
    )


def active_units(means: np.ndarray, again: np.ndarray | None = None) -> np.ndarray:
    """Which latent units the model uses: the variance of their mean over images exceeds 0.01.

    Args:
        means: `(num_images, latent_dim)`, E[z|x] of different images.
        again: Where `means` are averages of draws, those of other draws: the covariance of both is
            the variance of what they have in common, without the noise of either.

    Returns:
        `(latent_dim,)` bool.

    Source: Burda et al. 2016, arXiv 1509.00519, section 5.2.
    """
    first = np.asarray(means, np.float64)
    second = first if again is None else np.asarray(again, np.float64)
    return ((first - first.mean(0)) * (second - second.mean(0))).mean(0) > ACTIVE_VARIANCE


def posterior_means(
    model: VAE, encoded: Sequence[np.ndarray], *, seed: int = 0
) -> tuple[np.ndarray, ...]:
    """E[z|x], as `active_units` takes it.

    With one stochastic layer it is what the encoder gives. With two, the mean of one layer depends
    on the draw of the other, and its own mean has no closed form: twice the average of 16 draws.

    Args:
        model: As trained.
        encoded: Of `num_images` pictures, as from `model.encoded`.
        seed: Of the draws.

    Returns:
        One or two arrays of `(num_images, latent_dim)`.
    """
    if model.prior.one_layer:
        return (encoded[0],)
    rng, blocks = np.random.default_rng(seed), -(-len(encoded[0]) // 1000)
    parts = [np.array_split(each, blocks) for each in encoded]
    found = []
    for mean, log_variance in zip(*parts, strict=True):
        noise = rng.standard_normal((2, _MEAN_DRAWS, len(mean), model.latent_dim), "float32")
        draws = [
            [
                ops.convert_to_numpy(model.prior.propose(mean, log_variance, each)[0])
                for each in half
            ]
            for half in noise
        ]
        found.append(np.mean(draws, axis=1))
    first, second = np.concatenate(found, axis=1)
    return first, second


def squared_errors(model: VAE, images: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    """Mean squared error of each image's grey values, in [0, 1], against what becomes of it.

    Args:
        model: As trained.
        images: `(num_images, height, width, channels)` uint8.
        labels: `(num_images,)` integers for a conditional model.

    Returns:
        `(num_images,)`, the mean over pixels and channels.
    """
    errors = [
        np.square(
            model.reconstruct(images[rows], None if labels is None else labels[rows])
            - images[rows] / np.float32(255)
        ).mean((1, 2, 3))
        for rows in np.array_split(np.arange(len(images)), -(-len(images) // 1000))
    ]
    return np.concatenate(errors)


def _dissect(model: VAE, mean: np.ndarray, log_variance: np.ndarray, seed: int) -> Surgery | None:
    """The surgery of posteriors, of some where there are very many; `None` for two layers."""
    if not model.prior.one_layer:
        return None
    some = choose(len(mean), MAX_IMAGES, seed=seed)
    aggregate = AggregatePosterior(mean[some], log_variance[some])
    return dissect_posterior(aggregate, model.prior, num_draws=_NUM_DRAWS, seed=seed)


def _kl_per_unit(model: VAE, mean: np.ndarray, log_variance: np.ndarray) -> np.ndarray:
    """`(latent_dim,)`, from the prior, or from the standard normal if that has no closed form."""
    known = (kl_per_unit(mean, log_variance, each) for each in (model.prior, StandardNormal()))
    return next(found for found in known if found is not None)


def _root(square: Interval) -> Interval:
    """Of a mean of squares: the root mean square."""
    return Interval(*np.sqrt([square.value, square.low, square.high]).tolist())


def _protocol(pixels: str, num_images: int, total: int, seed: int) -> dict[str, Any]:
    some = f" of {total:,}, drawn with seed {seed}" if num_images < total else ""
    return {
        "images": f"{num_images:,}{some}",
        "elbo": f"reconstruction less KL in nats per image, one draw of z for each image, {pixels}",
        "active_units": f"variance of the latent mean over the images above {ACTIVE_VARIANCE}",
        "reconstruction_error": "root mean square over pixels, grey values in [0, 1] against the "
        "expected picture at the latent mean",
        "intervals": INTERVAL_METHOD,
        "seed": seed,
    }
