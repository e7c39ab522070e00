import numpy as np
import pytest
from keras import ops

from safelight.gan import spectral
from safelight.generative.backends import find_backend


@pytest.mark.parametrize("shape", [(5, 4), (3, 3, 2, 7), (4, 1)])
def test_a_normalized_kernel_has_the_largest_singular_value_1(numpy, shape):
    kernel = np.random.default_rng(0).normal(size=shape).astype("float32")
    matrix = kernel.reshape(-1, shape[-1])
    vector = spectral.start_vector(kernel)
    assert np.linalg.norm(matrix @ vector) == pytest.approx(np.linalg.norm(matrix, 2), rel=1e-5)
    found = numpy(spectral.normalize(*map(ops.convert_to_tensor, (kernel, vector)))).reshape(
        matrix.shape
    )
    assert np.linalg.norm(found, 2) == pytest.approx(1, rel=1e-5)
    np.testing.assert_allclose(found * np.linalg.norm(matrix, 2), matrix, rtol=1e-4)


def test_power_iteration_finds_the_singular_vector_from_anywhere(numpy):
    kernel = np.random.default_rng(1).normal(size=(20, 6)).astype("float32")
    vector = np.eye(6, dtype="float32")[0]
    for _ in range(60):
        vector = numpy(spectral.next_vector(*map(ops.convert_to_tensor, (kernel, vector))))
    wanted = spectral.start_vector(kernel)
    np.testing.assert_allclose(abs(vector @ wanted), 1, rtol=1e-4)


def test_the_gradient_is_that_of_the_quotient(numpy):
    """d(W / s)/dW in a direction, where s is the largest singular value: by differences."""
    rng = np.random.default_rng(2)
    kernel, direction, weights = rng.normal(size=(3, 5, 4))
    vector = ops.convert_to_tensor(spectral.start_vector(kernel))
    factors = ops.convert_to_tensor(weights.astype("float32"))
    backend = find_backend()

    def loss(values):
        return ops.sum(spectral.normalize(values[0], vector) * factors), {}

    _, (slope,) = backend.gradient(loss, [backend.tensor(kernel.astype("float32"))])

    def exact(matrix):
        return (matrix / np.linalg.norm(matrix, 2) * weights).sum()

    step = 1e-6
    wanted = (exact(kernel + step * direction) - exact(kernel - step * direction)) / (2 * step)
    assert (numpy(slope) * direction).sum() == pytest.approx(wanted, rel=1e-3, abs=1e-3)


def test_only_the_named_weights_are_normalized(numpy):
    weights = [np.full((2, 2), 3.0, "float32"), np.full((2,), 5.0, "float32")]
    tensors = [ops.convert_to_tensor(each) for each in weights]
    vector = ops.convert_to_tensor(spectral.start_vector(weights[0]))
    found = spectral.normalize_all(tensors, [vector], [0])
    np.testing.assert_allclose(numpy(found[0]), 0.5, rtol=1e-6)
    np.testing.assert_array_equal(numpy(found[1]), weights[1])
