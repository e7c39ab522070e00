"""The variational autoencoder: an encoder, a decoder, and what lies between, as one Keras model.

    model = build_vae((28, 28, 1), TrainConfig(latent_dim=20))
    model.compile(keras.optimizers.Adam(1e-3))
    model.fit(images, epochs=20, batch_size=128)  # uint8 (num_images, 28, 28, 1)
    pictures = model.sample(64, seed=1)

Variants are arguments, not subclasses. Raw uint8 images go in, integer labels beside them where the
model is conditional; all values are in nats per image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypedDict, Unpack

import keras
import numpy as np
from keras import ops

from safelight.generative.inputs import check_images, check_labels
from safelight.vae import likelihoods, networks, objectives
from safelight.vae.config import check_objective
from safelight.vae.priors import Prior, StandardNormal, posterior_log_density

LOGS = ("elbo", "reconstruction", "kl")
_BATCH_SIZE = 500


class Options(TypedDict, total=False):
    """What is trained for; see `VAE`."""

    beta: float
    num_samples: int
    free_bits: float
    gradient: str
    backward_samples: int


@keras.saving.register_keras_serializable(package="safelight")
class VAE(keras.Model):
    """A variational autoencoder (Kingma & Welling 2014, arXiv 1312.6114; Rezende et al. 2014).

    `compile(optimizer)` and `fit(images)`, or `fit((images, labels))`, train it; the loss is
    `objective`. Who writes a loop of his own calls `prepare`, `terms` and `objective`: pure
    `keras.ops`, so they can be traced by `tf.function(jit_compile=True)` and, inside a
    `keras.StatelessScope` or through `stateless_call`, by `jax.jit` and `jax.lax.scan`. All their
    state is in `variables`: the weights, `kl_weight`, and `seed_generator.state` of the two
    generators in `seed_generators`, from which all randomness comes.

    Args:
        encoder: From float images in [0, 1] (and one-hot labels) to `[mean, log_variance]`; as from
            `build_encoder`.
        decoder: From z (and one-hot labels) to the location; as from `build_decoder`.
        likelihood: p(x|z), a name in `LIKELIHOODS`.
        binarization: `"dynamic"` draws black and white pixels, each time anew, with the grey value
            as probability of white; `"none"` keeps grey values. `None`: dynamic for Bernoulli, none
            for the others.
        prior: p(z), a `Prior`; `None` for the standard normal. One that was not yet connected
            gets its weights here.
        seed: Of the noise.
        name: The model's.
        **options: `beta` (default 1) weighs the KL divergence in the loss (Higgins et al. 2017).
            `num_samples` (1) is k of the importance-weighted bound (Burda et al. 2016).
            `free_bits` (0) are nats per unit that the KL divergence does not punish (Kingma et al.
            2016). `gradient` (`"plain"`, `"stl"`, `"dreg"`) says how the loss is
            differentiated, and `backward_samples` (0: all) through how many of the samples, see
            `TrainConfig`.

    Attributes:
        image_shape: `(height, width, channels)`.
        latent_dim: Number of latent units, of both stochastic layers where there are two.
        visible_dim: Those that the decoder takes, the first ones.
        num_classes: Number of labels, 0 if the model is unconditional.
        likelihood: The row of `LIKELIHOODS`.
        kl_weight: Variable, 1 but during warm-up; multiplies beta.
        log_scale: Variable `(channels,)`, or `None` where the likelihood has no scale.
        seed_generators: That of the pixels' draws and that of the latents' noise.

    Raises:
        ValueError: Networks that do not fit together, or options that exclude each other.
    """

    def __init__(
        self,
        encoder: keras.Model,
        decoder: keras.Model,
        *,
        likelihood: str = "bernoulli",
        binarization: str | None = None,
        prior: Prior | None = None,
        seed: int = 0,
        name: str = "vae",
        **options: Unpack[Options],
    ) -> None:
        # Sums are float32 under any policy; encoder and decoder have policies of their own.
        super().__init__(name=name, dtype="float32")
        self.encoder, self.decoder = encoder, decoder
        self.image_shape, visible, self.num_classes = networks.sizes(encoder, decoder)
        self.prior = StandardNormal() if prior is None else prior
        networks.check_latents(encoder, self.prior.num_encoded(visible))
        if not self.prior.built:
            self.prior.connect(encoder, visible)
        self.latent_dim, self.visible_dim = self.prior.num_latents(visible), visible
        self.likelihood = likelihoods.find_likelihood(likelihood)
        self.binarization = likelihoods.find_binarization(binarization, likelihood)
        self.seed = seed
        self._set_options(**options)
        pixel_seed, latent_seed = np.random.SeedSequence(seed).generate_state(2) >> 1
        self.pixel_noise = keras.random.SeedGenerator(int(pixel_seed))
        self.sampling = networks.Sampling(seed=int(latent_seed), name="sampling")
        self._add_variables()
        self.built = True

    def _set_options(
        self,
        *,
        beta: float = 1.0,
        num_samples: int = 1,
        free_bits: float = 0.0,
        gradient: str = "plain",
        backward_samples: int = 0,
    ) -> None:
        check_objective(beta, num_samples, free_bits, gradient)
        if backward_samples < 0:
            raise ValueError(f"backward_samples={backward_samples}: expected 0 or more.")
        unit = ops.zeros((1, self.latent_dim))
        if free_bits and self.prior.kl_per_unit(unit, unit) is None:
            raise ValueError(
                f"free_bits={free_bits} with a prior whose KL divergence has no closed form: "
                "there is nothing to count per unit; expected free_bits=0."
            )
        if gradient == "dreg" and not self.prior.one_layer:
            raise ValueError(
                "gradient='dreg' with two stochastic layers: its identity is for a posterior of "
                "one; expected gradient='plain', or 'stl' with num_samples=1."
            )
        self.beta, self.num_samples, self.free_bits = beta, num_samples, free_bits
        self.gradient, self.backward_samples, self.learning = gradient, backward_samples, False

    def _add_variables(self) -> None:
        self.kl_weight = self.add_weight(
            name="kl_weight", shape=(), initializer="ones", trainable=False
        )
        row = self.likelihood
        self.log_scale = None
        if row.has_scale:
            self.log_scale = self.add_weight(
                name="log_scale",
                shape=self.image_shape[-1:],
                initializer=keras.initializers.Constant(row.initial_log_scale),
                trainable=row.scale_trainable,
            )
        self._trackers = [keras.metrics.Mean(name=name) for name in LOGS]

    @property
    def seed_generators(self) -> tuple[keras.random.SeedGenerator, keras.random.SeedGenerator]:
        """The generators of the pixels' draws and of the latents' noise, in this order."""
        return self.pixel_noise, self.sampling.seed_generator

    # What is trained for.

    def prepare(self, images: Any, *, seed: Any = None) -> Any:
        """Raw images to what is modelled: float32 in [0, 1], drawn black or white if dynamic.

        Args:
            images: `(batch, height, width, channels)` uint8.
            seed: An integer or a `SeedGenerator`; `None` for the model's own.
        """
        x = ops.cast(images, "float32") / 255.0
        if self.binarization == "none":
            return x
        seed = self.pixel_noise if seed is None else seed
        draws = keras.random.uniform(ops.shape(x), dtype="float32", seed=seed)
        return ops.cast(draws < x, "float32")

    def terms(
        self, x: Any, labels: Any = None, num_samples: int = 1, **draw: Any
    ) -> dict[str, Any]:
        """Everything that bounds on log p(x) are made of.

        Args:
            x: `(batch, height, width, channels)` float32 in [0, 1], as from `prepare`.
            labels: `(batch,)` integers if the model is conditional.
            num_samples: Draws of z for each image; the encoder runs once.
            **draw: `seed` or `noise`, as in `Sampling`; without, the model's own noise. With
                `backward_samples`, `uniform` `(batch,)` from (0, 1] says which.

        Returns:
            In nats per image, float32: `log_likelihood` and `log_weights` `(samples, batch)`; `kl`
            `(batch,)`; `kl_per_unit` `(batch, latent_dim)`, or `None` if the prior has no closed
            form; and `mean`, `log_variance` `(batch, latent_dim)`. Where the gradient goes through
            fewer draws than there are, their log weights are `backward`, and the first two have no
            gradient.
        """
        x, labels = ops.convert_to_tensor(x, "float32"), self._one_hot(labels)
        mean, log_variance = self._encode(x, labels)
        uniform = draw.pop("uniform", None)
        draw["num_samples"] = None if num_samples == 1 else num_samples
        noise = self.sampling.draw((*ops.shape(mean)[:-1], self.latent_dim), **draw)
        fixed, few = self.gradient != "plain", self.goes_through_few(num_samples)
        z, *densities = self.prior.propose(mean, log_variance, noise, fixed=fixed)
        log_likelihood = self._log_likelihood(x, z, labels, num_samples)
        backward = {}
        if few:
            log_likelihood, *densities = map(ops.stop_gradient, (log_likelihood, *densities))
            weights = self._tempered(log_likelihood, densities[0] - densities[1])
            uniform = self.sampling.draw_uniform(ops.shape(weights)[-1:], draw.get("seed"), uniform)
            encoded = mean, log_variance
            backward["backward"] = self._backward(x, labels, encoded, noise, weights, uniform)
        elif self.gradient == "dreg" and num_samples > 1:
            weights = self._tempered(log_likelihood, densities[0] - densities[1])
            z = objectives.doubly_reparameterize(z, weights, self.beta * self.kl_weight)
            log_posterior = posterior_log_density(z, mean, log_variance, fixed=True)
            densities = [self.prior.log_density(z), log_posterior]
            log_likelihood = self._log_likelihood(x, z, labels, num_samples)
        weights = objectives.log_importance_weights(log_likelihood, *densities)
        kl_per_unit = self.prior.kl_per_unit(mean, log_variance)
        if kl_per_unit is None:
            kl = ops.mean(ops.reshape(log_likelihood - weights, (num_samples, -1)), axis=0)
        else:
            kl = ops.sum(kl_per_unit, axis=-1)
        mean, log_variance = self.prior.posterior(mean, log_variance)
        return {
            "log_likelihood": ops.reshape(log_likelihood, (num_samples, -1)),
            "log_weights": ops.reshape(weights, (num_samples, -1)),
            "kl": kl,
            "kl_per_unit": kl_per_unit,
            "mean": mean,
            "log_variance": log_variance,
            **backward,
        }

    def goes_through_few(self, num_samples: int) -> bool:
        """Whether the gradient of a bound of so many draws is taken through a part of them."""
        return 0 < self.backward_samples < num_samples

    def _backward(
        self, x: Any, labels: Any, encoded: tuple[Any, Any], noise: Any, weights: Any, uniform: Any
    ) -> Any:
        """Log weights of a few draws, `(backward_samples, batch)`, through which gradients go.

        Each stands for w~ of the bound's gradient, as often as it was chosen.
        """
        dreg = self.gradient == "dreg"
        chosen = objectives.resample(weights, uniform, self.backward_samples)
        noise = ops.take_along_axis(noise, ops.expand_dims(chosen, -1), axis=0)
        weights = ops.take_along_axis(ops.softmax(weights, axis=0), chosen, axis=0)
        if self.backward_samples == 1:  # has no axis of its own
            noise, weights = noise[0], weights[0]
        z, log_prior, log_posterior = self.prior.propose(*encoded, noise, fixed=dreg)
        if dreg:
            z = objectives.scale_gradient(z, weights, self.beta * self.kl_weight)
            log_prior = self.prior.log_density(z)
            log_posterior = posterior_log_density(z, *encoded, fixed=True)
        log_likelihood = self._log_likelihood(x, z, labels, self.backward_samples)
        found = self._tempered(log_likelihood, log_prior - log_posterior)
        return ops.reshape(found, (self.backward_samples, -1))

    def _encode(self, x: Any, labels: Any) -> list[Any]:
        """What the encoder gives: mean and log variance, float32."""
        return [ops.cast(output, "float32") for output in self._ask(self.encoder, x, labels)]

    def _ask(self, network: keras.Model, inputs: Any, labels: Any) -> Any:
        """What a network gives; a loop of ours says that it is learning, as Keras' fit would."""
        given = inputs if labels is None else [inputs, labels]
        return network(given, training=True) if self.learning else network(given)

    def _log_likelihood(self, x: Any, z: Any, labels: Any, num_samples: int) -> Any:
        """Log p(x|z), `(batch,)` or `(samples, batch)`."""
        location = self._locate(z, labels, num_samples)
        return self.likelihood.log_likelihood(x, location, self.log_scale)

    def _tempered(self, log_likelihood: Any, log_ratio: Any) -> Any:
        """Log w in which log p(z) - log q(z|x) counts as the KL divergence does."""
        return log_likelihood + self.beta * self.kl_weight * log_ratio

    def _one_hot(self, labels: Any) -> Any:
        if labels is not None and not self.num_classes:
            raise ValueError(
                "labels were passed to an unconditional model: leave them out, or build it with "
                "num_classes and conditional=True."
            )
        if labels is None and self.num_classes:
            raise ValueError(
                f"labels are missing: expected an integer from 0 to {self.num_classes - 1} for "
                "each image, as this model is conditional; fit takes (images, labels)."
            )
        return None if labels is None else ops.one_hot(labels, self.num_classes)

    def _locate(self, z: Any, labels: Any, num_samples: int) -> Any:
        """The decoder's output for z with an axis of samples, or without one if there is one."""
        z = self.prior.visible(z)
        if num_samples > 1:
            z = ops.reshape(z, (-1, z.shape[-1]))
            labels = None if labels is None else ops.tile(labels, (num_samples, 1))
        location = ops.cast(self._ask(self.decoder, z, labels), "float32")
        if num_samples > 1:
            location = ops.reshape(location, (num_samples, -1, *self.image_shape))
        return location

    def objective(self, terms: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The loss of a batch and what it is made of, averaged over images only.

        Args:
            terms: As from `terms`, with the model's `num_samples`.

        Returns:
            The loss, -(reconstruction - beta * kl_weight * KL) with free bits, or with
            `num_samples` > 1 minus the importance-weighted bound, whose gradient goes through
            `backward_samples` of them; and `elbo`, `reconstruction` (the mean log-likelihood) and
            `kl`, with elbo = reconstruction - kl whatever the loss weighs. Scalars, nats per image.
        """
        reconstruction, kl = ops.mean(terms["log_likelihood"]), ops.mean(terms["kl"])
        logs = {"elbo": reconstruction - kl, "reconstruction": reconstruction, "kl": kl}
        if self.num_samples > 1 or self.gradient != "plain" or "backward" in terms:
            log_likelihood = terms["log_likelihood"]
            weights = self._tempered(log_likelihood, terms["log_weights"] - log_likelihood)
            bound = ops.mean(objectives.importance_weighted_bound(weights))
            if "backward" in terms:
                few = ops.mean(terms["backward"])
                bound += few - ops.stop_gradient(few)  # the value of all, the gradient of few
            return -bound, logs
        if self.free_bits:
            kl = objectives.apply_free_bits(terms["kl_per_unit"], self.free_bits)
        return -objectives.elbo(reconstruction, kl, self.beta * self.kl_weight), logs

    def call(self, inputs: Any, training: bool | None = None) -> dict[str, Any]:
        """`terms` of raw images, or of `(images, labels)`, with the model's `num_samples`."""
        images, labels = inputs if isinstance(inputs, tuple | list) else (inputs, None)
        check_images(images, self.image_shape)
        return self.terms(self.prepare(images), labels, self.num_samples)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """The `objective` of `y_pred`, which `call` gave; `y` and `sample_weight` are refused."""
        if y is not None or sample_weight is not None:
            raise ValueError(
                "y or sample_weight was passed: a VAE learns from pictures alone; expected "
                "fit(images), or fit((images, labels)) if it is conditional."
            )
        loss, logs = self.objective(y_pred)
        for tracker in self._trackers:
            tracker.update_state(logs[tracker.name], sample_weight=ops.shape(y_pred["mean"])[0])
        return loss

    # What it is used for: NumPy in, NumPy out.

    def encode(
        self, images: Any, labels: Any = None, *, batch_size: int = _BATCH_SIZE
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean and log variance of q(z|x), `(num_images, latent_dim)` each.

        Grey values are fed as they are, without a draw: the same image, the same answer.

        Args:
            images: `(num_images, height, width, channels)` uint8.
            labels: `(num_images,)` integers if the model is conditional.
            batch_size: Images at a time.

        Raises:
            ValueError: Images or labels of another dtype, shape or range.
        """
        encoded = self.encoded(images, labels, batch_size=batch_size)
        mean, log_variance = map(ops.convert_to_numpy, self.prior.posterior(*encoded))
        return mean, log_variance

    def encoded(
        self, images: Any, labels: Any = None, *, batch_size: int = _BATCH_SIZE
    ) -> list[np.ndarray]:
        """What the encoder alone gives, from which `prior.propose` draws z.

        With one stochastic layer these are `encode`'s mean and log variance; with two of them the
        prior has its share in q(z|x). Arguments and errors as of `encode`.
        """

        def encode(images: Any, labels: Any) -> list:
            return self._encode(ops.cast(images, "float32") / 255.0, self._one_hot(labels))

        return self._in_batches(encode, check_images(images, self.image_shape), labels, batch_size)

    def decode(self, z: Any, labels: Any = None, *, batch_size: int = _BATCH_SIZE) -> np.ndarray:
        """The expected pictures given z, float32 `(num, height, width, channels)` in [0, 1].

        Args:
            z: `(num, latent_dim)`.
            labels: `(num,)` integers if the model is conditional.
            batch_size: Pictures at a time.

        Raises:
            ValueError: Latents or labels of another shape.
        """

        def decode(z: Any, labels: Any) -> list:
            return [self.likelihood.mean(self._locate(z, self._one_hot(labels), 1))]

        z = np.asarray(z, "float32")
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            raise ValueError(f"z has shape {z.shape}: expected (num, {self.latent_dim}).")
        return self._in_batches(decode, z, labels, batch_size)[0]

    def reconstruct(
        self, images: Any, labels: Any = None, *, batch_size: int = _BATCH_SIZE
    ) -> np.ndarray:
        """The expected pictures at the mean of q(z|x): `decode` of `encode`."""
        mean, _ = self.encode(images, labels, batch_size=batch_size)
        return self.decode(mean, labels, batch_size=batch_size)

    def sample(
        self, num: int, *, labels: Any = None, seed: int = 0, temperature: float = 1.0
    ) -> np.ndarray:
        """New pictures: the expected ones at z drawn from the prior.

        Args:
            num: How many.
            labels: `(num,)` integers if the model is conditional.
            seed: Of the draw.
            temperature: As of `Prior.sample`; below 1 pictures are more typical and less varied.

        Returns:
            float32 `(num, height, width, channels)` in [0, 1].
        """
        z = self.prior.sample((num, self.latent_dim), seed, temperature=temperature)
        return self.decode(ops.convert_to_numpy(z), labels)

    def elbo(
        self, images: Any, labels: Any = None, *, seed: int = 0, batch_size: int = _BATCH_SIZE
    ) -> dict[str, np.ndarray]:
        """The ELBO of each image and its parts, from one draw of z (and KL by itself if it can be).

        Weights of the training objective (beta, free bits, warm-up) play no part.

        Args:
            images: `(num_images, height, width, channels)` uint8; drawn black or white first where
                the model does so.
            labels: `(num_images,)` integers if the model is conditional.
            seed: Of the draws; the training's own noise is not touched.
            batch_size: Images at a time.

        Returns:
            `elbo`, `reconstruction` and `kl`, `(num_images,)` each, nats.
        """
        generator = keras.random.SeedGenerator(seed)

        def terms(images: Any, labels: Any) -> list:
            found = self.terms(self.prepare(images, seed=generator), labels, seed=generator)
            return [found["log_likelihood"][0], found["kl"]]

        images = check_images(images, self.image_shape)
        reconstruction, kl = self._in_batches(terms, images, labels, batch_size)
        return {"elbo": reconstruction - kl, "reconstruction": reconstruction, "kl": kl}

    def _in_batches(
        self, function: Callable[..., list], rows: np.ndarray, labels: Any, batch_size: int
    ) -> list[np.ndarray]:
        """The outputs of `function(rows, labels)`, put together."""
        labels = self._check_labels(labels, len(rows))
        parts = []
        for start in range(0, len(rows), batch_size):
            batch = slice(start, start + batch_size)
            told = None if labels is None else ops.convert_to_tensor(labels[batch])
            outputs = function(ops.convert_to_tensor(rows[batch]), told)
            parts.append([ops.convert_to_numpy(output) for output in outputs])
        if not parts:
            raise ValueError("no rows were passed: expected at least one.")
        return [np.concatenate(column) for column in zip(*parts, strict=True)]

    def _check_labels(self, labels: Any, num: int) -> np.ndarray | None:
        if labels is None or not self.num_classes:
            return labels
        return check_labels(labels, num, self.num_classes)

    def get_config(self) -> dict[str, Any]:
        parts = {name: getattr(self, name) for name in ("encoder", "decoder", "prior")}
        return {
            **{name: keras.saving.serialize_keras_object(part) for name, part in parts.items()},
            "likelihood": self.likelihood.name,
            "binarization": self.binarization,
            "seed": self.seed,
            **{name: getattr(self, name) for name in Options.__annotations__},
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> VAE:
        """The model of a `get_config`, with new weights."""
        parts = {
            name: keras.saving.deserialize_keras_object(config[name], custom_objects=custom_objects)
            for name in ("encoder", "decoder", "prior")
        }
        return cls(**{**config, **parts})
