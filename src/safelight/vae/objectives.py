"""The mathematics of variational autoencoders: divergences, likelihoods and bounds, in nats.

Pure functions on `keras.ops`, the same on every backend. Pictures end in `(height, width,
channels)`, latents in `(latent_dim,)`; before these stand any axes, such as `(batch,)` or
`(samples, batch)`. Everything is summed over pixels, channels and latents and never averaged over
them, so that each value is in nats per image. Derivations: docs/theory/elbo.md and
docs/theory/likelihoods.md.
"""

from __future__ import annotations

import math
from typing import Any

from keras import ops

from safelight.generative import gaussians

kl_divergence, kl_per_unit = gaussians.kl_divergence, gaussians.kl_per_unit

_LOG_2PI = math.log(2 * math.pi)
_PIXEL_AXES = (-3, -2, -1)
# Scales beyond these, e^-15 to e^15 of the range from black to white, mean nothing for pictures,
# and their squares would leave float32.
_LOG_SCALE_LIMIT = 15.0
# Below this |logit| the series of the continuous Bernoulli's normaliser is exact in float32.
_SERIES_LIMIT = 0.3


def normal_log_density(z: Any, mean: Any = 0.0, log_variance: Any = 0.0) -> Any:
    """Log density of a diagonal Gaussian, summed over the last axis.

    Args:
        z: `(..., latent_dim)`.
        mean: Broadcastable to `z`.
        log_variance: Broadcastable to `z`.

    Returns:
        `(...)`, nats.
    """
    squares = ops.square(z - mean) * ops.exp(-log_variance)
    return -0.5 * ops.sum(squares + log_variance + _LOG_2PI, axis=-1)


def bernoulli_log_likelihood(x: Any, logits: Any) -> Any:
    """The log probability of black and white pixels, stable for logits of any size.

    Args:
        x: `(..., height, width, channels)` of 0 and 1. Grey values give the negative cross entropy,
            which is not the logarithm of any distribution's value.
        logits: Broadcastable to `x`.

    Returns:
        `(...)`, nats per image: a log probability, at most 0.
    """
    return ops.sum(x * logits - ops.softplus(logits), axis=_PIXEL_AXES)


def continuous_bernoulli_log_likelihood(x: Any, logits: Any) -> Any:
    """Log density of grey values in [0, 1] under the continuous Bernoulli.

    The Bernoulli's formula with the constant that makes it integrate to one: Loaiza-Ganem &
    Cunningham 2019 (arXiv 1907.06845), in the symmetric form `(x - 1/2) l - g(|l|)` of
    docs/theory/likelihoods.md.

    Args:
        x: `(..., height, width, channels)` in [0, 1].
        logits: Broadcastable to `x`.

    Returns:
        `(...)`, nats per image: a log density, which may be positive.
    """
    return ops.sum(
        (x - 0.5) * logits - _continuous_bernoulli_log_normalizer(logits), axis=_PIXEL_AXES
    )


def _continuous_bernoulli_log_normalizer(logits: Any) -> Any:
    """g(|l|) = log(2 sinh(|l| / 2) / |l|), by its series where that is the more exact."""
    size = ops.abs(logits)
    near = size < _SERIES_LIMIT
    # The branch not taken must have a finite gradient too: 0 times infinity would be NaN.
    far = ops.where(near, 1.0, size)
    exact = 0.5 * far + ops.log(-ops.expm1(-far)) - ops.log(far)
    square = ops.square(ops.where(near, logits, 0.0))
    series = square * (1 / 24 - square * (1 / 2880 - square / 181440))
    return ops.where(near, series, exact)


def gaussian_log_likelihood(x: Any, mean: Any, log_scale: Any) -> Any:
    """Log density of pixels under independent Gaussians.

    Args:
        x: `(..., height, width, channels)`.
        mean: Broadcastable to `x`.
        log_scale: Logarithm of the standard deviation, broadcastable to `x`; held within -15 to 15.

    Returns:
        `(...)`, nats per image: a log density, which may be positive.
    """
    log_scale = ops.clip(log_scale, -_LOG_SCALE_LIMIT, _LOG_SCALE_LIMIT)
    squares = ops.square((x - mean) * ops.exp(-log_scale))
    return -0.5 * ops.sum(squares + 2.0 * log_scale + _LOG_2PI, axis=_PIXEL_AXES)


def discretized_logistic_log_likelihood(
    x: Any, mean: Any, log_scale: Any, num_levels: int = 256
) -> Any:
    """The log probability of equally spaced grey levels: a logistic's mass in each bin.

    Black and white take the tails, so that the levels sum to one. Salimans et al. 2017 (arXiv
    1701.05517), equation 2; the differences of sigmoids are computed as the product in
    docs/theory/likelihoods.md, which never cancels.

    Args:
        x: `(..., height, width, channels)` of multiples of `1 / (num_levels - 1)` in [0, 1].
        mean: Broadcastable to `x`.
        log_scale: Logarithm of the logistic's scale, broadcastable to `x`; held within -15 to 15.
        num_levels: Number of grey levels.

    Returns:
        `(...)`, nats per image: a log probability, at most 0.
    """
    log_scale = ops.clip(log_scale, -_LOG_SCALE_LIMIT, _LOG_SCALE_LIMIT)
    # In units of levels, where edges are exact: neighbours then share theirs to the last bit.
    level, mean = ops.round(x * (num_levels - 1)), mean * (num_levels - 1)
    sharpness = ops.exp(-log_scale) / (num_levels - 1)
    above = (level + 0.5 - mean) * sharpness
    below = (level - 0.5 - mean) * sharpness
    black, white = level < 0.5, level > num_levels - 1.5
    log_width = ops.log(-ops.expm1(-sharpness))
    log_p = (
        ops.where(white, 0.0, -ops.softplus(-above))
        + ops.where(black, 0.0, -ops.softplus(below))
        + ops.where(ops.logical_or(black, white), 0.0, log_width)
    )
    return ops.sum(log_p, axis=_PIXEL_AXES)


def elbo(log_likelihood: Any, kl: Any, beta: float = 1.0) -> Any:
    """Evidence lower bound, `log_likelihood - beta * kl`; with beta = 1 it is below log p(x).

    Kingma & Welling 2014, equation 3; beta as in Higgins et al. 2017.
    """
    return log_likelihood - beta * kl


def log_importance_weights(log_likelihood: Any, log_prior: Any, log_posterior: Any) -> Any:
    """The sum log p(x|z) + log p(z) - log q(z|x), all at the same z, drawn from q(z|x)."""
    return log_likelihood + log_prior - log_posterior


def importance_weighted_bound(log_weights: Any, axis: int = 0) -> Any:
    """Lower bound on log p(x) from k draws: the logarithm of their mean weight.

    With k = 1 it is the ELBO's one-sample estimate; it grows with k, in expectation, towards
    log p(x). Burda et al. 2016 (arXiv 1509.00519), equation 8 and theorem 1.

    Args:
        log_weights: As from `log_importance_weights`, k of them along `axis`.
        axis: The axis of the draws.

    Returns:
        The shape without that axis, nats per image.
    """
    num_samples = ops.cast(ops.shape(log_weights)[axis], log_weights.dtype)
    return ops.logsumexp(log_weights, axis=axis) - ops.log(num_samples)


def doubly_reparameterize(z: Any, log_weights: Any, share: Any = 1.0) -> Any:
    """Z again, whose gradient makes that of the importance-weighted bound doubly reparameterized.

    The bound's gradient passes through each draw with its normalised weight w~. As the gradient's
    other part, through the parameters of q(z|x), equals -w~ (1 - w~) times that through z on
    average, leaving it out and scaling the one through z by another w~ gives the same in
    expectation, at less variance: Tucker et al. 2019 (arXiv 1810.04152), equation 7. Where
    log p(z) - log q(z|x) counts by a share s only, the scale is 1 - s + s w~
    (docs/theory/estimators.md).

    Args:
        z: `(samples, batch, latent_dim)`.
        log_weights: `(samples, batch)`, at this z; they get no gradient.
        share: s, 1 but during warm-up.

    Returns:
        The values of `z`.
    """
    return scale_gradient(z, ops.softmax(log_weights, axis=0), share)


def scale_gradient(z: Any, weights: Any, share: Any = 1.0) -> Any:
    """What `doubly_reparameterize` makes of draws whose normalised weights w~ are known.

    Args:
        z: `(..., latent_dim)`.
        weights: `(...)`, w~; they get no gradient.
        share: s, as there.

    Returns:
        The values of `z`.
    """
    weights = ops.stop_gradient(weights)
    still, scale = ops.stop_gradient(z), 1.0 - share + share * weights
    return still + ops.expand_dims(scale, -1) * (z - still)


def resample(log_weights: Any, uniform: Any, num: int) -> Any:
    """Which draws stand for all of them: each as often as its weight says, on average.

    Systematic resampling (Kitagawa 1996, J. Comp. Graph. Stat. 5/1): the places (j + u) / num on
    the sum of the normalised weights w~. Draw i is found num w~_i times on average over u, and
    never more than one time off that.

    Args:
        log_weights: `(samples, batch)`.
        uniform: u, from (0, 1], `(batch,)`.
        num: Draws to find.

    Returns:
        `(num, batch)` int32, numbers of draws.
    """
    sums = ops.cumsum(ops.softmax(log_weights, axis=0), axis=0)
    steps = ops.cast(ops.expand_dims(ops.arange(num), -1), uniform.dtype)
    places = ops.expand_dims((steps + uniform) / num, 1)
    # The last sum is 1 but for rounding: whoever is beyond the one before is there.
    return ops.sum(ops.cast(sums[:-1] < places, "int32"), axis=1)


def apply_free_bits(kl_per_unit_batch: Any, free_bits: float) -> Any:
    """A batch's mean KL divergence in which each unit counts with at least `free_bits`.

    A unit below it gets no gradient from the KL divergence, so nothing drives it to the prior.
    Averaged over the batch before the maximum, as in Kingma et al. 2016 (arXiv 1606.04934).

    Args:
        kl_per_unit_batch: `(batch, latent_dim)`.
        free_bits: Nats per unit; 0 gives the plain mean.

    Returns:
        A scalar, nats per image.
    """
    return ops.sum(ops.maximum(ops.mean(kl_per_unit_batch, axis=0), free_bits))


def warmup_weight(epoch: int, warmup_epochs: int) -> float:
    """The KL divergence's weight in an epoch (the first is 0): rises in equal steps up to 1.

    Epochs 0 to `warmup_epochs - 1` are below 1, as in Bowman et al. 2016 (arXiv 1511.06349) with a
    straight line; without warm-up it is always 1.
    """
    return min(1.0, (epoch + 1) / (warmup_epochs + 1))
