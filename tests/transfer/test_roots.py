import numpy as np
import pytest

from safelight.transfer.roots import scaled_roots


def test_each_layer_has_length_one_and_the_signs_stay():
    rows = np.random.default_rng(0).normal(size=(5, 2, 7))
    found = scaled_roots(rows, (3, 4))
    for layer in (found[..., :3], found[..., 3:]):
        np.testing.assert_allclose(np.linalg.norm(layer, axis=-1), 1, rtol=1e-6)
    np.testing.assert_array_equal(np.sign(found), np.sign(rows))


def test_a_layer_s_strength_does_not_matter():
    rows = np.random.default_rng(0).gamma(2, size=(5, 7))
    stronger = rows * np.array([9.0] * 3 + [0.01] * 4)
    np.testing.assert_allclose(
        scaled_roots(rows, (3, 4)), scaled_roots(stronger, (3, 4)), rtol=1e-5
    )


def test_without_widths_they_are_roots_and_a_silent_layer_stays_silent():
    np.testing.assert_allclose(scaled_roots([[4.0, -9.0]]), [[2.0, -3.0]])
    np.testing.assert_array_equal(scaled_roots([[0.0, 0.0, 1.0]], (2, 1)), [[0.0, 0.0, 1.0]])


def test_widths_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="expected"):
        scaled_roots(np.ones((3, 7)), (3, 3))
