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
    Features,
    Score,
    nearest_rows,
    score_features,
)
from safelight.runs import Run

KINDS = ("vae", "gan")
_MOST_CLASSES = 20
_VGG_LAYER, _VGG_SIZE, _BATCH = "block4_pool", 64, 64
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

    def draw(self, num: int, seed: int) -> NDArray[np.float32]:
        """New pictures, floats in [0, 1]; of a conditional model as many of every class."""
        if self.kind == "gan":
            return self.model.generate(num, seed=seed)
        classes = self.model.num_classes
        labels = np.arange(num) % classes if classes else None
        return np.asarray(self.model.sample(num, labels=labels, seed=seed), "float32").clip(0, 1)

    @property
    def words(self) -> str:
        """What it is, in a few words."""
        settings = self.run.config.get("settings") or {}
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
        copies: The learned pictures that are nearest to these.
    """

    name: str
    words: str
    score: Score
    likelihood: dict[str, Any] | None
    seconds: float | None
    samples: NDArray[np.floating]
    copies: NDArray[np.floating]

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
    if drawn and labels is not None and len(np.unique(labels)) <= _MOST_CLASSES:
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
        f"channel means of VGG16's {_VGG_LAYER} (ImageNet), pictures resized to {_VGG_SIZE} x "
        f"{_VGG_SIZE} pixels"
    )
    return Features(functools.partial(_extract, network), said)


def _extract(network: Any, images: np.ndarray) -> NDArray[np.floating]:
    if images.dtype != np.uint8:
        images = np.rint(255 * images.clip(0, 1)).astype("uint8")
    parts = [
        np.asarray(network.predict_on_batch(images[start : start + _BATCH])).mean((1, 2))
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
        runs: Finished, of kinds that draw pictures, all of the same split of the same pictures and
            the same size.
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
    parts = _load(generators, dataset)
    features = choose_features(
        parts["train"][0],
        parts["train"][1] if dataset.num_classes > 1 else None,
        drawn=dataset.name == "mnist",
    )
    learned, unseen = parts["train"][0], parts["test"][0]
    rng = np.random.default_rng(seed)
    num = min(num, len(unseen), MAX_PICTURES)
    real = unseen[rng.permutation(len(unseen))[:num]]
    order = rng.permutation(len(learned))
    among = learned[order[num : num + MAX_LEARNED]] if len(order) > 2 * num else learned
    known = [features.extract(each) for each in (among, real)]
    rows = []
    for number, generator in enumerate([None, *generators]):
        report("judging", number, len(generators) + 1, "")
        fake = (
            learned[order[:num]] / np.float32(255)
            if generator is None
            else generator.draw(num, seed)
        )
        rows.append(_judge(generator, features, known, among, fake, seed))
    report("judging", len(rows), len(rows), "")
    protocol = {
        "features": features.protocol,
        "dataset": dataset.name,
        "num_real": len(real),
        "num_fake": num,
        "seed": seed,
        "real": "pictures of the test part, which none of the runs has seen",
        "intervals": INTERVALS,
    }
    return rows, protocol


def _judge(
    generator: Generator | None,
    features: Features,
    known: Sequence[NDArray[Any]],
    among: np.ndarray,
    fake: np.ndarray,
    seed: int,
) -> Row:
    found = features.extract(fake)
    score = score_features(known[0], known[1], found, seed=seed)
    shown = fake[:20]
    copies = among[nearest_rows(known[0], found[:20])] / np.float32(255)
    if generator is None:
        words = "pictures of the training part, as if they were generated"
        return Row("real pictures", words, score, None, None, shown, copies)
    metrics = generator.run.metrics
    seconds = (metrics.get("seconds") or {}).get("training")
    return Row(
        generator.run.name,
        generator.words,
        score,
        metrics.get("log_likelihood"),
        None if seconds is None else float(seconds),
        shown,
        copies,
    )


def _load(
    generators: Sequence[Generator], dataset: ImageDataset
) -> dict[str, tuple[NDArray[np.uint8], NDArray[np.integer]]]:
    """Pictures and labels of the training and the test part, which all runs share."""
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
        if other.run.config["split"]["digests"] != first.run.config["split"]["digests"]:
            raise ValueError(
                f"{first.run.path} and {other.run.path} were trained on different pictures, or "
                "other parts of the same: expected the same data, --seed and --test-fraction."
            )
    height, width, channels = first.image_shape
    found: dict[str, tuple[NDArray[np.uint8], NDArray[np.integer]]] = {}
    for name in ("train", "test"):
        part = records.find_part(first.run, dataset, name)
        images = pictures.load_images(part, (height, width), channels=channels).images
        found[name] = images, part.labels
    return found
