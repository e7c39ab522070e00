"""The ONNX graph against Keras: the same picture for the same latents."""

import keras
import numpy as np
import onnxruntime
import pytest

from safelight.explorer import decoder_graph
from safelight.gan import networks as games
from safelight.vae import networks
from safelight.vae.likelihoods import LIKELIHOODS, find_likelihood

TOLERANCE = 1e-5


def run(model, **inputs):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(["picture"], inputs)[0]


def decoder_of(image_shape=(7, 10, 1), *, spread=1.0, **design):
    """A decoder with weights of every sign in every place, zeros and symmetries nowhere."""
    decoder = networks.build_decoder(image_shape, 4, **{"hidden_units": (6, 5), **design})
    rng = np.random.default_rng(0)
    decoder.set_weights([rng.normal(0, spread, w.shape) for w in decoder.get_weights()])
    return decoder


def expected(decoder, likelihood, *inputs):
    location = decoder(list(inputs) if len(inputs) > 1 else inputs[0])
    return keras.ops.convert_to_numpy(find_likelihood(likelihood).mean(location))


def latents(num=9):
    return np.random.default_rng(1).normal(size=(num, 4)).astype("float32")


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("architecture", ["dense", "conv"])
def test_the_graph_gives_the_expected_picture(architecture, likelihood):
    decoder = decoder_of(architecture=architecture, spread=0.4)
    z = latents()
    found = run(decoder_graph(decoder, likelihood), z=z)
    assert found.shape == (9, 7, 10, 1)
    assert found.std() > 0.02
    np.testing.assert_allclose(found, expected(decoder, likelihood, z), atol=TOLERANCE)


@pytest.mark.parametrize("image_shape", [(8, 8, 1), (5, 9, 3), (13, 6, 3)])
@pytest.mark.parametrize("hidden_units", [(4,), (6, 5), (3, 4, 5)])
@pytest.mark.parametrize("architecture", ["conv", "resnet"])
def test_convolutions_of_any_depth_on_pictures_of_any_shape(
    image_shape, hidden_units, architecture
):
    design = {"architecture": architecture, "hidden_units": hidden_units}
    decoder = decoder_of(image_shape, spread=0.3 if architecture == "conv" else 0.1, **design)
    z = latents(3)
    found = run(decoder_graph(decoder, "gaussian"), z=z)
    np.testing.assert_allclose(found, expected(decoder, "gaussian", z), atol=TOLERANCE)


@pytest.mark.parametrize("num_classes", [0, 3])
@pytest.mark.parametrize("image_shape", [(8, 8, 1), (5, 9, 3), (13, 6, 3)])
@pytest.mark.parametrize("filters", [(4,), (6, 5), (3, 4, 5)])
@pytest.mark.parametrize("architecture", games.ARCHITECTURES)
def test_a_generator_draws_the_same_picture(architecture, filters, image_shape, num_classes, shake):
    """With moments that are not those of a network at its start."""
    design = {"architecture": architecture, "filters": filters, "num_classes": num_classes}
    generator = games.build_generator(image_shape, 4, **design)
    shake(generator)
    inputs = {"z": latents(3)}
    if num_classes:
        inputs["labels"] = np.eye(3, dtype="float32")
    wanted = generator(list(inputs.values()) if num_classes else inputs["z"], training=False)
    found = run(decoder_graph(generator), **inputs)
    assert found.std() > 0.02
    np.testing.assert_allclose(found, keras.ops.convert_to_numpy(wanted), atol=TOLERANCE)


@pytest.mark.parametrize("architecture", ["dense", "conv"])
def test_a_conditional_decoder_takes_the_class_beside_z(architecture):
    decoder = decoder_of((6, 6, 3), architecture=architecture, num_classes=3, spread=0.4)
    z, labels = latents(3), np.eye(3, dtype="float32")
    graph = decoder_graph(decoder, "bernoulli")
    found = run(graph, z=z, labels=labels)
    np.testing.assert_allclose(found, expected(decoder, "bernoulli", z, labels), atol=TOLERANCE)
    assert np.abs(found - run(graph, z=z, labels=labels[::-1].copy())).max() > 0.01


def test_the_sizes_that_decoders_have_by_default():
    decoder = networks.build_decoder((28, 28, 1), 40)
    z = np.random.default_rng(2).normal(size=(5, 40)).astype("float32")
    found = run(decoder_graph(decoder, "bernoulli"), z=z)
    np.testing.assert_allclose(found, expected(decoder, "bernoulli", z), atol=TOLERANCE)


def test_the_continuous_bernoulli_where_its_formula_has_no_quotient():
    """Logits around 0, on both sides of where the series ends, and far out."""
    logits = np.float32([0, 1e-7, -1e-3, 0.299, 0.301, -0.299, -0.301, 4, -60, 90])
    inputs = keras.Input((4,))
    bias = networks.PictureBias()
    flat = keras.layers.Dense(10, kernel_initializer="zeros", use_bias=False)(inputs)
    decoder = keras.Model(inputs, bias(keras.layers.Reshape((1, 10, 1))(flat)))
    bias.set_weights([logits.reshape(1, 10, 1)])
    found = run(decoder_graph(decoder, "continuous_bernoulli"), z=latents(1)).ravel()
    far = logits[3:].astype("float64")
    np.testing.assert_allclose(found[3:], -1 / np.expm1(-far) - 1 / far, atol=TOLERANCE)
    np.testing.assert_allclose(found[:3], 0.5 + logits[:3] / 12, atol=TOLERANCE)


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "silu", "tanh"])
def test_residual_networks_of_one_s_own(activation):
    inputs = keras.Input((4,))
    x = keras.layers.Dense(6)(inputs)
    x = keras.layers.Add()([x, keras.layers.Dense(6, activation)(x), x])
    x = keras.layers.Activation(activation)(x)
    x = keras.layers.Reshape((3, 2, 1))(x)
    decoder = keras.Model(inputs, x)
    z = latents()
    found = run(decoder_graph(decoder, "gaussian"), z=z)
    np.testing.assert_allclose(found, expected(decoder, "gaussian", z), atol=TOLERANCE)


def test_reduced_precision_is_not_taken_over():
    """The graph's picture is that of the float32 network with the same weights."""
    kinds = [decoder_of(dtype=dtype, spread=0.4) for dtype in ("mixed_bfloat16", "float32")]
    kinds[1].set_weights(kinds[0].get_weights())
    z = latents()
    found = run(decoder_graph(kinds[0], "bernoulli"), z=z)
    np.testing.assert_allclose(found, expected(kinds[1], "bernoulli", z), atol=TOLERANCE)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (keras.layers.LayerNormalization(), "LayerNormalization"),
        (keras.layers.Dense(2, "elu"), "'elu'"),
    ],
)
def test_what_has_no_translation_is_named(layer, words):
    inputs = keras.Input((4,))
    outputs = keras.layers.Reshape((1, -1, 1))(layer(inputs))
    with pytest.raises(ValueError, match=f"{words}.*cannot be written as ONNX: expected"):
        decoder_graph(keras.Model(inputs, outputs), "bernoulli")


def test_an_unknown_likelihood_is_named():
    with pytest.raises(ValueError, match=r"likelihood='cauchy'.*expected one of bernoulli"):
        decoder_graph(decoder_of(), "cauchy")
