"""Rate against distortion: one model for each weight of the KL divergence (Alemi et al. 2018).

The rate is the KL divergence of q(z|x) from the prior, what a picture costs in the latents; the
distortion is minus log p(x|z), what it costs beyond. Their sum is minus the ELBO, which does not
say how it is made up: a model that ignores its latents may have the same as one that uses them.
Trained with several beta, models trace what the architecture can do (arXiv 1711.00464, figure 3).
docs/theory/surgery.md has more.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from safelight import plots, untrusted
from safelight.files import write_csv
from safelight.generative import records
from safelight.generative.pictures import Parts
from safelight.locks import alone
from safelight.metrics import Interval
from safelight.runs import Run
from safelight.vae import experiment
from safelight.vae.config import TrainConfig
from safelight.vae.evaluation import evaluate
from safelight.vae.moments import Report
from safelight.vae.training import train

KIND = "vae-rate-distortion"
_FILE = "rate_distortion.csv"


@dataclasses.dataclass(frozen=True)
class Point:
    """What a model is worth on held-out pictures, in nats per image.

    Attributes:
        beta: The weight of the KL divergence that it was trained with.
        rate: Mean KL(q(z|x) || p(z)).
        distortion: Mean of minus log p(x|z) at one draw of z for each image.
        elbo: Minus their sum.
        mutual_information: The part of the rate that is about the pictures; see `surgery`.
        active_units: Units whose mean varies from picture to picture.
        seconds: Of training.
    """

    beta: float
    rate: Interval
    distortion: Interval
    elbo: Interval
    mutual_information: float
    active_units: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As it stands in `metrics.json`."""
        names = ("rate", "distortion", "elbo")
        intervals = {name: getattr(self, name).to_dict() for name in names}
        return {**dataclasses.asdict(self), **intervals}

    def to_row(self) -> dict[str, float]:
        """As it stands in a line of the CSV file: flat, every digit kept."""
        row: dict[str, float] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Interval):
                row |= {f"{field.name}_{end}": getattr(value, end) for end in _ENDS}
            else:
                row[field.name] = value
        return row

    @classmethod
    def from_row(cls, row: dict[str, str]) -> Point:
        """What `to_row` gave, as text."""
        ends = {
            name: [float(row[f"{name}_{end}"] or "nan") for end in _ENDS]
            for name in ("rate", "distortion", "elbo")
        }
        return cls(
            beta=float(row["beta"]),
            **{name: Interval(value, low, high) for name, (value, low, high) in ends.items()},
            mutual_information=float(row["mutual_information"] or "nan"),
            active_units=int(row["active_units"]),
            seconds=float(row["seconds"]),
        )


_ENDS = ("value", "low", "high")


def open_curve(
    path: Path,
    parts: Parts,
    config: TrainConfig,
    *,
    betas: Sequence[float],
    source: str = "",
    overwrite: bool = False,
) -> Run:
    """Makes a run folder; or opens the one that was begun there with the same data and settings.

    Args:
        path: The folder.
        parts: The data.
        config: As from `experiment.resolve`; its beta plays no part.
        betas: Weights of the KL divergence, rising.
        source: As for `experiment.open_run`.
        overwrite: Whether to replace a run that is there.

    Raises:
        ValueError: There is a finished run, or an unfinished one of other data or settings.
    """
    description = experiment.describe(parts, config, source)
    description |= {"kind": KIND, "betas": list(betas)}
    return records.open_described(path, description, overwrite=overwrite)


@alone
def run_curve(
    run: Run, parts: Parts, config: TrainConfig, *, betas: Sequence[float], report: Report
) -> dict[str, Any]:
    """Trains a model for each beta, judges it on the test part, and writes numbers and a picture.

    A beta that was done is not trained again, and one that was cut off goes on from its checkpoint.

    Args:
        run: As from `open_curve`.
        parts: The data.
        config: As from `experiment.resolve`; minutes and epochs are those of each training.
        betas: Weights of the KL divergence, rising.
        report: Told how far it is.

    Returns:
        What was written to `metrics.json`.

    Raises:
        ValueError: A training was stopped, or its numbers left the range of floats.
    """
    # All of them, so that one which does not go with the rest is not met after hours.
    wanted = [dataclasses.replace(config, beta=beta) for beta in betas]
    run.write_environment()
    started, path = time.perf_counter(), run.path / _FILE
    points = _read_points(path)
    for number, (beta, settings) in enumerate(zip(betas, wanted, strict=True), start=1):
        if any(point.beta == beta for point in points):
            continue
        stage = f"beta {beta:g} ({number}/{len(betas)})"
        points.append(_measure(run, parts, settings, report=_named(report, stage)))
        _write_points(path, points)
    points.sort(key=lambda point: point.beta)
    rates, distortions = (
        np.array([[getattr(getattr(point, name), end) for end in _ENDS] for point in points])
        for name in ("rate", "distortion")
    )
    figure = plots.plot_rate_distortion(rates, distortions, betas=[p.beta for p in points])
    plots.save_figure(figure, run.picture_path("rate_distortion"))
    metrics = {
        "rate_distortion": [point.to_dict() for point in points],
        "num_images": len(parts.images["test"]),
        "latent_dim": config.latent_dim,
        "seconds": {
            "training": sum(point.seconds for point in points),
            "total": time.perf_counter() - started,
        },
        "protocol": _protocol(parts, config),
    }
    run.write_metrics(metrics)
    return metrics


def _measure(run: Run, parts: Parts, config: TrainConfig, *, report: Report) -> Point:
    """Trains one model and judges it."""
    checkpoint = run.path / "checkpoint.npz"
    trained = train(
        experiment.build(parts, config),
        experiment.told(parts, "train", config),
        validation=experiment.told(parts, "validation", config),
        config=config,
        checkpoint=checkpoint,
        report=report,
    )
    if trained.interrupted:
        raise ValueError(
            f"the training with beta={config.beta:g} was stopped, or its numbers left the range of "
            "floats. What was done before is kept: the same command continues there."
        )
    test = experiment.judged_part(parts.images["test"], config)
    labels = parts.labels["test"] if parts.labels and config.conditional else None
    judged = evaluate(
        trained.model,
        test if labels is None else (test, labels),
        num_importance_samples=0,
        seed=config.seed,
    )
    # Before the point is written: the next beta must not find this one's.
    checkpoint.unlink(missing_ok=True)
    lost = judged.reconstruction
    return Point(
        beta=config.beta,
        rate=judged.kl,
        distortion=Interval(-lost.value, -lost.high, -lost.low),
        elbo=judged.elbo,
        mutual_information=judged.surgery.mutual_information if judged.surgery else math.nan,
        active_units=judged.active_units,
        seconds=trained.seconds["training"],
    )


def _named(report: Report, stage: str) -> Report:
    """A report whose stage says which beta it is about."""
    return lambda _, done, total, words: report(stage, done, total, words)


def _read_points(path: Path) -> list[Point]:
    if not path.is_file():
        return []
    try:
        text = untrusted.read_bytes(path, inside=path.parent).decode("utf-8")
        return [Point.from_row(row) for row in csv.DictReader(io.StringIO(text, newline=""))]
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise ValueError(f"{path} is damaged ({error}): begin anew with --overwrite.") from error


def _write_points(path: Path, points: Sequence[Point]) -> None:
    rows = [point.to_row() for point in points]
    write_csv(path, {name: [row[name] for row in rows] for name in rows[0]})


def _protocol(parts: Parts, config: TrainConfig) -> dict[str, Any]:
    return {
        **experiment.protocol_of(parts, config),
        "seed": config.seed,
        "intervals": "BCa bootstrap over images; what another seed of the training would change is "
        "not in them",
        "rate_distortion": "one training for each beta, judged on the test part: rate = KL of "
        "q(z|x) from the prior, distortion = -log p(x|z) at one draw of z, nats per image",
    }
