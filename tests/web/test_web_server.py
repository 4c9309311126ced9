"""The server's life: ports, addresses, stopping."""

from __future__ import annotations

import socket
import threading
import time

import httpx
import pytest
from web_fakebox import FakeBox
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from edgeward.errors import ConfigError
from edgeward.web.server import WebServer


def test_port_zero_takes_a_free_one_and_stop_gives_it_back():
    box = FakeBox()
    with WebServer(box, port=0) as server:
        port = int(server.url.rsplit(":", 1)[1])
        assert port > 0
        assert httpx.get(f"{server.url}/healthz").json() == {"alive": True}
    with WebServer(box, port=port) as again:
        assert httpx.get(f"{again.url}/readyz").status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{again.url}/healthz")


def test_a_taken_port_is_named_with_the_way_out():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port {port} on 127.0.0.1 is in use.*--set web.port="):
            WebServer(FakeBox(), port=port).start()


def test_two_servers_cannot_share_a_port():
    with WebServer(FakeBox(), port=0) as first:
        port = int(first.url.rsplit(":", 1)[1])
        with pytest.raises(ConfigError, match="is in use"):
            WebServer(FakeBox(), port=port).start()
        assert httpx.get(f"{first.url}/healthz").status_code == 200


@pytest.mark.parametrize(
    ("host", "port", "words"),
    [
        ("127.0.0.1", 70000, "0..65535"),
        ("127.0.0.1", -1, "0..65535"),
        ("192.0.2.1", 0, "not an address of this machine"),
        ("no such host", 0, "cannot be resolved"),
    ],
)
def test_bad_addresses_are_config_errors(host, port, words):
    with pytest.raises(ConfigError, match=words):
        WebServer(FakeBox(), host=host, port=port).start()


def test_stop_is_quick_with_a_client_connected_and_ends_the_thread():
    server = WebServer(FakeBox(), port=0)
    server.start()
    with connect(server.url.replace("http", "ws") + "/api/v1/live") as client:
        client.recv(timeout=5)
        start = time.monotonic()
        server.stop(timeout=5)
        assert time.monotonic() - start < 5
        with pytest.raises(ConnectionClosed):
            for _ in range(10):
                client.recv(timeout=5)
    server.stop()
    assert not [thread for thread in threading.enumerate() if thread.name == "edgeward-web"]


def test_requests_are_not_logged(caplog):
    with caplog.at_level("INFO"), WebServer(FakeBox(), port=0) as server:
        httpx.get(f"{server.url}/healthz")
    assert not [record for record in caplog.records if record.name.startswith("uvicorn")]
