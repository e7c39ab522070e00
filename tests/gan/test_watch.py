import math

import numpy as np
import pytest

from safelight.gan.watch import Sight, Watch, advise, relative_entropy, spread

RNG = np.random.default_rng(0)


def test_spread_is_the_mean_squared_distance_of_two_different_pictures():
    pictures = RNG.random((7, 3, 2, 1))
    rows = pictures.reshape(7, -1)
    pairs = [((a - b) ** 2).sum() for i, a in enumerate(rows) for b in rows[:i]]
    assert spread(pictures) == pytest.approx(np.mean(pairs))
    assert spread(pictures[:1]) == 0


def test_entropy_is_0_for_one_class_and_1_for_equal_ones():
    assert relative_entropy(np.array([5, 0, 0])) == 0
    assert relative_entropy(np.array([4, 4, 4, 4])) == pytest.approx(1)
    wanted = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / math.log(2)
    assert relative_entropy(np.array([3, 1])) == pytest.approx(wanted)


def test_real_pictures_are_as_varied_as_real_pictures_and_one_picture_is_not():
    images = RNG.integers(0, 256, (300, 4, 4, 1)).astype("uint8")
    watch = Watch(images, lambda pictures: np.arange(len(pictures)) % 3, num_classes=4)
    sight = watch.look(images / 255)
    assert sight.diversity == pytest.approx(1)
    assert (sight.num_seen, sight.num_classes) == (3, 4)
    assert sight.entropy == pytest.approx(math.log(3) / math.log(4))
    assert watch.look(np.repeat(images[:1] / 255, 50, 0)).diversity == pytest.approx(0, abs=1e-9)
    assert Watch(images).look(images / 255).num_seen is None


@pytest.mark.parametrize(
    ("sight", "accuracies", "loss", "word"),
    [
        (Sight(0.1), (0.7, 0.7), "hinge", "collapsed"),
        (Sight(0.9, 2, 0.2, 10), (0.7, 0.7), "hinge", "2 of 10 classes"),
        (Sight(1.0), (1.0, 0.99), "hinge", "it has won"),
    ],
)
def test_what_goes_wrong_is_said_with_a_remedy(sight, accuracies, loss, word):
    advice = advise(sight, *accuracies, loss)
    assert word in advice
    assert "--penalty r1" in advice


def test_nothing_is_said_where_nothing_is_wrong():
    assert advise(Sight(0.9, 10, 0.99, 10), 0.8, 0.8, "hinge") == ""
    assert advise(Sight(0.9), 1.0, 1.0, "wasserstein") == ""  # 0 is no threshold there
    assert advise(Sight(0.9), 1.0, 0.6, "hinge") == ""
