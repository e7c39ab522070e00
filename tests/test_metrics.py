import dataclasses
import math

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from safelight.metrics import (
    PROBABILITY_FLOOR,
    Interval,
    brier_score,
    calibration_bins,
    classification_metrics,
    confident_mistakes,
    expected_calibration_error,
    format_percent,
    mean_intervals,
    paired_difference,
    per_class_table,
)
from safelight.metrics import _summary_statistic as summary_statistic
from safelight.resampling import Resampling, bootstrap, proportion
from safelight.weighted_scores import roc_auc as area_under_curve


def some_answers(num_images=656, num_classes=2, *, skill=2.0, seed=0, digits=None):
    rng = np.random.default_rng(seed)
    labels = rng.integers(num_classes, size=num_images)
    logits = rng.normal(size=(num_images, num_classes)) + skill * np.eye(num_classes)[labels]
    if digits is not None:
        logits = np.round(logits, digits)  # makes ties
    exponents = np.exp(logits)
    return labels, exponents / exponents.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("num_classes", [2, 3, 7])
def test_values_are_those_of_scikit_learn(num_classes):
    labels, probabilities = some_answers(300, num_classes, digits=1)
    got = classification_metrics(labels, probabilities, num_resamples=10)
    guesses = probabilities.argmax(axis=1)
    scores = probabilities[:, 1] if num_classes == 2 else probabilities
    wanted = {
        "accuracy": sklearn.metrics.accuracy_score(labels, guesses),
        "loss": sklearn.metrics.log_loss(labels, probabilities),
        "balanced_accuracy": sklearn.metrics.balanced_accuracy_score(labels, guesses),
        "macro_f1": sklearn.metrics.f1_score(labels, guesses, average="macro"),
        "roc_auc": sklearn.metrics.roc_auc_score(labels, scores, multi_class="ovr"),
    }
    assert {name: interval.value for name, interval in got.items()} == pytest.approx(wanted)


@pytest.mark.parametrize("digits", [None, 0])
def test_weighted_metrics_are_those_of_scikit_learn_with_sample_weight(digits):
    labels, probabilities = some_answers(80, 2, digits=digits)
    weights = np.random.default_rng(1).integers(0, 4, size=(20, 80)).astype(float)
    got = summary_statistic(labels, probabilities)(weights)
    for row, weight in zip(got, weights, strict=True):
        guesses = probabilities.argmax(axis=1)
        assert row == pytest.approx(
            [
                sklearn.metrics.log_loss(labels, probabilities, sample_weight=weight),
                sklearn.metrics.balanced_accuracy_score(labels, guesses, sample_weight=weight),
                sklearn.metrics.f1_score(labels, guesses, average="macro", sample_weight=weight),
                sklearn.metrics.roc_auc_score(labels, probabilities[:, 1], sample_weight=weight),
            ]
        )


def test_area_under_curve_counts_pairs_by_brute_force():
    rng = np.random.default_rng(0)
    positive, scores = rng.random(40) < 0.4, rng.integers(0, 8, 40) / 8
    up, down = scores[positive][:, None], scores[~positive][None, :]
    pairs = (up > down).mean() + (up == down).mean() / 2
    assert area_under_curve(positive, scores)(np.ones((1, 40))) == pytest.approx([pairs])


def test_perfect_and_impossible_probabilities_give_a_finite_loss():
    labels = np.array([0, 1, 0, 1])
    wrong = classification_metrics(labels, np.eye(2)[1 - labels], num_resamples=10)
    assert wrong["loss"].value == pytest.approx(-math.log(PROBABILITY_FLOOR))
    assert classification_metrics(labels, np.eye(2)[labels])["loss"].value == 0


def test_bootstrap_error_of_accuracy_is_the_binomial_one():
    hits = np.arange(500) < 430
    plan = Resampling(500, None, 4000, 0.95, 0)
    means = np.concatenate([weights @ hits / 500 for weights in plan.weights()])
    assert means.mean() == pytest.approx(0.86, abs=0.001)
    assert means.std() == pytest.approx(math.sqrt(0.86 * 0.14 / 500), rel=0.05)


def test_wilson_is_scipys():
    for num_hits in (0, 1, 80, 99, 100):
        hits = np.arange(100) < num_hits
        value, low, high = proportion(hits, Resampling(100, None, 1, 0.95, 0))
        wanted = scipy.stats.binomtest(num_hits, 100).proportion_ci(0.95, method="wilson")
        assert (value, low, high) == pytest.approx((num_hits / 100, wanted.low, wanted.high))


def test_bca_agrees_with_scipys():
    values = np.random.default_rng(0).exponential(size=200)
    plan = Resampling(200, None, 20_000, 0.95, 0)
    _, low, high = bootstrap(lambda w: (w @ values / w.sum(axis=1))[:, None], plan)
    wanted = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1)
    )
    ends = wanted.confidence_interval
    # Ours is wider by Student's quantile (1.972 against 1.960 here); the rest is chance.
    width = ends.high - ends.low
    assert [low[0], high[0]] == pytest.approx([ends.low, ends.high], abs=0.04 * width)


def test_means_are_those_of_one_bootstrap_each_and_know_scale_and_shift():
    rng = np.random.default_rng(0)
    values, other = rng.exponential(size=(2, 300))
    columns = {"values": values, "other": other, "nats": 3 * values.astype("float32") - 100}
    found = mean_intervals(columns, num_resamples=500, seed=7)
    assert list(found) == list(columns)
    plan = Resampling(300, None, 500, 0.95, 7)
    alone = bootstrap(lambda w: (w @ other / w.sum(axis=1))[:, None], plan)
    assert dataclasses.astuple(found["other"])[:3] == pytest.approx([x[0] for x in alone])
    assert found["values"].value == pytest.approx(values.mean())
    for end in ("value", "low", "high"):
        shifted = 3 * getattr(found["values"], end) - 100
        assert getattr(found["nats"], end) == pytest.approx(shifted, abs=1e-4)


@pytest.mark.parametrize("columns", [{}, {"a": []}, {"a": [1.0], "b": [1.0, 2]}, {"a": [[1.0]]}])
def test_what_has_no_mean_is_said(columns):
    with pytest.raises(ValueError, match=r"one number per image: \(n,\) with n >= 1"):
        mean_intervals(columns)


def test_jackknife_in_blocks_gives_the_same_ends_as_one_by_one(monkeypatch):
    values = np.random.default_rng(0).exponential(size=900)

    def ends():
        plan = Resampling(900, None, 2000, 0.95, 0)
        _, low, high = bootstrap(lambda w: (w @ values / w.sum(axis=1))[:, None], plan)
        return np.array([low[0], high[0]])

    whole = ends()
    monkeypatch.setattr("safelight.resampling._MAX_JACKKNIFE_BLOCKS", 300)
    assert ends() == pytest.approx(whole, abs=0.05 * np.ptp(whole))


def test_all_right_is_not_certain():
    labels = np.arange(100) % 2
    got = classification_metrics(labels, np.eye(2)[labels] * 0.9 + 0.05)
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "roc_auc"):
        assert got[name].value == got[name].high == 1
    # The exact (Clopper-Pearson) bound is 1 - 0.025 ** (1 / 100); Wilson's is near it.
    exact = 0.025**0.01
    assert got["accuracy"].low == pytest.approx(100 / (100 + 1.959964**2))
    wilson = 1 - 50 / (50 + 1.959964**2)
    assert got["balanced_accuracy"].low == pytest.approx(1 - math.hypot(wilson, wilson) / 2)
    # A positive that ranks below all negatives costs as much as all the pairs it is in.
    assert got["roc_auc"].low == pytest.approx(1 - (1 - exact) * 2)


def test_the_open_end_of_macro_f1_is_that_of_the_confusion_matrix_it_describes():
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    low = classification_metrics(labels, np.eye(3)[labels])["macro_f1"].low
    missed = 100 * (1 - 0.025**0.01)
    # Ten images of the smallest class, `missed` of them taken for one of an equally small class.
    worst = [1, 20 / (20 + missed), 2 * (10 - missed) / (20 - missed)]
    assert low == pytest.approx(np.mean(worst))


def test_all_wrong_has_an_open_upper_end():
    labels = np.arange(100) % 2
    got = classification_metrics(labels, np.eye(2)[1 - labels])
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "roc_auc"):
        assert got[name].value == got[name].low == 0 < got[name].high < 0.1


def test_groups_of_one_change_almost_nothing_and_alike_groups_widen():
    labels, probabilities = some_answers(400)
    alone = classification_metrics(labels, probabilities)
    ones = classification_metrics(labels, probabilities, groups=np.arange(400))
    for name, interval in alone.items():
        assert ones[name].low == pytest.approx(interval.low, abs=0.005)
    # Every image nine times over: the information of 400 images, not of 3,600.
    ninefold = {
        "labels": np.repeat(labels, 9),
        "probabilities": np.repeat(probabilities, 9, axis=0),
    }
    grouped = classification_metrics(**ninefold, groups=np.repeat(np.arange(400), 9))
    naive = classification_metrics(**ninefold)
    for name, interval in alone.items():
        width = interval.high - interval.low
        assert grouped[name].high - grouped[name].low == pytest.approx(width, rel=0.1)
        assert naive[name].high - naive[name].low == pytest.approx(width / 3, rel=0.15)


def test_one_group_says_nothing_about_other_groups():
    labels, probabilities = some_answers(50)
    got = classification_metrics(labels, probabilities, groups=np.zeros(50, int))
    assert math.isnan(got["loss"].low)
    assert got["accuracy"].high - got["accuracy"].low > 0.5


def test_a_class_without_images_has_no_area_and_says_why(caplog):
    labels, probabilities = some_answers(60, 3)
    got = classification_metrics(np.minimum(labels, 1), probabilities)
    assert math.isnan(got["roc_auc"].value)
    assert "class index 2" in got["roc_auc"].reason
    assert "class index 2" in caplog.text
    assert got["roc_auc"].to_dict()["reason"] == got["roc_auc"].reason
    assert math.isfinite(got["balanced_accuracy"].low)


def test_same_seed_same_numbers_and_another_seed_others():
    labels, probabilities = some_answers()
    first = classification_metrics(labels, probabilities, seed=1)
    assert classification_metrics(labels, probabilities, seed=1) == first
    assert classification_metrics(labels, probabilities, seed=2) != first


def test_bfloat16_rounding_and_float32_are_accepted():
    labels, probabilities = some_answers(50, 30)
    single = classification_metrics(labels, probabilities.astype(np.float32), num_resamples=50)
    double = classification_metrics(labels, probabilities, num_resamples=50)
    assert single["loss"].value == pytest.approx(double["loss"].value, rel=1e-5)


@pytest.mark.parametrize(("num_images", "num_resamples"), [(656, 2000), (3000, 100)])
def test_resamples_are_scored_many_at_a_time(monkeypatch, num_images, num_resamples):
    sizes = []

    def watched(*answers):
        score = summary_statistic(*answers)

        def statistic(weights):
            sizes.append(len(weights))
            return score(weights)

        return statistic

    monkeypatch.setattr("safelight.metrics._summary_statistic", watched)
    classification_metrics(*some_answers(num_images), num_resamples=num_resamples)
    # The images themselves, the resamples, and what leaves out one of a thousand blocks at most.
    assert sum(sizes) == 1 + num_resamples + min(num_images, 1000)
    assert len(sizes) < sum(sizes) / 50
    assert max(sizes) * num_images < 10**6  # weights in memory


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([0, 1], [[0.5, 0.5]], "shape"),
        ([], np.zeros((0, 2)), "n >= 1"),
        ([0.0, 1.0], np.eye(2), "integers"),
        ([0, 2], np.eye(2), "columns"),
        ([0, -1], np.eye(2), "columns"),
        ([0, 1], [[3.0, -1.0], [0.0, 1.0]], "softmax"),
        ([0, 1], [[math.nan, 1.0], [0.0, 1.0]], "softmax"),
    ],
)
def test_what_does_not_fit_is_named(labels, probabilities, message):
    with pytest.raises(ValueError, match=message):
        classification_metrics(labels, probabilities)


def test_groups_and_confidence_are_checked():
    labels, probabilities = some_answers(10)
    with pytest.raises(ValueError, match="one number per image"):
        classification_metrics(labels, probabilities, groups=[1, 2])
    with pytest.raises(ValueError, match="confidence"):
        classification_metrics(labels, probabilities, confidence=95)


def test_per_class_table_is_scikit_learns():
    labels, probabilities = some_answers(200, 4, skill=1.0)
    rows = per_class_table(labels, probabilities, class_names="abcd")
    wanted = sklearn.metrics.precision_recall_fscore_support(labels, probabilities.argmax(axis=1))
    for row, precision, recall, f1, support in zip(rows, *wanted, strict=True):
        got = (row.precision.value, row.recall.value, row.f1.value, row.support)
        assert got == pytest.approx((precision, recall, f1, support))
        for interval in (row.precision, row.recall, row.f1):
            assert 0 <= interval.low < interval.value < interval.high <= 1
    assert rows[0].to_dict()["recall"] == rows[0].recall.to_dict()


def test_per_class_table_says_what_is_missing():
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.8, 0.2, 0, 0], [0.2, 0.8, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0]])
    _, right, guessed, unknown = per_class_table(labels, probabilities, class_names="abcd")
    assert right.support == 2
    assert math.isnan(guessed.recall.value)
    assert guessed.precision.value == guessed.f1.value == 0
    assert "never predicted" in unknown.precision.reason
    assert "no image" in unknown.f1.reason
    with pytest.raises(ValueError, match="one name per column"):
        per_class_table(labels, probabilities, class_names="ab")


def test_paired_difference_is_narrower_than_two_apart():
    labels, probabilities = some_answers(600, skill=1.0)
    better = probabilities.copy()
    fixed = np.flatnonzero(probabilities.argmax(axis=1) != labels)[:30]
    better[fixed] = np.eye(2)[labels[fixed]]
    got = paired_difference(labels, better, probabilities_b=probabilities)
    assert got.value == pytest.approx(30 / 600)
    assert got.low == pytest.approx(30 / 600 - 1.96 * math.sqrt(0.05 * 0.95 / 600), abs=0.004)
    turned = paired_difference(labels, probabilities, probabilities_b=better)
    assert (turned.value, turned.low) == pytest.approx((-got.value, -got.high), abs=0.004)
    same = paired_difference(labels, probabilities, probabilities_b=probabilities)
    assert same.value == 0
    assert same.low == -same.high < 0


def answers_right_at(rows, labels):
    """Probabilities that are right on these images alone."""
    said = np.where(np.isin(np.arange(len(labels)), rows), labels, 1 - labels)
    return np.eye(2)[said]


@pytest.mark.parametrize(("more", "fewer"), [(3, 0), (5, 0), (6, 0), (8, 1), (30, 12)])
@pytest.mark.parametrize("num", [100, 656])
def test_a_difference_is_claimed_only_where_the_exact_sign_test_sees_one(more, fewer, num):
    labels = np.arange(num) % 2
    same = list(range(50, num - 10))
    first = answers_right_at([*range(more), *same], labels)
    second = answers_right_at([*range(more, more + fewer), *same], labels)
    got = paired_difference(labels, first, probabilities_b=second)
    turned = paired_difference(labels, second, probabilities_b=first)
    assert got.value == pytest.approx((more - fewer) / num)
    if scipy.stats.binomtest(more, more + fewer).pvalue > 0.05:
        assert got.low <= 0
        assert turned.high >= 0
    else:
        assert got.low > 0
        assert turned.high < 0


@pytest.mark.parametrize(
    ("more", "confidence"),
    [(3, 0.5), (3, 0.8), (4, 0.8), (4, 0.95), (7, 0.95), (7, 0.99), (8, 0.99)],
)
def test_what_the_sign_test_has_to_show_follows_the_confidence(more, confidence):
    """One classifier is right everywhere, the other not at so many images: p is 2 / 2^more."""
    labels = np.arange(100) % 2
    first, second = np.eye(2)[labels], answers_right_at(np.arange(more, 100), labels)
    got = paired_difference(labels, first, probabilities_b=second, confidence=confidence)
    turned = paired_difference(labels, second, probabilities_b=first, confidence=confidence)
    shown = 2 / 2**more <= 1 - confidence
    assert (got.low > 0, turned.high < 0) == (shown, shown)


@pytest.mark.parametrize(("num_better", "shown"), [(5, False), (8, True)])
def test_the_sign_test_counts_groups_where_there_are_some(num_better, shown):
    """Better in 5 or 8 of ten groups of four images, worse in none: p is 1 / 16 or 1 / 128."""
    labels, groups = np.arange(40) % 2, np.arange(40) // 4
    first, second = np.eye(2)[labels], answers_right_at(np.arange(4 * num_better, 40), labels)
    assert paired_difference(labels, first, probabilities_b=second).low > 0
    got = paired_difference(labels, first, probabilities_b=second, groups=groups)
    turned = paired_difference(labels, second, probabilities_b=first, groups=groups)
    assert (got.low > 0, turned.high < 0) == (shown, shown)


def test_a_difference_everywhere_is_not_certain_of_other_images():
    labels = np.arange(40) % 2
    right, wrong = np.eye(2)[labels], np.eye(2)[1 - labels]
    got = paired_difference(labels, right, probabilities_b=wrong)
    assert got.value == got.high == 1
    assert got.low == pytest.approx(0.025 ** (1 / 40))
    turned = paired_difference(labels, wrong, probabilities_b=right)
    assert (turned.value, turned.high) == (-1, pytest.approx(-got.low))


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.01, 0.03, 0.1])
def test_equal_classifiers_are_told_apart_as_seldom_as_stated(rate):
    """Each is wrong, alone, on so many of 200 images."""
    alarms, labels = 0, np.arange(200) % 2
    for trial in range(600):
        rng = np.random.default_rng(trial)
        lone = rng.choice(3, 200, p=[1 - 2 * rate, rate, rate])
        answers = [answers_right_at(np.flatnonzero(lone != each), labels) for each in (1, 2)]
        got = paired_difference(labels, answers[0], probabilities_b=answers[1], num_resamples=400)
        alarms += not got.low <= 0 <= got.high
    assert alarms / 600 < 0.05 + 2 * math.sqrt(0.05 * 0.95 / 600)


def test_recall_of_a_class_in_three_groups_has_the_doubt_of_three():
    """By hand: Korn and Graubard's effective number, and Student's t with two degrees."""
    hits, sizes = np.array([7, 8, 9]), 10
    rare = np.concatenate([np.arange(sizes) < number for number in hits])
    labels = np.concatenate([np.ones(30, int), np.zeros(970, int)])
    groups = np.concatenate([np.repeat([0, 1, 2], sizes), 3 + np.arange(970) // 10])
    said = np.concatenate([rare.astype(int), np.zeros(970, int)])
    row = per_class_table(labels, np.eye(2)[said], class_names="ab", groups=groups)[1]
    share, sums = 0.8, hits - 8
    variance = 3 / 2 * (sums**2).sum() / 30**2
    square = scipy.stats.t.ppf(0.975, 2) ** 2 / min(30, share * (1 - share) / variance)
    centre = (share + square / 2) / (1 + square)
    half = math.sqrt(share * (1 - share) * square + square**2 / 4) / (1 + square)
    assert (row.recall.low, row.recall.high) == pytest.approx((centre - half, centre + half))


def test_calibration_error_of_a_known_case():
    # Ten images at 0.7 of which five are right, ten at 0.9 of which all are.
    sure = np.repeat([0.7, 0.9], 10)
    labels = np.repeat([0, 1, 0], [5, 5, 10])
    probabilities = np.stack([sure, 1 - sure], axis=1)
    assert expected_calibration_error(labels, probabilities) == pytest.approx(0.15)
    (low, five, ten), (high, all_right, _) = calibration_bins(labels, probabilities)
    assert (low, five.value, ten, high, all_right.value) == pytest.approx((0.7, 0.5, 10, 0.9, 1))
    assert expected_calibration_error(labels, np.eye(2)[labels]) == 0


def test_calibration_error_equals_a_loop_over_bins():
    labels, probabilities = some_answers(500, 3)
    confidence, hits = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    wanted = 0.0
    for low, high in zip(np.linspace(0, 1, 11)[:-1], np.linspace(0, 1, 11)[1:], strict=True):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            wanted += inside.mean() * abs(hits[inside].mean() - confidence[inside].mean())
    assert expected_calibration_error(labels, probabilities, num_bins=10) == pytest.approx(wanted)


def test_brier_score_is_the_sum_over_classes():
    labels, probabilities = some_answers(100, 4)
    wanted = sklearn.metrics.brier_score_loss(labels, probabilities, scale_by_half=False)
    assert brier_score(labels, probabilities) == pytest.approx(wanted)
    assert brier_score([0, 1], np.eye(2)[[1, 0]]) == 2


def test_confident_mistakes_are_the_surest_first():
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.4, 0.6], [0.9, 0.1], [0.9, 0.1], [0.7, 0.3]])
    assert confident_mistakes(labels, probabilities).tolist() == [2, 3, 0]
    assert confident_mistakes(labels, probabilities, num_images=1).tolist() == [2]
    assert confident_mistakes(labels, np.eye(2)[labels]).tolist() == []


def test_intervals_read_well():
    assert format_percent(Interval(0.8641, 0.836, 0.889)) == "86.4 % [83.6, 88.9]"
    assert str(Interval(0.8641, 0.836, 0.889)) == "0.864 [0.836, 0.889]"
    missing = Interval(math.nan, math.nan, math.nan, "no image")
    assert format_percent(missing) == "not defined (no image)"
    assert Interval(1, 0, 1).to_dict() == {"value": 1, "low": 0, "high": 1}


def coverage(truths, *, num_images, error_rate, groups=None, num_trials=400):
    """Shares of simulated test sets whose intervals hold the truths, by the metrics' names."""
    held = dict.fromkeys(truths, 0)
    for trial in range(num_trials):
        rng = np.random.default_rng(trial)
        labels = (np.arange(num_images) % 4 == 0).astype(int)
        shared = rng.random(num_images if groups is None else groups.max() + 1) < error_rate
        wrong = shared if groups is None else shared[groups]
        sure = np.where(wrong, 0.4, 0.6)
        probabilities = np.where(np.eye(2)[labels] == 1, sure[:, None], 1 - sure[:, None])
        got = classification_metrics(labels, probabilities, num_resamples=500, groups=groups)
        for name, truth in truths.items():
            held[name] += got[name].low <= truth <= got[name].high
    return {name: number / num_trials for name, number in held.items()}


@pytest.mark.slow
@pytest.mark.parametrize(("num_images", "error_rate"), [(656, 0.14), (656, 0.01), (80, 0.1)])
def test_intervals_hold_the_truth_as_often_as_they_say(num_images, error_rate):
    right = 1 - error_rate
    hits = np.array([1.5, 0.5]) * right  # twice the share of each class
    truths = {
        "accuracy": right,
        "balanced_accuracy": right,
        "macro_f1": (hits / (hits + error_rate)).mean(),
        "loss": -(error_rate * math.log(0.4) + right * math.log(0.6)),
    }
    held = coverage(truths, num_images=num_images, error_rate=error_rate)
    # Two standard errors of 400 trials at 95 % are 2.2 points.
    assert min(held.values()) > 0.92, held


@pytest.mark.slow
def test_intervals_of_a_few_alike_groups_hold_the_truth():
    groups, truths = np.arange(240) // 12, {"accuracy": 0.8, "balanced_accuracy": 0.8}
    held = coverage(truths, num_images=240, error_rate=0.2, groups=groups)
    assert min(held.values()) > 0.9, held
