"""Libraries that would tell their makers of every use, loaded without the part that does."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


def import_openvino() -> Any:
    """OpenVINO, whose `convert_model` reports each conversion unless somebody has opted out.

    It does so through a package of its own, `openvino_telemetry`, and takes a stub where there is
    none (openvino/tools/ovc/telemetry_utils.py); so here there is none.
    """
    loaded: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]
    if "openvino" not in loaded:
        loaded["openvino_telemetry"] = None
    import openvino

    _silence(openvino)
    return openvino


def _silence(openvino: Any) -> None:
    """The same for an OpenVINO that the program had loaded before."""
    tools = getattr(openvino, "tools", None)
    convert = getattr(tools, "ovc", None)
    for name in ("telemetry_utils", "convert_impl"):
        module = getattr(convert, name, None)
        if module is not None and getattr(module, "tm", None) is not None:
            from openvino.tools.ovc import telemetry_stub

            module.tm = telemetry_stub
