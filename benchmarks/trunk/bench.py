"""Where a call of the driver keeps its pieces, and the processes that make them."""

from __future__ import annotations

import json
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from matrix_product_rate import run_child
from measuring import write_json
from transfer_cached_vs_end_to_end import Workplace, run_process
from trunk.protocol import (
    MAX_FEATURES_MINUTES,
    REFERENCE,
    SMALL_DIFFERENCE,
    VARIANTS,
    Protocol,
    Variant,
)
from trunk.summary import is_enough, is_measured, largest

logger = logging.getLogger("benchmark")


@dataclass(frozen=True)
class Bench:
    """One call's files, interpreters and protocol.

    Attributes:
        folder: What was measured of this protocol, machine and packages, and is not again.
    """

    protocol: Protocol
    place: Workplace
    folder: Path
    data: Path
    weights: Path

    def features(self, name: str, label: str) -> Path:
        """Where `call` leaves a variant's features."""
        return self.folder / f"{name}-{label}.npz"

    def kept(self, name: str) -> list[dict]:
        """What was measured of a variant so far, round by round."""
        paths = [self.folder / f"{name}-round{k}.json" for k in range(self.protocol.rounds)]
        return [json.loads(path.read_text()) for path in paths if path.exists()]

    def call(self, variant: Variant, label: str, *flags: str) -> dict:
        """Run a variant's process, or find what it wrote; a failure becomes a named skip."""
        output = self.folder / f"{variant.name}-{label}.json"
        if output.exists():
            return json.loads(output.read_text())
        python = self.place.python(variant.backend)
        if not python.exists():
            return {"skipped": f"{python.parent.parent.name} is not there (make benchmarks)"}
        raw, log, load = self.folder / "raw.json", output.with_suffix(".log"), os.getloadavg()[0]
        call = [str(python), "-m", "trunk.child", "--variant", variant.name, *flags]
        call += ["--protocol", str(self.folder / "protocol.json"), "--data", str(self.data)]
        call += ["--weights", str(self.weights), "--output", str(raw)]
        raw.unlink(missing_ok=True)
        try:
            usage = run_process(call, log)
        except RuntimeError:
            lines = log.read_text(errors="replace").strip().splitlines()
            return {"skipped": f"failed: {lines[-1][:200] if lines else 'without a word'}"}
        answer = json.loads(raw.read_text())
        if "skipped" in answer:
            return answer  # not kept: the next call tries again
        os.replace(raw.with_suffix(".npz"), output.with_suffix(".npz"))
        answer |= {"peak_gib": usage.peak_gib, "load_before": load}
        write_json(output, answer)
        return answer


def measure_rounds(bench: Bench, variants: list[Variant]) -> dict[str, str]:
    """All variants in turn, every other round backwards, so that a drift hits all alike.

    Returns:
        Why some could not be measured, by name.
    """
    skipped: dict[str, str] = {}
    for position in range(bench.protocol.rounds):
        for variant in variants if position % 2 == 0 else variants[::-1]:
            if variant.name in skipped or is_enough(bench.kept(variant.name), bench.protocol):
                continue
            answer = bench.call(variant, f"round{position}")
            if "skipped" in answer:
                skipped[variant.name] = answer["skipped"]
            seconds = ", ".join(f"{each:.2f}" for each in answer.get("seconds", []))
            told = answer.get("skipped") or f"{seconds} s a pass"
            logger.info("round %d, %s: %s", position + 1, variant.name, told)
    return skipped


def measure_products(bench: Bench, *, skip: bool) -> dict[str, dict]:
    """The machine's matrix-product rates, in GFLOP/s, of each framework that is there."""
    found = {}
    for name in ("tensorflow", "torch"):
        python, kept = bench.place.python(name), bench.folder / f"rate-{name}.json"
        if not (skip or kept.exists()) and python.exists():
            logger.info("matrix products of %s", name)
            run_child(python, bench.folder, ["--framework", name])
        if kept.exists():
            found[name] = json.loads(kept.read_text())
    return found


def measure_accuracy(bench: Bench, row: dict, *, skip: bool) -> dict | None:
    """Fit the head on a variant's features beside the reference's, if they differ enough.

    Returns:
        As `trunk.accuracy.compare` gives it, a named skip, or nothing where there is no need.
    """
    if not is_measured(row) or largest(row) <= SMALL_DIFFERENCE:
        return None
    name, protocol = row["variant"], bench.protocol
    output = bench.folder / f"{name}-accuracy.json"
    if output.exists():
        return json.loads(output.read_text())
    if skip:
        return None
    num_cells = protocol.num_train + protocol.num_test
    minutes = num_cells / row["images_per_second"]["value"] / 60
    if minutes > MAX_FEATURES_MINUTES:
        return {"skipped": f"{num_cells} cells would take {minutes:.0f} minutes"}
    logger.info("accuracy of %s", name)
    for each in (REFERENCE, name):
        answer = bench.call(VARIANTS[each], "features", "--features")
        if "skipped" in answer:
            return answer
    call = [sys.executable, "-m", "trunk.accuracy", "--data", str(bench.data)]
    for option, each in (("features", name), ("reference", REFERENCE)):
        call += [f"--{option}", str(bench.features(each, "features"))]
    run_process([*call, "--output", str(output)], output.with_suffix(".log"))
    return json.loads(output.read_text())
