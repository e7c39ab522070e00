"""Probabilities that mean what they say: one temperature for all logits.

A network that says 0.9 should be right nine times out of ten. What it was trained on cannot tell,
since it fits that too well; so the temperature comes from predictions for pictures that had no
part in the fit (`cross_fitting`, or the validation part). Dividing logits by it changes no
prediction, only how sure it sounds.

References: Guo et al. 2017, arXiv:1706.04599, section 4.2; Platt 1999 for the doubt that few
pictures leave.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

LIMITS = (0.05, 20.0)
"""Beyond these a temperature says only that the logits are noise."""


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The temperature T > 0 for which `softmax(logits / T)` has the least log-loss.

    About one picture of each class is imagined besides, spread over all logits: where all n
    pictures are right, the next one will be with probability (n + 1) / (n + num_classes), and not
    for certain.

    Args:
        logits: `(n, num_classes)`, of pictures that were not learned from.
        labels: `(n,)` integers.

    Returns:
        T, within `LIMITS`: above 1 where the logits are too sure of themselves.

    Raises:
        ValueError: Arrays that do not fit each other.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    found, labels = np.asarray(logits, np.float64), np.asarray(labels)
    if found.ndim != 2 or labels.shape != (len(found),) or not len(found):
        raise ValueError(
            f"logits {found.shape} and labels {labels.shape}: expected (n, num_classes) and (n,)."
        )
    low, high = LIMITS
    number, num_classes = found.shape
    targets = (number * np.eye(num_classes)[labels] + 1) / (number + num_classes)
    # The log-loss is convex in 1/T, so it has one minimum along log T.
    best = minimize_scalar(
        lambda x: -(targets * log_softmax(found * math.exp(-x), axis=1)).sum(),
        bounds=(math.log(low), math.log(high)),
        method="bounded",
        options={"xatol": 1e-4},
    )
    return float(math.exp(best.x))


def log_loss(logits: ArrayLike, labels: ArrayLike) -> float:
    """Mean of -log softmax(logits)[label], nats per image."""
    from scipy.special import log_softmax

    found = np.asarray(logits, np.float64)
    return float(-log_softmax(found, axis=1)[np.arange(len(found)), np.asarray(labels)].mean())
