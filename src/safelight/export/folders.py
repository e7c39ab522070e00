"""Exported models: which folders may be made or replaced. Loads no Keras, as `bundles`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from safelight import bundles
from safelight.export.formats import FORMATS
from safelight.files import StrPath

MARK = "safelight-model.json"
SCRIPT, READER = "predict.py", "images.py"
_SAVED_MODEL = ("saved_model.pb", "fingerprint.pb", "assets", "variables/variables.*")
_NAMES = {
    SCRIPT,
    READER,
    "model.bin",
    "__pycache__",
    *(f"__pycache__/{Path(script).stem}.*.pyc*" for script in (SCRIPT, READER)),
    *(f"{FORMATS['saved_model'].file}/{name}" for name in _SAVED_MODEL),
    *(row.file for row in FORMATS.values()),
}


def check_target(folder: StrPath, *, overwrite: bool = False) -> None:
    """Raises what `export_classifier` would raise for a folder, before anything is computed.

    Args:
        folder: As for `export_classifier`.
        overwrite: As for `export_classifier`.

    Raises:
        ValueError: See `bundles.check_folder`.
    """
    bundles.check_folder(folder, mark=MARK, names=_NAMES, overwrite=overwrite)


def fill_target(folder: StrPath, fill: Callable[[Path], None], *, overwrite: bool = False) -> None:
    """Writes an export as a whole, in place of an earlier one.

    Args:
        folder: As `check_target` has passed it.
        fill: Writes all that belongs into the folder that it is given.
        overwrite: As for `export_classifier`.

    Raises:
        ValueError: See `bundles.with_folder`.
    """
    bundles.with_folder(folder, fill, mark=MARK, names=_NAMES, overwrite=overwrite)
