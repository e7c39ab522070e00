"""The contract of the two parties of vae_likelihood_estimator.py: same weights, pixels, samples.

NumPy and the standard library only.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from measuring import num_cores, write_json
from vae.network import Weights


@dataclass(frozen=True, eq=False)
class Question:
    """What both parties are asked: log p(x) of the same images under the same weights.

    Attributes:
        pixels: `(n, 784)` uint8 of 0 and 1.
        samples: Numbers of importance samples.
        repeats: Timed calls of each kind, after a first one that is timed apart.
    """

    weights: Weights
    pixels: np.ndarray
    samples: tuple[int, ...]
    repeats: int
    num_threads: int


@dataclass(frozen=True, eq=False)
class Answer:
    """One way of estimating, with one number of samples.

    Attributes:
        name: Which way.
        num_samples: For each image.
        values: log p(x) of each image in the first call, nats.
        first_seconds: Of the first call, compilation included.
        seconds: Of each further call, all images.
        settings: What a reader must know to judge whether the party was treated well.
    """

    name: str
    num_samples: int
    values: list[float]
    first_seconds: float
    seconds: list[float]
    settings: dict[str, object] = field(default_factory=dict)


def timed(
    name: str,
    num_samples: int,
    repeats: int,
    estimate: Callable[[int], np.ndarray],
    settings: dict[str, object],
) -> Answer:
    """Call `estimate(seed)`, which gives a value for each image, once and then `repeats` times."""
    seconds, first = [], np.zeros(0)
    for call in range(1 + repeats):
        start = time.perf_counter()
        values = estimate(call)
        seconds.append(time.perf_counter() - start)
        first = values if call == 0 else first
    return Answer(name, num_samples, first.tolist(), seconds[0], seconds[1:], settings)


def answer_all(answer: Callable[[Question], tuple[list[Answer], dict[str, str]]]) -> None:
    """Be the main function of a party's process: parse the driver's call, answer, write."""
    parser = argparse.ArgumentParser(description="One party; started by the driver.")
    for name in ("weights", "data", "output"):
        parser.add_argument(f"--{name}", required=True, type=Path)
    parser.add_argument("--samples", required=True)
    for name in ("num-images", "repeats"):
        parser.add_argument(f"--{name}", required=True, type=int)
    call = parser.parse_args()
    with np.load(call.weights) as arrays:
        weights = {name: arrays[name] for name in arrays.files}
    with np.load(call.data) as arrays:
        pixels = arrays["test"][: call.num_images]
    samples = tuple(int(number) for number in call.samples.split(","))
    answers, versions = answer(Question(weights, pixels, samples, call.repeats, num_cores()))
    versions = {"python": platform.python_version(), **versions}
    write_json(call.output, {"answers": [asdict(each) for each in answers], "versions": versions})
