"""Files that are whole or not there: under a temporary name until nothing is missing."""

import csv
import io
import math
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

StrPath = str | os.PathLike[str]


@contextmanager
def atomic_path(path: StrPath) -> Iterator[Path]:
    """Give a temporary path beside `path` with the same ending, moved to `path` if all goes well.

    Args:
        path: the final name; its folder exists.

    Yields:
        Where to write. After an error nothing is left of it.
    """
    path = Path(path)
    partial = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.partial{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: StrPath, text: str) -> None:
    """Write a text, in UTF-8, and see to it that it is on the disk.

    Args:
        path: the file; its folder exists.
        text: what to write; of names that are not valid Unicode, what is not is spelt out.
    """
    with atomic_path(path) as partial, partial.open("wb") as file:
        # File names need not be valid Unicode; what is not is spelt out.
        file.write(text.encode("utf-8", errors="backslashreplace"))
        file.flush()
        os.fsync(file.fileno())


def write_csv(path: StrPath, columns: Mapping[str, Sequence[object]]) -> None:
    """Write columns side by side, their names in the first line.

    Args:
        path: the file; its folder exists.
        columns: one sequence per column, all of one length; NaN and infinity become empty cells.

    Raises:
        ValueError: if the columns differ in length.
    """
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"columns of {Path(path).name} differ in length: {lengths}.")
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(value) for value in row] for row in zip(*columns.values(), strict=True))
    write_text(path, text.getvalue())


def _cell(value: Any) -> object:
    value = value.item() if isinstance(value, np.generic) else value
    return "" if isinstance(value, float) and not math.isfinite(value) else value
