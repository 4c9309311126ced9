"""Recordings in pieces one after another, what was on screen at each frame of them, and how right that was.

    film = Film.of([Piece(pets, 0, 132), Piece(tud, 0, 60)])
    print(Shown(film, frames).precision())

Every frame of the source counts, against the newest answer that was ready when it arrived (streaming AP at an IoU of
0.5, Li et al., ECCV 2020), pooled over the film; the area is COCO's, at 101 recalls.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from recorded import Recording

from edgeward.vision.metrics.overlap import overlap
from edgeward.vision.results import Detections
from edgeward.vision.truth import TruthFrame
from edgeward.vision.views import another

Judged = tuple[np.ndarray, np.ndarray, int]
RECALLS = np.linspace(0.0, 1.0, 101)
NOTHING = Detections.empty()


@dataclass(frozen=True)
class Piece:
    """Frames first..last-1 of a recording."""

    recording: Recording
    first: int
    last: int


@dataclass(frozen=True, eq=False)
class Film:
    """Pieces one after another, each at its own rate. frames: (recording, frame) of each; times: of arrival, seconds."""

    frames: tuple[tuple[Recording, int], ...]
    times: np.ndarray

    @classmethod
    def of(cls, pieces: Iterable[Piece], fps: float | None = None, speed: float = 1.0, begin: float = 0.0) -> Film:
        """fps: of all pieces; those of the scenes, times `speed`, when None. begin: seconds at the first frame."""
        frames, steps = [], []
        for piece in pieces:
            frames += [(piece.recording, index) for index in range(piece.first, piece.last)]
            steps += [1 / (fps or piece.recording.fps * speed)] * (piece.last - piece.first)
        return cls(tuple(frames), begin + np.concatenate([[0.0], np.cumsum(steps)[:-1]]))

    @functools.cached_property
    def views(self) -> tuple[int, ...]:
        """The number of the view of each frame, as the box counts them."""
        glances = [recording.glances[index] for recording, index in self.frames]
        cuts = [another(one, other) for one, other in itertools.pairwise(glances)]
        return (0, *itertools.accumulate(map(int, cuts)))


@dataclass(frozen=True, eq=False)
class Shown:
    """What was on screen at each frame of a film: (rung, frame of the film it was made from), None before the first.

    boxes: where the boxes were, when they are not those of the recording. skipped: frames that no model took up.
    """

    film: Film
    frames: tuple[tuple[str, int] | None, ...]
    boxes: tuple[Detections, ...] | None = None
    skipped: int = 0

    def precision(self, first: int = 0, last: int | None = None) -> float:
        """Streaming average precision over frames first..last-1 of the film."""
        return pooled(self.judged(first, last))

    def judged(self, first: int = 0, last: int | None = None) -> list[Judged]:
        return [self._judged(index) for index in range(first, len(self.frames) if last is None else last)]

    def _judged(self, index: int) -> Judged:
        recording, now = self.film.frames[index]
        if self.boxes is not None:
            return judged_boxes(self.boxes[index], recording.truth.at(now))
        shown = self.frames[index]
        if shown is None:
            return judged_boxes(NOTHING, recording.truth.at(now))
        rung, source = shown
        of, frame = self.film.frames[source]
        return judge(recording, rung, frame, now, of)


def judge(recording: Recording, rung: str, frame: int, now: int, of: Recording | None = None) -> Judged:
    """Scores, which boxes are right, and how many there are to find: `rung`'s boxes of `frame` against frame `now`."""
    return _judge(_Key(recording, of or recording), rung, frame, now)


@dataclass(frozen=True)
class _Key:
    recording: Recording = field(hash=False, compare=False)
    of: Recording = field(hash=False, compare=False)
    names: tuple[str, str] = ("", "")

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", (self.recording.name, self.of.name))


@functools.cache
def _judge(key: _Key, rung: str, frame: int, now: int) -> Judged:
    return judged_boxes(key.of.boxes[rung][frame], key.recording.truth.at(now))


def judged_boxes(found: Detections, truth: TruthFrame) -> Judged:
    """Scores, which boxes are right, and how many there are to find."""
    order = np.argsort(-found.confidence, kind="stable")
    shared = overlap(found.xyxy[order], truth.xyxy, truth.ignored)
    right, counts, free = np.zeros(len(order), bool), np.ones(len(order), bool), ~truth.ignored
    for row in np.flatnonzero(shared.max(axis=1, initial=0.0) >= 0.5):
        near = shared[row] >= 0.5
        best = int(np.where(near & free, shared[row], -1.0).argmax())
        right[row] = near[best] and free[best]
        counts[row] = right[row] or not (near & truth.ignored).any()
        free[best] &= not right[row]
    return found.confidence[order][counts], right[counts], int((~truth.ignored).sum())


def pooled(judged: Sequence[Judged]) -> float:
    """Average precision of all frames together."""
    scores, right = (np.concatenate([each[column] for each in judged]) for column in (0, 1))
    positives = sum(each[2] for each in judged)
    hits = np.cumsum(right[np.argsort(-scores, kind="stable")])
    if not positives or not len(hits):
        return 0.0
    recall, precision = hits / positives, hits / np.arange(1, len(hits) + 1)
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return float(envelope[np.searchsorted(recall, RECALLS, side="left")].mean())
