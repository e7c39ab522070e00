"""OpenVINO: by Safelight's engine, and what that does not offer: the THROUGHPUT hint and int8."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino

from safelight.transfer import engines
from trunk.keras_trunk import build_model
from trunk.protocol import Skipped

if TYPE_CHECKING:
    import keras

    from trunk.child import Assignment, Run

_CAPABILITY = {"float32": "FP32", "bfloat16": "BF16", "int8": "INT8"}
_HINT = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}
_CALIBRATION_BATCH = 8


def convert(model: keras.Model) -> openvino.Model:
    """The Keras model as OpenVINO reads it."""
    with tempfile.TemporaryDirectory() as folder:
        model.export(folder, verbose=False)
        return openvino.convert_model(folder)


def quantise(network: openvino.Model, images: np.ndarray) -> openvino.Model:
    """Weights and activations of convolutions in int8, ranges from some training cells."""
    import nncf

    starts = range(0, len(images), _CALIBRATION_BATCH)
    batches = [images[start : start + _CALIBRATION_BATCH] for start in starts]
    return nncf.quantize(network, nncf.Dataset(batches), subset_size=len(batches))


def run_in_streams(compiled: openvino.CompiledModel) -> tuple[Run, int]:
    """A batch dealt to as many requests as the device wants at once, all of them in flight."""
    count = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
    queue = openvino.AsyncInferQueue(compiled, count)
    found: dict[int, list[np.ndarray]] = {}

    def keep(request: Any, share: int) -> None:
        found[share] = [np.array(output.data) for output in request.output_tensors]

    queue.set_callback(keep)

    def run(images: np.ndarray) -> list[np.ndarray]:
        found.clear()
        shares = np.array_split(images, min(count, len(images)))
        for position, share in enumerate(shares):
            queue.start_async([share], position)
        queue.wait_all()
        ordered = [found[position] for position in range(len(shares))]
        return [np.concatenate(column) for column in zip(*ordered, strict=True)]

    return run, count


def build(assignment: Assignment) -> tuple[Run, dict[str, object]]:
    """The function that is timed, and what a reader must know of it.

    Raises:
        Skipped: The device does not compute in this precision.
    """
    variant, core = assignment.variant, openvino.Core()
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if _CAPABILITY[variant.precision] not in able:
        kinds = ", ".join(able)
        raise Skipped(f"on this processor it knows {kinds} only")
    size = assignment.protocol.image_size
    policy = "bfloat16" if variant.precision == "bfloat16" else "float32"
    model, streams = build_model(size, policy), bool(variant.options.get("streams"))
    settings: dict[str, object] = {"capabilities": list(able)}
    if variant.precision != "int8" and not streams:
        return engines.build_engine("openvino", model, precision=variant.precision), settings
    network = convert(model)
    if variant.precision == "int8":
        network = quantise(network, assignment.calibration)
        settings["calibration_images"] = len(assignment.calibration)
    hints = {"INFERENCE_PRECISION_HINT": _HINT[variant.precision]}
    if streams:
        compiled = core.compile_model(network, "CPU", {**hints, "PERFORMANCE_HINT": "THROUGHPUT"})
        run, count = run_in_streams(compiled)
        return run, {**settings, "requests": count}
    compiled = core.compile_model(network, "CPU", hints)

    def run_one(images: np.ndarray) -> list[np.ndarray]:
        outputs = compiled(images)
        return [np.array(outputs[place]) for place in range(len(compiled.outputs))]

    return run_one, settings
