"""What a classifier misses where a part of a picture is covered: a check on its explanations.

    occluder = Occluder(classifier)
    covered = occluder.cover(picture, 1)       # how much the logit of class 1 falls, patch by patch
    rank_agreement(found.maps[0], covered)     # 1: the map ranks the places as covering them does

A patch of the picture's mean colour is moved over it (Zeiler and Fergus 2014, arXiv 1311.2901,
section 4.2). That takes no gradient and no look inside, so it can tell on a map that does; and it
takes a pass of the network for each patch and view, about a hundred times as long as the map.
"""

from __future__ import annotations

import dataclasses

import keras
import numpy as np

from safelight.images import resize
from safelight.transfer import backbones, engines, models
from safelight.transfer.augmentation import turn

GRID = 7
"""Patches along a side; half a patch apart, so that each covers a quarter of it."""
_BATCH_SIZE = 32


@dataclasses.dataclass(frozen=True, eq=False)
class Occlusion:
    """What covering one picture did.

    Attributes:
        drops: `(grid, grid)` by how much the class's logit fell, top left first; negative where
            it rose.
        rows: `(grid, 2)` first and last + 1 row of the patches, in pixels as the network sees them.
        columns: `(grid, 2)` the same of columns.
        size: Height and width of the picture as the network sees it.
    """

    drops: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    size: tuple[int, int]

    @property
    def map(self) -> np.ndarray:
        """`(height, width)` float32: the mean drop of the patches that cover a pixel."""
        total, count = np.zeros(self.size, np.float32), np.zeros(self.size, np.float32)
        for (top, bottom), drops in zip(self.rows, self.drops, strict=True):
            for (left, right), drop in zip(self.columns, drops, strict=True):
                total[top:bottom, left:right] += drop
                count[top:bottom, left:right] += 1
        return total / np.maximum(count, 1)


class Occluder:
    """Covers pictures; nothing here needs a gradient, so the fastest engine answers.

    Args:
        classifier: A model from `models.build_classifier`, trained or loaded.
        grid: Patches along a side.
        engine: See `engines.choose_engine`; computes in float32.

    Raises:
        ValueError: Fewer than two patches, or more than half the pixels of a side.
    """

    def __init__(self, classifier: keras.Model, *, grid: int = GRID, engine: str = "auto") -> None:
        self._entrance = backbones.find_resizing(classifier)
        self._size = self._entrance.height, self._entrance.width
        if not 2 <= grid <= min(self._size) // 2:
            raise ValueError(
                f"grid={grid}: expected 2 to {min(self._size) // 2} patches along a side of "
                f"{min(self._size)} pixels."
            )
        self._rows, self._columns = (_patches(side, grid) for side in self._size)
        heads = models.head_layers(classifier)
        pooled = [models.pooled_name(head) for head in heads]
        self._run = engines.build_for_few(engine, backbones.build_trunk(classifier, pooled))
        self._head = models.build_tail(classifier, heads)
        self._head.run_eagerly = True  # as in `explanations`

    def cover(self, image: np.ndarray, class_index: int) -> Occlusion:
        """How much the logit of a class falls where a picture is covered.

        Args:
            image: `(height, width, 3)` uint8, of any size.
            class_index: Which class.

        Raises:
            ValueError: There is no such class.
        """
        num_classes = self._head.output_shape[-1]
        if not 0 <= class_index < num_classes:
            raise ValueError(
                f"class_index={class_index}: expected 0 to {num_classes - 1}, a class of the model."
            )
        pixels = resize(image, self._size)
        patches = [(row, column) for row in self._rows for column in self._columns]
        whole = self._logits(pixels[None])[0, class_index]
        rest = [
            self._logits(_covered(pixels, patches[start : start + _BATCH_SIZE]))[:, class_index]
            for start in range(0, len(patches), _BATCH_SIZE)
        ]
        drops = whole - np.concatenate(rest)
        shape = (len(self._rows), len(self._columns))
        return Occlusion(drops.reshape(shape), self._rows, self._columns, self._size)

    def _logits(self, pixels: np.ndarray) -> np.ndarray:
        """`(n, num_classes)` float64, the mean over the views that the classifier averages."""
        found = []
        for symmetry in self._entrance.symmetries:
            rows = self._run(np.ascontiguousarray(turn(pixels, symmetry)))
            logits = self._head.predict_on_batch(rows if len(rows) > 1 else rows[0])
            found.append(np.asarray(logits, np.float64))
        return np.mean(found, axis=0)


def _covered(pixels: np.ndarray, patches: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """A picture with each of some patches in its mean colour, `(number, height, width, 3)`."""
    found = np.repeat(pixels[None], len(patches), axis=0)
    for picture, ((top, bottom), (left, right)) in zip(found, patches, strict=True):
        picture[top:bottom, left:right] = pixels.mean((0, 1))
    return found


def _patches(side: int, grid: int) -> np.ndarray:
    """First and last + 1 pixel `(grid, 2)` of patches that cover a side, half a patch apart."""
    ends = np.linspace(0, side, grid + 2).round().astype(int)
    return np.stack([ends[:-2], ends[2:]], axis=1)


def rank_agreement(explanation: np.ndarray, occlusion: Occlusion) -> float:
    """Spearman's rank correlation between a map's means under the patches and the drops.

    Args:
        explanation: `(height, width)`, a map of the same picture and class, with its signs.
        occlusion: As from `Occluder.cover`.

    Returns:
        From -1 to 1; NaN where one of them is the same everywhere and so ranks nothing.

    Raises:
        ValueError: The map has another size.
    """
    from scipy.stats import spearmanr

    if explanation.shape != tuple(occlusion.size):
        raise ValueError(
            f"a map of {explanation.shape} against an occlusion of {tuple(occlusion.size)}: "
            "expected the map as `Explainer` gives it."
        )
    under = [
        explanation[top:bottom, left:right].mean()
        for top, bottom in occlusion.rows
        for left, right in occlusion.columns
    ]
    drops = occlusion.drops.ravel()
    if np.ptp(under) == 0 or np.ptp(drops) == 0:
        return float("nan")
    return float(spearmanr(under, drops).statistic)
