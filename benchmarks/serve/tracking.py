"""Our tracker against that of `trackers`, on annotated sequences with given detections.

rows(Path("data"))
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from harness import row

from edgeward.vision.metrics import TrackingScores, tracking_scores
from edgeward.vision.results import Detections
from edgeward.vision.tracking import ByteTracker
from edgeward.vision.truth import Truth, load_truth

LOST_SECONDS = 1.0


@dataclass(frozen=True)
class Tracker:
    """One tracker at work. Only `update`, on what `given` made of the boxes, is timed; `found` makes ours of it."""

    update: Callable[[Any, float], Any]
    given: Callable[[Detections], Any] = lambda boxes: boxes
    found: Callable[[Any], Detections] = lambda boxes: boxes


@dataclass(frozen=True)
class Sequence:
    """A recording with its annotation and given detections; threshold: score from which a detection is certain."""

    name: str
    truth: str
    detections: str
    fps: float
    threshold: float
    scale: float = 1.0


# ACF's scores have no bound: a hundredth of them, cut at 1, stands for a confidence.
PETS, TUD = "multicam/pets2009_s2l1", "mot/TUD-Stadtmitte"
SEQUENCES = (
    Sequence("PETS09-S2L1, ACF", f"{PETS}/view_001_gt_mot15.txt", f"{PETS}/view_001_det_acf.txt", 7, 0.3, 0.01),
    Sequence("PETS09-S2L1, Faster-RCNN", f"{PETS}/view_001_gt_mot15.txt", f"{PETS}/view_001_det_frcnn.txt", 7, 0.6),
    Sequence("TUD-Stadtmitte, ACF", f"{TUD}/gt/gt.txt", f"{TUD}/det/det.txt", 25, 0.3, 0.01),
    Sequence("TUD-Stadtmitte, Faster-RCNN", f"{TUD}/gt/gt.txt", f"{TUD}/det/det_frcnn.txt", 25, 0.6),
)
"""The four rows of the data's README; PETS was recorded at 7 frames a second."""


def load_detections(path: Path, scale: float, frames: int) -> list[Detections]:
    """MOT text `frame,id,left,top,width,height,score,...`, one Detections per frame."""
    table = np.loadtxt(path, delimiter=",", ndmin=2)
    answers = []
    for frame in range(frames):
        here = table[table[:, 0] == frame + 1]
        score = np.clip(here[:, 6] * scale, 0, 1)
        boxes = np.hstack([here[:, 2:4], here[:, 2:4] + here[:, 4:6]])
        answers.append(Detections(boxes, score, np.zeros(len(here))))
    return answers


def ours(sequence: Sequence) -> Tracker:
    """Our tracker with a sequence's threshold."""
    return Tracker(ByteTracker(high_confidence=sequence.threshold, lost_seconds=LOST_SECONDS).update)


def theirs(sequence: Sequence) -> Tracker:
    """`trackers.ByteTrackTracker` with the same threshold and patience."""
    return _theirs(
        lost_track_buffer=round(30 * LOST_SECONDS),
        frame_rate=sequence.fps,
        track_activation_threshold=sequence.threshold,
        high_conf_det_threshold=sequence.threshold,
    )


def as_delivered(sequence: Sequence) -> Tracker:
    """`trackers.ByteTrackTracker` with its own default thresholds."""
    return _theirs()


def _theirs(**settings: float) -> Tracker:
    import supervision as sv
    from trackers import ByteTrackTracker

    tracker = ByteTrackTracker(**settings)
    return Tracker(
        update=lambda boxes, time_seconds: tracker.update(boxes),
        given=lambda boxes: sv.Detections(boxes.xyxy, confidence=boxes.confidence, class_id=boxes.class_id),
        found=lambda boxes: Detections(boxes.xyxy, boxes.confidence, boxes.class_id, boxes.tracker_id),
    )


def tracked(tracker: Tracker, answers: list[Detections], fps: float) -> tuple[dict[int, Detections], float]:
    """What a tracker says of every frame, and the CPU milliseconds that it took per frame."""
    given = [tracker.given(boxes) for boxes in answers]
    before = time.process_time()
    found = [tracker.update(boxes, frame / fps) for frame, boxes in enumerate(given)]
    milliseconds = (time.process_time() - before) * 1000 / len(answers)
    return {frame: tracker.found(boxes) for frame, boxes in enumerate(found)}, milliseconds


TRACKERS = {"edgeward": ours, "trackers": theirs, "as delivered": as_delivered}


@dataclass(frozen=True)
class Outcome:
    """Scores of one tracker on one sequence, and CPU milliseconds per frame."""

    scores: TrackingScores
    milliseconds: float


def compare(
    data: Path, sequence: Sequence, trackers: Mapping[str, Callable[[Sequence], Tracker]], repeats: int = 3
) -> dict[str, Outcome]:
    """Each tracker's outcome; CPU time is the least of `repeats` interleaved runs."""
    truth: Truth = load_truth(data / sequence.truth)
    answers = load_detections(data / sequence.detections, sequence.scale, truth.frames)
    # The faint boxes below the second threshold are for nobody: neither tracker sees them.
    answers = [boxes[boxes.confidence >= 0.1] for boxes in answers]
    best: dict[str, float] = {}
    results: dict[str, dict[int, Detections]] = {}
    for _ in range(repeats):
        for name, make in trackers.items():
            results[name], milliseconds = tracked(make(sequence), answers, sequence.fps)
            best[name] = min(milliseconds, best.get(name, milliseconds))
    return {name: Outcome(tracking_scores(results[name], truth), best[name]) for name in trackers}


def rows(data: Path) -> list[dict[str, Any]]:
    """Rows of the `serve` benchmark: HOTA, IDF1, MOTA and CPU time against `trackers`."""
    lines = []
    for sequence in SEQUENCES:
        outcome = compare(data, sequence, TRACKERS)
        mine, other, delivered = (outcome[name] for name in TRACKERS)
        slug = sequence.name.lower().replace(", ", "_").replace("-", "_")
        for metric in ("hota", "idf1", "mota"):
            reference = getattr(other.scores, metric)
            lines.append(
                row(
                    f"serve.tracking.{slug}.{metric}",
                    f"{metric.upper()} by TrackEval, {sequence.name}, all frames, the same thresholds",
                    baseline=f"trackers.ByteTrackTracker: {reference:.3f}",
                    ours=round(getattr(mine.scores, metric), 4),
                    unit="",
                    bar=f">= {reference:.4f}",
                    note=f"trackers with its default thresholds: {getattr(delivered.scores, metric):.3f}",
                )
            )
        lines.append(
            row(
                f"serve.tracking.{slug}.cpu",
                "CPU milliseconds of update() / frames, the least of 3 runs",
                baseline=f"trackers.ByteTrackTracker: {other.milliseconds:.3f}",
                ours=round(mine.milliseconds, 4),
                unit="ms",
                bar=f"<= {other.milliseconds:.4f}",
                note=f"switches: {mine.scores.switches} ours, {other.scores.switches} trackers",
            )
        )
    return lines
