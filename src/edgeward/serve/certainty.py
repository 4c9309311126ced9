"""Scores of different detectors made comparable: how likely it is that a box with this score is right.

    slope_offset = fitted(scores, right)             # once, of boxes whose truth is known
    boxes = certain(boxes, slope_offset)             # confidence is now a probability

Each detector has its own idea of a good score. A single one ranks its boxes all the same, but where one detector takes
over from another, the mild scores of the one would be ranked below the false boxes of the other. The log-odds that a
box is right are taken to be linear in the log-odds of its score (Platt, "Probabilistic outputs for support vector
machines", 1999), which never changes the order of one detector's boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgeward.vision.labels import relabelled
from edgeward.vision.results import Detections

__all__ = ["UNCHANGED", "Dialect", "certain", "fitted", "score_of"]

FloatArray = npt.NDArray[np.float64]
UNCHANGED = (1.0, 0.0)
"""Slope and offset of scores that are probabilities already."""
EDGE = 1e-6
"""Scores are kept so far from 0 and 1, where their log-odds have no bound."""
PRIOR = 0.01
"""Strength with which a fit on few boxes is drawn towards UNCHANGED."""
LEAST_SLOPE = 0.05
STEPS = 50


@dataclass(frozen=True)
class Dialect:
    """labels: the class names of a model. certainty: what makes its scores comparable with those of others."""

    labels: tuple[str, ...]
    certainty: tuple[float, float] = UNCHANGED

    def understood(self, boxes: Detections, labels: Sequence[str]) -> Detections:
        """The boxes with the classes of `labels`, and with probabilities for scores."""
        return certain(relabelled(boxes, self.labels, labels), self.certainty)


def certain(boxes: Detections, slope_offset: tuple[float, float]) -> Detections:
    """The boxes with the probability that each is right for its confidence."""
    if slope_offset == UNCHANGED or not len(boxes):
        return boxes
    slope, offset = slope_offset
    odds = slope * _log_odds(boxes.confidence.astype(np.float64)) + offset
    return replace(boxes, confidence=(1 / (1 + np.exp(-odds))).astype(np.float32))


def score_of(probability: float, slope_offset: tuple[float, float]) -> float:
    """The score at which a box is right with this probability."""
    if slope_offset == UNCHANGED:
        return probability
    slope, offset = slope_offset
    odds = (float(_log_odds(np.array(probability))) - offset) / slope
    return float(1 / (1 + np.exp(-np.clip(odds, -30, 30))))


def fitted(scores: npt.ArrayLike, right: npt.ArrayLike) -> tuple[float, float]:
    """Slope and offset that make these boxes likeliest, by Newton's method; UNCHANGED without any.

    scores: 0..1 [n]. right: bool [n], whether each box was matched to an object.
    """
    columns = np.stack([_log_odds(np.asarray(scores, np.float64)), np.ones(np.size(scores))], axis=1)
    target, start = np.asarray(right, np.float64), np.array(UNCHANGED)
    found = start.copy()
    for _ in range(STEPS):
        chance = 1 / (1 + np.exp(-np.clip(columns @ found, -30, 30)))
        slope = columns.T @ (chance - target) + PRIOR * (found - start)
        curve = (columns.T * (chance * (1 - chance))) @ columns + PRIOR * np.eye(2)
        step = np.linalg.solve(curve, slope)
        found = found - np.clip(step, -1, 1)  # far from the optimum a whole step of Newton's may overshoot
    return max(round(float(found[0]), 4), LEAST_SLOPE), round(float(found[1]), 4)


def _log_odds(scores: FloatArray) -> FloatArray:
    kept = np.clip(scores, EDGE, 1 - EDGE)
    return np.asarray(np.log(kept / (1 - kept)))
