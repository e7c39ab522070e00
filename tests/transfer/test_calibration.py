"""One temperature: found again where it is known, and nothing but confidence changes."""

import dataclasses

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from safelight.metrics import expected_calibration_error
from safelight.transfer import backbones, training
from safelight.transfer.calibration import LIMITS, fit_temperature, log_loss
from safelight.transfer.config import TrainConfig
from safelight.transfer.prediction import predict_logits


def drawn(num_images, num_classes, seed=0):
    """Logits, and labels drawn from the very probabilities that they state."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.standard_normal((num_images, num_classes))
    cumulated = softmax(logits, axis=1).cumsum(1)
    return logits, (rng.random((num_images, 1)) > cumulated).sum(1).clip(0, num_classes - 1)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
@pytest.mark.parametrize("num_classes", [2, 5])
def test_a_known_temperature_is_found_again(temperature, num_classes):
    logits, labels = drawn(20_000, num_classes)

    assert fit_temperature(logits * temperature, labels) == pytest.approx(temperature, rel=0.04)


def test_it_is_the_minimum_of_the_log_loss():
    logits, labels = drawn(5_000, 3)
    best = fit_temperature(logits * 2.5, labels)
    losses = [log_loss(logits * 2.5 / t, labels) for t in (best * 0.97, best, best * 1.03)]

    assert losses[1] < losses[0]
    assert losses[1] < losses[2]


def test_overconfidence_goes_away():
    logits, labels = drawn(5_000, 3)
    sure = logits * 4
    before = expected_calibration_error(labels, softmax(sure, axis=1))
    after = expected_calibration_error(labels, softmax(sure / fit_temperature(sure, labels), 1))

    assert before > 0.1
    assert after < 0.03


@pytest.mark.parametrize("number", [2, 40])
def test_pictures_that_are_all_right_do_not_make_it_certain(number):
    logits = 5 * np.eye(2)[np.arange(number) % 2]
    stated = softmax(logits / fit_temperature(logits, np.arange(number) % 2), axis=1).max()

    assert stated == pytest.approx((number + 1) / (number + 2), rel=1e-3)


def test_noise_ends_at_the_limit():
    assert fit_temperature([[5.0, 0.0], [0.0, 5.0]], [1, 0]) == pytest.approx(LIMITS[1], rel=0.01)


def test_arrays_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="expected"):
        fit_temperature(np.zeros((3, 2)), [0, 1])


# --- what training makes of it


@pytest.fixture
def fitted(monkeypatch, build_network, eager):
    """`train` with a tiny network, and the heads that it fits, in their order."""
    monkeypatch.setattr(backbones, "load_backbone", lambda name, **_: build_network())
    heads = []

    def keep(fit):
        def fit_and_keep(*arguments, **options):
            heads.append(fit(*arguments, **options))
            return heads[-1]

        return fit_and_keep

    for name in ("fit_logistic_head", "fit_kernel_head"):
        monkeypatch.setattr(training, name, keep(getattr(training, name)))
    return heads


def train_both(splits, cache, **options):
    """Without calibration and with it."""
    config = TrainConfig(
        image_size=16, epochs=2, batch_size=8, learning_rate=1e-2, precision="float32", **options
    )
    plain, calm = (
        training.train(splits, dataclasses.replace(config, calibrated=on), cache=cache)
        for on in (False, True)
    )
    assert plain.temperature == 1.0
    return plain, calm


def imagined_loss(logits, labels):
    """What the temperature makes least: log-loss, a picture of each class spread over all."""
    number, num_classes = logits.shape
    targets = (number * np.eye(num_classes)[labels] + 1) / (number + num_classes)
    return -(targets * log_softmax(logits, axis=1)).sum(1).mean()


@pytest.mark.filterwarnings("ignore:Even though the:UserWarning")
@pytest.mark.parametrize("unfreeze_from", [None, "block3"])
def test_calibration_divides_all_logits_and_changes_no_answer(fitted, splits, cache, unfreeze_from):
    plain, calm = train_both(splits, cache, unfreeze_from=unfreeze_from, head="logistic")
    before, after = (
        predict_logits(each.model, splits.test, config=each.config, cache=cache)
        for each in (plain, calm)
    )
    assert calm.temperature != 1.0
    np.testing.assert_allclose(after * calm.temperature, before, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Even though the:UserWarning")
def test_fine_tuning_takes_the_temperature_of_the_validation_part(fitted, splits, cache):
    plain, calm = train_both(splits, cache, unfreeze_from="block3")
    part = splits.validation
    before, after = (
        predict_logits(each.model, part, config=each.config, cache=cache) for each in (plain, calm)
    )
    expected = fit_temperature(before, part.labels)
    assert calm.temperature == pytest.approx(expected, rel=1e-3)
    assert imagined_loss(after, part.labels) <= imagined_loss(before, part.labels) + 1e-6


@pytest.mark.filterwarnings("ignore:Even though the:UserWarning")
@pytest.mark.parametrize("head", ["logistic", "kernel"])
def test_a_head_alone_takes_the_temperature_of_what_its_folds_held_out(fitted, splits, cache, head):
    plain, calm = train_both(splits, cache, unfreeze_from=None, head=head)
    labels = np.concatenate([splits.train.labels, splits.validation.labels])
    first, second = (each.out_of_fold for each in fitted)
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-6)
    expected = fit_temperature(first, labels)
    assert calm.temperature == pytest.approx(expected, rel=1e-3)
    # Told calibrated, whether or not the model is.
    for trained in (plain, calm):
        np.testing.assert_allclose(trained.out_of_fold * expected, first, rtol=1e-3, atol=1e-6)
    assert imagined_loss(calm.out_of_fold, labels) <= imagined_loss(first, labels) + 1e-6
