"""From data to a run folder: model, numbers, pictures and the protocol that made them."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np

from safelight.files import atomic_path
from safelight.gan import album
from safelight.gan.config import TrainConfig
from safelight.gan.models import GAN, build_gan, chosen_precision, in_float32
from safelight.gan.training import Report, TrainedGAN, choose_policy, train
from safelight.generative.pictures import Parts
from safelight.generative.records import (
    describe_run,
    open_described,
    protocol_of_data,
)
from safelight.generative.scores import (
    INTERVALS,
    MAX_LEARNED,
    MAX_PICTURES,
    Features,
    Score,
    draw_labels,
    score_features,
)
from safelight.locks import alone
from safelight.runs import Run
from safelight.trained_runs import load_model, read_settings

_PARITY_IMAGES = 16


def open_run(
    path: Path, parts: Parts, config: TrainConfig, *, source: str = "", overwrite: bool = False
) -> Run:
    """Makes a run folder; or opens the one that was begun there with the same data and settings.

    Args:
        path: The folder.
        parts: The data.
        config: The settings.
        source: Where the data set can be read from again.
        overwrite: Whether to replace a run that is there, and to begin anew in any case.

    Raises:
        ValueError: There is a finished run, or an unfinished one of other data or settings.
    """
    description = describe_run("gan", parts, config, source=source)
    return open_described(path, description, overwrite=overwrite)


@alone
def run_training(
    run: Run,
    parts: Parts,
    config: TrainConfig,
    *,
    features: Features,
    report: Report,
) -> dict[str, Any]:
    """Trains, judges against the test part, and writes it all into a run folder, metrics last.

    A training that was cut off goes on from its checkpoint.

    Args:
        run: As from `open_run`.
        parts: The data.
        config: The settings.
        features: What pictures are judged by; where they are a classifier's, it also watches
            whether all classes are drawn.
        report: Told how far it is.

    Returns:
        What was written to `metrics.json`.
    """
    run.write_environment()
    checkpoint = run.path / "checkpoint.npz"
    data = parts.images["train"]
    trained = train(
        build_gan(parts.image_shape, config, num_classes=parts.num_classes),
        (data, parts.labels["train"]) if config.conditional and parts.labels else data,
        config=config,
        classify=features.classify,
        num_classes=features.num_classes,
        checkpoint=checkpoint,
        report=report,
    )
    trained = dataclasses.replace(trained, model=in_float32(trained.model, config))
    trained_at = time.perf_counter()
    _keep(run, trained)
    report("judging", 0, 1, "")
    score = _judge(trained, parts, features, config.seed)
    names = parts.dataset.class_names if parts.labels else ()
    album.draw(run, trained, parts.images["test"], names)
    judged = time.perf_counter() - trained_at
    metrics = {
        "score": score.to_dict(),
        "diversity": trained.sight.diversity,
        "classes_seen": trained.sight.num_seen,
        "num_classes": trained.sight.num_classes,
        "class_entropy": _or_none(trained.sight.entropy),
        "advice": trained.advice,
        "num_images": score.num_real,
        "epochs": trained.epochs,
        "images_per_second": trained.images_per_second,
        "seconds": {
            **trained.seconds,
            "evaluate": judged,
            "total": trained.seconds["training"] + judged,
        },
        "protocol": {
            **protocol_of_data(parts),
            "seed": config.seed,
            "intervals": INTERVALS,
            "features": features.protocol,
            "augmentation": choose_policy(config.augmentation, len(data)),
            "precision": chosen_precision(config.precision),
            "interrupted": trained.interrupted,
        },
        "saved_model": _compare_saved_model(run, trained.model),
    }
    run.write_metrics(metrics)
    checkpoint.unlink(missing_ok=True)
    return metrics


def settings_of(run: Run) -> TrainConfig:
    """The settings that a run was trained with.

    Raises:
        ValueError: It is no run of a GAN, or comes from a version with other settings.
    """
    return read_settings(run, "gan", TrainConfig)


def load_gan(run: Run) -> GAN:
    """The run's model, in Keras' safe mode: it can execute nothing.

    Raises:
        ValueError: The run has none, or it cannot be read.
    """
    return load_model(run, GAN, "a GAN")


def _judge(trained: TrainedGAN, parts: Parts, features: Features, seed: int) -> Score:
    """The score of what is drawn, against the test part."""
    # Parts are in the order of the folders, class after class: some of each are wanted.
    rng = np.random.default_rng([seed, 3])
    learned, real = (
        images[rng.permutation(len(images))[:most]]
        for images, most in (
            (parts.images["train"], MAX_LEARNED),
            (parts.images["test"], MAX_PICTURES),
        )
    )
    labels = None
    if trained.model.num_classes and parts.labels:
        labels = draw_labels(parts.labels["train"], len(real), seed)
    drawn = trained.model.generate(len(real), labels, seed=seed + 1)
    known, unseen, found = (features.extract(each) for each in (learned, real, drawn))
    return score_features(known, unseen, found, seed=seed)


def _keep(run: Run, trained: TrainedGAN) -> None:
    with atomic_path(run.model_path) as path:
        trained.model.save(path)
    run.write_history(trained.history)


def _compare_saved_model(run: Run, model: GAN) -> dict[str, float | int]:
    """How far what the saved model draws is from what the judged one draws."""
    saved, judged = (each.generate(_PARITY_IMAGES, seed=0) for each in (load_gan(run), model))
    return {"num_images": _PARITY_IMAGES, "max_difference": float(np.abs(saved - judged).max())}


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
