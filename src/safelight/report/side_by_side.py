"""The chapter on several runs of one kind: which is better, and what they differ in."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from safelight.metrics import Interval
from safelight.report import autoencoder, charts, classifier, generator, words
from safelight.report.blocks import (
    Answer,
    Block,
    Chapter,
    Step,
    Table,
    Text,
    Words,
    answer_or_damage,
    sections,
)
from safelight.report.charts import Axis, Row
from safelight.report.paired import Paired, compare
from safelight.report.provenance import train_command
from safelight.report.reading import Reading, dig, mapping


@dataclass(frozen=True)
class _Kind:
    """How runs of a kind are compared.

    Attributes:
        plural: What several of them are called.
        primary: The number that decides, by its key among differences.
        scale: The number is shown times this,
        unit: and in this unit,
        difference_unit: a difference in that.
        digits: Shown of a difference.
        scores: A run's numbers, by their names on the page.
        say: A number as the page says it, from its name.
        instead: Numbers in the same unit that are drawn where none has that one.
        paired: Whether both models answer the same pictures one by one.
    """

    plural: str
    primary: str
    scale: float
    unit: str
    difference_unit: str
    digits: int
    scores: Callable[[Reading], dict[str, Interval]]
    say: Callable[[str, Interval], Words]
    instead: tuple[str, ...] = ()
    paired: bool = True


KINDS = {
    "transfer": _Kind(
        "classifiers", "accuracy", 100, "%", "points", 1, classifier.scores,
        lambda _, found: words.percent_interval(found),
    ),
    "vae": _Kind(
        "autoencoders", "log_likelihood", 1, "nats per picture", "nats", 1,
        autoencoder.scores, lambda _, found: words.nats(found), instead=("ELBO",),
    ),
    "gan": _Kind(
        "adversarial networks", "frechet", 1, "lower is better", "", 2,
        generator.scores, generator.say_score, paired=False,
    ),
}  # fmt: skip
"""Kinds of runs that can be compared."""

_NAMES = {
    "ece": "calibration error",
    "elbo": "ELBO",
    "frechet": "Frechet distance",
    "kernel": "kernel distance",
    "log_likelihood": "log p(x)",
    "loss": "log-loss",
    "macro_f1": "macro F1",
    "roc_auc": "ROC AUC",
}
_LOWER_IS_BETTER = ("loss", "ece", "brier", "frechet", "kernel", "copies")
_IN_PERCENT = (
    "accuracy", "balanced_accuracy", "macro_f1", "roc_auc", "ece",
    "precision", "recall", "coverage", "copies",
)  # fmt: skip
_DISTANCES = ("frechet", "kernel")
_ENVIRONMENT = ("safelight", "commit", "python", "backend", "processor", "cores", "accelerator")


def chapter(readings: Sequence[Reading]) -> Chapter:
    """Runs of one kind, compared.

    Args:
        readings: Two or more.
    """
    first, *others = readings
    kind = KINDS[first.kind]
    pairs = [(other, _try_compare(first, other)) for other in others]
    data = {reading.dataset for reading in readings}
    differences = "Paired differences" if kind.paired else "Differences"
    title = Markup("{} {} side by side").format(words.count(len(readings)), kind.plural)
    return Chapter(
        title=title,
        subtitle=Markup("On {}").format(words.join([words.name(each) for each in sorted(data)])),
        answer=answer_or_damage(lambda: _answer(readings, pairs)),
        sections=sections(
            {
                "Their numbers": functools.partial(_tell_numbers, readings),
                differences: functools.partial(_tell_differences, first, pairs),
                "What they differ in": functools.partial(_tell_settings, readings),
            }
        ),
    )


def _try_compare(first: Reading, other: Reading) -> Paired | str:
    """The comparison, or the reason why there is none."""
    try:
        return compare(first, other)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        return words.printable(
            f"A file of {first.name} or {other.name} is damaged ({type(error).__name__}: {error})."
        )
    except ValueError as error:
        # A page is sent to others, who need not know where the runs lie.
        told = str(error)
        for reading in (first, other):
            told = told.replace(str(reading.run.path), reading.name)
        return words.printable(told)


def _answer(readings: Sequence[Reading], pairs: Sequence[tuple[Reading, Paired | str]]) -> Answer:
    first, (other, found) = readings[0], pairs[0]
    what = Markup("{} against {}").format(
        words.name(first.name), words.join([words.name(each.name) for each in readings[1:]])
    )
    if isinstance(found, str):
        told = Markup("They cannot be compared: {}").format(found)
        return Answer(what, "difference", "–", "", [told], [])
    kind = KINDS[first.kind]
    key = kind.primary
    difference = found.difference[key]
    label = Markup("{} of {} minus that of {}").format(
        _said_name(key), words.name(first.name), words.name(other.name)
    )
    figure, ends = _figure(kind, difference)
    told = Markup("Compared on {}; {}.").format(found.on, found.method)
    return Answer(
        what=what,
        label=label,
        figure=figure,
        ends=ends,
        sentences=[_verdict(key, difference, (first, other)), told],
        steps=_steps(key, difference, (first, other)),
        chart=_difference_chart(first, pairs).svg,
    )


def _figure(kind: _Kind, difference: Interval) -> tuple[Words, Words]:
    value = words.number(difference.value, kind.digits, scale=kind.scale, sign=True)
    ends = words.ends(difference, kind.digits, scale=kind.scale, sign=True)
    return Markup("{} {}").format(value, kind.difference_unit), ends


def _better(key: str, difference: Interval, pair: tuple[Reading, Reading]) -> tuple[Reading, ...]:
    """The better run, then the other."""
    first_wins = (difference.value < 0) == (key in _LOWER_IS_BETTER)
    return pair if first_wins else pair[::-1]


def _verdict(key: str, difference: Interval, pair: tuple[Reading, Reading]) -> Words:
    if math.isnan(difference.low) or math.isnan(difference.high):
        return "There is no interval, so nothing can be said of chance."
    if difference.low <= 0 <= difference.high:
        return Markup(
            "<strong>No difference is shown:</strong> the interval holds 0, so either may be the "
            "better one."
        )
    better, worse = _better(key, difference, pair)
    return Markup(
        "<strong>{} is better than {}</strong>, and not by chance: the interval does not hold 0."
    ).format(words.name(better.name), words.name(worse.name))


def _steps(key: str, difference: Interval, pair: tuple[Reading, Reading]) -> list[Step]:
    if difference.low > 0 or difference.high < 0:
        better = _better(key, difference, pair)[0]
        return [Step(Markup("Use {}.").format(words.name(better.name)))]
    steps = [Step("Take the one that costs less, or is easier to explain.")]
    if pair[0].kind == "transfer" and not dig(pair[0].metrics, "splits"):
        told = "To see smaller differences, train both on ten splits and compare again."
        return [
            *steps,
            *(
                Step(told if i == 0 else "Likewise:", train_command(each, "--splits", "10"))
                for i, each in enumerate(pair)
            ),
        ]
    return steps


def _difference_chart(first: Reading, pairs: Sequence[tuple[Reading, Paired | str]]) -> Any:
    kind = KINDS[first.kind]
    rows = [
        Row(f"minus {words.shorten(other.name, 11)}", (found.difference[kind.primary],))
        for other, found in pairs
        if not isinstance(found, str)
    ]
    title = ", ".join(filter(None, (_said_name(kind.primary), kind.difference_unit)))
    zero = (0, "no difference")
    axis = Axis(title, scale=kind.scale, reference=zero, digits=kind.digits, sign=True)
    return charts.interval_rows(f"{words.printable(first.name)} against the others", rows, axis)


def _tell_numbers(readings: Sequence[Reading]) -> Sequence[Block]:
    kind = KINDS[readings[0].kind]
    found = [kind.scores(reading) for reading in readings]
    labels = list(dict.fromkeys(label for scores in found for label in scores))
    rows: list[list[Words]] = [
        [label, *(kind.say(label, scores[label]) if label in scores else "–" for scores in found)]
        for label in labels
    ]
    rows.append(["test pictures", *(words.number(r.num_test, 0) for r in readings)])
    seconds = [dig(reading.metrics, "seconds", "total") for reading in readings]
    rows.append(["seconds in all", *(words.number(s, 1) for s in seconds)])
    columns: list[Words] = ["number", *(words.name(reading.name) for reading in readings)]
    return [*_charts_of(readings, found), Table("Side by side, with 95 % intervals", columns, rows)]


def _charts_of(readings: Sequence[Reading], found: Sequence[dict[str, Interval]]) -> list[Block]:
    kind = KINDS[readings[0].kind]
    label = _said_name(kind.primary)
    known = (label, *kind.instead)
    label = next((each for each in known if any(each in of for of in found)), label)
    rows = [
        Row(reading.name, (scores[label],))
        for reading, scores in zip(readings, found, strict=True)
        if label in scores and math.isfinite(scores[label].value)
    ]
    if not rows:
        return []
    axis = Axis(f"{label}, {kind.unit}", scale=kind.scale, digits=kind.digits)
    told = "Intervals that overlap do not say that there is no difference"
    if kind.paired:
        told += ": the same pictures were hard for both, which the paired difference takes out"
    return [
        charts.interval_rows(f"{label[0].upper()}{label[1:]} of each run", rows, axis).bare(),
        Text(f"{told}."),
    ]


def _tell_differences(
    first: Reading, pairs: Sequence[tuple[Reading, Paired | str]]
) -> Sequence[Block]:
    blocks: list[Block] = []
    for other, found in pairs:
        if isinstance(found, str):
            told = Markup("{} and {} cannot be compared: {}")
            names = words.name(first.name), words.name(other.name)
            blocks.append(Text(told.format(*names, found), tone="warning"))
            continue
        rows: list[list[Words]] = [
            [_named(key), _said_difference(key, difference), _said_chance(difference)]
            for key, difference in found.difference.items()
        ]
        caption = Markup("{} minus {}, on {}; {}").format(
            words.name(first.name), words.name(other.name), found.on, found.method
        )
        blocks.append(Table(caption, ["number", "difference", "by chance?"], rows, "lrl"))
    return blocks


def _said_name(key: str) -> str:
    return _NAMES.get(key, words.printable(key).replace("_", " "))


def _named(key: str) -> Words:
    lower = " (lower is better)" if key in _LOWER_IS_BETTER else ""
    return f"{_said_name(key)}{lower}"


def _said_difference(key: str, difference: Interval) -> Words:
    if key in _IN_PERCENT:
        return words.points(difference)
    if key == "log_likelihood":
        return words.nats(difference, 2, sign=True)
    return words.interval(difference, 2 if key in _DISTANCES else 4, sign=True)


def _said_chance(difference: Interval) -> Words:
    return "may be" if not (difference.low > 0 or difference.high < 0) else "no"


def _tell_settings(readings: Sequence[Reading]) -> Sequence[Block]:
    described = [
        {
            **{f"--{name.replace('_', '-')}": value for name, value in reading.settings.items()},
            "data set": reading.dataset,
            **{name: reading.environment.get(name) for name in _ENVIRONMENT},
            **mapping(reading.environment.get("packages")),
        }
        for reading in readings
    ]
    names = list(dict.fromkeys(name for each in described for name in each))
    rows: list[list[Words]] = [
        [words.printable(name), *(_shown(each.get(name)) for each in described)]
        for name in names
        if any(each.get(name) != described[0].get(name) for each in described)
    ]
    if not rows:
        return [Text("In nothing that the runs keep: neither settings nor versions.")]
    columns: list[Words] = ["setting", *(words.name(reading.name) for reading in readings)]
    return [Table("Settings and versions that differ", columns, rows, "l" * len(columns))]


def _shown(value: object) -> Words:
    if isinstance(value, list):
        return ", ".join(words.printable(each) for each in value) or "–"
    return "none" if value is None else words.printable(value)
