"""Who is who from frame to frame: ByteTrack.

    tracker = ByteTracker(high_confidence=0.5)
    tracked = tracker.update(detections, time_seconds=frame.time)
    print(tracked.tracker_id, tracker.active_ids)

The method is Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection Box" (ECCV 2022,
section 3): certain boxes are given to tracks first, then faint ones to the tracks that got none, because a box that
fades is more likely an occluded object than a new one. Predictions run over time, not over frames, so that the frames
that a busy box skips do not shift them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from edgeward.errors import ConfigError, MissingExtra
from edgeward.vision.kalman import Array, Motion
from edgeward.vision.results import Detections, FloatArray, IntArray

__all__ = ["TRACKING_FLOOR", "ByteTracker"]

Index = npt.NDArray[np.intp]
BoolArray = npt.NDArray[np.bool_]
TRACKING_FLOOR = 0.1
"""The second association needs the faint boxes too (Zhang et al., ECCV 2022, section 3)."""
FAINT_IOU = 0.5
"""A faint box joins a track only where it overlaps this well (the paper's implementation has the same)."""


@dataclass(frozen=True, eq=False)
class _Tracks:
    """n tracks as columns.

    number: int32, -1 until confirmed; hits: boxes got so far; seen: seconds, of the last; confidence: of the last.
    """

    motion: Motion
    class_id: IntArray
    confidence: FloatArray
    number: IntArray
    hits: IntArray
    seen: Array

    @classmethod
    def started(cls, boxes: Detections, time: float) -> Self:
        n = len(boxes)
        ones = np.ones(n, np.int32)
        motion = Motion.at_rest(_centred(boxes.xyxy.astype(np.float64)))
        return cls(motion, boxes.class_id, boxes.confidence, -ones, ones, np.full(n, time))

    def only(self, rows: BoolArray) -> Self:
        return replace(
            self,
            motion=self.motion.only(rows),
            class_id=self.class_id[rows],
            confidence=self.confidence[rows],
            number=self.number[rows],
            hits=self.hits[rows],
            seen=self.seen[rows],
        )

    def joined(self, other: Self) -> Self:
        return replace(
            self,
            motion=self.motion.joined(other.motion),
            class_id=np.concatenate([self.class_id, other.class_id]),
            confidence=np.concatenate([self.confidence, other.confidence]),
            number=np.concatenate([self.number, other.number]),
            hits=np.concatenate([self.hits, other.hits]),
            seen=np.concatenate([self.seen, other.seen]),
        )


class ByteTracker:
    """Follows the boxes of one camera. Not for use by several threads at once.

    high_confidence: boxes from here on are certain; only they start tracks.
    low_confidence: boxes below are not looked at.
    lost_seconds: how long a track is kept without a box. One that was seen in the frame before is always kept for
        one more, however far apart frames are.
    confirm: boxes in a row after which a new track gets its number.
    min_iou: least overlap of a certain box with where its track should be, over 0.

    Boxes of different classes never join one track.
    Raises ConfigError for a value out of range, MissingExtra without SciPy.
    """

    def __init__(
        self,
        high_confidence: float = 0.5,
        low_confidence: float = 0.1,
        lost_seconds: float = 1.0,
        confirm: int = 2,
        min_iou: float = 0.15,
    ) -> None:
        _in_range("high_confidence", high_confidence, 0, 1)
        _in_range("low_confidence", low_confidence, 0, 1)
        _in_range("lost_seconds", lost_seconds, 0, 3600)
        _in_range("confirm", confirm, 1, 1000)
        _in_range("min_iou", min_iou, 0.001, 1)
        self.high_confidence = high_confidence
        self.low_confidence = low_confidence
        self.lost_seconds = lost_seconds
        self.confirm = confirm
        self.min_iou = min_iou
        self._next = 1
        _assignment()
        self.reset()

    @property
    def active_ids(self) -> Sequence[int]:
        """Numbers of the tracks that are followed, or lost but not yet given up."""
        number = self._tracks.number
        return tuple(number[number >= 0].tolist())

    def reset(self) -> None:
        """Forget all tracks, because another view or picture size begins; no number is given twice."""
        self._tracks = _Tracks.started(Detections.empty(), 0.0)
        self._time: float | None = None

    def forecast(self, time_seconds: float) -> Detections:
        """Where the active tracks should be at `time_seconds`, each with the confidence of the last box it got.

        Changes nothing. Raises ValueError for a time that is not finite or lies before the last update.
        """
        if not math.isfinite(time_seconds) or (self._time is not None and time_seconds < self._time):
            raise ValueError(f"time_seconds is {time_seconds}; give a time from the last update, {self._time}, on")
        tracks = self._tracks.only(self._tracks.number >= 0)
        motion = tracks.motion if self._time is None else tracks.motion.predicted(time_seconds - self._time)
        return Detections(motion.corners.astype(np.float32), tracks.confidence, tracks.class_id, tracks.number)

    def update(self, detections: Detections, time_seconds: float) -> Detections:
        """The same boxes in the same order, with `tracker_id` int32 [n]: 1 and up, or -1 for a box of no track.

        time_seconds: when the frame was taken. When it lies before the last one (a looped clip) what is known about
        motion is dropped, positions are kept. Raises ValueError when it is not finite.
        """
        if not math.isfinite(time_seconds):
            raise ValueError(f"time_seconds is {time_seconds}; give the frame's time in seconds")
        previous = time_seconds if self._time is None else self._time
        self._time = time_seconds
        tracks = _moved(self._tracks, time_seconds - previous, time_seconds)
        fresh = tracks.seen >= min(previous, time_seconds)
        xyxy = detections.xyxy.astype(np.float64)
        pairs = self._associate(tracks, fresh, xyxy, detections)
        tracks, matched = self._corrected(tracks, pairs, xyxy, detections.confidence, time_seconds)
        tracker_id = np.full(len(detections), -1, np.int32)
        tracker_id[pairs[1]] = tracks.number[pairs[0]]
        kept = matched | ((tracks.number >= 0) & (time_seconds - tracks.seen <= self.lost_seconds))
        if not kept.all():
            tracks = tracks.only(kept)
        starts = detections.confidence >= self.high_confidence
        starts[pairs[1]] = False
        if starts.any():
            started = _Tracks.started(detections[starts], time_seconds)
            if self.confirm == 1:
                started = self._numbered(started)
                tracker_id[starts] = started.number
            tracks = tracks.joined(started)
        self._tracks = tracks
        return replace(detections, tracker_id=tracker_id)

    def _associate(self, tracks: _Tracks, fresh: BoolArray, xyxy: Array, detections: Detections) -> tuple[Index, Index]:
        """Rows of tracks and of the boxes they get. fresh: tracks that had a box in the frame before."""
        nobody = np.zeros(0, np.intp)
        if not len(tracks.seen) or not len(xyxy):
            return nobody, nobody
        overlap = _iou(tracks.motion.corners, xyxy)
        overlap *= tracks.class_id[:, None] == detections.class_id
        confirmed = tracks.number >= 0
        certain = detections.confidence >= self.high_confidence
        faint = ~certain & (detections.confidence >= self.low_confidence)
        free_tracks, free_boxes = np.ones(len(overlap), bool), np.ones(len(xyxy), bool)
        found = []
        for wanting, offered, floor in (
            (confirmed, certain, self.min_iou),
            (confirmed & fresh, faint, FAINT_IOU),
            (~confirmed, certain, self.min_iou),
        ):
            rows, columns = np.flatnonzero(wanting & free_tracks), np.flatnonzero(offered & free_boxes)
            if not len(rows) or not len(columns):
                continue
            i, j = _best_pairs(overlap[rows[:, None], columns], floor)
            found.append((rows[i], columns[j]))
            free_tracks[rows[i]] = False
            free_boxes[columns[j]] = False
        if not found:
            return nobody, nobody
        return np.concatenate([rows for rows, _ in found]), np.concatenate([columns for _, columns in found])

    def _corrected(
        self, tracks: _Tracks, pairs: tuple[Index, Index], xyxy: Array, confidence: FloatArray, time: float
    ) -> tuple[_Tracks, BoolArray]:
        """The tracks with the boxes they got, and which got one."""
        rows, columns = pairs
        matched = np.zeros(len(tracks.seen), bool)
        if not len(rows):
            return tracks, matched
        matched[rows] = True
        latest = tracks.confidence.copy()
        latest[rows] = confidence[columns]
        tracks = replace(
            tracks,
            motion=tracks.motion.corrected(rows, _centred(xyxy[columns])),
            confidence=latest,
            hits=tracks.hits + matched.astype(np.int32),
            seen=np.where(matched, time, tracks.seen),
        )
        return self._numbered(tracks), matched

    def _numbered(self, tracks: _Tracks) -> _Tracks:
        """Numbers for the tracks that have just been confirmed."""
        new = (tracks.number < 0) & (tracks.hits >= self.confirm)
        count = int(new.sum())
        if not count:
            return tracks
        number = tracks.number.copy()
        number[new] = np.arange(self._next, self._next + count, dtype=np.int32)
        self._next += count
        return replace(tracks, number=number)


def _moved(tracks: _Tracks, seconds: float, now: float) -> _Tracks:
    """The tracks `seconds` later; at rest when time ran back."""
    if not len(tracks.seen) or seconds == 0:
        return tracks
    if seconds < 0:
        return replace(tracks, motion=Motion.at_rest(tracks.motion.boxes), seen=np.full_like(tracks.seen, now))
    return replace(tracks, motion=tracks.motion.predicted(seconds))


def _best_pairs(overlap: Array, floor: float) -> tuple[Index, Index]:
    """One-to-one pairs (rows, columns) of an overlap of at least `floor`, the greatest sum of overlaps."""
    possible = overlap >= floor
    if possible.sum(axis=0).max() <= 1 and possible.sum(axis=1).max() <= 1:
        rows, columns = np.nonzero(possible)
        return rows, columns
    rows, columns = _assignment()(np.where(possible, overlap, 0.0), maximize=True)
    good = possible[rows, columns]
    return rows[good], columns[good]


@functools.cache
def _assignment() -> Callable[..., tuple[Index, Index]]:
    """SciPy's solver; a tracker asks for it when it is made: the import takes a quarter of a second."""
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise MissingExtra("scipy", "video") from error
    solve: Callable[..., tuple[Index, Index]] = linear_sum_assignment
    return solve


def _iou(a: Array, b: Array) -> Array:
    """Overlap of boxes xyxy [n, 4] and [m, 4]: intersection / union, [n, m]; 0 where there is no area."""
    corner = np.maximum(a[:, None, :2], b[:, :2])
    size = np.minimum(a[:, None, 2:], b[:, 2:]) - corner
    np.maximum(size, 0.0, out=size)
    shared = size[..., 0] * size[..., 1]
    area_a = (a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1])
    area_b = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    overlap: Array = shared / np.maximum(area_a[:, None] + area_b - shared, 1e-9)
    return overlap


def _centred(xyxy: Array) -> Array:
    """Corners to centre x, centre y, width, height."""
    size = xyxy[:, 2:] - xyxy[:, :2]
    return np.concatenate([xyxy[:, :2] + size / 2, size], axis=1)


def _in_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"tracker: {name} is {value}; it must be in {low}..{high}")
