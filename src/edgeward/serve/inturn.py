"""Several detectors of a ladder that look in turn, one at each frame: what is shown is what the newest looks found.

    ladders: [{name: people, models: [nano, center, nano~center], calibration: people.json}]

    turns = Turns()
    model = turns.due("nano~center", "gate")             # "nano"; then "center", then "nano" again
    turns.looked(model, "gate")
    looks = Looks(dialects, labels)
    boxes = looks.joined("nano~center", model, answer, frame)       # with what "center" found a frame ago

An answer takes as long as one of them does, and finds nearly what both find together: most of what one finds is still
there when the other looks. The frames need not be divided evenly, nor does a change from "nano" to "nano~center" begin
from nothing: whatever a model found of late counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeward.serve.certainty import Dialect
from edgeward.serve.modelconfig import looks_of, members_of
from edgeward.vision.frames import Frame
from edgeward.vision.fusion import fused_in_turn
from edgeward.vision.results import Detections

__all__ = ["Looks", "Turns"]

RECENT_SECONDS = 1.0
"""What was found longer ago has moved on."""


class Turns:
    """Which model looks at a camera's next frame. Used by one thread."""

    def __init__(self) -> None:
        self._looks = 0
        self._last: dict[tuple[str, str], int] = {}

    def due(self, rung: str, camera: str) -> str:
        """Of models in turn, the one that has not looked at this camera for longest; else the rung itself."""
        if looks_of(rung) == 1:
            return rung
        return min(members_of(rung), key=lambda member: self._last.get((member, camera), 0))

    def looked(self, model: str, camera: str) -> None:
        """Notes that a model has looked at a frame of this camera."""
        self._looks += 1
        for member in members_of(model):
            self._last[member, camera] = self._looks


@dataclass(frozen=True, eq=False)
class _Look:
    time: float
    size: tuple[int, int]
    boxes: Detections


class Looks:
    """What each of the models that take turns found last, for one query. Used by one thread.

    dialects: how to understand each model; labels: class names of the results.
    """

    def __init__(self, dialects: Mapping[str, Dialect], labels: Sequence[str]) -> None:
        self._dialects = dialects
        self._labels = labels
        self._of = {member for rung in dialects if looks_of(rung) > 1 for member in members_of(rung)}
        self._last: dict[str, _Look] = {}

    def joined(self, rung: str, model: str, boxes: Detections, frame: Frame) -> Detections:
        """What `model` found in a frame, with what the other models of its rung found last.

        A model that is a rung by itself is left as it is, and remembered when another rung has use for that. Only what
        was found in a picture of the same size counts, before this one, by RECENT_SECONDS at most.
        """
        if model not in self._of:
            return boxes
        height, width = frame.image.shape[:2]
        look = _Look(frame.time, (width, height), self._dialects[model].understood(boxes, self._labels))
        self._last[model] = look
        if looks_of(rung) == 1:
            return boxes
        others = [self._last[member] for member in members_of(rung) if member != model and member in self._last]
        recent = [each for each in others if each.size == look.size and 0 <= look.time - each.time <= RECENT_SECONDS]
        recent.sort(key=lambda each: -each.time)
        return fused_in_turn([look.boxes, *(each.boxes for each in recent)])
