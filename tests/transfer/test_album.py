import numpy as np

from safelight.transfer.album import surest_right


def test_the_surest_right_answers_of_each_class_are_chosen():
    labels = np.array([0, 0, 0, 1, 1, 2])
    first = np.array([0.6, 0.9, 0.2, 0.1, 0.4, 0.0])
    probabilities = np.stack([first, 0.9 - first, np.full(6, 0.1)], axis=1)
    # Right are 0 and 1 (class 0, 1 is surer), 3 and 4 (class 1, 3 is surer); 2 and 5 are wrong.
    assert surest_right(labels, probabilities).tolist() == [1, 0, 3, 4]
    assert surest_right(labels, probabilities, num_images=2).tolist() == [1, 3]
    assert surest_right(labels, probabilities, num_images=3).tolist() == [1, 0, 3]
    assert surest_right((labels + 1) % 3, probabilities, num_images=3).tolist() == [2]


def test_a_class_with_few_right_answers_leaves_room_for_others():
    labels = np.array([0] * 5 + [1])
    probabilities = np.where(np.eye(2, dtype=bool)[labels], 0.8, 0.2)
    assert surest_right(labels, probabilities, num_images=4).tolist() == [0, 1, 2, 5]
