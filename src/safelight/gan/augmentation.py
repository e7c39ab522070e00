"""Differentiable augmentation: what the discriminator sees of any picture, changed at random.

With few pictures the discriminator learns them by heart. If real and generated ones are changed
alike, by changes through which gradients pass, it cannot, and the generator does not learn to draw
the changes (Zhao et al. 2020, arXiv 2006.10738). Where the originals draw each change of a batch
from the framework's generators, here all follow from numbers that are passed.
"""

from __future__ import annotations

from typing import Any

from keras import ops

NUM_DRAWS = 8
"""Uniform numbers for each picture."""

_SHIFT = 0.125  # of the side, either way
_CUT = 0.5  # of the side
_BRIGHTER = 0.25  # of the range, either way: the originals' half of a unit in [-1, 1]
_GREY = 0.5  # where a picture is not: 0 in [-1, 1]


def augment(images: Any, uniform: Any, policy: str) -> Any:
    """Changes each picture in a way of its own.

    Args:
        images: `(batch, height, width, channels)`, floats in [0, 1].
        uniform: `(batch, 8)` in [0, 1].
        policy: `"none"`; `"geometric"`: a shift by up to an eighth, grey where nothing was, and a
            square of half the side made grey; `"all"`: first brightness by up to a quarter of the
            range, saturation by a factor of up to 2 (colour only) and contrast by one of .5 to 1.5.

    Returns:
        The same shape; values may leave [0, 1].

    Raises:
        ValueError: Another policy.
    """
    if policy not in ("none", "geometric", "all"):
        raise ValueError(f"policy={policy!r}: expected none, geometric or all.")
    if policy == "none":
        return images
    if policy == "all":
        images = change_colours(images, uniform[:, :3])
    return cut_out(shift(images, uniform[:, 3:5]), uniform[:, 5:7])


def change_colours(images: Any, uniform: Any) -> Any:
    """Brightness, saturation and contrast; `uniform` is `(batch, 3)`."""
    first, second, third = (ops.reshape(uniform[:, i], (-1, 1, 1, 1)) for i in range(3))
    images = images + 2 * _BRIGHTER * (first - 0.5)
    grey = ops.mean(images, axis=3, keepdims=True)
    images = grey + (images - grey) * (2.0 * second)
    mean = ops.mean(images, axis=(1, 2, 3), keepdims=True)
    return mean + (images - mean) * (third + 0.5)


def shift(images: Any, uniform: Any) -> Any:
    """By whole pixels, up to an eighth of the side either way; `uniform` is `(batch, 2)`."""
    height, width = images.shape[1:3]
    down, right = (
        ops.floor(uniform[:, i] * (2 * _reach(side) + 1)) - _reach(side)
        for i, side in enumerate((height, width))
    )
    # As products with matrices of one 1 in a row: no gather per picture, whose gradient is slow.
    moved = ops.einsum("bij,bjwc->biwc", _moves(height, down), images - _GREY)
    return ops.einsum("bij,bhjc->bhic", _moves(width, right), moved) + _GREY


def cut_out(images: Any, uniform: Any) -> Any:
    """A square of half the side becomes grey, its middle anywhere; `uniform` is `(batch, 2)`."""
    height, width = images.shape[1:3]
    rows, columns = (_outside(side, uniform[:, i]) for i, side in enumerate((height, width)))
    inside = (1.0 - rows)[:, :, None] * (1.0 - columns)[:, None, :]
    return _GREY + (images - _GREY) * (1.0 - inside)[..., None]


def _reach(side: int) -> int:
    return int(side * _SHIFT + 0.5)


def _moves(side: int, by: Any) -> Any:
    """`(batch, side, side)`: row i has its 1 at i - by, or none."""
    numbers = ops.arange(side, dtype="float32")
    source = numbers[None, :, None] - ops.reshape(by, (-1, 1, 1))
    return ops.cast(ops.abs(source - numbers[None, None, :]) < 0.5, "float32")


def _outside(side: int, uniform: Any) -> Any:
    """`(batch, side)`: 0 within half the side around a middle somewhere, 1 elsewhere."""
    middle = ops.floor(uniform * side)
    numbers = ops.arange(side, dtype="float32")
    low = ops.reshape(middle, (-1, 1)) - side * _CUT / 2
    within = ops.logical_and(numbers[None, :] >= low, numbers[None, :] < low + side * _CUT)
    return ops.cast(ops.logical_not(within), "float32")
