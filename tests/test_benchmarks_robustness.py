"""The judge of the kill benchmark sees what is damaged and what differs, and nothing else."""

import json
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def judge(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import robustness_kill

    return robustness_kill


def write(place, *, accuracy=0.5, created="2026-01-01T00:00:00", weight=1.0):
    run = place / "run"
    run.mkdir(parents=True)
    (run / "metrics.json").write_text(json.dumps({"accuracy": accuracy, "seconds": {"total": 1}}))
    (run / "config.json").write_text(json.dumps({"created": created, "seed": 0}))
    (run / "predictions.csv").write_text("file,p\na.png,0.5\n")
    (run / "report.html").write_text(f"<html>made {created[:10]} {created[11:]}</html>\n")
    np.savez(run / "familiarity.npz", rows=np.full(4, weight))
    return place


def test_times_are_no_difference_and_one_bit_is(tmp_path, judge):
    first = judge.outcome(write(tmp_path / "a"))
    assert len(first) == 5
    assert judge.outcome(write(tmp_path / "b", created="2027-02-03T04:05:06")) == first
    for name, change in (
        ("run/metrics.json", {"accuracy": np.nextafter(0.5, 1)}),
        ("run/familiarity.npz", {"weight": np.nextafter(1, 2)}),
    ):
        other = judge.outcome(write(tmp_path / name.replace("/", "-"), **change))
        assert [key for key in first if first[key] != other[key]] == [name]


@pytest.mark.parametrize(
    "name", ["metrics.json", "predictions.csv", "report.html", "familiarity.npz"]
)
def test_half_a_file_is_damage_unless_its_name_is_hidden(tmp_path, judge, name):
    run = write(tmp_path / "place") / "run"
    assert judge.damage(tmp_path / "place") == []
    half = (run / name).read_bytes()[:-8]
    (run / f".{name}.partial").write_bytes(half)
    assert judge.damage(tmp_path / "place") == []
    assert judge.leftovers(tmp_path / "place") == [f"run/.{name}.partial"]
    (run / name).write_bytes(half)
    assert len(judge.damage(tmp_path / "place")) == 1
