"""Say whether pictures whose names follow each other share labels more often than by chance."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

# With thousands of pictures the least excess is certain, and harms no one.
MIN_EXCESS = 0.1
MAX_P_VALUE = 0.001
NUM_PERMUTATIONS = 2000

# Where more names than this return, counting began anew in each folder, and there is no one order.
_MAX_REPEATED = 0.1
_BLOCK = 2**20


@dataclass(frozen=True)
class Neighbours:
    """How often pictures with neighbouring names share a label.

    Attributes:
        agreement: Share of neighbouring pairs with equal labels.
        expected: What that would be on average if the labels were shuffled.
        p_value: Of so much agreement or more, under shuffled labels.
        num_pairs: Pairs of neighbours.
        is_sorted: Whether each class is one unbroken run, as numbering class after class gives it.
    """

    agreement: float
    expected: float
    p_value: float
    num_pairs: int
    is_sorted: bool

    @property
    def is_blocked(self) -> bool:
        """Whether the excess is beyond chance and too large to be passed over."""
        return self.p_value < MAX_P_VALUE and self.agreement - self.expected >= MIN_EXCESS

    def to_dict(self) -> dict[str, float | int | bool]:
        """All of it, plain."""
        return {**asdict(self), "is_blocked": self.is_blocked}


def check_neighbours(
    files: Sequence[str],
    labels: ArrayLike,
    *,
    num_permutations: int = NUM_PERMUTATIONS,
    seed: int = 0,
) -> Neighbours | None:
    """Compare the labels of pictures whose names follow each other.

    Use it before a random split is trusted: if neighbours share labels, they were likely taken one
    after another (one module, one scene), and near-copies of training pictures get into the test
    part. Folders are left out of the names, because they are the classes. Two names can be
    neighbours if they differ in numbers only, both in a series that occurs in two classes or more;
    a series most of whose names are unique, since otherwise each folder counts from one. The test
    is by permutation within the series; its p-value is never below 1 / (num_permutations + 1).

    Args:
        files: A name for each picture, with forward slashes.
        labels: The class of each picture, (n,).
        num_permutations: How often labels are shuffled.
        seed: Decides how.

    Returns:
        What was counted, or None if the names give no order that runs across classes.

    Raises:
        ValueError: If there is not one label for each file.
    """
    labels = np.asarray(labels)
    if labels.shape != (len(files),):
        raise ValueError(f"labels {labels.shape} for {len(files)} files: expected one for each.")
    series = [labels[rows] for rows in _find_series(files, labels)]
    if not series:
        return None
    num_pairs = sum(len(each) - 1 for each in series)
    num_equal = sum(_count_equal(each).item() for each in series)
    num_changes = sum(len(np.unique(each)) - 1 for each in series)
    rng = np.random.default_rng(seed)
    shuffled = sum(_count_shuffled(each, num_permutations, rng) for each in series)
    return Neighbours(
        agreement=num_equal / num_pairs,
        expected=sum(_expect_equal(each) for each in series) / num_pairs,
        p_value=(1 + int(np.sum(shuffled >= num_equal))) / (1 + num_permutations),
        num_pairs=num_pairs,
        is_sorted=num_pairs - num_equal == num_changes,
    )


def share_apart(files: Sequence[str], labels: ArrayLike, groups: ArrayLike) -> float:
    """Of neighbouring pictures with equal labels, say how many pairs groups do not keep together.

    Args:
        files: As of `check_neighbours`.
        labels: The class of each picture, (n,).
        groups: The group of each picture, (n,).

    Returns:
        A share; 0 where there are no such pairs.
    """
    labels, groups = np.asarray(labels), np.asarray(groups)
    pairs = [
        np.stack([rows[:-1], rows[1:]], axis=1)[labels[rows[1:]] == labels[rows[:-1]]]
        for rows in _find_series(files, labels)
    ]
    first, second = np.concatenate([*pairs, np.zeros((0, 2), np.int64)]).T
    return float(np.mean(groups[first] != groups[second])) if len(first) else 0.0


def _find_series(files: Sequence[str], labels: NDArray) -> list[NDArray[np.int64]]:
    """Positions in the order of the names, for each pattern of names that runs across classes."""
    names = [file.rsplit("/", 1)[-1] for file in files]
    patterns = defaultdict(list)
    for row, name in enumerate(names):
        patterns[re.sub(r"\d+", "0", name)].append(row)
    series = []
    for rows in patterns.values():
        num_names = len({names[row] for row in rows})
        if len(np.unique(labels[rows])) > 1 and num_names >= (1 - _MAX_REPEATED) * len(rows):
            rows.sort(key=lambda row: [int(number) for number in re.findall(r"\d+", names[row])])
            series.append(np.array(rows))
    return series


def _count_equal(labels: NDArray) -> NDArray[np.int64]:
    return np.sum(labels[..., 1:] == labels[..., :-1], axis=-1)


def _expect_equal(labels: NDArray) -> float:
    """Each of the n - 1 pairs is equal with probability sum n_k (n_k - 1) / (n (n - 1))."""
    counts = np.unique(labels, return_counts=True)[1]
    return float(np.sum(counts * (counts - 1)) / len(labels))


def _count_shuffled(labels: NDArray, number: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Equal neighbours after each of many shuffles, in blocks that need little memory."""
    rows = max(1, _BLOCK // len(labels))
    blocks = [min(rows, number - start) for start in range(0, number, rows)]
    tiles = (np.tile(labels, (block, 1)) for block in blocks)
    return np.concatenate([_count_equal(rng.permuted(tile, axis=1)) for tile in tiles])
