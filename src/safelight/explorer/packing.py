"""Bytes, arrays and pictures as scripts that a page loads, from a server or from a disk alike.

A browser lets a page that was opened from a disk read no file but scripts, styles and pictures; so
what the page needs is in scripts, compressed by gzip and written in base64, and no server has to
know the types of files.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

# A sheet of thumbnails may weigh so much without loss.
_MAX_LOSSLESS = 1_500_000
_MAX_TILE = 64


def packed(data: bytes) -> str:
    """Bytes by gzip, in base64; equal bytes give equal texts."""
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()


def pack_array(array: NDArray[Any]) -> dict[str, Any]:
    """An array as the page reads it: its shape, and its numbers row by row, little-endian.

    Args:
        array: Floats become float32, labels uint16.
    """
    dtype = "<f4" if array.dtype.kind == "f" else "<u2"
    return {
        "shape": array.shape,
        "type": {"<f4": "float32", "<u2": "uint16"}[dtype],
        "data": packed(np.ascontiguousarray(array, dtype).tobytes()),
    }


def script(files: Mapping[str, Any]) -> str:
    """A script that leaves these values in the page, by their names.

    Args:
        files: Name to what JSON can say.
    """
    # JSON is JavaScript. In a page "</script" would end a script, and "<!--<script" hide its end.
    values = json.dumps(files, ensure_ascii=True, allow_nan=False).replace("<", "\\u003c")
    return f"self.explorerFiles = Object.assign(self.explorerFiles ?? {{}}, {values});\n"


def thumbnails(images: NDArray[np.uint8]) -> dict[str, Any]:
    """All pictures as tiles of one sheet, in rows.

    Args:
        images: `(n, height, width, 1 | 3)`.

    Returns:
        `data`, an address that holds the sheet as PNG, or as JPEG where that would be large;
        `columns`, `width` and `height` of a tile in pixels, at most 64 each.
    """
    from PIL import Image

    number, height, width, channels = images.shape
    shrink = min(1.0, _MAX_TILE / max(height, width))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    columns = int(np.ceil(np.sqrt(number * size[1] / size[0])))
    mode = "L" if channels == 1 else "RGB"
    sheet = Image.new(mode, (columns * size[0], -(-number // columns) * size[1]))
    for i, image in enumerate(images):
        tile = Image.fromarray(image[..., 0] if channels == 1 else image)
        tile = tile if tile.size == size else tile.resize(size, Image.Resampling.BOX)
        sheet.paste(tile, (i % columns * size[0], i // columns * size[1]))
    return {"data": _address(sheet), "columns": columns, "width": size[0], "height": size[1]}


def _address(sheet: Any) -> str:
    lossless, small = io.BytesIO(), io.BytesIO()
    sheet.save(lossless, "PNG", optimize=True)
    if lossless.tell() <= _MAX_LOSSLESS:
        return f"data:image/png;base64,{base64.b64encode(lossless.getvalue()).decode()}"
    sheet.save(small, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(small.getvalue()).decode()}"
