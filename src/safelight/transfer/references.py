"""What other pictures look like inside the network: mean activations of training pictures.

A map that multiplies activations with weights is strong wherever activations are, and near the
borders they are strong in every picture, because of the zeros that convolutions pad with. What is
usual at a place is no reason for an answer. So a map can be drawn of the difference to the mean
activations that pictures of the other classes have at the same place; see
docs/theory/explanations.md.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import ArrayLike, NDArray

from safelight.datasets import ImageDataset
from safelight.files import atomic_path
from safelight.images import resize
from safelight.transfer import backbones, engines, models
from safelight.transfer.augmentation import turn
from safelight.untrusted import read_bytes, take, unpack_arrays

MAX_IMAGES, MAX_PER_CLASS = 96, 24
MAX_CLASSES = 8
"""That are told apart; the means of one take about a megabyte."""
_BATCH_SIZE = 16
_FILE = "references.npz"


@dataclasses.dataclass(frozen=True, eq=False)
class References:
    """Mean activations of training pictures, for each layer that a head reads.

    Attributes:
        means: By the layer's name, `(groups, rows, columns, channels)` float16. The groups are the
            classes; or there is one, in which all classes weigh alike. Of a classifier that
            averages views they are means over the views, too: then a picture and its mirror image
            are compared with the same, and have the same map, mirrored.
        num_images: Pictures that they are the means of.
    """

    means: dict[str, NDArray[np.float16]]
    num_images: int

    def other_than(self, layer: str, classes: ArrayLike) -> NDArray[np.float32]:
        """What a layer does for pictures of other classes than those that are explained.

        Args:
            layer: Its name.
            classes: `(n,)`.

        Returns:
            `(n, rows, columns, channels)`, the mean over the other classes, which weigh alike; over
            all where they are not told apart.
        """
        means = self.means[layer].astype("float32")
        if len(means) == 1:
            return np.repeat(means, len(np.atleast_1d(classes)), axis=0)
        others = 1 - np.eye(len(means), dtype="float32")[np.asarray(classes)]
        return np.einsum("nc,chwk->nhwk", others / (len(means) - 1), means)

    def check(self, layers: dict[str, tuple[int, ...]]) -> None:
        """Raises `ValueError` if these are means of another network's layers."""
        own = {name: array.shape[1:] for name, array in self.means.items()}
        if own != layers:
            raise ValueError(
                f"references of layers {own}: expected {layers}, those of this classifier."
            )

    def to_bytes(self) -> bytes:
        """As the content of an `.npz` file."""
        buffer = io.BytesIO()
        named: dict[str, Any] = {f"layer/{name}": each for name, each in self.means.items()}
        np.savez_compressed(buffer, num_images=np.array(self.num_images), **named)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> References:
        """What `to_bytes` gave.

        Raises:
            ValueError: It is something else.
        """
        try:
            arrays = unpack_arrays(io.BytesIO(content))
            names = [name for name in arrays if name.startswith("layer/")]
            sides = (None, None, None, None)
            means = {
                name.removeprefix("layer/"): take(
                    arrays, name, kinds="e", shape=sides, finite=False
                )
                for name in names
            }
            groups = {len(each) for each in means.values()}
            if len(groups) > 1 or 0 in groups:
                raise ValueError(f"layers of {sorted(groups)} classes: expected as many in each")
            return cls(means, int(take(arrays, "num_images", kinds="iu", shape=())))
        except (OSError, ValueError) as error:
            raise ValueError(f"these are no references ({error})") from error


def find_references(
    classifier: keras.Model, dataset: ImageDataset, *, engine: str = "auto", seed: int = 0
) -> References:
    """Means over some pictures of each class.

    Args:
        classifier: As from `models.build_classifier`, trained or loaded.
        dataset: Pictures it has learned from. As many of each class are taken as can be, at most
            24, and 96 in all.
        engine: See `engines.choose_engine`; computes in float32.
        seed: Of the choice.

    Raises:
        ValueError: There is no picture.
    """
    chosen, labels = choose(dataset.labels, seed), np.asarray(dataset.labels)
    if not len(chosen):
        raise ValueError(f"{dataset.name} has no picture: expected those of a training part.")
    entrance, layers = backbones.find_resizing(classifier), models.layer_names(classifier)
    run = engines.build_for_few(engine, backbones.build_trunk(classifier, layers))
    groups = [chosen[labels[chosen] == each] for each in np.unique(labels[chosen])]
    found = [_mean(run, dataset, rows, entrance) for rows in groups]
    means = [np.stack(each) for each in zip(*found, strict=True)]
    # A class without a picture has no mean to be told apart by.
    if len(groups) != dataset.num_classes or len(groups) > MAX_CLASSES:
        means = [each.mean(0, keepdims=True) for each in means]
    named = zip(layers, means, strict=True)
    return References({name: each.astype("float16") for name, each in named}, len(chosen))


def choose(labels: ArrayLike, seed: int) -> NDArray[np.int64]:
    """Rows of pictures, dealt from all classes in turn: at most 24 of a class and 96 in all."""
    labels, rng = np.asarray(labels), np.random.default_rng(seed)
    piles = [rng.permutation(np.flatnonzero(labels == each)) for each in np.unique(labels)]
    turns = itertools.zip_longest(*(pile[:MAX_PER_CLASS].tolist() for pile in piles))
    dealt = [row for turn in turns for row in turn if row is not None]
    return np.array(dealt[:MAX_IMAGES], np.int64)


def _mean(
    run: engines.Run,
    dataset: ImageDataset,
    rows: NDArray[np.int64],
    entrance: backbones.ImageResizing,
) -> list[NDArray[np.float64]]:
    """Mean activations of each layer over some pictures and all views."""
    totals: list[NDArray[np.float64]] = []
    for start in range(0, len(rows), _BATCH_SIZE):
        batch = rows[start : start + _BATCH_SIZE]
        size = (entrance.height, entrance.width)
        pixels = np.stack([resize(dataset.read(int(row)), size) for row in batch])
        for symmetry in entrance.symmetries:
            found = run(np.ascontiguousarray(turn(pixels, symmetry)))
            sums = [np.asarray(each).sum(0, dtype="float64") for each in found]
            totals = [a + b for a, b in zip(totals, sums, strict=True)] if totals else sums
    return [total / (len(rows) * len(entrance.symmetries)) for total in totals]


def keep_references(folder: Path, found: References) -> None:
    """Writes them into the folder of a run."""
    with atomic_path(folder / _FILE) as path:
        path.write_bytes(found.to_bytes())


def read_references(folder: Path) -> References | None:
    """What `keep_references` wrote; `None` in a run that has none.

    Raises:
        ValueError: The file is damaged.
    """
    path = folder / _FILE
    if not path.is_file():
        return None
    try:
        return References.from_bytes(read_bytes(path))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}): train the run again.") from error
