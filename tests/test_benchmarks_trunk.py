"""The benchmark of the frozen trunk's engines."""

import dataclasses
import importlib
import time
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _scripts_find_each_other(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def module(name):
    return importlib.import_module(name)


def make_trunk_round(seconds):
    """What one process of a variant of the trunk writes."""
    return {
        "seconds": seconds,
        "first_seconds": 2 * max(seconds),
        "peak_gib": 1.5,
        "load_before": 0.1,
        "settings": {},
        "versions": {"numpy": "2"},
    }


def make_trunk_result():
    """Four rows: the reference, the yardstick with an accuracy, the fastest, one left out."""
    summary, protocol = module("trunk.summary"), module("trunk.protocol")
    recipe, rows = protocol.Protocol(num_images=32), []
    passes = {
        "keras-float32": [4.0, 4.0, 5.0],
        "keras-bfloat16": [2.0, 1.6, 3.2],
        "ncnn-float32": [1.0, 1.0, 1.0],
    }
    for name, seconds in passes.items():
        variant = protocol.VARIANTS[name]
        rounds = [make_trunk_round(seconds[:1]), make_trunk_round(seconds[1:])]
        rows.append(summary.summarise(variant, rounds, recipe))
        rows[-1]["difference"] = {"block3_pool/avg": 2e-6, "block5_pool/max": 4e-6}
    rows[1]["difference"]["block5_pool/max"] = 9e-3
    gap = {"value": -0.005, "low": -0.02, "high": 0.01}
    rows[1]["accuracy"] = {"difference": gap, "num_train": 400, "num_test": 200}
    int8 = protocol.VARIANTS["openvino-int8"]
    rows.append(summary.summarise(int8, [], recipe, skipped="nncf not installed"))
    summary.add_times_yardstick(rows)
    return {
        "claim": protocol.CLAIM,
        "machine": {"cpu": "Some CPU", "cpu_family": "", "cores": 2, "instructions": "avx2"},
        "protocol": dataclasses.asdict(recipe),
        "frameworks": {
            "tensorflow": {"best": {"float32": 150.0, "bfloat16": 20.0}},
            "torch": {"best": {"float32": 120.0, "bfloat16": 30.0}},
        },
        "variants": rows,
        "versions": {"numpy": "2"},
    }


def test_the_table_of_engines_compares_with_tensorflows_bfloat16_and_names_who_was_left_out():
    text = module("report").render_table([make_trunk_result()])
    # 30.7 GFLOP an image: 8, 16 and 32 images a second.
    assert "| Keras, float32 | 32 | 8.0 [6.4, 8.0] | 246 | 0.50 |  |  | 1.5 |" in text
    assert (
        "| Keras, bfloat16 | 32 | 16.0 [10.0, 20.0] | 491 | 1.00 | 9e-03 | -0.5 [-2.0, +1.0] |"
        in text
    )
    assert "| ncnn, float32, as Safelight calls it | 32 | 32.0 [32.0, 32.0] | 982 | 2.00 |" in text
    assert "Left out: OpenVINO, int8 by NNCF: nncf not installed." in text
    assert "at 150 GFLOP/s in float32 and 30 in bfloat16" in text
    assert "Some CPU avx2 2 cores." in text
    assert "fitted on 400 cells and judged on 200" in text
    assert module("trunk.protocol").CLAIM == module("transfer_trunk_throughput").CLAIM


def test_the_largest_difference_is_relative_to_the_layers_largest(tmp_path):
    child, summary = module("trunk.child"), module("trunk.summary")
    outputs = module("trunk.protocol").OUTPUTS
    reference = [np.full((2, 3), -4.0) for _ in outputs]
    features = [each.copy() for each in reference]
    features[-1][1, 2] += 0.5
    for name, arrays in (("a", features), ("b", reference)):
        child.save_features(tmp_path / f"{name}.npz", arrays)
    found = summary.largest_differences(tmp_path / "a.npz", tmp_path / "b.npz")
    assert list(found.values()) == [0.0] * (len(outputs) - 1) + [0.125]


def test_a_slow_engine_gets_one_process_and_one_pass():
    child, protocol = module("trunk.child"), module("trunk.protocol")
    recipe = protocol.Protocol(repeats=5, max_seconds=0.01)
    calls = []

    def run(images):
        calls.append(len(images))
        time.sleep(0.02)
        return [images.mean(axis=(1, 2))]

    timed = child.time_passes(run, np.ones((5, 2, 2, 3), np.float32), recipe, 4)
    assert calls == [4, 1, 4, 1]
    assert len(timed["seconds"]) == 1
    assert timed["features"][0].shape == (5, 3)
    assert module("trunk.summary").is_enough([make_trunk_round(timed["seconds"])], recipe)


def test_the_head_on_features_answers_by_its_formula():
    accuracy = module("trunk.accuracy")
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    features = rng.random((44, 6)) + np.r_[labels, 0, 1, 0, 1][:, None]
    widths = (2, 4)
    probabilities = accuracy.fit_and_predict(features, labels, widths)
    assert probabilities.argmax(axis=1).tolist() == [0, 1, 0, 1]
    targets = np.eye(2)[labels]
    head = accuracy.fit_kernel_head(features[:40, None], targets, widths=widths, seed=0)
    roots = [np.sqrt(part) for part in np.split(features[41], [2])]
    row = np.concatenate([part / np.sqrt((part**2).sum()) for part in roots])
    row = (row - head.mean) / head.scale
    similar = np.exp([-head.gamma * np.sum((row - each) ** 2) for each in head.landmarks])
    logits = np.exp(similar @ head.kernel + head.bias)
    np.testing.assert_allclose(probabilities[1], logits / logits.sum(), rtol=1e-5)
