"""Which pictures a run has seen, told by their contents: written down, and found again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from safelight.datasets import ImageDataset, Splits
from safelight.duplicates import find_components
from safelight.runs import Run

# Hexadecimal digits of a SHA-256: of a million pictures two share them once in forty million times.
_DIGITS = 16


def shorten(digests: Sequence[str]) -> list[str]:
    """Enough of each picture's digest to tell it from all others."""
    return [digest[:_DIGITS] for digest in digests]


def describe_split(splits: Splits) -> dict[str, object]:
    """How pictures were dealt out, and which to which part, as it stands in `config.json`."""
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    kept = {name: splits.groups_of(part) for name, part in parts.items()}
    groups = {name: each.tolist() for name, each in kept.items() if each is not None}
    return {
        "strategy": splits.strategy,
        "seed": splits.seed,
        "digests": {name: shorten(part.digests) for name, part in parts.items()},
        **({"groups": groups} if groups else {}),
    }


def keeps_groups(run: Run) -> bool:
    """Whether the run's split keeps together what belongs together."""
    split = run.config["split"]
    return "grouped" in split.get("strategy", "")


def with_groups(run: Run, dataset: ImageDataset) -> ImageDataset:
    """A data set with the groups that the run knows of its pictures, if it has none of its own.

    A picture that the run does not know stands alone.

    Raises:
        ValueError: The run's `config.json` holds something else than groups.
    """
    if dataset.groups is not None or "groups" not in run.config["split"]:
        return dataset
    known = _read_groups(run)
    first = 1 + max(known.values())
    found = [known.get(d, first + i) for i, d in enumerate(shorten(dataset.digests))]
    return replace(dataset, groups=np.array(found, dtype=np.int64))


def count_strangers(run: Run, part: ImageDataset) -> int:
    """How many pictures the run knows no group of, where it minds groups."""
    if "groups" not in run.config["split"]:
        return 0
    known = {*learned_digests(run), *digests_of(run, "test")}
    return sum(digest not in known for digest in shorten(part.digests))


def count_related(run: Run, dataset: ImageDataset, part: ImageDataset) -> int:
    """How many pictures of a part have one of their group among those that the run learned from.

    Args:
        run: The run.
        dataset: With groups, all that was found.
        part: Some of it, unseen by the run.
    """
    if dataset.groups is None or part.groups is None:
        return 0
    seen = np.isin(shorten(dataset.digests), learned_digests(run))
    return int(np.isin(part.groups, dataset.groups[seen]).sum())


def _read_groups(run: Run) -> dict[str, int]:
    """The group of each picture of the run, by its digest."""
    groups: Any = run.config["split"]["groups"]
    told: list[tuple[str, int]] = []
    for part in groups if isinstance(groups, dict) else ():
        digests, numbers = digests_of(run, part), groups[part]
        if isinstance(numbers, list) and len(numbers) == len(digests):
            told += zip(digests, numbers, strict=True)
    if not told or not all(type(number) is int for _, number in told):
        raise ValueError(
            f"{run.path}: config.json is damaged (it does not say which pictures belong "
            "together); train the run again."
        )
    known = dict(told)
    # A picture that is there twice, in two groups, makes one of them.
    pairs = np.array([(known[digest], number) for digest, number in told])
    names, ends = np.unique(pairs, return_inverse=True)
    joined = find_components(len(names), ends.reshape(-1, 2))
    groups_of = dict(zip(names.tolist(), joined.tolist(), strict=True))
    return {digest: groups_of[number] for digest, number in known.items()}


def name_part(part: ImageDataset) -> str:
    """The same for the same pictures in any order."""
    return hashlib.sha256("".join(sorted(part.digests)).encode()).hexdigest()[:_DIGITS]


def digests_of(run: Run, part: str) -> tuple[str, ...]:
    """What the pictures of a part of a run's data are told by: "train", "validation" or "test".

    Raises:
        ValueError: The run's `config.json` does not say it.
    """
    found: object = run.config
    for name in ("split", "digests", part):
        found = found.get(name) if isinstance(found, dict) else None
    if not isinstance(found, list) or not all(isinstance(digest, str) for digest in found):
        raise ValueError(
            f"{run.path}: config.json is damaged (it does not say which pictures are its "
            f"{part} part); train the run again."
        )
    return tuple(found)


def learned_digests(run: Run) -> tuple[str, ...]:
    """Those of the pictures that the run's model was trained or chosen on, in this order."""
    return digests_of(run, "train") + digests_of(run, "validation")


def unseen_part(run: Run, dataset: ImageDataset) -> tuple[ImageDataset, int]:
    """The pictures of a data set that the run's model was neither trained nor chosen on.

    Returns:
        Them, and the number of pictures left out.

    Raises:
        ValueError: None remain.
    """
    seen = set(learned_digests(run))
    keep = [i for i, digest in enumerate(shorten(dataset.digests)) if digest not in seen]
    if not keep:
        raise ValueError(
            f"all {len(dataset)} pictures of {dataset.name} were used to train {run.path}: "
            "expected others, a number on these would say nothing."
        )
    return dataset.subset(keep), len(dataset) - len(keep)
