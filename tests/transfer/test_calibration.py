"""One temperature: found again where it is known, and nothing but confidence changes."""

import numpy as np
import pytest
from scipy.special import softmax

from safelight.metrics import expected_calibration_error
from safelight.transfer.calibration import LIMITS, fit_temperature, log_loss


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
