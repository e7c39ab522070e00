"""One page on the pictures of a run, in Markdown: what to know before its numbers are believed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from safelight import idx
from safelight.datasets import ImageDataset, Splits
from safelight.neighbours import check_neighbours, share_apart
from safelight.untrusted import printable

MAX_IMBALANCE = 3
"""Above this many times as many pictures in the largest class, weights are suggested."""

MAX_APART = 0.5
"""Above this share of neighbours that groups part, series are not kept together."""

_MAX_ROWS = 50


def describe_dataset(dataset: ImageDataset) -> dict[str, Any]:
    """A data set as it stands in a run's `config.json`: counts, what was left out, copies."""
    return {
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "num_images": len(dataset),
        "class_names": list(dataset.class_names),
        **({"grouped_by": dataset.grouped_by} if dataset.grouped_by else {}),
        "problems": [str(problem) for problem in dataset.problems],
        "duplicates": len(dataset.duplicates),
        "conflicting_duplicates": [
            [dataset.files[i] for i in cluster] for cluster in dataset.conflicting_duplicates
        ],
    }


def describe_data(dataset: ImageDataset, splits: Splits | None) -> dict[str, Any]:
    """What names and labels tell of the pictures: classes, and series torn apart.

    Args:
        dataset: The pictures.
        splits: How they are dealt out; None where that is not known, or cannot be.
    """
    parts = {"all": dataset}
    if splits is not None:
        parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    counts = {
        name: np.bincount(part.labels, minlength=dataset.num_classes)
        for name, part in parts.items()
    }
    per_part = {
        name: dict(zip(dataset.class_names, numbers.tolist(), strict=True))
        for name, numbers in counts.items()
    }
    first = next(iter(parts))
    torn = () if splits is None else splits.straddling
    return {
        "num_per_class": per_part[first],
        "num_per_part": per_part,
        "imbalance": float(counts[first].max() / max(counts[first].min(), 1)),
        "neighbours": _look_at_neighbours(dataset, splits),
        "straddling": [[dataset.files[i] for i in cluster] for cluster in torn],
        "has_groups": dataset.groups is not None,
        "torn_groups": 0 if splits is None else splits.num_torn,
    }


def _look_at_neighbours(dataset: ImageDataset, splits: Splits | None) -> dict[str, Any] | None:
    checked = check_neighbours(dataset.files, dataset.labels)
    if checked is None:
        return None
    found = checked.to_dict()
    strategy = "stratified" if splits is None else splits.strategy
    if dataset.groups is not None and strategy == "grouped":
        found["apart"] = share_apart(dataset.files, dataset.labels, dataset.groups)
    advice = advise_on_neighbours(found, split=strategy, has_groups=dataset.groups is not None)
    return {**found, "advice": advice}


def render_data_page(config: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """Write the page.

    Args:
        config: What `config.json` holds; without settings nothing was trained.
        data: What `metrics.json` holds under "data".

    Returns:
        Markdown with tables (GitHub's), a section for each question, also where all is well.
        Names are escaped: they show as they are and are never markup.
    """
    dataset, split = config["dataset"], config["split"]["strategy"]
    place = "config.json" if config["settings"] else "what `safelight check --json` prints"
    sections = {
        "Pictures per class": _tell_classes(data, config["settings"]),
        "Files left out": _tell_problems(dataset["problems"], place),
        "The same picture twice": _tell_duplicates(dataset, data.get("straddling", []), place),
        "Neighbours": _tell_neighbours(data["neighbours"], split),
        "What belongs together": _tell_groups(dataset, data, split),
        "Labels to look at again": _tell_suspects(data, trained=bool(config["settings"])),
    }
    texts = [f"# The pictures of {escape(dataset['name'])}", _introduce(dataset, data, split)]
    for title, text in sections.items():
        texts += [f"## {title}", text]
    return "\n\n".join(texts) + "\n"


def advise_on_neighbours(
    found: Mapping[str, Any] | None, *, split: str, has_groups: bool = False
) -> str:
    """One sentence: what was seen, what it means, how to mend it.

    Args:
        found: `Neighbours.to_dict()`, with "apart" the share of neighbours that groups part; or
            None.
        split: How the data set was split; "stratified" tears series apart, and "grouped" does where
            the groups are others.
        has_groups: Whether the data set knows which pictures belong together.

    Returns:
        The sentence, or nothing if there is nothing to worry about.
    """
    if found is None or not found["is_blocked"] or split.startswith("given"):
        return ""
    apart = found.get("apart", 0.0)
    if split == "grouped" and apart <= MAX_APART:
        return ""
    seen = (
        f"{_percent(found['agreement'])} of pictures with neighbouring names share a label "
        f"({_percent(found['expected'])} by chance)"
    )
    meaning = "they were probably taken one after another, so"
    if found["is_sorted"]:
        # Somebody may have sorted the pictures first and numbered them then.
        meaning = "names run class after class, and if the pictures were taken in that order,"
    mend = "train with --split grouped" if has_groups else "say with --groups which belong together"
    if split == "grouped":
        mend = f"the groups part {_percent(apart)} of them: name such that keep series together"
    return (
        f"{seen}: {meaning} a split that parts them puts near-copies on both sides and its numbers "
        f"are optimistic; {mend}."
    )


def escape(name: object) -> str:
    """Make a name show as it is in Markdown, also within a table.

    What cannot be printed, or would be lost (line ends, control characters, spaces at an end or in
    a row), is spelt out as in Python.

    Args:
        name: Any text.
    """
    text = re.sub(r"^ | $| (?= )", r"\\x20", printable(name))
    # An underscore within a word is an underscore; all others, and "a:b" and "www.", are markup.
    text = re.sub(r"[\\`*\[\]<>|~&@$#]|(?<![^\W_])_|_(?![^\W_])|:(?! )", r"\\\g<0>", text)
    text = re.sub(r"(?i)\bwww\.", lambda found: f"{found[0][:-1]}\\.", text)
    return re.sub(r"^([-+=]|\d+(?=[.)](\s|$)))", _escape_start, text)


def tell_copies_looked_for(name: object) -> str:
    """What kind of copies of pictures is looked for, as the end of a sentence about them.

    Of digits and clothes, which are nearly the same by nature, only exact copies are.

    Args:
        name: Of the data set.
    """
    if str(name) in idx.CLASS_NAMES:
        return "exactly (only exact copies were looked for)"
    return "exactly or nearly"


def _escape_start(found: re.Match[str]) -> str:
    """A number at the start of a line would begin a list, and so would a sign."""
    return f"{found[0]}\\" if found[0].isdigit() else f"\\{found[0]}"


def _introduce(dataset: Mapping[str, Any], data: Mapping[str, Any], split: str) -> str:
    parts = {part: sum(numbers.values()) for part, numbers in data["num_per_part"].items()}
    dealt = ", ".join(f"{number:,} for {part}" for part, number in parts.items() if number)
    notes = {
        "the balance of the classes": data["imbalance"] > MAX_IMBALANCE,
        "files left out": dataset["problems"],
        "copies": dataset["conflicting_duplicates"] or data.get("straddling"),
        "neighbours": data["neighbours"] and data["neighbours"]["advice"],
        "groups that the folders part": data.get("torn_groups"),
        "labels": data.get("suspects"),
    }
    worth = [title for title, found in notes.items() if found]
    closing = f"Worth a look: {', '.join(worth)}." if worth else "Nothing here needs a second look."
    return (
        f"{dataset['num_images']:,} pictures of {len(dataset['class_names'])} classes; split "
        f"({split}): {dealt}. File names are those below the data set's folder.\n\n{closing}"
    )


def _tell_classes(data: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    parts = data["num_per_part"]
    rows = [
        [escape(name), *(f"{numbers[name]:,}" for numbers in parts.values())]
        for name in data["num_per_class"]
    ]
    table = _table(["class", *parts], rows, num_left=1)
    times = f"The largest class has {data['imbalance']:.1f} times as many training pictures as "
    if data["imbalance"] <= MAX_IMBALANCE:
        return f"{table}\n\n{times}the smallest, which needs no care."
    if settings.get("class_weight") == "balanced":
        return f"{table}\n\n{times}the smallest; `--class-weight balanced` made up for that."
    return (
        f"{table}\n\n{times}the smallest. Accuracy favours the large ones: look at the balanced "
        "accuracy, and try `--class-weight balanced`, which gives each class the same say."
    )


def _tell_problems(problems: Sequence[str], place: str) -> str:
    if not problems:
        return "None: every file could be read."
    number = "1 file was" if len(problems) == 1 else f"{len(problems):,} files were"
    return f"{number} left out:\n\n{_list([escape(problem) for problem in problems], place)}"


def _tell_duplicates(
    dataset: Mapping[str, Any], straddling: Sequence[Sequence[str]], place: str
) -> str:
    looked_for = tell_copies_looked_for(dataset["name"])
    if not dataset["duplicates"]:
        return f"No picture is there twice, {looked_for}."
    texts = [
        f"{_count_groups(dataset['duplicates'])} the same picture, {looked_for}; a random "
        "split keeps each together."
    ]
    conflicting = dataset["conflicting_duplicates"]
    if conflicting:
        texts.append(
            f"{_count_groups(len(conflicting))} in different classes, where at most one label can "
            "be right:"
        )
        texts.append(_list([_join(cluster) for cluster in conflicting], place))
    else:
        texts.append("None is in different classes.")
    if straddling:
        texts.append(
            f"{_count_groups(len(straddling))} torn apart by the folders train and test, which "
            "makes the test too easy:"
        )
        texts.append(_list([_join(cluster) for cluster in straddling], place))
    return "\n\n".join(texts)


def _tell_neighbours(found: Mapping[str, Any] | None, split: str) -> str:
    if found is None:
        return "File names give no order that runs across the classes, so nothing can be said."
    p_value = "p < 0.001" if found["p_value"] < 0.001 else f"p = {found['p_value']:.2g}"
    number = f"{found['num_pairs']:,} pairs"
    if found["advice"]:
        return f"**Beware:** {escape(found['advice'])}\n\nCounted on {number}, {p_value}."
    pairs = (
        f"Of {number} of pictures with neighbouring names {_percent(found['agreement'])} share a "
        f"label; by chance it would be {_percent(found['expected'])} ({p_value})."
    )
    if not found["is_blocked"]:
        return f"{pairs} That is no sign of series."
    kept = {
        "grouped": "Such series stay together, as the split is by groups.",
        "given": "Make sure that no series is in both train and test, which are your folders.",
    }
    return f"{pairs} {kept.get(split.removesuffix('-grouped'), '')}".rstrip()


def _tell_groups(dataset: Mapping[str, Any], data: Mapping[str, Any], split: str) -> str:
    rule, num_torn = dataset.get("grouped_by"), data.get("torn_groups", 0)
    by = f", told by {_code(f'--groups {rule}')}" if rule else ""
    if split == "grouped":
        return f"Pictures of one group are in one part{by}; intervals draw whole groups."
    if split != "given-grouped":
        if rule or data.get("has_groups"):
            return f"Known{by}; this split does not mind it, `--split grouped` does."
        return "Not told: `--groups` says it."
    told = f"Which part a picture is in is told by your folders, which group{by or ' in Python'}."
    if num_torn:
        number = "1 group has" if num_torn == 1 else f"{num_torn:,} groups have"
        beware = f"**Beware:** {number} pictures in several parts, which makes the test too easy."
        return f"{told} {beware}"
    return f"{told} No group is in two parts; intervals draw whole groups."


def _code(text: str) -> str:
    """A text as it is typed, where nothing is markup."""
    fence = "``" if "`" in text else "`"
    space = " " if "`" in text else ""
    return f"{fence}{space}{printable(text)}{space}{fence}"


def _tell_suspects(data: Mapping[str, Any], *, trained: bool) -> str:
    if not trained:
        return "Not checked: that takes a classifier, as `safelight transfer train` makes it."
    if "suspects" not in data:
        return "Not checked: this training made no answers on pictures that it held out."
    suspects = data["suspects"]
    if not suspects:
        return "None: no label is improbable to a classifier that has not seen the picture."
    number = "This label is" if len(suspects) == 1 else f"These {len(suspects):,} labels are"
    rows = [
        [
            escape(each["file"]),
            escape(each["label"]),
            escape(each["prediction"]),
            _percent(each["probability"], digits=1),
        ]
        for each in suspects[:_MAX_ROWS]
    ]
    return (
        f"{number} improbable (below {_percent(data['doubt'])}) to a classifier that has not seen "
        "the picture. Some are wrong, some are hard pictures: a person has to look.\n\n"
        + _table(["file", "label", "prediction", "probability of label"], rows, num_left=3)
        + _rest(len(suspects), "metrics.json")
        + "\n\n![The most doubtful of them](pictures/suspects.png)"
    )


def _count_groups(number: int) -> str:
    return "1 group is" if number == 1 else f"{number:,} groups are"


def _join(files: Sequence[str]) -> str:
    return " = ".join(escape(file) for file in files)


def _list(items: Sequence[str], place: str) -> str:
    lines = [f"- {item}" for item in items[:_MAX_ROWS]]
    return "\n".join(lines) + _rest(len(items), place)


def _rest(number: int, place: str) -> str:
    return f"\n\n... and {number - _MAX_ROWS:,} more, in {place}." if number > _MAX_ROWS else ""


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, num_left: int) -> str:
    aligned = ["---" if i < num_left else "---:" for i in range(len(columns))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [columns, aligned, *rows])


def _percent(share: float, *, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"
