import numpy as np
import pytest
from scipy.stats import binomtest

from safelight import sample_quality
from safelight.generative.scores import (
    COPY_PART,
    _copies,
    draw_labels,
    nearest,
    nearest_rows,
    score_features,
    wilson,
)

RNG = np.random.default_rng(0)


def test_the_nearest_is_that_of_brute_force():
    rows, others = RNG.normal(size=(50, 3)) + 100, RNG.normal(size=(20, 3)) + 100
    squares = ((others[:, None] - rows) ** 2).sum(-1)
    np.testing.assert_allclose(nearest(rows, others), squares.min(1), rtol=1e-3, atol=1e-3)
    others = rows[:7]
    np.testing.assert_array_equal(nearest_rows(rows, others), np.arange(7))
    np.testing.assert_allclose(nearest(rows, others), 0, atol=1e-9)


def test_draws_of_the_same_distribution_have_no_distance_and_no_copies():
    train, real, fake = RNG.normal(size=(3, 2000, 5))
    score = score_features(train, real, fake)
    assert score.frechet.low < 0 < score.frechet.high
    assert score.kernel.low < 0 < score.kernel.high
    assert score.frechet_plain > 0.005  # the bias that was taken off
    assert score.copies.low < 0.01 < score.copies.high
    assert score.precision.value > 0.9
    assert score.recall.value > 0.9
    assert score.density == pytest.approx(1, abs=0.1)


def test_pictures_that_were_learned_by_heart_are_found_out():
    train, real = RNG.normal(size=(2, 2000, 5))
    fake = train[:1000] + 1e-3 * RNG.normal(size=(1000, 5))
    score = score_features(train, real, fake)
    assert score.copies.low > 0.9
    assert score.precision.value > 0.9  # nothing else would have told


def test_a_shift_is_found_at_its_size():
    train, real, fake = RNG.normal(size=(3, 3000, 4))
    shifted = score_features(train, real, fake + 0.5)
    assert shifted.frechet.low < 4 * 0.25 < shifted.frechet.high
    wanted = sample_quality.frechet_distance(real, fake + 0.5)
    assert shifted.frechet_plain == pytest.approx(wanted)


def test_twenty_pictures_call_few_of_their_like_a_copy():
    """The reach of 1 % is then that of the nearest, which one in n + 1 draws falls short of."""
    for num in (20, 60):
        shares, alarms = [], []
        for seed in range(400):
            train, real, fake = np.random.default_rng(seed).normal(size=(3, num, 3))
            found = _copies(train, real, fake)
            shares.append(found.value)
            alarms.append(found.low > COPY_PART)
        assert np.mean(shares) == pytest.approx(1 / (num + 1), abs=0.015)
        assert np.mean(alarms) < 0.05  # 2.5 % are meant
    train, real = np.random.default_rng(0).normal(size=(2, 20, 3))
    assert _copies(train, real, train + 1e-3).low > COPY_PART


def test_a_distance_of_few_pictures_keeps_a_bias_which_is_said():
    """Of one distribution, so that both are 0 in truth: only the kernel distance is."""
    real, fake = np.random.default_rng(0).normal(size=(2, 60, 200))
    score = score_features(None, real, fake)
    assert score.frechet.low > 20
    assert score.kernel.low < 0 < score.kernel.high
    assert "60 pictures are few for 200 features" in score.beware
    assert score.copies is None
    assert "copies" not in score.to_dict()
    real, fake = np.random.default_rng(0).normal(size=(2, 400, 20))
    score = score_features(None, real, fake)
    assert score.frechet.low < 0 < score.frechet.high
    assert not score.beware


def test_classes_are_drawn_as_often_as_they_were_learned():
    learned = np.repeat([0, 1, 2], [70, 25, 5])
    found = np.bincount(draw_labels(learned, 20_000, 1), minlength=3) / 20_000
    np.testing.assert_allclose(found, [0.7, 0.25, 0.05], atol=0.02)


def test_a_score_is_plain_json():
    score = score_features(*RNG.normal(size=(3, 60, 3))).to_dict()
    assert set(score["frechet"]) == {"value", "low", "high"}
    assert score["num_real"] == score["num_fake"] == 60


def test_shares_have_wilson_s_interval():
    for hits, num in ((7, 50), (0, 20), (30, 30)):
        found = wilson(hits / num, num)
        wanted = binomtest(hits, num).proportion_ci(method="wilson")
        assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-6)
