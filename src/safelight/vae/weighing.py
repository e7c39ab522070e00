"""Importance weights of all images, block by block: what lies between arrays and compiled calls.

Every image has a stream of random bits of its own, so that its weights depend on the seed and on
its place, and not on how images and samples are cut into blocks.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from safelight.environment import find_accelerator
from safelight.vae.importance_weights import (
    LANES,
    DenseDecoder,
    DenseWeights,
    PixelSurvey,
    PlainWeights,
)
from safelight.vae.models import VAE
from safelight.vae.priors import Prior

CERTAIN = 1e-4  # nats: a pixel that costs less in each of the surveyed samples is certain
NUM_SURVEYED = 64  # samples
_BLOCK_BYTES = 12 << 20  # of the decoder's widest layer, so that a block stays in the cache
_ACCELERATOR_BLOCK_BYTES = 1 << 30  # there each call costs, and needs work for all its cores
_CALL_ROWS = 40_000  # latents in a call of the short cut, so that calling costs next to nothing
_MAX_BUCKETS, _BUCKET_ROWS = 6, 4_000_000  # a bucket has to be worth its compilation

_MAX_PROGRAMS = 16  # kept beside a model, the oldest forgotten first

Weighed = tuple[np.ndarray, np.ndarray]
"""Images `(m,)`, and log w of some more of their samples `(m, n)`, float64, nats."""


@dataclasses.dataclass(frozen=True)
class Blocks:
    """How (images x samples) is cut: every block has one shape, so that one compilation serves.

    Attributes:
        num_samples: Of each image, in all.
        images: In a block.
        samples: Of each of these in a block.
    """

    num_samples: int
    images: int
    samples: int

    @classmethod
    def plan(cls, num_images: int, num_samples: int, rows: int, *, at_once: int = 1) -> Blocks:
        """Blocks of up to `rows` latents, or of up to `at_once` with up to `rows` of an image."""
        samples = math.ceil(num_samples / math.ceil(num_samples / rows))
        images = max(1, max(rows, at_once) // samples)
        return cls(num_samples, min(num_images, images), samples)

    def bits(
        self, chosen: np.ndarray, latent_dim: int, seed: int
    ) -> Iterator[tuple[np.ndarray, slice, np.ndarray]]:
        """Block by block: the images, which of their samples, and bits for the whole block.

        The last images and the last samples may not fill their block; what is beyond has no part in
        the result.
        """
        words = math.ceil(latent_dim / 2)
        for start in range(0, len(chosen), self.images):
            group = chosen[start : start + self.images]
            streams = [np.random.SFC64([seed, int(image)]) for image in group]
            for done in range(0, self.num_samples, self.samples):
                bits = np.zeros((self.images, self.samples, 2 * words), "int32")
                for stream, part in zip(streams, bits, strict=False):
                    raw = stream.random_raw(self.samples * words)
                    part[:] = raw.view("int32").reshape(part.shape)
                some = slice(done, min(done + self.samples, self.num_samples))
                yield group, some, bits[:, :, :latent_dim]


class _Programs:
    """What was compiled for a model, kept beside it: compiling takes as long as some 100 images.

    No container, because Keras would save what lies in one with the model.
    """

    def __init__(self, owner: tuple[Any, ...]) -> None:
        self.owner = owner
        self.prior: Prior | None = None
        self._found: dict[Hashable, Any] = {}

    @classmethod
    def of(cls, model: VAE) -> _Programs:
        """Those of a model; none yet if parts of it were exchanged."""
        owner = (model.decoder, model.prior, model.likelihood, model.log_scale)
        found = getattr(model, "_weighing_programs", None)
        if found is None or any(a is not b for a, b in zip(found.owner, owner, strict=True)):
            found = cls(owner)
            object.__setattr__(model, "_weighing_programs", found)  # past Keras' tracking
        return found

    def settle(self, prior: Prior) -> Prior:
        """The prior as programs take it, with the weights that it has now."""
        settled = prior.settled()
        if self.prior is None or settled is prior:
            self.prior = settled
        else:
            self.prior.set_weights(settled.get_weights())
        return self.prior

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The program of that key; a key has one shape of inputs, so nothing is traced twice."""
        if key not in self._found:
            self._found[key] = make()
            if len(self._found) > _MAX_PROGRAMS:
                self._found.pop(next(iter(self._found)))
        return self._found[key]


class Weigher:
    """Computes log w = log p(x, z) - log q(z|x) for samples from q(z|x) of each image.

    Args:
        model: As trained.
        images: uint8 `(num_images, height, width, channels)`, already drawn black or white where
            the model binarises.
        labels: `(num_images,)` integers for a conditional model.
        num_samples: For each image.
        seed: Of the samples.
    """

    def __init__(
        self,
        model: VAE,
        images: np.ndarray,
        labels: np.ndarray | None,
        *,
        num_samples: int,
        seed: int,
    ) -> None:
        self._model, self._images, self._seed = model, images, seed
        self._programs = _Programs.of(model)
        self._prior = self._programs.settle(model.prior)
        self._encoded = model.encoded(images, labels)
        told = labels is not None
        self._labels = (np.eye(model.num_classes, dtype="float32")[labels],) if told else ()
        self._num_samples = num_samples
        self._squared_error, self._num_compared = 0.0, 0

    @property
    def error(self) -> float:
        """Root mean square of what the short cut changed in log w, on the surveyed samples."""
        return math.sqrt(self._squared_error / max(1, self._num_compared))

    def weigh(self) -> Iterator[Weighed]:
        """Every pixel of every sample, as the model computes it."""
        everything = np.arange(len(self._images))
        blocks = Blocks.plan(len(everything), self._num_samples, _cached_rows(self._model))
        key = ("plain", blocks.images, blocks.samples)
        compiled = self._programs.get(key, lambda: PlainWeights(self._model, self._prior))
        for group, some, bits in self._bits(blocks, everything):
            outputs = compiled.predict_on_batch(self._inputs(group, bits, self._pixels(group)))
            yield group, _cut(outputs, group, some)

    def weigh_shortly(self, decoder: DenseDecoder) -> Iterator[Weighed]:
        """The same by the short cut; images with about as many uncertain pixels go together."""
        uncertain, certain, surveyed = self._survey()
        counts = uncertain.sum(1)
        num_rows = len(counts) * self._num_samples
        num_buckets = min(_MAX_BUCKETS, len(counts), 1 + num_rows // _BUCKET_ROWS)
        for bucket in np.array_split(np.argsort(counts, kind="stable"), num_buckets):
            width = LANES * max(1, math.ceil(counts[bucket].max() / LANES))
            for group, some, found in self._weigh_bucket(decoder, bucket, uncertain, width):
                log_weights = found + certain[group, None]
                known = surveyed[group, some.start : some.stop]
                self._squared_error += np.square(log_weights[:, : known.shape[1]] - known).sum()
                self._num_compared += known.size
                yield group, log_weights

    def _survey(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Which pixels are uncertain; what the others cost, summed; and log w of few samples."""
        everything, num_pixels = np.arange(len(self._images)), math.prod(self._images.shape[1:])
        uncertain = np.empty((len(everything), num_pixels), bool)
        certain = np.empty(len(everything))
        surveyed = np.empty((len(everything), min(NUM_SURVEYED, self._num_samples)))
        blocks = Blocks.plan(len(everything), surveyed.shape[1], _cached_rows(self._model))
        key = ("survey", blocks.images, blocks.samples)
        compiled = self._programs.get(key, lambda: PixelSurvey(self._model, self._prior))
        for group, some, bits in self._bits(blocks, everything):
            outputs = compiled.predict_on_batch(self._inputs(group, bits, self._pixels(group)))
            surveyed[group, some] = _cut(outputs[0], group, some)
            least, mean = (output[: len(group)] for output in outputs[1:])
            uncertain[group] = least < -CERTAIN
            certain[group] = np.where(uncertain[group], 0.0, mean).sum(1)
        return uncertain, certain, surveyed

    def _weigh_bucket(
        self, decoder: DenseDecoder, bucket: np.ndarray, uncertain: np.ndarray, width: int
    ) -> Iterator[tuple[np.ndarray, slice, np.ndarray]]:
        """Images, samples and log w without the certain pixels, for images of one width."""
        rows = _cached_rows(self._model)
        blocks = Blocks.plan(len(bucket), self._num_samples, rows, at_once=_CALL_ROWS)
        key = ("dense", blocks.images, blocks.samples, width)
        compiled = self._programs.get(key, lambda: DenseWeights(self._model, self._prior, decoder))
        compiled.take(decoder)
        for group, some, bits in self._bits(blocks, np.sort(bucket)):
            pixels, numbers = _gather(self._pixels(group), uncertain[group], width)
            outputs = compiled.predict_on_batch(self._inputs(group, bits, pixels, numbers))
            yield group, some, _cut(outputs, group, some)

    def _bits(self, blocks: Blocks, chosen: np.ndarray) -> Iterator[Any]:
        """The blocks, the next one in the making while one is computed with."""
        items = blocks.bits(chosen, self._model.latent_dim, self._seed)
        with ThreadPoolExecutor(1) as pool:
            pending = pool.submit(next, items, None)
            while (item := pending.result()) is not None:
                pending = pool.submit(next, items, None)
                yield item

    def _pixels(self, group: np.ndarray) -> np.ndarray:
        return self._images[group].astype("float32") / 255

    def _inputs(self, group: np.ndarray, bits: np.ndarray, *pixels: np.ndarray) -> list[np.ndarray]:
        """Inputs of `importance_weights`; a group that does not fill the block is repeated."""
        rows = np.resize(np.arange(len(group)), len(bits))
        known = [part[group] for part in self._encoded], [part[group] for part in self._labels]
        return [bits, *(part[rows] for part in (*known[0], *pixels, *known[1]))]


def _cut(outputs: np.ndarray, group: np.ndarray, some: slice) -> np.ndarray:
    """Without what only filled up the block, and precise enough to be summed."""
    log_weights = outputs[: len(group), : some.stop - some.start].astype("float64")
    if not np.isfinite(log_weights).all():
        raise ValueError(
            f"log p(x) of image {group[~np.isfinite(log_weights).all(1)][0]} is not finite: the "
            "model's weights, or what it makes of this image, are not. Was its training stable?"
        )
    return log_weights


def _gather(x: np.ndarray, wanted: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Wanted pixels of each image and their numbers, `(images, width)`; the rest filled up."""
    num_pixels = wanted.shape[1]
    # Sorted by whether they are not wanted, the wanted ones come first, in their own order.
    numbers = np.argsort(~wanted, axis=1, kind="stable")[:, :width]
    numbers = np.pad(numbers, ((0, 0), (0, width - numbers.shape[1])))
    numbers[np.arange(width) >= wanted.sum(1, keepdims=True)] = num_pixels
    x = np.pad(x.reshape(len(x), -1), ((0, 0), (0, 1)))
    return np.take_along_axis(x, numbers, axis=1), numbers.astype("int32")


def _cached_rows(model: VAE) -> int:
    """Latents whose widest activation in the decoder fits into the cache, or suits a GPU."""
    widest = max(math.prod(layer.output.shape[1:]) for layer in model.decoder.layers)
    block = _ACCELERATOR_BLOCK_BYTES if find_accelerator() else _BLOCK_BYTES
    return max(1, block // (4 * widest))
