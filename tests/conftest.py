"""What every test runs under: no network and a cache of its own, unless it is marked otherwise."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Name the markers, so that a mistyped one is an error."""
    config.addinivalue_line("markers", "network: reaches the network or fetches real assets")
    config.addinivalue_line("markers", "assets: uses the real assets in the user's own cache")
    config.addinivalue_line("markers", "slow: takes more than a few seconds")


def _refuse(*arguments: object, **options: object) -> None:
    raise OSError("tests not marked `network` have no network")


@pytest.fixture(autouse=True)
def _closed_sockets(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("network") is None:
        monkeypatch.setattr(socket.socket, "connect", _refuse)
        monkeypatch.setattr(socket.socket, "connect_ex", _refuse)
        monkeypatch.setattr(socket, "getaddrinfo", _refuse)


@pytest.fixture(autouse=True)
def _own_cache(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[None]:
    marks = ("network", "assets")
    if not any(request.node.get_closest_marker(mark) for mark in marks):
        monkeypatch.setenv("SAFELIGHT_HOME", str(tmp_path / "safelight-home"))
        monkeypatch.delenv("SAFELIGHT_OFFLINE", raising=False)
    yield
