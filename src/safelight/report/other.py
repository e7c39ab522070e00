"""The chapter on a run of a kind that has none of its own: its numbers and pictures as they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from safelight.report import pictures, words
from safelight.report.blocks import Answer, Block, Chapter, Table, Text, Words
from safelight.report.chapters import Teller, make_chapter
from safelight.report.provenance import tell_environment
from safelight.report.reading import Reading, interval, number

_MAX_ROWS = 60


def chapter(reading: Reading) -> Chapter:
    """All that such a run holds."""
    title = Markup("A run on {}")
    return make_chapter(reading, title=title, answer=answer, tellers={}, always=_SECTIONS)


def answer(reading: Reading) -> Answer:
    """What kind of run it is, and where its numbers are."""
    kind = words.name(reading.kind.replace("-", " "))
    what = Markup("A run of the kind {}.").format(kind)
    rows = max((len(x) for x in reading.metrics.values() if _is_list_of_mappings(x)), default=0)
    told = "Its numbers and pictures are below, as the run keeps them."
    if not reading.metrics:
        return Answer(what, "numbers yet", "No", "", [], [])
    label = "models side by side" if rows else "numbers in all"
    figure = words.count(rows or sum(_said(x) is not None for x in reading.metrics.values()))
    return Answer(what, label, figure, "", [told], [])


def _tell_numbers(reading: Reading) -> Sequence[Block]:
    said = {name: _said(value) for name, value in reading.metrics.items()}
    rows: list[list[Words]] = [
        [words.printable(name).replace("_", " "), text]
        for name, text in said.items()
        if text is not None
    ]
    tables: list[Block] = [
        _tabulate(name, value)
        for name, value in reading.metrics.items()
        if _is_list_of_mappings(value)
    ]
    first: list[Block] = [Table("Numbers of the run", ["number", "value"], rows)] if rows else []
    return [*tables, *first] or [Text("There are no numbers.")]


def _is_list_of_mappings(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(x, Mapping) for x in value)


def _tabulate(name: str, found: Sequence[Mapping[str, Any]]) -> Table:
    keys = [key for key in found[0] if any(_said(each.get(key)) is not None for each in found)]
    rows: list[list[Words]] = [
        [_said(each.get(key)) or "–" for key in keys] for each in found[:_MAX_ROWS]
    ]
    columns = [words.printable(key).replace("_", " ") for key in keys]
    return Table(words.printable(name).replace("_", " ").capitalize(), columns, rows)


def _said(value: Any) -> Words | None:
    """A number, an interval or a short text; None for what is longer."""
    if (plain := number(value)) is not None:
        return words.number(plain, 0 if plain.is_integer() else 3)
    if (found := interval(value)) is not None:
        return words.interval(
            found, 1 if math.isfinite(found.value) and abs(found.value) > 10 else 3
        )
    if isinstance(value, str) and value:
        return words.printable(value)
    return None


def _tell_pictures(reading: Reading) -> Sequence[Block]:
    return pictures.show_others(reading, set())


_SECTIONS: Mapping[str, Teller] = {
    "Numbers": _tell_numbers,
    "Pictures": _tell_pictures,
    "Environment": tell_environment,
}
