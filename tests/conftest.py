"""What every test runs under: no network and a cache of its own, unless it is marked otherwise.

And the program itself, run inside this process: Keras takes seconds to load, and is loaded once.
"""

import collections
import functools
import importlib
import importlib.util
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
LOOPBACK = {"127.0.0.1", "::1", "localhost"}
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
# Of a browser in a container, and none of these may let it talk to anybody by itself.
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "TF_NUM_INTRAOP_THREADS",
)
_LONG = ("notebook", "slow")  # the longest first
STANDARDS = "wcag2a wcag2aa wcag21a wcag21aa wcag22aa best-practice".split()


def _share_cores() -> None:
    """As many threads for each of several test processes as there are cores for it."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0"))
    if workers:
        for name in _THREADS:
            os.environ.setdefault(name, str(max(1, (os.cpu_count() or 1) // workers)))


def _keep_programs() -> tempfile.TemporaryDirectory[str] | None:
    """On JAX a program that an earlier test has compiled is not compiled again.

    A training that is stopped and gone on with is compiled three times, always the same. Each
    process has a folder of its own, since JAX writes its files in place.
    """
    theirs = "safelight-compiled-"  # of the process that started this one
    wanted = theirs in os.environ.get("JAX_COMPILATION_CACHE_DIR", theirs)
    if os.environ.get("KERAS_BACKEND") != "jax" or not wanted:
        return None
    folder = tempfile.TemporaryDirectory(prefix=theirs)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.05"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    return folder


# Here and in no hook: the conftest.py of a folder may load what looks at these only once.
_share_cores()
_programs = _keep_programs()

# The same examples in every run, so that what fails once fails again; no time limit, as others may
# keep the machine busy. Here, since what a test file sets builds on what it finds when it is read.
settings.register_profile("safelight", derandomize=True, deadline=None)
settings.load_profile("safelight")


def pytest_configure(config: pytest.Config) -> None:
    """The compiled programs go when the process does."""
    if _programs is not None:
        config.add_cleanup(_programs.cleanup)


@pytest.hookimpl(trylast=True)  # what is left out by then does not count
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first, so that no process waits at the end for one of them.

    Notebooks, other slow tests, then the files of many tests.
    """
    long = {mark: {item.path for item in items if item.get_closest_marker(mark)} for mark in _LONG}
    number = collections.Counter(item.path for item in items)
    items.sort(
        key=lambda item: (
            *(item.path not in files for files in long.values()),
            -number[item.path],
            item.path,
        )
    )


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


def _leave(*arguments: object, early: bool = False) -> int:
    """Run the program and return its exit code; `early` forbids it to load Keras."""
    from safelight import cli
    from safelight.cli import console

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["safelight", *map(str, arguments)])
        patch.setattr(cli, "set_up_streams", lambda: None)
        if early:
            early_start = "loads Keras too early"
            patch.setattr(console, "start_keras", lambda *_, **__: pytest.fail(early_start))
        with pytest.raises(SystemExit) as left:
            cli.main()
    return left.value.code or 0


@pytest.fixture(scope="session")
def leave() -> Callable[..., int]:
    """Run the program for its exit code, in fixtures that live longer than a test's `capsys`."""
    return _leave


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the program for its exit code and what it says on both streams."""

    def run(*arguments: object, early: bool = False) -> tuple[int, str, str]:
        code = _leave(*arguments, early=early)
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def chromium() -> str:
    """Where Chromium is: SAFELIGHT_CHROMIUM, or on the PATH; else the test is skipped."""
    wanted = os.environ.get("SAFELIGHT_CHROMIUM")
    found = wanted or next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        pytest.skip("no Chromium: install one, or name it with SAFELIGHT_CHROMIUM")
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("Playwright is not installed (make test-app)")
    return found


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def faults(chromium: str) -> Callable[[Any], list[str]]:
    """What keeps people from using a page: axe-core on WCAG 2.0 to 2.2 (A, AA), good practice."""
    name = "axe_playwright_python.sync_playwright"
    library = pytest.importorskip(name, reason="axe-core is not installed (make test-app)")

    def find(page: Any) -> list[str]:
        rules = {"runOnly": {"type": "tag", "values": STANDARDS}}
        options = {**rules, "resultTypes": ["violations"], "selectors": False}  # quicker
        found = library.Axe().run(page, options=options).response
        asked = {rule["id"] for kind in ("passes", "violations") for rule in found[kind]}
        assert {"color-contrast", "document-title", "region", "target-size"} <= asked
        return [
            f"{rule['impact']}: {rule['id']}, {node['html'][:160]} ({node['failureSummary']})"
            for rule in found["violations"]
            for node in rule["nodes"]
        ]

    return find


class _Machine:
    """A clock that a step moves on; `speed(step)` gives seconds per step."""

    def __init__(self, speed: Callable[[int], float], compilation: float = 0.0) -> None:
        self.time, self.speed, self.compilation, self.step = 100.0, speed, compilation, 0

    def now(self) -> float:
        return self.time

    def run(self, num_steps: int) -> None:
        self.time += self.compilation if self.step == 0 else 0
        for _ in range(num_steps):
            self.time += self.speed(self.step)
            self.step += 1


@pytest.fixture(scope="session")
def machine() -> type[_Machine]:
    return _Machine


@pytest.fixture
def train_on(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets the steps of a training take what they take on such a machine, and nothing else."""

    def set_up(training: Any, machine: _Machine) -> None:
        run = training.EpochLoop.run

        def timed(loop: Any, rates: Any, *arguments: Any) -> None:
            run(loop, rates, *arguments)
            machine.run(len(getattr(rates, "generator", rates)))
            if machine.now() > 700:
                pytest.fail("nothing ends this training: ten minutes of its clock are over")

        monkeypatch.setattr(training.EpochLoop, "run", timed)
        monkeypatch.setattr(training, "Pace", functools.partial(training.Pace, now=machine.now))
        monkeypatch.setattr(time, "perf_counter", machine.now)

    return set_up


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Imports a module of benchmarks/, which is no package; afterwards it is forgotten again."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    yield importlib.import_module
    for name in {*sys.modules} - before:
        found = sys.modules[name]
        places = [getattr(found, "__file__", None), *getattr(found, "__path__", [])]
        if any(str(BENCHMARKS) in str(place) for place in places):
            del sys.modules[name]
