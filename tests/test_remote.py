"""Pictures named by URL are the pictures that a path names."""

import io

import numpy as np
import pytest
from PIL import Image

from safelight import remote
from safelight.images import ImageError, decode_image, read_image
from safelight.remote import is_remote, open_remote


@pytest.mark.parametrize(
    ("name", "expected"),
    [("s3://a/b.png", True), ("file:///a.png", True), ("memory://a", True), ("a/b.png", False),
     ("C:\\a.png", False), ("C://a.png", False), ("a b://c", False), ("://a", False)],
)  # fmt: skip
def test_what_is_a_url(name, expected):
    assert is_remote(name) == expected


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 8, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.fixture
def memory():
    return pytest.importorskip("fsspec").filesystem("memory")


def test_the_same_pixels(picture, memory):
    memory.pipe("/box/a.png", picture.read_bytes())
    expected = read_image(picture)
    for url in ("memory://box/a.png", f"file://{picture}"):
        np.testing.assert_array_equal(decode_image(open_remote(url), file=url), expected)


def test_what_cannot_be_read_is_named(memory, monkeypatch):
    monkeypatch.setattr(remote, "MAX_BYTES", 10)
    memory.pipe({"/box/empty.png": b"", "/box/large.png": b"x" * 11, "/box/ten.png": b"x" * 10})
    reasons = {"empty": "empty file", "large": "too large", "nowhere": "no such file"}
    for name, reason in reasons.items():
        with pytest.raises(ImageError, match=reason):
            open_remote(f"memory://box/{name}.png")
    assert len(open_remote("memory://box/ten.png").read()) == 10
    with pytest.raises(ImageError, match="chain"):
        open_remote("filecache::memory://box/ten.png")
    with pytest.raises(ValueError, match="nonsense://"):
        open_remote("nonsense://a.png")


class Stumbling:
    """A store that fails some times before it answers."""

    def __init__(self, failures):
        self.failures = failures

    def cat_file(self, path, start, end):
        self.failures -= 1
        if self.failures >= 0:
            raise TimeoutError("slow down")
        return b"bytes"


def test_a_store_that_stumbles_is_asked_again_but_not_for_ever(monkeypatch):
    waits = []
    monkeypatch.setattr(remote.time, "sleep", waits.append)
    for failures, is_found in ((2, True), (3, False)):
        monkeypatch.setattr(remote, "_find", lambda url, n=failures: (Stumbling(n), "a"))
        if is_found:
            assert isinstance(open_remote("s3://a"), io.BytesIO)
        else:
            with pytest.raises(ImageError, match="slow down"):
                open_remote("s3://a")
    assert waits == [1.0, 2.0] * 2
