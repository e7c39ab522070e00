"""Whether one run is better than another, on the same pictures or splits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from safelight.metrics import Interval, mean_intervals
from safelight.report.reading import Reading, dig, interval_or_nan
from safelight.transfer.run_comparison import compare_runs

_NUM_RESAMPLES = 2000
_MUST_AGREE = ("likelihood", "binarization", "conditional", "image_size")


@dataclass(frozen=True)
class Paired:
    """What separates two runs.

    Attributes:
        difference: Of each number, the first run's minus the second's.
        on: What they were compared on.
        method: Of the intervals.
    """

    difference: Mapping[str, Interval]
    on: str
    method: str


def compare(a: Reading, b: Reading) -> Paired:
    """The paired difference of two runs of one kind, `a` minus `b`.

    Args:
        a: A finished run.
        b: Another of the same kind.

    Raises:
        ValueError: They have nothing in common to be compared on; the message says why.
    """
    if a.kind == "transfer":
        found = compare_runs(a.run, b.run)
        differences = {name: interval_or_nan(x) for name, x in found["difference"].items()}
        return Paired(differences, found["on"], found["method"])
    return _compare_likelihoods(a, b)


def _compare_likelihoods(a: Reading, b: Reading) -> Paired:
    """Log p(x) picture by picture: both models say how probable they find the same pixels."""
    _refuse_others(a, b)
    columns = [_likelihoods(each) for each in (a, b)]
    files = sorted(columns[0])
    if files != sorted(columns[1]):
        raise ValueError(
            "log p(x) was estimated for different test pictures: expected both with the same "
            "--seed and --test-fraction."
        )
    difference = [columns[0][file] - columns[1][file] for file in files]
    found = mean_intervals({"log_likelihood": difference}, num_resamples=_NUM_RESAMPLES)
    return Paired(found, f"{len(files):,} test pictures", "BCa bootstrap over pictures")


def _refuse_others(a: Reading, b: Reading) -> None:
    if dig(a.config, "dataset", "fingerprint") != dig(b.config, "dataset", "fingerprint"):
        raise ValueError(
            f"{a.name} is about {a.dataset}, {b.name} about {b.dataset} with other pictures: "
            "expected two trainings on the same data."
        )
    drawn = a.settings.get("binarization") != "none"
    for name in (*_MUST_AGREE, *(("seed",) if drawn else ())):
        first, second = (each.settings.get(name) for each in (a, b))
        if first != second:
            raise ValueError(
                f"{name} is {first} and {second}, so they say how probable different pixels are: "
                f"expected the same --{name.replace('_', '-')}."
            )


def _likelihoods(reading: Reading) -> dict[str, float]:
    table = reading.predictions
    if not table.get("log_likelihood") or not table.get("file"):
        raise ValueError(
            f"{reading.name} keeps no log p(x) of single pictures; safelight vae train of this "
            "version writes them to predictions.csv."
        )
    values = [float(x) if x else math.nan for x in table["log_likelihood"]]
    if not np.isfinite(values).all():
        raise ValueError(f"predictions.csv of {reading.name} holds something else than numbers.")
    return dict(zip(table["file"], values, strict=True))
