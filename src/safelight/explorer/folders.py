"""Exported pages: which folders may be made or replaced. Loads no Keras, as `bundles`."""

from __future__ import annotations

from pathlib import Path

from safelight import bundles
from safelight.files import StrPath

ENTRY = "index.html"
MARK = "safelight-explorer.json"
PAGE = ("index.html", "explorer.css", "explorer.js")
_NAMES = {*PAGE, "data.js", "decoder.onnx", "decoder.js", "runtime.js", "LICENCES.txt",
          "notebook.html"}  # fmt: skip


def check_target(folder: StrPath, *, overwrite: bool = False) -> None:
    """Raises what `export_web` would raise for a folder, before anything is computed.

    Args:
        folder: As for `export_web`.
        overwrite: As for `export_web`.

    Raises:
        ValueError: See `bundles.check_folder`.
    """
    bundles.check_folder(folder, mark=MARK, names=_NAMES, overwrite=overwrite)


def check_export(folder: Path) -> None:
    """Whether a folder is what `export_web` makes.

    Raises:
        ValueError: It is not.
    """
    if not (folder / MARK).is_file():
        raise ValueError(
            f"{folder}: is no exported page; `safelight export RUN --web {folder}` makes one."
        )
