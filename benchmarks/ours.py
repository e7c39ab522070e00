"""Safelight in the benchmark: each call into the library stands in one small function."""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tempfile
import time
from pathlib import Path

from measuring import Assignment, Measured, run_variant


def extract_from_files(*, num_images: int, image_size: int) -> dict[str, object]:
    """Time the extraction of ELPV's PNG files: decoding, VGG16, writing of the activations.

    One batch of other images goes first, so that tracing the graph is not in the rate.

    Args:
        num_images: How many files.
        image_size: Pixels a side.

    Returns:
        Seconds, images, precision, the layers kept and the last block that ran.
    """
    from safelight.datasets import load
    from safelight.transfer.backbones import load_backbone
    from safelight.transfer.feature_cache import FeatureCache
    from safelight.transfer.features import BATCH_SIZE, FeatureExtractor, FeatureLayer

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


def measure(assignment: Assignment) -> Measured:
    """ENTRY POINT, not written yet: needs safelight.transfer.training."""
    raise NotImplementedError(f"variant {assignment.variant.letter} needs safelight.transfer")


if __name__ == "__main__":
    run_variant(measure)
