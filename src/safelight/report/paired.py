"""Whether one run is better than another, on the same pictures or splits, or by both intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from safelight.comparison import independent_difference
from safelight.metrics import Interval, mean_intervals
from safelight.report.reading import Reading, dig, interval_or_nan
from safelight.transfer.run_comparison import compare_runs

_NUM_RESAMPLES = 2000
_DRAWN = ("frechet", "kernel", "precision", "recall", "coverage", "copies")
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
    """What separates two runs of one kind, `a` minus `b`; paired where both answer one by one.

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
    if a.kind == "gan":
        return _compare_drawn(a, b)
    return _compare_likelihoods(a, b)


def _compare_drawn(a: Reading, b: Reading) -> Paired:
    """What two generators draw, held against the same real pictures by the same features.

    A judge of digits is trained on the training part of each run: it is the same only where that
    part, the size of the pictures and the backend are.
    """
    for each in (a, b):
        if each.interval("score", "frechet") is None:
            raise ValueError(f"what {each.name} draws was not judged: train it to the end.")
    _refuse_other_pictures(a, b)
    for what, keys in {
        "pictures in each part": ("split", "digests"),
        "size": ("image_shape",),
    }.items():
        if dig(a.config, *keys) != dig(b.config, *keys):
            raise ValueError(
                f"{a.name} and {b.name} differ in the {what}, so they were judged on other "
                "pictures or by another classifier: expected the same --seed, --test-fraction and "
                "--image-size."
            )
    if a.environment.get("backend") != b.environment.get("backend"):
        raise ValueError(
            f"{a.name} was judged on {a.environment.get('backend')}, {b.name} on "
            f"{b.environment.get('backend')}: `safelight compare` judges both by one classifier."
        )
    features = [dig(each.metrics, "protocol", "features") for each in (a, b)]
    counts = [dig(each.metrics, "score", "num_real") for each in (a, b)]
    if features[0] != features[1] or counts[0] != counts[1]:
        raise ValueError(
            f"{a.name} was judged by {features[0]} on {counts[0]} pictures, {b.name} by "
            f"{features[1]} on {counts[1]}: expected the same; `safelight compare` judges "
            "both anew."
        )
    scores = [{key: each.interval("score", key) for key in _DRAWN} for each in (a, b)]
    difference = {
        key: independent_difference(first, second)
        for key in _DRAWN
        if (first := scores[0][key]) is not None and (second := scores[1][key]) is not None
    }
    return Paired(
        difference,
        f"{counts[0]:,} test pictures" if isinstance(counts[0], int) else "the test pictures",
        "both runs' intervals joined as those of independent numbers (Zou & Donner 2008)",
    )


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


def _refuse_other_pictures(a: Reading, b: Reading) -> None:
    if dig(a.config, "dataset", "fingerprint") != dig(b.config, "dataset", "fingerprint"):
        raise ValueError(
            f"{a.name} is about {a.dataset}, {b.name} about {b.dataset} with other pictures: "
            "expected two trainings on the same data."
        )


def _refuse_others(a: Reading, b: Reading) -> None:
    _refuse_other_pictures(a, b)
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
