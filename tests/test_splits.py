"""Splits meet their quotas, keep together what belongs together, and do not depend on order."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from safelight import datasets
from safelight.datasets import ImageDataset, from_directory, split
from safelight.splits import class_quotas, deal_units, merge_units

LABELS = st.lists(st.integers(0, 2), min_size=30, max_size=120)


def dataset_of(labels, groups=None, duplicates=(), parts=None, num_classes=None):
    """A data set that is only counted, never read."""
    labels = np.asarray(labels)
    num_classes = labels.max() + 1 if num_classes is None else num_classes
    return ImageDataset(
        name="made",
        class_names=tuple(f"c{i}" for i in range(num_classes)),
        labels=labels,
        digests=tuple(str(i) for i in range(len(labels))),
        files=tuple(str(i) for i in range(len(labels))),
        source=datasets.Arrays(np.zeros((len(labels), 8, 8, 1), np.uint8), np.arange(len(labels))),
        groups=None if groups is None else np.asarray(groups),
        duplicates=duplicates,
        parts=parts,
    )


def test_subsets_keep_everything_in_step():
    data = dataset_of([0, 1, 0, 1, 0, 1], groups=[5, 5, 6, 6, 7, 7], duplicates=((0, 3, 5), (1, 2)))
    part = data.subset([5, 2, 3])
    assert part.files == ("5", "2", "3")
    assert part.labels.tolist() == [1, 0, 1]
    assert part.groups.tolist() == [7, 6, 6]
    assert part.duplicates == ((0, 2),)
    assert part.subset([0, 2]).duplicates == ((0, 1),)
    assert len(data.subset([])) == 0
    with pytest.raises(ValueError, match="once"):
        data.subset([1, 1])


def whole(splits, size):
    together = np.concatenate([splits.indices[name] for name in ("train", "validation", "test")])
    return np.array_equal(np.sort(together), np.arange(size))


@settings(max_examples=60)
@given(labels=LABELS, seed=st.integers(0, 99))
def test_stratified_splits_meet_their_quotas(labels, seed):
    labels = np.array([0, 1, 2] * 4 + labels)
    data = dataset_of(labels)
    splits = split(data, seed=seed)
    assert whole(splits, len(data))
    assert abs(len(splits.test) - 0.25 * len(data)) <= 3
    for name, share in {"test": 0.25, "validation": 0.15, "train": 0.6}.items():
        counts = np.bincount(labels[splits.indices[name]], minlength=3)
        assert (np.abs(counts - share * np.bincount(labels)) < 2).all()
        assert (counts > 0).all()
    again = split(data, seed=seed)
    assert all(np.array_equal(splits.indices[k], again.indices[k]) for k in splits.indices)


@settings(max_examples=60)
@given(labels=LABELS, seed=st.integers(0, 99), data=st.data())
def test_nothing_straddles(labels, seed, data):
    labels = [0, 1, 2] * 12 + labels
    size = len(labels)
    pairs = data.draw(st.lists(st.tuples(*[st.integers(0, size - 1)] * 2), max_size=10))
    units = merge_units(size, tuple(pairs))
    clusters = [tuple(np.flatnonzero(units == u).tolist()) for u in np.unique(units)]
    clusters = tuple(c for c in clusters if len(c) > 1)
    groups = np.arange(size) // 3
    made = dataset_of(labels, groups=groups, duplicates=clusters, num_classes=3)
    for strategy in ("stratified", "grouped"):
        splits = split(made, seed=seed, strategy=strategy)
        assert whole(splits, size)
        part = np.empty(size, int)
        for number, name in enumerate(splits.indices):
            part[splits.indices[name]] = number
        assert all(len(set(part[list(cluster)])) == 1 for cluster in clusters)
        if strategy == "grouped":
            assert all(len(set(part[groups == group])) == 1 for group in groups)
        assert abs(len(splits.test) - size / 4) < 0.1 * size


def test_units_are_joined_through_third_parties():
    units = merge_units(7, ((0, 3), (4, 5)), np.array([0, 0, 1, 2, 2, 3, 4]))
    assert len(set(units[[0, 1, 3, 4, 5]])) == 1
    assert len(set(units)) == 3


def test_quotas_sum_to_the_counts():
    counts = np.array([1803, 821])
    quotas = class_quotas(counts, (0.15, 0.25))
    assert quotas.sum(axis=0).tolist() == counts.tolist()
    assert quotas.sum(axis=1).tolist() == [1574, 394, 656]
    dealt = deal_units(np.arange(2624), np.repeat([0, 1], counts), quotas, seed=1)
    assert np.bincount(dealt).tolist() == [1574, 394, 656]


def test_seeds_differ_and_the_folder_order_does_not_matter(tmp_path):
    data = dataset_of([0, 1] * 50)
    assert not np.array_equal(split(data, seed=0).indices["test"], split(data).indices["test"] + 1)
    assert not np.array_equal(split(data, seed=1).indices["test"], split(data).indices["test"])
    one, two = tmp_path / "one", tmp_path / "two"
    rng = np.random.default_rng(0)
    for name in [f"{name}/{i}.png" for name in "ab" for i in range(8)]:
        (one / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(one / name)
    for path in sorted(one.rglob("*.png"), reverse=True):
        (two / path.relative_to(one)).parent.mkdir(parents=True, exist_ok=True)
        (two / path.relative_to(one)).write_bytes(path.read_bytes())
    assert split(from_directory(one)).test.files == split(from_directory(two)).test.files


def test_splits_that_cannot_be(tmp_path):
    data = dataset_of([0] * 20 + [1] * 20)
    with pytest.raises(ValueError, match="no groups"):
        split(data, strategy="grouped")
    with pytest.raises(ValueError, match="strategy must be"):
        split(data, strategy="random")
    for bad in ({"test_fraction": 0}, {"test_fraction": 0.9}, {"validation_fraction": -0.1}):
        with pytest.raises(ValueError, match="test_fraction must be positive"):
            split(data, **bad)
    with pytest.raises(ValueError, match="train part would have no picture of c1"):
        split(dataset_of([0] * 20 + [1]))
    with pytest.raises(ValueError, match="cannot be split"):
        split(dataset_of([0, 0, 0, 1, 1, 1], duplicates=((0, 1, 2), (3, 4, 5))))


def test_no_validation_part():
    splits = split(dataset_of([0, 1] * 10), validation_fraction=0)
    assert len(splits.validation) == 0
    assert len(splits.train) == 15


def test_given_parts_win_and_what_they_lack_is_dealt_from_training(caplog):
    parts = ("train",) * 60 + ("test",) * 40
    data = dataset_of([0, 1] * 50, parts=parts, duplicates=((3, 80), (4, 5)))
    splits = split(data, seed=3)
    assert splits.indices["test"].tolist() == list(range(60, 100))
    assert len(splits.validation) == 15  # 0.15 of all
    assert splits.straddling == ((3, 80),)
    assert "straddle" in caplog.text
    held = [name for name, rows in splits.indices.items() if 4 in rows or 5 in rows]
    assert len(held) == 1
    only_train = split(dataset_of([0, 1] * 50, parts=("train",) * 100))
    assert [len(rows) for rows in only_train.indices.values()] == [60, 15, 25]


def test_groups_of_given_parts_are_kept_where_there_is_a_choice(caplog):
    parts, groups = ("train",) * 60 + ("test",) * 40, np.arange(100) // 5
    data = dataset_of([0, 1] * 50, parts=parts, groups=groups)
    splits = split(data, seed=3, strategy="grouped")
    assert (splits.strategy, splits.keeps_groups) == ("given-grouped", True)
    assert "straddle" not in caplog.text
    rows = [set(groups[splits.indices[name]].tolist()) for name in splits.indices]
    assert len(set.union(*rows)) == sum(map(len, rows)) == 20
    np.testing.assert_array_equal(splits.groups_of(splits.test), groups[60:])
    torn = split(dataclasses.replace(data, groups=(np.arange(100) + 2) // 5), strategy="grouped")
    assert "1 of the groups straddle the given parts" in caplog.text
    assert torn.indices["test"].tolist() == list(range(60, 100))
    plain = split(data, seed=3)
    assert (plain.strategy, plain.groups_of(plain.test)) == ("given", None)
