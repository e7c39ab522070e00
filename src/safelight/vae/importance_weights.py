"""log p(x, z) - log q(z|x) of many z at once, compiled; for dense decoders by a short cut.

`PlainWeights` serves every model. `DenseWeights` is several times as fast for black and white
pixels and a chain of dense layers, where nearly all time goes into products of matrices:

* Products are in bfloat16 with float32 sums, but only of what differs from the mean of the rows;
  the mean goes through in float32. So rounding is relative to the small differences between
  samples from one posterior, not to the activations.
* Many pixels are certain: white or black whatever z the posterior proposes. `PixelSurvey` finds
  them with a few samples, and their tiny log-probability is taken as the mean over these.
* One logarithm serves many pixels, see `fast_bernoulli_log_likelihood`.

Keras models, so that Keras compiles them, whatever the backend. Their first inputs are always: bits
`(images, samples, latent_dim)` int32, and mean and log variance of q(z|x), `(images, latent_dim)`;
then x; and last, for a conditional model, one-hot labels `(images, num_classes)`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from safelight.vae.models import VAE
from safelight.vae.networks import PictureBias
from safelight.vae.priors import Prior

LANES = 16  # pixels that are added up side by side, as many as fit into a vector register
_MAX_FACTORS = 64  # each of them at most 2, so that their product fits into float32


def standard_normal(bits: Any) -> Any:
    """Normal numbers from random int32, by the inverse of the distribution function.

    Random bits are cheap on the host, and the same for all backends; what is costly runs compiled.
    """
    # 23 bits, odd and symmetric about 0. TensorFlow's function without XLA rounds (1 + x) / 2 to
    # float32, and with one bit more would answer infinity at the end.
    odd = 2.0 * ops.cast(ops.right_shift(bits, 9), "float32") + 1.0
    return 2.0**0.5 * ops.erfinv(odd * 2.0**-23)


def fast_bernoulli_log_likelihood(x: Any, logits: Any) -> Any:
    """What `objectives.bernoulli_log_likelihood` gives, with one logarithm for many pixels.

    softplus(l) = max(l, 0) + log(1 + exp(-|l|)), and the sum of logarithms is that of a product
    whose factors lie between 1 and 2. Each factor is rounded by 6e-8 at most, and so is each
    pixel's share of the nats.

    Args:
        x: `(..., num_pixels)`.
        logits: Broadcastable to `x`.

    Returns:
        `(...)`, nats per image.
    """
    num_pixels = logits.shape[-1]
    if keras.backend.backend() == "torch":  # not compiled: a pass over memory for each operation
        return ops.sum(x * logits - ops.softplus(logits), axis=-1)
    whole = num_pixels - num_pixels % LANES
    parts = [
        _sum_over_lanes(x[..., start:stop], logits[..., start:stop], width)
        for start, stop, width in ((0, whole, LANES), (whole, num_pixels, num_pixels - whole))
        if stop > start
    ]
    return sum(parts[1:], parts[0])


def _sum_over_lanes(x: Any, logits: Any, width: int) -> Any:
    """Pixels `width` apart are added up one after another, which compilers do side by side."""
    total, product = 0.0, 1.0
    num_steps = logits.shape[-1] // width
    for step in range(num_steps):
        place = slice(step * width, (step + 1) * width)
        logit = logits[..., place]
        total = total + x[..., place] * logit - ops.maximum(logit, 0.0)
        product = product * (1.0 + ops.exp(-ops.abs(logit)))
        if (step + 1) % _MAX_FACTORS == 0 or step + 1 == num_steps:
            total, product = total - ops.log(product), 1.0
    return ops.sum(total, axis=-1)


class PlainWeights(keras.Model):
    """log w `(images, samples)` for x `(images, height, width, channels)`; any decoder."""

    def __init__(self, vae: VAE, prior: Prior) -> None:
        super().__init__(name="plain_weights", dtype="float32")
        self.vae, self.prior = vae, prior
        self.built = True
        self.compile(optimizer=None, jit_compile=_suits_xla(vae))

    def call(self, inputs: list[Any]) -> Any:
        bits, mean, log_variance, x, *labels = inputs
        z, ratio = _propose(self.prior, bits, mean, log_variance)
        location = _locate(self.vae, z, labels)
        if self.vae.likelihood.name == "bernoulli":
            x = ops.reshape(x, (x.shape[0], 1, -1))
            return ratio + fast_bernoulli_log_likelihood(
                x, ops.reshape(location, (*z.shape[:2], -1))
            )
        x = ops.expand_dims(x, 1)
        return ratio + self.vae.likelihood.log_likelihood(x, location, self.vae.log_scale)


class PixelSurvey(keras.Model):
    """What `DenseWeights` has to know, from a few samples in float32.

    Output: log w `(images, samples)`; and of each pixel's log p(x|z), over the samples, the least
    and the mean, `(images, num_pixels)` each.
    """

    def __init__(self, vae: VAE, prior: Prior) -> None:
        super().__init__(name="pixel_survey", dtype="float32")
        self.vae, self.prior = vae, prior
        self.built = True
        self.compile(optimizer=None, jit_compile=_suits_xla(vae))

    def call(self, inputs: list[Any]) -> tuple[Any, Any, Any]:
        bits, mean, log_variance, x, *labels = inputs
        z, ratio = _propose(self.prior, bits, mean, log_variance)
        logits = ops.reshape(_locate(self.vae, z, labels), (*z.shape[:2], -1))
        x = ops.reshape(x, (x.shape[0], 1, -1))
        terms = x * logits - ops.softplus(logits)
        return ratio + ops.sum(terms, axis=-1), ops.min(terms, axis=1), ops.mean(terms, axis=1)


@dataclasses.dataclass(frozen=True, eq=False)
class DenseDecoder:
    """A decoder that is nothing but dense layers, one after another, and a bias for each pixel.

    Attributes:
        hidden: Its layers before the last one.
        kernel: `(num_pixels, units)`, of the last one, transposed.
        bias: `(num_pixels,)`.
    """

    hidden: tuple[layers.Dense, ...]
    kernel: np.ndarray
    bias: np.ndarray

    @classmethod
    def find(cls, vae: VAE) -> DenseDecoder | None:
        """The chain of a model for black and white pixels; `None` if its decoder is another one."""
        if vae.likelihood.name != "bernoulli":
            return None
        wiring = layers.InputLayer | layers.Concatenate | layers.Reshape
        *dense, last = [layer for layer in vae.decoder.layers if not isinstance(layer, wiring)]
        if not isinstance(last, PictureBias) or not dense:
            return None
        if any(type(layer) is not layers.Dense for layer in dense):
            return None
        if dense[-1].use_bias or not all(layer.use_bias for layer in dense[:-1]):
            return None
        widths = [
            vae.decoder.inputs[0].shape[-1] + vae.num_classes,
            *(layer.units for layer in dense),
        ]
        if any(layer.kernel.shape[0] != n for layer, n in zip(dense, widths, strict=False)):
            return None
        kernel, bias = (ops.convert_to_numpy(weight) for weight in (dense[-1].kernel, last.bias))
        found = cls(tuple(dense[:-1]), np.ascontiguousarray(kernel.T), bias.reshape(-1))
        return found if found._agrees(vae) else None

    def _agrees(self, vae: VAE) -> bool:
        """Whether the layers are really wired one after another."""
        rng = np.random.default_rng(0)
        z = rng.normal(size=(8, vae.decoder.inputs[0].shape[-1])).astype("float32")
        told = []
        if vae.num_classes:
            told.append(np.eye(vae.num_classes, dtype="float32")[np.arange(8) % vae.num_classes])
        x = np.concatenate([z, *told], axis=1)
        for layer in self.hidden:
            x = ops.convert_to_numpy(layer.activation(ops.matmul(x, layer.kernel) + layer.bias))
        expected = ops.convert_to_numpy(vae.decoder([z, *told] if told else z)).reshape(8, -1)
        single = all(layer.compute_dtype == "float32" for layer in vae.decoder.layers)
        tolerance = 1e-4 if single else 0.05
        spread = np.abs(expected - self.bias).max()
        return bool(np.abs(x @ self.kernel.T + self.bias - expected).max() <= tolerance * spread)


class DenseWeights(keras.Model):
    """log w `(images, samples)` of the pixels that are not certain.

    x is `(images, chosen)`, and after it come the numbers of the chosen pixels, `(images, chosen)`
    int32; `num_pixels` stands for one more pixel, which is always black and certain of it, and
    fills up the rows to one length, a multiple of `LANES`.
    """

    def __init__(self, vae: VAE, prior: Prior, decoder: DenseDecoder) -> None:
        super().__init__(name="dense_weights", dtype="float32")
        self.prior = prior
        self.hidden = list(decoder.hidden)
        num_pixels, units = decoder.kernel.shape
        shapes = {"kernel": (num_pixels + 1, units), "bias": (num_pixels + 1,)}
        self.kernel, self.bias = (
            keras.Variable(np.zeros(shape, "float32"), trainable=False, name=name)
            for name, shape in shapes.items()
        )
        self.take(decoder)
        self.built = True
        self.compile(optimizer=None, jit_compile=_suits_xla(vae))

    def take(self, decoder: DenseDecoder) -> None:
        """Weights of the last layer as they are now; those of the others are the model's own."""
        units = decoder.kernel.shape[1]
        self.kernel.assign(np.concatenate([decoder.kernel, np.zeros((1, units), "float32")]))
        self.bias.assign(np.append(decoder.bias, np.float32(-100)))

    def call(self, inputs: list[Any]) -> Any:
        # One image after another: blocks stay in the cache, and each has its own pixels.
        return ops.map(self._weigh_one, tuple(inputs))

    def _weigh_one(self, inputs: tuple[Any, ...]) -> Any:
        bits, mean, log_variance, x, pixels, *labels = inputs
        z, ratio = _propose(self.prior, bits, mean, log_variance)
        hidden = self.prior.visible(z)
        if labels:
            told = ops.broadcast_to(labels[0], (z.shape[0], labels[0].shape[0]))
            hidden = ops.concatenate([hidden, told], axis=-1)
        for i, layer in enumerate(self.hidden):
            # The first is narrow, and its input varies most: bfloat16 would save little there.
            product = _product if i else ops.matmul
            hidden = layer.activation(product(hidden, layer.kernel) + layer.bias)
        kernel = ops.transpose(ops.take(self.kernel, pixels, axis=0))
        logits = _product(hidden, kernel) + ops.take(self.bias, pixels, axis=0)
        return ratio + fast_bernoulli_log_likelihood(x, logits)


def _suits_xla(vae: VAE) -> bool:
    """JAX has nothing else and PyTorch none of it; TensorFlow's own convolutions are faster."""
    convolutional = any("Conv" in type(layer).__name__ for layer in vae.decoder.layers)
    backend = keras.backend.backend()
    return backend == "jax" or (backend == "tensorflow" and not convolutional)


def _propose(prior: Prior, bits: Any, mean: Any, log_variance: Any) -> tuple[Any, Any]:
    """Latents from q(z|x), `(..., samples, latent_dim)`, and log p(z) - log q(z|x)."""
    mean, log_variance = ops.expand_dims(mean, -2), ops.expand_dims(log_variance, -2)
    z, log_prior, log_posterior = prior.propose(mean, log_variance, standard_normal(bits))
    return z, log_prior - log_posterior


def _locate(vae: VAE, z: Any, labels: list[Any]) -> Any:
    """The decoder's output, float32 `(images, samples, height, width, channels)`."""
    num_images, num_samples, _ = z.shape
    z = vae.prior.visible(z)
    rows = [ops.reshape(z, (-1, z.shape[-1])), *(ops.repeat(y, num_samples, 0) for y in labels)]
    location = ops.cast(vae.decoder(rows if labels else rows[0]), "float32")
    return ops.reshape(location, (num_images, num_samples, *vae.image_shape))


def _product(rows: Any, kernel: Any) -> Any:
    """`rows @ kernel`, float32, in bfloat16 but for the mean of the rows."""
    centre = ops.mean(rows, axis=0, keepdims=True)
    return _multiply_bfloat16(rows - centre, kernel) + ops.matmul(centre, kernel)


def _multiply_bfloat16(a: Any, b: Any) -> Any:
    """Of two matrices, with float32 sums, which Keras' own product would round to bfloat16."""
    a, b = ops.cast(a, "bfloat16"), ops.cast(b, "bfloat16")
    match keras.backend.backend():
        case "tensorflow":
            import tensorflow as tf

            return tf.matmul(a, b, output_type=tf.float32)
        case "jax":
            import jax.numpy as jnp

            return jnp.matmul(a, b, preferred_element_type=jnp.float32)
        case _:
            return ops.cast(ops.matmul(a, b), "float32")
