"""What the tests of the VAE share: gradients on whichever backend they run, steps uncompiled."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from scipy import special

from safelight.vae import loops


def _gradient(function: Callable[[Any], Any], at: Any) -> np.ndarray:
    """The gradient of a scalar function of one float32 tensor, as NumPy array."""
    point = keras.ops.convert_to_tensor(np.asarray(at, "float32"))
    match keras.backend.backend():
        case "tensorflow":
            import tensorflow as tf

            with tf.GradientTape() as tape:
                tape.watch(point)
                value = function(point)
            found = tape.gradient(value, point)
        case "jax":
            import jax

            found = jax.grad(function)(point)
        case "torch":
            point.requires_grad_(True)
            function(point).backward()
            found = point.grad
    return keras.ops.convert_to_numpy(found)


@pytest.fixture
def no_xla(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling for a second what runs for a millisecond is not worth it."""
    monkeypatch.setattr(loops, "is_convolutional", lambda model: True)


@pytest.fixture(scope="session")
def gradient() -> Callable[[Callable[[Any], Any], Any], np.ndarray]:
    return _gradient


def _noise_of(image: int, num_samples: int, latent_dim: int, *, seed: int) -> np.ndarray:
    """What every image's stream of bits stands for, by quantiles of 23 bits."""
    words = np.random.SFC64([seed, image]).random_raw(num_samples * ((latent_dim + 1) // 2))
    bits = words.view("uint32").reshape(num_samples, -1)[:, :latent_dim]
    shares = (((bits ^ 0x80000000) >> 9).astype("float64") + 0.5) / 2**23
    return special.ndtri(shares).astype("float32")


@pytest.fixture(scope="session")
def noise_of() -> Callable[..., np.ndarray]:
    return _noise_of
