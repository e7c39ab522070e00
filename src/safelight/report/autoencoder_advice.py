"""What a variational autoencoder's numbers say, and what to do next."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence

from markupsafe import Markup

from safelight.report import words
from safelight.report.blocks import Step, Words
from safelight.report.provenance import argument, train_command
from safelight.report.reading import Reading, dig, interval, number
from safelight.vae.config import ways_to_wake_units

MAX_STEPS = 5
_PUBLISHED_SAMPLES = 5000
"""Importance samples per picture that published log-likelihoods are usually made with."""
_MIN_EFFECTIVE = 5
_STILL_RISING = 1.0
"""Nats that the held-out ELBO won in the last quarter of the epochs."""
_OVERFITTED = 3.0


def judge(reading: Reading) -> list[Words]:
    """How good a model is, and whether that is enough, in sentences."""
    found = [_bits(reading), _gap(reading), _labels(reading), _enough()]
    return [each for each in found if each]


def next_steps(reading: Reading) -> list[Step]:
    """What to do next, the most important first; at most `MAX_STEPS`."""
    if not reading.metrics:
        told = "Give the same command again: training goes on where it stopped."
        return [Step(told, train_command(reading))]
    found = [
        *_interrupted(reading),
        *_no_likelihood(reading),
        *_train_longer(reading),
        *_size(reading),
        *_more_samples(reading),
        *_use(reading),
    ]
    return found[:MAX_STEPS]


def _bits(reading: Reading) -> Words:
    shape = reading.config.get("image_shape")
    found = interval(reading.metrics.get("log_likelihood")) or interval(reading.metrics.get("elbo"))
    if not isinstance(shape, list) or found is None or not math.isfinite(found.value):
        return ""
    values = math.prod(int(side) for side in shape)
    bits = -found.value / math.log(2) / values
    return Markup(
        "That is {} bits per value of a picture. Compare it only with models of the same "
        "pictures, prepared in the same way."
    ).format(words.number(bits, 3))


def _gap(reading: Reading) -> Words:
    gap = reading.interval("gap")
    if gap is None or not math.isfinite(gap.value):
        return ""
    return Markup(
        "On the same pictures the ELBO is {} below: what the encoder's simple posterior costs."
    ).format(words.nats(gap))


def _labels(reading: Reading) -> Words:
    latent, pca = (
        interval(dig(reading.metrics, "probes", kind, "linear")) for kind in ("latent", "pca")
    )
    if latent is None or pca is None:
        return ""
    verdict = "no better than"
    if latent.low > pca.high:
        verdict = "better than"
    elif latent.high < pca.low:
        verdict = "worse than"
    return Markup(
        "From its code a linear reader tells the class of {}, {} from as many principal "
        "components ({})."
    ).format(words.percent_interval(latent), verdict, words.percent(pca.value))


def _enough() -> Words:
    return Markup(
        "<strong>Is that enough?</strong> No number alone says so: look whether you would take "
        "its samples for real pictures, and whether reconstructions keep what matters to you."
    )


def _interrupted(reading: Reading) -> Sequence[Step]:
    if dig(reading.metrics, "protocol", "interrupted"):
        return [
            Step(
                "Training was stopped early: train again to its end.",
                train_command(reading, "--overwrite"),
            )
        ]
    return []


def _no_likelihood(reading: Reading) -> Sequence[Step]:
    how = str(dig(reading.metrics, "protocol", "log_likelihood") or "")
    if "no likelihood" not in how:
        return []
    told = "A Bernoulli of grey pixels is no likelihood: do not compare its nats with others'."
    return [Step(told, train_command(reading, "--likelihood", "discretized_logistic"))]


def _train_longer(reading: Reading) -> Sequence[Step]:
    held_out = _finite(reading, "val_elbo")
    learned = _finite(reading, "elbo")
    # The bound of several samples, raised at the end, may rise where this one falls.
    other_end = (number(reading.settings.get("final_samples")) or 1) > 1
    if len(held_out) < 2 or not learned or other_end:
        return []
    (last, now), gap = held_out[-1], learned[-1][1] - held_out[-1][1]
    # Not every epoch is judged: from the last that was before the last quarter.
    early = [(epoch, value) for epoch, value in held_out[:-1] if epoch <= 0.75 * last]
    begin, before = early[-1] if early else held_out[0]
    gained = now - before
    if gap > _OVERFITTED and gained < 0:
        told = Markup(
            "It has begun to learn pictures by heart: the held-out ELBO falls, {} nats below that "
            "of training. Fewer epochs, fewer hidden units or weight decay help."
        )
        return [Step(told.format(words.number(gap, 1)))]
    if gained <= _STILL_RISING:
        return []
    told = Markup("Train longer: the last {} of {} epochs still won {} nats on held-out pictures.")
    said = told.format(words.count(last - begin), words.count(last), words.number(gained, 1))
    return [Step(said, train_command(reading, "--epochs", f"{4 * last:.0f}"))]


def _finite(reading: Reading, column: str) -> list[tuple[float, float]]:
    """Epochs and what was seen in them, without those in which nothing was."""
    epochs, values = reading.history.get("epoch", []), reading.history.get(column, [])
    return [(e, v) for e, v in zip(epochs, values, strict=True) if math.isfinite(v)]


def _size(reading: Reading) -> Sequence[Step]:
    active, units = (number(reading.metrics.get(key)) for key in ("active_units", "latent_dim"))
    if active is None or not units:
        return []
    if active == units and units <= 20:
        told = Markup("All {} units are used: more of them may describe pictures better.")
        return [
            Step(
                told.format(words.count(units)),
                train_command(reading, "--latent-dim", f"{2 * int(units)}"),
            )
        ]
    if active < units / 2:
        ways = ways_to_wake_units(_objective(reading)).items()
        flags = [f"--{name.replace('_', '-')} {value:g}" for name, value in ways] or ["more epochs"]
        told = Markup("Only {} of {} units are used: as many would do, and {} may wake more.")
        return [Step(told.format(words.count(active), words.count(units), " or ".join(flags)))]
    return []


def _objective(reading: Reading) -> dict[str, float | str]:
    """The settings that decide on a run's loss, where its file holds them as they should be."""
    texts = {name: reading.settings.get(name) for name in ("prior", "gradient", "final_gradient")}
    names = ("num_samples", "final_samples", "second_latent_dim", "warmup_epochs", "epochs")
    counts = {n: number(reading.settings.get(n)) for n in (*names, "free_bits", "beta")}
    known = {name: value for name, value in counts.items() if value is not None}
    return known | {name: value for name, value in texts.items() if isinstance(value, str)}


def _more_samples(reading: Reading) -> Sequence[Step]:
    samples = number(reading.metrics.get("num_importance_samples"))
    effective = number(dig(reading.metrics, "importance_sampling", "effective_sample_size"))
    if samples is None or samples >= _PUBLISHED_SAMPLES:
        return []
    few = effective is not None and effective < _MIN_EFFECTIVE
    low = " and too low, as few of them count" if few else ""
    told = Markup(
        "For a table of results take more importance samples: with {} log p(x) is rough{}."
    )
    line = shlex.join(
        [
            "safelight",
            "vae",
            "evaluate",
            argument(reading.name),
            "--num-importance-samples",
            str(_PUBLISHED_SAMPLES),
        ]
    )
    return [Step(told.format(words.count(samples), low), line)]


def _use(reading: Reading) -> Sequence[Step]:
    name = argument(reading.name)
    if not reading.metrics:
        return []
    return [
        Step("Draw new pictures.", shlex.join(["safelight", "vae", "sample", name, "--num", "64"]))
    ]
