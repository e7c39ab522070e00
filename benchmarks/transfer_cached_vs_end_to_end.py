"""Time and accuracy of transfer learning with cached activations against end-to-end training.

    python benchmarks/transfer_cached_vs_end_to_end.py [--only a,d] [--num-train 400] [--repeats 1]

Every variant runs in a process of its own on the same pixels and weights, one after the other, and
leaves one JSON file in benchmarks/results. A variant whose file is there is skipped, so that a
stopped run goes on where it was. Then `python benchmarks/report.py` makes the tables.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import logging
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from measuring import machine, machine_name, write_json
from protocol import CLAIM, DEFAULT_VARIANTS, VARIANTS, Protocol, Variant, result_name, score

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
logger = logging.getLogger("benchmark")


@dataclass(frozen=True)
class Workplace:
    """Folders and interpreters of one call of the driver."""

    work: Path
    results: Path
    torch_python: Path
    force: bool

    def python(self, backend: str) -> Path:
        """Interpreter that has the backend."""
        return self.torch_python if backend == "torch" else Path(sys.executable)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; sizes and epochs default to the protocol's."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    defaults = Protocol()
    sizes = ("image_size", "num_train", "num_validation", "num_test", "head_epochs")
    for name in (*sizes, "block5_epochs", "batch_size"):
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=int, default=getattr(defaults, name))
    parser.add_argument("--repeats", type=int, default=1, help="seeds 0, 1, ...")
    parser.add_argument("--only", default=",".join(DEFAULT_VARIANTS), help="letters, as in a,d")
    parser.add_argument("--force", action="store_true", help="measure again what has a result")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "benchmarks")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument(
        "--torch-python", type=Path, default=ROOT / ".venv-torch" / "bin" / "python"
    )
    return parser.parse_args(arguments)


def chosen_variants(only: str) -> list[Variant]:
    """Turn "a,d" into variants.

    Raises:
        ValueError: If a letter names no variant.
    """
    letters = [letter.strip() for letter in only.split(",") if letter.strip()]
    unknown = [letter for letter in letters if letter not in VARIANTS]
    if unknown or not letters:
        raise ValueError(f"--only {only!r} must be letters among {', '.join(VARIANTS)}.")
    return [VARIANTS[letter] for letter in letters]


def framework(backend: str, place: Workplace) -> str:
    """Name the framework with its version, as it stands in the result's file name.

    Raises:
        FileNotFoundError: If the interpreter with PyTorch is not there.
    """
    if backend == "tensorflow":
        return f"keras-{importlib.metadata.version('keras')}-tensorflow"
    if not place.torch_python.exists():
        raise FileNotFoundError(
            f"{place.torch_python} does not exist; make the environment for the PyTorch peers as "
            "benchmarks/README.md says, pass --torch-python, or leave e, f and g out with --only."
        )
    code = "import importlib.metadata as m; print(m.version('torch'))"
    call = [str(place.torch_python), "-c", code]
    version = subprocess.run(call, check=True, capture_output=True, text=True).stdout
    return f"torch-{version.strip().split('+')[0]}"


@dataclass(frozen=True)
class Usage:
    """What a process took: wall and processor seconds, largest resident memory in GiB."""

    seconds: float
    cpu_seconds: float
    peak_gib: float


def run_process(call: list[str], log: Path) -> Usage:
    """Run a command from this folder, its output into a log.

    Raises:
        RuntimeError: If it fails; the message names its log.
    """
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2"}
    start = time.perf_counter()
    with log.open("wb") as output:
        child = subprocess.Popen(call, cwd=HERE, env=environment, stdout=output, stderr=output)
        try:
            _, status, usage = os.wait4(child.pid, 0)
        except BaseException:
            child.kill()
            raise
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"{' '.join(call[1:3])} exited {child.returncode}; its log is {log}.")
    # Linux counts memory in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    cpu_seconds = usage.ru_utime + usage.ru_stime
    return Usage(time.perf_counter() - start, cpu_seconds, usage.ru_maxrss * unit / 2**30)


def prepare_data(protocol: Protocol, place: Workplace) -> tuple[Protocol, Path, Path]:
    """Make, or find, the arrays of this protocol; returns it with their digest, and the files."""
    sizes = (protocol.num_train, protocol.num_validation, protocol.num_test)
    name = f"{protocol.dataset}-{protocol.image_size}px-" + "-".join(map(str, sizes))
    data = place.work / f"{name}-split{protocol.split_seed}.npz"
    weights = place.work / "vgg16-imagenet-notop.npz"
    if not (data.with_suffix(".json").exists() and weights.exists()):
        logger.info("preparing %s", data.name)
        recipe = place.work / "protocol.json"
        protocol.save(recipe)
        call = [sys.executable, "prepare.py", "--protocol", str(recipe), "--data", str(data)]
        run_process([*call, "--weights", str(weights)], place.work / "prepare.log")
    digest = json.loads(data.with_suffix(".json").read_text())["digest"]
    return dataclasses.replace(protocol, data_digest=digest), data, weights


def is_finished(path: Path, protocol: Protocol) -> bool:
    """Whether a result of just this protocol is there.

    Raises:
        ValueError: If the file holds another protocol's result, which took long to make.
    """
    if not path.exists():
        return False
    if json.loads(path.read_text())["protocol"] != dataclasses.asdict(protocol):
        raise ValueError(
            f"{path.name} was measured under another protocol; pass --force to replace it or "
            "--results FOLDER to keep both."
        )
    return True


def run_variant(
    variant: Variant, protocol: Protocol, *, files: tuple[Path, Path], place: Workplace
) -> dict[str, object]:
    """Run one variant in its own process; returns the content of its result."""
    label = f"{variant.letter}-seed{protocol.seed}"
    recipe, output = place.work / f"{label}.protocol.json", place.work / f"{label}.json"
    work = place.work / label
    work.mkdir(exist_ok=True)
    protocol.save(recipe)
    call = [str(place.python(variant.backend)), "-m", variant.module, "--variant", variant.letter]
    options = {"protocol": recipe, "data": files[0], "weights": files[1], "work": work}
    for name, path in {**options, "output": output}.items():
        call += [f"--{name}", str(path)]
    load = os.getloadavg()[0]
    usage = run_process(call, place.work / f"{label}.log")
    raw = json.loads(output.read_text())
    raw["seconds"] |= {"process": usage.seconds, "process_cpu": usage.cpu_seconds}
    return {**summarise(raw, protocol, files[0]), "peak_gib": usage.peak_gib, "load_before": load}


def summarise(raw: dict, protocol: Protocol, data: Path) -> dict[str, object]:
    """Score a variant's probabilities and keep what a result holds."""
    with np.load(data) as arrays:
        labels = arrays["test_labels"]
    probabilities = np.asarray(raw.pop("probabilities"))
    return {
        **raw,
        "metrics": score(probabilities, labels),
        "images_per_second": protocol.num_presentations / raw["seconds"]["total"],
        "protocol": dataclasses.asdict(protocol),
    }


def run_all(variants: list[Variant], protocols: list[Protocol], place: Workplace) -> None:
    """Measure every variant under every seed, skipping what is finished."""
    description = machine()
    names = {v.backend: framework(v.backend, place) for v in variants}
    for protocol in protocols:
        protocol, *files = prepare_data(protocol, place)
        for variant in variants:
            detail = f"{variant.letter} seed{protocol.seed}"
            backend = names[variant.backend]
            name = result_name(CLAIM, machine_name(description), backend, detail)
            path = place.results / name
            if not place.force and is_finished(path, protocol):
                logger.info("%s is there already", name)
                continue
            logger.info("%s (%s), seed %d", variant.letter, variant.title, protocol.seed)
            result = run_variant(variant, protocol, files=(files[0], files[1]), place=place)
            who = {"claim": CLAIM, "variant": variant.letter, "title": variant.title}
            write_json(path, {**who, "machine": description, "backend": backend, **result})
            logger.info("  %.1f s", result["seconds"]["total"])


def main() -> None:
    """Run the benchmark from the command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    options = parse_arguments()
    fields = {field.name for field in dataclasses.fields(Protocol)}
    given = {name: value for name, value in vars(options).items() if name in fields}
    protocols = [Protocol(**given, seed=seed) for seed in range(options.repeats)]
    place = Workplace(
        options.work.resolve(), options.results.resolve(), options.torch_python, options.force
    )
    place.work.mkdir(parents=True, exist_ok=True)
    place.results.mkdir(parents=True, exist_ok=True)
    try:
        run_all(chosen_variants(options.only), protocols, place)
    except (ValueError, FileNotFoundError, RuntimeError) as problem:
        raise SystemExit(str(problem)) from problem


if __name__ == "__main__":
    main()
