"""Which pictures a run has seen."""

import dataclasses

import numpy as np
import pytest

from safelight import known_pictures
from safelight.datasets import ImageDataset, split
from safelight.runs import Run


def make(seed):
    images = np.random.default_rng(seed).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    return ImageDataset.from_arrays(images, np.arange(40) % 2, class_names=("a", "b"))


@pytest.fixture
def splits():
    return split(make(0), seed=0)


@pytest.fixture
def run(tmp_path, splits):
    made = Run.create(tmp_path / "run")
    made.write_config({"kind": "vae", "split": known_pictures.describe_split(splits)})
    return made


def test_what_is_unseen_is_told_by_contents_alone(run, splits):
    everything = make(0)
    shuffled = everything.subset(np.random.default_rng(1).permutation(len(everything)))
    unseen, left_out = known_pictures.unseen_part(run, shuffled)
    assert sorted(unseen.digests) == sorted(splits.test.digests)
    assert left_out == len(everything) - len(splits.test)
    others, none = known_pictures.unseen_part(run, make(7))
    assert (len(others), none) == (40, 0)
    with pytest.raises(ValueError, match=r"all .* pictures .* were used to train"):
        known_pictures.unseen_part(run, splits.validation)


def test_a_part_has_one_name_in_any_order(splits):
    name = known_pictures.name_part(splits.test)
    turned = splits.test.subset(np.arange(len(splits.test))[::-1])
    assert known_pictures.name_part(turned) == name
    assert known_pictures.name_part(splits.test.subset(np.arange(len(splits.test) - 1))) != name
    assert known_pictures.name_part(splits.train) != name


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"split": []},
        {"split": {"digests": {"train": "abc", "validation": []}}},
        {"split": {"digests": {"train": ["ab"], "validation": [1]}}},
    ],
)
def test_a_run_that_does_not_say_it_is_refused(tmp_path, config):
    run = Run.create(tmp_path / "run")
    run.write_config({"kind": "vae", **config})
    with pytest.raises(ValueError, match=r"does not say which pictures are its (train|validation)"):
        known_pictures.learned_digests(run)


def test_groups_are_found_again_by_contents(tmp_path):
    known, strange = np.arange(40) // 4, make(7)
    dataset = dataclasses.replace(make(0), groups=known)
    run = Run.create(tmp_path / "run")
    dealt = split(dataset, seed=0, strategy="grouped")
    run.write_config({"kind": "transfer", "split": known_pictures.describe_split(dealt)})
    assert known_pictures.keeps_groups(run)
    found = known_pictures.with_groups(run, make(0)).groups
    np.testing.assert_array_equal(found, known)
    alone = known_pictures.with_groups(run, strange).groups
    assert len(set(alone.tolist())) == 40
    assert not {*alone.tolist()} & {*known.tolist()}
    own = dataclasses.replace(strange, groups=known)
    assert known_pictures.with_groups(run, own) is own


def test_a_run_without_groups_adds_none(run):
    assert not known_pictures.keeps_groups(run)
    assert known_pictures.with_groups(run, make(0)).groups is None


@pytest.mark.parametrize("groups", [3, {}, {"train": 1}, {"train": []}, {"train": [0.5] * 24}])
def test_groups_that_are_none_are_refused(tmp_path, splits, groups):
    run = Run.create(tmp_path / "run")
    told = {**known_pictures.describe_split(splits), "groups": groups}
    run.write_config({"kind": "transfer", "split": told})
    with pytest.raises(ValueError, match="does not say which pictures belong together"):
        known_pictures.with_groups(run, make(0))


def test_a_picture_in_two_groups_makes_one_of_them(tmp_path):
    """As the split did, which kept copies together."""
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    images[20] = images[0]
    plain = ImageDataset.from_arrays(images, np.arange(40) % 2, class_names=("a", "b"))
    dataset = dataclasses.replace(plain, groups=np.arange(40) // 4)
    run = Run.create(tmp_path / "run")
    dealt = split(dataset, seed=0, strategy="grouped")
    run.write_config({"kind": "transfer", "split": known_pictures.describe_split(dealt)})
    found = known_pictures.with_groups(run, plain).groups
    joined = np.where(np.arange(40) // 4 == 5, 0, np.arange(40) // 4)
    np.testing.assert_array_equal(found[:, None] == found, joined[:, None] == joined)


def test_relatives_of_what_was_learned_and_strangers_are_counted(tmp_path):
    dataset = dataclasses.replace(make(0), groups=np.arange(40) // 4)
    run = Run.create(tmp_path / "run")
    dealt = split(dataset, seed=0, strategy="grouped")
    run.write_config({"kind": "transfer", "split": known_pictures.describe_split(dealt)})
    unseen, _ = known_pictures.unseen_part(run, dataset)
    assert known_pictures.count_related(run, dataset, unseen) == 0
    assert known_pictures.count_strangers(run, unseen) == 0
    assert known_pictures.count_strangers(run, make(7)) == 40
    # Told otherwise, by pairs that the split did not know of.
    others = dataclasses.replace(dataset, groups=np.arange(40) % 20)
    unseen, _ = known_pictures.unseen_part(run, others)
    learned = {int(g) for g in others.groups[np.isin(others.digests, unseen.digests, invert=True)]}
    expected = sum(int(g) in learned for g in unseen.groups)
    assert known_pictures.count_related(run, others, unseen) == expected > 0
