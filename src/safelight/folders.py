"""Find and check the pictures in a folder: which class and part each belongs to, which are bad."""

import hashlib
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from safelight.duplicates import hash_picture
from safelight.files import StrPath
from safelight.images import ImageError, decode_image, open_image

_LOGGER = logging.getLogger(__name__)

_PART_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
_PICTURES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}

# Files that live beside pictures without being meant as one. Everything else is looked into,
# whatever its name, so that a picture in an unknown format is named and not silently missing.
_DATA = {".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".ini", ".db", ".log"}
_COMPANIONS = _DATA | {".md", ".rst", ".html"}
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
    """A file of a folder, and what one look into it gave.

    Attributes:
        path: The file.
        file: Its name relative to the folder, with forward slashes, fit for printing.
        class_name: The class folder that it lies in; empty where classes are not wanted.
        part: "train", "validation", "test", or empty.
        digest: SHA-256 (hex) of the file's bytes; empty until it is looked into.
        hash: Its perceptual hash; None if it is too flat to have one.
    """

    path: Path
    file: str
    class_name: str
    part: str
    digest: str = ""
    hash: int | None = None


@dataclass(frozen=True)
class Scan:
    """The sound pictures of a folder, and what was left out.

    Attributes:
        pictures: The pictures that decode, in the order of their names.
        class_names: The classes, sorted; empty where classes are not wanted.
        problems: The files that were left out.
    """

    pictures: tuple[Picture, ...]
    class_names: tuple[str, ...]
    problems: tuple[Problem, ...]


def scan_folder(
    root: Path, *, classes: bool, strict: bool, min_images: int, num_threads: int
) -> Scan:
    """Find the pictures in a folder, and open each once to hash it and to see that it decodes.

    Use it before training, so that a bad file shows now and not hours later. No pixels are kept.
    Hidden files and folders, and usual companions of pictures (.txt, .csv, .json and the like),
    are passed over.

    Args:
        root: A folder of class folders, or of parts (train, validation, test) with class folders.
        classes: Whether sub-folders are classes; otherwise pictures may lie anywhere.
        strict: Whether to stop at bad files instead of leaving them out.
        min_images: The fewest readable pictures that make a class.
        num_threads: How many files to look into at once.

    Returns:
        What was found.

    Raises:
        ValueError: If the folder is missing or laid out in no known way, if a class is too small,
            or, with `strict`, if a file is bad.
    """
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise ValueError(f"{root} {what}; expected a folder of pictures.")
    try:
        found, class_names = _find_classes(root) if classes else (_find_flat(root), ())
    except OSError as error:
        raise ValueError(f"{error.filename} cannot be read ({error.strerror}).") from None
    with ThreadPoolExecutor(num_threads) as threads:
        results = list(threads.map(_look, found))
    pictures = tuple(result for result in results if isinstance(result, Picture))
    problems = tuple(result for result in results if isinstance(result, Problem))
    if problems and strict:
        raise ValueError(_bad_files(root, problems))
    for problem in problems:
        _LOGGER.warning("Left out: %s", problem)
    _check_classes(root, pictures, class_names if classes else None, min_images, problems)
    return Scan(pictures, class_names, problems)


def _find_classes(root: Path) -> tuple[list[Picture], tuple[str, ...]]:
    folders = _folders(root)
    _refuse_loose_pictures(root, folders)
    if not folders:
        raise ValueError(f"{root} is empty; expected a sub-folder of pictures for each class.")
    parts = _parts(root, folders)
    if not parts:
        return _of_classes(root, folders, ""), tuple(map(_class_name, folders))
    pictures: list[Picture] = []
    names: set[str] = set()
    for folder in folders:
        inner = _folders(folder)
        _refuse_loose_pictures(folder, inner)
        pictures += _of_classes(root, inner, parts[folder.name])
        names |= set(map(_class_name, inner))
    return sorted(pictures, key=lambda picture: picture.file), tuple(sorted(names))


def _find_flat(root: Path) -> list[Picture]:
    parts = _parts(root, _folders(root))
    relative = ((path, path.relative_to(root)) for path in walk(root))
    return [Picture(p, _printable(r), "", parts.get(r.parts[0], "")) for p, r in relative]


def _look(picture: Picture) -> Picture | Problem:
    try:
        with open_image(picture.path, file=picture.file) as stream:
            # Decoded first: a film of gigabytes is refused by its first bytes and never hashed.
            image = decode_image(stream, file=picture.file, mode="L")
            stream.seek(0)
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except ImageError as error:
        return Problem(picture.file, error.reason)
    except OSError as error:
        return Problem(picture.file, f"cannot be read ({error.strerror or error})")
    height, width = image.shape[:2]
    if min(height, width) < _MIN_SIDE:
        return Problem(picture.file, f"{width}x{height} pixels: too small")
    return replace(picture, digest=digest, hash=hash_picture(image))


def _visible(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"


def _folders(root: Path) -> list[Path]:
    inside = (path for path in root.iterdir() if _visible(path.name) and path.is_dir())
    return sorted(inside, key=lambda path: path.name)


def _parts(root: Path, folders: list[Path]) -> dict[str, str]:
    """Map folder names to parts, if all folders are named like parts; otherwise map nothing."""
    parts = {each.name: _PART_NAMES.get(each.name.lower(), "") for each in folders}
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
        if _visible(path.name) and path.suffix.lower() in _PICTURES and path.is_file()
    ]
    if loose:
        where = "beside its class folders" if inner else "but no class folders"
        raise ValueError(
            f"{folder} holds {len(loose)} pictures ({min(loose)}, ...) {where}; move every picture "
            "into a sub-folder named after its class."
        )


def _of_classes(root: Path, folders: list[Path], part: str) -> list[Picture]:
    return [
        Picture(path, _printable(path.relative_to(root)), _class_name(folder), part)
        for folder in folders
        for path in walk(folder)
    ]


def walk(folder: Path, *, without: StrPath | None = None) -> Iterator[Path]:
    """Find what may be a picture below a folder, whatever its suffix.

    Use it to name pictures without opening them. Links are followed, but never in a circle; hidden
    files and usual companions of pictures (.txt, .csv, .json and the like) are passed over.

    Args:
        folder: Where to look.
        without: A folder in it that is passed over, too.

    Yields:
        The files, in the order of their whole names; of all these names only those of the folders
        on the way are in memory.

    Raises:
        OSError: If a folder cannot be read.
    """
    seen: set[str] = set() if without is None else {os.path.realpath(without)}
    stack = [iter([f"{folder}/"])]
    while stack:
        name = next(stack[-1], None)
        if name is None:
            stack.pop()
        elif not name.endswith("/"):
            yield Path(name)
        elif (real := os.path.realpath(name)) not in seen:
            seen.add(real)
            stack.append(iter(_list(name)))


def _list(place: str) -> list[str]:
    """What is to be looked at in a folder: folders, with a slash behind them, and files.

    With that slash the order of names is that of the whole names of what is below them.
    """
    with os.scandir(place) as entries:
        seen = [(entry.name, _is_folder(entry)) for entry in entries if _visible(entry.name)]
    names = (
        f"{place}{name}{'/' if is_folder else ''}"
        for name, is_folder in seen
        if is_folder or Path(name).suffix.lower() not in _COMPANIONS
    )
    return sorted(names)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _class_name(folder: Path) -> str:
    return _printable(Path(folder.name))


def _printable(path: Path) -> str:
    # Names that are not valid UTF-8 reach Python as lone surrogates, which no file can store.
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def _check_classes(
    root: Path,
    pictures: tuple[Picture, ...],
    class_names: tuple[str, ...] | None,
    min_images: int,
    problems: tuple[Problem, ...],
) -> None:
    were = "file was" if len(problems) == 1 else "files were"
    left_out = f" ({len(problems)} {were} left out, such as {problems[0]})" if problems else ""
    if not pictures:
        raise ValueError(f"{root} holds no readable picture{left_out}.")
    if class_names is None:
        return
    if len(class_names) < 2:
        raise ValueError(
            f"{root} holds a single class ({class_names[0]}); expected a sub-folder for each of at "
            "least two classes."
        )
    for name in class_names:
        own = [picture for picture in pictures if picture.class_name == name]
        if len(own) < min_images:
            raise ValueError(
                f"Class '{name}' in {root} has {len(own)} readable picture{'s' * (len(own) != 1)} "
                f"and needs at least {min_images}{left_out}; add pictures, or take the class out."
            )
        if any(picture.part for picture in own) and "train" not in {p.part for p in own}:
            raise ValueError(f"Class '{name}' in {root} has no picture in the train folder.")


def _bad_files(root: Path, problems: tuple[Problem, ...]) -> str:
    shown = "; ".join(str(problem) for problem in problems[:10])
    more = f"; and {len(problems) - 10} more" if len(problems) > 10 else ""
    return f"{root} holds {len(problems)} bad file{'s' * (len(problems) != 1)}: {shown}{more}."
