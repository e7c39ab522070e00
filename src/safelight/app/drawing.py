"""Pixels as pages show them: of a size to look at, a map laid over them, as a data address."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from safelight.images import resize
from safelight.plots.explanations import lay_over, strength_of

_LONGEST = 440  # pixels of a side that is shown
_STRONG = 0.5  # of the strongest place: there the line is drawn, as in plots


def fit(pixels: NDArray[np.uint8], longest: int = _LONGEST) -> NDArray[np.uint8]:
    """A picture of a size to look at: large ones reduced, few pixels as sharp squares.

    Args:
        pixels: `(height, width, 3)` uint8.
        longest: No side becomes longer.
    """
    most = max(pixels.shape[:2])
    if 2 * most <= longest:
        zoom = longest // most
        return pixels.repeat(zoom, axis=0).repeat(zoom, axis=1)
    if most <= longest:
        return pixels
    height, width = (max(1, round(side * longest / most)) for side in pixels.shape[:2])
    return resize(pixels, (height, width)).round().clip(0, 255).astype(np.uint8)


def overlay(pixels: NDArray[np.uint8], found: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A map over its picture, as `plots.plot_explanations` draws it.

    Args:
        pixels: `(height, width, 3)` uint8.
        found: `(rows, columns)` of any size, positive where it speaks for the answer.

    Returns:
        `(height, width, 3)` uint8, with a white line at half of the strongest place.
    """
    strength = strength_of(found, (pixels.shape[0], pixels.shape[1]))
    laid = lay_over((pixels / np.float32(255)).astype(np.float32), strength)
    laid[_edge(strength > _STRONG)] = 1
    return (255 * laid).round().astype(np.uint8)


def _edge(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The places inside that have a neighbour outside; the picture's border is none."""
    around = np.pad(inside, 1, mode="edge")
    shrunk = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return inside & ~shrunk


def data_address(pixels: NDArray[np.uint8]) -> str:
    """A picture `(height, width, 3)` uint8 as an address that holds it, so that no file is left."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=90, method=2)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
