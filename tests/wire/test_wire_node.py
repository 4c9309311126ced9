"""Nodes over Zenoh: orders, forwarding, deaths and returns, certificates; on loopback, in processes of their own."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from edgeward.errors import HostError
from edgeward.graph.chain import cut
from edgeward.graph.onnx import export_chain
from edgeward.wire.certificates import make_authority, make_certificate, tls_files
from edgeward.wire.channel import Channel
from edgeward.wire.messages import Message, TensorPart, joined, pack
from edgeward.wire.node import MAX_WAITING, Node, orders_key
from edgeward.wire.package import onnx_package
from edgeward.wire.packing import IDENTITY, unpack
from edgeward.wire.remote import Exchange
from edgeward.wire.server import StageServer
from edgeward.zoo.reference import build

CHAIN = cut(build("cifar-resnet20").eval(), torch.rand(1, 3, 32, 32))
PIECES = export_chain(CHAIN)
LAST = len(CHAIN) - 1
IMAGE = np.random.default_rng(0).random((1, 3, 32, 32), np.float32)
NODE = """
import sys, time
from pathlib import Path
from edgeward.wire.certificates import tls_files
from edgeward.wire.node import Node
from edgeward.wire.server import StageServer
name, listen, certs = sys.argv[1:4]
node = Node(StageServer(name), listen, tls_files(Path(certs), name) if certs else None)
print("ready", flush=True)
sys.stdin.read()
node.close()
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextlib.contextmanager
def process(name, port, certs=""):
    running = subprocess.Popen(
        [sys.executable, "-c", NODE, name, f"tcp/127.0.0.1:{port}", str(certs)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert running.stdout.readline() == "ready\n"
        yield running
    finally:
        running.kill()
        running.wait()


def package(first, last):
    return onnx_package(CHAIN, PIECES, "resnet20", first, last)


def expected():
    with torch.no_grad():
        return CHAIN(torch.from_numpy(IMAGE)).numpy()


def deployed(exchange, name, first, last):
    host = exchange.host(name)
    assert exchange.wait_for(name, 20)
    made = package(first, last)
    assert host.run(made.to_message()).result(30).kind == "result"
    return host, made.stage_id


def test_a_stretch_goes_on_from_node_to_node_and_its_answer_comes_straight_back(tmp_path):
    ports = {"edge": free_port(), "cloud": free_port()}
    endpoints = {name: f"tcp/127.0.0.1:{port}" for name, port in ports.items()}
    with process("edge", ports["edge"]) as edge, process("cloud", ports["cloud"]) as cloud:
        exchange = Exchange(endpoints)
        seen = []
        exchange.watch(lambda name, here: seen.append((name, here)))
        first, one = deployed(exchange, "edge", 0, 4)
        _, two = deployed(exchange, "cloud", 5, LAST)
        route = [{"host": "edge", "stage": one}, {"host": "cloud", "stage": two, "endpoint": endpoints["cloud"]}]
        run = Message("run", {"route": route}, IDENTITY.pack([IMAGE]))
        for _ in range(3):
            answer = first.run(run).result(20)
            assert answer.kind == "result", answer.meta
            np.testing.assert_allclose(unpack(answer.tensors)[0], expected(), atol=1e-4)
            assert [step["host"] for step in answer.meta["trace"]] == ["edge", "cloud"]
        # A death on the way is noticed where it was ordered, though another node was told.
        cloud.kill()
        start = time.monotonic()
        waiting = first.run(run)
        with pytest.raises(HostError, match="cloud"):
            answer = waiting.result(10)
            raise HostError(answer.meta["message"])
        assert time.monotonic() - start < 8
        edge.kill()
        deadline = time.monotonic() + 5
        while exchange.present("edge") and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(HostError, match="is not there"):
            first.run(run).result(5)
        with process("edge", ports["edge"]):
            assert exchange.wait_for("edge", 10)
            first, one = deployed(exchange, "edge", 0, LAST)
            answer = first.run(Message("run", {"route": [{"host": "edge", "stage": one}]}, run.tensors)).result(20)
            np.testing.assert_allclose(unpack(answer.tensors)[0], expected(), atol=1e-4)
        assert ("edge", False) in seen
        exchange.close()


def test_orders_pass_only_between_holders_of_certificates(tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        make_authority(folder)
        for name in ("edge", "pi"):
            make_certificate(folder, name, ["127.0.0.1"])
    port = free_port()
    endpoints = {"edge": f"tcp/127.0.0.1:{port}"}
    with process("edge", port, ours):
        trusted = Exchange(endpoints, tls_files(ours, "pi"))
        host, stage = deployed(trusted, "edge", 0, LAST)
        answer = host.run(Message("run", {"route": [{"host": "edge", "stage": stage}]}, IDENTITY.pack([IMAGE])))
        np.testing.assert_allclose(unpack(answer.result(20).tensors)[0], expected(), atol=1e-4)
        for tls in (tls_files(theirs, "pi"), None):
            stranger = Exchange(endpoints, tls)
            assert not stranger.wait_for("edge", 3.0)
            assert stranger.obstacles["edge"]
            with pytest.raises(HostError, match="not there"):
                stranger.host("edge").run(Message("describe")).result(5)
            stranger.close()
        trusted.close()


def test_beyond_loopback_a_node_needs_certificates():
    with pytest.raises(HostError, match="edgeward node cert"):
        Node(StageServer("edge"), "tcp/0.0.0.0:17447")


def test_damaged_repeated_and_nameless_messages_are_dropped_and_the_node_lives_on():
    notes = []
    listen = f"tcp/127.0.0.1:{free_port()}"
    node = Node(StageServer("edge"), listen, note=notes.append)
    exchange = Exchange({"edge": listen})
    try:
        assert exchange.wait_for("edge", 10)
        with Channel(connect=[listen]) as raw:
            key = orders_key("edge")
            good = bytes(joined(pack(Message("describe", {"sender": "abc"}, sequence=5))))
            damaged = bytearray(good)
            damaged[-70] ^= 0xFF
            for data in (b"", b"x" * 200, good[:-1], bytes(damaged), good, good):
                raw.publish(key, [data])
            raw.publish(key, pack(Message("describe", {}, sequence=6)))
            deadline = time.monotonic() + 10
            while len(notes) < 6 and time.monotonic() < deadline:
                time.sleep(0.02)
        assert len(notes) == 6, notes
        assert all("refused" in note for note in notes)
        assert exchange.host("edge").run(Message("describe")).result(10).meta["name"] == "edge"
    finally:
        exchange.close()
        node.close()


def test_a_flood_is_refused_and_what_fits_is_answered():
    class Slow(StageServer):
        def handle(self, order):
            if order.kind == "describe":
                time.sleep(0.02)
            return super().handle(order)

    listen = f"tcp/127.0.0.1:{free_port()}"
    node = Node(Slow("edge"), listen)
    exchange = Exchange({"edge": listen})
    try:
        assert exchange.wait_for("edge", 10)
        host = exchange.host("edge")
        answers = [host.run(Message("describe")) for _ in range(3 * MAX_WAITING)]
        quick = host.run(Message("ping", {}, (TensorPart("identity", "U8", (4,), memoryview(b"ping")),)))
        kinds = [answer.result(30).kind for answer in answers]
        assert quick.result(30).meta["now"] > 0
        assert set(kinds) == {"result", "error"}
        assert kinds.count("result") >= MAX_WAITING
    finally:
        exchange.close()
        node.close()
