"""What an estimate of log p(x) says of its short cut; its numbers are in test_evaluation.py."""

import numpy as np

from safelight.vae import estimates
from safelight.vae.building import build_vae
from safelight.vae.config import TrainConfig
from safelight.vae.models import VAE

SHAPE = (9, 7, 1)
IMAGES = np.random.default_rng(1).integers(0, 256, (6, *SHAPE), dtype="uint8")


def black_and_white_vae() -> VAE:
    """Of dense layers, and with weights large enough for logits to be far from 0."""
    config = TrainConfig(
        latent_dim=4, hidden_units=(24, 20), likelihood="bernoulli", precision="float32"
    )
    model = build_vae(SHAPE, config)
    for weight in model.trainable_weights:
        weight.assign(2 * weight)
    return model


def test_a_short_cut_that_changes_too_much_is_told(monkeypatch, caplog):
    model = black_and_white_vae()

    def estimate(precision, limit=estimates._MAX_ERROR):
        """What is told, and by how much a sample's log w was off."""
        caplog.clear()
        monkeypatch.setattr(estimates, "_MAX_ERROR", limit)
        found = estimates.estimate_log_likelihood(
            model, IMAGES, num_importance_samples=100, precision=precision
        )
        told = [r.getMessage() for r in caplog.records if r.name == estimates.logger.name]
        return told, found.approximation_error

    told, error = estimate("bfloat16")
    assert told == []
    assert 0 < error < 0.1
    assert estimate("bfloat16", limit=2 * error)[0] == []
    for limit in (0, error / 2):
        (sentence,) = estimate("bfloat16", limit)[0]
        assert f"log p(x, z) by {error:.2f} nats" in sentence
        assert sentence.endswith("estimate with precision='float32' instead.")
    assert estimate("float32", limit=0) == ([], 0)  # nothing was changed
