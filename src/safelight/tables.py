"""Tables of answers that are too many for memory: written in parts, then joined into one file.

CSV is written without more than Python; Parquet by pyarrow (`pip install 'safelight[scale]'`).
"""

from __future__ import annotations

import csv
import importlib.util
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from safelight.files import atomic_path, write_text

Columns = Mapping[str, Sequence[Any] | np.ndarray]

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_DIGITS = 6
_GROUP_ROWS = 2**16  # of a Parquet file, which is read a group at a time


def find_format(path: Path) -> str:
    """`"csv"` or `"parquet"`, from a file's ending.

    Raises:
        ValueError: Another ending, or pyarrow is not installed.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("csv", "parquet"):
        raise ValueError(f"{path}: expected a name that ends in .csv or .parquet.")
    if kind == "parquet" and importlib.util.find_spec("pyarrow") is None:
        raise ValueError(
            f"{path}: Parquet needs pyarrow, which is not installed: expected `pip install "
            "'safelight[scale]'`, or a name that ends in .csv."
        )
    return kind


def write_part(path: Path, columns: Columns) -> None:
    """Writes rows as one part, whole or not at all.

    Args:
        path: Its ending says in which format.
        columns: Names, and of each as many values: texts, or an array of numbers or truth values.
            In CSV numbers have six digits behind the point, and texts that a spreadsheet would run
            as a formula are made harmless: see `defuse`.
    """
    if path.suffix == ".csv":
        write_text(path, _to_csv(_rows(columns)))
        return
    import pyarrow.parquet

    with atomic_path(path) as partial:
        pyarrow.parquet.write_table(_to_arrow(columns), partial)


def join_parts(parts: Iterable[Path], target: Path, names: Sequence[str]) -> None:
    """Joins parts into one file, reading one after the other.

    Args:
        parts: As of `write_part`, in the order that is wanted, at least one.
        target: The file to write; its ending is theirs.
        names: Of the columns.
    """
    with atomic_path(target) as partial:
        if target.suffix.lower() == ".csv":
            _join_csv(parts, partial, names)
        else:
            _join_parquet(parts, partial)


def defuse(text: str) -> str:
    """A text that no spreadsheet takes for a formula.

    Those that begin with `=`, `+`, `-`, `@`, a tabulator or a carriage return get an apostrophe in
    front, by which spreadsheets know texts.
    """
    return f"'{text}" if text.startswith(_FORMULA) else text


def defuse_name(name: str) -> str:
    """A file's name likewise: with `./` in front, which names the same file."""
    return f"./{name}" if name.startswith(_FORMULA) else name


def _join_csv(parts: Iterable[Path], target: Path, names: Sequence[str]) -> None:
    header = _to_csv([[defuse(name) for name in names]])
    with target.open("wb") as whole:
        whole.write(header.encode("utf-8", errors="backslashreplace"))
        for path in parts:
            with path.open("rb") as part:
                shutil.copyfileobj(part, whole)


def _join_parquet(parts: Iterable[Path], target: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    tables = (pyarrow.parquet.read_table(path) for path in parts)
    first = next(tables)
    with pyarrow.parquet.ParquetWriter(target, first.schema) as writer:
        waiting = [first]
        for table in tables:
            waiting.append(table)
            if sum(len(each) for each in waiting) >= _GROUP_ROWS:
                writer.write_table(pyarrow.concat_tables(waiting))
                waiting = []
        if waiting:
            writer.write_table(pyarrow.concat_tables(waiting))


def _to_csv(rows: Iterable[Sequence[object]]) -> str:
    # Only characters of the line's end are quoted for being one, and a name may hold either.
    lines = _Lines()
    csv.writer(lines, lineterminator="\r\n").writerows(rows)
    return "".join(lines)


class _Lines(list[str]):
    """What is written, row by row, with ends of one character."""

    def write(self, row: str) -> None:
        self.append(row.removesuffix("\r\n") + "\n")


def _rows(columns: Columns) -> Iterator[list[object]]:
    for row in zip(*columns.values(), strict=True):
        yield [_cell(value) for value in row]


def _cell(value: Any) -> object:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return round(value, _DIGITS) if math.isfinite(value) else ""
    return defuse(value) if isinstance(value, str) else value


def _to_arrow(columns: Columns) -> Any:
    import pyarrow

    arrays = {
        name: pyarrow.array(values)
        if isinstance(values, np.ndarray)
        else pyarrow.array(map(_printable, values), pyarrow.string())
        for name, values in columns.items()
    }
    return pyarrow.table(arrays)


def _printable(text: str | None) -> str | None:
    """Names need not be valid Unicode; what is not is spelt out, as in CSV."""
    return text if text is None else text.encode("utf-8", "backslashreplace").decode("utf-8")
