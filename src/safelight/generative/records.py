"""What a run of a generative model says of its data, and how these are found again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safelight import known_pictures
from safelight.datasets import ImageDataset
from safelight.generative.pictures import Parts
from safelight.runs import Run, to_json
from safelight.untrusted import one_line


def describe_run(
    kind: str, parts: Parts, config: Any, *, source: str = "", only: str = ""
) -> dict[str, Any]:
    """What a run is made of, as it stands in its `config.json`.

    Args:
        kind: Of the run.
        parts: The data.
        config: The settings, a dataclass.
        source: Where the data set can be read from again: its name, or its folder as seen from the
            run's.
        only: The class that the pictures are all of, where the others were left out.
    """
    dataset, splits = parts.dataset, parts.splits
    return {
        "kind": kind,
        "dataset": {
            "name": dataset.name,
            "source": source,
            **({"only": only} if only else {}),
            "fingerprint": dataset.fingerprint,
            "num_images": len(dataset),
            "class_names": list(dataset.class_names) if parts.labels else [],
            "problems": [str(problem) for problem in dataset.problems],
            "duplicates": len(dataset.duplicates),
        },
        "split": {
            **known_pictures.describe_split(splits),
            "asked": dict(splits.asked),
        },
        "image_shape": parts.image_shape,
        "settings": dataclasses.asdict(config),
    }


def protocol_of_data(parts: Parts) -> dict[str, Any]:
    """What a reader needs to know of the data to trust or repeat the numbers."""
    splits = parts.splits
    return {
        "dataset": parts.dataset.name,
        "dataset_fingerprint": parts.dataset.fingerprint,
        "split": splits.strategy,
        "num_train": len(splits.train),
        "num_validation": len(splits.validation),
        "num_test": len(splits.test),
        "image_shape": parts.image_shape,
    }


def open_described(path: Path, description: Mapping[str, Any], *, overwrite: bool = False) -> Run:
    """Makes a run folder, or opens the one that was begun there with the same description.

    Args:
        path: The folder.
        description: As from `describe_run`.
        overwrite: Whether to replace a run that is there, and to begin anew in any case.

    Raises:
        ValueError: There is a finished run, or an unfinished one of other data or settings.
    """
    if not overwrite and Run(path).begun:
        _refuse_other(Run.open(path), description)
        return Run.open(path)
    run = Run.create(path, overwrite=overwrite)
    run.write_config(description)
    return run


def find_part(run: Run, dataset: ImageDataset, name: str) -> ImageDataset:
    """The pictures of a data set that were a part of the run: "train", "validation" or "test".

    Raises:
        ValueError: Some are not there any more, or the run does not say which they are.
    """
    wanted = set(known_pictures.digests_of(run, name))
    found = known_pictures.shorten(dataset.digests)
    missing = wanted - set(found)
    if missing:
        raise ValueError(
            f"{len(missing)} of the {len(wanted)} {name} pictures of {run.path} are not in "
            f"{dataset.name} any more: put them back, or name the folder that has them; a VAE is "
            "judged on others by `safelight vae evaluate RUN DATA`."
        )
    return dataset.subset([i for i, digest in enumerate(found) if digest in wanted])


def _compared(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A description without the fractions that were asked for, which older runs do not keep.

    Other fractions that deal the same parts are as good: the parts are compared.
    """
    split = config.get("split")
    if not isinstance(split, Mapping):
        return config
    return {**config, "split": {name: x for name, x in split.items() if name != "asked"}}


def _refuse_other(run: Run, description: Mapping[str, Any]) -> None:
    """Lets an unfinished run be continued by its own data and settings only."""
    found, wanted = (_compared(each) for each in (run.config, json.loads(to_json(description))))
    differing = [name for name in wanted if found.get(name) != wanted[name]]
    if not differing:
        return
    if found.get("kind") != wanted["kind"]:
        raise ValueError(
            f"{run.path}: holds an unfinished run of kind {one_line(found.get('kind'))}, not "
            f"{wanted['kind']}; --overwrite begins anew, another --output leaves it alone."
        )
    before, now = (dict(each.get("settings") or {}) for each in (found, wanted))
    if strange := sorted({*before} ^ {*now}):
        raise ValueError(
            f"{run.path}: holds an unfinished run of another version of Safelight, one with other "
            f"settings ({one_line(', '.join(strange))}); that version continues it, --overwrite "
            "begins anew, another --output leaves it alone."
        )
    words = [
        f"{name} {before.get(name)} instead of {now[name]}"
        for name in now
        if before.get(name) != now[name]
    ]
    what = ", ".join(words) or "other data or another split"
    raise ValueError(
        f"{run.path}: holds an unfinished run with {what}; as it was begun it goes on, "
        "--overwrite begins anew, another --output leaves it alone."
    )
