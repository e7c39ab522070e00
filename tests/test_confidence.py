"""Intervals of any coverage: each is as wide as it was asked to be."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats

from safelight.metrics import (
    classification_metrics,
    mean_intervals,
    paired_difference,
    per_class_table,
)
from safelight.resampling import Resampling, bootstrap, proportion
from safelight.weighted_scores import means

at_any_confidence = pytest.mark.parametrize("confidence", [0.5, 0.8, 0.99])


def some_answers(num_images=200):
    """Labels of two classes, and probabilities that are right five times out of six."""
    labels = np.arange(num_images) % 2
    chance = np.random.default_rng(0).normal(0.7, 0.2, num_images).clip(0.02, 0.98)
    return labels, np.where(np.eye(2)[labels] == 1, chance[:, None], 1 - chance[:, None])


def wilson(hits, confidence):
    """Both ends, by SciPy."""
    test = scipy.stats.binomtest(int(hits.sum()), len(hits))
    ends = test.proportion_ci(confidence, method="wilson")
    return ends.low, ends.high


# --- where intervals come from


@at_any_confidence
@pytest.mark.parametrize("num_hits", [0, 80, 100])
def test_wilson_is_scipys(num_hits, confidence):
    hits = np.arange(100) < num_hits
    share, *ends = proportion(hits, Resampling(100, None, 1, confidence, 0))
    assert share == pytest.approx(num_hits / 100)
    assert ends == pytest.approx(wilson(hits, confidence))


@at_any_confidence
def test_a_share_of_groups_has_students_quantile_in_wilsons_formula(confidence):
    """Groups whose images all agree have the variance of one image each, over one group less."""
    groups = np.repeat(np.arange(12), 5)
    share, *ends = proportion(groups < 9, Resampling(60, groups, 1, confidence, 0))
    assert share == 0.75
    square = scipy.stats.t.ppf((1 + confidence) / 2, 11) ** 2 / 11
    centre = (share + square / 2) / (1 + square)
    half = math.sqrt(share * (1 - share) * square + square**2 / 4) / (1 + square)
    assert ends == pytest.approx([centre - half, centre + half])


@at_any_confidence
def test_bca_agrees_with_scipys(confidence):
    values = np.random.default_rng(0).exponential(size=200)
    plan = Resampling(200, None, 20_000, confidence, 0)
    _, low, high = bootstrap(means(values[:, None]), plan)
    wanted = scipy.stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=20_000,
        confidence_level=confidence,
        method="BCa",
        rng=np.random.default_rng(1),
    )
    ends = wanted.confidence_interval
    # Ours is wider by Student's quantile (2.601 against 2.576 at 99 %); the rest is chance.
    width = ends.high - ends.low
    assert [low[0], high[0]] == pytest.approx([ends.low, ends.high], abs=0.06 * width)


@at_any_confidence
@pytest.mark.parametrize("groups", [None, np.arange(60) // 5])
def test_errors_at_the_unseen_rate_stay_unseen_half_as_often_as_an_interval_is_wrong(
    groups, confidence
):
    plan = Resampling(60, groups, 1, confidence, 0)
    clean = (1 - plan.unseen_rate) ** (60 if groups is None else 12)
    assert clean == pytest.approx((1 - confidence) / 2)


# --- what hands the confidence on


@at_any_confidence
def test_accuracy_recall_and_precision_are_wilsons(confidence):
    labels, probabilities = some_answers()
    said = probabilities.argmax(axis=1)
    right = said == labels
    options = {"num_resamples": 10, "confidence": confidence}
    accuracy = classification_metrics(labels, probabilities, **options)["accuracy"]
    assert (accuracy.low, accuracy.high) == pytest.approx(wilson(right, confidence))
    rows = per_class_table(labels, probabilities, class_names="ab", **options)
    for index, row in enumerate(rows):
        for interval, among in ((row.recall, labels == index), (row.precision, said == index)):
            ends = wilson(right[among], confidence)
            assert (interval.low, interval.high) == pytest.approx(ends)


@at_any_confidence
def test_balanced_accuracy_joins_recalls_of_that_confidence(confidence):
    """Where all is right, each recall is 1 and its lower end n / (n + z^2)."""
    labels = np.repeat([0, 1], [30, 50])
    found = classification_metrics(labels, np.eye(2)[labels], confidence=confidence)
    square = scipy.stats.norm.ppf((1 + confidence) / 2) ** 2
    below = [1 - number / (number + square) for number in (30, 50)]
    assert found["balanced_accuracy"].low == pytest.approx(1 - math.hypot(*below) / 2)


@at_any_confidence
def test_the_loss_has_the_bootstraps_interval_of_a_mean(confidence):
    labels, probabilities = some_answers()
    losses = -np.log(probabilities[np.arange(len(labels)), labels])
    plan = Resampling(len(labels), None, 2000, confidence, 0)
    wanted = [ends[0] for ends in bootstrap(means(losses[:, None]), plan)]
    loss = classification_metrics(labels, probabilities, confidence=confidence)["loss"]
    mean = mean_intervals({"loss": losses}, confidence=confidence)["loss"]
    for found in (loss, mean):
        assert dataclasses.astuple(found)[:3] == pytest.approx(wanted)


def test_less_coverage_lies_within_more():
    labels, probabilities = some_answers()

    def intervals(confidence):
        options = {"num_resamples": 1000, "confidence": confidence}
        found = classification_metrics(labels, probabilities, **options)
        for row in per_class_table(labels, probabilities, class_names="ab", **options):
            found[f"f1 of {row.class_name}"] = row.f1
        perfect = np.eye(2)[labels]
        found["paired"] = paired_difference(
            labels, probabilities, probabilities_b=perfect, **options
        )
        return found

    found = [intervals(confidence) for confidence in (0.5, 0.8, 0.95, 0.99)]
    for name in found[0]:
        assert len({each[name].value for each in found}) == 1, name
        assert (np.diff([each[name].low for each in found]) < 0).all(), name
        assert (np.diff([each[name].high for each in found]) > 0).all(), name


@at_any_confidence
def test_a_difference_of_all_or_none_has_the_open_end_of_that_confidence(confidence):
    labels = np.arange(40) % 2
    right, wrong = np.eye(2)[labels], np.eye(2)[1 - labels]
    clean = ((1 - confidence) / 2) ** (1 / 40)
    everywhere = paired_difference(labels, right, probabilities_b=wrong, confidence=confidence)
    assert (everywhere.low, everywhere.high) == (pytest.approx(clean), 1)
    nowhere = paired_difference(labels, right, probabilities_b=right, confidence=confidence)
    assert (nowhere.low, nowhere.high) == pytest.approx((clean - 1, 1 - clean))
