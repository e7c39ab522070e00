"""What users name on the command line: DATA, pictures and runs, each read with its own words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from safelight.cli import console
from safelight.datasets import NAMES, ImageDataset
from safelight.runs import Run

if TYPE_CHECKING:
    import numpy as np

NewRun = Annotated[Path, typer.Option(metavar="RUN", help="The run folder to make.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the run in that folder.")]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict", help="Stop at a file that is no sound picture, instead of leaving it out."
    ),
]
Threshold = Annotated[
    float,
    typer.Option(help="elpv: a cell counts as defective if its probability of that is above this."),
]
Groups = Annotated[
    str | None,
    typer.Option(
        metavar="RULE",
        help="What pictures have in common that belong together (a patient, a module, a scene), "
        "so that no split parts them: a regular expression with one pair of parentheses, looked "
        "for in names such as `cats/tom_1.jpg` ('/([a-z]+)_'), or a .csv file with the columns "
        "file and group.",
    ),
]
Images = Annotated[
    list[Path], typer.Argument(metavar="IMAGE", help="Pictures, or folders of pictures.")
]

_MAX_LINES = 10
TRAINED_KINDS = ("transfer", "vae", "gan")  # that keep a model


def is_known(data: str) -> bool:
    """Whether this names a known data set; a folder of that name in sight comes first."""
    return data in NAMES and not Path(data).is_dir()


def load_data(
    data: str, *, strict: bool = False, threshold: float = 0.5, groups: str | None = None
) -> ImageDataset:
    """A known data set by its name, or a folder of classes; what was left out is told.

    Raises:
        ValueError: It cannot be read, or groups are named of a known data set.
    """
    from safelight import datasets

    if is_known(data):
        if groups is not None:
            raise ValueError(
                f"--groups {groups}: is for a folder of pictures; {data} brings what it knows "
                "(elpv: --split grouped)."
            )
        console.fetch(data)
        return datasets.load(data, threshold=threshold)
    dataset = datasets.from_directory(data, strict=strict, groups=groups)
    _tell_problems(dataset)
    if dataset.groups is not None:
        console.remark(f"{len(dataset)} pictures in {dataset.groups.max() + 1} groups")
    return dataset


def find_strategy(split: str | None, groups: str | None) -> Any:
    """How pictures are dealt out: as was asked, else with groups kept together if they are told."""
    return split or ("stratified" if groups is None else "grouped")


def load_pictures(data: str, *, strict: bool = False) -> ImageDataset:
    """A known data set by its name, or a folder with or without classes."""
    from safelight import datasets

    if is_known(data):
        console.fetch(data)
        return datasets.load(data)
    dataset = None
    # The many pictures of a folder without classes are not to be looked into twice.
    if _num_folders(Path(data)) >= 2:
        with contextlib.suppress(ValueError):
            dataset = datasets.from_directory(data, strict=strict)
    if dataset is None:
        dataset = datasets.from_directory(data, strict=strict, labels=False)
        console.remark(
            "read without labels: sub-folders of at least 4 pictures, one for each of two or more "
            "classes, would be taken for them"
        )
    _tell_problems(dataset)
    return dataset


def _num_folders(root: Path) -> int:
    visible = (path for path in root.glob("*") if not path.name.startswith("."))
    return sum(path.is_dir() for path in visible)


def _tell_problems(dataset: ImageDataset) -> None:
    for problem in dataset.problems[:_MAX_LINES]:
        console.remark(f"left out: {console.printable(problem)}")
    if len(dataset.problems) > _MAX_LINES:
        console.remark(f"... and {len(dataset.problems) - _MAX_LINES} more")
    if dataset.problems:
        console.remark(f"{len(dataset.problems)} files left out, {len(dataset)} pictures remain")
    if dataset.duplicates:
        number = sum(len(cluster) for cluster in dataset.duplicates)
        kept = "" if dataset.parts else "; a group never straddles the split"
        console.remark(
            f"{number} pictures have a duplicate ({len(dataset.duplicates)} groups){kept}"
        )
    for cluster in dataset.conflicting_duplicates[:_MAX_LINES]:
        names = " = ".join(console.printable(dataset.files[i]) for i in cluster)
        console.remark(f"the same picture in different classes: {names}")
    if len(dataset.conflicting_duplicates) > _MAX_LINES:
        console.remark(f"... and {len(dataset.conflicting_duplicates) - _MAX_LINES} more of these")


def tell_groups(run: Run, everything: ImageDataset, unseen: ImageDataset, *, told: bool) -> None:
    """Says where unseen pictures belong to what a run has seen, or nobody knows where they belong.

    Args:
        run: A run.
        everything: With groups, all pictures that were named.
        unseen: Those that judge.
        told: Whether groups were told, or brought along, and not those that the run remembers.
    """
    from safelight import known_pictures

    if related := known_pictures.count_related(run, everything, unseen):
        console.remark(
            f"{related} of {len(unseen)} pictures are of groups that training has seen others of: "
            "numbers are too good for new groups"
        )
    strangers = 0 if told else known_pictures.count_strangers(run, unseen)
    if strangers:
        console.remark(
            f"of {strangers} pictures the run knows no group, and each counts as one of its own: "
            "--groups tells them"
        )


def list_files(paths: Sequence[Path]) -> list[Path]:
    """The files that were named, folders replaced by what they hold."""
    from safelight.folders import walk

    return [file for path in paths for file in (walk(path) if path.is_dir() else [path])]


def read_pictures(
    answers: Sequence[dict[str, Any]],
    report: console.Report,
    stage: str,
    *,
    mode: Literal["RGB", "L"] = "RGB",
) -> Iterator[np.ndarray]:
    """Yields the pictures that decode, one by one; the entries of others get their `error`.

    Args:
        answers: A mapping per picture, with its `file`; bad ones are named on standard error.
        report: Told how far it is.
        stage: What it is called there.
        mode: Colour or grey.
    """
    from safelight.images import ImageError, read_image

    for number, answer in enumerate(answers, start=1):
        try:
            picture = read_image(answer["file"], mode=mode)
        except ImageError as error:
            answer["error"] = error.reason
            name, reason = console.printable(answer["file"]), console.printable(error.reason)
            console.remark(f"{name}: {reason}")
        else:
            yield picture
        report(stage, number, len(answers), "")


def leave(answers: Sequence[dict[str, Any]]) -> None:
    """Ends a command on pictures: 0 if all were answered, 1 if some were, 2 if none.

    Raises:
        ValueError: None was.
    """
    num_bad = sum("error" in answer for answer in answers)
    if num_bad == len(answers):
        raise ValueError(
            "no picture could be read: expected image files or folders that hold some."
        )
    if num_bad:
        raise typer.Exit(1)


def open_trained(path: Path) -> Run:
    """A run with a model; cheap, so that mistakes show before Keras loads.

    Raises:
        ValueError: There is none.
    """
    opened = Run.open(path)
    if not opened.model_path.is_file():
        kind = opened.config.get("kind")
        if opened.finished and kind not in TRAINED_KINDS:
            raise ValueError(f"{path}: a run of kind {kind!r} keeps no model; train one.")
        raise ValueError(f"{path}: training did not finish, there is no model; train it again.")
    return opened


@contextlib.contextmanager
def damage(run: Path | str) -> Iterator[None]:
    """Says in a sentence that a run, or one of two, has a config.json that lacks something."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError, ArithmeticError) as error:
        raise ValueError(
            f"{run}: config.json is damaged ({error}); train the run again."
        ) from error
