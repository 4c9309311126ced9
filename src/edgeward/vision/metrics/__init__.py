"""Figures of accuracy against ground truth; docs/accuracy.md has their definitions.

from edgeward.vision.metrics import average_precision
print(average_precision(results, truth))
"""

from __future__ import annotations

from edgeward.vision.metrics.precision import average_precision, coco_map
from edgeward.vision.metrics.streaming import StreamingScore, streaming_ap
from edgeward.vision.metrics.tracks import TrackingScores, tracking_scores

__all__ = [
    "StreamingScore",
    "TrackingScores",
    "average_precision",
    "coco_map",
    "streaming_ap",
    "tracking_scores",
]
