"""Accuracies of probes, whose intervals are as wide as they were asked to be."""

import types

import numpy as np
import pytest
import scipy.stats

from safelight.vae.probes import probe


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.99])
def test_accuracies_have_wilsons_interval_at_any_confidence(confidence):
    rng, labels = np.random.default_rng(0), np.arange(150) % 2
    images = rng.integers(0, 156, (150, 4, 4, 1), dtype="uint8")
    images[:, 0, 0, 0] += (100 * labels).astype("uint8")  # four of five can be told by it

    def encode(images):
        return images[:, 0, :2, 0].astype("float32") / 255, None

    model = types.SimpleNamespace(num_classes=0, latent_dim=2, encode=encode)
    parts = (images[:100], labels[:100]), (images[100:], labels[100:])
    report = probe(model, *parts, confidence=confidence)
    names = "latent_linear", "latent_neighbors", "pca_linear", "pca_neighbors"
    for found in (getattr(report, name) for name in names):
        test = scipy.stats.binomtest(round(50 * found.value), 50)
        ends = test.proportion_ci(confidence, method="wilson")
        assert (found.low, found.high) == pytest.approx((ends.low, ends.high))
    assert 0.6 < report.latent_linear.value < 1
