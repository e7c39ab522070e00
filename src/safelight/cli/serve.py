"""`safelight serve`: a run as a page in the browser."""

from __future__ import annotations

import importlib.util
import tempfile
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safelight.cli import console
from safelight.cli.data import (
    TRAINED_KINDS,
    damage,
    is_known,
    load_data,
    load_pictures,
    open_trained,
)
from safelight.cli.trained import can_encode, class_names_of, find_source
from safelight.runs import Run

if TYPE_CHECKING:
    import gradio

    from safelight.app.server import Server
    from safelight.datasets import ImageDataset

_NEEDED = ("gradio", "uvicorn", "fastapi")


def serve(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="A folder that `transfer`, `vae` or `gan train` made."),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="What the run was trained on, to show pictures of it: a run keeps none. [default: "
            "a known data set that is already here, or for models that encode where it was then]",
            show_default=False,
        ),
    ] = None,
    refuse: Annotated[
        float | None,
        typer.Option(
            metavar="RATE",
            help="As in `transfer predict`; 0 never answers `none of these`. [default: 0.05 where "
            "the run can tell]",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to serve at; 0.0.0.0 lets the whole network in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to serve at; 0 takes one that is free.")] = 7860,
    open_browser: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in the browser.")
    ] = False,
) -> None:
    """Serve a run as a page in the browser, until Ctrl-C.

    A classifier answers pictures that are dropped on it: classes with their probabilities or `none
    of these`, where in the picture the answer comes from, and the nearest training pictures. A
    variational autoencoder or a GAN shows its latent space. Nothing leaves this machine; uploads
    are removed after an hour, and when it ends.
    """
    opened = open_trained(run)
    _check_installed()
    kind = opened.config.get("kind")
    if kind not in TRAINED_KINDS:
        raise ValueError(f"{run}: a run of kind {kind!r} has no page: expected a trained model.")
    if kind != "transfer" and refuse is not None:
        raise ValueError(f"--refuse: {run} is no classifier; expected none of it.")
    if kind == "gan" and data is not None and not can_encode(opened):
        raise ValueError(
            f"--data {data}: {run} is a GAN without an encoder, in whose latents pictures have no "
            "place; expected none."
        )
    from safelight.app import Server

    # The port first: whether it is taken shows in a moment, and a model takes many to be read.
    with Server(host=host, port=port) as server:
        if kind == "transfer":
            _serve(server, _make_page(opened, data, refuse), open_browser=open_browser)
            return
        with tempfile.TemporaryDirectory(prefix="safelight-app-") as parent:
            folder = _export(opened, Path(parent) / "explorer", data)
            _serve(server, folder, open_browser=open_browser)


def _check_installed() -> None:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"serve needs {missing[0]}, which is not installed: `pip install 'safelight[app]'`."
        )


def _make_page(run: Run, data: str | None, refuse: float | None) -> gradio.Blocks:
    """The page of a classifier, its model ready to answer."""
    from safelight.app import privacy

    privacy.close()
    with damage(run.path):
        dataset = _find_data(run, data)
    console.start_keras()
    from safelight.app import Answerer, build_page

    with damage(run.path):
        answerer = Answerer(run, refuse=refuse, dataset=dataset)
    if data is not None and not answerer.training.num_found:
        raise ValueError(f"--data {data}: has none of the pictures that the run learned from.")
    if not answerer.refuse:
        console.remark("nothing is answered with `none of these`")
    return build_page(answerer)


def _find_data(run: Run, data: str | None) -> ImageDataset | None:
    """What was named; else a known data set of the run's that needs no fetching."""
    from safelight import assets

    if data is not None:
        return load_data(data)
    known = run.config["dataset"]
    here = [each.name for each in assets.list_assets() if each.cached]
    if not is_known(known["name"]) or known["name"] not in here:
        return None
    dataset = load_data(known["name"])
    # With another --threshold the labels would be others than those that were learned.
    return dataset if dataset.fingerprint == known["fingerprint"] else None


def _export(run: Run, folder: Path, data: str | None) -> Path:
    """The static page of `safelight export`; without pictures where they are gone."""
    options: dict[str, Any] = {"num_points": 0}
    try:
        if can_encode(run):
            options = {"dataset": _find_pictures(run, data)}
    except ValueError as error:
        if data is not None:
            raise
        console.remark(f"no training pictures are shown: {error}")
    console.fetch("onnxruntime-web")
    console.start_keras()
    from safelight.explorer import export_web

    with damage(run.path), console.progress() as report:
        export_web(run.path, folder, progress=report, **options)
    return folder


def _find_pictures(run: Run, data: str | None) -> ImageDataset:
    """What a generative model was trained on, with every picture that it learned from.

    Looked at here already, so that a page can still be made where some are gone.
    """
    from safelight.generative import pictures, records

    dataset = load_pictures(find_source(run) if data is None else data)
    with damage(run.path):
        records.find_part(run, dataset, "train")
        if len(names := class_names_of(run)) > 1:
            pictures.check_classes(dataset, run, names)
    return dataset


def _serve(server: Server, page: gradio.Blocks | Path, *, open_browser: bool) -> None:
    """Serves until Ctrl-C, which ends it as it ends every command: with 130."""

    def ready() -> None:
        console.say(f"{'page':<18}{server.address}  (Ctrl-C ends it)")
        if server.open_to_others:
            console.remark("everybody who reaches this machine may use it: it has no password")
        if open_browser:
            webbrowser.open(server.address)

    try:
        server.serve(page, ready=ready)
    except KeyboardInterrupt:
        console.fail("stopped: the page is closed, and uploaded pictures are removed.", code=130)
