"""Folders that are written as a whole: which may be made or replaced, and how they come to be.

Loads no Keras, so that mistakes show soon.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from fnmatch import fnmatchcase
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
        names: All that such an export holds, `/` between folders; a `*` stands for any letters.
        overwrite: Whether an earlier export there may be replaced.

    Raises:
        ValueError: It is a file, holds something that no such export wrote, or an export that is
            not to be replaced.
    """
    folder = Path(folder).resolve()  # where links lead to is what is replaced
    _refuse_file(folder)
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
    _refuse_taken(folder, names, mark=mark, overwrite=overwrite)


def _refuse_file(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ValueError(f"{folder}: is a file; pass the name of a folder.")


def _refuse_taken(folder: Path, names: Collection[str], *, mark: str, overwrite: bool) -> None:
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if foreign := _find_foreign(folder, {mark, *names}) if mark in there else there[:1]:
        what = ", ".join(foreign)
        raise ValueError(f"{folder}: holds {what}, which no export wrote; choose another folder.")
    if there and not overwrite:
        raise ValueError(
            f"{folder}: holds an export; replace it with --overwrite (overwrite=True), or choose "
            "another folder."
        )


def _find_foreign(folder: Path, names: Collection[str]) -> list[str]:
    """The first file, link or empty folder below a folder that no name fits, or nothing."""
    paths = (path for path in _contents(folder) if not _is_one_of(path, names))
    return [path.as_posix() for path in itertools.islice(paths, 1)]


def _contents(folder: Path) -> Iterator[Path]:
    """Every file, link and empty folder below a folder, relative to it."""

    def refuse(error: OSError) -> None:  # what cannot be looked into may be somebody's
        raise ValueError(
            f"{error.filename}: cannot be read ({error.strerror}), and may be somebody's; choose "
            "another folder for the export."
        )

    for where, folders, files in os.walk(folder, onerror=refuse):
        here = Path(where)
        links = [name for name in folders if (here / name).is_symlink()]
        for name in (*files, *links):
            yield (here / name).relative_to(folder)
        if here != folder and not files and not folders:
            yield here.relative_to(folder)


def _is_one_of(path: Path, names: Collection[str]) -> bool:
    """Whether a path fits a name, folder by folder."""
    each = [name.split("/") for name in names]
    return any(len(n) == len(path.parts) and all(map(fnmatchcase, path.parts, n)) for n in each)


def with_folder(
    folder: StrPath,
    fill: Callable[[Path], None],
    *,
    mark: str,
    names: Collection[str],
    overwrite: bool = False,
) -> None:
    """Fills a folder under a temporary name beside it, and then puts it in the other's place.

    Args:
        folder: As `check_folder` has passed it.
        fill: Writes all that belongs into the folder that it is given.
        mark: As for `check_folder`, as the next two.
        names: All that such an export holds.
        overwrite: Whether an earlier export there may be replaced.

    Raises:
        ValueError: What `check_folder` would refuse has come there meanwhile: it stays, and the new
            one is kept beside it.
    """
    folder = Path(folder).resolve()
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    try:
        with hold(work):
            (work / "new").mkdir()
            fill(work / "new")
            try:  # once more, as filling may have taken minutes
                _refuse_file(folder)
                _refuse_taken(folder, names, mark=mark, overwrite=overwrite)
            except ValueError as error:
                kept = _put_beside(work, folder)
                raise ValueError(
                    f"{error} It came there while the new export was made, which is {kept} now."
                ) from error
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


def _put_beside(work: Path, folder: Path) -> Path:
    """Gives what was made the first free name like that of the folder."""
    names = (folder.with_name(f"{folder.name}-{number}") for number in itertools.count(2))
    kept = next(path for path in names if not os.path.lexists(path))
    os.replace(work / "new", kept)
    return kept


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
