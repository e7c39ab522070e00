"""The chapter on a sweep: which layers to unfreeze, by accuracy and time."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from safelight.report import charts, pictures, words
from safelight.report.blocks import Answer, Block, Chapter, Step, Table, Text, Words
from safelight.report.chapters import Teller, make_chapter
from safelight.report.charts import Axis, Row
from safelight.report.provenance import argument, known_flags, tell_forgotten
from safelight.report.reading import Reading, dig, interval_or_nan, mapping

_NO_NUMBERS = "There are no numbers yet: give the same command again."


def chapter(reading: Reading) -> Chapter:
    """All about one sweep."""
    return make_chapter(
        reading,
        title=Markup("Which layers to unfreeze for {}"),
        subtitle=Markup("Sweep {}"),
        answer=answer,
        tellers=_SECTIONS,
    )


def answer(reading: Reading) -> Answer:
    """What is read first."""
    sweep = mapping(reading.metrics.get("sweep"))
    what = "The same training at several cuts of the network, on the same splits."
    chosen = _chosen(sweep)
    if chosen is None:
        return Answer(what, "recommended", "–", "", [_NO_NUMBERS], [])
    accuracy = interval_or_nan(chosen.get("accuracy"))
    untouched = dig(sweep, "num_untouched")
    line = ["safelight", "transfer", "train", argument(reading.dataset), "--output", "tuned"]
    # Any other seed, split or fraction would deal another test part, one that was looked at.
    line += known_flags(reading, "--cut", "--splits", "--unfreeze-from")
    if chosen.get("unfreeze_from"):
        line += ["--unfreeze-from", words.printable(chosen["unfreeze_from"])]
    kept = Markup(
        "The {} pictures of the test part were not used: train once more and be judged on them."
    ).format(words.count(untouched or 0))
    return Answer(
        what=what,
        label=Markup("is what to train from; mean accuracy {}").format(
            words.percent_interval(accuracy)
        ),
        figure=words.name(chosen.get("name") or "head alone"),
        ends="",
        sentences=[words.printable(sweep.get("reading") or "")],
        steps=[
            Step(
                words.sentences(kept, tell_forgotten(reading)) if untouched else "Train with it.",
                shlex.join(line),
            )
        ],
    )


def _chosen(sweep: Mapping[str, Any]) -> Mapping[str, Any] | None:
    cuts = [cut for cut in sweep.get("cuts") or () if isinstance(cut, Mapping)]
    wanted = sweep.get("recommended")
    return next((cut for cut in cuts if cut.get("unfreeze_from") == wanted), None)


def _tell_cuts(reading: Reading) -> Sequence[Block]:
    cuts = reading.metrics["sweep"]["cuts"]
    rows = [
        Row(
            str(cut["name"]),
            (interval_or_nan(cut["accuracy"]),),
            tuple(float(x) for x in cut["scores"]["accuracy"]),
        )
        for cut in cuts
    ]
    title = "Mean accuracy of each cut; a small dot for each split"
    chart = charts.interval_rows(title, rows, Axis("right, %, 95 % intervals", scale=100))
    table_rows: list[list[Words]] = [
        [
            words.name(cut["name"]),
            words.percent_interval(interval_or_nan(cut["accuracy"])),
            ""
            if cut["minus_head_alone"] is None
            else words.points(interval_or_nan(cut["minus_head_alone"])),
            words.number(cut["training_seconds"], 1),
            words.count(cut["num_trained"]),
        ]
        for cut in cuts
    ]
    columns = ["cut", "accuracy", "minus head alone", "training, s", "weights trained"]
    method = words.printable(reading.metrics["sweep"].get("method") or "")
    return [chart.bare(), Table("Cuts", columns, table_rows), Text(f"Intervals: {method}.")]


def _tell_picture(reading: Reading) -> Sequence[Block]:
    return [
        pictures.show(
            reading,
            "sweep",
            "Accuracy of each cut against its training time.",
            "Accuracy against training time",
            missing="The picture sweep.png is missing; the sweep draws it.",
        )
    ]


_SECTIONS: Mapping[str, Teller] = {"Cuts": _tell_cuts, "Accuracy and time": _tell_picture}
