"""The pictures that a run learned from, found again by their digests: a run keeps none of them."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from safelight import known_pictures
from safelight.datasets import ImageDataset
from safelight.images import ImageError
from safelight.runs import Run


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingPicture:
    """A picture that was learned from.

    Attributes:
        file: Its name in the data set; empty where the data set is not at hand.
        label: Its class; empty likewise.
        pixels: `(height, width, 3)` uint8; `None` where there is no file any more.
    """

    file: str = ""
    label: str = ""
    pixels: NDArray[np.uint8] | None = None


class TrainingPictures:
    """What a run learned from, in the order of what its familiarity refers to.

    Args:
        run: A run of kind "transfer".
        dataset: Where to look for the pictures; without it none is found.
    """

    def __init__(self, run: Run, dataset: ImageDataset | None = None) -> None:
        self._digests = known_pictures.learned_digests(run)
        self._dataset = dataset
        self._places: dict[str, int] = {}
        if dataset is not None:
            short = known_pictures.shorten(dataset.digests)
            self._places = {digest: i for i, digest in enumerate(short)}

    def __len__(self) -> int:
        return len(self._digests)

    @property
    def num_found(self) -> int:
        """How many of them the data set has."""
        return sum(digest in self._places for digest in self._digests)

    def find(self, row: int) -> TrainingPicture:
        """The picture of a row of the run's familiarity.

        Raises:
            IndexError: There are not as many.
        """
        place = self._places.get(self._digests[row])
        if place is None or self._dataset is None:
            return TrainingPicture()
        names, label = self._dataset.class_names, int(self._dataset.labels[place])
        file, class_name = self._dataset.files[place], names[label] if names else ""
        try:
            return TrainingPicture(file, class_name, self._dataset.read(place))
        except (ImageError, OSError):  # it was there when the data set was read
            return TrainingPicture(file, class_name)
