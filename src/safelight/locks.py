"""Folders that one process at a time writes to.

The lock is the system's and goes with its process, however that ends: a kill leaves none behind,
and no clock is asked. The hidden file `.lock` stays, and means nothing by itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from safelight.files import list_partials

_NAME = ".lock"
_P = ParamSpec("_P")
_T = TypeVar("_T")


class _Place(Protocol):
    @property
    def path(self) -> Path: ...


_PlaceT = TypeVar("_PlaceT", bound=_Place)


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep other processes, and other threads, from holding a folder; may be nested.

    Args:
        folder: it exists.

    Raises:
        ValueError: if another one holds it.
        OSError: if it cannot be written.
    """
    import filelock

    # Of a singleton, a nested call gets the lock that this thread has already.
    lock = filelock.FileLock(folder.resolve() / _NAME, timeout=0, is_singleton=True)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise ValueError(
            f"{folder}: another process is writing there; wait until it has ended, or choose "
            "another --output."
        ) from error
    try:
        yield
    finally:
        lock.release()


def check_free(folder: Path) -> None:
    """Raise what `hold` would raise, without making a lock where there was none.

    Args:
        folder: it need not exist.
    """
    if (folder / _NAME).exists():
        with hold(folder):
            pass


def alone(
    write: Callable[Concatenate[_PlaceT, _P], _T],
) -> Callable[Concatenate[_PlaceT, _P], _T]:
    """Let a function hold the folder of its first argument, a run, while it writes there.

    What killed writes have left there under temporary names is removed first.

    Args:
        write: the function; it then also raises what `hold` does.
    """

    @functools.wraps(write)
    def held(place: _PlaceT, /, *arguments: _P.args, **options: _P.kwargs) -> _T:
        with hold(place.path):
            for folder in (place.path, place.path / "pictures"):
                for leftover in list_partials(folder):
                    leftover.unlink(missing_ok=True)
            return write(place, *arguments, **options)

    return held
