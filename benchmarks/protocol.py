"""What every variant of the transfer benchmark must do alike, and how its answers are scored.

NumPy only: the PyTorch peers import this module in an environment without Keras or Safelight.
"""

from __future__ import annotations

import dataclasses
import re

import numpy as np

from saving import Saved

CLAIM = "transfer_cached_vs_end_to_end"
PARTS = ("train", "validation", "test")
VGG16_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


@dataclasses.dataclass(frozen=True)
class Protocol(Saved):
    """The one recipe that every variant follows: two stages, the head and then block5 + head.

    Attributes:
        num_train, num_validation, num_test: Images drawn from the parts of Safelight's own split.
        split_seed: Seed of that split and of the draw; the same for every repeat.
        seed: Seed of weights, shuffling, dropout and augmentation; one per repeat.
        flip: Mode of Keras' RandomFlip. rotation: Its RandomRotation's factor, in turns.
        data_digest: SHA-256 of pixels and labels, so that results of other data never mix.
    """

    dataset: str = "elpv"
    image_size: int = 224
    num_train: int = 400
    num_validation: int = 100
    num_test: int = 256
    head_epochs: int = 10
    block5_epochs: int = 20
    batch_size: int = 32
    head_learning_rate: float = 1e-3
    block5_learning_rate: float = 1e-5
    dropout: float = 0.2
    flip: str = "horizontal"
    rotation: float = 0.1
    split_seed: int = 0
    seed: int = 0
    data_digest: str = ""

    @property
    def num_presentations(self) -> int:
        """Training images times epochs: what "images per second" counts."""
        return self.num_train * (self.head_epochs + self.block5_epochs)


@dataclasses.dataclass(frozen=True)
class Variant:
    """One row of the table: which module runs it, under which interpreter, how."""

    letter: str
    title: str
    module: str
    backend: str
    precision: str = "float32"
    views: int = 1
    cache: bool = False
    compiled: bool = False


VARIANTS = {
    variant.letter: variant
    for variant in (
        Variant("a", "Safelight, cached, 1 view", "ours", "tensorflow", "auto", 1, True),
        Variant("b", "Safelight, cached, 4 views", "ours", "tensorflow", "auto", 4, True),
        Variant("c", "Safelight without its cache", "ours", "tensorflow", "auto"),
        Variant("d", "Keras guide's recipe, float32", "peers.keras_guide", "tensorflow"),
        Variant("e", "Plain PyTorch, float32", "peers.plain_torch", "torch"),
        Variant("f", "Plain PyTorch, bfloat16 autocast", "peers.plain_torch", "torch", "bfloat16"),
        Variant(
            "g",
            "Plain PyTorch, bfloat16, compiled",
            "peers.plain_torch",
            "torch",
            "bfloat16",
            compiled=True,
        ),
    )
}
DEFAULT_VARIANTS = "abcdef"


def slug(text: str) -> str:
    """Reduce a machine's or a version's name to what a file name may hold."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def result_name(claim: str, machine: str, backend: str, detail: str) -> str:
    """Name a result by claim, machine, framework with version, and detail."""
    return "__".join((claim, slug(machine), slug(backend), slug(detail))) + ".json"


def num_multiply_adds(image_size: int, *, until_block: int = 5) -> int:
    """Count the multiply-adds of VGG16's convolutions for one image.

    Args:
        image_size: Height and width of the input, pixels.
        until_block: The last block counted, 1 to 5.

    Returns:
        Multiply-adds; one of them is two floating-point operations.
    """
    total, size, channels = 0, image_size, 3
    for widths in VGG16_BLOCKS[:until_block]:
        for width in widths:
            total += size * size * 9 * channels * width
            channels = width
        size //= 2
    return total


def accuracy_interval(
    correct: np.ndarray, *, num_resamples: int = 10_000, seed: int = 0
) -> dict[str, float]:
    """Mean of per-image scores with a 95 % percentile bootstrap over images.

    Args:
        correct: (n,) scores, 0 or 1 for an accuracy, differences for a paired comparison.
        num_resamples: Bootstrap resamples.
        seed: Seed of the resampling.

    Returns:
        {"value", "low", "high"}.
    """
    scores = np.asarray(correct, dtype=np.float64)
    rng = np.random.default_rng(seed)
    draws = rng.integers(0, len(scores), size=(num_resamples, len(scores)))
    low, high = np.quantile(scores[draws].mean(axis=1), (0.025, 0.975))
    return {"value": float(scores.mean()), "low": float(low), "high": float(high)}


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative log-likelihood, nats per image; (n, num_classes) and (n,) int."""
    chosen = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.clip(chosen, 1e-7, 1.0)).mean())


def score(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, object]:
    """Accuracy with its interval, log-loss, and the per-image record that pairing needs."""
    correct = probabilities.argmax(axis=1) == labels
    return {
        "accuracy": accuracy_interval(correct),
        "loss": log_loss(probabilities, labels),
        "num_test": len(labels),
        "correct": "".join("1" if hit else "0" for hit in correct),
    }


def correct_of(result: dict) -> np.ndarray:
    """Read back the per-image record of `score` as (n,) float64."""
    return np.array([int(mark) for mark in result["metrics"]["correct"]], dtype=np.float64)
