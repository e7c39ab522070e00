"""Pictures of any size become one array."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from safelight import datasets
from safelight.datasets import ImageDataset
from safelight.generative import pictures


def draw(size, seed=0, *, grey=False):
    """Soft clouds, (height, width, 3)."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3)).astype(np.uint8))
    picture = coarse.resize(size[::-1], Image.Resampling.BICUBIC)
    return np.array(picture.convert("L").convert("RGB") if grey else picture)


def save_all(folder, sizes, *, grey=False):
    folder.mkdir(parents=True, exist_ok=True)
    for number, size in enumerate(sizes):
        Image.fromarray(draw(size, number, grey=grey)).save(folder / f"{number:03d}.png")
    return folder


def read_folder(folder):
    return datasets.from_directory(folder, labels=False)


# --- the size


@pytest.mark.parametrize(
    ("sizes", "expected", "resized"),
    [
        ([(28, 28)] * 3, (28, 28), False),
        ([(64, 40)] * 3, (64, 40), False),
        ([(300, 300)] * 3, (64, 64), True),
        ([(480, 640), (48, 64), (640, 480)], (48, 64), True),
        ([(20, 30), (20, 30), (30, 30)], (20, 30), True),
        ([(1000, 8)], (64, 8), True),
        # No two alike: the middle aspect ratio, 1.5, is nearest to all.
        ([(100, 100), (100, 150), (100, 220)], (43, 64), True),
    ],
)
def test_the_size_is_kept_or_the_commonest_aspect(sizes, expected, resized):
    size, note = pictures.choose_size(np.array(sizes))
    assert size == expected
    assert bool(note) == resized
    assert not resized or f"{expected[0]} x {expected[1]} pixels" in note


def test_the_size_does_not_depend_on_the_order():
    sizes = np.random.default_rng(0).integers(20, 900, (40, 2))
    assert pictures.choose_size(sizes) == pictures.choose_size(sizes[::-1])


@pytest.mark.parametrize("size", [(4, 20), (300, 300)])
def test_a_size_out_of_range_is_refused(size):
    with pytest.raises(ValueError, match=f"image_size={size[0]}x{size[1]}"):
        pictures.load_images(datasets.make_shapes(4), size)


def test_more_than_fits_into_memory_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(pictures, "_memory", lambda: 10_000)
    folder = save_all(tmp_path / "data", [(40, 60)] * 3)
    with pytest.raises(ValueError, match="choose a smaller image_size"):
        pictures.load_images(read_folder(folder))


# --- the pixels


def test_a_folder_of_mixed_sizes_becomes_one_array(tmp_path):
    sizes = [(96, 128), (192, 256), (48, 64), (128, 96), (30, 40)]
    folder = save_all(tmp_path / "data", sizes)
    seen = []
    loaded = pictures.load_images(read_folder(folder), progress=lambda *x: seen.append(x))
    assert loaded.image_shape == (48, 64, 3)
    assert "4 of the 5 pictures" in loaded.note
    assert seen[-1] == (5, 5)
    # With the size asked for, the same pixels wherever the aspect ratio is the common one.
    given = pictures.load_images(read_folder(folder), (48, 64))
    assert given.note == ""
    np.testing.assert_array_equal(loaded.images[[0, 1, 2, 4]], given.images[[0, 1, 2, 4]])
    np.testing.assert_array_equal(given.images[2], draw((48, 64), 2))


def test_grey_pictures_have_one_channel_and_one_coloured_picture_gives_three(tmp_path):
    folder = save_all(tmp_path / "data", [(70, 70)] * 4, grey=True)
    grey = pictures.load_images(read_folder(folder))
    assert grey.image_shape == (64, 64, 1)
    Image.fromarray(draw((70, 70))).save(folder / "x.png")
    coloured = pictures.load_images(read_folder(folder))
    assert coloured.image_shape == (64, 64, 3)
    np.testing.assert_array_equal(coloured.images[:4, ..., :1], grey.images)
    asked = pictures.load_images(read_folder(folder), channels=1)
    assert asked.image_shape == (64, 64, 1)
    np.testing.assert_array_equal(asked.images[:4], grey.images)


@pytest.mark.parametrize("channels", [None, 1, 3])
def test_arrays_in_memory_are_taken_as_they_are(channels):
    images = np.random.default_rng(0).integers(0, 256, (9, 12, 10, 1)).astype(np.uint8)
    dataset = ImageDataset.from_arrays(images, np.zeros(9, int), class_names=["a"])
    loaded = pictures.load_images(dataset.subset([3, 1]), channels=channels)
    np.testing.assert_array_equal(loaded.images, np.repeat(images[[3, 1]], channels or 1, axis=-1))
    shapes = datasets.make_shapes(5, image_size=80)
    assert pictures.load_images(shapes).image_shape == (64, 64, 3)


def test_labels_are_not_needed_whether_the_folder_is_flat_or_nested(tmp_path):
    flat = save_all(tmp_path / "flat", [(20, 24)] * 6)
    nested = save_all(tmp_path / "nested" / "2024" / "may", [(20, 24)] * 6)
    one = pictures.load_images(read_folder(flat)).images
    np.testing.assert_array_equal(one, pictures.load_images(read_folder(nested.parents[1])).images)


def test_binarisation_draws_black_and_white_with_the_grey_value_as_probability():
    images = np.broadcast_to(np.uint8([0, 51, 255])[:, None, None, None], (3, 100, 100, 1))
    drawn = pictures.binarize(images, seed=0)
    assert set(np.unique(drawn)) == {0, 255}
    # Five standard deviations of a mean of 10,000 draws.
    np.testing.assert_allclose(drawn.mean((1, 2, 3)) / 255, [0, 0.2, 1], atol=0.02)
    np.testing.assert_array_equal(drawn, pictures.binarize(images, seed=0))
    assert (drawn != pictures.binarize(images, seed=1)).any()


# --- the parts


def test_parts_are_disjoint_seeded_and_a_tenth_validates():
    dataset = datasets.make_shapes(60, image_size=12)
    splits = pictures.split(dataset, seed=3)
    assert [len(splits.indices[name]) for name in ("train", "validation", "test")] == [39, 6, 15]
    parts = pictures.load_parts(dataset, splits)
    whole = np.stack([dataset.read(i) for i in range(60)])
    for name, rows in splits.indices.items():
        np.testing.assert_array_equal(parts.images[name], whole[rows])
        np.testing.assert_array_equal(parts.labels[name], dataset.labels[rows])
    assert parts.image_shape == (12, 12, 3)
    again = pictures.split(dataset, seed=3)
    other = pictures.split(dataset, seed=4)
    np.testing.assert_array_equal(again.indices["test"], splits.indices["test"])
    assert (other.indices["test"] != splits.indices["test"]).any()


def test_copies_never_straddle_and_pictures_without_labels_have_none(tmp_path):
    folder = save_all(tmp_path / "data", [(20, 20)] * 20)
    for number in range(20):
        (folder / f"copy {number:03d}.png").write_bytes((folder / f"{number:03d}.png").read_bytes())
    dataset = read_folder(folder)
    splits = pictures.split(dataset)
    parts = pictures.load_parts(dataset, splits)
    assert (parts.labels, parts.num_classes) == (None, 0)
    digests = [set(part.digests) for part in (splits.train, splits.validation, splits.test)]
    assert sum(map(len, digests)) == len(set.union(*digests)) == 20


def test_given_parts_are_kept_and_validation_never_exceeds_5000():
    dataset = datasets.make_shapes(60, image_size=12)
    given = dataclasses.replace(dataset, parts=("train",) * 40 + ("test",) * 20)
    splits = pictures.split(given)
    np.testing.assert_array_equal(splits.indices["test"], np.arange(40, 60))
    assert len(splits.validation) == 6
    pixels = np.arange(60_000, dtype=">u4").view(np.uint8).reshape(60_000, 2, 2)
    many = ImageDataset.from_arrays(
        pixels, np.zeros(60_000, int), class_names=["a"], near_duplicates=False
    )
    assert len(pictures.split(many).validation) == 5_000


@pytest.mark.parametrize(("number", "words"), [(1, "holds 1 picture:"), (19, "19 pictures:")])
def test_too_few_pictures_are_refused_with_the_number_needed(number, words):
    with pytest.raises(ValueError, match=rf"{words}.*at least 20"):
        pictures.split(datasets.make_shapes(number, image_size=12))


@pytest.mark.slow
@pytest.mark.assets
def test_mnist_keeps_its_official_test_part():
    mnist = datasets.load("mnist")
    splits = pictures.split(mnist)
    parts = pictures.load_parts(mnist, splits)
    assert {name: images.shape for name, images in parts.images.items()} == {
        "train": (55_000, 28, 28, 1),
        "validation": (5_000, 28, 28, 1),
        "test": (10_000, 28, 28, 1),
    }
    np.testing.assert_array_equal(splits.indices["test"], np.arange(60_000, 70_000))


def test_one_class_is_kept_as_a_data_set_without_labels():
    shapes = datasets.make_shapes(30, image_size=8)
    kept = pictures.keep_class(shapes, "square")
    squares = np.array(shapes.digests)[shapes.labels == 1]
    assert set(kept.digests) == set(squares)
    assert (kept.num_classes, set(kept.labels)) == (0, {0})
    assert pictures.keep_class(shapes, None) is shapes
    with pytest.raises(ValueError, match=r"no class 'cube': .*circle, square, triangle"):
        pictures.keep_class(shapes, "cube")
    with pytest.raises(ValueError, match="without labels"):
        pictures.keep_class(kept, "square")
