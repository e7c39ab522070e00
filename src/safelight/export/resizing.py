"""A classifier in terms that every runtime knows: its resizing said as two matrix products.

`keras.ops.image.resize` with antialias is an operation of its own in TensorFlow, which ONNX, LiteRT
and others have no word for. A triangle filter is linear and separable, so it is one matrix for
the rows of a picture and one for the columns, made of its size as the graph runs.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from safelight.transfer import backbones


def triangle_weights(side: Any, new_size: int) -> Any:
    """What each new pixel takes of the old ones along one side.

    Triangles around the new pixels' centres, as wide as the larger of the two pixel sizes, and
    scaled to sum to one; the filter of `safelight.images.resize`.

    Args:
        side: `(size,)` float32 of any values: a line of pixels along that side. Its length is
            counted in the graph, as some tracers would take a number for a constant.
        new_size: Pixels wanted.

    Returns:
        `(new_size, size)` float32.
    """
    places = ops.cumsum(ops.ones_like(side)) - 0.5
    scale = (places[-1] + 0.5) / new_size
    centres = (ops.arange(new_size, dtype="float32") + 0.5) * scale
    distances = ops.abs(places[None, :] - centres[:, None]) / ops.maximum(scale, 1.0)
    weights = ops.maximum(1.0 - distances, 0.0)
    return weights / ops.sum(weights, axis=1, keepdims=True)


@keras.saving.register_keras_serializable(package="safelight")
class MatrixResizing(backbones.ImageResizing):
    """As `backbones.ImageResizing`, in matrix products, for pictures of any size."""

    def call(self, images: Any) -> Any:
        images = ops.cast(images, "float32")
        # The rows first: that is one product with a matrix as wide as all columns together.
        rows = triangle_weights(images[0, :, 0, 0], self.height)
        columns = triangle_weights(images[0, 0, :, 0], self.width)
        images = ops.einsum("oh,bhwc->bowc", rows, images)
        return super().call(ops.einsum("pw,bowc->bopc", columns, images))


@keras.saving.register_keras_serializable(package="safelight")
def gelu_by_erf(x: Any) -> Any:
    """GELU by erf; TensorFlow's own says it by erfc, which tf2onnx does not know.

    Reference: Hendrycks and Gimpel 2016, arXiv 1606.08415, equation 1 and section 2.
    """
    return 0.5 * x * (1.0 + ops.erf(x / math.sqrt(2.0)))


def build_exportable(classifier: keras.Model) -> keras.Model:
    """A float32 copy of a classifier that can be said in every format.

    Args:
        classifier: As from `build_classifier`, trained.

    Returns:
        From `(batch, any, any, channels)` uint8 to `(batch, num_classes)` probabilities.
    """
    entrance = backbones.find_resizing(classifier)

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        kind = MatrixResizing if layer is entrance else layer.__class__
        config = layer.get_config()
        if getattr(layer, "activation", None) is keras.activations.gelu:
            config["activation"] = gelu_by_erf
        return kind.from_config(config)

    with backbones.dtype_policy("float32"):
        copy = keras.models.clone_model(classifier, clone_function=clone)
    copy.set_weights(classifier.get_weights())
    copy.trainable = False  # all weights in one list
    return copy
