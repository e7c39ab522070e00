"""What the tests of games share."""

import keras
import numpy as np
import pytest

from safelight.gan.config import TrainConfig

SHAPE = (9, 6, 1)
SMALL = {"latent_dim": 3, "filters": (4, 6), "batch_size": 8, "precision": "float32"}


def make_images(num=24, shape=SHAPE, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (num, *shape)).astype("uint8")


@pytest.fixture
def images():
    return make_images()


@pytest.fixture
def config():
    return TrainConfig(**SMALL)


def _numpy(values):
    """As an array, whether a gradient hangs on it or not."""
    return keras.ops.convert_to_numpy(keras.ops.stop_gradient(keras.ops.convert_to_tensor(values)))


@pytest.fixture
def numpy():
    return _numpy
