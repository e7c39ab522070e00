"""From a backbone to a classifier, from a classifier to its trainable tail, and back to one model.

    classifier = build_classifier(backbone, head_layers, num_classes=2)
    tail = build_tail(classifier, [FeatureLayer("block4_pool")])     # takes the cached activations
    ...train the tail...
    join(classifier, tail)                               # one ordinary model again, with what the
    tail learned

A classifier takes raw uint8 images and returns probabilities. The layers of its head have names
that begin with `head_`; they always compute in float32.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from safelight.transfer import backbones
from safelight.transfer.features import FeatureLayer, pool

LOGITS = "head_logits"
STANDARDIZE = "head_standardize"
SIMILARITIES = "head_similarities"
_FIRST_OF_HEAD = ("head_roots", "head_root", STANDARDIZE)


@keras.saving.register_keras_serializable(package="safelight")
class Standardize(keras.layers.Layer):
    """`(features - mean) / scale` with fixed statistics of the training images.

    Kept apart from the weights of the dense layer after it: on standardised features these are all
    of one size, so that one learning rate suits them when fine-tuning goes on from a fitted head.

    Input and output shape: `(batch, num_features)`; computes in float32.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})

    def build(self, input_shape: tuple) -> None:
        shape = (input_shape[-1],)
        self.mean = self.add_weight(name="mean", shape=shape, initializer="zeros", trainable=False)
        self.scale = self.add_weight(name="scale", shape=shape, initializer="ones", trainable=False)

    def call(self, features: Any) -> Any:
        return (ops.cast(features, "float32") - self.mean) / self.scale

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape


@keras.saving.register_keras_serializable(package="safelight")
class SignedRoot(keras.layers.Layer):
    """The roots of `ScaledRoots` as they are; models saved by earlier versions have it.

    Input and output shape: `(batch, num_features)`.
    """

    def call(self, features: Any) -> Any:
        return ops.sign(features) * ops.sqrt(ops.abs(features))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape


@keras.saving.register_keras_serializable(package="safelight")
class ScaledRoots(keras.layers.Layer):
    """As `roots.scaled_roots`, on tensors, in float32.

    Args:
        widths: How many features come from each layer.

    Input and output shape: `(batch, num_features)`.
    """

    def __init__(self, widths: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.widths = [int(width) for width in widths]

    def call(self, features: Any) -> Any:
        features = ops.cast(features, "float32")
        # At 0 a root is infinitely steep, and 0 times that no number: a silent channel, which no
        # change of a picture's other channels wakes, gets the gradient 0.
        sizes = ops.abs(features)
        roots = ops.sign(features) * ops.sqrt(ops.where(sizes > 0, sizes, 1.0))
        ends = list(itertools.accumulate(self.widths))
        layers = [roots[:, end - n : end] for end, n in zip(ends, self.widths, strict=True)]
        squares = [ops.sum(layer**2, axis=1, keepdims=True) for layer in layers]
        scaled = [
            x / ops.sqrt(ops.maximum(square, 1e-24))
            for x, square in zip(layers, squares, strict=True)
        ]
        return ops.concatenate(scaled, axis=1)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape

    def get_config(self) -> dict:
        return {**super().get_config(), "widths": self.widths}


@keras.saving.register_keras_serializable(package="safelight")
class Similarities(keras.layers.Layer):
    """`exp(-gamma |x - landmark|^2)` for each of some fixed landmarks, in float32.

    Args:
        num_landmarks: How many; `kernel_heads` makes one of each training picture and view.

    Input shape: `(batch, num_features)`. Output: `(batch, num_landmarks)`.
    """

    def __init__(self, num_landmarks: int, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.num_landmarks = num_landmarks

    def build(self, input_shape: tuple) -> None:
        shape = (self.num_landmarks, input_shape[-1])
        fixed: dict[str, Any] = {"initializer": "zeros", "trainable": False}
        self.landmarks = self.add_weight(name="landmarks", shape=shape, **fixed)
        self.gamma = self.add_weight(name="gamma", shape=(), **fixed)

    def call(self, features: Any) -> Any:
        squares = ops.sum(features**2, axis=1, keepdims=True) + ops.sum(self.landmarks**2, axis=1)
        products = ops.matmul(features, ops.transpose(self.landmarks))
        return ops.exp(-self.gamma * ops.maximum(squares - 2.0 * products, 0.0))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (input_shape[0], self.num_landmarks)

    def get_config(self) -> dict:
        return {**super().get_config(), "num_landmarks": self.num_landmarks}


@keras.saving.register_keras_serializable(package="safelight")
class AverageViews(keras.layers.Layer):
    """Probabilities from the logits of several views: softmax of their mean.

    Args:
        num_views: What `backbones.ImageResizing` made of each image.

    Input shape: `(num_views * batch, num_classes)`, view after view. Output: `(batch,
    num_classes)`.
    """

    def __init__(self, num_views: int, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.num_views = num_views

    def call(self, logits: Any, mask: Any = None) -> Any:
        # It takes the place of Softmax, which is called with a mask.
        by_view = ops.reshape(logits, (self.num_views, -1, logits.shape[-1]))
        return ops.softmax(ops.mean(by_view, axis=0), axis=-1)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (input_shape[0] and input_shape[0] // self.num_views, *input_shape[1:])

    def get_config(self) -> dict:
        return {**super().get_config(), "num_views": self.num_views}


def average_views(classifier: keras.Model, symmetries: Sequence[int]) -> keras.Model:
    """The classifier that looks at every image several times and averages the logits.

    Args:
        classifier: As from `build_classifier`.
        symmetries: See `config.Augmentation.symmetries`.

    Returns:
        A copy, still an ordinary model from uint8 images to probabilities.

    Raises:
        ValueError: Quarter turns of pictures that are not square.
    """
    entrance = backbones.find_resizing(classifier)
    views = backbones.ImageResizing(entrance.height, entrance.width, symmetries, name=entrance.name)

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if layer is entrance:
            return views
        if layer.name == "head_probabilities":
            return AverageViews(len(symmetries), name=layer.name)
        return layer.__class__.from_config(config)

    with backbones.dtype_policy("float32"):
        copy = keras.models.clone_model(classifier, clone_function=clone)
    copy.set_weights(classifier.get_weights())
    return copy


def symmetries_of(classifier: keras.Model) -> tuple[int, ...]:
    """The views that a classifier's answers are averaged over; `(0,)` is the image alone."""
    return backbones.find_resizing(classifier).symmetries


def build_classifier(
    backbone: keras.Model,
    head_layers: Sequence[FeatureLayer],
    num_classes: int,
    *,
    dropout: float = 0.0,
    hidden_units: int | None = None,
    num_landmarks: int | None = None,
    seed: int = 0,
) -> keras.Model:
    """A backbone with a new head.

    Args:
        backbone: As from `load_backbone`.
        head_layers: The pooled activations that the head sees, concatenated in this order.
        num_classes: At least two.
        dropout: Fraction of the features that is dropped while training.
        hidden_units: Width of one hidden ReLU layer; by default the head is linear.
        num_landmarks: Of a kernel head; see `kernel_heads`.
        seed: Of dropout.

    Returns:
        A float32 model from `(batch, any, any, channels)` uint8 to `(batch, num_classes)`
        probabilities.

    Raises:
        ValueError: Fewer than two classes, or a head layer without pooling.
    """
    if num_classes < 2:
        raise ValueError(f"num_classes={num_classes}: a classifier needs at least two.")
    unpooled = [str(layer) for layer in head_layers if layer.pooling is None]
    if unpooled:
        raise ValueError(f"head layers {unpooled} are not pooled: expected pooling 'avg' or 'max'.")
    with backbones.dtype_policy("float32"):
        pooled = [
            pool(
                backbones.get_layer(backbone, head.layer).output,
                head.pooling,
                name=pooled_name(head),
            )
            for head in head_layers
        ]
        x = keras.layers.Concatenate(name="head_features")(pooled) if len(pooled) > 1 else pooled[0]
        if num_landmarks:
            widths = [int(part.shape[-1]) for part in pooled]
            x = ScaledRoots(widths, name="head_roots")(x)
            x = Standardize(name=STANDARDIZE)(x)
            x = Similarities(num_landmarks, name=SIMILARITIES)(x)
            x = keras.layers.Dense(num_classes, name=LOGITS, dtype="float32")(x)
        else:
            x = head_outputs(x, num_classes, dropout=dropout, hidden_units=hidden_units, seed=seed)
        probabilities = keras.layers.Softmax(name="head_probabilities", dtype="float32")(x)
    return keras.Model(backbone.input, probabilities, name=f"{backbone.name}_classifier")


def head_outputs(
    features: Any,
    num_classes: int,
    *,
    dropout: float = 0.0,
    hidden_units: int | None = None,
    seed: int = 0,
) -> Any:
    """The logits `(batch, num_classes)` of a head on `(batch, num_features)`, in float32."""
    x = Standardize(name=STANDARDIZE)(features)
    if hidden_units:
        x = keras.layers.Dense(hidden_units, "relu", name="head_hidden", dtype="float32")(x)
    if dropout:
        x = keras.layers.Dropout(dropout, seed=seed, name="head_dropout", dtype="float32")(x)
    return keras.layers.Dense(num_classes, name=LOGITS, dtype="float32")(x)


def build_head(
    num_features: int,
    num_classes: int,
    *,
    dropout: float = 0.0,
    hidden_units: int | None = None,
    seed: int = 0,
) -> keras.Model:
    """The head alone, from pooled features `(batch, num_features)` to logits."""
    inputs = keras.Input((num_features,))
    logits = head_outputs(
        inputs, num_classes, dropout=dropout, hidden_units=hidden_units, seed=seed
    )
    return keras.Model(inputs, logits, name="head")


def build_tail(
    classifier: keras.Model,
    kept: Sequence[FeatureLayer],
    *,
    precision: str = "float32",
    below_head: bool = False,
) -> keras.Model:
    """Everything above some activations, as a model that shares nothing with the classifier.

    Args:
        classifier: As from `build_classifier`.
        kept: The activations that it starts from: the cut alone, unpooled, or all that the head
            sees.
        precision: `"bfloat16"` multiplies in bfloat16 and keeps float32 weights and sums.
        below_head: Leave the head out: what it sees takes the place of the logits.

    Returns:
        A model from those activations (a list of them if there are several) to logits; all its
        layers are trainable.

    Raises:
        ValueError: The head needs a layer that cannot be computed from these.
    """
    copy = backbones.copy_model(classifier, precision=precision, to_train=True)
    for layer in copy.layers:
        layer.trainable = True
    inputs = [
        copy.get_layer(pooled_name(start)).output
        if start.pooling
        else copy.get_layer(start.layer).output
        for start in kept
    ]
    try:
        output = _head_input(copy) if below_head else copy.get_layer(LOGITS).output
        return keras.Model(inputs if len(inputs) > 1 else inputs[0], output, name="tail")
    except ValueError as error:
        names = ", ".join(str(start) for start in kept)
        raise ValueError(
            f"the head reads a layer that cannot be computed from {names}: choose head layers at "
            "or above the cut, or unfreeze from a shallower block."
        ) from error


def pooled_name(head: FeatureLayer) -> str:
    """The name of the head's pooling layer for it."""
    return f"head_{head.layer}_{head.pooling}"


def build_pixel_model(
    classifier: keras.Model,
    *,
    cut: str | None = None,
    precision: str = "float32",
    with_features: bool = False,
) -> keras.Model:
    """The whole network from resized pixels to logits, frozen up to a cut: no cache needed.

    Args:
        classifier: As from `build_classifier`.
        cut: The last frozen layer; `None` freezes nothing.
        precision: As in `build_tail`.
        with_features: Add a second output: `(batch, num_features)`, what the head sees.

    Returns:
        A copy that takes `(batch, height, width, 3)` float32, values 0 to 255.
    """
    copy = backbones.copy_model(classifier, precision=precision, to_train=True)
    if cut is None:
        copy.trainable = True
    else:
        backbones.freeze(copy, until=cut)
    logits = copy.get_layer(LOGITS).output
    outputs = [logits, _head_input(copy)] if with_features else logits
    return keras.Model(backbones.find_resizing(copy).output, outputs, name="network")


def head_layers(classifier: keras.Model) -> tuple[FeatureLayer, ...]:
    """What the head sees, in its order, as it was given to `build_classifier`."""
    graph = backbones.parents(classifier)
    below = graph[next(name for name in _FIRST_OF_HEAD if name in graph)][0]
    found: list[FeatureLayer] = []
    for name in graph[below] if below == "head_features" else [below]:
        layer, _, pooling = name.removeprefix("head_").rpartition("_")
        found.append(FeatureLayer(layer, "max" if pooling == "max" else "avg"))
    return tuple(found)


def layer_names(classifier: keras.Model) -> list[str]:
    """Of the layers whose pooled activations the head reads, each once, in its order."""
    heads = head_layers(classifier)
    return list(dict.fromkeys(backbones.get_layer(classifier, head.layer).name for head in heads))


def head_widths(classifier: keras.Model) -> list[int]:
    """How many features the head sees of each layer, in its order."""
    names = {layer.name for layer in classifier.layers}
    if "head_features" not in names:
        return [int(_head_input(classifier).shape[-1])]
    return [int(part.shape[-1]) for part in classifier.get_layer("head_features").input]


def _head_input(model: keras.Model) -> Any:
    """What the first layer behind the pooled features reads."""
    names = {layer.name for layer in model.layers}
    first = next(name for name in _FIRST_OF_HEAD if name in names)
    return model.get_layer(first).input


def join(classifier: keras.Model, tail: keras.Model) -> keras.Model:
    """Puts a trained tail's (or head's) weights into the classifier, layer by layer by name.

    Returns:
        The same classifier, an ordinary Keras model: in float32 it answers as frozen trunk and
        tail did.
    """
    names = {layer.name for layer in classifier.layers}
    for layer in tail.layers:
        if layer.weights:
            if layer.name not in names:
                raise ValueError(
                    f"the classifier has no layer {layer.name!r} for the tail's weights."
                )
            classifier.get_layer(layer.name).set_weights(layer.get_weights())
    return classifier


def set_kernel_head(model: keras.Model, head: Any) -> None:
    """Sets the weights of a kernel head.

    Args:
        model: A classifier with as many landmarks.
        head: As from `kernel_heads.fit_kernel_head`.
    """
    model.get_layer(STANDARDIZE).set_weights([head.mean, head.scale])
    model.get_layer(SIMILARITIES).set_weights([head.landmarks, np.float32(head.gamma)])
    model.get_layer(LOGITS).set_weights([head.kernel, head.bias])


def cool(model: keras.Model, temperature: float) -> None:
    """Divides all logits of a head, a tail or a classifier by a temperature, for good."""
    layer = model.get_layer(LOGITS)
    layer.set_weights([weight / temperature for weight in layer.get_weights()])


def set_linear_head(
    model: keras.Model, mean: np.ndarray, scale: np.ndarray, kernel: np.ndarray, bias: np.ndarray
) -> None:
    """Sets a linear head's standardisation and weights, for instance from logistic regression.

    Args:
        model: A head, a tail or a classifier with a linear head.
        mean: `(num_features,)`.
        scale: `(num_features,)`, positive.
        kernel: `(num_features, num_classes)` on the standardised features.
        bias: `(num_classes,)`.
    """
    model.get_layer(STANDARDIZE).set_weights([mean, scale])
    model.get_layer(LOGITS).set_weights([kernel, bias])
