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
        quarter_turns: Turn by 0, 90, 180 or 270 degrees, each as often.
        rotation: Largest turn either way, as a fraction of a full circle (0.01 is 3.6 degrees).
        zoom: Largest change of scale either way, as a fraction.
        translation: Largest shift either way, as a fraction of the side.
        contrast: Largest change of contrast either way, as a fraction.
    """

    horizontal_flip: bool = True
    vertical_flip: bool = False
    rotation: float = 0.0
    zoom: float = 0.0
    translation: float = 0.0
    contrast: float = 0.0
    quarter_turns: bool = False

    def __post_init__(self) -> None:
        for name in ("rotation", "zoom", "translation", "contrast"):
            value = getattr(self, name)
            if not 0.0 <= value < 1.0:
                raise ValueError(f"{name}={value} is not a fraction: expected 0 <= {name} < 1.")

    @property
    def is_identity(self) -> bool:
        """Whether nothing can happen."""
        return self.is_exact and len(self.symmetries) == 1

    @property
    def exact(self) -> Augmentation:
        """Its flips and quarter turns alone."""
        return dataclasses.replace(self, rotation=0.0, zoom=0.0, translation=0.0, contrast=0.0)

    @property
    def is_exact(self) -> bool:
        """Whether it only moves pixels to other places: no picture is interpolated."""
        return not (self.rotation or self.zoom or self.translation or self.contrast)

    @property
    def symmetries(self) -> tuple[int, ...]:
        """The flips and quarter turns that may happen, the picture itself first.

        A symmetry is a number from 0 to 7: quarter turns counter-clockwise (its last two bits), and
        then, if 4 is in it, a mirroring of left and right. With both kinds these are the eight
        symmetries of a square, the dihedral group.
        """
        flips = self.horizontal_flip or self.vertical_flip
        if self.quarter_turns:
            return (0, 4, 6, 2, 1, 3, 5, 7) if flips else (0, 2, 1, 3)
        mirrors = [4] * self.horizontal_flip + [6] * self.vertical_flip
        return (0, *mirrors, 2) if len(mirrors) == 2 else (0, *mirrors)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """What to train and how.

    Attributes:
        backbone: The pretrained network, a row of `transfer.backbones.BACKBONES`.
        image_size: Side in pixels that pictures are resized to.
        unfreeze_from: The first layer or block that is trained after the head; `"auto"` takes what
            pays for the backbone (VGG16: `block5_conv1`), `"all"` everything, `None` only the head,
            which takes seconds and is as good for most small sets of pictures.
        pretrained: `False` starts from random weights and trains everything: the baseline that
            shows what transfer is worth.
        head: `"logistic"` regression (L-BFGS, its strength chosen by inner cross-validation),
            `"kernel"` (kernel ridge regression, see `kernel_heads`; better where it stays alone,
            for some thousand pictures at most), `"dense"` (one hidden layer with dropout, trained
            with Adam), or `"auto"`: kernel if nothing else is trained and the pictures are not too
            many, else logistic.
        head_layers: What the head sees, `"LAYER/avg"` or `"LAYER/max"`; by default averages and
            maxima of some stages of the network (VGG: blocks 3, 4 and 5), or of its last layer.
        hidden_units: Width of the dense head's hidden layer.
        dropout: Fraction of features dropped while training.
        views: Views of each training image where the frozen part is cached; 1 is the image alone.
        horizontal_flip: See `Augmentation`, as for the next six.
        vertical_flip: Mirror top and bottom.
        quarter_turns: Turn by 90, 180, 270 degrees.
        rotation: Fraction of a full circle.
        zoom: Fraction.
        translation: Fraction.
        contrast: Fraction.
        test_views: Views that a prediction is averaged over: the picture and its flips and quarter
            turns, as far as these are on. The saved model does so too.
        epochs: Of fine-tuning, at most.
        batch_size: Images.
        learning_rate: At the start; it decays to zero along a cosine.
        optimizer: `"adam"` or `"adamw"`.
        weight_decay: Of AdamW.
        patience: Epochs without a better validation loss before fine-tuning stops.
        calibrated: Divide the logits by the temperature that makes held-out probabilities mean what
            they say; see `calibration`.
        weight_averaging: Keep the average of the weights over the second half of the epochs, unless
            a single epoch is clearly better on the validation part; see `fine_tuning.fine_tune`.
        class_weight: `"balanced"` or `None`.
        soft_targets: Train on label probabilities where the data set has them.
        precision: `"auto"`, `"float32"` or `"bfloat16"`, of the frozen part and the products of
            the tail.
        engine: What computes the frozen part, see `engines.choose_engine`.
        cached: `False` runs the frozen part anew in every epoch, with fresh augmentation.
        seed: Of views, order, dropout and cross-validation.
    """

    backbone: str = "vgg16"
    image_size: int = 224
    unfreeze_from: str | None = None
    pretrained: bool = True
    head: str = "auto"
    head_layers: tuple[str, ...] = ()
    hidden_units: int = 256
    dropout: float = 0.3
    views: int = 2
    horizontal_flip: bool = True
    vertical_flip: bool = False
    quarter_turns: bool = False
    rotation: float = 0.0
    zoom: float = 0.0
    translation: float = 0.0
    contrast: float = 0.0
    test_views: int = 2
    epochs: int = 6
    batch_size: int = 32
    learning_rate: float = 2e-5
    optimizer: str = "adam"
    weight_decay: float = 1e-4
    patience: int = 5
    calibrated: bool = True
    weight_averaging: bool = True
    class_weight: str | None = None
    soft_targets: bool = True
    precision: str = "auto"
    engine: str = "auto"
    cached: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name, values in CHOICES.items():
            if getattr(self, name) not in values:
                known = ", ".join(str(value).lower() for value in values)
                raise ValueError(f"{name}={getattr(self, name)!r}: expected one of {known}.")
        for name in ("views", "test_views", "batch_size", "hidden_units", "patience"):
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
        number = len(self.augmentation.symmetries)
        if self.test_views > number or (self.augmentation.is_exact and self.views > number):
            raise ValueError(
                f"views={self.views}, test_views={self.test_views}: flips and quarter turns as set "
                f"make {number} different pictures of one: expected at most {number} test views"
                f"{', and as many views' if self.augmentation.is_exact else ''}; vertical_flip and "
                "quarter_turns make more, and rotation or zoom any number of views."
            )

    @property
    def augmentation(self) -> Augmentation:
        """The augmentation that the flat fields describe."""
        fields = dataclasses.fields(Augmentation)
        return Augmentation(**{field.name: getattr(self, field.name) for field in fields})


CHOICES: dict[str, tuple[str | None, ...]] = {
    "head": ("auto", "logistic", "kernel", "dense"),
    "optimizer": ("adam", "adamw"),
    "class_weight": (None, "balanced"),
    "precision": ("auto", "float32", "bfloat16"),
    "engine": ("auto", "keras", "ncnn", "openvino"),
}
