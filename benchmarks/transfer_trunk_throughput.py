"""How many images a second VGG16's frozen trunk takes, by engine.

    python benchmarks/transfer_trunk_throughput.py [--only ncnn-float32,...] [--accuracy]

From resized pixels to the averages and maxima of blocks 3 to 5, as the default head sees them. Each
variant runs in processes of its own, all taking turns over several rounds; what is done is kept in
the working folder, so that a call that was broken off goes on, and one with --only adds to what is
there. Then `python benchmarks/report.py` makes the table.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import logging
import os
from pathlib import Path

from measuring import machine, machine_name, write_json
from protocol import Protocol as TransferProtocol
from protocol import result_name
from transfer_cached_vs_end_to_end import HERE, ROOT, Workplace, prepare_data
from trunk.bench import Bench, measure_accuracy, measure_products, measure_rounds
from trunk.child import package_version
from trunk.protocol import CLAIM, REFERENCE, VARIANTS, Protocol, chosen_variants
from trunk.summary import add_times_yardstick, is_measured, largest_differences, summarise

logger = logging.getLogger("benchmark")
PACKAGES = ("safelight", "keras", "tensorflow", "ncnn", "openvino")
SIZES = ("image_size", "num_images", "repeats", "rounds", "num_train", "num_test")


def make_bench(options: argparse.Namespace) -> Bench:
    """Prepare cells and weights, and the folder of protocol, machine and packages."""
    place = Workplace(
        options.work.resolve(), options.results.resolve(), options.torch_python, options.force
    )
    for folder in (place.work, place.results):
        folder.mkdir(parents=True, exist_ok=True)
    given = {name: getattr(options, name) for name in (*SIZES, "max_seconds")}
    if options.num_images > options.num_test:
        raise ValueError("--num-images is more than --num-test, whose first cells are timed.")
    cells = TransferProtocol(
        image_size=options.image_size,
        num_train=options.num_train,
        num_validation=1,
        num_test=options.num_test,
    )
    cells, data, weights = prepare_data(cells, place)
    protocol = Protocol(**given, data_digest=cells.data_digest)
    versions = {name: package_version(name) for name in PACKAGES}
    facts = [dataclasses.asdict(protocol), machine_name(machine()), versions]
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
    folder = place.work / f"{CLAIM}-{key}"
    folder.mkdir(exist_ok=True)
    if options.force:
        for name in [each.name for each in chosen_variants(options.only)]:
            for label in (*(f"round{k}" for k in range(protocol.rounds)), "features", "accuracy"):
                (folder / f"{name}-{label}.json").unlink(missing_ok=True)
    protocol.save(folder / "protocol.json")
    return Bench(protocol, place, folder, data, weights)


def make_rows(bench: Bench, skipped: dict[str, str]) -> list[dict]:
    """A row for each variant that was tried, in this call or before."""
    rows = []
    reference = bench.features(REFERENCE, "round0")
    for variant in VARIANTS.values():
        kept = bench.kept(variant.name)
        if not kept and variant.name not in skipped:
            continue
        row = summarise(variant, kept, bench.protocol, skipped=skipped.get(variant.name))
        if is_measured(row) and reference.exists():
            features = bench.features(variant.name, "round0")
            row["difference"] = largest_differences(features, reference)
        rows.append(row)
    add_times_yardstick(rows)
    return rows


def run_all(options: argparse.Namespace) -> Path:
    """Measure what is missing and write one result; returns its path."""
    variants, load = chosen_variants(options.only), os.getloadavg()[0]
    bench = make_bench(options)
    products = measure_products(bench, skip=options.skip_products)
    rows = make_rows(bench, measure_rounds(bench, variants))
    for row in rows:
        if judged := measure_accuracy(bench, row, skip=not options.accuracy):
            row["accuracy"] = judged
    description = machine()
    backend = f"keras-{package_version('keras')}-tensorflow"
    content = {
        "claim": CLAIM,
        "machine": description,
        "backend": backend,
        "protocol": dataclasses.asdict(bench.protocol),
        "load_before": load,
        "frameworks": products,
        "variants": rows,
        "versions": {name: v for row in rows for name, v in row.pop("versions", {}).items()},
    }
    detail = f"{bench.protocol.image_size}px"
    path = bench.place.results / result_name(CLAIM, machine_name(description), backend, detail)
    write_json(path, content)
    return path


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; sizes default to the protocol's."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    defaults = Protocol()
    for name in SIZES:
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=int, default=getattr(defaults, name))
    parser.add_argument("--max-seconds", type=float, default=defaults.max_seconds)
    parser.add_argument("--only", default="", help="names of variants, separated by commas")
    parser.add_argument("--accuracy", action="store_true", help="of those whose features differ")
    parser.add_argument("--skip-products", action="store_true", help="no matrix-product rate")
    parser.add_argument("--force", action="store_true", help="measure again what was measured")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "benchmarks")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument(
        "--torch-python", type=Path, default=ROOT / ".venv-torch" / "bin" / "python"
    )
    return parser.parse_args(arguments)


def main() -> None:
    """Run the benchmark from the command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        path = run_all(parse_arguments())
    except (ValueError, FileNotFoundError, RuntimeError) as problem:
        raise SystemExit(str(problem)) from problem
    logger.info("%s", path.name)


if __name__ == "__main__":
    main()
