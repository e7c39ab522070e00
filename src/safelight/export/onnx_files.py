"""ONNX files as others like them: names, what the classes are called, convolutions in 8 bits."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from safelight import __version__
from safelight.datasets import ImageDataset
from safelight.files import atomic_path

INPUT, OUTPUT = "images", "probabilities"
NUM_SCALED_ON = 100


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
        dataset: The pictures; of many, some are taken.
        progress: Called with (done, total).
    """
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    chosen = np.linspace(0, len(dataset) - 1, min(NUM_SCALED_ON, len(dataset))).astype(int)

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._pictures = _read(dataset, chosen, progress)

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
    dataset: ImageDataset, chosen: np.ndarray, progress: Callable[[int, int], None] | None
) -> Iterator[np.ndarray]:
    for done, number in enumerate(chosen):
        yield dataset.read(int(number))
        if progress is not None:
            progress(done + 1, len(chosen))
