"""Whether a classifier answers alike in every format that it can be exported to, on real pictures.

    python benchmarks/export_parity.py [--run runs/demo-transfer] [--pictures 500] [--seconds 5]
        [--only onnx,torch]

Pictures of ELPV that the run has not learned from. Each format is written, and compared with the
original on the backend that writes it, in a process of its own. OpenVINO and PyTorch are those of
.venv-backends. Then `python benchmarks/report.py` makes the table.
"""

from __future__ import annotations

import functools
import json
import logging
import shutil
from pathlib import Path
from typing import Any

from backends_speed import call, python_of
from repeats import keep, parse_options, write_result

CLAIM = "export_parity"
# Who writes it: Keras' backend, and the environment that has the packages.
FORMATS = {
    "onnx": ("tensorflow", "tensorflow"),
    "onnx-int8": ("tensorflow", "tensorflow"),
    "saved_model": ("tensorflow", "tensorflow"),
    "litert": ("tensorflow", "tensorflow"),
    "openvino": ("tensorflow", "jax"),
    "torch": ("torch", "torch"),
}
logger = logging.getLogger("benchmark")


def measure(options: Any, name: str) -> dict[str, Any]:
    """One format."""
    backend, environment = FORMATS[name]
    folder = (options.work / f"{CLAIM}-{name}").resolve()
    output = (options.work / f"{CLAIM}.found.json").resolve()
    shutil.rmtree(folder, ignore_errors=True)
    arguments = {
        "run": Path(options.run).resolve(),
        "format": name,
        "pictures": options.pictures,
        "seconds": options.seconds,
        "folder": folder,
        "output": output,
    }
    try:
        call(python_of(environment), "backends.exports", backend, arguments)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return json.loads(output.read_text(encoding="utf-8"))


def describe_run(path: Path) -> dict[str, Any]:
    """What the classifier is."""
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    settings = config["settings"]
    return {name: settings[name] for name in ("backbone", "image_size", "test_views", "head")}


def run_all(options: Any) -> None:
    """Measure what is missing and write one result."""
    about = describe_run(Path(options.run))
    rows = {}
    for name in options.only.split(","):
        piece = f"{CLAIM}-{name}-{about['image_size']}-{options.pictures}"
        rows[name] = keep(options, piece, functools.partial(measure, options, name))
        parity = rows[name]["parity"]
        words = f"{parity['agreement']:.1%} alike, {parity['largest_difference']:.1e} apart"
        logger.info("%s: %s", name, words)
    content = {"run": about, "pictures": options.pictures, "rows": rows}
    write_result(options, CLAIM, content, f"{about['image_size']}px")


if __name__ == "__main__":
    run_all(
        parse_options(
            __doc__ or "",
            only=list(FORMATS),
            texts={"run": "runs/demo-transfer"},
            pictures=500,
            seconds=5,
        )
    )
