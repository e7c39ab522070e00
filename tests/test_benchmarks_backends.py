"""Benchmarks of backends and exports: their tables, and what they ask of each backend."""

import json

import pytest

KNOWN = {
    "machine": {"cpu": "Some CPU", "cpu_family": "", "cores": 2},
    "versions": {"numpy": "2"},
}


def test_the_table_of_speeds_has_a_column_for_each_that_did_any_of_the_work(module):
    driver = module("backends_speed")
    some = {name: {"median": 10.0 * i} for i, name in enumerate(driver.BACKENDS, start=1)}
    work = {
        "block5": {**some, "plain-float32": {"median": 12.5}},
        "likelihood": {name: {"median": 123_456.0} for name in driver.BACKENDS},
    }
    result = {"claim": driver.CLAIM, **KNOWN, "work": work, "seconds": 10, "rounds": 3}
    answers = {
        "num_pictures": 100,
        "largest_difference": {"jax": 2e-6, "torch": 3e-6},
        "agreement": {"jax": 1.0, "torch": 0.99},
    }
    text = module("report").render_table([{**result, "jax": "1", "torch": "2", "answers": answers}])
    assert "where nothing else is said | TensorFlow | JAX | PyTorch | plain PyTorch |" in text
    assert "| 10 | 20 | 30 | 12.5 |" in text
    assert "| importance samples of pictures, thousands/s | 123 | 123 | 123 |  |" in text
    assert "JAX 2.0e-06 apart and 100 % the same class; PyTorch 3.0e-06 apart and 99 %" in text
    assert tuple(module("backends.report").WORK) == driver.WORK


def test_a_rate_counts_whole_steps_and_leaves_the_first_out(module, monkeypatch):
    clock = module("backends.clock")
    now = iter([0.0, 0.0, 1.0, 2.0, 3.0, 3.0])
    monkeypatch.setattr(clock.time, "perf_counter", lambda: next(now))
    steps = []
    assert clock.rate(lambda: steps.append(1), 16, 3.0) == pytest.approx(3 * 16 / 3.0)
    assert len(steps) == 4


def test_the_table_of_exports_tells_what_eight_bits_cost(module):
    driver = module("export_parity")
    parity = {
        "agreement": 0.998,
        "largest_difference": 0.125,
        "accuracy_change": {"value": -0.004, "low": -0.01, "high": 0.002},
    }
    row = {
        "backend": "tensorflow",
        "parity": parity,
        "bytes": 55_000_000,
        "pictures_per_second": {"1": 2.0, "16": 3.25},
    }
    run = {"backbone": "vgg16", "image_size": 96, "test_views": 2, "head": "auto"}
    result = {"claim": driver.CLAIM, **KNOWN, "run": run, "pictures": 500}
    text = module("report").render_table([{**result, "rows": {"onnx-int8": row}}])
    wanted = "| `onnx-int8` | TensorFlow | 99.8 | 1.2e-01 | -0.4 [-1.0, +0.2] | 55 | 2.0 | 3.2 |"
    assert wanted in text


def test_every_format_that_there_is_is_compared(module, tmp_path):
    from safelight.export.formats import FORMATS

    driver = module("export_parity")
    assert set(driver.FORMATS) == set(FORMATS)
    assert all(backend in FORMATS[name].backends for name, (backend, _) in driver.FORMATS.items())
    settings = {"backbone": "vgg16", "image_size": 96, "test_views": 2, "head": "auto", "seed": 0}
    (tmp_path / "config.json").write_text(json.dumps({"settings": settings}), encoding="utf-8")
    assert driver.describe_run(tmp_path)["image_size"] == 96
