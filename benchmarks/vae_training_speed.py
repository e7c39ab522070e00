"""Speed of training one small VAE: Safelight against pythae, Keras' and PyTorch's examples, JAX.

    python benchmarks/vae_training_speed.py [--only a,e] [--batch-sizes 128,512] [--repeats 1]

Images per second, and the wall time until the ELBO on held-out images reaches given levels. Every
variant runs in a process of its own, one after the other, and leaves one JSON file in
benchmarks/results. A variant whose file is there is skipped, so that a stopped run goes on where it
was. Then `python benchmarks/report.py` makes the tables.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from measuring import machine, machine_name, write_json
from protocol import result_name
from transfer_cached_vs_end_to_end import HERE, ROOT, is_finished, run_process
from vae.network import LATENT_DIM, elbo
from vae.protocol import CLAIM, LEVELS, VARIANTS, Protocol, Variant

logger = logging.getLogger("benchmark")
_NOISE_SEED = 1  # of the latents that the ELBO is judged with


@dataclass(frozen=True)
class Workplace:
    """Folders and interpreters of one call of the driver."""

    work: Path
    results: Path
    pythons: dict[str, Path]
    force: bool

    def python(self, backend: str) -> Path:
        """Interpreter that has the backend.

        Raises:
            FileNotFoundError: If it is not there.
        """
        path = self.pythons[backend]
        if not path.exists():
            raise FileNotFoundError(
                f"{path} does not exist; make the environments of the peers as "
                f"benchmarks/README.md says, pass --{backend}-python, or leave variants out with "
                "--only."
            )
        return path


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; sizes and epochs default to the protocol's."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    defaults = Protocol()
    for name in ("num_train", "num_test", "epochs"):
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=int, default=getattr(defaults, name))
    parser.add_argument("--max-seconds", type=float, default=defaults.max_seconds)
    parser.add_argument("--batch-sizes", default="128,512")
    parser.add_argument("--repeats", type=int, default=1, help="seeds 0, 1, ...")
    parser.add_argument("--only", default=",".join(VARIANTS), help="letters, as in a,d")
    parser.add_argument("--force", action="store_true", help="measure again what has a result")
    add_places(parser)
    return parser.parse_args(arguments)


def add_places(parser: argparse.ArgumentParser) -> None:
    """The options that both VAE benchmarks have: folders and interpreters."""
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "benchmarks" / "vae")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    for name, folder in (("torch", ".venv-torch"), ("jax", ".venv-backends")):
        path = ROOT / folder / "bin" / "python"
        parser.add_argument(f"--{name}-python", type=Path, default=path)


def make_workplace(options: argparse.Namespace) -> Workplace:
    """The places of a parsed command line; makes its folders."""
    pythons = {
        "tensorflow": Path(sys.executable),
        "torch": options.torch_python,
        "jax": options.jax_python,
    }
    for folder in (options.work, options.results):
        folder.mkdir(parents=True, exist_ok=True)
    return Workplace(options.work.resolve(), options.results.resolve(), pythons, options.force)


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


def framework(variant: Variant, place: Workplace) -> str:
    """Name the framework with its version, as it stands in the result's file name."""
    code = f"import importlib.metadata as m; print(m.version({variant.package!r}))"
    call = [str(place.python(variant.backend)), "-c", code]
    answer = subprocess.run(call, check=True, capture_output=True, text=True).stdout
    version = answer.strip().split("+")[0]
    suffix = f"-{variant.backend}" if variant.package == "keras" else ""
    return f"{variant.package}-{version}{suffix}"


def prepare_data(protocol: Protocol, place: Workplace) -> tuple[Protocol, Path]:
    """Make, or find, the pixels of this protocol; returns it with their digest, and the file."""
    data = place.work / f"{protocol.dataset}-{protocol.num_train}-{protocol.num_test}.npz"
    if not data.with_suffix(".json").exists():
        logger.info("preparing %s", data.name)
        recipe = place.work / "protocol.json"
        protocol.save(recipe)
        call = [sys.executable, "-m", "vae.prepare", "--protocol", str(recipe)]
        run_process([*call, "--data", str(data)], place.work / "prepare.log")
    digest = json.loads(data.with_suffix(".json").read_text())["digest"]
    return dataclasses.replace(protocol, data_digest=digest), data


class Judge:
    """Held-out ELBO of weights: the same pixels and the same noise for every variant and epoch."""

    def __init__(self, data: Path) -> None:
        with np.load(data) as arrays:
            self.pixels = arrays["test"]
        rng = np.random.default_rng(_NOISE_SEED)
        self.noise = rng.standard_normal((len(self.pixels), LATENT_DIM), "float32")

    def elbos(self, path: Path) -> list[float]:
        """One number per epoch of the file that a variant left."""
        with np.load(path) as arrays:
            weights = {name: arrays[name] for name in arrays.files}
        epochs = range(len(weights["mean/bias"]))
        rows = ({name: array[i] for name, array in weights.items()} for i in epochs)
        return [elbo(row, self.pixels, self.noise) for row in rows]


def summarise(seconds: list[float], elbos: list[float], num_images: int) -> dict[str, object]:
    """What a result says of a training.

    Args:
        seconds: On the clock at the end of each epoch.
        elbos: Held-out, there.
        num_images: In an epoch.

    Returns:
        `images_per_second`, in the median epoch after the first (`steady`) and over all with
        compilation (`whole`); `seconds_to`, for each of LEVELS the clock at the end of the first
        epoch that reached it, or None.
    """
    durations = np.diff(seconds).tolist()
    reached = {
        str(level): next((s for s, e in zip(seconds, elbos, strict=True) if e >= level), None)
        for level in LEVELS
    }
    return {
        "images_per_second": {
            "steady": num_images / statistics.median(durations) if durations else None,
            "whole": num_images * len(seconds) / seconds[-1],
        },
        "seconds_to": reached,
        "elbo": elbos,
    }


def run_variant(
    variant: Variant, protocol: Protocol, *, data: Path, judge: Judge, place: Workplace
) -> dict[str, object]:
    """Run one variant in its own process; returns the content of its result."""
    label = f"{variant.letter}-batch{protocol.batch_size}-seed{protocol.seed}"
    recipe, output = place.work / f"{label}.protocol.json", place.work / f"{label}.json"
    work = place.work / label
    work.mkdir(exist_ok=True)
    protocol.save(recipe)
    call = [str(place.python(variant.backend)), "-m", variant.module, "--variant", variant.letter]
    for name, path in {"protocol": recipe, "data": data, "work": work, "output": output}.items():
        call += [f"--{name}", str(path)]
    load = os.getloadavg()[0]
    usage = run_process(call, place.work / f"{label}.log")
    raw = json.loads(output.read_text())
    weights = output.with_suffix(".npz")
    elbos = judge.elbos(weights)
    weights.unlink()
    epochs = raw.pop("epochs")
    seconds = {"epochs": epochs, "process": usage.seconds, "process_cpu": usage.cpu_seconds}
    return {
        **raw,
        **summarise(epochs, elbos, protocol.num_train),
        "seconds": seconds,
        "protocol": dataclasses.asdict(protocol),
        "peak_gib": usage.peak_gib,
        "load_before": load,
    }


def run_all(variants: list[Variant], protocols: list[Protocol], place: Workplace) -> None:
    """Measure every variant under every protocol, skipping what is finished."""
    description = machine()
    names = {variant.letter: framework(variant, place) for variant in variants}
    for protocol in protocols:
        protocol, data = prepare_data(protocol, place)
        judge = Judge(data)
        for variant in variants:
            detail = f"{variant.letter} batch{protocol.batch_size} seed{protocol.seed}"
            name = result_name(CLAIM, machine_name(description), names[variant.letter], detail)
            path = place.results / name
            if not place.force and is_finished(path, protocol):
                logger.info("%s is there already", name)
                continue
            result = run_variant(variant, protocol, data=data, judge=judge, place=place)
            who = {"claim": CLAIM, "variant": variant.letter, "title": variant.title}
            backend = {"machine": description, "backend": names[variant.letter]}
            write_json(path, {**who, "ours": variant.ours, **backend, **result})
            steady = result["images_per_second"]["steady"] or 0
            words = f"{steady:,.0f} images/s, ELBO {result['elbo'][-1]:.2f}"
            logger.info("%s (%s): %s", detail, variant.title, words)


def make_protocols(options: argparse.Namespace) -> list[Protocol]:
    """One for each repeat and batch size."""
    fields = {field.name for field in dataclasses.fields(Protocol)}
    given = {name: value for name, value in vars(options).items() if name in fields}
    sizes = [int(size) for size in options.batch_sizes.split(",")]
    return [
        Protocol(**given, batch_size=size, seed=seed)
        for seed in range(options.repeats)
        for size in sizes
    ]


def main() -> None:
    """Run the benchmark from the command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    options = parse_arguments()
    try:
        variants = chosen_variants(options.only)
        run_all(variants, make_protocols(options), make_workplace(options))
    except (ValueError, FileNotFoundError, RuntimeError) as problem:
        raise SystemExit(str(problem)) from problem


if __name__ == "__main__":
    main()
