"""One format in a process of its own: written, compared on real pictures, and timed.

python -m backends.exports --run RUN --format onnx --folder FOLDER --output found.json
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
import functools
import json
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

from backends.clock import rate
from safelight import datasets
from safelight.export import export_classifier
from safelight.export.formats import find_format
from safelight.export.runtimes import open_exported

BATCHES = (1, 16)


def measure(call: argparse.Namespace) -> dict[str, Any]:
    """What an exported classifier answers, weighs and takes."""
    cells = datasets.load("elpv")
    start = time.perf_counter()
    found = export_classifier(
        call.run, call.folder, dataset=cells, to=call.format, num_pictures=call.pictures
    )
    seconds = time.perf_counter() - start
    if found is None:
        raise RuntimeError("nothing was compared: expected --pictures of at least 1")
    model = call.folder / find_format(call.format).file
    files = [*model.rglob("*"), model, model.with_suffix(".bin")]
    run = open_exported(call.folder, call.format)
    rates = {}
    for number in BATCHES:
        pictures = np.stack([cells.read(i) for i in range(number)])
        rates[str(number)] = rate(functools.partial(run, pictures), number, call.seconds)
    return {
        "backend": keras.backend.backend(),
        "format": call.format,
        "parity": found.to_dict(),
        "bytes": sum(path.stat().st_size for path in set(files) if path.is_file()),
        "seconds": seconds,
        "pictures_per_second": rates,
    }


def main() -> None:
    """Measure one format and write what was found."""
    parser = argparse.ArgumentParser(description="One format; started by the driver.")
    for name in ("run", "folder", "output"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--format", required=True)
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=5.0)
    call = parser.parse_args()
    call.output.write_text(json.dumps(measure(call)), encoding="utf-8")


if __name__ == "__main__":
    main()
