"""What a running box says of itself: the values behind the page, the REST API and the metrics.

    report = box.report()
    print(report.queries[0].in_time_fraction, report.memory.resident_bytes)

Seconds are seconds, bytes are bytes; times named `*_at` are Unix times, all others count from the
box's start.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict

__all__ = [
    "BoxReport",
    "BoxView",
    "CameraReport",
    "EventItem",
    "LadderReport",
    "LiveFrame",
    "MemoryReport",
    "MemoryShare",
    "ModelReport",
    "Overlay",
    "QueryReport",
    "RungReport",
    "Span",
    "ZoneReport",
]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CameraReport(_Value):
    """One camera: `detail` explains a status that is not "live" in words."""

    name: str
    source: str
    status: Literal["connecting", "live", "retrying", "ended"]
    detail: str
    width: int
    height: int
    fps: float
    frames: int
    skipped: int
    last_frame_age_seconds: float | None


class ModelReport(_Value):
    """One model. `bytes` are its tensors; `seconds_*` are of one inference call over the recent past.

    `variant`: of a portfolio, the active one.
    `seconds_histogram` counts since the start and is cumulative: (upper bound in seconds, calls that took
    at most that long), bounds rising; calls beyond the last bound are only in `inferences`. `seconds_sum` is
    the sum over all of them.
    """

    name: str
    task: str
    status: Literal["resident", "loading", "absent", "failed"]
    detail: str
    variant: str = ""
    bytes: int
    loads: int
    evictions: int
    inferences: int
    frames: int
    seconds_median: float | None
    seconds_p95: float | None
    load_seconds_median: float | None
    seconds_histogram: tuple[tuple[float, int], ...] = ()
    seconds_sum: float = 0.0


class ZoneReport(_Value):
    """Tracks that crossed a zone's border since the start, and how many are inside now."""

    name: str
    entered: int
    left: int
    inside: int


class RungReport(_Value):
    """One model of a ladder as the box sees it now.

    relative: expected accuracy on screen over that of the model in charge, None where it is not estimated. seconds:
    what one inference is expected to take. out: why it is not chosen at the moment, "" when it may be.
    """

    model: str
    relative: float | None
    seconds: float | None
    out: str = ""


class LadderReport(_Value):
    """What a query chooses from. why: the newest reason in words; switches: changes since the first answer.

    beside: how many programs work on the same processor, by what was waited for them; None where the rule does not ask.
    """

    name: str
    rule: str
    why: str
    switches: int
    rungs: tuple[RungReport, ...]
    beside: float | None = None


class QueryReport(_Value):
    """One query. due = frames the query asked for; in_time + late + skipped + waiting = due.

    model: the one that answers now, of a ladder the one in charge.
    """

    name: str
    camera: str
    model: str
    task: str
    rate: float | None
    deadline_seconds: float
    due: int
    in_time: int
    late: int
    skipped: int
    waiting: int
    in_time_fraction: float | None
    fps: float
    staleness_seconds: float | None
    zones: tuple[ZoneReport, ...]
    accuracy: dict[str, float] | None
    ladder: LadderReport | None = None


class MemoryShare(_Value):
    """Bytes of the budget that one model adds: tensors that it shares with an earlier one count once."""

    model: str
    bytes: int


class MemoryReport(_Value):
    """The model memory budget and who holds it."""

    budget_bytes: int
    resident_bytes: int
    shares: tuple[MemoryShare, ...]
    process_bytes: int


class BoxReport(_Value):
    """The whole box at one moment. `warnings`: what is wrong with the box itself, such as a full disk, in words."""

    version: str
    status: Literal["starting", "running", "draining", "stopped"]
    device: str
    policy: str
    started_at: float
    uptime_seconds: float
    throughput_fps: float
    cameras: tuple[CameraReport, ...]
    models: tuple[ModelReport, ...]
    queries: tuple[QueryReport, ...]
    memory: MemoryReport
    warnings: tuple[str, ...] = ()


class Span(_Value):
    """One stretch of what a lane did. Spans of the processor and of the loader never overlap.

    Those of the ladder are moments at which a model was put in charge; `text` says why.
    """

    lane: Literal["processor", "loader", "ladder"]
    kind: Literal["infer", "load", "evict", "wait", "choose"]
    model: str | None
    start_seconds: float
    seconds: float
    frames: int
    text: str = ""


class EventItem(_Value):
    """Something worth telling a person, newest first in every listing."""

    id: int
    at: float
    kind: Literal["appeared", "entered", "left", "camera", "model", "box"]
    camera: str | None
    query: str | None
    text: str
    thumbnail: bool


class Overlay(_Value):
    """A query's newest result on a camera, for drawing.

    `result` is a `Detections`, `Classification` or `Embedding` in its JSON form, `labels` names each
    of its classes in order, `zones` are polygons in pixels of the frame.
    """

    query: str
    frame_index: int
    age_seconds: float
    result: dict[str, Any]
    labels: tuple[str, ...]
    zones: dict[str, tuple[tuple[float, float], ...]]


class LiveFrame(_Value):
    """The newest picture of a camera as JPEG (scaled to at most the width asked for), with what was found.

    `width` and `height` are those of the original frame, in which boxes and zones are given.
    """

    frame_index: int
    width: int
    height: int
    jpeg: bytes
    overlays: tuple[Overlay, ...]


class BoxView(Protocol):
    """What the web layer needs of a box. All methods are quick and safe to call from any thread."""

    def report(self) -> BoxReport:
        """The box now."""

    def timeline(self, since_seconds: float) -> list[Span]:
        """Spans that ended after `since_seconds`, oldest first (kept for the last two minutes)."""

    def events(self, limit: int = 50, before_id: int | None = None) -> list[EventItem]:
        """The newest events, or the newest older than `before_id`."""

    def thumbnail(self, event_id: int) -> bytes | None:
        """JPEG of an event, or None."""

    def live_frame(self, camera: str, after_index: int = -1, max_width: int = 960) -> LiveFrame | None:
        """The newest frame of `camera` when newer than `after_index`, else None. KeyError for no such camera."""

    def detections(self, query: str, limit: int = 100, before_at: float | None = None) -> list[dict[str, Any]]:
        """The newest stored results of a query, newest first: {at, frame_index, result}.

        before_at: only results older than this Unix time.

        KeyError for no such query.
        """
