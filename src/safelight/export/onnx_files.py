"""ONNX files as others like them: names, what the classes are called, convolutions in 8 bits."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx

from safelight import __version__
from safelight.datasets import ImageDataset
from safelight.files import atomic_path

INPUT, OUTPUT = "images", "probabilities"
_OPSET = 18


def write(model: keras.Model, path: Path) -> None:
    """Writes a model as an ONNX file, for any batch and size of pictures.

    Its weights go through the conversion as inputs and take their places afterwards: tf2onnx copies
    the graph in each of its passes, and a hundred megabytes of weights would become ten gigabytes.

    Args:
        model: As from `resizing.build_exportable`, on TensorFlow.
        path: A file in a folder that exists.
    """
    import onnxruntime
    import tensorflow as tf
    import tf2onnx

    weights = {f"weight_{i}": each for i, each in enumerate(model.non_trainable_variables)}
    signature = [
        tf.TensorSpec((None, None, None, model.input_shape[-1]), "uint8", name=INPUT),
        *(tf.TensorSpec(each.shape, each.dtype, name=name) for name, each in weights.items()),
    ]

    @tf.function(input_signature=signature)
    def call(images: Any, *values: Any) -> Any:
        return model.stateless_call([], list(values), images, training=False)[0]

    converted, _ = tf2onnx.convert.from_function(call, input_signature=signature, opset=_OPSET)
    for value in list(converted.graph.input):
        if value.name in weights:
            array = keras.ops.convert_to_numpy(weights[value.name])
            tensor = onnx.numpy_helper.from_array(array, value.name)
            converted.graph.initializer.append(tensor)
            converted.graph.input.remove(value)
    # Leaves out what can be computed once, such as kernels in another order of axes.
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(
        converted.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def name_output(path: Path, *, class_names: Sequence[str]) -> None:
    """Gives a model's output its name, and puts the classes beside it as metadata.

    Args:
        path: The model; it is replaced.
        class_names: In the order of the probabilities.
    """
    model = onnx.load(path)
    _rename(model.graph, model.graph.output[0].name, OUTPUT)
    model.producer_name, model.producer_version = "safelight", __version__
    names = json.dumps(list(class_names))
    onnx.helper.set_model_props(model, {"class_names": names})
    with atomic_path(path) as partial:
        onnx.save(model, partial)


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]
    for value in (*graph.output, *graph.value_info):
        value.name = new if value.name == old else value.name


def quantize(
    path: Path, dataset: ImageDataset, *, progress: Callable[[int, int], None] | None = None
) -> None:
    """Computes a model's convolutions in 8 bits, scaled on pictures it has learned from.

    Weights have 7 bits and a scale for each filter: in 8 the sums of products overflow on
    processors without VNNI, and the same file would answer otherwise there. The head, which
    compares distances, stays in float32.

    Args:
        path: The model; it is replaced.
        dataset: The pictures, a hundred or so.
        progress: Called with (done, total).
    """
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._pictures = _read(dataset, progress)

        def get_next(self) -> dict[str, Any] | None:
            pixels = next(self._pictures, None)
            return None if pixels is None else {INPUT: pixels[None]}

    with atomic_path(path) as partial, tempfile.TemporaryDirectory() as work:
        prepared = Path(work) / "prepared.onnx"
        quant_pre_process(path, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared,
            partial,
            Reader(),
            op_types_to_quantize=["Conv"],
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )


def _read(
    dataset: ImageDataset, progress: Callable[[int, int], None] | None
) -> Iterator[np.ndarray]:
    for number in range(len(dataset)):
        yield dataset.read(number)
        if progress is not None:
            progress(number + 1, len(dataset))
