"""`safelight transfer train|evaluate|predict`."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import typer

from safelight.cli import console
from safelight.cli.runs import Json, print_results
from safelight.datasets import ImageDataset
from safelight.transfer.config import TrainConfig

app = typer.Typer(
    help="From a pretrained network and a folder of pictures to a classifier.", no_args_is_help=True
)

Data = Annotated[
    str,
    typer.Argument(help="`elpv`, `mnist`, or a folder with one sub-folder of pictures per class."),
]
RunFolder = Annotated[Path, typer.Argument(help="A folder that `transfer train` made.")]
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


def load_data(data: str, *, strict: bool = False, threshold: float = 0.5) -> ImageDataset:
    """A known data set by its name, or a folder; what was left out is told."""
    from safelight import datasets

    if data in ("elpv", "mnist") and not Path(data).is_dir():
        return datasets.load(data, threshold=threshold)
    dataset = datasets.from_directory(data, strict=strict)
    _tell_problems(dataset)
    return dataset


def _tell_problems(dataset: ImageDataset) -> None:
    for problem in dataset.problems[:10]:
        console.err.print(f"left out: {problem}", markup=False)
    if len(dataset.problems) > 10:
        console.err.print(f"... and {len(dataset.problems) - 10} more", markup=False)
    if dataset.problems:
        console.err.print(
            f"{len(dataset.problems)} files left out, {len(dataset)} pictures remain", markup=False
        )
    if dataset.duplicates:
        number = sum(len(cluster) for cluster in dataset.duplicates)
        console.err.print(
            f"{number} pictures are duplicates of each other, in {len(dataset.duplicates)} clusters; "
            "each cluster stays in one part of the split",
            markup=False,
        )
    for cluster in dataset.conflicting_duplicates[:10]:
        names = ", ".join(
            f"{dataset.files[i]} ({dataset.class_names[dataset.labels[i]]})" for i in cluster
        )
        console.err.print(f"the same picture in different classes: {names}", markup=False)


def _flags_from_config(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command one option per field of `TrainConfig`, described by its docstring."""
    descriptions = _descriptions(TrainConfig.__doc__ or "")
    hints = get_type_hints(TrainConfig)
    own = [
        p
        for p in inspect.signature(command, eval_str=True).parameters.values()
        if p.name != "settings"
    ]
    flags = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=list(field.default) if isinstance(field.default, tuple) else field.default,
            annotation=_annotation(hints[field.name], descriptions.get(field.name, "")),
        )
        for field in dataclasses.fields(TrainConfig)
    ]

    def wrapped(**values: Any) -> None:
        settings = {field.name: values.pop(field.name) for field in dataclasses.fields(TrainConfig)}
        settings["head_layers"] = tuple(settings["head_layers"] or ())
        if settings["unfreeze_from"] == "none":
            settings["unfreeze_from"] = None
        command(settings=TrainConfig(**settings), **values)

    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + flags
    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapped


def _annotation(hint: Any, description: str) -> Any:
    kind = list[str] if hint == tuple[str, ...] else hint
    return Annotated[kind, typer.Option(help=description)]


def _descriptions(docstring: str) -> dict[str, str]:
    """The `name: text` entries of a docstring's Attributes section, continuation lines joined."""
    entries = docstring.rsplit("Attributes:", maxsplit=1)[-1]
    found = re.findall(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", entries, flags=re.MULTILINE)
    return {name: " ".join(text.split()).replace("`", "") for name, text in found}


@app.command()
@_flags_from_config
def train(
    data: Data,
    output: Annotated[Path, typer.Option(help="The run folder to make.")],
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
    """Trains a classifier and leaves a run folder: model, numbers with intervals, pictures.

    Use `--unfreeze-from none` to train only the head, `--no-pretrained` for the same network from
    scratch.
    """
    console.start_keras()
    from safelight import datasets
    from safelight.runs import Run
    from safelight.transfer.experiment import run_training

    dataset = load_data(data, strict=strict, threshold=threshold)
    splits = datasets.split(
        dataset,
        test_fraction=test_fraction,
        validation_fraction=validation_fraction,
        seed=settings.seed,
        strategy=split,
    )
    run = Run.create(output, overwrite=overwrite)
    with console.progress() as report:
        run_training(run, splits, settings, dataset=dataset, report=report)
    print_results(run)
    console.say(f"run               {run.path}")


@app.command()
def evaluate(
    run: RunFolder,
    data: Data,
    as_json: Json = False,
    strict: Strict = False,
    threshold: Threshold = 0.5,
) -> None:
    """Judges a run's model on those pictures of DATA that it was not trained or chosen on."""
    console.start_keras()
    from safelight.runs import Run
    from safelight.transfer import evaluation, experiment

    opened = Run.open(run)
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
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "roc_auc"):
        console.say(f"{name.replace('_', ' '):<18}{console.percent(result[name])}")
    loss = result["loss"]
    console.say(
        f"{'loss':<18}{loss['value']:.3f} [{loss['low']:.3f}, {loss['high']:.3f}] nats per image"
    )
    console.say(
        f"on {result['num_test']} pictures; {left_out} left out because training had seen them"
    )


@app.command()
def predict(
    run: RunFolder,
    images: Annotated[list[Path], typer.Argument(help="Pictures, or folders of pictures.")],
    as_json: Json = False,
) -> None:
    """Says what is on pictures; a bad file is one line of error, the others are answered."""
    console.start_keras()
    from safelight.runs import Run
    from safelight.transfer import evaluation, experiment

    opened = Run.open(run)
    names = opened.config["dataset"]["class_names"]
    experiment.settings_of(opened)
    pictures, answers = _read_pictures(images)
    model = experiment.load_classifier(opened) if pictures else None
    rows = evaluation.predict(model, [pixels for _, pixels in pictures]) if model else []
    for (file, _), row in zip(pictures, rows, strict=True):
        probabilities = {name: float(p) for name, p in zip(names, row, strict=True)}
        best = max(probabilities, key=probabilities.__getitem__)
        answers.append({"file": file, "prediction": best, "probabilities": probabilities})
        if not as_json:
            console.say(f"{file}  {best}  {probabilities[best]:.1%}")
    if as_json:
        console.print_json(answers)
    if not pictures:
        raise ValueError(
            "no picture could be read: expected image files or folders that hold some."
        )


def _read_pictures(paths: list[Path]) -> tuple[list[tuple[str, Any]], list[dict[str, Any]]]:
    """Decoded pictures by name, and an entry for each file that could not be read."""
    from safelight.images import ImageError, read_image

    pictures, failures = [], []
    for path in _files(paths):
        try:
            pictures.append((str(path), read_image(path)))
        except ImageError as error:
            failures.append({"file": str(path), "error": error.reason})
            console.err.print(f"{path}: {error.reason}", markup=False)
    return pictures, failures


def _files(paths: list[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = (p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
            found += sorted(inside)
        else:
            found.append(path)
    return found
