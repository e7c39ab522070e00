"""What is said of a picture, and why: class, familiarity, map, nearest training pictures.

Nothing here knows of a browser, nor of Keras.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from safelight.app.training_pictures import TrainingPicture, TrainingPictures
from safelight.runs import Run


@dataclasses.dataclass(frozen=True, eq=False)
class Neighbour:
    """A training picture near to one that was asked about.

    Attributes:
        picture: It, as far as it is at hand.
        distance: Between what the head sees of both, as `transfer.familiarity` takes it.
    """

    picture: TrainingPicture
    distance: float


@dataclasses.dataclass(frozen=True, eq=False)
class Answer:
    """What is said of one file.

    Attributes:
        file: Its name, without its folder.
        error: Why it could not be read, empty where it could; the rest is then empty, too.
        probabilities: `(num_classes,)` float64, calibrated.
        familiarity: The share of familiar pictures that lie at least as far; `None` if the run does
            not know.
        refused: Whether it is answered with "none of these".
        pixels: `(height, width, 3)` uint8, as it was read.
        map: `(height, width)` float32, of the most probable class, as `Explainer` gives it.
        nearest: Training pictures, the nearest first.
    """

    file: str
    error: str = ""
    probabilities: NDArray[np.float64] = dataclasses.field(default_factory=lambda: np.zeros(0))
    familiarity: float | None = None
    refused: bool = False
    pixels: NDArray[np.uint8] | None = None
    map: NDArray[np.float32] | None = None
    nearest: tuple[Neighbour, ...] = ()


class Answering(Protocol):
    """Whoever answers pictures, as a page needs it; `answering.Answerer` is one."""

    @property
    def run(self) -> Run:
        """The run that answers."""
        ...

    @property
    def class_names(self) -> Sequence[str]:
        """The classes, in the order of probabilities."""
        ...

    @property
    def refuse(self) -> float:
        """The rate of false alarms at which "none of these" is said; 0 where it never is."""
        ...

    @property
    def training(self) -> TrainingPictures:
        """The pictures that it learned from."""
        ...

    def answer(self, file: str | Path) -> Answer:
        """What is said of a picture file."""
        ...
