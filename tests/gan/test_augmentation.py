import numpy as np
import pytest
from keras import ops

from safelight.gan import augmentation
from safelight.gan.augmentation import NUM_DRAWS, augment
from safelight.generative.backends import find_backend

RNG = np.random.default_rng(0)
IMAGES = RNG.random((6, 16, 8, 3)).astype("float32")


def test_a_shift_is_that_of_numpy_with_grey_where_nothing_was(numpy):
    for down in (0.0, 0.5, 1.0):
        uniform = np.tile(np.array([[down, 0.999]], "float32"), (6, 1)).clip(0, 0.999)
        found = numpy(
            augmentation.shift(ops.convert_to_tensor(IMAGES), ops.convert_to_tensor(uniform))
        )
        rows, columns = int(np.floor(uniform[0, 0] * 5)) - 2, 1
        wanted = np.full_like(IMAGES, 0.5)
        source = IMAGES[:, max(0, -rows) : 16 - max(0, rows), : 8 - columns]
        wanted[:, max(0, rows) : 16 + min(0, rows), columns:] = source
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_all_shifts_are_equally_likely(numpy):
    uniform = np.stack([np.linspace(0, 0.9999, 5000)] * 2, axis=1).astype("float32")
    picture = np.full((1, 16, 16, 1), 0.5, "float32")
    picture[0, 8, 8] = 1
    found = numpy(
        augmentation.shift(
            ops.convert_to_tensor(np.repeat(picture, 5000, 0)), ops.convert_to_tensor(uniform)
        )
    )
    rows = found.sum((2, 3)).argmax(1) - 8
    assert (np.bincount(rows + 2) == 1000).all()


def test_half_the_side_is_cut_out(numpy):
    uniform = np.full((6, 2), 0.5, "float32")
    found = numpy(augmentation.cut_out(ops.ones(IMAGES.shape), ops.convert_to_tensor(uniform)))
    wanted = np.ones_like(IMAGES)
    wanted[:, 4:12, 2:6] = 0.5
    np.testing.assert_array_equal(found, wanted)
    corner = np.zeros((6, 2), "float32")
    found = numpy(augmentation.cut_out(ops.ones(IMAGES.shape), ops.convert_to_tensor(corner)))
    assert found[0, ..., 0].sum() == 16 * 8 - 0.5 * 4 * 2


def test_colours_in_the_middle_of_their_range_stay(numpy):
    uniform = np.full((6, 3), 0.5, "float32")
    found = numpy(
        augmentation.change_colours(ops.convert_to_tensor(IMAGES), ops.convert_to_tensor(uniform))
    )
    np.testing.assert_allclose(found, IMAGES, atol=1e-6)
    grey = np.full((6, 3), 0.5, "float32")
    grey[:, 1] = 0
    found = numpy(
        augmentation.change_colours(ops.convert_to_tensor(IMAGES), ops.convert_to_tensor(grey))
    )
    np.testing.assert_allclose(found, np.repeat(IMAGES.mean(3, keepdims=True), 3, 3), atol=1e-6)


def test_colours_change_as_far_as_the_paper_s(numpy):
    """Of its code: brightness by half a unit of [-1, 1], saturation 0 to 2, contrast .5 to 1.5."""
    for share in (0.0, 1.0):
        uniform = np.full((6, 3), 0.5, "float32")
        for column, wanted in (
            (0, IMAGES + 0.25 * (2 * share - 1)),
            (1, (m := IMAGES.mean(3, keepdims=True)) + 2 * share * (IMAGES - m)),
            (2, (m := IMAGES.mean((1, 2, 3), keepdims=True)) + (0.5 + share) * (IMAGES - m)),
        ):
            moved = uniform.copy()
            moved[:, column] = share
            found = augmentation.change_colours(
                ops.convert_to_tensor(IMAGES), ops.convert_to_tensor(moved)
            )
            np.testing.assert_allclose(numpy(found), wanted, atol=1e-5)


@pytest.mark.parametrize("policy", ["geometric", "all"])
def test_gradients_pass(numpy, policy):
    """All changes are affine in the picture: the slope times a direction is the difference."""
    uniform = ops.convert_to_tensor(RNG.random((6, NUM_DRAWS)).astype("float32"))
    weights = ops.convert_to_tensor(RNG.normal(size=IMAGES.shape).astype("float32"))
    direction = RNG.normal(size=IMAGES.shape).astype("float32")

    def value(x):
        return ops.sum(augment(ops.convert_to_tensor(x), uniform, policy) * weights)

    slope = numpy(find_backend().input_gradient(value, ops.convert_to_tensor(IMAGES)))
    wanted = numpy(value(IMAGES + direction)) - numpy(value(IMAGES))
    assert (slope * direction).sum() == pytest.approx(wanted, rel=1e-2, abs=0.05)
    assert np.abs(slope).sum() > 0


def test_none_changes_nothing_and_others_are_refused():
    assert augment(IMAGES, None, "none") is IMAGES
    with pytest.raises(ValueError, match="expected none, geometric or all"):
        augment(IMAGES, None, "auto")
