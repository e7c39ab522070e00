"""The chapter on a variational autoencoder: the answer, then what it rests on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from safelight.metrics import Interval
from safelight.report import autoencoder_advice, charts, pictures, words
from safelight.report.blocks import Answer, Beside, Block, Chapter, Table, Text, Words
from safelight.report.chapters import Teller, make_chapter, named
from safelight.report.charts import Axis, Row
from safelight.report.provenance import seconds_fact, tell_protocol
from safelight.report.reading import Reading, dig, interval, mapping, number

_SCORES = {
    "log_likelihood": ("log p(x)", "of a test picture, by importance sampling; higher is better"),
    "elbo": ("ELBO", "a lower bound: reconstruction less KL"),
    "reconstruction": ("reconstruction", "log p(x|z): how well a picture is described by its z"),
    "kl": ("KL", "what z says of a picture, against the prior"),
}
_PIXEL = "root mean square over pixels, of grey values from 0 to 1"
_CURVES = {"elbo": "ELBO", "reconstruction": "Reconstruction", "kl": "KL"}
_ALBUM = {
    "reconstructions": (
        "Test pictures beside what the decoder makes of their codes.",
        "Test pictures and their reconstructions: what is lost on the way through the code?",
    ),
    "samples": (
        "Pictures decoded from random draws of the prior.",
        "Drawn from nothing: would you take these for real pictures?",
    ),
    "latent_manifold": (
        "A grid of decoded pictures over a plane of two latent units, the others at the "
        "prior's median.",
        "Pictures over a plane of the two units that hold most",
    ),
    "latent_scatter": (
        "A map of the test pictures in the latent space, coloured by class where classes are "
        "known.",
        "Where the test pictures lie: do pictures of a class lie together?",
    ),
    "aggregate": (
        "Where all test pictures lie together in the latent space, beside draws from the prior.",
        "All pictures together against the prior: samples come from where pictures are, or not",
    ),
    "traversals": (
        "Rows of pictures; along each row one latent unit changes and the others stay.",
        "What each unit does: one changes along a row, all others stay",
    ),
    "interpolation": (
        "Rows of pictures on the way from one test picture to another.",
        "Ways through the latent space from one test picture to another",
    ),
    "kl_per_unit": (
        "KL divergence of each latent unit over the epochs.",
        "Each unit's KL over the epochs: when it began to be used",
    ),
}


def chapter(reading: Reading) -> Chapter:
    """All about one variational autoencoder."""
    title = Markup("Variational autoencoder of {}")
    return make_chapter(reading, title=title, answer=answer, tellers=_SECTIONS)


def answer(reading: Reading) -> Answer:
    """What is read first."""
    found, label = best_score(reading)
    steps = autoencoder_advice.next_steps(reading)
    if found is None:
        told = "There are no numbers yet, so nothing can be said of how good it is."
        return Answer(_what(reading), "log p(x)", "–", "", [told], steps)
    return Answer(
        what=_what(reading),
        label=label,
        figure=Markup("{} nats").format(words.number(found.value, 1)),
        ends=words.join([each for each in (words.ends(found), "higher is better") if each], "; "),
        sentences=autoencoder_advice.judge(reading),
        steps=steps,
        chart=_bounds(reading),
    )


def best_score(reading: Reading) -> tuple[Interval | None, str]:
    """The number that a model is known by, and what it is: log p(x), else the ELBO."""
    likelihood = reading.interval("log_likelihood")
    if likelihood is not None and math.isfinite(likelihood.value):
        return likelihood, "is log p(x) of a test picture"
    return reading.interval("elbo"), "is the ELBO of a test picture, a bound on log p(x)"


def scores(reading: Reading) -> dict[str, Interval]:
    """The numbers in nats by which such a model is judged, by their names on the page."""
    found = {label: reading.interval(key) for key, (label, _) in _SCORES.items()}
    return {label: score for label, score in found.items() if score is not None}


def _what(reading: Reading) -> Words:
    units = number(reading.settings.get("latent_dim"))
    shape = reading.config.get("image_shape")
    size = " × ".join(str(side) for side in shape) if isinstance(shape, list) else "unknown"
    return Markup(
        "Turns a picture of {} values into {} numbers and back, and draws new pictures ({}, {})."
    ).format(
        size,
        words.count(units) if units else "some",
        words.name(reading.settings.get("architecture", "")),
        words.name(str(reading.settings.get("likelihood", "")).replace("_", " ")),
    )


def _bounds(reading: Reading) -> Markup:
    found = scores(reading)
    rows = [Row(label, (found[label],)) for label in ("log p(x)", "ELBO") if label in found]
    rows = [row for row in rows if math.isfinite(row.marks[0].value)]
    title = "Log-probabilities of a test picture"
    return charts.interval_rows(title, rows, Axis("nats per picture, 95 % intervals")).svg


def _tell_numbers(reading: Reading) -> Sequence[Block]:
    shown: dict[Words, Words] = {}
    for key, (label, meaning) in _SCORES.items():
        if (score := reading.interval(key)) is not None:
            shown[named(label, meaning)] = words.nats(score)
    if (error := reading.interval("reconstruction_error")) is not None:
        shown[named("pixel error", _PIXEL)] = words.interval(error, 4)
    active, units = (number(reading.metrics.get(key)) for key in ("active_units", "latent_dim"))
    if active is not None and units is not None:
        used = Markup("{} of {}").format(words.count(active), words.count(units))
        shown[named("active units", "units that say something about pictures")] = used
    caption = "On the test part, per picture, with 95 % intervals"
    if reading.num_scored is not None:
        caption += f"; log p(x) on {reading.num_scored:,} of its pictures"
    table = Table(caption, ["number", "value"], list(shown.items()))
    how = dig(reading.metrics, "protocol", "log_likelihood")
    surgery = dig(reading.metrics, "surgery", "sentence")
    texts = [Text(f"How: {words.printable(each)}.") for each in (how, surgery) if each]
    return [table, *texts]


def _tell_curves(reading: Reading) -> Sequence[Block]:
    history, told = reading.history, []
    if seconds := seconds_fact(reading):
        told.append(Text(f"Time: {seconds}."))
    epochs = history.get("epoch") or []
    if not epochs:
        return [Text("There is no epoch in history.csv: training ended within the first."), *told]
    drawn: list[Block] = []
    for key, label in _CURVES.items():
        lines = {"training": history.get(key, []), "held out": history.get(f"val_{key}", [])}
        lines = {name: line for name, line in lines.items() if np.isfinite(line).any()}
        if lines:
            axis = Axis("nats per picture", limits=_late(list(lines.values())))
            drawn.append(charts.curves(f"{label} over the epochs", lines, epochs, axis))
    return [Beside(drawn), *told]


def _late(lines: Sequence[Sequence[float]]) -> tuple[float, float] | None:
    """The range of what comes after the first tenth of the epochs, if the rest is far from it."""
    values = [np.asarray(line, dtype=float) for line in lines]
    late = np.concatenate([v[math.ceil(len(v) / 10) if len(v) >= 5 else 0 :] for v in values])
    every, late = (x[np.isfinite(x)] for x in (np.concatenate(values), late))
    if not len(late) or np.ptp(every) <= 2 * np.ptp(late):
        return None
    margin = max(0.1 * float(np.ptp(late)), 0.5)
    return float(late.min()) - margin, float(late.max()) + margin


def _tell_units(reading: Reading) -> Sequence[Block]:
    values = [number(x) for x in reading.metrics.get("kl_per_unit") or []]
    finite = [x for x in values if x is not None]
    blocks: list[Block] = []
    if finite and len(finite) == len(values):
        axis = Axis("KL, nats", digits=2)
        title = "What each latent unit holds, on the test part"
        if not _is_plain(reading):
            title += ": KL from N(0, 1), as the prior has none by unit"
        blocks.append(charts.bars(title, finite, axis, row="unit"))
    if _is_plain(reading):
        blocks.append(_picture(reading, "kl_per_unit"))
    return [Beside(blocks)] if len(blocks) > 1 else blocks


def _tell_space(reading: Reading) -> Sequence[Block]:
    settings = reading.settings
    is_line = number(settings.get("latent_dim")) == 1  # and no plane
    # In two layers q(z|x) is no Gaussian: there is no density to draw.
    undrawn = {
        "aggregate": is_line or bool(number(settings.get("second_latent_dim"))),
        "latent_manifold": is_line,
    }
    names = ("latent_scatter", "aggregate", "latent_manifold")
    return [_picture(reading, name) for name in names if not undrawn.get(name)]


def _tell_walks(reading: Reading) -> Sequence[Block]:
    # Of a conditional run both ends are of one class, and few pictures may have no two of it.
    rare = reading.settings.get("conditional") is True
    names = ["traversals", "interpolation"]
    if rare and reading.picture("interpolation") is None:
        names.remove("interpolation")
    return [_picture(reading, name) for name in names]


def _is_plain(reading: Reading) -> bool:
    """Whether the prior is N(0, I) over one layer, whose KL divergence comes unit by unit."""
    settings = reading.settings
    return settings.get("prior", "normal") == "normal" and not settings.get("second_latent_dim")


def _tell_labels(reading: Reading) -> Sequence[Block]:
    probes = mapping(reading.metrics.get("probes"))
    if not probes:
        return []
    readers = {"linear": "logistic regression", "neighbors": "five nearest neighbours"}
    features = {"latent": "latent means", "pca": "principal components"}
    rows = [
        Row(f"{short}, {way}", (found,))
        for kind, short in {"latent": "latents", "pca": "PCA"}.items()
        for key, way in {"linear": "linear", "neighbors": "nearest"}.items()
        if (found := interval(dig(probes, kind, key))) is not None
    ]
    chart = charts.interval_rows(
        "Labels read from the code", rows, Axis("labels read right, %", scale=100)
    )
    table_rows: list[list[Words]] = [
        [
            name,
            *(_percent_or_dash(interval(dig(probes, kind, key))) for key in readers),
        ]
        for kind, name in features.items()
    ]
    table = Table(
        "Labels read right, on the test part", ["read from", *readers.values()], table_rows
    )
    how = dig(reading.metrics, "protocol", "probes")
    return [
        Beside([chart.bare(), table]),
        *([Text(f"How: {words.printable(how)}.")] if how else []),
    ]


def _percent_or_dash(found: Interval | None) -> Words:
    return "–" if found is None else words.percent_interval(found)


def _picture(reading: Reading, name: str) -> Block:
    alt, caption = _ALBUM[name]
    told = Markup("The picture {}.png is missing; <code>safelight vae train</code> draws it.")
    missing = told.format(name)
    return pictures.show(reading, name, alt, caption, missing=missing)


def _tell_pictures(*names: str) -> Teller:
    return lambda reading: [_picture(reading, name) for name in names]


def _tell_others(reading: Reading) -> Sequence[Block]:
    return pictures.show_others(reading, {*_ALBUM, "history"})


_SECTIONS: Mapping[str, Teller] = {
    "Numbers": _tell_numbers,
    "Reconstructions": _tell_pictures("reconstructions"),
    "Samples": _tell_pictures("samples"),
    "The latent space": _tell_space,
    "What each unit does": _tell_walks,
    "How much each unit holds": _tell_units,
    "What it knows of the labels": _tell_labels,
    "How it was trained": _tell_curves,
    "Other pictures": _tell_others,
    "Protocol": tell_protocol,
}
