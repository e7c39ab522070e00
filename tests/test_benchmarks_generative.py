"""Benchmarks of likelihood, samples and gradient noise: their tables, and the peers' weights."""

import json
import types

import keras
import numpy as np
import pytest

KNOWN = {
    "machine": {"cpu": "Some CPU", "cpu_family": "", "cores": 2},
    "versions": {"numpy": "2"},
}


def test_the_table_of_minutes_leaves_open_what_was_not_measured(module):
    driver = module("vae_likelihood_per_minute")
    point = {"nll": 83.125, "standard_error": 0.25, "seconds": 600.0}
    settings = json.loads(json.dumps(driver.recipes()))
    quick = {**point, "settings": settings["quick"]}
    best = {**point, "settings": {**settings["best"], "final_samples": 9}}
    points = {
        "quick": {"10": quick, "2": {**quick, "nll": 86.0}},
        "best": {"10": best},
        "vamp": {"10": point},
    }
    result = {"claim": driver.CLAIM, **KNOWN, "points": points, "seed": 0}
    text = module("report").render_table([result])
    assert "| -log p(x), nats | after 2 min of training | after 10 min of training |" in text
    assert "| Safelight, `--preset quick` | 86.00 ± 0.25 | 83.12 ± 0.25 |" in text
    assert "`--preset best` as it was then, with final_samples 9 |  | 83.12 ± 0.25 |" in text
    assert "| pythae's VAMP, 500 pseudo-inputs |  | 83.12 ± 0.25 |" in text
    assert text.startswith("MNIST, dynamic binarisation")
    text = module("report").render_table([{**result, "data": "fashion-mnist"}])
    assert text.startswith("Fashion-MNIST, dynamic binarisation")
    assert "228.70 for a VAE" in text


def test_the_table_of_samples_shows_every_prior_and_the_density_fitted_afterwards(module):
    driver = module("vae_sample_quality")
    names = ("frechet", "precision", "recall", "density", "coverage", "rarest_class")
    scores = driver.sum_up([dict.fromkeys(names, 0.25), dict.fromkeys(names, 0.75)])
    assert scores["recall"] == pytest.approx({"mean": 0.5, "deviation": 0.5 / np.sqrt(2)})
    rows = {
        "real": {"samples": scores, "judge": {"protocol": "64 features", "accuracy": 0.99}},
        "normal": {
            "nll": 90.0,
            "standard_error": 0.5,
            "samples": scores,
            "afterwards": scores,
            "afterwards_flow": scores,
        },
    }
    text = module("report").render_table(
        [{"claim": driver.CLAIM, **KNOWN, "minutes": 5, "rows": rows}]
    )
    assert "in 64 features (right on 99.0 % of the test part)" in text
    assert "| normal prior | 90.0 ± 0.5 | 0.50 ± 0.35 | 0.500 ± 0.354 |" in text
    assert "| the same, a mixture fitted afterwards |  | 0.50 ± 0.35 |" in text
    assert "| the same, a flow fitted afterwards |  | 0.50 ± 0.35 |" in text


def test_the_table_of_noise_shows_the_median_batch(module):
    driver = module("vae_gradient_noise")
    found = {"1": {"variance": [3.0, 1.0, 2.0]}, "10": {"variance": [30.0, 10.0, 20.5]}}
    content = {"epochs": [1, 10], "num_draws": 9, "encoder": {"plain, one sample": found}}
    text = module("report").render_table([{"claim": driver.CLAIM, **KNOWN, **content}])
    assert "| plain, one sample | 2 | 20.5 |" in text


@pytest.mark.parametrize("prior", ["normal", "vamp"])
def test_a_peers_weights_give_our_model_its_function(module, tmp_path, monkeypatch, prior):
    """Dense layers in NumPy, and the density of the pseudo-inputs' posteriors, by hand."""
    driver = module("vae_likelihood_per_minute")
    monkeypatch.setattr(driver, "HIDDEN_UNITS", (6, 5))
    monkeypatch.setattr(driver, "LATENT_DIM", 2)
    rng = np.random.default_rng(0)
    shapes = {"encoder": [(16, 6), (6, 5), (5, 2), (5, 2)], "decoder": [(2, 5), (5, 6), (6, 16)]}
    weights = {}
    for part, layers in shapes.items():
        for i, shape in enumerate(layers):
            weights[f"{part}/{i}/kernel"] = rng.normal(size=shape).astype("float32") / 3
            weights[f"{part}/{i}/bias"] = rng.normal(size=shape[1:]).astype("float32") / 3
    if prior == "vamp":
        weights["pseudo_inputs"] = rng.integers(0, 2, (7, 4, 4, 1)).astype("float32")
    np.savez(tmp_path / "weights.npz", **weights)
    images = rng.integers(0, 256, (9, 4, 4, 1)).astype("uint8")
    model = driver.model_of(tmp_path / "weights.npz", images)

    def apply(x, part, layer):
        return x @ weights[f"{part}/{layer}/kernel"] + weights[f"{part}/{layer}/bias"]

    def encode(x):
        hidden = np.tanh(apply(np.tanh(apply(x.reshape(len(x), -1), "encoder", 0)), "encoder", 1))
        return apply(hidden, "encoder", 2), apply(hidden, "encoder", 3)

    mean, log_variance = encode(images / 255)
    np.testing.assert_allclose(model.encode(images)[0], mean, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(model.encode(images)[1], log_variance, rtol=1e-3, atol=1e-5)
    z = rng.normal(size=(3, 2)).astype("float32")
    hidden = np.tanh(apply(np.tanh(apply(z, "decoder", 0)), "decoder", 1))
    pixels = 1 / (1 + np.exp(-apply(hidden, "decoder", 2)))
    np.testing.assert_allclose(model.decode(z).reshape(3, -1), pixels, rtol=1e-3, atol=1e-5)
    if prior == "vamp":
        means, logs = encode(weights["pseudo_inputs"])
        squares = np.square(z[:, None] - means) / np.exp(logs) + logs + np.log(2 * np.pi)
        density = np.log(np.exp(-0.5 * squares.sum(-1)).mean(1))
        found = keras.ops.convert_to_numpy(keras.ops.stop_gradient(model.prior.log_density(z)))
        np.testing.assert_allclose(found, density, rtol=1e-3)


@pytest.mark.parametrize(("rate", "sizes"), [(100.0, [1024, 2048, 4096]), (0.5, [1024])])
def test_products_that_would_take_minutes_are_left_out(module, monkeypatch, rate, sizes):
    driver, calls = module("matrix_product_rate"), []

    def seconds(size):
        calls.append(size)
        return 2e-9 * size**3 / rate

    monkeypatch.setattr(driver, "_seconds", seconds)
    found = driver.rates_by_size(lambda size: size)
    assert [int(size) for size in found] == sizes
    assert list(found.values()) == pytest.approx([rate] * len(sizes))
    assert sorted(set(calls)) == sizes


def test_points_of_another_machine_and_those_not_judged_are_left_out(module, tmp_path):
    driver = module("vae_likelihood_per_minute")
    here = {"nll": 80.0, "standard_error": 0.1, "seconds": 60.0, "trained_on": driver.machine()}
    elsewhere = {**here, "trained_on": {**driver.machine(), "cpu": "another"}}
    for name, content in {"quick-2": here, "best-60": elsewhere, "quick-10": here}.items():
        path = tmp_path / f"{driver.CLAIM}-{name}-0.json"
        path.write_text(json.dumps(content))
    (tmp_path / f"{driver.CLAIM}-vamp-10-0-trained.json").write_text("{}")
    (tmp_path / f"{driver.CLAIM}-quick-30-1.json").write_text(json.dumps(here))
    clothes = {**here, "nll": 230.0}
    path = tmp_path / f"{driver.CLAIM}-fashion-mnist-quick-10-0.json"
    path.write_text(json.dumps(clothes))
    options = types.SimpleNamespace(work=tmp_path, seed=0, data="mnist")
    assert driver.read_points(options) == {"quick": {"2": here, "10": here}}
    options.data = "fashion-mnist"
    assert driver.read_points(options) == {"quick": {"10": clothes}}


def test_the_table_of_harder_data_has_a_row_for_each_run_and_for_real_pictures(module):
    report = module("report")
    shares = {name: {"value": 0.25, "low": 0.1, "high": 0.4} for name in ("precision", "recall")}
    distance = {"value": 2.0, "low": 1.5, "high": 2.5}
    score = {
        **shares,
        "coverage": shares["recall"],
        "frechet": distance,
        "frechet_plain": 3.0,
        "kernel": distance,
        "density": 0.5,
    }
    rows = [
        {"words": "pictures of the training part", "score": score},
        {"words": "GAN, dcgan", "score": {**score, "copies": {**distance, "value": 0.125}}},
    ]
    result = {
        **KNOWN,
        "claim": report.gan_report.HARDER_CLAIM,
        "data": "cells",
        "minutes": 5,
        "seed": 0,
        "rows": rows,
        "protocol": {"num_real": 656, "num_fake": 656, "features": "some features"},
    }
    text = report.render_table([result])
    numbers = "2.00 [1.50, 2.50] | 3.00 | 2.00 [1.50, 2.50] | 25.0 | 25.0 | 0.50 | 25.0"
    assert f"| pictures of the training part | {numbers} |  |" in text
    assert f"| GAN, dcgan | {numbers} | 12.5 |" in text
