"""Which pictures belong together (one patient, module, scene), told by their names or a table."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from safelight.files import StrPath

_COLUMNS = ("file", "group")
_EXAMPLE = "'(patient[0-9]+)'"


def find_groups(files: Sequence[str], rule: StrPath | Mapping[str, str]) -> NDArray[np.int64]:
    """Number the groups of pictures.

    Args:
        files: A name for each picture, relative to the data set's folder, with forward slashes.
        rule: What tells them: a regular expression with one pair of parentheses, whose match within
            a name is the name of its group; a `.csv` file with the columns `file` and `group`; or
            the like as a mapping. A picture whose group is empty stands alone.

    Returns:
        The group of each picture, (n,), numbered from 0 in the order of their first pictures.

    Raises:
        ValueError: The rule cannot be read, says nothing of some pictures, or does not group.
    """
    if isinstance(rule, Mapping):
        told, words = rule, "groups"
    elif _is_table(rule):
        told, words = _read_table(Path(rule)), str(rule)
    else:
        told, words = _match(files, str(rule)), f"groups {str(rule)!r}"
    missing = [file for file in files if file not in told]
    if missing:
        raise ValueError(
            f"{words}: says nothing of {len(missing)} of {len(files)} pictures, such as "
            f"{missing[0]}; expected a group for each, an empty one where a picture stands alone."
        )
    numbers: dict[object, int] = {}
    # A tuple is no text, so that no group is called like a picture that stands alone.
    keys = (told[file] or (place,) for place, file in enumerate(files))
    found = np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)
    if len(numbers) in (1, len(files)):
        what = "all in one group" if len(numbers) == 1 else "each a group of its own"
        raise ValueError(
            f"{words}: the {len(files)} pictures would be {what} ({files[0]}: "
            f"{told[files[0]]!r}); expected what several, and not all, have in common."
        )
    return found


def name_rule(rule: StrPath | Mapping[str, str] | None) -> str:
    """A rule in words that may be kept: where somebody's table lies is not to be told."""
    if rule is None or isinstance(rule, Mapping):
        return ""
    return Path(rule).name if _is_table(rule) else str(rule)


def _is_table(rule: StrPath) -> bool:
    return str(rule).lower().endswith(".csv")


def _match(files: Sequence[str], rule: str) -> dict[str, str]:
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise ValueError(
            f"groups {rule!r}: is no regular expression ({error}); expected one such as "
            f"{_EXAMPLE}, or a .csv file with the columns {' and '.join(_COLUMNS)}."
        ) from error
    if pattern.groups != 1:
        raise ValueError(
            f"groups {rule!r}: has {pattern.groups} pairs of parentheses; expected one around what "
            f"the names of a group share, such as {_EXAMPLE}, and (?:...) for others."
        )
    found = ((file, pattern.search(file)) for file in files)
    return {file: match[1] or "" for file, match in found if match}


def _read_table(path: Path) -> dict[str, str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{path}: cannot be read as a table ({reason}).") from error
    found: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        lacking = [column for column in _COLUMNS if row.get(column) is None]
        if lacking:
            raise ValueError(
                f"{path}: row {number} has no {lacking[0]}; expected the columns "
                f"{' and '.join(_COLUMNS)}, named in the first row."
            )
        name, group = row["file"].replace("\\", "/").removeprefix("./"), row["group"].strip()
        if found.setdefault(name, group) != group:
            raise ValueError(
                f"{path}: row {number} puts {name} into {group!r}, an earlier one into "
                f"{found[name]!r}; expected one group for each picture."
            )
    return found
