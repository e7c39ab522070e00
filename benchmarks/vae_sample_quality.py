"""Does a learned prior improve samples? Digits of one VAE with three priors, judged by features.

    python benchmarks/vae_sample_quality.py [--minutes 5] [--only normal,mixture,flow] [--seed 0]

The same network is trained on MNIST (dynamic binarisation) for the same time with N(0, I), a
mixture of Gaussians and a flow as prior. Samples are black and white draws, as the model knows
pictures, against test pictures drawn the same way; the judge is a classifier of digits trained by
`safelight.digit_judge` on the training part. Five sets of 10,000 samples each; the real pictures'
own distance, training against test part, shows what is left to gain. Beside it a mixture and a flow
fitted to the latents of the model with N(0, I) afterwards (`vae sample --density`).
"""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import functools
import logging
from typing import Any

import numpy as np

from repeats import keep, load_digits, parse_options, write_result

CLAIM = "vae_sample_quality"
PRIORS = ("normal", "mixture", "flow")
NUM_SAMPLES, NUM_SETS, NUM_IMPORTANCE_SAMPLES = 10_000, 5, 1000
SHARED = {"likelihood": "bernoulli", "binarization": "dynamic", "gradient": "stl"}
logger = logging.getLogger("benchmark")


@functools.cache
def judge() -> Any:
    """The classifier, trained on pictures drawn black and white, as it will be shown."""
    from safelight.digit_judge import train_judge

    images, labels = load_digits("train")
    return train_judge(draw(images / 255, 0), labels)


def draw(probabilities: np.ndarray, seed: int) -> np.ndarray:
    """Black and white pictures, uint8."""
    rng = np.random.default_rng([seed, 7])
    return (rng.random(probabilities.shape, "float32") < probabilities).astype("uint8") * 255


def compare(samples: np.ndarray) -> dict[str, float]:
    """One set of drawn pictures against the test part."""
    from safelight import sample_quality

    real, fake = judge().features(draw(load_digits("test")[0] / 255, 1)), judge().features(samples)
    found = sample_quality.compare_neighbourhoods(real, fake)
    classes = np.bincount(judge().classify(samples), minlength=10) / len(samples)
    return {
        "frechet": sample_quality.frechet_distance(real, fake),
        "precision": found.precision,
        "recall": found.recall,
        "density": found.density,
        "coverage": found.coverage,
        "rarest_class": float(classes.min()),
    }


def sum_up(sets: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation over the sets."""
    columns = {name: [found[name] for found in sets] for name in sets[0]}
    return {
        name: {"mean": float(np.mean(values)), "deviation": float(np.std(values, ddof=1))}
        for name, values in columns.items()
    }


def measure(prior: str, minutes: int, seed: int) -> dict[str, Any]:
    """One training, its likelihood, and its samples."""
    from safelight import vae
    from safelight.vae import densities, fitted_flows

    train, test = load_digits("train"), load_digits("test")
    config = vae.TrainConfig(prior=prior, minutes=float(minutes), seed=seed, **SHARED)
    model = vae.build_vae(
        train[0].shape[1:], config, mean_picture=train[0].mean(0) / 255, images=train[0]
    )
    trained = vae.train(model, train[0], config=config)
    found = vae.estimate_log_likelihood(
        model, test[0][:2000], num_importance_samples=NUM_IMPORTANCE_SAMPLES, seed=seed
    )
    content = {
        "epochs": trained.epochs,
        "seconds": trained.seconds["training"],
        "nll": -found.mean,
        "standard_error": found.standard_error,
        "samples": sum_up(
            [compare(draw(model.sample(NUM_SAMPLES, seed=s), s)) for s in range(NUM_SETS)]
        ),
    }
    if prior == "normal":
        kept, held_out = train[0][:-5000], train[0][-5000:]
        parts = {"train": kept, "validation": held_out, "test": test[0], "seed": seed}
        fitted = {
            "afterwards": densities.fit_density(model, **parts).mixture,
            "afterwards_flow": fitted_flows.fit_flow(model, **parts).density,
        }
        for name, density in fitted.items():
            drawn = (density.decode(model, NUM_SAMPLES, seed=s) for s in range(NUM_SETS))
            content[name] = sum_up([compare(draw(each, s)) for s, each in enumerate(drawn)])
    return content


def measure_real() -> dict[str, Any]:
    """Training pictures in the place of samples, and the judge's accuracy."""
    images, _ = load_digits("train")
    rng = np.random.default_rng(0)
    sets = [
        compare(draw(images[rng.choice(len(images), NUM_SAMPLES, replace=False)] / 255, 10 + s))
        for s in range(NUM_SETS)
    ]
    right = judge().classify(draw(load_digits("test")[0] / 255, 1)) == load_digits("test")[1]
    said = {"protocol": judge().protocol, "accuracy": float(right.mean())}
    return {"samples": sum_up(sets), "judge": said}


def run_all(options: Any) -> None:
    """Measure what is missing and write one result."""
    rows = {"real": keep(options, f"{CLAIM}-real", measure_real)}
    for prior in options.only.split(","):
        name = f"{CLAIM}-{prior}-{options.minutes}-{options.seed}"
        measured = functools.partial(measure, prior, options.minutes, options.seed)
        rows[prior] = keep(options, name, measured)
        logger.info("%s: %s", prior, rows[prior])
    write_result(options, CLAIM, {"minutes": options.minutes, "rows": rows}, f"seed{options.seed}")


if __name__ == "__main__":
    run_all(parse_options(__doc__ or "", only=list(PRIORS), minutes=5, seed=0))
