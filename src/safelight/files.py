"""Files that are whole or not there: under a temporary name until nothing is missing."""

import csv
import io
import math
import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

StrPath = str | os.PathLike[str]

# A spreadsheet computes what begins so, and a formula may send what it sees elsewhere.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_PARTIAL = re.compile(r"\.[0-9a-f]{32}\.partial")


@contextmanager
def atomic_path(path: StrPath) -> Iterator[Path]:
    """Give a temporary path beside `path` with the same ending, moved to `path` if all goes well.

    Args:
        path: the final name; its folder exists.

    Yields:
        Where to write. After an error nothing is left of it.

    Raises:
        OSError: with the final name, since the other says nothing to anybody.
    """
    path = Path(path)
    partial = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.partial{path.suffix}")
    try:
        yield partial
        # On the disk before it has its name: else a power failure could leave a name without bytes.
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        if error.errno and error.filename in (None, partial, str(partial)):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        partial.unlink(missing_ok=True)


def list_partials(folder: StrPath) -> list[Path]:
    """Find what killed writes have left in a folder under temporary names.

    Args:
        folder: it need not exist.
    """
    return [path for path in Path(folder).glob(".*") if _PARTIAL.search(path.name)]


def write_text(path: StrPath, text: str) -> None:
    """Write a text, in UTF-8, and see to it that it is on the disk.

    Args:
        path: the file; its folder exists.
        text: what to write; of names that are not valid Unicode, what is not is spelt out.
    """
    with atomic_path(path) as partial, partial.open("wb") as file:
        # File names need not be valid Unicode; what is not is spelt out.
        file.write(text.encode("utf-8", errors="backslashreplace"))


def write_csv(path: StrPath, columns: Mapping[str, Sequence[object]]) -> None:
    """Write columns side by side, their names in the first line.

    Args:
        path: the file; its folder exists.
        columns: one sequence per column, all of one length; NaN and infinity become empty cells,
            and a text that a spreadsheet would take for a formula gets an apostrophe in front.

    Raises:
        ValueError: if the columns differ in length.
    """
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"columns of {Path(path).name} differ in length: {lengths}.")
    text = _Lines(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows([_cell(value) for value in row] for row in zip(*columns.values(), strict=True))
    write_text(path, text.getvalue())


class _Lines(io.StringIO):
    """Ends lines with a line feed alone, while the writer quotes that and carriage returns."""

    def write(self, line: str) -> int:
        return super().write(f"{line[:-2]}\n")


def _cell(value: Any) -> object:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, str) and _FORMULA.match(value) and not _is_number(value):
        return f"'{value}"
    return "" if isinstance(value, float) and not math.isfinite(value) else value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def plain_cell(text: str) -> str:
    """What `write_csv` was given: a cell without the apostrophe in front of a formula."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text
