"""Export: a trained classifier for programs that have neither Keras nor Safelight.

    from safelight import export
    export.export_classifier("runs/cells", "cells_onnx", dataset=dataset, to="onnx")

The folder holds the model, which takes raw pictures of any size and gives calibrated
probabilities, and in `safelight-model.json` what there is to know of it, with how far its answers
lie from the original's.
Names are loaded when they are first used, and Keras with them.
"""

from typing import TYPE_CHECKING

from safelight.lazy import on_demand

if TYPE_CHECKING:
    from safelight.export.classifier import export_classifier as export_classifier
    from safelight.export.parity import Parity as Parity
    from safelight.export.resizing import build_exportable as build_exportable
    from safelight.export.runtimes import open_exported as open_exported

_HOMES = {
    "Parity": "parity",
    "build_exportable": "resizing",
    "export_classifier": "classifier",
    "open_exported": "runtimes",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = on_demand(__name__, _HOMES)
