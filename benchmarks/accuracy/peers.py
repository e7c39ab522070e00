"""Other ways to classify from VGG16's last averages, rebuilt from their descriptions."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

SYMMETRIES = 8
EPOCHS = 15
BATCH_SIZE = 128
RATES = (1e-3, 3e-4)  # of Adam; the first is the published one
LEARNED = 0.8  # share of the targets' variance that a training which learned at all leaves


def judge(method: str, split: Any, *, seed: int) -> dict[str, float]:
    """Learn from training and validation part, and judge on the test part as Safelight does."""
    from safelight.transfer.evaluation import report_on
    from safelight.transfer.repetition import scores_of

    learned = [split.train, split.validation]
    seen = np.concatenate([averages(part) for part in learned])
    wanted = np.concatenate([part.targets for part in learned])
    labels = np.concatenate([part.labels for part in learned])
    new = averages(split.test)
    if method == "published":
        probabilities = published_head(seen, wanted, labels, new, seed=seed)
    else:
        # L-BFGS on two BLAS threads is many times slower than on one (docs/lab-notes.md).
        with threadpool_limits(1):
            fit = {"logistic": logistic, "svm": support_vectors}[method]
            probabilities = fit(seen[:, 0], labels).predict_proba(new[:, 0])
    judged = report_on(split.test.labels, probabilities, class_names=split.test.class_names)
    return scores_of(judged)


def averages(part: Any) -> np.ndarray:
    """Averages of block 5 under the eight symmetries, the picture itself first: `(n, 8, 512)`."""
    from safelight.transfer.augmentation import ViewMaker
    from safelight.transfer.config import Augmentation
    from safelight.transfer.features import FeatureLayer

    layer = FeatureLayer("block5_pool", "avg")
    views = ViewMaker(Augmentation(vertical_flip=True, quarter_turns=True))
    rows = extractor().extract(part, [layer], views=views, num_views=SYMMETRIES)[layer]
    return np.stack([rows.gather(view=view) for view in range(SYMMETRIES)], axis=1)


@functools.cache
def extractor() -> Any:
    """One network for all splits."""
    from safelight.transfer.backbones import load_backbone
    from safelight.transfer.features import FeatureExtractor

    return FeatureExtractor(load_backbone("vgg16"))


def logistic(seen: np.ndarray, labels: np.ndarray) -> Any:
    """Standardised features, logistic regression, C by five-fold cross-validation."""
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    strengths = np.logspace(-5, 0, 11)
    model = LogisticRegressionCV(
        Cs=strengths, cv=5, scoring="neg_log_loss", max_iter=2000, l1_ratios=(0,),
        use_legacy_attributes=False,
    )  # fmt: skip
    return make_pipeline(StandardScaler(), model).fit(seen, labels)


def support_vectors(seen: np.ndarray, labels: np.ndarray) -> Any:
    """Standardised features, RBF with gamma 1/512; C by five-fold cross-validation."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    machine = make_pipeline(StandardScaler(), SVC(gamma="auto"))
    search = GridSearchCV(machine, {"svc__C": [0.3, 1.0, 3.0, 10.0]}, cv=5).fit(seen, labels)
    # Platt's sigmoid on held-out scores, as SVC(probability=True) has it.
    chosen = make_pipeline(StandardScaler(), SVC(gamma="auto", C=search.best_params_["svc__C"]))
    calibrated = CalibratedClassifierCV(chosen, method="sigmoid", cv=5, ensemble=False)
    return calibrated.fit(seen, labels)


def published_head(
    seen: np.ndarray, wanted: np.ndarray, labels: np.ndarray, new: np.ndarray, *, seed: int
) -> np.ndarray:
    """Average -> 4096 -> 2048 -> p by squared error, a random symmetry of each cell per epoch.

    Weights make both classes count alike, as published; the answer is averaged over no views. The
    rate falls along a cosine and features are standardised, which the publication does not say;
    without, Adam at 1e-3 ends in one answer for all cells. Where it still does (one split of ten),
    a smaller rate has another try.
    """
    mean, scale = seen[:, 0].mean(0), seen[:, 0].std(0) + 1e-6
    scaled = (seen - mean) / scale
    for rate in RATES:
        model = _fit_published(scaled, wanted, labels, rate=rate, seed=seed)
        answers = model.predict(scaled[:, 0], verbose=0)[:, 0]
        if np.mean((answers - wanted[:, 1]) ** 2) < LEARNED * np.var(wanted[:, 1]):
            break
    p = np.clip(model.predict((new[:, 0] - mean) / scale, verbose=0)[:, 0], 0.001, 0.999)
    p = p.astype(np.float64)
    return np.stack([1 - p, p], axis=1)


def _fit_published(
    seen: np.ndarray, wanted: np.ndarray, labels: np.ndarray, *, rate: float, seed: int
) -> Any:
    """The head, trained."""
    import keras

    keras.utils.set_random_seed(seed)
    layers = [
        keras.layers.Input((seen.shape[-1],)),
        keras.layers.Dense(4096, "relu"),
        keras.layers.Dense(2048, "relu"),
        keras.layers.Dense(1),
    ]
    model = keras.Sequential(layers)
    steps = EPOCHS * (-(-len(seen) // BATCH_SIZE))
    falling = keras.optimizers.schedules.CosineDecay(rate, steps)
    model.compile(keras.optimizers.Adam(falling), loss="mse")
    rng = np.random.default_rng(seed)
    counts = np.bincount(labels, minlength=2)
    weights = (len(labels) / (2 * counts))[labels]
    for _ in range(EPOCHS):
        views = rng.integers(SYMMETRIES, size=len(seen))
        shown = seen[np.arange(len(seen)), views]
        model.fit(shown, wanted[:, 1:], BATCH_SIZE, verbose=0, sample_weight=weights)
    return model
