"""`safelight assets list|fetch|verify`: data and weights from elsewhere, and their licences."""

from __future__ import annotations

from typing import Annotated

import typer

from safelight import assets
from safelight.cli import console

app = typer.Typer(help="Fetch and check weights and data from elsewhere.", no_args_is_help=True)
Names = Annotated[
    list[str] | None, typer.Argument(metavar="NAME", help="Names as in the list; all by default.")
]


@app.command(name="list")
def list_() -> None:
    """Show every asset with its licence, whom to name, its size and whether it is here."""
    for row in assets.list_assets():
        here = f"here: {row.path}" if row.cached else "not here"
        console.say(f"{row.name}  ({console.megabytes(row.bytes)}, {here})")
        console.say(f"    {row.description}")
        console.say(f"    licence {row.licence}; {row.attribution}")


@app.command()
def fetch(names: Names = None) -> None:
    """Fetch assets into the cache, each verified before it gets its name."""
    for name in names or [row.name for row in assets.list_assets()]:
        console.say(f"{name}: {console.fetch(name)}")


@app.command()
def verify(names: Names = None) -> None:
    """Hash what is in the cache again and compare it with what it should be."""
    chosen = names or [row.name for row in assets.list_assets() if row.path.exists()]
    if not chosen:
        console.remark("no asset is here yet: `safelight assets fetch` gets them")
    wrong = []
    for name in chosen:
        try:
            console.say(f"{name}: sound, {assets.verify(name)}")
        except assets.AssetError as error:
            console.remark(str(error))
            wrong.append(name)
    if wrong:
        raise assets.AssetError(f"{len(wrong)} of {len(chosen)} are not sound: {', '.join(wrong)}.")
