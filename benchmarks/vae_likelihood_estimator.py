"""Speed and agreement of log p(x) by importance sampling: Safelight against pythae's `get_nll`.

    python benchmarks/vae_likelihood_estimator.py [--num-images 100] [--samples 500,5000]

Both get the same trained weights, the same images of black and white pixels and the same number of
samples, each in a process of its own. Then `python benchmarks/report.py` makes the table.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import logging
import os
import statistics
from pathlib import Path

import numpy as np

from measuring import machine, machine_name, write_json
from protocol import result_name
from transfer_cached_vs_end_to_end import run_process
from vae.protocol import Protocol
from vae_training_speed import Workplace, add_places, make_workplace, prepare_data

CLAIM = "vae_likelihood_estimator"
REFERENCE = "pythae, no_grad and best batch"
logger = logging.getLogger("benchmark")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    defaults = Protocol()
    for name in ("num_train", "num_test"):
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=int, default=getattr(defaults, name))
    parser.add_argument("--epochs", type=int, default=5, help="that the weights are trained for")
    parser.add_argument("--num-images", type=int, default=100)
    parser.add_argument("--samples", default="500,5000", help="importance samples for each image")
    parser.add_argument("--repeats", type=int, default=3, help="timed calls of each kind")
    parser.add_argument("--force", action="store_true", help="measure again what has a result")
    add_places(parser)
    return parser.parse_args(arguments)


def prepare_weights(protocol: Protocol, data: Path, place: Workplace) -> Path:
    """Train, or find, the weights of this protocol."""
    name = f"weights-{protocol.num_train}-{protocol.epochs}epochs-{protocol.data_digest[:8]}.npz"
    path = place.work / name
    if not path.exists():
        logger.info("training %d epochs", protocol.epochs)
        recipe = place.work / "weights.protocol.json"
        protocol.save(recipe)
        call = [str(place.python("tensorflow")), "-m", "vae.ours_likelihood", "train"]
        call += ["--protocol", str(recipe), "--data", str(data), "--output", str(path)]
        run_process(call, place.work / "weights.log")
    return path


def ask(module: str, backend: str, arguments: list[str], place: Workplace) -> dict:
    """Run one party in its own process and read its answers."""
    output = place.work / f"{module}.json"
    call = [str(place.python(backend)), "-m", module, "--output", str(output), *arguments]
    run_process(call, output.with_suffix(".log"))
    return json.loads(output.read_text())


def compare(values: list[float], reference: list[float]) -> dict[str, float]:
    """Mean difference over the same images, and its standard error.

    Images and weights are the same, so what the two differ by is the noise of the importance
    samples alone, and the spread of the differences over images measures that noise.
    """
    gaps = np.asarray(values) - np.asarray(reference)
    return {
        "difference": float(gaps.mean()),
        "standard_error": float(gaps.std(ddof=1) / np.sqrt(len(gaps))),
    }


def summarise(answers: list[dict], num_images: int) -> list[dict]:
    """Per way and number of samples: time for each image, mean, and the gap to the reference."""
    reference = {each["num_samples"]: each for each in answers if each["name"] == REFERENCE}
    rows = []
    for each in answers:
        of_peer = reference[each["num_samples"]]
        seconds = statistics.median(each["seconds"]) / num_images
        rows.append(
            {
                **{key: each[key] for key in ("name", "num_samples", "settings", "values")},
                "seconds_per_image": seconds,
                "seconds_first_call": each["first_seconds"],
                "times_faster": statistics.median(of_peer["seconds"]) / num_images / seconds,
                "mean": statistics.fmean(each["values"]),
                **compare(each["values"], of_peer["values"]),
            }
        )
    return rows


def run_all(options: argparse.Namespace, place: Workplace) -> None:
    """Ask both parties and write one result."""
    given = {name: getattr(options, name) for name in ("num_train", "num_test", "epochs")}
    protocol, data = prepare_data(Protocol(**given), place)
    description = machine()
    backend = f"keras-{importlib.metadata.version('keras')}-tensorflow"
    name = result_name(CLAIM, machine_name(description), backend, "seed0")
    path = place.results / name
    if path.exists() and not place.force:
        logger.info("%s is there already", name)
        return
    weights = prepare_weights(protocol, data, place)
    load = os.getloadavg()[0]
    arguments = ["--weights", str(weights), "--data", str(data), "--samples", options.samples]
    arguments += ["--num-images", str(options.num_images), "--repeats", str(options.repeats)]
    parties = [
        ask("vae.ours_likelihood", "tensorflow", arguments, place),
        ask("peers.vae_pythae_likelihood", "torch", arguments, place),
    ]
    answers = [each for party in parties for each in party["answers"]]
    result = {
        "claim": CLAIM,
        "machine": description,
        "backend": backend,
        "protocol": {
            **{key: getattr(protocol, key) for key in ("dataset", "num_train", "epochs")},
            "num_images": options.num_images,
            "repeats": options.repeats,
            "data_digest": protocol.data_digest,
        },
        "answers": summarise(answers, options.num_images),
        "versions": parties[1]["versions"] | parties[0]["versions"],
        "load_before": load,
    }
    write_json(path, result)
    for row in result["answers"]:
        logger.info(
            "%s, %d samples: %.2f ms an image, difference %.4f +- %.4f nats",
            row["name"],
            row["num_samples"],
            1e3 * row["seconds_per_image"],
            row["difference"],
            row["standard_error"],
        )


def main() -> None:
    """Run the benchmark from the command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    options = parse_arguments()
    try:
        run_all(options, make_workplace(options))
    except (ValueError, FileNotFoundError, RuntimeError) as problem:
        raise SystemExit(str(problem)) from problem


if __name__ == "__main__":
    main()
