"""Small runs as training leaves them, made of arrays: nothing is trained, no Keras is loaded."""

import json

import numpy as np
import pytest
from PIL import Image

from safelight.metrics import (
    brier_score,
    classification_metrics,
    expected_calibration_error,
    per_class_table,
)
from safelight.runs import Run

NAMES = ("cat", "dog", "owl")
HOSTILE = ("<img src=x onerror=alert(1)>", "\"'><svg onload=alert(2)>", "a&b\u202e|`c`\n{{7*7}}")
CLASSIFIER_PICTURES = ("mistakes", "suspects", "confusion_matrix")
VAE_PICTURES = ("reconstructions", "samples", "latent_scatter", "kl_per_unit")


def answers(names, *, number=60, seed=0, skill=2.0):
    """Labels and the probabilities of somebody who knows a little."""
    rng = np.random.default_rng(seed)
    labels = np.arange(number) % len(names)
    logits = rng.normal(size=(number, len(names))) + skill * np.eye(len(names))[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return labels, probabilities.round(6) / probabilities.round(6).sum(1, keepdims=True)


def draw_pictures(run, names):
    for place, name in enumerate(names):
        noise = np.random.default_rng(place).integers(0, 256, (40, 60, 3)).astype(np.uint8)
        Image.fromarray(noise).save(run.picture_path(name))


def write_environment(run):
    """As `Run.write_environment`, without asking this machine."""
    found = {
        "safelight": "0.1.0", "commit": "c" * 40, "python": "3.12.1", "backend": "tensorflow",
        "packages": {"keras": "3.15.1", "torch": None}, "system": "Linux", "machine": "x86_64",
        "processor": "P", "cores": 2, "bfloat16": {"amx_bf16": False, "avx512_bf16": None},
    }  # fmt: skip
    (run.path / "environment.json").write_text(json.dumps(found))


def classifier_metrics(labels, probabilities, names, files):
    said = probabilities.argmax(1)
    matrix = np.zeros((len(names), len(names)), int)
    np.add.at(matrix, (labels, said), 1)
    table = per_class_table(labels, probabilities, class_names=names, num_resamples=50)
    counts = {name: int((labels == i).sum()) for i, name in enumerate(names)}
    return {
        **classification_metrics(labels, probabilities, num_resamples=50),
        "per_class": [row.to_dict() for row in table],
        "confusion_matrix": matrix,
        "class_names": list(names),
        "num_test": len(labels),
        "data": {
            "num_per_class": counts,
            "num_per_part": {"train": counts, "validation": {}, "test": counts},
            "imbalance": 1.0,
            "neighbours": None,
            "straddling": [[files[0], files[1]]],
            "doubt": 0.05,
            "suspects": [
                {"file": files[3], "label": names[0], "prediction": names[1], "probability": 0.01}
            ],
        },
        "familiarity": {
            "refused": {"0.05": {"value": 0.04, "low": 0.01, "high": 0.11}},
            "left_out_auroc": dict.fromkeys(names, 0.75),
        },
        "calibration": {
            "temperature": 1.5,
            "ece": expected_calibration_error(labels, probabilities),
            "ece_before": 0.25,
            "brier": brier_score(labels, probabilities),
            "brier_before": 0.5,
        },
        "seconds": {"total": 12.5, "head": 3.25},
        "protocol": {"dataset": "pets", "split": "stratified", "seed": 0, "backbone": "vgg16"},
        "saved_model": {"num_images": 16, "max_difference": 1.5e-6, "same_class": 16},
    }


def classifier_folder(path, *, names=NAMES, files=None, dataset="pets", seed=0, skill=2.0):
    """A finished run of a classifier with all its files."""
    run = Run.create(path)
    labels, probabilities = answers(names, seed=seed, skill=skill)
    files = files or [f"{i:03}.png" for i in range(len(labels))]
    run.write_config(
        {
            "kind": "transfer",
            "dataset": {
                "name": dataset,
                "fingerprint": "f" * 64,
                "num_images": 240,
                "class_names": list(names),
                "problems": [f"{files[2]}: truncated"],
                "duplicates": 2,
                "conflicting_duplicates": [[files[4], files[5]]],
            },
            "split": {
                "strategy": "stratified",
                "seed": 0,
                "fold": None,
                "digests": {"train": ["a"] * 156, "validation": ["b"] * 24, "test": ["c"] * 60},
            },
            "settings": {"backbone": "vgg16", "pretrained": True, "seed": 0, "epochs": 3},
        }
    )
    write_environment(run)
    run.write_history(
        {
            "epoch": [1.0, 2.0, 3.0],
            "loss": [0.9, 0.6, 0.5],
            "val_loss": [1.0, float("nan"), 0.7],
            "accuracy": [0.5, 0.75, 0.8],
            "val_accuracy": [0.4, 0.6, 0.7],
        }
    )
    table = {
        "file": files,
        "label": [names[i] for i in labels],
        "prediction": [names[i] for i in probabilities.argmax(1)],
    }
    table |= {f"p({name})": probabilities[:, i].tolist() for i, name in enumerate(names)}
    run.write_predictions(table)
    draw_pictures(run, CLASSIFIER_PICTURES)
    run.write_metrics(classifier_metrics(labels, probabilities, names, files))
    return run


def nats(value, reach=1.0):
    return {"value": value, "low": value - reach, "high": value + reach}


def vae_folder(path, *, shift=0.0, settings=(), files=40):
    """A finished run of a variational autoencoder; `shift` is added to log p(x)."""
    run = Run.create(path)
    rng = np.random.default_rng(3)
    values = rng.normal(-90, 5, files) + shift
    chosen = {
        "likelihood": "bernoulli", "binarization": "dynamic", "conditional": False,
        "latent_dim": 4, "architecture": "dense", "seed": 0, "epochs": 3, **dict(settings),
    }  # fmt: skip
    run.write_config(
        {
            "kind": "vae",
            "dataset": {
                "name": "mnist", "fingerprint": "e" * 64, "num_images": 100, "class_names": [],
                "problems": [], "duplicates": 0,
            },
            "split": {"strategy": "given", "seed": 0, "digests": {"train": ["a"] * 60}},
            "image_shape": [28, 28, 1],
            "settings": chosen,
        }
    )  # fmt: skip
    write_environment(run)
    epochs = {"epoch": [1.0, 2.0, 3.0], "elbo": [-150.0, -110.0, -100.0]}
    run.write_history({**epochs, "val_elbo": [-140.0, -108.0, -101.0]})
    names = [f"{i:03}.png" for i in range(files)]
    run.write_predictions({"file": names, "log_likelihood": values.tolist()})
    draw_pictures(run, VAE_PICTURES)
    probes = {"linear": nats(0.9, 0.02), "neighbors": nats(0.95, 0.01)}
    run.write_metrics(
        {
            "elbo": nats(-95.0),
            "reconstruction": nats(-75.0),
            "kl": nats(20.0),
            "log_likelihood": nats(float(values.mean())),
            "reconstruction_error": nats(0.125, 0.01),
            "kl_per_unit": [9.0, 0.5, 10.25, 0.25],
            "active_units": 4,
            "latent_dim": 4,
            "num_importance_samples": 100,
            "probes": {"latent": probes, "pca": probes},
            "num_images": files,
            "seconds": {"total": 20.0},
            "protocol": {"dataset": "mnist", "log_likelihood": "100 importance samples"},
        }
    )
    return run


GAN_PICTURES = ("samples", "interpolations", "history")


def gan_folder(
    path, *, frechet=6.0, copies=0.01, features="a judge", test="b", side=28, **settings
):
    """A finished run of an adversarial network."""
    run = Run.create(path)
    run.write_config(
        {
            "kind": "gan",
            "dataset": {
                "name": "mnist", "fingerprint": "e" * 64, "num_images": 100, "class_names": [],
                "problems": [], "duplicates": 0,
            },
            "split": {"strategy": "given", "seed": 0, "digests": {"train": ["a"], "test": [test]}},
            "image_shape": [side, side, 1],
            "settings": {"architecture": "dcgan", "loss": "non_saturating", "seed": 0, **settings},
        }
    )  # fmt: skip
    write_environment(run)
    epochs = {"epoch": [1.0, 2.0], "generator_loss": [1.5, 1.25], "discriminator_loss": [1.0, 0.75]}
    run.write_history({**epochs, "real_accuracy": [0.75, 0.5], "fake_accuracy": [1.0, 0.75]})
    draw_pictures(run, GAN_PICTURES)
    shares = {"precision": 0.75, "recall": 0.5, "coverage": 0.625, "copies": copies}
    run.write_metrics(
        {
            "score": {
                "frechet": nats(frechet, 0.5),
                "frechet_plain": frechet + 1,
                "kernel": nats(0.25, 0.125),
                **{key: nats(share, share / 8) for key, share in shares.items()},
                "num_real": 1000,
                "num_fake": 1000,
            },
            "classes_seen": 9,
            "num_classes": 10,
            "advice": "",
            "seconds": {"total": 20.0},
            "protocol": {"dataset": "mnist", "features": features},
        }
    )
    return run


@pytest.fixture(scope="session")
def make_gan(tmp_path_factory):
    """A run of an adversarial network, as `gan_folder` makes it."""
    place = tmp_path_factory.mktemp
    return lambda name="game", **options: gan_folder(place("run") / name, **options)


@pytest.fixture(scope="session")
def make_classifier(tmp_path_factory):
    """A run of a classifier in a new folder of that name, as `classifier_folder` makes it."""
    place = tmp_path_factory.mktemp
    return lambda name="pets", **options: classifier_folder(place("run") / name, **options)


@pytest.fixture(scope="session")
def make_vae(tmp_path_factory):
    """A run of a variational autoencoder, as `vae_folder` makes it."""
    place = tmp_path_factory.mktemp
    return lambda name="digits", **options: vae_folder(place("run") / name, **options)


@pytest.fixture
def hostile():
    """Names that a page or a card may take for markup."""
    return HOSTILE
