"""A server for a page: to this machine alone unless told otherwise, until Ctrl-C."""

from __future__ import annotations

import errno
import ipaddress
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from safelight.app import privacy

if TYPE_CHECKING:
    import gradio

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 7860
_LARGEST_PORT = 65535
_SECONDS_TO_END = 1  # for answers under way; browsers hold a connection open for ever


class Server:
    """A place where a page can be reached; the port is taken at once, before there is a page.

    Args:
        host: A name or address of this machine; others than the loopback's let others in.
        port: 0 takes one that is free.

    Attributes:
        address: Where it is, for a browser.
        open_to_others: Whether other machines may reach it.

    Raises:
        ValueError: The port is in use or not to be had, or the host is not this machine.
    """

    def __init__(self, *, host: str = DEFAULT_HOST, port: int = DEFAULT_PORT) -> None:
        self._socket = _listen(host, port)
        found, port = self._socket.getsockname()[:2]
        self.open_to_others = not ipaddress.ip_address(found).is_loopback
        self.address = f"http://{_shown(host)}:{port}"
        self._names = None if self.open_to_others else _own_names(host)
        self._server: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def serve(
        self, page: gradio.Blocks | Path, *, ready: Callable[[], None] = lambda: None
    ) -> None:
        """Serves a page until the process is told to end.

        Args:
            page: From `build_page`, or a folder of static files with an index.html.
            ready: Called when requests are answered.

        Raises:
            KeyboardInterrupt: Ctrl-C, after what was under way has ended.
            RuntimeError: It could not start.
        """
        import uvicorn

        class Announcing(uvicorn.Server):
            async def startup(self, sockets: Any = None) -> None:
                await super().startup(sockets)
                if self.started:
                    ready()

        # "critical": a browser whose connection ends with the server is no error.
        server = self._server = Announcing(
            uvicorn.Config(
                _build_app(page, self._names),
                log_level="critical",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_SECONDS_TO_END,
            )
        )
        with _ending_on_request(), self:
            server.run(sockets=[self._socket])
        if not server.started:
            raise RuntimeError("the server did not start.")

    def stop(self) -> None:
        """Ends `serve` of another thread; not at once, but soon."""
        if self._server is not None:
            self._server.should_exit = True


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= _LARGEST_PORT:
        raise ValueError(
            f"port {port}: expected one from 0 to {_LARGEST_PORT}; 0 takes a free one."
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ValueError(_say_why_not(host, port, error)) from error


def _say_why_not(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} of {host} is in use: stop what serves there, or choose another "
            f"(--port {min(port + 1, _LARGEST_PORT)}; 0 takes one that is free)."
        )
    if error.errno == errno.EACCES:
        return f"port {port} may not be used without special rights: expected one above 1023."
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"host {host!r} is not this machine: expected an address of it, such as 127.0.0.1."
    return f"{host}, port {port}: cannot be served ({error.strerror or error})."


def _shown(host: str) -> str:
    """The host as it stands in an address that a browser on this machine can open."""
    if host in ("", "0.0.0.0", "::"):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _own_names(host: str) -> list[str]:
    """What a browser may call this machine; a stranger's name that leads here is none of these."""
    return ["127.0.0.1", "localhost", "[::1]", _shown(host)]


def _build_app(page: gradio.Blocks | Path, names: list[str] | None) -> Any:
    """The page as an ASGI application, guarded."""
    from fastapi import FastAPI
    from starlette.staticfiles import StaticFiles

    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    if isinstance(page, Path):
        app.mount("/", StaticFiles(directory=page, html=True))
    else:
        app = _mount(app, page)
    return _Guard(app, names)


def _mount(app: Any, page: gradio.Blocks) -> Any:
    import gradio

    from safelight.app import cards
    from safelight.app.page import MAX_FILE_SIZE

    return gradio.mount_gradio_app(
        app,
        page,
        path="/",
        footer_links=[],
        max_file_size=MAX_FILE_SIZE,
        theme=gradio.themes.Base(font=["sans-serif"], font_mono=["monospace"]),
        css=cards.read_style(),
        i18n=gradio.I18n(en={"common.upload": "Add pictures"}),
    )


class _Guard:
    """Adds `privacy.HEADERS` to every answer; answers to its own names and its own page alone.

    A page of somebody else's in the same browser could otherwise give its own name this address
    (DNS rebinding) and read along.
    """

    def __init__(self, app: Any, names: list[str] | None) -> None:
        self._app, self._names = app, names
        self._headers = [(k.lower().encode(), v.encode()) for k, v in privacy.HEADERS.items()]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan" or self._knows(scope):
            await self._app(scope, receive, self._adding_headers(send))
            return
        await send({"type": "http.response.start", "status": 421, "headers": self._headers})
        await send({"type": "http.response.body", "body": b"This server has another name.\n"})

    def _knows(self, scope: Any) -> bool:
        headers = dict(scope["headers"])
        host, origin = (headers.get(name, b"").decode("latin-1") for name in (b"host", b"origin"))
        # A page of somebody else's may also send what it gets no answer to, such as files.
        if origin and origin.removeprefix("http://").removeprefix("https://") != host:
            return False
        return self._names is None or re.sub(r":\d+$", "", host) in self._names

    def _adding_headers(self, send: Any) -> Any:
        async def send_more(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *self._headers]}
            await send(message)

        return send_more


@contextmanager
def _ending_on_request() -> Iterator[None]:
    """Makes SIGTERM end the process as Ctrl-C does, cleaning up, when the server passes it on."""
    if threading.current_thread() is not threading.main_thread():
        yield  # whoever started the thread minds the signals
        return

    def leave(*_: Any) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
