"""The chapter on a GAN: how good what it draws is, then how the game went."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from safelight.metrics import Interval
from safelight.report import charts, pictures, words
from safelight.report.blocks import Answer, Beside, Block, Chapter, Step, Table, Text, Words
from safelight.report.chapters import Teller, make_chapter, named
from safelight.report.charts import Axis
from safelight.report.provenance import seconds_fact, tell_protocol, train_command
from safelight.report.reading import Reading, dig, interval, number

_DISTANCES = {
    "frechet": ("Frechet distance", "of features, its bias taken off; 0 is real"),
    "kernel": ("kernel distance", "maximum mean discrepancy of features; 0 is real"),
}
_SHARES = {
    "precision": ("precision", "of drawn pictures, how many are believable"),
    "recall": ("recall", "of real pictures, how many could have been drawn"),
    "coverage": ("coverage", "of real pictures, how many have a drawn one near"),
    "copies": ("copies", "drawn nearer to a learned picture than 99 % of unseen ones are"),
}
_EXPECTED_COPIES = 0.01
_CURVES = {
    "Told apart by the discriminator": {
        "real, taken for real": "real_accuracy",
        "drawn, found out": "fake_accuracy",
    },
    "Losses": {"generator": "generator_loss", "discriminator": "discriminator_loss"},
    "How much drawn pictures differ": {"diversity, 1 is as real ones": "diversity"},
}
_ALBUM = {
    "samples": (
        "Pictures that the generator made of random draws.",
        "Drawn from nothing: would you take these for real pictures?",
    ),
    "interpolations": (
        "Rows of pictures on the way from one random draw to another.",
        "Ways from one draw to another: a generator that has learned pictures by heart jumps",
    ),
    "reconstructions": (
        "Test pictures beside what is made of their codes.",
        "Test pictures and what the generator makes of their codes",
    ),
}


def chapter(reading: Reading) -> Chapter:
    """All about one generative adversarial network."""
    title = Markup("Adversarial network of {}")
    return make_chapter(reading, title=title, answer=answer, tellers=_SECTIONS)


def answer(reading: Reading) -> Answer:
    """What is read first."""
    found = interval(dig(reading.metrics, "score", "frechet"))
    if found is None:
        told = "There are no numbers yet, so nothing can be said of what it draws."
        return Answer(_what(reading), "Frechet distance", "–", "", [told], _steps(reading))
    return Answer(
        what=_what(reading),
        label="is the Frechet distance of what it draws from real pictures",
        figure=words.number(found.value, 2),
        ends=words.join([each for each in (words.ends(found), "lower is better") if each], "; "),
        sentences=_judge(reading),
        steps=_steps(reading),
    )


def scores(reading: Reading) -> dict[str, Interval]:
    """The numbers by which what is drawn is judged, by their names on the page."""
    found = {
        label: interval(dig(reading.metrics, "score", key))
        for key, (label, _) in {**_DISTANCES, **_SHARES}.items()
    }
    return {label: score for label, score in found.items() if score is not None}


def say_score(label: str, found: Interval) -> Words:
    """One of `scores` as the page says it."""
    distance = label in (name for name, _ in _DISTANCES.values())
    return words.interval(found, 2) if distance else words.percent_interval(found)


def _what(reading: Reading) -> Words:
    shape = reading.config.get("image_shape")
    size = " × ".join(str(side) for side in shape) if isinstance(shape, list) else "unknown size"
    kind = "pictures of itself and of others" if reading.settings.get("autoencoder") else "pictures"
    return Markup("Draws {} of {} values ({}, {}).").format(
        kind,
        size,
        words.name(reading.settings.get("architecture", "")),
        words.name(str(reading.settings.get("loss", "")).replace("_", " ")),
    )


def _judge(reading: Reading) -> list[Words]:
    told: list[Words] = []
    precision, recall = (
        interval(dig(reading.metrics, "score", key)) for key in ("precision", "recall")
    )
    if precision is not None and recall is not None:
        told.append(
            Markup(
                "{} of what it draws is believable, and {} of real pictures could be drawn."
            ).format(words.percent(precision.value, 0), words.percent(recall.value, 0))
        )
    seen, known = (number(reading.metrics.get(key)) for key in ("classes_seen", "num_classes"))
    if seen is not None and known:
        told.append(
            Markup("It draws {} of {} classes.").format(words.count(seen), words.count(known))
        )
    copies = interval(dig(reading.metrics, "score", "copies"))
    if copies is not None and copies.low > _EXPECTED_COPIES:
        told.append(
            Markup(
                "{} of what it draws is nearer to a picture it learned from than 99 % of unseen "
                "pictures are: some was learned by heart."
            ).format(words.percent(copies.value))
        )
    if beware := dig(reading.metrics, "score", "beware"):
        told.append(words.printable(beware))
    if advice := reading.metrics.get("advice"):
        told.append(Markup("Beware: {}").format(words.printable(advice)))
    return told


def _steps(reading: Reading) -> list[Step]:
    if not reading.metrics:
        told = "Give the same command again: training goes on where it stopped."
        return [Step(told, train_command(reading))]
    name = words.printable(reading.name)
    steps = []
    if dig(reading.metrics, "protocol", "interrupted"):
        steps.append(
            Step("Training was stopped early: train again.", train_command(reading, "--overwrite"))
        )
    steps += [
        Step("Draw new pictures.", shlex.join(["safelight", "gan", "sample", name])),
        Step(
            "Hold it against another generator of the same pictures.",
            shlex.join(["safelight", "compare", name, "ANOTHER_RUN"]),
        ),
    ]
    return steps


def _tell_numbers(reading: Reading) -> Sequence[Block]:
    rows: list[list[Words]] = []
    found = scores(reading)
    for label, meaning in (*_DISTANCES.values(), *_SHARES.values()):
        if label in found:
            rows.append([named(label, meaning), say_score(label, found[label])])
    plain = number(dig(reading.metrics, "score", "frechet_plain"))
    if plain is not None:
        label = named(
            "Frechet distance as counted", "larger by a bias, the more the fewer pictures"
        )
        rows.append([label, words.number(plain, 2)])
    counts = [number(dig(reading.metrics, "score", key)) for key in ("num_fake", "num_real")]
    caption = "What it draws, against the test part, with 95 % intervals"
    told = []
    if None not in counts:
        told.append(
            Text(
                Markup("{} drawn pictures against {} real ones that were not learned from.").format(
                    *(words.count(each) for each in counts if each is not None)
                )
            )
        )
    how = dig(reading.metrics, "protocol", "features")
    told += [Text(f"Judged by {words.printable(how)}.")] if how else []
    return [Table(caption, ["number", "value"], rows), *told]


def _tell_curves(reading: Reading) -> Sequence[Block]:
    history, told = reading.history, []
    if seconds := seconds_fact(reading):
        told.append(Text(f"Time: {seconds}."))
    epochs = history.get("epoch") or []
    if not epochs:
        return [Text("There is no epoch in history.csv: training ended within the first."), *told]
    drawn: list[Block] = []
    for title, wanted in _CURVES.items():
        lines = {label: history.get(key, []) for label, key in wanted.items()}
        lines = {label: line for label, line in lines.items() if np.isfinite(line).any()}
        if lines:
            top = max(float(np.nanmax(line)) for line in lines.values())
            low = min(float(np.nanmin(line)) for line in lines.values())
            axis = Axis(title.lower(), limits=(min(0.0, low), max(1.0, top) * 1.04))
            drawn.append(charts.curves(title, lines, epochs, axis))
    return [Beside(drawn), *told]


def _picture(reading: Reading, name: str) -> Block:
    alt, caption = _ALBUM[name]
    told = Markup("The picture {}.png is missing; <code>safelight gan train</code> draws it.")
    return pictures.show(reading, name, alt, caption, missing=told.format(name))


def _tell_pictures(*names: str) -> Teller:
    return lambda reading: [_picture(reading, name) for name in names]


def _tell_reconstructions(reading: Reading) -> Sequence[Block]:
    return [_picture(reading, "reconstructions")] if reading.settings.get("autoencoder") else []


def _tell_others(reading: Reading) -> Sequence[Block]:
    return pictures.show_others(reading, {*_ALBUM, "history"})


_SECTIONS: Mapping[str, Teller] = {
    "Samples": _tell_pictures("samples"),
    "Numbers": _tell_numbers,
    "Reconstructions": _tell_reconstructions,
    "From one draw to another": _tell_pictures("interpolations"),
    "How the game went": _tell_curves,
    "Other pictures": _tell_others,
    "Protocol": tell_protocol,
}
