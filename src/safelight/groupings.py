"""Which pictures belong together (one patient, module, scene), told by their names or a table."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safelight import untrusted
from safelight.files import StrPath

_COLUMNS = ("file", "group")
_TABLE = f"a .csv file with the columns {' and '.join(_COLUMNS)}"
_EXAMPLE = "'(patient[0-9]+)'"
_ALONE = ("", None)


@dataclass(frozen=True)
class Rule:
    """What tells groups, as from `read_rule`.

    Attributes:
        words: What it is called in messages.
        name: What may be kept of it: where somebody's table lies is not to be told.
        pattern: A regular expression with one group; None where there is a table.
        told: The group of each file otherwise, as names are written and with forward slashes.
    """

    words: str
    name: str
    pattern: re.Pattern[str] | None
    told: Mapping[str, Any]

    def number(self, files: Sequence[str]) -> NDArray[np.int64]:
        """Number the groups of pictures.

        Args:
            files: A name for each picture, relative to the data set's folder, with forward slashes.

        Returns:
            The group of each picture, (n,), from 0 in the order of their first pictures.

        Raises:
            ValueError: The rule says nothing of some pictures, or does not group.
        """
        told = self.told if self.pattern is None else _match(files, self.pattern)
        missing = [file for file in files if file not in told]
        if missing:
            raise ValueError(
                f"{self.words}: says nothing of {len(missing)} of {len(files)} pictures, such as "
                f"{missing[0]}; expected a group for each, an empty one where a picture stands "
                "alone."
            )
        numbers: dict[object, int] = {}
        # A tuple is no name of a group.
        keys = ((i,) if told[file] in _ALONE else told[file] for i, file in enumerate(files))
        found = np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)
        if len(numbers) in (1, len(files)):
            what = "all in one group" if len(numbers) == 1 else "each a group of its own"
            raise ValueError(
                f"{self.words}: the {len(files)} pictures would be {what} ({files[0]}: "
                f"{told[files[0]]!r}); expected what several, and not all, have in common."
            )
        return found


def read_rule(rule: StrPath | Mapping[str, Any]) -> Rule:
    """Read what tells groups, before any picture is looked at.

    Args:
        rule: A regular expression with one pair of parentheses, whose match within a name is the
            name of its group; a `.csv` file with the columns `file` and `group`; or the like as a
            mapping. A picture whose group is empty stands alone.

    Raises:
        ValueError: It is no regular expression of that kind, or no such table.
    """
    if isinstance(rule, Mapping):
        return Rule("groups", "", None, rule)
    if is_table(str(rule)):
        return Rule(str(rule), Path(rule).name, None, _read_table(Path(rule)))
    return Rule(f"groups {str(rule)!r}", str(rule), _compile(str(rule)), {})


def is_table(rule: str) -> bool:
    """Whether a rule, or its name, is that of a table."""
    return rule.lower().endswith(".csv")


def _match(files: Sequence[str], pattern: re.Pattern[str]) -> dict[str, str]:
    found = ((file, pattern.search(file)) for file in files)
    return {file: match[1] or "" for file, match in found if match}


def _compile(rule: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise ValueError(
            f"groups {rule!r}: is no regular expression ({error}); expected one such as "
            f"{_EXAMPLE}, or {_TABLE}."
        ) from error
    if pattern.groups != 1:
        raise ValueError(
            f"groups {rule!r}: has {pattern.groups} pairs of parentheses; expected one around what "
            f"the names of a group share, such as {_EXAMPLE}, and (?:...) for others; or {_TABLE}."
        )
    return pattern


def _read_table(path: Path) -> dict[str, str]:
    try:
        text = untrusted.read_bytes(path).decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        rows = [(reader.line_num, row) for row in reader]
    except (OSError, ValueError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{path}: cannot be read as a table ({reason}).") from error
    found: dict[str, str] = {}
    for line, row in rows:
        lacking = [column for column in _COLUMNS if row.get(column) is None]
        if lacking:
            raise ValueError(
                f"{path}: line {line} has no {lacking[0]}; expected the columns "
                f"{' and '.join(_COLUMNS)}, named in the first line."
            )
        file, group = row["file"], row["group"].strip()
        if found.setdefault(file, group) != group:
            raise ValueError(
                f"{path}: line {line} puts {file} into {group!r}, an earlier one into "
                f"{found[file]!r}; expected one group for each picture."
            )
    # As Windows and `find .` write names; what is written as it is comes first.
    usual = {file.replace("\\", "/").removeprefix("./"): group for file, group in found.items()}
    return usual | found
