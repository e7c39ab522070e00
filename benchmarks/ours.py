"""Safelight in the benchmark: each call into the library stands in one small function."""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import dataclasses
import importlib.metadata
import tempfile
import time
from pathlib import Path

import numpy as np
import tensorflow as tf

from measuring import Assignment, Measured, Stopwatch, read_parts, run_variant
from protocol import PARTS, Protocol
from safelight.datasets import ImageDataset, Splits, load
from safelight.transfer import training
from safelight.transfer.backbones import load_backbone
from safelight.transfer.config import TrainConfig
from safelight.transfer.feature_cache import FeatureCache
from safelight.transfer.features import BATCH_SIZE, FeatureExtractor, FeatureLayer
from safelight.transfer.prediction import predict_probabilities


def extract_from_files(*, num_images: int, image_size: int) -> dict[str, object]:
    """Time the extraction of ELPV's PNG files: decoding, VGG16, writing of the activations.

    One batch of other images goes first, so that tracing the graph is not in the rate.

    Args:
        num_images: How many files.
        image_size: Pixels a side.

    Returns:
        Seconds, images, precision, the layers kept and the last block that ran.
    """
    dataset = load("elpv")
    layers = [FeatureLayer("block4_pool"), FeatureLayer("block5_pool", "avg")]
    with tempfile.TemporaryDirectory() as folder:
        cache = FeatureCache(Path(folder))
        backbone = load_backbone("vgg16", image_size=image_size)
        extractor = FeatureExtractor(backbone, cache=cache)
        extractor.extract(dataset.subset(range(BATCH_SIZE)), layers)
        chosen = dataset.subset(range(BATCH_SIZE, BATCH_SIZE + num_images))
        start = time.perf_counter()
        extractor.extract(chosen, layers)
        seconds = time.perf_counter() - start
    if extractor.num_computed != BATCH_SIZE + num_images:
        raise RuntimeError(f"{extractor.num_computed} images were computed: some came from a cache")
    return {
        "seconds": seconds,
        "num_images": num_images,
        "precision": extractor.precision,
        "output_layer": " and ".join(str(layer) for layer in layers),
        "until_block": 5,
    }


def read_splits(data: Path, protocol: Protocol) -> Splits:
    """The driver's arrays as the library's own data set, parts as given."""
    parts = read_parts(data)
    images = np.concatenate([parts[name].images for name in PARTS])
    labels = np.concatenate([parts[name].labels for name in PARTS])
    names = [str(label) for label in range(int(labels.max()) + 1)]
    # Near duplicates matter for splitting, and the split is given.
    dataset = ImageDataset.from_arrays(images, labels, class_names=names, near_duplicates=False)
    ends = np.cumsum([len(parts[name].labels) for name in PARTS])
    rows = dict(zip(PARTS, np.split(np.arange(len(labels)), ends[:-1]), strict=True))
    subsets = {name: dataset.subset(rows[name]) for name in PARTS}
    return Splits(**subsets, indices=rows, seed=protocol.split_seed, strategy="given")


def make_config(assignment: Assignment) -> TrainConfig:
    """The protocol in the library's words.

    The library's rate falls to zero along a cosine, so it starts at twice the peers' constant one
    to have the same mean. Its linear head is fitted by L-BFGS and has no epochs.
    """
    protocol, variant = assignment.protocol, assignment.variant
    return TrainConfig(
        image_size=protocol.image_size,
        unfreeze_from="block5_conv1",
        head_layers=("block5_pool/avg",),
        dropout=protocol.dropout,
        views=variant.views,
        horizontal_flip=protocol.flip == "horizontal",
        rotation=protocol.rotation,
        zoom=0.0,
        epochs=protocol.block5_epochs,
        batch_size=protocol.batch_size,
        learning_rate=2 * protocol.block5_learning_rate,
        patience=protocol.block5_epochs,
        test_views=1,  # the peers do not average, nor calibrate
        calibrated=False,
        weight_averaging=False,  # the peers keep the weights of the best validation loss
        precision=variant.precision,
        cached=variant.cache,
        seed=protocol.seed,
    )


def train(splits: Splits, config: TrainConfig, folder: Path) -> training.TrainedClassifier:
    """Train with an activation cache that is empty at the start."""
    return training.train(splits, config, cache=FeatureCache(folder))


def predict(
    trained: training.TrainedClassifier, dataset: ImageDataset, config: TrainConfig, folder: Path
) -> np.ndarray:
    """Probabilities (n, num_classes), in the precision that the library evaluates in."""
    cache = FeatureCache(folder)
    return predict_probabilities(trained.model, dataset, config=config, cache=cache)


def stage_seconds(watch: Stopwatch, trained: training.TrainedClassifier) -> dict[str, float]:
    """The library's stages under the names that all variants share."""
    ours = dict(trained.seconds)
    # Building the network counts as head, as it does for the peers.
    named = {
        "extract": ours.pop("extract", 0.0),
        "head": ours.pop("load", 0.0) + ours.pop("head", 0.0),
        "block5": ours.pop("fine_tune", 0.0),
    }
    return {**watch.seconds, **named, **ours}


def measure(assignment: Assignment) -> Measured:
    """Run variant a, b or c: train with the library, predict with what it gives back."""
    tf.config.threading.set_intra_op_parallelism_threads(assignment.num_threads)
    watch, config = Stopwatch(), make_config(assignment)
    with watch.stage("decode"):
        splits = read_splits(assignment.data, assignment.protocol)
    with tempfile.TemporaryDirectory(dir=assignment.work) as folder:
        trained = train(splits, config, Path(folder))
        with watch.stage("evaluation"):
            probabilities = predict(trained, splits.test, config, Path(folder))
    settings = {
        "config": dataclasses.asdict(config),
        "threads": assignment.num_threads,
        "dtype": trained.precision,
        "images_through_the_frozen_part": trained.images_computed,
    }
    versions = {
        name: importlib.metadata.version(name) for name in ("safelight", "keras", "numpy")
    } | {"tensorflow": tf.__version__}
    history = {"block5": trained.history}
    return Measured(probabilities, stage_seconds(watch, trained), versions, settings, history)


if __name__ == "__main__":
    run_variant(measure)
