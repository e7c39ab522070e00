"""ELPV's table: how probable a defect is of each solar cell (Deitsch et al., arXiv 1807.02894)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CLASS_NAMES = ("functional", "defective")
BLOCK = 60
"""So many cells that follow each other share modules."""


def read_table(folder: Path) -> tuple[tuple[str, ...], NDArray[np.float32], tuple[str, ...]]:
    """The cells' files, the probability that each is defective, and what it is made of.

    Args:
        folder: Where the data set lies.

    Returns:
        Names relative to the folder, (n,) float32, and "mono" or "poly" for each.
    """
    rows = [line.split() for line in (folder / "labels.csv").read_text().splitlines() if line]
    probability = np.array([float(row[1]) for row in rows], dtype=np.float32)
    return tuple(row[0] for row in rows), probability, tuple(row[2] for row in rows)


def soft_targets(probability: NDArray[np.float32], threshold: float) -> NDArray[np.float32]:
    """`(n, 2)`: the probability, stretched on either side so that the threshold lies at 1/2.

    Otherwise a cell whose label is "defective" because it is so with p = 1/3 > 0 would be taught
    as functional.
    """
    above = (probability - threshold) / max(1 - threshold, 1e-6)
    below = probability / max(threshold, 1e-6)
    found = np.where(probability > threshold, (1 + above) / 2, below / 2)
    return np.stack([1 - found, found], axis=1).astype(np.float32)
