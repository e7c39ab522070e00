"""PyTorch's layers on views and its Adam: the numbers of Keras' own."""

import keras
import numpy as np
import pytest
from keras import layers

from safelight.transfer import backbones, channels_last

pytestmark = pytest.mark.skipif(keras.backend.backend() != "torch", reason="they are for PyTorch")

CONVOLUTIONS = {
    "plain": {},
    "of one pixel": {"kernel_size": 1},
    "five wide": {"kernel_size": 5, "activation": "relu"},
    "without bias": {"use_bias": False, "activation": "relu"},
    "strides": {"strides": 2, "padding": "valid", "activation": "tanh"},
    "dilated": {"dilation_rate": 2, "activation": "relu"},
    "groups": {"groups": 2},
    "even kernel": {"kernel_size": 2, "padding": "valid"},
}


def pair(layer, shape):
    """A layer, and the one that stands in for it, with the same weights."""
    instead = channels_last.stand_in(layer)
    assert instead is not None
    other = instead.from_config(layer.get_config())
    for each in (layer, other):
        each.build((None, *shape))
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=w.shape) for w in layer.get_weights()]
    for each in (layer, other):
        each.set_weights(weights)
    if isinstance(other, channels_last.ViewConv2D):
        channels_last.arrange([other.kernel])
    return layer, other


def slopes(layer, x):
    """What a layer gives, and the slopes of a sum with weights, of input and weights."""
    import torch

    inputs = torch.tensor(x, requires_grad=True)
    for weight in layer.weights:
        weight.value.grad = None
    outputs = layer(inputs)
    factors = np.random.default_rng(1).normal(size=tuple(outputs.shape)).astype("float32")
    (outputs * torch.tensor(factors)).sum().backward()
    found = [outputs, inputs.grad, *(weight.value.grad for weight in layer.trainable_weights)]
    return [each.detach().numpy() for each in found]


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_on_views_has_the_numbers_and_slopes_of_keras(name):
    shape = (7, 9, 4)
    options = {"kernel_size": 3, "padding": "same", **CONVOLUTIONS[name]}
    ours, other = pair(layers.Conv2D(6, **options), shape)
    x = np.random.default_rng(2).normal(size=(3, *shape)).astype("float32")
    for expected, found in zip(slopes(ours, x), slopes(other, x), strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize(("size", "strides"), [(2, None), (3, 2), ((2, 3), (1, 2))])
def test_pooling_on_views_has_the_numbers_and_slopes_of_keras(size, strides):
    ours, other = pair(layers.MaxPooling2D(size, strides), (9, 8, 3))
    x = np.random.default_rng(2).normal(size=(2, 9, 8, 3)).astype("float32")
    for expected, found in zip(slopes(ours, x), slopes(other, x), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2D(2, 3, strides=2, padding="same"),
        layers.Conv2D(2, 2, padding="same"),
        layers.Conv2D(2, 3, data_format="channels_first"),
        layers.Conv2DTranspose(2, 3),
        layers.DepthwiseConv2D(3),
        layers.MaxPooling2D(2, padding="same"),
        layers.AveragePooling2D(2),
        layers.Dense(2),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_what_pads_or_computes_otherwise_keeps_its_own_layer(layer):
    assert channels_last.stand_in(layer) is None


def small(seed=0):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(5, 3, padding="same", activation="relu")(inputs)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    return keras.Model(inputs, layers.Dense(2, name="head")(layers.GlobalAveragePooling2D()(x)))


def test_a_copied_model_gives_the_same_and_its_weights_come_back_the_same():
    model = small()
    copy = backbones.copy_model(model)
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    kinds = [type(layer) for layer in copy.layers]
    assert kinds.count(channels_last.ViewConv2D) == 2
    np.testing.assert_allclose(
        copy.predict_on_batch(x), model.predict_on_batch(x), rtol=1e-5, atol=1e-6
    )
    for ours, theirs in zip(copy.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("decay", [None, 0.1])
def test_adam_in_place_goes_where_keras_goes(decay):
    """Rate and slopes change; AdamW, where it decays."""
    rate = keras.optimizers.schedules.CosineDecay(0.01, 30)
    usual = keras.optimizers.Adam(rate) if decay is None else keras.optimizers.AdamW(rate, decay)
    optimizers = [usual, channels_last.InPlaceAdam(rate, weight_decay=decay)]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, 8, 8, 3)).astype("float32")
    y = rng.normal(size=(16, 2)).astype("float32")
    ends = []
    for optimizer in optimizers:
        model = backbones.copy_model(small())
        optimizer.build(model.trainable_variables)
        if isinstance(optimizer, channels_last.InPlaceAdam):
            channels_last.arrange(optimizer.variables)
        model.compile(optimizer, "mse")
        losses = [float(model.train_on_batch(x, y)) for _ in range(20)]
        ends.append((losses, model.get_weights()))
    assert ends[0][0][-1] < 0.9 * ends[0][0][0]
    np.testing.assert_allclose(ends[1][0], ends[0][0], rtol=1e-4)
    for ours, theirs in zip(ends[1][1], ends[0][1], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
