"""How much less noise sticking the landing and DReG leave in a gradient, as a training goes on.

    python benchmarks/vae_gradient_noise.py [--draws 200] [--seed 0]

A VAE with a flow as prior is trained on MNIST; after 1, 3, 10 and 30 epochs the gradient of one
and the same batch of 100 is drawn again and again with other z: the variance of the encoder's,
summed over its weights, for one sample with the plain estimator and with `stl`, for five samples
with the plain one and with `dreg`. Five batches; the range is that of the five. The picture goes
to docs/pictures/gradient_noise.png.
"""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import functools
from typing import Any

import numpy as np

from repeats import keep, load_digits, parse_options, write_result
from transfer_cached_vs_end_to_end import ROOT

CLAIM = "vae_gradient_noise"
EPOCHS = (1, 3, 10, 30)
WAYS = {
    "plain, one sample": (1, "plain"),
    "sticking the landing, one sample": (1, "stl"),
    "plain, five samples": (5, "plain"),
    "DReG, five samples": (5, "dreg"),
}
BATCH_SIZE, NUM_BATCHES = 100, 5
SHARED = {"likelihood": "bernoulli", "binarization": "dynamic", "prior": "flow"}


def measure(num_draws: int, seed: int) -> dict[str, Any]:
    """Variances and squared norms by way and epoch, one for each batch."""
    from safelight import vae

    images, _ = load_digits("train")
    found: dict[str, dict[str, Any]] = {name: {} for name in WAYS}
    for epochs in EPOCHS:
        config = vae.TrainConfig(gradient="stl", epochs=epochs, seed=seed, **SHARED)
        model = vae.build_vae(images.shape[1:], config, mean_picture=images.mean(0) / 255)
        vae.train(model, images, config=config)
        for name, (num_samples, gradient) in WAYS.items():
            model.num_samples, model.gradient = num_samples, gradient
            found[name][str(epochs)] = look(model, images, num_draws, seed)
    return {"epochs": list(EPOCHS), "num_draws": num_draws, "encoder": found}


def look(model: Any, images: np.ndarray, num_draws: int, seed: int) -> dict[str, list[float]]:
    """The encoder's noise on several batches."""
    from safelight.vae.gradient_noise import measure_noise

    order = np.random.default_rng(seed).permutation(len(images))
    batches = order[: BATCH_SIZE * NUM_BATCHES].reshape(NUM_BATCHES, -1)
    noises = [
        measure_noise(model, images[np.sort(rows)], num_draws=num_draws, seed=seed)["encoder"]
        for rows in batches
    ]
    return {
        "variance": [noise.variance for noise in noises],
        "squared_norm": [noise.squared_norm for noise in noises],
    }


def draw(content: dict[str, Any]) -> None:
    """The picture in docs/pictures."""
    from safelight import plots

    curves = {
        name: [
            (float(epoch), np.mean(values), min(values), max(values))
            for epoch, values in ((e, each["variance"]) for e, each in by_epoch.items())
        ]
        for name, by_epoch in content["encoder"].items()
    }
    figure = plots.plot_curves(
        curves,
        xlabel="epochs of training",
        ylabel="variance of the encoder's gradient",
        log="xy",
    )
    plots.save_figure(figure, ROOT / "docs" / "pictures" / "gradient_noise.png")


def run_all(options: Any) -> None:
    """Measure, unless that was done; write the result and draw the picture."""
    name = f"{CLAIM}-{options.draws}-{options.seed}"
    content = keep(options, name, functools.partial(measure, options.draws, options.seed))
    write_result(options, CLAIM, content, f"seed{options.seed}")
    draw(content)


if __name__ == "__main__":
    run_all(parse_options(__doc__ or "", draws=200, seed=0))
