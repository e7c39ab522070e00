"""Lists of many files, kept on the disk and not in memory: a name a line, quoted as JSON does.

    frozen = freeze([Path("pictures")], Path("files.txt"))
    frozen.read(512, 64)    # names 512 to 575

Any name survives: line ends in it, and bytes that are no UTF-8.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from safelight.files import StrPath, atomic_path
from safelight.folders import walk
from safelight.remote import is_remote

BLOCK = 512
"""Of so many names each, the place of the first is known."""


@dataclasses.dataclass(frozen=True, eq=False)
class FileList:
    """A list on the disk.

    Attributes:
        path: The file.
        num_files: Names in it.
        digest: SHA-256 (hex) of the file.
        folder: What relative names are relative to; empty where all names are whole.
        places: Where each block of names begins, in bytes.
    """

    path: Path
    num_files: int
    digest: str
    folder: str
    places: array[int] = dataclasses.field(repr=False)

    def read(self, start: int, number: int) -> list[str]:
        """Some names.

        Args:
            start: The first one's position, a multiple of `BLOCK`.
            number: How many, at most.

        Raises:
            ValueError: No block begins there.
        """
        if start % BLOCK or not 0 <= start // BLOCK < len(self.places):
            raise ValueError(f"start={start}: expected a multiple of {BLOCK} within the list.")
        with self.path.open("rb") as file:
            file.seek(self.places[start // BLOCK])
            lines = (file.readline() for _ in range(min(number, self.num_files - start)))
            return [json.loads(line) for line in lines]


def freeze(
    pictures: Sequence[StrPath],
    target: Path,
    *,
    listed: str | None = None,
    without: StrPath | None = None,
) -> FileList:
    """Write down the names of pictures, as they are found.

    Args:
        pictures: Files, and folders, for which stands what they hold.
        target: The file to write; its folder exists.
        listed: A file with further names, one a line (those that JSON has quoted are taken as it
            means them, empty lines are not); `"-"` is standard input.
        without: A folder that is passed over where it lies in one of `pictures`.

    Raises:
        ValueError: A list or folder that cannot be read.
    """
    digest, places, number, place, is_relative = hashlib.sha256(), array("Q"), 0, 0, False
    with atomic_path(target) as partial, partial.open("wb") as file:
        for name in _name(pictures, listed, without):
            if number % BLOCK == 0:
                places.append(place)
            line = json.dumps(name).encode("ascii") + b"\n"
            file.write(line)
            digest.update(line)
            number, place = number + 1, place + len(line)
            is_relative = is_relative or not (is_remote(name) or os.path.isabs(name))  # noqa: PTH117
    folder = str(Path.cwd()) if is_relative else ""
    return FileList(target, number, digest.hexdigest(), folder, places)


def _name(
    pictures: Sequence[StrPath], listed: str | None, without: StrPath | None
) -> Iterator[str]:
    try:
        for picture in map(Path, pictures):
            found = walk(picture, without=without) if picture.is_dir() else [picture]
            yield from map(str, found)
        if listed is not None:
            with _open(listed) as lines:
                yield from _read_lines(lines)
    except OSError as error:
        raise ValueError(
            f"{error.filename or listed} cannot be read ({error.strerror or error}): expected "
            "pictures, folders of pictures, or a list of names, one a line."
        ) from error


@contextlib.contextmanager
def _open(listed: str) -> Iterator[Iterable[bytes]]:
    if listed == "-":
        yield sys.stdin.buffer
        return
    with Path(listed).open("rb") as file:
        yield file


def _read_lines(lines: Iterable[bytes]) -> Iterator[str]:
    for line in lines:
        name = line.removesuffix(b"\n").removesuffix(b"\r")
        if name:
            yield _unquote(name)


def _unquote(name: bytes) -> str:
    if name.startswith(b'"') and name.endswith(b'"'):
        with contextlib.suppress(ValueError):
            return str(json.loads(name))
    return os.fsdecode(name)
