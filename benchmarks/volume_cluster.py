"""Two workers of a Ray cluster on this machine against one, and against this process alone.

    .venv-scale/bin/python benchmarks/volume_cluster.py [--images 2048] [--size 64] [--rounds 3]

VGG16 with random weights answers small pictures into a table. Rounds take turns, and the table has
the median; start-up (Ray, and a worker's loading) is told apart. From these rates, decoding on one
core, and the network's at 224 pixels as `transfer_trunk_throughput` measured it on such a machine,
comes the model of time and cost in docs/cluster.md.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import re
import statistics
from pathlib import Path
from typing import Any

from measuring import machine, machine_name
from protocol import slug
from repeats import keep, parse_options, write_result
from transfer_cached_vs_end_to_end import ROOT
from volume.report import BEGIN, CLUSTER_CLAIM, END, render_cost
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
        "driver": statistics.median(each["driver_cpu"] for each in rounds),
        "same_bytes": all(each["digest"] == digest for each in rounds),
    }
    if "start_up" in rounds[0]:
        found["start_up"] = statistics.median(each["start_up"] for each in rounds)
    return found


def trunk_rate(results: Path) -> tuple[float, str]:
    """Core seconds of VGG16 at 224 px for a picture, and the result that they are from."""
    here = slug(machine_name(machine()))
    found = sorted(results.glob("transfer_trunk_throughput__*__224px.json"))
    path = next((each for each in found if here in each.name), found[0])
    result = json.loads(path.read_text(encoding="utf-8"))
    measured = [
        row["images_per_second"] for row in result["variants"] if row.get("images_per_second")
    ]
    fastest = max(each["value"] for each in measured)
    return result["machine"]["cores"] / fastest, "transfer_trunk_throughput, all cores"


def write_page(result: dict[str, Any]) -> None:
    """Put the model's tables into docs/cluster.md."""
    path = ROOT / "docs" / "cluster.md"
    old = path.read_text(encoding="utf-8")
    text = "\n".join(render_cost(result))
    pattern = re.compile(re.escape(BEGIN) + r"\n.*?" + re.escape(END), re.DOTALL)
    path.write_text(pattern.sub(lambda _: f"{BEGIN}\n{text}{END}", old), encoding="utf-8")


def run_all(options: Any) -> None:
    """Measure what is missing, write one result and the page's tables."""
    if importlib.util.find_spec("ray") is None:
        print("Ray is not installed: make test-scale, then .venv-scale/bin/python this script.")
        return
    rounds = {name: measure_place(options, name) for name in PLACES}
    digest = rounds["this process, all cores"][0]["digest"]
    places = {name: sum_up(of, digest) for name, of in rounds.items()}
    decoding = keep(
        options,
        f"{CLAIM}-decode",
        functools.partial(call_child, what="decode", seconds=5, work=str(options.work)),
    )
    compute, source = trunk_rate(options.results)
    one, two = (places[f"ray, {name}"] for name in ("1 worker", "2 workers"))
    content = {
        "places": places,
        "num_images": options.images,
        "image_size": options.size,
        "rounds": options.rounds,
        "rates": {
            "compute": compute,
            "compute_from": source,
            "decode": 1 / decoding["per_core_second"],
            "driver": two["driver"],
            "start_up": two["start_up"],
            "efficiency": two["per_second"] / (2 * one["per_second"]),
        },
    }
    write_result(options, CLAIM, content, f"{options.size}px")
    write_page({**content, "machine": machine()})


if __name__ == "__main__":
    run_all(parse_options(__doc__ or "", images=2048, size=64, rounds=3))
