"""How noisy the gradient of a loss is: the same pictures, other draws of z.

Two estimators with one mean are told apart by this alone (docs/theory/estimators.md):

    model.gradient = "stl"
    measure_noise(model, images)["encoder"].variance
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from safelight.generative.backends import find_backend
from safelight.generative.inputs import check_images
from safelight.vae.models import VAE

PARTS = ("encoder", "decoder", "prior")


@dataclasses.dataclass(frozen=True)
class GradientNoise:
    """Of the gradient of one part of a model, over draws of z.

    Attributes:
        variance: Summed over the weights.
        squared_norm: Of the mean gradient, estimated without bias; it may be negative where noise
            is all there is.
        num_draws: Gradients that were looked at.
    """

    variance: float
    squared_norm: float
    num_draws: int

    @property
    def signal_to_noise(self) -> float:
        """The norm of the mean over the standard deviation, of a single draw."""
        return float(np.sqrt(max(self.squared_norm, 0.0) / self.variance))


def measure_noise(
    model: VAE, images: np.ndarray, *, num_draws: int = 100, seed: int = 0
) -> dict[str, GradientNoise]:
    """Mean and variance of the gradient that a training step on these pictures would take.

    Args:
        model: An unconditional one; its `gradient`, `num_samples`, `backward_samples` and
            `kl_weight` count.
        images: uint8 `(batch, height, width, channels)`; where the model binarises, drawn black and
            white once for all draws of z.
        num_draws: Of z, at least 2.
        seed: Of the draws.

    Returns:
        `"encoder"`, `"decoder"`, and `"prior"` where it has weights.

    Raises:
        ValueError: Too few draws, or images that do not fit.
    """
    if num_draws < 2:
        raise ValueError(f"num_draws={num_draws}: expected 2 or more, to know a variance.")
    # Welford's sums: the draws themselves would be a hundred copies of the weights.
    mean = squares = None
    for number, drawn in enumerate(draw_gradients(model, images, num_draws, seed=seed), start=1):
        if mean is None or squares is None:
            mean, squares = [np.zeros_like(each) for each in drawn], [0.0] * len(drawn)
        for i, each in enumerate(drawn):
            step = each - mean[i]
            mean[i] = mean[i] + step / number
            squares[i] += float((step * (each - mean[i])).sum())
    assert mean is not None
    assert squares is not None
    return {
        part: _sum_up([mean[i] for i in rows], [squares[i] for i in rows], num_draws)
        for part, rows in _owners(model).items()
    }


def draw_gradients(
    model: VAE, images: np.ndarray, num_draws: int, *, seed: int = 0
) -> Iterator[list[NDArray[np.float64]]]:
    """Gradients of the loss, one for each draw: an array for each of `model.trainable_variables`.

    Arguments and errors as of `measure_noise`.
    """
    backend, variables = find_backend(), list(model.trainable_variables)
    x = model.prepare(check_images(images, model.image_shape), seed=seed)
    samples = () if model.num_samples == 1 else (model.num_samples,)
    rng, choices = np.random.default_rng(seed), np.random.default_rng([seed, 1])

    def loss(noise: Any, uniform: Any, weights: list[Any]) -> tuple[Any, Any]:
        pairs = list(zip(variables, weights, strict=True))
        with keras.StatelessScope(state_mapping=pairs):
            terms = model.terms(x, num_samples=model.num_samples, noise=noise, uniform=uniform)
            return model.objective(terms)

    def gradients(noise: Any, uniform: Any, weights: list[Any]) -> list[Any]:
        return backend.gradient(lambda weights: loss(noise, uniform, weights), weights)[1]

    compiled = backend.compile(gradients, True)
    weights = [backend.tensor(ops.convert_to_numpy(v)) for v in variables]
    for _ in range(num_draws):
        noise = rng.normal(size=(*samples, len(images), model.latent_dim)).astype("float32")
        uniform = 1.0 - choices.random(len(images), "float32")
        found = compiled(backend.tensor(noise), backend.tensor(uniform), weights)
        yield [ops.convert_to_numpy(each).astype(np.float64) for each in found]


def _owners(model: VAE) -> dict[str, list[int]]:
    """Which of the trainable variables belong to which part."""
    found = {}
    for part in PARTS:
        owned = {id(v) for v in getattr(model, part).trainable_variables}
        rows = [i for i, v in enumerate(model.trainable_variables) if id(v) in owned]
        if rows:
            found[part] = rows
    return found


def _sum_up(
    means: list[NDArray[np.float64]], squares: list[float], num_draws: int
) -> GradientNoise:
    variance = sum(squares) / (num_draws - 1)
    squared_norm = sum(float(np.square(mean).sum()) for mean in means) - variance / num_draws
    return GradientNoise(variance, squared_norm, num_draws)
