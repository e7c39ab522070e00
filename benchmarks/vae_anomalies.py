"""Which pictures does a model of normal ones find odd: its likelihood, its latents, or VGG16?

    python benchmarks/vae_anomalies.py [--splits 10]

Solar cells (ELPV). Functional cells are dealt out 75/25; a variational autoencoder is trained on
the three quarters, and the familiarity of `transfer` (distance to the nearest three in VGG16's
features) learns from the same pictures. Then each scores the functional cells that were left out
and all defective ones. AUROC is the probability that a defective cell scores higher.

Neither is told of a defect, and nothing is chosen on the cells that judge: the autoencoder has the
defaults of `vae train` but for its pictures of 64 pixels and its 200 epochs, the distance those of
`transfer train`. Functional are cells whose probability of a defect is at most one half.
"""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
import functools
import logging
import time
from typing import Any

import numpy as np

from repeats import keep, parse_options, write_result

CLAIM = "vae_anomalies"
FIRST_SEED = 300
NORMAL = "functional"
TITLES = {
    "elbo": "Autoencoder, minus the ELBO",
    "reconstruction_error": "Autoencoder, reconstruction error",
    "prior": "Autoencoder, latents under the prior",
    "aggregate": "Autoencoder, latents among those of normal cells",
    "vgg16": "VGG16's features, distance to the nearest three normal cells",
}
logger = logging.getLogger("benchmark")


@functools.cache
def data(num_images: int, image_size: int) -> dict[str, Any]:
    """Cells, small pictures of them, and features as the default head of `transfer` sees them."""
    from safelight import datasets
    from safelight.generative import pictures
    from safelight.transfer.backbones import find_backbone, load_backbone
    from safelight.transfer.features import FeatureExtractor, FeatureLayer

    cells = datasets.load("elpv")
    if num_images < len(cells):
        cells = cells.subset(np.linspace(0, len(cells) - 1, num_images).astype(int))
    stages = find_backbone("vgg16").head_layers
    layers = [FeatureLayer(name, pooling) for pooling in ("avg", "max") for name in stages]
    found = FeatureExtractor(load_backbone("vgg16")).extract(cells, layers)
    features = [found[layer].gather() for layer in layers]
    return {
        "cells": cells,
        "images": pictures.load_images(cells, (image_size, image_size)).images,
        "features": np.concatenate(features, axis=1),
        "widths": [each.shape[1] for each in features],
    }


def train_model(images: np.ndarray, config: Any) -> Any:
    """An autoencoder of these pictures."""
    from safelight import vae

    model = vae.build_vae(images.shape[1:], config, mean_picture=images.mean(0) / 255)
    return vae.train(model, images, config=config).model


def measure(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """One split: the AUROC of every score, and the seconds of learning and scoring."""
    from safelight import vae
    from safelight.transfer.familiarity import fit_familiarity
    from safelight.vae.anomalies import judge_scores, report_anomalies

    found = data(options.images, options.image_size)
    learned, judged, odd = deal(found["cells"], seed)
    started = time.perf_counter()
    config = vae.TrainConfig(
        likelihood="discretized_logistic", binarization="none", epochs=options.epochs, seed=seed
    )
    model = train_model(found["images"][learned], config)
    report = report_anomalies(
        model,
        found["images"][judged],
        learned=found["images"][learned],
        is_anomalous=odd,
        normal=NORMAL,
        seed=seed,
    )
    between = time.perf_counter()
    known = fit_familiarity(found["features"][learned], widths=found["widths"])
    distances = known.distances(found["features"][judged])
    areas = {**report.auroc, **judge_scores({"vgg16": distances}, odd, seed=seed)}
    return {
        "auroc": {name: area.value for name, area in areas.items()},
        "num_learned": len(learned),
        "num_normal": int((~odd).sum()),
        "num_anomalous": int(odd.sum()),
        "seconds": {"vae": between - started, "vgg16": time.perf_counter() - between},
    }


def deal(cells: Any, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Functional cells to learn from; cells that judge, and which of them are defective."""
    from safelight import datasets
    from safelight.generative.pictures import keep_class

    normal = np.flatnonzero(cells.labels == cells.class_names.index(NORMAL))
    splits = datasets.split(keep_class(cells, NORMAL), seed=seed, validation_fraction=0)
    rest = np.setdiff1d(np.arange(len(cells)), normal)
    judged = np.concatenate([normal[splits.indices["test"]], rest])
    return normal[splits.indices["train"]], judged, np.isin(judged, rest)


def summarize(pieces: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean AUROC of each score over the splits, and its difference from VGG16's, paired."""
    from safelight.comparison import mean_over_splits

    ratio = pieces[0]["num_normal"] / pieces[0]["num_learned"]
    means, gaps = {}, {}
    for name in TITLES:
        values = np.array([piece["auroc"][name] for piece in pieces])
        reference = np.array([piece["auroc"]["vgg16"] for piece in pieces])
        means[name] = mean_over_splits(values, test_to_train=ratio).to_dict()
        gaps[name] = mean_over_splits(values - reference, test_to_train=ratio).to_dict()
    counts = ("num_learned", "num_normal", "num_anomalous")
    return {
        "auroc": means,
        "minus_vgg16": gaps,
        "num_splits": len(pieces),
        "titles": TITLES,
        **{name: pieces[0][name] for name in counts},
    }


def run_all(options: argparse.Namespace) -> None:
    """Measure what is missing and write one result."""
    size = f"{options.images}-{options.image_size}px-{options.epochs}"
    pieces = [
        keep(options, f"{CLAIM}-{size}-{seed}", functools.partial(measure, options, seed))
        for seed in range(FIRST_SEED, FIRST_SEED + options.splits)
    ]
    result = {
        **summarize(pieces),
        "image_size": options.image_size,
        "epochs": options.epochs,
    }
    write_result(options, CLAIM, result)
    for name, mean in result["auroc"].items():
        logger.info("%s: %.3f", TITLES[name], mean["value"])


if __name__ == "__main__":
    run_all(parse_options(__doc__ or "", splits=10, images=2624, image_size=64, epochs=200))
