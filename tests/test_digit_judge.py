"""The judge of generated digits: it knows its classes, and its features are the last layer's."""

import keras
import numpy as np
import pytest

from safelight.digit_judge import NUM_FEATURES, train_judge


@pytest.fixture(scope="module")
def bars():
    """Upright and lying bars."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 60, (600, 12, 12, 1)).astype(np.uint8)
    labels = np.arange(600) % 2
    for image, label, place in zip(images, labels, rng.integers(0, 10, 600), strict=True):
        view = image if label else image.swapaxes(0, 1)
        view[place : place + 2] = 220
    return images, labels


@pytest.fixture(scope="module")
def judge(bars):
    images, labels = bars
    return train_judge(images[:500], labels[:500])


def test_it_learns_its_classes(judge, bars):
    images, labels = bars
    assert (judge.classify(images[500:]) == labels[500:]).mean() > 0.9
    assert "500 pictures of 2 classes" in judge.protocol


def test_bytes_and_fractions_are_the_same_pictures(judge, bars):
    images = bars[0][:50]
    np.testing.assert_allclose(
        judge.features(images), judge.features(images / 255), rtol=1e-4, atol=1e-5
    )


def test_the_classes_are_made_of_the_features(judge, bars):
    features = judge.features(bars[0][500:])
    kernel, bias = judge.model.get_layer("logits").get_weights()
    assert features.shape == (100, NUM_FEATURES)
    assert (features >= 0).all()
    np.testing.assert_array_equal(
        (features @ kernel + bias).argmax(1), judge.classify(bars[0][500:])
    )


def test_dropout_is_off_and_one_seed_gives_one_judge(judge, bars):
    images, labels = bars
    np.testing.assert_array_equal(judge.features(images[:9]), judge.features(images[:9]))
    if keras.backend.backend() == "tensorflow":
        again = train_judge(images[:500], labels[:500])
        np.testing.assert_allclose(
            again.features(images[:9]), judge.features(images[:9]), rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((3, 12, 12)), r"shape \(3, 12, 12\)"),
        (np.zeros((0, 12, 12, 1)), r"shape \(0, 12, 12, 1\)"),
        (np.full((3, 12, 12, 1), 200.0), "values from 200 to 200"),
    ],
)
def test_other_pictures_are_refused(judge, images, message):
    with pytest.raises(ValueError, match=message):
        judge.features(images)
