"""Who is let in, and what the answers forbid."""

from __future__ import annotations

import string

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from starlette.websockets import WebSocketDisconnect
from web_fakebox import FakeBox

from edgeward.web.app import create_app
from edgeward.web.security import host_allowed, origin_allowed

names = st.text(string.ascii_lowercase + string.digits + ".-", min_size=1, max_size=40)


@pytest.fixture
def client():
    with TestClient(create_app(FakeBox()), base_url="http://localhost:8080") as client:
        yield client


@given(names, st.sampled_from(["127.0.0.1", "0.0.0.0", "::", "192.168.1.5"]), st.sampled_from(["", ":80", ":8080"]))
def test_no_foreign_name_is_ever_this_box(name, bound, port):
    host = f"{name}.evil.example{port}"
    assert not host_allowed(host, bound)
    assert not host_allowed(f"localhost.{host}", bound)


@pytest.mark.parametrize(
    ("host", "bound", "allowed"),
    [
        ("localhost", "127.0.0.1", True),
        ("LOCALHOST:8080", "127.0.0.1", True),
        ("[::1]:8080", "127.0.0.1", True),
        ("127.0.0.1:1", "127.0.0.1", True),
        ("192.168.1.5:8080", "127.0.0.1", False),
        ("192.168.1.5:8080", "192.168.1.5", True),
        ("192.168.1.6:8080", "192.168.1.5", False),
        ("192.168.1.6:8080", "0.0.0.0", True),
        ("box.lan", "box.lan", True),
        ("box.lan", "0.0.0.0", False),
        ("0.0.0.0", "0.0.0.0", True),
        ("", "0.0.0.0", False),
        (None, "127.0.0.1", False),
        ("[::1", "127.0.0.1", False),
        ("localhost@evil.example", "127.0.0.1", False),
    ],
)
def test_hosts(host, bound, allowed):
    assert host_allowed(host, bound) is allowed


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        (None, "localhost:8080", True),
        ("http://localhost:8080", "localhost:8080", True),
        ("http://localhost:9999", "localhost:8080", False),
        ("http://evil.example", "localhost:8080", False),
        ("null", "localhost:8080", False),
        ("", "", False),
        ("file://localhost:8080", "localhost:8080", False),
    ],
)
def test_origins(origin, host, allowed):
    assert origin_allowed(origin, host) is allowed


@pytest.mark.parametrize("path", ["/", "/api/v1/report", "/metrics", "/healthz", "/static/main.js"])
def test_a_rebound_name_gets_nothing(client, path):
    answer = client.get(path, headers={"host": "evil.example:8080"})
    assert answer.status_code == 403
    assert "http://localhost" in answer.json()["detail"]


@pytest.mark.parametrize("headers", [{"origin": "http://evil.example"}, {"host": "evil.example"}])
def test_a_foreign_page_gets_no_socket(client, headers):
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/api/v1/live", headers=headers):
        pass


def test_our_own_page_gets_a_socket(client):
    with client.websocket_connect(
        "/api/v1/live", headers={"origin": "http://localhost", "host": "localhost"}
    ) as socket:
        assert socket.receive_json()["type"] == "state"


@pytest.mark.parametrize(
    "path", ["/", "/api/v1/report", "/api/v1/cameras/gate/frame.jpg", "/static/main.js", "/nothing"]
)
def test_every_answer_carries_the_policy(client, path):
    headers = client.get(path).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in headers


def test_static_files_stay_in_their_folder(client):
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static//etc/passwd", "/static/..%2fapp.py"):
        assert client.get(path).status_code == 404
