"""Files that somebody else may have made: regular, of bounded size, and no code.

Whoever reads a run folder, a cache or an archive of arrays reads it through this, so that what a
stranger sends is data or one sentence (docs/security.md).
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

MAX_TEXT, MAX_JSON = 256 * 2**20, 64 * 2**20
"""Bytes that are read as a whole: of a million pictures a table takes 180 MB, names take 25 MB."""
MAX_DEPTH = 100
"""Levels of a JSON text; ours have six."""
MAX_DIGITS = 30
"""Of a whole number in a JSON text: as a float it is then finite."""
EXPANSION, SPARE = 8, 64 * 2**20
"""Arrays may unfold to so many times the size of their file, and so many bytes besides."""

_END_OF_UNICODE = 0x110000
_MAX_EMPTY = 1_000_000  # rows without a byte
_MAX_HEADER = 10_000  # bytes in front of an array that say what it is
_NUMBERS = re.compile(r"[<>|=]?(?:b1|[iu][1248]|f[248]|f16|U[1-9]\d{0,8})")
_HEADER = re.compile(
    r"\{'descr': '([^']*)', 'fortran_order': (True|False), 'shape': \(([0-9, ]*)\), \}\s*"
)


def open_file(path: Path, *, inside: Path | None = None) -> BinaryIO:
    """Opens a regular file for reading.

    Args:
        path: The file.
        inside: A folder that it may not lead out of by a link: what is read there may be shown to
            others, and a stranger's link could name any file of this machine.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is a folder, a pipe, a device, or leads outside.
        OSError: It may not be read.
    """
    # Asked before opening, because opening a named pipe would wait for ever.
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise ValueError(f"it is {what}")
    if inside is not None and not is_inside(path, inside):
        raise ValueError("it is a link that leads out of its folder; put the file itself there")
    return path.open("rb")


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a path, its links followed, lies in a folder (which may itself be a link)."""
    return path.resolve().is_relative_to(folder.resolve())


def read_bytes(path: Path, *, limit: int = MAX_TEXT, inside: Path | None = None) -> bytes:
    """The bytes of a regular file, at most `limit` of them; arguments and errors as `open_file`.

    Raises:
        ValueError: Also if it is larger.
    """
    with open_file(path, inside=inside) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"it has more than {limit:,} bytes")
    return content


def read_json(path: Path, *, limit: int = MAX_JSON, inside: Path | None = None) -> Any:
    """What a file of strict JSON holds; arguments and errors as `read_bytes` and `parse_json`."""
    return parse_json(read_bytes(path, limit=limit, inside=inside))


def parse_json(text: str | bytes, *, finite: bool = True) -> Any:
    """Strict JSON whose numbers are finite, in at most `MAX_DEPTH` levels.

    Args:
        text: In UTF-8.
        finite: Whether NaN and infinity are refused, which are no JSON.

    Raises:
        ValueError: It is something else.
    """
    try:
        value = json.loads(
            text.decode("utf-8") if isinstance(text, bytes) else text,
            parse_constant=_refuse_constant if finite else None,
            parse_int=_parse_int,
            parse_float=_parse_float if finite else None,
        )
    except RecursionError:
        raise ValueError(f"it has more than {MAX_DEPTH} levels") from None
    if _is_deep(value):
        raise ValueError(f"it has more than {MAX_DEPTH} levels")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _parse_int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"it holds a number of {len(text):,} digits")
    return int(text)


def _parse_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:MAX_DIGITS]} is beyond all numbers")
    return number


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [item for item in level if isinstance(item, dict | list)]
        if not level:
            return False
        level = [x for item in level for x in (item.values() if isinstance(item, dict) else item)]
    return True


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an `.npz` file of numbers and texts, by their names; no object is ever made.

    Use it in place of `numpy.load`, which allocates whatever a header claims and raises almost
    anything on what is damaged.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is something else, damaged, or unfolds to far more than it weighs.
        OSError: It may not be read.
    """
    with open_file(path) as file:
        return unpack_arrays(file)


def unpack_arrays(file: BinaryIO) -> dict[str, NDArray[Any]]:
    """As `read_arrays`, from an open, seekable file."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            _check_members(members, file.seek(0, os.SEEK_END))
            return {each.filename[: -len(".npy")]: _unpack(archive, each) for each in members}
    except (ValueError, OSError):
        raise
    except Exception as error:  # zipfile and zlib raise almost anything on damaged archives
        raise ValueError(one_line(f"{type(error).__name__}: {error}")) from error


def map_array(path: Path) -> NDArray[Any]:
    """The array of an `.npy` file, mapped, not to be written, its header held against its size.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is something else, or damaged.
        OSError: It may not be read.
    """
    with open_file(path) as file:
        shape, dtype, in_columns, header = _read_header(file.read(8), file)
        size, claimed = file.seek(0, os.SEEK_END) - header, math.prod(shape) * dtype.itemsize
    if size != claimed:
        raise ValueError(f"it claims {claimed:,} bytes and has {size:,}")
    if not size:  # nothing can be mapped
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, "r", header, shape, _order(in_columns))


def _check_members(members: list[zipfile.ZipInfo], size: int) -> None:
    names = [each.filename for each in members]
    if len(set(names)) < len(names) or not all(name.endswith(".npy") for name in names):
        raise ValueError("it is no archive of arrays, each with a name of its own")
    known = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    if any(each.compress_type not in known for each in members):
        raise ValueError("it is compressed in a way that NumPy does not use")
    total = sum(each.file_size for each in members)
    if total > EXPANSION * size + SPARE:
        raise ValueError(f"{size:,} bytes claim to unfold to {total:,}")


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(member) as stream:
        shape, dtype, in_columns, header = _read_header(stream.read(8), stream)
        num_bytes = math.prod(shape) * dtype.itemsize
        if num_bytes != member.file_size - header:
            raise ValueError(
                f"{member.filename!r} claims {num_bytes:,} bytes and has "
                f"{member.file_size - header:,}"
            )
        buffer = bytearray(stream.read(num_bytes))
    if (
        dtype.kind == "U"
        and (np.frombuffer(buffer, f"{dtype.byteorder}u4") >= _END_OF_UNICODE).any()
    ):
        raise ValueError(f"{member.filename!r} holds texts that are none")
    return np.ndarray(shape, dtype, buffer=buffer, order=_order(in_columns))


def _order(in_columns: bool) -> Literal["C", "F"]:
    return "F" if in_columns else "C"


def _read_header(magic: bytes, stream: Any) -> tuple[tuple[int, ...], np.dtype, bool, int]:
    """Shape, dtype, whether columns come first, and the bytes before the numbers.

    The format is NumPy's, version 1 or 2: https://numpy.org/neps/nep-0001-npy-format.html.
    """
    width = {b"\x93NUMPY\x01\x00": 2, b"\x93NUMPY\x02\x00": 4}.get(magic)
    length = int.from_bytes(stream.read(width or 0), "little")
    if width is None or length > _MAX_HEADER:
        raise ValueError("what it holds are no arrays of NumPy's")
    found = _HEADER.fullmatch(stream.read(length).decode("latin-1"))
    if found is None or not _NUMBERS.fullmatch(found[1]):
        raise ValueError("an array is damaged, or of something else than numbers and texts")
    shape = tuple(int(side) for side in found[3].split(",") if side.strip())
    # No bytes at all may stand for any number of rows.
    if max(shape, default=0) > (_MAX_EMPTY if 0 in shape else 2**62):
        raise ValueError(f"an array claims the shape {one_line(shape, 60)}")
    return shape, np.dtype(found[1]), found[2] == "True", 8 + width + length


def take(
    arrays: Mapping[str, NDArray[Any]],
    name: str,
    *,
    kinds: str,
    shape: tuple[int | None, ...],
    finite: bool = True,
) -> NDArray[Any]:
    """An array of a file, if it is what it should be.

    Args:
        arrays: As from `read_arrays`.
        name: Its name.
        kinds: Letters of NumPy's `dtype.kind` that it may have, such as "f" or "iu"; or of its
            `char`, where one kind of float is meant: "e" or "d" for 16 or 64 bits.
        shape: Its sides, `None` for any.
        finite: Whether NaN and infinity are refused.

    Raises:
        ValueError: It is missing, or something else.
    """
    found = arrays.get(name)
    if found is None:
        raise ValueError(f"it holds no {name!r}")
    fits = len(shape) == found.ndim and all(
        wanted is None or wanted == side for wanted, side in zip(shape, found.shape, strict=True)
    )
    if not fits or not {found.dtype.kind, found.dtype.char} & set(kinds):
        raise ValueError(
            f"{one_line(repr(name), 80)} is {found.dtype} of shape {found.shape}: expected {shape}"
        )
    if finite and found.dtype.kind == "f" and not np.isfinite(found).all():
        raise ValueError(f"{one_line(repr(name), 80)} holds what is no number")
    return found


def printable(text: object) -> str:
    """A text on one line: what cannot be printed, or turns text around, is spelt out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def one_line(text: object, limit: int = 200) -> str:
    """A text of somebody else's within a sentence: its first line, spelt out where need be."""
    lines = str(text).strip().splitlines() or [""]
    plain = printable(lines[0])
    return plain if len(plain) <= limit else f"{plain[: limit - 1]}…"
