"""Neighbours are counted as brute force counts them, and only series that cross classes alarm."""

from itertools import permutations

import numpy as np
import pytest

from safelight import datasets
from safelight.neighbours import MIN_EXCESS, NUM_PERMUTATIONS, check_neighbours, share_apart


def number(labels):
    return [f"{'ab'[label]}/IMG_{i}.jpg" for i, label in enumerate(labels, start=1)]


def share_equal(labels):
    return np.mean(np.diff(labels) == 0)


@pytest.mark.parametrize(
    "labels", [[0, 0, 0, 1, 1, 0, 1, 1], [0, 0, 0, 0, 0, 0, 1], [2, 2, 0, 0, 1, 1, 1], [0, 1]]
)
def test_expectation_and_p_value_are_those_of_all_permutations(labels):
    every = np.array([share_equal(each) for each in permutations(labels)])
    found = check_neighbours([str(i) for i in range(len(labels))], labels)

    assert found.num_pairs == len(labels) - 1
    assert found.agreement == share_equal(labels)
    assert found.expected == pytest.approx(every.mean())
    truth = np.mean(every > found.agreement - 1e-9)
    error = np.sqrt(truth * (1 - truth) / NUM_PERMUTATIONS)
    assert found.p_value == pytest.approx(truth, abs=4 * error + 1 / NUM_PERMUTATIONS)


def test_several_series_count_as_each_alone_and_are_shuffled_within():
    series = {"cam{}.png": [0, 0, 1, 1, 1], "{}_b.png": [1, 0, 0, 1]}
    files = [name.format(i) for name, labels in series.items() for i in range(len(labels))]
    found = check_neighbours(files, [label for labels in series.values() for label in labels])

    one, other = (np.array(list(permutations(labels))) for labels in series.values())
    pairs = [np.sum(np.diff(each) == 0, axis=1) for each in (one, other)]
    every = np.add.outer(*pairs).ravel()
    assert found.num_pairs == 4 + 3
    assert found.agreement == pytest.approx((3 + 1) / 7)
    assert found.expected == pytest.approx(every.mean() / 7)
    assert found.p_value == pytest.approx(np.mean(every >= 4), abs=0.05)


@pytest.mark.parametrize("length", [1, 4, 10])
def test_series_alarm_and_shuffled_labels_do_not(length):
    rng = np.random.default_rng(0)
    labels = np.repeat(rng.integers(0, 2, 240 // length), length)
    assert check_neighbours(number(labels), labels).is_blocked == (length > 1)
    shuffled = rng.permutation(labels)
    assert not check_neighbours(number(shuffled), shuffled).is_blocked


def test_false_alarms_are_as_rare_as_promised():
    rng = np.random.default_rng(0)
    labels = [rng.integers(0, 2, 30) for _ in range(200)]
    p_values = [
        check_neighbours(number(each), each, num_permutations=200).p_value for each in labels
    ]
    for level in (0.05, 0.2, 0.5):
        # Ties make the test more careful than it need be, never less.
        assert np.mean(np.array(p_values) <= level) <= level + 4 * np.sqrt(level / 200)


def test_an_effect_that_is_certain_but_tiny_does_not_alarm():
    rng = np.random.default_rng(0)
    same = rng.random(20_000) < 0.55
    labels = np.cumsum(~same) % 2
    found = check_neighbours(number(labels), labels, num_permutations=1000)
    assert found.p_value < 0.001
    assert 0 < found.agreement - found.expected < MIN_EXCESS
    assert not found.is_blocked


def test_the_order_is_that_of_numbers_across_folders_whatever_the_order_of_files():
    labels = np.array([0, 0, 1, 1, 1, 0, 0, 1, 1, 1, 1, 0])
    files = np.array(number(labels))
    straight = check_neighbours(files, labels)
    assert straight.agreement == share_equal(labels)  # IMG_10 comes after IMG_9
    by_class = np.argsort(labels, kind="stable")
    assert check_neighbours(files[by_class], labels[by_class]) == straight


@pytest.mark.parametrize(
    "files",
    [
        # Each class has names of its own.
        [f"good/good_{i}.png" for i in range(9)] + [f"bad/bad_{i}.png" for i in range(3)],
        # Each folder counts from one.
        [f"good/{i}.png" for i in range(9)] + [f"bad/{i}.png" for i in range(3)],
        # No numbers at all.
        [f"good/{name}.png" for name in "abcdefghi"] + [f"bad/{name}.png" for name in "abc"],
    ],
)
def test_without_an_order_across_classes_nothing_is_said(files):
    assert check_neighbours(files, [0] * 9 + [1] * 3) is None


def test_without_pictures_or_with_one_class_nothing_is_said():
    assert check_neighbours([], []) is None
    assert check_neighbours(["1", "2", "3"], [1, 1, 1]) is None


def test_numbering_class_after_class_is_told_from_series():
    labels = np.repeat([0, 1], 30)
    assert check_neighbours(number(labels), labels).is_sorted
    labels = np.repeat([0, 1, 0], 20)
    assert not check_neighbours(number(labels), labels).is_sorted


def test_a_label_for_each_file_is_asked_for():
    with pytest.raises(ValueError, match=r"labels \(2,\) for 3 files"):
        check_neighbours(["1", "2", "3"], [0, 1])


@pytest.mark.assets
def test_solar_cells_lie_module_by_module():
    cells = datasets.load("elpv")
    found = check_neighbours(cells.files, cells.labels)
    assert found.num_pairs == len(cells) - 1
    assert found.agreement == share_equal(cells.labels)
    assert found.is_blocked
    assert not found.is_sorted


def test_neighbours_that_groups_part_are_counted():
    """By brute force over all pairs of successive numbers with equal labels."""
    rng = np.random.default_rng(3)
    labels, groups = rng.integers(0, 2, 60), rng.integers(0, 4, 60)
    files = [f"{'ab'[label]}/x{number:02d}.png" for number, label in enumerate(labels)]
    pairs = [(i, i + 1) for i in range(59) if labels[i] == labels[i + 1]]
    apart = np.mean([groups[i] != groups[j] for i, j in pairs])
    mixed = rng.permutation(60)
    found = share_apart([files[i] for i in mixed], labels[mixed], groups[mixed])
    assert found == pytest.approx(apart)
    assert share_apart(files, labels, np.zeros(60)) == 0
    assert share_apart(["a/p.png", "b/q.png"], [0, 1], [0, 1]) == 0
