"""The machine's own matrix-product rate, and how near the library's extraction comes to it.

    python benchmarks/matrix_product_rate.py [--num-images 256] [--skip-extraction]

TensorFlow's and PyTorch's float32 and bfloat16 products, each in a process of its own, then
Safelight's extraction from PNG files, all in one run. The best bfloat16 rate is the yardstick, and
the best float32 rate another: processors without bfloat16 instructions emulate them, and sizes that
would take minutes there are left out.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import json
import logging
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from measuring import machine, machine_name, num_cores, write_json
from protocol import num_multiply_adds, result_name
from transfer_cached_vs_end_to_end import HERE, ROOT, run_process

CLAIM = "matrix_product_rate"
SIZES = (1024, 2048, 4096)
DTYPES = ("float32", "bfloat16")
NUM_REPEATS = 7
MAX_SECONDS = 10.0  # of one product
logger = logging.getLogger("benchmark")


def median_seconds(product: Callable[[], object], num_repeats: int = NUM_REPEATS) -> float:
    """Median time of one call, after one that warms up; of one only where that was slow."""
    first = _seconds(product)
    repeats = num_repeats if first < MAX_SECONDS / 2 else 1
    return statistics.median(_seconds(product) for _ in range(repeats))


def _seconds(product: Callable[[], object]) -> float:
    start = time.perf_counter()
    product()
    return time.perf_counter() - start


def rates_by_size(make: Callable[[int], Callable[[], object]]) -> dict[str, float]:
    """GFLOP/s of square products, smallest first, until one would take too long."""
    rates: dict[str, float] = {}
    for size in SIZES:
        operations = 2e-9 * size**3
        if rates and operations / min(rates.values()) > MAX_SECONDS:
            break
        rates[str(size)] = operations / median_seconds(make(size))
    return rates


def tensorflow_product(size: int, dtype: str) -> Callable[[], object]:
    """A compiled graph that multiplies two square matrices of normal numbers."""
    import tensorflow as tf

    left, right = (tf.cast(tf.random.normal((size, size), seed=s), dtype) for s in (0, 1))
    function = tf.function(lambda: tf.matmul(left, right))

    def product() -> None:
        # The last element has to be read: a returned tensor need not be computed yet.
        function()[-1, -1].numpy()

    return product


def torch_product(size: int, dtype: str) -> Callable[[], object]:
    """PyTorch's eager product of the same kind."""
    import torch

    torch.set_num_threads(num_cores())
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(size, size, generator=generator) for _ in range(2))
    left, right = (matrix.to(getattr(torch, dtype)) for matrix in (left, right))
    return lambda: torch.mm(left, right)


def measure_products(framework: str) -> dict[str, object]:
    """GFLOP/s per dtype and size in this process."""
    make = {"tensorflow": tensorflow_product, "torch": torch_product}[framework]
    gflops = {dtype: rates_by_size(functools.partial(make, dtype=dtype)) for dtype in DTYPES}
    version = importlib.metadata.version("tensorflow-cpu" if framework == "tensorflow" else "torch")
    best = {dtype: max(rates.values()) for dtype, rates in gflops.items()}
    return {"gflops": gflops, "best": best, "version": version}


def measure_extraction(num_images: int) -> dict[str, object]:
    """Images and GFLOP per second of Safelight's extraction, decoding from PNG included."""
    from ours import extract_from_files

    extraction = extract_from_files(num_images=num_images, image_size=224)
    operations = 2 * num_multiply_adds(224, until_block=int(extraction["until_block"]))
    rate = extraction["num_images"] / extraction["seconds"]
    return {**extraction, "images_per_second": rate, "gflops": rate * operations * 1e-9}


def run_child(python: Path, work: Path, arguments: list[str]) -> dict[str, object]:
    """Run one part of this script in a process of its own and read its answer."""
    output = work / f"rate-{arguments[-1]}.json"
    script = str(HERE / "matrix_product_rate.py")
    call = [str(python), script, "--output", str(output), *arguments]
    run_process(call, output.with_suffix(".log"))
    return json.loads(output.read_text())


def add_fraction(result: dict) -> None:
    """Put the extraction's share of the best rates into the result."""
    for dtype, name in (("bfloat16", "fraction"), ("float32", "fraction_of_float32")):
        best = max(framework["best"][dtype] for framework in result["frameworks"].values())
        result[f"best_{dtype}_gflops"] = best
        if "extraction" in result:
            result["extraction"][name] = result["extraction"]["gflops"] / best


def run_all(options: argparse.Namespace) -> None:
    """Measure in turn and write one result."""
    description = machine()
    pythons = {"tensorflow": Path(sys.executable), "torch": options.torch_python}
    result: dict = {"claim": CLAIM, "machine": description, "load_before": os.getloadavg()[0]}
    result["frameworks"] = {
        name: run_child(python, options.work, ["--framework", name])
        for name, python in pythons.items()
    }
    if not options.skip_extraction:
        arguments = ["--extract", str(options.num_images)]
        result["extraction"] = run_child(Path(sys.executable), options.work, arguments)
    add_fraction(result)
    result["python"] = platform.python_version()
    backend = f"keras-{importlib.metadata.version('keras')}-tensorflow"
    name = result_name(CLAIM, machine_name(description), backend, "seed0")
    write_json(options.results / name, result)
    for dtype in DTYPES:
        logger.info("best %s rate: %.1f GFLOP/s", dtype, result[f"best_{dtype}_gflops"])
    if "extraction" in result:
        told = ("images_per_second", "gflops", "fraction", "fraction_of_float32")
        logger.info("extraction: %s", {name: round(result["extraction"][name], 3) for name in told})


def main() -> None:
    """Be the parent, or with --framework or --extract one of its children."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--num-images", type=int, default=256)
    parser.add_argument("--skip-extraction", action="store_true")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "benchmarks")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument(
        "--torch-python", type=Path, default=ROOT / ".venv-torch" / "bin" / "python"
    )
    for name in ("--output", "--framework", "--extract"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.framework:
        write_json(Path(options.output), measure_products(options.framework))
    elif options.extract:
        write_json(Path(options.output), measure_extraction(int(options.extract)))
    else:
        options.work, options.results = options.work.resolve(), options.results.resolve()
        for folder in (options.work, options.results):
            folder.mkdir(parents=True, exist_ok=True)
        run_all(options)


if __name__ == "__main__":
    main()
