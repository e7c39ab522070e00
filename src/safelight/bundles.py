"""Folders that are written as a whole: which may be made or replaced, and how they come to be.

Loads no Keras, so that mistakes show soon.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

from safelight.files import StrPath
from safelight.locks import hold


def check_folder(
    folder: StrPath, *, mark: str, names: Collection[str], overwrite: bool = False
) -> None:
    """Whether an export may be written there, before anything is computed.

    What a killed export left beside it is cleared away; an older one that it had just moved aside
    is put back.

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
    _end_killed(folder)
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
        with hold(work):
            (work / "new").mkdir()
            fill(work / "new")
            _put_in_place(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _put_in_place(work: Path, folder: Path) -> None:
    new, old = work / "new", work / "old"
    try:
        if folder.exists():
            os.replace(folder, old)
        os.replace(new, folder)
    except BaseException:
        if old.exists() and not folder.exists():
            os.replace(old, folder)
        raise


def _end_killed(folder: Path) -> None:
    """Clears away what killed processes left of `with_folder`; who is at work holds their own."""
    name = re.compile(rf"\.{re.escape(folder.name)}\.[a-z0-9_]{{8}}\.partial")
    for work in sorted(folder.parent.iterdir()):
        if not name.fullmatch(work.name) or work.is_symlink() or not work.is_dir():
            continue
        try:
            with hold(work):
                if (work / "old").is_dir() and not folder.exists():
                    os.replace(work / "old", folder)
        except (OSError, ValueError):
            continue
        shutil.rmtree(work, ignore_errors=True)
