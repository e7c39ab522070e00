"""When a classifier does not know: is this picture like those it learned from at all?

A classifier has to answer with one of its classes, and is often sure of itself on a picture of
something else. So beside its answer stands how far the picture lies from those that were learned
from, in the features that the head sees: the mean distance to its nearest neighbours, between
roots of the features that are scaled to length one layer by layer. (For activations that are not
negative this is Hellinger's distance between what the channels share in a layer's activity, so how
bright a picture is does not matter, and no layer outweighs another.)

How far is too far? Pictures that are known to be familiar say so: their own distances, each from
pictures other than itself. The share of these that lie at least as far is a p-value; refusing what
has p <= 0.05 refuses about 5 % of familiar pictures, whatever the classes, as finely as the number
of calibrating pictures allows.

References: Sun et al. 2022, arXiv:2204.06507 (nearest neighbours, and why to scale to length one);
Laxhammar and Falkman 2011, doi:10.1109/FUSION.2011.5977540, and Bates et al. 2023,
doi:10.1214/22-AOS2244 (conformal p-values of outliers).
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from safelight.transfer.roots import scaled_roots
from safelight.untrusted import read_arrays, take

NUM_NEIGHBORS = 3
_NUM_FOLDS = 5
FEWEST = 2 * _NUM_FOLDS
_BLOCK = 2048  # rows of the matrix of distances at a time


@dataclasses.dataclass(frozen=True, eq=False)
class Familiarity:
    """What is needed to say how far a picture is from those that were learned from.

    Attributes:
        widths: `(num_layers,)` features of each layer that the head sees, in its order.
        references: `(num_images, num_features)` float16, of the pictures learned from, scaled.
        calibration: `(n,)` distances of familiar pictures, ascending.
    """

    widths: NDArray[np.int64]
    references: NDArray[np.float16]
    calibration: NDArray[np.float64]

    def distances(self, features: ArrayLike) -> NDArray[np.float64]:
        """How far pictures are from those learned from; larger is less familiar.

        Args:
            features: `(n, num_features)` as the head sees them, of the picture itself.

        Returns:
            `(n,)`, from 0 to 2 times the square root of the number of layers.

        Raises:
            ValueError: Another number of features.
        """
        return nearest_distances(scaled_roots(features, self.widths.tolist()), self.references)

    def nearest(
        self, features: ArrayLike, number: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The pictures learned from that one picture is nearest to.

        Args:
            features: `(num_features,)` as the head sees it.
            number: How many are wanted; there may be fewer.

        Returns:
            `(m,)` rows of `references`, the nearest first, and their distances `(m,)`.

        Raises:
            ValueError: Another number of features.
        """
        row = scaled_roots(np.asarray(features)[None], self.widths.tolist())[0]
        distances = np.linalg.norm(self.references.astype(np.float32) - row, axis=1)
        rows = np.argsort(distances, kind="stable")[:number]
        return rows, distances[rows].astype(np.float64)

    def p_values(self, features: ArrayLike) -> NDArray[np.float64]:
        """The share of familiar pictures that lie at least as far: `(n,)`, above 0, at most 1."""
        return self.rank(self.distances(features))

    def rank(self, distances: ArrayLike) -> NDArray[np.float64]:
        """The p-values of distances `(n,)` that are already there."""
        below = np.searchsorted(self.calibration, distances, side="left")
        number = len(self.calibration)
        return (number - below + 1) / (number + 1)

    def check_rate(self, rate: float) -> None:
        """Makes sure that something can be refused at this rate of false alarms.

        Raises:
            ValueError: Below the least p-value that there is.
        """
        number = len(self.calibration)
        if rate < 1 / (number + 1):
            raise ValueError(
                f"a rate of {rate:g} refuses nothing, whatever it is, as only {number} pictures "
                f"say what is familiar: expected more than {1 / (number + 1):.3g}."
            )

    def to_bytes(self) -> bytes:
        """As it stands in a file: an .npz archive of three arrays."""
        buffer = io.BytesIO()
        np.savez(buffer, **dataclasses.asdict(self))
        return buffer.getvalue()

    @classmethod
    def read(cls, path: Path) -> Familiarity:
        """What `to_bytes` wrote.

        Raises:
            ValueError: There is no such file, or something else is in it.
        """
        try:
            return cls._of(read_arrays(path))
        except FileNotFoundError as error:
            raise ValueError(
                f"{path} is not there, so nothing is known to be familiar: expected a run that "
                "`transfer train` made with this version, from a pretrained network with a frozen "
                f"part and at least {FEWEST} pictures."
            ) from error
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} is damaged ({error}): train the run again.") from error

    @classmethod
    def _of(cls, arrays: Mapping[str, NDArray[Any]]) -> Familiarity:
        widths = take(arrays, "widths", kinds="iu", shape=(None,))
        references = take(arrays, "references", kinds="e", shape=(None, None))
        calibration = take(arrays, "calibration", kinds="d", shape=(None,))
        number = references.shape[1]
        fits = widths.min(initial=number) >= 1 and widths.max(initial=1) <= number == widths.sum()
        if not references.size or not fits:
            raise ValueError(f"{number} features in layers of {widths[:9].tolist()}")
        if not len(calibration) or (np.diff(calibration) < 0).any():
            raise ValueError("its distances do not rise")
        return cls(widths, references, calibration)


def fit_familiarity(
    features: ArrayLike,
    *,
    widths: Sequence[int] = (),
    held_out: ArrayLike | None = None,
    units: ArrayLike | None = None,
    seed: int = 0,
) -> Familiarity:
    """Learns what is familiar.

    Args:
        features: `(n, num_features)` of the pictures that were learned from.
        widths: How many of them come from each layer; by default all from one.
        held_out: `(m, num_features)` of familiar pictures that had no part in the features either,
            where the network was fine-tuned on the others; they set the scale. By default each
            fifth of `features` does, measured from the other four.
        units: `(n,)` numbers; pictures of one unit (copies, one scene) are in the same fifth, as
            otherwise their own likes would be near and any new picture far. By default each is one.
        seed: Of the fifths.

    Raises:
        ValueError: Fewer than ten pictures, fewer units than fifths, or widths of another number
            of features.
    """
    rows = np.asarray(features)
    if rows.ndim != 2 or len(rows) < FEWEST:
        raise ValueError(
            f"features {rows.shape}: expected (n, num_features) of {FEWEST} or more pictures, to "
            "say what is familiar."
        )
    parts = np.array(widths or [rows.shape[1]], np.int64)
    references = scaled_roots(rows, parts.tolist()).astype(np.float16)
    if held_out is not None:
        scale = nearest_distances(scaled_roots(held_out, parts.tolist()), references)
    else:
        found = np.arange(len(rows)) if units is None else np.unique(units, return_inverse=True)[1]
        if found.max() + 1 < _NUM_FOLDS:
            raise ValueError(
                f"{found.max() + 1} units of pictures: expected {_NUM_FOLDS} or more, to say what "
                "is familiar."
            )
        folds = (np.random.default_rng(seed).permutation(found.max() + 1) % _NUM_FOLDS)[found]
        scale = np.empty(len(rows))
        for fold in range(_NUM_FOLDS):
            held = folds == fold
            scale[held] = nearest_distances(references[held], references[~held])
    return Familiarity(parts, references, np.sort(scale))


def nearest_distances(rows: NDArray[Any], references: NDArray[Any]) -> NDArray[np.float64]:
    """Mean Euclidean distance to the nearest references.

    Args:
        rows: `(n, num_features)` scaled roots.
        references: `(num_references, num_features)` likewise.

    Returns:
        `(n,)`.
    """
    near, others = min(NUM_NEIGHBORS, len(references)), references.astype(np.float32)
    squares = (others**2).sum(1)
    found = np.empty(len(rows))
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK].astype(np.float32)
        all_of_them = (block**2).sum(1)[:, None] + squares - 2 * block @ others.T
        nearest = np.partition(np.maximum(all_of_them, 0), near - 1, axis=1)[:, :near]
        found[start : start + _BLOCK] = np.sqrt(nearest).mean(1)
    return found
