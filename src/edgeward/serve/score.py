"""Accuracy of a query against ground truth, live or replayed; lateness counts.

    figures = accuracy(arrivals, answers, truth, labels=("person",))
    print(figures["ap50"], figures["streaming_ap50"])

Only the first pass over a recording is scored: a looped clip would count its frames again and again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgeward.errors import EdgewardError
from edgeward.serve.actions import Job
from edgeward.serve.events import FrameArrived, Inferred
from edgeward.vision.forecast import Forecast
from edgeward.vision.labels import relabelled
from edgeward.vision.metrics import average_precision, coco_map, streaming_ap, tracking_scores
from edgeward.vision.results import Detections, result_from_json
from edgeward.vision.truth import Truth

__all__ = ["Answer", "Scorer", "accuracy"]

logger = logging.getLogger(__name__)

RESCORE_FRAMES = 100
"""New frames after which a live score is made again."""


@dataclass(frozen=True)
class Answer:
    """A result with the frame it is of and when it was ready."""

    time_ns: int
    frame: int
    boxes: Detections


def accuracy(
    arrivals: Sequence[FrameArrived],
    answers: Sequence[Answer],
    truth: Truth,
    labels: Sequence[str],
    forecast: bool = False,
) -> dict[str, float]:
    """Figures of one query; see docs/accuracy.md for their definitions.

    forecast: whether boxes are shown where their tracks are by now.

    ap50, map: of the answered frames alone, as if time did not matter.
    streaming_ap50: every frame of the source against the newest answer ready when it arrived, if of the same view.
    hota, idf1, mota: when the answers carry tracks, of the answered frames.
    """
    times = {event.frame: event.time_ns for event in arrivals if event.frame == event.content < truth.frames}
    views = {event.frame: event.view for event in arrivals if event.frame in times}
    kept = [
        Answer(answer.time_ns, answer.frame, relabelled(answer.boxes, labels, truth.labels))
        for answer in answers
        if answer.frame in times
    ]
    boxes = {answer.frame: answer.boxes for answer in kept}
    if not boxes:
        return {"answered": 0.0}
    frames = sorted(boxes)
    finished = [(answer.time_ns, answer.frame, answer.boxes) for answer in kept]
    moved = Forecast.start() if forecast else None
    figures = {
        "answered": len(boxes) / len(times),
        "ap50": average_precision(boxes, truth, iou=0.5, frames=frames),
        "map": coco_map(boxes, truth, frames=frames),
        "streaming_ap50": streaming_ap(times, finished, truth, forecast=moved, views=views).ap,
    }
    if all(answer.boxes.tracker_id is not None for answer in kept):
        try:
            scores = tracking_scores(boxes, truth, frames=frames)
        except EdgewardError as error:  # its library is not installed, or the truth names no identities
            logger.warning("no tracking scores: %s", error)
        else:
            figures |= {"hota": scores.hota, "idf1": scores.idf1, "mota": scores.mota}
    return figures


@dataclass
class Scorer:
    """Collects one camera's arrivals and answers while the box runs; `scores` is cheap to ask for.

    forecasts: queries whose boxes are shown where their tracks are by now.
    """

    truth: Truth
    labels: Mapping[str, Sequence[str]]
    forecasts: frozenset[str] = frozenset()
    _arrivals: list[FrameArrived] = field(default_factory=list)
    _answers: dict[str, list[Answer]] = field(default_factory=dict)
    _scores: dict[str, dict[str, float]] = field(default_factory=dict)
    _scored: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _worker: threading.Thread | None = None

    def arrived(self, event: FrameArrived) -> None:
        """Take note of a frame."""
        if event.frame == event.content < self.truth.frames:
            with self._lock:
                self._arrivals.append(event)
        if len(self._arrivals) >= self._scored + RESCORE_FRAMES and not self._busy():
            self._scored = len(self._arrivals)
            self._worker = threading.Thread(target=self._rescore, name="edgeward-scorer", daemon=True)
            self._worker.start()

    def answered(self, event: Inferred, job: Job, result: Mapping[str, Any]) -> None:
        """Take note of an answer."""
        if job.query in self.labels and job.frame < self.truth.frames:
            boxes = result_from_json(result)
            if isinstance(boxes, Detections):
                with self._lock:
                    self._answers.setdefault(job.query, []).append(Answer(event.time_ns, job.frame, boxes))

    def scores(self, query: str) -> dict[str, float] | None:
        """The newest figures of a query, None before the first."""
        return self._scores.get(query)

    def settle(self) -> None:
        """Score everything that has been collected."""
        if self._worker is not None:
            self._worker.join()
        self._rescore()

    def _busy(self) -> bool:
        return self._worker is not None and self._worker.is_alive()

    def _rescore(self) -> None:
        with self._lock:
            arrivals = list(self._arrivals)
            answers = {query: list(each) for query, each in self._answers.items()}
        self._scores = {
            query: accuracy(arrivals, each, self.truth, self.labels[query], query in self.forecasts)
            for query, each in answers.items()
        }
