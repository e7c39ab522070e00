"""What many pictures take on many machines: the rates, measured, and the tables of docs/cluster.md.

    python benchmarks/volume_cost.py

Decoding and the driver's share are measured here, in processor time; the network's is that of the
fastest engine of `transfer_trunk_throughput` on such a machine; start-up and what two workers reach
are those of `volume_cluster` where it was run, and else assumed, which the table says.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

from measuring import machine, machine_name
from protocol import slug
from repeats import keep, parse_options, write_result
from transfer_cached_vs_end_to_end import ROOT
from volume.report import BEGIN, COST_CLAIM, END, render_cost
from volume_memory import call_child

CLAIM = COST_CLAIM
ASSUMED = {"start_up": 30.0, "efficiency": 1.0}


def find_result(results: Path, claim: str) -> dict[str, Any] | None:
    """The result of a claim on a machine of this kind, or on any."""
    here = slug(machine_name(machine()))
    found = sorted(results.glob(f"{claim}__*.json"), key=lambda path: here not in path.name)
    return json.loads(found[0].read_text(encoding="utf-8")) if found else None


def trunk_seconds(results: Path) -> float:
    """Core seconds of VGG16 at 224 px for a picture, by the fastest engine that was measured."""
    result = find_result(results, "transfer_trunk_throughput")
    if result is None:
        raise SystemExit("no result of transfer_trunk_throughput: run it first.")
    rates = [each["images_per_second"] for each in result["variants"]]
    return result["machine"]["cores"] / max(each["value"] for each in rates if each)


def write_page(result: dict[str, Any]) -> None:
    """Put the model's tables into docs/cluster.md."""
    path = ROOT / "docs" / "cluster.md"
    old = path.read_text(encoding="utf-8")
    text = "\n".join(render_cost(result))
    pattern = re.compile(re.escape(BEGIN) + r"\n.*?" + re.escape(END), re.DOTALL)
    path.write_text(pattern.sub(lambda _: f"{BEGIN}\n{text}{END}", old), encoding="utf-8")


def run_all(options: Any) -> None:
    """Measure what is missing, write one result and the page's tables."""
    measured = {
        what: keep(
            options,
            f"{CLAIM}-{what}",
            functools.partial(call_child, what=what, seconds=5, work=str(options.work)),
        )
        for what in ("decode", "write")
    }
    rates = {"compute": trunk_seconds(options.results), **ASSUMED}
    rates["decode"] = 1 / measured["decode"]["per_core_second"]
    rates["driver"] = 1 / measured["write"]["per_core_second"]
    cluster = find_result(options.results, "volume_cluster")
    if cluster is not None:
        rates["start_up"] = cluster["places"]["ray, 2 workers"]["start_up"]
        rates["efficiency"] = min(1.0, cluster["efficiency"])
    content = {"rates": rates, "is_assumed": cluster is None}
    write_result(options, CLAIM, content, "224px")
    write_page({**content, "machine": machine()})


if __name__ == "__main__":
    run_all(parse_options(__doc__ or ""))
