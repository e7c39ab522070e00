"""p(x|z): a table row for each distribution of a picture given what the decoder puts out.

The decoder's output is the *location*, `(..., height, width, channels)`, any real number: logits
for the Bernoulli and the continuous Bernoulli, and for the others what a sigmoid makes a mean of.
A scale, where there is one, is one number per channel and no output of the decoder.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from safelight.vae import objectives

_NUM_LEVELS = 256


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Likelihood:
    """One distribution of pictures. Final: a new one is a new row of `LIKELIHOODS`.

    Attributes:
        name: Its key in `LIKELIHOODS`.
        log_likelihood: `(x, location, log_scale)` to `(...)`, nats per image; `log_scale` is
            ignored where there is none.
        mean: `location` to the expected picture, in [0, 1]; of the discretised logistic the one
            before its tails become black and white, which needs no scale.
        sample: `(location, log_scale, seed)` to a drawn picture, in [0, 1]; `seed` is an integer or
            a `keras.random.SeedGenerator`.
        initial_location: Mean picture, a NumPy array in [0, 1], to the location whose `mean` it is;
            the ends are kept off by a little, since their location is infinite.
        discrete: Whether its value is a log probability, else a log density: the two cannot be
            compared.
        has_scale: Whether there is a scale for each channel.
        scale_trainable: Whether that is learned.
        initial_log_scale: Its logarithm at the start, in units of the range from black to white.
    """

    name: str
    log_likelihood: Callable[[Any, Any, Any], Any]
    mean: Callable[[Any], Any]
    sample: Callable[[Any, Any, Any], Any]
    initial_location: Callable[[np.ndarray], np.ndarray]
    discrete: bool
    has_scale: bool = False
    scale_trainable: bool = False
    initial_log_scale: float = 0.0


def find_likelihood(name: str) -> Likelihood:
    """The row of that name.

    Raises:
        ValueError: There is none.
    """
    if name not in LIKELIHOODS:
        raise ValueError(f"likelihood={name!r}: expected one of {', '.join(LIKELIHOODS)}.")
    return LIKELIHOODS[name]


def choose_likelihood(name: str, binarization: str, *, drawn: bool) -> str:
    """What `"auto"` stands for: Bernoulli for pixels that are drawn black and white.

    Grey values that nobody draws get the discretised logistic, under which they have a probability.

    Args:
        name: Of a likelihood, or `"auto"`.
        binarization: As in `TrainConfig`.
        drawn: Whether pixels are drawn where that says `"auto"`, too.
    """
    if name != "auto":
        return name
    drawn = drawn if binarization == "auto" else binarization != "none"
    return "bernoulli" if drawn else "discretized_logistic"


def find_binarization(name: str | None, likelihood: str) -> str:
    """What is done to pixels before that likelihood judges them: `"dynamic"` or `"none"`.

    Args:
        name: One of these, or `None` for what suits the likelihood.
        likelihood: Its name.

    Raises:
        ValueError: Another name, or black and white pixels for another likelihood than Bernoulli.
    """
    if name is None:
        return "dynamic" if likelihood == "bernoulli" else "none"
    if name not in ("dynamic", "none"):
        raise ValueError(f"binarization={name!r}: expected 'dynamic', 'none' or None.")
    if name == "dynamic" and likelihood != "bernoulli":
        raise ValueError(
            f"binarization='dynamic' with likelihood={likelihood!r}: black and white pixels need "
            "likelihood='bernoulli', or binarization='none'."
        )
    return name


def _logit(mean_picture: np.ndarray) -> np.ndarray:
    # A pixel that was always black may yet be white once: one in a thousand costs little.
    mean = np.clip(np.asarray(mean_picture, np.float64), 1e-3, 1 - 1e-3)
    return (np.log(mean) - np.log1p(-mean)).astype("float32")


def _uniform(location: Any, seed: Any) -> Any:
    return keras.random.uniform(ops.shape(location), dtype="float32", seed=seed)


def _bernoulli_log_likelihood(x: Any, location: Any, log_scale: Any) -> Any:
    """As one row of pixels, over which compiled loops run a tenth faster than over three axes."""
    x, location = (ops.reshape(t, (*ops.shape(t)[:-3], 1, 1, -1)) for t in (x, location))
    return objectives.bernoulli_log_likelihood(x, location)


def _sample_bernoulli(location: Any, log_scale: Any, seed: Any) -> Any:
    return ops.cast(_uniform(location, seed) < ops.sigmoid(location), "float32")


def _continuous_bernoulli_mean(location: Any) -> Any:
    """1 / (1 - e^-l) - 1 / l, by its series near 0: 1/2 + l/12 - l^3/720 + l^5/30240."""
    near = ops.abs(location) < 0.3
    far = ops.where(near, 1.0, location)
    small = ops.where(near, location, 0.0)
    square = ops.square(small)
    series = 0.5 + small * (1 / 12 - square * (1 / 720 - square / 30240))
    # The mean of |l|, mirrored: e^|l| of a large l would be infinite.
    size = ops.abs(far)
    mirrored = -1.0 / ops.expm1(-size) - 1.0 / size
    return ops.where(near, series, ops.where(far > 0.0, mirrored, 1.0 - mirrored))


def _continuous_bernoulli_location(mean_picture: np.ndarray) -> np.ndarray:
    """The logits with that mean, which rises with them, by bisection."""
    mean = np.clip(np.asarray(mean_picture, np.float64), 0.02, 0.98)
    low, high = np.full_like(mean, -60.0), np.full_like(mean, 60.0)
    for _ in range(50):
        middle = (low + high) / 2
        # An exact 0 has no quotient; beside it the mean is the same to ten digits.
        logits = np.where(np.abs(middle) < 1e-6, 1e-6, middle)
        too_high = -1.0 / np.expm1(-logits) - 1.0 / logits > mean
        low, high = np.where(too_high, low, middle), np.where(too_high, middle, high)
    return middle.astype("float32")


def _sample_continuous_bernoulli(location: Any, log_scale: Any, seed: Any) -> Any:
    """By the inverse of the distribution function: log(1 + u (e^l - 1)) / l."""
    uniform = _uniform(location, seed)
    near = ops.abs(location) < 1e-3
    size = ops.where(near, 1.0, ops.abs(location))
    # That of |l| is written with e^-|l|, and mirrored for a negative l.
    drawn = 1.0 + ops.log(uniform + (1.0 - uniform) * ops.exp(-size)) / size
    drawn = ops.where(location > 0.0, drawn, 1.0 - drawn)
    return ops.clip(ops.where(near, uniform, drawn), 0.0, 1.0)


def _gaussian_log_likelihood(x: Any, location: Any, log_scale: Any) -> Any:
    return objectives.gaussian_log_likelihood(x, ops.sigmoid(location), log_scale)


def _sample_gaussian(location: Any, log_scale: Any, seed: Any) -> Any:
    noise = keras.random.normal(ops.shape(location), dtype="float32", seed=seed)
    return ops.clip(ops.sigmoid(location) + ops.exp(log_scale) * noise, 0.0, 1.0)


def _discretized_logistic_log_likelihood(x: Any, location: Any, log_scale: Any) -> Any:
    mean = ops.sigmoid(location)
    return objectives.discretized_logistic_log_likelihood(x, mean, log_scale, _NUM_LEVELS)


def _sample_discretized_logistic(location: Any, log_scale: Any, seed: Any) -> Any:
    uniform = ops.clip(_uniform(location, seed), 1e-6, 1.0 - 1e-6)
    noise = ops.log(uniform) - ops.log1p(-uniform)
    drawn = ops.clip(ops.sigmoid(location) + ops.exp(log_scale) * noise, 0.0, 1.0)
    return ops.round(drawn * (_NUM_LEVELS - 1)) / (_NUM_LEVELS - 1)


_ROWS = (
    Likelihood(
        name="bernoulli",
        log_likelihood=_bernoulli_log_likelihood,
        mean=ops.sigmoid,
        sample=_sample_bernoulli,
        initial_location=_logit,
        discrete=True,
    ),
    Likelihood(
        name="continuous_bernoulli",
        log_likelihood=lambda x, location, _: objectives.continuous_bernoulli_log_likelihood(
            x, location
        ),
        mean=_continuous_bernoulli_mean,
        sample=_sample_continuous_bernoulli,
        initial_location=_continuous_bernoulli_location,
        discrete=False,
    ),
    Likelihood(
        name="gaussian",
        log_likelihood=_gaussian_log_likelihood,
        mean=ops.sigmoid,
        sample=_sample_gaussian,
        initial_location=_logit,
        discrete=False,
        has_scale=True,
        initial_log_scale=math.log(0.1),
    ),
    Likelihood(
        name="learned_gaussian",
        log_likelihood=_gaussian_log_likelihood,
        mean=ops.sigmoid,
        sample=_sample_gaussian,
        initial_location=_logit,
        discrete=False,
        has_scale=True,
        scale_trainable=True,
        initial_log_scale=math.log(0.25),
    ),
    Likelihood(
        name="discretized_logistic",
        log_likelihood=_discretized_logistic_log_likelihood,
        mean=ops.sigmoid,
        sample=_sample_discretized_logistic,
        initial_location=_logit,
        discrete=True,
        has_scale=True,
        scale_trainable=True,
        initial_log_scale=math.log(0.1),
    ),
)
LIKELIHOODS = {row.name: row for row in _ROWS}
