"""Non-maximum suppression: of boxes that show the same object, keep the one that is most certain.

keep = nms(xyxy, confidence, class_id, iou=0.6)
boxes = xyxy[keep]
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["best", "nms"]

Floats = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.integer[Any]]


def _shared(low: Floats, high: Floats) -> Floats:
    """Length [n, n] that each two of n intervals have in common."""
    length = np.minimum(high[:, None], high)
    length -= np.maximum(low[:, None], low)
    return np.maximum(length, 0, out=length)


def best(confidence: Floats, limit: int) -> Integers:
    """Indices of the at most `limit` highest values, highest first; of equal ones the earlier is first."""
    if len(confidence) > limit:
        candidates = np.argpartition(-confidence, limit)[:limit]
        candidates.sort()
    else:
        candidates = np.arange(len(confidence))
    return candidates[np.argsort(-confidence[candidates], kind="stable")]


def nms(xyxy: Floats, confidence: Floats, class_id: Integers, iou: float) -> Integers:
    """Indices of the boxes to keep, most certain first.

    Greedy and exact: a box goes when it overlaps a kept one of its class by more than `iou` (intersection
    over union). xyxy [n, 4], confidence [n], class_id [n], all finite; memory grows with n squared.
    """
    order = np.argsort(-confidence, kind="stable")
    if len(order) < 2:
        return order
    boxes = xyxy[order].astype(np.float64)
    left, top, right, bottom = boxes.T
    area = (right - left) * (bottom - top)
    shared = _shared(left, right) * _shared(top, bottom)
    classes = class_id[order]
    # Comparing shared > iou * union instead of dividing: boxes without area suppress nothing and are not suppressed.
    rivals = (shared > iou * (area[:, None] + area - shared)) & (classes[:, None] == classes)
    alive = np.ones(len(order), bool)
    for row in range(len(order) - 1):
        if alive[row]:
            alive[row + 1 :] &= ~rivals[row, row + 1 :]
    return order[alive]
