"""How much time does the cache save over a whole grid of trainings?

    python benchmarks/transfer_grid_speed.py [--splits 10] [--seeds 3] [--part 48]

Ten splits of ELPV times five training sizes times three seeds, each a training and a judgement with
the defaults of `transfer train`. With the cache every picture and view runs through the frozen
network once, and a training costs a head. Without it every training and judgement runs its own
pictures through. That side is not run as a whole: the network is timed on a part, with an empty
cache, and multiplied by the number of pictures and views that the grid needs. Both engines are
timed: the one that is chosen here, and Keras on TensorFlow.
"""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
import functools
import logging
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from repeats import keep, parse_options, write_result

CLAIM = "transfer_grid_speed"
FIRST_SEED = 200
logger = logging.getLogger("benchmark")


def deal(seed: int) -> list[Any]:
    """Five splits with the same test part, which learn from a sixteenth and so on up to all."""
    from safelight import datasets
    from safelight.transfer.training_sizes import shrink

    outer = datasets.split(datasets.load("elpv"), seed=seed, validation_fraction=0)
    return list(shrink(outer, 0.0))


def measure(seed: int, num_seeds: int) -> dict[str, Any]:
    """All trainings of one split, from activations that are there."""
    from safelight.transfer.config import TrainConfig
    from safelight.transfer.repetition import train_on_splits

    dealt = deal(seed)
    train_on_splits(dealt[-1:], TrainConfig())  # fills the cache, if it is not full
    seconds, passes, accuracies = [], [], []
    for split in dealt:
        for number in range(num_seeds):
            config, started = TrainConfig(seed=number), time.perf_counter()
            (scores,) = train_on_splits([split], config)
            seconds.append(time.perf_counter() - started)
            passes.append(len(split.train) * config.views + len(split.test) * config.test_views)
            accuracies.append(scores["accuracy"])
    sizes = [len(split.train) for split in dealt]
    return {"sizes": sizes, "seconds": seconds, "passes": passes, "accuracies": accuracies}


def measure_rate(engine: str, number: int) -> float:
    """Pictures a second through the frozen network into an empty cache; the median of three."""
    from safelight import datasets
    from safelight.transfer.backbones import find_backbone, load_backbone
    from safelight.transfer.feature_cache import FeatureCache
    from safelight.transfer.features import FeatureExtractor, FeatureLayer

    cells = datasets.load("elpv").subset(np.arange(number))
    stages = find_backbone("vgg16").head_layers
    layers = [FeatureLayer(name, pooling) for pooling in ("avg", "max") for name in stages]
    rates = []
    for _ in range(4):  # the first warms up
        with tempfile.TemporaryDirectory() as folder:
            extractor = FeatureExtractor(
                load_backbone("vgg16"), engine=engine, cache=FeatureCache(Path(folder))
            )
            extractor.extract(cells.subset([0]), layers)  # builds what is compiled
            started = time.perf_counter()
            extractor.extract(cells, layers)
            rates.append((number - 1) / (time.perf_counter() - started))
    return statistics.median(rates[1:])


def run_all(options: argparse.Namespace) -> None:
    """Measure what is missing and write one result."""
    from safelight import datasets
    from safelight.transfer.config import TrainConfig

    seeds = range(FIRST_SEED, FIRST_SEED + options.splits)
    pieces = [
        keep(options, f"{CLAIM}-{s}", functools.partial(measure, s, options.seeds)) for s in seeds
    ]
    rates = {engine: measure_rate(engine, options.part) for engine in ("auto", "keras")}
    trainings = float(sum(sum(piece["seconds"]) for piece in pieces))
    passes = sum(sum(piece["passes"]) for piece in pieces)
    config = TrainConfig()
    fill = len(datasets.load("elpv")) * max(config.views, config.test_views) / rates["auto"]
    content = {
        "sizes": pieces[0]["sizes"],
        "num_splits": len(pieces),
        "num_seeds": options.seeds,
        "num_trainings": sum(len(piece["seconds"]) for piece in pieces),
        "num_passes": passes,
        "rates": rates,
        "part": options.part,
        "seconds": {
            "trainings": trainings,
            "fill": fill,
            "uncached": passes / rates["auto"] + trainings,
            "uncached_keras": passes / rates["keras"] + trainings,
        },
    }
    write_result(options, CLAIM, content, "grid")
    logger.info("%s", content["seconds"])


if __name__ == "__main__":
    run_all(parse_options(__doc__ or "", splits=10, seeds=3, part=48))
