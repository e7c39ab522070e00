"""Activations of a frozen trunk, computed once per image and view.

    extractor = FeatureExtractor(backbone, cache=FeatureCache())
    features = extractor.extract(splits.train, [FeatureLayer("block4_pool")], views=views)
    batch = features[FeatureLayer("block4_pool")].gather([0, 5, 7], view=2)

What is below the cut does not change while what is above it is trained, so its output for a given
picture does not either. The trunk is run in inference mode: BatchNormalization uses its moving
statistics and Dropout is off, otherwise an activation would depend on its batch and could not be
kept.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from safelight import executors
from safelight.datasets import ImageDataset
from safelight.images import resize
from safelight.transfer import backbones, engines, parcels
from safelight.transfer.augmentation import ViewMaker
from safelight.transfer.config import Augmentation
from safelight.transfer.feature_cache import CacheEntry, FeatureCache, ShardWriter
from safelight.transfer.feature_rows import Features

Pooling = Literal["avg", "max"]
Progress = Callable[[int, int], None]
_Computed = tuple[Sequence[str], list[np.ndarray]]

BATCH_SIZE = 32
_SHARD_BYTES = 64 * 2**20
_SHARD_ROWS = 256  # what a kill may cost: half a minute at ten pictures a second


@dataclasses.dataclass(frozen=True)
class FeatureLayer:
    """A layer's activations, whole or pooled over height and width.

    Attributes:
        layer: The layer's name.
        pooling: `None` for `(height, width, channels)`, `"avg"` or `"max"` for `(channels,)`.
    """

    layer: str
    pooling: Pooling | None = None

    def __str__(self) -> str:
        return f"{self.layer}/{self.pooling}" if self.pooling else self.layer


class FeatureExtractor:
    """Runs a frozen backbone over images and keeps what comes out.

    Args:
        backbone: As from `load_backbone`; its weights are copied now, later changes do not matter.
        precision: See `engines.choose_precision`.
        cache: Where to keep activations.
        engine: See `engines.choose_engine`.

    Attributes:
        num_computed: Images (times views) that were run through the network so far.
        num_found: Those that were not, because the cache had them.
    """

    def __init__(
        self,
        backbone: keras.Model,
        *,
        precision: str = "auto",
        cache: FeatureCache | None = None,
        engine: str = "auto",
    ) -> None:
        self.engine = engine
        self.precision = engines.choose_precision(precision)
        self.cache = cache if cache is not None else FeatureCache()
        self._model = backbones.copy_model(backbone, precision=self.precision)
        self._model.trainable = False
        self._entrance = backbones.find_resizing(self._model)
        self.image_size = self._entrance.height, self._entrance.width
        self._trunks: dict[tuple[FeatureLayer, ...], _Trunk] = {}
        self._aboves: dict[tuple[FeatureLayer, ...], _Trunk | None] = {}
        self._digests: dict[str, str] = {}
        self.num_computed = self.num_found = 0

    def extract(
        self,
        dataset: ImageDataset,
        layers: Sequence[FeatureLayer],
        *,
        views: ViewMaker | None = None,
        num_views: int = 1,
        progress: Progress | None = None,
    ) -> dict[FeatureLayer, Features]:
        """The activations of some layers for every image and view, computed where not yet kept.

        An interrupted call loses at most the last shard: the next one goes on from there.

        Args:
            dataset: The images.
            layers: Which activations; one pass of the network serves all of them.
            views: Makes the views above 0; needed where `num_views` > 1.
            num_views: Views of each image.
            progress: Called with (done, total) images times views.

        Raises:
            ValueError: More than one view without a view maker, or an unknown layer.
            CacheError: The activations have no room.
        """
        if num_views < 1 or (num_views > 1 and views is None):
            raise ValueError(f"num_views={num_views} needs a ViewMaker: pass views=ViewMaker(...).")
        trunk = self._trunk(tuple(layers))
        entries = [self._entries(layers, view, views) for view in range(num_views)]
        total = len(dataset) * num_views
        self._make_room(dataset, entries)
        for view, of_view in enumerate(entries):
            done = view * len(dataset)
            report = None if progress is None else functools.partial(_shift, progress, done, total)
            with self.cache.locked(of_view):
                self._derive(layers, dataset, of_view)
                self._fill(trunk, dataset, of_view, _Job(tuple(layers), view, views, report))
                for entry in of_view:
                    entry.hold(dataset.digests)
        columns = zip(*entries, strict=True)
        return {
            layer: Features(column, dataset.digests)
            for layer, column in zip(layers, columns, strict=True)
        }

    def compute(self, pixels: np.ndarray, layers: Sequence[FeatureLayer]) -> list[np.ndarray]:
        """The rows that `extract` would keep of one batch, without keeping them.

        Args:
            pixels: `(batch, height, width, 3)` float32, pictures resized to `image_size`.
            layers: Which activations.
        """
        rows = self._trunk(tuple(layers)).run(pixels)
        dtypes = map(self._dtype, layers)
        return [
            row if str(row.dtype) == dtype else row.astype(dtype)
            for row, dtype in zip(rows, dtypes, strict=True)
        ]

    def engine_of(self, layers: Sequence[FeatureLayer]) -> str:
        """The engine that computes them, `"auto"` decided."""
        return self._trunk(tuple(layers)).engine

    def _dtype(self, layer: FeatureLayer) -> str:
        return "float32" if layer.pooling else self.precision

    def _trunk(self, layers: tuple[FeatureLayer, ...]) -> _Trunk:
        """From resized pixels to the wanted activations, pooled in float32."""
        if layers not in self._trunks:
            self._trunks[layers] = self._between(self._entrance.name, layers)
        return self._trunks[layers]

    def _between(self, start: str, layers: tuple[FeatureLayer, ...]) -> _Trunk:
        """From one layer's output to some activations."""
        # A copy for each: sub-models of one model would leave its layers with two outputs.
        model = backbones.copy_model(self._model, precision=self.precision)
        outputs = [
            pool(backbones.get_layer(model, wanted.layer).output, wanted.pooling)
            for wanted in layers
        ]
        between = keras.Model(backbones.get_layer(model, start).output, outputs)
        engine = engines.choose_engine(self.engine, between.layers, precision=self.precision)
        return _Trunk(between, engine, self.precision)

    def _entries(
        self, layers: Sequence[FeatureLayer], view: int, views: ViewMaker | None
    ) -> list[CacheEntry]:
        trunk = self._trunk(tuple(layers))
        return [
            self.cache.entry(
                {**self._facts(layer, view, views), "engine": trunk.name},
                shape,
                self._dtype(layer),
            )
            for layer, shape in zip(layers, trunk.shapes, strict=True)
        ]

    def _facts(self, layer: FeatureLayer, view: int, views: ViewMaker | None) -> dict[str, Any]:
        """All that a row depends on besides the image itself; the key is made of it."""
        import PIL

        name = backbones.get_layer(self._model, layer.layer).name
        if name not in self._digests:
            self._digests[name] = weights_digest(backbones.layers_until(self._model, name))
        return {
            "format": 1,
            "network": self._model.name.removesuffix("_classifier"),
            "weights": self._digests[name],
            "layer": name,
            "pooling": layer.pooling,
            "image_size": list(self.image_size),
            "resizing": "bilinear, antialias, float32",
            "decoder": f"pillow {PIL.__version__}",
            "precision": self.precision,
            **(views.describe(view) if views is not None else {"view": 0}),
        }

    def _make_room(self, dataset: ImageDataset, entries: list[list[CacheEntry]]) -> None:
        flat = list(itertools.chain.from_iterable(entries))
        needed = sum(len(entry.missing(dataset.digests)) * entry.row_bytes for entry in flat)
        if needed:
            self.cache.make_room(needed, flat)

    def _derive(
        self, layers: Sequence[FeatureLayer], dataset: ImageDataset, entries: list[CacheEntry]
    ) -> None:
        """Computes what is missing from kept activations of the cut, where these are there.

        A new head on an old cut then costs what lies above the cut, not the frozen trunk again.
        """
        kept = [position for position, layer in enumerate(layers) if layer.pooling is None]
        if len(kept) != 1 or len(layers) == 1:
            return
        source = entries[kept[0]]
        others = [position for position in range(len(layers)) if position != kept[0]]
        targets = [entries[position] for position in others]
        lacking = set(itertools.chain.from_iterable(e.missing(dataset.digests) for e in targets))
        todo = [digest for digest in dict.fromkeys(dataset.digests) if digest in lacking]
        todo = [digest for digest in todo if digest in source]
        above = self._above(layers[kept[0]], tuple(layers[p] for p in others)) if todo else None
        if above is None:
            return
        with ShardWriter(targets, _rows_per_shard(targets)) as writer:
            for start in range(0, len(todo), BATCH_SIZE):
                digests = todo[start : start + BATCH_SIZE]
                writer.add(digests, above.run(source.gather(digests)))

    def _above(self, cut: FeatureLayer, layers: tuple[FeatureLayer, ...]) -> _Trunk | None:
        """From the cut's activations to others; `None` if one of these lies below the cut."""
        key = (cut, *layers)
        if key not in self._aboves:
            try:
                self._aboves[key] = self._between(cut.layer, layers)
            except ValueError:
                self._aboves[key] = None
        return self._aboves[key]

    def _fill(
        self, trunk: _Trunk, dataset: ImageDataset, entries: list[CacheEntry], job: _Job
    ) -> None:
        missing = set(itertools.chain.from_iterable(e.missing(dataset.digests) for e in entries))
        first_at: dict[str, int] = {}
        for position, digest in enumerate(dataset.digests):
            if digest in missing:
                first_at.setdefault(digest, position)
        todo = sorted(first_at.values())
        done = len(dataset) - len(todo)
        self.num_found += done
        writer = ShardWriter(entries, _rows_per_shard(entries))
        if job.progress is not None:
            job.progress(done)
        executor = executors.current() if todo else None
        found = (
            self._compute(trunk, dataset, todo, job)
            if executor is None
            else self._compute_elsewhere(executor, dataset, todo, entries, job)
        )
        # Closed explicitly: after an error or Ctrl-C no thread may go on decoding.
        with contextlib.closing(found) as batches, writer:
            for digests, rows in batches:
                writer.add(digests, rows)
                if executor is not None:
                    writer.flush()  # it is a shard; the last, which is short, may come early
                self.num_computed += len(digests)
                done += len(digests)
                if job.progress is not None:
                    job.progress(done)

    def _compute(
        self, trunk: _Trunk, dataset: ImageDataset, todo: Sequence[int], job: _Job
    ) -> Generator[_Computed]:
        """Rows of one batch after the other, computed in this process."""
        with contextlib.closing(self._batches(dataset, todo, job)) as batches:
            for indices, pixels in batches:
                yield [dataset.digests[i] for i in indices], trunk.run(pixels)

    def _compute_elsewhere(
        self,
        executor: executors.Executor,
        dataset: ImageDataset,
        todo: Sequence[int],
        entries: Sequence[CacheEntry],
        job: _Job,
    ) -> Generator[_Computed]:
        """The same by an executor's workers, a shard at a time, in the order they are ready in."""
        rows = _rows_per_shard(entries)
        parts = (parcels.cut_out(dataset, todo[at : at + rows]) for at in range(0, len(todo), rows))
        layers = tuple(job.layers)
        work = _ExtractionWork(
            parcels.pack_model(self._model),
            self.precision,
            self._trunk(layers).engine,
            layers,
            job.view,
            None if job.views is None else (job.views.augmentation, job.views.seed),
            tuple(entry.folder.name for entry in entries),
        )
        for digests, packed in executor.run(work, parts):
            pairs = zip(entries, packed, strict=True)
            yield list(digests), [entry.unpack(each) for entry, each in pairs]

    def _batches(
        self, dataset: ImageDataset, todo: Sequence[int], job: _Job
    ) -> Generator[tuple[Sequence[int], np.ndarray]]:
        """Batches of resized pixels, decoded ahead by two threads while the network computes."""

        def prepare(index: int) -> np.ndarray:
            image = resize(dataset.read(index, mode="RGB", verify=True), self.image_size)
            return (
                image if job.views is None else job.views(image, dataset.digests[index], job.view)
            )

        groups = [todo[start : start + BATCH_SIZE] for start in range(0, len(todo), BATCH_SIZE)]
        with ThreadPoolExecutor(2) as pool_of_threads:
            ahead: collections.deque[list[Future]] = collections.deque()
            try:
                upcoming = iter(groups)
                for group in itertools.islice(upcoming, 2):
                    ahead.append([pool_of_threads.submit(prepare, i) for i in group])
                for group in groups:
                    pixels = np.stack([future.result() for future in ahead.popleft()])
                    for following in itertools.islice(upcoming, 1):
                        ahead.append([pool_of_threads.submit(prepare, i) for i in following])
                    yield group, pixels
            finally:
                pool_of_threads.shutdown(cancel_futures=True)


@dataclasses.dataclass(frozen=True, eq=False)
class _Trunk:
    """From one layer's output to some activations."""

    model: keras.Model
    engine: str
    precision: str

    @functools.cached_property
    def run(self) -> engines.Run:
        """Built when first needed: where the cache has everything it never is."""
        return engines.build_engine(self.engine, self.model, precision=self.precision)

    @property
    def name(self) -> str:
        return engines.describe_engine(self.engine)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of one row of each output."""
        return [tuple(output.shape[1:]) for output in self.model.outputs]


@dataclasses.dataclass(frozen=True)
class _Job:
    """One view of a data set on its way through the trunk."""

    layers: tuple[FeatureLayer, ...]
    view: int
    views: ViewMaker | None
    progress: Callable[[int], None] | None


def weights_digest(layers: Iterable[keras.layers.Layer]) -> str:
    """SHA-256 over the layers' architecture and weights: equal digests compute the same function.

    Configuration (without dtype, `trainable` and views, which have their places in a cache key),
    the names and all variables, moving statistics included, as little-endian float32.
    """
    digest = hashlib.sha256()
    for layer in layers:
        config = {k: v for k, v in layer.get_config().items() if k not in ("dtype", "trainable")}
        # A classifier that averages views has the same trunk; which view it was stands in the key.
        config |= {"symmetries": [0]} if isinstance(layer, backbones.ImageResizing) else {}
        plain = [type(layer).__name__, _without_inputs(config)]
        digest.update(json.dumps(plain, sort_keys=True, default=str).encode())
        for weight in layer.get_weights():
            digest.update(np.ascontiguousarray(weight, "<f4").tobytes())
    return digest.hexdigest()


def _without_inputs(config: Any) -> Any:
    """A configuration without the inputs of models inside it, which Keras numbers anew."""
    if isinstance(config, dict):
        return {key: _without_inputs(value) for key, value in config.items()}
    if not isinstance(config, list):
        return config
    inner = [each for each in config if not _is_input(each)]
    return [_without_inputs(each) for each in inner]


def _is_input(config: Any) -> bool:
    return isinstance(config, dict) and config.get("class_name") == "InputLayer"


def _shift(progress: Progress, offset: int, total: int, done: int) -> None:
    progress(offset + done, total)


def _rows_per_shard(entries: Sequence[CacheEntry]) -> int:
    """A whole number of batches, which are the unit that numbers are computed in."""
    largest = max(entry.row_bytes for entry in entries)
    return BATCH_SIZE * max(1, min(_SHARD_ROWS, _SHARD_BYTES // largest) // BATCH_SIZE)


@dataclasses.dataclass(frozen=True, eq=False)
class _ExtractionWork:
    """All that a worker needs to compute the same rows: what is asked for, and under which keys."""

    model: bytes
    precision: str
    engine: str
    layers: tuple[FeatureLayer, ...]
    view: int
    views: tuple[Augmentation, int] | None
    keys: tuple[str, ...]

    def begin(self) -> Callable[[Iterable[ImageDataset]], Iterator[_Computed]]:
        """Builds the trunk; then maps parts of a data set to digests and packed rows."""
        extractor = FeatureExtractor(
            parcels.unpack_model(self.model), precision=self.precision, engine=self.engine
        )
        views = self.views and ViewMaker(self.views[0], seed=self.views[1])
        job = _Job(self.layers, self.view, views or None, None)
        with tempfile.TemporaryDirectory() as folder:
            extractor.cache = FeatureCache(Path(folder))
            entries = extractor._entries(self.layers, self.view, job.views)
        found = tuple(entry.folder.name for entry in entries)
        if found != self.keys:
            raise ValueError(
                "a worker would compute other activations than this machine: expected the same "
                "versions of Keras, its backend, Pillow and the engine, and the same kind of "
                "device, on all of them."
            )
        trunk = extractor._trunk(self.layers)

        def compute(parts: Iterable[ImageDataset]) -> Iterator[_Computed]:
            for part in parts:
                found = extractor._compute(trunk, part, range(len(part)), job)
                columns = zip(*(rows for _, rows in found), strict=True)
                pairs = zip(entries, columns, strict=True)
                yield part.digests, [entry.pack(np.concatenate(rows)) for entry, rows in pairs]

        return compute


def pool(tensor: Any, pooling: Pooling | None, *, name: str | None = None) -> Any:
    """A `(batch, height, width, channels)` tensor pooled over its positions, in float32.

    Raises:
        ValueError: An unknown pooling.
    """
    if pooling is None:
        return tensor
    if pooling not in ("avg", "max"):
        raise ValueError(f"pooling={pooling!r} is not known: expected 'avg', 'max' or None.")
    build = (
        keras.layers.GlobalAveragePooling2D if pooling == "avg" else keras.layers.GlobalMaxPooling2D
    )
    return build(name=name, dtype="float32")(tensor)
