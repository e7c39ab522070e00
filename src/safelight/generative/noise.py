"""Random numbers of a training: all follow from a seed and the number of an epoch.

The order of the pictures, the draws of pixels and latents, and whatever else changes from step to
step. Hence an epoch can be run again, and all backends train on the same numbers.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from keras import ops


def epoch_order(seed: int, epoch: int, num_images: int, batch_size: int) -> np.ndarray:
    """Which images each step of an epoch sees.

    Args:
        seed: Of the training.
        epoch: The first is 0.
        num_images: Every one of them is seen; the last batch is filled up from the beginning.
        batch_size: Images in a step.

    Returns:
        `(steps, batch)` int32.
    """
    order = np.random.default_rng([seed, epoch]).permutation(num_images)
    num_steps = -(-num_images // batch_size)
    return np.resize(order, (num_steps, batch_size)).astype("int32")


def noise_states(shape: tuple[int, ...], *stream: int) -> np.ndarray:
    """Generators of random numbers, one for each element: int32 of that shape, none 0.

    Args:
        shape: Of the result.
        stream: Numbers that all of them follow from, the seed first.
    """
    states = np.random.default_rng(stream).integers(1, 2**32, shape, dtype="uint32")
    return states.view("int32")


def next_states(states: Any) -> Any:
    """The next 32 random bits of every generator, which are its next state as well.

    Marsaglia's xorshift (2003, J. Stat. Soft. 8/14), triple 13, 17, 5. On a CPU it costs a fraction
    of the counter-based generators of the backends, which take up to two thirds of a step.
    """
    states = ops.bitwise_xor(states, ops.bitwise_left_shift(states, 13))
    states = ops.bitwise_xor(states, shift_right(states, 17))
    return ops.bitwise_xor(states, ops.bitwise_left_shift(states, 5))


def shift_right(bits: Any, by: int) -> Any:
    """Shifts bits of signed numbers, which all backends have, as if they were unsigned."""
    return ops.bitwise_and(ops.bitwise_right_shift(bits, by), 2 ** (32 - by) - 1)


def draw_binary(images: Any, bits: Any) -> Any:
    """Draws each pixel white with its grey value as probability, exact to 1/65536.

    Args:
        images: `(batch, height, width, channels)` uint8.
        bits: `(batch, pixels / 2, rounded up)` int32, 32 random bits each.

    Returns:
        0 and 1, float32, the images' shape.
    """
    shape = tuple(images.shape)
    num_pixels = math.prod(shape[1:])
    halves = [ops.bitwise_and(bits, 0xFFFF), shift_right(bits, 16)]
    uniform = ops.concatenate(halves, axis=1)[:, :num_pixels]
    # floor(255 u / 65536) is uniform on 0 to 254, so it is below k in k of 255 cases.
    level = ops.bitwise_right_shift(uniform * 255, 16)
    pixels = ops.cast(ops.reshape(images, (shape[0], num_pixels)), "int32")
    return ops.reshape(ops.cast(level < pixels, "float32"), shape)


def draw_normal(bits: Any, num: int) -> Any:
    """Draws from N(0, 1) by Box & Muller (1958, Ann. Math. Stat. 29/2).

    Args:
        bits: `(2, ..., num / 2, rounded up)` int32, 32 random bits each.
        num: Length of the last axis of the result.

    Returns:
        `(..., num)` float32.
    """
    uniform = draw_uniform(bits)  # the logarithm of 0 would be infinite
    radius, angle = ops.sqrt(-2.0 * ops.log(uniform[0])), 2 * math.pi * uniform[1]
    halves = [radius * ops.cos(angle), radius * ops.sin(angle)]
    return ops.concatenate(halves, axis=-1)[..., :num]


def draw_uniform(bits: Any) -> Any:
    """Draws from (0, 1], float32, one for each element of int32 random bits."""
    return (ops.cast(shift_right(bits, 8), "float32") + 1.0) * 2.0**-24
