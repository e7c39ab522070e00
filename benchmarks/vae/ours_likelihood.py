"""Safelight's side of vae_likelihood_estimator.py, and the training of the weights it is about."""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prepare import save_arrays
from vae.likelihood import Answer, Question, answer_all, timed
from vae.network import first_weights
from vae.ours import build, choose_backend, make_config, variables_of
from vae.protocol import Protocol

if TYPE_CHECKING:
    from safelight.vae import VAE

_WAYS = {
    "float32": "Safelight, every pixel in float32",
    "auto": "Safelight, as called: bfloat16 around the mean, certain pixels once",
}


def estimate(
    model: VAE, images: np.ndarray, num_samples: int, precision: str, seed: int
) -> np.ndarray:
    """Log p(x) of each image, nats."""
    from safelight.vae import estimate_log_likelihood

    found = estimate_log_likelihood(
        model, images, num_importance_samples=num_samples, precision=precision, seed=seed
    )
    return found.values


def answer(question: Question) -> tuple[list[Answer], dict[str, str]]:
    """The library's estimator: every pixel in float32, and as it is called by default."""
    choose_backend("tensorflow")
    from safelight.vae.estimates import MIN_SAMPLES

    # Black and white as 0 and 255: the model's own draw leaves them as they are.
    images = (255 * question.pixels).astype("uint8").reshape(-1, 28, 28, 1)
    answers = []
    model = build(make_config(Protocol(), "float32"), question.weights, None)
    for precision, name in _WAYS.items():
        for number in question.samples:
            if precision == "auto" and number < MIN_SAMPLES:
                continue  # the same as float32
            function = functools.partial(estimate, model, images, number, precision)
            settings = {"precision": precision, "threads": question.num_threads}
            answers.append(timed(name, number, question.repeats, function, settings))
    packages = {name: name for name in ("safelight", "keras", "numpy")}
    packages["tensorflow"] = "tensorflow-cpu"
    versions = {name: importlib.metadata.version(package) for name, package in packages.items()}
    return answers, versions


def train_weights() -> None:
    """Train for a few epochs and write the weights in the layout of all variants."""
    parser = argparse.ArgumentParser(description="Weights for both parties.")
    for name in ("protocol", "data", "output"):
        parser.add_argument(f"--{name}", required=True, type=Path)
    call = parser.parse_args(sys.argv[2:])
    protocol = Protocol.read(call.protocol)
    choose_backend("tensorflow")
    from safelight.vae import train

    with np.load(call.data) as arrays:
        images = arrays["train"][..., np.newaxis]
    config = make_config(protocol, "float32")
    mean_picture = images.mean(axis=0, dtype="float64") / 255
    model = build(config, first_weights(protocol.seed), mean_picture)
    trained = train(model, images, config=config)
    weights = {
        name: np.array(variable).reshape(-1 if name.endswith("bias") else variable.shape)
        for name, variable in variables_of(trained.model).items()
    }
    save_arrays(call.output, weights)


if __name__ == "__main__":
    train_weights() if sys.argv[1:2] == ["train"] else answer_all(answer)
