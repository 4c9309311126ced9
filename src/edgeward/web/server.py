"""The web application in a thread of its own.

    with WebServer(box, host="127.0.0.1", port=8080) as server:
        print(server.url)

The port is bound before the thread starts and handed over, so a port that is taken is known at once
and port 0 has its number when `start` returns.
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from types import TracebackType
from typing import Self

import uvicorn

from edgeward.errors import ConfigError
from edgeward.serve.report import BoxView
from edgeward.web.app import create_app

__all__ = ["WebServer"]

START_SECONDS = 10.0


class WebServer:
    """Serves `box` over HTTP on host:port; port 0 picks a free one.

    Loopback only unless another host is named: there is no password. Start it once, stop it once.
    """

    def __init__(self, box: BoxView, host: str = "127.0.0.1", port: int = 8080) -> None:
        if not 0 <= port <= 65535:
            raise ConfigError(f"port {port} is out of range 0..65535; set web.port")
        self._box = box
        self._host = host
        self._port = port
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where the page is, e.g. "http://127.0.0.1:8080"; the real port once started."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    def start(self) -> None:
        """Bind, then serve in a thread; returns when requests are answered.

        Raises ConfigError when the address is taken, not ours or not allowed.
        """
        bound = _bind(self._host, self._port)
        self._port = int(bound.getsockname()[1])
        config = uvicorn.Config(
            create_app(self._box, self._host),
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            lifespan="off",
            server_header=False,
            ws="websockets-sansio",
            ws_max_size=1 << 16,
            ws_per_message_deflate=False,  # JPEGs do not shrink
            limit_concurrency=256,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [bound]}, name="edgeward-web", daemon=True
        )
        self._thread.start()
        until = time.monotonic() + START_SECONDS
        while not self._server.started and self._thread.is_alive() and time.monotonic() < until:
            time.sleep(0.01)
        if not self._server.started:
            bound.close()
            raise ConfigError(f"the web server on {self.url} did not start within {START_SECONDS:.0f} s; see the log")

    def stop(self, timeout: float = 5.0) -> None:
        """Close connections and end the thread within about `timeout` seconds. Safe to call twice."""
        if self._server is None or self._thread is None:
            return
        self._server.should_exit = True
        self._thread.join(timeout)
        if self._thread.is_alive():
            self._server.force_exit = True
            self._thread.join(1.0)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _bind(host: str, port: int) -> socket.socket:
    """A listening socket, or a ConfigError that says what to do."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ConfigError(f"web host {host!r} cannot be resolved ({error.strerror}); use 127.0.0.1") from None
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(128)
    except OSError as error:
        bound.close()
        raise ConfigError(_bind_problem(host, port, error)) from None
    return bound


def _bind_problem(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use; choose another with --set web.port={port + 1 if port < 65535 else 0}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} on {host} is not allowed for this user; choose one above 1023 with --set web.port=8080"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine; use 127.0.0.1"
    return f"cannot listen on {host} port {port}: {error.strerror}; choose another with --set web.port=0"
