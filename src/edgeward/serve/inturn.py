"""Several detectors of a ladder that look in turn, one at each frame: what is shown is what the newest looks found.

    ladders: [{name: people, models: [nano, center, nano~center], calibration: people.json}]

    turns = Turns()
    model = turns.due("nano~center", ["people@gate"])    # "nano"; then "center", then "nano" again
    turns.looked(model, ["people@gate"])
    looks = Looks(dialects, labels)
    boxes = looks.understood("nano~center", model, answer, frame, motion)   # with what "center" found a frame ago

An answer takes as long as one of them does, and finds nearly what both find together: what the other one found a frame
ago is still there, moved on by its track. A change from "nano" to "nano~center" need not begin from nothing: whatever a
model found of late counts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgeward.serve.certainty import Dialect
from edgeward.serve.modelconfig import looks_of, members_of
from edgeward.vision.forecast import Forecast
from edgeward.vision.frames import Frame
from edgeward.vision.fusion import fused_in_turn
from edgeward.vision.metrics.overlap import overlap
from edgeward.vision.results import Detections

__all__ = ["RECENT_SECONDS", "Looks", "Turns"]

RECENT_SECONDS = 1.0
"""What was found longer ago has moved on."""
SAME_OBJECT = 0.5
"""Overlap with a box of the newest answer from which a look's box moves as that does."""


class Turns:
    """Which model looks at the next frame that queries ask about. Used by one thread."""

    def __init__(self) -> None:
        self._looks = 0
        self._last: dict[tuple[str, str], int] = {}

    def due(self, rung: str, queries: Collection[str]) -> str:
        """Of models in turn, the one that has not looked for one of these queries for longest; else the rung itself."""
        if looks_of(rung) == 1:
            return rung
        return min(members_of(rung), key=lambda member: min(self._last.get((member, query), 0) for query in queries))

    def looked(self, model: str, queries: Collection[str]) -> None:
        """Notes that a model has looked at a frame for these queries."""
        self._looks += 1
        self._last |= {(member, query): self._looks for member in members_of(model) for query in queries}


@dataclass(frozen=True, eq=False)
class _Look:
    """What a model found in a frame of that time and size, moved to where it should be at the time `at`."""

    time: float
    at: float
    size: tuple[int, int]
    boxes: Detections


class Looks:
    """What each of the models that take turns found last, for one query. Used by one thread.

    dialects: how to understand each model; labels: class names of the results.
    """

    def __init__(self, dialects: Mapping[str, Dialect], labels: Sequence[str]) -> None:
        self._dialects = dialects
        self._labels = labels
        self._of = frozenset(member for rung in dialects if looks_of(rung) > 1 for member in members_of(rung))
        self._last: dict[str, _Look] = {}

    @property
    def wanted(self) -> bool:
        """Whether there is a rung of models in turn."""
        return bool(self._of)

    def understood(self, rung: str, model: str, boxes: Detections, frame: Frame, motion: Forecast) -> Detections:
        """What `model` found in a frame, with what the other models of its rung found last, moved to this frame.

        motion: of the boxes of the newest answer. The scores are probabilities. Only what was found in a picture of the
        same size counts, before this one, by RECENT_SECONDS at most.
        """
        height, width = frame.image.shape[:2]
        if self._last:
            self._last = _moved(self._last, frame.time, (width, height), motion)
        own = self._dialects[model].understood(boxes, self._labels)
        if model in self._of:
            self._last[model] = _Look(frame.time, frame.time, (width, height), own)
        members = members_of(rung) if looks_of(rung) > 1 else ()
        others = [self._last[member] for member in members if member != model and member in self._last]
        if not others:
            return own
        others.sort(key=lambda look: -look.time)
        both = fused_in_turn([own, *(look.boxes for look in others)])
        return self._dialects[rung].understood(both, self._labels)


def _moved(looks: Mapping[str, _Look], time: float, size: tuple[int, int], motion: Forecast) -> dict[str, _Look]:
    """Looks that still count, with their boxes where the objects of the newest answer have moved to by now."""
    before, now = motion.newest, motion.at(time)
    step = now.xyxy - before.xyxy
    kept = {}
    for model, look in looks.items():
        if look.size != size or not 0 <= time - look.time <= RECENT_SECONDS:
            continue
        boxes = look.boxes
        if look.at < time and len(boxes) and len(before):
            shared = overlap(boxes.xyxy, before.xyxy, np.zeros(len(before), np.bool_))
            of = shared.argmax(axis=1)
            known = shared[np.arange(len(boxes)), of] > SAME_OBJECT
            boxes = replace(boxes, xyxy=boxes.xyxy + np.where(known[:, None], step[of], np.float32(0)))
        kept[model] = replace(look, at=time, boxes=boxes)
    return kept
