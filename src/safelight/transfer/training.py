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
from typing import Any, Literal

import keras
import numpy as np

from safelight.datasets import ImageDataset, Splits
from safelight.folds import find_units
from safelight.transfer import backbones, kernel_heads, models
from safelight.transfer.augmentation import BatchAugmenter, ViewMaker
from safelight.transfer.batches import FeatureBatches, ImageBatches
from safelight.transfer.calibration import fit_temperature
from safelight.transfer.config import TrainConfig
from safelight.transfer.feature_cache import FeatureCache
from safelight.transfer.feature_rows import Features
from safelight.transfer.features import FeatureExtractor, FeatureLayer
from safelight.transfer.fine_tuning import FineTuned, Report, fine_tune, silent
from safelight.transfer.heads import fit_dense_head, fit_logistic_head
from safelight.transfer.kernel_heads import fit_kernel_head
from safelight.transfer.plan import Plan
from safelight.transfer.prediction import predict_logits

EXTRACTING = "extracting"  # the name of that stage in what is reported


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedClassifier:
    """What training gives.

    Attributes:
        model: uint8 images `(batch, any, any, 3)` to probabilities `(batch, num_classes)`, float32.
        config: The settings it was trained with.
        history: A list per metric, one value per epoch of fine-tuning; epoch 0 is the fitted head.
        seconds: Wall time per stage.
        head: The kind of head.
        cut: The last frozen layer; `None` where nothing was frozen.
        precision: What the frozen part was computed in.
        inverse_strength: The `C` that inner cross-validation chose for a logistic head, or one
            over the ridge of a kernel head; `None` for a dense one.
        images_computed: Images (times views) that ran through the frozen part.
        interrupted: Whether Ctrl-C ended fine-tuning early; the best weights until then are in the
            model.
        kept: Which weights of fine-tuning the model has, such as `"average of epochs 4 to 6"`.
        temperature: What the logits were divided by; 1 where they were not calibrated.
        out_of_fold: `(n, num_classes)` logits for the pictures that the head was fitted on (of
            training, and of validation if no more than the head was trained), each by a head that
            was fitted without it, calibrated likewise; `None` for a dense head.
    """

    model: keras.Model
    config: TrainConfig
    history: dict[str, list[float]]
    seconds: dict[str, float]
    head: str
    cut: str | None
    precision: str
    inverse_strength: float | None
    images_computed: int
    interrupted: bool
    kept: str = "head"
    temperature: float = 1.0
    out_of_fold: np.ndarray | None = None


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
        plan = _plan(splits, config, backbone)
        session = _Session(splits, config, plan, backbone, cache, clock, report)
        extractor = session.extractor
    classifier = session.build()
    rows = session.extract()
    strength, held_out = session.fit_head(classifier, rows)
    tuned = session.fine_tune(classifier, rows)
    temperature = session.calibrate(classifier, held_out)
    return TrainedClassifier(
        model=classifier,
        config=config,
        history=tuned.history,
        seconds=clock.seconds,
        head=session.head,
        cut=plan.cut,
        precision=extractor.precision,
        inverse_strength=strength,
        images_computed=extractor.num_computed,
        interrupted=tuned.interrupted,
        kept=tuned.kept,
        temperature=temperature,
        out_of_fold=None if held_out is None else held_out / session.temperature(held_out),
    )


def check(splits: Splits, config: TrainConfig, network: keras.Model) -> None:
    """Raises what `train` would raise of these settings, before anything is computed.

    Args:
        splits: As there.
        config: As there.
        network: As from `backbones.load_backbone` with these settings, its weights do not matter.
    """
    plan = _plan(splits, config, network)
    session = _Session(splits, config, plan, network, None, _Clock(), silent)
    if session.head == "kernel":
        kernel_heads.check_rows(session.num_images, session.num_views)
    if config.engine != "auto":
        session.extractor.engine_of(session.wanted_layers)


def _plan(splits: Splits, config: TrainConfig, backbone: keras.Model) -> Plan:
    """The plan, where these pictures allow it."""
    plan = Plan.make(backbone, config)
    if not len(splits.validation) and (plan.fine_tunes or config.head == "dense"):
        raise ValueError(
            "the validation part is empty, but it decides when training stops: expected a "
            "validation_fraction above 0, or a head alone (unfreeze_from=None) that is not "
            "dense."
        )
    return plan


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
    backbone: keras.Model
    cache: FeatureCache | None
    clock: _Clock
    report: Report

    @functools.cached_property
    def extractor(self) -> FeatureExtractor:
        """Copies the backbone, so it is made when needed."""
        config = self.config
        return FeatureExtractor(
            self.backbone, precision=config.precision, cache=self.cache, engine=config.engine
        )

    @property
    def head(self) -> str:
        """The kind of head, `"auto"` decided."""
        if self.config.head != "auto":
            return self.config.head
        small = self._num_rows <= kernel_heads.MAX_ROWS
        return "kernel" if small and not self.plan.fine_tunes else "logistic"

    @property
    def num_views(self) -> int:
        """Of each picture that is learned from."""
        return self.config.views if self.plan.cached else 1

    @property
    def num_images(self) -> int:
        """How many pictures the head is fitted on."""
        parts = [self.splits.train]
        if not self.plan.fine_tunes:
            parts.append(self.splits.validation)
        return sum(map(len, parts))

    @property
    def _num_rows(self) -> int:
        return self.num_images * self.num_views

    @property
    def wanted_layers(self) -> list[FeatureLayer]:
        """What the frozen network is run for."""
        layers = list(self.plan.head_layers)
        if self.plan.cached and self.plan.fine_tunes:
            layers.append(FeatureLayer(str(self.plan.cut)))
        return layers

    def build(self) -> keras.Model:
        """The classifier, its head not fitted yet."""
        config = self.config
        classifier = models.build_classifier(
            self.backbone,
            self.plan.head_layers,
            self.splits.train.num_classes,
            dropout=config.dropout,
            hidden_units=config.hidden_units if self.head == "dense" else None,
            num_landmarks=self._num_rows if self.head == "kernel" else None,
            seed=config.seed,
        )
        if config.test_views == 1:
            return classifier
        symmetries = config.augmentation.symmetries[: config.test_views]
        return models.average_views(classifier, symmetries)

    def extract(self) -> _Rows:
        """One pass of the frozen network serves the head and, if cached, the tail."""
        augmentation = self.config.augmentation
        fitted = ViewMaker(augmentation, seed=self.config.seed), self.num_views
        judged = ViewMaker(augmentation.exact), self.config.test_views
        parts = {}
        with self.clock.stage("extract"):
            for name in ("train", "validation"):
                views, number = fitted if name == "train" or self._fits_on_everything else judged
                parts[name] = self.extractor.extract(
                    getattr(self.splits, name),
                    self.wanted_layers,
                    views=views,
                    num_views=number,
                    progress=functools.partial(self._report_extraction, name),
                )
        return _Rows(**parts)

    def _report_extraction(self, part: str, done: int, total: int) -> None:
        self.report(EXTRACTING, done, total, f"{part} images")

    @property
    def _fits_on_everything(self) -> bool:
        """A head alone leaves validation nothing to decide, so it is fitted on it too.

        Its settings come from inner cross-validation; only a dense one needs to be stopped.
        """
        return self.head != "dense" and not self.plan.fine_tunes

    @property
    def _fitted_parts(self) -> tuple[Literal["train", "validation"], ...]:
        return ("train", "validation") if self._fits_on_everything else ("train",)

    def fit_head(
        self, classifier: keras.Model, rows: _Rows
    ) -> tuple[float | None, np.ndarray | None]:
        """Fits the head on pooled features and puts it into the classifier.

        Returns:
            Strength and out-of-fold logits of a head that has them.
        """
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
            # Changed views are no sample of what a prediction will see.
            test_views = config.test_views if config.augmentation.is_exact else 1
            options: dict[str, Any] = {
                "weights": weights,
                "test_views": test_views,
                "seed": config.seed,
                "units": find_units(self.splits, self._fitted_parts),
            }
            if self.head == "logistic":
                head = fit_logistic_head(stacked, targets, **options)
                models.set_linear_head(classifier, head.mean, head.scale, head.kernel, head.bias)
                strength, held_out = head.inverse_strength, head.out_of_fold
            elif self.head == "kernel":
                widths = models.head_widths(classifier)
                kernel = fit_kernel_head(stacked, targets, widths=widths, **options)
                models.set_kernel_head(classifier, kernel)
                strength, held_out = 1 / kernel.ridge, kernel.out_of_fold
            else:
                watched = _stack_views(rows.validation, layers)[:, 0]
                valid = (watched, make_targets(self.splits.validation, soft=config.soft_targets))
                models.join(classifier, fit_dense_head(stacked, targets, weights, valid, config))
                strength, held_out = None, None
        self.report("fitting the head", 1, 1, "" if strength is None else f"C = {strength:g}")
        return strength, held_out

    def fine_tune(self, classifier: keras.Model, rows: _Rows) -> FineTuned:
        """Trains what is above the cut, from cached activations or through the whole network."""
        if not self.plan.fine_tunes:
            return FineTuned({}, False, "head")
        with self.clock.stage("fine_tune"):
            # Some networks have dropout of their own, without a seed.
            keras.utils.set_random_seed(self.config.seed)
            if self.plan.cached:
                start = self.plan.kept_layers
                model = models.build_tail(classifier, start, precision=self.extractor.precision)
                fit, watch = self._feature_batches(rows, start)
            else:
                model = models.build_pixel_model(
                    classifier, cut=self.plan.cut, precision=self.extractor.precision
                )
                fit, watch = self._image_batches()
            tuned = fine_tune(model, fit, watch, config=self.config, report=self.report)
        models.join(classifier, model)
        return tuned

    def calibrate(self, classifier: keras.Model, held_out: np.ndarray | None) -> float:
        """Gives the logits the temperature that suits pictures which had no part in the fit.

        Args:
            classifier: As fitted; its logits change.
            held_out: Out-of-fold logits of a logistic head.

        Returns:
            The temperature; 1 if there is nothing to find it on.
        """
        if not self.config.calibrated:
            return 1.0
        with self.clock.stage("calibrate"):
            if self._fits_on_everything:
                temperature = 1.0 if held_out is None else self.temperature(held_out)
            else:
                part = self.splits.validation
                logits = predict_logits(
                    classifier, part, config=self.config, cache=self.extractor.cache
                )
                temperature = fit_temperature(logits, part.labels)
        models.cool(classifier, temperature)
        return temperature

    def temperature(self, held_out: np.ndarray) -> float:
        """The one that suits out-of-fold logits of the head."""
        labels = self.splits.train.labels
        if self._fits_on_everything:
            labels = np.concatenate([labels, self.splits.validation.labels])
        return fit_temperature(held_out, labels)

    def _feature_batches(
        self, rows: _Rows, start: Sequence[FeatureLayer]
    ) -> tuple[FeatureBatches, FeatureBatches]:
        (targets, weights), held_out = self._targets()
        size, seed = self.config.batch_size, self.config.seed
        seen, watched = ([part[layer] for layer in start] for part in (rows.train, rows.validation))
        for features in (*seen, *watched):
            features.hold()
        fit = FeatureBatches(seen, targets, batch_size=size, seed=seed, weights=weights)
        return fit, FeatureBatches(watched, held_out, batch_size=size)

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
