"""Nats against minutes of training: Safelight's presets, a plain VAE, and pythae's models.

    python benchmarks/vae_likelihood_per_minute.py [--minutes 2,10] [--only quick,vamp] [--seed 0]

Every point is a training of its own, with the rate falling to zero within its time, on MNIST with
dynamic binarisation; log p(x) of all 10,000 test images from 5,000 importance samples, by one and
the same estimate for all. pythae's models (`peers/vae_pythae_minutes.py`) have networks as wide as
the plain VAE's, batches of 250 and the better of two learning rates, chosen on held-out training
images in trainings of two minutes. A point that is done is kept in the working folder.
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

from repeats import keep, parse_options, write_result
from transfer_cached_vs_end_to_end import HERE, ROOT

CLAIM = "vae_likelihood_per_minute"
PEERS = ("vae", "vamp", "iwae")
LEARNING_RATES = (1e-3, 2e-3)
HELD_OUT = 5000  # of the training images, for the choice of the peers' learning rate
HIDDEN_UNITS, LATENT_DIM = (300, 300), 40
NUM_IMPORTANCE_SAMPLES = 5000
SHARED = {"likelihood": "bernoulli", "binarization": "dynamic"}
logger = logging.getLogger("benchmark")


def recipes() -> dict[str, dict[str, Any]]:
    """Safelight's own: a plain VAE with the defaults, and the presets without their times."""
    from safelight.vae.config import PRESETS

    presets = {
        name: {key: value for key, value in settings.items() if key != "minutes"}
        for name, settings in PRESETS.items()
    }
    return {"plain": {}, **presets}


def load(part: str) -> np.ndarray:
    """MNIST's images, uint8 `(n, 28, 28, 1)`."""
    from safelight import datasets, vae

    return vae.load_images(datasets.load("mnist", part=part)).images


def measure_ours(name: str, minutes: float, seed: int) -> dict[str, Any]:
    """One training of ours and its judgement."""
    from safelight import vae

    train = load("train")
    config = vae.TrainConfig(**{**recipes()[name], **SHARED, "minutes": minutes, "seed": seed})
    model = vae.build_vae(train.shape[1:], config, mean_picture=train.mean(0) / 255, images=train)
    trained = vae.train(model, train, config=config)
    return {
        "seconds": trained.seconds["training"],
        "epochs": trained.epochs,
        "settings": recipes()[name],
        **judge(model, load("test"), seed),
    }


def judge(model: Any, images: np.ndarray, seed: int, num: int = NUM_IMPORTANCE_SAMPLES) -> dict:
    """-log p(x) with its standard error, and the protocol."""
    from safelight import vae

    found = vae.estimate_log_likelihood(
        model, images, num_importance_samples=num, precision="float32", seed=seed
    )
    return {
        "nll": -found.mean,
        "standard_error": found.standard_error,
        "evaluation_seconds": found.seconds,
        "protocol": found.protocol,
    }


def measure_peer(options: Any, name: str, minutes: float, seed: int) -> dict[str, Any]:
    """One training of pythae's at the better of the learning rates, and its judgement."""
    rates = {
        rate: keep(
            options,
            f"{CLAIM}-{name}-rate{rate}",
            functools.partial(_train_peer, options, name, 2.0, 0, rate, held_out=HELD_OUT),
        )
        for rate in LEARNING_RATES
    }
    best = min(rates, key=lambda rate: rates[rate]["nll"])
    tried = {str(rate): found["nll"] for rate, found in rates.items()}
    found = _train_peer(options, name, minutes, seed, best)
    return {**found, "learning_rate": best, "tried": tried}


def _train_peer(
    options: Any, name: str, minutes: float, seed: int, rate: float, held_out: int = 0
) -> dict[str, Any]:
    train, images, num = load("train"), load("test"), NUM_IMPORTANCE_SAMPLES
    if held_out:
        train, images, num = train[:-held_out], train[-held_out:], 500
    data, weights = options.work / "mnist.npz", options.work / "weights.npz"
    np.savez(data, train=train[..., 0])
    call = [str(ROOT / ".venv-torch" / "bin" / "python"), "-m", "peers.vae_pythae_minutes"]
    arguments = {
        "model": name,
        "minutes": minutes,
        "latent-dim": LATENT_DIM,
        "hidden-units": ",".join(map(str, HIDDEN_UNITS)),
        "learning-rate": rate,
        "seed": seed,
        "data": data.resolve(),
        "output": weights.resolve(),
    }
    call += [str(word) for key, value in arguments.items() for word in (f"--{key}", value)]
    subprocess.run(call, check=True, cwd=HERE, stdout=subprocess.DEVNULL, stderr=sys.stderr)
    said = json.loads(weights.with_suffix(".json").read_text())
    return {**said, **judge(model_of(weights, train), images, seed, num)}


def model_of(path: Path, train: np.ndarray) -> Any:
    """Our model with a peer's weights, so that the same estimate judges all."""
    from safelight import vae

    with np.load(path) as arrays:
        weights = {key: arrays[key] for key in arrays.files}
    pictures = weights.pop("pseudo_inputs", None)
    config = vae.TrainConfig(
        latent_dim=LATENT_DIM,
        hidden_units=HIDDEN_UNITS,
        prior="normal" if pictures is None else "vamp",
        prior_components=500 if pictures is None else len(pictures),
        **SHARED,
    )
    model = vae.build_vae(train.shape[1:], config, mean_picture=train.mean(0) / 255)
    for part in ("encoder", "decoder"):
        mine = [value for key, value in weights.items() if key.startswith(f"{part}/")]
        network = getattr(model, part)
        network.set_weights(
            [w.reshape(v.shape) for w, v in zip(mine, network.weights, strict=True)]
        )
    if pictures is not None:
        # Black and white have no finite logit; 1e-7 of the range is below float32's own steps.
        inside = np.clip(pictures, 1e-7, 1 - 1e-7)
        model.prior.pixels.assign(np.log(inside / (1 - inside)).astype("float32"))
    return model


def measure(options: Any, name: str, minutes: float) -> dict[str, Any]:
    """One point."""
    if name in PEERS:
        return measure_peer(options, name, minutes, options.seed)
    return measure_ours(name, minutes, options.seed)


def run_all(options: Any) -> None:
    """Measure what is missing and write one result."""
    points: dict[str, dict[str, Any]] = {}
    for name in options.only.split(","):
        points[name] = {}
        for minutes in options.minutes.split(","):
            piece = f"{CLAIM}-{name}-{minutes}-{options.seed}"
            found = keep(options, piece, functools.partial(measure, options, name, float(minutes)))
            points[name][minutes] = found
            said = f"{found['nll']:.2f} ({found['standard_error']:.2f}) in {found['seconds']:.0f} s"
            logger.info("%s, %s minutes: %s", name, minutes, said)
    write_result(options, CLAIM, {"points": points, "seed": options.seed}, f"seed{options.seed}")


if __name__ == "__main__":
    run_all(
        parse_options(
            __doc__ or "", only=["plain", "quick", *PEERS], texts={"minutes": "2,10"}, seed=0
        )
    )
