"""Folders that are written as a whole: which may be made or replaced, and how they come to be.

Loads no Keras, so that mistakes show soon.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

from safelight.files import StrPath


def check_folder(
    folder: StrPath, *, mark: str, names: Collection[str], overwrite: bool = False
) -> None:
    """Whether an export may be written there, before anything is computed.

    Args:
        folder: The folder to make.
        mark: The file by which an export of this kind is known.
        names: All that such an export holds.
        overwrite: Whether an earlier export there may be replaced.

    Raises:
        ValueError: It is a file, holds something that no such export wrote, or an export that is
            not to be replaced.
    """
    folder = Path(folder).resolve()  # where links lead to is what is replaced
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file; pass the name of a folder.")
    if not folder.parent.is_dir():
        raise ValueError(
            f"{folder}: there is no folder {folder.parent}; make it first, or choose another."
        )
    if folder.is_mount() or not os.access(folder.parent, os.W_OK):
        raise ValueError(
            f"{folder}: cannot be made or replaced as a whole; choose a folder that can, below a "
            "folder that may be written."
        )
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    foreign = there - {mark, *names}
    if there and (mark not in there or foreign):
        first = sorted(foreign or there)[0]
        raise ValueError(f"{folder}: holds {first}, which no export wrote; choose another folder.")
    if there and not overwrite:
        raise ValueError(
            f"{folder}: holds an export; replace it with --overwrite (overwrite=True), or choose "
            "another folder."
        )


def with_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Fills a folder under a temporary name beside it, and then puts it in the other's place."""
    folder = folder.resolve()
    parent = folder.parent
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=parent))
    try:
        new, old = work / "new", work / "old"
        new.mkdir()
        fill(new)
        try:
            if folder.exists():
                os.replace(folder, old)
            os.replace(new, folder)
        except BaseException:
            if old.exists() and not folder.exists():
                os.replace(old, folder)
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
