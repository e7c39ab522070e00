"""A list on the disk is the list that was given, whatever the names."""

import hashlib
import io
import json
import os
import sys
from pathlib import Path

import pytest

from safelight import file_lists
from safelight.file_lists import freeze
from safelight.folders import walk

ODD = [
    "plain.png",
    "two\nlines.png",
    'quote".png',
    "tab\t.png",
    "ünï 图.png",
    "\udcff\udc80.png",
    " ",
]


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(file_lists, "BLOCK", 3)


def test_any_part_of_a_list_comes_back(tmp_path, small):
    frozen = freeze([Path(name) for name in ODD], tmp_path / "files.txt")
    assert (frozen.num_files, len(frozen.places)) == (7, 3)
    for start in (0, 3, 6):
        for number in range(5):
            assert frozen.read(start, number) == ODD[start : start + number]
    with pytest.raises(ValueError, match="multiple of 3"):
        frozen.read(1, 2)
    with pytest.raises(ValueError, match="multiple of 3"):
        frozen.read(9, 1)
    assert frozen.digest == hashlib.sha256((tmp_path / "files.txt").read_bytes()).hexdigest()


def test_a_frozen_list_is_itself_a_list(tmp_path):
    first = freeze([Path(name) for name in ODD], tmp_path / "files.txt")
    again = freeze([], tmp_path / "again.txt", listed=str(first.path))
    assert again.digest == first.digest
    assert freeze(["other.png"], tmp_path / "other.txt").digest != first.digest


def test_lines_are_names_but_for_their_ends(tmp_path, monkeypatch):
    lines = b'a.png\r\n\n"b\\nc.png"\n"half.png\n s3://x/d.png\n\xff.png\nlast'
    expected = ["a.png", "b\nc.png", '"half.png', " s3://x/d.png", "\udcff.png", "last"]
    (tmp_path / "list").write_bytes(lines)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    for listed in (str(tmp_path / "list"), "-"):
        found = freeze(["first.png"], tmp_path / "files.txt", listed=listed)
        assert found.read(0, 100) == ["first.png", *expected]


@pytest.mark.parametrize(
    ("names", "is_relative"),
    [(["/a.png"], False), (["/a.png", "s3://b/c.png"], False), (["/a.png", "b.png"], True)],
)
def test_it_is_told_whether_names_need_a_folder(tmp_path, names, is_relative):
    (tmp_path / "list").write_text("\n".join(names))
    frozen = freeze([], tmp_path / "files.txt", listed=str(tmp_path / "list"))
    assert frozen.folder == (str(Path.cwd()) if is_relative else "")


def test_a_list_that_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere.*No such file.*one a line"):
        freeze([], tmp_path / "files.txt", listed=str(tmp_path / "nowhere"))
    assert not list(tmp_path.iterdir())


def fill(root: Path) -> None:
    names = "a.png a/x.png a/b/y.png a-b/z.png a b/w.png a.d/v.png A.png ü/u.png .h/n.png a/t.txt"
    for name in [*names.split(" "), "empty/"]:
        path = root / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.touch()
    (root / "broken.png").symlink_to("nowhere")
    (root / "itself").symlink_to("itself")
    (root / "a" / "up").symlink_to("..")
    (root / "z").symlink_to("a-b")


def test_a_walk_is_in_the_order_of_whole_names_and_sees_each_folder_once(tmp_path):
    fill(tmp_path)
    found = list(walk(tmp_path))
    files = [Path(place) / name for place, _, names in os.walk(tmp_path) for name in names]
    hidden = [path for path in files if ".h" in path.parts or path.suffix == ".txt"]
    expected = sorted(set(files) - set(hidden), key=lambda path: path.as_posix())
    assert found == expected
    assert len(expected) == 10
    frozen = freeze([tmp_path], tmp_path.parent / f"{tmp_path.name}.txt")
    assert frozen.read(0, 100) == [str(path) for path in expected]
    assert json.loads(frozen.path.read_text().splitlines()[0]) == str(expected[0])


def test_a_folder_that_is_passed_over_is_not_seen_by_any_name(tmp_path):
    for name in ("in/a.png", "in/parts/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "in" / "link").symlink_to("parts")
    frozen = freeze([tmp_path / "in"], tmp_path / "f.txt", without=tmp_path / "in" / "parts")
    assert frozen.read(0, 9) == [str(tmp_path / "in" / "a.png")]
