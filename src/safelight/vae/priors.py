"""p(z): the distribution of the latents before a picture is seen.

A prior is a serializable Keras layer derived from `Prior`. A learned one takes the place of the
standard normal in the ELBO: what it gains is the KL divergence of the aggregate posterior from the
prior (Hoffman & Johnson 2016), which the standard normal pays for nothing. Flows are in `flows`,
priors of two stochastic layers in `ladders`.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from safelight.generative.backends import full_product
from safelight.vae import objectives

# Standard deviations of a mixture's components lie between e^-5 and e^5.
_LOG_VARIANCE_LIMIT = 10.0
# Pixels of a pseudo-input begin at least that far from black and white, where a sigmoid learns.
_PIXEL_MARGIN = 0.02


class Prior(keras.layers.Layer):
    """What all priors share; a subclass has `log_density` and `sample`.

    Everything is float32, whatever the policy.

    Attributes:
        one_layer: Whether q(z|x) is the diagonal Gaussian that the encoder gives.
    """

    one_layer = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})

    def connect(self, encoder: keras.Model, latent_dim: int) -> None:
        """Makes the prior's weights, once it is known which latents it is for.

        Args:
            encoder: The model's, which `VampPrior` borrows.
            latent_dim: Units that the decoder takes.
        """
        self.built = True

    def num_latents(self, visible: int) -> int:
        """Units of z where the decoder takes so many."""
        return visible

    def num_encoded(self, visible: int) -> int:
        """Units of which the encoder gives mean and log variance."""
        return visible

    def visible(self, z: Any) -> Any:
        """The units of z, `(..., latent_dim)`, that the decoder takes."""
        return z

    def start_from(self, images: np.ndarray) -> None:
        """Lets training pictures, uint8 `(n, height, width, channels)`, set where it begins."""

    def call(self, z: Any) -> Any:
        return self.log_density(z)

    def log_density(self, z: Any) -> Any:
        """The log density of z, `(..., latent_dim)`: `(...)`, nats."""
        raise NotImplementedError

    def sample(self, shape: tuple[int, ...], seed: Any, *, temperature: float = 1.0) -> Any:
        """Draws of a shape that ends in `latent_dim`.

        Args:
            shape: Of the result.
            seed: An integer or a `SeedGenerator`.
            temperature: Factor of the draw's distance from the middle of the prior, or of its
                component; of a flow's, before the map.
        """
        raise NotImplementedError

    def kl_per_unit(self, mean: Any, log_variance: Any) -> Any | None:
        """KL(q || p) of a diagonal Gaussian q, `(..., latent_dim)`, nats; `None`: not closed."""
        return None

    def propose(
        self, mean: Any, log_variance: Any, noise: Any, *, fixed: bool = False
    ) -> tuple[Any, Any, Any]:
        """Latents from q(z|x), and their densities.

        Args:
            mean: What the encoder gives, `(..., latent_dim)`.
            log_variance: The same shape.
            noise: Draws from N(0, 1), `(..., latent_dim)`; further axes stand before.
            fixed: Whether log q(z|x) has a gradient through z alone and not through its parameters
                as well (Roeder et al. 2017, arXiv 1703.09194).

        Returns:
            z, log p(z) and log q(z|x); the last two without the last axis, nats.
        """
        mean, log_variance, noise = map(ops.convert_to_tensor, (mean, log_variance, noise))
        z = mean + ops.exp(0.5 * log_variance) * noise
        log_posterior = posterior_log_density(z, mean, log_variance, noise, fixed=fixed)
        return z, self.log_density(z), log_posterior

    def posterior(self, mean: Any, log_variance: Any) -> tuple[Any, Any]:
        """Mean and log variance of q(z|x), `(..., latent_dim)` each, from what the encoder gives.

        Where there are two layers, those of one layer at the mean of the other.
        """
        return mean, log_variance

    def settled(self) -> Prior:
        """A prior of the same density whose weights are all its own, and quicker where it can be.

        For many evaluations of a model that is not trained meanwhile.
        """
        return self


def posterior_log_density(
    z: Any, mean: Any, log_variance: Any, noise: Any = None, *, fixed: bool = False
) -> Any:
    """Log q(z|x) of `z = mean + exp(log_variance / 2) * noise`; `fixed` as in `Prior.propose`."""
    if fixed:
        mean, log_variance = ops.stop_gradient(mean), ops.stop_gradient(log_variance)
        return objectives.normal_log_density(z, mean, log_variance)
    # The same number without a cancellation: the distance from the mean is the noise.
    return objectives.normal_log_density(noise) - 0.5 * ops.sum(log_variance, axis=-1)


def as_generator(seed: Any) -> keras.random.SeedGenerator:
    """A generator that begins at an integer, or the one that was passed."""
    return (
        seed if isinstance(seed, keras.random.SeedGenerator) else keras.random.SeedGenerator(seed)
    )


@keras.saving.register_keras_serializable(package="safelight")
class StandardNormal(Prior):
    """Independent normal latents of mean 0 and variance 1. Final."""

    def log_density(self, z: Any) -> Any:
        """As `Prior.log_density`."""
        return objectives.normal_log_density(z)

    def sample(self, shape: tuple[int, ...], seed: Any, *, temperature: float = 1.0) -> Any:
        """As `Prior.sample`."""
        return temperature * keras.random.normal(shape, dtype="float32", seed=seed)

    def kl_per_unit(self, mean: Any, log_variance: Any) -> Any | None:
        """As `Prior.kl_per_unit`."""
        return objectives.kl_per_unit(mean, log_variance)


class _OfComponents(Prior):
    """A weighted sum of diagonal Gaussians: `components` gives them."""

    def __init__(self, num_components: int = 100, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_components < 1:
            raise ValueError(f"num_components={num_components}: expected at least 1.")
        self.num_components = num_components

    def components(self) -> tuple[Any, Any, Any]:
        """Means and log variances `(num_components, latent_dim)`, log shares `(num_components,)`.

        The shares sum to one.
        """
        raise NotImplementedError

    def log_density(self, z: Any) -> Any:
        """As `Prior.log_density`."""
        means, log_variances, log_shares = self.components()
        return mixture_log_density(z, means, log_variances, log_shares)

    def sample(self, shape: tuple[int, ...], seed: Any, *, temperature: float = 1.0) -> Any:
        """As `Prior.sample`."""
        seed = as_generator(seed)  # there are two draws
        means, log_variances, log_shares = self.components()
        num = math.prod(shape[:-1])
        chosen = keras.random.categorical(log_shares[None], num, seed=seed)[0]
        noise = keras.random.normal((num, shape[-1]), dtype="float32", seed=seed)
        scales = ops.exp(0.5 * ops.take(log_variances, chosen, axis=0))
        return ops.reshape(ops.take(means, chosen, axis=0) + temperature * scales * noise, shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_components": self.num_components}


def mixture_log_density(z: Any, means: Any, log_variances: Any, log_shares: Any) -> Any:
    """Log density of a mixture of diagonal Gaussians.

    The squares are multiplied out, so that all components are two products of matrices: the
    memory is `(..., num_components)` and never times `latent_dim`. The price: float32 loses about
    1e-7 of the squared distance from nought in deviations, summed over units, which is .002 nats
    at 3 with a deviation of .1 in each of 40 units, and .6 with one of .007.

    Args:
        z: `(..., latent_dim)`.
        means: `(num_components, latent_dim)`.
        log_variances: The same shape.
        log_shares: `(num_components,)`, logarithms of shares that sum to one.

    Returns:
        `(...)`, nats.
    """
    precisions = ops.exp(-log_variances)
    constant = log_shares - 0.5 * ops.sum(
        means * means * precisions + log_variances + math.log(2 * math.pi), axis=-1
    )
    linear = full_product(z, ops.transpose(means * precisions))
    square = full_product(z * z, ops.transpose(precisions))
    return ops.logsumexp(linear - 0.5 * square + constant, axis=-1)


@keras.saving.register_keras_serializable(package="safelight")
class Mixture(_OfComponents):
    """A mixture of diagonal Gaussians: means, variances and shares are all learned.

    Args:
        num_components: Gaussians.
        seed: Of their first means, drawn from N(0, 1).
    """

    def __init__(self, num_components: int = 100, *, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(num_components, **{"name": "mixture", **kwargs})
        self.seed = seed

    def connect(self, encoder: keras.Model, latent_dim: int) -> None:
        """As `Prior.connect`."""
        shape = (self.num_components, latent_dim)
        scattered = keras.initializers.RandomNormal(stddev=1.0, seed=self.seed)
        self.means = self.add_weight(name="means", shape=shape, initializer=scattered)
        self.log_variances = self.add_weight(name="log_variances", shape=shape, initializer="zeros")
        self.logits = self.add_weight(name="logits", shape=shape[:1], initializer="zeros")
        self.built = True

    def components(self) -> tuple[Any, Any, Any]:
        """Its own weights."""
        limit = _LOG_VARIANCE_LIMIT
        log_variances = ops.clip(self.log_variances, -limit, limit)
        return ops.convert_to_tensor(self.means), log_variances, ops.log_softmax(self.logits)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}


@keras.saving.register_keras_serializable(package="safelight")
class VampPrior(_OfComponents):
    """The mean of q(z|u) over learned pictures u: Tomczak & Welling 2018, arXiv 1705.07120.

    The best prior there is is the aggregate posterior, the mean of q(z|x) over all training
    pictures. This is its miniature: pseudo-inputs in place of the pictures, with equal shares.

    Args:
        num_components: Pseudo-inputs.
        seed: Of their first pixels, where `start_from` gives none.
    """

    def __init__(self, num_components: int = 500, *, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(num_components, **{"name": "vamp_prior", **kwargs})
        self.seed = seed

    def connect(self, encoder: keras.Model, latent_dim: int) -> None:
        """As `Prior.connect`."""
        if len(encoder.inputs) > 1:
            raise ValueError(
                "the VampPrior of a conditional model would need labels for its pseudo-inputs: "
                "expected prior='mixture' or 'flow', or conditional=False."
            )
        shape = (self.num_components, *encoder.inputs[0].shape[1:])
        grey = keras.initializers.RandomNormal(stddev=1.0, seed=self.seed)
        self.pixels = self.add_weight(name="pixels", shape=shape, initializer=grey)
        self._lent = _Lent(encoder, latent_dim)
        self.built = True

    def start_from(self, images: np.ndarray) -> None:
        """Makes some of them the first pseudo-inputs, drawn with the prior's seed."""
        rng = np.random.default_rng(self.seed)
        rows = rng.choice(
            len(images), self.num_components, replace=len(images) < self.num_components
        )
        grey = np.clip(images[np.sort(rows)] / 255.0, _PIXEL_MARGIN, 1 - _PIXEL_MARGIN)
        self.pixels.assign(np.log(grey / (1 - grey)).astype("float32"))

    @property
    def pseudo_inputs(self) -> Any:
        """`(num_components, height, width, channels)` float32 in [0, 1]."""
        return ops.sigmoid(self.pixels)

    def components(self) -> tuple[Any, Any, Any]:
        """The posteriors of the pseudo-inputs, with equal shares."""
        mean, log_variance = self._lent.encode(self.pseudo_inputs)
        return mean, log_variance, ops.full((self.num_components,), -math.log(self.num_components))

    def settled(self) -> Prior:
        """As `Prior.settled`."""
        mean, log_variance, log_shares = self.components()
        found = Mixture(self.num_components)
        found.connect(self._lent.encoder, mean.shape[-1])
        found.set_weights([ops.convert_to_numpy(a) for a in (mean, log_variance, log_shares)])
        return found

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}


class _Lent:
    """The model's encoder. No layer, so that Keras neither counts nor saves its weights twice."""

    def __init__(self, encoder: keras.Model, latent_dim: int) -> None:
        self.encoder, self.latent_dim = encoder, latent_dim

    def encode(self, pictures: Any) -> tuple[Any, Any]:
        """Of each picture mean and log variance of its last `latent_dim` units, float32."""
        outputs = (ops.cast(output, "float32") for output in self.encoder(pictures))
        limit = _LOG_VARIANCE_LIMIT
        mean, log_variance = (output[..., -self.latent_dim :] for output in outputs)
        return mean, ops.clip(log_variance, -limit, limit)
