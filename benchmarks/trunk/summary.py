"""From each process's passes to one row a variant."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np

from protocol import num_multiply_adds
from trunk.protocol import OUTPUTS, REFERENCE, YARDSTICK, Protocol, Variant


def largest_differences(features: Path, reference: Path) -> dict[str, float]:
    """Per layer max |a - b| / max |b|, b being the reference."""
    with np.load(features) as ours, np.load(reference) as theirs:
        return {
            name: float(np.abs(ours[name] - theirs[name]).max() / np.abs(theirs[name]).max())
            for name in OUTPUTS
        }


def is_enough(rounds: list[dict], protocol: Protocol) -> bool:
    """Whether a variant was measured so slow that another process would tell nothing new."""
    return any(min(each["seconds"]) > protocol.max_seconds for each in rounds)


def summarise(
    variant: Variant, rounds: list[dict], protocol: Protocol, *, skipped: str | None = None
) -> dict[str, object]:
    """One variant's row.

    Args:
        variant: Which.
        rounds: What its processes wrote, those that were measured.
        protocol: What they followed.
        skipped: Why the last of them was not, if so.
    """
    row: dict[str, object] = {
        "variant": variant.name,
        "title": variant.title,
        "batch": variant.batch,
        "precision": variant.precision,
    }
    if not rounds:
        return {**row, "skipped": skipped}
    passes = [seconds for each in rounds for seconds in each["seconds"]]
    rate = protocol.num_images / statistics.median(passes)
    operations = 2 * num_multiply_adds(protocol.image_size)
    return {
        **row,
        "seconds": passes,
        "first_seconds": [each["first_seconds"] for each in rounds],
        "images_per_second": {
            "value": rate,
            "low": protocol.num_images / max(passes),
            "high": protocol.num_images / min(passes),
        },
        "gflops": rate * operations * 1e-9,
        "peak_gib": max(each["peak_gib"] for each in rounds),
        "load_before": [each["load_before"] for each in rounds],
        "settings": rounds[0]["settings"],
        "versions": rounds[0]["versions"],
    }


def add_times_yardstick(rows: list[dict]) -> None:
    """Put the rate over that of TensorFlow's own bfloat16 forward into each row."""
    rates = {row["variant"]: row["images_per_second"]["value"] for row in rows if is_measured(row)}
    for row in rows:
        if is_measured(row) and YARDSTICK in rates:
            row["times_bfloat16"] = row["images_per_second"]["value"] / rates[YARDSTICK]


def is_measured(row: dict) -> bool:
    """Whether the variant ran."""
    return "skipped" not in row


def largest(row: dict) -> float:
    """The largest of a row's differences over its layers; 0 where there is none to look at."""
    if row["variant"] == REFERENCE:
        return 0.0
    return max(row.get("difference", {}).values(), default=0.0)
