"""Pictures of where answers come from: `safelight transfer predict RUN IMAGE --explain DIR`."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safelight.cli import console

if TYPE_CHECKING:
    import keras

    from safelight.transfer.references import References

Explain = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Write a picture for each into this folder that shows where in it the answer comes "
        "from (Grad-CAM).",
    ),
]
Check = Annotated[
    bool,
    typer.Option(
        "--check",
        help="With --explain: also cover each picture patch by patch, and say how far what is "
        "missed then agrees with the map (many times as long).",
    ),
]
Replace = Annotated[
    bool,
    typer.Option(
        "--overwrite", help="With --explain or --output: replace what is there by these names."
    ),
]

_MAX_BYTES = 150  # of a stem; file systems take 255 for a name, and a partial file has a longer one
_SUFFIX = "-explained"


def name_pictures(folder: Path, files: Sequence[Path], *, overwrite: bool) -> list[Path]:
    """Where the picture of each file goes; makes the folder, so that mistakes show early.

    Raises:
        ValueError: A file is there already, or a picture to be explained would be replaced.
    """
    stems: dict[str, int] = {}
    targets = []
    for file in files:
        stem = _short(file.stem)
        key = stem.casefold()  # x and X are one name to some file systems
        stems[key] = stems.get(key, 0) + 1
        number = f"-{stems[key]}" if stems[key] > 1 else ""
        targets.append(folder / f"{stem}{_SUFFIX}{number}.png")
    _refuse_to_replace(folder, files, targets, overwrite=overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    return targets


def _short(stem: str) -> str:
    if len(os.fsencode(stem)) <= _MAX_BYTES:
        return stem
    return os.fsencode(stem)[:_MAX_BYTES].decode("utf-8", "ignore")  # no half of a letter


def _refuse_to_replace(
    folder: Path, files: Sequence[Path], targets: Sequence[Path], *, overwrite: bool
) -> None:
    shown = console.printable(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--explain {shown}: is a file; expected a folder, or a new name for one.")
    asked = {file.resolve() for file in files}
    for target in targets:
        name = console.printable(target.name)
        if target.resolve() in asked:
            raise ValueError(
                f"--explain {shown}: {name} is one of the pictures to be explained; expected "
                "another folder, so that it stays."
            )
        if target.exists() and not overwrite:
            raise ValueError(
                f"--explain {shown}: holds {name} already; expected another folder, or "
                "--overwrite to replace it."
            )


def write_explanations(
    model: keras.Model,
    usual: References | None,
    answers: Sequence[dict[str, Any]],
    targets: Sequence[Path],
    report: console.Report,
    *,
    check: bool,
) -> None:
    """Draws each answer; adds to it where its `explanation` is, and its `agreement` if checked.

    Args:
        model: The classifier.
        usual: What the maps are drawn against, if the run has some.
        answers: With `file`, `prediction` and `probabilities`.
        targets: A file for each.
        report: Told how far it is.
        check: Whether to cover the pictures, too.
    """
    from safelight import plots
    from safelight.images import read_image
    from safelight.transfer.explanations import Explainer
    from safelight.transfer.occlusion import Occluder, rank_agreement

    explainer = Explainer(model, references=usual)
    occluder = Occluder(model) if check else None
    # One by one: a folder of large pictures never lies in memory as a whole.
    for number, (answer, target) in enumerate(zip(answers, targets, strict=True), start=1):
        picture, best = read_image(answer["file"]), _most_probable(answer)
        found = explainer.explain([picture], [best]).maps
        covered = None if occluder is None else occluder.cover(picture, best)
        answer["explanation"] = str(target)
        if covered is not None:
            agreement = rank_agreement(found[0], covered)
            answer["agreement"] = None if math.isnan(agreement) else agreement
        # A patch is an unusual sight wherever it lies: what counts is where it costs more.
        occlusions = None if covered is None else [covered.map - covered.drops.mean()]
        figure = plots.plot_explanations(
            [picture], found, titles=[_title(answer)], occlusions=occlusions
        )
        plots.save_figure(figure, target)
        report("explaining", number, len(answers), "")


def _most_probable(answer: dict[str, Any]) -> int:
    probabilities = list(answer["probabilities"].values())
    return probabilities.index(max(probabilities))


def _title(answer: dict[str, Any]) -> str:
    """File, class and probability, and how far covering agrees."""
    name = list(answer["probabilities"])[_most_probable(answer)]
    said = f"{name}, {answer['probabilities'][name]:.1%}"
    if answer["prediction"] is None:
        said = f"none of these (nearest: {said})"
    lines = [Path(answer["file"]).name, said]
    if "agreement" in answer:
        lines.append(f"map and covering agree: {say_agreement(answer['agreement'])}")
    return "\n".join(console.printable(line) for line in lines)


def say_agreement(agreement: float | None) -> str:
    """A rank correlation with its sign; `None` where a map or the answers were flat."""
    return "nothing to rank" if agreement is None else f"{agreement:+.2f} of 1"
