"""The table of the trunk's engines; report.py puts it where it belongs."""

from __future__ import annotations

from measuring import machine_name
from tables import table, versions_line
from trunk.protocol import OUTPUTS, REFERENCE
from trunk.summary import is_measured, largest

COLUMNS = (
    "engine",
    "batch",
    "images/s",
    "GFLOP/s",
    "times TensorFlow's bfloat16",
    "largest difference",
    "accuracy minus float32's, points",
    "peak, GiB",
)


def render_row(row: dict) -> list[str]:
    """One variant's cells."""
    rate, gap = row["images_per_second"], row.get("accuracy", {}).get("difference")
    times = row.get("times_bfloat16")
    differs = "difference" in row and row["variant"] != REFERENCE
    return [
        row["title"],
        str(row["batch"]),
        f"{rate['value']:.1f} [{rate['low']:.1f}, {rate['high']:.1f}]",
        f"{row['gflops']:.0f}",
        "" if times is None else f"{times:.2f}",
        f"{largest(row):.0e}" if differs else "",
        "{value:+.1f} [{low:+.1f}, {high:+.1f}]".format(**{k: 100 * v for k, v in gap.items()})
        if gap
        else "",
        f"{row['peak_gib']:.1f}",
    ]


def render_products(frameworks: dict) -> str:
    """The machine's own rates in one sentence."""
    if not frameworks:
        return ""
    best = {
        dtype: max(entry["best"][dtype] for entry in frameworks.values())
        for dtype in ("float32", "bfloat16")
    }
    return (
        f" The machine multiplies matrices at {best['float32']:.0f} GFLOP/s in float32 and "
        f"{best['bfloat16']:.0f} in bfloat16 (the best of {' and '.join(sorted(frameworks))})."
    )


def render_trunk(result: dict) -> list[str]:
    """One machine: a sentence, a row an engine, who was left out and why."""
    protocol, rows = result["protocol"], result["variants"]
    measured = [row for row in rows if is_measured(row)]
    fits = [row["accuracy"] for row in measured if "difference" in row.get("accuracy", {})]
    judged = (
        f" Heads are fitted on {fits[0]['num_train']} cells and judged on {fits[0]['num_test']}."
        if fits
        else ""
    )
    lines = [
        f"VGG16's frozen trunk, pixels at {protocol['image_size']} px to {len(OUTPUTS)} pooled "
        f"outputs of blocks 3 to 5, {protocol['num_images']} ELPV cells a pass; medians "
        f"over up to {protocol['rounds']} processes of up to {protocol['repeats']} passes, slowest "
        f"and fastest in brackets; {machine_name(result['machine'])}."
        + render_products(result["frameworks"])
        + judged,
        "",
        *table(COLUMNS, [render_row(row) for row in measured]),
        "",
    ]
    left_out = [f"{row['title']}: {row['skipped']}" for row in rows if not is_measured(row)]
    if left_out:
        lines += [f"Left out: {'; '.join(left_out)}.", ""]
    return [*lines, f"Measured with {versions_line([result])}.", ""]
