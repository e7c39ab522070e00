"""`safelight transfer predict --output TABLE`, and where things are computed: here or by Ray."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from safelight import executors
from safelight.cli import console
from safelight.cli.data import damage
from safelight.runs import Run

MaybeImages = Annotated[
    list[Path] | None, typer.Argument(metavar="IMAGE", help="Pictures, or folders of pictures.")
]
Table = Annotated[
    Path | None,
    typer.Option(
        "--output",
        metavar="TABLE",
        help="Write the answers into this .csv or .parquet file, for any number of pictures: in "
        "flat memory, and where it was broken off the same command goes on. Corrupt files are "
        "listed in TABLE's .problems.csv.",
    ),
]
Listed = Annotated[
    str | None,
    typer.Option(
        "--list",
        metavar="FILE",
        help="With --output: further pictures, a name or URL (s3://bucket/a.jpg) a line; `-` is "
        "standard input.",
    ),
]
Where = Annotated[
    Literal["local", "ray"],
    typer.Option(
        "--executor",
        help="Where the frozen layers are computed: in this process, or by the workers of a Ray "
        "cluster (docs/cluster.md). What comes out is the same.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="With --executor ray: processes; by default one for each processor."
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="With --executor ray: of a cluster that is there; by default one is made on this "
        "machine and ended afterwards."
    ),
]


def find_executor(
    where: str, workers: int | None, address: str | None
) -> contextlib.AbstractContextManager[executors.RayExecutor | None]:
    """What `--executor`, `--workers` and `--address` name, to be closed after use.

    Raises:
        ValueError: They do not go together, or Ray is not installed.
    """
    if where == "ray":
        return executors.RayExecutor(workers=workers, address=address)
    for flag, value in (("--workers", workers), ("--address", address)):
        if value is not None:
            raise ValueError(f"{flag} {value}: expected --executor ray with it.")
    return contextlib.nullcontext()


@contextlib.contextmanager
def computing(
    executor: contextlib.AbstractContextManager[executors.RayExecutor | None],
) -> Iterator[None]:
    """Inside, an executor computes; it is closed at the end."""
    with executor as opened, executors.using(opened):
        yield


@dataclasses.dataclass(frozen=True)
class Volume:
    """What was said about many pictures; empty where `predict` answers a few.

    Attributes:
        output: The table.
        listed: The list of names.
        where: The executor.
        workers: How many.
        address: Where the cluster is.
    """

    output: Path | None
    listed: str | None
    where: str
    workers: int | None
    address: str | None

    def check(self, images: list[Path] | None, *, explain: Path | None) -> None:
        """Finds flags that do not go together.

        Raises:
            ValueError: There are some.
        """
        if self.output is None:
            if self.listed is not None or self.where != "local":
                flag = "--list" if self.listed is not None else "--executor ray"
                raise ValueError(f"{flag}: expected --output TABLE with it.")
            find_executor(self.where, self.workers, self.address)
            if not images:
                raise ValueError("no picture is named: expected IMAGE, or --output with --list.")
        elif explain is not None:
            raise ValueError("--explain and --output: expected one of them.")

    def answer(
        self, run: Run, images: list[Path] | None, *, refuse: float, overwrite: bool, as_json: bool
    ) -> None:
        """Writes the table and says what is in it; exit codes as of `predict`."""
        executor = find_executor(self.where, self.workers, self.address)
        assert self.output is not None
        from safelight.transfer.request import Request

        pictures = tuple(images or ())
        request = Request(self.output, pictures, self.listed, refuse, overwrite)
        request.check()
        console.start_keras()
        from safelight.transfer.experiment import settings_of
        from safelight.transfer.volume import answer_files

        with damage(run.path):
            settings_of(run)
        with console.progress() as report, computing(executor):
            found = answer_files(run, request, report=report)
        if as_json:
            console.print_json(found)
        else:
            _say(found, request.output, request.problems)
        if not found["num_answered"]:
            raise ValueError(f"no picture could be read: {request.problems} has the reasons.")
        if found["num_problems"]:
            raise typer.Exit(1)


def _say(found: dict[str, Any], output: Path, problems: Path) -> None:
    console.say(f"{'answers':<18}{console.printable(output)}")
    told = f"{found['num_answered']:,} answered"
    if found["num_problems"]:
        told += f", {found['num_problems']:,} could not be read ({console.printable(problems)})"
    console.say(f"{'pictures':<18}{told}")
    if not found["num_computed"]:
        return
    rate = (
        f"{found['num_computed']:,} in {found['seconds']:.1f} s, {found['per_second']:.1f} a second"
    )
    console.say(f"{'computed now':<18}{rate}")
    if alone := found.get("alone"):
        slower = min(alone, key=lambda name: alone[name])
        console.say(
            f"{'limits':<18}decoding alone {alone['decoding']:.1f} a second, computing alone "
            f"{alone['computing']:.1f}: {slower} is the narrower"
        )
