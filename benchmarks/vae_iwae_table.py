"""The table of Burda et al. 2016 (arXiv 1509.00519): does our VAE reach the published likelihoods?

    python benchmarks/vae_iwae_table.py [--minutes 30] [--only one-1,one-5,one-50,two-1] [--seeds 1]

MNIST with dynamic binarisation; networks as published: two hidden layers of 200 tanh units and 50
latents, or 100 latents under 50 more with two hidden layers of 100 between them, inferred bottom
up. The schedule is not the published one (3,280 epochs in batches of 20): Adam with a cosine decay
over the time that is given, and averaged weights. log p(x) of all 10,000 test images from 5,000
importance samples. A row that is done is kept in the working folder.
"""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import functools
import logging
from typing import Any

from repeats import keep, load_digits, parse_options, write_result

CLAIM = "vae_iwae_table"
# Published: nats per image (table 1), and active units of each layer.
ROWS: dict[str, dict[str, Any]] = {
    "one-1": {"num_samples": 1, "published": 86.76, "published_active": [19]},
    "one-5": {"num_samples": 5, "published": 85.54, "published_active": [22]},
    "one-50": {"num_samples": 50, "published": 84.78, "published_active": [25]},
    "two-1": {"num_samples": 1, "published": 85.33, "published_active": [16, 5]},
}
SHARED = {"hidden_units": (200, 200), "likelihood": "bernoulli", "binarization": "dynamic"}
ONE_LAYER = {"latent_dim": 50}
TWO_LAYERS = {"latent_dim": 100, "second_latent_dim": 50, "inference": "bottom_up"}
logger = logging.getLogger("benchmark")


def measure(row: str, minutes: int, seed: int) -> dict[str, Any]:
    """One training and its judgement."""
    from safelight import vae
    from safelight.vae.evaluation import active_units

    train, test = (load_digits(part)[0] for part in ("train", "test"))
    layers = TWO_LAYERS if row.startswith("two") else ONE_LAYER
    config = vae.TrainConfig(
        **SHARED,
        **layers,
        num_samples=ROWS[row]["num_samples"],
        # The noise of k = 1 is that of sticking the landing, of more of DReG: same objective.
        gradient="stl" if ROWS[row]["num_samples"] == 1 else "dreg",
        minutes=float(minutes),
        batch_size=200,
        seed=seed,
    )
    model = vae.build_vae(train.shape[1:], config, mean_picture=train.mean(0) / 255)
    trained = vae.train(model, train, config=config)
    report = vae.evaluate(model, test, num_importance_samples=5000, seed=seed)
    mean, _ = model.encode(test)
    active, first = active_units(mean), config.latent_dim
    assert report.estimate is not None
    return {
        "nll": -report.estimate.mean,
        "standard_error": report.estimate.standard_error,
        "active": [int(part.sum()) for part in (active[:first], active[first:]) if len(part)],
        "epochs": trained.epochs,
        "seconds": trained.seconds["training"],
        "images_per_second": trained.images_per_second,
        "evaluation_seconds": report.estimate.seconds,
        "protocol": report.estimate.protocol,
    }


def run_all(options: Any) -> None:
    """Measure what is missing and write one result."""
    rows: dict[str, Any] = {}
    for row in options.only.split(","):
        found = []
        for seed in range(options.seeds):
            name = f"{CLAIM}-{row}-{options.minutes}-{seed}"
            found.append(
                keep(options, name, functools.partial(measure, row, options.minutes, seed))
            )
            logger.info("%s, seed %d: %.2f nats, %s", row, seed, found[-1]["nll"], found[-1])
        rows[row] = {**ROWS[row], "runs": found}
    content = {"minutes": options.minutes, "seeds": options.seeds, "rows": rows}
    write_result(options, CLAIM, content, f"{options.minutes}min")


if __name__ == "__main__":
    run_all(parse_options(__doc__ or "", only=list(ROWS), minutes=30, seeds=1))
