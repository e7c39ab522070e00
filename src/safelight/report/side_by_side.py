"""The chapter on several runs of one kind: which is better, and what they differ in."""

from __future__ import annotations

import dataclasses
import functools
import itertools
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

_SHOWN_PAIRS = 6


@dataclass(frozen=True, eq=False)
class _Pair:
    """Two runs and what separates them.

    Attributes:
        a: A run.
        b: Another.
        found: `a` minus `b`, or the reason why there is no comparison.
    """

    a: Reading
    b: Reading
    found: Paired | str

    @property
    def difference(self) -> Interval:
        """Of the number that decides; only where they can be compared."""
        assert not isinstance(self.found, str)
        return self.found.difference[KINDS[self.a.kind].primary]

    @property
    def better(self) -> Reading | None:
        """The run that is better, and not by chance; None where neither is shown to be."""
        if isinstance(self.found, str):
            return None
        found = self.difference
        if not (found.low > 0 or found.high < 0):
            return None
        lower = KINDS[self.a.kind].primary in _LOWER_IS_BETTER
        return self.a if (found.value < 0) == lower else self.b

    @property
    def worse(self) -> Reading:
        """The other one of the two than the better."""
        return self.b if self.better is self.a else self.a

    def seen_from(self, reading: Reading) -> _Pair:
        """The same with one of both as the first."""
        if reading is self.a or isinstance(self.found, str):
            return self
        turned = {
            key: dataclasses.replace(x, value=-x.value, low=-x.high, high=-x.low)
            for key, x in self.found.difference.items()
        }
        return _Pair(self.b, self.a, dataclasses.replace(self.found, difference=turned))


def chapter(readings: Sequence[Reading]) -> Chapter:
    """Runs of one kind, compared: each with each.

    Args:
        readings: Two or more.
    """
    kind = KINDS[readings[0].kind]
    pairs = [_Pair(a, b, _try_compare(a, b)) for a, b in itertools.combinations(readings, 2)]
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
                differences: functools.partial(_tell_differences, readings, pairs),
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


def _answer(readings: Sequence[Reading], pairs: Sequence[_Pair]) -> Answer:
    what = Markup("{} against {}").format(
        words.name(readings[0].name), words.join([words.name(each.name) for each in readings[1:]])
    )
    comparable = [pair for pair in pairs if not isinstance(pair.found, str)]
    if not comparable:
        told = Markup("They cannot be compared: {}").format(pairs[0].found)
        return Answer(what, "difference", "–", "", [told], [])
    pair = _leading(readings, comparable)
    kind = KINDS[pair.a.kind]
    label = Markup("{} of {} minus that of {}").format(
        _said_name(kind.primary), words.name(pair.a.name), words.name(pair.b.name)
    )
    figure, ends = _figure(kind, pair.difference)
    assert not isinstance(pair.found, str)
    told = Markup("Compared on {}; {}.").format(pair.found.on, pair.found.method)
    return Answer(
        what=what,
        label=label,
        figure=figure,
        ends=ends,
        sentences=[*_verdicts(readings, pairs), told],
        steps=_steps(readings, pairs),
        chart=_difference_chart(pair.a, comparable).svg,
    )


def _best(readings: Sequence[Reading], pairs: Sequence[_Pair]) -> Reading | None:
    """The run that is better than every other one, and not by chance."""
    winners = [pair.better for pair in pairs]
    wins = {reading: sum(each is reading for each in winners) for reading in readings}
    return next((each for each in readings if wins[each] == len(readings) - 1), None)


def _leading(readings: Sequence[Reading], comparable: Sequence[_Pair]) -> _Pair:
    """The pair whose difference is told first: of the best of several and what is next to it."""
    best = _best(readings, comparable)
    if best is None or len(readings) == 2:
        return comparable[0]
    own = [pair.seen_from(best) for pair in comparable if best in (pair.a, pair.b)]
    return min(own, key=lambda pair: abs(pair.difference.value))


def _figure(kind: _Kind, difference: Interval) -> tuple[Words, Words]:
    value = words.number(difference.value, kind.digits, scale=kind.scale, sign=True)
    ends = words.ends(difference, kind.digits, scale=kind.scale, sign=True)
    return Markup("{} {}").format(value, kind.difference_unit), ends


def _verdicts(readings: Sequence[Reading], pairs: Sequence[_Pair]) -> list[Words]:
    if len(pairs) == 1:
        return [_verdict(pairs[0])]
    best = _best(readings, pairs)
    if best is not None:
        told = Markup(
            "<strong>{} is better than every other one</strong>, and not by chance: no interval "
            "of its differences holds 0."
        )
        return [told.format(words.name(best.name))]
    clear = [
        _named_pair(Markup("{} than {}"), p.better, p.worse) for p in pairs if p.better is not None
    ]
    alike = [
        _named_pair(Markup("{} and {}"), pair.a, pair.b) for pair in pairs if _is_undecided(pair)
    ]
    apart = [_named_pair(Markup("{} and {}"), p.a, p.b) for p in pairs if isinstance(p.found, str)]
    told_of = {
        Markup("Better, and not by chance: {}."): clear,
        Markup("No difference is shown between {}."): alike,
        Markup("These cannot be compared: {}."): apart,
    }
    return [
        Markup("<strong>None is shown to be better than every other one.</strong>"),
        *(text.format(_listed(named)) for text, named in told_of.items() if named),
    ]


def _named_pair(text: Markup, a: Reading, b: Reading) -> Markup:
    return text.format(words.name(a.name), words.name(b.name))


def _listed(named: Sequence[Markup]) -> Markup:
    """The first of some pairs, and how many more there are in the table of all."""
    left = len(named) - _SHOWN_PAIRS
    more = [f"{left:,} more pairs below"] if left > 0 else []
    return words.join([*named[:_SHOWN_PAIRS], *more], "; ")


def _is_undecided(pair: _Pair) -> bool:
    return not isinstance(pair.found, str) and pair.better is None


def _verdict(pair: _Pair) -> Words:
    difference = pair.difference
    if math.isnan(difference.low) or math.isnan(difference.high):
        return "There is no interval, so nothing can be said of chance."
    if pair.better is None:
        return Markup(
            "<strong>No difference is shown:</strong> the interval holds 0, so either may be the "
            "better one."
        )
    return Markup(
        "<strong>{} is better than {}</strong>, and not by chance: the interval does not hold 0."
    ).format(words.name(pair.better.name), words.name(pair.worse.name))


def _steps(readings: Sequence[Reading], pairs: Sequence[_Pair]) -> list[Step]:
    """What to use: the best one, or the better one of each pair that differs."""
    best = _best(readings, pairs)
    if best is not None:
        return [Step(Markup("Use {}.").format(words.name(best.name)))]
    clear = [pair for pair in pairs if pair.better is not None]
    named = [_named_pair(Markup("{} rather than {}"), p.better, p.worse) for p in clear if p.better]
    steps = (
        [Step(Markup("Of two that differ clearly use {}.").format(_listed(named)))] if named else []
    )
    beaten = {pair.worse for pair in clear}
    undecided = [p for p in pairs if _is_undecided(p) and not beaten & {p.a, p.b}]
    left = list(dict.fromkeys(each for pair in undecided for each in (pair.a, pair.b)))
    if not left:
        return steps
    told = "Take the one that costs less, or is easier to explain."
    if len(readings) > 2:
        told = Markup("Of {} take the one that costs less, or is easier to explain.").format(
            words.join([words.name(each.name) for each in left])
        )
    return [*steps, Step(told), *_judge_more(left)]


def _judge_more(readings: Sequence[Reading]) -> list[Step]:
    """How to tell classifiers apart that were judged on one split."""
    if readings[0].kind != "transfer" or any(dig(each.metrics, "splits") for each in readings):
        return []
    them = "both" if len(readings) == 2 else "each"
    told = f"To see smaller differences, train {them} on ten splits and compare again."
    return [
        Step(told if i == 0 else "Likewise:", train_command(each, "--splits", "10"))
        for i, each in enumerate(readings)
    ]


def _difference_chart(first: Reading, comparable: Sequence[_Pair]) -> Any:
    kind = KINDS[first.kind]
    own = [pair.seen_from(first) for pair in comparable if first in (pair.a, pair.b)]
    rows = [Row(f"minus {words.shorten(pair.b.name, 11)}", (pair.difference,)) for pair in own]
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


def _tell_differences(readings: Sequence[Reading], pairs: Sequence[_Pair]) -> Sequence[Block]:
    """All differences of the first from the others; of every pair the one that decides."""
    blocks: list[Block] = []
    for pair in pairs[: len(readings) - 1]:
        names = words.name(pair.a.name), words.name(pair.b.name)
        if isinstance(pair.found, str):
            told = Markup("{} and {} cannot be compared: {}")
            blocks.append(Text(told.format(*names, pair.found), tone="warning"))
            continue
        rows: list[list[Words]] = [
            [_named(key), _said_difference(key, difference), _said_chance(difference)]
            for key, difference in pair.found.difference.items()
        ]
        caption = Markup("{} minus {}, on {}; {}").format(*names, pair.found.on, pair.found.method)
        blocks.append(Table(caption, ["number", "difference", "by chance?"], rows, "lrl"))
    return [*blocks, *([_table_of_pairs(pairs)] if len(pairs) > 1 else [])]


def _table_of_pairs(pairs: Sequence[_Pair]) -> Table:
    key = KINDS[pairs[0].a.kind].primary
    rows: list[list[Words]] = []
    for pair in pairs:
        row: list[Words] = [_named_pair(Markup("{} minus {}"), pair.a, pair.b)]
        if isinstance(pair.found, str):
            rows.append([*row, "–", "cannot be compared"])
        else:
            found = pair.difference
            rows.append([*row, _said_difference(key, found), _said_chance(found)])
    columns = ["pair", "difference", "by chance?"]
    return Table(f"Every pair: {_named(key)}", columns, rows, "lrl")


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
