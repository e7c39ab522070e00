"""`safelight report`: a run as one page to look at, and its model card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from safelight.cli import console


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN", help="Run folders; several are set side by side."),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The page to write. [default: report.html in the folder of the only run]",
            show_default=False,
        ),
    ] = None,
    card: Annotated[
        bool,
        typer.Option(help="Also write a model card, README.md, into the folder of each run."),
    ] = True,
) -> None:
    """Write a page about a run, or about several side by side, for a browser or a printer.

    It is one file that loads nothing from elsewhere: send it, keep it, print it. Only the run's
    folder is read. A model card that somebody has changed is left as it is.
    """
    from safelight.report import write_model_card, write_report

    page = write_report(runs, output)
    for run in runs if card else ():
        path, written = write_model_card(run)
        kept = "" if written else "  (kept: it was not written by this command, or changed since)"
        console.say(f"{'model card':<18}{console.printable(path)}{kept}")
    size = console.megabytes(page.stat().st_size)
    console.say(f"{'report':<18}{console.printable(page)}  ({size})")
