"""A run is one folder: what was asked for, what came out, and on what machine.

    config.json       what was asked for; its `kind` names the subject ("transfer")
    environment.json  versions and machine; no user name, host name or path
    history.csv       one line per epoch
    checkpoint.npz    while a training that can be resumed lasts
    model.keras       the model
    predictions.csv   one line per test image; predictions_folds.csv the same for all images
    familiarity.npz   what a classifier compares a picture with that may be of something else
    references.npz    what a classifier's layers do for pictures of each class, to draw maps against
    density.npz       where a variational autoencoder's latents lie, to draw samples from; as a flow
                      in density_flow.npz
    anomalies.csv     one line per picture that was scored as an anomaly or not
    rate_distortion.csv  one line per weight of the KL divergence that was trained with
    data.md           what is to be known of the pictures, to read
    report.html       all of it as one page, and README.md, its model card: `safelight report`
    pictures/*.png
    metrics.json      written last: a folder without it is a run that did not finish

Every file gets its name only when it is whole, so a reader never sees half of one. What is read is
data and never evaluated. This module knows no subject: it only carries what they write.
"""

import csv
import errno
import io
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any, Self

import numpy as np

from safelight import locks, seals, untrusted
from safelight.environment import describe_environment
from safelight.files import (
    StrPath,
    atomic_path,
    list_partials,
    plain_cell,
    write_csv,
    write_text,
)
from safelight.metrics import Interval

__all__ = ["Run", "RunSummary", "StrPath", "atomic_path", "list_runs", "to_json"]
logger = logging.getLogger(__name__)

FORMAT = 1
_FORMAT_KEY = "safelight_run"
# In the order of removal: without metrics.json the folder is no finished run any more. config.json
# is written over, never removed: after a kill the folder would be nobody's, and be refused.
_FILES = (
    "metrics.json", "predictions.csv", "predictions_folds.csv", "familiarity.npz",
    "references.npz", "model.keras", "checkpoint.npz", "density.npz", "density_flow.npz",
    "anomalies.csv", "rate_distortion.csv", "history_kl.npy", "history.csv", "data.md",
    "report.html", "environment.json",
)  # fmt: skip
_KEPT = ("checkpoint.npz", "rate_distortion.csv")  # what an unfinished run can be continued from
_MAX_DEPTH = 3


@dataclass(frozen=True)
class Run:
    """One run, its files in the folder `path`; make it with `Run.create` or `Run.open`."""

    path: Path

    @classmethod
    def create(cls, path: StrPath, *, overwrite: bool = False) -> Self:
        """Make a run folder, or empty one that holds a run.

        Only files of a run are ever removed; whatever else, and a card that was changed, stays.

        Args:
            path: a folder that does not exist, is empty, or holds an older run.
            overwrite: replace a run even if it finished, has a model, or was `begun`.

        Raises:
            ValueError: if the folder holds a run and `overwrite` is false, holds anything that is
                no run, is being written by another process, or cannot be written.
        """
        folder = Path(path)
        cls.check(folder, overwrite=overwrite)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with locks.hold(folder):
                _remove_run_files(folder)
                created = datetime.now(UTC).isoformat(timespec="seconds")
                cls(folder)._write_config({"created": created})
        except OSError as error:
            raise ValueError(_not_written(folder, error)) from error
        return cls(folder)

    @classmethod
    def check(cls, path: StrPath, *, overwrite: bool = False, resume: bool = False) -> None:
        """Raise what `create` would raise, and change nothing; use it before long work.

        Args:
            path: as for `create`.
            overwrite: as for `create`.
            resume: let a run that was `begun` pass, for a caller who continues it.

        Raises:
            ValueError: if no run may be made there.
        """
        folder = Path(path)
        try:
            _refuse_foreign(folder)
            _refuse_finished(folder, overwrite, resume)
            if resume or not (folder / "pictures").is_symlink():  # `create` takes a link away
                _refuse_linked(folder)
            _refuse_unwritable(folder)
            locks.check_free(folder)
        except OSError as error:
            raise ValueError(_not_written(folder, error)) from error

    @classmethod
    def open(cls, path: StrPath) -> Self:
        """Open an existing run, finished or not.

        Args:
            path: the run folder.

        Raises:
            ValueError: if there is no run there.
        """
        folder = Path(path)
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "does not exist"
            raise ValueError(f"{folder}: {what}; pass the folder of a run (`safelight runs list`).")
        if not _is_run(folder):
            if _looks_like_run(folder, [item.name for item in folder.iterdir()]):
                _read_json(folder / "config.json")
            raise ValueError(
                f"{folder}: not a run (it has no config.json of Safelight); "
                "pass a folder that `safelight ... --output` made."
            )
        return cls(folder)

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.path.resolve().name

    @property
    def finished(self) -> bool:
        """Whether the run came to its end: metrics.json is written last."""
        return (self.path / "metrics.json").is_file()

    @property
    def begun(self) -> bool:
        """Whether it did not finish, and holds what the same command can continue it from."""
        kept = any((self.path / name).is_file() for name in _KEPT)
        return kept and (self.path / "config.json").is_file() and not self.finished

    @property
    def model_path(self) -> Path:
        """Where the model is, or will be; save to it through `atomic_path`."""
        return self.path / "model.keras"

    @property
    def config(self) -> dict[str, Any]:
        """What was asked for, with `kind` and `created` (ISO 8601, UTC).

        Raises:
            ValueError: if config.json is missing or damaged (likewise for the properties below).
        """
        return _read_json(self.path / "config.json")

    @property
    def metrics(self) -> dict[str, Any]:
        """The results; a number that was not finite is None."""
        return _read_json(self.path / "metrics.json")

    @property
    def environment(self) -> dict[str, Any]:
        """Versions and machine, as `describe_environment` saw them."""
        return _read_json(self.path / "environment.json")

    @property
    def history(self) -> dict[str, list[float]]:
        """One list per column, one number per epoch; NaN where the cell is empty."""
        columns = _read_csv(self.path / "history.csv")
        try:
            return {name: [float(x) if x else math.nan for x in c] for name, c in columns.items()}
        except ValueError as error:
            raise ValueError(f"{self.path / 'history.csv'}: damaged ({error}).") from error

    @property
    def predictions(self) -> dict[str, list[str]]:
        """One list of cells per column, one cell per test image."""
        return _read_csv(self.path / "predictions.csv")

    @property
    def pictures(self) -> tuple[Path, ...]:
        """The pictures, sorted by name; links out of the folder are none of its own."""
        found = (self.path / "pictures").glob("*.png")
        own = (p for p in found if untrusted.is_inside(p, self.path))
        return tuple(sorted(p for p in own if not p.name.startswith(".")))

    def picture_path(self, name: str) -> Path:
        """Say where to save a picture, and make the folder for it.

        Args:
            name: a plain file name without its ending.

        Raises:
            ValueError: if the name is no plain file name, or the folder is a link elsewhere.
        """
        if not name or name.startswith(".") or PurePath(name).name != name or "\\" in name:
            raise ValueError(f"{name!r} is no plain file name; pass one like 'history'.")
        _refuse_linked(self.path)
        (self.path / "pictures").mkdir(exist_ok=True)
        return self.path / "pictures" / f"{name}.png"

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write what was asked for.

        Args:
            config: anything that JSON can hold. `kind` names the subject and is required; `dataset`
                (a name, or a mapping with a `name`) is shown by `list_runs`.

        Raises:
            ValueError: if `kind` is missing or a value is no data.
        """
        if not isinstance(config.get("kind"), str):
            raise ValueError(
                f"config has the keys {sorted(config)}; add 'kind', the name of the subject."
            )
        self._write_config({**config, "created": self.config.get("created")})

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Write the results and thereby finish the run: call it last.

        Args:
            metrics: name to `Interval`, number, list or mapping.
        """
        write_text(self.path / "metrics.json", to_json(metrics))

    def write_environment(self) -> None:
        """Write versions and machine as they are now; call it when Keras has been imported."""
        write_text(self.path / "environment.json", to_json(describe_environment()))

    def write_history(self, history: Mapping[str, Sequence[float]]) -> None:
        """Write the training curves.

        Args:
            history: one sequence per column, all of one length, one number per epoch.

        Raises:
            ValueError: if the columns differ in length.
        """
        write_csv(self.path / "history.csv", history)

    def write_predictions(
        self, predictions: Mapping[str, Sequence[object]], *, folds: bool = False
    ) -> None:
        """Write what the model says about each test image.

        Args:
            predictions: one sequence per column (file, label, ...), all of one length.
            folds: whether they are of all images, each by the fold that had not seen it.

        Raises:
            ValueError: if the columns differ in length.
        """
        write_csv(self.path / f"predictions{'_folds' if folds else ''}.csv", predictions)

    def write_data_page(self, text: str) -> None:
        """Write the page on the pictures, in Markdown."""
        write_text(self.path / "data.md", text)

    def _write_config(self, config: Mapping[str, Any]) -> None:
        write_text(self.path / "config.json", to_json({**config, _FORMAT_KEY: FORMAT}))


@dataclass(frozen=True)
class RunSummary:
    """What `list_runs` says about one folder.

    Args:
        path: the folder.
        kind: subject, empty if unknown.
        created: ISO 8601, UTC, empty if unknown.
        dataset: name of the data set, empty if unknown.
        finished: whether metrics.json is there.
        metrics: name to interval, only those of metrics.json that have one.
        problem: why the run cannot be read, empty where it can.
    """

    path: Path
    kind: str = ""
    created: str = ""
    dataset: str = ""
    finished: bool = False
    metrics: dict[str, Interval] = field(default_factory=dict)
    problem: str = ""


def list_runs(root: StrPath) -> tuple[RunSummary, ...]:
    """Look for runs in a folder and up to three levels below it.

    Args:
        root: the folder.

    Returns:
        One summary per run, oldest first; a damaged run has its `problem` named.

    Raises:
        ValueError: if there is no such folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; pass the folder that holds the runs.")
    summaries = []
    for name, folders, files in os.walk(root):
        folder = Path(name)
        # A run holds no runs, so the walk ends at each one it finds.
        if _looks_like_run(folder, files):
            summaries.append(_summarise(folder))
            folders.clear()
        elif len(folder.relative_to(root).parts) >= _MAX_DEPTH:
            folders.clear()
        folders[:] = sorted(f for f in folders if not f.startswith("."))
    return tuple(sorted(summaries, key=lambda s: (s.created, str(s.path))))


def to_json(value: object) -> str:
    """Write a value as strict JSON: UTF-8, sorted keys, two spaces, null for NaN and infinity.

    Args:
        value: mappings, sequences, strings, numbers, NumPy arrays and scalars, paths, and anything
            with a `to_dict()`.

    Raises:
        ValueError: if the value holds something else.
    """
    plain = _plain(value)
    return json.dumps(plain, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if hasattr(value, "to_dict"):
        value = value.to_dict()
    elif isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    elif isinstance(value, PurePath):
        value = value.as_posix()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    raise ValueError(
        f"{type(value).__name__} cannot be written as JSON; pass numbers, strings, lists, mappings."
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = untrusted.read_json(path, inside=path.parent)
    except FileNotFoundError as error:
        raise ValueError(f"{path}: is missing; the run did not get that far.") from error
    except (OSError, ValueError) as error:
        raise ValueError(_not_read(path, error)) from error
    if not isinstance(value, dict):
        raise ValueError(f"{path}: holds a {type(value).__name__}, not an object; it is damaged.")
    return value


def _not_read(path: Path, error: Exception) -> str:
    said = untrusted.one_line(getattr(error, "strerror", None) or error)
    return f"{path}: cannot be read ({type(error).__name__}: {said})."


def _read_csv(path: Path) -> dict[str, list[str]]:
    try:
        text = untrusted.read_bytes(path, inside=path.parent).decode("utf-8")
        header, *rows = list(csv.reader(io.StringIO(text, newline=""))) or [[]]
        columns = [[*map(plain_cell, column)] for column in zip(*rows, strict=True)] or [
            [] for _ in header
        ]
        return dict(zip(header, columns, strict=True))
    except FileNotFoundError as error:
        raise ValueError(f"{path}: is missing; the run did not get that far.") from error
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(_not_read(path, error)) from error


def _is_run(folder: Path) -> bool:
    """Whether Safelight made the folder: other programs write a config.json too."""
    try:
        return _FORMAT_KEY in _read_json(folder / "config.json")
    except ValueError:
        return False


def _looks_like_run(folder: Path, files: Sequence[str]) -> bool:
    # A run whose config.json is broken or gone is still told by the company it keeps.
    company = set(files) & {"environment.json", "metrics.json", "history.csv"}
    return _is_run(folder) or len(company) >= 2


def _summarise(folder: Path) -> RunSummary:
    try:
        config, finished = Run(folder).config, Run(folder).finished
        metrics = Run(folder).metrics if finished else {}
        dataset = config.get("dataset") or ""
        name = dataset.get("name", "") if isinstance(dataset, dict) else dataset
        return RunSummary(
            path=folder,
            kind=str(config.get("kind") or ""),
            created=str(config.get("created") or ""),
            dataset=str(name),
            finished=finished,
            metrics={key: _read_interval(x) for key, x in metrics.items() if _has_interval(x)},
        )
    except ValueError as error:
        logger.warning("%s: damaged run (%s)", folder, error)
        return RunSummary(path=folder, problem=str(error))


def _has_interval(value: object) -> bool:
    return isinstance(value, dict) and {"value", "low", "high"} <= set(value)


def _read_interval(value: Mapping[str, Any]) -> Interval:
    numbers = [value[key] for key in ("value", "low", "high")]
    if not all(x is None or isinstance(x, int | float) for x in numbers):
        raise ValueError(f"metrics.json holds {numbers} where three numbers belong; it is damaged.")
    middle, low, high = (math.nan if x is None else float(x) for x in numbers)
    return Interval(middle, low, high, str(value.get("reason", "")))


def _not_written(folder: Path, error: OSError) -> str:
    reason = error.strerror or type(error).__name__
    return f"{folder}: cannot be written ({reason}); choose another --output."


def _refuse_foreign(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: a file is in the way; choose another --output.")
    if not folder.is_dir() or _is_run(folder):
        return
    # Hidden files (.DS_Store, .gitkeep, what a killed write left) are no one's work.
    foreign = sorted(item.name for item in folder.iterdir() if not item.name.startswith("."))
    if foreign:
        raise ValueError(
            f"{folder}: holds files that are not a run ({', '.join(foreign[:3])}"
            f"{', ...' if len(foreign) > 3 else ''}); choose another --output."
        )


def _refuse_finished(folder: Path, overwrite: bool, resume: bool) -> None:
    run = Run(folder)
    if overwrite or not _is_run(folder) or (resume and run.begun):
        return
    if run.finished or run.begun or run.model_path.exists():
        state = "a finished run" if run.finished else "an unfinished run that cost work"
        raise ValueError(
            f"{folder}: holds {state}; choose another --output, or replace it with --overwrite."
        )


def _refuse_linked(folder: Path) -> None:
    """What is drawn must not land elsewhere: a run that somebody else made may hold links."""
    pictures = folder / "pictures"
    if pictures.is_symlink() or (pictures.exists() and not pictures.is_dir()):
        raise ValueError(
            f"{pictures}: is a link or a file where the run's own folder belongs; remove it."
        )


def _refuse_unwritable(folder: Path) -> None:
    nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _remove_run_files(folder: Path) -> None:
    pictures = folder / "pictures"
    # A link may lead to pictures that belong to someone else; it goes, and what it leads to stays.
    drawn = [pictures]
    if not pictures.is_symlink():
        drawn = [*pictures.glob("*.png"), pictures / "film.gif", *list_partials(pictures)]
    # A card that somebody changed is theirs, and stays.
    card = [folder / seals.CARD] if seals.is_untouched(folder / seals.CARD) else []
    for path in [*(folder / name for name in _FILES), *card, *drawn, *list_partials(folder)]:
        path.unlink(missing_ok=True)
