"""What `safelight check` says of pictures, on a folder with one of everything."""

import json
import re

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def call(call):
    return lambda *arguments: call("check", *arguments, early=True)


@pytest.fixture
def folder(tmp_path):
    """Series of six per class, a copy in both classes, a near-copy, and a file that is none."""
    rng = np.random.default_rng(0)
    for number in range(48):
        name = ("cat", "dog")[number // 6 % 2]
        path = tmp_path / "data" / name / f"shot_{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        soft = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8))
        soft.resize((40, 40), Image.Resampling.BICUBIC).save(path)
    data = tmp_path / "data"
    (data / "dog" / "again.png").write_bytes((data / "cat" / "shot_000.png").read_bytes())
    (data / "dog" / "broken.png").write_text("no picture")
    return data


def test_what_is_amiss_is_said(call, folder, tmp_path):
    page = tmp_path / "data.md"
    code, out, err = call(folder, "--output", page)
    assert code == 0, err
    lines = {line[:18].strip(): line[18:] for line in out.splitlines()}
    assert lines["pictures"] == "49 (cat 24, dog 25)"
    assert lines["left out"] == "1 file"
    assert "dog/broken.png" in err
    assert lines["copies"] == "1 group of the same picture, 1 of them in different classes"
    assert "a split that parts them puts near-copies on both sides" in lines["neighbours"]
    assert "--groups" in lines["neighbours"]
    assert re.fullmatch(r"\d+ train, \d+ validation, \d+ test \(stratified\)", lines["split"])
    assert lines["page"] == str(page)
    text = page.read_text()
    assert "cat/shot_000.png = dog/again.png" in text
    assert "that takes a classifier" in text


def test_groups_that_are_named_are_kept_together(call, folder, tmp_path):
    (folder / "dog" / "again.png").unlink()
    table = tmp_path / "groups.csv"
    files = sorted(path for path in folder.rglob("shot_*.png"))
    rows = [f"{path.relative_to(folder).as_posix()},{int(path.stem[5:]) // 3}" for path in files]
    table.write_text("\n".join(["file,group", *rows]))
    code, out, err = call(folder, "--groups", table, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["split"], found["dataset"]["grouped_by"]) == ("grouped", "groups.csv")
    assert found["neighbours"]["advice"] == ""
    assert "48 pictures in 16 groups" in err
    code, out, err = call(folder, "--groups", table)
    assert "(kept together)" in out
    assert "more where groups are alike" in out


@pytest.mark.parametrize("number", [16, 100, 1000])
def test_widths_are_wilsons(number):
    """By the roots of the score test's quadratic, p = 0.9."""
    from safelight.cli.check import _width

    p, z = round(0.9 * number) / number, 1.959964
    low, high = sorted(np.roots([1 + z**2 / number, -2 * p - z**2 / number, p**2]))
    assert _width(number) == pytest.approx(100 * max(p - low, high - p), rel=1e-4)


def test_groups_that_part_series_do_not_reassure(call, folder):
    code, out, _ = call(folder, "--groups", r"(\d)\.|(?:again)", "--split", "grouped")
    assert code == 0
    assert "the groups part" in out
    assert "kept together" not in out


def test_what_cannot_be_split_is_looked_at_all_the_same(call, folder, tmp_path):
    for name in ("cat", "dog"):  # one picture each, 24 times
        first, *others = sorted((folder / name).glob("shot_*.png"))
        for path in others:
            path.write_bytes(first.read_bytes())
    (folder / "dog" / "again.png").unlink()
    page = tmp_path / "page.md"
    code, out, err = call(folder, "--output", page)
    assert code == 2
    assert "as they are nothing can be trained on them" in err
    assert "2 groups of the same picture, 0 of them in different classes" in out
    assert page.exists()


def test_a_page_that_is_there_is_replaced_only_if_asked(call, folder, tmp_path):
    page = tmp_path / "notes.md"
    page.write_text("mine")
    code, _, err = call(folder, "--output", page)
    assert (code, page.read_text()) == (2, "mine")
    assert "--overwrite" in err
    assert call(folder, "--output", page, "--overwrite")[0] == 0
    assert "# The pictures of data" in page.read_text()
    code, _, err = call(folder, "--output", tmp_path / "gone" / "a.md")
    assert (code, "there is no folder" in err) == (2, True)


def test_mistakes_are_sentences(call, folder, tmp_path):
    code, _, err = call(folder, "--output", tmp_path / "page.html")
    assert (code, "ends in .md" in err) == (2, True)
    code, _, err = call(folder, "--split", "grouped")
    assert (code, "no groups" in err) == (2, True)
    code, _, err = call("mnist", "--groups", "(x)")
    assert (code, "is for a folder" in err) == (2, True)
    code, _, err = call(tmp_path / "nothing")
    assert (code, "does not exist" in err) == (2, True)
