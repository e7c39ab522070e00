"""`safelight assets list|fetch|verify`: data and weights from elsewhere, and their licences."""

from __future__ import annotations

from typing import Annotated

import typer

from safelight import assets
from safelight.cli import console

app = typer.Typer(
    help="Data and weights from elsewhere: what there is, and whether it is sound.",
    no_args_is_help=True,
)
Names = Annotated[list[str] | None, typer.Argument(help="Names as in the list; all by default.")]


@app.command(name="list")
def list_() -> None:
    """Shows every asset with its licence, whom to name, its size and whether it is here."""
    for row in assets.list_assets():
        here = f"here: {row.path}" if row.cached else "not here"
        console.say(f"{row.name}  ({console.megabytes(row.bytes)}, {here})")
        console.say(f"    {row.description}")
        console.say(f"    licence {row.licence}; {row.attribution}")


@app.command()
def fetch(names: Names = None) -> None:
    """Fetches assets into the cache, each verified before it gets its name."""
    for name in names or [row.name for row in assets.list_assets()]:
        with console.progress() as report:
            path = assets.fetch(
                name, progress=lambda step, done, total: report(step, done, total or done, "")
            )
        console.say(f"{name}: {path}")


@app.command()
def verify(names: Names = None) -> None:
    """Hashes what is in the cache again and compares it with what it should be."""
    for name in names or [row.name for row in assets.list_assets() if row.cached]:
        console.say(f"{name}: sound, {assets.verify(name)}")
