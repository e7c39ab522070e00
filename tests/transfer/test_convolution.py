"""The convolution for training equals Keras' own, forwards and backwards."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from safelight.transfer.convolution import ProductConv2D, convolve, suits


def gradients(layer: keras.layers.Layer, images: np.ndarray) -> list[np.ndarray]:
    """Output, gradient of the input and of the weights of a scalar function of the output."""
    inputs = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs)
        # Not a plain sum: its gradient is the same everywhere and would hide shifts.
        scalar = keras.ops.sum(outputs * keras.ops.cos(outputs))
    wanted = [inputs, *[weight.value for weight in layer.trainable_weights]]
    return [np.asarray(x) for x in [outputs, *tape.gradient(scalar, wanted)]]


@pytest.mark.parametrize("kernel_size", [3, 5, (3, 5)])
@pytest.mark.parametrize("side", [(7, 7), (4, 9), (1, 3)])
def test_equals_conv2d(kernel_size, side):
    images = np.random.default_rng(0).normal(size=(3, *side, 4)).astype("float32")
    theirs = keras.layers.Conv2D(6, kernel_size, padding="same", activation="relu")
    ours = ProductConv2D(6, kernel_size, padding="same", activation="relu")
    theirs.build(images.shape)
    ours.build(images.shape)
    ours.set_weights(theirs.get_weights())
    for got, expected in zip(gradients(ours, images), gradients(theirs, images), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_gradient_equals_finite_differences():
    rng = np.random.default_rng(1)
    images, kernel = rng.normal(size=(1, 3, 3, 2)), rng.normal(size=(3, 3, 2, 2))
    change = rng.normal(size=(1, 3, 3, 2))

    def scalar(values: np.ndarray) -> float:
        return float(keras.ops.sum(convolve(tf.constant(images), tf.constant(values)) * change))

    variable = tf.Variable(kernel)
    with tf.GradientTape() as tape:
        output = keras.ops.sum(convolve(tf.constant(images), variable) * change)
    slope = np.asarray(tape.gradient(output, variable))
    for place in [(0, 0, 0, 0), (1, 2, 1, 0), (2, 1, 0, 1)]:
        step = np.zeros_like(kernel)
        step[place] = 1e-6
        numeric = (scalar(kernel + step) - scalar(kernel - step)) / 2e-6
        np.testing.assert_allclose(slope[place], numeric, rtol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{"strides": 2}, {"padding": "valid"}, {"dilation_rate": 2}, {"groups": 2}],
)
def test_stands_in_for_plain_convolutions_only(options):
    plain = {"filters": 4, "kernel_size": 3, "padding": "same"}
    assert suits(keras.layers.Conv2D(**plain))
    assert not suits(keras.layers.Conv2D(**{**plain, **options}))
    assert not suits(keras.layers.DepthwiseConv2D(3, padding="same"))
