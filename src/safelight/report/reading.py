"""What a run folder holds, read without trust: what is missing or damaged becomes a sentence."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from safelight.files import StrPath
from safelight.metrics import Interval
from safelight.runs import Run
from safelight.untrusted import is_inside

_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class Reading:
    """The files of one run, as far as they could be read.

    Attributes:
        run: The run.
        config: What was asked for.
        metrics: What came out; empty where the training did not finish.
        environment: Versions and machine.
        history: A list per column of history.csv, a number per epoch.
        predictions: A list per column of predictions.csv, a cell per test picture.
        problems: A sentence for each file that is missing or damaged.
    """

    run: Run
    config: Mapping[str, Any]
    metrics: Mapping[str, Any]
    environment: Mapping[str, Any]
    history: Mapping[str, list[float]]
    predictions: Mapping[str, list[str]]
    problems: tuple[str, ...]

    @property
    def kind(self) -> str:
        """The subject, and what of it: "transfer", "transfer-sweep", "vae", or another."""
        return str(self.config.get("kind") or "")

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.run.name

    @property
    def dataset(self) -> str:
        """The name of the data set."""
        return str(dig(self.config, "dataset", "name") or "unnamed pictures")

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of the confusion matrix."""
        names = dig(self.config, "dataset", "class_names")
        return [str(each) for each in names] if isinstance(names, list) else []

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings of the training."""
        return mapping(self.config.get("settings"))

    @property
    def num_test(self) -> int | None:
        """Pictures that it was judged on."""
        found = number(self.metrics.get("num_test", self.metrics.get("num_images")))
        return None if found is None else int(found)

    @property
    def num_scored(self) -> int | None:
        """Pictures that log p(x) is of, where these are not all that the run was judged on."""
        found = number(dig(self.metrics, "importance_sampling", "num_images"))
        return None if found is None or found == self.num_test else int(found)

    def picture(self, name: str) -> Path | None:
        """The picture of that name, if the run has it."""
        path = self.run.path / "pictures" / f"{name}.png"
        # What a stranger's link leads to is not shown to whoever gets the page.
        return path if path.is_file() and is_inside(path, self.run.path) else None

    def interval(self, *keys: str) -> Interval | None:
        """A number with its interval out of metrics.json; None where it is not there."""
        return interval(dig(self.metrics, *keys))


def read_run(path: StrPath) -> Reading:
    """Read a run folder.

    Args:
        path: The folder.

    Raises:
        ValueError: There is no run.
    """
    run = Run.open(path)
    problems: list[str] = []
    config = run.config
    # Of an autoencoder only newer runs keep what was said of each picture.
    judged = config.get("kind") == "transfer" or (run.path / "predictions.csv").is_file()
    has_epochs = config.get("kind") in ("transfer", "vae", "gan")
    metrics: dict[str, Any] = {}
    if run.finished:
        metrics = _try(lambda: run.metrics, {}, problems)
    else:
        problems.append(
            "There is no metrics.json: the training did not finish. Give the same command again."
        )
    return Reading(
        run=run,
        config=config,
        metrics=metrics,
        environment=_try(lambda: run.environment, {}, problems),
        history=_try(_history(run), {}, problems) if has_epochs else {},
        predictions=_try(lambda: run.predictions, {}, problems) if judged and run.finished else {},
        problems=tuple(problems),
    )


def dig(value: Any, *keys: str) -> Any:
    """What lies under some keys, one in another; None where a key is missing."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def mapping(value: Any) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def number(value: Any) -> float | None:
    """The value as a finite number; None if it is something else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def interval(value: Any) -> Interval | None:
    """A metric as it stands in metrics.json; ends that are missing are NaN, None for no metric."""
    if not isinstance(value, Mapping) or "value" not in value:
        return None
    middle, low, high = (number(value.get(end)) for end in ("value", "low", "high"))
    nan = math.nan
    return Interval(
        nan if middle is None else middle,
        nan if low is None else low,
        nan if high is None else high,
        str(value.get("reason") or ""),
    )


def interval_or_nan(value: Any) -> Interval:
    """A metric as it stands in metrics.json; where there is none, one that is not defined."""
    return interval(value) or Interval(math.nan, math.nan, math.nan)


def _history(run: Run) -> Callable[[], dict[str, list[float]]]:
    # A training of a head alone has no epochs; its file is an empty line.
    return lambda: {name: column for name, column in run.history.items() if name}


def _try(read: Callable[[], _T], instead: _T, problems: list[str]) -> _T:
    """What could be read; else something else, and the reason without the way to the folder."""
    try:
        return read()
    except ValueError as error:
        where, _, what = str(error).partition(": ")
        problems.append(f"{Path(where).name}: {what or 'cannot be read.'}")
        return instead
