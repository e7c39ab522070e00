"""How the command line speaks: progress on a terminal, silence in a pipe, one sentence of error."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from safelight import backend_choice, untrusted
from safelight.environment import find_accelerator

printable = untrusted.printable
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

Report = Callable[[str, int, int, str], None]

_MAX_WORDS = 30  # beside a bar; longer ones get a line of their own


def fail(message: str, *, code: int = 2) -> NoReturn:
    """Prints one sentence on standard error and leaves."""
    err.print(_as_text(f"safelight: {message}"))
    sys.exit(code)


def start_keras(
    work: str = "convolutions",
    *,
    training: bool = False,
    before: str | None = None,
    devices: int = 1,
) -> None:
    """Loads Keras and its backend, whose C++ start-up notes would otherwise go to standard error.

    Args:
        work: What is to be computed, a row of `backend_choice.SPEEDS`: the fastest backend is
            taken where none was asked for, and a slow one that was asked for is told.
        training: Whether a whole network is to be trained.
        before: Of an unfinished training that is to go on, the backend it was begun with.
        devices: Among which a training is shared.

    Raises:
        ValueError: No backend is installed, or KERAS_BACKEND names none.
    """
    chosen = backend_choice.choose_backend(work, training=training, before=before, devices=devices)
    if chosen:
        remark(chosen)
    sys.stderr.flush()
    saved = os.dup(2)
    silence = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(silence, 2)
        import keras

        # Processes that share a training have to meet before the first of them computes anything.
        if os.environ.get("KERAS_DISTRIBUTION_NUM_PROCESSES", "1") in ("", "1"):
            keras.ops.convert_to_numpy(keras.ops.zeros(1))
        # Its advice on retracing is for authors of loops; ours compiles a few shapes on purpose.
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
    except (ImportError, ValueError) as error:
        raise ValueError(
            f"Keras finds no backend ({error}): install one with "
            "`pip install 'safelight[tensorflow]'`, or set KERAS_BACKEND to the one you have."
        ) from error
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(silence)
    if training and devices == 1:
        name, accelerator = keras.config.backend(), find_accelerator()
        if faster := backend_choice.name_faster(name, work, accelerator=accelerator):
            remark(faster)


def set_up_streams() -> None:
    """Prepares both streams for names in any script, and for what the library remarks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that the terminal's encoding lacks is spelt out rather than an error.
            stream.reconfigure(errors="backslashreplace")
    handler = _Remarks(logging.WARNING)
    logging.getLogger("safelight").addHandler(handler)
    # The commands name the files that were left out themselves, with a limit.
    logging.getLogger("safelight.folders").setLevel(logging.ERROR)


class _Remarks(logging.Handler):
    """Passes on what the library logs, above a progress bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        remark(record.getMessage())


def _as_text(text: str) -> Text:
    """Never markup, and nothing that a terminal obeys, whoever chose the names in it."""
    return Text("\n".join(printable(line) for line in text.split("\n")))


def say(text: str = "") -> None:
    """Prints a line as it is: names of files and classes are data, never markup."""
    out.print(_as_text(text))


def remark(text: str) -> None:
    """Prints a line on standard error, as it is."""
    err.print(_as_text(text))


def print_json(content: Any) -> None:
    """Prints strict JSON, alone on standard output, for other programs."""
    from safelight.runs import to_json

    # ASCII, because a pipe's encoding is anybody's guess, and names need not be valid Unicode.
    plain = json.loads(to_json(content))
    sys.stdout.write(json.dumps(plain, indent=2, sort_keys=True, allow_nan=False) + "\n")
    sys.stdout.flush()


class _Speed(ProgressColumn):
    """Images or bytes per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if not speed or (task.total or 0) <= 1:
            return Text("")
        if task.fields["unit"] == "bytes":
            return Text(f"{speed / 1e6:.1f} MB/s")
        return Text(f"{speed:.0f} images/s")


@contextlib.contextmanager
def progress(*, unit: str = "images") -> Iterator[Report]:
    """A report function: a bar per stage on a terminal, nothing elsewhere.

    Args:
        unit: What is counted, "images" or "bytes".
    """
    if not err.is_terminal:
        yield _silent
        return
    # Together 80 columns, the longest words included; rich would otherwise fold them.
    columns = (
        TextColumn("{task.description:<16}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=8),
        TextColumn("{task.percentage:>3.0f}%", table_column=Column(no_wrap=True)),
        _Speed(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[words]}", markup=False, table_column=Column(no_wrap=True)),
    )
    with _Progress(*columns, console=err) as bars:
        yield _Bars(bars, unit)


class _Progress(Progress):
    """Bars, and what is said of the last of them on a line of its own where it is long."""

    sentence = ""

    def get_renderables(self) -> Iterator[RenderableType]:
        yield from super().get_renderables()
        if self.sentence:
            yield _as_text(self.sentence)


def _silent(stage: str, done: int, total: int, words: str) -> None:
    """Reports nothing."""


class _Bars:
    """Makes a bar when a stage is first heard of, or starts again after its end."""

    def __init__(self, bars: _Progress, unit: str) -> None:
        self._bars, self._unit = bars, unit
        self._tasks: dict[str, tuple[TaskID, bool]] = {}

    def __call__(self, stage: str, done: int, total: int, words: str) -> None:
        self._bars.sentence = words if len(words) > _MAX_WORDS else ""
        words = words if len(words) <= _MAX_WORDS else ""
        task, ended = self._tasks.get(stage, (None, False))
        if task is None or (ended and done < total):
            task = self._bars.add_task(stage, total=None, words=words, unit=self._unit)
        self._bars.update(task, completed=done, total=total or None, words=words)
        self._tasks[stage] = (task, 0 < total <= done)


def fetch(asset: str) -> Path:
    """Gives an asset's path; a download shows its progress, what is here already shows nothing."""
    from safelight import assets

    with progress(unit="bytes") as report:
        return assets.fetch(asset, progress=lambda step, done, total: report(step, done, total, ""))


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()
) -> None:
    """Prints a plain table; columns named in `right` are aligned right."""
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        grid.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(_as_text(cell) for cell in row))
    out.print(grid)


def megabytes(number: float) -> str:
    """`58.9 MB`, for people."""
    return f"{number / 1e9:,.1f} GB" if number >= 1e9 else f"{number / 1e6:,.1f} MB"


def percent(metric: dict[str, Any]) -> str:
    """`86.4 % [83.6, 88.9]` from a metric as it stands in metrics.json."""
    values = [metric.get(key) for key in ("value", "low", "high")]
    if any(value is None or math.isnan(value) for value in values):
        return f"not defined ({metric.get('reason', 'no reason given')})"
    value, low, high = (100 * float(v) for v in values if v is not None)
    return f"{value:.1f} % [{low:.1f}, {high:.1f}]"
