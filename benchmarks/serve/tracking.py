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
    """A recording with its annotation and given detections; threshold: score from which a detection is certain.

    tuned: settings of `trackers.ByteTrackTracker` with the best HOTA on this very row, by a search over the certain
    score (0.2 to 0.9), the score that starts a track (0, 0.1, 0.2 more), least overlap (0.1 to 0.5), patience (1, 2 s).
    """

    name: str
    truth: str
    detections: str
    fps: float
    threshold: float
    tuned: Mapping[str, float]
    scale: float = 1.0


def _settings(certain: float, start: float, overlap: float, patience: int) -> dict[str, float]:
    """Those of `trackers.ByteTrackTracker`; patience in thirtieths of a second."""
    return {
        "high_conf_det_threshold": certain,
        "track_activation_threshold": start,
        "minimum_iou_threshold": overlap,
        "lost_track_buffer": patience,
    }


# ACF's scores have no bound: a hundredth of them, cut at 1, stands for a confidence.
PETS, TUD = "multicam/pets2009_s2l1", "mot/TUD-Stadtmitte"
PETS_TRUTH, TUD_TRUTH = f"{PETS}/view_001_gt_mot15.txt", f"{TUD}/gt/gt.txt"
SEQUENCES = (
    Sequence(
        "PETS09-S2L1, ACF", PETS_TRUTH, f"{PETS}/view_001_det_acf.txt", 7, 0.3, _settings(0.7, 0.7, 0.3, 30), 0.01
    ),
    Sequence(
        "PETS09-S2L1, Faster-RCNN", PETS_TRUTH, f"{PETS}/view_001_det_frcnn.txt", 7, 0.6, _settings(0.9, 0.9, 0.2, 60)
    ),
    Sequence("TUD-Stadtmitte, ACF", TUD_TRUTH, f"{TUD}/det/det.txt", 25, 0.3, _settings(0.3, 0.3, 0.3, 30), 0.01),
    Sequence(
        "TUD-Stadtmitte, Faster-RCNN", TUD_TRUTH, f"{TUD}/det/det_frcnn.txt", 25, 0.6, _settings(0.6, 0.7, 0.2, 30)
    ),
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
    return by_trackers(
        lost_track_buffer=round(30 * LOST_SECONDS),
        frame_rate=sequence.fps,
        track_activation_threshold=sequence.threshold,
        high_conf_det_threshold=sequence.threshold,
    )


def as_delivered(sequence: Sequence) -> Tracker:
    """`trackers.ByteTrackTracker` with its own default thresholds."""
    return by_trackers()


def tuned(sequence: Sequence) -> Tracker:
    """`trackers.ByteTrackTracker` with what, in hindsight, is best for the row; ours is not tuned row by row."""
    return by_trackers(frame_rate=sequence.fps, **sequence.tuned)


def by_trackers(stamped: bool = False, **settings: float) -> Tracker:
    """`trackers.ByteTrackTracker`; stamped: it is told the frames' times, which costs it a tenth more CPU time.

    At a steady rate it changes HOTA by 0.003 at most on the four rows, so only frames that are skipped are stamped.
    """
    import supervision as sv
    from trackers import ByteTrackTracker

    tracker = ByteTrackTracker(**settings)
    return Tracker(
        update=lambda boxes, time_seconds: tracker.update(boxes, timestamp=time_seconds if stamped else None),
        given=lambda boxes: sv.Detections(boxes.xyxy, confidence=boxes.confidence, class_id=boxes.class_id),
        found=lambda boxes: Detections(boxes.xyxy, boxes.confidence, boxes.class_id, boxes.tracker_id),
    )


def tracked(tracker: Tracker, answers: Mapping[int, Detections], fps: float) -> tuple[dict[int, Detections], float]:
    """What a tracker says of every frame with an answer, and the CPU milliseconds that it took per frame."""
    given = {frame: tracker.given(boxes) for frame, boxes in answers.items()}
    before = time.process_time()
    found = {frame: tracker.update(boxes, frame / fps) for frame, boxes in given.items()}
    milliseconds = (time.process_time() - before) * 1000 / len(answers)
    return {frame: tracker.found(boxes) for frame, boxes in found.items()}, milliseconds


TRACKERS = {"edgeward": ours, "trackers": theirs, "as delivered": as_delivered, "tuned": tuned}


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
    offered = {frame: boxes[boxes.confidence >= 0.1] for frame, boxes in enumerate(answers)}
    best: dict[str, float] = {}
    results: dict[str, dict[int, Detections]] = {}
    for _ in range(repeats):
        for name, make in trackers.items():
            results[name], milliseconds = tracked(make(sequence), offered, sequence.fps)
            best[name] = min(milliseconds, best.get(name, milliseconds))
    return {name: Outcome(tracking_scores(results[name], truth), best[name]) for name in trackers}


def rows(data: Path) -> list[dict[str, Any]]:
    """Rows of the `serve` benchmark: HOTA, IDF1, MOTA and CPU time against `trackers`."""
    lines = []
    for sequence in SEQUENCES:
        outcome = compare(data, sequence, TRACKERS)
        mine, other, delivered, best = (outcome[name] for name in TRACKERS)
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
                    note=f"trackers with its default thresholds: {getattr(delivered.scores, metric):.3f}; "
                    f"tuned to this row in hindsight: {getattr(best.scores, metric):.3f}",
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
