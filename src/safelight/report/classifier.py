"""The chapter on a classifier: the answer, then what it rests on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from safelight.metrics import Interval
from safelight.report import advice, charts, pictures, words
from safelight.report.answers import (
    tell_classes,
    tell_confusion,
    tell_mistakes,
    tell_reliability,
)
from safelight.report.blocks import Answer, Beside, Block, Chapter, Table, Text, Words
from safelight.report.chapters import Teller, make_chapter
from safelight.report.charts import Axis, Row
from safelight.report.data_problems import tell_data
from safelight.report.provenance import seconds_fact, tell_protocol
from safelight.report.reading import Reading, dig, interval, interval_or_nan, mapping
from safelight.report.svg import span

_SCORES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "roc_auc": "ROC AUC",
}
_MEANINGS = {
    "accuracy": "share of pictures that are answered right",
    "balanced_accuracy": "mean share recognised over the classes, each counting alike",
    "macro_f1": "mean over the classes of F1, the harmonic mean of precision and recall",
    "roc_auc": "how often a picture of a class is ranked above one that is not; 50 % is chance",
    "loss": "surprise at the true class of a picture; lower is better",
}


_SHOWN = {
    "confusion_matrix", "explanations", "history", "learning_curve", "metrics", "mistakes",
    "reasons", "reliability", "suspects",
}  # fmt: skip
"""Pictures that a section shows, or draws anew from the numbers."""


def chapter(reading: Reading) -> Chapter:
    """All about one classifier."""
    title = Markup("Classifier of {}")
    return make_chapter(reading, title=title, answer=answer, tellers=_SECTIONS)


def answer(reading: Reading) -> Answer:
    """What is read first."""
    accuracy = reading.interval("accuracy")
    what = _what(reading)
    steps = advice.next_steps(reading, accuracy)
    if accuracy is None or math.isnan(accuracy.value):
        told = "There are no numbers yet, so nothing can be said of how good it is."
        return Answer(what, "accuracy", "–", "", [told], steps)
    label: Words = Markup("of {} test pictures are answered right").format(
        words.count(reading.num_test or 0)
    )
    several = _several(reading)
    if several:
        accuracy, label = several
    said = [*advice.judge(reading, accuracy), _commonest(reading)]
    return Answer(
        what=what,
        label=label,
        figure=Markup("{} %").format(words.number(accuracy.value, 1, scale=100)),
        ends=words.ends(accuracy, scale=100, unit=" %"),
        sentences=[each for each in said if each],
        steps=steps,
        chart=_against_guessing(reading, accuracy),
    )


def scores(reading: Reading) -> dict[str, Interval]:
    """The numbers by which a classifier is judged, by their names on the page."""
    found = {label: reading.interval(key) for key, label in _SCORES.items()}
    return {label: score for label, score in found.items() if score is not None}


def _what(reading: Reading) -> Words:
    names = reading.class_names
    shown = words.join([words.name(each) for each in names[:6]]) + (" …" if len(names) > 6 else "")
    backbone = dig(reading.metrics, "protocol", "backbone") or reading.settings.get("backbone")
    return Markup("Tells {} classes of pictures apart ({}), by {} and a head of its own.").format(
        words.count(len(names)), shown, words.name(backbone)
    )


def _several(reading: Reading) -> tuple[Interval, Words] | None:
    """Where there are several splits, their mean is the better answer."""
    found = reading.interval("splits", "mean", "accuracy")
    if found is None or math.isnan(found.low):
        return None
    folds = dig(reading.metrics, "splits", "num_folds")
    number = dig(reading.metrics, "splits", "num_splits")
    return found, Markup("right on average over {} {}").format(
        words.count(number), "folds" if folds else "random splits"
    )


def _commonest(reading: Reading) -> Words:
    found = advice.confusions(reading)
    if not found:
        return ""
    true, said, number, among = found[0]
    return Markup("Its commonest mistake: {} taken for {}, {} of {}.").format(
        words.name(true), words.name(said), words.count(number), words.count(among)
    )


def _against_guessing(reading: Reading, accuracy: Interval) -> Markup:
    guess = advice.baseline(reading)
    reference = (guess[1], "always the commonest class") if guess else None
    axis = Axis("answered right, %", scale=100, limits=(0, 1), reference=reference)
    return charts.meter("Accuracy against guessing", accuracy, axis).svg


def _tell_numbers(reading: Reading) -> Sequence[Block]:
    found = scores(reading)
    rows = [Row(label, (score,)) for label, score in found.items() if score.value == score.value]
    axis = Axis("%, with 95 % intervals", scale=100)
    chart = charts.interval_rows("How good it is on the test part", rows, axis)
    shown = {
        _named(key): words.percent_interval(found[_SCORES[key]])
        for key in _SCORES
        if _SCORES[key] in found
    }
    if (loss := reading.interval("loss")) is not None:
        shown[_named("loss")] = words.interval(loss, 3, unit="nats")
    table = Table("On the test part, with 95 % intervals", ["number", "value"], list(shown.items()))
    return [Beside([chart.bare(), table]), *_splits(reading)]


def _named(key: str) -> Markup:
    label = _SCORES.get(key, "log-loss")
    return Markup('{}<span class="meaning">{}</span>').format(label, _MEANINGS[key])


def _splits(reading: Reading) -> Sequence[Block]:
    """Several splits or folds: each of them, and the mean."""
    splits = mapping(dig(reading.metrics, "splits"))
    means = {name: interval(dig(splits, "mean", name)) for name in _SCORES}
    rows = [
        Row(label, (mean,), tuple(float(x) for x in dig(splits, "scores", name) or ()))
        for name, label in _SCORES.items()
        if (mean := means[name]) is not None
    ]
    if not rows:
        return []
    folds = bool(splits.get("num_folds"))
    title = (
        f"Mean over {splits['num_splits']} {'folds' if folds else 'splits'}; a small dot for each"
    )
    chart = charts.interval_rows(title, rows, Axis("%, with 95 % intervals", scale=100))
    first = "fold" if folds else "split"
    told = (
        f"Intervals of the means: {splits.get('method')}. Everything else on this page is about "
        f"the first {first}, whose model the run keeps."
    )
    texts: list[Block] = [Text(told)]
    pooled = interval(dig(splits, "pooled", "accuracy"))
    if pooled:
        told = Markup("On all {} pictures, each judged once by the fold that had not seen it: {}.")
        number = words.count(dig(splits, "pooled", "num_test"))
        texts.append(Text(told.format(number, words.percent_interval(pooled))))
    return [chart, *texts]


def _tell_learning_curve(reading: Reading) -> Sequence[Block]:
    curve = mapping(reading.metrics.get("learning_curve"))
    if not curve:
        line = advice.command(reading, "transfer learning-curve", advice.data_name(reading))
        told = Markup("Not asked yet: <code>{}</code> says what more labelled pictures would give.")
        return [Text(told.format(line))]
    rows: list[list[Words]] = [
        [words.count(gain["more"]), words.points(interval_or_nan(gain))] for gain in curve["gains"]
    ]
    coverage = words.percent(curve["coverage"], 0)
    table = Table(
        Markup("What more pictures would give; ranges are {}").format(coverage),
        ["more pictures", "accuracy"],
        rows,
    )
    told = Markup("For the test part {} was expected from {}, and {} was seen.").format(
        words.percent_interval(interval_or_nan(curve["expected"])),
        words.plural(curve["num_all"], "picture"),
        words.percent(curve["seen"]),
    )
    picture = pictures.show(
        reading,
        "learning_curve",
        "Accuracy against the number of pictures learned from, with the fitted curve; the table "
        "has what it promises.",
        "Accuracy against the number of pictures, and what the curve promises for more",
        missing="The picture learning_curve.png is missing; the same command draws it again.",
    )
    return [Beside([picture, table]), Text(told)]


def _tell_training(reading: Reading) -> Sequence[Block]:
    history = reading.history
    epochs = history.get("epoch") or []
    told: list[Block] = []
    if seconds := seconds_fact(reading):
        told.append(Text(f"Time: {seconds}."))
    if not epochs:
        return [
            Text("A head alone was fitted on kept activations: there are no epochs to draw."),
            *told,
        ]
    drawn: list[Block] = []
    for key in ("loss", "accuracy"):
        lines = {"training": history.get(key, []), "held out": history.get(f"val_{key}", [])}
        lines = {name: line for name, line in lines.items() if np.isfinite(line).any()}
        if lines:
            axis = Axis("nats per image", digits=3) if key == "loss" else _percent_axis(lines)
            drawn.append(charts.curves(f"{key.capitalize()} over the epochs", lines, epochs, axis))
    return [Beside(drawn), *told]


def _percent_axis(lines: Mapping[str, Sequence[float]]) -> Axis:
    """An axis that does not go on above all pictures, or below none."""
    low, high = span([x for line in lines.values() for x in line])
    return Axis("right, %", scale=100, limits=(max(0.0, low), min(1.0, high)))


def _tell_others(reading: Reading) -> Sequence[Block]:
    return pictures.show_others(reading, _SHOWN)


_SECTIONS: Mapping[str, Teller] = {
    "Numbers": _tell_numbers,
    "What it mistakes": tell_confusion,
    "Class by class": tell_classes,
    "Mistakes to look at": tell_mistakes,
    "Can its probabilities be believed?": tell_reliability,
    "More pictures?": _tell_learning_curve,
    "Problems in the data": tell_data,
    "How it was trained": _tell_training,
    "Other pictures": _tell_others,
    "Protocol": tell_protocol,
}
