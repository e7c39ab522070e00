"""One kind of work on the backend of this process: how much of it a second.

    KERAS_BACKEND=jax python -m backends.child --work block5 --seconds 10 --output found.json

Compilation and the first pass are over before the clock starts. Weights are drawn: they change no
time. `--run` and `--data` are for the work `answers`, which has no rate.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
import functools
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np

from backends.clock import BATCH, DIGITS, IMAGE_SIZE, VAE_BATCH, rate


def draw_pictures(number: int) -> np.ndarray:
    """Pictures of noise, as the network takes them."""
    shape = (number, IMAGE_SIZE, IMAGE_SIZE, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8).astype("float32")


def extract(seconds: float, precision: str = "float32") -> float:
    """VGG16's frozen part by Keras, pictures a second."""
    from safelight.transfer.backbones import load_backbone
    from safelight.transfer.features import FeatureExtractor, FeatureLayer

    backbone = load_backbone("vgg16", image_size=IMAGE_SIZE, weights=None)
    extractor = FeatureExtractor(backbone, engine="keras", precision=precision)
    run = extractor._trunk((FeatureLayer("block5_pool", "avg"),)).run
    return rate(functools.partial(run, draw_pictures(BATCH)), BATCH, seconds)


def block5(seconds: float, precision: str = "float32") -> float:
    """Training of block5 and a head from kept activations, pictures a second."""
    from safelight.transfer import fine_tuning, models
    from safelight.transfer.backbones import load_backbone
    from safelight.transfer.config import TrainConfig
    from safelight.transfer.features import FeatureLayer

    backbone = load_backbone("vgg16", image_size=IMAGE_SIZE, weights=None)
    classifier = models.build_classifier(backbone, [FeatureLayer("block5_pool", "avg")], 2)
    tail = models.build_tail(classifier, [FeatureLayer("block4_pool")], precision=precision)
    fine_tuning._compile(tail, TrainConfig(), 1000)
    rng = np.random.default_rng(0)
    kept = rng.random((BATCH, *tail.input_shape[1:]), dtype="float32")
    targets = np.eye(2, dtype="float32")[rng.integers(0, 2, BATCH)]
    return rate(functools.partial(tail.train_on_batch, kept, targets), BATCH, seconds)


def _digits() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (DIGITS, 28, 28, 1), dtype=np.uint8)


def _train_vae(seconds: float, **settings: Any) -> float:
    from safelight import vae

    shared: dict[str, Any] = {"likelihood": "bernoulli", "minutes": seconds / 60}
    config = vae.TrainConfig(**shared, **settings)
    model = vae.build_vae((28, 28, 1), config)
    return vae.train(model, _digits(), config=config).images_per_second


def dense_vae(seconds: float) -> float:
    """Training of the default autoencoder, pictures a second."""
    return _train_vae(seconds + 5, batch_size=VAE_BATCH, precision="float32")


def conv_vae(seconds: float) -> float:
    """Training of one made of convolutions, pictures a second."""
    return _train_vae(seconds + 5, architecture="conv", precision="float32")


def likelihood(seconds: float) -> float:
    """Importance samples of pictures a second, of the default autoencoder."""
    from safelight import vae

    config = vae.TrainConfig(likelihood="bernoulli")
    model = vae.build_vae((28, 28, 1), config)
    images, samples = _digits()[:100], 1000
    step = functools.partial(
        vae.estimate_log_likelihood,
        model,
        images,
        num_importance_samples=samples,
        precision="float32",
    )
    return rate(step, len(images) * samples, seconds)


def explain(seconds: float) -> float:
    """Grad-CAM of VGG16 with the default head's layers, pictures a second."""
    from safelight.transfer import models
    from safelight.transfer.backbones import load_backbone
    from safelight.transfer.explanations import Explainer
    from safelight.transfer.features import FeatureLayer

    layers = [FeatureLayer(f"block{i}_pool", how) for i in (3, 4, 5) for how in ("avg", "max")]
    backbone = load_backbone("vgg16", image_size=IMAGE_SIZE, weights=None)
    explainer = Explainer(models.build_classifier(backbone, layers, 2))
    pictures = draw_pictures(4).astype("uint8")
    return rate(functools.partial(explainer.explain, pictures), len(pictures), seconds)


def answers(run: Path, data: Path, output: Path) -> None:
    """Probabilities of a run's classifier for some pictures, from here and from its own model."""
    from safelight.runs import Run
    from safelight.transfer import experiment, prediction

    with np.load(data) as arrays:
        pictures = arrays["images"]
    classifier = experiment.load_classifier(Run.open(run))
    np.savez(output, probabilities=prediction.predict(classifier, pictures))


WORK = {
    "extract": extract,
    "block5": block5,
    "dense_vae": dense_vae,
    "conv_vae": conv_vae,
    "likelihood": likelihood,
    "explain": explain,
}


def main() -> None:
    """Do one kind of work and write its rate."""
    parser = argparse.ArgumentParser(description="One kind of work; started by the driver.")
    parser.add_argument("--work", required=True, choices=[*WORK, "answers"])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--precision", help="of extract and block5")
    for name in ("run", "data", "output"):
        parser.add_argument(f"--{name}", type=Path)
    call = parser.parse_args()
    if call.work == "answers":
        answers(call.run, call.data, call.output)
        return
    options = {"precision": call.precision} if call.precision else {}
    found = {"rate": WORK[call.work](call.seconds, **options), "backend": keras.backend.backend()}
    call.output.write_text(json.dumps({**found, "keras": keras.__version__}), encoding="utf-8")


if __name__ == "__main__":
    main()
