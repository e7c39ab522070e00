import re

import keras
import numpy as np
import pytest
from keras import ops

from safelight import vae
from safelight.vae import networks

SIZES = {"dense": (6,), "residual": (6, 6), "conv": (3, 4), "resnet": (3, 4)}
SHAPES = [(28, 28, 1), (31, 17, 3), (1, 5, 1)]


def numpy(values) -> np.ndarray:
    return ops.convert_to_numpy(values)


def tensor(values) -> object:
    return ops.convert_to_tensor(np.asarray(values, "float32"))


def build(image_shape, architecture: str, **options) -> tuple[keras.Model, keras.Model]:
    options = {"architecture": architecture, "hidden_units": SIZES[architecture], **options}
    keras.utils.set_random_seed(0)  # few ReLUs may all be dead
    encoder = networks.build_encoder(image_shape, 2, **options)
    return encoder, networks.build_decoder(image_shape, 2, **options)


@pytest.mark.parametrize("architecture", SIZES)
@pytest.mark.parametrize("image_shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_any_size_goes_in_and_comes_out_in_float32(image_shape, architecture, dtype):
    encoder, decoder = build(image_shape, architecture, dtype=dtype)
    x = tensor(np.random.default_rng(0).uniform(size=(2, *image_shape)))
    mean, log_variance = encoder(x)
    assert mean.shape == log_variance.shape == (2, 2)
    location = decoder(mean)
    assert tuple(location.shape) == (2, *image_shape)
    dtypes = [keras.backend.standardize_dtype(t.dtype) for t in (mean, log_variance, location)]
    assert dtypes == ["float32"] * 3
    assert numpy(location).std() > 0
    wide = [layer for layer in encoder.layers if layer.name.startswith(("hidden", "down"))]
    policy = {layer.compute_dtype for layer in wide}
    assert policy == {"float32" if dtype == "float32" else "bfloat16"}


@pytest.mark.parametrize("architecture", ["dense", "residual", "conv"])
@pytest.mark.parametrize("side", [66, 128])
def test_a_step_moves_a_sum_over_many_inputs_as_one_over_256(architecture, side):
    """And it computes at the start what a layer with Glorot's weights would."""
    encoder, _ = build((side, side, 1), architecture)
    layer = encoder.get_layer("hidden_0_of_many")
    kernel, bias = layer.get_weights()
    share = 256 / len(kernel)
    limit = np.sqrt(6 / sum(kernel.shape))
    assert np.abs(kernel * share).max() == pytest.approx(limit, rel=1e-2)
    assert (kernel * share).std() == pytest.approx(limit / np.sqrt(3), rel=5e-2)

    ones = numpy(encoder.get_layer("share")(tensor(np.ones((1, len(kernel))))))
    before, after = ones @ kernel + bias, ones @ (kernel + 1e-3) + bias  # Adam's first step
    np.testing.assert_allclose(after - before, 0.256, rtol=1e-3)


@pytest.mark.parametrize("architecture", SIZES)
def test_few_pixels_are_learned_from_as_they_are(architecture):
    encoder, _ = build((32, 32, 1), architecture)
    assert not any(isinstance(layer, keras.layers.Rescaling) for layer in encoder.layers)


@pytest.mark.one_backend
def test_pictures_of_many_pixels_are_told_apart_by_their_latents():
    """Bright pictures with a disc somewhere, for which the decoder cannot do without."""
    rng, (y, x) = np.random.default_rng(0), np.mgrid[:64, :64]
    places = rng.uniform(12, 52, (300, 2, 1, 1))
    discs = (x - places[:, 0]) ** 2 + (y - places[:, 1]) ** 2 < 10**2
    images = np.where(discs, 120, 200).astype("uint8")[..., None]
    config = vae.TrainConfig(likelihood="gaussian", binarization="none", epochs=25, batch_size=32)
    model = vae.build_vae(images.shape[1:], config, mean_picture=images.mean(0) / 255)
    trained = vae.train(model, images, config=config)
    assert trained.history["kl"][-1] > 20  # 1 where the first layer learns as one of few inputs
    means, _ = trained.model.encode(images)
    there = np.c_[means, np.ones(300)]
    left = places[:, :, 0, 0] - there @ np.linalg.lstsq(there, places[:, :, 0, 0], rcond=None)[0]
    assert (left.var(0) < 0.1 * places[:, :, 0, 0].var(0)).all()


@pytest.mark.parametrize("architecture", SIZES)
def test_defaults_are_those_of_the_architecture(architecture):
    encoder = networks.build_encoder((8, 8, 1), 2, architecture=architecture)
    decoder = networks.build_decoder((8, 8, 1), 2, architecture=architecture)
    widths = {layer.name: layer.output.shape[-1] for layer in encoder.layers}
    if architecture == "resnet":
        assert (widths["down_0"], widths["down_1"]) == (64, 128)
        last = decoder.get_layer("block_2_0_sum").output
        assert last.shape == (None, 8, 8, 32)
    elif architecture != "conv":
        hidden = [width for name, width in widths.items() if name.startswith("hidden")]
        assert hidden == [300] * (2 if architecture == "dense" else 5)  # layers, and two sums
    else:
        assert (widths["conv_0"], widths["conv_1"], widths["hidden_0"]) == (32, 64, 256)
        assert encoder.get_layer("conv_1").output.shape[1:3] == (2, 2)
    assert decoder.get_layer("picture").output.shape == (None, 8, 8, 1)


def test_the_decoder_mirrors_the_encoder():
    widths = (5, 6, 7)
    decoder = networks.build_decoder((4, 4, 1), 2, hidden_units=widths)
    hidden = [la.units for la in decoder.layers if la.name.startswith("hidden")]
    assert hidden == [7, 6, 5]


@pytest.mark.parametrize("architecture", SIZES)
def test_hidden_layers_have_the_activation_that_is_asked_for(architecture):
    for network in build((8, 8, 1), architecture, activation="silu"):
        named = r".*activation" if architecture == "resnet" else r"(hidden|conv)_\d"
        hidden = [la for la in network.layers if re.fullmatch(named, la.name)]
        assert hidden
        x = np.array([-1.0, 0.5], "float32")
        for layer in hidden:
            answer = numpy(layer.activation(tensor(x)))
            np.testing.assert_allclose(answer, x / (1 + np.exp(-x)), rtol=1e-5)


def test_a_residual_layer_adds_its_input_where_both_are_equally_wide():
    encoder, _ = build((4, 4, 1), "residual", hidden_units=(7, 7, 5))
    x = np.random.default_rng(0).uniform(size=(3, 4, 4, 1)).astype("float32")
    hidden = x.reshape(3, -1)
    for i, added in enumerate([False, True, False]):
        kernel, bias = encoder.get_layer(f"hidden_{i}").get_weights()
        made = np.tanh(hidden @ kernel + bias)
        hidden = hidden + made if added else made
    kernel, bias = encoder.get_layer("mean").get_weights()
    np.testing.assert_allclose(numpy(encoder(x)[0]), hidden @ kernel + bias, rtol=1e-4, atol=1e-5)


def test_residual_blocks_add_two_convolutions_which_are_nothing_at_first():
    encoder, _ = build((8, 8, 1), "resnet")
    x = tensor(np.random.default_rng(0).uniform(size=(2, 8, 8, 1)))
    names = ("down_0", "block_0_0_sum", "block_0_1_sum")
    inside = keras.Model(encoder.inputs, [encoder.get_layer(name).output for name in names])
    before, *after = map(numpy, inside(x))
    assert np.abs(before).max() > 0
    for found in after:
        np.testing.assert_array_equal(found, before)
    # The first block's second convolution passes on, with the factor 2, what lies in its middle.
    first, second = (encoder.get_layer(f"block_0_0_{part}") for part in (0, 1))
    kernel = np.zeros(second.kernel.shape, "float32")
    kernel[1, 1] = 2 * np.eye(3)
    second.set_weights([kernel, np.zeros(3, "float32")])
    silu = keras.activations.silu
    wanted = before + 2 * numpy(silu(first(silu(tensor(before)))))
    np.testing.assert_allclose(numpy(inside(x)[1]), wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("architecture", SIZES)
def test_labels_are_heard_by_both_networks(architecture):
    encoder, decoder = build((7, 5, 1), architecture, num_classes=3)
    x, z = tensor(np.full((2, 7, 5, 1), 0.3)), tensor(np.zeros((2, 2)))
    labels = tensor([[1, 0, 0], [0, 0, 1]])
    for answer in (*encoder([x, labels]), decoder([z, labels])):
        first, second = numpy(answer)
        assert np.abs(first - second).max() > 1e-4


@pytest.mark.parametrize("architecture", SIZES)
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_without_the_last_products_the_decoder_starts_at_its_initial_location(architecture, dtype):
    image_shape = (9, 6, 3)
    location = np.random.default_rng(0).normal(scale=5, size=image_shape).astype("float32")
    decoder = networks.build_decoder(
        image_shape,
        2,
        architecture=architecture,
        hidden_units=SIZES[architecture],
        initial_location=location,
        dtype=dtype,
    )
    pixels = decoder.get_layer("pixels")
    pixels.set_weights([np.zeros_like(w) for w in pixels.get_weights()])
    z = tensor(np.random.default_rng(1).normal(size=(3, 2)))
    np.testing.assert_array_equal(numpy(decoder(z)), np.stack([location] * 3))


@pytest.mark.parametrize("architecture", SIZES)
def test_every_pixel_depends_on_the_latents(architecture):
    _, decoder = build((11, 6, 1), architecture)
    found = numpy(decoder(tensor(np.random.default_rng(1).normal(size=(50, 2)))))
    assert found.std(0).min() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_shape": (28, 28)}, "expected \\(height, width, channels\\)"),
        ({"image_shape": (28, 0, 1)}, "at least 1"),
        ({"latent_dim": 0}, "latent_dim=0: expected at least 1"),
        ({"architecture": "vit"}, "'vit': expected one of dense, residual, conv"),
        ({"num_classes": -1}, "num_classes=-1"),
    ],
)
@pytest.mark.parametrize("builder", [networks.build_encoder, networks.build_decoder])
def test_impossible_networks_are_refused(builder, change, message):
    with pytest.raises(ValueError, match=message):
        builder(**{"image_shape": (4, 4, 1), "latent_dim": 2, **change})


def test_an_initial_location_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"shape \(4, 4\): expected .*\(4, 4, 1\)"):
        networks.build_decoder((4, 4, 1), 2, initial_location=np.zeros((4, 4)))


# Reparameterization.


def test_draws_have_the_moments_they_are_asked_for():
    mean, log_variance = np.array([[0.0, 3.0, -1.0]]), np.array([[0.0, -2.0, 1.0]])
    sampling = networks.Sampling(seed=1)
    num = 40_000
    z = numpy(sampling((tensor(mean), tensor(log_variance)), num_samples=num))
    assert z.shape == (num, 1, 3)
    deviation = np.exp(log_variance[0] / 2)
    np.testing.assert_allclose(z.mean((0, 1)), mean[0], atol=4.5 * deviation.max() / num**0.5)
    np.testing.assert_allclose(z.std((0, 1)) / deviation, 1, atol=4.5 / (2 * num) ** 0.5)
    assert np.abs(np.corrcoef(z[:, 0].T) - np.eye(3)).max() < 4.5 / num**0.5


def test_one_seed_gives_one_stream_of_noise():
    inputs = (tensor(np.zeros((2, 3))), tensor(np.zeros((2, 3))))
    streams = []
    for seed in (5, 5, 6):
        sampling = networks.Sampling(seed=seed)
        streams.append([numpy(sampling(inputs)) for _ in range(2)])
    np.testing.assert_array_equal(streams[0], streams[1])
    assert np.any(streams[0][0] != streams[2][0])
    assert np.any(streams[0][0] != streams[0][1])
    assert streams[0][0].shape == (2, 3)
    before = numpy(sampling.seed_generator.state)
    drawn = [numpy(sampling(inputs, seed=9)) for _ in range(2)]
    np.testing.assert_array_equal(*drawn)
    np.testing.assert_array_equal(before, numpy(sampling.seed_generator.state))


def test_gradients_pass_through_the_draw(gradient):
    """d/dmean E[z^2] = 2 mean, and d/dlog_variance E[z^2] = variance."""
    mean, log_variance, num = 0.7, -0.4, 40_000
    sampling = networks.Sampling()

    def mean_square(both):
        inputs = (ops.reshape(both[0], (1, 1)), ops.reshape(both[1], (1, 1)))
        z = sampling(inputs, num_samples=num, seed=3)
        return ops.mean(ops.square(z))

    found = gradient(mean_square, [mean, log_variance])
    variance = np.exp(log_variance)
    # Of the single terms 2 z and z * deviation * noise.
    errors = np.array([2 * variance**0.5, (2 * variance**2 + (mean**2) * variance) ** 0.5])
    assert np.all(np.abs(found - [2 * mean, variance]) < 4.5 * errors / num**0.5)


def test_the_networks_are_plain_serializable_models(tmp_path):
    for network in build((6, 5, 1), "conv", num_classes=2):
        network.save(tmp_path / "network.keras")
        loaded = keras.saving.load_model(tmp_path / "network.keras", safe_mode=True)
        for kept, found in zip(network.get_weights(), loaded.get_weights(), strict=True):
            np.testing.assert_array_equal(kept, found)
    config = keras.saving.serialize_keras_object(networks.Sampling(seed=4))
    assert keras.saving.deserialize_keras_object(config).seed == 4
