"""A generator and its discriminator as one Keras model, which can be saved, loaded and drawn from.

    model = build_gan((28, 28, 1), TrainConfig(latent_dim=64))
    pictures = model.generate(64, seed=1)  # floats in [0, 1]

The game itself is played by `gan.train`: `fit` of Keras knows one loss, and here there are two.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from safelight.environment import describe_environment
from safelight.gan import networks
from safelight.gan.config import TrainConfig
from safelight.generative.backends import without_gradients
from safelight.generative.inputs import check_labels

_BATCH_SIZE = 500
_BATCH_PIXELS = 500 * 64 * 64  # what all layers hold of larger pictures has to fit, too


@keras.saving.register_keras_serializable(package="safelight")
class GAN(keras.Model):
    """A generative adversarial network (Goodfellow et al. 2014, arXiv 1406.2661).

    Called with pictures it says how real they look. Its `generator` makes pictures of draws from
    N(0, I); with an `encoder` (VAE/GAN, Larsen et al. 2016, arXiv 1512.09300) also of pictures.

    Args:
        generator: From z (and one-hot labels) to pictures in [0, 1]; as from `build_generator`.
        discriminator: From pictures in [0, 1] (and one-hot labels) to `[logits, features]`; as from
            `build_discriminator`.
        encoder: From pictures to `[mean, log_variance]`, or `None`.
        name: The model's.

    Attributes:
        image_shape: `(height, width, channels)`.
        latent_dim: Number of latent units.
        num_classes: Number of labels, 0 if the model is unconditional.

    Raises:
        ValueError: Networks that do not fit together.
    """

    def __init__(
        self,
        generator: keras.Model,
        discriminator: keras.Model,
        encoder: keras.Model | None = None,
        *,
        name: str = "gan",
    ) -> None:
        super().__init__(name=name, dtype="float32")
        self.generator, self.discriminator, self.encoder = generator, discriminator, encoder
        self.image_shape = tuple(generator.outputs[0].shape[1:])
        self.latent_dim = generator.inputs[0].shape[-1]
        self.num_classes = generator.inputs[1].shape[-1] if len(generator.inputs) > 1 else 0
        self._check_networks()
        self.built = True

    def _check_networks(self) -> None:
        seen = tuple(self.discriminator.inputs[0].shape[1:])
        told = [each.shape[-1] for each in self.discriminator.inputs[1:]]
        if seen != self.image_shape or told != [self.num_classes] * bool(self.num_classes):
            raise ValueError(
                f"generator and discriminator do not fit: {self.image_shape} with "
                f"{self.num_classes} labels, and {seen} with {sum(told)}. Build both with the same "
                "image_shape and num_classes."
            )
        if self.encoder is None:
            return
        outputs = [each.shape[-1] for each in self.encoder.outputs]
        if (
            tuple(self.encoder.inputs[0].shape[1:]) != self.image_shape
            or outputs != [self.latent_dim] * 2
        ):
            raise ValueError(
                f"the encoder gives {outputs} numbers for pictures of the shape "
                f"{tuple(self.encoder.inputs[0].shape[1:])}: expected twice {self.latent_dim} for "
                f"{self.image_shape}."
            )

    def call(self, inputs: Any, training: bool = False) -> Any:
        """How real pictures look.

        Args:
            inputs: uint8 `(batch, height, width, channels)`, or `(pictures, labels (batch,))`.
            training: Whether batch normalization, where there is any, is by these pictures.

        Returns:
            `(batch,)` logits, the larger the more real.
        """
        pictures, labels = inputs if isinstance(inputs, list | tuple) else (inputs, None)
        pictures = ops.cast(pictures, "float32") / 255.0
        return self.discriminate(pictures, labels, training=training)[0]

    def discriminate(
        self, pictures: Any, labels: Any = None, *, training: bool = False
    ) -> tuple[Any, Any]:
        """Logits `(batch,)` and features of float pictures in [0, 1]."""
        told = self._with_labels(pictures, labels)
        logits, features = self.discriminator(told, training=training)
        return logits[:, 0], features

    def decode(self, z: Any, labels: Any = None, *, training: bool = False) -> Any:
        """Pictures in [0, 1] of latents `(batch, latent_dim)`."""
        return self.generator(self._with_labels(z, labels), training=training)

    def _with_labels(self, first: Any, labels: Any) -> Any:
        if not self.num_classes:
            return first
        first = ops.convert_to_tensor(first)
        return [first, ops.one_hot(ops.cast(labels, "int32"), self.num_classes, dtype="float32")]

    def generate(
        self, num: int, labels: Any = None, *, seed: int = 0, temperature: float = 1.0
    ) -> np.ndarray:
        """New pictures, of draws from N(0, I).

        Args:
            num: How many.
            labels: `(num,)` integers of a conditional model; `None` for all classes in turn.
            seed: Of the draw.
            temperature: Standard deviation of the draw; below 1 pictures are less varied.

        Returns:
            `(num, height, width, channels)` float32 in [0, 1].

        Raises:
            ValueError: Labels that the model does not know.
        """
        if num < 1:
            raise ValueError(f"num={num}: expected at least 1.")
        z = np.random.default_rng(seed).standard_normal((num, self.latent_dim), "float32")
        if self.num_classes and labels is None:
            labels = np.arange(num) % self.num_classes
        return self.decode_all(temperature * z, labels)

    def decode_all(self, z: np.ndarray, labels: Any = None) -> np.ndarray:
        """Pictures in [0, 1] of any number of latents, as an array."""
        labels = self._check_labels(labels, len(z))
        parts = []
        for rows in self._batches(len(z)):
            told = None if labels is None else labels[rows]
            with without_gradients():
                decoded = self.decode(ops.convert_to_tensor(z[rows]), told)
            parts.append(ops.convert_to_numpy(decoded))
        return np.concatenate(parts)

    def _batches(self, num: int) -> list[slice]:
        size = max(1, min(_BATCH_SIZE, _BATCH_PIXELS // math.prod(self.image_shape[:2])))
        return [slice(start, start + size) for start in range(0, num, size)]

    def _check_labels(self, labels: Any, num: int) -> np.ndarray | None:
        if not self.num_classes:
            if labels is not None:
                raise ValueError("labels for a model without classes: expected none.")
            return None
        if labels is None:
            raise ValueError(f"a model of {self.num_classes} classes: expected labels.")
        return check_labels(labels, num, self.num_classes).astype("int32")

    def encode(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and log variance of q(z|x), `(n, latent_dim)` each, of a VAE/GAN.

        Args:
            images: uint8 `(n, height, width, channels)`.

        Raises:
            ValueError: The model has no encoder.
        """
        if self.encoder is None:
            raise ValueError(
                "a GAN has no encoder: expected a VAE/GAN (autoencoder=True) to encode pictures."
            )
        parts = []
        for rows in self._batches(len(images)):
            some = np.asarray(images[rows], "float32") / 255
            with without_gradients():
                encoded = self.encoder(some)
            parts.append([ops.convert_to_numpy(each) for each in encoded])
        mean, log_variance = (np.concatenate(each) for each in zip(*parts, strict=True))
        return mean, log_variance

    def reconstruct(self, images: np.ndarray) -> np.ndarray:
        """Pictures in [0, 1] made of the means of q(z|x)."""
        return self.decode_all(self.encode(images)[0])

    def get_config(self) -> dict[str, Any]:
        save = keras.saving.serialize_keras_object
        encoder = None if self.encoder is None else save(self.encoder)
        networks_ = {"generator": save(self.generator), "discriminator": save(self.discriminator)}
        return {"name": self.name, **networks_, "encoder": encoder}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> GAN:
        """The model that `get_config` describes, without its weights."""
        load = keras.saving.deserialize_keras_object
        parts = {
            name: config[name] and load(config[name], custom_objects=custom_objects)
            for name in ("generator", "discriminator", "encoder")
        }
        return cls(**parts, name=config["name"])


def in_float32(model: GAN, config: TrainConfig) -> GAN:
    """The same model in float32, which runs well on any processor.

    Args:
        model: Trained, perhaps in bfloat16, as `config` says.
        config: That it was built with.
    """
    plain = dataclasses.replace(config, precision="float32")
    copy = build_gan(model.image_shape, plain, num_classes=model.num_classes)
    copy.set_weights(model.get_weights())
    return copy


def chosen_precision(precision: str) -> str:
    """`precision` of a configuration without `"auto"`: what this machine multiplies fast."""
    if precision != "auto":
        return precision
    # JAX's convolutions on a CPU gain nothing by it.
    fast = keras.backend.backend() != "jax" and any(describe_environment()["bfloat16"].values())
    return "bfloat16" if fast else keras.config.dtype_policy().compute_dtype


def _policy(precision: str) -> str | None:
    """Of the hidden layers; `None` for Keras' global one."""
    chosen = chosen_precision(precision)
    if precision == "auto" and chosen != "bfloat16":
        return None
    return "mixed_bfloat16" if chosen == "bfloat16" else "float32"


def build_gan(image_shape: Sequence[int], config: TrainConfig, *, num_classes: int = 0) -> GAN:
    """A model with new weights, as a configuration says.

    Args:
        image_shape: `(height, width, channels)`.
        config: The settings.
        num_classes: Number of labels; used if `config.conditional`.

    Raises:
        ValueError: A conditional model without labels.
    """
    if config.conditional and num_classes < 1:
        raise ValueError(
            f"conditional=True with num_classes={num_classes}: expected the number of labels. "
            "Pass labelled images, or conditional=False."
        )
    design: networks.Design = {
        "architecture": config.architecture,
        "filters": config.filters,
        "num_classes": num_classes if config.conditional else 0,
        "batch_norm": config.chosen_normalization == "batch",
        "dtype": _policy(config.precision),
    }
    keras.utils.set_random_seed(config.seed)
    encoder = None
    generator = networks.build_generator(image_shape, config.latent_dim, **design)
    discriminator = networks.build_discriminator(image_shape, **design)
    if config.autoencoder:
        encoder = networks.build_encoder(image_shape, config.latent_dim, **design)
    return GAN(generator, discriminator, encoder)
