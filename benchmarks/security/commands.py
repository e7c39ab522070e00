"""The real command line on a stranger's folders, in this process: what it says, how it leaves."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np

from security import readers, verdicts
from security.readers import Reader
from security.verdicts import Verdict

CODES = (0, 1, 2)
COMMANDS: tuple[tuple[str, Callable[[Path], list[str]]], ...] = (
    ("run folder", lambda folder: ["runs", "list", str(folder)]),
    ("run folder", lambda folder: ["runs", "list", str(folder), "--json"]),
    ("run folder", lambda folder: ["runs", "show", str(folder / "run")]),
    ("run folder", lambda folder: ["runs", "show", str(folder / "run"), "--json"]),
    ("report", lambda folder: ["report", str(folder / "run")]),
    (
        "report",
        lambda folder: [
            "report",
            str(folder / "run"),
            str(folder / "run"),
            "--output",
            str(folder / "a.html"),
        ],
    ),
    (
        "run folder",
        lambda folder: ["transfer", "compare", str(folder / "run"), str(folder / "run")],
    ),
    ("run folder", lambda folder: ["transfer", "predict", str(folder / "run"), str(folder)]),
    ("feature cache", lambda folder: ["cache", "list"]),
    ("feature cache", lambda folder: ["cache", "verify"]),
)


def find_reader(name: str) -> Reader:
    """A row of `readers.READERS`."""
    return next(reader for reader in readers.READERS if reader.name == name)


def judge_command(number: int, folder: Path, rng: np.random.Generator) -> tuple[str, Verdict]:
    """Calls one of the commands on a changed folder.

    Args:
        number: Of the case; the commands take turns.
        folder: Empty, and SAFELIGHT_HOME.
        rng: Says what is changed.
    """
    name, arguments = COMMANDS[number % len(COMMANDS)]
    find_reader(name).write_case(folder, rng)
    said: list[str] = []
    found = verdicts.judge(lambda place: said.extend(_call(arguments(place))), folder)
    words = " ".join(arguments(Path("DIR")))
    return words, _judge_words(said, folder) if found.kind == verdicts.READ else found


def _call(arguments: list[str]) -> list[str]:
    """Its exit code, and what it says on either stream."""
    from rich.console import Console

    from safelight import cli
    from safelight.cli import console

    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    places = console.out, console.err
    remarks = console._Remarks(logging.WARNING)
    logging.getLogger("safelight").addHandler(remarks)
    sys.argv = ["safelight", *arguments]
    console.out = Console(file=out, highlight=False, soft_wrap=True)
    console.err = Console(file=err, highlight=False, soft_wrap=True)
    try:
        quiet = mock.patch.object(cli, "set_up_streams", return_value=None)
        with quiet, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    except SystemExit as left:
        return [str(left.code or 0), out.getvalue(), err.getvalue()]
    finally:
        sys.argv = before
        console.out, console.err = places
        logging.getLogger("safelight").removeHandler(remarks)
    return ["0", out.getvalue(), err.getvalue()]


def _judge_words(said: list[str], folder: Path) -> Verdict:
    code, out, err = said
    if not code.isdigit() or int(code) not in CODES or "Traceback" in out + err:
        return Verdict("traceback", f"exit code {code}: {err[-200:]}")
    if not all(line.isprintable() for line in (out + err).split("\n")):
        return Verdict("unclear", "a terminal would obey what it says")
    if int(code) == 0:
        return Verdict(verdicts.READ)
    last = err.strip().splitlines()[-1:] or [""]
    clear = "safelight: " in err or int(code) == 1
    return Verdict(verdicts.REFUSED, last[0]) if clear else Verdict("unclear", err[:200])
