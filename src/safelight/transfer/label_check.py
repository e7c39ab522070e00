"""Labels to look at again: pictures that everything else in the folder speaks against.

A mislabelled picture drags the head towards itself, so the head that was fitted with it is no
judge. Out-of-fold answers are: they come from heads that had not seen the picture.

Reference: Northcutt et al. 2021, arXiv:1911.00068, who count by class how sure a head usually is;
with a few hundred calibrated answers a plain threshold is as easy to understand.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import ArrayLike

DOUBT = 0.05
"""A label is doubted if calibrated out-of-fold answers give it less than this."""


@dataclasses.dataclass(frozen=True)
class Suspect:
    """A picture whose label deserves a second look.

    Attributes:
        index: Position among the pictures that were passed.
        label: Its class.
        prediction: The class that the others speak for.
        probability: Of its label, out of fold.
    """

    index: int
    label: int
    prediction: int
    probability: float


def find_suspects(
    labels: ArrayLike, logits: ArrayLike, *, doubt: float = DOUBT
) -> tuple[Suspect, ...]:
    """The pictures whose own label is improbable out of fold, the least probable first.

    Some are wrong labels, some are hard pictures: a person has to look.

    Args:
        labels: `(n,)` integers.
        logits: `(n, num_classes)`, calibrated, out of fold; `TrainedClassifier.out_of_fold`.
        doubt: Largest probability of the label, between 0 and 1.

    Raises:
        ValueError: Arrays that do not fit each other, or a doubt out of range.
    """
    from scipy.special import softmax

    labels, logits = np.asarray(labels), np.asarray(logits, np.float64)
    if logits.ndim != 2 or labels.shape != (len(logits),):
        raise ValueError(
            f"labels {labels.shape} and logits {logits.shape}: expected (n,) and (n, num_classes)."
        )
    if not 0 < doubt < 1:
        raise ValueError(f"doubt={doubt}: expected a probability between 0 and 1.")
    probabilities = softmax(logits, axis=1)
    own, said = probabilities[np.arange(len(labels)), labels], probabilities.argmax(1)
    found = np.flatnonzero((own < doubt) & (said != labels))
    order = found[np.argsort(own[found], kind="stable")]
    return tuple(Suspect(int(i), int(labels[i]), int(said[i]), float(own[i])) for i in order)
