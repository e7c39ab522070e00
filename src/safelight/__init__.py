"""Safelight: from a small folder of pictures to a classifier with honest numbers, on a laptop CPU.

The package itself holds no functions, only sub-modules, and each is loaded when first named: ::

    import safelight

    dataset = safelight.datasets.load("elpv")

so that ``import safelight`` costs milliseconds and brings in neither Keras nor matplotlib.
"""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # For editors and type checkers alone, which do not run __getattr__.
    import safelight.assets as assets
    import safelight.datasets as datasets
    import safelight.explorer as explorer
    import safelight.export as export
    import safelight.folds as folds
    import safelight.gan as gan
    import safelight.images as images
    import safelight.metrics as metrics
    import safelight.plots as plots
    import safelight.report as report
    import safelight.runs as runs
    import safelight.scoring as scoring
    import safelight.transfer as transfer
    import safelight.vae as vae

__version__ = "0.1.0"

__all__ = [
    "assets",
    "datasets",
    "explorer",
    "export",
    "folds",
    "gan",
    "images",
    "metrics",
    "plots",
    "report",
    "runs",
    "scoring",
    "transfer",
    "vae",
]


def __getattr__(name: str) -> ModuleType:
    """Load a sub-module when it is first named (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'safelight' has no attribute {name!r}")
    return import_module(f"safelight.{name}")


def __dir__() -> list[str]:
    """List the sub-modules, loaded or not, so that completion finds them."""
    return sorted([*__all__, "__version__"])
