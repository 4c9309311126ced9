"""Running figures of a box: rates, costs, the time line. An observer of the loop.

    telemetry = Telemetry()
    executor.observers.append(telemetry.observe)
    telemetry.camera_fps("street", now_ns)

Keeps the last ten seconds of arrivals and answers, the last 512 costs of a model, and two minutes of spans.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any, Literal

from edgeward.clock import NS, to_seconds
from edgeward.serve.actions import Choose, Infer, Wait
from edgeward.serve.events import Decided, Event, Evicted, Failed, FrameArrived, Inferred, Loaded, Switched
from edgeward.serve.report import Span
from edgeward.serve.state import State

__all__ = ["BUCKETS", "ModelFigures", "Telemetry"]

WINDOW_NS = 10 * NS
SPANS_NS = 120 * NS
SHORTEST_WAIT_NS = NS // 1000
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds of the inference seconds histogram."""


class ModelFigures:
    """Costs of one model."""

    def __init__(self) -> None:
        self.infer_ns: deque[int] = deque(maxlen=512)
        self.load_ns: deque[int] = deque(maxlen=64)
        self.inferences = 0
        self.frames = 0
        self.seconds_sum = 0.0
        self.buckets = [0] * (len(BUCKETS) + 1)

    def add_inference(self, ns: int, frames: int) -> None:
        """Count one inference."""
        self.infer_ns.append(ns)
        self.inferences += 1
        self.frames += frames
        self.seconds_sum += to_seconds(ns)
        self.buckets[bisect_left(BUCKETS, to_seconds(ns))] += 1


class Telemetry:
    """Fed by the loop's thread, read by any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._arrivals: dict[str, deque[int]] = defaultdict(deque)
        self._answers: dict[str, deque[int]] = defaultdict(deque)
        self._models: dict[str, ModelFigures] = defaultdict(ModelFigures)
        self._spans: deque[Span] = deque()
        self._newest: dict[str, tuple[int, dict[str, Any]]] = {}
        self._processor_free_ns: int | None = None
        self._begun: dict[int, Decided] = {}

    def observe(self, event: Event, state: State) -> None:
        """Take note of one event."""
        with self._lock:
            match event:
                case FrameArrived():
                    _push(self._arrivals[event.camera], event.time_ns)
                case Decided():
                    self._begin(event)
                case Inferred():
                    self._end_inference(event)
                case Loaded() | Switched() | Evicted():
                    self._end(event)
                case Failed():
                    self._end(event)
                case _:
                    pass

    def camera_fps(self, camera: str, now_ns: int) -> float:
        """Frames per second that arrived over the last ten seconds."""
        with self._lock:
            return _rate([self._arrivals[camera]], now_ns)

    def query_fps(self, query: str, now_ns: int) -> float:
        """Answers per second over the last ten seconds."""
        with self._lock:
            return _rate([self._answers[query]], now_ns)

    def total_fps(self, now_ns: int) -> float:
        """Answers per second of all queries."""
        with self._lock:
            return _rate(list(self._answers.values()), now_ns)

    def newest(self, query: str) -> tuple[int, dict[str, Any]] | None:
        """Frame index and result of a query's newest answer."""
        with self._lock:
            return self._newest.get(query)

    def spans(self, since_seconds: float) -> list[Span]:
        """Spans that ended after `since_seconds`, oldest first."""
        with self._lock:
            return [span for span in self._spans if span.start_seconds + span.seconds > since_seconds]

    def model(self, name: str) -> ModelSummary:
        """Figures of one model."""
        with self._lock:
            return ModelSummary(self._models[name])

    def _begin(self, event: Decided) -> None:
        if isinstance(event.action, Wait):  # most are cut short: nothing would take them out again
            return
        if isinstance(event.action, Choose):
            if event.action.probe and event.action.also:  # a guard's comparison: nothing changed
                return
            for model in sorted(set(event.action.models.values())):
                self._add_span("ladder", "choose", model, event.time_ns, event.time_ns, text=event.action.reason)
            return
        self._begun[event.number] = event
        if isinstance(event.action, Infer):
            free = self._processor_free_ns
            if free is not None and event.time_ns - free >= SHORTEST_WAIT_NS:
                self._add_span("processor", "wait", None, free, event.time_ns)
            self._processor_free_ns = None

    def _end(self, event: Loaded | Switched | Evicted | Failed) -> None:
        begun = self._begun.pop(event.number, None)
        if isinstance(event, Failed) and event.what == "infer":
            self._processor_free_ns = event.time_ns
            return
        if begun is None or isinstance(event, Failed):
            return
        if isinstance(event, Loaded):
            self._models[event.model].load_ns.append(event.time_ns - begun.time_ns)
        kind: Literal["load", "evict"] = "evict" if isinstance(event, Evicted) else "load"
        self._add_span("loader", kind, event.model, begun.time_ns, event.time_ns)

    def _end_inference(self, event: Inferred) -> None:
        begun = self._begun.pop(event.number, None)
        self._processor_free_ns = event.time_ns
        frames = len({(job.camera, job.frame) for job in event.jobs})
        if begun is not None:
            own = event.time_ns - begun.time_ns - sum(second.took_ns for second in event.also)
            self._models[event.model].add_inference(max(own, 0), frames)
            for second in event.also:
                self._models[second.model].add_inference(second.took_ns, frames)
            self._add_span("processor", "infer", event.model, begun.time_ns, event.time_ns, frames)
        for job, result in zip(event.jobs, event.results, strict=True):
            _push(self._answers[job.query], event.time_ns)
            self._newest[job.query] = (job.frame, result)

    def _add_span(
        self,
        lane: Literal["processor", "loader", "ladder"],
        kind: Literal["infer", "load", "evict", "wait", "choose"],
        model: str | None,
        start_ns: int,
        end_ns: int,
        frames: int = 0,
        text: str = "",
    ) -> None:
        start, seconds = to_seconds(start_ns), to_seconds(end_ns - start_ns)
        self._spans.append(
            Span(lane=lane, kind=kind, model=model, start_seconds=start, seconds=seconds, frames=frames, text=text)
        )
        while self._spans and self._spans[0].start_seconds < to_seconds(end_ns - SPANS_NS):
            self._spans.popleft()


class ModelSummary:
    """A copy of a model's figures, safe to keep."""

    def __init__(self, figures: ModelFigures) -> None:
        self.inferences = figures.inferences
        self.frames = figures.frames
        self.seconds_sum = figures.seconds_sum
        self.seconds_median = _quantile(figures.infer_ns, 0.5)
        self.seconds_p95 = _quantile(figures.infer_ns, 0.95)
        self.load_seconds_median = to_seconds(round(median(figures.load_ns))) if figures.load_ns else None
        self.buckets = tuple(figures.buckets)


def _push(times: deque[int], now_ns: int) -> None:
    times.append(now_ns)
    while times[0] < now_ns - WINDOW_NS:
        times.popleft()


def _rate(all_times: Iterable[Sequence[int]], now_ns: int) -> float:
    """Events per second of the last ten seconds, or of the time since the start when that is shorter."""
    window = min(WINDOW_NS, max(now_ns, 1))
    count = sum(len(times) - bisect_left(times, now_ns - window) for times in all_times)
    return count * NS / window


def _quantile(values: Iterable[int], share: float) -> float | None:
    ordered = sorted(values)
    return to_seconds(ordered[min(int(len(ordered) * share), len(ordered) - 1)]) if ordered else None
