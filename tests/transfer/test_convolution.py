"""The convolution for training equals Keras' own, forwards and backwards."""

import keras
import numpy as np
import pytest

from safelight.transfer.convolution import ProductConv2D, convolve, suits
from safelight.transfer.gradients import gradients_of


def gradients(layer: keras.layers.Layer, images: np.ndarray) -> list[np.ndarray]:
    """Output, gradient of the input and of the weights of a scalar function of the output."""

    def scalar(values: list) -> object:
        inputs, *weights = values
        pairs = list(zip(layer.trainable_weights, weights, strict=True))
        with keras.StatelessScope(state_mapping=pairs):
            outputs = layer(inputs)
        # Not a plain sum: its gradient is the same everywhere and would hide shifts.
        return keras.ops.sum(outputs * keras.ops.cos(outputs))

    outputs = keras.ops.convert_to_numpy(layer(images))
    return [outputs, *gradients_of(scalar, [images, *layer.get_weights()])]


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
    images, kernel, change = (
        rng.normal(size=size).astype("float32")
        for size in ((1, 3, 3, 2), (3, 3, 2, 2), (1, 3, 3, 2))
    )

    def scalar(values: list) -> object:
        inputs, wanted = (keras.ops.convert_to_tensor(each) for each in (images, change))
        return keras.ops.sum(convolve(inputs, values[0]) * wanted)

    def at(kernel: np.ndarray) -> float:
        return float(keras.ops.convert_to_numpy(scalar([keras.ops.convert_to_tensor(kernel)])))

    (slope,) = gradients_of(scalar, [kernel])
    for place in [(0, 0, 0, 0), (1, 2, 1, 0), (2, 1, 0, 1)]:
        # It is linear in the kernel, so that a long step is exact but for rounding.
        step = np.zeros_like(kernel)
        step[place] = 1.0
        numeric = (at(kernel + step) - at(kernel - step)) / 2
        np.testing.assert_allclose(slope[place], numeric, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{"strides": 2}, {"padding": "valid"}, {"dilation_rate": 2}, {"groups": 2}],
)
def test_stands_in_for_plain_convolutions_only(options):
    plain = {"filters": 4, "kernel_size": 3, "padding": "same"}
    assert suits(keras.layers.Conv2D(**plain))
    assert not suits(keras.layers.Conv2D(**{**plain, **options}))
    assert not suits(keras.layers.DepthwiseConv2D(3, padding="same"))
