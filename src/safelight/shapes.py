"""Draw small coloured shapes: pictures for tests and lessons that need no download."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float64]

# Each shape is where a function of the distances from its centre, in units of its radius, holds.
_SHAPES: dict[str, Callable[[Field, Field], NDArray[np.bool_]]] = {
    "circle": lambda y, x: y**2 + x**2 <= 1,
    "square": lambda y, x: np.maximum(abs(y), abs(x)) <= 0.85,
    "triangle": lambda y, x: (y <= 0.8) & (y >= 2 * abs(x) - 0.9),
    "cross": lambda y, x: (np.minimum(abs(y), abs(x)) <= 0.25) & (np.maximum(abs(y), abs(x)) <= 1),
    "ring": lambda y, x: abs(np.hypot(y, x) - 0.8) <= 0.2,
    "bar": lambda y, x: (abs(y) <= 0.25) & (abs(x) <= 1),
    "pole": lambda y, x: (abs(x) <= 0.25) & (abs(y) <= 1),
    "diamond": lambda y, x: abs(y) + abs(x) <= 1,
}
SHAPE_NAMES = tuple(_SHAPES)


def draw_shape(name: str, image_size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw one shape of random place, size and colour over a random, noisy background.

    Use it through `datasets.make_shapes`. Colours carry no information on the shape.

    Args:
        name: One of `SHAPE_NAMES`.
        image_size: Height and width in pixels.
        rng: Where the randomness comes from.

    Returns:
        Pixels, (image_size, image_size, 3), uint8.
    """
    radius = rng.uniform(0.25, 0.4) * image_size
    centre = rng.uniform(radius, image_size - radius, size=2)
    rows, columns = np.mgrid[:image_size, :image_size] + 0.5
    inside = _SHAPES[name]((rows - centre[0]) / radius, (columns - centre[1]) / radius)
    # Dark on light or light on dark, at least 80 grey levels apart in each channel.
    dark, light = rng.uniform(0, 85, size=3), rng.uniform(165, 255, size=3)
    inner, outer = (dark, light) if rng.random() < 0.5 else (light, dark)
    clean = np.where(inside[..., np.newaxis], inner, outer)
    return np.clip(clean + rng.normal(0, 8, size=clean.shape), 0, 255).astype(np.uint8)
