"""Nats against minutes of training: Safelight's presets, a plain VAE, and pythae's models.

    python benchmarks/vae_likelihood_per_minute.py [--minutes 2,10] [--only quick,vamp] [--seed 0]
        [--stage train|judge|report] [--data mnist|fashion-mnist]

Every point is a training of its own, with the rate falling to zero within its time, on MNIST (or
Fashion-MNIST) with dynamic binarisation; log p(x) of all 10,000 test images from 5,000 importance
samples, by one and the same estimate for all. pythae's models (`peers/vae_pythae_minutes.py`) have
networks as wide as the plain VAE's, batches of 250 and the better of two learning rates, chosen on
held-out training images in trainings of two minutes. A point that is done is kept in the working
folder, and so are its weights: `--stage train` leaves the judgement, which takes longer than a
short training and is the same anywhere, for a call with `--stage judge`, perhaps on another
machine; `--stage report` takes the points that are there.
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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from measuring import machine
from repeats import keep, load_digits, parse_options, write_result
from transfer_cached_vs_end_to_end import HERE, ROOT
from vae.generative_report import DATA, NAMES

CLAIM = "vae_likelihood_per_minute"
STAGES = ("train", "judge", "report")
PEERS = ("vae", "vamp", "iwae")
LEARNING_RATES = (1e-3, 2e-3)
HELD_OUT = 5000  # of the training images, for the choice of the peers' learning rate
HIDDEN_UNITS, LATENT_DIM = (300, 300), 40
NUM_IMPORTANCE_SAMPLES = 5000
# Dynamic binarisation. pythae's own table of reproductions (its README); the VampPrior (arXiv
# 1705.07120) as trained for Exemplar VAEs (Norouzi et al. 2020, arXiv 2004.04795), 5,000 samples.
PUBLISHED = {"pythae's best, PIWAE, published": 84.58, "VampPrior, gated layers, published": 82.43}
SHARED = {"likelihood": "bernoulli", "binarization": "dynamic"}
logger = logging.getLogger("benchmark")


def recipes() -> dict[str, dict[str, Any]]:
    """Safelight's own: a plain VAE with the defaults, and the timed presets without their times."""
    from safelight.vae.config import PRESETS

    presets = {
        name: {key: value for key, value in settings.items() if key != "minutes"}
        for name, settings in PRESETS.items()
        if "minutes" in settings
    }
    return {"plain": {}, **presets}


def configure(name: str, minutes: float, seed: int) -> Any:
    """The settings of one of ours."""
    from safelight import vae

    return vae.TrainConfig(**{**recipes()[name], **SHARED, "minutes": minutes, "seed": seed})


def train_ours(data: str, name: str, minutes: float, seed: int, weights: Path) -> dict[str, Any]:
    """One training of ours; what it learned goes into a file."""
    from safelight import vae

    train, config = load_digits("train", data)[0], configure(name, minutes, seed)
    model = vae.build_vae(train.shape[1:], config, mean_picture=train.mean(0) / 255, images=train)
    trained = vae.train(model, train, config=config)
    save_weights(model, weights)
    return {
        "seconds": trained.seconds["training"],
        "epochs": trained.epochs,
        "settings": recipes()[name],
        "elbo_of_training": trained.history["elbo"][-1],
    }


def save_weights(model: Any, path: Path) -> None:
    """All of a model's weights, in its own order."""
    from safelight.runs import atomic_path

    with atomic_path(path) as partial, partial.open("wb") as file:
        np.savez(file, *model.get_weights())


def rebuild_ours(name: str, minutes: float, seed: int, weights: Path) -> Any:
    """The model that `train_ours` left."""
    from safelight import vae

    model = vae.build_vae((28, 28, 1), configure(name, minutes, seed))
    with np.load(weights) as arrays:
        model.set_weights([arrays[key] for key in arrays.files])
    return model


def judge(model: Any, images: np.ndarray, seed: int, num: int = NUM_IMPORTANCE_SAMPLES) -> dict:
    """-log p(x) with its standard error, the protocol, and where it was computed."""
    from safelight import vae
    from safelight.environment import describe_environment

    found = vae.estimate_log_likelihood(
        model, images, num_importance_samples=num, precision="float32", seed=seed
    )
    here = describe_environment()
    return {
        "nll": -found.mean,
        "standard_error": found.standard_error,
        "evaluation_seconds": found.seconds,
        "protocol": found.protocol,
        "judged_on": {**machine(), **{key: here[key] for key in ("backend", "accelerator")}},
    }


def train_peer(options: Any, name: str, minutes: float, seed: int, weights: Path) -> dict[str, Any]:
    """One training of pythae's at the better of the learning rates."""
    rates = {
        rate: keep(
            options,
            f"{_claim(options)}-{name}-rate{rate}",
            functools.partial(_try_peer, options, name, rate),
        )
        for rate in LEARNING_RATES
    }
    best = min(rates, key=lambda rate: rates[rate]["nll"])
    tried = {str(rate): found["nll"] for rate, found in rates.items()}
    train = load_digits("train", options.data)[0]
    said = _run_peer(options, name, minutes, seed, best, train, weights)
    return {**said, "learning_rate": best, "tried": tried}


def _try_peer(options: Any, name: str, rate: float) -> dict[str, Any]:
    """Two minutes at a learning rate, judged on held-out training images."""
    images = load_digits("train", options.data)[0]
    weights = options.work / f"{_claim(options)}-peer.npz"
    train, held_out = images[:-HELD_OUT], images[-HELD_OUT:]
    said = _run_peer(options, name, 2.0, 0, rate, train, weights)
    return {**said, **judge(model_of(weights, train), held_out, 0, 500)}


def _run_peer(
    options: Any,
    name: str,
    minutes: float,
    seed: int,
    rate: float,
    train: np.ndarray,
    weights: Path,
) -> dict[str, Any]:
    data = options.work / f"{options.data}.npz"
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
    return json.loads(weights.with_suffix(".json").read_text())


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


def train(options: Any, name: str, minutes: float, weights: Path) -> dict[str, Any]:
    """One training."""
    if name in PEERS:
        return train_peer(options, name, minutes, options.seed, weights)
    return train_ours(options.data, name, minutes, options.seed, weights)


def measure(options: Any, stages: Sequence[str], name: str, minutes: str) -> None:
    """One point: its training, its judgement, or both; what is done already is kept."""
    piece = f"{_claim(options)}-{name}-{minutes}-{options.seed}"
    weights = options.work / f"{piece}-weights.npz"
    known = options.work / f"{piece}-trained.json"
    if "train" in stages and not (options.work / f"{piece}.json").exists():
        call = functools.partial(train, options, name, float(minutes), weights)
        keep(options, known.stem, lambda: {**call(), "trained_on": machine()})
    if "judge" in stages:
        keep(options, piece, functools.partial(judge_point, options, name, minutes, known, weights))


def judge_point(
    options: Any, name: str, minutes: str, known: Path, weights: Path
) -> dict[str, Any]:
    """A training that is kept, and what it is worth."""
    if not known.exists():
        raise SystemExit(f"{known}: not there; --stage train makes it.")
    model = (
        model_of(weights, load_digits("train", options.data)[0])
        if name in PEERS
        else rebuild_ours(name, float(minutes), options.seed, weights)
    )
    trained = json.loads(known.read_text(encoding="utf-8"))
    return {**trained, **judge(model, load_digits("test", options.data)[0], options.seed)}


def _claim(options: Any) -> str:
    """What the names of kept pieces begin with."""
    return CLAIM if options.data == "mnist" else f"{CLAIM}-{options.data}"


def run_all(options: Any) -> None:
    """Measure what is missing; write one result from all points of the seed that are there."""
    if options.stage not in ("all", *STAGES):
        raise SystemExit(f"--stage {options.stage}: expected all, or one of {', '.join(STAGES)}.")
    if options.data not in DATA:
        raise SystemExit(f"--data {options.data}: expected one of {', '.join(DATA)}.")
    stages = STAGES if options.stage == "all" else (options.stage,)
    for name in options.only.split(","):
        for minutes in options.minutes.split(","):
            measure(options, stages, name, minutes)
    if "report" in stages:
        points = read_points(options)
        content = {"points": points, "seed": options.seed, "data": options.data}
        detail = "" if options.data == "mnist" else f"{options.data}-"
        write_result(options, CLAIM, content, f"{detail}seed{options.seed}")
        if options.data == "mnist":
            draw(points)


def read_points(options: Any) -> dict[str, dict[str, Any]]:
    """What was trained here and judged wherever, by name and minutes."""
    points: dict[str, dict[str, Any]] = {}
    here = machine()
    for name in NAMES:
        for path in options.work.glob(f"{_claim(options)}-{name}-*-{options.seed}.json"):
            minutes = path.stem.split("-")[-2]
            found = json.loads(path.read_text(encoding="utf-8"))
            if found.get("trained_on", here) != here:
                logger.warning("%s, %s minutes: trained on another machine", name, minutes)
                continue
            points.setdefault(name, {})[minutes] = found
            said = f"{found['nll']:.2f} ({found['standard_error']:.2f}) in {found['seconds']:.0f} s"
            logger.info("%s, %s minutes: %s", name, minutes, said)
    return points


def draw(points: dict[str, dict[str, Any]]) -> None:
    """The picture in docs/pictures: a point and two standard errors each way."""
    from safelight import plots

    curves: dict[str, list[tuple[float, ...]]] = {}
    for name, some in points.items():
        # One curve of the presets: each is the recipe for its minutes.
        title = "Safelight, presets" if name in ("quick", "good", "best") else NAMES[name]
        curve = [(float(minutes), found["nll"], *_bounds(found)) for minutes, found in some.items()]
        curves[title] = sorted([*curves.get(title, []), *curve])
    figure = plots.plot_curves(
        curves,
        xlabel="minutes of training, two CPU cores",
        ylabel="-log p(x) of the test part, nats",
        levels=PUBLISHED,
        log="x",
    )
    plots.save_figure(figure, ROOT / "docs" / "pictures" / "likelihood_per_minute.png")


def _bounds(found: dict[str, Any]) -> tuple[float, float]:
    margin = 2 * found["standard_error"]
    return found["nll"] - margin, found["nll"] + margin


if __name__ == "__main__":
    run_all(
        parse_options(
            __doc__ or "",
            only=["plain", "quick", *PEERS],
            texts={"minutes": "2,10", "stage": "all", "data": "mnist"},
            seed=0,
        )
    )
