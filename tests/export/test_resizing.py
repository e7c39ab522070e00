import keras
import numpy as np
import pytest

from safelight.export.resizing import MatrixResizing, build_exportable, triangle_weights
from safelight.images import resize
from safelight.transfer.backbones import ImageResizing

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("size", [1, 2, 7, 24, 25, 60, 301])
def test_each_new_pixel_takes_a_triangle_of_the_old_ones(size):
    new = 24
    found = keras.ops.convert_to_numpy(triangle_weights(np.zeros(size, np.float32), new))
    assert found.shape == (new, size)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    width = max(size / new, 1)
    for row in range(new):
        centre = (row + 0.5) * size / new
        wanted = [max(0, 1 - abs(place + 0.5 - centre) / width) for place in range(size)]
        np.testing.assert_allclose(found[row], np.array(wanted) / sum(wanted), atol=1e-5)


@pytest.mark.parametrize("size", [(5, 9), (24, 30), (24, 32), (100, 31), (211, 400)])
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_come_out_as_everywhere_else(size, channels):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, *size, channels), dtype=np.uint8)
    found = keras.ops.convert_to_numpy(MatrixResizing(24, 32)(images))
    wanted = [
        np.repeat(resize(image, (24, 32)), 4 - channels, axis=-1)[..., :3] for image in images
    ]
    np.testing.assert_allclose(found, wanted, atol=0.01)


@pytest.mark.parametrize("kernel", [False, True])
@pytest.mark.parametrize("symmetries", [(0,), (0, 4), (0, 1, 6)])
def test_the_copy_answers_as_the_original_and_leaves_it_alone(
    build_classifier, dataset, symmetries, kernel
):
    classifier = build_classifier(symmetries=symmetries, kernel=kernel)
    copy = build_exportable(classifier)
    images = np.stack([dataset.read(number)[:, 3:36] for number in range(9)])
    expected = classifier.predict(images, verbose=0)
    np.testing.assert_allclose(copy.predict(images, verbose=0), expected, atol=1e-4)
    assert type(classifier.get_layer("resizing")) is ImageResizing
    assert any(weight.trainable for weight in classifier.weights)
