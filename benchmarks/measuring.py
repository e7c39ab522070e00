"""The contract between the driver and a variant's process: data in, seconds and answers out.

NumPy and the standard library only, for the same reason as protocol.py.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from protocol import PARTS, VARIANTS, Protocol, Variant


@dataclass(frozen=True, eq=False)
class Part:
    """Images (n, height, width, 3) uint8 and labels (n,) int64 of one part of the split."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, eq=False)
class Assignment:
    """Everything a variant is given."""

    variant: Variant
    protocol: Protocol
    data: Path
    weights: Path
    work: Path
    num_threads: int


@dataclass(eq=False)
class Stopwatch:
    """Seconds per named stage; a stage entered twice adds up."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the body under `name`, also when it raises."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


@dataclass(frozen=True, eq=False)
class Measured:
    """What a variant hands back.

    Attributes:
        probabilities: (num_test, num_classes) float, rows summing to 1.
        seconds: Per stage: decode, head, block5, evaluation (validation: the share of head and
            block5 that went into the validation images).
        versions: Packages that did the work.
        settings: What a reader must know to judge whether the peer was treated well.
        history: Per stage and metric, one number per epoch.
    """

    probabilities: np.ndarray
    seconds: dict[str, float]
    versions: dict[str, str]
    settings: dict[str, object] = field(default_factory=dict)
    history: dict[str, dict[str, list[float]]] = field(default_factory=dict)


def read_parts(path: Path) -> dict[str, Part]:
    """Read the .npz that prepare.py wrote."""
    with np.load(path) as arrays:
        return {name: Part(arrays[f"{name}_images"], arrays[f"{name}_labels"]) for name in PARTS}


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """Read VGG16's arrays in Keras layout: {"block1_conv1/kernel": (3, 3, in, out), ...}."""
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}


def num_cores() -> int:
    """Cores this process may use, which is also the thread count of every variant."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def best_instructions(flags: set[str]) -> str:
    """The widest products an x86 processor has, as a word of its name; nothing for others."""
    kinds = {
        "amx": {"amx_tile", "amx_bf16"},
        "avx512-bf16": {"avx512_bf16"},
        "avx512": {"avx512f"},
        "avx2": {"avx2"},
    }
    return next((name for name, known in kinds.items() if known & flags), "")


def machine() -> dict[str, object]:
    """Describe the processor without naming the host."""
    fields: dict[str, str] = {}
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = (line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
        fields = {key.strip(): value.strip() for key, value in lines}
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    return {
        "cpu": fields.get("model name", platform.machine()),
        "cpu_family": fields.get("cpu family", ""),
        "cpu_model": fields.get("model", ""),
        "cores": num_cores(),
        "bfloat16": sorted(flags & {"amx_bf16", "amx_tile", "avx512_bf16", "bf16"}),
        "instructions": best_instructions(flags),
        "system": platform.system(),
        "architecture": platform.machine(),
    }


def machine_name(description: dict[str, object]) -> str:
    """Name a machine for file names and tables: processor, family, instructions, cores.

    Results from before instructions were noted keep their names without.
    """
    family = description["cpu_family"]
    suffix = f" family {family}" if family else ""
    instructions = description.get("instructions")
    suffix += f" {instructions}" if instructions else ""
    return f"{description['cpu']}{suffix} {description['cores']} cores"


def write_json(path: Path, content: dict[str, object]) -> None:
    """Write JSON under a temporary name and move it into place, so that it is whole or absent."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def run_variant(measure: Callable[[Assignment], Measured]) -> None:
    """Be the main function of a variant's process: parse the driver's call, measure, write."""
    parser = argparse.ArgumentParser(description="One variant; started by the driver.")
    for name in ("variant", "protocol", "data", "weights", "work", "output"):
        parser.add_argument(f"--{name}", required=True)
    call = parser.parse_args()
    assignment = Assignment(
        VARIANTS[call.variant],
        Protocol.read(Path(call.protocol)),
        Path(call.data),
        Path(call.weights),
        Path(call.work),
        num_cores(),
    )
    start = time.perf_counter()
    measured = measure(assignment)
    seconds = {**measured.seconds, "total": time.perf_counter() - start}
    content = {
        "probabilities": np.asarray(measured.probabilities, dtype=np.float64).tolist(),
        "seconds": seconds,
        "versions": {"python": platform.python_version(), **measured.versions},
        "settings": measured.settings,
        "history": measured.history,
    }
    write_json(Path(call.output), content)
