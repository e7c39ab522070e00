"""Where a data set's pixels come from: files that are decoded when read, or arrays in memory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from safelight.images import Mode, decode_image, open_image


class Source(Protocol):
    def read(self, index: int, mode: Mode) -> NDArray[np.uint8]: ...
    def subset(self, indices: NDArray[np.int64]) -> "Source": ...


@dataclass(frozen=True)
class Files:
    """Pictures that stay in their files until they are read."""

    paths: tuple[Path, ...]
    files: tuple[str, ...]

    def read(self, index: int, mode: Mode) -> NDArray[np.uint8]:
        file = self.files[index]
        with open_image(self.paths[index], file=file) as stream:
            return decode_image(stream, file=file, mode=mode)

    def subset(self, indices: NDArray[np.int64]) -> "Files":
        return Files(tuple(self.paths[i] for i in indices), tuple(self.files[i] for i in indices))


@dataclass(frozen=True, eq=False)
class Arrays:
    """Pictures in memory, (n, height, width, 3 | 1); subsets share the same memory."""

    images: NDArray[np.uint8]
    rows: NDArray[np.int64]

    def read(self, index: int, mode: Mode) -> NDArray[np.uint8]:
        image = self.images[self.rows[index]]
        if mode == "RGB":
            return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image.copy()
        if image.shape[-1] == 1:
            return image.copy()
        # ITU-R 601-2 luminance in Pillow's own fixed-point arithmetic.
        weighted = image.astype(np.uint32) @ np.array([19595, 38470, 7471], dtype=np.uint32)
        return ((weighted + 0x8000) >> 16).astype(np.uint8)[..., np.newaxis]

    def subset(self, indices: NDArray[np.int64]) -> "Arrays":
        return Arrays(self.images, self.rows[indices])

    def __reduce__(self) -> tuple[type["Arrays"], tuple[NDArray, NDArray]]:
        # A pickled subset carries its own pictures only, not those of the whole data set.
        return Arrays, (self.images[self.rows], np.arange(len(self.rows)))
