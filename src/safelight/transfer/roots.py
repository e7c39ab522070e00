"""Roots of pooled features, each layer's scaled to length one: what distances are taken between.

Activations and their pooled values are skewed, so roots tell more than the values themselves
(Perronnin et al. 2010, doi:10.1007/978-3-642-15561-1_11). Scaled to length one, layer by layer,
they no longer depend on how strongly a picture drives a layer, only on how its channels share in
that, and no layer outweighs another; between such roots Euclid's distance is Hellinger's, up to a
factor.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def scaled_roots(features: ArrayLike, widths: Sequence[int] = ()) -> NDArray[np.float32]:
    """Square roots, of negative numbers with their sign, of length one in each layer.

    Args:
        features: `(..., num_features)`.
        widths: How many features come from each layer; by default nothing is scaled.

    Returns:
        `(..., num_features)` float32; a layer of zeros stays one.

    Raises:
        ValueError: The widths do not sum to the number of features.
    """
    found = np.asarray(features, np.float32)
    roots = np.sign(found) * np.sqrt(np.abs(found))
    if not len(widths):
        return roots
    ends = np.cumsum(widths)
    if found.ndim < 1 or ends[-1] != found.shape[-1]:
        raise ValueError(
            f"features {found.shape} of layers with {list(widths)}: expected (..., {ends[-1]}), as "
            "the head sees them."
        )
    for start, end in zip(ends - widths, ends, strict=True):
        layer = roots[..., start:end]
        layer /= np.maximum(np.linalg.norm(layer, axis=-1, keepdims=True), 1e-12)
    return roots
