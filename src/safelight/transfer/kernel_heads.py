"""A head that compares a picture with those it was fitted on: kernel ridge regression.

Pooled features of several layers say more together than one by one, and a linear head cannot say
so. Here the score of a class is a weighted sum of similarities to all training pictures and views,
`exp(-gamma d^2)` with the distance d between standardised roots of the features; the weights solve
one linear system, no gradient descent. The roots are of length one in each layer, see `roots`.

References: Saunders et al. 1998 (kernel ridge regression); Rifkin and Klautau 2004, JMLR 5, pages
101 to 141, who find it no worse than support vector machines for classification. Unlike these it
takes probabilities as targets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from safelight.transfer.calibration import fit_temperature
from safelight.transfer.heads import check_classes, standardization, stratified_folds
from safelight.transfer.roots import scaled_roots

WIDTHS = (0.15, 0.3, 0.6)
RIDGES = (0.03, 0.1, 0.3, 1.0)
MAX_ROWS = 16_000
"""Pictures times views to compare with; time grows with their cube, memory with their square."""
_MAX_TRIAL_ROWS = 4_000  # on which settings are chosen
_MANY_ROWS = 1_000  # from which on settings are chosen in two steps


@dataclasses.dataclass(frozen=True, eq=False)
class KernelHead:
    """`logits = exp(-gamma |x - landmarks|^2) @ kernel + bias`, x the standardised roots.

    Attributes:
        mean: `(num_features,)` of the roots.
        scale: `(num_features,)`, positive.
        landmarks: `(num_rows, num_features)` standardised roots of the rows fitted on.
        gamma: Of the similarity.
        kernel: `(num_rows, num_classes)`.
        bias: `(num_classes,)`.
        ridge: What was added to the diagonal, chosen by inner cross-validation like gamma.
        out_of_fold: As in `heads.LinearHead`.
    """

    mean: np.ndarray
    scale: np.ndarray
    landmarks: np.ndarray
    gamma: float
    kernel: np.ndarray
    bias: np.ndarray
    ridge: float
    out_of_fold: np.ndarray | None


def fit_kernel_head(
    features: np.ndarray,
    targets: np.ndarray,
    *,
    widths: Sequence[int] = (),
    weights: np.ndarray | None = None,
    test_views: int = 1,
    seed: int = 0,
    units: np.ndarray | None = None,
) -> KernelHead:
    """Chooses width and ridge by stratified inner cross-validation, then fits on all views.

    The regression's scores become logits by the temperature that suits the held-out ones.

    Args:
        features: `(num_images, num_views, num_features)`, at most `MAX_ROWS` images times views.
        targets: `(num_images, num_classes)` one-hot or probabilities.
        widths: As in `roots.scaled_roots`.
        weights: `(num_images,)`; a ridge is divided by its image's weight.
        test_views: How many of the first views a prediction is averaged over.
        seed: Of the folds.
        units: As in `heads.fit_logistic_head`.

    Raises:
        ValueError: A class without a training image, or too many rows.
    """
    check_classes(targets)
    num_images, num_views, num_features = features.shape
    check_rows(num_images, num_views)
    weights = np.ones(num_images) if weights is None else weights
    roots = scaled_roots(features, widths)
    mean, scale = standardization(roots.reshape(-1, num_features))
    scaled = ((roots - mean) / scale).astype("float32")
    trial_views = max(1, min(num_views, _MAX_TRIAL_ROWS // num_images))
    trial = scaled[:, :trial_views]
    labels = targets.argmax(1)
    folds = stratified_folds(labels, seed, units)
    gamma, ridge, held_out = _choose(trial, targets, weights, test_views, folds)
    temperature = 0.2 if held_out is None else fit_temperature(held_out, labels)
    rows = scaled.reshape(-1, num_features)
    kernel, bias = _solve(
        _similarities(_squared_distances(rows, rows), gamma),
        np.repeat(targets, num_views, axis=0),
        ridge / np.repeat(weights, num_views),
    )
    return KernelHead(
        mean,
        scale,
        rows,
        gamma,
        (kernel / temperature).astype("float32"),
        (bias / temperature).astype("float32"),
        ridge,
        None if held_out is None else held_out / temperature,
    )


def check_rows(num_images: int, num_views: int) -> None:
    """Refuses more than `MAX_ROWS` images times views.

    Raises:
        ValueError: So many.
    """
    if num_images * num_views > MAX_ROWS:
        raise ValueError(
            f"{num_images} images in {num_views} views are too many to compare with: expected at "
            f"most {MAX_ROWS} together; take fewer views, or head='logistic'."
        )


def _similarities(squared_distances: np.ndarray, gamma: float) -> np.ndarray:
    """`exp(-gamma d^2)`, in the precision of the distances."""
    found = squared_distances * -gamma
    return np.exp(found, out=found)


def _squared_distances(rows: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    # In place: with all views of some thousand pictures this is a matrix of a gigabyte.
    found = rows @ landmarks.T
    found *= -2
    found += (rows**2).sum(1)[:, None]
    found += (landmarks**2).sum(1)
    return np.maximum(found, 0, out=found)


def _solve(
    similarities: np.ndarray, targets: np.ndarray, ridge: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Weights `(rows, num_classes)` and bias.

    In the precision of the similarities: with the ridges of `RIDGES` float32 keeps three digits of
    the scores, in half the time and memory of float64. `similarities` is overwritten.
    """
    from scipy.linalg import cho_factor, cho_solve

    bias = np.average(targets, axis=0, weights=1 / ridge)
    similarities[np.diag_indices_from(similarities)] += ridge
    factor = cho_factor(similarities, lower=True, overwrite_a=True, check_finite=False)
    # Targets of float64 would have the factor copied to float64.
    centred = (targets - bias).astype(similarities.dtype)
    return cho_solve(factor, centred, check_finite=False), bias


def _choose(
    features: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    test_views: int,
    folds: Sequence[tuple[np.ndarray, np.ndarray]],
) -> tuple[float, float, np.ndarray | None]:
    """Width and ridge of the least held-out log-loss at the best temperature, and those scores.

    The log-loss, not the squared error: it is what a probability is judged by. With several views
    of many pictures the width is chosen on the pictures themselves, and the ridge among what they
    want and more, since views of a picture repeat each other.
    """
    num_images, num_views, num_features = features.shape
    if not folds:
        return WIDTHS[1] / num_features, RIDGES[1], None
    widths: tuple[float, ...] = WIDTHS
    ridges: tuple[float, ...] = RIDGES
    trial = _Trial(targets, weights, folds)
    if num_views > 1 and num_images * num_views > _MANY_ROWS:
        width, ridge = min(trial.losses(features[:, :1], widths, ridges, 1).items(), key=_second)[0]
        widths, ridges = (width,), RIDGES[RIDGES.index(ridge) :][:3]
    losses = trial.losses(features, widths, ridges, test_views)
    width, ridge = min(losses, key=lambda key: losses[key])
    return width / num_features, ridge, trial.scores[width, ridge]


def _second(item: tuple[tuple[float, float], float]) -> float:
    return item[1]


@dataclasses.dataclass(frozen=True, eq=False)
class _Trial:
    """Cross-validation of settings."""

    targets: np.ndarray
    weights: np.ndarray
    folds: Sequence[tuple[np.ndarray, np.ndarray]]
    scores: dict[tuple[float, float], np.ndarray] = dataclasses.field(default_factory=dict)

    def losses(
        self,
        features: np.ndarray,
        widths: Sequence[float],
        ridges: Sequence[float],
        test_views: int,
    ) -> dict[tuple[float, float], float]:
        """The held-out loss of each width and ridge; their held-out scores go into `scores`."""
        num_images, num_views, num_features = features.shape
        rows = features.reshape(-1, num_features)
        squared = _squared_distances(rows, rows).reshape(num_images, num_views, num_images, -1)
        for width in widths:
            similarities = _similarities(squared, width / num_features)
            for ridge in ridges:
                self.scores[width, ridge] = self._held_out(similarities, ridge, test_views)
        return {
            (width, ridge): _loss(self.scores[width, ridge], self.targets, self.weights)
            for width in widths
            for ridge in ridges
        }

    def _held_out(self, similarities: np.ndarray, ridge: float, test_views: int) -> np.ndarray:
        num_views, num_classes = similarities.shape[1], self.targets.shape[1]
        found = np.empty(self.targets.shape)
        for fit, held in self.folds:
            columns = similarities[:, :, fit]
            number = len(fit) * num_views
            kernel, bias = _solve(
                columns[fit].reshape(number, number),
                np.repeat(self.targets[fit], num_views, axis=0),
                ridge / np.repeat(self.weights[fit], num_views),
            )
            answers = columns[held][:, :test_views].reshape(-1, number) @ kernel + bias
            found[held] = answers.reshape(len(held), -1, num_classes).mean(1)
        return found


def _loss(scores: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> float:
    from scipy.special import log_softmax

    logits = scores / fit_temperature(scores, targets.argmax(1))
    return float(-(weights[:, None] * targets * log_softmax(logits, axis=1)).sum())
