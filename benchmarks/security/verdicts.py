"""What became of a case: read, refused in a clear sentence, or one of what must not be."""

from __future__ import annotations

import os
import resource
import sys
import sysconfig
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

READ, REFUSED = "read", "refused"
WRONG = ("unclear", "traceback", "warning", "escape", "slow", "memory")
"""A sentence that does not say what it is about; another exception; a warning; a look, write,
process or connection outside the folder; more than some seconds; more than some megabytes."""

MAX_SECONDS = 5.0
MAX_LETTERS = 600

_EXECUTING = (
    "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "pty.spawn",
    "pickle.find_class",
)  # fmt: skip
_CHANGING = (
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.symlink", "os.link", "os.chmod",
    "os.truncate",
)  # fmt: skip
_TELLING = ("socket.connect", "socket.getaddrinfo", "socket.sendto", "urllib.Request")


@dataclass(frozen=True)
class Verdict:
    """What became of a case, and for what must not be the details."""

    kind: str
    detail: str = ""


@dataclass
class _Watch:
    """What the interpreter is asked for on a thread while a stranger's file is read."""

    inside: str = ""
    thread: int = 0
    seen: list[str] = field(default_factory=list)


_watch = _Watch()
_hooked: list[bool] = []
_PLACES = (*sysconfig.get_paths().values(), sys.prefix, sys.base_prefix)
_HARMLESS = (
    *{os.path.realpath(place) for place in _PLACES},
    "/proc/", "/sys/", "/dev/null", "/dev/urandom", "/usr/share/zoneinfo", "/usr/lib",
    "/etc/localtime",
)  # fmt: skip


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watch.inside or threading.get_ident() != _watch.thread:
        return
    if event.startswith((*_EXECUTING, *_TELLING)):
        _watch.seen.append(f"{event} {arguments[:1]!r:.80}")
    elif event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        _note_file(event, os.fsdecode(arguments[0]), writes=_writes(arguments))
    elif event.startswith(_CHANGING):
        for path in arguments[:2]:
            if isinstance(path, str | bytes | os.PathLike):
                _note_file(event, os.fsdecode(path), writes=True)


def _writes(arguments: tuple[Any, ...]) -> bool:
    flags = arguments[2] if len(arguments) > 2 and isinstance(arguments[2], int) else 0
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))


def _note_file(event: str, path: str, *, writes: bool) -> None:
    real = os.path.realpath(path)
    if real.startswith(_watch.inside) or (
        not writes and real.startswith((*_HARMLESS, *filter(None, sys.path)))
    ):
        return
    if writes and "__pycache__" in real:
        return  # a module that is loaded for the first time
    _watch.seen.append(f"{event} {path[:120]}")


@contextmanager
def watching(inside: Path) -> Iterator[list[str]]:
    """Gives what was asked for outside a folder, while it lasts."""
    if not _hooked:
        sys.addaudithook(_listen)  # for good: an interpreter cannot lose a hook
        _hooked.append(True)
    _watch.thread, _watch.seen = threading.get_ident(), []
    _watch.inside = os.path.realpath(inside)
    try:
        yield _watch.seen
    finally:
        _watch.inside = ""


def judge(
    read: Callable[[Path], object],
    folder: Path,
    *,
    errors: tuple[type[Exception], ...] = (ValueError,),
    max_megabytes: float = 300,
) -> Verdict:
    """Lets a reader loose on a folder that a stranger has made.

    Args:
        read: Reads it, and uses what it has read.
        folder: All that it may touch.
        errors: What it may raise; each a line that names a file of the folder, or the folder.
        max_megabytes: Of more memory than before.
    """
    before, highest, start = _resident(), _highest(), time.perf_counter()
    with watching(folder) as seen, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", module=r"PIL\.")  # as `images` has it
        # Keras hands tensors to NumPy 2 so; no file has a part in it.
        warnings.filterwarnings("ignore", "__array__ implementation doesn't", DeprecationWarning)
        found = _try(read, folder, errors)
    seconds = time.perf_counter() - start
    extra = (_highest() - before) / 2**20 if _highest() > highest else 0
    if seen:
        return Verdict("escape", "; ".join(seen[:3]))
    if found.kind == "traceback":
        return found
    if told:
        return Verdict("warning", f"{told[0].category.__name__}: {told[0].message}"[:300])
    if extra > max_megabytes:
        return Verdict("memory", f"{extra:.0f} MB")
    return Verdict("slow", f"{seconds:.1f} s") if seconds > MAX_SECONDS else found


def _try(
    read: Callable[[Path], object], folder: Path, errors: tuple[type[Exception], ...]
) -> Verdict:
    try:
        read(folder)
    except errors as error:
        return judge_sentence(str(error), folder)
    except Exception as error:  # noqa: BLE001  it is what is looked for
        said = f"{type(error).__name__}: {error}"[:300]
        return Verdict("traceback", f"{said} ({_place_of(error)})")
    return Verdict(READ)


def _place_of(error: Exception) -> str:
    """Where it was raised; no source is read for that, which would be a look outside."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return (
        "" if trace is None else f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
    )


def judge_sentence(text: str, folder: Path) -> Verdict:
    """Whether a refusal is one line that can be printed and names what it is about."""
    names = {path.name for path in folder.rglob("*")} | {folder.name}
    if not text.isprintable() or len(text) > MAX_LETTERS:
        return Verdict("unclear", f"{text!r}"[:300])
    if not any(name in text for name in names):
        return Verdict("unclear", f"names no file: {text}"[:300])
    return Verdict(REFUSED, text)


def _highest() -> int:
    """The most memory that this process has ever had, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _resident() -> int:
    """The memory that it has now, bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
