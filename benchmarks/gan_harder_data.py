"""Pictures harder than digits: GAN, VAE/GAN and VAE of the same minutes, judged by one score.

    python benchmarks/gan_harder_data.py [--minutes 5] [--only elpv,folder] [--folder DIR]

ELPV's solar cells, and a folder of colour pictures if one is named (benchmarks/README.md says where
those of the table come from), at 64 pixels. All is done by the commands that users type: `gan
train`, `vae train`, `compare`; what a GAN does by default with few pictures was found on ELPV. A
training that is done is kept in the working folder (`--force` trains again), and one that was cut
off goes on.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from gan.report import HARDER_CLAIM
from repeats import keep, parse_options, write_result
from transfer_cached_vs_end_to_end import ROOT

TRAININGS = {
    "gan": ["gan"],
    "vae_gan": ["gan", "--autoencoder"],
    # Convolutions, since these pictures are larger; a flow, since it draws better than N(0, I).
    "vae_flow": ["vae", "--architecture", "conv", "--prior", "flow", "--gradient", "stl"],
}
SIZE = "64x64"
logger = logging.getLogger("benchmark")


def safelight(*words: str | Path) -> str:
    """What a command of ours prints."""
    command = [sys.executable, "-m", "safelight", *map(str, words)]
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}  # as the result says
    return subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=environment
    ).stdout


def train(options: argparse.Namespace, folder: Path, data: str, name: str) -> Path:
    """The run of one kind, trained unless it is there."""
    run = folder / name
    if options.force or not (run / "metrics.json").exists():
        kind, *settings = TRAININGS[name]
        limits = ["--minutes", options.minutes, "--seed", options.seed, "--image-size", SIZE]
        again = ["--overwrite"] if options.force else []
        safelight(kind, "train", data, "--output", run, *map(str, limits), *settings, *again)
    return run


def measure(options: argparse.Namespace, folder: Path, data: str) -> dict[str, Any]:
    """Every kind trained on one data set, and what `safelight compare` says of them."""
    runs = [train(options, folder, data, name) for name in TRAININGS]
    picture = folder / "generators.png"
    return json.loads(safelight("compare", *runs, "--data", data, "--output", picture, "--json"))


def run_all(options: argparse.Namespace) -> None:
    """Measure what is missing, and write one result for each data set."""
    sources = {"elpv": "elpv", "folder": options.folder}
    for name in options.only.split(","):
        if not (data := sources[name]):
            logger.info("no folder of colour pictures: --folder names one")
            continue
        title = Path(data).name
        # Two folders may have one name.
        which = hashlib.sha256(str(Path(data).resolve()).encode()).hexdigest()[:8]
        piece = f"{HARDER_CLAIM}-{title}-{which}-{options.minutes}-{options.seed}"
        folder = options.work / piece
        found = keep(options, piece, functools.partial(measure, options, folder, data))
        content = {"minutes": options.minutes, "seed": options.seed, "data": title, **found}
        detail = f"{title}-{options.minutes}min-seed{options.seed}"
        write_result(options, HARDER_CLAIM, content, detail)
        drawn = ROOT / "docs" / "pictures" / f"generators-{title}.png"
        drawn.write_bytes((folder / "generators.png").read_bytes())
        logger.info("%s: %s", title, drawn)


if __name__ == "__main__":
    run_all(
        parse_options(
            __doc__ or "", only=["elpv", "folder"], texts={"folder": ""}, minutes=5, seed=0
        )
    )
