"""Sections on a classifier's answers: what it mistakes, class by class, and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from safelight.metrics import calibration_bins, confident_mistakes
from safelight.report import advice, charts, pictures, words
from safelight.report.blocks import Beside, Block, Table, Text, Words
from safelight.report.charts import Axis, Row
from safelight.report.probabilities import answered_when_sure, read_answers
from safelight.report.reading import Reading, interval, interval_or_nan, mapping, number

_MAX_ROWS = 20
_NUM_MISTAKES = 12
_NUM_BINS = 10
_NO_PREDICTIONS = Markup(
    "There is no predictions.csv; <code>safelight transfer train</code> writes it."
)
_NONE_WRONG = "No test picture was answered wrongly."


def tell_confusion(reading: Reading) -> Sequence[Block]:
    """What is taken for what, as a matrix and as a list."""
    counts = [[int(n) for n in row] for row in reading.metrics["confusion_matrix"]]
    names = reading.class_names
    rows: list[list[Words]] = [
        [words.name(true), words.name(said), words.count(n), words.percent(n / among, 0)]
        for true, said, n, among in advice.confusions(reading)[:_MAX_ROWS]
    ]
    columns = ["truth", "answer", "pictures", "of the class"]
    table = Table("Commonest mistakes", columns, rows, "llrr")
    listed: Block = table if rows else Text(_NONE_WRONG)
    if len(names) > charts.MAX_CELLS:
        told = f"{len(names)} classes are too many for a matrix; these are the commonest mistakes."
        return [Text(told), listed]
    return [Beside([charts.confusion(counts, names), listed])]


def tell_classes(reading: Reading) -> Sequence[Block]:
    """Recall, precision and F1 of each class."""
    found = reading.metrics["per_class"]
    names = [str(row["class_name"]) for row in found]
    recalls, precisions, f1s = (
        [interval_or_nan(row.get(kind)) for row in found] for kind in ("recall", "precision", "f1")
    )
    chart = charts.interval_rows(
        "Recall and precision of each class",
        [Row(*each) for each in zip(names, zip(recalls, precisions, strict=True), strict=True)],
        Axis("%, with 95 % intervals", scale=100),
        kinds=("recall", "precision"),
    )
    columns_of = zip(names, found, recalls, precisions, f1s, strict=True)
    rows: list[list[Words]] = [
        [words.name(name), words.count(row["support"]), *map(words.percent_interval, scores)]
        for name, row, *scores in columns_of
    ]
    columns = ["class", "pictures", "recall", "precision", "F1"]
    table = Table("Test pictures of each class, with 95 % intervals", columns, rows)
    meaning = (
        "Recall: how many pictures of the class are recognised. Precision: how many answers of "
        "this class are right. F1: their harmonic mean."
    )
    return [chart.bare(), table, Text(meaning)]


def tell_mistakes(reading: Reading) -> Sequence[Block]:
    """The mistakes that it is most sure of."""
    answers = read_answers(reading)
    if answers is None:
        return [_gallery(reading), *_explained(reading), Text(_NO_PREDICTIONS)]
    names, said = reading.class_names, answers.probabilities.argmax(1)
    shown = confident_mistakes(answers.labels, answers.probabilities, num_images=_NUM_MISTAKES)
    rows: list[list[Words]] = [
        [
            words.name(answers.files[i]),
            words.name(names[answers.labels[i]]),
            words.name(names[said[i]]),
            words.percent(float(answers.probabilities[i].max())),
        ]
        for i in shown
    ]
    if not rows:
        return [Text(_NONE_WRONG)]
    told = Markup("{} in all; predictions.csv in the run's folder has every picture.")
    wrong = words.plural(int((said != answers.labels).sum()), "mistake")
    columns = ["file", "truth", "answer", "probability of the answer"]
    table = Table("Mistakes that it is most sure of", columns, rows, "lllr")
    return [_gallery(reading), *_explained(reading), table, Text(told.format(wrong))]


def tell_reliability(reading: Reading) -> Sequence[Block]:
    """How sure it says it is, how often it is right then, and what it would refuse."""
    found = _tell_calibration(reading)
    answers = read_answers(reading)
    if answers is None:
        return [*found, Text(_NO_PREDICTIONS), *_tell_refusals(reading)]
    bins = calibration_bins(answers.labels, answers.probabilities, num_bins=_NUM_BINS)
    beside = Beside([charts.reliability(bins), _sure_table(reading)])
    return [*found, beside, *_tell_refusals(reading)]


def _gallery(reading: Reading) -> Block:
    return pictures.show(
        reading,
        "mistakes",
        "The wrongly answered test pictures that the classifier is most sure of, each with its "
        "class, the answer and its probability; the table names them.",
        "The mistakes it is most sure of: is the answer wrong, or the label?",
        missing="The picture mistakes.png is missing; training draws it where an answer is wrong.",
    )


_MAPS = {
    "explanations": (
        "The same pictures, each beside itself in grey and coloured where it speaks for the "
        "answer, by Grad-CAM.",
        "Why it says so: the same mistakes, coloured where they speak for the answer",
    ),
    "reasons": (
        "Of each class some test pictures that are answered right most surely, each beside itself "
        "in grey and coloured where it speaks for the answer, by Grad-CAM.",
        "What it goes by where it is right: of each class the surest answers. Are these places "
        "reasons that you would give, too?",
    ),
}


def _explained(reading: Reading) -> list[Block]:
    return [
        pictures.show(reading, name, alt, caption, missing="")
        for name, (alt, caption) in _MAPS.items()
        if reading.picture(name) is not None  # as in runs of earlier versions
    ]


def _tell_calibration(reading: Reading) -> list[Block]:
    facts = mapping(reading.metrics.get("calibration"))
    error, before, brier = (number(facts.get(key)) for key in ("ece", "ece_before", "brier"))
    found: list[Block] = []
    if error is not None:
        changed = abs((number(facts.get("temperature")) or 1) - 1) > 0.005
        was = Markup(" (before calibration: {})").format(words.percent(before)) if changed else ""
        told = Markup("On average its stated confidence is {} away from how often it is right{}.")
        found.append(Text(told.format(words.percent(error), was)))
    if brier is not None:
        told = Markup(
            "Brier score {}: the mean squared error of the probabilities, summed over classes; 0 "
            "is best."
        )
        found.append(Text(told.format(words.number(brier))))
    return found


def _sure_table(reading: Reading) -> Table:
    rows: list[list[Words]] = [
        [
            f"{100 * row.threshold:.0f} %",
            words.percent(row.share),
            words.percent_interval(row.accuracy) if row.accuracy else "–",
        ]
        for row in answered_when_sure(reading)
    ]
    caption = "If it only answers where it is sure, and a person looks at the rest"
    return Table(caption, ["at least so sure", "answered", "right among these"], rows)


def _tell_refusals(reading: Reading) -> list[Block]:
    familiar = mapping(reading.metrics.get("familiarity"))
    refused: list[list[Words]] = [
        [f"--refuse {words.printable(rate)}", words.percent_interval(share)]
        for rate, value in mapping(familiar.get("refused")).items()
        if (share := interval(value)) is not None
    ]
    apart: list[list[Words]] = [
        [words.name(name), words.number(number(value))]
        for name, value in mapping(familiar.get("left_out_auroc")).items()
    ]
    tables: list[Block] = []
    if refused:
        caption = "Test pictures that predict would wrongly call “none of these”"
        tables.append(Table(caption, ["option", "refused"], refused))
    if apart:
        caption = (
            "How well a class would be told from the others, had it not been learned (AUROC: 1 is "
            "best, 0.5 is chance)"
        )
        tables.append(Table(caption, ["class", "AUROC"], apart))
    return [Beside(tables)] if tables else []
