"""Whether an exported model answers as the original does, on real pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from safelight.metrics import Interval, paired_difference

NUM_PICTURES = 500
TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True, eq=False)
class Parity:
    """Answers of two models to the same pictures.

    Attributes:
        expected: `(num_images, num_classes)` probabilities of the original.
        found: Those of the exported model.
        labels: `(num_images,)` integers; `None` for pictures that have none.
    """

    expected: NDArray[np.float64]
    found: NDArray[np.float64]
    labels: NDArray[np.int64] | None = None

    @property
    def num_images(self) -> int:
        """Pictures that both have answered."""
        return len(self.expected)

    @property
    def agreement(self) -> float:
        """Share of the pictures that both give the same class."""
        return float((self.expected.argmax(1) == self.found.argmax(1)).mean())

    @property
    def largest_difference(self) -> float:
        """Of two probabilities of one class for one picture; NaN if one is."""
        return float(np.abs(self.expected - self.found).max())

    @property
    def accuracy(self) -> float:
        """Of the exported model; NaN without labels."""
        if self.labels is None:
            return float("nan")
        return float((self.found.argmax(1) == self.labels).mean())

    @property
    def accuracy_change(self) -> Interval | None:
        """The exported model's accuracy minus the original's, paired picture by picture."""
        if self.labels is None:
            return None
        return paired_difference(self.labels, self.found, probabilities_b=self.expected)

    def to_dict(self) -> dict[str, Any]:
        """Numbers for other programs."""
        change = self.accuracy_change
        return {
            "num_images": self.num_images,
            "agreement": self.agreement,
            "largest_difference": self.largest_difference,
            "accuracy": self.accuracy,
            "accuracy_change": None if change is None else change.to_dict(),
            "protocol": "pictures that the run has not learned from, each in its own size; the "
            "change is paired, 95 %, bootstrap over pictures",
        }


def compare_answers(
    pictures: Iterable[NDArray[np.uint8]],
    original: Callable[[NDArray[np.uint8]], NDArray[np.float64]],
    exported: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    *,
    labels: ArrayLike | None = None,
    progress: Callable[[int], None] | None = None,
) -> Parity:
    """Both models' answers, picture by picture in its own size.

    Args:
        pictures: Each `(height, width, channels)`, at least one.
        original: From a picture to `(num_classes,)` probabilities.
        exported: From `(1, height, width, channels)` to `(1, num_classes)`.
        labels: `(num_images,)` integers.
        progress: Called with the number done.
    """
    expected, found = [], []
    for number, pixels in enumerate(pictures, start=1):
        expected.append(original(pixels))
        found.append(np.asarray(exported(pixels[None]), np.float64)[0])
        if progress is not None:
            progress(number)
    told = None if labels is None else np.asarray(labels, np.int64)
    return Parity(np.array(expected), np.array(found), told)


def check_parity(found: Parity, title: str, *, tolerance: float = TOLERANCE) -> None:
    """Whether a model that should compute the same does.

    Args:
        found: Both models' answers.
        title: Of the format, for the sentence.
        tolerance: Of a probability.

    Raises:
        ValueError: A probability is off by more than that, or NaN. Within that, only classes that
            the original cannot tell apart may change places.
    """
    if not found.largest_difference <= tolerance:
        raise ValueError(
            f"{title}: on {found.num_images} pictures its probabilities differ from the original's "
            f"by up to {found.largest_difference:.1e}, and {found.agreement:.1%} get the same "
            f"class; expected {tolerance:g} at most. Nothing was written; choose another format."
        )
