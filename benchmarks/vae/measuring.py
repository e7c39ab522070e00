"""The contract between the driver and a variant's process: images in, seconds and weights out.

NumPy and the standard library only, for the same reason as protocol.py.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from measuring import num_cores, write_json
from vae.network import Weights, first_weights
from vae.protocol import VARIANTS, Protocol, Variant


@dataclass(frozen=True, eq=False)
class Assignment:
    """Everything a variant is given.

    Attributes:
        images: `(num_train, 28, 28)` uint8 grey values.
        weights: Where training begins.
        work: A folder of its own.
    """

    variant: Variant
    protocol: Protocol
    images: np.ndarray
    weights: Weights
    work: Path
    num_threads: int


@dataclass(frozen=True, eq=False)
class Measured:
    """What a variant hands back beside its clock.

    Attributes:
        versions: Packages that did the work.
        settings: What a reader must know to judge whether the peer was treated well.
    """

    versions: dict[str, str]
    settings: dict[str, object] = field(default_factory=dict)


class Clock:
    """Wall time until the end of each epoch, without what the benchmark itself does in between.

    Args:
        max_seconds: When to say that the time is up.

    Attributes:
        seconds: One number per epoch, counted from `start`.
        weights: Those at the end of each epoch.
    """

    def __init__(self, max_seconds: float) -> None:
        self.max_seconds = max_seconds
        self.seconds: list[float] = []
        self.weights: list[Weights] = []
        self._started = 0.0

    def start(self) -> None:
        """Begin: frameworks are imported, pixels are in memory, nothing else is done."""
        self._started = time.perf_counter()

    def end_epoch(self, read_weights: Callable[[], Weights]) -> bool:
        """Note the time, then copy the weights with the clock stopped.

        Args:
            read_weights: Called once; everything the epoch computes must be finished before.

        Returns:
            Whether the time is up.
        """
        stopped = time.perf_counter()
        self.seconds.append(stopped - self._started)
        self.weights.append({name: np.array(value) for name, value in read_weights().items()})
        self._started += time.perf_counter() - stopped
        return self.seconds[-1] > self.max_seconds

    def save_weights(self, path: Path) -> None:
        """Write the weights of all epochs, one array `(epochs, ...)` per name."""
        names = self.weights[0]
        np.savez(path, **{name: np.stack([each[name] for each in self.weights]) for name in names})


def run_variant(measure: Callable[[Assignment, Clock], Measured]) -> None:
    """Be the main function of a variant's process: parse the driver's call, measure, write.

    `measure` starts the clock itself, after it has imported what it needs.
    """
    parser = argparse.ArgumentParser(description="One variant; started by the driver.")
    for name in ("variant", "protocol", "data", "work", "output"):
        parser.add_argument(f"--{name}", required=True)
    call = parser.parse_args()
    protocol, output = Protocol.read(Path(call.protocol)), Path(call.output)
    with np.load(call.data) as arrays:
        images = arrays["train"]
    first = first_weights(protocol.seed)
    variant = VARIANTS[call.variant]
    assignment = Assignment(variant, protocol, images, first, Path(call.work), num_cores())
    clock = Clock(protocol.max_seconds)
    measured = measure(assignment, clock)
    clock.save_weights(output.with_suffix(".npz"))
    versions = {"python": platform.python_version(), **measured.versions}
    content = {"epochs": clock.seconds, "versions": versions, "settings": measured.settings}
    write_json(output, content)
