"""Report: what a run folder holds becomes one page to look at, and a model card beside it.

    from safelight import report
    report.write_report(["runs/cells"])           # runs/cells/report.html
    report.write_model_card("runs/cells")         # runs/cells/README.md

A report reads the files of a run and nothing else: no model is loaded, and Keras is not needed.
Names are loaded when they are first used.
"""

from typing import TYPE_CHECKING

from safelight.lazy import on_demand

if TYPE_CHECKING:
    from safelight.report.model_card import write_model_card as write_model_card
    from safelight.report.page import write_report as write_report

_HOMES = {"write_model_card": "model_card", "write_report": "page"}
__all__ = list(_HOMES)
__getattr__, __dir__ = on_demand(__name__, _HOMES)
