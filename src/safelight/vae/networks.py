"""Encoders, decoders, and the reparameterization between them.

Plain functional Keras models: one's own may take their place, with the same inputs and outputs. The
products may be in bfloat16 (`dtype="mixed_bfloat16"`); what likelihood and KL divergence are
computed from is always float32.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, TypedDict, Unpack

import keras
import numpy as np
from keras import layers, ops

# tanh: the networks of Burda et al. 2016, smooth and without dead units. ReLU: cheaper, and usual
# in convolutional networks. SiLU: smooth, and what passes by a block's layers is not bounded.
ACTIVATIONS = {"dense": "tanh", "residual": "tanh", "conv": "relu", "resnet": "silu"}
HIDDEN_UNITS = {
    "dense": (300, 300),
    "residual": (300, 300, 300),
    "conv": (32, 64),
    "resnet": (64, 128),
}
# Between the convolutions and the latents stands one dense layer.
CONV_DENSE_UNITS = 256
_BLOCKS = 2  # residual blocks at each size
# More inputs than these a first dense layer learns from as if they were the second number.
_MANY_INPUTS, _AS_IF = 1024, 256
_BLOCK_KERNEL_SIZE = 3
# A multiple of the stride: each output pixel of the decoder then gets equally many contributions,
# without the chequered pattern of other sizes (Odena et al. 2016).
_KERNEL_SIZE, _STRIDE = 4, 2


@keras.saving.register_keras_serializable(package="safelight")
class Sampling(layers.Layer):
    """Draws z from N(mean, exp(log_variance)) so that gradients pass through the draw.

    z = mean + exp(log_variance / 2) * noise, with noise from N(0, 1): Kingma & Welling 2014 (arXiv
    1312.6114), section 2.4; docs/theory/elbo.md.

    Args:
        seed: Of the noise. The stream's place is in `seed_generator.state`, which is not saved with
            the model.
    """

    def __init__(self, *, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.built = True

    def call(
        self,
        inputs: tuple[Any, Any],
        num_samples: int | None = None,
        seed: Any = None,
        noise: Any = None,
    ) -> Any:
        """Mean and log variance, `(batch, latent_dim)` each, to draws.

        Args:
            inputs: `(mean, log_variance)`.
            num_samples: Draws for each row; `None` for one, without an axis of its own.
            seed: An integer or a `SeedGenerator` in place of the layer's own.
            noise: Draws from N(0, 1) of the result's shape, in place of the layer's.

        Returns:
            `(batch, latent_dim)`, or `(num_samples, batch, latent_dim)`.
        """
        mean, log_variance = inputs
        noise = self.draw(ops.shape(mean), num_samples, seed, noise)
        return mean + ops.exp(0.5 * log_variance) * noise

    def draw(
        self,
        shape: Sequence[int],
        num_samples: int | None = None,
        seed: Any = None,
        noise: Any = None,
    ) -> Any:
        """The noise alone, from N(0, 1), for means of that shape; the arguments are `call`'s."""
        if noise is not None:
            return ops.convert_to_tensor(noise, "float32")
        shape = tuple(shape) if num_samples is None else (num_samples, *shape)
        seed = self.seed_generator if seed is None else seed
        return keras.random.normal(shape, dtype="float32", seed=seed)

    def draw_uniform(self, shape: Sequence[int], seed: Any = None, uniform: Any = None) -> Any:
        """Draws from (0, 1], for a choice that has nothing to do with the noise.

        Args:
            shape: Of the result.
            seed: As of `call`. What follows from an integer is not what `draw` makes of the same.
            uniform: The draws, in place of the layer's.
        """
        if uniform is not None:
            return ops.convert_to_tensor(uniform, "float32")
        if isinstance(seed, int):
            seed = int(np.random.SeedSequence([seed, 1]).generate_state(1)[0] >> 1)
        seed = self.seed_generator if seed is None else seed
        return 1.0 - keras.random.uniform(shape, dtype="float32", seed=seed)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}


@keras.saving.register_keras_serializable(package="safelight")
class PictureBias(layers.Layer):
    """Adds a learned number to each pixel and channel, in float32 whatever the precision before.

    It starts at the data's mean, so that the network before it learns only what differs. Input:
    `(batch, height, width, channels)`; output: the same, float32.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})

    def build(self, input_shape: tuple) -> None:
        self.bias = self.add_weight(name="bias", shape=input_shape[1:], initializer="zeros")

    def call(self, inputs: Any) -> Any:
        return inputs + self.bias  # a float32 layer: Keras has cast the inputs

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape


class Design(TypedDict, total=False):
    """What encoder and decoder have in common.

    Attributes:
        architecture: `"dense"` (the default); `"residual"`: dense, and each hidden layer adds its
            input to its output where both are equally wide (He et al. 2016, arXiv 1512.03385);
            `"conv"`: convolutions, and between them and the latents one dense layer of 256 units;
            `"resnet"`: convolutions with two residual blocks at each size (pre-activation, He et
            al. 2016, arXiv 1603.05027, without normalization), for a GPU.
        hidden_units: Widths of the encoder's dense layers, or filters of its convolutions, each of
            which halves the size; the decoder takes them in reverse order. Empty for (300, 300),
            (300, 300, 300), (32, 64) or (64, 128).
        num_classes: If positive, a second input takes labels, one-hot.
        activation: Of the hidden layers; `"auto"` is relu for `"conv"`, silu for `"resnet"` and
            tanh for the others.
        dtype: Policy of the hidden layers, such as `"mixed_bfloat16"`; `None` for Keras' global
            one.
    """

    architecture: str
    hidden_units: Sequence[int]
    num_classes: int
    activation: str
    dtype: Any


def build_encoder(
    image_shape: Sequence[int], latent_dim: int, **design: Unpack[Design]
) -> keras.Model:
    """A network from pictures to the parameters of q(z|x).

    Args:
        image_shape: `(height, width, channels)`, any size.
        latent_dim: Number of latent units.
        **design: As in `Design`.

    Returns:
        A model from float images in [0, 1] `(batch, height, width, channels)`, or from `[images,
        labels (batch, num_classes)]`, to float32 `[mean, log_variance]`, `(batch, latent_dim)`
        each.

    Raises:
        ValueError: An unknown architecture or an impossible size.
    """
    plan = _Plan.of(image_shape, latent_dim, design)
    units, dtype = plan.hidden_units, plan.dtype
    images = keras.Input(tuple(image_shape), name="images")
    x = images
    if plan.architecture == "conv":
        for i, filters in enumerate(units):
            x = _strided(layers.Conv2D, filters, plan.activation, f"conv_{i}", dtype)(x)
        units = (CONV_DENSE_UNITS,)
    elif plan.architecture == "resnet":
        for i, filters in enumerate(units):
            x = _strided(layers.Conv2D, filters, None, f"down_{i}", dtype)(x)
            x = _residual_blocks(x, f"block_{i}", plan)
        x = layers.Activation(plan.activation, name="activation", dtype=dtype)(x)
        units = ()
    x = layers.Flatten(data_format="channels_last", name="flatten", dtype=dtype)(x)
    x, inputs = _with_labels(x, images, plan.num_classes, dtype)
    if units and x.shape[-1] > _MANY_INPUTS:
        x, start = _hidden_of_many(x, units[0], plan), 1
    else:
        start = 0
    for i, width in enumerate(units[start:], start):
        x = _hidden(x, width, f"hidden_{i}", plan)
    # Narrow, so float32 costs next to nothing here.
    heads = [
        layers.Dense(latent_dim, name=name, dtype="float32")(x) for name in ("mean", "log_variance")
    ]
    return keras.Model(inputs, heads, name="encoder")


def build_decoder(
    image_shape: Sequence[int],
    latent_dim: int,
    *,
    initial_location: np.ndarray | None = None,
    **design: Unpack[Design],
) -> keras.Model:
    """A network from latents to the location of p(x|z), the encoder's mirror image.

    Args:
        image_shape: `(height, width, channels)`, any size; strided convolutions make at least that
            many pixels, and the surplus is cropped.
        latent_dim: Number of latent units.
        initial_location: Bias of the output, `image_shape`; as from
            `Likelihood.initial_location(mean_picture)`.
        **design: As in `Design`, the encoder's; the bias is added in float32.

    Returns:
        A model from z `(batch, latent_dim)`, or from `[z, labels (batch, num_classes)]`, to float32
        `(batch, height, width, channels)`.

    Raises:
        ValueError: An unknown architecture, an impossible size, or an initial location of another
            shape.
    """
    plan = _Plan.of(image_shape, latent_dim, design)
    z = keras.Input((latent_dim,), name="z")
    x, inputs = _with_labels(z, z, plan.num_classes, plan.dtype)
    grow = {"conv": _grow_convolutional, "resnet": _grow_residual}.get(
        plan.architecture, _grow_dense
    )
    x = grow(x, tuple(image_shape), plan)
    bias = PictureBias(name="location")
    outputs = bias(x)
    if initial_location is not None:
        if np.shape(initial_location) != tuple(image_shape):
            raise ValueError(
                f"initial_location has shape {np.shape(initial_location)}: expected one number for "
                f"each pixel and channel, {tuple(image_shape)}."
            )
        bias.set_weights([np.asarray(initial_location, "float32")])
    return keras.Model(inputs, outputs, name="decoder")


@dataclasses.dataclass(frozen=True)
class _Plan:
    """A `Design` that is complete."""

    architecture: str = "dense"
    hidden_units: Sequence[int] = ()
    num_classes: int = 0
    activation: str = "auto"
    dtype: Any = None

    @classmethod
    def of(cls, image_shape: Sequence[int], latent_dim: int, design: Design) -> _Plan:
        """With what suits the architecture where nothing is said.

        Raises:
            ValueError: An unknown architecture or an impossible size.
        """
        plan = cls(**design)
        _check(image_shape, latent_dim, plan.architecture, plan.num_classes)
        units = tuple(plan.hidden_units) or HIDDEN_UNITS[plan.architecture]
        own = ACTIVATIONS[plan.architecture] if plan.activation == "auto" else plan.activation
        return dataclasses.replace(plan, hidden_units=units, activation=own)


def _hidden(x: Any, units: int, name: str, plan: _Plan) -> Any:
    """A dense layer, beside which its input passes by where the architecture says so."""
    made = layers.Dense(units, plan.activation, name=name, dtype=plan.dtype)(x)
    if plan.architecture != "residual" or x.shape[-1] != units:
        return made
    return layers.Add(name=f"{name}_sum", dtype=plan.dtype)([x, made])


def _hidden_of_many(x: Any, units: int, plan: _Plan) -> Any:
    """A first dense layer that learns no faster than one of few inputs.

    A step of Adam moves every weight by the learning rate, so that a sum over inputs that are all
    bright moves by the rate times their number: with thousands of pixels the units saturate, the
    latents say nothing, and the decoder learns to do without them. So Adam's rate has to fall with
    the number of inputs (Yang et al. 2022, arXiv 2203.03466, of hidden layers). Here the inputs are
    made smaller by that factor, and the first weights larger. For an optimizer that does not mind
    the scale of a gradient this is the same, and what the layer computes at the start stays.
    """
    share = _AS_IF / x.shape[-1]
    start = keras.initializers.VarianceScaling(share**-2, "fan_avg", "uniform")  # Glorot's over it
    x = layers.Rescaling(share, name="share", dtype=plan.dtype)(x)
    # A name of its own: weights of a layer without the factor do not fit.
    name = "hidden_0_of_many"
    dense = layers.Dense(
        units, plan.activation, kernel_initializer=start, name=name, dtype=plan.dtype
    )
    return dense(x)


def _grow_dense(x: Any, image_shape: tuple[int, ...], plan: _Plan) -> Any:
    for i, units in enumerate(reversed(plan.hidden_units)):
        x = _hidden(x, units, f"hidden_{i}", plan)
    pixels = layers.Dense(math.prod(image_shape), use_bias=False, name="pixels", dtype=plan.dtype)
    return layers.Reshape(image_shape, name="picture", dtype=plan.dtype)(pixels(x))


def _grow_convolutional(x: Any, image_shape: tuple[int, ...], plan: _Plan) -> Any:
    activation, dtype = plan.activation, plan.dtype
    x = layers.Dense(CONV_DENSE_UNITS, activation, name="hidden_0", dtype=dtype)(x)
    x = _smallest(x, image_shape, plan, "hidden_1", activation)
    for i, number in enumerate(plan.hidden_units[-2::-1]):
        x = _strided(layers.Conv2DTranspose, number, activation, f"conv_{i}", dtype)(x)
    channels = image_shape[-1]
    # PictureBias is the output's.
    x = _strided(layers.Conv2DTranspose, channels, None, "pixels", dtype, use_bias=False)(x)
    return _crop(x, image_shape, plan)


def _grow_residual(x: Any, image_shape: tuple[int, ...], plan: _Plan) -> Any:
    """The encoder backwards; at the pictures' own size half of the first filters, in one block."""
    dtype, last = plan.dtype, max(1, plan.hidden_units[0] // 2)
    x = _residual_blocks(_smallest(x, image_shape, plan, "start", None), "block_0", plan)
    num_sizes = len(plan.hidden_units)
    for i, number in enumerate([*plan.hidden_units[-2::-1], last], start=1):
        up = _strided(layers.Conv2DTranspose, number, None, f"up_{i}", dtype)
        x = _residual_blocks(up(x), f"block_{i}", plan, 1 if i == num_sizes else _BLOCKS)
    x = layers.Activation(plan.activation, name="activation", dtype=dtype)(x)
    x = _same_size(image_shape[-1], "pixels", dtype, use_bias=False)(x)
    return _crop(x, image_shape, plan)


def _smallest(
    x: Any, image_shape: tuple[int, ...], plan: _Plan, name: str, activation: str | None
) -> Any:
    """A dense layer to the smallest size, which doubling makes large enough for a picture."""
    factor = _STRIDE ** len(plan.hidden_units)
    shape = *(math.ceil(side / factor) for side in image_shape[:2]), plan.hidden_units[-1]
    x = layers.Dense(math.prod(shape), activation, name=name, dtype=plan.dtype)(x)
    return layers.Reshape(shape, name="reshape", dtype=plan.dtype)(x)


def _crop(x: Any, image_shape: tuple[int, ...], plan: _Plan) -> Any:
    """Without the rows and columns that halving and doubling made too many."""
    height, width, _ = image_shape
    surplus = ((0, x.shape[1] - height), (0, x.shape[2] - width))
    return layers.Cropping2D(surplus, "channels_last", name="picture", dtype=plan.dtype)(x)


def _residual_blocks(x: Any, name: str, plan: _Plan, number: int = _BLOCKS) -> Any:
    """Each adds two convolutions of what comes in; at first they add nothing."""
    for i in range(number):
        added = x
        for part, start in enumerate(("glorot_uniform", "zeros")):
            label = f"{name}_{i}_{part}"
            added = layers.Activation(
                plan.activation, name=f"{label}_activation", dtype=plan.dtype
            )(added)
            added = _same_size(x.shape[-1], label, plan.dtype, kernel_initializer=start)(added)
        x = layers.Add(name=f"{name}_{i}_sum", dtype=plan.dtype)([x, added])
    return x


def _same_size(filters: int, name: str, dtype: Any, **options: Any) -> layers.Layer:
    return layers.Conv2D(
        filters,
        _BLOCK_KERNEL_SIZE,
        padding="same",
        data_format="channels_last",
        name=name,
        dtype=dtype,
        **options,
    )


def _strided(
    kind: type[layers.Layer],
    filters: int,
    activation: str | None,
    name: str,
    dtype: Any,
    **options: Any,
) -> layers.Layer:
    return kind(
        filters,
        _KERNEL_SIZE,
        strides=_STRIDE,
        padding="same",
        data_format="channels_last",
        activation=activation,
        name=name,
        dtype=dtype,
        **options,
    )


def _with_labels(x: Any, first: Any, num_classes: int, dtype: Any) -> tuple[Any, Any]:
    """`x` beside one-hot labels, and the inputs of the model."""
    if not num_classes:
        return x, first
    labels = keras.Input((num_classes,), name="labels")
    return layers.Concatenate(name="with_labels", dtype=dtype)([x, labels]), [first, labels]


def _check(
    image_shape: Sequence[int], latent_dim: int, architecture: str, num_classes: int
) -> None:
    if len(tuple(image_shape)) != 3 or min(image_shape) < 1:
        raise ValueError(
            f"image_shape={tuple(image_shape)}: expected (height, width, channels), at least 1 "
            "each."
        )
    if latent_dim < 1:
        raise ValueError(f"latent_dim={latent_dim}: expected at least 1.")
    if num_classes < 0:
        raise ValueError(f"num_classes={num_classes}: expected 0, or the number of labels.")
    if architecture not in HIDDEN_UNITS:
        raise ValueError(
            f"architecture={architecture!r}: expected one of {', '.join(HIDDEN_UNITS)}."
        )


def apply_to_rows(network: keras.Model, values: Any) -> list[Any]:
    """The outputs of a network of rows for values with any axes before the last one.

    Args:
        network: From `(batch, n)` to one or several outputs `(batch, ...)`.
        values: `(..., n)`.

    Returns:
        A list of `(..., m)`, one for each output.
    """
    outputs = network(ops.reshape(values, (-1, values.shape[-1])))
    outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
    axes = ops.shape(values)[:-1]
    return [ops.reshape(output, (*axes, output.shape[-1])) for output in outputs]


def sizes(encoder: keras.Model, decoder: keras.Model) -> tuple[tuple[int, ...], int, int]:
    """Image shape, number of latent units, and of classes (0 if unconditional).

    Raises:
        ValueError: Encoder and decoder do not agree on them.
    """

    def classes(network: keras.Model) -> int:
        return network.inputs[1].shape[-1] if len(network.inputs) > 1 else 0

    image_shape, latent_dim = encoder.inputs[0].shape[1:], decoder.inputs[0].shape[-1]
    found = {
        "pictures": (decoder.outputs[0].shape[1:], image_shape),
        "labels": (classes(encoder), classes(decoder)),
    }
    for what, (first, second) in found.items():
        if first != second:
            raise ValueError(
                f"encoder and decoder do not agree on the {what}: {first} and {second}. Build both "
                "with the same image_shape, latent_dim and num_classes."
            )
    return tuple(image_shape), latent_dim, classes(encoder)


def check_latents(encoder: keras.Model, latent_dim: int) -> None:
    """Whether an encoder gives mean and log variance of so many units.

    Raises:
        ValueError: It does not.
    """
    given = [output.shape[1:] for output in encoder.outputs]
    if given != [(latent_dim,)] * 2:
        raise ValueError(
            f"encoder and decoder do not agree on the latents: {given} and "
            f"{[(latent_dim,)] * 2}. Build both with the same image_shape, latent_dim and "
            "num_classes."
        )
