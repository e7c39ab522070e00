"""The pictures that a run learned from, found again."""

import numpy as np
import pytest
from PIL import Image

from safelight import datasets
from safelight.app.training_pictures import TrainingPictures
from safelight.runs import Run


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(6):
            pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{i}.png")
    return tmp_path / "data"


@pytest.fixture
def run(folder, tmp_path):
    splits = datasets.split(datasets.from_directory(folder), seed=0, test_fraction=0.3)
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    digests = {name: [d[:16] for d in part.digests] for name, part in parts.items()}
    run = Run.create(tmp_path / "run")
    run.write_config({"kind": "transfer", "split": {"digests": digests}})
    return run, splits


def test_rows_are_the_training_part_then_the_validation_part(run, folder):
    run, splits = run
    found = TrainingPictures(run, datasets.from_directory(folder))
    assert len(found) == found.num_found == len(splits.train) + len(splits.validation)
    row = 0
    for part in (splits.train, splits.validation):
        for i, file in enumerate(part.files):
            picture = found.find(row)
            assert (picture.file, picture.label) == (file, part.class_names[part.labels[i]])
            np.testing.assert_array_equal(picture.pixels, part.read(i))
            row += 1
    with pytest.raises(IndexError):
        found.find(row)


def test_what_is_not_there_is_not_shown(run, folder):
    run, splits = run
    dataset = datasets.from_directory(folder)
    (folder / splits.train.files[0]).unlink()
    gone = TrainingPictures(run, dataset).find(0)
    assert (gone.file, gone.pixels) == (splits.train.files[0], None)
    assert TrainingPictures(run, datasets.from_directory(folder)).find(0).file == ""
    nothing = TrainingPictures(run)
    assert (nothing.num_found, nothing.find(1).file) == (0, "")
