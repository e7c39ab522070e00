"""The table of Burda et al. 2016 (arXiv 1509.00519): does our VAE reach the published likelihoods?

    python benchmarks/vae_iwae_table.py [--epochs 0] [--only one-1,one-5,one-50,two-1]
        [--seeds 1] [--stage train|judge]

MNIST with dynamic binarisation; the presets `burda-1`, `burda-5`, `burda-50` and `burda-two`, whose
networks are the published ones: two hidden layers of 200 tanh units and 50 latents, or 100 latents
under 50 more with two hidden layers of 100 between them, inferred bottom up. The schedule is not
the published one (3,280 epochs in batches of 20): Adam with a cosine decay over the epochs of the
preset, or over `--epochs`, in larger batches, and averaged weights; the row of fifty samples trains
with five, and with fifty in the last quarter, in which that of two layers has the plain gradient.
log p(x) of all 10,000 test images from 5,000 importance samples. A row that is done is kept in the
working folder, and a training that was broken off goes on: it takes hours. `--stage judge` judges
what an earlier call has trained.
"""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import dataclasses
import functools
import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np

from measuring import num_cores
from repeats import keep, load_digits, parse_options, write_result
from vae_likelihood_per_minute import save_weights

CLAIM = "vae_iwae_table"
# Published: nats per image (table 1), and active units of each layer.
ROWS: dict[str, dict[str, Any]] = {
    "one-1": {"preset": "burda-1", "published": 86.76, "published_active": [19]},
    "one-5": {"preset": "burda-5", "published": 85.54, "published_active": [22]},
    "one-50": {"preset": "burda-50", "published": 84.78, "published_active": [25]},
    "two-1": {"preset": "burda-two", "published": 85.33, "published_active": [16, 5]},
}
SHARED = {"likelihood": "bernoulli", "binarization": "dynamic"}
logger = logging.getLogger("benchmark")


def configure(row: str, epochs: int, seed: int) -> Any:
    """The settings of a row; 0 epochs are those of its preset."""
    from safelight import vae
    from safelight.vae.config import PRESETS

    preset = ROWS[row]["preset"]
    epochs = epochs or PRESETS[preset]["epochs"]
    return vae.TrainConfig.preset(preset, **SHARED, epochs=epochs, seed=seed)


def train(config: Any, weights: Path) -> dict[str, Any]:
    """One training, or what is left of one that was broken off; its weights go into a file."""
    from safelight import vae

    images = load_digits("train")[0]
    model = vae.build_vae(images.shape[1:], config, mean_picture=images.mean(0) / 255)
    checkpoint = weights.with_name(f"{weights.stem}-checkpoint.npz")
    trained = vae.train(model, images, config=config, checkpoint=checkpoint)
    if trained.interrupted:
        raise SystemExit("interrupted; the same call goes on")
    save_weights(model, weights)
    checkpoint.unlink(missing_ok=True)
    return {
        "epochs": trained.epochs,
        "seconds": trained.seconds["training"],
        "cores": num_cores(),
        "images_per_second": trained.images_per_second,
        "elbo_of_training": trained.history["elbo"][-1],
    }


def judge(config: Any, weights: Path) -> dict[str, Any]:
    """What a training is worth."""
    from safelight import vae
    from safelight.vae.evaluation import active_units, posterior_means

    test = load_digits("test")[0]
    model = vae.build_vae(test.shape[1:], config)
    with np.load(weights) as arrays:
        model.set_weights([arrays[key] for key in arrays.files])
    report = vae.evaluate(model, test, num_importance_samples=5000, seed=config.seed)
    means = posterior_means(model, model.encoded(test), seed=config.seed)
    active, first = active_units(*means), config.latent_dim
    assert report.estimate is not None
    return {
        "nll": -report.estimate.mean,
        "standard_error": report.estimate.standard_error,
        "active": [int(part.sum()) for part in (active[:first], active[first:]) if len(part)],
        "evaluation_seconds": report.estimate.seconds,
        "protocol": report.estimate.protocol,
    }


def run_all(options: Any) -> None:
    """Measure what is missing and write one result."""
    rows: dict[str, Any] = {}
    for row in options.only.split(","):
        found = [measure(options, row, seed) for seed in range(options.seeds)]
        last = configure(row, options.epochs, 0).final_gradient
        rows[row] = {**ROWS[row], "final_gradient": last, "runs": found}
    if options.stage != "train":
        content = {"seeds": options.seeds, "rows": rows}
        epochs = f"{options.epochs}epochs-" if options.epochs else ""
        write_result(options, CLAIM, content, f"{epochs}seeds{options.seeds}")


def measure(options: Any, row: str, seed: int) -> dict[str, Any]:
    """A training and, unless only that was asked for, its judgement."""
    if options.stage not in ("all", "train", "judge"):
        raise SystemExit(f"--stage {options.stage}: expected all, train or judge.")
    config = configure(row, options.epochs, seed)
    # A piece that is kept belongs to these settings; a default that is new makes no others of them.
    given = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if getattr(config, field.name) != field.default
    }
    settings = hashlib.sha256(repr(sorted(given.items())).encode()).hexdigest()[:8]
    name = f"{CLAIM}-{row}-{config.epochs}-{settings}"
    weights = options.work / f"{name}-weights.npz"
    if options.stage == "judge" and not (options.work / f"{name}-trained.json").exists():
        raise SystemExit(f"{name} is not trained: --stage train does it.")
    trained = keep(options, f"{name}-trained", functools.partial(train, config, weights))
    logger.info("%s, seed %d: trained, %s", row, seed, trained)
    if options.stage == "train":
        return trained
    judged = keep(options, f"{name}-judged", functools.partial(judge, config, weights))
    logger.info("%s, seed %d: %.2f nats, %s", row, seed, judged["nll"], judged)
    return {**trained, **judged}


if __name__ == "__main__":
    run_all(
        parse_options(__doc__ or "", only=list(ROWS), texts={"stage": "all"}, epochs=0, seeds=1)
    )
