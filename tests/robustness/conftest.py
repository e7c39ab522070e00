"""What a kill would leave at every moment, a disk that is full, and a user without rights."""

import contextlib
import csv
import errno
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# --- moments

_CHANGES = {
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.truncate",
}
_watching = []


def _look(event, arguments):
    """Python tells of every call that changes a disk, before it does; hooks stay for good."""
    if _watching and (event in _CHANGES or (event == "open" and _writes(arguments[2]))):
        watchers = list(_watching)
        _watching.clear()  # what looking itself does is no moment
        try:
            for watcher in watchers:
                watcher.look(event)
        finally:
            _watching.extend(watchers)


def _writes(flags):
    return isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)


sys.addaudithook(_look)


class _Watcher:
    def __enter__(self):
        _watching.append(self)
        return self

    def __exit__(self, *_):
        _watching.remove(self)


class Moments(_Watcher):
    """All states of a folder between two changes of the disk: what `kill -9` can leave of it.

    What is in Python's buffers at such a moment is not on the disk, and so not in the state.
    """

    def __init__(self, root):
        self.root, self.states = root, []

    def __exit__(self, *_):
        super().__exit__()
        self.look("end")

    def look(self, _):
        state = read_tree(self.root)
        if not self.states or state != self.states[-1]:
            self.states.append(state)


class FullDisk(_Watcher):
    """From the given change on a disk takes no new file or folder; that call fails in any case.

    Attributes:
        num_failed: Calls that it refused.
    """

    def __init__(self, number):
        self._before, self.num_failed = number, 0

    def look(self, event):
        if event in ("os.remove", "os.rmdir"):
            return
        self._before -= 1
        if self._before == -1 or (self._before < 0 and event != "os.rename"):
            self.num_failed += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read_tree(root):
    """Every file's bytes, and `None` for folders, by name."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        found[name] = path.read_bytes() if path.is_file() else None
    return found


def write_tree(state, root):
    """A folder as it was at a moment."""
    root.mkdir(parents=True)
    for name, data in state.items():
        if data is None:
            (root / name).mkdir(parents=True, exist_ok=True)
        else:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
    return root


@pytest.fixture(scope="session")
def moments():
    return Moments


@pytest.fixture
def at(tmp_path):
    """Puts a state on the disk, each time in a folder of its own."""
    made = []

    def put(state):
        made.append(write_tree(state, tmp_path / "moments" / str(len(made))))
        return made[-1]

    return put


@pytest.fixture
def full_disk():
    return FullDisk


@pytest.fixture(autouse=True)
def _no_flushing(monkeypatch):
    """What is on the disk when a power failure comes cannot be tested here, and takes its time."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


# --- what is whole


def _check_table(path):
    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n")
    assert len({len(row) for row in csv.reader(text.splitlines())}) == 1


def _check_arrays(path):
    with contextlib.closing(np.load(path, allow_pickle=False)) as found:
        assert all(found[name] is not None for name in found.files)


def _check_archive(path):
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert "model.weights.h5" in archive.namelist()


def _check_picture(path):
    with Image.open(path) as picture:
        picture.load()


_CHECKS = {
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
    ".csv": _check_table,
    ".npz": _check_arrays,
    ".npy": lambda path: np.load(path, allow_pickle=False),
    ".keras": _check_archive,
    ".png": _check_picture,
    ".gif": _check_picture,
    ".html": lambda path: _check_end(path, "</html>"),
    ".md": lambda path: _check_end(path, "\n"),
}


def _check_end(path, end):
    assert path.read_text(encoding="utf-8").rstrip(" \n").endswith(end.strip())


def _check_whole(folder):
    """No file under its final name is half written; hidden ones have no final name yet."""
    number = 0
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(part.startswith(".") for part in parts):
            _CHECKS[path.suffix](path)
            number += 1
    return number


@pytest.fixture
def check_whole():
    return _check_whole


# --- users and disks


@contextlib.contextmanager
def _as_nobody():
    """Without root's right to write everywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def as_nobody():
    if os.name != "posix":
        pytest.skip("needs POSIX users")
    return _as_nobody


@pytest.fixture
def open_folder(tmp_path_factory):
    """A folder that other users reach, which those of pytest are not."""
    with tempfile.TemporaryDirectory(prefix="safelight-shared-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture
def small_disk(tmp_path):
    """A disk of half a megabyte, where one may be mounted."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)]
    try:
        made = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        made = False
    if not made:
        pytest.skip("a small disk can be mounted by root alone")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], capture_output=True, check=True)


# --- something to train


@pytest.fixture(scope="session")
def pictures():
    from safelight import datasets

    return datasets.make_shapes(40, image_size=16, num_classes=2)


@pytest.fixture
def tiny(monkeypatch):
    """A pretrained network of three convolutions, and TensorFlow without graphs: no time at all."""
    import keras
    import tensorflow as tf

    from safelight.transfer import backbones

    def build(*_, **__):
        keras.utils.set_random_seed(0)
        images = keras.Input((None, None, 3), dtype="uint8", name="images")
        x = backbones.ImageResizing(16, 16, name="resizing")(images)
        x = backbones.ImageNetPreprocessing("tf", name="preprocessing")(x)
        for name in ("block1", "block2", "block3"):
            x = keras.layers.Conv2D(6, 3, activation="relu", padding="same", name=name)(x)
        return keras.Model(images, x, name="tiny")

    monkeypatch.setattr(backbones, "load_backbone", build)
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
