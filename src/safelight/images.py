"""One picture: read it from a file, resize it, and reduce it to a perceptual hash.

Nothing here knows of data sets. Pixels are taken as they are stored: colour profiles (ICC) are
not applied, which is also what Keras' and PyTorch's loaders do.
"""

import contextlib
import stat
import threading
import warnings
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import (
    Image,
    ImageOps,
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401  (imported here so that threads never race to register them)
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

Mode = Literal["RGB", "L"]

# A header that claims more is refused before a pixel is decoded: 300 MB as RGB is the ceiling.
MAX_PIXELS = 100_000_000

# Threads read a larger one after the other, since it may take more than a gigabyte.
_LARGE_PIXELS = 50_000_000
_ONE_AT_A_TIME = threading.Lock()
_BAND_PIXELS = 1_000_000
_MAX_REASON = 100  # letters of an error of Pillow's

# An allow-list keeps Pillow's rarer parsers (EPS runs Ghostscript) away from strangers' files.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_FORMAT_NAMES = "JPEG, PNG, WebP, BMP, TIFF or GIF"

_SIXTEEN_TO_EIGHT = ((np.arange(65536) * 255 + 32767) // 65535).astype(np.uint8)

# warnings.catch_warnings is not thread-safe before Python 3.14, so Pillow's remarks on odd
# metadata are silenced once, for Pillow's modules only. What matters is raised as ImageError.
warnings.filterwarnings("ignore", module=r"PIL\.")


class ImageError(ValueError):
    """A file that cannot be read as a picture.

    Attributes:
        file: The file's name, as the caller knows it.
        reason: Why it cannot be read, in a few words without a full stop.
    """

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(file, reason)
        self.file = file
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


def read_image(path: str | Path, *, mode: Mode = "RGB") -> NDArray[np.uint8]:
    """Read a picture file as 8-bit pixels, whatever its format.

    Use it wherever a file becomes an array; it may be called from several threads at once. The
    content decides the format, not the suffix. EXIF orientation is applied, transparency is laid
    over white, 16-bit grey is scaled (not clipped) to 8 bits, and of several frames or pages the
    first is taken.

    Args:
        path: A JPEG, PNG, WebP, BMP, TIFF or GIF file.
        mode: "RGB" for three channels, "L" for one channel of luminance (ITU-R 601-2).

    Returns:
        The pixels, (height, width, 3) or (height, width, 1), uint8, writable.

    Raises:
        ImageError: If the file is missing, empty, a folder, unreadable, not a picture, damaged,
            or if its header claims more than `MAX_PIXELS` pixels.
        ValueError: If `mode` is neither "RGB" nor "L".
    """
    with open_image(path) as stream:
        return decode_image(stream, file=str(path), mode=mode)


def open_image(path: str | Path, *, file: str | None = None) -> BufferedReader:
    """Open a picture file for reading, with a clear error where that is impossible.

    Use it with `decode_image` when the same open file is also to be hashed.

    Args:
        path: The file.
        file: The name to use in errors; the path by default.

    Returns:
        The open binary file; closing it is the caller's task.

    Raises:
        ImageError: If the file is missing, empty, not a regular file, or may not be read.
    """
    file = str(path) if file is None else file
    try:
        # Asked before opening, because opening a named pipe would wait for ever.
        status = Path(path).stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(file, "is a folder, not a picture")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(file, "is not a regular file")
        if status.st_size == 0:
            raise ImageError(file, "empty file")
        return Path(path).open("rb")
    except FileNotFoundError:
        raise ImageError(file, "no such file") from None
    except PermissionError:
        raise ImageError(file, "may not be read (permission denied)") from None
    except OSError as error:
        raise ImageError(file, f"cannot be opened ({error.strerror or error})") from None
    except ImageError:  # which is a ValueError, too
        raise
    except ValueError:  # a NUL in it, or half a character
        raise ImageError(file, "is no name that a file can have") from None


def decode_image(stream: BinaryIO, *, file: str, mode: Mode = "RGB") -> NDArray[np.uint8]:
    """Decode an open picture file as 8-bit pixels; `read_image` says how.

    Args:
        stream: The open, seekable file.
        file: The name to use in errors.
        mode: "RGB" or "L".

    Returns:
        The pixels, (height, width, 3) or (height, width, 1), uint8.

    Raises:
        ImageError: If the content is not a picture, is damaged or is too large.
        ValueError: If `mode` is neither "RGB" nor "L".
    """
    if mode not in ("RGB", "L"):
        raise ValueError(f"mode must be 'RGB' or 'L', got {mode!r}.")
    try:
        with Image.open(stream, formats=_FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise ImageError(file, _too_large(picture.width, picture.height))
            large = picture.width * picture.height > _LARGE_PIXELS
            with _ONE_AT_A_TIME if large else contextlib.nullcontext():
                picture.load()
                return _to_array(_eight_bit(_upright(picture), file), mode)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(file, f"not a picture ({_FORMAT_NAMES})") from None
    except Image.DecompressionBombError:
        raise ImageError(file, _too_large()) from None
    except MemoryError:
        raise ImageError(file, "not enough memory to decode it") from None
    except Exception as error:  # Pillow's parsers raise almost anything on damaged files
        raise ImageError(file, _damage(error)) from error


def resize(image: NDArray[np.uint8], image_size: int | tuple[int, int]) -> NDArray[np.float32]:
    """Resize a picture with an antialiased triangle filter, without rounding the result.

    Use it in front of a network: it equals `keras.ops.image.resize(..., "bilinear",
    antialias=True)` to 0.01 grey level, at a fraction of its time for single pictures. The aspect
    ratio is not kept.

    Args:
        image: Pixels, (height, width, channels), any real dtype.
        image_size: The wanted (height, width) in pixels, or one number for both.

    Returns:
        Pixels, (*image_size, channels), float32, in the range of the input.

    Raises:
        ValueError: If `image` does not have three axes or `image_size` is not positive.
    """
    if isinstance(image_size, int | np.integer):
        image_size = (int(image_size), int(image_size))
    height, width = image_size
    if image.ndim != 3:
        raise ValueError(f"image must be (height, width, channels), got shape {image.shape}.")
    if height < 1 or width < 1:
        raise ValueError(f"image_size must be positive, got {image_size}.")
    if image.shape[:2] == (height, width):
        return image.astype(np.float32)
    # Mode "F" takes one channel at a time, and is the only mode that Pillow does not round. A
    # channel is made float32 when its turn comes: of 100 megapixels all three would be 1.2 GB.
    resized = np.empty((height, width, image.shape[2]), np.float32)
    for channel in range(image.shape[2]):
        plane = Image.fromarray(image[..., channel].astype(np.float32))
        resized[..., channel] = np.asarray(plane.resize((width, height), Image.Resampling.BILINEAR))
    return resized


def perceptual_hash(image: NDArray[np.uint8]) -> int:
    """Reduce a picture to 64 bits that survive re-encoding, resizing and slight brightening.

    Use it to find candidates for near duplicates: few differing bits mean similar layout, not
    sameness. This is "pHash": the signs, against their median, of the 8 x 8 lowest frequencies
    of the 32 x 32 luminance (C. Zauner, Implementation and Benchmarking of Perceptual Image Hash
    Functions, 2010).

    Args:
        image: Pixels, (height, width, 3 | 1), uint8.

    Returns:
        The hash, 0 <= hash < 2**64.
    """
    from scipy.fft import dctn  # imported here to keep `import safelight.images` quick

    grey = np.asarray(_to_picture(image).convert("L"))[..., np.newaxis]
    low = dctn(thumbnail(grey, 32)[..., 0].astype(np.float32), norm="ortho")[:8, :8].ravel()
    # The first coefficient is the mean brightness: it says nothing of the layout.
    bits = low > np.median(low[1:])
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def thumbnail(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Reduce a picture to a small square.

    Use it to compare pictures; the aspect ratio is not kept.

    Args:
        image: Pixels, (height, width, 3 | 1), uint8.
        size: The wanted height and width in pixels.

    Returns:
        Pixels, (size, size, 3 | 1), uint8.
    """
    small = _to_picture(image).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(small).reshape(size, size, -1)


def _to_picture(image: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(image[..., 0] if image.shape[-1] == 1 else image))


def _upright(picture: Image.Image) -> Image.Image:
    with contextlib.suppress(Exception):  # a broken EXIF block is no reason to refuse sound pixels
        ImageOps.exif_transpose(picture, in_place=True)
    return picture


def _eight_bit(picture: Image.Image, file: str) -> Image.Image:
    """Return the picture in mode "L" or "RGB"."""
    if picture.mode.startswith("I;16"):
        # Pillow's own conversion clips at 255, which turns nearly every 16-bit picture white.
        return Image.fromarray(_SIXTEEN_TO_EIGHT[np.asarray(picture)])
    if picture.mode in ("I", "F"):
        kind = "32-bit integers" if picture.mode == "I" else "floating-point numbers"
        raise ImageError(file, f"its pixels are {kind} of unknown range; save it as 8 or 16 bit")
    if picture.has_transparency_data:
        return _over_white(picture)
    return _in_mode(picture, "L" if picture.mode in ("1", "L") else "RGB")


def _over_white(picture: Image.Image) -> Image.Image:
    """In mode "RGB", band by band: four whole copies of 100 megapixels would be 2 GB."""
    flat = Image.new("RGB", picture.size)
    rows = max(1, _BAND_PIXELS // picture.width)
    for top in range(0, picture.height, rows):
        box = (0, top, picture.width, min(top + rows, picture.height))
        band = picture.crop(box).convert("RGBA")
        white = Image.new("RGBA", band.size, "white")
        flat.paste(Image.alpha_composite(white, band).convert("RGB"), box)
    return flat


def _in_mode(picture: Image.Image, mode: str) -> Image.Image:
    return picture if picture.mode == mode else picture.convert(mode)  # which would copy it


def _to_array(picture: Image.Image, mode: Mode) -> NDArray[np.uint8]:
    pixels = np.array(_in_mode(picture, mode))
    return pixels[..., np.newaxis] if mode == "L" else pixels


def _too_large(width: int = 0, height: int = 0) -> str:
    claim = f"{width} x {height}, " if width else ""
    return f"too large: its header claims {claim}more than {MAX_PIXELS:,} pixels"


def _damage(error: Exception) -> str:
    # What a file says of itself is part of it: one line, without what a terminal would obey.
    text = (str(error).strip().splitlines() or [""])[0][:_MAX_REASON] or type(error).__name__
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return "truncated (the file ends too early)" if "truncated" in text else f"damaged ({text})"
