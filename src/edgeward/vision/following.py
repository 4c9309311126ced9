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

__all__ = ["SAME_OBJECT", "Follower"]

SURE = 0.3
"""Least confidence of a new track, whatever is asked for."""
SAME_OBJECT = 0.5
"""Overlap from which a box is of the object that was found, or should be, in a place."""


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
        places, steps = self._motion.known(time)
        if not len(boxes) or not len(places):
            return boxes
        shared = overlap(boxes.xyxy, places, np.zeros(len(places), np.bool_))
        of, known = shared.argmax(axis=1), shared.max(axis=1) > SAME_OBJECT
        moved = boxes.xyxy + np.tile(np.where(known[:, None], steps[of], 0.0), 2)
        return replace(boxes, xyxy=moved.astype(np.float32))

    def reset(self) -> None:
        """Another view: nothing is known of what moves there."""
        self._tracker.reset()
        self._motion = Forecast.start()
