import dataclasses
import logging

import keras
import numpy as np
import pytest

from safelight.gan import training
from safelight.gan.config import TrainConfig
from safelight.gan.models import build_gan
from safelight.gan.training import COLUMNS, calibrate, choose_policy, train

BITS = keras.backend.backend() == "tensorflow"


def start(config, images):
    return build_gan(images.shape[1:], config)


def test_epochs_are_played_and_told(config, images):
    config = dataclasses.replace(config, epochs=3)
    told = []
    trained = train(
        start(config, images), images, config=config, report=lambda *words: told.append(words)
    )
    assert trained.epochs == 3
    assert set(trained.history) == set(COLUMNS)
    assert trained.history["epoch"] == [1, 2, 3]
    assert all(np.isfinite(trained.history["generator_loss"]))
    assert np.isfinite(trained.history["diversity"][-1])
    assert not trained.interrupted
    assert told[-1][:3] == ("training", 72, 72)
    assert "found out" in told[-1][3]
    assert trained.seconds["training"] >= trained.seconds["compilation"] > 0


def test_it_learns_the_brightness_of_one_colour(config):
    """Pictures all of one grey: the simplest game there is."""
    images = np.full((64, 9, 6, 1), 200, "uint8")
    config = dataclasses.replace(
        config, epochs=60, learning_rate=2e-3, discriminator_learning_rate=2e-3, weight_average=0.9
    )
    trained = train(start(config, images), images, config=config)
    drawn = trained.model.generate(50)
    assert abs(drawn.mean() - 200 / 255) < 0.08


@pytest.mark.parametrize("later", [0.05, 0.15])
def test_minutes_are_kept(config, images, machine, train_on, later):
    """As many rounds as fit, though they come to take longer; the rates fall to nothing."""
    train_on(training, machine(lambda step: 0.05 if step < 50 else later, compilation=2.0))
    config = dataclasses.replace(config, minutes=0.2)
    trained = train(start(config, images), images, config=config)
    assert not trained.interrupted
    assert trained.seconds["training"] == pytest.approx(12, rel=0.05)
    assert trained.seconds["compilation"] == pytest.approx(2.05)
    rates = trained.history["learning_rate"]
    assert rates[0] == config.learning_rate
    assert np.all(np.diff(rates) <= 0)
    assert rates[-1] < 0.01 * config.learning_rate


@pytest.mark.parametrize(
    "options", [{}, {"normalization": "spectral", "conditional": True}, {"autoencoder": True}]
)
def test_a_training_that_was_stopped_goes_on_to_the_same_end(
    config, images, options, tmp_path, monkeypatch
):
    config = dataclasses.replace(config, epochs=4, **options)
    classes = 3 if config.conditional else 0
    pictures = (images, np.arange(len(images)) % 3) if classes else images

    def start(config, images):
        return build_gan(images.shape[1:], config, num_classes=classes)

    whole = train(start(config, images), pictures, config=config)
    monkeypatch.setattr(training, "_CHECKPOINT_SECONDS", 0.0)
    path = tmp_path / "checkpoint.npz"

    class StopError(Exception):
        pass

    def stop(_, done, *__):
        if done >= 2 * len(images):
            raise StopError

    with pytest.raises(StopError):
        train(start(config, images), pictures, config=config, checkpoint=path, report=stop)
    assert path.exists()
    again = train(start(config, images), pictures, config=config, checkpoint=path)
    assert again.epochs == 4
    for name in ("generator_loss", "discriminator_loss"):
        np.testing.assert_allclose(again.history[name], whole.history[name], rtol=1e-4)
    drawn = [each.model.generate(3) for each in (again, whole)]
    if BITS:
        np.testing.assert_array_equal(*drawn)
    np.testing.assert_allclose(*drawn, atol=1e-4)


def test_another_training_s_checkpoint_is_refused(config, images, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_CHECKPOINT_SECONDS", 0.0)
    config, path = dataclasses.replace(config, epochs=1), tmp_path / "checkpoint.npz"
    train(start(config, images), images, config=config, checkpoint=path)
    other = dataclasses.replace(config, learning_rate=5e-4)
    with pytest.raises(ValueError, match="learning_rate"):
        train(start(other, images), images, config=other, checkpoint=path)


def test_ctrl_c_keeps_what_there_is(config, images):
    config = dataclasses.replace(config, epochs=50)

    def stop(_, done, *__):
        if done >= 3 * len(images):
            raise KeyboardInterrupt

    trained = train(start(config, images), images, config=config, report=stop)
    assert trained.interrupted
    assert trained.epochs in (2, 3)
    assert np.isfinite(trained.model.generate(2)).all()


def test_numbers_that_leave_the_range_end_it(config, images):
    config = dataclasses.replace(
        config,
        epochs=3,
        learning_rate=1e30,
        discriminator_learning_rate=1e30,
        normalization="none",
    )
    with pytest.raises(ValueError, match="not a number in the first epoch"):
        train(start(config, images), images, config=config)


def test_a_collapse_is_said_once_with_a_remedy(config, caplog):
    """A generator that nobody trains draws much the same."""
    images = np.random.default_rng(0).integers(0, 2, (40, 9, 6, 1)).astype("uint8") * 255
    config = dataclasses.replace(config, epochs=5, learning_rate=1e-9)
    with caplog.at_level(logging.WARNING):
        trained = train(start(config, images), images, config=config)
    said = [r.getMessage() for r in caplog.records if "collapsed" in r.getMessage()]
    assert len(said) == 1
    assert "--penalty r1" in said[0]
    assert "collapsed" in trained.advice


def test_batch_normalization_is_that_of_the_kept_weights(config, images, numpy):
    """Its mean is that of many draws, by hand."""
    model = start(config, images)
    rng = np.random.default_rng(0)
    for variable in model.generator.trainable_variables:
        variable.assign(variable + 0.3 * rng.normal(size=variable.shape).astype("float32"))
    calibrate(model)
    layer = model.generator.get_layer("start_norm")
    z = rng.standard_normal((20_000, model.latent_dim)).astype("float32")
    dense = model.generator.get_layer("start")
    made = (z @ numpy(dense.kernel) + numpy(dense.bias)).reshape(-1, layer.gamma.shape[0])
    np.testing.assert_allclose(numpy(layer.moving_mean), made.mean(0), atol=0.05)
    np.testing.assert_allclose(numpy(layer.moving_variance), made.var(0), rtol=0.1, atol=0.02)


def test_batch_normalization_of_a_conditional_model_is_of_the_classes_it_learned(images, numpy):
    """Of 19 pictures of one class and 1 of the other the mean is near the first one's."""
    config = TrainConfig(latent_dim=3, filters=(4,), conditional=True, precision="float32")
    model = build_gan(images.shape[1:], config, num_classes=2)
    dense = model.generator.get_layer("start")
    kernel = numpy(dense.kernel).copy()
    kernel[-2:] = [[1.0], [5.0]]  # of the two labels
    dense.kernel.assign(kernel)
    calibrate(model, np.repeat([0, 1], [19, 1]))
    mean = numpy(model.generator.get_layer("start_norm").moving_mean)
    np.testing.assert_allclose(mean, 0.95 * 1 + 0.05 * 5, atol=0.05)


def test_few_pictures_are_augmented():
    assert choose_policy("auto", 499) == "all"
    assert choose_policy("auto", 500) == "none"
    assert choose_policy("geometric", 60_000) == "geometric"


def test_pictures_of_another_kind_are_refused(config, images):
    model = start(config, images)
    for wrong in (images / 255, images[:, :4], images[:1]):
        with pytest.raises(ValueError, match="expected"):
            train(model, wrong, config=config)
