"""Training a classifier: a head on pooled features, then the tail above the freeze boundary.

    trained = train(splits, TrainConfig(unfreeze_from="block5_conv1", views=4))
    trained.model.predict(uint8_images)

The order is that of LP-FT (Kumar et al. 2022, arXiv 2202.10054): a head fitted to convergence on
the frozen features first, fine-tuning from there, so that a random head does not spoil the
features.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Iterator, Sequence

import keras
import numpy as np

from safelight.datasets import ImageDataset, Splits
from safelight.transfer import backbones, models
from safelight.transfer.augmentation import BatchAugmenter, ViewMaker
from safelight.transfer.batches import FeatureBatches, ImageBatches
from safelight.transfer.config import TrainConfig
from safelight.transfer.feature_cache import FeatureCache
from safelight.transfer.features import FeatureExtractor, FeatureLayer, Features
from safelight.transfer.fine_tuning import FineTuned, Report, fine_tune, silent
from safelight.transfer.heads import fit_dense_head, fit_logistic_head
from safelight.transfer.plan import Plan


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedClassifier:
    """What training gives.

    Attributes:
        model: uint8 images `(batch, any, any, 3)` to probabilities `(batch, num_classes)`, float32.
        config: The settings it was trained with.
        history: A list per metric, one value per epoch of fine-tuning; epoch 0 is the fitted head.
        seconds: Wall time per stage.
        cut: The last frozen layer; `None` where nothing was frozen.
        precision: What the frozen part was computed in.
        inverse_strength: The `C` that inner cross-validation chose for the logistic head, if any.
        images_computed: Images (times views) that ran through the frozen part.
        interrupted: Whether Ctrl-C ended fine-tuning early; the best weights until then are in the
            model.
        kept: Which weights of fine-tuning the model has, such as `"average of epochs 4 to 6"`.
    """

    model: keras.Model
    config: TrainConfig
    history: dict[str, list[float]]
    seconds: dict[str, float]
    cut: str | None
    precision: str
    inverse_strength: float | None
    images_computed: int
    interrupted: bool
    kept: str = "head"


def make_targets(dataset: ImageDataset, *, soft: bool = True) -> np.ndarray:
    """What a picture's probabilities should be.

    Args:
        dataset: The pictures.
        soft: Whether to use the probabilities of its labels, where it has them.

    Returns:
        `(n, num_classes)` float32, rows that sum to one; one-hot where labels are certain.
    """
    if soft and dataset.targets is not None:
        return np.asarray(dataset.targets, "float32")
    return np.eye(dataset.num_classes, dtype="float32")[dataset.labels]


def balanced_weights(targets: np.ndarray) -> np.ndarray:
    """A weight per image that makes every class count alike; they average to one.

    `n / (num_classes * n_k)` as scikit-learn's `class_weight="balanced"`, mixed by the targets.
    """
    totals = targets.sum(0)
    per_class = np.divide(
        totals.sum(), len(totals) * totals, where=totals > 0, out=np.ones_like(totals)
    )
    return targets @ per_class


class _Clock:
    """Wall seconds per stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


def train(
    splits: Splits,
    config: TrainConfig | None = None,
    *,
    cache: FeatureCache | None = None,
    report: Report = silent,
) -> TrainedClassifier:
    """Trains on `splits.train`, watching `splits.validation`; the test part is not touched.

    Args:
        splits: As from `datasets.split`.
        config: What to train and how.
        cache: Where the activations of the frozen part are kept.
        report: Told how far it is.

    Raises:
        ValueError: A setting that does not fit the network or the data.
        safelight.assets.AssetError: The pretrained weights cannot be had.
    """
    config = config or TrainConfig()
    clock = _Clock()
    with clock.stage("load"):
        if not config.pretrained:
            keras.utils.set_random_seed(config.seed)
        weights = "imagenet" if config.pretrained else None
        backbone = backbones.load_backbone(
            config.backbone, image_size=config.image_size, weights=weights
        )
        plan = Plan.make(backbone, config)
        if not len(splits.validation) and (plan.fine_tunes or config.head == "dense"):
            raise ValueError(
                "the validation part is empty, but it decides when training stops: expected a "
                "validation_fraction above 0, or a logistic head alone (unfreeze_from=None)."
            )
        classifier = models.build_classifier(
            backbone,
            plan.head_layers,
            splits.train.num_classes,
            dropout=config.dropout,
            hidden_units=config.hidden_units if config.head == "dense" else None,
            seed=config.seed,
        )
        extractor = FeatureExtractor(backbone, precision=config.precision, cache=cache)
    session = _Session(splits, config, plan, extractor, clock, report)
    rows = session.extract()
    strength = session.fit_head(classifier, rows)
    tuned = session.fine_tune(classifier, rows)
    return TrainedClassifier(
        model=classifier,
        config=config,
        history=tuned.history,
        seconds=clock.seconds,
        cut=plan.cut,
        precision=extractor.precision,
        inverse_strength=strength,
        images_computed=extractor.num_computed,
        interrupted=tuned.interrupted,
        kept=tuned.kept,
    )


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Features of the training and validation images per layer."""

    train: dict[FeatureLayer, Features]
    validation: dict[FeatureLayer, Features]


@dataclasses.dataclass(frozen=True)
class _Session:
    """One training in progress: the stages share data, settings and clock."""

    splits: Splits
    config: TrainConfig
    plan: Plan
    extractor: FeatureExtractor
    clock: _Clock
    report: Report

    def extract(self) -> _Rows:
        """One pass of the frozen network serves the head and, if cached, the tail."""
        layers = list(self.plan.head_layers)
        if self.plan.cached and self.plan.fine_tunes:
            layers.append(FeatureLayer(str(self.plan.cut)))
        augmentation = self.config.augmentation
        num_views = self.config.views if self.plan.cached else 1
        views = ViewMaker(augmentation, seed=self.config.seed) if num_views > 1 else None
        parts = {}
        with self.clock.stage("extract"):
            for name in ("train", "validation"):
                seen = name == "train" or self._fits_on_everything
                parts[name] = self.extractor.extract(
                    getattr(self.splits, name),
                    layers,
                    views=views if seen else None,
                    num_views=num_views if seen else 1,
                    progress=functools.partial(self._report_extraction, name),
                )
        return _Rows(**parts)

    def _report_extraction(self, part: str, done: int, total: int) -> None:
        self.report("extracting", done, total, f"{part} images")

    @property
    def _fits_on_everything(self) -> bool:
        """A logistic head alone leaves validation nothing to decide, so it is fitted on it too.

        Its one setting comes from inner cross-validation.
        """
        return self.config.head == "logistic" and not self.plan.fine_tunes

    def fit_head(self, classifier: keras.Model, rows: _Rows) -> float | None:
        """Fits the head on pooled features and puts it into the classifier."""
        config, layers = self.config, self.plan.head_layers
        targets = make_targets(self.splits.train, soft=config.soft_targets)
        stacked = _stack_views(rows.train, layers)
        if self._fits_on_everything:
            others = make_targets(self.splits.validation, soft=config.soft_targets)
            targets = np.concatenate([targets, others])
            stacked = np.concatenate([stacked, _stack_views(rows.validation, layers)])
        weights = balanced_weights(targets) if config.class_weight == "balanced" else None
        self.report("fitting the head", 0, 1, f"{stacked.shape[2]} features")
        with self.clock.stage("head"):
            if config.head == "logistic":
                head = fit_logistic_head(stacked, targets, weights=weights, seed=config.seed)
                models.set_linear_head(classifier, head.mean, head.scale, head.kernel, head.bias)
                strength: float | None = head.inverse_strength
            else:
                held_out = _stack_views(rows.validation, layers)[:, 0]
                valid = (held_out, make_targets(self.splits.validation, soft=config.soft_targets))
                models.join(classifier, fit_dense_head(stacked, targets, weights, valid, config))
                strength = None
        self.report("fitting the head", 1, 1, "" if strength is None else f"C = {strength:g}")
        return strength

    def fine_tune(self, classifier: keras.Model, rows: _Rows) -> FineTuned:
        """Trains what is above the cut, from cached activations or through the whole network."""
        if not self.plan.fine_tunes:
            return FineTuned({}, False, "head")
        with self.clock.stage("fine_tune"):
            if self.plan.cached:
                start = FeatureLayer(str(self.plan.cut))
                model = models.build_tail(classifier, [start], precision=self.extractor.precision)
                fit, watch = self._feature_batches(rows, start)
            else:
                model = models.build_pixel_model(
                    classifier, cut=self.plan.cut, precision=self.extractor.precision
                )
                fit, watch = self._image_batches()
            tuned = fine_tune(model, fit, watch, config=self.config, report=self.report)
        models.join(classifier, model)
        return tuned

    def _feature_batches(
        self, rows: _Rows, cut: FeatureLayer
    ) -> tuple[FeatureBatches, FeatureBatches]:
        (targets, weights), held_out = self._targets()
        size, seed = self.config.batch_size, self.config.seed
        for part in (rows.train, rows.validation):
            part[cut].hold()
        fit = FeatureBatches(rows.train[cut], targets, batch_size=size, seed=seed, weights=weights)
        return fit, FeatureBatches(rows.validation[cut], held_out, batch_size=size)

    def _image_batches(self) -> tuple[ImageBatches, ImageBatches]:
        (targets, weights), held_out = self._targets()
        image_size, size = self.extractor.image_size, self.config.batch_size
        fit = ImageBatches(
            self.splits.train,
            image_size,
            targets,
            batch_size=size,
            seed=self.config.seed,
            weights=weights,
            augmenter=BatchAugmenter(self.config.augmentation),
        )
        return fit, ImageBatches(self.splits.validation, image_size, held_out, batch_size=size)

    def _targets(self) -> tuple[tuple[np.ndarray, np.ndarray | None], np.ndarray]:
        targets = make_targets(self.splits.train, soft=self.config.soft_targets)
        weights = balanced_weights(targets) if self.config.class_weight == "balanced" else None
        return (targets, weights), make_targets(
            self.splits.validation, soft=self.config.soft_targets
        )


def _stack_views(
    features: dict[FeatureLayer, Features], layers: Sequence[FeatureLayer]
) -> np.ndarray:
    """`(num_images, num_views, num_features)` float32, the layers side by side."""
    num_views = features[layers[0]].num_views
    return np.stack(
        [
            np.concatenate([features[layer].gather(view=view) for layer in layers], axis=1)
            for view in range(num_views)
        ],
        axis=1,
    )
