"""Which pictures a run has seen."""

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
    made.write_config({"kind": "vae", "split": {"digests": known_pictures.describe_parts(splits)}})
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
