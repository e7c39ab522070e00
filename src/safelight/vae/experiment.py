"""From data to a run folder: model, numbers, pictures and the protocol that made them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from safelight.datasets import ImageDataset
from safelight.files import atomic_path, write_csv
from safelight.generative import pictures
from safelight.generative.pictures import Parts
from safelight.generative.records import (
    describe_run,
    open_described,
    protocol_of_data,
)
from safelight.locks import alone
from safelight.runs import Run
from safelight.trained_runs import load_model, read_settings
from safelight.vae import album
from safelight.vae.building import build_vae
from safelight.vae.config import TrainConfig
from safelight.vae.evaluation import VAEReport, evaluate
from safelight.vae.likelihoods import choose_likelihood
from safelight.vae.live import LiveView
from safelight.vae.models import VAE
from safelight.vae.moments import Report
from safelight.vae.probes import choose
from safelight.vae.training import TrainedVAE, train

NUM_IMPORTANCE_SAMPLES = 100
NUM_SCORED = 1_000
_PARITY_IMAGES = 16


def resolve(config: TrainConfig, parts: Parts) -> TrainConfig:
    """Settings without `"auto"` in likelihood and binarisation.

    MNIST's digits are drawn black and white, which is what likelihoods of them are compared by;
    for other pictures grey values are modelled as what they are, whole numbers from 0 to 255.

    Args:
        config: As asked for.
        parts: The data.

    Raises:
        ValueError: A conditional model of pictures without labels; and as `TrainConfig.check_new`.
    """
    config.check_new()
    if config.conditional and not parts.num_classes:
        raise ValueError(
            f"conditional=True, but {parts.dataset.name} has no classes: expected a sub-folder "
            "for each of two or more classes, or conditional=False."
        )
    binarization = config.binarization
    likelihood = choose_likelihood(
        config.likelihood, binarization, drawn=parts.dataset.name == "mnist"
    )
    if binarization == "auto":
        binarization = "dynamic" if likelihood == "bernoulli" else "none"
    return dataclasses.replace(config, likelihood=likelihood, binarization=binarization)


def open_run(
    path: Path,
    parts: Parts,
    config: TrainConfig,
    *,
    source: str = "",
    only: str = "",
    overwrite: bool = False,
) -> Run:
    """Makes a run folder; or opens the one that was begun there with the same data and settings.

    Args:
        path: The folder.
        parts: The data.
        config: As from `resolve`.
        source: Where the data set can be read from again: its name, or its folder as seen from
            `path`.
        only: The class that the pictures are all of, where the others were left out.
        overwrite: Whether to replace a run that is there, and to begin anew in any case.

    Raises:
        ValueError: There is a finished run, or an unfinished one of other data or settings.
    """
    return open_described(path, describe(parts, config, source, only), overwrite=overwrite)


@alone
def run_training(
    run: Run,
    parts: Parts,
    config: TrainConfig,
    *,
    report: Report,
    num_importance_samples: int = NUM_IMPORTANCE_SAMPLES,
    num_scored: int = NUM_SCORED,
    film: bool = False,
) -> dict[str, Any]:
    """Trains, judges on the test part, and writes it all into a run folder, metrics last.

    A training that was cut off goes on from its checkpoint.

    Args:
        run: As from `open_run`.
        parts: The data.
        config: As from `resolve`.
        report: Told how far it is.
        num_importance_samples: For log p(x).
        num_scored: Test images whose log p(x) is estimated, at most; the other numbers are for
            all of them.
        film: Whether to keep how the latent space came to be, as `pictures/film.gif`.

    Returns:
        What was written to `metrics.json`.
    """
    run.write_environment()
    checkpoint = run.path / "checkpoint.npz"
    view = _look_on(parts, config) if film else None
    trained = train(
        build(parts, config),
        told(parts, "train", config),
        validation=told(parts, "validation", config),
        config=config,
        checkpoint=checkpoint,
        report=report,
        callback=view,
    )
    trained_at = time.perf_counter()
    _keep(run, trained)
    before_test = time.perf_counter()
    test = judged_part(parts.images["test"], config)
    judged = _judge(trained, parts, test, (num_importance_samples, num_scored), report)
    seconds = {**trained.seconds, "evaluate": time.perf_counter() - before_test}
    labels = parts.labels["test"] if parts.labels else None
    names = parts.dataset.class_names if parts.labels else ()
    run.write_predictions(_likelihoods_table(parts.splits.test.files, judged, config.seed))
    album.draw(run, trained, judged, test=(test, labels), class_names=names)
    if view is not None:
        report("drawing", 0, 1, "the film")
        view.save_film(run.picture_path("film").with_suffix(".gif"))
    # A training that was continued brings the time of the runs before.
    seconds["total"] = trained.seconds["training"] + time.perf_counter() - trained_at
    metrics = {
        **judged.to_dict(),
        "epochs": trained.epochs,
        "images_per_second": trained.images_per_second,
        "seconds": seconds,
        "protocol": {
            **protocol_of(parts, config),
            "interrupted": trained.interrupted,
            **judged.protocol,
        },
        "saved_model": _compare_saved_model(run, trained.model, test, labels),
    }
    run.write_metrics(metrics)
    checkpoint.unlink(missing_ok=True)
    return metrics


def follow_training(path: Path, parts: Parts, config: TrainConfig, *, report: Report) -> None:
    """Computes its part of a training whose run another process writes.

    Args:
        path: The run folder; where there is a checkpoint, it goes on from there as the other does.
        parts: The data, the same as there.
        config: As from `resolve`.
        report: Told how far it is.
    """
    train(
        build(parts, config),
        told(parts, "train", config),
        validation=told(parts, "validation", config),
        config=config,
        checkpoint=path / "checkpoint.npz",
        report=report,
    )


def settings_of(run: Run) -> TrainConfig:
    """The settings that a run was trained with, without `"auto"`.

    Raises:
        ValueError: It is no run of a variational autoencoder, or comes from a version with other
            settings.
    """
    return read_settings(run, "vae", TrainConfig)


def load_vae(run: Run) -> VAE:
    """The run's model, in Keras' safe mode: it can execute nothing.

    Raises:
        ValueError: The run has none, or it cannot be read.
    """
    return load_model(run, VAE, "a variational autoencoder")


def judged_part(images: np.ndarray, config: TrainConfig) -> np.ndarray:
    """Test images as the model knows pictures: drawn black and white if it was, statically."""
    if config.binarization != "static":
        return images
    # Training and validation have the two seeds before it; no two parts share their draws.
    return pictures.binarize(images, seed=config.seed + 2)


def learned_part(images: np.ndarray, config: TrainConfig) -> np.ndarray:
    """Training images as the model learned from them: drawn black and white if it was, statically.

    A reader of labels that is fitted on these is judged on pictures of the same kind.
    """
    return (
        pictures.binarize(images, seed=config.seed) if config.binarization == "static" else images
    )


def write_latents(
    path: Path, dataset: ImageDataset, mean: np.ndarray, log_variance: np.ndarray
) -> None:
    """Writes q(z|x) of every picture into a file for other programs.

    Args:
        path: `.npz` gets arrays `mean`, `log_variance`, `files` and `labels` (names of classes,
            empty without them); any other ending a CSV file with `file`, `label` and `mean_0`, ....
        dataset: The pictures.
        mean: `(n, latent_dim)`.
        log_variance: `(n, latent_dim)`.
    """
    names = dataset.class_names or ("",)
    labels = [names[label] for label in dataset.labels]
    if path.suffix.lower() != ".npz":
        means = {f"mean_{i}": [f"{x:.6g}" for x in unit] for i, unit in enumerate(mean.T.tolist())}
        write_csv(path, {"file": dataset.files, "label": labels, **means})
        return
    # Through an open file, because NumPy adds an ending of its own to other names.
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.savez(
            file,
            mean=mean,
            log_variance=log_variance,
            files=np.array(dataset.files),
            labels=np.array(labels),
        )


def build(parts: Parts, config: TrainConfig) -> VAE:
    """A model with new weights for the data."""
    return build_vae(
        parts.image_shape,
        config,
        num_classes=parts.num_classes,
        mean_picture=parts.images["train"].mean(axis=0) / 255,
        images=parts.images["train"],
    )


def told(parts: Parts, name: str, config: TrainConfig) -> Any:
    """Images of a part, with their labels if the model is told them."""
    images = parts.images[name]
    return (images, parts.labels[name]) if config.conditional and parts.labels else images


def _look_on(parts: Parts, config: TrainConfig) -> LiveView:
    """A view of the held-out pictures, drawn black and white if the training's are, statically."""
    images = parts.images["validation"]
    if config.binarization == "static":
        images = pictures.binarize(images, seed=config.seed + 1)
    labels = parts.labels["validation"] if parts.labels else None
    names = parts.dataset.class_names if parts.labels else None
    return LiveView(images, labels, class_names=names, show=False, seed=config.seed)


def _keep(run: Run, trained: TrainedVAE) -> None:
    with atomic_path(run.model_path) as path:
        trained.model.save(path)
    run.write_history(trained.history)
    with atomic_path(run.path / "history_kl.npy") as path:
        np.save(path, trained.history_kl)


def _judge(
    trained: TrainedVAE,
    parts: Parts,
    test: np.ndarray,
    effort: tuple[int, int],
    report: Report,
) -> VAEReport:
    """All numbers on all test images, but log p(x), which takes longest, on some."""
    num_importance_samples, num_scored = effort
    data: Any = test
    known = None
    if parts.labels:
        learned = learned_part(parts.images["train"], trained.config)
        data, known = (test, parts.labels["test"]), (learned, parts.labels["train"])
    seed = trained.config.seed
    judged = evaluate(trained.model, data, train=known, num_importance_samples=0, seed=seed)
    scored = evaluate(
        trained.model,
        data,
        num_importance_samples=num_importance_samples,
        num_images=min(num_scored, len(test)),
        seed=seed,
        progress=lambda done, total: report("evaluating", done, total, "log p(x)"),
    )
    protocol = {**judged.protocol, "log_likelihood": scored.protocol["log_likelihood"]}
    return dataclasses.replace(
        judged,
        log_likelihood=scored.log_likelihood,
        estimate=scored.estimate,
        gap=scored.gap,
        protocol=protocol,
    )


def _likelihoods_table(files: Sequence[str], judged: VAEReport, seed: int) -> dict[str, list[Any]]:
    """One row per test image whose log p(x) was estimated, nats: what runs are compared on."""
    values = judged.estimate.values.round(4).tolist() if judged.estimate else []
    chosen = choose(len(files), len(values), seed=seed) if values else ()
    return {"file": [files[i] for i in chosen], "log_likelihood": values}


def _compare_saved_model(
    run: Run, model: VAE, test: np.ndarray, labels: np.ndarray | None
) -> dict[str, float | int]:
    """How far what the saved model makes of pictures is from what the judged one makes of them."""
    few = test[:_PARITY_IMAGES]
    told = labels[:_PARITY_IMAGES] if labels is not None and model.num_classes else None
    saved, judged = (each.reconstruct(few, told) for each in (load_vae(run), model))
    return {"num_images": len(few), "max_difference": float(np.abs(saved - judged).max())}


def describe(parts: Parts, config: TrainConfig, source: str = "", only: str = "") -> dict[str, Any]:
    """What a run is made of, as it stands in its `config.json`; arguments as for `open_run`."""
    return describe_run("vae", parts, config, source=source, only=only)


def protocol_of(parts: Parts, config: TrainConfig) -> dict[str, Any]:
    """What a reader needs to know of the data to trust or repeat the numbers."""
    return {
        **protocol_of_data(parts),
        "likelihood": config.likelihood,
        "binarization": config.binarization,
    }
