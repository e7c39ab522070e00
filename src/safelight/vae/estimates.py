"""log p(x) by importance sampling, with q(z|x) as proposal: the number that models are compared by.

    p(x) = E_q(z|x) [ w(z) ],   w(z) = p(x|z) p(z) / q(z|x)

The logarithm of the mean of k weights is the importance-weighted bound of Burda et al. 2016
(arXiv 1509.00519, equation 8). In expectation it grows with k and stays below log p(x), for many
samples by half the square of the image's Monte Carlo error.

What makes it fast: each image is encoded once; many latents go through the decoder in one compiled
call, in blocks that stay in the processor's cache; sums over weights run on, so that memory does
not grow with the number of samples; and `importance_weights` has a short cut for dense decoders,
whose error is measured on a part of the samples every time. What makes it repeatable: every image
has a stream of random bits of its own, so that the numbers depend on the seed, and not on how
images and samples are cut into blocks.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from safelight.environment import describe_environment
from safelight.vae.importance_weights import DenseDecoder
from safelight.vae.models import VAE
from safelight.vae.weighing import Weigher

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""

PRECISIONS = ("auto", "float32", "bfloat16")
MIN_SAMPLES = 512
"""For fewer of them "auto" is "float32": looking for certain pixels would not pay."""
_MAX_ERROR = 0.1  # nats, of a sample's log w


@dataclasses.dataclass(frozen=True, eq=False)
class LogLikelihood:
    """log p(x) of images, in nats per image, and how sure it is.

    Attributes:
        values: `(num_images,)` float64, the estimate for each image.
        mean: Over the images.
        standard_error: Of the mean, for other images of the same kind: their standard deviation
            over the root of their number. NaN for a single image.
        monte_carlo_error: Of the mean, for other importance samples of the same images (a standard
            deviation, by the delta method from the variance of the weights). NaN for k = 1.
        effective_sample_size: Median over the images of (sum w)^2 / sum w^2: as many draws from the
            true posterior would weigh as much. Where it is a few only, the estimate is low and
            `monte_carlo_error` too small.
        approximation_error: Root mean square of what the short cut changed in log w, over the
            samples on which it was checked, nats; 0 without it. Of the estimate it changes less.
        num_importance_samples: k, for each image.
        seconds: Wall time.
        protocol: What was estimated, in a line that belongs beside the number.
    """

    values: np.ndarray
    mean: float
    standard_error: float
    monte_carlo_error: float
    effective_sample_size: float
    approximation_error: float
    num_importance_samples: int
    seconds: float
    protocol: str

    @property
    def images_per_second(self) -> float:
        """Images, with all their samples."""
        return len(self.values) / self.seconds

    def to_dict(self) -> dict[str, Any]:
        """The numbers without the values, as they stand in `metrics.json`."""
        names = (
            *("standard_error", "monte_carlo_error", "effective_sample_size"),
            *("approximation_error", "num_importance_samples", "seconds", "images_per_second"),
        )
        return {name: getattr(self, name) for name in names} | {"num_images": len(self.values)}


def estimate_log_likelihood(
    model: VAE,
    images: np.ndarray,
    *,
    labels: np.ndarray | None = None,
    num_importance_samples: int = 5000,
    precision: str = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> LogLikelihood:
    """Estimates log p(x) of each image.

    Args:
        model: As trained.
        images: `(num_images, height, width, channels)` uint8.
        labels: `(num_images,)` integers for a conditional model, which gives log p(x|label).
        num_importance_samples: k, samples from q(z|x) for each image.
        precision: `"float32"`: every pixel of every sample as the model computes it. `"bfloat16"`:
            the short cut of `importance_weights`, for black and white pixels and dense decoders;
            on digits it changed the mean by less than 0.001 nats. `"auto"`: the short cut where it
            applies, the processor multiplies in bfloat16 and there are samples enough to pay.
        seed: Of the noise, and of the one draw that makes pixels black or white where the model
            knows such pixels only.
        progress: Called with (images done, images in all).

    Raises:
        ValueError: No images or samples, arrays that do not fit the model, a precision that the
            model does not allow, or weights of the model that are not finite.

    Source: Burda et al. 2016, arXiv 1509.00519, section 5.
    """
    if len(images) < 1 or num_importance_samples < 1:
        raise ValueError(
            f"{len(images)} images, num_importance_samples={num_importance_samples}: expected at "
            "least 1 of each."
        )
    start = time.perf_counter()
    decoder = _find_short_cut(model, precision, num_importance_samples)
    drawn = draw_pixels(model, images, seed=seed)
    weigher = Weigher(model, drawn, labels, num_samples=num_importance_samples, seed=seed)
    sums = _RunningSums(len(images), num_importance_samples)
    for group, log_weights in weigher.weigh_shortly(decoder) if decoder else weigher.weigh():
        sums.add(group, log_weights)
        if progress:
            progress(sums.num_done, len(images))
    if weigher.error > _MAX_ERROR:
        logger.warning(
            "the short cut changed a sample's log p(x, z) by %.2f nats (root mean square): "
            "estimate with precision='float32' instead.",
            weigher.error,
        )
    protocol = (
        f"log p(x) in nats per image, {num_importance_samples:,} importance samples from q(z|x), "
        f"{describe_pixels(model, drawn, seed)}, {len(images):,} images"
    )
    if decoder:
        protocol += f"; products in bfloat16 around their mean (log w off by {weigher.error:.2g})"
    return sums.summary(time.perf_counter() - start, protocol, weigher.error)


def draw_pixels(model: VAE, images: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Images as the model is judged on them: where it binarises, one draw, the same for all uses.

    Args:
        model: Whose `binarization` decides.
        images: `(num_images, height, width, channels)` uint8.
        seed: Of the draw.

    Returns:
        The same shape, uint8; of black (0) and white (255) only where the model binarises, so that
        its own draws leave them as they are.

    Raises:
        ValueError: Images of another dtype.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise ValueError(
            f"images have dtype {images.dtype}: expected uint8, 0 to 255. Scale values in [0, 1] "
            "by 255 and round."
        )
    if model.binarization == "none":
        return images
    generator = keras.random.SeedGenerator(seed)
    parts = [
        ops.convert_to_numpy(model.prepare(images[start : start + 1000], seed=generator))
        for start in range(0, len(images), 1000)
    ]
    return (255 * np.concatenate(parts)).astype("uint8")


def describe_pixels(model: VAE, images: np.ndarray, seed: int) -> str:
    """What is modelled, for a protocol: which pixels, and whether its density or probability.

    Args:
        model: As trained.
        images: uint8, as from `draw_pixels`.
        seed: Of that draw.
    """
    name = model.likelihood.name.replace("_", " ")
    if model.binarization != "none":
        pixels = f"dynamic binarisation (one draw, seed {seed})"
    elif model.likelihood.name != "bernoulli":
        pixels = f"pixels as they are, {name}"
    elif np.all((images == 0) | (images == 255)):
        pixels = f"black and white pixels as they are, {name}"
    else:
        pixels = f"grey pixels as they are, {name} (a cross entropy, no likelihood)"
    dtypes = {layer.compute_dtype for layer in model.decoder.layers} - {"float32"}
    products = f", products in {dtypes.pop()}" if dtypes else ""
    return f"{pixels}{'' if model.likelihood.discrete else ' (a density)'}{products}"


def _find_short_cut(model: VAE, precision: str, num_samples: int) -> DenseDecoder | None:
    """The decoder as the short cut takes it, or `None` where every pixel is to be computed."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r}: expected one of {', '.join(PRECISIONS)}.")
    pays = num_samples >= MIN_SAMPLES and _multiplies_bfloat16()
    if precision == "float32" or (precision == "auto" and not pays):
        return None
    decoder = DenseDecoder.find(model)
    if decoder is None and precision == "bfloat16":
        raise ValueError(
            "precision='bfloat16' needs the Bernoulli likelihood and a decoder of dense layers, as "
            "from build_decoder: pass 'auto' or 'float32' for this model."
        )
    return decoder


@functools.cache
def _multiplies_bfloat16() -> bool:
    return any(describe_environment()["bfloat16"].values())


class _RunningSums:
    """Sums of w and of w^2 for each image, relative to its largest w so far, in float64."""

    def __init__(self, num_images: int, num_samples: int) -> None:
        self._num_samples = num_samples
        self._count = np.zeros(num_images, int)
        self._peak = np.full(num_images, -np.inf)
        self._total, self._squares = np.zeros((2, num_images))

    @property
    def num_done(self) -> int:
        """Images all of whose samples are in."""
        return int((self._count == self._num_samples).sum())

    def add(self, images: np.ndarray, log_weights: np.ndarray) -> None:
        """Takes in `(len(images), any number)` more."""
        peak = np.maximum(self._peak[images], log_weights.max(1))
        shrink = np.exp(self._peak[images] - peak)
        weights = np.exp(log_weights - peak[:, None])
        self._total[images] = self._total[images] * shrink + weights.sum(1)
        self._squares[images] = self._squares[images] * shrink**2 + (weights**2).sum(1)
        self._peak[images] = peak
        self._count[images] += log_weights.shape[1]

    def summary(self, seconds: float, protocol: str, error: float) -> LogLikelihood:
        """The estimate, once all samples are in."""
        k, num_images = self._num_samples, len(self._peak)
        values = self._peak + np.log(self._total) - math.log(k)
        effective = self._total**2 / self._squares
        # The variance of log(mean w) is that of w over k and its squared mean.
        variances = (k / effective - 1) / (k - 1 or math.nan)
        several = num_images > 1
        return LogLikelihood(
            values=values,
            mean=float(values.mean()),
            standard_error=float(values.std(ddof=1) / num_images**0.5) if several else math.nan,
            monte_carlo_error=float(np.sqrt(variances.sum())) / num_images,
            effective_sample_size=float(np.median(effective)),
            approximation_error=error,
            num_importance_samples=k,
            seconds=seconds,
            protocol=protocol,
        )
