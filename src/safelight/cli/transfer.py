"""`safelight transfer train|evaluate|predict`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from safelight.cli import console
from safelight.cli.flags import with_config_flags
from safelight.cli.runs import Json, print_numbers, print_results
from safelight.datasets import ImageDataset
from safelight.runs import Run
from safelight.transfer.config import TrainConfig

if TYPE_CHECKING:
    import numpy as np

app = typer.Typer(
    help="Make a classifier from a pretrained network and a folder of pictures.",
    no_args_is_help=True,
)

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA", help="`elpv`, `mnist`, or a folder with a sub-folder of pictures per class."
    ),
]
RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="A folder that `transfer train` made.")
]
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

_MAX_LINES = 10


def load_data(data: str, *, strict: bool = False, threshold: float = 0.5) -> ImageDataset:
    """A known data set by its name, or a folder; what was left out is told."""
    from safelight import datasets

    if data in ("elpv", "mnist") and not Path(data).is_dir():
        console.fetch(data)
        return datasets.load(data, threshold=threshold)
    dataset = datasets.from_directory(data, strict=strict)
    _tell_problems(dataset)
    return dataset


def _tell_problems(dataset: ImageDataset) -> None:
    for problem in dataset.problems[:_MAX_LINES]:
        console.remark(f"left out: {console.printable(problem)}")
    if len(dataset.problems) > _MAX_LINES:
        console.remark(f"... and {len(dataset.problems) - _MAX_LINES} more")
    if dataset.problems:
        console.remark(f"{len(dataset.problems)} files left out, {len(dataset)} pictures remain")
    if dataset.duplicates:
        number = sum(len(cluster) for cluster in dataset.duplicates)
        console.remark(
            f"{number} pictures have a duplicate ({len(dataset.duplicates)} groups); "
            "a group never straddles the split"
        )
    for cluster in dataset.conflicting_duplicates[:_MAX_LINES]:
        names = " = ".join(console.printable(dataset.files[i]) for i in cluster)
        console.remark(f"the same picture in different classes: {names}")
    if len(dataset.conflicting_duplicates) > _MAX_LINES:
        console.remark(f"... and {len(dataset.conflicting_duplicates) - _MAX_LINES} more of these")


@app.command(short_help="Train a classifier; leaves a run folder.")
@with_config_flags
def train(
    data: Data,
    output: Annotated[Path, typer.Option(metavar="RUN", help="The run folder to make.")],
    settings: TrainConfig,
    split: Annotated[
        Literal["stratified", "grouped"],
        typer.Option(help="`grouped` also keeps neighbours together (elpv: blocks of 60 cells)."),
    ] = "stratified",
    test_fraction: Annotated[
        float, typer.Option(help="Share of the pictures that only judge.")
    ] = 0.25,
    validation_fraction: Annotated[
        float, typer.Option(help="Share of the pictures that decide when to stop.")
    ] = 0.1,
    threshold: Threshold = 0.5,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run in that folder.")
    ] = False,
    strict: Strict = False,
) -> None:
    """Train a classifier and leave a run folder: model, numbers with intervals, pictures.

    Pictures that cannot be read are named and left out. Ctrl-C during fine-tuning keeps the best
    weights so far, finishes the run and exits with 130.
    """
    from safelight import datasets

    # In this order mistakes show soon: the folders first, Keras (seconds) after them.
    Run.check(output, overwrite=overwrite)
    dataset = load_data(data, strict=strict, threshold=threshold)
    splits = datasets.split(
        dataset,
        test_fraction=test_fraction,
        validation_fraction=validation_fraction,
        seed=settings.seed,
        strategy=split,
    )
    console.start_keras()
    from safelight.transfer.experiment import run_training

    _check(settings)
    run = Run.create(output, overwrite=overwrite)
    with console.progress() as report:
        metrics = run_training(run, splits, settings, dataset=dataset, report=report)
    print_results(run)
    console.say(f"run               {console.printable(run.path)}")
    if metrics["protocol"]["interrupted"]:
        raise typer.Exit(130)


def _check(settings: TrainConfig) -> None:
    """Finds what would stop the training before an older run gives way to it."""
    from safelight.transfer.backbones import find_backbone, load_backbone
    from safelight.transfer.feature_cache import FeatureCache
    from safelight.transfer.plan import Plan

    network = load_backbone(settings.backbone, image_size=settings.image_size, weights=None)
    Plan.make(network, settings)
    FeatureCache()
    if settings.pretrained:
        console.fetch(find_backbone(settings.backbone).weights)


@app.command(short_help="Judge a run's model on other pictures.")
def evaluate(
    run: RunFolder,
    data: Data,
    as_json: Json = False,
    strict: Strict = False,
    threshold: Threshold = 0.5,
) -> None:
    """Judge a run's model on those pictures of DATA that it was not trained or chosen on."""
    opened, _ = _open(run)
    console.start_keras()
    from safelight.transfer import evaluation, experiment

    with _damage(run):
        config = experiment.settings_of(opened)
    dataset, left_out = experiment.unseen_part(
        opened, load_data(data, strict=strict, threshold=threshold)
    )
    model = experiment.load_classifier(opened)
    with console.progress() as report:
        judged = evaluation.evaluate(
            model,
            dataset,
            config=config,
            progress=lambda done, total: report("evaluating", done, total, ""),
        )
    result = {**judged.to_dict(), "num_left_out": left_out, "data": dataset.name}
    if as_json:
        console.print_json(result)
        return
    print_numbers(result)
    seen = f"; {left_out} left out because training had seen them" if left_out else ""
    console.say(f"on {result['num_test']} pictures{seen}")


@app.command(short_help="Say what is on pictures.")
def predict(
    run: RunFolder,
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE", help="Pictures, or folders of pictures.")
    ],
    as_json: Json = False,
) -> None:
    """Say what is on pictures: a line for each with its file, class and probability.

    A file that cannot be read is one line on standard error, and the others are answered. Exits
    with 0 if all were answered, with 1 if some were, with 2 if none.
    """
    opened, names = _open(run)
    console.start_keras()
    from safelight.transfer import evaluation, experiment

    with _damage(run):
        experiment.settings_of(opened)
    model = experiment.load_classifier(opened)
    if model.output_shape[-1] != len(names):
        raise ValueError(f"{run}: damaged, its model does not know the {len(names)} classes.")
    answers: list[dict[str, Any]] = [{"file": str(file)} for file in _files(images)]
    with console.progress() as report:
        rows = evaluation.predict(model, _read_pictures(answers, report))
    answered = [answer for answer in answers if "error" not in answer]
    for answer, row in zip(answered, rows, strict=True):
        probabilities = {name: float(p) for name, p in zip(names, row, strict=True)}
        answer |= {"prediction": names[int(row.argmax())], "probabilities": probabilities}
    if as_json:
        console.print_json(answers)
    else:
        _say_answers(answered)
    if not answered:
        raise ValueError(
            "no picture could be read: expected image files or folders that hold some."
        )
    if len(answered) < len(answers):
        raise typer.Exit(1)


def _say_answers(answers: list[dict[str, Any]]) -> None:
    for answer in answers:
        best = answer["prediction"]
        file, name = console.printable(answer["file"]), console.printable(best)
        console.say(f"{file}  {name}  {answer['probabilities'][best]:.1%}")


def _open(path: Path) -> tuple[Run, list[str]]:
    """A run with a model, and its class names; cheap, so that mistakes show before Keras loads."""
    opened = Run.open(path)
    if not opened.model_path.is_file():
        raise ValueError(f"{path}: training did not finish, there is no model; train it again.")
    with _damage(path):
        return opened, [str(name) for name in opened.config["dataset"]["class_names"]]


@contextlib.contextmanager
def _damage(run: Path) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{run}: config.json is damaged ({error}); train the run again."
        ) from error


def _read_pictures(answers: list[dict[str, Any]], report: console.Report) -> Iterator[np.ndarray]:
    """Yields the pictures that decode, one by one; the entries of others get their `error`."""
    from safelight.images import ImageError, read_image

    for number, answer in enumerate(answers, start=1):
        try:
            picture = read_image(answer["file"])
        except ImageError as error:
            answer["error"] = error.reason
            name, reason = console.printable(answer["file"]), console.printable(error.reason)
            console.remark(f"{name}: {reason}")
        else:
            yield picture
        report("predicting", number, len(answers), "")


def _files(paths: list[Path]) -> list[Path]:
    from safelight.folders import walk

    return [file for path in paths for file in (walk(path) if path.is_dir() else [path])]
