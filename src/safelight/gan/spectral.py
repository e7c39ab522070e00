"""Spectral normalization as a change of variables.

Kernels are divided by their largest singular value before the network sees them (Miyato et al.
2018, arXiv 1802.05957). The value comes from one step of power iteration per training step, on
vectors that are kept; gradients pass through the division. What is trained is the kernel itself,
what the network is run with and what is saved is the quotient: a plain network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

_TINY = 1e-12


def start_vector(kernel: np.ndarray) -> np.ndarray:
    """The right singular vector of the largest singular value.

    Args:
        kernel: `(..., outputs)`; all other axes count as one, that of the inputs.

    Returns:
        `(outputs,)` float32, of length 1.
    """
    matrix = np.asarray(kernel, "float64").reshape(-1, kernel.shape[-1])
    _, vectors = np.linalg.eigh(matrix.T @ matrix)
    return vectors[:, -1].astype("float32")


def next_vector(kernel: Any, vector: Any) -> Any:
    """One step of power iteration; no gradient passes."""
    matrix = ops.reshape(kernel, (-1, kernel.shape[-1]))
    found = ops.matmul(ops.transpose(matrix), ops.matmul(matrix, ops.reshape(vector, (-1, 1))))
    found = ops.reshape(found, (-1,))
    return ops.stop_gradient(found / (ops.norm(found) + _TINY))


def normalize(kernel: Any, vector: Any) -> Any:
    """The kernel over |W v|, which is its largest singular value where v belongs to that.

    By u = W v / |W v| held fixed, the gradient is that of u' W v.

    Args:
        kernel: `(..., outputs)`.
        vector: `(outputs,)`, as from `next_vector`.
    """
    matrix = ops.reshape(kernel, (-1, kernel.shape[-1]))
    column = ops.reshape(vector, (-1, 1))
    image = ops.matmul(matrix, column)
    left = ops.stop_gradient(image / (ops.norm(image) + _TINY))
    return kernel / (ops.sum(left * image) + _TINY)


def normalize_all(weights: Sequence[Any], vectors: Sequence[Any], places: Sequence[int]) -> list:
    """A list of weights in which those at some places are normalized."""
    found = list(weights)
    for place, vector in zip(places, vectors, strict=True):
        found[place] = normalize(weights[place], vector)
    return found
