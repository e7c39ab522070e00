"""Two workers of a Ray cluster on this machine against one, and against this process alone.

    .venv-scale/bin/python benchmarks/volume_cluster.py [--images 2048] [--size 64] [--rounds 3]

VGG16 with random weights answers small pictures into a table. Rounds take turns, and the table has
the median; start-up (Ray, and a worker's loading) is told apart. `volume_cost.py` goes on from it.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import statistics
from typing import Any

from protocol import slug
from repeats import keep, parse_options, write_result
from volume.report import CLUSTER_CLAIM
from volume_memory import call_child

CLAIM = CLUSTER_CLAIM
PLACES: dict[str, dict[str, int]] = {
    "this process, all cores": {},
    "ray, 1 worker": {"workers": 1},
    "ray, 2 workers": {"workers": 2},
}
CHUNK = 128  # pictures: enough of them that two workers end at nearly the same time


def measure_place(options: Any, name: str) -> list[dict[str, Any]]:
    """One place in several rounds; what an earlier call has measured is kept."""
    call: dict[str, Any] = {
        "what": "predict",
        "num_images": options.images,
        "image_size": options.size,
        "chunk": CHUNK,
        "work": str(options.work),
        **PLACES[name],
    }
    return [
        keep(
            options,
            f"{CLAIM}-{slug(name)}-{options.images}-{options.size}-{number}",
            functools.partial(call_child, **call),
        )
        for number in range(options.rounds)
    ]


def sum_up(rounds: list[dict[str, Any]], digest: str) -> dict[str, Any]:
    """Medians of one place."""
    rates = [each["num_computed"] / each.get("working", each["seconds"]) for each in rounds]
    found: dict[str, Any] = {
        "per_second": statistics.median(rates),
        "rates": rates,
        "same_bytes": all(each["digest"] == digest for each in rounds),
    }
    if "start_up" in rounds[0]:
        found["start_up"] = statistics.median(each["start_up"] for each in rounds)
    return found


def run_all(options: Any) -> None:
    """Measure what is missing and write one result."""
    if importlib.util.find_spec("ray") is None:
        print("Ray is not installed: make test-scale, then .venv-scale/bin/python this script.")
        return
    rounds = {name: measure_place(options, name) for name in PLACES}
    digest = rounds["this process, all cores"][0]["digest"]
    places = {name: sum_up(of, digest) for name, of in rounds.items()}
    one, two = (places[f"ray, {name}"] for name in ("1 worker", "2 workers"))
    content = {
        "places": places,
        "num_images": options.images,
        "image_size": options.size,
        "rounds": options.rounds,
        "load": os.getloadavg()[1],
        "efficiency": two["per_second"] / (2 * one["per_second"]),
    }
    write_result(options, CLAIM, content, f"{options.size}px")


if __name__ == "__main__":
    run_all(parse_options(__doc__ or "", images=2048, size=64, rounds=3))
