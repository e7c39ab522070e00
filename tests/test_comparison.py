"""Means over repeated splits: against the formula by hand, and against a simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from safelight.comparison import (
    independent_difference,
    join_splits,
    mean_over_splits,
    paired_over_splits,
    standard_error,
)
from safelight.metrics import Interval


def test_without_overlap_it_is_students_interval():
    scores = np.array([0.81, 0.86, 0.84, 0.88, 0.83])
    plain = stats.t.interval(0.95, 4, scores.mean(), stats.sem(scores))

    found = mean_over_splits(scores, test_to_train=1e-12)

    np.testing.assert_allclose([found.low, found.high], plain, rtol=1e-6)


def test_the_correction_is_that_of_nadeau_and_bengio():
    scores = np.random.default_rng(0).normal(0.9, 0.02, 10)
    found = mean_over_splits(scores, test_to_train=1 / 3)
    reach = stats.t.ppf(0.975, 9) * math.sqrt((1 / 10 + 1 / 3) * scores.var(ddof=1))

    assert found.high - found.value == pytest.approx(reach)
    assert found.value - found.low == pytest.approx(reach)


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.99])
def test_the_interval_is_as_wide_as_its_confidence_asks(confidence):
    rng = np.random.default_rng(0)
    scores, others = rng.normal(0.9, 0.02, (2, 10))
    options = {"test_to_train": 1 / 3, "confidence": confidence}
    quantile = stats.t.ppf((1 + confidence) / 2, 9)
    for found, values in (
        (mean_over_splits(scores, **options), scores),
        (paired_over_splits(scores, others, **options), scores - others),
    ):
        reach = quantile * math.sqrt((1 / 10 + 1 / 3) * values.var(ddof=1))
        assert found.value == pytest.approx(values.mean())
        assert (found.low, found.high) == pytest.approx((found.value - reach, found.value + reach))


def test_the_standard_error_is_the_plain_one_with_a_correction():
    scores = [0.81, 0.86, 0.84, 0.88, 0.83]
    assert standard_error(scores, test_to_train=0) == pytest.approx(stats.sem(scores))
    # Pictures that judge count as if there were fewer splits: 1/5 + 1/20 is 1/4.
    corrected = standard_error(scores, test_to_train=1 / 20)
    assert corrected == pytest.approx(np.std(scores, ddof=1) / 2)
    with pytest.raises(ValueError, match="one score shows no spread"):
        standard_error([0.8], test_to_train=0.3)


def test_many_splits_of_one_small_sample_do_not_make_it_certain():
    """A mean is 'learned' on 75 % of a sample and judged on the rest: the truth is known."""
    rng, covered, plain = np.random.default_rng(0), 0, 0
    for _ in range(300):
        sample = rng.standard_normal(40)
        orders = [rng.permutation(40) for _ in range(10)]
        scores = [((sample[o[30:]] - sample[o[:30]].mean()) ** 2).mean() for o in orders]
        found = mean_over_splits(scores, test_to_train=1 / 3)
        truth = 1 + 1 / 30
        half = stats.sem(scores) * stats.t.ppf(0.975, 9)
        covered += found.low <= truth <= found.high
        plain += abs(found.value - truth) <= half

    assert plain / 300 < 0.8  # the uncorrected interval is far too narrow
    assert covered / 300 > 0.9


def test_a_paired_difference_forgets_what_both_find_hard():
    rng = np.random.default_rng(0)
    hard = rng.normal(0.85, 0.05, 10)
    a, b = hard + 0.01 + rng.normal(0, 1e-3, 10), hard

    paired = paired_over_splits(a, b, test_to_train=1 / 3)

    assert 0 < paired.low < 0.01 < paired.high
    assert mean_over_splits(a, test_to_train=1 / 3).low < mean_over_splits(b, test_to_train=1).value


def test_one_split_has_no_interval_and_says_why():
    found = mean_over_splits([0.8], test_to_train=1 / 3)

    assert found.value == 0.8
    assert math.isnan(found.low)
    assert "one split" in found.reason


def test_only_names_that_every_split_has_are_joined():
    assert join_splits([{"a": 1, "b": 2}, {"a": 3}]) == {"a": [1.0, 3.0]}


@pytest.mark.parametrize("scores", [[], [[0.1, 0.2]], [0.1, math.nan]])
def test_what_is_no_score_per_split_is_refused(scores):
    with pytest.raises(ValueError, match="one finite number for each split"):
        mean_over_splits(scores, test_to_train=1 / 3)


def test_other_splits_cannot_be_paired():
    with pytest.raises(ValueError, match="the same splits"):
        paired_over_splits([0.1, 0.2], [0.1], test_to_train=1 / 3)
    with pytest.raises(ValueError, match="positive ratio"):
        mean_over_splits([0.1], test_to_train=0)


def test_of_gaussian_numbers_the_difference_has_the_interval_of_the_textbook():
    """Variances of independent numbers add."""
    a, b = (
        Interval(3.0, 3 - 1.96 * 0.3, 3 + 1.96 * 0.3),
        Interval(1.0, 1 - 1.96 * 0.4, 1 + 1.96 * 0.4),
    )
    found = independent_difference(a, b)
    assert (found.value, found.low, found.high) == pytest.approx(
        (2, 2 - 1.96 * 0.5, 2 + 1.96 * 0.5)
    )


def test_a_difference_the_other_way_round_has_the_other_sign():
    a, b = Interval(6.0, 5.2, 7.5), Interval(22.0, 19.0, 24.0)
    one, other = independent_difference(a, b), independent_difference(b, a)
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))


def test_the_interval_of_a_difference_holds_what_it_promises():
    """Of two lopsided numbers, variances of normal draws: 95 of 100 intervals hold the truth."""
    rng, number = np.random.default_rng(0), 30

    def estimate(scale):
        value = rng.normal(0, scale, number).var(ddof=1)
        low, high = ((number - 1) * value / stats.chi2.ppf(q, number - 1) for q in (0.975, 0.025))
        return Interval(value, low, high)

    found = [independent_difference(estimate(2.0), estimate(1.0)) for _ in range(2000)]
    share = np.mean([each.low <= 3.0 <= each.high for each in found])
    assert share == pytest.approx(0.95, abs=0.02)
