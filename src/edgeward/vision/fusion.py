"""One answer of several detectors that looked at the same picture, or of one look after another.

    boxes = fused([certain(one, scale_one), certain(two, scale_two)])
    boxes.confidence          # the mean over all detectors; who did not find the object counts as 0
    boxes = fused_in_turn([newest, before])      # what both found, where the newest saw it
    shown, kept = fused_over_time(newest, kept, weight)      # what was found in any of many looks, the last ones most

Weighted boxes fusion after Solovyev, Wang and Gabruseva ("Weighted boxes fusion: ensembling boxes from different object
detection models", Image and Vision Computing, 2021). Boxes are grouped around the most certain ones, as non-maximum
suppression does it, instead of around the running mean: overlaps are worked out once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeward.vision.nms import overlapping
from edgeward.vision.results import Detections, IntArray

__all__ = ["fused", "fused_in_turn", "fused_over_time"]

SAME = 0.55
"""Overlap from which boxes of different detectors are of one object; the authors' value."""
SAME_LATER = 0.5
"""The same of looks one after another, between which objects move."""
STILL = 4
"""Power of the overlap with the newest box in the weight of an older one: where an object stands still both help to
tell where it is; where it moves the older says little. Compared on PETS and TUD with 0, 2, 8 and 16."""
STILL_LONG = 8
"""The same over many looks: older ones pull back boxes that are late on screen anyway. Compared there on PETS and TUD
with 4, 6, 10, 16 and 64."""
LEAST = 1e-9
"""Weight of a box that is certain to be wrong."""
ALONE = 0.75
"""Share of its confidence that a box keeps at least when no earlier look found it: an object that has just appeared
shall not have to wait until it was seen often. Compared on PETS and TUD with 0, 0.5 to 0.9 and 1."""
FORGOTTEN = 0.001
"""Mean confidence below which a box is not kept. Those that one look gives hardly a chance add up over many."""
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.integer[Any]]


def fused(answers: Sequence[Detections], same: float = SAME) -> Detections:
    """The boxes of all answers, one for each object, most certain first; without tracker ids.

    answers: one of each detector; their confidences must mean the same, as probabilities do (see
    `edgeward.serve.certainty`), and so must their classes. A group holds at most one box of each answer, all of one
    class: its corners are their means, weighted by confidence; its confidence is their sum over the number of answers.
    """
    joined = _joined(answers, [1.0] * len(answers), same, 0)
    return joined.boxes(joined.mean)


def fused_in_turn(answers: Sequence[Detections], same: float = SAME_LATER) -> Detections:
    """The same of looks one after another, the newest first.

    A box counts for the corners of its group the less, the less it overlaps the newest box of the group.
    """
    joined = _joined(answers, [1.0] * len(answers), same, STILL)
    return joined.boxes(joined.mean)


def fused_over_time(
    newest: Detections, before: Detections, weight: float, same: float = SAME_LATER
) -> tuple[Detections, Detections]:
    """What is there, by the newest look and all before it: what to show, and what to keep for the next look.

    before: what was kept, moved to the newest look's time. weight: of all looks that it stands for, 0 for none, where
    that of the newest is 1. Confidences are weighted means over all looks; what is shown has at least ALONE of what the
    newest look gives it. A box counts for the corners of its group the less, the less it overlaps the newest one.
    """
    joined = _joined([newest, before], [1.0, weight], same, STILL_LONG)
    return joined.boxes(np.maximum(joined.mean, ALONE * joined.newest)), joined.boxes(joined.mean, FORGOTTEN)


@dataclass(frozen=True, eq=False)
class _Joined:
    """Groups of boxes: corners [n, 4]; mean confidence over all answers and confidence in the newest, [n]; classes."""

    xyxy: Floats
    mean: Floats
    newest: Floats
    class_id: IntArray

    def boxes(self, sure: Floats, least: float = 0.0) -> Detections:
        """Those of at least that confidence, most certain first. sure: the confidence of each group, [n]."""
        order = np.argsort(-sure, kind="stable")
        order = order[sure[order] >= least]
        confidence = np.minimum(sure[order], 1.0).astype(np.float32)
        return Detections(self.xyxy[order].astype(np.float32), confidence, self.class_id[order])


def _joined(answers: Sequence[Detections], weights: Sequence[float], same: float, still: int) -> _Joined:
    """weights: of each answer; the newest is the first."""
    if not any(len(each) for each in answers):
        return _Joined(np.zeros((0, 4)), np.zeros(0), np.zeros(0), np.zeros(0, np.int32))
    xyxy = np.concatenate([each.xyxy.astype(np.float64) for each in answers])
    classes = np.concatenate([each.class_id for each in answers])
    of = np.repeat(np.arange(len(answers)), [len(each) for each in answers])
    confidence = np.concatenate([each.confidence.astype(np.float64) for each in answers])
    sure = confidence * np.asarray(weights, np.float64)[of]
    group = _groups(xyxy, sure, classes, of, same)
    total, newest = np.bincount(group, sure), np.bincount(group, confidence * (of == 0)).astype(np.float64)
    first = np.full(len(total), -1)
    first[group[::-1]] = np.arange(len(group))[::-1]
    weight = np.maximum(sure, LEAST)
    if still:
        weight = np.maximum(weight * _shared(xyxy, xyxy[first[group]]) ** still, LEAST)
    corners = [np.bincount(group, weight * column) / np.bincount(group, weight) for column in xyxy.T]
    return _Joined(np.stack(corners, axis=1), total / sum(weights), newest, classes[first])


def _shared(one: Floats, other: Floats) -> Floats:
    """Intersection over union of each box with the one in the same place: [n] from [n, 4]; 0 where there is no area."""
    sides = np.minimum(one[:, 2:], other[:, 2:]) - np.maximum(one[:, :2], other[:, :2])
    both = np.maximum(sides, 0.0).prod(axis=1)
    whole = (one[:, 2:] - one[:, :2]).prod(axis=1) + (other[:, 2:] - other[:, :2]).prod(axis=1) - both
    return np.asarray(np.divide(both, whole, out=np.zeros_like(both), where=whole > 0))


def _groups(xyxy: Floats, sure: Floats, classes: Integers, of: Integers, same: float) -> Integers:
    """The number of the group of each box: int [n], from 0 on without gaps.

    A group is begun by the most certain box that has none yet; of each other answer the most certain free box that
    overlaps it joins it.
    """
    near: list[list[int]] = [[] for _ in range(len(xyxy))]
    for one, other in np.stack(overlapping(xyxy, classes, same), axis=1).tolist():
        near[one].append(other)
        near[other].append(one)
    order = np.argsort(-sure, kind="stable").tolist()
    rank = {place: number for number, place in enumerate(order)}
    group, answers, count = [-1] * len(xyxy), of.tolist(), 0
    for leader in order:
        if group[leader] >= 0:
            continue
        group[leader], taken = count, {answers[leader]}
        for other in sorted(near[leader], key=rank.__getitem__):
            if group[other] < 0 and answers[other] not in taken:
                group[other] = count
                taken.add(answers[other])
        count += 1
    return np.array(group, np.intp)
