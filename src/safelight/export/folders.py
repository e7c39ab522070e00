"""Exported models: which folders may be made or replaced. Loads no Keras, as `bundles`."""

from __future__ import annotations

import functools
from pathlib import Path

from safelight import bundles
from safelight.export.formats import FORMATS

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


check_target = functools.partial(bundles.check_folder, mark=MARK, names=_NAMES)
"""Raises what `export_classifier` would raise for a folder, before anything is computed."""

fill_target = functools.partial(bundles.with_folder, mark=MARK, names=_NAMES)
"""Writes an export as a whole, in place of an earlier one."""
