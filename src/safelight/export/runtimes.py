"""Exported models, opened by what will run them: each a function from pictures to probabilities."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from safelight.export.formats import find_format
from safelight.telemetry import import_openvino

Runtime = Callable[[np.ndarray], np.ndarray]


def open_exported(folder: str | Path, name: str) -> Runtime:
    """A model as its own runtime sees it, without Keras.

    Args:
        folder: As written by `export_classifier`.
        name: Of the format, a row of `formats.FORMATS`.

    Returns:
        A function from `(batch, height, width, channels)` uint8 to `(batch, num_classes)`.
    """
    return _OPENERS[name](Path(folder) / find_format(name).file)


def _open_onnx(path: Path) -> Runtime:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: np.asarray(session.run(None, {name: images})[0])


def _open_saved_model(path: Path) -> Runtime:
    import tensorflow as tf

    # The object must outlive its function, which does not hold it.
    loaded = tf.saved_model.load(str(path))
    return functools.partial(_serve, loaded)


def _serve(loaded: object, images: np.ndarray) -> np.ndarray:
    return np.asarray(loaded.serve(images))  # type: ignore[attr-defined]


def _open_litert(path: Path) -> Runtime:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        from tensorflow.lite.python.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    entrance = interpreter.get_input_details()[0]["index"]
    exit_ = interpreter.get_output_details()[0]["index"]

    def run(images: np.ndarray) -> np.ndarray:
        interpreter.resize_tensor_input(entrance, images.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(entrance, images)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(exit_))

    return run


def _open_openvino(path: Path) -> Runtime:
    openvino = import_openvino()
    # It would compute in bfloat16 where the processor can, unless it is told not to.
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: np.asarray(compiled(images)[0])


def _open_torch(path: Path) -> Runtime:
    import torch

    module = torch.export.load(str(path)).module()

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(np.ascontiguousarray(images))).numpy()

    return run


_OPENERS: dict[str, Callable[[Path], Runtime]] = {
    "onnx": _open_onnx,
    "onnx-int8": _open_onnx,
    "saved_model": _open_saved_model,
    "litert": _open_litert,
    "openvino": _open_openvino,
    "torch": _open_torch,
}
