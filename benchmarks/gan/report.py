"""The table of what GANs and VAEs draw."""

from __future__ import annotations

from measuring import machine_name
from tables import table, versions_line

QUALITY_CLAIM = "gan_sample_quality"
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
    header = (
        "MNIST", "Frechet distance", "as counted", "kernel distance", "precision, %", "recall, %",
        "density", "coverage, %", "copies, %", "digits", "rarest digit, %", "images/s",
    )  # fmt: skip
    return [
        f"Digits drawn after {result['minutes']} minutes of training each, seed "
        f"{result['seed']}; 10,000 of each against the 10,000 of the test part, by "
        f"{rows['real']['protocol']} (accuracy {100 * rows['real']['judge_accuracy']:.1f} %); "
        "distances without their bias, 95 % intervals over draws of both sides; "
        f"{machine_name(result['machine'])}.",
        "",
        *table(header, [_cells(name, rows[name]) for name in NAMES if name in rows]),
        "",
        f"Measured with {versions_line([result])}.",
        "",
    ]


def _cells(name: str, row: dict) -> list[str]:
    distances = [
        f"{row[key]['value']:.2f} [{row[key]['low']:.2f}, {row[key]['high']:.2f}]"
        for key in ("frechet", "kernel")
    ]
    speed = row.get("images_per_second")
    return [
        NAMES[name],
        distances[0],
        f"{row['frechet_plain']:.2f}",
        distances[1],
        *(f"{100 * row[key]['value']:.1f}" for key in ("precision", "recall")),
        f"{row['density']:.2f}",
        *(f"{100 * row[key]['value']:.1f}" if key in row else "" for key in ("coverage", "copies")),
        str(row["digits"]),
        f"{100 * row['rarest_digit']:.1f}",
        f"{speed:,.0f}" if speed else "",
    ]
