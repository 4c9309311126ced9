"""What can be asked of a running box, from any thread: the `BoxView` of the page and the API.

report = box.report()
live = box.live_frame("street", after_index=41)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

from edgeward.clock import WallClock, to_seconds
from edgeward.serve.analysis import Analysis
from edgeward.serve.answering import Answering
from edgeward.serve.buffer import FrameBuffer
from edgeward.serve.config import BoxConfig
from edgeward.serve.executor import Executor
from edgeward.serve.ladderview import ladder_report
from edgeward.serve.log import EventLog
from edgeward.serve.models import ServedModel
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
from edgeward.serve.score import Scorer
from edgeward.serve.state import ModelState, QueryState, State
from edgeward.serve.store import ResultStore
from edgeward.serve.telemetry import BUCKETS, Telemetry
from edgeward.vision.draw import encode_jpeg
from edgeward.vision.frames import Frame
from edgeward.vision.reader import CameraReader
from edgeward.vision.sources import redact

__all__ = ["View"]


class View:
    """Reads a box's parts; each is safe to read while the loop runs."""

    config: BoxConfig
    models: dict[str, ServedModel]
    asked: Mapping[str, Answering]
    analyses: Mapping[str, Analysis]
    readers: Mapping[str, CameraReader]
    scorers: Mapping[str, Scorer]
    telemetry: Telemetry
    buffer: FrameBuffer
    store: ResultStore | None
    log: EventLog
    clock: WallClock
    _executor: Executor
    started_at: float
    status: Literal["starting", "running", "draining", "stopped"]
    device: str

    @property
    def state(self) -> State:
        """The loop's state now."""
        return self._executor.state

    def report(self) -> BoxReport:
        """The box now."""
        state, now_ns = self.state, self.clock.now_ns()
        return BoxReport(
            version=version("edgeward"),
            status=self.status,
            device=self.device,
            policy=self.config.policy,
            started_at=self.started_at,
            uptime_seconds=to_seconds(now_ns),
            throughput_fps=self.telemetry.total_fps(now_ns),
            cameras=tuple(self._camera(camera.name, camera.source, state, now_ns) for camera in self.config.cameras),
            models=tuple(self._model(model) for model in state.models.values()),
            queries=tuple(self._query(query, now_ns) for query in state.queries.values()),
            memory=_memory(state),
            warnings=self._warnings(),
        )

    def timeline(self, since_seconds: float) -> list[Span]:
        """Spans that ended after `since_seconds`, oldest first."""
        return self.telemetry.spans(since_seconds)

    def events(self, limit: int = 50, before_id: int | None = None) -> list[EventItem]:
        """The newest stored events, or the newest older than `before_id`; none without a store."""
        if self.store is None:
            return []
        return [
            EventItem(
                id=number,
                at=event.at,
                kind=event.kind,
                camera=event.camera,
                query=event.query,
                text=event.text,
                thumbnail=event.thumbnail is not None,
            )
            for number, event in self.store.events(limit, before_id)
        ]

    def thumbnail(self, event_id: int) -> bytes | None:
        """JPEG of an event, or None."""
        return self.store.thumbnail(event_id) if self.store else None

    def detections(self, query: str, limit: int = 100, before_at: float | None = None) -> list[dict[str, Any]]:
        """The newest stored results of a query. KeyError for no such query."""
        self.analyses[query]
        records = self.store.results(query, limit, before_at) if self.store else []
        return [{**record, "result": _named(record["result"], self.analyses[query].labels)} for record in records]

    def live_frame(self, camera: str, after_index: int = -1, max_width: int = 960) -> LiveFrame | None:
        """The newest frame of `camera` when newer than `after_index`. KeyError for no such camera."""
        frame = self.buffer.newest(camera)
        if frame is None or frame.index <= after_index:
            return None
        height, width = frame.image.shape[:2]
        overlays = [
            self._overlay(name, frame) for name, query in self.state.queries.items() if query.spec.camera == camera
        ]
        return LiveFrame(
            frame_index=frame.index,
            width=width,
            height=height,
            jpeg=encode_jpeg(frame.image, max_width),
            overlays=tuple(overlay for overlay in overlays if overlay is not None),
        )

    def _overlay(self, name: str, frame: Frame) -> Overlay | None:
        newest = self.telemetry.newest(name)
        if newest is None:
            return None
        index, result = newest
        query, analysis = self.state.queries[name], self.analyses[name]
        if index < self.state.cameras[query.spec.camera].since:
            return None  # it is of another view
        age = to_seconds(max(self.clock.now_ns() - query.answered_arrival_ns, 0))
        zones = {counter.zone.name: _polygon(counter.zone.polygon) for counter in analysis.zones}
        labels = tuple(analysis.labels)
        forecast = analysis.forecast(frame.time)
        result = result if forecast is None else forecast.to_json()
        return Overlay(query=name, frame_index=index, age_seconds=age, result=result, labels=labels, zones=zones)

    def _warnings(self) -> tuple[str, ...]:
        lost = f"{self.store.lost} results lost" if self.store and self.store.lost else ""
        trouble = f"not storing ({self.store.trouble})" if self.store and self.store.trouble else ""
        return tuple(filter(None, (trouble, lost, self.log.paused)))

    def _camera(self, name: str, source: str, state: State, now_ns: int) -> CameraReport:
        status = self.readers[name].status
        newest = state.cameras.get(name)
        age = None if newest is None or newest.arrived_ns < 0 else to_seconds(now_ns - newest.arrived_ns)
        skipped = sum(query.skipped for query in state.queries.values() if query.spec.camera == name)
        return CameraReport(
            name=name,
            source=redact(source),
            status=status.status,
            detail=status.detail,
            width=status.width,
            height=status.height,
            fps=self.telemetry.camera_fps(name, now_ns),
            frames=status.frames,
            skipped=skipped,
            last_frame_age_seconds=age,
        )

    def _model(self, model: ModelState) -> ModelReport:
        figures = self.telemetry.model(model.spec.name)
        failed = bool(model.error) and model.retry_ns > self.clock.now_ns()
        status: Any = "failed" if failed else {"evicting": "absent"}.get(model.status, model.status)
        return ModelReport(
            name=model.spec.name,
            task=self.models[model.spec.name].card.task,
            status=status,
            detail=model.error,
            variant=model.variant,
            bytes=model.spec.bytes,
            loads=model.loads,
            evictions=model.evictions,
            inferences=figures.inferences,
            frames=figures.frames,
            seconds_median=figures.seconds_median,
            seconds_p95=figures.seconds_p95,
            load_seconds_median=figures.load_seconds_median,
            seconds_histogram=tuple(zip(BUCKETS, accumulate(figures.buckets), strict=False)),
            seconds_sum=figures.seconds_sum,
        )

    def _query(self, query: QueryState, now_ns: int) -> QueryReport:
        name, spec = query.spec.name, query.spec
        done = query.in_time + query.late + query.skipped
        age = None if query.answered_arrival_ns < 0 else to_seconds(now_ns - query.answered_arrival_ns)
        scorer = self.scorers.get(spec.camera)
        return QueryReport(
            name=name,
            camera=spec.camera,
            model=query.model,
            task=self.asked[name].task,
            rate=1e9 / spec.period_ns if spec.period_ns else None,
            deadline_seconds=to_seconds(spec.deadline_ns),
            due=query.due,
            in_time=query.in_time,
            late=query.late,
            skipped=query.skipped,
            waiting=query.due - done,
            in_time_fraction=query.in_time / done if done else None,
            fps=self.telemetry.query_fps(name, now_ns),
            staleness_seconds=age,
            zones=tuple(
                ZoneReport(name=zone.zone.name, entered=zone.entered, left=zone.left, inside=zone.inside)
                for zone in self.analyses[name].zones
            ),
            accuracy=scorer.scores(name) if scorer else None,
            ladder=ladder_report(query, self.state, now_ns),
        )


def _memory(state: State) -> MemoryReport:
    """Who holds the budget; a shared tensor is put down to the first model that holds it."""
    counted: set[str] = set()
    shares = []
    for name, model in state.models.items():
        if model.status != "absent":
            own = {digest: size for digest, size in model.spec.tensors.items() if digest not in counted}
            counted |= own.keys()
            shares.append(MemoryShare(model=name, bytes=sum(own.values())))
    return MemoryReport(
        budget_bytes=state.budget_bytes,
        resident_bytes=state.resident_bytes,
        shares=tuple(shares),
        process_bytes=process_bytes(),
    )


def process_bytes() -> int:
    """Resident memory of this process as the system counts it; 0 where that cannot be read."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * 4096


def _named(result: dict[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    """A result with the names of its classes beside their numbers."""
    if "class_id" not in result:
        return result
    names = [labels[number] if number < len(labels) else f"class {number}" for number in result["class_id"]]
    return {**result, "class_name": names}


def _polygon(points: Any) -> tuple[tuple[float, float], ...]:
    return tuple((float(x), float(y)) for x, y in points)
