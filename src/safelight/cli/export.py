"""`safelight export`: a run in a form that needs neither Python nor a server of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from safelight.cli import console
from safelight.cli.data import Strict, load_pictures
from safelight.cli.trained import RunFolder, find_source, open_vae
from safelight.runs import Run


def export(
    run: RunFolder,
    web: Annotated[
        Path,
        typer.Option(
            metavar="DIR", help="The folder to make, with index.html in it.", show_default=False
        ),
    ],
    num_pictures: Annotated[
        int,
        typer.Option(
            min=0, help="Training pictures that the page shows, at most; 0 keeps all out."
        ),
    ] = 2000,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier export in that folder.")
    ] = False,
    strict: Strict = False,
) -> None:
    """Write a page in which the latent space of an autoencoder can be walked.

    Drag, and the decoder runs in the browser. The folder can be served by anything, such as
    `python -m http.server`, and loads nothing from elsewhere. Training pictures become part of it.
    """
    from safelight.explorer.folders import check_target

    opened = open_vae(run)
    check_target(web, overwrite=overwrite)
    dataset = load_pictures(_source(opened), strict=strict) if num_pictures else None
    console.fetch("onnxruntime-web")
    console.start_keras()
    from safelight.explorer import export_web

    with console.progress() as report:
        page = export_web(
            run,
            web,
            dataset=dataset,
            num_points=num_pictures,
            overwrite=overwrite,
            progress=report,
        )
    size = console.megabytes(sum(file.stat().st_size for file in web.iterdir()))
    console.say(f"{'page':<18}{console.printable(page)}  ({size})")
    console.say(f"{'to look at it':<18}python -m http.server --directory {console.printable(web)}")


def _source(run: Run) -> str:
    """Where the run's pictures are; if they are gone, the way without them is told."""
    try:
        return find_source(run)
    except ValueError as error:
        raise ValueError(
            f"the pictures that {run.path} was trained on are not where they were: put them back, "
            "or leave them out with --num-pictures 0."
        ) from error
