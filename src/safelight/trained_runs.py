"""What a run was trained with and what came of it: settings, model, answers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from safelight import model_files
from safelight.runs import Run

_Config = TypeVar("_Config", bound=Any)
_Model = TypeVar("_Model")


def read_settings(run: Run, kind: str, config: type[_Config]) -> _Config:
    """The settings that a run was trained with.

    Args:
        run: The run.
        kind: That it has to be of.
        config: The dataclass of these settings.

    Raises:
        ValueError: It is of another kind, or comes from a version with other settings.
    """
    found = run.config
    if found.get("kind") != kind:
        raise ValueError(f"{run.path} is a run of kind {found.get('kind')!r}: expected {kind!r}.")
    settings = found.get("settings")
    if not isinstance(settings, dict):
        raise ValueError(f"{run.path}: config.json is damaged (no settings); train it again.")
    fields = dataclasses.fields(config)
    unknown = sorted(set(settings) - {field.name for field in fields})
    if unknown:
        raise ValueError(
            f"{run.path}: settings {unknown} are unknown to this version of Safelight."
        )
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    several = [field.name for field in fields if isinstance(field.default, tuple)]
    if any(not isinstance(values.get(name, ()), tuple) for name in several):
        raise ValueError(f"{run.path}: config.json is damaged (no list); train it again.")
    try:
        return config(**values)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{run.path}: config.json is damaged ({error}); train it again."
        ) from error


def load_model(run: Run, kind: type[_Model], words: str) -> _Model:
    """The run's model, in Keras' safe mode: it can execute nothing.

    Args:
        run: The run.
        kind: The class that it has to be of.
        words: What such a model is, for people.

    Raises:
        ValueError: The run has none, or it cannot be read.
    """
    if not run.model_path.is_file():
        raise ValueError(
            f"{run.path} has no model.keras: its training did not finish; run it again."
        )
    model = model_files.load_model(run.model_path)
    if not isinstance(model, kind):
        raise ValueError(f"{run.model_path} holds a {type(model).__name__}: expected {words}.")
    return model


def read_probabilities(
    predictions: Mapping[str, Sequence[str]], class_names: Sequence[str]
) -> np.ndarray:
    """The probabilities in a classifier's predictions.csv.

    Args:
        predictions: A list of cells for each column, as from `Run.predictions`.
        class_names: The columns are `p(NAME)`.

    Returns:
        `(n, num_classes)`. They were written with six digits; rows sum to one again.

    Raises:
        ValueError: A column is missing, or holds something else than probabilities.
    """
    columns = [f"p({name})" for name in class_names]
    missing = [column for column in columns if column not in predictions]
    if missing:
        raise ValueError(f"predictions.csv has no column {missing[0]!r}")
    try:
        rows = np.array([predictions[column] for column in columns], dtype=np.float64).T
    except ValueError:
        rows = np.array([[math.nan]])
    if not ((rows >= 0) & (rows <= 1)).all() or not (rows.sum(1) > 0).all():
        raise ValueError("predictions.csv holds numbers that are no probabilities")
    return rows / rows.sum(axis=1, keepdims=True)
