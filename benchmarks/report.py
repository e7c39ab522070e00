"""Write the tables of README.md and benchmarks/README.md from the JSON files in results/.

    python benchmarks/report.py [--check]

A table stands between `<!-- benchmarks:begin -->` and `<!-- benchmarks:end -->`; a file without
these markers is left alone. --check writes nothing and fails where a file is out of date.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from pathlib import Path

import numpy as np

from accuracy.report import render_accuracy, render_anomalies, render_grid, render_unfamiliar
from backends import report as backends_report
from gan import report as gan_report
from measuring import machine_name
from protocol import CLAIM, accuracy_interval, correct_of
from tables import median_of, seeds_line, table, versions_line
from trunk.protocol import CLAIM as TRUNK_CLAIM
from trunk.report import render_trunk
from vae import generative_report
from vae import report as vae_report
from vae.protocol import CLAIM as VAE_CLAIM
from volume import report as volume_report

HERE = Path(__file__).resolve().parent
TARGETS = (HERE.parent / "README.md", HERE / "README.md")
BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"
REFERENCE = "a"
RATE_CLAIM = "matrix_product_rate"
CURVE_CLAIM = "transfer_learning_curve"
ACCURACY_CLAIM = "transfer_elpv_accuracy"
UNFAMILIAR_CLAIM = "transfer_unfamiliar"
ANOMALIES_CLAIM = "vae_anomalies"
GRID_CLAIM = "transfer_grid_speed"
COLUMNS = (
    "variant",
    "total, s",
    "times a",
    "fill cache, s",
    "head, s",
    "block5, s",
    "images/s",
    "peak, GiB",
    "accuracy, %",
    "minus a, points",
    "log-loss",
)


def read_results(folder: Path = HERE / "results") -> list[dict]:
    """Read every result, in the order of the file names."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def group_key(result: dict) -> str:
    """What two results must share to stand in one table: machine and protocol, not the seed."""
    protocol = {key: value for key, value in result["protocol"].items() if key != "seed"}
    return json.dumps([machine_name(result["machine"]), protocol], sort_keys=True)


def pooled(results: list[dict]) -> np.ndarray:
    """Per test image the share of seeds that got it right, (num_test,)."""
    return np.mean([correct_of(result) for result in results], axis=0)


def difference(results: list[dict], reference: list[dict]) -> str:
    """Accuracy minus the reference's on the same test images, with its paired interval."""
    gap = accuracy_interval(pooled(results) - pooled(reference))
    value, low, high = (100 * gap[key] for key in ("value", "low", "high"))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"


def render_row(results: list[dict], reference: list[dict]) -> list[str]:
    """One variant's cells, pooled over its seeds."""
    accuracy = {key: 100 * value for key, value in accuracy_interval(pooled(results)).items()}
    total = median_of(results, "seconds", "total")
    has_extract = all("extract" in result["seconds"] for result in results)
    is_reference = results is reference
    comparable = bool(reference) and not is_reference
    return [
        f"{results[0]['variant']}: {results[0]['title']}",
        f"{total:.0f}",
        f"{total / median_of(reference, 'seconds', 'total'):.1f}" if reference else "",
        f"{median_of(results, 'seconds', 'extract'):.0f}" if has_extract else "",
        f"{median_of(results, 'seconds', 'head'):.0f}",
        f"{median_of(results, 'seconds', 'block5'):.0f}",
        f"{median_of(results, 'images_per_second'):.1f}",
        f"{median_of(results, 'peak_gib'):.1f}",
        f"{accuracy['value']:.1f} [{accuracy['low']:.1f}, {accuracy['high']:.1f}]",
        difference(results, reference) if comparable else "",
        f"{median_of(results, 'metrics', 'loss'):.3f}",
    ]


def render_group(results: list[dict]) -> list[str]:
    """One machine and protocol: a sentence, a table, the versions."""
    variants: dict[str, list[dict]] = defaultdict(list)
    for result in sorted(results, key=lambda r: (r["variant"], r["protocol"]["seed"])):
        variants[result["variant"]].append(result)
    reference = variants.get(REFERENCE, [])
    protocol = results[0]["protocol"]
    seeds = sorted({result["protocol"]["seed"] for result in results})
    sentence = (
        f"{protocol['dataset'].upper()} at {protocol['image_size']} px, {protocol['num_train']} "
        f"training, {protocol['num_validation']} validation and {protocol['num_test']} test "
        f"images; {protocol['head_epochs']} epochs of the head, {protocol['block5_epochs']} of "
        f"block5; batches of {protocol['batch_size']}; {seeds_line(seeds)}; "
        f"{machine_name(results[0]['machine'])}."
    )
    rows = [render_row(variants[letter], reference) for letter in sorted(variants)]
    return [sentence, "", *table(COLUMNS, rows), "", f"Measured with {versions_line(results)}.", ""]


def _share(result: dict) -> str:
    """What the extraction reaches of the best product, in the type that is faster here."""
    extraction = result["extraction"]
    told = f"{100 * extraction['fraction']:.0f} % of the best bfloat16 rate"
    if result.get("best_float32_gflops", 0) <= result["best_bfloat16_gflops"]:
        return told
    return (
        f"{100 * extraction['fraction_of_float32']:.0f} % of the best float32 rate, as Winograd's "
        f"algorithm multiplies less than is counted, and {told}, which is emulated"
    )


def render_rates(result: dict) -> list[str]:
    """The machine's matrix-product rates and the extraction's share of the best."""
    dtypes = ("float32", "bfloat16")
    rows = [
        [f"{name} {entry['version']}", *(f"{entry['best'][dtype]:.0f}" for dtype in dtypes)]
        for name, entry in sorted(result["frameworks"].items())
    ]
    header = ("matrix product, GFLOP/s", *dtypes)
    lines = [f"{machine_name(result['machine'])}:", "", *table(header, rows), ""]
    if extraction := result.get("extraction"):
        lines += [
            f"Extraction to {extraction['output_layer']} from {extraction['num_images']} PNG files "
            f"({extraction['precision']}): {extraction['images_per_second']:.1f} images/s, "
            f"{extraction['gflops']:.0f} GFLOP/s, {_share(result)}, decoding included.",
            "",
        ]
    return lines


def render_learning_curve(result: dict) -> list[str]:
    """Per repeat the range that was stated and what was then seen."""
    header = ("split", "pictures had", "more", "expected of all, %", "seen, %", "held")
    rows = [
        [
            str(each["seed"]),
            f"{each['num_had']:,}",
            f"{each['num_more']:,}",
            "{value:.1f} [{low:.1f}, {high:.1f}]".format(
                **{end: 100 * each["expected"][end] for end in ("value", "low", "high")}
            ),
            f"{100 * each['seen']:.1f}",
            "yes" if each["covered"] else "no",
        ]
        for each in result["repeats"]
    ]
    return [
        f"Accuracy on ELPV's test part, expected from half of the pictures to learn from "
        f"({100 * result['coverage']:.0f} % ranges), and seen with all: "
        f"{result['num_covered']} of {len(rows)} ranges hold; {machine_name(result['machine'])}.",
        "",
        *table(header, rows),
        "",
        f"Measured with {versions_line([result])}.",
        "",
    ]


def render_table(results: list[dict]) -> str:
    """Render every result as Markdown.

    Args:
        results: Contents of the files in results/.

    Returns:
        Text that ends in a newline, or nothing where there are no results.
    """
    lines = []
    for claim, render in ((CLAIM, render_group), (VAE_CLAIM, vae_report.render_group)):
        groups: dict[str, list[dict]] = defaultdict(list)
        for result in results:
            if result["claim"] == claim:
                groups[group_key(result)].append(result)
        lines += [line for key in sorted(groups) for line in render(groups[key])]
    singles = {
        ACCURACY_CLAIM: render_accuracy,
        UNFAMILIAR_CLAIM: render_unfamiliar,
        ANOMALIES_CLAIM: render_anomalies,
        GRID_CLAIM: render_grid,
        CURVE_CLAIM: render_learning_curve,
        RATE_CLAIM: render_rates,
        TRUNK_CLAIM: render_trunk,
        vae_report.ESTIMATOR_CLAIM: vae_report.render_estimates,
        vae_report.IWAE_CLAIM: vae_report.render_iwae,
        generative_report.MINUTES_CLAIM: generative_report.render_minutes,
        generative_report.SAMPLES_CLAIM: generative_report.render_samples,
        generative_report.NOISE_CLAIM: generative_report.render_noise,
        gan_report.QUALITY_CLAIM: gan_report.render_quality,
        gan_report.HARDER_CLAIM: gan_report.render_harder,
        volume_report.MEMORY_CLAIM: volume_report.render_memory,
        volume_report.CLUSTER_CLAIM: volume_report.render_cluster,
        backends_report.SPEED_CLAIM: backends_report.render_speed,
        backends_report.EXPORT_CLAIM: backends_report.render_exports,
    }
    for claim, render_one in singles.items():
        lines += [line for r in results if r["claim"] == claim for line in render_one(r)]
    return "\n".join(lines)


def insert(text: str, tables: str) -> str:
    """Put the tables between the markers; a text without markers comes back as it is."""
    pattern = re.compile(re.escape(BEGIN) + r"\n.*?" + re.escape(END), re.DOTALL)
    return pattern.sub(lambda _: f"{BEGIN}\n{tables}{END}", text)


def main() -> None:
    """Update, or check, both READMEs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="fail where a table is out of date")
    check = parser.parse_args().check
    tables = render_table(read_results())
    for path in TARGETS:
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        new = insert(old, tables)
        if new != old and check:
            raise SystemExit(f"{path.name} is out of date: run python benchmarks/report.py.")
        if new != old:
            path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
