"""One self-contained page: no script, nothing loaded from elsewhere, every name escaped."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from safelight import __version__
from safelight.files import StrPath, write_text
from safelight.report import autoencoder, classifier, generator, other, side_by_side, sweep, words
from safelight.report.blocks import Chapter
from safelight.report.reading import Reading, read_run
from safelight.report.rendering import make_environment
from safelight.untrusted import open_file

FILE_NAME = "report.html"
_MARK = "safelight report"
_CHAPTERS: dict[str, Callable[[Reading], Chapter]] = {
    "transfer": classifier.chapter,
    "transfer-sweep": sweep.chapter,
    "vae": autoencoder.chapter,
    "gan": generator.chapter,
}


def write_report(runs: Sequence[StrPath], output: StrPath | None = None) -> Path:
    """Write one page about a run, or about several side by side.

    Args:
        runs: Run folders, one or more.
        output: The file; by default `report.html` in the folder of the only run.

    Returns:
        Where the page is.

    Raises:
        ValueError: A folder is no run, there is no run, or a file is in the way that no report
            was written to.
    """
    readings = [read_run(run) for run in runs]
    target = _target(readings, output)
    text = render(readings)
    try:
        write_text(target, text)
    except OSError as error:
        raise ValueError(
            f"{target}: cannot be written ({error.strerror}); choose another --output."
        ) from error
    return target


def render(readings: Sequence[Reading]) -> str:
    """The page as HTML.

    Args:
        readings: As from `read_run`.
    """
    style = _templates().get_template("style.css").render()
    return (
        _templates()
        .get_template("page.html")
        .render(
            chapters=_chapters(readings),
            title=_title(readings),
            heading=_heading(readings),
            # The file is our own, and a style sheet is no place for escapes.
            style=Markup(style),  # noqa: S704
            style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
            mark=f"{_MARK} {__version__}",
        )
    )


@functools.cache
def _templates() -> jinja2.Environment:
    return make_environment("safelight.report")


def _chapters(readings: Sequence[Reading]) -> list[Chapter]:
    """Kind after kind, and before several runs of one kind what separates them."""
    chapters: list[Chapter] = []
    for kind in dict.fromkeys(reading.kind for reading in readings):
        alike = [reading for reading in readings if reading.kind == kind]
        compared = len(alike) > 1 and kind in side_by_side.KINDS
        chapters += [side_by_side.chapter(alike)] if compared else []
        chapters += [_CHAPTERS.get(kind, other.chapter)(reading) for reading in alike]
    return chapters


def _heading(readings: Sequence[Reading]) -> str:
    data = ", ".join(dict.fromkeys(words.printable(reading.dataset) for reading in readings))
    return f"{len(readings)} runs on {data}"


def _title(readings: Sequence[Reading]) -> str:
    if len(readings) > 1:
        return _heading(readings)
    return f"{words.printable(readings[0].name)}, a run on {words.printable(readings[0].dataset)}"


def _target(readings: Sequence[Reading], output: StrPath | None) -> Path:
    if not readings:
        raise ValueError("no run was named; pass one run folder or more.")
    if output is None and len(readings) > 1:
        raise ValueError(
            f"{len(readings)} runs: say where their page is to be, --output FILE.html."
        )
    target = readings[0].run.path / FILE_NAME if output is None else Path(output)
    if target.is_dir():
        raise ValueError(
            f"{target}: is a folder; pass the name of a file, such as {target / FILE_NAME}."
        )
    if target.exists() and not _is_ours(target):
        raise ValueError(f"{target}: holds something else than a report; choose another --output.")
    return target


def _is_ours(path: Path) -> bool:
    try:
        with open_file(path) as file:
            return f'content="{_MARK}'.encode() in file.read(4096)
    except (OSError, ValueError):
        return False
