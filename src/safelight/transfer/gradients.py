"""The gradient of a model's output by its inputs: what `keras.ops` has no word for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

Scores = Callable[[list[Any]], Any]
"""From tensors to one number."""


def _tensorflow(function: Scores, tensors: list[Any]) -> list[Any]:
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(tensors)
        score = function(tensors)
    return tape.gradient(score, tensors, unconnected_gradients="zero")


def _jax(function: Scores, tensors: list[Any]) -> list[Any]:
    import jax

    return jax.grad(function)(tensors)


def _torch(function: Scores, tensors: list[Any]) -> list[Any]:
    import torch

    with torch.enable_grad():
        leaves = [tensor.detach().requires_grad_(True) for tensor in tensors]
        return list(torch.autograd.grad(function(leaves), leaves, materialize_grads=True))


_BACKENDS = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}


def gradients_of(function: Scores, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The gradients of a number by the arrays that it is computed from.

    Args:
        function: From a list of float32 tensors to a tensor of shape `()`; made of `keras.ops` and
            of calls of Keras models.
        arrays: Where to take them; computed in float32.

    Returns:
        One float32 array for each, of its shape; zeros where the number does not depend on it.

    Raises:
        ValueError: Keras runs on a backend that has no gradients.
    """
    name = keras.backend.backend()
    if name not in _BACKENDS:
        raise ValueError(
            f"Keras runs on {name!r}, which has no gradients: expected KERAS_BACKEND to be one of "
            f"{', '.join(_BACKENDS)}."
        )
    tensors = [ops.convert_to_tensor(array, dtype="float32") for array in arrays]
    found = _BACKENDS[name](function, tensors)
    return [np.asarray(ops.convert_to_numpy(gradient)) for gradient in found]
