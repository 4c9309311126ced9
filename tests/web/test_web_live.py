"""The live WebSocket: shared encodings, flow control, increments, refusals."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time

import pytest
from web_fakebox import FakeBox
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from edgeward.web import live
from edgeward.web.live import FrameHub, pack_frame
from edgeward.web.server import WebServer


@pytest.fixture
def box():
    return FakeBox()


@pytest.fixture
def address(box):
    with WebServer(box, port=0) as server:
        yield server.url.replace("http", "ws") + "/api/v1/live"


def unpack(message: bytes):
    length = int.from_bytes(message[:4], "little")
    return json.loads(message[4 : 4 + length]), message[4 + length :]


def subscribe(socket, *cameras, **more):
    socket.send(json.dumps({"type": "subscribe", "cameras": cameras, **more}))


def listen(socket, seconds, acknowledge=True):
    """Everything that arrives within `seconds`: states, and (header, jpeg) of frames."""
    states, frames, end = [], [], time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        with contextlib.suppress(TimeoutError):
            message = socket.recv(timeout=left)
            if isinstance(message, bytes):
                frames.append(unpack(message))
                ack = {"type": "ack", "camera": frames[-1][0]["camera"]}
            else:
                states.append(json.loads(message))
                ack = {"type": "ack"}
            if acknowledge:
                socket.send(json.dumps(ack))
    return states, frames


def test_a_packed_frame_holds_the_jpeg_and_only_the_labels_in_use(box):
    frame = box.live_frame("yard", -1, 320)
    header, jpeg = unpack(pack_frame("yard", frame))
    assert jpeg == frame.jpeg
    assert (header["camera"], header["width"], header["height"]) == ("yard", 1280, 720)
    overlay = header["overlays"][0]
    assert {int(key) for key in overlay["labels"]} == set(overlay["result"]["class_id"])
    assert overlay["result"]["xyxy"] == frame.overlays[0].result["xyxy"]


def test_embeddings_are_not_sent(box):
    header, _ = unpack(pack_frame("gate", box.live_frame("gate", -1, 320)))
    assert [overlay["result"] for overlay in header["overlays"] if overlay["query"] == "gate-identity"] == [{}]


def test_many_clients_share_one_encoding(box):
    hub = FrameHub(box)

    async def ask():
        return await asyncio.gather(*(hub.frame("gate", 640 + n, -1) for n in range(20)))

    packets = asyncio.run(ask())
    assert box.encodes == 1
    assert all(packet is packets[0] for packet in packets)


def test_clients_out_of_step_still_share(box):
    hub = FrameHub(box)

    async def watch(start):
        index, seen = -1, 0
        await asyncio.sleep(start)
        for _ in range(8):
            packet = await hub.frame("gate", 320, index, fresh=0.6 / 8)
            if packet is not None:
                index, seen = packet.frame_index, seen + 1
            await asyncio.sleep(1 / 8)
        return seen

    async def both():
        return sum(await asyncio.gather(*(watch(start) for start in (0.0, 0.03, 0.06))))

    given = asyncio.run(both())
    assert given >= 18
    assert box.encodes <= given / 2


def test_a_frame_is_given_once_to_who_has_it(box):
    at = [620.0]
    box = FakeBox(now=lambda: at[0])
    hub = FrameHub(box, gap_seconds=0)

    async def ask():
        first = await hub.frame("gate", 640, -1)
        again = await hub.frame("gate", 640, first.frame_index)
        at[0] += 0.1
        later = await hub.frame("gate", 640, first.frame_index)
        return first, again, later

    first, again, later = asyncio.run(ask())
    assert again is None
    assert later.frame_index > first.frame_index
    assert box.encodes == 2


def test_a_late_client_of_a_stopped_camera_gets_its_last_frame_with_true_ages(monkeypatch):
    box = FakeBox(now=lambda: 620.0)
    hub = FrameHub(box, gap_seconds=0)
    monkeypatch.setattr(live, "STALE_SECONDS", 0.05)

    async def ask():
        first = await hub.frame("gate", 640, -1)
        await asyncio.sleep(0.1)
        return first, await hub.frame("gate", 640, first.frame_index), await hub.frame("gate", 640, -1)

    first, same_client, late_client = asyncio.run(ask())
    assert same_client is None
    assert late_client.frame_index == first.frame_index
    assert late_client is not first, "overlays must be asked for again: their ages have changed"


def test_subscription_brings_frames_of_just_those_cameras(address):
    with connect(address) as socket:
        subscribe(socket, "gate", "hall", max_width=330, fps=8)
        states, frames = listen(socket, 2.0)
        subscribe(socket, "yard", max_width=330, fps=8)
        listen(socket, 0.5)
        _, after = listen(socket, 0.7)
    assert 3 <= len(states) <= 6
    assert {header["camera"] for header, _ in frames} == {"gate", "hall"}
    assert {header["camera"] for header, _ in after} == {"yard"}
    for camera in ("gate", "hall"):
        indices = [header["frame_index"] for header, _ in frames if header["camera"] == camera]
        assert indices == sorted(set(indices))
        assert 3 <= len(indices) <= 2.0 * 8 + 2
    assert all(jpeg.startswith(b"\xff\xd8") for _, jpeg in frames)


def test_a_client_that_does_not_answer_gets_one_state_and_two_frames(address, box):
    with connect(address) as socket:
        subscribe(socket, "gate", fps=15)
        states, frames = listen(socket, 1.5, acknowledge=False)
        encodes = box.encodes
        assert (len(states), len(frames)) == (1, 2)
        socket.send(json.dumps({"type": "ack", "camera": "gate"}))
        _, more = listen(socket, 0.7, acknowledge=False)
        assert len(more) == 1
        newest = int(box.now() * 25)
        assert newest - more[0][0]["frame_index"] < 40, "the newest frame, not one from a queue"
        assert box.encodes <= encodes + 1, "nothing is encoded for nobody"


def test_spans_and_events_come_completely_and_once(address, box):
    with connect(address) as socket:
        states, _ = listen(socket, 2.6)
    spans = [span for state in states for span in state["spans"]]
    keys = [(span["lane"], span["start_seconds"]) for span in spans]
    assert len(keys) == len(set(keys))
    last = states[-1]["report"]["uptime_seconds"]
    first = states[0]["report"]["uptime_seconds"] - 29.5
    expected = {
        (span.lane, span.start_seconds)
        for span in box.timeline(first)
        if span.start_seconds + span.seconds < last - 0.05
    }
    assert expected <= set(keys)
    events = [event["id"] for state in states for event in state["events"]]
    assert len(events) == len(set(events))
    assert len(states[0]["events"]) == live.FIRST_EVENTS


def test_an_unknown_camera_is_told_and_the_others_come(address):
    with connect(address) as socket:
        subscribe(socket, "gat", "gate")
        heard = [socket.recv(timeout=5) for _ in range(3)]
    problems = [json.loads(m) for m in heard if isinstance(m, str) and '"error"' in m]
    assert problems == [{"type": "error", "detail": "no camera 'gat'; did you mean 'gate'?"}]
    assert any(isinstance(m, bytes) for m in heard)


@pytest.mark.parametrize(
    "nonsense",
    ["", "{}", "[]", '{"type":"subscribe"}', '{"type":"subscribe","cameras":["gate"],"fps":1000}', b"\x00\xff"],
)
def test_nonsense_closes_the_connection_with_a_reason(address, nonsense):
    with connect(address) as socket:
        socket.send(nonsense)
        with pytest.raises(ConnectionClosed) as closed:
            for _ in range(20):
                socket.recv(timeout=5)
    assert closed.value.rcvd.code == 1008
    assert "subscribe" in closed.value.rcvd.reason


def test_a_huge_message_is_refused(address):
    with connect(address) as socket:
        socket.send("x" * (1 << 17))
        with pytest.raises(ConnectionClosed) as closed:
            for _ in range(20):
                socket.recv(timeout=5)
    assert closed.value.rcvd is None or closed.value.rcvd.code == 1009


def test_one_client_too_many_is_asked_to_come_later(address, monkeypatch):
    monkeypatch.setattr(live, "MAX_CLIENTS", 2)
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(connect(address))
        stack.enter_context(connect(address)).recv(timeout=5)
        first.recv(timeout=5)
        with connect(address) as third, pytest.raises(ConnectionClosed) as closed:
            third.recv(timeout=5)
        assert closed.value.rcvd.code == 1013
        first.close()
        time.sleep(0.3)
        with connect(address) as fourth:
            assert json.loads(fourth.recv(timeout=5))["type"] == "state"
