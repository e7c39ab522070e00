"""Fitting a head on pooled features: logistic regression by L-BFGS, or a small dense network.

With a few hundred pictures a linear head on good features is hard to beat, has one setting (chosen
here by inner cross-validation) and is fitted in seconds (Kornblith et al. 2019, arXiv 1805.08974,
section A.2).
"""

from __future__ import annotations

import dataclasses

import keras
import numpy as np

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
    """

    mean: np.ndarray
    scale: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray
    inverse_strength: float


def standardization(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale `(num_features,)` of rows; a feature that never changes gets scale 1."""
    mean = features.mean(0, dtype=np.float64)
    scale = features.std(0, dtype=np.float64)
    # A dead channel's spread is 0, or rounding noise that must not be blown up.
    dead = scale <= 1e-6 * max(float(scale.max(initial=0.0)), 1e-12)
    return mean.astype("float32"), np.where(dead, 1.0, scale).astype("float32")


def fit_logistic_head(
    features: np.ndarray, targets: np.ndarray, *, weights: np.ndarray | None = None, seed: int = 0
) -> LinearHead:
    """Standardises, chooses the strength by stratified inner cross-validation, fits on everything.

    Args:
        features: `(num_images, num_views, num_features)`. All views are fitted on, each with
            1/num_views of its image's weight, so that the strength means the same for any number
            of views. The strength is chosen on view 0, whose folds are then folds of images.
        targets: `(num_images, num_classes)` one-hot or probabilities; an image with soft targets
            counts as one row per class, weighted by them.
        weights: `(num_images,)`.
        seed: Of the folds.

    Raises:
        ValueError: A class without a training image.
    """
    missing = np.flatnonzero(targets.sum(0) == 0)
    if len(missing):
        raise ValueError(
            f"classes {missing.tolist()} have no training image: every class needs some."
        )
    num_images, num_views, num_features = features.shape
    mean, scale = standardization(features.reshape(-1, num_features))
    scaled = (features - mean) / scale
    weights = np.ones(num_images) if weights is None else weights
    strength = _choose_strength(scaled[:, 0], targets, weights, seed)
    rows = scaled.reshape(-1, num_features)
    row_targets = np.repeat(targets, num_views, axis=0)
    row_weights = np.repeat(weights, num_views) / num_views
    # The folds only rank strengths; this fit is the answer, and goes nearer to the optimum.
    kernel, bias = _Path(rows, row_targets, row_weights, tol=1e-4).fit(strength)
    return LinearHead(mean, scale, kernel, bias, strength)


def _choose_strength(
    features: np.ndarray, targets: np.ndarray, weights: np.ndarray, seed: int
) -> float:
    """The `C` with the least held-out log-loss over the folds."""
    from sklearn.model_selection import StratifiedKFold

    labels = targets.argmax(1)
    num_folds = min(_NUM_FOLDS, int(np.bincount(labels)[np.unique(labels)].min()))
    if num_folds < 2:
        return 0.01
    splitter = StratifiedKFold(num_folds, shuffle=True, random_state=seed)
    folds = [
        (_Path(features[fit], targets[fit], weights[fit]), held)
        for fit, held in splitter.split(features, labels)
    ]
    losses: list[float] = []
    for strength in INVERSE_STRENGTHS:
        fitted = [(path.fit(strength), held) for path, held in folds]
        losses.append(
            sum(_weighted_loss(m, features[h], targets[h], weights[h]) for m, h in fitted)
        )
        # Past the best one the loss only rises, and the weaker the penalty the slower the fit.
        if len(losses) - 1 - int(np.argmin(losses)) >= _PATIENCE:
            break
    return INVERSE_STRENGTHS[int(np.argmin(losses))]


class _Path:
    """Logistic regressions on the same rows, each started from the one before."""

    def __init__(
        self, features: np.ndarray, targets: np.ndarray, weights: np.ndarray, *, tol: float = 1e-3
    ) -> None:
        from sklearn.linear_model import LogisticRegression

        image, self._labels = np.nonzero(targets > 0)
        self._num_classes = targets.shape[1]
        self._rows = features if len(image) == len(features) else features[image]
        self._weights = weights[image] * targets[image, self._labels]
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


def _weighted_loss(
    model: tuple[np.ndarray, np.ndarray],
    features: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
) -> float:
    from scipy.special import log_softmax

    kernel, bias = model
    return float(
        -(weights[:, None] * targets * log_softmax(features @ kernel + bias, axis=1)).sum()
    )


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
        config: Hidden units, dropout, batch size, patience, seed.

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
