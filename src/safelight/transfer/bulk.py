"""What a classifier says of very many pictures, named by file or URL: nothing of them is kept.

    predictor = BulkPredictor(classifier, config)
    for answered in predictor.answer([Chunk(0, ["a.jpg", "b.jpg"])]):
        print(answered.names, answered.probabilities)

The frozen part runs on the engine and in the precision that `prediction.predict_logits` takes, and
gives the same numbers; only the cache of activations is left out. Threads decode ahead of it.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import os
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import keras
import numpy as np
import PIL
from scipy.special import softmax

from safelight.environment import describe_keras
from safelight.images import ImageError, decode_image, read_image, resize
from safelight.remote import is_remote, open_remote
from safelight.transfer import backbones, engines, models, parcels
from safelight.transfer.augmentation import turn
from safelight.transfer.config import TrainConfig
from safelight.transfer.familiarity import Familiarity
from safelight.transfer.features import BATCH_SIZE, FeatureExtractor
from safelight.transfer.ncnn_engine import num_threads
from safelight.transfer.plan import Plan
from safelight.transfer.prediction import Predictor

_AHEAD = 3  # batches that are decoded or being decoded while one is computed
_SAMPLE = 4 * BATCH_SIZE  # pictures that limits are measured on

Pixels = np.ndarray | ImageError


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Some pictures.

    Attributes:
        number: Of the chunk, for whoever asks.
        names: Files or URLs.
        folder: What relative names are relative to; by default the working folder.
    """

    number: int
    names: Sequence[str]
    folder: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Answered:
    """What is said of a chunk.

    Attributes:
        number: Of the chunk.
        names: `(n,)` of the pictures that were answered, in their order.
        probabilities: `(n, num_classes)` float64.
        p_values: `(n,)` float64, how familiar they are (`familiarity.Familiarity.p_values`), if
            that was asked for.
        problems: Name and reason of each file that cannot be read.
    """

    number: int
    names: list[str]
    probabilities: np.ndarray
    p_values: np.ndarray | None
    problems: list[tuple[str, str]]


class BulkPredictor:
    """A classifier made ready to answer chunk after chunk.

    Args:
        classifier: As trained.
        config: The settings of its training: they say where it was cut, and in which precision
            and on which engine that part computes.
        familiarity: To say how familiar each picture is, too.

    Attributes:
        precision: What the frozen part computes in; of a classifier without one, `"float32"`.
        engine: What computes it; likewise `"keras"`.
        num_classes: Of the classifier.
        familiarity: As given.

    Raises:
        ValueError: As of `engines.choose_engine`.
    """

    def __init__(
        self,
        classifier: keras.Model,
        config: TrainConfig,
        *,
        familiarity: Familiarity | None = None,
    ) -> None:
        entrance = backbones.find_resizing(classifier)
        self._size, self._symmetries = (entrance.height, entrance.width), entrance.symmetries
        self.familiarity, self._plan = familiarity, Plan.make(classifier, config)
        self.num_classes = int(classifier.output_shape[-1])
        self.precision, self.engine = "float32", "keras"
        if self._plan.cut is None:
            self._whole = Predictor(classifier)
            return
        kept = self._plan.kept_layers
        self._extractor = FeatureExtractor(
            classifier, precision=config.precision, engine=config.engine
        )
        self.precision, self.engine = self._extractor.precision, self._extractor.engine_of(kept)
        self._tail = models.build_tail(classifier, kept, precision=self.precision)
        self._below_head: keras.Model | None = None
        if familiarity is not None and self._plan.fine_tunes:
            self._below_head = models.build_tail(
                classifier, kept, precision=self.precision, below_head=True
            )

    @property
    def computed_by(self) -> str:
        """Versions of all that computes, and precision: others answer otherwise in the last digits.

        The engine, Keras and its backend, on which the head runs, and Pillow, which decodes.
        """
        backend = keras.backend.backend()
        version = sys.modules[backend].__version__  # its package may be tensorflow-cpu
        parts = dict.fromkeys([engines.describe_engine(self.engine), describe_keras()])
        versions = f"{backend} {version}, pillow {PIL.__version__}"
        return f"{', '.join(parts)}, {versions}, {self.precision}"

    def look(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """What is said of one batch.

        Args:
            pixels: `(n, height, width, 3)` float32, resized pictures, 0 to 255.

        Returns:
            Logits `(n, num_classes)` float64, the mean over the views that the classifier looks
            at, and `(n, num_features)` float32, what its head sees, if familiarity needs it.
        """
        if self._plan.cut is None:
            return next(self._whole.look(pixels))
        by_view, features = [], None
        for symmetry in self._symmetries:
            turned = np.ascontiguousarray(turn(pixels, symmetry)) if symmetry else pixels
            rows = self._extractor.compute(turned, self._plan.kept_layers)
            logits = self._tail.predict_on_batch(rows if len(rows) > 1 else rows[0])
            by_view.append(np.asarray(logits).astype(np.float64))
            if self.familiarity is not None and features is None:
                features = self._find_features(rows)
        return np.mean(by_view, axis=0), features

    def _find_features(self, rows: list[np.ndarray]) -> np.ndarray:
        if self._below_head is None:
            return np.concatenate(rows, axis=1)
        seen = self._below_head.predict_on_batch(rows if len(rows) > 1 else rows[0])
        return np.asarray(seen).astype("float32")

    def answer(self, chunks: Iterable[Chunk]) -> Generator[Answered]:
        """What is said of one chunk after the other, as they come.

        Pictures are computed in batches of 32 as they follow each other in a chunk, so that the
        answers do not depend on where, or beside which other chunks, they are computed.
        """
        with contextlib.closing(_decode_ahead(chunks, self._size)) as batches:
            for chunk, decoded in itertools.groupby(batches, key=lambda batch: batch[0]):
                found = [self._answer_batch(names, pixels) for _, names, pixels in decoded]
                yield _join(chunk.number, found, self.num_classes)

    def _answer_batch(self, names: Sequence[str], pixels: Sequence[Pixels]) -> Answered:
        pairs = list(zip(names, pixels, strict=True))
        problems = [(name, each.reason) for name, each in pairs if isinstance(each, ImageError)]
        sound = [each for _, each in pairs if not isinstance(each, ImageError)]
        names = [name for name, each in pairs if not isinstance(each, ImageError)]
        if not sound:
            return Answered(0, names, np.zeros((0, self.num_classes)), None, problems)
        logits, features = self.look(np.stack(sound))
        known, p_values = self.familiarity, None
        if known is not None and features is not None:
            p_values = known.p_values(features)
        return Answered(0, names, softmax(logits, axis=1), p_values, problems)

    def measure_limits(self, chunk: Chunk) -> dict[str, float]:
        """Pictures a second of decoding alone and of computing alone, on a sample of a chunk.

        Returns:
            `decoding` and `computing`; nothing where no picture of the sample can be read.
        """
        sample = dataclasses.replace(chunk, names=chunk.names[:_SAMPLE])
        began, number, batch = time.perf_counter(), 0, np.zeros(0)
        for _, _, pixels in _decode_ahead([sample], self._size):
            sound = [each for each in pixels if not isinstance(each, ImageError)]
            number, batch = number + len(sound), np.stack(sound) if sound else batch
        if not number:
            return {}
        decoding = number / (time.perf_counter() - began)
        self.look(batch)  # a batch of another size is compiled first
        began = time.perf_counter()
        self.look(batch)
        return {"decoding": decoding, "computing": len(batch) / (time.perf_counter() - began)}


def _join(number: int, found: Sequence[Answered], num_classes: int) -> Answered:
    p_values = [each.p_values for each in found if each.p_values is not None]
    empty = np.zeros((0, num_classes))
    return Answered(
        number,
        [name for each in found for name in each.names],
        np.concatenate([empty, *(each.probabilities for each in found)]),
        np.concatenate(p_values) if p_values else None,
        [problem for each in found for problem in each.problems],
    )


def _decode_ahead(
    chunks: Iterable[Chunk], size: tuple[int, int]
) -> Generator[tuple[Chunk, Sequence[str], list[Pixels]]]:
    """Batches of resized pictures; some are decoded by threads while one is worked on."""
    batches = (
        (chunk, chunk.names[start : start + BATCH_SIZE])
        for chunk in chunks
        for start in range(0, len(chunk.names), BATCH_SIZE)
    )
    ahead: collections.deque[tuple[Chunk, Sequence[str], list[Future[Pixels]]]]
    ahead = collections.deque()
    with ThreadPoolExecutor(max(2, num_threads())) as threads:
        try:
            for chunk, names in batches:
                paths = [_locate(name, chunk.folder) for name in names]
                ahead.append((chunk, names, [threads.submit(_read, p, size) for p in paths]))
                if len(ahead) > _AHEAD:
                    yield _wait(ahead.popleft())
            while ahead:
                yield _wait(ahead.popleft())
        finally:
            threads.shutdown(cancel_futures=True)


def _wait(
    batch: tuple[Chunk, Sequence[str], list[Future[Pixels]]],
) -> tuple[Chunk, Sequence[str], list[Pixels]]:
    chunk, names, waiting = batch
    return chunk, names, [each.result() for each in waiting]


def _locate(name: str, folder: str) -> str:
    return name if is_remote(name) else os.path.join(folder, name)  # noqa: PTH118  names stay


def _read(path: str, size: tuple[int, int]) -> Pixels:
    """A resized picture, or why there is none."""
    try:
        if is_remote(path):
            return resize(decode_image(open_remote(path), file=path), size)
        return resize(read_image(path), size)
    except ImageError as error:
        return error


@dataclasses.dataclass(frozen=True, eq=False)
class PredictionWork:
    """All that a worker needs to answer as a `BulkPredictor` does here.

    Attributes:
        model: The bytes of the classifier's file.
        config: Its settings, engine and precision chosen.
        computed_by: As of the predictor here.
        familiarity: As of the predictor.
    """

    model: bytes
    config: TrainConfig
    computed_by: str
    familiarity: Familiarity | None = None

    def begin(self) -> Callable[[Iterable[Chunk]], Iterator[Answered]]:
        """Loads the classifier; gives its `answer`.

        Raises:
            ValueError: This machine computes with other versions.
        """
        classifier = parcels.unpack_model(self.model)
        predictor = BulkPredictor(classifier, self.config, familiarity=self.familiarity)
        if predictor.computed_by != self.computed_by:
            raise ValueError(
                f"a worker computes by {predictor.computed_by}, and this machine by "
                f"{self.computed_by}: expected the same versions and kind of device on all."
            )
        return predictor.answer
