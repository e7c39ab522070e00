"""Exported pages: which folders may be made or replaced. Loads no Keras, as `bundles`."""

from __future__ import annotations

import functools
from pathlib import Path

from safelight import bundles

ENTRY = "index.html"
MARK = "safelight-explorer.json"
PAGE = ("index.html", "explorer.css", "explorer.js")
_NAMES = {*PAGE, "data.js", "decoder.onnx", "decoder.js", "runtime.js", "LICENCES.txt",
          "notebook.html"}  # fmt: skip


check_target = functools.partial(bundles.check_folder, mark=MARK, names=_NAMES)
"""Raises what `export_web` would raise for a folder, before anything is computed."""

fill_target = functools.partial(bundles.with_folder, mark=MARK, names=_NAMES)
"""Writes an export as a whole, in place of an earlier one."""


def check_export(folder: Path) -> None:
    """Whether a folder is what `export_web` makes.

    Raises:
        ValueError: It is not.
    """
    if not (folder / MARK).is_file():
        raise ValueError(
            f"{folder}: is no exported page; `safelight export RUN --web {folder}` makes one."
        )
