"""How accurate is a classifier of solar cells, on splits that nothing was chosen on?

    python benchmarks/transfer_elpv_accuracy.py [--splits 10] [--questions 3] [--only default,svm]

Three questions on ELPV: p > 0.5 on random stratified 75/25 splits, the same on splits that keep
blocks of 60 neighbouring cells together, and p > 0. Every method has VGG16's ImageNet weights, the
same splits and all of their pictures to learn from (validation part included); peers are rebuilt
from their descriptions with their best reasonable settings:

* `default`, `dihedral`: `transfer train` as it is, and with all eight flips and quarter turns;
* `logistic`: what embetter-style tools do: averages of the last block, standardised, and
  scikit-learn's logistic regression, its strength chosen by cross-validation;
* `svm`: AutoGluon's recipe for few pictures: the same averages and a support vector machine with
  an RBF kernel, `gamma="auto"`; its C chosen by cross-validation, which that recipe does not do;
* `published`: the head of Deitsch et al. 2019 (arXiv:1807.02894): average, 4096, 2048, one output,
  squared error on p, Adam at 1e-3, the eight symmetries as augmentation. Only its first stage, with
  the convolutions frozen: see benchmarks/README.md for what the second would take.
"""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
import functools
import itertools
import logging
import time

import numpy as np

from accuracy import peers
from repeats import keep, parse_options, write_result

CLAIM = "transfer_elpv_accuracy"
FIRST_SEED = 200  # splits that nothing was ever chosen on
QUESTIONS = {
    "p > 0.5": {"threshold": 0.5, "strategy": "stratified"},
    "p > 0.5, blocks": {"threshold": 0.5, "strategy": "grouped"},
    "p > 0": {"threshold": 0.0, "strategy": "stratified"},
}
TITLES = {
    "default": "Safelight, defaults (two mirrored views)",
    "logistic": "Averages of block 5, logistic regression",
    "svm": "Averages of block 5, support vector machine",
    "published": "Published head on frozen averages (first stage)",
    "dihedral": "Safelight, all eight flips and quarter turns",
}
REFERENCES = ("published", "svm")  # the first that was measured
FIRST_QUESTION_ONLY = ("published",)  # two minutes a split
METRICS = ("accuracy", "roc_auc", "balanced_accuracy", "loss", "ece")
logger = logging.getLogger("benchmark")


def measure(method: str, question: str, seed: int) -> dict[str, object]:
    """Scores of one method on one split."""
    from safelight import datasets
    from safelight.transfer.config import TrainConfig
    from safelight.transfer.repetition import train_on_splits

    asked, started = QUESTIONS[question], time.perf_counter()
    cells = datasets.load("elpv", threshold=asked["threshold"])
    split = datasets.split(cells, seed=seed, validation_fraction=0.1, strategy=asked["strategy"])
    if method in ("default", "dihedral"):
        turns = {"quarter_turns": True, "vertical_flip": True, "views": 8, "test_views": 8}
        config = TrainConfig(**(turns if method == "dihedral" else {}))
        (scores,) = train_on_splits([split], config)
    else:
        scores = peers.judge(method, split, seed=seed)
    return {
        "scores": {name: scores[name] for name in METRICS},
        "num_test": len(split.test),
        "num_learned": len(split.train) + len(split.validation),
        "seconds": time.perf_counter() - started,
    }


def summarize(pieces: dict[str, list[dict]]) -> dict[str, object]:
    """Means over splits per method, and the paired differences to one of them."""
    from safelight.comparison import mean_over_splits, paired_over_splits

    reference = next((each for each in REFERENCES if each in pieces), next(iter(pieces)))
    some = pieces[reference]
    ratio = float(np.mean([each["num_test"] / each["num_learned"] for each in some]))
    found: dict[str, object] = {"test_to_train": ratio, "num_splits": len(some), "methods": {}}
    found["reference"] = reference
    for method, each in pieces.items():
        columns = {name: [one["scores"][name] for one in each] for name in METRICS}
        other = {name: [one["scores"][name] for one in some] for name in METRICS}
        found["methods"][method] = {
            "scores": columns,
            "mean": {
                name: mean_over_splits(values, test_to_train=ratio).to_dict()
                for name, values in columns.items()
            },
            "minus_reference": {
                name: paired_over_splits(values, other[name], test_to_train=ratio).to_dict()
                for name, values in columns.items()
            },
            "seconds": float(np.median([one["seconds"] for one in each])),
        }
    return found


def run_all(options: argparse.Namespace) -> None:
    """Measure what is missing and write one result of what was asked for."""
    seeds = range(FIRST_SEED, FIRST_SEED + options.splits)
    questions, methods = list(QUESTIONS)[: options.questions], options.only.split(",")
    pieces: dict[str, dict[str, list[dict]]] = {question: {} for question in questions}
    for question, method, seed in itertools.product(questions, methods, seeds):
        number = list(QUESTIONS).index(question)
        if number and method in FIRST_QUESTION_ONLY:
            continue
        name = f"{CLAIM}-{number}-{method}-{seed}"
        found = keep(options, name, functools.partial(measure, method, question, seed))
        pieces[question].setdefault(method, []).append(found)
        logger.info("%s, %d, %s: %s", question, seed, method, found["scores"])
    content = {
        "titles": TITLES,
        "seeds": list(seeds),
        "questions": {question: summarize(of) for question, of in pieces.items()},
    }
    write_result(options, CLAIM, content)


if __name__ == "__main__":
    run_all(parse_options(__doc__ or "", only=list(TITLES), splits=10, questions=len(QUESTIONS)))
