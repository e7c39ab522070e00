"""Does the learning curve's 80 % range hold what more pictures then show?

    python benchmarks/transfer_learning_curve.py [--repeats 10]

Of each random 75/25 split of ELPV half of the pictures to learn from are put aside. From the other
half alone `deal_sizes` and `measure_learning_curve` state a range for the accuracy that all of them
will have on the test part; then all are learned from, and the test part is looked at. Repeats that
are done are kept in the working folder, so that a call that was broken off goes on.
"""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
import functools
import logging
import time

from repeats import keep, parse_options, write_result

CLAIM = "transfer_learning_curve"
FIRST_SEED = 100  # splits that nothing was ever chosen on
logger = logging.getLogger("benchmark")


def measure(seed: int) -> dict[str, object]:
    """One repeat: the range from half of the pictures, and what all of them then give."""
    from safelight import datasets
    from safelight.transfer.config import TrainConfig
    from safelight.transfer.repetition import train_on_splits
    from safelight.transfer.training_sizes import deal_sizes, measure_learning_curve

    started, config = time.perf_counter(), TrainConfig(seed=seed)
    splits = datasets.split(datasets.load("elpv"), seed=seed, validation_fraction=0.1)
    learned = splits.train.subset(range(len(splits.train)))
    halves = datasets.split(learned, test_fraction=0.5, validation_fraction=0, seed=seed)
    dealt = deal_sizes(halves.train, seed=seed)
    measured = measure_learning_curve(dealt, config)
    full = datasets.Splits(
        train=learned,
        validation=learned.subset([]),
        test=splits.test,
        indices={**splits.indices, "validation": splits.indices["validation"][:0]},
        seed=seed,
        strategy=splits.strategy,
    )
    expected = measured.accuracy(len(learned), num_test=len(splits.test))
    (scores,) = train_on_splits([full], config)
    return {
        "seed": seed,
        "sizes": list(dealt.sizes),
        "accuracies": measured.accuracies.tolist(),
        "num_had": dealt.num_all,
        "num_more": len(learned) - dealt.num_all,
        "num_test": len(splits.test),
        "gain": measured.gain(len(learned) - dealt.num_all).to_dict(),
        "expected": expected.to_dict(),
        "seen": scores["accuracy"],
        "covered": expected.low <= scores["accuracy"] <= expected.high,
        "seconds": time.perf_counter() - started,
    }


def run_all(options: argparse.Namespace) -> None:
    """Measure what is missing and write one result."""
    repeats = []
    for seed in range(FIRST_SEED, FIRST_SEED + options.repeats):
        found = keep(options, f"{CLAIM}-{seed}", functools.partial(measure, seed))
        repeats.append(found)
        logger.info("seed %d: expected %s, seen %.4f", seed, found["expected"], found["seen"])
    num_covered = sum(bool(each["covered"]) for each in repeats)
    content = {"repeats": repeats, "num_covered": num_covered, "coverage": 0.8}
    write_result(options, CLAIM, content)
    logger.info("%d of %d ranges hold what was seen", num_covered, len(repeats))


if __name__ == "__main__":
    run_all(parse_options(__doc__ or "", repeats=10))
