"""The section on a classifier's pictures: what is to be known before its numbers are believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from safelight.report import pictures, words
from safelight.report.blocks import Block, Bullets, Table, Text, Words
from safelight.report.reading import Reading, dig, mapping
from safelight.transfer.data_page import tell_copies_looked_for

_MAX_ROWS = 20
_PARTS = ("train", "validation", "test")


def tell_data(reading: Reading) -> Sequence[Block]:
    """Balance, files left out, copies, neighbours and doubtful labels."""
    dataset, data = mapping(reading.config.get("dataset")), mapping(reading.metrics.get("data"))
    blocks: list[Block] = [_class_table(data)] if data.get("num_per_part") else []
    advised = dig(data, "neighbours", "advice")
    if advised:
        told = Markup("<strong>Beware:</strong> {}").format(words.printable(advised))
        blocks.append(Text(told, tone="warning"))
    return [*blocks, *_problems(dataset), *_copies(dataset, data), *_suspects(reading, data)]


def list_names(items: Sequence[Words], place: str, *, number: int = _MAX_ROWS) -> Bullets:
    """The first of some names, and where the others are.

    Args:
        items: Names.
        place: The file that has all of them.
        number: How many are shown.
    """
    more = [f"… and {len(items) - number:,} more, in {place}"] if len(items) > number else []
    return Bullets([*items[:number], *more])


def _class_table(data: Mapping[str, Any]) -> Table:
    parts = {part: mapping(data["num_per_part"].get(part)) for part in _PARTS}
    parts = {part: numbers for part, numbers in parts.items() if sum(numbers.values())}
    # The training part keeps the classes in their own order nowhere; names sort as they are.
    names = sorted({name for numbers in parts.values() for name in numbers})
    rows: list[list[Words]] = [
        [words.name(name), *(words.count(numbers.get(name, 0)) for numbers in parts.values())]
        for name in names
    ]
    return Table("Pictures of each class", ["class", *parts], rows)


def _problems(dataset: Mapping[str, Any]) -> list[Block]:
    problems = dataset.get("problems")
    if not problems:
        return [Text("No file was left out: every one could be read.")]
    told = Markup("{}:").format(words.plural(len(problems), "file left out", "files left out"))
    return [Text(told), list_names([words.name(each) for each in problems], "config.json")]


def _copies(dataset: Mapping[str, Any], data: Mapping[str, Any]) -> list[Block]:
    number, looked_for = dataset.get("duplicates"), tell_copies_looked_for(dataset.get("name"))
    if not number:
        return [Text(f"No picture is there twice, {looked_for}.")]
    told = Markup("{} the same picture, {}; a random split keeps each together.")
    are = Markup("{} {}").format(words.count(number), "group is" if number == 1 else "groups are")
    return [
        Text(told.format(are, looked_for)),
        *_clusters(
            dataset.get("conflicting_duplicates"),
            "in different classes, where at most one label can be right:",
        ),
        *_clusters(
            data.get("straddling"),
            "torn apart by the folders train and test, which makes the test too easy:",
        ),
    ]


def _clusters(clusters: Any, what: str) -> list[Block]:
    if not clusters:
        return []
    one = len(clusters) == 1
    are = "group of copies is" if one else "groups of copies are"
    told = Markup("{} {} {}").format(words.count(len(clusters)), are, what)
    lines = [words.join([words.name(file) for file in cluster], " = ") for cluster in clusters]
    return [Text(told, tone="warning"), list_names(lines, "config.json or metrics.json")]


def _suspects(reading: Reading, data: Mapping[str, Any]) -> list[Block]:
    suspects = data.get("suspects")
    if suspects is None:
        told = "Labels were not checked: this training made no answers on held-out pictures."
        return [Text(told)]
    if not suspects:
        return [Text("No label is improbable to a classifier that has not seen the picture.")]
    rows: list[list[Words]] = [
        [
            *(words.name(each[key]) for key in ("file", "label", "prediction")),
            words.percent(each["probability"]),
        ]
        for each in suspects[:_MAX_ROWS]
    ]
    told = Markup(
        "{} to look at again: improbable to a classifier that had not seen the picture. Some are "
        "wrong, some are hard pictures."
    ).format(words.plural(len(suspects), "label"))
    gallery = pictures.show(
        reading,
        "suspects",
        "The pictures whose labels are most improbable; the table names them.",
        "Labels to look at again: a person has to decide",
        missing="The picture suspects.png is missing; training draws it.",
    )
    columns = ["file", "label", "answer", "probability of the label"]
    return [Text(told), gallery, Table("Most improbable labels", columns, rows, "lllr")]
