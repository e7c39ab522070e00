"""The command line: `safelight NOUN VERB`, a noun a file, a verb the function of the same name.

    safelight check my_pictures
    safelight transfer train elpv --output runs/cells
    safelight transfer evaluate runs/cells elpv --json
    safelight transfer predict runs/cells photo.jpg another_folder
    safelight vae train mnist --output runs/digits --minutes 10
    safelight gan train mnist --output runs/game --minutes 10
    safelight compare runs/digits runs/game
    safelight runs show runs/cells
    safelight report runs/cells
    safelight export runs/digits --web digits_page
    safelight serve runs/cells

A user's mistake is one sentence on standard error and exit code 2, never a traceback.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from safelight.cli import (
    assets,
    cache,
    check,
    compare,
    export,
    gan,
    look,
    report,
    runs,
    serve,
    transfer,
    vae,
)
from safelight.cli.console import fail, set_up_streams

# Most commands go on by themselves; a run whose model is there is one that they refuse.
_AGAIN = "give the same command again, with --overwrite if it refuses what is there"


class _Commands(TyperGroup):
    """Ends Ctrl-C and a closed pipe in our words; typer would leave without any."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            fail(f"stopped. What was computed is kept: {_AGAIN}.", code=130)
        except BrokenPipeError:
            # The reader of a pipe has left (`| head`): nothing is wrong, nobody is to be told.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return None


_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))

app = typer.Typer(
    cls=_Commands,
    help="Learn from small sets of pictures: classifiers to trust, models to look into.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(transfer.app, name="transfer")
vae.app.add_typer(look.app)  # without a name: its commands stand beside the others
app.add_typer(vae.app, name="vae")
app.add_typer(gan.app, name="gan")
app.add_typer(runs.app, name="runs")
app.command(short_help="Say what is amiss with pictures before anything is trained.")(check.check)
app.command(short_help="Score what runs draw, by one protocol for all.")(compare.compare)
app.command(short_help="Write a page about a run: how good, what it mistakes.")(report.report)
app.command(short_help="Write a classifier for other programs, or a latent space to walk in.")(
    export.export
)
app.command(short_help="Serve a run as a page in the browser.")(serve.serve)
app.add_typer(assets.app, name="assets")
app.add_typer(cache.app, name="cache")


def _print_version(wanted: bool) -> None:
    if wanted:
        import safelight

        typer.echo(f"safelight {safelight.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False,
        "--version",
        help="Print the version and leave.",
        is_eager=True,
        callback=_print_version,
    ),
) -> None:
    """Learn from small sets of pictures: classifiers to trust, models to look into."""


def main() -> None:
    """The console script; turns what users get wrong into one sentence and exit code 2.

    With SAFELIGHT_DEBUG=1 every error keeps its traceback: a ValueError may be a defect after all.
    """
    # TensorFlow's start-up notes are for its developers; an explicit setting is respected.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    set_up_streams()
    try:
        app(prog_name="safelight")
    except Exception as error:
        if os.environ.get("SAFELIGHT_DEBUG") or not _is_users(error):
            raise
        fail(_sentence(error))


def _sentence(error: Exception) -> str:
    """What is said of an error; of a full disk, what to do about it."""
    if not isinstance(error, OSError) or error.errno not in _FULL:
        return str(error)
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror}; make room, then {_AGAIN}."


def _is_users(error: Exception) -> bool:
    """Whether the message is for users; anything else is a defect and keeps its traceback."""
    known = ("AssetError", "CacheError", "ImageError", "RunError")
    return isinstance(error, ValueError | OSError) or type(error).__name__ in known
