"""What computes a frozen trunk: Keras, or a library made for inference that is faster at it.

Nothing is trained below the cut, so nothing there needs gradients, and any library that computes
the same function will do. Which one it was stands in the key of the activations.

| engine | computes | pays |
|---|---|---|
| `keras` | any network, float32 or bfloat16 | everywhere; the default where no other is installed |
| `ncnn` | VGG, float32, by Winograd's algorithm | where the processor has no bfloat16 of its own |
| `openvino` | any network, float32 or bfloat16 | on processors with AMX |
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np

from safelight.environment import describe_keras
from safelight.telemetry import import_openvino
from safelight.transfer import ncnn_engine
from safelight.transfer.config import CHOICES

Run = Callable[[np.ndarray], list[np.ndarray]]


@functools.cache
def _processor_flags() -> frozenset[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    return frozenset(text.split())


def _has_native_bfloat16() -> bool:
    return bool({"amx_bf16", "avx512_bf16"} & _processor_flags())


def choose_precision(precision: str = "auto") -> str:
    """The precision that the trunk computes in.

    `"auto"` is bfloat16 where the processor multiplies it natively (AMX or AVX512-BF16, on which
    it is two to five times faster with the TensorFlow backend) and float32 elsewhere, where it
    would be slower.

    Raises:
        ValueError: Not `"auto"`, `"float32"` or `"bfloat16"`.
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise ValueError(
            f"precision={precision!r} is not known: expected 'auto', 'float32' or 'bfloat16'."
        )
    if precision != "auto":
        return precision
    fast = _has_native_bfloat16() and keras.backend.backend() != "jax"
    return "bfloat16" if fast else "float32"


def choose_engine(engine: str, layers: Sequence[keras.layers.Layer], *, precision: str) -> str:
    """The engine that computes a trunk of these layers.

    `"auto"` takes ncnn for float32 if it is installed and knows the layers, OpenVINO for bfloat16
    if it is installed and the processor has AMX, and Keras else.

    Args:
        engine: One of `config.CHOICES["engine"]`.
        layers: From the resized picture to what is wanted.
        precision: `"float32"` or `"bfloat16"`.

    Raises:
        ValueError: An unknown engine, or one that is not installed or cannot do this.
    """
    if engine not in CHOICES["engine"]:
        known = ", ".join(map(str, CHOICES["engine"]))
        raise ValueError(f"engine={engine!r}: expected one of {known}.")
    if engine == "auto":
        fits_ncnn = precision == "float32" and ncnn_engine.is_installed()
        if fits_ncnn and ncnn_engine.translates(layers):
            return "ncnn"
        pays = "amx_bf16" in _processor_flags() and precision == "bfloat16"
        return "openvino" if pays and _has_openvino() else "keras"
    installed = {"ncnn": ncnn_engine.is_installed, "openvino": _has_openvino}
    if engine in installed and not installed[engine]():
        raise ValueError(
            f"engine={engine!r} is not there: expected its package (`pip install "
            f"'safelight[{engine}]'`; openvino also needs Keras on TensorFlow). engine='keras' "
            "computes the same."
        )
    if engine == "ncnn" and precision != "float32":
        raise ValueError(
            f"engine='ncnn' with precision={precision!r}: expected 'float32', which it is fast in."
        )
    if engine == "ncnn" and not ncnn_engine.translates(layers):
        raise ValueError("engine='ncnn' does not know this network's layers: expected a VGG.")
    return engine


def describe_engine(engine: str) -> str:
    """Its name and version, for the key of what it computes."""
    if engine == "ncnn":
        return ncnn_engine.version()
    if engine == "openvino":
        return f"openvino {importlib.metadata.version('openvino')}"
    return describe_keras()


def build_engine(engine: str, trunk: keras.Model, *, precision: str) -> Run:
    """A function from a batch of pixels, channels last, to the trunk's outputs.

    Args:
        engine: As from `choose_engine`.
        trunk: From resized pixels (or activations) to one or more outputs.
        precision: What OpenVINO computes in; a Keras model and ncnn have their own.
    """
    if engine == "ncnn":
        return ncnn_engine.NcnnTrunk(trunk)
    if engine == "openvino":
        return _build_openvino(trunk, precision)

    def run(inputs: np.ndarray) -> list[np.ndarray]:
        outputs = trunk.predict_on_batch(inputs)
        return outputs if isinstance(outputs, list) else [outputs]

    return run


def build_for_few(engine: str, trunk: keras.Model) -> Run:
    """As `build_engine`, in float32 and for some dozen pictures, at which compiling never pays.

    Args:
        engine: One of `config.CHOICES["engine"]`.
        trunk: As for `build_engine`.

    Raises:
        ValueError: As of `choose_engine`.
    """
    trunk.run_eagerly = True
    chosen = choose_engine(engine, trunk.layers, precision="float32")
    return build_engine(chosen, trunk, precision="float32")


def _has_openvino() -> bool:
    # It reads a TensorFlow graph; of the other backends it would need another road.
    return importlib.util.find_spec("openvino") is not None and (
        keras.backend.backend() == "tensorflow"
    )


def _build_openvino(trunk: keras.Model, precision: str) -> Run:
    openvino = import_openvino()
    with tempfile.TemporaryDirectory() as folder:
        trunk.export(folder, verbose=False)
        network = openvino.convert_model(folder)
    hint = "bf16" if precision == "bfloat16" else "f32"
    settings = {"INFERENCE_PRECISION_HINT": hint}
    if threads := os.environ.get("SAFELIGHT_NUM_THREADS"):
        settings["INFERENCE_NUM_THREADS"] = threads
    compiled = openvino.Core().compile_model(network, "CPU", settings)
    # They come in the order of their names, output_10 before output_2.
    names = [output.get_any_name() for output in compiled.outputs]
    places = sorted(range(len(names)), key=lambda place: int(names[place].rpartition("_")[2]))

    def run(inputs: np.ndarray) -> list[np.ndarray]:
        outputs = compiled(inputs)
        return [np.array(outputs[place]) for place in places]

    return run
