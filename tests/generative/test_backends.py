import keras
import numpy as np
import pytest
from keras import ops

from safelight.generative import backends
from safelight.generative.schedules import step_sizes

SHAPES = [(5, 3), (3,), ()]


@pytest.fixture
def backend():
    return backends.find_backend()


def test_adam_is_that_of_keras_step_by_step(backend):
    rng = np.random.default_rng(0)
    start = [rng.normal(size=shape).astype("float32") for shape in SHAPES]
    rates = np.array([0.1, 0.05, 0.02, 0.01])
    variables = [keras.Variable(w) for w in start]
    optimizer = keras.optimizers.Adam(1.0)
    optimizer.build(variables)
    zeros = [np.zeros_like(w) for w in start]
    parts = {"weights": start, "mean": zeros, "square": zeros, "average": start}
    state = {name: [backend.tensor(w) for w in some] for name, some in parts.items()}
    average = start
    for rate, size in zip(rates, step_sizes(rates, 0), strict=True):
        gradients = [rng.normal(size=shape).astype("float32") for shape in SHAPES]
        optimizer.learning_rate = rate
        optimizer.apply([ops.convert_to_tensor(g) for g in gradients], variables)
        controls = backend.tensor(np.array([size, 0.25], "float32"))
        tensors = [backend.tensor(g) for g in gradients]
        state = backend.repeat(
            0, 1, lambda _, s, t=tensors, c=controls: backend.update(s, t, c[0], c[1]), state
        )
        now = [ops.convert_to_numpy(v) for v in variables]
        average = [a + 0.25 * (w - a) for a, w in zip(average, now, strict=True)]
        for mine, wanted in ((state["weights"], now), (state["average"], average)):
            for a, b in zip(mine, wanted, strict=True):
                np.testing.assert_allclose(ops.convert_to_numpy(a), b, rtol=2e-5, atol=1e-6)


def test_gradient_gives_zeros_for_what_plays_no_part(backend):
    values = [backend.tensor(np.array([2.0, 3.0], "float32")), backend.tensor(np.float32(1.0))]

    def function(values):
        return ops.sum(values[0] ** 2), {"twice": 2 * values[0]}

    rest, gradients = backend.gradient(function, values)
    np.testing.assert_allclose(ops.convert_to_numpy(gradients[0]), [4, 6])
    assert ops.convert_to_numpy(gradients[1]) == 0
    assert set(rest) == {"twice"}


def test_tensors_have_memory_of_their_own(backend):
    array = np.zeros(3, "float32")
    tensor = backend.tensor(array)
    array[:] = 1
    assert not ops.convert_to_numpy(tensor).any()


def test_a_full_product_has_the_digits_of_float32(monkeypatch):
    """Where factors have eleven bits, as TF32's, hardly three of seven digits are left."""
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=shape).astype("float32") for shape in ((5, 3, 80), (80, 7)))
    found = keras.ops.convert_to_numpy(backends.full_product(a, b))
    assert found.dtype == np.float32
    wanted = a.astype("float64") @ b.astype("float64")
    np.testing.assert_allclose(found, wanted, atol=2e-5)
    if keras.backend.backend() == "tensorflow":  # as on a GPU
        import tensorflow as tf

        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
        there = keras.ops.convert_to_numpy(backends.full_product(a, b))
        assert there.dtype == np.float32
        np.testing.assert_array_equal(there, wanted.astype("float32"))


def test_a_backend_that_cannot_train_is_refused(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "openvino")
    with pytest.raises(ValueError, match=r"openvino.*KERAS_BACKEND"):
        backends.find_backend()
