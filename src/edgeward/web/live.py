"""Live data over one WebSocket: state twice a second, frames as fast as the client takes them.

    app.add_api_websocket_route("/api/v1/live", live_endpoint(box))

The client sends `{"type": "subscribe", "cameras": ["gate"], "max_width": 640, "fps": 8}` at any time, and
answers every message with `{"type": "ack"}` (state) or `{"type": "ack", "camera": "gate"}` (frame).
At most one state and two frames of a camera are unanswered; what a slow client misses is never made,
so nothing queues: whenever it is ready it gets the newest.

State is JSON text: `{"type": "state", "report": ..., "spans": [...], "events": [...]}` where spans and
events are those the client has not had. A frame is binary: a little-endian uint32 n, n bytes of JSON
header (camera, frame_index, width, height, overlays), then the JPEG.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import anyio
import anyio.to_thread
from fastapi import WebSocket, WebSocketDisconnect
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from edgeward.errors import nearest
from edgeward.serve.report import BoxView, EventItem, LiveFrame, Overlay, Span

__all__ = ["Ack", "FrameHub", "Subscribe", "live_endpoint", "pack_frame"]

MAX_CLIENTS = 32
STATE_SECONDS = 0.5
SEND_SECONDS = 20.0
FRAMES_IN_FLIGHT = 2
STALE_SECONDS = 1.0
FIRST_SPAN_SECONDS = 30.0
FIRST_EVENTS = 30
WIDTHS = (160, 320, 480, 640, 960, 1280, 1920)
"""Widths in which frames are encoded: few, so that clients with similar windows share one encoding."""


class Subscribe(BaseModel):
    """Which cameras a client wants to see, how wide (pixels) and how often; replaces the last subscription."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["subscribe"]
    cameras: list[Annotated[str, Field(max_length=200)]] = Field(max_length=256)
    max_width: int = Field(640, ge=16, le=4096)
    fps: float = Field(8, gt=0, le=15)


class Ack(BaseModel):
    """The client is done with the oldest unanswered frame of `camera`, or with the state."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["ack"]
    camera: str | None = None


_message: TypeAdapter[Subscribe | Ack] = TypeAdapter(Annotated[Subscribe | Ack, Field(discriminator="type")])
_spans = TypeAdapter(list[Span])
_events = TypeAdapter(list[EventItem])


def pack_frame(camera: str, live: LiveFrame) -> bytes:
    """A frame as it goes over the wire. Embeddings are left out: there is nothing to draw."""
    header = {
        "camera": camera,
        "frame_index": live.frame_index,
        "width": live.width,
        "height": live.height,
        "overlays": [_drawable(overlay) for overlay in live.overlays],
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    return len(text).to_bytes(4, "little") + text + live.jpeg


def _drawable(overlay: Overlay) -> dict[str, Any]:
    """An overlay with the names of just the classes that occur in it."""
    result = {key: value for key, value in overlay.result.items() if key != "vector"}
    used = {int(index) for index in result.get("class_id", ())}
    record = overlay.model_dump(mode="json", exclude={"result", "labels"})
    labels = {index: overlay.labels[index] for index in sorted(used) if 0 <= index < len(overlay.labels)}
    return {**record, "result": result, "labels": labels}


@dataclass(frozen=True)
class _Packet:
    made: float
    frame_index: int
    payload: bytes


class FrameHub:
    """What all clients share: one encoding per camera and width, one report per quarter second.

    `gap_seconds` bounds how often a camera is encoded in one width, whoever asks.
    """

    def __init__(self, box: BoxView, gap_seconds: float = 1 / 30) -> None:
        self.box = box
        self.clients = 0
        self._gap = gap_seconds
        self._packets: dict[tuple[str, int], _Packet] = {}
        self._asked: dict[tuple[str, int], float] = {}
        self._locks: dict[tuple[str, int], asyncio.Lock] = {}
        self._report = (0.0, "")

    async def frame(self, camera: str, max_width: int, after_index: int, fresh: float = 0.1) -> _Packet | None:
        """A frame at most `max_width` wide, or None when there is none newer than `after_index`.

        One that another client was given up to `fresh` seconds ago is good enough. Raises KeyError for no
        such camera.
        """
        key = camera, WIDTHS[max(0, bisect.bisect_right(WIDTHS, max_width) - 1)]
        async with self._locks.setdefault(key, asyncio.Lock()):
            packet = self._packets.get(key)
            if packet is not None and time.monotonic() - packet.made > STALE_SECONDS:
                packet = None  # the ages of its overlays are no longer true
            shareable = packet is not None and packet.frame_index > after_index
            if time.monotonic() - self._asked.get(key, 0.0) >= (max(fresh, self._gap) if shareable else self._gap):
                last = packet.frame_index if packet else after_index
                fetched = await anyio.to_thread.run_sync(self._fetch, *key, last)
                self._asked[key] = time.monotonic()
                if fetched is not None:
                    packet = self._packets[key] = fetched
        return packet if packet and packet.frame_index > after_index else None

    def _fetch(self, camera: str, width: int, after_index: int) -> _Packet | None:
        live = self.box.live_frame(camera, after_index, width)
        return None if live is None else _Packet(time.monotonic(), live.frame_index, pack_frame(camera, live))

    def report_json(self) -> str:
        """The report, at most a quarter second old."""
        at, text = self._report
        if not text or time.monotonic() - at > STATE_SECONDS / 2:
            text = self.box.report().model_dump_json()
            self._report = time.monotonic(), text
        return text


class _Session:
    """One client: a reader that notes what it wants, a writer that sends what is due."""

    def __init__(self, websocket: WebSocket, hub: FrameHub) -> None:
        self._socket = websocket
        self._hub = hub
        self._wanted = Subscribe(type="subscribe", cameras=[])
        self._problem: str | None = None
        self._changed = asyncio.Event()
        self._in_flight: Counter[str | None] = Counter()
        self._due: dict[str | None, float] = {None: 0.0}
        self._sent_index: dict[str, int] = {}
        self._spans_until: float | None = None
        self._spans_sent: set[tuple[str, float, str | None]] = set()
        self._last_event = -1

    async def read(self) -> None:
        """Take messages until the client leaves; one that makes no sense closes the connection."""
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            try:
                parsed = _message.validate_json(message.get("text") or "")
            except ValidationError as error:
                reason = f'expected {{"type": "subscribe" or "ack", ...}}: {error.errors()[0]["msg"]}'
                await self._socket.close(1008, reason[:120])
                return
            if isinstance(parsed, Ack):
                if self._in_flight[parsed.camera] > 0:  # (reading a Counter adds no key)
                    self._in_flight[parsed.camera] -= 1
            else:
                await self._subscribe(parsed)
            self._changed.set()

    async def _subscribe(self, wanted: Subscribe) -> None:
        report = await anyio.to_thread.run_sync(self._hub.box.report)
        known = {camera.name for camera in report.cameras}
        unknown = [name for name in wanted.cameras if name not in known]
        if unknown:
            self._problem = f"no camera {unknown[0]!r}; {nearest(unknown[0], known)}"
        cameras = [name for name in dict.fromkeys(wanted.cameras) if name in known]
        if wanted.max_width != self._wanted.max_width:
            self._sent_index.clear()  # the frame that is shown is worth having again, sharper
        self._wanted = wanted.model_copy(update={"cameras": cameras})

    async def write(self) -> None:
        """Send what is due and not held back by unanswered messages, for ever."""
        while True:
            self._changed.clear()
            if self._problem is not None:
                problem, self._problem = self._problem, None
                await self._send(self._socket.send_text(json.dumps({"type": "error", "detail": problem})))
            if self._ready(None):
                self._mark(None, STATE_SECONDS)
                self._in_flight[None] += 1
                await self._send(self._socket.send_text(await anyio.to_thread.run_sync(self._state)))
            for camera in self._wanted.cameras:
                if self._ready(camera):
                    await self._send_frame(camera)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), self._pause())

    def _ready(self, what: str | None) -> bool:
        limit = 1 if what is None else FRAMES_IN_FLIGHT
        return self._in_flight[what] < limit and time.monotonic() >= self._due.get(what, 0.0)

    def _mark(self, what: str | None, period: float) -> None:
        now = time.monotonic()
        self._due[what] = max(self._due.get(what, 0.0) + period, now + period / 2)

    def _pause(self) -> float:
        """Seconds until something that is not held back is due."""
        waiting = [what for what in (None, *self._wanted.cameras) if not self._held_back(what)]
        due = min((self._due.get(what, 0.0) for what in waiting), default=time.monotonic() + STATE_SECONDS)
        return min(max(due - time.monotonic(), 0.002), STATE_SECONDS)

    def _held_back(self, what: str | None) -> bool:
        return self._in_flight[what] >= (1 if what is None else FRAMES_IN_FLIGHT)

    async def _send_frame(self, camera: str) -> None:
        period = 1 / self._wanted.fps
        self._mark(camera, period)
        index = self._sent_index.get(camera, -1)
        packet = await self._hub.frame(camera, self._wanted.max_width, index, fresh=0.6 * period)
        if packet is not None:
            self._sent_index[camera] = packet.frame_index
            self._in_flight[camera] += 1
            await self._send(self._socket.send_bytes(packet.payload))

    async def _send(self, sending: Awaitable[None]) -> None:
        """Send under a time limit, so that a client that stopped reading is let go."""
        async with asyncio.timeout(SEND_SECONDS):
            await sending

    def _state(self) -> str:
        spans = _spans.dump_json(self._new_spans()).decode()
        events = _events.dump_json(self._new_events()).decode()
        return f'{{"type":"state","report":{self._hub.report_json()},"spans":{spans},"events":{events}}}'

    def _new_spans(self) -> list[Span]:
        """Spans not sent yet. Asks a second back: the lanes end their spans independently of each other."""
        until = self._spans_until
        if until is None:
            until = self._hub.box.report().uptime_seconds - FIRST_SPAN_SECONDS
        window = {(span.lane, span.start_seconds, span.model): span for span in self._hub.box.timeline(until)}
        spans = [span for key, span in window.items() if key not in self._spans_sent]
        self._spans_sent = set(window)
        self._spans_until = max([until, *(span.start_seconds + span.seconds - 1.0 for span in spans)])
        return spans

    def _new_events(self) -> list[EventItem]:
        limit = FIRST_EVENTS if self._last_event < 0 else 100
        events = [event for event in self._hub.box.events(limit) if event.id > self._last_event]
        self._last_event = max((event.id for event in events), default=self._last_event)
        return events


def live_endpoint(box: BoxView) -> Callable[[WebSocket], Awaitable[None]]:
    """The handler of the live WebSocket; all its clients share one `FrameHub`."""
    hub = FrameHub(box)

    async def live(websocket: WebSocket) -> None:
        await websocket.accept()
        if hub.clients >= MAX_CLIENTS:
            await websocket.close(1013, f"{MAX_CLIENTS} clients are connected already; close one and try again")
            return
        hub.clients += 1
        try:
            await _serve(_Session(websocket, hub))
        finally:
            hub.clients -= 1

    return live


async def _serve(session: _Session) -> None:
    """Run both halves until either ends."""
    tasks = [asyncio.create_task(session.read()), asyncio.create_task(session.write())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        with contextlib.suppress(WebSocketDisconnect, TimeoutError, asyncio.CancelledError):
            task.result()
