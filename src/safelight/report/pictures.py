"""Pictures of a run as part of a page: checked, made small enough, and with words for the blind."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Set
from pathlib import Path

from PIL import Image

from safelight.report import words
from safelight.report.blocks import Block, Picture, Text, Words
from safelight.report.reading import Reading

MAX_PIXELS = 40_000_000
"""Of a picture that a page takes in; a file that unfolds to more is no chart."""

_MAX_SIDE = 16_383  # of WebP
_MAX_OTHERS = 12
_EFFORT = 20  # of the packing, of 100: more takes longer and saves little


def show(reading: Reading, name: str, alt: str, caption: Words, *, missing: Words) -> Block:
    """A picture of a run, or a sentence where it is not there.

    Args:
        reading: The run.
        name: Of the picture, without its ending.
        alt: What it shows.
        caption: What to look for.
        missing: The sentence.
    """
    path = reading.picture(name)
    if path is None:
        return Text(missing)
    try:
        content, (width, height) = read_png(path)
    except ValueError as error:
        return Text(f"The picture {path.name} is left out: {error}.", tone="warning")
    address = f"data:image/webp;base64,{base64.b64encode(content).decode('ascii')}"
    return Picture(address, alt, caption, width, height)


def show_others(reading: Reading, known: Set[str]) -> list[Block]:
    """The pictures of a run that nothing else on the page shows.

    Args:
        reading: The run.
        known: Names of pictures that are shown elsewhere.
    """
    names = [path.stem for path in reading.run.pictures if path.stem not in known]
    shown = [(name, words.printable(name).replace("_", " ")) for name in names[:_MAX_OTHERS]]
    more = len(names) - len(shown)
    rest = [Text(f"{more} more are in the run's folder pictures.")] if more else []
    return [
        *(show(reading, name, f"The picture {said}.", said, missing="") for name, said in shown),
        *rest,
    ]


def read_png(path: Path) -> tuple[bytes, tuple[int, int]]:
    """A PNG file as lossless WebP, which every browser reads and takes half the bytes; its size.

    Args:
        path: The file.

    Returns:
        WebP of the same pixels (on white where they are transparent), and width and height.

    Raises:
        ValueError: It is no PNG, damaged or far too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with Image.open(path, formats=["PNG"]) as opened:
                if opened.width * opened.height > MAX_PIXELS or max(opened.size) > _MAX_SIDE:
                    raise ValueError(f"it has {opened.width} x {opened.height} pixels")
                picture = opened.convert("RGBA")
    except ValueError:
        raise
    except Exception as error:  # Pillow's parsers raise almost anything on damaged files
        raise ValueError(f"it cannot be read ({type(error).__name__})") from error
    white = Image.new("RGBA", picture.size, "white")
    flat = Image.alpha_composite(white, picture).convert("RGB")
    buffer = io.BytesIO()
    flat.save(buffer, "WEBP", lossless=True, quality=_EFFORT, method=1)
    return buffer.getvalue(), flat.size
