"""Boxes of earlier looks moved to where their objects are by now, as far as the tracks of the objects have moved.

follower = Follower(confidence=0.3)
follower.follow(boxes, time)                     # what the newest look found
moved = follower.carried(others, later)          # boxes of any look that were right at that time
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgeward.vision.forecast import Forecast
from edgeward.vision.metrics.overlap import overlap
from edgeward.vision.results import Detections
from edgeward.vision.tracking import TRACKING_FLOOR, ByteTracker

__all__ = ["Follower"]

SURE = 0.3
"""Least confidence of a new track, whatever is asked for."""
SAME_OBJECT = 0.5
"""Overlap with a box of the newest look from which a box moves as that does."""


class Follower:
    """The tracks of what each look found. Used by one thread.

    confidence: of the boxes that are asked for.
    """

    def __init__(self, confidence: float) -> None:
        self._least = min(TRACKING_FLOOR, confidence) or TRACKING_FLOOR
        self._tracker = ByteTracker(max(confidence, SURE), self._least)
        self._motion = Forecast.start()

    def follow(self, boxes: Detections, time: float) -> None:
        """Takes note of what a look at `time` found by itself: fused with others, what moved far would be too faint."""
        tracked = self._tracker.update(boxes[boxes.confidence >= self._least], time)
        self._motion = self._motion.observe(tracked, time)

    def carried(self, boxes: Detections, time: float) -> Detections:
        """Boxes that were right at the newest look's time, where their objects have moved to at `time`, seconds."""
        before = self._motion.newest
        if not len(boxes) or not len(before):
            return boxes
        step = self._motion.at(time).xyxy - before.xyxy
        shared = overlap(boxes.xyxy, before.xyxy, np.zeros(len(before), np.bool_))
        of = shared.argmax(axis=1)
        known = shared[np.arange(len(boxes)), of] > SAME_OBJECT
        return replace(boxes, xyxy=boxes.xyxy + np.where(known[:, None], step[of], np.float32(0)))

    def reset(self) -> None:
        """Another view: nothing is known of what moves there."""
        self._tracker.reset()
        self._motion = Forecast.start()
