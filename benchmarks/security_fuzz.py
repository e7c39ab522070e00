"""Strangers' files by the thousand: how many were read, how many refused in a clear sentence.

    python benchmarks/security_fuzz.py [--minutes 10] [--only NAME,NAME] [--seed 0]

Every reader of docs/security.md gets the same share of the time, in a process of its own, and so do
the commands. A case is sound files of which one was changed, by bytes or by pieces; its number
names it. Told apart are cases that were read; that were refused in one line which names the file;
and those that must not be: another exception, a warning, an unclear sentence, a file, process or
connection outside the folder, more than five seconds or some hundred megabytes, a process that
died.
"""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import json
import logging
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from measuring import machine, write_json
from repeats import parse_options, write_result
from security import commands, readers, report, verdicts

CLAIM = "security_fuzz"
COMMAND_LINE = "commands"
NAMES = (*(reader.name for reader in readers.READERS), COMMAND_LINE)
_GRACE = 180.0  # seconds beyond its time before a process is taken for hung
_SHOWN = 20  # cases that must not be, of each reader


def run_all(options: argparse.Namespace) -> None:
    """Share the time, count, and write the result."""
    wanted = [name for name in NAMES if name in options.only.split(",")]
    seconds = 60 * options.minutes / len(wanted)
    found = {name: count(name, seconds, options) for name in wanted}
    total = Counter()
    for row in found.values():
        total.update(row["counts"])
    content = {
        "minutes": options.minutes,
        "seed": options.seed,
        "readers": found,
        "total": dict(total),
    }
    write_result(options, CLAIM, content, f"seed{options.seed}")
    if wanted == list(NAMES):
        known = {**content, "machine": machine()}
        report.PAGE.write_text(report.put_in(report.PAGE.read_text("utf-8"), known), "utf-8")
    for name, row in found.items():
        print(f"{name:<28}{row['counts']}")
        for case in row["wrong"]:
            print(f"    {case}")


def count(name: str, seconds: float, options: argparse.Namespace) -> dict[str, Any]:
    """All cases of one reader; after one at which the process died, another goes on behind it."""
    counts: Counter[str] = Counter()
    wrong: list[dict[str, Any]] = []
    start, end = 0, time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        place = options.work / f"{CLAIM}-{NAMES.index(name)}.json"
        place.unlink(missing_ok=True)
        program = [
            sys.executable,
            __file__,
            "--reader",
            name,
            "--first",
            str(start),
            "--seconds",
            str(left),
        ]
        program += ["--seed", str(options.seed), "--place", str(place)]
        try:
            # libjpeg and libtiff have remarks of their own.
            quiet = {"stderr": subprocess.DEVNULL, "timeout": left + _GRACE}
            died = subprocess.run(program, check=False, **quiet).returncode
        except subprocess.TimeoutExpired:
            died = -1
        result = json.loads(place.read_text(encoding="utf-8"))
        counts.update(result["counts"])
        wrong += result["wrong"]
        start = int(_mark(place).read_text()) + 1
        if died:
            counts["died"] += 1
            wrong.append({"case": start - 1, "kind": "died", "detail": f"exit code {died}"})
    return {"counts": {"tried": sum(counts.values()), **counts}, "wrong": wrong[:_SHOWN]}


def work(options: argparse.Namespace) -> None:
    """Be the process of one reader: case after case until the time is up."""
    counts: Counter[str] = Counter()
    wrong: list[dict[str, Any]] = []
    number, written = options.first, 0.0
    logging.lastResort = None  # what the library remarks is no part of a verdict
    _mark(options.place).write_text(str(number - 1))
    write_json(options.place, {"counts": counts, "wrong": wrong})
    if options.reader != COMMAND_LINE:
        _warm_up(commands.find_reader(options.reader))
    else:
        for each in range(len(commands.COMMANDS)):
            try_case(COMMAND_LINE, each, options.seed)
    end = time.monotonic() + options.seconds  # of which loading libraries takes none
    while time.monotonic() < end:
        # Before the case, so that who follows knows at which the process died.
        _mark(options.place).write_text(str(number))
        if time.monotonic() > written + 0.5:
            write_json(options.place, {"counts": counts, "wrong": wrong[:_SHOWN]})
            written = time.monotonic()
        case, found = try_case(options.reader, number, options.seed)
        counts[found.kind] += 1
        if found.kind in verdicts.WRONG:
            wrong.append({"case": number, "what": case, "kind": found.kind, "detail": found.detail})
        number += 1
    write_json(options.place, {"counts": counts, "wrong": wrong[:_SHOWN]})


def _mark(place: Path) -> Path:
    """Where the number of the present case stands."""
    return place.with_suffix(".case")


def _warm_up(reader: readers.Reader) -> None:
    """Sound files first: the libraries that read them are loaded before anything is measured."""
    with tempfile.TemporaryDirectory() as name:
        for each, content in reader.files().items():
            (Path(name) / each).parent.mkdir(parents=True, exist_ok=True)
            (Path(name) / each).write_bytes(content)
        reader.read(Path(name))


def try_case(name: str, number: int, seed: int) -> tuple[str, verdicts.Verdict]:
    """One case of a reader, or of the commands; what was changed, and what became of it."""
    rng = np.random.default_rng([seed, NAMES.index(name), number])
    folder = Path(tempfile.mkdtemp(prefix="safelight-fuzz-"))
    try:
        if name == COMMAND_LINE:
            os.environ["SAFELIGHT_HOME"] = str(folder)
            return commands.judge_command(number, folder, rng)
        reader = commands.find_reader(name)
        case = reader.write_case(folder, rng)
        return case, verdicts.judge(
            reader.read, folder, errors=reader.errors(), max_megabytes=reader.max_megabytes
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _parse_work() -> argparse.Namespace | None:
    if "--reader" not in sys.argv:
        return None
    parser = argparse.ArgumentParser()
    parser.add_argument("--reader", choices=NAMES)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--place", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    child = _parse_work()
    if child is not None:
        work(child)
    else:
        run_all(parse_options(__doc__ or "", only=NAMES, minutes=10, seed=0))
