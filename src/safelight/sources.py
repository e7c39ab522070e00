"""Where a data set's pixels come from: files that are decoded when read, or arrays in memory."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from safelight.images import ImageError, Mode, decode_image, open_image


class Source(Protocol):
    """What a data set asks of the place that its pictures come from."""

    def read(self, index: int, mode: Mode, *, digest: str | None = None) -> NDArray[np.uint8]:
        """Give picture `index`, (height, width, 3 | 1), uint8; of another file than that, none."""
        ...

    def subset(self, indices: NDArray[np.int64]) -> "Source":
        """Give the same place, narrowed to some pictures."""
        ...


@dataclass(frozen=True)
class Files:
    """Pictures that stay in their files until they are read."""

    paths: tuple[Path, ...]
    files: tuple[str, ...]

    def read(self, index: int, mode: Mode, *, digest: str | None = None) -> NDArray[np.uint8]:
        """Decode a file anew; one whose SHA-256 (hex) is not the digest is refused."""
        file = self.files[index]
        with open_image(self.paths[index], file=file) as stream:
            image = decode_image(stream, file=file, mode=mode)
            if digest is not None:
                stream.seek(0)
                if hashlib.file_digest(stream, "sha256").hexdigest() != digest:
                    raise ImageError(
                        file, "has changed since the folder was read; give the same command again"
                    )
        return image

    def subset(self, indices: NDArray[np.int64]) -> "Files":
        """Keep some of the files."""
        return Files(tuple(self.paths[i] for i in indices), tuple(self.files[i] for i in indices))


@dataclass(frozen=True, eq=False)
class Arrays:
    """Pictures in memory, (n, height, width, 3 | 1); subsets share the same memory."""

    images: NDArray[np.uint8]
    rows: NDArray[np.int64]

    def read(self, index: int, mode: Mode, *, digest: str | None = None) -> NDArray[np.uint8]:
        """Copy a picture, which nobody changes."""
        image = self.images[self.rows[index]]
        if mode == "RGB":
            return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image.copy()
        if image.shape[-1] == 1:
            return image.copy()
        # ITU-R 601-2 luminance in Pillow's own fixed-point arithmetic.
        weighted = image.astype(np.uint32) @ np.array([19595, 38470, 7471], dtype=np.uint32)
        return ((weighted + 0x8000) >> 16).astype(np.uint8)[..., np.newaxis]

    def subset(self, indices: NDArray[np.int64]) -> "Arrays":
        """Keep some of the rows, of the same memory."""
        return Arrays(self.images, self.rows[indices])

    def __reduce__(self) -> tuple[type["Arrays"], tuple[NDArray, NDArray]]:
        # A pickled subset carries its own pictures only, not those of the whole data set.
        return Arrays, (self.images[self.rows], np.arange(len(self.rows)))


def array_digest(image: NDArray[np.uint8]) -> str:
    """Digest a picture in memory.

    Args:
        image: Pixels of any shape.

    Returns:
        SHA-256 (hex) of shape, dtype and pixels.
    """
    header = f"{image.shape}{image.dtype}".encode()
    return hashlib.sha256(header + image.tobytes()).hexdigest()


def check_arrays(images: NDArray, labels: NDArray, num_classes: int) -> None:
    """Refuse arrays that are not labelled pictures.

    Args:
        images: Should be (n, height, width) or (n, height, width, 3 | 1), uint8.
        labels: Should be (n,), integers from 0 to num_classes - 1.
        num_classes: The number of classes.

    Raises:
        ValueError: If they are not.
    """
    channels = images.shape[3] if images.ndim == 4 else 1
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or channels not in (1, 3):
        raise ValueError(
            "images must be uint8 of shape (n, height, width) or (n, height, width, 3 | 1), got "
            f"{images.dtype} {images.shape}."
        )
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"labels must be integers of shape ({len(images)},), got {labels.dtype} {labels.shape}."
        )
    if len(labels) == 0 or labels.min() < 0 or labels.max() >= max(num_classes, 1):
        raise ValueError(f"labels must lie in 0 to {num_classes - 1} and there must be some.")
