"""One score for all that draws pictures, whatever they were made by: `safelight compare RUN...`.

    rows = compare([Run.open("runs/vae"), Run.open("runs/gan")], dataset)

Runs are judged on the same unseen pictures, by the same features, at the same number of pictures.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safelight import digit_judge
from safelight.datasets import ImageDataset
from safelight.generative import pictures, records
from safelight.generative.scores import (
    INTERVALS,
    MAX_LEARNED,
    MAX_PICTURES,
    MIN_PICTURES,
    Features,
    Score,
    draw_labels,
    nearest_rows,
    score_features,
)
from safelight.known_pictures import digests_of
from safelight.runs import Run

KINDS = ("vae", "gan")
_MOST_CLASSES = 20
_NUM_SHOWN = 20
_VGG_LAYER, _VGG_SIZE, _BATCH = "block4_pool", 64, 64
# So that features are of the order of 1, as the kernel distance's 1 in (x y / d + 1)^3 has it.
_VGG_UNIT = 100.0
Report = Callable[[str, int, int, str], None]


@dataclasses.dataclass(frozen=True, eq=False)
class Generator:
    """A run that draws pictures.

    Attributes:
        run: It.
        kind: Of run.
        model: Its model.
        image_shape: `(height, width, channels)`.
    """

    run: Run
    kind: str
    model: Any
    image_shape: tuple[int, int, int]

    @classmethod
    def of(cls, run: Run) -> Generator:
        """Opens a run's model.

        Raises:
            ValueError: It draws no pictures, or has no model.
        """
        kind = str(run.config.get("kind"))
        if kind == "vae":
            from safelight.vae.experiment import load_vae as load
        elif kind == "gan":
            from safelight.gan.experiment import load_gan as load
        else:
            raise ValueError(
                f"{run.path} is a run of kind {kind!r}: expected one that draws pictures, "
                f"{' or '.join(KINDS)}."
            )
        model = load(run)
        height, width, channels = model.image_shape
        return cls(run, kind, model, (height, width, channels))

    def draw(self, num: int, learned: NDArray[np.integer], seed: int) -> NDArray[np.float32]:
        """New pictures, floats in [0, 1].

        Args:
            num: How many.
            learned: Labels of the training part: a conditional model draws classes as often.
            seed: Of the draw.
        """
        labels = draw_labels(learned, num, seed) if self.model.num_classes else None
        if self.kind == "gan":
            return self.model.generate(num, labels, seed=seed)
        return np.asarray(self.model.sample(num, labels=labels, seed=seed), "float32").clip(0, 1)

    def check(self, dataset: ImageDataset) -> None:
        """Whether a conditional model can be told the labels of a data set.

        Raises:
            ValueError: They are those of other classes.
        """
        found = self.run.config.get("dataset")
        names = found.get("class_names") if isinstance(found, dict) else None
        if self.model.num_classes:
            pictures.check_classes(dataset, self.run, names if isinstance(names, list) else [])

    @property
    def words(self) -> str:
        """What it is, in a few words."""
        settings = self.run.config.get("settings")
        settings = settings if isinstance(settings, dict) else {}
        if self.kind == "gan":
            kind = "VAE/GAN" if settings.get("autoencoder") else "GAN"
            return f"{kind}, {settings.get('architecture')}, {settings.get('loss')}"
        return f"VAE, {settings.get('architecture')}, prior {settings.get('prior')}"


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """A run and what its pictures are worth.

    Attributes:
        name: The run's.
        words: What it is; of the reference, what that is.
        score: Of its pictures.
        likelihood: log p(x) in nats per image, where there is one, as in the run's metrics.
        seconds: Of training; `None` of the reference.
        samples: Some pictures, floats in [0, 1].
        nearest: The learned pictures that are nearest to these, likewise.
    """

    name: str
    words: str
    score: Score
    likelihood: dict[str, Any] | None
    seconds: float | None
    samples: NDArray[np.floating]
    nearest: NDArray[np.floating]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, without the pictures."""
        return {
            "name": self.name,
            "words": self.words,
            "score": self.score.to_dict(),
            "log_likelihood": self.likelihood,
            "seconds": self.seconds,
        }


def choose_features(
    images: NDArray[np.uint8], labels: NDArray[np.integer] | None, *, drawn: bool = False
) -> Features:
    """Features that suit pictures: a classifier of their own for digits, else VGG16.

    Args:
        images: `(n, height, width, channels)` uint8, of the training part.
        labels: `(n,)`, where there are some.
        drawn: Whether they are digits, of which ImageNet says little.
    """
    # Of one class there is nothing to tell apart, and such a judge would have learned nothing.
    if drawn and labels is not None and 2 <= len(np.unique(labels)) <= _MOST_CLASSES:
        judge = digit_judge.train_judge(images, labels)
        return Features(
            judge.features, judge.protocol, judge.classify, num_classes=int(labels.max()) + 1
        )
    return _vgg_features(images.shape[-1])


def _vgg_features(channels: int) -> Features:
    from safelight.transfer.backbones import load_backbone

    network = load_backbone(
        "vgg16", output_layer=_VGG_LAYER, image_size=_VGG_SIZE, channels=channels
    )
    said = (
        f"channel means of VGG16's {_VGG_LAYER} (ImageNet) over {_VGG_UNIT:g}, pictures resized to "
        f"{_VGG_SIZE} x {_VGG_SIZE} pixels"
    )
    return Features(functools.partial(_extract, network), said)


def _extract(network: Any, images: np.ndarray) -> NDArray[np.floating]:
    if images.dtype != np.uint8:
        images = np.rint(255 * images.clip(0, 1)).astype("uint8")
    parts = [
        np.asarray(network.predict_on_batch(images[start : start + _BATCH])).mean((1, 2))
        / _VGG_UNIT
        for start in range(0, len(images), _BATCH)
    ]
    return np.concatenate(parts)


def compare(
    runs: Sequence[Run],
    dataset: ImageDataset,
    *,
    num: int = MAX_PICTURES,
    seed: int = 0,
    report: Report,
) -> tuple[list[Row], dict[str, Any]]:
    """Scores runs of the same data by one protocol; the first row are real pictures themselves.

    Args:
        runs: Finished, of kinds that draw pictures, all of one size and with the same test part.
        dataset: That they were trained on.
        num: Pictures of either side, at most.
        seed: Of the draws.
        report: Told how far it is.

    Returns:
        The rows, that of training pictures first, as what is left to reach; and the protocol.

    Raises:
        ValueError: Runs of different pictures, or none.
    """
    generators = [Generator.of(run) for run in runs]
    _check_alike(generators)
    for generator in generators:
        generator.check(dataset)
    images, labels = _load(generators[0], dataset, "train")
    told = labels if dataset.num_classes > 1 else None
    features = choose_features(images, told, drawn=dataset.name == "mnist")
    rng = np.random.default_rng(seed)
    unseen = _load(generators[0], dataset, "test")[0]
    num = min(num, len(unseen), len(images), MAX_PICTURES)  # as many of learned ones, to compare
    real = features.extract(unseen[rng.permutation(len(unseen))[:num]])
    report("judging", 0, len(runs) + 1, "")
    first = _Learned.of(images, labels, features, most=num + MAX_LEARNED, seed=seed)
    rows = [_judge_learned(first, num, real, seed)]
    learned = {digests_of(generators[0].run, "train"): first.some(slice(MAX_LEARNED))}
    for number, generator in enumerate(generators, 1):
        report("judging", number, len(runs) + 1, "")
        digests = digests_of(generator.run, "train")
        if digests not in learned:  # another seed deals the pictures out in another way
            again = *_load(generator, dataset, "train"), features
            learned = {digests: _Learned.of(*again, most=MAX_LEARNED, seed=seed)}
        drawn = generator.draw(num, learned[digests].labels, seed)
        rows.append(_judge(generator, learned[digests], features, real, drawn, seed))
    report("judging", len(rows), len(rows), "")
    protocol = {
        "features": features.protocol,
        "dataset": dataset.name,
        "num_real": num,
        "num_fake": num,
        "num_learned": len(learned[digests].images),
        "seed": seed,
        "real": "pictures of the test part, which none of the runs has seen",
        "intervals": INTERVALS,
    }
    return rows, protocol


@dataclasses.dataclass(frozen=True, eq=False)
class _Learned:
    """Pictures of a training part, in random order.

    Attributes:
        images: `(k, height, width, channels)` uint8.
        labels: `(k,)`.
        features: `(k, num_features)`.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.integer]
    features: NDArray[np.floating]

    @classmethod
    def of(
        cls,
        images: NDArray[np.uint8],
        labels: NDArray[np.integer],
        features: Features,
        *,
        most: int,
        seed: int,
    ) -> _Learned:
        """At most so many of a part."""
        rows = np.random.default_rng([seed, 1]).permutation(len(images))[:most]
        return cls(images[rows], labels[rows], features.extract(images[rows]))

    def some(self, rows: slice) -> _Learned:
        return _Learned(self.images[rows], self.labels[rows], self.features[rows])

    def nearest(self, features: NDArray[np.floating]) -> NDArray[np.floating]:
        """Those of its pictures that are nearest to rows of features."""
        return self.images[nearest_rows(self.features, features)] / np.float32(255)


def _judge_learned(learned: _Learned, num: int, real: NDArray[Any], seed: int) -> Row:
    """The row of learned pictures in the place of generated ones.

    Copies of them are sought among the others, if there are enough.
    """
    chosen, others = learned.some(slice(num)), learned.some(slice(num, None))
    known = others.features if len(others.images) >= MIN_PICTURES else None
    score = score_features(known, real, chosen.features, seed=seed)
    shown = chosen.images[:_NUM_SHOWN] / np.float32(255)
    nearest = shown if known is None else others.nearest(chosen.features[:_NUM_SHOWN])
    words = "pictures of the training part, as if they were generated"
    return Row("real pictures", words, score, None, None, shown, nearest)


def _judge(
    generator: Generator,
    learned: _Learned,
    features: Features,
    real: NDArray[Any],
    drawn: NDArray[np.float32],
    seed: int,
) -> Row:
    made = features.extract(drawn)
    metrics = generator.run.metrics
    seconds, likelihood = (
        found if isinstance(found := metrics.get(name), dict) else {}
        for name in ("seconds", "log_likelihood")
    )
    training = seconds.get("training")
    return Row(
        generator.run.name,
        generator.words,
        score_features(learned.features, real, made, seed=seed),
        likelihood or None,
        float(training) if isinstance(training, int | float) else None,
        drawn[:_NUM_SHOWN],
        learned.nearest(made[:_NUM_SHOWN]),
    )


def _check_alike(generators: Sequence[Generator]) -> None:
    """Whether runs can be judged by the same pictures.

    Raises:
        ValueError: Other sizes, or other pictures in their test parts; or no run at all.
    """
    if not generators:
        raise ValueError("no run to compare: expected one at least.")
    first = generators[0]
    for other in generators[1:]:
        if other.image_shape != first.image_shape:
            raise ValueError(
                f"{first.run.path} draws pictures of the shape {first.image_shape}, "
                f"{other.run.path} {other.image_shape}: expected one size; train with the same "
                "--image-size."
            )
        tests = (set(digests_of(each.run, "test")) for each in (first, other))
        if next(tests) != next(tests):
            raise ValueError(
                f"{first.run.path} and {other.run.path} keep different pictures for their tests: "
                "expected the same data, --seed and --test-fraction (mnist and fashion-mnist "
                "bring their test part, so that runs of any seed can be compared)."
            )


def _load(
    generator: Generator, dataset: ImageDataset, name: str
) -> tuple[NDArray[np.uint8], NDArray[np.integer]]:
    """Pictures and labels of a part of what a run was trained on."""
    height, width, channels = generator.image_shape
    part = records.find_part(generator.run, dataset, name)
    images = pictures.load_images(part, (height, width), channels=channels).images
    return images, part.labels
