"""Answers on very many pictures, into one table: in flat memory, and never from the beginning.

    answer_files(run, Request(Path("answers.csv"), pictures=[Path("a_million_pictures")]))

While it works, everything lies in a folder beside the table, `answers.csv.parts`: what was asked
for (`job.json`), the list of files (`files.txt`), and a part of the table for each chunk of the
list that is done, with a list of its corrupt files. A call that was broken off is gone on with by
the same call again; another question there is refused. At the end the parts become the table, and
the corrupt files `answers.problems.csv`; each has its name only when it is whole.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import functools
import json
import math
import os
import re
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from safelight import executors, untrusted
from safelight.asset_sources import file_digest
from safelight.file_lists import BLOCK, FileList, freeze
from safelight.files import write_text
from safelight.runs import Run
from safelight.tables import defuse_name, find_format, join_parts, write_part
from safelight.transfer.bulk import Answered, BulkPredictor, Chunk, PredictionWork
from safelight.transfer.config import TrainConfig
from safelight.transfer.experiment import load_classifier, settings_of
from safelight.transfer.fine_tuning import Report, silent
from safelight.transfer.request import Request
from safelight.transfer.unfamiliar import read_familiarity

_FORMAT = 1
_MAX_PARTS = 200_000
_FEWEST_MEASURED = 128  # pictures; of fewer, rates would say nothing
_NAMES = {
    "table": "the kind of table",
    "model": "the model",
    "settings": "its settings",
    "class_names": "its classes",
    "num_files": "the number of files",
    "list": "the list of files",
    "folder": "the folder that their names are relative to",
    "computed_by": "what computes",
    "refuse": "the rate of --refuse",
}


def answer_files(run: Run, request: Request, *, report: Report = silent) -> dict[str, Any]:
    """Answers all pictures of a request and writes the table.

    The executor of `executors.using` computes, else this process. Neither it nor the number of
    its workers shows in the table.

    Args:
        run: A finished run of `transfer train`.
        request: What is asked for.
        report: Told how far it is.

    Returns:
        `num_files`, `num_answered`, `num_problems`; of this call alone `num_computed`, `seconds`
        and `per_second`; `alone`: what decoding and computing would reach by themselves, where
        this process computed enough to say.

    Raises:
        ValueError: As of `Request.check`; damage; or another question's unfinished work.
    """
    request.check()
    config, names = settings_of(run), [str(name) for name in run.config["dataset"]["class_names"]]
    known = read_familiarity(run) if request.refuse else None
    if known is not None:
        known.check_rate(request.refuse)
    predictor = BulkPredictor(load_classifier(run), config, familiarity=known)
    if predictor.num_classes != len(names):
        raise ValueError(f"{run.path}: damaged, its model does not know the {len(names)} classes.")
    question = {
        "format": _FORMAT,
        "table": find_format(request.output),
        "model": file_digest(run.model_path),
        "settings": dataclasses.asdict(config),
        "class_names": names,
        "computed_by": predictor.computed_by,
        "refuse": request.refuse,
    }
    with _open_job(request, question) as job:
        answers = _answer(run, job, predictor, config)
        computed = _work_through(job, answers, report)
        if executors.current() is None and computed["num_computed"] >= _FEWEST_MEASURED:
            computed["alone"] = predictor.measure_limits(job.chunk(0))
        return {**job.finish(), **computed}


def _answer(
    run: Run, job: _Job, predictor: BulkPredictor, config: TrainConfig
) -> Generator[Answered]:
    chunks = (job.chunk(number) for number in job.pending())
    executor = executors.current()
    if executor is None:
        return predictor.answer(chunks)
    decided = dataclasses.replace(config, engine=predictor.engine, precision=predictor.precision)
    model, known = run.model_path.read_bytes(), predictor.familiarity
    return executor.run(PredictionWork(model, decided, predictor.computed_by, known), chunks)


def _work_through(job: _Job, answers: Generator[Answered], report: Report) -> dict[str, Any]:
    total, done = job.files.num_files, job.num_done
    began, before = time.perf_counter(), done
    report("predicting", done, total, "")
    # Closed explicitly: after an error or Ctrl-C nobody may go on decoding.
    with contextlib.closing(answers):
        for answered in answers:
            job.keep(answered)
            done += len(answered.names) + len(answered.problems)
            report("predicting", done, total, "")
    seconds, computed = time.perf_counter() - began, done - before
    rate = computed / seconds if computed else 0.0
    return {"num_computed": computed, "seconds": seconds, "per_second": rate}


@dataclasses.dataclass(frozen=True, eq=False)
class _Job:
    """Work in its folder, which this process has locked."""

    request: Request
    files: FileList
    class_names: Sequence[str]
    kind: str

    @functools.cached_property
    def _size(self) -> int:
        """Files in a chunk, a multiple of `BLOCK`: a table has at most 200,000 parts."""
        return BLOCK * max(1, math.ceil(self.files.num_files / (BLOCK * _MAX_PARTS)))

    @property
    def _num_chunks(self) -> int:
        return math.ceil(self.files.num_files / self._size)

    @functools.cached_property
    def _done(self) -> set[int]:
        pattern = re.compile(rf"part-(\d+)\.{self.kind}")
        found = (pattern.fullmatch(name) for name in os.listdir(self.request.parts))  # noqa: PTH208
        return {int(match[1]) for match in found if match}

    @property
    def num_done(self) -> int:
        """Files in chunks that are done."""
        return sum(self._count(number) for number in self._done)

    def _count(self, number: int) -> int:
        return min(self._size, self.files.num_files - number * self._size)

    def pending(self) -> Iterator[int]:
        """The chunks that are not done when their turn comes."""
        return (number for number in range(self._num_chunks) if number not in self._done)

    def chunk(self, number: int) -> Chunk:
        """Some of the files."""
        names = self.files.read(number * self._size, self._size)
        return Chunk(number, names, self.files.folder)

    def _path(self, what: str, number: int, kind: str) -> Path:
        return self.request.parts / f"{what}-{number:06d}.{kind}"

    def keep(self, answered: Answered) -> None:
        """Writes a chunk's part of the table, after its corrupt files."""
        bad = self._path("bad", answered.number, "csv")
        bad.unlink(missing_ok=True)
        if answered.problems:
            names, reasons = zip(*answered.problems, strict=True)
            write_part(bad, {"file": [defuse_name(each) for each in names], "reason": reasons})
        write_part(self._path("part", answered.number, self.kind), self._columns(answered))
        self._done.add(answered.number)

    def _columns(self, answered: Answered) -> dict[str, Any]:
        found = answered.probabilities
        best, refused = found.argmax(axis=1), np.zeros(len(found), bool)
        if self.request.refuse and answered.p_values is not None:
            refused = answered.p_values <= self.request.refuse
        is_csv = self.kind == "csv"
        columns: dict[str, Any] = {
            "file": [defuse_name(each) if is_csv else each for each in answered.names],
            "prediction": [
                None if no else self.class_names[i] for i, no in zip(best, refused, strict=True)
            ],
            "probability": found.max(axis=1, initial=0.0),
        }
        for place, name in enumerate(self.class_names):
            columns[f"p({name})"] = found[:, place]
        if self.request.refuse:
            p_values = answered.p_values
            columns["familiarity"] = np.zeros(0) if p_values is None else p_values
            columns["refused"] = refused
        return columns

    def finish(self) -> dict[str, int]:
        """Joins the parts and takes their folder away; says how many files were answered."""
        numbers = range(self._num_chunks)
        bad = [path for n in numbers if (path := self._path("bad", n, "csv")).exists()]
        if bad:
            join_parts(bad, self.request.problems, ("file", "reason"))
        else:
            self.request.problems.unlink(missing_ok=True)
        parts = (self._path("part", number, self.kind) for number in numbers)
        join_parts(parts, self.request.output, list(self._columns(self._nothing)))
        total, num_bad = self.files.num_files, sum(map(_count_rows, bad))
        (self.request.parts / "job.json").unlink()  # the folder goes when it is no longer locked
        return {"num_files": total, "num_answered": total - num_bad, "num_problems": num_bad}

    @property
    def _nothing(self) -> Answered:
        return Answered(0, [], np.zeros((0, len(self.class_names))), None, [])


@contextlib.contextmanager
def _open_job(request: Request, question: dict[str, Any]) -> Iterator[_Job]:
    """The job of a request, begun or gone on with."""
    from filelock import FileLock, Timeout

    parts = request.parts
    _make_parts(parts)
    lock = FileLock(parts / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise ValueError(
            f"{parts}: another process is at work there; wait for it, or choose another --output."
        ) from error
    try:
        request.check()  # another process may have finished a table here meanwhile
        fresh = freeze(request.pictures, parts / "files.new", listed=request.listed, without=parts)
        question |= {"num_files": fresh.num_files, "list": fresh.digest, "folder": fresh.folder}
        _settle(request, question)
        os.replace(fresh.path, parts / "files.txt")
        files = dataclasses.replace(fresh, path=parts / "files.txt")
        yield _Job(request, files, question["class_names"], question["table"])
    finally:
        (parts / "files.new").unlink(missing_ok=True)
        is_over = not (parts / "job.json").exists()
        if is_over:
            _empty(parts)
        lock.release()
        if is_over:
            with contextlib.suppress(OSError):  # somebody else is at work there already
                parts.rmdir()


def _empty(folder: Path) -> None:
    """Removes what lies there while it is locked: whoever takes the lock next begins its own work.

    The lock goes last; Windows keeps an open file, and removes it itself.
    """
    for path in sorted(folder.iterdir(), key=lambda path: path.name == "lock"):
        with contextlib.suppress(OSError):
            path.unlink()


def _make_parts(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    ours = re.compile(r"job\.json|lock|files\.(txt|new)|(part|bad)-\d+\.(csv|parquet)|\..*")
    foreign = [path.name for path in folder.iterdir() if not ours.fullmatch(path.name)]
    if foreign:
        raise ValueError(
            f"{folder}: holds {min(foreign)}, which is not ours; choose another --output."
        )


def _settle(request: Request, question: dict[str, Any]) -> None:
    """Whether what lies there is work on this question.

    Raises:
        ValueError: It is work on another one, or no file was named.
    """
    path = request.parts / "job.json"
    if not question["num_files"]:
        raise ValueError("no picture is named: expected files, folders that hold some, or a list.")
    asked, there = json.loads(json.dumps(question)), _read_question(path)
    if there == asked:
        return
    if there is not None and not request.overwrite:
        other = [key for key in asked if there.get(key) != asked[key]]
        what = ", ".join(_NAMES.get(key, key) for key in other)
        raise ValueError(
            f"{request.parts}: holds unfinished work on another question (what is other: {what}). "
            "Ask as before to go on with it, or begin anew with --overwrite."
        )
    for old in (*request.parts.glob("part-*"), *request.parts.glob("bad-*")):
        old.unlink()
    write_text(path, json.dumps(asked, indent=1, sort_keys=True))


def _read_question(path: Path) -> dict[str, Any] | None:
    try:
        found = untrusted.read_json(path)
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _count_rows(path: Path) -> int:
    with path.open(encoding="utf-8", newline="") as file:
        return sum(1 for _ in csv.reader(file))
