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

CROWDED = 1 / 8
"""Pairs that share a column, as a share of n squared: above it, comparing few boxes with all others beats the sweep."""
FEW = 32
"""Boxes compared with all others at once: their table stays in the processor's cache."""


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
    over union). xyxy [n, 4], confidence [n], class_id [n], all finite. Fast where boxes lie apart, as few pairs of a
    class share a column, and where most suppress each other; the worst case are n boxes that share a column and are
    all kept: n squared comparisons. Memory grows with the pairs compared, at most n squared / 8.
    """
    order = np.argsort(-confidence, kind="stable")
    if len(order) < 2:
        return order
    sides, classes = _sides(xyxy[order]), class_id[order]
    sweep, after = _swept(sides, classes)
    if after.sum() > CROWDED * len(order) ** 2:
        return order[_kept_of_crowd(sides, classes, iou)]
    one, other = _pairs(sweep, after)
    near = _near(sides.take(one, 1), sides.take(other, 1), iou)
    one, other = np.minimum(one[near], other[near]), np.maximum(one[near], other[near])
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
    sides = _sides(xyxy)
    one, other = _pairs(*_swept(sides, class_id))
    near = _near(sides.take(one, 1), sides.take(other, 1), iou)
    return one[near], other[near]


def _kept_of_crowd(sides: Floats, classes: Integers, iou: float) -> Integers:
    """Which boxes, most certain first, are kept: the first few drop their rivals among all that are left, and so on."""
    kept, left = [], np.arange(len(classes))
    while len(left):
        first, alive = left[:FEW], np.ones(len(left), bool)
        apart = ~_near(sides[:, first, None], sides.take(left, 1), iou) | (classes[first, None] != classes[left])
        for row in range(len(first)):
            if alive[row]:
                alive[row + 1 :] &= apart[row, row + 1 :]
        kept.append(first[alive[:FEW]])
        left = left[FEW:][alive[FEW:]]
    return np.concatenate(kept)


def _sides(xyxy: Floats) -> Floats:
    """Left, top, right, bottom and area of boxes [n, 4], each in one piece [5, n]; a box turned round has no area."""
    left, top, right, bottom = xyxy.astype(np.float64).T
    return np.stack([left, top, right, bottom, np.maximum(right - left, 0) * np.maximum(bottom - top, 0)])


def _swept(sides: Floats, classes: Integers) -> tuple[Integers, Integers]:
    """Boxes by class and from left to right, and with how many of those that follow each shares a column."""
    # Classes lie beside each other, told apart by ranks: sums of coordinates would drown beside one absurd box.
    lefts = np.sort(sides[0])
    begin = np.unique(classes, return_inverse=True)[1] * (len(classes) + 1)
    left, right = begin + np.searchsorted(lefts, sides[0]), begin + np.searchsorted(lefts, sides[2])
    sweep = np.argsort(left, kind="stable")
    return sweep, np.maximum(np.searchsorted(left[sweep], right[sweep]) - np.arange(len(classes)) - 1, 0)


def _pairs(sweep: Integers, after: Integers) -> tuple[Integers, Integers]:
    """Pairs of one class that share a column: the others need not be compared."""
    one = np.repeat(np.arange(len(sweep)), after)
    return sweep[one], sweep[one + 1 + np.arange(len(one)) - np.repeat(np.cumsum(after) - after, after)]


def _near(one: Floats, other: Floats, iou: float) -> npt.NDArray[np.bool_]:
    """Which boxes, sides and areas [5, ...], overlap by more than `iou`."""
    width = np.minimum(one[2], other[2]) - np.maximum(one[0], other[0])
    height = np.minimum(one[3], other[3]) - np.maximum(one[1], other[1])
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    # Comparing shared > iou * union instead of dividing: boxes without area suppress nothing and are not suppressed.
    return np.asarray(shared > iou * (one[4] + other[4] - shared))
