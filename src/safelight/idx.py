"""MNIST and what comes in files like its own (IDX): two pairs of pictures and labels."""

import gzip
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CLASS_NAMES: Mapping[str, tuple[str, ...]] = {
    "mnist": tuple(str(digit) for digit in range(10)),
    # As its authors call them, https://github.com/zalandoresearch/fashion-mnist
    "fashion-mnist": (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
        "Ankle boot",
    ),
}  # fmt: skip
"""The classes of each such data set, in the order of their numbers."""
_FILES = {"train": ("train",), "test": ("t10k",), "all": ("train", "t10k")}


def check_part(part: str) -> None:
    """Raises what `read_part` would raise for a name, before anything is fetched.

    Raises:
        ValueError: It is none of "train", "test" and "all".
    """
    if part not in _FILES:
        raise ValueError(f"part must be 'train', 'test' or 'all', got {part!r}.")


def read_part(
    folder: Path, part: str
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], tuple[str, ...]]:
    """Reads pictures and labels.

    Args:
        folder: It holds the four files under their usual names, gzipped or not.
        part: "train", "test" or "all".

    Returns:
        Pixels, (n, height, width), labels, (n,), and "train" or "test" for each picture.

    Raises:
        ValueError: Another part, or a file that is damaged.
    """
    check_part(part)
    images = [_read_idx(folder / f"{each}-images-idx3-ubyte", 3) for each in _FILES[part]]
    labels = [_read_idx(folder / f"{each}-labels-idx1-ubyte", 1) for each in _FILES[part]]
    names = ["train" if each == "train" else "test" for each in _FILES[part]]
    parts = np.repeat(names, [len(some) for some in labels]).tolist()
    return np.concatenate(images), np.concatenate(labels), tuple(parts)


def _read_idx(path: Path, num_axes: int) -> NDArray[np.uint8]:
    """Reads a file: two zeros, type 8 (uint8), number of axes, sizes as big-endian uint32."""
    packed = path.with_name(f"{path.name}.gz")
    try:
        data = gzip.decompress(packed.read_bytes()) if packed.exists() else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{packed.name} is no whole gzip file; fetch it anew.") from error
    shape = np.frombuffer(data[4 : 4 + 4 * num_axes], dtype=">u4").astype(int)
    header = 4 + 4 * num_axes
    if data[:4] != bytes([0, 0, 8, num_axes]) or len(data) != header + shape.prod():
        raise ValueError(f"{path.name} is not an IDX file of {num_axes}-d bytes; fetch it anew.")
    return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(shape)
