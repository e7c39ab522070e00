"""A run's classifier, made ready to answer picture after picture, for many threads at once."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from safelight.app.answers import Answer, Neighbour
from safelight.app.training_pictures import TrainingPictures
from safelight.datasets import ImageDataset
from safelight.images import ImageError, read_image
from safelight.runs import Run
from safelight.transfer import experiment, unfamiliar
from safelight.transfer.explanations import Explainer
from safelight.transfer.familiarity import Familiarity
from safelight.transfer.prediction import Predictor
from safelight.transfer.references import read_references

NUM_NEAREST = 4
DEFAULT_RATE = 0.05  # one in twenty familiar pictures is then refused wrongly


class Answerer:
    """Answers pictures one by one.

    What belongs to a picture is in its answer alone, and a lock lets one picture at a time into the
    network.

    Args:
        run: A finished run of kind "transfer".
        refuse: The rate of false alarms at which pictures are answered with "none of these"; 0
            never does; by default 0.05 where the run can say so, and otherwise 0.
        dataset: What the run was trained on, to show the nearest training pictures.

    Attributes:
        run: The run.
        class_names: The classes, in the order of probabilities.
        refuse: The rate that is used; 0 where nothing is refused.
        training: The pictures that it learned from.

    Raises:
        ValueError: Another kind of run, no model, a damaged one, or a rate that refuses nothing.
    """

    def __init__(
        self, run: Run, *, refuse: float | None = None, dataset: ImageDataset | None = None
    ) -> None:
        experiment.settings_of(run)
        self.run = run
        self.class_names = [str(name) for name in run.config["dataset"]["class_names"]]
        if refuse is not None and not 0 <= refuse < 1:
            raise ValueError(f"refuse={refuse}: expected a rate of false alarms, 0 <= rate < 1.")
        self._known = _read_familiarity(run, needed=bool(refuse))
        self.refuse = _find_rate(self._known, refuse)
        self.training = TrainingPictures(run, dataset)
        model = experiment.load_classifier(run)
        if model.output_shape[-1] != len(self.class_names):
            raise ValueError(
                f"{run.path}: damaged, its model does not know the {len(self.class_names)} classes."
            )
        self._predictor = Predictor(model)
        self._explainer = Explainer(model, references=read_references(run.path))
        self._lock = threading.Lock()

    def answer(self, file: str | Path) -> Answer:
        """What is said of a picture file; a file that is none is an answer with its `error`."""
        name = Path(file).name
        # Decoding, too, is behind the lock: a large picture takes 300 MB while it is read.
        with self._lock:
            try:
                return self._answer(name, read_image(file))
            except ImageError as error:
                return Answer(name, error=error.reason)

    def _answer(self, name: str, pixels: NDArray[np.uint8]) -> Answer:
        found = self._predictor.answer(pixels)
        probabilities = found.probabilities[0]
        explained = self._explainer.explain([pixels], [int(probabilities.argmax())])
        familiarity: float | None = None
        nearest: tuple[Neighbour, ...] = ()
        if self._known is not None:
            familiarity = float(self._known.p_values(found.features)[0])
            nearest = self._nearest(self._known, found.features[0])
        refused = familiarity is not None and familiarity <= self.refuse
        return Answer(
            name, "", probabilities, familiarity, refused, pixels, explained.maps[0], nearest
        )

    def _nearest(self, known: Familiarity, features: NDArray[np.float32]) -> tuple[Neighbour, ...]:
        rows, distances = known.nearest(features, NUM_NEAREST)
        return tuple(
            Neighbour(self.training.find(int(row)), float(distance))
            for row, distance in zip(rows, distances, strict=True)
        )


def _read_familiarity(run: Run, *, needed: bool) -> Familiarity | None:
    """What is familiar to the run; `None` if it has learned none and none is needed."""
    try:
        return unfamiliar.read_familiarity(run)
    except ValueError as error:
        if needed or not isinstance(error.__cause__, FileNotFoundError):
            raise
        return None


def _find_rate(known: Familiarity | None, refuse: float | None) -> float:
    """The rate to refuse at: what was asked for, or the default where the run is fit for it."""
    if known is None or refuse == 0:
        return 0.0
    try:
        known.check_rate(DEFAULT_RATE if refuse is None else refuse)
    except ValueError:
        if refuse is not None:
            raise
        return 0.0
    return DEFAULT_RATE if refuse is None else refuse
