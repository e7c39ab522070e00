"""Fitting a head on pooled features: logistic regression by L-BFGS, or a small dense network.

With a few hundred pictures a linear head on good features is hard to beat, has one setting (chosen
here by inner cross-validation) and is fitted in seconds (Kornblith et al. 2019, arXiv 1805.08974,
section A.2).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np

from safelight.splits import deal_units, fold_quotas
from safelight.transfer.config import TrainConfig
from safelight.transfer.models import STANDARDIZE, build_head

INVERSE_STRENGTHS = tuple((10.0 ** np.arange(-4, 0.6, 0.5)).tolist())
_NUM_FOLDS = 4
_UNSEEN_LOGIT = -20.0
_PATIENCE = 2


@dataclasses.dataclass(frozen=True, eq=False)
class LinearHead:
    """Logistic regression on standardised features.

    Attributes:
        mean: `(num_features,)`.
        scale: `(num_features,)`, positive.
        kernel: `(num_features, num_classes)`.
        bias: `(num_classes,)`.
        inverse_strength: scikit-learn's `C`, chosen by inner cross-validation.
        out_of_fold: `(num_images, num_classes)` logits for each image by a head that was fitted
            without it; `None` where a class has too few images for folds.
    """

    mean: np.ndarray
    scale: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray
    inverse_strength: float
    out_of_fold: np.ndarray | None


def standardization(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale `(num_features,)` of rows; a feature that never changes gets scale 1."""
    mean = features.mean(0, dtype=np.float64)
    scale = features.std(0, dtype=np.float64)
    # A dead channel's spread is 0, or rounding noise that must not be blown up.
    dead = scale <= 1e-6 * max(float(scale.max(initial=0.0)), 1e-12)
    return mean.astype("float32"), np.where(dead, 1.0, scale).astype("float32")


def check_classes(targets: np.ndarray) -> None:
    """Refuses targets `(num_images, num_classes)` of which a class has no part.

    Raises:
        ValueError: A class without a training image.
    """
    missing = np.flatnonzero(targets.sum(0) == 0)
    if len(missing):
        raise ValueError(
            f"classes {missing.tolist()} have no training image: every class needs some."
        )


def stratified_folds(
    labels: np.ndarray, seed: int, units: np.ndarray | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Positions to fit on and to hold out, four times or as often as the smallest class allows.

    Empty where a class has but one image, or but one unit.

    Args:
        labels: `(num_images,)` integers.
        seed: Decides which images are held out together.
        units: `(num_images,)`, numbered from 0; images with one number stay together.
    """
    from sklearn.model_selection import StratifiedKFold

    number = min(_NUM_FOLDS, int(np.bincount(labels)[np.unique(labels)].min()))
    if number < 2:
        return []
    if units is None or len(np.unique(units)) == len(units):
        splitter = StratifiedKFold(number, shuffle=True, random_state=seed)
        return list(splitter.split(labels[:, None], labels))
    for fewer in range(number, 1, -1):
        dealt = deal_units(units, labels, fold_quotas(np.bincount(labels), fewer), seed)
        folds = [(np.flatnonzero(dealt != i), np.flatnonzero(dealt == i)) for i in range(fewer)]
        if all(len(np.unique(labels[fit])) == len(np.unique(labels)) for fit, _ in folds):
            return [(fit, held) for fit, held in folds if len(held)]
    return []


def fit_logistic_head(
    features: np.ndarray,
    targets: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    test_views: int = 1,
    seed: int = 0,
    units: np.ndarray | None = None,
) -> LinearHead:
    """Standardises, chooses the strength by stratified inner cross-validation, fits on everything.

    Args:
        features: `(num_images, num_views, num_features)`. All views are fitted on, each with
            1/num_views of its image's weight, so that the strength means the same for any number
            of views. Folds are folds of images, with all their views.
        targets: `(num_images, num_classes)` one-hot or probabilities; an image with soft targets
            counts as one row per class, weighted by them.
        weights: `(num_images,)`.
        test_views: How many of the first views a prediction is averaged over.
        seed: Of the folds.
        units: `(num_images,)`; images with one number (copies, groups) are in one fold.

    Raises:
        ValueError: A class without a training image.
    """
    check_classes(targets)
    mean, scale = standardization(features.reshape(-1, features.shape[-1]))
    scaled = (features - mean) / scale
    weights = np.ones(len(features)) if weights is None else weights
    folds = stratified_folds(targets.argmax(1), seed, units)
    strength, held_out = _choose_strength(scaled, targets, weights, test_views, folds)
    # The folds only rank strengths; this fit is the answer, and goes nearer to the optimum.
    kernel, bias = _Path(scaled, targets, weights, tol=1e-4).fit(strength)
    return LinearHead(mean, scale, kernel, bias, strength, held_out)


def _choose_strength(
    features: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    test_views: int,
    folds: Sequence[tuple[np.ndarray, np.ndarray]],
) -> tuple[float, np.ndarray | None]:
    """The `C` with the least held-out log-loss over the folds, and the logits held out with it."""
    from scipy.special import log_softmax

    if not folds:
        return 0.01, None
    paths = [(_Path(features[fit], targets[fit], weights[fit]), held) for fit, held in folds]
    judged = features[:, :test_views].mean(1)  # the mean of linear logits is that of the features
    losses: list[float] = []
    logits: list[np.ndarray] = []
    for strength in INVERSE_STRENGTHS:
        found = np.empty(targets.shape)
        for path, held in paths:
            kernel, bias = path.fit(strength)
            found[held] = judged[held] @ kernel + bias
        logits.append(found)
        losses.append(float(-(weights[:, None] * targets * log_softmax(found, axis=1)).sum()))
        # Past the best one the loss only rises, and the weaker the penalty the slower the fit.
        if len(losses) - 1 - int(np.argmin(losses)) >= _PATIENCE:
            break
    best = int(np.argmin(losses))
    return INVERSE_STRENGTHS[best], logits[best]


class _Path:
    """Logistic regressions on the same rows, each started from the one before.

    Args:
        features: `(num_images, num_views, num_features)`.
        targets: `(num_images, num_classes)`.
        weights: `(num_images,)`, dealt out evenly to an image's views.
        tol: Of L-BFGS.
    """

    def __init__(
        self, features: np.ndarray, targets: np.ndarray, weights: np.ndarray, *, tol: float = 1e-3
    ) -> None:
        from sklearn.linear_model import LogisticRegression

        num_views = features.shape[1]
        rows = features.reshape(-1, features.shape[-1])
        row_targets = np.repeat(targets, num_views, axis=0)
        row, self._labels = np.nonzero(row_targets > 0)
        self._num_classes = targets.shape[1]
        self._rows = rows if len(row) == len(rows) else rows[row]
        self._weights = weights[row // num_views] / num_views * row_targets[row, self._labels]
        self._model = LogisticRegression(max_iter=300, tol=tol, warm_start=True)

    def fit(self, strength: float) -> tuple[np.ndarray, np.ndarray]:
        """Kernel `(num_features, num_classes)` and bias `(num_classes,)`."""
        from threadpoolctl import threadpool_limits

        self._model.set_params(C=strength)
        # The products are small and many: two BLAS threads wait for each other forty times longer
        # than one needs to compute.
        with threadpool_limits(limits=1, user_api="blas"):
            self._model.fit(self._rows, self._labels, sample_weight=self._weights)
        coefficients, intercepts = self._model.coef_, self._model.intercept_
        if len(coefficients) == 1:  # scikit-learn gives two classes as one difference
            coefficients = np.concatenate([-coefficients, coefficients]) / 2
            intercepts = np.concatenate([-intercepts, intercepts]) / 2
        # A fold may lack a class that only soft targets know: it gets next to no probability.
        kernel = np.zeros((self._rows.shape[1], self._num_classes), "float32")
        bias = np.full(self._num_classes, _UNSEEN_LOGIT, "float32")
        kernel[:, self._model.classes_], bias[self._model.classes_] = coefficients.T, intercepts
        return kernel, bias


def fit_dense_head(
    features: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray | None,
    validation: tuple[np.ndarray, np.ndarray],
    config: TrainConfig,
) -> keras.Model:
    """A hidden layer and dropout, trained with Adam on standardised features, best epoch kept.

    Args:
        features: `(num_images, num_views, num_features)`.
        targets: `(num_images, num_classes)`.
        weights: `(num_images,)` or `None`.
        validation: Features `(m, num_features)` and targets `(m, num_classes)` that decide when to
            stop.
        config: Hidden units, dropout, batch size, seed.

    Returns:
        The head, from features to logits.
    """
    _, num_views, num_features = features.shape
    keras.utils.set_random_seed(config.seed)
    head = build_head(
        num_features,
        targets.shape[1],
        dropout=config.dropout,
        hidden_units=config.hidden_units,
        seed=config.seed,
    )
    head.get_layer(STANDARDIZE).set_weights(standardization(features.reshape(-1, num_features)))
    head.compile(
        keras.optimizers.Adam(1e-3), keras.losses.CategoricalCrossentropy(from_logits=True)
    )
    stop = keras.callbacks.EarlyStopping(patience=5, restore_best_weights=True)
    head.fit(
        features.reshape(-1, num_features),
        np.repeat(targets, num_views, axis=0),
        sample_weight=None if weights is None else np.repeat(weights, num_views),
        validation_data=validation,
        epochs=60,
        batch_size=config.batch_size,
        callbacks=[stop],
        verbose=0,
    )
    return head
