"""Digits drawn by GANs and VAEs of the same minutes, judged by one score; and by others' GANs.

    python benchmarks/gan_sample_quality.py [--minutes 20] [--only gan,vae,keras,torch] [--seed 0]

MNIST. Safelight's GAN and VAE/GAN (defaults), its VAE with N(0, I) and with a flow as prior
(`--preset quick` for that time; pictures are the decoder's means), and the DCGAN examples of Keras
and of PyTorch (`peers/gan_keras_example.py`, `gan_torch_example.py`, where it stands what was
adapted). 10,000 pictures of each against the 10,000 of the test part, by features of a classifier
of digits. A training that is done is kept in the working folder.
"""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import functools
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from gan.report import NAMES, QUALITY_CLAIM
from repeats import keep, load_digits, parse_options, write_result
from transfer_cached_vs_end_to_end import HERE, ROOT

CLAIM = QUALITY_CLAIM
PEERS = {
    "keras": ("peers.gan_keras_example", None),
    "torch": ("peers.gan_torch_example", ".venv-torch"),
}
NUM = 10_000
logger = logging.getLogger("benchmark")


@functools.cache
def features() -> Any:
    """Those of a classifier of digits, trained on the training part."""
    from safelight import scoring

    return scoring.choose_features(*load_digits("train"), drawn=True)


@functools.cache
def known() -> tuple[np.ndarray, np.ndarray]:
    """Features of pictures learned from, and of the test part."""
    return tuple(features().extract(load_digits(part)[0]) for part in ("train", "test"))


def judge(samples: np.ndarray) -> dict[str, Any]:
    """The score of drawn digits, floats in [0, 1], and which digits there are."""
    from safelight.gan.watch import relative_entropy
    from safelight.generative.scores import score_features

    train, test = known()
    score = score_features(train, test, features().extract(samples))
    counts = np.bincount(features().classify(samples), minlength=10)
    return {
        **score.to_dict(),
        "digits": int((counts > 0).sum()),
        "rarest_digit": float(counts.min() / counts.sum()),
        "entropy": relative_entropy(counts),
    }


def train_game(name: str, minutes: float, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Safelight's GAN or VAE/GAN."""
    from safelight import gan

    images = load_digits("train")[0]
    config = gan.TrainConfig(minutes=minutes, seed=seed, autoencoder=name == "vae_gan")
    model = gan.build_gan(images.shape[1:], config)
    trained = gan.train(model, images, config=config)
    said = {
        "seconds": trained.seconds["training"],
        "images_per_second": trained.images_per_second,
        "advice": trained.advice,
    }
    return model.generate(NUM, seed=seed), said


def train_vae(name: str, minutes: float, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Safelight's VAE."""
    from safelight import vae
    from safelight.vae.config import PRESETS

    images = load_digits("train")[0]
    recipe = PRESETS["quick"] if name == "vae_flow" else {}
    settings = {**recipe, "likelihood": "bernoulli", "binarization": "dynamic"}
    config = vae.TrainConfig(**{**settings, "minutes": minutes, "seed": seed})
    model = vae.build_vae(
        images.shape[1:], config, mean_picture=images.mean(0) / 255, images=images
    )
    trained = vae.train(model, images, config=config)
    said = {
        "seconds": trained.seconds["training"],
        "images_per_second": trained.images_per_second,
    }
    return np.asarray(model.sample(NUM, seed=seed)).clip(0, 1), said


def train_peer(
    options: Any, name: str, minutes: float, seed: int
) -> tuple[np.ndarray, dict[str, Any]]:
    """An example, in a process of its own."""
    module, environment = PEERS[name]
    data, output = options.work / "mnist.npz", options.work / f"{CLAIM}-peer.npz"
    np.savez(data, train=load_digits("train")[0][..., 0])
    python = sys.executable if environment is None else str(ROOT / environment / "bin" / "python")
    arguments = {"minutes": minutes, "num": NUM, "seed": seed}
    paths = {"data": data.resolve(), "output": output.resolve()}
    words = [str(w) for key, value in {**arguments, **paths}.items() for w in (f"--{key}", value)]
    subprocess.run([python, "-m", module, *words], check=True, cwd=HERE)
    with np.load(output) as arrays:
        return arrays["samples"], json.loads(output.with_suffix(".json").read_text())


def measure(options: Any, name: str) -> dict[str, Any]:
    """One training, and what it draws."""
    minutes, seed = float(options.minutes), options.seed
    if name in PEERS:
        samples, said = train_peer(options, name, minutes, seed)
    elif name.startswith("vae") and name != "vae_gan":
        samples, said = train_vae(name, minutes, seed)
    else:
        samples, said = train_game(name, minutes, seed)
    np.save(path_of_samples(options, name), np.rint(255 * samples[:20]).astype("uint8"))
    return {**said, **judge(samples)}


def path_of_samples(options: Any, name: str) -> Path:
    """Where some of what was drawn is kept, for the picture."""
    return options.work / f"{CLAIM}-{name}-{options.minutes}-{options.seed}-samples.npy"


def measure_real(options: Any) -> dict[str, Any]:
    """Pictures of the training part in the place of drawn ones, and the judge's accuracy."""
    rng = np.random.default_rng(options.seed)
    images, _ = load_digits("train")
    chosen = images[rng.choice(len(images), NUM, replace=False)]
    np.save(path_of_samples(options, "real"), chosen[:20])
    test, labels = load_digits("test")
    right = float((features().classify(test) == labels).mean())
    # They are among those that copies are sought in, which says nothing.
    score = {k: v for k, v in judge(chosen / np.float32(255)).items() if k != "copies"}
    return {**score, "protocol": features().protocol, "judge_accuracy": right}


def run_all(options: Any) -> None:
    """Measure what is missing, write one result and draw the picture."""
    names = ["real", *options.only.split(",")]
    rows = {}
    for name in names:
        piece = f"{CLAIM}-{name}-{options.minutes}-{options.seed}"
        how = measure_real if name == "real" else functools.partial(measure, name=name)
        rows[name] = keep(options, piece, functools.partial(how, options))
        logger.info("%s: %s", name, rows[name])
    content = {"minutes": options.minutes, "seed": options.seed, "rows": rows}
    write_result(options, CLAIM, content, f"{options.minutes}min-seed{options.seed}")
    draw(options, names)


def draw(options: Any, names: list[str]) -> None:
    """The picture in docs/pictures: some of what each draws."""
    from safelight import plots

    rows = [(NAMES[name], np.load(path_of_samples(options, name))) for name in names]
    picture = ROOT / "docs" / "pictures" / f"generators-{options.minutes}min.png"
    plots.save_figure(plots.plot_generators(rows, num=14), picture)


if __name__ == "__main__":
    run_all(
        parse_options(
            __doc__ or "",
            only=["gan", "vae_gan", "vae", "vae_flow", *PEERS],
            minutes=20,
            seed=0,
        )
    )
