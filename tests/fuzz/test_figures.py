"""The table of docs/security.md is that of the latest result, which has tried every reader."""

import importlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"


@pytest.fixture
def result():
    found = sorted(RESULTS.glob("security_fuzz__*.json"))
    assert found
    return json.loads(found[-1].read_text(encoding="utf-8"))


def test_the_figures_are_those_of_the_result(result):
    report = importlib.import_module("security.report")
    page = report.PAGE.read_text(encoding="utf-8")
    assert report.BEGIN in page
    assert report.put_in(page, result) == page


def test_every_reader_was_tried_and_the_counts_add_up(result):
    readers = importlib.import_module("security.readers")
    names = {reader.name for reader in readers.READERS}
    assert names <= set(result["readers"])
    for row in [*result["readers"].values(), {"counts": result["total"]}]:
        counts = dict(row["counts"])
        assert counts.pop("tried") == sum(counts.values()) > 0
