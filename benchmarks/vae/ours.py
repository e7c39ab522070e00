"""Safelight in the VAE benchmarks: each call into the library stands in one small function.

The framework is chosen by the variant, so Keras is imported inside functions, before the clock.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from vae.measuring import Assignment, Clock, Measured, run_variant
from vae.network import LATENT_DIM, LAYERS, Weights
from vae.protocol import Protocol

if TYPE_CHECKING:
    from safelight.vae import VAE, TrainConfig

_PACKAGES = {"tensorflow": "tensorflow-cpu", "jax": "jax", "torch": "torch"}


def choose_backend(backend: str) -> None:
    """Import the library on a framework; to be called before anything else imports Keras."""
    os.environ["KERAS_BACKEND"] = backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from safelight.vae import networks

    # The benchmark's activation; the library's own is tanh.
    networks.ACTIVATIONS["dense"] = "relu"
    if backend == "tensorflow":
        import tensorflow  # noqa: F401  the import is not in the measurement
    import safelight.vae.training  # noqa: F401


def make_config(protocol: Protocol, precision: str) -> TrainConfig:
    """The protocol in the library's words.

    Its learning rate falls to zero along a cosine, so it starts at twice the peers' constant one to
    have the same mean; the average of the weights is the library's default.
    """
    from safelight.vae import TrainConfig

    return TrainConfig(
        latent_dim=LATENT_DIM,
        hidden_units=(LAYERS["hidden"][1],),
        likelihood="bernoulli",
        binarization=protocol.binarization,
        epochs=protocol.epochs,
        batch_size=protocol.batch_size,
        learning_rate=2 * protocol.learning_rate,
        precision=precision,
        seed=protocol.seed,
    )


def build(config: TrainConfig, weights: Weights, mean_picture: np.ndarray | None) -> VAE:
    """A model with given weights; the output's bias starts at the mean picture, if there is one."""
    from safelight.vae import build_vae

    model = build_vae((28, 28, 1), config, mean_picture=mean_picture)
    for name, variable in variables_of(model).items():
        if mean_picture is None or name != "pixels/bias":
            variable.assign(np.reshape(weights[name], variable.shape))
    return model


def variables_of(model: VAE) -> dict[str, Any]:
    """The variables under the names that all variants share."""
    encoder, decoder = model.encoder.get_layer, model.decoder.get_layer
    owners = {
        "hidden": encoder("hidden_0"),
        "mean": encoder("mean"),
        "log_variance": encoder("log_variance"),
        "decoder_hidden": decoder("hidden_0"),
    }
    named = {f"{name}/kernel": layer.kernel for name, layer in owners.items()}
    named |= {f"{name}/bias": layer.bias for name, layer in owners.items()}
    pixels = {"kernel": decoder("pixels").kernel, "bias": decoder("location").bias}
    return named | {f"pixels/{part}": variable for part, variable in pixels.items()}


def watch_averages(model: VAE, clock: Clock) -> None:
    """Have the clock told of each epoch's end and of the averaged weights there.

    `train` hands these weights over at the end only, and the benchmark judges them every epoch.
    """
    from safelight.vae import training

    places = {id(v): i for i, v in enumerate(model.trainable_variables)}
    named = {name: places[id(v)] for name, v in variables_of(model).items()}

    class Watched(training._Session):
        def _end_epoch(self) -> None:
            super()._end_epoch()
            shapes = {f"{name}/kernel": shape for name, shape in LAYERS.items()}

            def read() -> Weights:
                return {k: self.good[i].reshape(shapes.get(k, -1)) for k, i in named.items()}

            if clock.end_epoch(read):
                raise KeyboardInterrupt  # the library's documented way to stop early

    training._Session = Watched


def measure(assignment: Assignment, clock: Clock) -> Measured:
    """Train with the library, as its users do."""
    variant = assignment.variant
    choose_backend(variant.backend)
    from safelight.vae import train

    clock.start()
    config = make_config(assignment.protocol, variant.precision)
    images = assignment.images[..., np.newaxis]
    mean_picture = images.mean(axis=0, dtype="float64") / 255
    model = build(config, assignment.weights, mean_picture)
    watch_averages(model, clock)
    trained = train(model, images, config=config)
    settings = {
        "config": dataclasses.asdict(config),
        "threads": assignment.num_threads,
        "dtype": variant.precision,
        "seconds": trained.seconds,
        "images_per_second": trained.images_per_second,
    }
    packages = {name: name for name in ("safelight", "keras", "numpy")}
    packages[variant.backend] = _PACKAGES[variant.backend]
    versions = {name: importlib.metadata.version(package) for name, package in packages.items()}
    return Measured(versions, settings)


if __name__ == "__main__":
    run_variant(measure)
