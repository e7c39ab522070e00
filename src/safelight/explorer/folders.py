"""Exported folders: which may be made or replaced, and how they come to be whole.

Loads no Keras, so that mistakes show soon.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from safelight.files import StrPath

ENTRY = "index.html"
MARK = "safelight-explorer.json"
PAGE = ("index.html", "explorer.css", "explorer.js")
_NAMES = {*PAGE, MARK, "data.js", "decoder.onnx", "decoder.js", "runtime.js", "LICENCES.txt",
          "notebook.html"}  # fmt: skip


def check_target(folder: StrPath, *, overwrite: bool = False) -> None:
    """Raises what `export_web` would raise for a folder, before anything is computed.

    Args:
        folder: As for `export_web`.
        overwrite: As for `export_web`.

    Raises:
        ValueError: It is a file, holds something that no export wrote, or an export that is not to
            be replaced.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file; pass the name of a folder.")
    if not folder.parent.is_dir():
        raise ValueError(
            f"{folder}: there is no folder {folder.parent}; make it first, or choose another."
        )
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if names and (MARK not in names or names - _NAMES):
        foreign = sorted(names - _NAMES) or sorted(names)
        raise ValueError(
            f"{folder}: holds {foreign[0]}, which no export wrote; choose another folder."
        )
    if names and not overwrite:
        raise ValueError(
            f"{folder}: holds an export; replace it with --overwrite (overwrite=True), or choose "
            "another folder."
        )


def check_export(folder: Path) -> None:
    """Whether a folder is what `export_web` makes.

    Raises:
        ValueError: It is not.
    """
    if not (folder / MARK).is_file():
        raise ValueError(
            f"{folder}: is no exported page; `safelight export RUN --web {folder}` makes one."
        )


def with_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Fills a folder under a temporary name beside it, and then puts it in the other's place."""
    parent = folder.absolute().parent
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=parent))
    try:
        new, old = work / "new", work / "old"
        new.mkdir()
        fill(new)
        if folder.exists():
            os.replace(folder, old)
        os.replace(new, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
