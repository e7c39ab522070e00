"""Cross-validation: every picture of a data set judges once, and is learned from otherwise."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from safelight.datasets import ImageDataset, Splits, split
from safelight.splits import deal_units, fold_quotas, merge_units


def deal_folds(
    dataset: ImageDataset,
    *,
    num_folds: int = 5,
    validation_fraction: float = 0.15,
    seed: int = 0,
    strategy: Literal["stratified", "grouped"] = "stratified",
) -> tuple[Splits, ...]:
    """Deal a data set out to folds, each of them the test part of one split, without leaks.

    Use it instead of several random splits where every picture shall be judged, exactly once.
    Duplicates, and with "grouped" the pictures of one group, are always in one fold. Every fold
    gets its share of every class: exactly (to one picture) if nothing must stay together, else as
    nearly as whole units allow. What a fold leaves is dealt out to training and validation by the
    rules of `datasets.split`. The same data set and seed give the same folds, on every machine.

    Args:
        dataset: What to deal out; without parts of its own.
        num_folds: How many folds, at least 2.
        validation_fraction: Share of the validation part, of all pictures; 0 for none.
        seed: Decides the order of dealing.
        strategy: As in `datasets.split`.

    Returns:
        A split for each fold, in order; `fold` says which one it is.

    Raises:
        ValueError: If there are fewer than two folds, the data set has its own parts, a class has
            too few pictures or groups for so many folds, or as in `datasets.split`.
    """
    if num_folds < 2:
        raise ValueError(f"num_folds={num_folds}: expected 2 or more.")
    if dataset.parts:
        raise ValueError(
            f"Data set '{dataset.name}' brings its own parts, which folds would not respect; use "
            "datasets.split."
        )
    if not 0 <= validation_fraction < 1 - 1 / num_folds:
        raise ValueError(
            f"validation_fraction={validation_fraction}: expected at least 0 and less than "
            f"{1 - 1 / num_folds:.3g}, the share that each of {num_folds} folds leaves."
        )
    units = merge_units(
        len(dataset), dataset.duplicates, dataset.groups if strategy == "grouped" else None
    )
    _check_units(dataset, units, num_folds)
    counts = np.bincount(dataset.labels, minlength=max(dataset.num_classes, 1))
    dealt = deal_units(units, dataset.labels, fold_quotas(counts, num_folds), seed)
    if len(np.unique(dealt)) < num_folds:
        raise ValueError(
            f"Data set '{dataset.name}' ({len(dataset)} pictures) cannot be dealt to {num_folds} "
            "folds: one would be empty, because too many pictures must stay together; use fewer."
        )
    found = []
    for number in range(num_folds):
        parts = np.where(dealt == number, "test", "train").tolist()
        # As if the test part were given: split deals the validation part out of the rest.
        rest = split(
            replace(dataset, parts=tuple(parts)),
            test_fraction=1 / num_folds,
            validation_fraction=validation_fraction,
            seed=seed,
            strategy=strategy,
        )
        found.append(
            replace(
                rest,
                train=replace(rest.train, parts=None),
                validation=replace(rest.validation, parts=None),
                test=replace(rest.test, parts=None),
                strategy=strategy,
                fold=(number, num_folds),
                asked={"validation_fraction": validation_fraction, "folds": num_folds},
            )
        )
    return tuple(found)


def find_units(
    splits: Splits, parts: Sequence[Literal["train", "validation"]]
) -> NDArray[np.int64]:
    """Name the smallest sets of pictures in some parts of a split that must stay together.

    Use it where what is learned from is dealt out once more: a copy of a picture that judges, or
    another one of its group, must not be learned from there either.

    Args:
        splits: As from `datasets.split` or `deal_folds`.
        parts: Which parts, one after the other.

    Returns:
        The unit of each picture, (n,), numbered from 0.

    Raises:
        ValueError: If the split's indices are not those of its parts.
    """
    kept = [getattr(splits, name) for name in parts]
    sizes = [(len(part), len(splits.indices[name])) for name, part in zip(parts, kept, strict=True)]
    if any(number != told for number, told in sizes):
        raise ValueError(
            f"indices of {[told for _, told in sizes]} pictures for parts ({', '.join(parts)}) of "
            f"{[number for number, _ in sizes]}: expected one each; put them right together."
        )
    starts = np.cumsum([0, *map(len, kept)]).tolist()
    clusters = [
        tuple(start + i for i in cluster)
        for start, part in zip(starts, kept, strict=False)
        for cluster in part.duplicates
    ]
    rows = np.concatenate([splits.indices[name] for name in parts]).tolist()
    place = {row: i for i, row in enumerate(rows)}
    # Given parts may hold a copy each.
    torn = [tuple(place[row] for row in c if row in place) for c in splits.straddling]
    groups = [splits.groups_of(part) for part in kept]
    known = [group for group in groups if group is not None]
    return merge_units(
        len(rows), (*clusters, *torn), np.concatenate(known) if len(known) == len(parts) else None
    )


def _check_units(dataset: ImageDataset, units: NDArray[np.int64], num_folds: int) -> None:
    """Every class needs a picture for each fold that may be apart from the others."""
    labels, _ = np.unique(np.stack([dataset.labels, units]), axis=1)
    members = np.bincount(labels, minlength=max(dataset.num_classes, 1))
    for name, number, there in zip(
        dataset.class_names or ("pictures",),
        members.tolist(),
        np.bincount(dataset.labels, minlength=len(members)).tolist(),
        strict=True,
    ):
        if number < num_folds:
            apart = "" if number == there else f", in {number} groups that stay together"
            raise ValueError(
                f"Class {name!r} of data set '{dataset.name}' has {there} pictures{apart}: "
                f"expected at least {num_folds} for {num_folds} folds; add pictures or use fewer "
                "folds."
            )
