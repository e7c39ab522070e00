"""The table of what GANs and VAEs draw."""

from __future__ import annotations

from measuring import machine_name
from tables import table, versions_line

QUALITY_CLAIM = "gan_sample_quality"
HARDER_CLAIM = "gan_harder_data"
SCORES = (
    "Frechet distance", "as counted", "kernel distance", "precision, %", "recall, %",
    "density", "coverage, %", "copies, %",
)  # fmt: skip
NAMES = {
    "real": "real digits",
    "gan": "Safelight, GAN",
    "vae_gan": "Safelight, VAE/GAN",
    "vae": "Safelight, VAE, N(0, I)",
    "vae_flow": "Safelight, VAE, flow",
    "keras": "Keras' DCGAN example",
    "torch": "PyTorch's DCGAN example",
}


def render_quality(result: dict) -> list[str]:
    """One machine and one number of minutes, a row for each generator."""
    rows = result["rows"]
    header = ("MNIST", *SCORES, "digits", "rarest digit, %", "images/s")
    return [
        f"Digits drawn after {result['minutes']} minutes of training each, seed "
        f"{result['seed']}; 10,000 of each against the 10,000 of the test part, by "
        f"{rows['real']['protocol']} (accuracy {100 * rows['real']['judge_accuracy']:.1f} %); "
        "distances without their bias, 95 % intervals over draws of both sides; Safelight's "
        "defaults were found by this score, the examples' were not; "
        f"{machine_name(result['machine'])}.",
        "",
        *table(header, [_cells(name, rows[name]) for name in NAMES if name in rows]),
        "",
        f"Measured with {versions_line([result])}.",
        "",
    ]


def render_harder(result: dict) -> list[str]:
    """One data set, a row for each run that `safelight compare` was given."""
    protocol = result["protocol"]
    rows = [[row["words"], *_score_cells(row["score"])] for row in result["rows"]]
    return [
        f"{result['data']} at 64 pixels, {result['minutes']} minutes of training each, seed "
        f"{result['seed']}; {protocol['num_fake']:,} drawn against {protocol['num_real']:,} of the "
        f"test part, by {protocol['features']}; {machine_name(result['machine'])}.",
        "",
        *table((result["data"], *SCORES), rows),
        "",
        f"Measured with {versions_line([result])}.",
        "",
    ]


def _score_cells(score: dict) -> list[str]:
    """What `SCORES` names."""
    distances = [
        f"{score[key]['value']:.2f} [{score[key]['low']:.2f}, {score[key]['high']:.2f}]"
        for key in ("frechet", "kernel")
    ]
    shares = {
        key: f"{100 * score[key]['value']:.1f}" if key in score else ""
        for key in ("precision", "recall", "coverage", "copies")
    }
    return [
        distances[0],
        f"{score['frechet_plain']:.2f}",
        distances[1],
        shares["precision"],
        shares["recall"],
        f"{score['density']:.2f}",
        shares["coverage"],
        shares["copies"],
    ]


def _cells(name: str, row: dict) -> list[str]:
    speed = row.get("images_per_second")
    return [
        NAMES[name],
        *_score_cells(row),
        str(row["digits"]),
        f"{100 * row['rarest_digit']:.1f}",
        f"{speed:,.0f}" if speed else "",
    ]
