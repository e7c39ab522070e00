"""What benchmarks of many trainings share: pieces that are kept, and one result made of them."""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import json
import logging
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from measuring import machine, machine_name, write_json
from protocol import result_name
from transfer_cached_vs_end_to_end import HERE, ROOT

PACKAGES = ("keras", "numpy", "scikit-learn", "tensorflow-cpu", "ncnn")


def parse_options(
    doc: str, *, only: Sequence[str] = (), texts: Mapping[str, str] | None = None, **numbers: int
) -> argparse.Namespace:
    """Read the flags that all of them have, and some whole numbers with their defaults.

    Args:
        doc: What the benchmark says of itself.
        only: Parts that can be asked for by `--only`, comma between; all by default.
        texts: Flags that take a text, with their defaults.
        numbers: Whole numbers with their defaults.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    for name, default in numbers.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    for name, text in (texts or {}).items():
        parser.add_argument(f"--{name}", default=text)
    if only:
        parser.add_argument("--only", default=",".join(only), help="parts, comma between")
    parser.add_argument("--force", action="store_true", help="measure again what has a result")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "benchmarks")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    options = parser.parse_args()
    for folder in (options.work, options.results):
        folder.mkdir(parents=True, exist_ok=True)
    return options


def keep(
    options: argparse.Namespace, name: str, measure: Callable[[], dict[str, object]]
) -> dict[str, object]:
    """Measure a piece, or read what an earlier call that was broken off has measured."""
    path = options.work / f"{name}.json"
    if options.force or not path.exists():
        write_json(path, measure())
    return json.loads(path.read_text(encoding="utf-8"))


@functools.cache
def load_digits(part: str, data: str = "mnist") -> tuple[np.ndarray, np.ndarray]:
    """MNIST's images, uint8 `(n, 28, 28, 1)`, and labels, or those of what is like it.

    Args:
        part: `"train"` or `"test"`.
        data: The name of the data set.
    """
    from safelight import datasets, vae

    digits = datasets.load(data, part=part)
    return vae.load_images(digits).images, digits.labels


def versions() -> dict[str, str]:
    """Versions of what computes."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name.removesuffix("-cpu")] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def write_result(
    options: argparse.Namespace, claim: str, content: dict[str, object], detail: str = "seeds"
) -> None:
    """Write one result, with what computed it."""
    description, known = machine(), versions()
    backend = f"keras-{known['keras']}-tensorflow"
    result = {
        "claim": claim,
        "machine": description,
        "backend": backend,
        "versions": known,
        **content,
    }
    name = result_name(claim, machine_name(description), backend, detail)
    write_json(options.results / name, result)
