import itertools

import keras
import numpy as np
import pytest

from safelight.gan import networks
from safelight.gan.config import TrainConfig
from safelight.gan.models import GAN, build_gan, in_float32

SHAPES = [(28, 28, 1), (17, 30, 3), (8, 8, 1), (5, 7, 1)]


@pytest.mark.parametrize("architecture", networks.ARCHITECTURES)
@pytest.mark.parametrize("shape", SHAPES)
def test_any_size_is_drawn_and_judged(architecture, shape):
    config = TrainConfig(
        architecture=architecture, latent_dim=4, filters=(4, 6), precision="float32"
    )
    model = build_gan(shape, config)
    drawn = model.generate(3)
    assert drawn.shape == (3, *shape)
    assert drawn.dtype == np.float32
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert keras.ops.convert_to_numpy(model(np.zeros((3, *shape), "uint8"))).shape == (3,)


def test_large_pictures_are_drawn_and_encoded_a_few_at_a_time(monkeypatch):
    config = TrainConfig(latent_dim=4, filters=(4, 6), precision="float32", autoencoder=True)
    model = build_gan((16, 12, 1), config)
    drawn = model.generate(7, seed=2)
    images = np.random.default_rng(0).integers(0, 256, (7, 16, 12, 1)).astype("uint8")
    encoded = model.encode(images)
    sizes, decode = [], type(model).decode
    monkeypatch.setattr("safelight.gan.models._BATCH_PIXELS", 3 * 16 * 12)
    monkeypatch.setattr(
        type(model),
        "decode",
        lambda self, z, told: (sizes.append(len(z)), decode(self, z, told))[1],
    )
    np.testing.assert_allclose(model.generate(7, seed=2), drawn, atol=1e-5)
    assert sizes == [3, 3, 1]
    for mine, wanted in zip(model.encode(images), encoded, strict=True):
        np.testing.assert_allclose(mine, wanted, atol=1e-5)


@pytest.mark.parametrize(("batch_norm", "largest"), [(False, 8), (True, 4)])
def test_filters_suit_the_size(batch_norm, largest):
    """As few halvings of the longer side as leave at most so many pixels.

    There are twice as many filters after each, up to a number at which they stay.
    """
    for side in range(1, 300):
        filters = networks.choose_filters((side, 1, 3), batch_norm=batch_norm)
        assert filters == networks.choose_filters((1, side, 1), batch_norm=batch_norm)
        num = len(filters)
        assert side <= largest * 2**num
        assert num == 1 or side > largest * 2 ** (num - 1)
        assert filters[0] == 32
        growth = [later / earlier for earlier, later in itertools.pairwise(filters)]
        assert set(growth) <= {1, 2}
        assert growth == sorted(growth, reverse=True)
        assert growth[:2] == [2, 2][: len(growth)]


@pytest.mark.parametrize("architecture", networks.ARCHITECTURES)
def test_only_the_discriminator_s_normalization_changes(architecture, config):
    """With batch normalization a logit depends on the other pictures, in training alone."""
    import dataclasses

    rng = np.random.default_rng(0)
    pictures = rng.random((2, 4, 9, 6, 1)).astype("float32")
    pictures[1, 0] = pictures[0, 0]
    for normalization, depends in (("batch", True), ("none", False), ("spectral", False)):
        config = dataclasses.replace(
            config, architecture=architecture, normalization=normalization, autoencoder=True
        )
        model = build_gan((9, 6, 1), config)
        for training in (True, False):
            first = [
                keras.ops.convert_to_numpy(model.discriminate(some, training=training)[0])[0]
                for some in pictures
            ]
            assert (abs(first[0] - first[1]) > 1e-5) == (depends and training)
        kinds = [type(layer).__name__ for layer in model.encoder.layers]
        assert "BatchNormalization" not in kinds


def test_the_same_seed_draws_the_same_and_another_other_pictures(config):
    model = build_gan((9, 6, 1), config)
    np.testing.assert_array_equal(model.generate(4, seed=1), model.generate(4, seed=1))
    assert (model.generate(4, seed=1) != model.generate(4, seed=2)).any()
    assert np.ptp(model.generate(4, temperature=0), axis=0).max() < 1e-6


def test_temperature_is_the_standard_deviation_of_the_draw(config, numpy):
    model = build_gan((9, 6, 1), config)
    rng = np.random.default_rng(0)
    for variable in model.generator.trainable_variables:  # a new one draws much the same of any z
        variable.assign(variable + 0.5 * rng.normal(size=variable.shape).astype("float32"))
    z = np.random.default_rng(1).standard_normal((4, config.latent_dim), "float32")
    drawn = model.generate(4, seed=1)
    np.testing.assert_allclose(drawn, numpy(model.decode(z)), atol=1e-5)
    cooler = model.generate(4, seed=1, temperature=0.3)
    np.testing.assert_allclose(cooler, numpy(model.decode(0.3 * z)), atol=1e-5)
    for other in (0.3**2, 0.3**0.5, 1):
        assert np.abs(numpy(model.decode(other * z)) - cooler).max() > 0.01


@pytest.mark.parametrize("options", [{}, {"conditional": True}, {"autoencoder": True}])
def test_a_saved_model_draws_and_judges_as_before(config, options, images, tmp_path):
    import dataclasses

    model = build_gan(images.shape[1:], dataclasses.replace(config, **options), num_classes=3)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert isinstance(again, GAN)
    labels = np.arange(len(images)) % 3 if model.num_classes else None
    np.testing.assert_allclose(
        again.generate(5, None if labels is None else labels[:5], seed=3),
        model.generate(5, None if labels is None else labels[:5], seed=3),
        atol=1e-6,
    )
    shown = images if labels is None else (images, labels)
    np.testing.assert_allclose(
        *(keras.ops.convert_to_numpy(each(shown)) for each in (again, model)), atol=1e-5
    )
    if model.encoder is not None:
        np.testing.assert_allclose(again.reconstruct(images), model.reconstruct(images), atol=1e-6)


def test_a_model_in_float32_draws_what_it_drew_in_bfloat16(config, images):
    import dataclasses

    config = dataclasses.replace(config, precision="bfloat16")
    model = build_gan(images.shape[1:], config)
    rng = np.random.default_rng(0)
    for variable in model.weights:  # a new model of the same seed would have those it began with
        variable.assign(variable + 0.1 * np.abs(rng.normal(size=variable.shape)).astype("float32"))
    plain = in_float32(model, config)
    assert plain.generator.get_layer("start").dtype_policy.name == "float32"
    np.testing.assert_allclose(plain.generate(8), model.generate(8), atol=0.01)


def test_labels_make_a_difference_to_both_players(images):
    config = TrainConfig(
        latent_dim=3, filters=(4,), conditional=True, precision="float32", architecture="resnet"
    )
    model = build_gan(images.shape[1:], config, num_classes=4)
    first, second = (model.generate(2, np.full(2, label)) for label in (0, 3))
    assert np.abs(first - second).max() > 1e-4
    logits = [
        keras.ops.convert_to_numpy(model((images, np.full(len(images), label)))) for label in (0, 3)
    ]
    assert np.abs(logits[0] - logits[1]).max() > 1e-6


def test_mistakes_are_sentences(config, images):
    import dataclasses

    model = build_gan(images.shape[1:], config)
    with pytest.raises(ValueError, match="expected at least 1"):
        model.generate(0)
    with pytest.raises(ValueError, match="expected none"):
        model.generate(2, [0, 1])
    with pytest.raises(ValueError, match="has no encoder"):
        model.encode(images)
    conditional = dataclasses.replace(config, conditional=True)
    with pytest.raises(ValueError, match="expected the number of labels"):
        build_gan(images.shape[1:], conditional)
    told = build_gan(images.shape[1:], conditional, num_classes=3)
    for labels in ([0, 3], [0], [-1, 0]):
        with pytest.raises(ValueError, match="integers from 0 to 2"):
            told.generate(2, labels)
    with pytest.raises(ValueError, match="do not fit"):
        GAN(model.generator, told.discriminator)
    with pytest.raises(ValueError, match="expected one of dcgan, resnet"):
        networks.build_generator((8, 8, 1), 2, architecture="style")
    with pytest.raises(ValueError, match="at least"):
        networks.build_discriminator((8, 0, 1))


@pytest.mark.parametrize(
    "wrong",
    [
        {"loss": "least"},
        {"batch_size": -1},
        {"learning_rate": 0.0},
        {"beta_1": 1.0},
        {"epochs": 1, "minutes": 1.0},
        {"loss": "wasserstein", "penalty": "none", "normalization": "none"},
        {"loss": "wasserstein", "penalty": "none", "normalization": "batch"},
        {"penalty": "r1", "normalization": "batch"},
        {"normalization": "layer"},
        {"autoencoder": True, "conditional": True},
        {"filters": (0,)},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        TrainConfig(**wrong)


def test_penalty_and_normalization_follow_from_the_loss():
    for options, wanted in (
        ({}, ("none", "batch")),
        ({"architecture": "resnet"}, ("none", "spectral")),
        ({"autoencoder": True}, ("none", "spectral")),
        ({"loss": "wasserstein"}, ("gradient", "none")),
        ({"loss": "wasserstein", "penalty": "none"}, ("none", "spectral")),
        ({"penalty": "r1"}, ("r1", "none")),
        ({"penalty": "r1", "normalization": "spectral"}, ("r1", "spectral")),
    ):
        config = TrainConfig(**options)
        assert (config.chosen_penalty, config.chosen_normalization) == wanted
