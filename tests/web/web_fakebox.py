"""A box that exists only on paper: moving, seeded content behind the BoxView protocol.

FakeBox().report().queries[0].in_time_fraction
"""

from __future__ import annotations

import bisect
import math
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from edgeward.serve.report import (
    BoxReport,
    CameraReport,
    EventItem,
    LiveFrame,
    MemoryReport,
    MemoryShare,
    ModelReport,
    Overlay,
    QueryReport,
    Span,
    ZoneReport,
)

MIB = 1 << 20
MODELS = {  # bytes, seconds of a call, share of the work, task
    "people-ssd": (int(18.2 * MIB), 0.021, 0.45, "detection"),
    "vehicles": (int(31.4 * MIB), 0.034, 0.3, "detection"),
    "helmets": (int(12.6 * MIB), 0.009, 0.15, "classification"),
    "reid": (int(3.4 * MIB), 0.005, 0.1, "embedding"),
}
BUDGET = 48 * MIB
CAMERAS = {"gate": (1280, 720, 25.0), "yard": (1280, 720, 15.0), "hall": (768, 576, 25.0), "dock": (1280, 720, 12.5)}
QUERIES = (  # name, camera, model, rate, deadline, fraction in time
    ("gate-people", "gate", "people-ssd", None, 0.2, 0.983),
    ("gate-identity", "gate", "reid", 2.0, 1.0, 0.999),
    ("yard-vehicles", "yard", "vehicles", 10.0, 0.3, 0.941),
    ("hall-people", "hall", "people-ssd", 10.0, 0.2, 0.976),
    ("hall-helmets", "hall", "helmets", 1.0, 1.0, 1.0),
    ("dock-vehicles", "dock", "vehicles", 5.0, 0.5, 0.62),
)
LABELS = {"people-ssd": ("person",), "vehicles": ("car", "truck", "forklift"), "helmets": ("helmet", "no helmet")}
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25)


class FakeBox:
    """A BoxView. `now` gives its seconds since start; `mark` is appended to every name and text (hostile markup)."""

    def __init__(self, seed: int = 0, now: Callable[[], float] | None = None, mark: str = "") -> None:
        start = time.monotonic() - 600.0
        self.now = now or (lambda: time.monotonic() - start)
        self.mark = mark
        self.status = "running"
        self.encodes = 0
        self.down: set[str] = {"dock"}
        self.started_at = time.time() - self.now()
        self._work = _Work(random.Random(seed), max(0.0, self.now() - 40.0))
        self._lock = threading.Lock()

    def report(self) -> BoxReport:
        t = self.now()
        with self._lock:
            self._work.advance(t)
            resident = tuple(self._work.resident)
        cameras = tuple(self._camera(name, t) for name in CAMERAS)
        shares = tuple(MemoryShare(model=name + self.mark, bytes=MODELS[name][0]) for name in resident)
        used = sum(share.bytes for share in shares)
        queries = tuple(self._query(i, t) for i in range(len(QUERIES)))
        return BoxReport(
            version="0.1.0",
            status=self.status,
            device="Intel N100, 3 threads" + self.mark,
            policy="edf-lru",
            started_at=self.started_at,
            uptime_seconds=t,
            throughput_fps=sum(query.fps for query in queries),
            cameras=cameras,
            models=tuple(self._model(name, t, name in resident) for name in MODELS),
            queries=queries,
            memory=MemoryReport(
                budget_bytes=BUDGET, resident_bytes=used, shares=shares, process_bytes=used + 171 * MIB
            ),
        )

    def _camera(self, name: str, t: float) -> CameraReport:
        width, height, fps = CAMERAS[name]
        down = name in self.down
        return CameraReport(
            name=name + self.mark,
            source=f"rtsp://10.0.0.{len(name) + len(self.mark) % 7}/{name}" + self.mark,
            status="retrying" if down else "live",
            detail=f"Connection refused by 10.0.0.14:554; trying again in {5 - int(t) % 5} s{self.mark}"
            if down
            else "",
            width=width,
            height=height,
            fps=0.0 if down else fps + 0.3 * math.sin(t),
            frames=int(fps * t) if not down else 4210,
            skipped=int(0.02 * fps * t),
            last_frame_age_seconds=41.0 + t % 20 if down else 0.02 + 0.01 * math.sin(3 * t),
        )

    def _model(self, name: str, t: float, resident: bool) -> ModelReport:
        size, seconds, share, task = MODELS[name]
        calls = int(t * share * 22)
        return ModelReport(
            name=name + self.mark,
            task=task,
            status="resident" if resident else "absent",
            detail="",
            bytes=size,
            loads=self._work.count["load", name] + 40,
            evictions=self._work.count["evict", name] + 39,
            inferences=calls,
            frames=int(calls * 1.6),
            seconds_median=seconds,
            seconds_p95=seconds * 1.35,
            load_seconds_median=size / (240 * MIB),
            seconds_sum=1.5,
            seconds_histogram=tuple((b, int(calls * min(1.0, max(0.0, (b / seconds) - 0.6)))) for b in BOUNDS),
        )

    def _query(self, index: int, t: float) -> QueryReport:
        name, camera, model, rate, deadline, fraction = QUERIES[index]
        down = camera in self.down
        fps = 0.0 if down else (rate or CAMERAS[camera][2]) * fraction + 0.4 * math.sin(t / 2 + index)
        due = int((rate or CAMERAS[camera][2]) * (t if not down else 300))
        waiting = 0 if down else int(1.5 + 1.5 * math.sin(t * 1.7 + index))
        in_time = int((due - waiting) * fraction)
        late = int((due - waiting - in_time) * 0.3)
        zones = (
            ZoneReport(name="forecourt" + self.mark, entered=12 + int(t / 9), left=10 + int(t / 9), inside=2),
            ZoneReport(name="doorway", entered=7 + int(t / 17), left=7 + int(t / 17), inside=int(t / 5) % 2),
        )
        return QueryReport(
            name=name + self.mark,
            camera=camera + self.mark,
            model=model + self.mark,
            task=MODELS[model][3],
            rate=rate,
            deadline_seconds=deadline,
            due=due,
            in_time=in_time,
            late=late,
            skipped=due - waiting - in_time - late,
            waiting=waiting,
            in_time_fraction=fraction + 0.004 * math.sin(t / 3 + index) if fraction < 0.995 else fraction,
            fps=max(0.0, fps),
            staleness_seconds=(41.0 + t % 20) if down else 0.06 + 0.04 * abs(math.sin(t + index)),
            zones=zones if name == "gate-people" else (),
            accuracy={"ap50": 0.613, "precision": 0.87} if name == "hall-people" else None,
        )

    def timeline(self, since_seconds: float) -> list[Span]:
        t = self.now()
        with self._lock:
            self._work.advance(t)
            spans = list(self._work.spans)
        return [
            span.model_copy(update={"model": span.model + self.mark if span.model else None})
            for span in sorted(spans, key=lambda span: span.start_seconds + span.seconds)
            if max(since_seconds, t - 120) < span.start_seconds + span.seconds <= t
        ]

    def events(self, limit: int = 50, before_id: int | None = None) -> list[EventItem]:
        newest = int(self.now() / 4)
        first = newest if before_id is None else min(newest, before_id - 1)
        return [self._event(i) for i in range(first, max(0, first - limit), -1)]

    def _event(self, i: int) -> EventItem:
        kind, camera, query, text = (
            ("appeared", "gate", "gate-people", f"person #{i} appeared"),
            ("entered", "gate", "gate-people", f"person #{i - 1} entered forecourt"),
            ("appeared", "yard", "yard-vehicles", f"forklift #{i % 90} appeared"),
            ("left", "gate", "gate-people", f"person #{i - 3} left doorway"),
            ("camera", "dock", None, "dock is retrying: connection refused"),
        )[i % 5]
        at = self.started_at + 4 * i
        return EventItem(
            id=i,
            at=at,
            kind=kind,
            camera=camera + self.mark,
            query=query and query + self.mark,
            text=text + self.mark,
            thumbnail=kind in ("appeared", "entered"),
        )

    def thumbnail(self, event_id: int) -> bytes | None:
        if not 0 < event_id <= self.now() / 4 or not self._event(event_id).thumbnail:
            return None
        camera = "yard" if event_id % 5 == 2 else "gate"
        things = _things(camera, 4.0 * event_id)
        x1, y1, x2, y2 = (int(v) for v in things[event_id % len(things)][0])
        picture = _picture(camera, 4.0 * event_id)
        side = max(x2 - x1, y2 - y1, 60)
        top, left = max(0, (y1 + y2 - side) // 2), max(0, (x1 + x2 - side) // 2)
        return _jpeg(cv2.resize(picture[top : top + side, left : left + side], (128, 128)))

    def live_frame(self, camera: str, after_index: int = -1, max_width: int = 960) -> LiveFrame | None:
        name = camera.removesuffix(self.mark) if self.mark else camera
        if name not in CAMERAS or camera != name + self.mark:
            raise KeyError(camera)
        width, height, fps = CAMERAS[name]
        index = int(self.now() * fps)
        if name in self.down or index <= after_index:
            return None
        self.encodes += 1
        t = index / fps
        picture = _picture(name, t)
        scale = min(1.0, max_width / width)
        if scale < 1:
            picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        overlays = tuple(self._overlay(query[0], name, query[2], t) for query in QUERIES if query[1] == name)
        return LiveFrame(frame_index=index, width=width, height=height, jpeg=_jpeg(picture), overlays=overlays)

    def _overlay(self, query: str, camera: str, model: str, t: float) -> Overlay:
        age = 0.05 if camera != "yard" else 0.2 + 0.9 * (math.sin(t / 2) > 0.7)
        result: dict[str, Any]
        if model == "helmets":
            result = {"class_id": [0, 1], "top": [0.93, 0.07]}
        elif model == "reid":
            result = {"vector": [0.0625] * 256}
        else:
            things = _things(camera, t - age)
            result = {
                "xyxy": [[round(v, 1) for v in box] for box, _, _ in things],
                "confidence": [0.62 + 0.07 * (i % 5) for i in range(len(things))],
                "class_id": [kind for _, kind, _ in things],
                "tracker_id": [track for _, _, track in things],
            }
        zones = {
            "forecourt" + self.mark: ((330.0, 420.0), (960.0, 400.0), (1130.0, 690.0), (180.0, 700.0)),
            "doorway": ((60.0, 300.0), (220.0, 295.0), (235.0, 560.0), (70.0, 580.0)),
        }
        return Overlay(
            query=query + self.mark,
            frame_index=int(t * 10),
            age_seconds=age,
            result=result,
            labels=tuple(label + self.mark for label in LABELS.get(model, ())),
            zones=zones if query == "gate-people" else {},
        )

    def detections(self, query: str, limit: int = 100, before_at: float | None = None) -> list[dict[str, Any]]:
        found = [q for q in QUERIES if q[0] + self.mark == query]
        if not found:
            raise KeyError(query)
        newest = self.now() if before_at is None else before_at
        last = math.ceil(newest * 10) - 1
        return [
            {"at": i / 10, "frame_index": i, "result": self._overlay(query, found[0][1], found[0][2], i / 10).result}
            for i in range(last, max(-1, last - limit), -1)
        ]


class _Work:
    """What processor and loader did: models come in turn, the least recently used makes room."""

    def __init__(self, rng: random.Random, start: float) -> None:
        self.spans: list[Span] = []
        self.resident = ["people-ssd", "helmets"]
        self.count: dict[tuple[str, str], int] = {(kind, name): 0 for kind in ("load", "evict") for name in MODELS}
        self._rng = rng
        self._t = start

    def advance(self, until: float) -> None:
        if until - self._t > 150:
            self._t = until - 150
        while self._t < until:
            self._turn()
        oldest = bisect.bisect_left(self.spans, until - 125, key=lambda span: span.start_seconds)
        del self.spans[:oldest]

    def _turn(self) -> None:
        rng = self._rng
        wanted = rng.choices(list(MODELS), [model[2] for model in MODELS.values()])[0]
        if wanted not in self.resident:
            self._load(wanted)
        self.resident.remove(wanted)
        self.resident.append(wanted)
        for _ in range(rng.randint(2, 7)):
            self._span("processor", "infer", wanted, MODELS[wanted][1] * rng.uniform(0.85, 1.3), rng.randint(1, 3))
        if rng.random() < 0.5:
            self._span("processor", "wait", None, rng.uniform(0.01, 0.12), 0)

    def _load(self, wanted: str) -> None:
        while sum(MODELS[name][0] for name in [*self.resident, wanted]) > BUDGET:
            evicted = self.resident.pop(0)
            self._span("loader", "evict", evicted, 0.004, 0)
            self.count["evict", evicted] += 1
        start, seconds = self._t, MODELS[wanted][0] / (240 * MIB)
        while self.resident and self._t < start + seconds * 0.7:
            busy = self.resident[-1]
            self._span("processor", "infer", busy, MODELS[busy][1] * self._rng.uniform(0.85, 1.3), 1)
        if self._t < start + seconds:
            self._span("processor", "wait", wanted, start + seconds - self._t, 0)
        self.spans.append(
            Span(lane="loader", kind="load", model=wanted, start_seconds=start, seconds=seconds, frames=0)
        )
        self.spans.sort(key=lambda span: span.start_seconds)
        self.resident.append(wanted)
        self.count["load", wanted] += 1

    def _span(self, lane: str, kind: str, model: str | None, seconds: float, frames: int) -> None:
        self.spans.append(
            Span(lane=lane, kind=kind, model=model, start_seconds=self._t, seconds=seconds, frames=frames)
        )
        self._t += seconds


def _things(camera: str, t: float) -> list[tuple[tuple[float, float, float, float], int, int]]:
    """Boxes, class and track of what moves in front of a camera at time t."""
    width, height, _ = CAMERAS[camera]
    count, tall = {"gate": (5, 2.6), "hall": (4, 2.6), "yard": (3, 0.6), "dock": (0, 1.0)}[camera]
    things = []
    for i in range(count):
        depth = 0.35 + 0.6 * ((i * 0.37 + 0.1 * math.sin(t * 0.13 + i)) % 1.0)
        size = height * (0.05 + 0.1 * depth) * (1.0 if tall > 1 else 2.1)
        lap = width + 4 * size
        phase = (i * 0.29 * lap + t * (40 + 25 * i) * (1 if i % 2 else -1)) % lap
        x, foot = phase - 2 * size, height * (0.42 + 0.5 * depth)
        track = 10 * (i + 1) + int(t * (40 + 25 * i) / lap)
        if -size < x < width:
            box = (max(0.0, x), foot - size * tall, min(float(width), x + size), foot)
            things.append((box, i % 3 if camera == "yard" else 0, track))
    return things or [((width * 0.4, height * 0.5, width * 0.45, height * 0.7), 0, 1)]


def _picture(camera: str, t: float) -> np.ndarray:
    """A scene with ground, walls and the moving things, uint8 BGR."""
    width, height, _ = CAMERAS[camera]
    hue = {"gate": (104, 96, 84), "yard": (92, 104, 100), "hall": (120, 126, 132), "dock": (90, 90, 100)}[camera]
    ramp = np.linspace(0.75, 1.35, height, dtype=np.float32)[:, None, None]
    picture = np.clip(ramp * np.array(hue, np.float32), 0, 255).repeat(width, axis=1).astype(np.uint8)
    horizon = int(height * 0.42)
    for i in range(7):
        left = i * width // 6 - 40
        top = horizon - int(height * (0.12 + 0.04 * ((i * 5) % 4)))
        shade = tuple(int(c * (0.55 + 0.06 * (i % 3))) for c in hue)
        cv2.rectangle(picture, (left, top), (left + width // 7, horizon), shade, -1)
    for i in range(-8, 9):
        far, near = (width // 2 + i * width // 18, horizon), (width // 2 + i * width // 3, height)
        cv2.line(picture, far, near, tuple(int(c * 1.25) for c in hue), 1, cv2.LINE_AA)
    for (x1, y1, x2, y2), kind, track in sorted(_things(camera, t), key=lambda thing: thing[0][3]):
        coat = tuple(int(60 + 130 * abs(math.sin(track * k + kind))) for k in (1, 2, 3))
        left, top, right, foot, w = int(x1), int(y1), int(x2), int(y2), int(x2 - x1)
        cv2.ellipse(picture, ((left + right) // 2, foot), (w // 2 + 4, 5), 0, 0, 360, (40, 44, 48), -1, cv2.LINE_AA)
        if camera == "yard":
            cv2.rectangle(picture, (left, top + (foot - top) // 3), (right, foot - 6), coat, -1)
            cv2.rectangle(picture, (left + w // 5, top), (right - w // 4, top + (foot - top) // 2), coat, -1)
        else:
            radius = max(3, w // 5)
            cv2.rectangle(picture, (left + w // 4, top + 2 * radius), (right - w // 4, foot), coat, -1)
            cv2.circle(picture, ((left + right) // 2, top + radius), radius, (150, 175, 205), -1, cv2.LINE_AA)
    return picture


def _jpeg(picture: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 80])[1])
