"""Several detectors of a ladder that look in turn, one at each frame: what is shown is what the newest looks found.

    ladders: [{name: people, models: [nano, center, nano~center], calibration: people.json}]

    turns = Turns()
    model = turns.due("nano~center", ["people@gate"])    # "nano"; then "center", then "nano" again
    turns.looked(model, ["people@gate"])
    looks = Looks(dialects, labels)
    boxes = looks.understood("nano~center", model, answer, frame)    # with what "center" found a frame ago

An answer takes as long as one of them does, and finds nearly what both find together: what the other one found a frame
ago is still there, moved on by its track. A change from "nano" to "nano~center" need not begin from nothing: whatever a
model found of late counts.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgeward.serve.certainty import Dialect
from edgeward.serve.modelconfig import looks_of, members_of
from edgeward.vision.following import Follower
from edgeward.vision.frames import Frame
from edgeward.vision.fusion import fused_in_turn
from edgeward.vision.results import Detections

__all__ = ["LONE", "RECENT_SECONDS", "Looks", "Turns", "between", "share_held", "whose_turn"]

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
RECENT_SECONDS = 1.0
"""What was found longer ago says little of what is there."""
MISLAID = 0.2
"""Of what an older look of models in turn found, and motion would have lost by now, the share that is lost although it
is moved. Measured with boxes a frame late: 0.09 to 0.25 for pairs on PETS, nothing to tell on TUD."""
OUTRUN = 0.46
"""The same where tracks lose their objects, which begins when motion would leave about a fifth (see `TOO_FAST`)."""
TOO_FAST = 8
LONE = 0.94
"""Share of what models find together that one of them finds alone, where no ladder tells: PETS and TUD 0.93 to 0.98."""


def whose_turn(rung: str, looked: Mapping[str, float]) -> str:
    """Of models in turn the one that has not looked for longest, of equals the first; else the rung itself.

    looked: when each model looked last, absent if it never did.
    """
    if looks_of(rung) == 1:
        return rung
    return min(members_of(rung), key=lambda member: looked.get(member, -math.inf))


def between(rung: str, part: str, time: float, looked: Mapping[str, float]) -> float:
    """Seconds from one look to the next of the models in turn whose looks an answer of `part` at that time holds.

    Infinite when one of the others never looked. looked: as of `whose_turn`.
    """
    ages = [time - looked.get(member, -math.inf) for member in members_of(rung) if member != part]
    return max(ages) / len(ages)


class Turns:
    """Which model looks at the next frame that queries ask about. Used by one thread."""

    def __init__(self) -> None:
        self._looks = 0
        self._last: dict[tuple[str, str], int] = {}

    def due(self, rung: str, queries: Collection[str]) -> str:
        """Of models in turn, the one that has not looked for one of these queries for longest; else the rung itself."""
        last = {member: min(self._last.get((member, query), 0) for query in queries) for member in members_of(rung)}
        return whose_turn(rung, last)

    def looked(self, model: str, queries: Collection[str]) -> None:
        """Notes that a model has looked at a frame for these queries."""
        self._looks += 1
        self._last |= {(member, query): self._looks for member in members_of(model) for query in queries}


@dataclass(frozen=True, eq=False)
class _Look:
    """What a model found in a frame of that time, moved to where it should be at the time `at`."""

    time: float
    at: float
    boxes: Detections


class Looks:
    """What each of the models that take turns found last, for one query. Used by one thread.

    dialects: how to understand each model; labels: class names of the results. confidence: of the query.
    """

    def __init__(self, dialects: Mapping[str, Dialect], labels: Sequence[str], confidence: float) -> None:
        self._dialects = dialects
        self._labels = labels
        self._of = frozenset(member for rung in dialects if looks_of(rung) > 1 for member in members_of(rung))
        self._last: dict[str, _Look] = {}
        self._follower = Follower(confidence)

    def reset(self) -> None:
        """Another view: nothing of what was found before is there."""
        self._follower.reset()
        self._last = {}

    @property
    def wanted(self) -> bool:
        """Whether there is a rung of models in turn."""
        return bool(self._of)

    def understood(self, rung: str, model: str, boxes: Detections, frame: Frame) -> Detections:
        """What `model` found in a frame, with what the other models of its rung found last, moved to this frame.

        The scores are probabilities. Only what was found before this frame counts, by RECENT_SECONDS at most; what
        models found together counts for each of them.
        """
        if self._last:
            self._last = _moved(self._last, frame.time, self._follower)
        own = self._dialects[model].understood(boxes, self._labels)
        self._last |= {
            member: _Look(frame.time, frame.time, own) for member in self._of.intersection(members_of(model))
        }
        if looks_of(rung) == 1:
            return own
        self._follower.follow(own, frame.time)
        members = [member for member in members_of(rung) if member != model]
        others = [self._last[member] for member in members if member in self._last]
        if not others:
            return own
        others.sort(key=lambda look: -look.time)
        both = fused_in_turn([own, *(look.boxes for look in others)])
        return self._dialects[rung].understood(both, self._labels)


def _moved(looks: Mapping[str, _Look], time: float, follower: Follower) -> dict[str, _Look]:
    """Looks that still count, with their boxes where their objects have moved to by now."""
    kept = {}
    for model, look in looks.items():
        if 0 <= time - look.time <= RECENT_SECONDS:
            boxes = follower.carried(look.boxes, time) if look.at < time else look.boxes
            kept[model] = replace(look, at=time, boxes=boxes)
    return kept


def share_held(left: FloatArray, recent: BoolArray, lone: float) -> FloatArray:
    """Share of their precision that models in turn keep, some of it being of older looks: float64 [n].

    left: share that motion would leave of what each older look found, [looks - 1, n]; it is moved, and most of it kept.
    recent: which of them still count. lone: share that one model would reach by itself.
    """
    looks, gone = len(left) + 1, 1 - left
    lost = np.where(recent, (MISLAID * gone + OUTRUN * gone**TOO_FAST) / looks, (1 - min(lone, 1.0)) / (looks - 1))
    return np.asarray(1 - lost.sum(axis=0))
