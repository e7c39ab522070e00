"""What the tables of all claims are made with."""

from __future__ import annotations

import statistics
from collections.abc import Iterable


def median_of(results: list[dict], *path: str) -> float:
    """Median over seeds of one number inside the results."""
    values = []
    for value in results:
        for key in path:
            value = value[key]
        values.append(float(value))
    return statistics.median(values)


def table(header: tuple[str, ...], rows: list[list[str]]) -> list[str]:
    """Lines of a Markdown table, numbers to the right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return ["| " + " | ".join(cells) + " |" for cells in (header, rule, *rows)]


def versions_line(results: list[dict]) -> str:
    """Every package version that took part."""
    versions = {item for result in results for item in result["versions"].items()}
    return ", ".join(f"{name} {version}" for name, version in sorted(versions))


def seeds_line(seeds: Iterable[int]) -> str:
    """Names them: "seed 0", or "seeds 0, 1"."""
    names = [str(seed) for seed in seeds]
    return f"seed{'s' if len(names) > 1 else ''} {', '.join(names)}"
