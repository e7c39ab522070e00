"""The page in a cell of a notebook."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from safelight.explorer import packing
from safelight.explorer.folders import ENTRY, check_export
from safelight.files import StrPath, write_text

WHOLE = "notebook.html"


def show(folder: StrPath, *, height: int = 900) -> Any:
    """An exported page as the result of a cell.

        explorer.export_web("runs/digits", "digits_page")
        explorer.show("digits_page")

    Jupyter shows a page in a frame that may load no other file, so the page with all its scripts
    is written into one, `notebook.html` beside `index.html`, when this is first called.

    Args:
        folder: As `export_web` made it, below the notebook's own folder.
        height: Of the frame, in pixels.

    Returns:
        An `IPython.display.IFrame`.

    Raises:
        ValueError: The folder is no export, or lies elsewhere, where Jupyter could not serve it.
    """
    from IPython.display import IFrame

    folder = Path(folder)
    check_export(folder)
    place = Path(os.path.relpath(folder))
    if ".." in place.parts or place.is_absolute():
        raise ValueError(
            f"{folder} is not below {Path.cwd()}: Jupyter shows only what lies beside or below the "
            "notebook; export into a folder there."
        )
    whole = folder / WHOLE
    if not whole.is_file() or whole.stat().st_mtime < (folder / ENTRY).stat().st_mtime:
        write_text(whole, inline(folder))
    return IFrame((place / WHOLE).as_posix(), "100%", height)


def inline(folder: Path) -> str:
    """The page of an export with its style, scripts and decoder inside.

    Args:
        folder: The export.
    """
    text = (folder / ENTRY).read_text("utf-8")
    style = (folder / "explorer.css").read_text("utf-8")
    text = text.replace('<link rel="stylesheet" href="explorer.css">', f"<style>\n{style}</style>")
    # The rule that nothing but files beside the page may run would forbid them.
    text = text.replace("script-src 'self'", "script-src 'unsafe-inline'")
    text = text.replace("style-src 'self'", "style-src 'unsafe-inline'")
    decoder = packing.packed((folder / "decoder.onnx").read_bytes())

    def whole(match: re.Match[str]) -> str:
        script = (folder / match[1]).read_text("utf-8")
        before = packing.script({"decoder.onnx": decoder}) if match[1] == "data.js" else ""
        return f"<script>\n{before}{script}</script>"

    return re.sub(r'<script src="([a-z]+\.js)"></script>', whole, text)
