"""Nodes of this network that announce themselves, found by multicast.

    for node in discover(2.0, tls_files(Path("certs"), "pi")):
        print(node.name, node.endpoint)          # edge tcp/192.168.1.7:7447

A node answers with where it listens; its name comes from the node itself over a connection, with the same certificates
as any other, so nobody can pose as somebody else. Nothing is announced unless a node was told to (`--announce`).
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from typing import Any

import zenoh

from edgeward.errors import HostError
from edgeward.wire.channel import Channel, Tls

__all__ = ["Found", "discover"]

_NAMING_SECONDS = 2.0
MOST = 256
"""Answers taken at most: anybody on the network can send some."""


@dataclass(frozen=True)
class Found:
    """A node that answered: endpoint such as "tcp/192.168.1.7:7447"; its name, or "" and the reason it told none."""

    endpoint: str
    name: str = ""
    reason: str = ""


def discover(seconds: float = 2.0, tls: Tls | None = None) -> tuple[Found, ...]:
    """The nodes that answer within so many seconds, by name and endpoint. Raises HostError when multicast fails."""
    if not 0.1 <= seconds <= 60:
        raise HostError(f"{seconds:g} s to look for nodes; choose from 0.1 to 60")
    locators: dict[str, None] = {}

    def heard(hello: Any) -> None:
        for locator in hello.locators:
            if len(locators) < MOST:
                locators[str(locator)] = None

    configuration = zenoh.Config()
    configuration.insert_json5("mode", json.dumps("peer"))
    seek: Any = zenoh.scout  # its types know no plain function as a handler
    try:
        scout = seek(heard, what="peer", config=configuration)
        time.sleep(seconds)
        scout.stop()
    except zenoh.ZError as error:
        raise HostError(
            f"nodes cannot be looked for by multicast ({error}); give addresses in the fleet instead"
        ) from error
    named = [_named(endpoint, tls) for endpoint in dict.fromkeys(map(_endpoint, locators)) if endpoint]
    return tuple(sorted(named, key=lambda one: (one.name, one.endpoint)))


def _endpoint(locator: str) -> str:
    """What `Channel` connects to; empty for a locator of another kind or of a link's own address."""
    kind, _, rest = locator.partition("/")
    return f"tcp/{rest.partition('?')[0]}" if kind in ("tcp", "tls") and "%" not in rest else ""


def _named(endpoint: str, tls: Tls | None) -> Found:
    """Ask a node for its name."""
    names: list[str] = []
    told = threading.Event()

    def seen(name: str, here: bool) -> None:
        if here:
            names.append(name)
            told.set()

    try:
        with Channel(connect=[endpoint], tls=tls, timeout=_NAMING_SECONDS) as channel:
            channel.watch(seen)
            told.wait(_NAMING_SECONDS)
    except HostError as error:
        return Found(endpoint, reason=str(error))
    return Found(endpoint, names[0]) if names else Found(endpoint, reason=f"{endpoint} is no edgeward node")
