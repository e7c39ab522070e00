"""The network of all variants in plain NumPy: its layers, its first weights, and its ELBO.

Every variant hands its weights over in this layout, so that one and the same function judges all.
"""

from __future__ import annotations

import numpy as np

LAYERS = {
    "hidden": (784, 400),
    "mean": (400, 20),
    "log_variance": (400, 20),
    "decoder_hidden": (20, 400),
    "pixels": (400, 784),
}
LATENT_DIM = 20
_CHUNK = 2000
Weights = dict[str, np.ndarray]
"""Per layer of LAYERS a `name/kernel` `(inputs, outputs)` and a `name/bias` `(outputs,)`."""


def first_weights(seed: int) -> Weights:
    """Where all variants begin: uniform after Glorot & Bengio 2010, biases zero; float32."""
    rng = np.random.default_rng(seed)
    weights: Weights = {}
    for name, (inputs, outputs) in LAYERS.items():
        limit = np.sqrt(6 / (inputs + outputs))
        weights[f"{name}/kernel"] = rng.uniform(-limit, limit, (inputs, outputs)).astype("float32")
        weights[f"{name}/bias"] = np.zeros(outputs, "float32")
    return weights


def elbo(weights: Weights, pixels: np.ndarray, noise: np.ndarray) -> float:
    """Mean ELBO in nats per image, with the closed-form KL divergence and one z for each image.

    Args:
        weights: As `first_weights`.
        pixels: `(n, 784)` of 0 and 1.
        noise: `(n, 20)` draws from N(0, 1).
    """
    total = 0.0
    for start in range(0, len(pixels), _CHUNK):
        rows = slice(start, start + _CHUNK)
        total += float(_elbos(weights, pixels[rows], noise[rows]).sum(dtype="float64"))
    return total / len(pixels)


def _elbos(weights: Weights, pixels: np.ndarray, noise: np.ndarray) -> np.ndarray:
    def dense(name: str, x: np.ndarray) -> np.ndarray:
        return x @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]

    x = pixels.astype("float32")
    hidden = np.maximum(dense("hidden", x), 0)
    mean, log_variance = dense("mean", hidden), dense("log_variance", hidden)
    z = mean + np.exp(log_variance / 2) * noise.astype("float32")
    logits = dense("pixels", np.maximum(dense("decoder_hidden", z), 0))
    # log p = x l - log(1 + e^l), without overflow.
    softplus = np.maximum(logits, 0) + np.log1p(np.exp(-np.abs(logits)))
    log_likelihood = (x * logits - softplus).sum(axis=1)
    kl = 0.5 * (np.exp(log_variance) + mean**2 - 1 - log_variance).sum(axis=1)
    return log_likelihood - kl
