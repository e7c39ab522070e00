"""No request leaves the machine: what Gradio and its libraries would ask of the world is off."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from safelight.locks import hold

_OFF = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_SHARE": "False",
    "GRADIO_MCP_SERVER": "False",
    "GRADIO_SSR_MODE": "False",
    "GRADIO_RUN_HISTORY": "False",  # would keep pictures in the browser's storage
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}

# What a browser may load for a page: from this server alone, or made by the page itself.
# Gradio's and ONNX Runtime's scripts are put together at run time, hence 'unsafe-eval'.
CONTENT_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' data: blob:; worker-src 'self' blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_PREFIX = "safelight-app-uploads-"
_folder: str = ""
_held = contextlib.ExitStack()


def close() -> str:
    """Turns it off; has to come before Gradio is imported, which reads these at that moment.

    Returns:
        A folder of this process alone for uploaded pictures; it is removed at the process' end.
    """
    global _folder  # noqa: PLW0603  one process has one Gradio
    os.environ.update(_OFF)
    if not _folder:
        _remove_killed()
        _folder = tempfile.mkdtemp(prefix=_PREFIX)  # readable by its owner alone
        _held.enter_context(hold(Path(_folder)))
        atexit.register(shutil.rmtree, _folder, ignore_errors=True)
    os.environ["GRADIO_TEMP_DIR"] = _folder
    return _folder


def _remove_killed() -> None:
    """Removes what killed servers of this user have kept; those that live hold their folders."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            own = not hasattr(os, "geteuid") or folder.stat().st_uid == os.geteuid()
            if folder.is_symlink() or not own:
                continue
            with hold(folder):
                pass
        except (OSError, ValueError):
            continue
        shutil.rmtree(folder, ignore_errors=True)
