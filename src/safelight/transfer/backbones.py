"""Pretrained networks as one functional model each, and what may be frozen in them.

    backbone = load_backbone("vgg16", output_layer="block5_pool")
    freeze(backbone, until="block4_pool")          # the number of weights that now stay as they are
    cut_layer(backbone, "block5_conv1")            # "block4_pool": what training cannot change

A backbone takes raw uint8 images: resizing and preprocessing are its first two layers, so whoever
saves, serves or exports it needs to know nothing about either.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import keras
import numpy as np
from keras import ops

from safelight import assets
from safelight.transfer import channels_last, convolution

Preprocessing = Literal["caffe", "tf", "torch", "none"]

CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)
IMAGENET_MEAN_RGB = (0.485, 0.456, 0.406)
IMAGENET_STD_RGB = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class Backbone:
    """One row of the table of networks.

    Attributes:
        name: What the user writes, `"vgg16"`.
        application: The constructor in `keras.applications`.
        weights: The asset that holds its ImageNet weights.
        preprocessing: What its weights were trained with; feeding anything else costs points of
            accuracy.
        unfreeze_from: The block whose training usually pays with a few hundred pictures.
        reference: The paper.
        image_size: Height and width it was trained at, in pixels.
        min_image_size: The smallest side it accepts, in pixels.
        head_layers: Whose pooled activations the head sees by default; without any, the last one's.
    """

    name: str
    application: str
    weights: str
    preprocessing: Preprocessing
    unfreeze_from: str
    reference: str
    image_size: int = 224
    min_image_size: int = 32
    head_layers: tuple[str, ...] = ()


# name, application, preprocessing, unfreeze_from, reference
_ROWS: tuple[tuple[str, str, Preprocessing, str, str], ...] = (
    ("vgg16", "VGG16", "caffe", "block5_conv1", "arXiv:1409.1556"),
    ("vgg19", "VGG19", "caffe", "block5_conv1", "arXiv:1409.1556"),
    ("resnet50", "ResNet50", "caffe", "conv5_block1_1_conv", "arXiv:1512.03385"),
    ("mobilenetv2", "MobileNetV2", "tf", "block_16_expand", "arXiv:1801.04381"),
    ("efficientnetv2b0", "EfficientNetV2B0", "tf", "block6a_expand_conv", "arXiv:2104.00298"),
    ("convnexttiny", "ConvNeXtTiny", "torch", "convnext_tiny_stage_3", "arXiv:2201.03545"),
)
# On ELPV the head of blocks 3 to 5 is a point better than that of blocks 4 and 5, and three than
# that of block 5 alone (docs/lab-notes.md); the other networks' stages were not tried.
_HEAD_LAYERS = dict.fromkeys(("vgg16", "vgg19"), ("block3_pool", "block4_pool", "block5_pool"))
BACKBONES: dict[str, Backbone] = {
    name: Backbone(
        name=name,
        application=application,
        weights=f"{name}-imagenet-notop",
        preprocessing=mode,
        unfreeze_from=block,
        reference=reference,
        head_layers=_HEAD_LAYERS.get(name, ()),
    )
    for name, application, mode, block, reference in _ROWS
}


@keras.saving.register_keras_serializable(package="safelight")
class ImageResizing(keras.layers.Layer):
    """Raw images of any size to float32 RGB of one size, values still 0 to 255, not rounded.

    Bilinear with antialias: the same numbers as `safelight.images.resize` gives, so that a picture
    resized before it is batched and one resized inside the saved model answer alike.

    Args:
        height: Pixels.
        width: Pixels.
        symmetries: See `config.Augmentation.symmetries`. With several, the output holds the whole
            batch under each of them, one after the other, and `models.AverageViews` joins what the
            network says of them.

    Input shape: `(batch, h, w, 3)` or `(batch, h, w, 1)`, any number type. Output: `(batch,
    height, width, 3)`, batch being `len(symmetries)` times as large.

    Raises:
        ValueError: Quarter turns of a height other than the width.
    """

    def __init__(
        self, height: int, width: int, symmetries: Sequence[int] = (0,), **kwargs: Any
    ) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.height, self.width, self.symmetries = height, width, tuple(symmetries)
        if height != width and any(symmetry & 1 for symmetry in self.symmetries):
            raise ValueError(
                f"quarter turns of {height} x {width} pixels: expected a square image_size."
            )

    def call(self, images: Any) -> Any:
        images = ops.cast(images, "float32")
        if tuple(images.shape[1:3]) != (self.height, self.width):
            size = (self.height, self.width)
            images = ops.image.resize(images, size, interpolation="bilinear", antialias=True)
        images = ops.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images
        if self.symmetries == (0,):
            return images
        return ops.concatenate([self._turn(images, each) for each in self.symmetries], axis=0)

    @staticmethod
    def _turn(images: Any, symmetry: int) -> Any:
        """As `augmentation.turn`, on tensors."""
        turned = ops.rot90(images, symmetry & 3, axes=(1, 2)) if symmetry & 3 else images
        return ops.flip(turned, axis=2) if symmetry & 4 else turned

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        batch = input_shape[0] and input_shape[0] * len(self.symmetries)
        return (batch, self.height, self.width, 3)

    def get_config(self) -> dict:
        own = {"height": self.height, "width": self.width, "symmetries": list(self.symmetries)}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="safelight")
class ImageNetPreprocessing(keras.layers.Layer):
    """The normalisation that a set of ImageNet weights was trained with.

    Args:
        mode: `"caffe"`: BGR minus the ImageNet mean, not scaled (VGG, ResNet). `"tf"`: to [-1, 1].
            `"torch"`: to [0, 1], then standardised per channel. `"none"`: unchanged.

    Input and output shape: `(batch, height, width, 3)` float32, input values 0 to 255.
    """

    def __init__(self, mode: Preprocessing, **kwargs: Any) -> None:
        if mode not in get_args(Preprocessing):
            raise ValueError(f"mode={mode!r}: expected one of {get_args(Preprocessing)}.")
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.mode = mode

    def call(self, images: Any) -> Any:
        if self.mode == "caffe":
            # PyTorch has no slices with a negative step.
            return ops.flip(images, axis=-1) - ops.array(CAFFE_MEAN_BGR, dtype="float32")
        if self.mode == "tf":
            return images / 127.5 - 1.0
        if self.mode == "torch":
            scaled = images / 255.0 - ops.array(IMAGENET_MEAN_RGB, dtype="float32")
            return scaled / ops.array(IMAGENET_STD_RGB, dtype="float32")
        return images

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape

    def get_config(self) -> dict:
        return {**super().get_config(), "mode": self.mode}


def find_backbone(name: str) -> Backbone:
    """The row of that name.

    Raises:
        ValueError: There is none; the message lists what there is.
    """
    if name not in BACKBONES:
        known = ", ".join(BACKBONES)
        raise ValueError(f"backbone={name!r} is not known: expected one of {known}.")
    return BACKBONES[name]


def load_backbone(
    name: str = "vgg16",
    *,
    output_layer: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    weights: str | Path | None = "imagenet",
    channels: int = 3,
) -> keras.Model:
    """Builds a network without its classification head and loads its weights.

    Args:
        name: A row of `BACKBONES`.
        output_layer: The layer whose activations the model returns; by default the last one.
        image_size: Side, or height and width, in pixels, that images are resized to inside the
            model; by default the size that the network was trained at.
        weights: `"imagenet"`, the path of a Keras weights file for the same network, or `None` for
            a random start (seed it with `keras.utils.set_random_seed`).
        channels: 3 for colour input; 1 for a model that takes grey images, which it repeats three
            times.

    Returns:
        A float32 functional model: input `(batch, any, any, channels)` uint8, output the layer's
        activations.

    Raises:
        ValueError: Unknown name or layer, or an image size that the network cannot take.
        safelight.assets.AssetError: The weights can neither be found nor fetched.
    """
    row = find_backbone(name)
    height, width = _check_image_size(row, image_size)
    with dtype_policy("float32"):
        images = keras.Input((None, None, channels), dtype="uint8", name="images")
        resized = ImageResizing(height, width, name="resizing")(images)
        pixels = ImageNetPreprocessing(row.preprocessing, name="preprocessing")(resized)
        base = _build_application(row, pixels)
    if weights is not None:
        _load_weights(base, row, weights)
    output = get_layer(base, output_layer).output if output_layer else base.output
    return keras.Model(base.input, output, name=row.name)


def _check_image_size(row: Backbone, image_size: int | tuple[int, int] | None) -> tuple[int, int]:
    size = row.image_size if image_size is None else image_size
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < row.min_image_size:
        raise ValueError(
            f"image_size={image_size} is too small for {row.name}: expected at least "
            f"{row.min_image_size} pixels a side."
        )
    return height, width


def _build_application(row: Backbone, pixels: Any) -> keras.Model:
    """The keras.applications network on preprocessed pixels, its own preprocessing off."""
    build = getattr(keras.applications, row.application)
    options: dict[str, Any] = {"include_top": False, "weights": None, "input_tensor": pixels}
    if row.application.startswith(("EfficientNetV2", "ConvNeXt")):
        options["include_preprocessing"] = False
    network = build(**options)
    # Keras numbers a layer without a name of its own anew with each copy; keys of activations hold
    # names. ConvNeXt has one.
    last = network.layers[-1]
    if last.name.startswith("layer_normalization"):
        last.name = "final_layernorm"
    return network


def _load_weights(model: keras.Model, row: Backbone, weights: str | Path) -> None:
    if str(weights) != "imagenet":
        model.load_weights(str(weights))
    elif row.name == "vgg16":
        arrays = assets.read_weights(row.weights)
        for layer in model.layers:
            if layer.weights:
                layer.set_weights([arrays[f"{layer.name}/kernel"], arrays[f"{layer.name}/bias"]])
    else:
        model.load_weights(str(assets.fetch(row.weights)))


@contextlib.contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Layers built inside have this dtype policy; the caller's own is put back afterwards."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def copy_model(
    model: keras.Model, *, precision: str = "float32", to_train: bool = False
) -> keras.Model:
    """A copy that shares nothing with the original, its layers computing in `precision`.

    Args:
        model: A functional model.
        precision: `"float32"`, or `"bfloat16"`: weights stay float32, products are bfloat16 with
            float32 sums. Preprocessing and the head (layers named `head_...`) stay in float32.

        to_train: Whether it will be trained: convolutions then get the backward pass that is
            fastest in this precision.

    Returns:
        The copy, with the same weights and the same `trainable` flags.
    """
    policy = "mixed_bfloat16" if precision == "bfloat16" else "float32"
    backend = keras.backend.backend()
    products = to_train and precision == "bfloat16" and backend == "tensorflow"

    def clone(layer: Any) -> Any:
        config = layer.get_config()
        if not isinstance(layer, keras.layers.Layer):  # a sum, of two tensors
            return layer.__class__.from_config(config)
        fixed = isinstance(layer, ImageResizing | ImageNetPreprocessing | keras.layers.InputLayer)
        if not fixed and not layer.name.startswith("head_"):
            config["dtype"] = policy
        if "kernel_initializer" in config:
            # Drawing 15 million numbers that are overwritten at once takes half a second.
            config["kernel_initializer"] = "zeros"
        if products and convolution.suits(layer):
            return convolution.ProductConv2D.from_config(config)
        instead = channels_last.stand_in(layer) if backend == "torch" else None
        return (instead or layer.__class__).from_config(config)

    copy = keras.models.clone_model(model, clone_function=clone)
    copy.set_weights(model.get_weights())
    for ours, theirs in zip(copy.layers, model.layers, strict=True):
        ours.trainable = theirs.trainable
        if hasattr(theirs, "kernel_initializer"):
            ours.kernel_initializer = theirs.kernel_initializer
        if isinstance(ours, channels_last.ViewConv2D):
            channels_last.arrange([ours.kernel])
    return copy


def find_resizing(model: keras.Model) -> ImageResizing:
    """The layer that pictures come in by.

    Raises:
        ValueError: The model has none.
    """
    for layer in model.layers:
        if isinstance(layer, ImageResizing):
            return layer
    raise ValueError(
        f"{model.name} has no ImageResizing layer: expected a model from load_backbone."
    )


def build_trunk(classifier: keras.Model, layers: Sequence[str]) -> keras.Model:
    """From resized pixels to the activations of some layers; shares nothing with the classifier."""
    copy = copy_model(classifier)
    outputs = [copy.get_layer(name).output for name in layers]
    return keras.Model(find_resizing(copy).output, outputs, name="trunk")


def get_layer(model: keras.Model, name: str) -> keras.layers.Layer:
    """The layer of that name, or the first of the block of that name (`"block5"`, `"conv5"`).

    Raises:
        ValueError: There is neither; the message lists near names.
    """
    for layer in model.layers:
        if layer.name == name:
            return layer
    for layer in model.layers:
        if layer.name.startswith(f"{name}_"):
            return layer
    import difflib

    names = [layer.name for layer in model.layers]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names[-3:]
    raise ValueError(
        f"{model.name} has no layer or block {name!r}: near names are {', '.join(near)}; "
        f"`[layer.name for layer in model.layers]` lists all {len(names)}."
    )


def parents(model: keras.Model) -> dict[str, list[str]]:
    """For each layer the layers it reads from, in topological order of the keys.

    Read from the configuration, which saved files depend on, rather than from private nodes.
    """
    graph: dict[str, list[str]] = {}
    for entry in model.get_config()["layers"]:
        found: list[str] = []
        _collect_histories(entry.get("inbound_nodes", [])[:1], found)
        graph[entry["name"]] = found
    return graph


def _collect_histories(node: Any, found: list[str]) -> None:
    if isinstance(node, dict):
        if "keras_history" in node:
            found.append(node["keras_history"][0])
        for value in node.values():
            _collect_histories(value, found)
    elif isinstance(node, list | tuple):
        for value in node:
            _collect_histories(value, found)


def _upstream(graph: dict[str, list[str]], name: str) -> set[str]:
    """All layers that the output of `name` depends on, itself included."""
    seen: set[str] = set()
    queue = [name]
    while queue:
        current = queue.pop()
        if current not in seen:
            seen.add(current)
            queue.extend(graph[current])
    return seen


def cut_layer(model: keras.Model, unfreeze_from: str) -> str:
    """The freeze boundary: the last layer that everything passes before `unfreeze_from`.

    Below it nothing changes while the layers after it are trained, so its activations may be kept.
    In a chain such as VGG16 it is simply the layer before; in a network with branches it is the
    last bottleneck
    (a dominator of the output in the graph) upstream of the named layer.

    Args:
        model: A functional model with one input and one output.
        unfreeze_from: A layer or block name.

    Returns:
        The layer's name.

    Raises:
        ValueError: No such layer, or there is no such boundary (it is the first layer).
    """
    graph = parents(model)
    first = get_layer(model, unfreeze_from).name
    output = model.output_names[0] if model.output_names[0] in graph else model.layers[-1].name
    upstream = _upstream(graph, first) - {first}
    # Sums may be operations, of which there is no layer that could be named or kept.
    layers = {layer.name for layer in model.layers}
    before = [name for name in graph if name in upstream and name in layers]
    for name in reversed(before):
        if not _reachable_around(graph, output, name):
            return name
    raise ValueError(f"unfreeze_from={unfreeze_from!r} leaves no layer below it to freeze.")


def _reachable_around(graph: dict[str, list[str]], output: str, avoid: str) -> bool:
    """Whether an input still reaches `output` with the layer `avoid` taken out."""
    without = {name: [p for p in ps if p != avoid] for name, ps in graph.items()}
    inputs = {name for name, parents in graph.items() if not parents}
    return bool(inputs & _upstream(without, output)) and output != avoid


def freeze(model: keras.Model, *, until: str) -> int:
    """Freezes every layer that `until` depends on, itself included, and unfreezes the rest.

    A frozen BatchNormalization layer runs in inference mode in Keras 3: its moving statistics
    neither change nor depend on the batch, which is what makes keeping its activations valid.

    Args:
        model: A functional model; compile it (again) afterwards, as after any change of
            `trainable`.
        until: A layer name, `"block4_pool"`.

    Returns:
        The number of frozen weights (single numbers, BatchNormalization statistics included).
    """
    frozen = _upstream(parents(model), get_layer(model, until).name)
    for layer in model.layers:
        layer.trainable = layer.name not in frozen
    return sum(count_weights(layer) for layer in model.layers if layer.name in frozen)


def unfreeze_from(model: keras.Model, name: str) -> str:
    """Makes the named layer or block and everything above its cut trainable; the rest is frozen.

    Returns:
        The name of the last frozen layer, the one whose activations may be kept.
    """
    boundary = cut_layer(model, name)
    freeze(model, until=boundary)
    return boundary


def count_weights(layer: keras.layers.Layer) -> int:
    """Single numbers in a layer's variables, trainable or not."""
    return sum(int(np.prod(weight.shape)) for weight in layer.weights)


def layers_until(model: keras.Model, name: str) -> list[keras.layers.Layer]:
    """The layers that the output of `name` depends on, in topological order."""
    wanted = _upstream(parents(model), name)
    return [layer for layer in model.layers if layer.name in wanted]
