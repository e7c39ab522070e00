"""Pictures that are named by a URL (`s3://bucket/a.jpg`, `file:///a.jpg`), read through fsspec.

fsspec is part of an extra (`pip install 'safelight[scale]'`); a store's own package (`s3fs`,
`gcsfs`, `adlfs`) has to be installed beside it. Nothing is asked for but what a list of pictures
names.
"""

from __future__ import annotations

import io
import re
import time
from typing import Any

from safelight.images import ImageError

MAX_BYTES = 512 * 2**20  # of a file; what is longer is no picture that we would decode
_ATTEMPTS = 3
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def is_remote(name: str) -> bool:
    """Whether a name is a URL, which a name of Windows with its drive is not."""
    return _SCHEME.match(name) is not None


def open_remote(url: str) -> io.BytesIO:
    """Read a whole file, in one request; a store that stumbles is asked again.

    Args:
        url: Scheme, store and name.

    Returns:
        Its bytes, as a file.

    Raises:
        ImageError: If it is not there, may not be read, is empty or too long.
        ValueError: If fsspec or the package for its scheme is not installed.
    """
    if "::" in url:
        raise ImageError(url, "is a chain of URLs, which are not followed")
    system, path = _find(url)
    for attempt in range(_ATTEMPTS):
        try:
            data = system.cat_file(path, start=0, end=MAX_BYTES + 1)
            break
        except FileNotFoundError:
            raise ImageError(url, "no such file") from None
        except IsADirectoryError:
            raise ImageError(url, "is a folder, not a picture") from None
        except PermissionError:
            raise ImageError(url, "may not be read (permission denied)") from None
        except Exception as error:
            if attempt == _ATTEMPTS - 1:
                raise ImageError(
                    url, f"cannot be read ({str(error) or type(error).__name__})"
                ) from error
            time.sleep(2.0**attempt)
    if not data:
        raise ImageError(url, "empty file")
    if len(data) > MAX_BYTES:
        raise ImageError(url, f"too large: more than {MAX_BYTES // 2**20} MB")
    return io.BytesIO(data)


def _find(url: str) -> tuple[Any, str]:
    try:
        import fsspec

        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        scheme = url.partition("://")[0]
        raise ValueError(
            f"pictures at {scheme}:// cannot be read ({error}): expected `pip install "
            "'safelight[scale]'`, and the package that fsspec has for this scheme."
        ) from error
