"""Accuracy on many splits: its peers, its arithmetic and its table."""

import dataclasses
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name in [n for n in sys.modules if n.split(".")[0] in ("accuracy", "repeats")]:
        del sys.modules[name]


def module(name: str):
    return importlib.import_module(name)


def clouds(number: int, seed: int):
    """Two clouds in eight views; labels, and (1 - p, p)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(number) % 2
    rows = rng.normal(2.0 * labels[:, None, None], 1.0, (number, 8, 6)).astype("float32")
    return rows, labels, np.eye(2, dtype="float32")[labels]


@pytest.mark.parametrize("method", ["logistic", "support_vectors"])
def test_peers_learn_what_can_be_learned(method):
    seen, labels, _ = clouds(80, 0)
    new, wanted, _ = clouds(60, 1)
    model = getattr(module("accuracy.peers"), method)(seen[:, 0], labels)
    assert (model.predict_proba(new[:, 0]).argmax(1) == wanted).mean() > 0.95


def test_the_published_head_learns_too():
    seen, labels, targets = clouds(300, 0)
    new, wanted, _ = clouds(60, 1)
    found = module("accuracy.peers").published_head(seen, targets, labels, new, seed=0)
    np.testing.assert_allclose(found.sum(1), 1)
    assert (found.argmax(1) == wanted).mean() > 0.9


def pieces(gap: float) -> dict[str, list[dict]]:
    driver = module("transfer_elpv_accuracy")
    found = {}
    for method in driver.TITLES:
        of = []
        for split in range(4):
            value = 0.8 + 0.01 * split + (gap if method == "default" else 0)
            scores = dict.fromkeys(driver.METRICS, value)
            of.append({"scores": scores, "num_test": 25, "num_learned": 75, "seconds": 3.0})
        found[method] = of
    return found


def test_differences_are_paired_by_split_and_shown():
    driver = module("transfer_elpv_accuracy")
    found = driver.summarize(pieces(0.05))
    assert found["test_to_train"] == pytest.approx(1 / 3)
    gap = found["methods"]["default"]["minus_reference"]["accuracy"]
    # The same gap in every split leaves no spread, however the splits differ.
    assert gap["value"] == pytest.approx(0.05)
    assert gap["high"] - gap["low"] == pytest.approx(0, abs=1e-9)
    result = {
        "claim": driver.CLAIM,
        "machine": {"cpu": "Some CPU", "cpu_family": "", "cores": 2},
        "versions": {"numpy": "2"},
        "titles": driver.TITLES,
        "questions": {"p > 0.5": found},
    }
    text = module("report").render_table([result])
    assert module("report").ACCURACY_CLAIM == driver.CLAIM
    assert "| Safelight, defaults (two mirrored views) | 86.5 [" in text
    assert "5.0 [5.0, 5.0]" in text


def test_the_table_of_foreign_pictures_names_what_is_refused():
    share = {"value": 0.05, "low": 0.04, "high": 0.06}
    result = {
        "claim": module("transfer_unfamiliar").CLAIM,
        "machine": {"cpu": "Some CPU", "cpu_family": "", "cores": 2},
        "versions": {"numpy": "2"},
        "num_splits": 3,
        "rate": 0.05,
        "means": {"digits": {"auroc": {"value": 1.0, "low": 1.0, "high": 1.0},
                             "familiar_refused": share, "foreign_refused": share}},
    }  # fmt: skip
    text = module("report").render_table([result])
    assert result["claim"] == module("report").UNFAMILIAR_CLAIM
    assert "| digits | 1.000 [1.000, 1.000] | 5.0 [4.0, 6.0] | 5.0 [4.0, 6.0] |" in text


def anomaly_pieces():
    """Four splits in which the autoencoder is behind by the same amount."""
    driver = module("vae_anomalies")
    return [
        {
            "auroc": {
                name: 0.8 + 0.01 * split - (0 if name == "vgg16" else 0.1) for name in driver.TITLES
            },
            "num_learned": 1062,
            "num_normal": 354,
            "num_anomalous": 821,
        }
        for split in range(4)
    ]


def test_scores_of_anomalies_are_compared_split_by_split():
    driver = module("vae_anomalies")
    found = driver.summarize(anomaly_pieces())
    gap = found["minus_vgg16"]["elbo"]
    assert gap["value"] == pytest.approx(-0.1)
    assert gap["high"] - gap["low"] == pytest.approx(0, abs=1e-9)
    result = {
        "claim": driver.CLAIM,
        "machine": {"cpu": "Some CPU", "cpu_family": "", "cores": 2},
        "versions": {"numpy": "2"},
        "image_size": 32,
        "epochs": 200,
        **found,
    }
    text = module("report").render_table([result])
    assert module("report").ANOMALIES_CLAIM == driver.CLAIM
    assert "821 against 354 cells, means over 4 random splits" in text
    assert "| Autoencoder, minus the ELBO | 0.715 [" in text
    assert "| -0.100 [-0.100, -0.100] |" in text


def test_normal_cells_are_dealt_out_and_all_others_judge():
    from safelight.datasets import make_shapes

    cells = dataclasses.replace(
        make_shapes(40, image_size=8, num_classes=2), class_names=("functional", "defective")
    )
    learned, judged, odd = module("vae_anomalies").deal(cells, seed=3)
    assert sorted([*learned, *judged]) == list(range(40))
    assert (cells.labels[learned] == 0).all()
    assert (odd == (cells.labels[judged] == 1)).all()
    assert (len(learned), odd.sum()) == (15, 20)


def test_the_grid_s_table_counts_filling_the_cache():
    result = {
        "claim": module("transfer_grid_speed").CLAIM,
        "machine": {"cpu": "Some CPU", "cpu_family": "", "cores": 2},
        "versions": {"numpy": "2"},
        "sizes": [10, 20],
        "num_splits": 2,
        "num_seeds": 3,
        "num_trainings": 12,
        "num_passes": 36_000,
        "rates": {"auto": 10.0, "keras": 5.0},
        "seconds": {"trainings": 240, "fill": 360, "uncached": 3840, "uncached_keras": 7440},
    }
    text = module("report").render_table([result])
    assert result["claim"] == module("report").GRID_CLAIM
    assert "| Safelight, cache empty at the start | 10 | 1.0 | 10.0 |" in text
    assert "| the same without a cache | 64 | 6.4 | 10.0 |" in text
    assert "| without a cache, Keras on TensorFlow | 124 | 12.4 | 5.0 |" in text


def test_the_iwae_table_shows_the_median_seed_beside_the_published_number():
    driver = module("vae_iwae_table")
    runs = [
        {
            "nll": nll,
            "standard_error": 0.9,
            "active": [18, 5],
            "epochs": 40,
            "seconds": 600.0,
            "cores": 2,
        }
        for nll in (86.0, 84.0, 85.0)
    ]
    rows = {name: {**driver.ROWS[name], "runs": runs} for name in ("one-5", "two-1")}
    result = {
        "claim": driver.CLAIM,
        "machine": {"cpu": "Some CPU", "cpu_family": "", "cores": 2},
        "versions": {"numpy": "2"},
        "seeds": 3,
        "rows": rows,
    }
    text = module("report").render_table([result])
    assert "| one layer, k = 5 | 85.00 ± 0.90 | 85.54 | 18 + 5 | 22 | 40 | 10 | 2 |" in text
    assert "| two layers, k = 1 | 85.00 ± 0.90 | 85.33 | 18 + 5 | 16 + 5 | 40 | 10 | 2 |" in text
