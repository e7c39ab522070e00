"""Networks and pictures so small that a test takes milliseconds; built once."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator

import keras
import numpy as np
import pytest

from safelight import datasets
from safelight.transfer import backbones
from safelight.transfer.feature_cache import FeatureCache

SIZE = 16


def _normalised(x, filters: int, name: str):
    x = keras.layers.Conv2D(filters, 3, padding="same", name=f"{name}_conv")(x)
    x = keras.layers.BatchNormalization(name=f"{name}_bn")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def _build_network(image_size: tuple[int, int] = (SIZE, SIZE), *, mode="tf", channels=3):
    """A residual network with BatchNormalization whose statistics are those of no batch."""
    keras.utils.set_random_seed(0)
    images = keras.Input((None, None, channels), dtype="uint8", name="images")
    x = backbones.ImageResizing(*image_size, name="resizing")(images)
    x = backbones.ImageNetPreprocessing(mode, name="preprocessing")(x)
    x = keras.layers.MaxPooling2D(name="block1_pool")(_normalised(x, 6, "block1"))
    x = keras.layers.Add(name="block2_add")([x, _normalised(x, 6, "block2")])
    x = keras.layers.Dropout(0.5, name="block2_drop")(x)
    x = keras.layers.Add(name="block3_add")([x, _normalised(x, 6, "block3")])
    x = keras.layers.MaxPooling2D(name="block4_pool")(_normalised(x, 8, "block4"))
    model = keras.Model(images, x, name="tiny")
    _move_statistics(model)
    return model


def _move_statistics(model: keras.Model) -> keras.Model:
    """Fresh BatchNormalization is the identity and would hide a mistake."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return model


@pytest.fixture(scope="session")
def build_network() -> Callable[..., keras.Model]:
    return _build_network


@pytest.fixture
def network() -> keras.Model:
    return _build_network()


@pytest.fixture(scope="session")
def vgg16() -> keras.Model:
    """VGG16 with random weights at 32 pixels; tests leave its weights and flags as they are."""
    keras.utils.set_random_seed(0)
    return backbones.load_backbone("vgg16", image_size=32, weights=None)


@pytest.fixture(scope="session")
def mobilenet() -> keras.Model:
    keras.utils.set_random_seed(0)
    return _move_statistics(backbones.load_backbone("mobilenetv2", image_size=32, weights=None))


@pytest.fixture(scope="session")
def hash_layers() -> Callable[..., dict[str, str]]:
    def hashes(model: keras.Model) -> dict[str, str]:
        """SHA-256 of every layer's variables, to the last bit."""
        return {
            layer.name: hashlib.sha256(
                b"".join(w.tobytes() for w in layer.get_weights())
            ).hexdigest()
            for layer in model.layers
            if layer.weights
        }

    return hashes


@pytest.fixture(scope="session")
def shapes() -> datasets.ImageDataset:
    return datasets.make_shapes(12, image_size=20, num_classes=2)


@pytest.fixture(scope="session")
def splits() -> datasets.Splits:
    return datasets.split(datasets.make_shapes(48, image_size=SIZE, num_classes=2), seed=0)


@contextlib.contextmanager
def _without_graphs() -> Iterator[None]:
    """Tracing costs a tiny network a hundred times what computing does; others do not trace so."""
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="session")
def without_graphs() -> Callable[[], contextlib.AbstractContextManager[None]]:
    return _without_graphs


@pytest.fixture
def eager() -> Iterator[None]:
    with _without_graphs():
        yield


@pytest.fixture
def cache(tmp_path) -> FeatureCache:
    return FeatureCache(tmp_path / "features")
