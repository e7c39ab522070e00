"""How the command line speaks: progress on a terminal, silence in a pipe, one sentence of error."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

Report = Callable[[str, int, int, str], None]


def fail(message: str, *, code: int = 2) -> NoReturn:
    """Prints one sentence on standard error and leaves."""
    err.print(Text(f"safelight: {message}"))
    sys.exit(code)


def start_keras() -> None:
    """Loads Keras and its backend, whose C++ start-up notes would otherwise go to standard error.

    Raises:
        ValueError: No backend is installed.
    """
    sys.stderr.flush()
    saved = os.dup(2)
    silence = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(silence, 2)
        import keras

        keras.ops.convert_to_numpy(keras.ops.zeros(1))
        # Its advice on retracing is for authors of loops; ours compiles a few shapes on purpose.
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
    except ImportError as error:
        raise ValueError(
            f"Keras finds no backend ({error}): install one with "
            "`pip install 'safelight[tensorflow]'`, or set KERAS_BACKEND to the one you have."
        ) from error
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(silence)


def say(text: str = "") -> None:
    """Prints a line as it is: names of files and classes are data, never markup."""
    out.print(Text(text))


def print_json(content: Any) -> None:
    """Prints strict JSON, alone on standard output, for other programs."""
    from safelight.runs import to_json

    sys.stdout.write(to_json(content))


def parse_json(text: str) -> Any:
    """The inverse of `print_json`, for tests."""
    return json.loads(text)


class _Speed(ProgressColumn):
    """Images per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if not speed else f"{speed:.0f} images/s")


@contextlib.contextmanager
def progress() -> Iterator[Report]:
    """A report function: a bar per stage on a terminal, nothing elsewhere."""
    if not err.is_terminal:
        yield _silent
        return
    columns = (
        TextColumn("{task.description:<18}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        _Speed(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[words]}"),
    )
    with Progress(*columns, console=err) as bars:
        yield _Bars(bars)


def _silent(stage: str, done: int, total: int, words: str) -> None:
    """Reports nothing."""


class _Bars:
    """Makes a bar when a stage is first heard of."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[tuple[str, int], Any] = {}

    def __call__(self, stage: str, done: int, total: int, words: str) -> None:
        key = (stage, total)
        if key not in self._tasks:
            self._tasks[key] = self._bars.add_task(stage, total=total, words=words)
        self._bars.update(self._tasks[key], completed=done, words=words)


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()
) -> None:
    """Prints a plain table; columns named in `right` are aligned right."""
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        grid.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    out.print(grid)


def megabytes(number: float) -> str:
    """`58.9 MB`, for people."""
    return f"{number / 1e6:,.1f} MB"


def percent(metric: dict[str, Any]) -> str:
    """`86.4 % [83.6, 88.9]` from a metric as it stands in metrics.json."""
    values = [metric.get(key) for key in ("value", "low", "high")]
    if any(value is None or math.isnan(value) for value in values):
        return f"not defined ({metric.get('reason', 'no reason given')})"
    value, low, high = (100 * float(v) for v in values if v is not None)
    return f"{value:.1f} % [{low:.1f}, {high:.1f}]"
