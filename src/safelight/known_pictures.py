"""Which pictures a run has seen, told by their contents: written down, and found again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from safelight.datasets import ImageDataset, Splits
from safelight.runs import Run

# Hexadecimal digits of a SHA-256: of a million pictures two share them once in forty million times.
_DIGITS = 16


def shorten(digests: Sequence[str]) -> list[str]:
    """Enough of each picture's digest to tell it from all others."""
    return [digest[:_DIGITS] for digest in digests]


def describe_parts(splits: Splits) -> dict[str, list[str]]:
    """The pictures of each part, as they stand in a run's `config.json`."""
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return {name: shorten(part.digests) for name, part in parts.items()}


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
