"""What every test runs under: no network and a cache of its own, unless it is marked otherwise."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

LOOPBACK = {"127.0.0.1", "::1", "localhost"}


def _only_loopback(function: Callable[..., Any], place: int) -> Callable[..., Any]:
    """Let a socket function through only where its address is this machine."""

    def guarded(*arguments: Any, **options: Any) -> Any:
        address = arguments[place]
        host = address[0] if isinstance(address, tuple) else address
        if host not in LOOPBACK:
            raise OSError(f"tests not marked `network` do not reach {host}")
        return function(*arguments, **options)

    return guarded


@pytest.fixture(autouse=True)
def _closed_sockets(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("network") is None:
        for name in ("connect", "connect_ex"):
            guarded = _only_loopback(getattr(socket.socket, name), 1)
            monkeypatch.setattr(socket.socket, name, guarded)
        monkeypatch.setattr(socket, "getaddrinfo", _only_loopback(socket.getaddrinfo, 0))


@pytest.fixture(autouse=True)
def _own_cache(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    marks = ("network", "assets")
    if not any(request.node.get_closest_marker(mark) for mark in marks):
        monkeypatch.setenv("SAFELIGHT_HOME", str(tmp_path / "safelight-home"))
        monkeypatch.delenv("SAFELIGHT_OFFLINE", raising=False)
