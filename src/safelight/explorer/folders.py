"""Exported pages: which folders may be made or replaced. Loads no Keras, as `bundles`."""

from __future__ import annotations

from collections.abc import Callable
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


def fill_target(folder: StrPath, fill: Callable[[Path], None], *, overwrite: bool = False) -> None:
    """Writes an export as a whole, in place of an earlier one.

    Args:
        folder: As `check_target` has passed it.
        fill: Writes all that belongs into the folder that it is given.
        overwrite: As for `export_web`.

    Raises:
        ValueError: See `bundles.with_folder`.
    """
    bundles.with_folder(folder, fill, mark=MARK, names=_NAMES, overwrite=overwrite)


def check_export(folder: Path) -> None:
    """Whether a folder is what `export_web` makes.

    Raises:
        ValueError: It is not.
    """
    if not (folder / MARK).is_file():
        raise ValueError(
            f"{folder}: is no exported page; `safelight export RUN --web {folder}` makes one."
        )
