"""Everything a training is made of, in one file, so that a killed one goes on to the same end.

The file is a plain `.npz`: arrays under their variables' paths, and one text of JSON. It is read
without pickle, and it gets its name only when it is whole. It says what it was made with and from,
and is refused where that differs: weights trained on other pictures, or with another learning
rate, must not slip into a training that claims its own.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from safelight.runs import atomic_path
from safelight.untrusted import one_line, parse_json, read_arrays, take

FORMAT = 2
_ABOUT = "about"


@dataclasses.dataclass(frozen=True, eq=False)
class Checkpoint:
    """A training between two epochs.

    Attributes:
        epochs: Epochs done.
        seconds: Wall time they took, by kind.
        plan: When it will end: the knots of a `Plan`.
        history: A list per column, one number per epoch.
        arrays: Weights, optimizers, averages and other variables, as from a loop's `read`.
        tables: Further columns of the history that have a row of numbers for each epoch.
    """

    epochs: int
    seconds: Mapping[str, float]
    plan: Sequence[Sequence[float]]
    history: dict[str, list[float]]
    arrays: dict[str, np.ndarray]
    tables: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


def identify(config: Any, *data: np.ndarray | None) -> dict[str, Any]:
    """What a training is told by: its settings, its data and the backend.

    Args:
        config: The settings, a dataclass.
        data: Images, labels, whatever else it sees, always in the same order.

    Returns:
        What JSON can hold; two trainings that agree in it go through the same numbers.
    """
    settings = json.loads(json.dumps(dataclasses.asdict(config)))
    return {
        "format": FORMAT,
        "backend": keras.backend.backend(),
        "data": [None if array is None else _digest(array) for array in data],
        **settings,
    }


def _digest(array: np.ndarray) -> str:
    array = np.ascontiguousarray(array)
    digest = hashlib.sha256(f"{array.dtype} {array.shape} ".encode())
    digest.update(array.data)
    return digest.hexdigest()


def save_checkpoint(
    path: str | os.PathLike[str], checkpoint: Checkpoint, identity: Mapping[str, Any]
) -> None:
    """Writes a checkpoint in the place of the one before.

    Args:
        path: The file; its folder exists.
        checkpoint: What to keep.
        identity: As from `identify`.
    """
    fields = {name: getattr(checkpoint, name) for name in ("epochs", "seconds", "plan", "history")}
    about = json.dumps({"identity": dict(identity), **fields})
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.savez(
            file,
            allow_pickle=False,
            **{_ABOUT: np.array(about)},
            **{f"history/{name}": table for name, table in checkpoint.tables.items()},
            **{f"state/{name}": array for name, array in checkpoint.arrays.items()},
        )


def load_checkpoint(
    path: str | os.PathLike[str],
    identity: Mapping[str, Any],
    *,
    columns: Collection[str] = (),
    tables: Mapping[str, int] | None = None,
) -> Checkpoint | None:
    """Reads a checkpoint, if there is one.

    Args:
        path: The file.
        identity: As from `identify`, for the training that wants to go on.
        columns: Of the history, with a number for each epoch, that the training goes on with.
        tables: Those that have a row of numbers for each epoch, and how many it has.

    Returns:
        `None` if there is no such file.

    Raises:
        ValueError: It is damaged, or belongs to another training.
    """
    path = Path(path)
    if not path.exists():
        return None
    try:
        arrays = read_arrays(path)
        # A column of the history may hold NaN, which is no JSON.
        about = parse_json(str(take(arrays, _ABOUT, kinds="U", shape=())), finite=False)
        found, fields = _split_about(about)
        rows = _under("history/", arrays)
        if any(table.dtype.kind != "f" for table in rows.values()):
            raise ValueError("its history is of other kinds")
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{path}: no checkpoint, or a damaged one ({type(error).__name__}); remove it to start "
            "anew."
        ) from error
    _refuse_other(path, found, identity)
    epochs = fields["epochs"]
    lengths = {name: len(column) for name, column in fields["history"].items()}
    holes = [name for name in columns if lengths.get(name) != epochs]
    shapes = {name: table.shape for name, table in rows.items()}
    holes += [n for n, width in (tables or {}).items() if shapes.get(n) != (epochs, width)]
    if holes:
        raise ValueError(
            f"{path}: a damaged checkpoint, without {holes[0]} for each of its {epochs} epochs; "
            "remove it to start anew."
        )
    return Checkpoint(**fields, arrays=_under("state/", arrays), tables=rows)


def _under(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {n.removeprefix(prefix): x for n, x in arrays.items() if n.startswith(prefix)}


def _split_about(about: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Identity and the other fields, if they are what `save_checkpoint` writes."""
    kinds = {"identity": dict, "epochs": int, "seconds": dict, "plan": list, "history": dict}
    if not isinstance(about, dict) or set(about) != set(kinds):
        raise ValueError(f"it holds other fields than {', '.join(kinds)}")
    if not all(isinstance(about[name], kind) for name, kind in kinds.items()):
        raise ValueError("its fields are of other kinds")
    columns = about["history"].values()
    if not all(isinstance(c, list) and all(type(x) in (int, float) for x in c) for c in columns):
        raise ValueError("its history is no lists of numbers")
    return about["identity"], {name: about[name] for name in kinds if name != "identity"}


def _refuse_other(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    differing = [name for name in {**wanted, **found} if found.get(name) != wanted.get(name)]
    if not differing:
        return
    # Nothing that could be passed mends these.
    if strange := [n for n in differing if n == "format" or (n in found) != (n in wanted)]:
        raise ValueError(
            f"{path}: cannot go on from this checkpoint: another version of Safelight, whose "
            f"{one_line(', '.join(strange))} differs, made it. Remove it to start anew, or go on "
            "with that version."
        )
    if differing == ["data"]:
        reason = "it was made from other pictures or labels"
    else:
        named = [name for name in differing if name != "data"]
        before, now = (
            ", ".join(f"{name}={values.get(name)!r}" for name in named)
            for values in (found, wanted)
        )
        reason = f"it was made with {one_line(before)}, and now it is {one_line(now)}"
        if "backend" in named:
            reason += f"; KERAS_BACKEND={one_line(found['backend'])} chooses that backend"
    raise ValueError(
        f"{path}: cannot go on from this checkpoint: {reason}. Pass what it was made with, or "
        "remove it to start anew."
    )
