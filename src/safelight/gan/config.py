"""The settings of one training, flat; the command line's flags and `config.json` are made of them.

Loads no Keras: `safelight gan train --help` reads it.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from safelight.datasets import ImageDataset, Splits

_COUNTS = ("latent_dim", "discriminator_steps")
_AMOUNTS = ("seed", "batch_size", "penalty_weight", "reconstruction_weight", "kl_weight")
_RATES = ("learning_rate", "discriminator_learning_rate")

CHOICES: dict[str, tuple[str, ...]] = {
    "architecture": ("dcgan", "resnet"),
    "loss": ("non_saturating", "hinge", "wasserstein"),
    "penalty": ("auto", "none", "gradient", "r1"),
    "normalization": ("auto", "none", "batch", "spectral"),
    "augmentation": ("auto", "none", "geometric", "all"),
    "precision": ("auto", "float32", "bfloat16"),
}


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """What to train and how.

    Attributes:
        latent_dim: Number of latent units.
        architecture: `"dcgan"` (Radford et al. 2016): strided convolutions, cheap; `"resnet"`
            (Gulrajani et al. 2017): residual blocks, for more time or a GPU.
        filters: Of the discriminator's convolutions, each of which halves the size; the generator
            has them in reverse order. Empty for as many as leave at most 4 pixels a side (8 unless
            `normalization` is batch), 32 at first and twice as many after each.
        loss: `"non_saturating"` (Goodfellow et al. 2014), `"hinge"` (Lim & Ye 2017) or
            `"wasserstein"` (Arjovsky et al. 2017), which wants a `discriminator_steps` of 5 and
            smaller rates (Gulrajani et al. 2017 have 1e-4).
        penalty: On the discriminator's gradient by pictures: `"gradient"` holds it near 1 between
            real and generated ones (WGAN-GP, Gulrajani et al. 2017), `"r1"` near 0 at real ones
            (Mescheder et al. 2018); `"auto"` is gradient for the Wasserstein loss, else none.
        penalty_weight: Of it in the discriminator's loss; 0 takes 10, the usual weight of both.
        normalization: Of the discriminator: `"batch"` (Ioffe & Szegedy 2015; Radford et al. 2016),
            by real and by generated pictures each for themselves; `"spectral"`: kernels are divided
            by their largest singular value (Miyato et al. 2018). `"auto"` is none beside a penalty,
            spectral for resnet, the Wasserstein loss and a VAE/GAN, which compares features of one
            picture with those of another, and batch else.
        autoencoder: Whether to train an encoder too, so that generated pictures can be made of real
            ones: a VAE/GAN (Larsen et al. 2016).
        reconstruction_weight: Of a VAE/GAN, how much the generator cares for reconstructions in
            units of how much it cares for being believed.
        kl_weight: Of a VAE/GAN, of the KL divergence against the reconstruction.
        conditional: Whether both networks are told the label.
        augmentation: Differentiable augmentation of all that the discriminator sees (Zhao et al.
            2020): `"geometric"` shifts and cuts out, `"all"` changes brightness and contrast too;
            `"auto"` is all for fewer than 500 pictures, which are soon known by heart, else none:
            all that it changes has to be learned too, and takes time.
        image_size: `(height, width)` pictures are resized to; `None` keeps small ones as they are.
        epochs: Passes over the data; `None` leaves it to `minutes`, or to a default.
        minutes: Time for training; the number of epochs follows from the speed of the first ones.
        batch_size: Images; 0 takes 64, and 16 of fewer than 10,000 pictures: more steps, of which
            few minutes have few.
        discriminator_steps: Steps of the discriminator for one of the generator.
        learning_rate: Of the generator, at the start; it decays along a cosine.
        discriminator_learning_rate: Likewise.
        beta_1: Decay of Adam's average of gradients; small, since the game moves on.
        beta_2: Of their squares.
        weight_average: Decay per step of the running average of the generator's weights, which is
            what is kept; 0 keeps the weights themselves.
        precision: `"auto"`, `"float32"` or `"bfloat16"`, of the matrix products.
        seed: Of weights, order and noise.
    """

    latent_dim: int = 32
    architecture: str = "dcgan"
    filters: tuple[int, ...] = ()
    loss: str = "non_saturating"
    penalty: str = "auto"
    penalty_weight: float = 0.0
    normalization: str = "auto"
    autoencoder: bool = False
    reconstruction_weight: float = 1.0
    kl_weight: float = 1.0
    conditional: bool = False
    augmentation: str = "auto"
    image_size: tuple[int, int] | None = None
    epochs: int | None = None
    minutes: float | None = None
    batch_size: int = 0
    discriminator_steps: int = 1
    learning_rate: float = 1e-3
    discriminator_learning_rate: float = 1e-3
    beta_1: float = 0.5
    beta_2: float = 0.999
    weight_average: float = 0.999
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, values in CHOICES.items():
            if getattr(self, name) not in values:
                raise ValueError(
                    f"{name}={getattr(self, name)!r}: expected one of {', '.join(values)}."
                )
        for name in (*_COUNTS, *self._given("epochs")):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected at least 1.")
        for name in _AMOUNTS:
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)}: expected 0 or more.")
        for name in (*_RATES, *self._given("minutes")):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)}: expected a positive number.")
        for name in ("weight_average", "beta_1", "beta_2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected 0 or more, below 1.")
        for name in ("filters", *self._given("image_size")):
            if any(number < 1 for number in getattr(self, name)):
                raise ValueError(f"{name}={getattr(self, name)}: expected numbers of at least 1.")
        self._check_together()

    @property
    def chosen_penalty(self) -> str:
        """`penalty` without `"auto"`."""
        if self.penalty != "auto":
            return self.penalty
        return "gradient" if self.loss == "wasserstein" else "none"

    @property
    def chosen_normalization(self) -> str:
        """`normalization` without `"auto"`."""
        if self.normalization != "auto":
            return self.normalization
        if self.chosen_penalty != "none":
            return "none"
        bounded = self.architecture == "resnet" or self.loss == "wasserstein" or self.autoencoder
        return "spectral" if bounded else "batch"

    def _given(self, name: str) -> tuple[str, ...]:
        return () if getattr(self, name) is None else (name,)

    def _check_together(self) -> None:
        if self.epochs is not None and self.minutes is not None:
            raise ValueError(
                f"epochs={self.epochs} and minutes={self.minutes} both say when to stop: "
                "expected one of them."
            )
        penalty, normalization = self.chosen_penalty, self.chosen_normalization
        if self.loss == "wasserstein" and penalty == "none" and normalization != "spectral":
            raise ValueError(
                f"loss='wasserstein' with penalty='none' and normalization={normalization!r}: "
                "nothing would bound the discriminator; expected penalty='gradient', or "
                "normalization='spectral'."
            )
        if penalty != "none" and normalization == "batch":
            raise ValueError(
                f"normalization='batch' with penalty={penalty!r}: a penalty is on the slope at one "
                "picture, and batch normalization makes a logit depend on all of them; expected "
                "normalization='none' or 'spectral', or penalty='none'."
            )
        if self.autoencoder and self.conditional:
            raise ValueError(
                "autoencoder=True with conditional=True: the encoder of a VAE/GAN is not told "
                "labels; expected one of them."
            )


def check_data(config: TrainConfig, dataset: ImageDataset, splits: Splits) -> None:
    """Whether data suit a configuration; cheap, before any picture is read.

    Args:
        config: The settings.
        dataset: The whole data set.
        splits: Its parts.

    Raises:
        ValueError: A conditional model of pictures without labels, or too few pictures to judge by.
    """
    from safelight.generative.scores import MIN_PICTURES  # loads SciPy

    num_test, num_train, num = len(splits.test), len(splits.train), len(dataset)
    if min(num_test, num_train) < MIN_PICTURES:
        share = math.ceil(100 * (MIN_PICTURES + 1) / num) / 100
        left = num - round(share * num) - (num - num_train - num_test)
        remedy = (
            f"--test-fraction {share:.2f} leaves about {left} to learn from"
            if left > MIN_PICTURES
            else f"{num} pictures are too few for that, {3 * MIN_PICTURES} would do"
        )
        raise ValueError(
            f"{num_train} pictures to learn from and {num_test} to compare with generated ones: "
            f"expected at least {MIN_PICTURES} of each; {remedy}. More are better."
        )
    if config.conditional and dataset.num_classes < 2:
        raise ValueError(
            f"conditional=True, but {dataset.name} has no classes: expected a sub-folder "
            "for each of two or more classes, or conditional=False."
        )
