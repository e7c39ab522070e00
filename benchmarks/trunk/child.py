"""A variant's own process: build the trunk, time passes over the cells, keep what came out.

    python -m trunk.child --variant NAME --protocol FILE --data FILE --weights FILE --output FILE

With `--features` nothing is timed: the features of all training and test cells are written.
NumPy and the standard library only; the variant's module imports its framework.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import importlib.util
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from measuring import num_cores, read_parts, write_json
from trunk.protocol import OUTPUTS, VARIANTS, Protocol, Skipped, Variant

Run = Callable[[np.ndarray], list[np.ndarray]]


@dataclasses.dataclass(frozen=True, eq=False)
class Assignment:
    """Everything that a variant's `build` is given.

    Attributes:
        calibration: `(n, size, size, 3)` float32 training cells, for engines that quantise.
        weights: File of VGG16's arrays, for those that do not load them by Safelight.
    """

    variant: Variant
    protocol: Protocol
    calibration: np.ndarray
    weights: Path
    num_threads: int


def package_version(name: str) -> str | None:
    """Version of what is imported by this name; `None` where it is not installed."""
    if importlib.util.find_spec(name) is None:
        return None
    # The distribution may be called otherwise (tensorflow-cpu) than what is imported.
    owners = importlib.metadata.packages_distributions().get(name, [name])
    return importlib.metadata.version(owners[0])


def package_versions(variant: Variant) -> dict[str, str]:
    """Versions of what does the work.

    Raises:
        Skipped: A package is not there.
    """
    found = {name: package_version(name) for name in variant.packages}
    lacking = [name for name, version in found.items() if version is None]
    if lacking:
        raise Skipped(f"{' and '.join(lacking)} not installed")
    own = {"python": platform.python_version(), "numpy": np.__version__}
    return own | {name: version for name, version in found.items() if version}


def in_batches(run: Run, images: np.ndarray, size: int) -> list[np.ndarray]:
    """All outputs for all images, `size` images a call."""
    parts = [run(images[start : start + size]) for start in range(0, len(images), size)]
    return [np.concatenate(column).astype(np.float32) for column in zip(*parts, strict=True)]


def time_passes(run: Run, images: np.ndarray, protocol: Protocol, batch: int) -> dict[str, object]:
    """Seconds of each pass after one that warms up, which gives the features."""
    start = time.perf_counter()
    features = in_batches(run, images, batch)
    first, seconds = time.perf_counter() - start, []
    begin = time.perf_counter()
    while len(seconds) < protocol.repeats:
        start = time.perf_counter()
        in_batches(run, images, batch)
        seconds.append(time.perf_counter() - start)
        if time.perf_counter() - begin > protocol.max_seconds:
            break
    return {"features": features, "seconds": seconds, "first_seconds": first}


def save_features(path: Path, features: list[np.ndarray]) -> None:
    """Write an .npz with one array a layer, `(num_images, channels)`, under a temporary name."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        np.savez(file, **dict(zip(OUTPUTS, features, strict=True)))
    os.replace(temporary, path)


def work(call: argparse.Namespace, variant: Variant) -> dict[str, object]:
    """Do what the call asks for; returns what the driver reads."""
    versions, protocol = package_versions(variant), Protocol.read(call.protocol)
    parts = read_parts(call.data)
    train, test = (parts[name].images.astype(np.float32) for name in ("train", "test"))
    module = importlib.import_module(f"trunk.{variant.module}")
    given = Assignment(variant, protocol, train[:64], call.weights, num_cores())
    run, settings = module.build(given)
    settings |= {"threads": given.num_threads, "environment": variant.environment}
    if call.features:
        timed = {"features": in_batches(run, np.concatenate([train, test]), variant.batch)}
    else:
        timed = time_passes(run, test[: protocol.num_images], protocol, variant.batch)
    save_features(call.output.with_suffix(".npz"), timed.pop("features"))
    return {**timed, "versions": versions, "settings": settings}


def main() -> None:
    """Be a variant's process."""
    parser = argparse.ArgumentParser(description="One variant; started by the driver.")
    parser.add_argument("--variant", required=True)
    parser.add_argument("--features", action="store_true")
    for name in ("protocol", "data", "weights", "output"):
        parser.add_argument(f"--{name}", required=True, type=Path)
    call = parser.parse_args()
    variant = VARIANTS[call.variant]
    os.environ.update(variant.environment)
    try:
        content = work(call, variant)
    except Skipped as reason:
        content = {"skipped": str(reason)}
    write_json(call.output, content)


if __name__ == "__main__":
    main()
