"""The tables of the two VAE benchmarks; report.py puts them where they belong."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict

from measuring import machine_name
from tables import median_of, seeds_line, table, versions_line
from vae.protocol import LEVELS

ESTIMATOR_CLAIM = "vae_likelihood_estimator"
PYTHAE = "e"
COLUMNS = (
    "variant",
    "images/s",
    "times pythae",
    "with compilation, images/s",
    "first epoch, s",
    *(f"to {level} nats, s" for level in LEVELS),
    "epochs",
    "ELBO, nats",
)
ESTIMATOR_COLUMNS = (
    "log p(x) by",
    "samples",
    "ms an image",
    "times faster",
    "first call, s",
    "mean, nats",
    "difference, nats",
)

IWAE_CLAIM = "vae_iwae_table"
IWAE_COLUMNS = (
    "model",
    "-log p(x), nats",
    "published, nats",
    "active units",
    "published",
    "epochs",
    "training, minutes",
    "cores",
)


def render_iwae(result: dict) -> list[str]:
    """Published likelihoods beside ours: the median over seeds, and its standard error."""
    rows = []
    for name, row in result["rows"].items():
        runs = sorted(row["runs"], key=lambda run: run["nll"])
        middle = runs[len(runs) // 2]
        layers, k = name.split("-")
        rows.append(
            [
                f"{layers} layer{'s' if layers == 'two' else ''}, k = {k}",
                f"{middle['nll']:.2f} ± {middle['standard_error']:.2f}",
                f"{row['published']:.2f}",
                " + ".join(map(str, middle["active"])),
                " + ".join(map(str, row["published_active"])),
                f"{middle['epochs']}",
                f"{middle['seconds'] / 60:.0f}",
                f"{middle['cores']}",
            ]
        )
    two = result["rows"].get("two-1", {}).get("final_gradient")
    last = ", in which two layers have the plain gradient" if two == "plain" else ""
    of_seeds = "one seed" if result["seeds"] == 1 else f"the median of {result['seeds']} seeds"
    return [
        f"MNIST, dynamic binarisation, 5,000 importance samples, all test images, standard error "
        f"over images, {of_seeds}. The networks are Burda's, the "
        "schedule is not (3,280 epochs in batches of 20): larger batches and fewer epochs, "
        "sticking the landing or DReG, averaged weights; k = 50 trains with five samples, and with "
        f"fifty, through five of them, in the last quarter{last}. Schedules were compared on 2,000 "
        "of these images, by differences far larger than those to the published row. "
        f"{machine_name(result['machine'])}.",
        "",
        *table(IWAE_COLUMNS, rows),
        "",
        f"Measured with {versions_line([result])}.",
        "",
    ]


def speed(results: list[dict]) -> float:
    """Images per second in the steady state, median over seeds."""
    return median_of(results, "images_per_second", "steady")


def seconds_to(results: list[dict], level: int) -> float:
    """Wall time to an ELBO, median over seeds; infinite where it was not reached."""
    times = [result["seconds_to"][str(level)] for result in results]
    return statistics.median(math.inf if time is None else time for time in times)


def render_row(results: list[dict], pythae: list[dict]) -> list[str]:
    """One variant's cells, medians over its seeds."""
    times = [seconds_to(results, level) for level in LEVELS]
    epochs = [result["seconds"]["epochs"] for result in results]
    return [
        f"{results[0]['variant']}: {results[0]['title']}",
        f"{speed(results):,.0f}",
        f"{speed(results) / speed(pythae):.1f}" if pythae else "",
        f"{median_of(results, 'images_per_second', 'whole'):,.0f}",
        f"{statistics.median(each[0] for each in epochs):.1f}",
        *("" if time == math.inf else f"{time:.1f}" for time in times),
        f"{statistics.median(len(each) for each in epochs):.0f}",
        f"{statistics.median(result['elbo'][-1] for result in results):.1f}",
    ]


def render_claims(variants: dict[str, list[dict]]) -> list[str]:
    """Safelight's best against the best of the others, in a sentence; nothing if one is missing."""
    ours = [results for results in variants.values() if results[0]["ours"]]
    peers = [results for results in variants.values() if not results[0]["ours"]]
    if not (ours and peers):
        return []
    best, rival = max(ours, key=speed), max(peers, key=speed)
    words = (
        f"The fastest of Safelight ({best[0]['variant']}) trains {speed(best) / speed(rival):.2f} "
        f"times as many images a second as the fastest peer ({rival[0]['variant']})"
    )
    firsts = []
    for level in LEVELS:
        time, first = min((seconds_to(r, level), r[0]["variant"]) for r in ours + peers)
        if time < math.inf:
            firsts.append(f"{level}: {first} after {time:.1f} s")
    reached = f"; first to a held-out ELBO of {', '.join(firsts)}" if firsts else ""
    return [f"{words}{reached}.", ""]


def render_group(results: list[dict]) -> list[str]:
    """One machine, batch size and protocol: a sentence, a table, what follows from it."""
    variants: dict[str, list[dict]] = defaultdict(list)
    for result in sorted(results, key=lambda r: (r["variant"], r["protocol"]["seed"])):
        variants[result["variant"]].append(result)
    protocol = results[0]["protocol"]
    seeds = sorted({result["protocol"]["seed"] for result in results})
    sentence = (
        f"VAE 784-400-20 on {protocol['dataset'].upper()}, {protocol['num_train']:,} training "
        f"images, {protocol['binarization']} binarisation, batches of {protocol['batch_size']}; "
        f"{protocol['epochs']} epochs, or the epoch in which {protocol['max_seconds']:g} s are "
        f"over; {seeds_line(seeds)}; {machine_name(results[0]['machine'])}."
    )
    pythae = variants.get(PYTHAE, [])
    rows = [render_row(variants[letter], pythae) for letter in sorted(variants)]
    versions = f"Measured with {versions_line(results)}."
    return [sentence, "", *table(COLUMNS, rows), "", *render_claims(variants), versions, ""]


def render_estimates(result: dict) -> list[str]:
    """Time and agreement of the importance-sampling estimators."""
    protocol = result["protocol"]
    sentence = (
        f"The log-likelihood of {protocol['num_images']} held-out images under the same VAE, "
        f"trained for {protocol['epochs']} epochs, by importance sampling; "
        f"{machine_name(result['machine'])}."
    )
    rows = []
    for row in sorted(result["answers"], key=lambda r: r["num_samples"]):
        gap = f"{row['difference']:+.4f} ± {row['standard_error']:.4f}"
        rows.append(
            [
                row["name"],
                f"{row['num_samples']:,}",
                f"{1e3 * row['seconds_per_image']:.2f}",
                f"{row['times_faster']:.1f}",
                f"{row['seconds_first_call']:.1f}",
                f"{row['mean']:.3f}",
                gap if row["standard_error"] else "",
            ]
        )
    versions = f"Measured with {versions_line([result])}."
    return [sentence, "", *table(ESTIMATOR_COLUMNS, rows), "", versions, ""]
