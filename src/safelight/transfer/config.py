"""The settings of one training, flat; the command line's flags and `config.json` are made of them.

Loads no Keras: `safelight transfer train --help` reads it.
"""

from __future__ import annotations

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What may happen to a picture; ranges as in the Keras layers of the same names.

    Attributes:
        horizontal_flip: Mirror left and right, in half of the cases.
        vertical_flip: Mirror top and bottom, in half of the cases.
        rotation: Largest turn either way, as a fraction of a full circle (0.01 is 3.6 degrees).
        zoom: Largest change of scale either way, as a fraction.
        translation: Largest shift either way, as a fraction of the side.
        contrast: Largest change of contrast either way, as a fraction.
    """

    horizontal_flip: bool = True
    vertical_flip: bool = False
    rotation: float = 0.01
    zoom: float = 0.02
    translation: float = 0.0
    contrast: float = 0.0

    def __post_init__(self) -> None:
        for name in ("rotation", "zoom", "translation", "contrast"):
            value = getattr(self, name)
            if not 0.0 <= value < 1.0:
                raise ValueError(f"{name}={value} is not a fraction: expected 0 <= {name} < 1.")

    @property
    def is_identity(self) -> bool:
        """Whether nothing can happen."""
        return self == Augmentation(False, False, 0.0, 0.0, 0.0, 0.0)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """What to train and how.

    Attributes:
        backbone: The pretrained network, a row of `transfer.backbones.BACKBONES`.
        image_size: Side in pixels that pictures are resized to.
        unfreeze_from: The first layer or block that is trained after the head; `"auto"` takes what
            pays for the backbone (VGG16: `block5_conv1`), `"all"` everything, `None` only the head.
        pretrained: `False` starts from random weights and trains everything: the baseline that
            shows what transfer is worth.
        head: `"logistic"` (L-BFGS, its strength chosen by inner cross-validation) or `"dense"`
            (one hidden layer with dropout, trained with Adam).
        head_layers: What the head sees, `"LAYER/avg"` or `"LAYER/max"`; by default the pooled
            activations of the freeze boundary and of the last layer.
        hidden_units: Width of the dense head's hidden layer.
        dropout: Fraction of features dropped while training.
        views: Views of each training image where the frozen part is cached; 1 is the image alone.
        horizontal_flip: See `Augmentation`, as for the next five.
        vertical_flip: Mirror top and bottom.
        rotation: Fraction of a full circle.
        zoom: Fraction.
        translation: Fraction.
        contrast: Fraction.
        epochs: Of fine-tuning, at most.
        batch_size: Images.
        learning_rate: At the start; it decays to zero along a cosine.
        optimizer: `"adam"` or `"adamw"`.
        weight_decay: Of AdamW.
        patience: Epochs without a better validation loss before fine-tuning stops.
        weight_averaging: Keep the average of the weights over the second half of the epochs, unless
            a single epoch is clearly better on the validation part; see `fine_tuning.fine_tune`.
        class_weight: `"balanced"` or `None`.
        soft_targets: Train on label probabilities where the data set has them.
        precision: `"auto"`, `"float32"` or `"bfloat16"`, of the frozen part and the products of
            the tail.
        cached: `False` runs the frozen part anew in every epoch, with fresh augmentation.
        seed: Of views, order, dropout and cross-validation.
    """

    backbone: str = "vgg16"
    image_size: int = 224
    unfreeze_from: str | None = "auto"
    pretrained: bool = True
    head: str = "logistic"
    head_layers: tuple[str, ...] = ()
    hidden_units: int = 256
    dropout: float = 0.3
    views: int = 2
    horizontal_flip: bool = True
    vertical_flip: bool = False
    rotation: float = 0.01
    zoom: float = 0.02
    translation: float = 0.0
    contrast: float = 0.0
    epochs: int = 6
    batch_size: int = 32
    learning_rate: float = 2e-5
    optimizer: str = "adam"
    weight_decay: float = 1e-4
    patience: int = 5
    weight_averaging: bool = True
    class_weight: str | None = None
    soft_targets: bool = True
    precision: str = "auto"
    cached: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name, values in CHOICES.items():
            if getattr(self, name) not in values:
                known = ", ".join(str(value).lower() for value in values)
                raise ValueError(f"{name}={getattr(self, name)!r}: expected one of {known}.")
        for name in ("views", "batch_size", "hidden_units", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected at least 1.")
        for name in ("epochs", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: expected 0 or more.")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate={self.learning_rate}: expected a positive number.")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay={self.weight_decay}: expected 0 or more.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout}: expected 0 <= dropout < 1.")
        if self.augmentation.is_identity and self.views > 1:
            raise ValueError(
                f"views={self.views}, but every augmentation is off: expected views=1."
            )

    @property
    def augmentation(self) -> Augmentation:
        """The augmentation that the flat fields describe."""
        fields = dataclasses.fields(Augmentation)
        return Augmentation(**{field.name: getattr(self, field.name) for field in fields})


CHOICES: dict[str, tuple[str | None, ...]] = {
    "head": ("logistic", "dense"),
    "optimizer": ("adam", "adamw"),
    "class_weight": (None, "balanced"),
    "precision": ("auto", "float32", "bfloat16"),
}
