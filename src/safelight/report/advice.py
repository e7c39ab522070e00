"""What a classifier's numbers say, and what to do next: rules, the weightiest first."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from markupsafe import Markup

from safelight.metrics import Interval
from safelight.report import words
from safelight.report.blocks import Step, Words
from safelight.report.probabilities import answered_when_sure
from safelight.report.provenance import argument, known_flags, tell_forgotten, train_command
from safelight.report.reading import Reading, dig, interval, number

MAX_STEPS = 5
SURE = 0.9
"""From this probability on an answer is called sure on the first screen."""

_WIDE = 0.03
"""A reach of an interval, either way, above which more pictures that judge would help."""
_TOO_WIDE = 0.15
"""A reach of an interval above which nobody can say whether a classifier is good enough."""
_MAX_IMBALANCE = 3
_MISCALIBRATED = 0.05


def baseline(reading: Reading) -> tuple[str, float] | None:
    """The commonest class of the test part, and the accuracy of always answering it."""
    rows = dig(reading.metrics, "per_class")
    support = {
        str(row["class_name"]): number(row.get("support")) or 0.0
        for row in (rows if isinstance(rows, list) else [])
    }
    total = sum(support.values())
    if not total:
        return None
    largest = max(support, key=lambda each: support[each])
    return largest, support[largest] / total


def judge(reading: Reading, accuracy: Interval) -> list[Words]:
    """How good an accuracy is, and whether it is enough, in sentences."""
    found = [_how_often(accuracy), _against(reading, accuracy), _enough(reading, accuracy)]
    return [each for each in found if each]


def next_steps(reading: Reading, accuracy: Interval | None) -> list[Step]:
    """What to do next, the most important first; at most `MAX_STEPS`."""
    if not reading.metrics:
        told = "Give the same training command again: this run did not finish."
        return [Step(told, train_command(reading))]
    found = [
        *_interrupted(reading),
        *_data_faults(reading),
        *(_judge_on_more(reading, accuracy) if accuracy else ()),
        *_weakest_class(reading),
        *_more_pictures(reading),
        *_use_with_care(reading),
        *_try_more(reading),
    ]
    return found[:MAX_STEPS]


def confusions(reading: Reading) -> list[tuple[str, str, int, int]]:
    """What is taken for what: true class, answer, how often, of how many; the commonest first."""
    counts, names = dig(reading.metrics, "confusion_matrix"), reading.class_names
    found = [
        (names[i], names[j], int(row[j]), int(sum(row)))
        for i, row in enumerate(counts or ())
        for j in range(len(row))
        if i != j and row[j]
    ]
    return sorted(found, key=lambda each: -each[2])


def command(reading: Reading, verb: str, *more: str) -> str:
    """A command of `safelight` on this run, as it is typed where the run's folder lies."""
    return shlex.join(["safelight", *verb.split(), argument(reading.name), *more])


def data_name(reading: Reading) -> str:
    """What stands for DATA in a command: where a folder lies is kept nowhere, its name is."""
    return argument(reading.dataset)


def _how_often(accuracy: Interval) -> Words:
    wrong, fewest, most = (1 - x for x in (accuracy.value, accuracy.high, accuracy.low))
    if wrong <= 0:
        return Markup(
            "Every test picture was answered right; up to {} may still be wrong elsewhere."
        ).format(words.one_in(most))
    return Markup(
        "Of its answers to new pictures about <strong>{}</strong> will be wrong (between {} and "
        "{})."
    ).format(words.one_in(wrong), words.one_in(fewest), words.one_in(most))


def _against(reading: Reading, accuracy: Interval) -> Words:
    found = baseline(reading)
    if found is None:
        return ""
    name, share = found
    always = Markup("always answering {} would be right on {}").format(
        words.name(name), words.percent(share)
    )
    if accuracy.low > share:
        return Markup("That is clearly better than guessing: {}.").format(always)
    return Markup("<strong>That is not shown to be better than guessing:</strong> {}.").format(
        always
    )


def _enough(reading: Reading, accuracy: Interval) -> Words:
    """What follows for use: all answers, the sure ones, or none."""
    guess = baseline(reading)
    if guess and not accuracy.low > guess[1]:
        return ""
    if not accuracy.high - accuracy.low <= 2 * _TOO_WIDE:
        return Markup(
            "<strong>Is that enough?</strong> Too few pictures judged to say: the interval is wide."
        )
    text = Markup("<strong>Is that enough?</strong> If so many wrong answers do no harm, yes.{}")
    rows = [row for row in answered_when_sure(reading) if row.threshold == SURE]
    if not rows or rows[0].accuracy is None or not rows[0].accuracy.value > accuracy.value:
        return text.format("")
    told = Markup(
        " If they do, let it answer where it is at least {}&nbsp;% sure ({} of the pictures, {} of "
        "them right), and a person the rest."
    ).format(
        f"{100 * SURE:.0f}", words.percent(rows[0].share), words.percent_interval(rows[0].accuracy)
    )
    return text.format(told)


def _interrupted(reading: Reading) -> Sequence[Step]:
    if dig(reading.metrics, "protocol", "interrupted"):
        return [
            Step(
                "Training was stopped early, so train again to its end.",
                train_command(reading, "--overwrite"),
            )
        ]
    if dig(reading.metrics, "protocol", "stopped_splits"):
        return [
            Step(
                "The other splits were stopped, so train again: what was computed of their "
                "pictures is kept.",
                train_command(reading, "--overwrite"),
            )
        ]
    return []


def _data_faults(reading: Reading) -> Sequence[Step]:
    steps = []
    conflicts = dig(reading.config, "dataset", "conflicting_duplicates")
    if isinstance(conflicts, list) and conflicts:
        steps.append(
            Step(
                Markup(
                    "Mend the labels of {}: the same picture lies in different classes (listed "
                    "below)."
                ).format(words.plural(len(conflicts), "group"))
            )
        )
    advice = dig(reading.metrics, "data", "neighbours", "advice")
    if advice:
        again = train_command(reading, "--split", "grouped") if "--split grouped" in advice else ""
        steps.append(Step(f"Beware: {words.printable(advice)}", again))
    suspects = dig(reading.metrics, "data", "suspects")
    if isinstance(suspects, list) and suspects:
        steps.append(
            Step(
                Markup(
                    "Look again at {}: to a classifier that had not seen the picture they are "
                    "improbable (listed below)."
                ).format(words.plural(len(suspects), "label"))
            )
        )
    return steps


def _judge_on_more(reading: Reading, accuracy: Interval) -> Sequence[Step]:
    reach = (accuracy.high - accuracy.low) / 2
    if dig(reading.metrics, "splits") or not reach > _WIDE:
        return []
    told = Markup(
        "The interval reaches {} points either way, because {} judged. Cross-validation lets "
        "every picture judge once."
    )
    return [
        Step(
            told.format(
                words.number(reach, 1, scale=100), words.plural(reading.num_test or 0, "picture")
            ),
            train_command(reading, "--folds", "5"),
        )
    ]


def _weakest_class(reading: Reading) -> Sequence[Step]:
    rows = dig(reading.metrics, "per_class")
    recalls = [(str(row.get("class_name")), interval(row.get("recall"))) for row in rows or ()]
    known = [(name, recall) for name, recall in recalls if recall and recall.value == recall.value]
    if len(known) < 2:
        return []
    weakest, best = (pick(known, key=lambda each: each[1].value) for pick in (min, max))
    if weakest[1].high >= best[1].low:
        return []
    text = Markup(
        "Collect more pictures of {}: only {} of them are recognised, of {} it is {}."
    ).format(
        words.name(weakest[0]),
        words.percent_interval(weakest[1]),
        words.name(best[0]),
        words.percent(best[1].value),
    )
    imbalance = number(dig(reading.metrics, "data", "imbalance")) or 1
    if imbalance > _MAX_IMBALANCE and reading.settings.get("class_weight") != "balanced":
        return [
            Step(
                Markup("{} Or make every class count alike.").format(text),
                train_command(reading, "--class-weight", "balanced"),
            )
        ]
    return [Step(text)]


def _more_pictures(reading: Reading) -> Sequence[Step]:
    curve = dig(reading.metrics, "learning_curve")
    if not curve:
        ask = "Ask whether more labelled pictures would help, before anybody labels them."
        return [Step(ask, command(reading, "transfer learning-curve", data_name(reading)))]
    gains = curve["gains"]
    last = gains[-1]
    gain = interval(last)
    if gain is None:
        return []
    text = Markup("{} more labelled pictures would give about {}.")
    return [Step(text.format(words.count(last["more"]), words.points(gain)))]


def _use_with_care(reading: Reading) -> Sequence[Step]:
    error = number(dig(reading.metrics, "calibration", "ece"))
    if error is None or error <= _MISCALIBRATED:
        return []
    text = Markup("Do not take its probabilities at their word: they are off by {} on average.")
    return [Step(text.format(words.percent(error)))]


def _try_more(reading: Reading) -> Sequence[Step]:
    """A sweep over the run's own settings; one that is all trained has nothing to unfreeze."""
    if reading.settings.get("unfreeze_from") is not None or (
        reading.settings.get("pretrained") is False
    ):
        return []
    line = ["safelight", "transfer", "sweep", data_name(reading), "--output"]
    asked = number(dig(reading.config, "split", "asked", "validation_fraction"))
    # A sweep has to see when its trainings stop; a head alone has no need of that.
    left_out = ["--splits", *(["--validation-fraction"] if asked == 0 else [])]
    line += [f"{argument(reading.name)}-sweep", *known_flags(reading, *left_out)]
    ask = words.sentences("Ask whether fine-tuning the network pays here.", tell_forgotten(reading))
    return [Step(ask, shlex.join(line))]
