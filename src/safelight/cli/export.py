"""`safelight export`: a run in a form that needs neither Safelight nor a server of ours."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from safelight.cli import console
from safelight.cli.data import (
    Strict,
    Threshold,
    damage,
    is_known,
    load_data,
    load_pictures,
    open_trained,
)
from safelight.cli.trained import can_encode, find_source, open_kind
from safelight.datasets import ImageDataset
from safelight.export.formats import Format, Name, check_installed, find_format
from safelight.runs import Run

if TYPE_CHECKING:
    from safelight.export.parity import Parity

_SHOWN = 2000
_THRESHOLD = 0.5


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A folder that `train` made.")],
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA",
            help="The pictures of a classifier's training, to compare the exported model on those "
            "that it has not seen; `elpv` is found without.",
            show_default=False,
        ),
    ] = None,
    to: Annotated[
        Name | None,
        typer.Option(
            "--format", help="A classifier as a model for other programs.", show_default=False
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="The folder to make, with the model in it.", show_default=False
        ),
    ] = None,
    web: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="An autoencoder or a GAN as a page: the folder to make, with index.html in it.",
            show_default=False,
        ),
    ] = None,
    num_pictures: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Pictures to compare on (500), or training pictures that the page shows (2000), "
            "at most; 0 does without.",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier export in that folder.")
    ] = False,
    strict: Strict = False,
    threshold: Threshold = _THRESHOLD,
) -> None:
    """Write a run for programs that know nothing of Safelight.

    A classifier becomes a model in one of several formats, with its preprocessing and calibration
    inside; both then answer the same pictures, and how far they are apart is told. An autoencoder
    or a GAN becomes a page in which its latent space can be walked: drag, and the decoder runs in
    the browser. That folder can be served by anything, such as `python -m http.server`, and loads
    nothing from elsewhere; training pictures become part of it.
    """
    if (web is None) == (to is None):
        raise ValueError("expected either --web DIR, or --format with --output DIR.")
    if web is not None:
        if output is not None or data is not None:
            raise ValueError("--web DIR: --output and DATA go with --format, for classifiers.")
        if threshold != _THRESHOLD:
            raise ValueError(
                f"--threshold {threshold}: expected --format with it, for classifiers."
            )
        shown = _SHOWN if num_pictures is None else num_pictures
        _write_page(run, web, shown, overwrite=overwrite, strict=strict)
        return
    assert to is not None
    if output is None:
        raise ValueError(f"--format {to}: expected --output DIR with it, the folder to make.")
    load = functools.partial(load_data, strict=strict, threshold=threshold)
    _write_model(run, data, find_format(to), output, num_pictures, load, overwrite=overwrite)


def _write_model(
    run: Path,
    data: str | None,
    row: Format,
    output: Path,
    num_pictures: int | None,
    load: Callable[[str], ImageDataset],
    *,
    overwrite: bool,
) -> None:
    """A classifier in a format, compared with the original."""
    from safelight.export.folders import check_target

    opened = _open_classifier(run)
    check_target(output, overwrite=overwrite)
    check_installed(row)
    dataset = None
    if num_pictures != 0 or row.int8:
        dataset = load(_data_of(opened, data, row))
        _check_labels(opened, dataset, named=data is not None)
    console.start_keras()
    from safelight.export import export_classifier
    from safelight.export.parity import NUM_PICTURES

    with console.progress() as report:
        found = export_classifier(
            run,
            output,
            dataset=dataset,
            to=row.name,
            num_pictures=NUM_PICTURES if num_pictures is None else num_pictures,
            overwrite=overwrite,
            progress=report,
        )
    _say_written("model", output, output)
    if found is None:
        console.remark("no pictures to compare on but two drawn ones, which were answered")
    else:
        _say_parity(found)


def _open_classifier(path: Path) -> Run:
    """A trained classifier; cheap, before Keras loads."""
    opened = open_trained(path)
    kind = opened.config.get("kind")
    if kind != "transfer":
        raise ValueError(
            f"{path} is a run of kind {kind!r}: --format is for those that `transfer train` made; "
            "for an autoencoder or a GAN there is --web DIR."
        )
    return opened


def _data_of(run: Run, data: str | None, row: Format) -> str:
    """What to compare on: as named, or the known data set that the run was trained on."""
    if data is not None:
        return data
    with damage(run.path):
        name = str(run.config["dataset"].get("name", ""))
    if is_known(name):
        return name
    purpose = "to scale 8 bits on them" if row.int8 else "to compare the exported model on them"
    without = "" if row.int8 else ", or do without with --num-pictures 0"
    raise ValueError(
        f"{run.path} was trained on {name!r}: name the folder of these pictures after RUN, "
        f"{purpose}{without}."
    )


def _check_labels(run: Run, dataset: ImageDataset, *, named: bool) -> None:
    """Other labels than in training would give a wrong accuracy, and nobody would see it."""
    if dataset.fingerprint == run.config["dataset"].get("fingerprint"):
        return
    if not named:
        raise ValueError(
            f"{run.path} was trained on other pictures or labels than the known data set "
            f"{dataset.name}: expected the --threshold of its training, or the folder of its "
            "pictures after RUN."
        )
    console.remark("other pictures or labels than those of the run's training")


def _say_parity(found: Parity) -> None:
    console.say(f"{'same class':<18}{found.agreement:.1%} of {found.num_images} unseen pictures")
    console.say(f"{'probabilities':<18}at most {found.largest_difference:.1e} apart")
    change = found.accuracy_change
    assert change is not None
    clear = ", not by chance" if change.low > 0 or change.high < 0 else ""
    console.say(
        f"{'accuracy':<18}{found.accuracy:.1%}; {100 * change.value:+.1f} points "
        f"[{100 * change.low:+.1f}, {100 * change.high:+.1f}] against the original{clear}"
    )


def _write_page(run: Path, web: Path, num_pictures: int, *, overwrite: bool, strict: bool) -> None:
    """An autoencoder or a GAN as a page."""
    from safelight.explorer.folders import check_target

    opened = open_kind(run, "vae", "gan")
    check_target(web, overwrite=overwrite)
    shows = num_pictures and can_encode(opened)
    dataset = load_pictures(_source(opened), strict=strict) if shows else None
    console.fetch("onnxruntime-web")
    console.start_keras()
    from safelight.explorer import export_web

    with damage(run), console.progress() as report:
        page = export_web(
            run,
            web,
            dataset=dataset,
            num_points=num_pictures,
            overwrite=overwrite,
            progress=report,
        )
    _say_written("page", page, web)
    console.say(f"{'to look at it':<18}python -m http.server --directory {console.printable(web)}")


def _say_written(what: str, path: Path, folder: Path) -> None:
    size = console.megabytes(
        sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    )
    console.say(f"{what:<18}{console.printable(path)}  ({size})")


def _source(run: Run) -> str:
    """Where the run's pictures are; if they are gone, the way without them is told."""
    try:
        return find_source(run)
    except ValueError as error:
        raise ValueError(
            f"the pictures that {run.path} was trained on are not where they were: put them back, "
            "or leave them out with --num-pictures 0."
        ) from error
