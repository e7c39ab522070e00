"""What must hold of the numbers whatever the pictures were: order, names, units and extremes."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st
from scipy.special import softmax

from safelight.comparison import mean_over_splits, paired_over_splits
from safelight.metrics import (
    brier_score,
    classification_metrics,
    confident_mistakes,
    expected_calibration_error,
    mean_intervals,
    paired_difference,
    per_class_table,
)
from safelight.resampling import Resampling, bootstrap, proportion
from safelight.sample_quality import compare_neighbourhoods, frechet_distance
from safelight.transfer.calibration import LIMITS, fit_temperature, log_loss
from safelight.transfer.kernel_heads import _similarities, _squared_distances
from safelight.transfer.roots import scaled_roots
from safelight.weighted_scores import means, roc_auc

quick = settings(max_examples=40)
few = settings(max_examples=15)
SEEDS = st.integers(0, 2**32 - 1)
NAMES = ("accuracy", "loss", "balanced_accuracy", "macro_f1", "roc_auc")


@st.composite
def answers(draw, least=1):
    """Labels and probabilities, with ties, certainties and absent classes among them."""
    number, num_classes = draw(st.integers(least, 25)), draw(st.integers(2, 4))
    labels = draw(numpy_st.arrays(np.int64, number, elements=st.integers(0, num_classes - 1)))
    parts = draw(numpy_st.arrays(np.int64, (number, num_classes), elements=st.integers(0, 4)))
    parts[:, 0] += parts.sum(1) == 0
    return labels, parts / parts.sum(1, keepdims=True)


def score(labels, probabilities, **options):
    return classification_metrics(labels, probabilities, num_resamples=30, **options)


@quick
@given(answers(), SEEDS)
def test_the_order_of_pictures_changes_no_value(both, seed):
    labels, probabilities = both
    order = np.random.default_rng(seed).permutation(len(labels))
    known, found = score(labels, probabilities), score(labels[order], probabilities[order])
    for name in NAMES:
        assert found[name].value == pytest.approx(known[name].value, abs=1e-12, nan_ok=True)
    for each in (brier_score, expected_calibration_error):
        assert each(labels[order], probabilities[order]) == pytest.approx(each(*both), abs=1e-12)


@quick
@given(answers(), SEEDS)
def test_the_order_of_classes_changes_no_value(both, seed):
    labels, probabilities = both
    # Of two classes that are equally probable, the first is the answer.
    top = np.sort(probabilities, axis=1)
    assume((top[:, -1] > top[:, -2]).all())
    order = np.random.default_rng(seed).permutation(probabilities.shape[1])
    places = np.argsort(order)
    known, found = score(labels, probabilities), score(places[labels], probabilities[:, order])
    for name in NAMES:
        assert found[name].value == pytest.approx(known[name].value, abs=1e-12, nan_ok=True)


@quick
@given(answers())
def test_values_and_ends_lie_where_they_can(both):
    found = score(*both)
    for name in NAMES:
        value, low, high = found[name].value, found[name].low, found[name].high
        top = math.inf if name == "loss" else 1
        assert math.isnan(value) or 0 <= value <= top + 1e-12
        assert math.isnan(low) or -1e-12 <= low <= high <= top + 1e-12
    assert 0 <= brier_score(*both) <= 2 + 1e-12
    assert 0 <= expected_calibration_error(*both) <= 1 + 1e-12


@quick
@given(answers())
def test_the_table_of_classes_adds_up_to_the_summary(both):
    labels, probabilities = both
    names = [str(i) for i in range(probabilities.shape[1])]
    rows = per_class_table(labels, probabilities, class_names=names, num_resamples=10)
    found = score(labels, probabilities)
    recalls = [row.recall.value for row in rows if row.support]
    assert found["balanced_accuracy"].value == pytest.approx(np.mean(recalls))
    hits = sum(row.recall.value * row.support for row in rows if row.support)
    assert found["accuracy"].value == pytest.approx(hits / len(labels))
    f1 = [row.f1.value for row in rows if not math.isnan(row.f1.value)]
    assert found["macro_f1"].value == pytest.approx(np.mean(f1))


@quick
@given(answers(least=2), SEEDS)
def test_a_difference_the_other_way_round_is_the_same_with_its_sign(both, seed):
    labels, first = both
    second = first[np.random.default_rng(seed).permutation(len(first))]
    there = paired_difference(labels, first, probabilities_b=second, num_resamples=60)
    back = paired_difference(labels, second, probabilities_b=first, num_resamples=60)
    ends = (back.value, back.low, back.high)
    assert ends == pytest.approx((-there.value, -there.high, -there.low), abs=1e-9)
    same = paired_difference(labels, first, probabilities_b=first, num_resamples=60)
    assert (same.value, same.low) == (0, -same.high)


@quick
@given(answers())
def test_the_surest_mistakes_are_mistakes_and_fall(both):
    labels, probabilities = both
    found = confident_mistakes(labels, probabilities, num_images=5)
    assert (probabilities[found].argmax(1) != labels[found]).all()
    sure = probabilities[found].max(1)
    assert (np.diff(sure) <= 0).all()
    others = np.setdiff1d(np.flatnonzero(probabilities.argmax(1) != labels), found)
    assert not len(others) or probabilities[others].max() <= sure.min()


@quick
@given(
    numpy_st.arrays(np.int64, st.integers(2, 20), elements=st.integers(0, 5)),
    SEEDS,
)
def test_the_area_under_the_curve_is_what_pairs_say_whatever_they_weigh(scores, seed):
    rng = np.random.default_rng(seed)
    positive, weights = rng.random(len(scores)) < 0.5, rng.integers(0, 3, (4, len(scores)))
    area = roc_auc(positive, scores.astype(float))(weights.astype(float))
    for row, found in zip(weights, area, strict=True):
        ones, zeros = (np.repeat(scores[side], row[side]) for side in (positive, ~positive))
        if not len(ones) or not len(zeros):
            assert np.isnan(found)
            continue
        wins = (ones[:, None] > zeros) + 0.5 * (ones[:, None] == zeros)
        assert found == pytest.approx(wins.mean())
    # The other way round it is what is missing to one.
    mirrored = roc_auc(positive, -scores.astype(float))(weights.astype(float))
    np.testing.assert_allclose(area + mirrored, np.where(np.isnan(area), np.nan, 1))


@quick
@given(st.integers(1, 200), st.data())
def test_wilsons_interval_mirrors_and_narrows(number, data):
    hits = data.draw(st.integers(0, number))
    marks = np.arange(number) < hits

    def ends(marks):
        return proportion(marks, Resampling(len(marks), None, 1, 0.95, 0))

    share, low, high = ends(marks)
    assert 0 <= low <= share <= high <= 1
    assert ends(~marks) == pytest.approx((1 - share, 1 - high, 1 - low))
    more = ends(np.tile(marks, 4))
    assert more[0] == pytest.approx(share)
    assert more[2] - more[1] < high - low
    if hits < number:
        above = ends(np.arange(number) < hits + 1)
        assert above[1] >= low
        assert above[2] >= high


@quick
@given(
    numpy_st.arrays(np.float64, st.integers(2, 30), elements=st.floats(-1e6, 1e6)),
    st.floats(-100, 100),
    st.sampled_from([-3.0, 0.5, 8.0]),
)
def test_a_mean_moves_with_its_numbers(column, shift, scale):
    assume(np.ptp(column) > 1e-3)
    known = mean_intervals({"a": column}, num_resamples=40)["a"]
    moved = mean_intervals({"a": column * scale + shift}, num_resamples=40)["a"]
    ends = [end * scale + shift for end in (known.low, known.high)]
    size = np.abs(column * scale).max() + abs(shift)
    assert moved.value == pytest.approx(known.value * scale + shift, abs=1e-9 * size)
    assert sorted(ends) == pytest.approx([moved.low, moved.high], abs=1e-6 * size)


@quick
@given(numpy_st.arrays(np.float64, st.integers(1, 12), elements=st.floats(-1e3, 1e3)), SEEDS)
def test_a_bootstrap_stays_between_its_numbers(column, seed):
    plan = Resampling(len(column), None, 25, 0.9, seed)
    (value,), (low,), (high,) = bootstrap(means(column[:, None]), plan)
    assert value == pytest.approx(column.mean())
    if len(column) == 1:
        assert math.isnan(low)
    else:
        assert column.min() - 1e-9 <= low <= high <= column.max() + 1e-9


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("number", [1, 2, 50])
def test_certain_answers_of_one_class_have_numbers_or_a_reason(number, right):
    labels = np.zeros(number, int)
    found = score(labels, np.eye(2)[labels if right else 1 - labels])
    assert found["accuracy"].value == right
    assert found["accuracy"].high - found["accuracy"].low > 0
    assert np.isfinite(found["loss"].value)
    assert math.isnan(found["roc_auc"].value)
    assert found["roc_auc"].reason == "no image of class index 1"


# --- over splits


@quick
@given(
    numpy_st.arrays(np.float64, st.integers(2, 12), elements=st.floats(0, 1)),
    st.floats(0.01, 2),
    SEEDS,
)
def test_splits_have_no_order_and_more_overlap_is_less_sure(scores, ratio, seed):
    known = mean_over_splits(scores, test_to_train=ratio)
    order = np.random.default_rng(seed).permutation(len(scores))
    found = mean_over_splits(scores[order], test_to_train=ratio)
    assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=1e-9)
    assert known.high - known.low <= mean_over_splits(scores, test_to_train=2 * ratio).high - (
        mean_over_splits(scores, test_to_train=2 * ratio).low
    )
    against_itself = paired_over_splits(scores, scores, test_to_train=ratio)
    assert (against_itself.low, against_itself.high) == (0, 0)


# --- generated pictures


@st.composite
def clouds(draw):
    """Features of real and generated pictures."""
    rng = np.random.default_rng(draw(SEEDS))
    number, width = draw(st.integers(8, 24)), draw(st.integers(1, 4))
    return rng.normal(size=(number, width)), 1.5 * rng.normal(size=(number + 3, width)) + 0.5


def turn(rng, width):
    return np.linalg.qr(rng.normal(size=(width, width)))[0]


@quick
@given(clouds(), SEEDS)
def test_a_frechet_distance_knows_no_axes_and_grows_as_a_square(both, seed):
    real, fake = both
    rng = np.random.default_rng(seed)
    known = frechet_distance(real, fake)
    around, aside = turn(rng, real.shape[1]), rng.normal(size=real.shape[1])
    assert known > 0
    assert frechet_distance(fake, real) == pytest.approx(known, rel=1e-7, abs=1e-9)
    turned = frechet_distance(real @ around + aside, fake @ around + aside)
    assert turned == pytest.approx(known, rel=1e-6, abs=1e-8)
    assert frechet_distance(3 * real, 3 * fake) == pytest.approx(9 * known, rel=1e-6, abs=1e-8)
    assert frechet_distance(real, real[::-1]) == pytest.approx(0, abs=1e-7)


@quick
@given(clouds(), SEEDS, st.sampled_from([0.0, 1.0, 1e4, 1e7]))
def test_neighbourhoods_are_the_same_wherever_the_origin_is(both, seed, aside):
    real, fake = both
    rng = np.random.default_rng(seed)
    known = compare_neighbourhoods(real, fake)
    assert compare_neighbourhoods(real + aside, fake + aside) == known
    order = rng.permutation(len(fake))
    assert compare_neighbourhoods(2 * real, 2 * fake[order]) == known


@quick
@given(clouds(), st.booleans())
def test_whoever_draws_the_real_pictures_draws_all_of_them(both, doubled):
    real, _ = both
    real = np.repeat(real, 7, axis=0) if doubled else real
    found = compare_neighbourhoods(real, real)
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)
    assert found.density >= 1


# --- heads and calibration


@few
@given(SEEDS, st.floats(0.3, 3))
def test_a_temperature_knows_neither_shifts_nor_orders_and_follows_the_scale(seed, scale):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, 60)
    logits = 2 * np.eye(3)[labels] + rng.normal(size=(60, 3))
    known = fit_temperature(logits, labels)
    assert LIMITS[0] < known < LIMITS[1]
    shifted = logits + rng.normal(size=(60, 1)) * 100
    order, names = rng.permutation(60), rng.permutation(3)
    assert fit_temperature(shifted, labels) == pytest.approx(known, rel=1e-3)
    assert fit_temperature(logits[order], labels[order]) == pytest.approx(known, rel=1e-3)
    renamed = fit_temperature(logits[:, names], np.argsort(names)[labels])
    assert renamed == pytest.approx(known, rel=1e-3)
    assert fit_temperature(scale * logits, labels) == pytest.approx(scale * known, rel=2e-3)
    likelihood = -np.log(softmax(logits, axis=1)[np.arange(60), labels]).mean()
    assert log_loss(logits, labels) == pytest.approx(likelihood)


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e30, 3e38])
def test_a_temperature_of_logits_of_any_size_lies_within_its_limits(size):
    labels = np.arange(20) % 2
    logits = (np.eye(2)[labels] * size).astype("float32")
    assert LIMITS[0] <= fit_temperature(logits, labels) <= LIMITS[1]
    assert log_loss(logits, labels) >= 0


@quick
@given(SEEDS, st.integers(1, 6), st.sampled_from([1e-3, 1.0, 1e6]))
def test_roots_have_length_one_and_know_no_brightness(seed, width, scale):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(4, 2 * width)).astype("float32")
    found = scaled_roots(features, (width, width))
    lengths = np.linalg.norm(found.reshape(4, 2, width), axis=-1)
    np.testing.assert_allclose(lengths, 1, rtol=1e-5)
    np.testing.assert_array_equal(np.sign(found), np.sign(features))
    # Each layer has a brightness of its own.
    brighter = features * np.repeat([scale, 1], width).astype("float32")
    np.testing.assert_allclose(scaled_roots(brighter, (width, width)), found, atol=1e-6)


@quick
@given(SEEDS, st.sampled_from([0.0, 0.1, 10.0]))
def test_similarities_are_those_of_a_kernel(seed, gamma):
    rows = np.random.default_rng(seed).normal(size=(12, 5))
    rows[3] = rows[4]
    found = _similarities(_squared_distances(rows, rows), gamma)
    np.testing.assert_allclose(np.diagonal(found), 1, atol=1e-6)
    np.testing.assert_allclose(found, found.T, atol=1e-12)
    assert found.min() >= 0
    assert found.max() <= 1
    assert np.linalg.eigvalsh(found).min() > -1e-7
    differences = rows[:, None] - rows
    np.testing.assert_allclose(found, np.exp(-gamma * (differences**2).sum(2)), atol=1e-9)
