"""Trainings on fewer pictures: what they may see, and what is made of their accuracies."""

import dataclasses
import itertools

import numpy as np
import pytest

from safelight import datasets
from safelight.transfer import training_sizes
from safelight.transfer.config import TrainConfig
from safelight.transfer.training_sizes import deal_sizes, measure_learning_curve, round_steps


@pytest.fixture(scope="module")
def dataset():
    return datasets.make_shapes(200, image_size=16, num_classes=3)


def digests(part):
    return set(part.digests)


def test_each_size_lies_within_the_next_and_apart_from_what_judges(dataset):
    dealt = deal_sizes(dataset, seed=3)

    assert len(dealt.splits) == training_sizes.NUM_REPETITIONS
    for repetition in dealt.splits:
        for small, large in itertools.pairwise(repetition):
            assert digests(small.train) < digests(large.train)
            assert len(large.train) // 2 == len(small.train)
        for split in repetition:
            assert not digests(split.train) & digests(split.test)
            assert split.test is repetition[0].test
        assert len(repetition[-1].train) + len(repetition[-1].test) == len(dataset)


def test_every_size_has_each_class_in_its_share(dataset):
    shares = np.bincount(dataset.labels) / len(dataset)
    for split in deal_sizes(dataset).splits[0]:
        counts = np.bincount(split.train.labels, minlength=3)
        # One picture for the beginning of the order, one for the rounding of the part that judges.
        assert (np.abs(counts - shares * len(split.train)) <= 2).all()


def test_repetitions_differ_and_are_counted_once(dataset):
    dealt = deal_sizes(dataset)
    parts = [digests(repetition[0].test) for repetition in dealt.splits]

    assert len({frozenset(part) for part in parts}) == len(parts)
    assert dealt.num_judged == len(set.union(*parts))
    assert dealt.num_all == len(dataset)


def test_duplicates_of_what_judges_are_not_learned_from(dataset):
    pairs = tuple((i, i + 1) for i in range(0, 60, 2))
    twins = dataclasses.replace(dataset, duplicates=pairs)
    for repetition in deal_sizes(twins).splits:
        judged, learned = digests(repetition[0].test), digests(repetition[-1].train)
        for pair in pairs:
            both = {dataset.digests[i] for i in pair}
            assert both <= judged or both <= learned


def test_validation_is_a_part_of_each_size(dataset):
    for plain, watched in zip(
        deal_sizes(dataset).splits[0],
        deal_sizes(dataset, validation_fraction=0.2).splits[0],
        strict=True,
    ):
        both = digests(watched.train) | digests(watched.validation)
        assert both == digests(plain.train)
        assert not digests(watched.train) & digests(watched.validation)
        assert len(watched.validation) == pytest.approx(0.2 * len(plain.train), abs=3)


def test_too_few_pictures_name_the_class(dataset):
    few = np.flatnonzero(dataset.labels == 1)[:10]
    others = np.flatnonzero(dataset.labels != 1)
    with pytest.raises(ValueError, match=f"{dataset.class_names[1]!r} has .* expected about 21"):
        deal_sizes(dataset.subset(np.concatenate([few, others])))


def test_accuracies_become_the_curve_they_came_from(dataset, monkeypatch):
    noise = np.random.default_rng(0).normal(0, 0.015, (6, 4))

    def accuracy(size):
        return 1 - 0.05 - 1.5 * size**-0.5

    def train(splits, config, **_):
        exact = [accuracy(len(split.train)) for split in splits]
        return [{"accuracy": value} for value in exact + noise.ravel()]

    monkeypatch.setattr(training_sizes, "train_on_splits", train)
    dealt = deal_sizes(dataset)
    measured = measure_learning_curve(dealt, TrainConfig())

    expected = [accuracy(size) for size in dealt.sizes]
    np.testing.assert_allclose(measured.accuracies, np.array(expected) + noise)
    full, more = measured.accuracy(200), measured.accuracy(300)
    assert full.low < accuracy(200) < full.high
    gain = measured.gain(100)
    assert 0 <= gain.low <= accuracy(300) - accuracy(200) <= gain.high
    assert more.value >= full.value
    judged = measured.accuracy(200, num_test=50)
    assert judged.high - judged.low > full.high - full.low


@pytest.mark.parametrize(
    ("num_all", "expected"), [(1968, [200, 600, 2000]), (300, [30, 100, 300]), (25, [2, 8, 20])]
)
def test_steps_are_round(num_all, expected):
    steps = round_steps(num_all)
    assert steps == expected
    assert all(len(str(step).rstrip("0")) == 1 for step in steps)


def test_groups_stay_together_in_what_decides_when_to_stop(dataset):
    data = dataclasses.replace(dataset, groups=np.arange(len(dataset)) // 6)
    for repetition in deal_sizes(data, validation_fraction=0.2, strategy="grouped").splits:
        for split in repetition:
            parts = (split.train, split.validation, split.test)
            kept = [set(part.groups.tolist()) for part in parts]
            assert len(set.union(*kept)) == sum(map(len, kept))
