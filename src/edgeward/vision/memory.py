"""What was found in the last moments counts, too: an object that one look misses is hardly gone.

    memory = Memory(confidence=0.3)
    memory.see("nano", boxes, time)                      # each answer of a detector, one after another
    shown = memory.boxes

Detectors flicker: what is found in one frame is missed in the next, and what is not there is seldom found twice. So the
confidence of a box is made a mean over looks, the newest counting most, and boxes that were found before move with
their tracks. Detectors whose scores mean the same may take turns. Where most tracks cannot keep up, or another view
begins, little of what a detector finds now was found before, and what was before counts as little. After Seq-NMS (Han
et al., arXiv 1602.08465), which rescores the boxes of whole recordings, where a live camera knows only what has been.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from edgeward.vision.following import SAME_OBJECT, Follower
from edgeward.vision.fusion import fused_over_time
from edgeward.vision.metrics.overlap import overlap
from edgeward.vision.results import Detections

__all__ = ["MEMORY_SECONDS", "Memory", "found_before"]

MEMORY_SECONDS = 0.3
"""After this time a look counts 1/e of what it did. Compared on PETS and TUD with 0.1 to 0.8."""
MOST = 300
"""Boxes that are kept, the most certain ones."""
GONE = 0.01
"""Weight of all earlier looks below which they are forgotten."""
RECENT_SECONDS = 1.0
"""What a detector found longer ago tells nothing of whether the view is still the same."""
SURE, SUSPECTED = 0.3, 0.1
"""Least confidence of what must have been there before if it has not just appeared, and of where it may have been."""


class Memory:
    """What a camera's earlier frames showed. Used by one thread.

    confidence: of the boxes that are asked for. boxes: what is there by the newest look and all before it, most certain
    first, without tracker ids.
    """

    def __init__(self, confidence: float) -> None:
        self.boxes = Detections.empty()
        self._follower = Follower(confidence)
        self._kept = Detections.empty()
        self._own: dict[str, tuple[float, Detections]] = {}
        self._weight = 0.0
        self._time = -math.inf

    def reset(self) -> None:
        """Another view: nothing of what was there before is there."""
        self._follower.reset()
        self._own, self._weight = {}, 0.0

    def see(self, detector: str, boxes: Detections, time: float) -> None:
        """After a look of a detector at `time` seconds found these boxes; when time goes back, it is another view."""
        if time < self._time:
            self.reset()
        before = self._follower.carried(self._kept, time)
        self._own = {name: own for name, own in self._own.items() if time - own[0] <= RECENT_SECONDS}
        weight = self._weight and self._weight * math.exp((self._time - time) / MEMORY_SECONDS)
        if detector in self._own:  # one that comes new may find what others never did
            weight *= found_before(boxes, (before, self._own[detector][1]))
        if weight < GONE:
            weight, before = 0.0, Detections.empty()
        self.boxes, kept = fused_over_time(boxes, before, weight)
        self._kept = kept[:MOST]
        self._weight, self._time = weight + 1, time
        self._own[detector] = time, boxes
        self._follower.follow(boxes, time)


def found_before(boxes: Detections, before: Iterable[Detections]) -> float:
    """The share of what is surely there, by confidence, that lies where something was expected; 1 when nothing is."""
    sure = boxes[boxes.confidence >= SURE]
    if not len(sure):
        return 1.0
    near = np.zeros(len(sure))
    for each in before:
        expected = each[each.confidence >= SUSPECTED]
        shared = overlap(sure.xyxy, expected.xyxy, np.zeros(len(expected), np.bool_))
        shared *= sure.class_id[:, None] == expected.class_id
        near = np.maximum(near, shared.max(axis=1, initial=0.0))
    return float(sure.confidence[near > SAME_OBJECT].sum() / sure.confidence.sum())
