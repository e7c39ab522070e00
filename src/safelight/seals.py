"""Texts that say whether somebody changed them: the last line holds a checksum of all before it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from safelight.untrusted import read_bytes

CARD = "README.md"
"""A run's model card, which carries such a seal."""

_MAX_BYTES = 16 * 2**20  # a larger one is somebody's own
_MARK = "Written by safelight report; a card that was changed since is kept. Checksum:"


def seal(text: str) -> str:
    """A text in Markdown with its seal, a comment that no reader of it shows.

    Args:
        text: It ends with a line end.
    """
    return f"{text}\n<!-- {_MARK} {_checksum(text)} -->\n"


def is_untouched(path: Path) -> bool:
    """Whether a file is as it was sealed; what cannot be read, or is not there, is not.

    Args:
        path: The file.
    """
    try:
        text = read_bytes(path, limit=_MAX_BYTES).decode("utf-8")
    except (OSError, ValueError):
        return False
    found = re.fullmatch(rf"(?s)(.*)\n<!-- {re.escape(_MARK)} ([0-9a-f]+) -->\n", text)
    return found is not None and _checksum(found[1]) == found[2]


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", errors="backslashreplace")).hexdigest()[:16]
