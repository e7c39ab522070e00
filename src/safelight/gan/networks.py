"""Generators, discriminators and, for a VAE/GAN, encoders: plain functional Keras models.

One's own may take their place, with the same inputs and outputs. The products may be in bfloat16
(`dtype="mixed_bfloat16"`); pictures and logits are always float32.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, TypedDict, Unpack

import keras
from keras import layers, ops

ARCHITECTURES = ("dcgan", "resnet")
# Pixels a side that the convolutions leave. Batch normalization keeps the spread of what passes
# through many of them; without it fewer learn faster (docs/lab-notes.md, 2026-11-27).
_LARGEST, _LARGEST_NORMED = 8, 4
_FIRST_FILTERS, _MOST_FILTERS = 32, 256
# A multiple of the stride: each output pixel then gets equally many contributions (Odena et al.
# 2016).
_KERNEL_SIZE, _STRIDE, _BLOCK_KERNEL_SIZE = 4, 2, 3
_SLOPE = 0.2  # of leaky ReLU, and below the spread of the weights at the start: Radford et al. 2016
_SPREAD = 0.02
_NORM: dict[str, Any] = {"momentum": 0.9, "epsilon": 1e-5}


@keras.saving.register_keras_serializable(package="safelight")
def leaky_relu(x: Any) -> Any:
    """max(x, x / 5): said so, since TensorFlow's graph optimizer stumbles over its own."""
    return ops.maximum(x, _SLOPE * x)


class Design(TypedDict, total=False):
    """What the networks have in common.

    Attributes:
        architecture: `"dcgan"` (the default; Radford et al. 2016, arXiv 1511.06434): strided
            convolutions, batch normalization in the generator; `"resnet"` (Gulrajani et al. 2017,
            arXiv 1704.00028, appendix F): blocks of two convolutions beside which their input
            passes by.
        filters: Of the discriminator's convolutions or blocks, each of which halves the size; the
            generator takes them in reverse order. Empty for `choose_filters`.
        num_classes: If positive, a second input takes labels, one-hot.
        batch_norm: Whether the discriminator has batch normalization, but for its first layer.
        dtype: Policy of the hidden layers, such as `"mixed_bfloat16"`; `None` for Keras' global
            one.
    """

    architecture: str
    filters: Sequence[int]
    num_classes: int
    batch_norm: bool
    dtype: Any


def choose_filters(image_shape: Sequence[int], *, batch_norm: bool = False) -> tuple[int, ...]:
    """As many halvings as leave at most 8 pixels a side; 32 filters at first, then twice as many.

    Args:
        image_shape: `(height, width, channels)`.
        batch_norm: Of the discriminator; with it at most 4 pixels are left.
    """
    longest = max(image_shape[:2])
    largest = _LARGEST_NORMED if batch_norm else _LARGEST
    halvings = max(1, math.ceil(math.log2(longest / largest)))
    return tuple(min(_FIRST_FILTERS * 2**i, _MOST_FILTERS) for i in range(halvings))


def build_generator(
    image_shape: Sequence[int], latent_dim: int, **design: Unpack[Design]
) -> keras.Model:
    """A network from latents to pictures.

    Args:
        image_shape: `(height, width, channels)`, any size; doubling makes at least that many
            pixels, and the surplus is cropped.
        latent_dim: Number of latent units.
        **design: As in `Design`.

    Returns:
        A model from z `(batch, latent_dim)`, or from `[z, labels (batch, num_classes)]`, to float32
        `(batch, height, width, channels)` in [0, 1].

    Raises:
        ValueError: An unknown architecture or an impossible size.
    """
    plan = _Plan.of(image_shape, latent_dim, design)
    z = keras.Input((latent_dim,), name="z")
    x, inputs = z, z
    if plan.num_classes:
        labels = keras.Input((plan.num_classes,), name="labels")
        inputs = [z, labels]
        x = layers.Concatenate(name="with_labels", dtype=plan.dtype)(inputs)
    factor = _STRIDE ** len(plan.filters)
    start = *(math.ceil(side / factor) for side in image_shape[:2]), plan.filters[-1]
    x = plan.dense(math.prod(start), "start")(x)
    x = layers.Reshape(start, name="reshape", dtype=plan.dtype)(x)
    grow = _grow_residual if plan.architecture == "resnet" else _grow_strided
    x = grow(x, image_shape[-1], plan)
    surplus = tuple((0, x.shape[i + 1] - image_shape[i]) for i in range(2))
    x = layers.Cropping2D(surplus, "channels_last", name="cropped", dtype="float32")(x)
    x = layers.Activation("tanh", name="tanh", dtype="float32")(x)
    pictures = layers.Rescaling(0.5, 0.5, name="picture", dtype="float32")(x)
    return keras.Model(inputs, pictures, name="generator")


def build_discriminator(image_shape: Sequence[int], **design: Unpack[Design]) -> keras.Model:
    """A network from pictures to how real they look.

    Labels come in by projection: a learned vector of the class, times the features, is added to the
    logit (Miyato & Koyama 2018, arXiv 1802.05637).

    Args:
        image_shape: `(height, width, channels)`, any size.
        **design: As in `Design`, the generator's.

    Returns:
        A model from float pictures in [0, 1] `(batch, height, width, channels)`, or from
        `[pictures, labels (batch, num_classes)]`, to `[logits (batch, 1) float32, features]`, the
        features being what the last convolution gives.

    Raises:
        ValueError: An unknown architecture or an impossible size.
    """
    plan = _Plan.of(image_shape, 1, design)
    pictures = keras.Input(tuple(image_shape), name="pictures")
    features, flat = _shrink(pictures, plan)
    logits = layers.Dense(1, name="logits", dtype="float32")(flat)
    if not plan.num_classes:
        return keras.Model(pictures, [logits, features], name="discriminator")
    labels = keras.Input((plan.num_classes,), name="labels")
    direction = layers.Dense(flat.shape[-1], use_bias=False, name="projection", dtype=plan.dtype)
    projected = layers.Dot(1, name="fit", dtype="float32")([direction(labels), flat])
    logits = layers.Add(name="sum", dtype="float32")([logits, projected])
    return keras.Model([pictures, labels], [logits, features], name="discriminator")


def build_encoder(
    image_shape: Sequence[int], latent_dim: int, **design: Unpack[Design]
) -> keras.Model:
    """A network from pictures to the parameters of q(z|x), shaped as the discriminator.

    Args:
        image_shape: `(height, width, channels)`.
        latent_dim: Number of latent units.
        **design: As in `Design`, without labels; there is no batch normalization in it.

    Returns:
        A model from float pictures in [0, 1] to float32 `[mean, log_variance]`, `(batch,
        latent_dim)` each.
    """
    plan = _Plan.of(image_shape, latent_dim, {**design, "num_classes": 0})
    plan = dataclasses.replace(plan, batch_norm=False, small_start=False)
    pictures = keras.Input(tuple(image_shape), name="pictures")
    _, flat = _shrink(pictures, plan)
    heads = [
        layers.Dense(latent_dim, name=name, dtype="float32")(flat)
        for name in ("mean", "log_variance")
    ]
    return keras.Model(pictures, heads, name="encoder")


@dataclasses.dataclass(frozen=True)
class _Plan:
    """A `Design` that is complete, and its layers.

    Attributes:
        small_start: Whether a DCGAN's weights begin small: normalization makes up for that.
    """

    architecture: str = "dcgan"
    filters: Sequence[int] = ()
    num_classes: int = 0
    batch_norm: bool = False
    dtype: Any = None
    small_start: bool = True

    @classmethod
    def of(cls, image_shape: Sequence[int], latent_dim: int, design: Design) -> _Plan:
        """With what suits the pictures where nothing is said.

        Raises:
            ValueError: An unknown architecture or an impossible size.
        """
        plan = cls(**design)
        if len(tuple(image_shape)) != 3 or min(image_shape) < 1:
            raise ValueError(
                f"image_shape={tuple(image_shape)}: expected (height, width, channels), at least "
                "1 each."
            )
        if latent_dim < 1 or plan.num_classes < 0:
            raise ValueError(
                f"latent_dim={latent_dim}, num_classes={plan.num_classes}: expected at least 1 "
                "latent unit, and 0 or the number of labels."
            )
        if plan.architecture not in ARCHITECTURES:
            raise ValueError(
                f"architecture={plan.architecture!r}: expected one of {', '.join(ARCHITECTURES)}."
            )
        filters = tuple(plan.filters) or choose_filters(image_shape, batch_norm=plan.batch_norm)
        return dataclasses.replace(plan, filters=filters)

    def dense(self, units: int, name: str) -> layers.Layer:
        return layers.Dense(units, name=name, dtype=self.dtype, **self._start())

    def strided(self, kind: type[layers.Layer], filters: int, name: str) -> layers.Layer:
        return self._convolution(kind, filters, _KERNEL_SIZE, name, strides=_STRIDE)

    def same_size(self, filters: int, name: str, size: int = _BLOCK_KERNEL_SIZE) -> layers.Layer:
        return self._convolution(layers.Conv2D, filters, size, name)

    def _convolution(
        self, kind: type[layers.Layer], filters: int, size: int, name: str, **options: Any
    ) -> layers.Layer:
        return kind(
            filters,
            size,
            padding="same",
            data_format="channels_last",
            name=name,
            dtype=self.dtype,
            **options,
            **self._start(),
        )

    def _start(self) -> dict[str, Any]:
        # Residual networks keep the spread of what passes through them; DCGAN's own is small.
        if self.architecture == "resnet" or not self.small_start:
            return {"kernel_initializer": "glorot_uniform"}
        return {"kernel_initializer": keras.initializers.RandomNormal(stddev=_SPREAD)}

    def generated(self, x: Any, name: str) -> Any:
        """Batch normalization and ReLU, as the generator has them."""
        x = layers.BatchNormalization(name=f"{name}_norm", dtype=self.dtype, **_NORM)(x)
        return layers.Activation("relu", name=f"{name}_relu", dtype=self.dtype)(x)

    def judged(self, x: Any, name: str, *, first: bool = False) -> Any:
        """Batch normalization, if it is wanted and x is not the first layer's, and leaky ReLU."""
        if self.batch_norm and not first:
            x = layers.BatchNormalization(name=f"{name}_norm", dtype=self.dtype, **_NORM)(x)
        return layers.Activation(leaky_relu, name=f"{name}_relu", dtype=self.dtype)(x)


def _grow_strided(x: Any, channels: int, plan: _Plan) -> Any:
    x = plan.generated(x, "start")
    for i, filters in enumerate(plan.filters[-2::-1]):
        x = plan.strided(layers.Conv2DTranspose, filters, f"up_{i}")(x)
        x = plan.generated(x, f"up_{i}")
    return plan.strided(layers.Conv2DTranspose, channels, "pixels")(x)


def _grow_residual(x: Any, channels: int, plan: _Plan) -> Any:
    for i, filters in enumerate([*plan.filters[-2::-1], plan.filters[0]]):
        name = f"up_{i}"
        double = {"size": _STRIDE, "data_format": "channels_last", "dtype": plan.dtype}
        beside = layers.UpSampling2D(name=f"{name}_beside", **double)(x)
        beside = plan.same_size(filters, f"{name}_narrow", 1)(beside)
        x = plan.generated(x, f"{name}_a")
        x = layers.UpSampling2D(name=f"{name}_double", **double)(x)
        x = plan.same_size(filters, f"{name}_first")(x)
        x = plan.generated(x, f"{name}_b")
        x = plan.same_size(filters, f"{name}_second")(x)
        x = layers.Add(name=f"{name}_sum", dtype=plan.dtype)([x, beside])
    x = plan.generated(x, "last")
    return plan.same_size(channels, "pixels")(x)


def _shrink(pictures: Any, plan: _Plan) -> tuple[Any, Any]:
    """The last convolution's features, and these as rows."""
    x = layers.Rescaling(2.0, -1.0, name="rescaled", dtype=plan.dtype)(pictures)
    if plan.architecture == "resnet":
        features = _shrink_residual(x, plan)
        flat = layers.GlobalAveragePooling2D("channels_last", name="pooled", dtype=plan.dtype)
        return features, flat(features)
    for i, filters in enumerate(plan.filters):
        x = plan.strided(layers.Conv2D, filters, f"down_{i}")(x)
        x = plan.judged(x, f"down_{i}", first=i == 0)
    return x, layers.Flatten(data_format="channels_last", name="flat", dtype=plan.dtype)(x)


def _shrink_residual(x: Any, plan: _Plan) -> Any:
    halve: dict[str, Any] = {"padding": "same", "data_format": "channels_last"}
    for i, filters in enumerate(plan.filters):
        name = f"down_{i}"
        pool = [
            layers.AveragePooling2D(_STRIDE, name=f"{name}_{part}", dtype=plan.dtype, **halve)
            for part in ("beside", "halve")
        ]
        beside = plan.same_size(filters, f"{name}_wide", 1)(pool[0](x))
        if i:  # the first block sees pixels, of which both signs count
            x = plan.judged(x, f"{name}_a")
        x = plan.same_size(filters, f"{name}_first")(x)
        x = plan.judged(x, f"{name}_b", first=i == 0)
        x = pool[1](plan.same_size(filters, f"{name}_second")(x))
        x = layers.Add(name=f"{name}_sum", dtype=plan.dtype)([x, beside])
    return plan.judged(x, "last")
