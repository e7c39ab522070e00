"""Jobs so small that a hundred of them take minutes: pictures on a disk, a network, a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SIDE = 16
# Of `safelight transfer train`: its extraction, head and fine-tuning, in about a second.
TRAIN_FLAGS = (
    f"--image-size {SIDE} --unfreeze-from block3 --head-layers block2/avg --head-layers block3/max "
    "--epochs 1 --batch-size 8 --precision float32 --views 1 --test-views 1"
).split()


def save_pictures(folder: Path, number: int) -> None:
    """Shapes of two classes as PNG files, a folder for each class.

    Args:
        folder: To be made.
        number: Of pictures.
    """
    from PIL import Image

    from safelight import datasets

    shapes = datasets.make_shapes(number, image_size=24, num_classes=2)
    for place, label in enumerate(shapes.labels):
        path = folder / shapes.class_names[label] / f"{place:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(shapes.read(place)).save(path)


def build_network(*_: Any, **__: Any) -> Any:
    """Three convolutions that no one trained, in the place of a pretrained network."""
    import keras

    from safelight.transfer import backbones

    keras.utils.set_random_seed(0)
    images = keras.Input((None, None, 3), dtype="uint8", name="images")
    x = backbones.ImageResizing(SIDE, SIDE, name="resizing")(images)
    x = backbones.ImageNetPreprocessing("tf", name="preprocessing")(x)
    for name in ("block1", "block2", "block3"):
        x = keras.layers.Conv2D(8, 3, activation="relu", padding="same", name=name)(x)
    return keras.Model(images, x, name="tiny")


def use_network() -> None:
    """Lets this process take `build_network` for every backbone, without graphs."""
    import tensorflow as tf

    from safelight.transfer import backbones

    backbones.load_backbone = build_network
    tf.config.run_functions_eagerly(True)
