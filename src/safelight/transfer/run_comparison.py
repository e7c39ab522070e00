"""Two runs side by side: is one better, or were its pictures easier?"""

from __future__ import annotations

from typing import Any

import numpy as np

from safelight.comparison import SPLITS_METHOD, folds_method, paired_over_splits
from safelight.metrics import Interval, paired_difference
from safelight.runs import Run
from safelight.trained_runs import read_probabilities

GROUP = "group"  # the column of predictions.csv, where a split kept groups together


def compare_runs(a: Run, b: Run) -> dict[str, Any]:
    """The difference of two finished runs, `a` minus `b`, on the same pictures.

    Where both were judged on the same splits or folds, one by one; else picture by picture on the
    one test part that they share.

    Returns:
        `difference` (an interval per score), `on` (what they were compared on) and `method`.

    Raises:
        ValueError: A run that is no finished training of a classifier, runs that have no pictures
            in common to be compared on, or one with folds and one without.
    """
    for run in (a, b):
        if not run.finished or run.config.get("kind") != "transfer":
            raise ValueError(f"{run.path}: expected a finished run of `safelight transfer train`.")
    first, second = (run.config["dataset"] for run in (a, b))
    if first["fingerprint"] != second["fingerprint"]:
        raise ValueError(
            f"{a.path} is about {first['name']}, {b.path} about {second['name']} with other "
            "pictures or labels: expected two trainings on the same data."
        )
    splits_a, splits_b = (run.metrics.get("splits") for run in (a, b))
    folds_a, folds_b = (_num_folds(found) for found in (splits_a, splits_b))
    if folds_a != folds_b:
        # Not on shared test pictures either: most that one has judged the other has learned from.
        raise ValueError(
            f"{a.path} was judged on {_name(splits_a)}, {b.path} on {_name(splits_b)}: expected "
            "both with the same --folds, or both without."
        )
    if splits_a and splits_b:
        return _by_split(splits_a, splits_b)
    return _by_picture(a, b)


def _by_split(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    # Other fractions may deal other test parts to the same seeds. Older runs do not tell.
    told = ("test_parts",) if "test_parts" in a and "test_parts" in b else ()
    same = ("seeds", "strategy", "test_to_train", *told)
    folds = _num_folds(a)
    if any(a[name] != b[name] for name in same):
        word, seeds = ("folds", "seed") if folds else ("splits", "seeds")
        flags = "--seed, --split" if folds else "--seed, --splits, --split, fractions"
        first, second = (each["seeds"][0] if folds else each["seeds"] for each in (a, b))
        raise ValueError(
            f"the runs were judged on different {word} ({seeds} {first} and {second}, "
            f"{a['strategy']} and {b['strategy']}): train both with the same {flags} and --groups."
        )
    names = [name for name in a["scores"] if name in b["scores"]]
    return {
        "difference": {
            name: paired_over_splits(
                a["scores"][name], b["scores"][name], test_to_train=a["test_to_train"]
            ).to_dict()
            for name in names
        },
        "on": f"{len(a['seeds'])} {a['strategy']} {'folds' if folds else 'splits'}",
        "method": folds_method(folds) if folds else SPLITS_METHOD,
    }


def _num_folds(splits: dict[str, Any] | None) -> int | None:
    """Runs from before there were folds do not say that they have none."""
    return splits.get("num_folds") if splits else None


def _name(splits: dict[str, Any] | None) -> str:
    if not splits:
        return "one split"
    word = "folds" if _num_folds(splits) else "random splits"
    return f"{len(splits['seeds'])} {word}"


def _by_picture(a: Run, b: Run) -> dict[str, Any]:
    first, second = a.predictions, b.predictions
    shared = sorted(set(first["file"]) & set(second["file"]))
    if not shared:
        raise ValueError(
            f"{a.path} and {b.path} were judged on different pictures: expected the same --seed."
        )
    if len(shared) < max(len(first["file"]), len(second["file"])):
        raise ValueError(
            f"{a.path} and {b.path} share {len(shared)} of {len(first['file'])} and "
            f"{len(second['file'])} test pictures; the others of one were training pictures of the "
            "other: expected the same --seed and fractions."
        )
    names = a.config["dataset"]["class_names"]
    labels = np.array([names.index(first["label"][row]) for row in _places(first, shared)])
    arrays = [
        _probabilities(run, table, names)[_places(table, shared)]
        for run, table in ((a, first), (b, second))
    ]
    grouped = next((table for table in (first, second) if GROUP in table), None)
    groups = None if grouped is None else [grouped[GROUP][i] for i in _places(grouped, shared)]
    difference: Interval = paired_difference(
        labels, arrays[0], probabilities_b=arrays[1], groups=groups
    )
    return {
        "difference": {"accuracy": difference.to_dict()},
        "on": f"{len(shared)} test pictures of one split",
        "method": f"BCa bootstrap over {'pictures' if groups is None else 'groups of pictures'}, "
        "and the exact sign test",
    }


def _places(table: dict[str, list[str]], files: list[str]) -> list[int]:
    """The rows of these files."""
    place = {file: row for row, file in enumerate(table["file"])}
    return [place[file] for file in files]


def _probabilities(run: Run, table: dict[str, list[str]], names: list[str]) -> np.ndarray:
    try:
        return read_probabilities(table, names)
    except ValueError as error:
        raise ValueError(f"{run.path}: {error}; train the run again.") from error
