"""Who may talk to the page: loopback names only, same-origin sockets, a strict content policy.

    app.add_middleware(Guard, bound_host="127.0.0.1")

A box has no password, so a foreign web page must not reach it through the visitor's own browser.
A page whose name was re-bound to 127.0.0.1 sends its own name as Host, and a foreign page that opens
a WebSocket sends its own Origin; both are refused here before any handler runs.
"""

from __future__ import annotations

import ipaddress
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

__all__ = ["SECURITY_HEADERS", "Guard", "host_allowed", "origin_allowed"]

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
WILDCARDS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104  (compared with, never bound here)
SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


def host_allowed(host: str | None, bound_host: str) -> bool:
    """Whether a Host header names this box.

    Loopback names always do, and so does the host that the server was bound to. A server bound to every
    interface also answers to any literal address: only names can be re-bound, addresses cannot.

    >>> host_allowed("localhost:8080", "127.0.0.1"), host_allowed("evil.example", "127.0.0.1")
    (True, False)
    """
    try:
        name = urlsplit(f"//{host or ''}").hostname or ""
    except ValueError:
        return False
    if name in LOOPBACK or (name == bound_host.lower() and name not in WILDCARDS):
        return True
    return bound_host in WILDCARDS and _is_address(name)


def origin_allowed(origin: str | None, host: str | None) -> bool:
    """Whether a WebSocket comes from our own page, or from no page at all (scripts send no Origin)."""
    if origin is None:
        return True
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(host) and parts.netloc.lower() == str(host).lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """ASGI middleware: 403 for a foreign Host or Origin, security headers on everything else."""

    def __init__(self, app: ASGIApp, bound_host: str = "127.0.0.1") -> None:
        self._app = app
        self._bound_host = bound_host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        problem = self._problem(scope)
        if problem is None:
            await self._app(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await WebSocketClose(code=1008, reason=problem[:120])(scope, receive, send)
        else:
            await JSONResponse({"detail": problem}, 403, SECURITY_HEADERS)(scope, receive, send)

    def _problem(self, scope: MutableMapping[str, Any]) -> str | None:
        headers = Headers(scope=scope)
        host = headers.get("host")
        if not host_allowed(host, self._bound_host):
            return f"Host {(host or '')[:60]!r} is not this box; open it as http://localhost"
        if scope["type"] == "websocket" and not origin_allowed(headers.get("origin"), host):
            return "a page of another origin may not connect"
        return None


def _with_headers(send: Send) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return wrapped
