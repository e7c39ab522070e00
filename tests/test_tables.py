"""A table in parts is, joined, the table that would have been written at once."""

import csv

import numpy as np
import pytest

from safelight import tables
from safelight.tables import defuse, defuse_name, find_format, join_parts, write_part

NAMES = ("file", "prediction", "p(a)", "refused")
FORMATS = ["csv", "parquet"]


def columns(start: int, stop: int) -> dict:
    numbers = np.arange(start, stop)
    return {
        "file": [f"{n}\n\udcff.png" for n in numbers],
        "prediction": [None if n % 3 == 0 else "ü" for n in numbers],
        "p(a)": numbers / 7,
        "refused": numbers % 3 == 0,
    }


@pytest.mark.parametrize("kind", FORMATS)
def test_parts_joined_are_the_whole(tmp_path, monkeypatch, kind):
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    monkeypatch.setattr(tables, "_GROUP_ROWS", 5)
    bounds = [0, 4, 4, 9, 10]
    parts = [tmp_path / f"part-{i}.{kind}" for i in range(4)]
    for part, start, stop in zip(parts, bounds, bounds[1:], strict=False):
        write_part(part, columns(start, stop))
    join_parts(parts, tmp_path / f"whole.{kind}", NAMES)
    write_part(tmp_path / f"once.{kind}", columns(0, 10))
    join_parts([tmp_path / f"once.{kind}"], tmp_path / f"one.{kind}", NAMES)
    found, expected = (read(tmp_path / f"{name}.{kind}") for name in ("whole", "one"))
    assert found == expected
    assert [row[0] for row in found[1:]] == [f"{n}\n\\udcff.png" for n in range(10)]
    assert found[0] == list(NAMES)


def read(path) -> list:
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.reader(file))
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path).to_pydict()
    return [list(table), *map(list, zip(*table.values(), strict=True))]


def test_what_a_cell_says(tmp_path):
    write_part(tmp_path / "a.csv", columns(0, 2))
    assert read(tmp_path / "a.csv") == [
        ["0\n\\udcff.png", "", "0.0", "true"],
        ["1\n\\udcff.png", "ü", "0.142857", "false"],
    ]


def test_numbers_of_a_parquet_table_lose_nothing(tmp_path):
    pytest.importorskip("pyarrow")
    write_part(tmp_path / "a.parquet", columns(0, 5))
    rows = read(tmp_path / "a.parquet")[1:]
    assert [row[2:] for row in rows] == [[n / 7, n % 3 == 0] for n in range(5)]
    assert [row[1] for row in rows] == [None, "ü", "ü", None, "ü"]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_is_a_formula(tmp_path, start):
    text = f"{start}1+1"
    write_part(tmp_path / "a.csv", {"file": [defuse_name(text)], "prediction": [text]})
    assert read(tmp_path / "a.csv") == [[f"./{text}", f"'{text}"]]
    assert defuse("a=b") == defuse_name("a=b") == "a=b"


def test_a_name_tells_the_format(tmp_path):
    assert find_format(tmp_path / "a.CSV") == "csv"
    with pytest.raises(ValueError, match=r"\.csv or \.parquet"):
        find_format(tmp_path / "a.txt")


def test_parquet_without_pyarrow_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(tables.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"safelight\[scale\].*\.csv"):
        find_format(tmp_path / "a.parquet")


def test_a_join_that_fails_leaves_nothing(tmp_path):
    write_part(tmp_path / "a.csv", columns(0, 2))
    with pytest.raises(FileNotFoundError):
        join_parts([tmp_path / "a.csv", tmp_path / "b.csv"], tmp_path / "whole.csv", NAMES)
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
