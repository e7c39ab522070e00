"""Cross-validation: every picture judges once, and nothing that belongs together is torn apart."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safelight.datasets import ImageDataset, make_shapes, split
from safelight.folds import deal_folds, find_units
from safelight.sources import Arrays
from safelight.splits import fold_quotas, merge_units

LABELS = st.lists(st.integers(0, 2), min_size=10, max_size=100)
PARTS = ("train", "validation", "test")


def dataset_of(labels, **options):
    """A data set that is only counted, never read."""
    labels = np.asarray(labels)
    names = tuple(str(i) for i in range(len(labels)))
    return ImageDataset(
        name="made",
        class_names=tuple(f"c{i}" for i in range(labels.max() + 1)),
        labels=labels,
        digests=names,
        files=names,
        source=Arrays(np.zeros((len(labels), 8, 8, 1), np.uint8), np.arange(len(labels))),
        **options,
    )


def draw_clusters(data, size):
    """Some pictures that are copies: the cluster of each picture, and those of several."""
    pairs = data.draw(st.lists(st.tuples(*[st.integers(0, size - 1)] * 2), max_size=8))
    units = merge_units(size, tuple(pairs))
    clusters = [tuple(np.flatnonzero(units == unit).tolist()) for unit in np.unique(units)]
    return units, tuple(cluster for cluster in clusters if len(cluster) > 1)


def fold_of(folds, size):
    """The fold whose test part has each picture, by brute force; and that it is only one."""
    found = [[k for k, each in enumerate(folds) if i in each.indices["test"]] for i in range(size)]
    assert {len(each) for each in found} == {1}
    return np.array(found)[:, 0]


def check_parts(folds, size):
    """The three parts of every fold are the whole data set, and what they say that they are."""
    for number, each in enumerate(folds):
        together = np.concatenate([each.indices[name] for name in PARTS])
        assert sorted(together.tolist()) == list(range(size))
        assert each.fold == (number, len(folds))
        for name in PARTS:
            part = getattr(each, name)
            assert part.files == tuple(str(i) for i in each.indices[name])
            assert part.parts is None


@settings(max_examples=40)
@given(labels=LABELS, seed=st.integers(0, 99), num_folds=st.integers(2, 6))
def test_every_picture_judges_once_and_shares_are_exact(labels, seed, num_folds):
    labels = np.array([0, 1, 2] * 8 + labels)
    data, size = dataset_of(labels), len(labels)
    folds = deal_folds(data, num_folds=num_folds, seed=seed)
    number = fold_of(folds, size)
    check_parts(folds, size)
    counts = np.array([[np.sum((number == k) & (labels == c)) for c in range(3)]
                       for k in range(num_folds)])  # fmt: skip
    assert (np.abs(counts - np.bincount(labels) / num_folds) < 1).all()
    assert np.ptp(counts.sum(axis=1)) <= 1
    for each in folds:
        learned = np.bincount(labels[each.indices["train"]], minlength=3)
        watched = np.bincount(labels[each.indices["validation"]], minlength=3)
        assert abs(len(each.validation) - 0.15 * size) <= 3
        assert (np.abs(watched - 0.15 * size * (learned + watched) / (learned + watched).sum()) < 2
                ).all()  # fmt: skip
    again = deal_folds(data, num_folds=num_folds, seed=seed)
    for one, other in zip(folds, again, strict=True):
        assert all(np.array_equal(one.indices[name], other.indices[name]) for name in PARTS)


@settings(max_examples=40)
@given(labels=LABELS, seed=st.integers(0, 99), data=st.data())
def test_duplicates_and_groups_stay_together_in_all_parts(labels, seed, data):
    labels = np.array([0, 1, 2] * 20 + labels)
    size = len(labels)
    _, clusters = draw_clusters(data, size)
    groups = np.arange(size) // 3
    made = dataset_of(labels, groups=groups, duplicates=clusters)
    for strategy in ("stratified", "grouped"):
        folds = deal_folds(made, num_folds=4, seed=seed, strategy=strategy)
        number = fold_of(folds, size)
        check_parts(folds, size)
        assert np.abs(np.bincount(number) - size / 4).max() < 0.15 * size
        for each in folds:
            assert each.strategy == strategy
            part = np.empty(size, int)
            for place, name in enumerate(PARTS):
                part[each.indices[name]] = place
            assert all(len(set(part[list(cluster)])) == 1 for cluster in clusters)
            if strategy == "grouped":
                assert all(len(set(part[groups == group])) == 1 for group in groups)


@settings(max_examples=40)
@given(labels=LABELS, seed=st.integers(0, 99), data=st.data())
def test_what_a_split_keeps_together_is_one_unit_of_what_is_learned_from(labels, seed, data):
    """By brute force over all pairs; parts that were given may hold a copy each."""
    labels = np.array([0, 1, 2] * 20 + labels)
    size = len(labels)
    clusters, copies = draw_clusters(data, size)
    given_parts = data.draw(st.booleans())
    options = {"parts": tuple(PARTS[i // 3 % 3] for i in range(size))} if given_parts else {}
    made = dataset_of(
        labels,
        groups=np.arange(size) // 3,
        duplicates=copies,
        **options,
    )
    for strategy in ("stratified", "grouped"):
        dealt = split(made, seed=seed, strategy=strategy)
        rows = np.concatenate([dealt.indices["train"], dealt.indices["validation"]])
        units = find_units(dealt, ("train", "validation"))
        assert sorted(set(units.tolist())) == list(range(units.max() + 1))
        same = clusters[rows][:, None] == clusters[rows]
        if dealt.keeps_groups:  # the groups of what is joined are joined, too
            joined = merge_units(
                len(rows), tuple(tuple(np.flatnonzero(row)) for row in same), rows // 3
            )
            same = joined[:, None] == joined
        np.testing.assert_array_equal(units[:, None] == units, same)


def test_quotas_differ_by_one_picture_at_most():
    counts = np.array([7, 7, 0, 1803, 821])
    quotas = fold_quotas(counts, 5)
    assert quotas.sum(axis=0).tolist() == counts.tolist()
    assert np.ptp(quotas, axis=0).max() == 1
    assert np.ptp(quotas.sum(axis=1)) <= 1


def test_other_seeds_are_other_folds_and_validation_may_be_none():
    data = dataset_of([0, 1] * 30)
    one, other = (deal_folds(data, seed=seed, validation_fraction=0)[0] for seed in (0, 1))
    assert one.indices["test"].tolist() != other.indices["test"].tolist()
    assert (len(one.train), len(one.validation), len(one.test)) == (48, 0, 12)
    assert one.seed == 0
    assert other.seed == 1


def test_the_folds_read_the_right_pictures():
    shapes = make_shapes(20, image_size=8, num_classes=2)
    for each in deal_folds(shapes, num_folds=2):
        for place, index in enumerate(each.indices["test"]):
            np.testing.assert_array_equal(each.test.read(place), shapes.read(int(index)))


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ({}, {"num_folds": 1}, "num_folds=1: expected 2 or more"),
        ({}, {"num_folds": 11}, "Class 'c0' of data set 'made' has 10 pictures: expected at least"),
        ({"groups": np.arange(20) // 7}, {"strategy": "grouped"}, "in 3 groups that stay together"),
        ({"duplicates": (tuple(range(14)),)}, {"num_folds": 5}, "in 4 groups that stay together"),
        ({"parts": ("train",) * 20}, {}, "its own parts"),
        ({}, {"strategy": "grouped"}, "has no groups"),
        ({}, {"strategy": "random"}, "strategy must be"),
        ({}, {"validation_fraction": 0.8}, r"validation_fraction=0.8: .* less than 0.8"),
        ({}, {"validation_fraction": -0.1}, "validation_fraction=-0.1"),
    ],
)
def test_folds_that_cannot_be(data, options, message):
    with pytest.raises(ValueError, match=message):
        deal_folds(dataset_of([0, 1] * 10, **data), **options)
