import gzip
import hashlib
import io
import os
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from safelight import datasets, duplicates
from safelight.datasets import ImageDataset, from_directory, load, make_shapes, split
from safelight.duplicates import find_duplicates, hash_picture
from safelight.images import ImageError, read_image


def picture(seed, size=48):
    """Blobs at random places: pictures of different seeds are far from alike."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


def folder_of(root, **sizes):
    """Write `sizes[name]` different pictures into root/name, for each name."""
    for number, (name, size) in enumerate(sizes.items()):
        place = root.joinpath(*name.split("__"))
        place.mkdir(parents=True)
        for i in range(size):
            picture(1000 * number + i).save(place / f"{i:03}.png")
    return root


# Folders


def test_a_class_per_folder(tmp_path):
    data = from_directory(folder_of(tmp_path, dog=5, cat=4, cat__young=2))
    assert data.class_names == ("cat", "dog")
    assert Counter(data.labels.tolist()) == {0: 6, 1: 5}
    assert data.files[:2] == ("cat/000.png", "cat/001.png")
    assert list(data.files) == sorted(data.files)
    assert data.parts is None
    for i in (0, 5, 10):
        path = tmp_path / data.files[i]
        assert np.array_equal(data.read(i), read_image(path))
        assert data.read(i, mode="L").shape == (48, 48, 1)
        assert data.digests[i] == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("middle", ["val", "valid", "validation"])
def test_parts_with_class_folders(tmp_path, middle):
    sizes = {"train__a": 4, "train__b": 5, f"{middle}__a": 2, f"{middle}__b": 2, "Test__a": 3}
    data = from_directory(folder_of(tmp_path, **sizes, Test__b=1))
    assert data.class_names == ("a", "b")
    assert Counter(data.parts) == {"train": 9, "validation": 4, "test": 4}
    splits = split(data)
    assert splits.strategy == "given"
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (9, 4, 4)
    assert set(splits.test.parts) == {"test"}


def test_groups_of_a_folder_are_never_torn(tmp_path):
    """Patients have pictures in both classes; their names tell them, and so does a table."""
    rng = np.random.default_rng(0)
    for number in range(60):
        path = tmp_path / "data" / "ab"[number % 2] / f"p{number // 6:02d}_{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    data = from_directory(tmp_path / "data", groups=r"/(p\d+)_")
    assert data.grouped_by == r"/(p\d+)_"
    assert data.groups.max() == 9
    for seed in range(3):
        splits = split(data, seed=seed, strategy="grouped")
        seen = [
            set(part.groups.tolist()) for part in (splits.train, splits.validation, splits.test)
        ]
        assert sum(map(len, seen)) == len(set.union(*seen)) == 10
    table = tmp_path / "groups.csv"
    lines = [f"{file},{file[2:5]}" for file in data.files]
    table.write_text("\n".join(["file,group", *lines]))
    told = from_directory(tmp_path / "data", groups=table)
    np.testing.assert_array_equal(told.groups, data.groups)
    assert told.grouped_by == "groups.csv"  # where it lies is nobody's business
    assert from_directory(tmp_path / "data").groups is None


def test_what_is_not_looked_at(tmp_path):
    folder_of(tmp_path, a=4, b=4)
    folder_of(tmp_path / "a" / ".hidden", x=2)
    folder_of(tmp_path / "__MACOSX", x=2)
    (tmp_path / "a" / "._000.png").write_bytes(b"x")
    (tmp_path / "a" / "notes.txt").write_text("x")
    (tmp_path / "README.md").write_text("x")
    data = from_directory(tmp_path, strict=True)
    assert len(data) == 8
    assert data.problems == ()


def test_bad_files_are_named_and_left_out(tmp_path, caplog):
    folder_of(tmp_path, a=4, b=4)
    jpeg = io.BytesIO()
    picture(5, 200).save(jpeg, "JPEG")
    bad = {
        "a/cut.jpg": (jpeg.getvalue()[:-900], "truncated"),
        "a/empty.png": (b"", "empty file"),
        "b/film.mp4": (b"\0\0\0\x18ftypmp42" + bytes(99), "not a picture"),
        "b/text.png": (b"hello", "not a picture"),
    }
    for name, (content, _) in bad.items():
        (tmp_path / name).write_bytes(content)
    Image.new("RGB", (1, 1)).save(tmp_path / "a" / "dot.png")
    (tmp_path / "b" / "link.png").symlink_to("nowhere.png")
    picture(77).save(tmp_path / "b" / "no_suffix", format="PNG")
    data = from_directory(tmp_path)
    reasons = {problem.file: problem.reason for problem in data.problems}
    assert set(reasons) == {*bad, "a/dot.png", "b/link.png"}
    assert all(reason in reasons[name] for name, (_, reason) in bad.items())
    assert reasons["a/dot.png"] == "1x1 pixels: too small"
    assert reasons["b/link.png"] == "no such file"
    assert len(data) == 9
    assert "b/no_suffix" in data.files
    assert "Left out: a/cut.jpg: truncated" in caplog.text
    with pytest.raises(ValueError, match=r"6 bad files: a/cut\.jpg: truncated") as caught:
        from_directory(tmp_path, strict=True)
    assert "b/text.png" in str(caught.value)


def test_strict_lists_ten_and_counts_the_rest(tmp_path):
    folder_of(tmp_path, a=4, b=4)
    for i in range(13):
        (tmp_path / "a" / f"x{i:02}.png").write_bytes(b"?")
    with pytest.raises(ValueError, match=r"13 bad files.*x09.*; and 3 more") as caught:
        from_directory(tmp_path, strict=True)
    assert "x10" not in str(caught.value)


def test_folders_that_are_no_data_sets(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        from_directory(tmp_path / "none")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="is a file"):
        from_directory(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="is empty"):
        from_directory(tmp_path / "empty")
    with pytest.raises(ValueError, match="no readable picture"):
        from_directory(tmp_path / "empty", labels=False)
    with pytest.raises(ValueError, match=r"single class \(a\)"):
        from_directory(folder_of(tmp_path / "single", a=5))
    with pytest.raises(ValueError, match=r"'b'.* has 3 readable pictures and needs at least 4"):
        from_directory(folder_of(tmp_path / "few", a=5, b=3))
    with pytest.raises(ValueError, match=r"'b'.* has 1 readable picture and needs at least 4;"):
        from_directory(folder_of(tmp_path / "one", a=5, b=1))
    assert len(from_directory(tmp_path / "few", min_images_per_class=3)) == 8
    picture(0).save(folder_of(tmp_path / "loose", a=4, b=4) / "000.png")
    picture(0).save(tmp_path / "loose" / "001.png")
    with pytest.raises(ValueError, match=r"holds 2 pictures \(000.png, ...\) beside its class"):
        from_directory(tmp_path / "loose")
    with pytest.raises(ValueError, match="no class folders"):
        from_directory(tmp_path / "loose" / "a")
    with pytest.raises(ValueError, match="same part twice"):
        from_directory(folder_of(tmp_path / "twice", train__a=4, val__a=4, valid__a=4))
    with pytest.raises(ValueError, match=r"'b'.* no picture in the train folder"):
        from_directory(folder_of(tmp_path / "untrained", train__a=4, test__b=4))


def test_pictures_without_labels(tmp_path):
    folder_of(tmp_path, a=2, b__c=1)
    picture(9).save(tmp_path / "loose.png")
    data = from_directory(tmp_path, labels=False)
    assert data.class_names == ()
    assert data.num_classes == 0
    assert data.labels.tolist() == [0, 0, 0, 0]
    splits = split(data, validation_fraction=0)
    assert len(splits.train) == 3


def test_links_in_a_circle_end(tmp_path):
    folder_of(tmp_path, a=4, b=4)
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a", target_is_directory=True)
    assert len(from_directory(tmp_path)) == 8


def test_names_that_are_not_unicode(tmp_path):
    folder_of(tmp_path, a=4, größe=4)
    with Path(tmp_path / "a" / "b\udcff.png").open("wb") as stream:
        picture(50).save(stream, format="PNG")
    data = from_directory(tmp_path)
    assert "a/b\\xff.png" in data.files
    assert "größe" in data.class_names
    assert data.read(data.files.index("a/b\\xff.png")).shape == (48, 48, 3)


def test_a_file_that_goes_bad_is_named_by_its_short_name(tmp_path):
    data = from_directory(folder_of(tmp_path, a=4, b=4))
    (tmp_path / "a" / "001.png").unlink()
    with pytest.raises(ImageError, match=r"^a/001\.png: no such file$"):
        data.read(1)


# Identity


def test_one_byte_changes_the_digest_and_a_label_the_fingerprint(tmp_path):
    before = from_directory(folder_of(tmp_path, a=4, b=4))
    again = from_directory(tmp_path)
    assert before.fingerprint == again.fingerprint
    path = tmp_path / "a" / "002.png"
    path.write_bytes(path.read_bytes() + b"\0")  # after the end of the picture: same pixels
    after = from_directory(tmp_path)
    changed = [a != b for a, b in zip(before.digests, after.digests, strict=True)]
    assert changed == [False, False, True] + [False] * 5
    assert before.fingerprint != after.fingerprint
    path.rename(tmp_path / "b" / "a_name_that_sorts_last.png")
    assert from_directory(tmp_path, min_images_per_class=3).fingerprint != after.fingerprint
    images = np.zeros((4, 8, 8), np.uint8)
    one = ImageDataset.from_arrays(images, [0, 0, 1, 1], class_names=("a", "b"))
    two = ImageDataset.from_arrays(images, [0, 1, 1, 1], class_names=("a", "b"))
    three = ImageDataset.from_arrays(images, [0, 0, 1, 1], class_names=("a", "c"))
    assert len({one.fingerprint, two.fingerprint, three.fingerprint}) == 3


def test_arrays(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (6, 9, 7), dtype=np.uint8)
    data = ImageDataset.from_arrays(grey, [0, 1] * 3, class_names=("a", "b"))
    assert np.array_equal(data.read(4, mode="L")[..., 0], grey[4])
    assert np.array_equal(data.read(4), np.repeat(grey[4][..., None], 3, axis=-1))
    copy = pickle.loads(pickle.dumps(data.subset([4, 1])))
    assert np.array_equal(copy.read(0, mode="L")[..., 0], grey[4])
    colour = np.random.default_rng(0).integers(0, 256, (2, 9, 7, 3), dtype=np.uint8)
    Image.fromarray(colour[1]).save(tmp_path / "a.png")
    data = ImageDataset.from_arrays(colour, [0, 1], class_names=("a", "b"))
    assert np.array_equal(data.read(1, mode="L"), read_image(tmp_path / "a.png", mode="L"))
    data.read(1)[:] = 0
    assert np.array_equal(data.read(1), colour[1])
    with pytest.raises(ValueError, match="uint8"):
        ImageDataset.from_arrays(grey / 255, [0] * 6, class_names=("a", "b"))
    with pytest.raises(ValueError, match="labels must lie in"):
        ImageDataset.from_arrays(grey, [2] * 6, class_names=("a", "b"))
    with pytest.raises(ValueError, match="shape"):
        ImageDataset.from_arrays(grey, [0] * 5, class_names=("a", "b"))


# Duplicates


def test_copies_are_found_and_look_alikes_are_not(tmp_path):
    folder_of(tmp_path, a=12, b=12)
    original = picture(3)  # is a/003.png
    original.save(tmp_path / "b" / "copy.png")
    original.save(tmp_path / "b" / "jpeg.jpg", quality=75)
    original.resize((120, 90)).save(tmp_path / "b" / "resized.png")
    ImageEnhance.Brightness(original).enhance(1.05).save(tmp_path / "a" / "brighter.png")
    data = from_directory(tmp_path)
    named = [{data.files[i] for i in cluster} for cluster in data.duplicates]
    copies = {"b/copy.png", "b/jpeg.jpg", "b/resized.png", "a/brighter.png"}
    assert named == [{"a/003.png", *copies}]
    assert data.conflicting_duplicates == data.duplicates
    for seed in range(5):
        splits = split(data, seed=seed)
        held = [i for i in splits.indices if {"a/003.png"} & set(getattr(splits, i).files)]
        assert copies <= set(getattr(splits, held[0]).files)


def test_colour_alone_tells_pictures_apart_and_flat_ones_have_no_shape():
    y, x = np.mgrid[:32, :32]
    disc = (np.hypot(y - 16, x - 16) < 9)[..., None]
    red, blue = (np.where(disc, colour, 255) for colour in ([220, 30, 30], [30, 30, 220]))
    flat = [np.full((32, 32, 3), grey) for grey in (10, 60, 200)]
    images = np.stack([red, blue, *flat, red]).astype(np.uint8)
    data = ImageDataset.from_arrays(images, [0] * 6, class_names=("a", "b"))
    assert data.duplicates == ((0, 5),)


def test_duplicates_agree_with_brute_force():
    rng = np.random.default_rng(0)
    images = [np.asarray(picture(i // 2 if rng.random() < 0.3 else i, 32)) for i in range(60)]
    digests = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
    clusters = find_duplicates(digests, [None] * 60, lambda i: images[i])
    same = {frozenset(i for i in range(60) if digests[i] == d) for d in digests}
    assert {frozenset(c) for c in clusters} == {s for s in same if len(s) > 1}


def test_very_many_copies_are_found_in_bounded_memory(monkeypatch):
    """Pairs that are held are thinned out now and then, and join the same pictures."""
    shades = np.linspace(0, 40, 7).astype(np.uint8)
    images = [np.asarray(picture(i % 3, 32), np.uint8) // 2 + shades[i % 7] for i in range(42)]
    digests = [str(i) for i in range(42)]
    hashes = [hash_picture(image) for image in images]
    whole = find_duplicates(digests, hashes, lambda i: images[i])
    monkeypatch.setattr(duplicates, "_MOST_HELD", 10)
    monkeypatch.setattr(duplicates, "_BLOCK", 5)
    assert find_duplicates(digests, hashes, lambda i: images[i]) == whole
    assert max(map(len, whole)) > 10


# Known data sets


def test_unknown_names_and_arguments():
    with pytest.raises(ValueError, match="one of elpv, mnist, fashion-mnist"):
        load("imagenet")
    with pytest.raises(ValueError, match="must be 'all'"):
        load("elpv", part="train")
    with pytest.raises(ValueError, match="part must be"):
        load("mnist", part="validation")


@pytest.fixture
def elpv(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    lines = []
    for i in range(125):
        picture(i).convert("L").save(tmp_path / "images" / f"cell{i + 1:04}.png")
        kind = "mono" if i % 2 else "poly"
        lines.append(f"images/cell{i + 1:04}.png  {i % 4 / 3}                 {kind}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(datasets.assets, "fetch", lambda name: tmp_path)


def test_elpv(elpv):
    data = load("elpv")
    assert data.class_names == ("functional", "defective")
    assert data.labels[:5].tolist() == [0, 0, 1, 1, 0]
    assert load("elpv", threshold=0).labels[:5].tolist() == [0, 1, 1, 1, 0]
    assert np.allclose(data.targets[:2], [[1, 0], [2 / 3, 1 / 3]])
    assert np.bincount(data.groups).tolist() == [60, 60, 5]
    assert data.types[:2] == ("poly", "mono")
    assert data.read(124).shape == (48, 48, 3)
    with pytest.raises(ValueError, match="threshold"):
        load("elpv", threshold=1.5)


def idx(array):
    header = bytes([0, 0, 8, array.ndim])
    return header + np.array(array.shape, ">u4").tobytes() + array.tobytes()


@pytest.mark.parametrize(("name", "third"), [("mnist", "3"), ("fashion-mnist", "Dress")])
def test_mnist_and_what_is_like_it(tmp_path, monkeypatch, name, third):
    rng = np.random.default_rng(0)
    digits = {"train": 30, "t10k": 20}
    images = {k: rng.integers(0, 256, (n, 28, 28), dtype=np.uint8) for k, n in digits.items()}
    for part, size in digits.items():
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(idx(images[part]))
        labels = np.arange(size, dtype=np.uint8) % 10
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    monkeypatch.setattr(datasets.assets, "fetch", {name: tmp_path}.__getitem__)
    data = load(name)
    assert data.name == name
    assert data.class_names[3] == third
    assert Counter(data.parts) == {"train": 30, "test": 20}
    assert np.array_equal(data.read(33, mode="L")[..., 0], images["t10k"][3])
    assert data.labels[33] == 3
    test = load(name, part="test")
    assert set(test.parts) == {"test"}
    assert len(test) == 20
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(images["train"])[:-1])
    with pytest.raises(ValueError, match="not an IDX file"):
        load(name)


def test_files_of_mnist_may_be_gzipped_as_they_come(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (30, 28, 28), dtype=np.uint8)
    pictures = tmp_path / "t10k-images-idx3-ubyte.gz"
    pictures.write_bytes(gzip.compress(idx(images)))
    labels = np.arange(30, dtype=np.uint8) % 10
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    monkeypatch.setattr(datasets.assets, "fetch", {"fashion-mnist": tmp_path}.__getitem__)
    data = load("fashion-mnist", part="test")
    assert np.array_equal(data.read(29, mode="L")[..., 0], images[29])
    assert data.class_names[data.labels[29]] == "Ankle boot"
    whole = pictures.read_bytes()
    for content in (whole[:-20], b"no gzip" + whole, whole[:10] + b"\x07" + whole[11:]):
        pictures.write_bytes(content)
        with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte\.gz is no whole gzip file"):
            load("fashion-mnist", part="test")


@pytest.mark.assets
@pytest.mark.slow
def test_the_real_elpv_has_no_duplicates_and_the_known_counts():
    data = load("elpv")
    assert len(data) == 2624
    assert np.bincount(data.labels).tolist() == [1803, 821]
    assert Counter(data.targets[:, 1].round(2).tolist()).most_common(1)[0][1] == 1508
    splits = split(data)
    assert (len(splits.train) + len(splits.validation), len(splits.test)) == (1968, 656)
    scan = from_directory(datasets.assets.fetch("elpv"), labels=False)
    assert scan.duplicates == data.duplicates


def test_shapes_are_seeded_and_balanced():
    data = make_shapes(50, image_size=24, num_classes=4, seed=3)
    assert data.class_names == ("circle", "square", "triangle", "cross")
    assert np.bincount(data.labels).tolist() == [13, 13, 12, 12]
    assert data.read(0).shape == (24, 24, 3)
    assert data.duplicates == ()
    assert data.fingerprint == make_shapes(50, image_size=24, num_classes=4, seed=3).fingerprint
    assert data.fingerprint != make_shapes(50, image_size=24, num_classes=4, seed=4).fingerprint
    for bad in ({"num_classes": 1}, {"num_classes": 9}, {"image_size": 4}):
        with pytest.raises(ValueError, match="make_shapes needs"):
            make_shapes(5, **bad)


def test_importing_loads_nothing_heavy():
    heavy = "{'keras', 'tensorflow', 'matplotlib', 'sklearn', 'scipy'}"
    code = f"import sys, safelight.datasets; print({heavy} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"


@pytest.mark.assets
@pytest.mark.parametrize("threshold", [0.0, 0.4, 0.5, 0.9])
def test_soft_labels_of_elpv_never_speak_against_the_label(threshold):
    cells = datasets.load("elpv", threshold=threshold)
    assert np.array_equal(cells.targets.argmax(1), cells.labels)
    assert np.allclose(cells.targets.sum(1), 1)
    # Stretched, not reordered: what was likelier still is.
    raw = datasets.load("elpv").targets[:, 1]
    order = np.argsort(raw, kind="stable")
    assert np.all(np.diff(cells.targets[order, 1]) >= 0)
    assert cells.targets[raw == 0, 1].max() == 0
    assert cells.targets[raw == 1, 1].min() == pytest.approx(1)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such names")
def test_a_class_whose_name_is_no_unicode_is_spelt_out(tmp_path):
    rng = np.random.default_rng(0)
    for name in (b"caf\xe9", b"tea"):
        folder = tmp_path / os.fsdecode(name)
        folder.mkdir()
        for number in range(4):
            pixels = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    dataset = from_directory(tmp_path)
    assert dataset.class_names == ("caf\\xe9", "tea")
    assert len(dataset.fingerprint) == 64
    assert dataset.labels.tolist() == [0] * 4 + [1] * 4
