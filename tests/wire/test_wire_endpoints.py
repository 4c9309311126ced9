"""Endpoints: what is refused before anything is opened, and what is said when a connection fails."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from edgeward.errors import HostError
from edgeward.wire.channel import Channel
from edgeward.wire.endpoints import Endpoint


def free_endpoint(host: str = "127.0.0.1") -> str:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as server:
        port = server.getsockname()[1]
    return f"tcp/[{host}]:{port}" if ":" in host else f"tcp/{host}:{port}"


@pytest.mark.parametrize("text", ["", "tcp/", "tcp/host", "host:0", "host:70000", "udp/host:7447", "tcp/::1:7447", "tcp/[zz]:1", "tcp/[1.2.3.4]:1", "a b:1", "tcp/1.2.3.4:1#iface=lo", "tcp/1.2.3.4:1?rel=0"])  # fmt: skip
def test_malformed_endpoints(text):
    for options in ({"listen": text}, {"connect": [text]}):
        with pytest.raises(HostError, match="is not an endpoint; write tcp/HOST:PORT"):
            Channel(**options)


def test_endpoints_know_what_stays_on_this_machine():
    for text in ("tcp/127.0.0.1:7447", "127.8.8.8:1", "tls/localhost:1", "[::1]:65535"):
        assert Endpoint.parse(text).loopback
    for text in ("0.0.0.0:1", "[::]:1", "192.168.1.7:1", "box.local:1", "localhost.example.org:1"):
        assert not Endpoint.parse(text).loopback
        for options in ({"listen": text}, {"connect": [text]}):
            with pytest.raises(HostError, match="no certificates; make them with `edgeward node cert`"):
                Channel(**options)


def test_ports_taken_and_peers_unreachable():
    endpoint = free_endpoint()
    with Channel(listen=endpoint), pytest.raises(HostError, match=f"{endpoint} cannot be listened on: Address already"):
        Channel(listen=endpoint)
    started = time.monotonic()
    with pytest.raises(HostError, match=f"{endpoint} cannot be reached: Connection refused"):
        Channel(connect=[endpoint], timeout=0.3)
    assert time.monotonic() - started < 4
    with Channel(listen=endpoint):  # one of two is not enough
        missing = free_endpoint()
        with pytest.raises(HostError, match=missing):
            Channel(connect=[endpoint, missing], timeout=0.3)


def test_a_peer_that_starts_within_the_timeout_is_waited_for():
    endpoint, opened = free_endpoint(), []
    starter = threading.Timer(0.5, lambda: opened.append(Channel(listen=endpoint)))
    starter.start()
    with Channel(connect=[endpoint], timeout=5) as channel:
        starter.join()
        opened[0].subscribe("test/late", print)
        deadline = time.monotonic() + 5
        while not channel.listeners("test/late") and time.monotonic() < deadline:
            time.sleep(0.01)
        assert channel.listeners("test/late")
    opened[0].close()
