"""Non-maximum suppression: of boxes that show the same object, keep the one that is most certain.

keep = nms(xyxy, confidence, class_id, iou=0.6)
boxes = xyxy[keep]
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["best", "nms", "overlapping"]

Floats = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.integer[Any]]


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
    over union). xyxy [n, 4], confidence [n], class_id [n], all finite; memory grows with the pairs of a class that
    share a column.
    """
    order = np.argsort(-confidence, kind="stable")
    if len(order) < 2:
        return order
    one, other = overlapping(xyxy[order], class_id[order], iou)
    one, other = np.minimum(one, other), np.maximum(one, other)
    rising = np.argsort(one, kind="stable")
    firsts, starts = np.unique(one[rising], return_index=True)
    alive = np.ones(len(order), bool)
    for row, rivals in zip(firsts.tolist(), np.split(other[rising], starts)[1:], strict=True):
        if alive[row]:
            alive[rivals] = False
    return order[alive]


def overlapping(xyxy: Floats, class_id: Integers, iou: float) -> tuple[Integers, Integers]:
    """Indices of all pairs of boxes [n, 4] of one class that overlap by more than `iou`, each pair once."""
    if not len(xyxy):
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    boxes = xyxy.astype(np.float64)
    one, other = _sharing_a_column(boxes, class_id)
    near = _near(boxes, one, other, iou)
    return one[near], other[near]


def _sharing_a_column(boxes: Floats, classes: Integers) -> tuple[Integers, Integers]:
    """Pairs of one class, found by a sweep from left to right: the others need not be compared."""
    # Classes lie beside each other, told apart by ranks: sums of coordinates would drown beside one absurd box.
    lefts = np.sort(boxes[:, 0])
    begin = np.unique(classes, return_inverse=True)[1] * (len(boxes) + 1)
    left, right = begin + np.searchsorted(lefts, boxes[:, 0]), begin + np.searchsorted(lefts, boxes[:, 2])
    sweep = np.argsort(left, kind="stable")
    place = np.arange(len(boxes))
    after = np.maximum(np.searchsorted(left[sweep], right[sweep]) - place - 1, 0)
    one = np.repeat(place, after)
    return sweep[one], sweep[one + 1 + np.arange(len(one)) - np.repeat(np.cumsum(after) - after, after)]


def _near(boxes: Floats, one: Integers, other: Integers, iou: float) -> npt.NDArray[np.bool_]:
    """Which pairs of boxes [n, 4] overlap by more than `iou`."""
    left, top, right, bottom = boxes.T
    width = np.minimum(right[one], right[other]) - np.maximum(left[one], left[other])
    height = np.minimum(bottom[one], bottom[other]) - np.maximum(top[one], top[other])
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    area = np.maximum(right - left, 0) * np.maximum(bottom - top, 0)
    # Comparing shared > iou * union instead of dividing: boxes without area suppress nothing and are not suppressed.
    return np.asarray(shared > iou * (area[one] + area[other] - shared))
