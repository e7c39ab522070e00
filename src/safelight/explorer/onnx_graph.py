"""A decoder or a generator as an ONNX graph, from latents to the (expected) picture.

Written layer by layer with the `onnx` package, which Safelight needs anyway: a decoder is made of
a few kinds of layers. That way works on every backend of Keras, needs no tracing and no further
package, and gives small graphs that old runtimes read as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import layers

from safelight.vae.networks import PictureBias

if TYPE_CHECKING:
    from onnx import ModelProto

# Old enough for any runtime of the last years; nothing here needs more.
_OPSET, _IR_VERSION = 17, 8


def decoder_graph(decoder: keras.Model, likelihood: str | None = None) -> ModelProto:
    """The decoder and the mean of its likelihood, or a GAN's generator, in float32.

    Use it to decode without Keras: in a browser, on a phone, from another language.

    Args:
        decoder: As from `vae.build_decoder` or `gan.build_generator`: a functional model of dense
            and (transposed) convolutional layers, channels last. Reduced precision is not taken
            over.
        likelihood: Whose mean is the picture, a name in `vae.likelihoods.LIKELIHOODS`; `None`
            where the network gives pictures itself.

    Returns:
        A graph with the inputs `z`, float32 `(num, latent_dim)`, and for a conditional model
        `labels`, one-hot float32 `(num, num_classes)`; and the output `picture`, float32
        `(num, height, width, channels)` in [0, 1].

    Raises:
        ValueError: A layer, an activation or a likelihood that has no translation here.
    """
    if likelihood is not None and likelihood not in _MEANS:
        raise ValueError(
            f"likelihood={likelihood!r} cannot be written as ONNX: expected one of "
            f"{', '.join(_MEANS)}."
        )
    graph = _Graph()
    names = {
        id(tensor): name for tensor, name in zip(decoder.inputs, ("z", "labels"), strict=False)
    }
    for layer in decoder.layers:
        if isinstance(layer, layers.InputLayer):
            continue
        inputs = layer.input if isinstance(layer.input, list | tuple) else [layer.input]
        names[id(layer.output)] = _translate(layer)(
            graph, layer, [names[id(tensor)] for tensor in inputs]
        )
    picture = names[id(decoder.outputs[0])]
    if likelihood is not None:
        picture = _MEANS[likelihood](graph, picture)
    return graph.finish(decoder, picture)


class _Graph:
    """Nodes and weights as they are added; names are numbers, in the order of computation."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node with one output, and gives that output's name."""
        from onnx import helper

        output = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def keep(self, values: Any, dtype: str = "float32") -> str:
        """Adds a weight or another constant, and gives its name."""
        from onnx import numpy_helper

        name = f"weight_{len(self.weights)}"
        array = np.ascontiguousarray(keras.ops.convert_to_numpy(values), dtype)
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def finish(self, decoder: keras.Model, output: str) -> ModelProto:
        """The whole, checked."""
        from onnx import TensorProto, checker, helper

        def value(name: str, shape: Sequence[int | None]) -> Any:
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["num", *shape[1:]])

        self.nodes.append(helper.make_node("Identity", [output], ["picture"]))
        graph = helper.make_graph(
            self.nodes,
            "decoder",
            [
                value(name, tensor.shape)
                for name, tensor in zip(("z", "labels"), decoder.inputs, strict=False)
            ],
            [value("picture", decoder.outputs[0].shape)],
            self.weights,
        )
        opset = helper.make_opsetid("", _OPSET)
        model = helper.make_model(
            graph, opset_imports=[opset], ir_version=_IR_VERSION, producer_name="safelight"
        )
        checker.check_model(model, full_check=True)
        return model


_ACTIVATIONS: dict[str, Callable[[_Graph, str], str]] = {
    "linear": lambda graph, x: x,
    "relu": lambda graph, x: graph.add("Relu", x),
    "sigmoid": lambda graph, x: graph.add("Sigmoid", x),
    "silu": lambda graph, x: graph.add("Mul", x, graph.add("Sigmoid", x)),
    "tanh": lambda graph, x: graph.add("Tanh", x),
}


def _activate(graph: _Graph, layer: Any, x: str) -> str:
    name = layer.activation.__name__
    if name not in _ACTIVATIONS:
        raise ValueError(
            f"layer {layer.name!r} has the activation {name!r}, which cannot be written as ONNX: "
            f"expected one of {', '.join(_ACTIVATIONS)}."
        )
    return _ACTIVATIONS[name](graph, x)


def _dense(graph: _Graph, layer: layers.Dense, inputs: list[str]) -> str:
    x = graph.add("MatMul", *inputs, graph.keep(layer.kernel))
    x = graph.add("Add", x, graph.keep(layer.bias)) if layer.use_bias else x
    return _activate(graph, layer, x)


def _reshape(graph: _Graph, layer: layers.Reshape, inputs: list[str]) -> str:
    return graph.add("Reshape", *inputs, graph.keep([-1, *layer.output.shape[1:]], "int64"))


def _transposed(graph: _Graph, layer: layers.Conv2DTranspose, inputs: list[str]) -> str:
    if not _is_same(layer) or layer.output_padding is not None:
        raise ValueError(
            f"layer {layer.name!r} cannot be written as ONNX: expected padding='same', "
            "data_format='channels_last', no dilation and no output_padding."
        )
    surplus = [max(k - s, 0) for k, s in zip(layer.kernel_size, layer.strides, strict=True)]
    return _convolve(graph, layer, inputs, "ConvTranspose", surplus, strides=list(layer.strides))


def _convolution(graph: _Graph, layer: layers.Conv2D, inputs: list[str]) -> str:
    if not _is_same(layer) or layer.strides != (1, 1) or layer.groups != 1:
        raise ValueError(
            f"layer {layer.name!r} (padding={layer.padding!r}, strides={layer.strides}, "
            f"dilation_rate={layer.dilation_rate}, groups={layer.groups}) cannot be written as "
            "ONNX: expected padding='same', data_format='channels_last', strides of 1, no dilation "
            "and no groups."
        )
    return _convolve(graph, layer, inputs, "Conv", [size - 1 for size in layer.kernel_size])


def _is_same(layer: Any) -> bool:
    plain = layer.dilation_rate == (1, 1) and layer.data_format == "channels_last"
    return plain and layer.padding == "same"


def _convolve(
    graph: _Graph, layer: Any, inputs: list[str], kind: str, surplus: list[int], **options: Any
) -> str:
    """A convolution of either kind; `surplus` is what the edges get or lose, rows and columns."""
    before = [number // 2 for number in surplus]
    after = [number - half for number, half in zip(surplus, before, strict=True)]
    x = graph.add("Transpose", *inputs, perm=[0, 3, 1, 2])
    # Height, width, then in and out; of a transposed one out and in, which ONNX wants there.
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    weights = [graph.keep(kernel.transpose(3, 2, 0, 1))]
    weights += [graph.keep(layer.bias)] if layer.use_bias else []
    x = graph.add(kind, x, *weights, pads=[*before, *after], **options)
    return _activate(graph, layer, graph.add("Transpose", x, perm=[0, 2, 3, 1]))


def _crop(graph: _Graph, layer: layers.Cropping2D, inputs: list[str]) -> str:
    _, height, width, _ = layer.output.shape
    starts = [layer.cropping[0][0], layer.cropping[1][0]]
    ends = [starts[0] + height, starts[1] + width]
    places = [graph.keep(numbers, "int64") for numbers in (starts, ends, [1, 2])]
    return graph.add("Slice", *inputs, *places)


def _concatenate(graph: _Graph, layer: layers.Concatenate, inputs: list[str]) -> str:
    return graph.add("Concat", *inputs, axis=layer.axis)


def _add(graph: _Graph, layer: layers.Add, inputs: list[str]) -> str:
    first, *others = inputs
    for other in others:
        first = graph.add("Add", first, other)
    return first


def _add_bias(graph: _Graph, layer: PictureBias, inputs: list[str]) -> str:
    return graph.add("Add", *inputs, graph.keep(layer.bias))


def _normalize(graph: _Graph, layer: layers.BatchNormalization, inputs: list[str]) -> str:
    """By the running moments, as outside training: a factor and a summand for each channel."""
    if layer.axis not in (-1, len(layer.output.shape) - 1):
        raise ValueError(
            f"layer {layer.name!r} (axis={layer.axis}) cannot be written as ONNX: expected "
            "axis=-1, channels last."
        )
    mean, variance = (
        keras.ops.convert_to_numpy(each).astype("float64")
        for each in (layer.moving_mean, layer.moving_variance)
    )
    factor = 1 / np.sqrt(variance + layer.epsilon)
    if layer.scale:
        factor *= keras.ops.convert_to_numpy(layer.gamma)
    summand = -mean * factor
    if layer.center:
        summand += keras.ops.convert_to_numpy(layer.beta)
    return graph.add("Add", graph.add("Mul", *inputs, graph.keep(factor)), graph.keep(summand))


def _rescale(graph: _Graph, layer: layers.Rescaling, inputs: list[str]) -> str:
    return graph.add(
        "Add", graph.add("Mul", *inputs, graph.keep(layer.scale)), graph.keep(layer.offset)
    )


def _enlarge(graph: _Graph, layer: layers.UpSampling2D, inputs: list[str]) -> str:
    if layer.interpolation != "nearest" or layer.data_format != "channels_last":
        raise ValueError(
            f"layer {layer.name!r} (interpolation={layer.interpolation!r}, "
            f"data_format={layer.data_format!r}) cannot be written as ONNX: expected "
            "interpolation='nearest', data_format='channels_last'."
        )
    factors = graph.keep([1, *layer.size, 1])
    rule = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return graph.add("Resize", *inputs, "", factors, mode="nearest", **rule)


_LAYERS: dict[type, Callable[[_Graph, Any, list[str]], str]] = {
    layers.Dense: _dense,
    layers.Reshape: _reshape,
    layers.Conv2DTranspose: _transposed,
    layers.Conv2D: _convolution,
    layers.Cropping2D: _crop,
    layers.Concatenate: _concatenate,
    layers.Add: _add,
    layers.Activation: lambda graph, layer, inputs: _activate(graph, layer, *inputs),
    layers.BatchNormalization: _normalize,
    layers.Rescaling: _rescale,
    layers.UpSampling2D: _enlarge,
    PictureBias: _add_bias,
}


def _translate(layer: keras.layers.Layer) -> Callable[[_Graph, Any, list[str]], str]:
    if type(layer) not in _LAYERS:
        raise ValueError(
            f"layer {layer.name!r} is a {type(layer).__name__}, which cannot be written as ONNX: "
            f"expected {', '.join(kind.__name__ for kind in _LAYERS)}."
        )
    return _LAYERS[type(layer)]


def _sigmoid(graph: _Graph, location: str) -> str:
    return graph.add("Sigmoid", location)


def _continuous_bernoulli(graph: _Graph, location: str) -> str:
    """1 / (1 - e^-l) - 1 / l, by its series near 0, as in `vae.likelihoods`."""
    one, half, limit = (graph.keep(number) for number in (1.0, 0.5, 0.3))
    size = graph.add("Abs", location)
    near = graph.add("Less", size, limit)
    # The mean of |l|, mirrored for a negative l; beside 0, where it has no quotient, that of 1.
    size = graph.add("Where", near, one, size)
    shrunk = graph.add("Exp", graph.add("Neg", size))
    first = graph.add("Div", one, graph.add("Sub", one, shrunk))
    far = graph.add("Sub", first, graph.add("Div", one, size))
    positive = graph.add("Less", graph.keep(0.0), location)
    far = graph.add("Where", positive, far, graph.add("Sub", one, far))
    square = graph.add("Mul", location, location)
    series = graph.keep(-1 / 30240)
    for factor in (1 / 720, -1 / 12):  # Horner's scheme of 1/12 - s (1/720 - s / 30240)
        series = graph.add("Add", graph.add("Mul", series, square), graph.keep(factor))
    series = graph.add("Sub", half, graph.add("Mul", location, series))
    return graph.add("Where", near, series, far)


_MEANS: dict[str, Callable[[_Graph, str], str]] = {
    "bernoulli": _sigmoid,
    "continuous_bernoulli": _continuous_bernoulli,
    "gaussian": _sigmoid,
    "learned_gaussian": _sigmoid,
    "discretized_logistic": _sigmoid,
}
