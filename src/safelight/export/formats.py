"""What a classifier can be exported to: a table row each.

| format | file | run by |
|---|---|---|
| `onnx` | `model.onnx` | ONNX Runtime, on nearly everything |
| `onnx-int8` | `model.onnx` | the same; convolutions in 8 bits, a quarter of their size |
| `saved_model` | `saved_model/` | TensorFlow, TensorFlow Serving |
| `litert` | `model.tflite` | LiteRT (TensorFlow Lite), on phones and small machines |
| `openvino` | `model.xml`, `model.bin` | OpenVINO, on Intel's processors |
| `torch` | `model.pt2` | PyTorch, by `torch.export.load` |

Loads no Keras, so that mistakes show soon.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from typing import Literal

Name = Literal["onnx", "onnx-int8", "saved_model", "litert", "openvino", "torch"]
"""Of a format; for the command line."""


@dataclasses.dataclass(frozen=True)
class Format:
    """One row of the table.

    Attributes:
        name: What the user writes.
        file: The model in the exported folder, as programs open it.
        keras_name: What `keras.Model.export` calls it.
        backends: Keras' backends that can write it.
        needs: Packages that write it and run it, as they are imported.
        extra: What to install for these.
        int8: Whether convolutions are computed in 8 bits, scaled on pictures.
    """

    name: str
    file: str
    keras_name: str
    backends: tuple[str, ...]
    needs: tuple[str, ...]
    extra: str
    int8: bool = False

    @property
    def is_onnx(self) -> bool:
        """Whether its file is one of ONNX."""
        return self.keras_name == "onnx"

    @property
    def title(self) -> str:
        """For sentences."""
        return f"format {self.name!r}"

    def missing(self) -> list[str]:
        """The packages that are not installed."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]


_ONNX = Format("onnx", "model.onnx", "onnx", ("tensorflow",), ("tf2onnx", "onnxruntime"), "onnx")
_TF = (("tensorflow",), ("tensorflow",), "tensorflow")
FORMATS: dict[str, Format] = {
    row.name: row
    for row in (
        _ONNX,
        dataclasses.replace(_ONNX, name="onnx-int8", int8=True),
        Format("saved_model", "saved_model", "tf_saved_model", *_TF),
        Format("litert", "model.tflite", "litert", *_TF),
        Format("openvino", "model.xml", "openvino", ("tensorflow",), ("openvino",), "openvino"),
        Format("torch", "model.pt2", "torch", ("torch",), ("torch",), "torch"),
    )
}


def find_format(name: str) -> Format:
    """The row of that name.

    Raises:
        ValueError: There is none; the message lists what there is.
    """
    if name not in FORMATS:
        raise ValueError(f"format {name!r}: expected one of {', '.join(FORMATS)}.")
    return FORMATS[name]


def check_format(name: str, backend: str) -> Format:
    """The row of that name, if it can be written here.

    Args:
        name: Of the format.
        backend: Keras' backend.

    Raises:
        ValueError: An unknown name, packages that are not installed, or another backend.
    """
    row = find_format(name)
    if backend not in row.backends:
        expected = " or ".join(row.backends)
        raise ValueError(
            f"{row.title} is written by Keras on {expected}, and this is {backend}: run it with "
            f"KERAS_BACKEND={row.backends[0]}, the run opens there as well."
        )
    check_installed(row)
    return row


def check_installed(row: Format) -> None:
    """Whether the packages of a format are there; cheap, before Keras loads.

    Raises:
        ValueError: Some are not.
    """
    if missing := row.missing():
        raise ValueError(
            f"{row.title} needs {' and '.join(missing)}: "
            f'`pip install "safelight[{row.extra}]"` brings them.'
        )
