"""Anomalies: pictures that a model of normal ones finds odd, in four ways.

Train on pictures of one kind (`safelight vae train DATA --only CLASS`), then score others:

    scores = score_anomalies(model, images, normal=learn_normal(model, normal_images))
    judge_scores(scores, is_anomalous)["elbo"]  # AUROC with its interval

No score is the best everywhere. A likelihood prefers plain pictures, whatever it was trained on: a
smooth picture of something else may be likelier than those that were learned from (Nalisnick et
al. 2019, arXiv 1810.09136). Errors of reconstruction miss what a wide bottleneck can copy, and
latents see nothing of what the encoder has no unit for. So all four stand side by side, and none
is chosen by looking at the labels.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from safelight import plots
from safelight.datasets import ImageDataset
from safelight.files import write_csv
from safelight.metrics import Interval, classification_metrics
from safelight.runs import Run
from safelight.vae.aggregate import AggregatePosterior
from safelight.vae.estimates import draw_pixels
from safelight.vae.evaluation import squared_errors
from safelight.vae.models import VAE
from safelight.vae.probes import choose
from safelight.vae.surgery import MAX_IMAGES, check_one_layer, log_prior

SCORES = {
    "elbo": "minus the ELBO (nats)",
    "reconstruction_error": "reconstruction error (grey values)",
    "prior": "−log p(z), of the prior (nats)",
    "aggregate": "−log q(z), of normal pictures (nats)",
}
NUM_DRAWS = 4
_NUM_RESAMPLES = 1000
_NUM_SHOWN = 12

Scores = dict[str, NDArray[np.float64]]
"""Of each name in `SCORES` `(num_images,)`: the larger, the odder."""


@dataclasses.dataclass(frozen=True, eq=False)
class AnomalyReport:
    """How well scores tell anomalies from normal pictures.

    Attributes:
        normal: The class that is normal; empty where pictures had no labels.
        scores: Of all pictures.
        is_anomalous: `(num_images,)` bool; `None` without labels.
        auroc: Of each score, the probability that an anomaly scores higher than a normal picture,
            with its interval; empty without labels.
        num_draws: Of z for each picture.
    """

    normal: str
    scores: Scores
    is_anomalous: NDArray[np.bool_] | None
    auroc: dict[str, Interval]
    num_draws: int

    @property
    def num_images(self) -> int:
        """Pictures that were scored."""
        return len(self.scores["elbo"])

    @property
    def num_anomalous(self) -> int | None:
        """Those that are none of the normal class, if that is known."""
        return None if self.is_anomalous is None else int(self.is_anomalous.sum())

    def to_dict(self) -> dict[str, Any]:
        """Numbers without the scores, for other programs."""
        return {
            "normal": self.normal,
            "auroc": {name: interval.to_dict() for name, interval in self.auroc.items()},
            "num_images": self.num_images,
            "num_anomalous": self.num_anomalous,
            "protocol": {
                "scores": SCORES,
                "draws": f"{self.num_draws} of z for each picture, averaged",
                "auroc": "BCa bootstrap over pictures, 95 %",
            },
        }


def learn_normal(
    model: VAE, images: np.ndarray, labels: np.ndarray | None = None, *, seed: int = 0
) -> AggregatePosterior:
    """Where normal pictures lie in the latent space.

    Args:
        model: As trained.
        images: `(num_images, height, width, channels)` uint8 that it was trained on; of more than
            10,000, so many are drawn.
        labels: `(num_images,)` integers for a conditional model.
        seed: Of that draw and of that of black and white pixels.

    Raises:
        ValueError: A model with two stochastic layers.
    """
    check_one_layer(model)
    some = choose(len(images), MAX_IMAGES, seed=seed)
    told = None if labels is None else labels[some]
    return AggregatePosterior(*model.encode(draw_pixels(model, images[some], seed=seed), told))


def score_anomalies(
    model: VAE,
    images: np.ndarray,
    labels: np.ndarray | None = None,
    *,
    normal: AggregatePosterior,
    num_draws: int = NUM_DRAWS,
    seed: int = 0,
) -> Scores:
    """Scores pictures; the larger, the odder.

    Args:
        model: As trained, on normal pictures.
        images: `(num_images, height, width, channels)` uint8. Where the model binarises, one draw
            of black and white pixels is scored; the reconstruction error is that of grey values.
        labels: `(num_images,)` integers for a conditional model.
        normal: As from `learn_normal`.
        num_draws: Of z for each picture, over which a score is averaged.
        seed: Of all draws.

    Raises:
        ValueError: Arrays that do not fit the model, or fewer than one draw.
    """
    if num_draws < 1:
        raise ValueError(f"num_draws={num_draws}: expected at least 1.")
    drawn = draw_pixels(model, images, seed=seed)
    bounds = [model.elbo(drawn, labels, seed=seed + i)["elbo"] for i in range(num_draws)]
    z = AggregatePosterior(*model.encode(drawn, labels)).draw(num_draws, seed=seed)
    aggregate = [normal.log_density(rows) for rows in z]
    return {
        "elbo": -np.mean(bounds, axis=0, dtype=np.float64),
        "reconstruction_error": np.sqrt(squared_errors(model, images, labels), dtype=np.float64),
        "prior": -log_prior(model.prior, z).mean(0),
        "aggregate": -np.mean(aggregate, axis=0),
    }


def judge_scores(
    scores: Scores, is_anomalous: ArrayLike, *, confidence: float = 0.95, seed: int = 0
) -> dict[str, Interval]:
    """The AUROC of each score, with its interval.

    Args:
        scores: As from `score_anomalies`.
        is_anomalous: `(num_images,)` bool.
        confidence: Coverage of the intervals.
        seed: Of the resampling.

    Raises:
        ValueError: There are no anomalies, or nothing else.
    """
    labels = np.asarray(is_anomalous, bool).astype(np.int64)
    if labels.min() == labels.max():
        what = "anomalies" if labels.max() == 0 else "normal pictures"
        raise ValueError(
            f"there are no {what} among {len(labels)} pictures: expected some of both, to say how "
            "well one is told from the other."
        )
    return {name: _auroc(labels, values, confidence, seed) for name, values in scores.items()}


def _auroc(
    labels: NDArray[np.int64], scores: NDArray[np.float64], confidence: float, seed: int
) -> Interval:
    """Of ranks, which have the order of the scores and are probabilities by their looks."""
    _, ranks = np.unique(scores, return_inverse=True)
    share = (ranks + 0.5) / (ranks.max() + 1)
    return classification_metrics(
        labels,
        np.stack([1 - share, share], axis=1),
        num_resamples=_NUM_RESAMPLES,
        confidence=confidence,
        seed=seed,
    )["roc_auc"]


def report_anomalies(
    model: VAE,
    images: np.ndarray,
    *,
    learned: np.ndarray,
    is_anomalous: NDArray[np.bool_] | None = None,
    normal: str = "",
    seed: int = 0,
) -> AnomalyReport:
    """Scores pictures, and judges the scores where it is known what is an anomaly.

    Args:
        model: As trained, unconditional.
        images: `(num_images, height, width, channels)` uint8 that it was not trained on.
        learned: The like that it was trained on.
        is_anomalous: `(num_images,)`; `None` if that is not known.
        normal: The class that is normal.
        seed: Of all draws.

    Raises:
        ValueError: As `score_anomalies` and `judge_scores`; or a conditional model, which would
            have to be told what it is asked.
    """
    if model.num_classes:
        raise ValueError(
            "the model is conditional, so that it would have to be told what a picture shows: "
            "expected one that was trained without --conditional."
        )
    scores = score_anomalies(
        model, images, normal=learn_normal(model, learned, seed=seed), seed=seed
    )
    auroc = {} if is_anomalous is None else judge_scores(scores, is_anomalous, seed=seed)
    return AnomalyReport(normal, scores, is_anomalous, auroc, NUM_DRAWS)


def write_scores(run: Run, dataset: ImageDataset, report: AnomalyReport) -> None:
    """Writes a line for each picture into the run's `anomalies.csv`, the oddest by ELBO first.

    Args:
        run: Whose model scored.
        dataset: The pictures, in the order of the scores.
        report: As from `report_anomalies`.
    """
    names = dataset.class_names or ("",)
    order = np.argsort(-report.scores["elbo"], kind="stable")
    columns: dict[str, list[object]] = {
        "file": [dataset.files[i] for i in order],
        "label": [names[dataset.labels[i]] for i in order],
    }
    for name, values in report.scores.items():
        columns[name] = [float(f"{value:.6g}") for value in values[order]]
    write_csv(run.path / "anomalies.csv", columns)


def draw_anomalies(
    model: VAE, images: np.ndarray, dataset: ImageDataset, *, report: AnomalyReport
) -> dict[str, Any]:
    """Figures by name: the oddest pictures, how scores are spread, and what they find.

    Args:
        model: That scored.
        images: The pictures, as in `report_anomalies`.
        dataset: What they are, in their order.
        report: Their scores.
    """
    names = dataset.class_names or ("",)
    oddest = np.argsort(-report.scores["elbo"], kind="stable")[:_NUM_SHOWN]
    titles = [
        f"{names[dataset.labels[i]]}  −ELBO {report.scores['elbo'][i]:,.0f}".strip() for i in oddest
    ]
    shown = images[oddest]
    scores = {SCORES[name]: values for name, values in report.scores.items()}
    figures = {"anomalies": plots.plot_oddest(shown, model.reconstruct(shown), titles=titles)}
    if report.is_anomalous is None:
        return {**figures, "anomaly_scores": plots.plot_scores(scores)}
    figures["anomaly_scores"] = plots.plot_scores(
        scores,
        dataset.labels,
        class_names=dataset.class_names,
        normal=dataset.class_names.index(report.normal),
    )
    aurocs = {SCORES[name]: area for name, area in report.auroc.items()}
    figures["anomaly_roc"] = plots.plot_roc(scores, report.is_anomalous, aurocs=aurocs)
    return figures
