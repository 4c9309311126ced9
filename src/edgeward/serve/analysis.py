"""From a model's raw answer to a query's result: classes, confidence, tracks, zones.

analysis = Analysis(query, labels)
result = analysis.take(frame, detections)     # filtered, with tracker ids
for happening in analysis.happenings(): print(happening.text)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgeward.errors import ConfigError, nearest
from edgeward.serve.certainty import Dialect, score_of
from edgeward.serve.config import QueryConfig
from edgeward.serve.fused import FAINT, heard_from
from edgeward.serve.inturn import Looks
from edgeward.vision.forecast import Forecast
from edgeward.vision.frames import Frame
from edgeward.vision.memory import Memory
from edgeward.vision.results import Classification, Detections, FloatArray, Result
from edgeward.vision.tracking import TRACKING_FLOOR, ByteTracker
from edgeward.vision.zones import Zone, ZoneCounter

__all__ = ["Analysis", "Happening"]


@dataclass(frozen=True, eq=False)
class Happening:
    """Something a person may want to know, with the picture it was seen in."""

    kind: str
    query: str
    text: str
    frame: Frame
    box: FloatArray | None


class Analysis:
    """The part of one query that comes after the model. Used by one thread; counts may be read by any.

    labels: class names of its results. dialects: of a ladder, how to understand each of its models.
    expected: of a query that forecasts, where the boxes of the answer before the newest were shown at its time.
    found: of a query that remembers, what the newest answer holds by itself.
    """

    def __init__(
        self, query: QueryConfig, labels: Sequence[str], dialects: Mapping[str, Dialect] | None = None
    ) -> None:
        self.query = query
        self.labels = labels
        self._dialects = dialects or {}
        self._looks = Looks(self._dialects, labels, query.confidence)
        self.expected: Detections | None = None
        self.found: Detections | None = None
        self._memory = Memory(query.confidence) if query.remember else None
        self._forecast = Forecast.start() if query.forecast else None
        self.confidence_floor = min(query.confidence, TRACKING_FLOOR) if query.tracker else query.confidence
        self._wanted = _class_ids(query, labels)
        self._tracker = ByteTracker(
            high_confidence=query.confidence, low_confidence=min(TRACKING_FLOOR, query.confidence)
        )
        self._zones = [Zone(zone.name, zone.polygon, zone.anchor) for zone in query.zones]
        self._counters: tuple[ZoneCounter, ...] = ()
        self._size, self._view = (0, 0), 0
        self._known: set[int] = set()
        self._happenings: deque[Happening] = deque(maxlen=256)

    @property
    def zones(self) -> tuple[ZoneCounter, ...]:
        """The zone counters, in the order of the query's zones; empty before the first frame."""
        return self._counters

    def happenings(self) -> list[Happening]:
        """What happened since the last call."""
        taken = []
        while self._happenings:
            taken.append(self._happenings.popleft())
        return taken

    def take(self, frame: Frame, answer: Result, model: str = "", part: str = "") -> Result:
        """The query's result for `frame`, for which `model` answered `answer`; of models in turn, `part` did."""
        seen = self.seen(frame, answer, model, part)
        if not isinstance(seen, Detections):
            return seen
        if self._memory is not None:
            self.found, seen = seen, self._kept(self._memory.boxes)
        return self._take_detections(frame, seen)

    def floor(self, model: str, part: str = "") -> float:
        """The least score of `model` that matters here; of models in turn, that of the one whose turn it is."""
        dialect = self._dialects.get(model)
        least = self.confidence_floor if self._memory is None else FAINT * self.confidence_floor
        least = least if dialect is None else score_of(least, dialect.certainty)
        if part in ("", model):
            return least
        return heard_from(least, [self._dialects[part].certainty])[0]

    def forecast(self, time: float) -> Detections | None:
        """Where the newest boxes should be at a frame's time; None for a query that does not forecast."""
        forecast = self._forecast
        return None if forecast is None else forecast.at(time)

    def seen(self, frame: Frame, answer: Result, model: str, part: str = "") -> Result:
        """What a model found by itself, in the terms of a result; one that was only compared is remembered, too."""
        self._look_anew(frame)
        if isinstance(answer, Detections):
            if self._memory is not None:
                own = self._about(self._alone(answer, part or model))
                self._memory.see(part or model, own, frame.time)
            return self._kept(self._understood(frame, answer, model, part))
        if isinstance(answer, Classification):
            kept = answer.confidence >= self.query.confidence
            if self._wanted is not None:
                kept &= np.isin(answer.class_id, self._wanted)
            return Classification(answer.class_id[kept], answer.confidence[kept])
        return answer

    def _look_anew(self, frame: Frame) -> None:
        """Where the camera shows another view, or pictures of another size, what is known of places means nothing."""
        height, width = frame.image.shape[:2]
        if self._size == (width, height) and self._view == frame.view:
            return
        if self._size != (width, height):
            self._counters = tuple(ZoneCounter(zone.in_pixels(width, height)) for zone in self._zones)
        self._size, self._view = (width, height), frame.view
        self._tracker.reset()
        self._looks.reset()
        if self._memory is not None:
            self._memory.reset()
        if self._forecast is not None:
            self._forecast, self.expected = Forecast.start(), None

    def _understood(self, frame: Frame, boxes: Detections, model: str, part: str) -> Detections:
        """The boxes with the query's classes, and of a ladder with scores that can be compared."""
        if self._looks.wanted:
            return self._looks.understood(model, part or model, boxes, frame)
        return self._alone(boxes, model)

    def _alone(self, boxes: Detections, model: str) -> Detections:
        """What one model found, whatever others did."""
        return self._dialects[model].understood(boxes, self.labels) if model in self._dialects else boxes

    def _kept(self, boxes: Detections) -> Detections:
        """The boxes that the query is about."""
        boxes = self._about(boxes)
        keep = boxes.confidence >= self.confidence_floor
        return boxes if keep.all() else boxes[keep]

    def _about(self, boxes: Detections) -> Detections:
        """The boxes of the classes that the query is about."""
        return boxes if self._wanted is None else boxes[np.isin(boxes.class_id, self._wanted)]

    def _take_detections(self, frame: Frame, boxes: Detections) -> Detections:
        if not self.query.tracker:
            return boxes
        tracked = self._tracker.update(boxes, frame.time)
        assert tracked.tracker_id is not None
        shown = tracked[(tracked.tracker_id >= 0) | (tracked.confidence >= self.query.confidence)]
        self._notice(frame, shown)
        if self._forecast is not None:
            self.expected = self._forecast.at(frame.time)
            self._forecast = self._forecast.observe(shown, frame.time)
        return shown

    def _notice(self, frame: Frame, boxes: Detections) -> None:
        assert boxes.tracker_id is not None
        alive = self._tracker.active_ids
        by_track = dict(zip(boxes.tracker_id.tolist(), range(len(boxes)), strict=True))
        for track in sorted(by_track.keys() - self._known - {-1}):
            self._tell(
                "appeared", f"{self._label(boxes, by_track[track])} {track} appeared", frame, boxes, by_track[track]
            )
        self._known = (self._known | by_track.keys()) & set(alive)
        for counter in self._counters:
            for crossing in counter.update(boxes, active_ids=alive):
                row = by_track.get(crossing.tracker_id)
                if row is not None:
                    text = f"{self._label(boxes, row)} {crossing.tracker_id} {crossing.kind} {counter.zone.name}"
                    self._tell(crossing.kind, text, frame, boxes, row)

    def _label(self, boxes: Detections, row: int) -> str:
        class_id = int(boxes.class_id[row])
        return self.labels[class_id] if class_id < len(self.labels) else f"class {class_id}"

    def _tell(self, kind: str, text: str, frame: Frame, boxes: Detections, row: int) -> None:
        self._happenings.append(Happening(kind, self.query.key, text, frame, boxes.xyxy[row]))


def _class_ids(query: QueryConfig, labels: Sequence[str]) -> list[int] | None:
    """The numbers of the classes that a query wants, None for all."""
    if query.classes is None:
        return None
    for name in query.classes:
        if name not in labels:
            raise ConfigError(f"query {query.key!r}: its model knows no class {name!r}; {nearest(name, labels)[:200]}")
    return [labels.index(name) for name in query.classes]
