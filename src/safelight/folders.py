"""Find and check the pictures in a folder: which class and part each belongs to, which are bad."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from safelight.duplicates import MIN_CONTRAST, contrast
from safelight.images import ImageError, decode_image, open_image, perceptual_hash

PART_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
PICTURE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .bmp .dib .tif .tiff .gif".split()
)

# Files that live beside pictures without being meant as one. Everything else is looked into,
# whatever its name, so that a picture in an unknown format is named and not silently missing.
_SIDECARS = frozenset(
    ".txt .csv .tsv .json .jsonl .xml .yaml .yml .md .rst .html .ini .db .log .py .pdf".split()
)
_MIN_SIDE = 8


@dataclass(frozen=True)
class Problem:
    """A file that was left out of a data set.

    Attributes:
        file: Its name relative to the data set's folder.
        reason: Why it was left out.
    """

    file: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


@dataclass(frozen=True)
class Picture:
    """A file of a folder, as found.

    Attributes:
        path: The file.
        file: Its name relative to the folder, with forward slashes, fit for printing.
        class_name: The class folder that it lies in; empty where classes are not wanted.
        part: "train", "validation", "test", or empty.
    """

    path: Path
    file: str
    class_name: str
    part: str


@dataclass(frozen=True)
class Check:
    """What one look into a picture file gave.

    Attributes:
        digest: SHA-256 of the file's bytes, hex.
        hash: The perceptual hash; None for a picture too flat to have one.
    """

    digest: str
    hash: int | None


def find_pictures(root: Path, *, classes: bool = True) -> tuple[list[Picture], tuple[str, ...]]:
    """List what may be a picture in a folder of class folders, or of parts with class folders.

    Use it to learn the layout before any file is opened. Hidden files and folders, and files that
    usually go with pictures (.txt, .csv, .json and the like), are not listed.

    Args:
        root: The folder.
        classes: Whether sub-folders are classes; otherwise pictures may lie anywhere.

    Returns:
        The files, sorted by name, and the sorted names of the classes.

    Raises:
        ValueError: If the folder is missing, not a folder, empty, or laid out in no known way.
    """
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise ValueError(f"{root} {what}; expected a folder of pictures.")
    folders = _folders(root)
    parts = _parts(root, folders)
    if not classes:
        return _flat(root, parts), ()
    _refuse_loose_pictures(root, folders)
    if not folders:
        raise ValueError(f"{root} is empty; expected a sub-folder of pictures for each class.")
    if not parts:
        return _of_classes(root, folders, ""), tuple(folder.name for folder in folders)
    pictures: list[Picture] = []
    names: set[str] = set()
    for folder in folders:
        inner = _folders(folder)
        _refuse_loose_pictures(folder, inner)
        pictures += _of_classes(root, inner, parts[folder.name])
        names |= {each.name for each in inner}
    return sorted(pictures, key=lambda picture: picture.file), tuple(sorted(names))


def check_pictures(
    pictures: list[Picture], *, num_threads: int
) -> tuple[list[tuple[Picture, Check]], list[Problem]]:
    """Open every file once to hash it and to see that it decodes.

    Use it before training, so that a bad file shows now and not hours later. No pixels are kept.

    Args:
        pictures: The files.
        num_threads: How many files to look into at once.

    Returns:
        The sound pictures with what was learnt of them, and the files that were left out.
    """
    with ThreadPoolExecutor(num_threads) as threads:
        results = list(threads.map(_check, pictures))
    sound = [(p, r) for p, r in zip(pictures, results, strict=True) if isinstance(r, Check)]
    return sound, [result for result in results if isinstance(result, Problem)]


def _check(picture: Picture) -> Check | Problem:
    try:
        with open_image(picture.path, file=picture.file) as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            stream.seek(0)
            image = decode_image(stream, file=picture.file, mode="L")
    except ImageError as error:
        return Problem(picture.file, error.reason)
    except OSError as error:
        return Problem(picture.file, f"cannot be read ({error.strerror or error})")
    height, width = image.shape[:2]
    if min(height, width) < _MIN_SIDE:
        return Problem(picture.file, f"{width}x{height} pixels: too small")
    flat = contrast(image) < MIN_CONTRAST
    return Check(digest, None if flat else perceptual_hash(image))


def _visible(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"


def _folders(root: Path) -> list[Path]:
    inside = (path for path in root.iterdir() if _visible(path.name) and path.is_dir())
    return sorted(inside, key=lambda path: path.name)


def _parts(root: Path, folders: list[Path]) -> dict[str, str]:
    """Map folder names to parts, if all folders are named like parts; otherwise map nothing."""
    parts = {each.name: PART_NAMES.get(each.name.lower(), "") for each in folders}
    if "train" not in parts.values() or "" in parts.values():
        return {}
    if len(set(parts.values())) < len(parts):
        raise ValueError(
            f"{root} holds the same part twice ({', '.join(parts)}); keep one folder for each of "
            "train, validation and test."
        )
    return parts


def _refuse_loose_pictures(folder: Path, inner: list[Path]) -> None:
    loose = [
        path.name
        for path in folder.iterdir()
        if _visible(path.name) and path.suffix.lower() in PICTURE_SUFFIXES and path.is_file()
    ]
    if loose:
        where = "beside its class folders" if inner else "but no class folders"
        raise ValueError(
            f"{folder} holds {len(loose)} pictures ({min(loose)}, ...) {where}; move every picture "
            "into a sub-folder named after its class."
        )


def _of_classes(root: Path, folders: list[Path], part: str) -> list[Picture]:
    return [
        Picture(path, _printable(path.relative_to(root)), folder.name, part)
        for folder in folders
        for path in _walk(folder)
    ]


def _flat(root: Path, parts: dict[str, str]) -> list[Picture]:
    relative = ((path, path.relative_to(root)) for path in _walk(root))
    return [Picture(p, _printable(r), "", parts.get(r.parts[0], "")) for p, r in relative]


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder in sorted order, following links but never in a circle."""
    found: list[Path] = []
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = filter(_visible, folders)
        paths = (Path(place, name) for name in files if _visible(name))
        found += (path for path in paths if path.suffix.lower() not in _SIDECARS)
    return iter(sorted(found, key=lambda path: path.as_posix()))


def _printable(path: Path) -> str:
    # Names that are not valid UTF-8 reach Python as lone surrogates, which no file can store.
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")
