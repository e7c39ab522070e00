"""A model card in Markdown, as hubs of models expect one: metadata in YAML, then what to know.

Reference: Mitchell et al. 2019, Model Cards for Model Reporting, arXiv:1810.03993.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safelight.files import StrPath, write_text
from safelight.metrics import Interval
from safelight.report import advice, autoencoder, classifier, generator
from safelight.report.blocks import DAMAGE
from safelight.report.provenance import COMMANDS, licences, train_command
from safelight.report.reading import Reading, dig, interval, mapping, number, read_run
from safelight.report.words import plain, printable
from safelight.seals import CARD, is_untouched, seal
from safelight.transfer.data_page import escape

_TASKS = {
    "transfer": "image-classification",
    "vae": "unconditional-image-generation",
    "gan": "unconditional-image-generation",
}
_HUB_METRICS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced_accuracy",
    "macro_f1": "f1",
    "roc_auc": "roc_auc",
}
_TITLES = {
    "transfer": "Classifier",
    "transfer-sweep": "Sweep",
    "vae": "Variational autoencoder",
    "gan": "Generative adversarial network",
}


def write_model_card(run: StrPath) -> tuple[Path, bool]:
    """Write a run's model card beside its model, unless somebody has one of their own there.

    Args:
        run: A run folder.

    Returns:
        Where the card is, and whether it was written: a file that this function did not write, or
        that was changed since, stays as it is.

    Raises:
        ValueError: There is no run, or its folder cannot be written.
    """
    reading = read_run(run)
    path = reading.run.path / CARD
    if path.exists() and not is_untouched(path):
        return path, False
    try:
        text = render_model_card(reading)
    except DAMAGE as error:
        raise ValueError(
            f"{reading.run.path}: its numbers are damaged ({type(error).__name__}: {error}), so "
            "there is no model card; `--no-card` leaves it out."
        ) from error
    try:
        write_text(path, text)
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be written ({error.strerror}); `--no-card` leaves it out."
        ) from error
    return path, True


def render_model_card(reading: Reading) -> str:
    """The card: YAML front matter, intended use, training data, evaluation, limits, how to repeat.

    Args:
        reading: As from `read_run`.
    """
    title = f"{_TITLES.get(reading.kind, 'Run')} of {escape(reading.dataset)}"
    parts = {
        "Intended use": _intended_use(reading),
        "Training data": _training_data(reading),
        "Evaluation": _evaluation(reading),
        "Limits": _limits(reading),
    }
    if reading.kind in COMMANDS:
        parts["How to make it again"] = f"```sh\n{_fenced(train_command(reading))}\n```"
    body = "\n\n".join([f"# {title}", *(f"## {name}\n\n{text}" for name, text in parts.items())])
    return seal(f"{_front_matter(reading)}\n{body}\n")


def _front_matter(reading: Reading) -> str:
    """YAML whose texts are quoted as in JSON, which YAML contains: no name can be markup."""
    content: dict[str, Any] = {
        "library_name": "keras",
        "tags": ["safelight", "keras", reading.kind],
        "model_name": printable(reading.name),
    }
    if reading.kind in _TASKS:
        content["pipeline_tag"] = _TASKS[reading.kind]
    results = _results(reading)
    if results:
        content["model-index"] = [
            {
                "name": printable(reading.name),
                "results": [
                    {
                        "task": {"type": _TASKS[reading.kind]},
                        "dataset": {
                            "name": printable(reading.dataset),
                            "type": printable(reading.dataset),
                            "split": "test",
                        },
                        "metrics": results,
                    }
                ],
            }
        ]
    return "\n".join(["---", *_yaml(content), "---"])


def _yaml(value: Any) -> list[str]:
    """Lines of YAML of mappings, lists and plain values."""
    if isinstance(value, dict):
        lines = []
        for key, item in value.items():
            inner = _yaml(item)
            nested = isinstance(item, dict | list)
            lines += [f"{key}:", *(f"  {x}" for x in inner)] if nested else [f"{key}: {inner[0]}"]
        return lines
    if isinstance(value, list):
        return [
            f"{'- ' if place == 0 else '  '}{line}"
            for item in value
            for place, line in enumerate(_yaml(item))
        ]
    # Letters as they are: YAML does not join the halves into which JSON cuts those beyond 16 bits.
    plain_value = printable(value) if isinstance(value, str) else value
    return [json.dumps(plain_value, ensure_ascii=False)]


def _results(reading: Reading) -> list[dict[str, Any]]:
    scores = {name: reading.interval(name) for name in (*_HUB_METRICS, "log_likelihood", "elbo")}
    return [
        {"type": _HUB_METRICS.get(name, name), "name": name.replace("_", " "), "value": found.value}
        for name, found in scores.items()
        if found is not None and math.isfinite(found.value) and reading.kind in _TASKS
    ]


def _intended_use(reading: Reading) -> str:
    if reading.kind == "transfer":
        names = ", ".join(escape(name) for name in reading.class_names)
        return (
            f"Says which of {len(reading.class_names)} classes a picture shows: {names}. Meant for "
            "pictures taken as those below were; `safelight transfer predict RUN PICTURE --refuse "
            "0.05` answers “none of these” where a picture is unlike them."
        )
    if reading.kind == "vae":
        return (
            "Encodes pictures as a few numbers, says how probable a picture is, and draws new "
            "ones. Meant for looking into a set of pictures, and for teaching."
        )
    if reading.kind == "gan":
        return (
            "Draws new pictures like those it learned from. Meant for teaching, and for comparing "
            "generators; a drawn picture shows nothing that exists."
        )
    return "A study of settings; it holds no model to use."


def _training_data(reading: Reading) -> str:
    dataset = mapping(reading.config.get("dataset"))
    parts = mapping(dig(reading.config, "split", "digests"))
    dealt = ", ".join(f"{len(files):,} for {escape(part)}" for part, files in parts.items())
    lines = [
        f"{_number(dataset.get('num_images'))} pictures of {escape(reading.dataset)}"
        + (f": {dealt}." if dealt else "."),
        f"Split: {escape(dig(reading.config, 'split', 'strategy'))}, seed "
        f"{escape(dig(reading.config, 'split', 'seed'))}.",
        f"Fingerprint of pictures and labels: `{_fenced(str(dataset.get('fingerprint')))}`.",
    ]
    backbone = dig(reading.metrics, "protocol", "backbone")
    if backbone and reading.settings.get("pretrained"):
        lines.append(f"The network underneath: {escape(backbone)}, pretrained on ImageNet.")
    if dataset.get("problems"):
        lines.append(f"{len(dataset['problems']):,} files could not be used and were left out.")
    lines += [f"Licence of {escape(each)}." for each in licences(reading)] or [
        "The licence of pictures and weights is theirs: name it here before you share the model."
    ]
    return "\n".join(f"- {line}" for line in lines)


def _evaluation(reading: Reading) -> str:
    if not reading.metrics:
        return "Not finished: there are no numbers."
    if reading.kind not in _TASKS:
        told = dig(reading.metrics, "sweep", "reading")
        return escape(told) if told else "`metrics.json` has the numbers."
    nats = reading.kind == "vae"
    if reading.kind == "gan":
        rows = [[label, _plain(found)] for label, found in generator.scores(reading).items()]
    else:
        scores = autoencoder.scores(reading) if nats else classifier.scores(reading)
        rows = [[label, _said(found, nats=nats)] for label, found in scores.items()]
    judged = f"{_number(reading.num_test)} test pictures that training had not seen"
    if reading.num_scored is not None:
        judged += f", log p(x) on {reading.num_scored:,} of them"
    table = _table(["number", "value [95 % interval]"], rows)
    told = {"vae": "log_likelihood", "gan": "features"}.get(reading.kind, "intervals")
    how = dig(reading.metrics, "protocol", told)
    texts = [
        f"On {judged}:",
        table,
        *([f"How: {escape(how)}."] if how else []),
        *_per_class(reading),
    ]
    return "\n\n".join(texts)


def _per_class(reading: Reading) -> Sequence[str]:
    found = dig(reading.metrics, "per_class")
    rows = [
        [
            escape(row.get("class_name")),
            _number(row.get("support")),
            *(_said(interval(row.get(key))) for key in ("recall", "precision")),
        ]
        for row in (found if isinstance(found, list) else [])
        if isinstance(row, Mapping)
    ]
    return [_table(["class", "pictures", "recall", "precision"], rows)] if rows else []


def _limits(reading: Reading) -> str:
    lines = _limits_of_classifier(reading) if reading.kind == "transfer" else []
    if reading.kind == "vae":
        lines = [
            "Log-probabilities can be compared only with models of the same pictures, prepared in "
            "the same way.",
            "A likely picture is not a good picture: look at samples before using them.",
        ]
    if reading.kind == "gan":
        lines = [
            "Distances can be compared only where pictures and features are the same: `safelight "
            "compare`.",
            "Whether pictures were learned by heart is told by `copies`, for these features.",
        ]
    lines.append("Numbers hold for pictures like those of the test part, and for no others.")
    return "\n".join(f"- {line}" for line in lines)


def _limits_of_classifier(reading: Reading) -> list[str]:
    lines = [
        f"Most often {escape(true)} is taken for {escape(said)}: {number:,} of {among:,}."
        for true, said, number, among in advice.confusions(reading)[:1]
    ]
    warning = dig(reading.metrics, "data", "neighbours", "advice")
    if warning:
        lines.append(f"Beware: {escape(warning)}")
    error = number(dig(reading.metrics, "calibration", "ece"))
    if error is not None:
        lines.append(
            f"Stated probabilities are {100 * error:.1f} % away from how often it is right."
        )
    return lines


def _said(found: Interval | None, *, nats: bool = False) -> str:
    if found is None:
        return "not defined"
    scale, unit = (1, " nats") if nats else (100, " %")
    return _plain(found, 1, scale=scale, unit=unit)


def _plain(found: Interval, digits: int = 3, *, scale: float = 1, unit: str = "") -> str:
    """As `words.interval` says it: without ends where these are not defined."""
    if math.isnan(found.value):
        return "not defined"
    value, low, high = (plain(scale * x, digits) for x in (found.value, found.low, found.high))
    if math.isnan(found.low) or math.isnan(found.high):
        return f"{value}{unit}"
    return f"{value}{unit} [{low}, {high}]"


def _number(value: object) -> str:
    found = number(value)
    return "?" if found is None else f"{found:,.0f}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    aligned = ["---", *["---:"] * (len(columns) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [columns, aligned, *rows])


def _fenced(text: str) -> str:
    """A text within code marks: it may hold no mark of its own."""
    return printable(text).replace("`", "'")
