"""A trained generative model and its pictures, as the commands of `vae` and `gan` name them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from safelight.backend_choice import kind_of_work
from safelight.cli import console
from safelight.cli.data import (
    damage,
    is_known,
    leave,
    list_files,
    open_trained,
    read_pictures,
)
from safelight.datasets import ImageDataset, Splits
from safelight.runs import Run

if TYPE_CHECKING:
    import numpy as np

    from safelight.gan.config import TrainConfig as GanConfig
    from safelight.gan.models import GAN
    from safelight.generative.pictures import Parts
    from safelight.vae.config import TrainConfig
    from safelight.vae.models import VAE

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="`mnist`, `fashion-mnist`, `elpv`, or a folder of pictures, with or without classes.",
    ),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A folder that `vae train` made.")]
TestFraction = Annotated[
    float,
    typer.Option(
        help="Share of the pictures that only judge; mnist and fashion-mnist bring theirs."
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Decides the draw.")]
NumDrawn = Annotated[
    int,
    typer.Option(
        min=1,
        help="How many; of a conditional model without --label, side by side, as many of every "
        "class.",
    ),
]
DrawnOutput = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        help="FILE.png for all of them side by side, or a folder for a file each. By default "
        "a file among the run's pictures.",
    ),
]
ReconstructedOutput = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.png",
        help="Originals above what became of them. By default among the run's pictures.",
    ),
]
Temperature = Annotated[
    float, typer.Option(min=0, help="Below 1 pictures are more typical and less varied.")
]

_MAX_SHOWN = 24


def open_vae(path: Path) -> Run:
    """A trained run of a variational autoencoder; cheap, before Keras loads."""
    return open_kind(path, "vae")


def open_kind(path: Path, *kinds: str) -> Run:
    """A trained run of one of these kinds; cheap, before Keras loads."""
    opened = open_trained(path)
    found = opened.config.get("kind")
    if found not in kinds:
        makers = " or ".join(f"`{kind} train`" for kind in kinds)
        raise ValueError(f"{path} is a run of kind {found!r}: expected one that {makers} made.")
    return opened


def can_encode(run: Run) -> bool:
    """Whether a generative model has places for pictures: a GAN without an encoder has none."""
    with damage(run.path):
        return run.config["kind"] == "vae" or bool(run.config["settings"].get("autoencoder"))


def name_source(data: str, output: Path) -> str:
    """Where the data can be found again, as seen from the run's folder: no path of somebody's."""
    if is_known(data):
        return data
    with contextlib.suppress(ValueError):  # on Windows another drive has no relative path
        return Path(os.path.relpath(Path(data).resolve(), output.resolve())).as_posix()
    return ""


def find_source(run: Run) -> str:
    """The data set that a run was trained on: its name, or its folder.

    Raises:
        ValueError: It is not where it was.
    """
    with damage(run.path):
        source = run.config["dataset"]["source"]
        name = run.config["dataset"]["name"]
    if is_known(source):
        return source
    from safelight.generative import pictures

    folder = pictures.source_folder(run, source)
    if folder is None:
        raise ValueError(
            f"the pictures of {name} are not where {run.path} was trained on them: put them "
            "back, or name their folder where a command takes it (`vae evaluate RUN DATA`, `gan "
            "evaluate RUN --data DATA`)."
        )
    return str(folder.resolve())


def class_names_of(run: Run) -> list[str]:
    """The classes that a run was trained on; none if it was not told them."""
    with damage(run.path):
        return [str(name) for name in run.config["dataset"]["class_names"]]


def labels_of(run: Run, dataset: ImageDataset) -> np.ndarray:
    """The labels of pictures for a conditional model, which must know their classes."""
    from safelight.generative import pictures

    pictures.check_classes(dataset, run, class_names_of(run))
    return dataset.labels


def load_parts(
    dataset: ImageDataset,
    settings: TrainConfig | GanConfig,
    *,
    test_fraction: float,
    check: Callable[[Any, ImageDataset, Splits], None] | None = None,
) -> Parts:
    """A data set dealt out, checked against the settings and read.

    How the size of pictures was chosen is told.
    """
    from safelight.generative import pictures

    splits = pictures.split(dataset, test_fraction=test_fraction, seed=settings.seed)
    if check is not None:
        check(settings, dataset, splits)
    with console.progress() as report:
        parts = pictures.load_parts(
            dataset,
            splits,
            settings.image_size,
            progress=lambda done, total: report("reading", done, total, ""),
        )
    if parts.note:
        console.remark(parts.note)
    return parts


def start_training(
    output: Path, architecture: str, *, overwrite: bool = False, devices: int = 1
) -> None:
    """Loads Keras on the backend that suits a training, or that it was begun with.

    Args:
        output: The run folder, which may hold the training's beginning.
        architecture: Of what is to be trained.
        overwrite: Whether it begins anew in any case.
        devices: Among which it is shared.
    """
    before = None
    if not overwrite and Run(output).begun:
        with contextlib.suppress(ValueError):  # without environment.json nobody knows
            before = Run(output).environment.get("backend")
    console.start_keras(kind_of_work(architecture), training=True, before=before, devices=devices)


def load_array(model: VAE, dataset: ImageDataset, report: console.Report) -> np.ndarray:
    """All pictures in the model's size and channels."""
    from safelight.generative import pictures

    height, width, channels = model.image_shape
    return pictures.load_images(
        dataset,
        (height, width),
        channels=channels,
        progress=lambda done, total: report("reading", done, total, ""),
    ).images


def answers_for(images: Sequence[Path]) -> list[dict[str, Any]]:
    """A mapping for each picture named, or found in a folder named, with its `file`."""
    return [{"file": str(file)} for file in list_files(images)]


def read_sized(
    model: VAE | GAN, answers: list[dict[str, Any]], report: console.Report
) -> np.ndarray:
    """Those of the pictures that decode, in the model's size and channels; perhaps none."""
    import numpy as np

    from safelight.generative import pictures

    height, width, channels = model.image_shape
    mode: Literal["L", "RGB"] = "L" if channels == 1 else "RGB"
    found = [
        pictures.fit_picture(picture, (height, width))
        for picture in read_pictures(answers, report, "reading", mode=mode)
    ]
    return np.stack(found) if found else np.zeros((0, *model.image_shape), np.uint8)


def read_ends(model: VAE | GAN, ends: Sequence[Path], report: console.Report) -> np.ndarray:
    """Two pictures, between which to walk.

    Raises:
        ValueError: One of them cannot be read.
    """
    found = read_sized(model, [{"file": str(file)} for file in ends], report)
    if len(found) < 2:
        raise ValueError("a walk needs two pictures that can be read: see above.")
    return found


def show_reconstructions(
    answers: list[dict[str, Any]],
    originals: np.ndarray,
    decode: Callable[[], tuple[np.ndarray, Mapping[str, np.ndarray]]],
    path: Path,
    *,
    as_json: bool,
) -> None:
    """Draws originals above what became of them, says how far they are apart, and ends the command.

    Args:
        answers: As `read_sized` left them.
        originals: Those pictures that it read, uint8.
        decode: Gives what became of them, floats in [0, 1]; and, where there are some, `"elbo"` and
            its parts, `(n,)` each in nats. Not called where there are no originals.
        path: Of the picture.
        as_json: Whether to print the answers as JSON.
    """
    from safelight import plots

    answered = [answer for answer in answers if "error" not in answer]
    if answered:
        decoded, bounds = decode()
        for i, answer in enumerate(answered):
            answer |= {name: float(values[i]) for name, values in bounds.items()}
            error = decoded[i] - originals[i] / 255
            answer["reconstruction_error"] = float((error**2).mean() ** 0.5)
        figure = plots.plot_reconstructions(originals[:_MAX_SHOWN], decoded[:_MAX_SHOWN])
        save_picture(figure, path, quiet=as_json)
    if as_json:
        console.print_json(answers)
    else:
        for answer in answered:
            bound = f"ELBO {answer['elbo']:.1f} nats, " if "elbo" in answer else ""
            name = console.printable(answer["file"])
            console.say(f"{name}  {bound}error {answer['reconstruction_error']:.3f}")
    leave(answers)


def check_output(path: Path | None, *endings: str) -> None:
    """Refuses a file that cannot be written, before anything is computed for it."""
    if path is None:
        return
    if path.suffix.lower() not in endings:
        raise ValueError(f"--output {path}: expected a name that ends in {' or '.join(endings)}.")
    if path.is_dir():
        raise ValueError(f"--output {path}: a folder is in the way; choose another name.")
    if not path.parent.is_dir():
        raise ValueError(
            f"--output {path}: there is no folder {path.parent}; make it first, or choose another."
        )


def check_pictures_output(path: Path) -> None:
    """As `check_output` where a folder will do as well, which is made if it is not there."""
    other_pictures = (".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".svg", ".pdf")
    if path.suffix.lower() == ".png":
        check_output(path, ".png")
    elif path.suffix.lower() in other_pictures or path.is_file():
        raise ValueError(f"--output {path}: expected a name that ends in .png, or a folder.")


def name_drawn(seed: int, label: str | None, temperature: float, drawn_from: str = "") -> str:
    """Of a file among the run's pictures: another draw does not take its place."""
    asked = [f"samples{drawn_from}-seed{seed}"]
    if label is not None:
        asked.append(as_file_name(label))
    if temperature != 1:
        asked.append(f"temperature{temperature:g}")
    return "-".join(asked)


def as_file_name(label: str) -> str:
    """A class in the name of a file."""
    return label.replace("/", "_").replace("\\", "_")


def save_drawn(path: Path, draw_figure: Callable[[], Any], draw: Callable[[], np.ndarray]) -> None:
    """What a model draws: a .png of all side by side, or a folder with a file for each."""
    from safelight.generative import pictures

    if path.suffix.lower() == ".png":
        save_picture(draw_figure(), path)
        return
    drawn = draw()
    pictures.save_images(path, drawn, name="sample")
    console.say(f"{len(drawn)} pictures in {console.printable(path)}")


def number_of(run: Run, label: str | None) -> int | None:
    """The number of a class; `None` where none was named."""
    names = class_names_of(run)
    with damage(run.path):
        conditional = bool(run.config["settings"]["conditional"])
    if label is None:
        return None
    if not conditional:
        raise ValueError(f"--label {label}: {run.path} is not conditional; leave the label out.")
    if label not in names:
        raise ValueError(f"--label {label}: expected one of {', '.join(names)}.")
    return names.index(label)


def save_picture(figure: Any, path: Path, *, quiet: bool = False) -> None:
    """Writes a figure into a file and says where."""
    from safelight import plots

    plots.save_figure(figure, path)
    if not quiet:
        console.say(f"picture           {console.printable(path)}")
