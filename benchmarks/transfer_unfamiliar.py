"""Does a classifier know when it does not know?

    python benchmarks/transfer_unfamiliar.py [--splits 10]

Familiarity is learned from the pictures of a training, as every run of `transfer train` does, and
then has to tell its own test part from pictures of something else:

* solar cells (ELPV) against handwritten digits (MNIST);
* of solar cells, monocrystalline against polycrystalline ones that were left out, and the reverse;
* of 1,000 digits in a folder, nine classes against the tenth, each class in turn.

AUROC is the probability that a foreign picture lies farther than a familiar one; beside it stands
how many familiar pictures are refused at a stated rate of false alarms of 5 %.
"""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
import dataclasses
import functools
import logging
from typing import Any

import numpy as np

from repeats import keep, parse_options, write_result

CLAIM = "transfer_unfamiliar"
FIRST_SEED = 200
NUM_DIGITS = 1000
RATE = 0.05
logger = logging.getLogger("benchmark")


@functools.cache
def data() -> dict[str, Any]:
    """Features of all pictures, as the default head sees them, and what they show."""
    from safelight import datasets
    from safelight.transfer.backbones import find_backbone, load_backbone
    from safelight.transfer.features import FeatureExtractor, FeatureLayer

    stages = find_backbone("vgg16").head_layers
    layers = [FeatureLayer(name, pooling) for pooling in ("avg", "max") for name in stages]
    extractor = FeatureExtractor(load_backbone("vgg16"))

    def see(dataset: Any) -> list[np.ndarray]:
        found = extractor.extract(dataset, layers)
        return [found[layer].gather() for layer in layers]

    cells = datasets.load("elpv")
    digits = datasets.load("mnist", part="test").subset(np.arange(NUM_DIGITS))
    digits = dataclasses.replace(digits, parts=None)  # a folder like any other, to be split anew
    features = {"cells": see(cells), "digits": see(digits)}
    return {
        "cells": cells,
        "digits": digits,
        "widths": [each.shape[1] for each in features["cells"]],
        "features": {name: np.concatenate(parts, axis=1) for name, parts in features.items()},
    }


def tell(learned: np.ndarray, familiar: np.ndarray, foreign: np.ndarray) -> dict[str, float]:
    """AUROC, and what is refused, of features `(n, num_features)` each."""
    from safelight.transfer.familiarity import fit_familiarity
    from safelight.transfer.unfamiliar import separation

    known = fit_familiarity(learned, widths=data()["widths"])
    return {
        "auroc": separation(known.distances(familiar), known.distances(foreign)),
        "familiar_refused": float((known.p_values(familiar) <= RATE).mean()),
        "foreign_refused": float((known.p_values(foreign) <= RATE).mean()),
    }


def measure(seed: int) -> dict[str, Any]:
    """One split of each data set."""
    from safelight import datasets

    found = data()
    cells, digits = found["features"]["cells"], found["features"]["digits"]
    split = datasets.split(found["cells"], seed=seed, validation_fraction=0)
    learned, test = split.indices["train"], split.indices["test"]
    answers = {"digits": tell(cells[learned], cells[test], digits)}
    kinds = np.array(found["cells"].types)
    for kind, other in (("mono", "poly"), ("poly", "mono")):
        own = cells[learned[kinds[learned] == kind]]
        answers[f"{other} cells, {kind} known"] = tell(
            own, cells[test[kinds[test] == kind]], cells[test[kinds[test] == other]]
        )
    split = datasets.split(found["digits"], seed=seed, validation_fraction=0)
    learned, test = split.indices["train"], split.indices["test"]
    labels = found["digits"].labels
    each = [
        tell(
            digits[learned[labels[learned] != label]],
            digits[test[labels[test] != label]],
            digits[test[labels[test] == label]],
        )
        for label in range(10)
    ]
    answers["a digit left out"] = {
        name: float(np.mean([one[name] for one in each])) for name in each[0]
    }
    return answers


def run_all(options: argparse.Namespace) -> None:
    """Measure what is missing and write one result."""
    from safelight.comparison import mean_over_splits

    seeds = range(FIRST_SEED, FIRST_SEED + options.splits)
    pieces = [keep(options, f"{CLAIM}-{s}", functools.partial(measure, s)) for s in seeds]
    means = {
        question: {
            name: mean_over_splits([one[question][name] for one in pieces], test_to_train=1 / 3)
            .to_dict()
            for name in of
        }
        for question, of in pieces[0].items()
    }  # fmt: skip
    write_result(options, CLAIM, {"means": means, "rate": RATE, "num_splits": len(pieces)})
    for question, of in means.items():
        logger.info("%s: %s", question, {name: round(of[name]["value"], 4) for name in of})


if __name__ == "__main__":
    run_all(parse_options(__doc__ or "", splits=10))
