"""p(z): the distribution of the latents before a picture is seen.

A prior is a serializable Keras layer with `log_density`, `sample` and `kl_per_unit`. The last may
return `None` where there is no closed form; the model then takes log q(z|x) - log p(z) at the draw.
"""

from __future__ import annotations

from typing import Any

import keras

from safelight.vae import objectives


@keras.saving.register_keras_serializable(package="safelight")
class StandardNormal(keras.layers.Layer):
    """Independent normal latents of mean 0 and variance 1. Final."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})

    def call(self, z: Any) -> Any:
        return self.log_density(z)

    def log_density(self, z: Any) -> Any:
        """The log density of z, `(..., latent_dim)`: `(...)`, nats."""
        return objectives.normal_log_density(z)

    def sample(self, shape: tuple[int, ...], seed: Any) -> Any:
        """Draws of a shape that ends in `latent_dim`; `seed`: an integer or a `SeedGenerator`."""
        return keras.random.normal(shape, dtype="float32", seed=seed)

    def kl_per_unit(self, mean: Any, log_variance: Any) -> Any | None:
        """KL(q || p) of a diagonal Gaussian q, `(..., latent_dim)`, nats; `None`: not closed."""
        return objectives.kl_per_unit(mean, log_variance)


PRIORS = {"normal": StandardNormal}


def find_prior(name: str) -> keras.layers.Layer:
    """A new prior of that name.

    Raises:
        ValueError: There is none.
    """
    if name not in PRIORS:
        raise ValueError(f"prior={name!r}: expected one of {', '.join(PRIORS)}.")
    return PRIORS[name]()
