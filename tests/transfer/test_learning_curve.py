"""Learning curves: points of a known curve, and how often the stated range holds what follows."""

import numpy as np
import pytest

from safelight.transfer.learning_curve import fit_learning_curve

SIZES = np.array([60, 120, 240, 480])


def measured(rng, floor, slope, exponent, num_pool=640, repetitions=12):
    """Errors as a user would measure them: shared pictures to judge on, and own training sets."""
    truth = floor + slope * SIZES**-exponent
    common = rng.normal(0, np.sqrt(truth[-1] * (1 - truth[-1]) / num_pool))
    own = rng.normal(0, 0.012, (repetitions, len(SIZES)))
    folds = rng.normal(0, 0.02, (repetitions, 1))
    return np.clip(truth + common + own + folds - folds.mean(), 0, 1)


def test_the_curve_goes_through_points_without_noise():
    truth = 0.05 + 1.5 * SIZES**-0.5
    curve = fit_learning_curve(SIZES, np.stack([truth, truth]), num_pool=10**8)

    found = curve.error(1920)
    assert found.value == pytest.approx(0.05 + 1.5 * 1920**-0.5, abs=2e-3)
    np.testing.assert_allclose(np.median(curve.draws(SIZES), axis=0), truth, atol=2e-3)


def test_errors_never_rise_with_more_pictures():
    curve = fit_learning_curve(SIZES, measured(np.random.default_rng(0), 0.1, 1, 0.4), num_pool=640)
    falls = np.diff(curve.draws([480, 600, 1000, 5000]), axis=1)

    assert (falls <= 1e-12).all()
    assert curve.gain(600).low >= 0


def test_flat_points_promise_little():
    rng = np.random.default_rng(0)
    flat = 0.2 + rng.normal(0, 0.005, (12, 4))
    steep = measured(rng, 0.0, 3.0, 0.5)

    assert fit_learning_curve(SIZES, flat, num_pool=640).gain(960).high < 0.012
    assert fit_learning_curve(SIZES, steep, num_pool=640).gain(960).low > 0.012


@pytest.mark.parametrize(
    ("floor", "slope", "exponent"), [(0.08, 1.2, 0.5), (0.0, 0.6, 0.25), (0.15, 5.0, 0.9)]
)
def test_four_fifths_of_the_stated_ranges_hold_the_truth(floor, slope, exponent):
    """Within the chance of sixty trials and of a truth at the edge of what was believed before."""
    rng, covered, gained, widths = np.random.default_rng(1), 0, 0, []
    truth = floor + slope * np.array([480, 960]) ** -exponent
    for _ in range(60):
        curve = fit_learning_curve(SIZES, measured(rng, floor, slope, exponent), num_pool=640)
        error, gain = curve.error(960), curve.gain(960)
        covered += error.low <= truth[1] <= error.high
        gained += gain.low <= truth[0] - truth[1] <= gain.high
        widths.append(gain.high - gain.low)

    assert covered / 60 >= 0.65
    assert gained / 60 >= 0.65
    assert np.median(widths) < 0.03


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.99])
def test_a_range_leaves_out_as_many_curves_on_either_side_as_its_confidence_says(confidence):
    curve = fit_learning_curve(SIZES, measured(np.random.default_rng(0), 0.1, 1, 0.4), num_pool=640)
    places, draws = [(1 - confidence) / 2, 0.5, (1 + confidence) / 2], curve.draws([480, 960])
    for found, values in (
        (curve.error(960, confidence=confidence), draws[:, 1]),
        (curve.gain(960, confidence=confidence), draws[:, 0] - draws[:, 1]),
    ):
        expected = np.quantile(values, places)
        np.testing.assert_allclose([found.low, found.value, found.high], expected, rtol=1e-9)


def test_judging_on_few_pictures_widens_the_range():
    curve = fit_learning_curve(SIZES, measured(np.random.default_rng(0), 0.1, 1, 0.4), num_pool=640)
    known, seen = curve.error(960), curve.error(960, num_test=100)

    assert seen.high - seen.low > 1.5 * (known.high - known.low)


@pytest.mark.parametrize(
    ("sizes", "errors"),
    [([1, 2], np.ones((2, 2))), ([1, 2, 3], np.ones((1, 3))), ([1, 2, 3], np.ones((2, 2)))],
)
def test_too_little_to_fit_is_refused(sizes, errors):
    with pytest.raises(ValueError, match="three sizes"):
        fit_learning_curve(sizes, errors, num_pool=10)


def test_sizes_and_errors_out_of_range_are_refused():
    with pytest.raises(ValueError, match="ascending"):
        fit_learning_curve([3, 2, 1], np.full((2, 3), 0.1), num_pool=10)
    with pytest.raises(ValueError, match="positive"):
        fit_learning_curve(SIZES, np.full((2, 4), 0.1), num_pool=10).draws(0)
