"""Average precision of detections, as COCO defines it.

    ap50 = average_precision(results, truth, iou=0.5)
    ap = coco_map(results, truth)

Lin et al., "Microsoft COCO: Common Objects in Context" (ECCV 2014) and its evaluation code: boxes of a frame are
matched greedily by confidence, each to the free annotated box of its class that it overlaps most; precision is made
non-increasing and read at the recalls 0, 0.01, ..., 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edgeward.errors import ConfigError
from edgeward.vision.metrics.overlap import overlap
from edgeward.vision.results import Detections, FloatArray
from edgeward.vision.truth import Truth, TruthFrame

__all__ = ["average_precision", "coco_map", "found_objects"]

Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Sides = tuple[float, float]
EVERY_SIDE: Sides = (0.0, math.inf)
MAX_DETECTIONS = 100
"""Boxes that count per frame and class, the most confident first."""
RECALLS = np.linspace(0.0, 1.0, 101)
COCO_IOUS = np.linspace(0.5, 0.95, 10)


def average_precision(
    results: Mapping[int, Detections],
    truth: Truth,
    iou: float = 0.5,
    frames: Sequence[int] | None = None,
    sides: Sides = EVERY_SIDE,
) -> float:
    """101-point average precision at one IoU threshold, mean over the classes that have a box to find.

    results: detections by content index, their class ids numbering `truth.labels`; a frame without is an empty answer.
    frames: content indices that count; all of the truth when absent.
    sides: the objects that count, by the side of a square of their area, from the first bound up to below the second,
    in the unit of the boxes. As with COCO's figures for small and large objects, finding another one is neither right
    nor wrong, nor is a box of another size that finds nothing.

    0 when nothing is to be found. Raises ConfigError for an IoU outside (0, 1] and sides that do not rise.
    """
    if not 0 < iou <= 1:
        raise ConfigError(f"iou is {iou}; it must be over 0 and at most 1")
    if not 0 <= sides[0] < sides[1]:
        raise ConfigError(f"sides {sides} must rise from at least 0")
    return _mean_precision(results, truth, np.array([iou]), frames, sides)


def coco_map(results: Mapping[int, Detections], truth: Truth, frames: Sequence[int] | None = None) -> float:
    """COCO's main figure: the mean of `average_precision` over the IoU thresholds 0.50, 0.55, ..., 0.95."""
    return _mean_precision(results, truth, COCO_IOUS, frames, EVERY_SIDE)


def found_objects(boxes: Detections, real: TruthFrame, iou: float = 0.5) -> tuple[BoolArray, BoolArray]:
    """Which boxes of one frame find an object, and which count at all: bool [n] each.

    A box that finds nothing but an ignored one does not count.
    """
    right, counted = np.zeros(len(boxes), bool), np.ones(len(boxes), bool)
    for class_id in np.unique(boxes.class_id):
        rows, annotated = np.flatnonzero(boxes.class_id == class_id), real.class_id == class_id
        rows = rows[np.argsort(-boxes.confidence[rows], kind="stable")]
        ignored = real.ignored[annotated]
        shared = overlap(boxes.xyxy[rows], real.xyxy[annotated], ignored)
        hit, passed_over = _matched(shared, ignored, np.array([iou]))
        right[rows], counted[rows] = hit[0], ~passed_over[0]
    return right, counted


def _mean_precision(
    results: Mapping[int, Detections], truth: Truth, ious: Array, frames: Sequence[int] | None, sides: Sides
) -> float:
    chosen = range(truth.frames) if frames is None else sorted(set(frames))
    pairs = [(results.get(frame, Detections.empty()), truth.at(frame)) for frame in chosen]
    counts = [~real.ignored & ~_outside(real.xyxy, sides) for _, real in pairs]
    wanted = {int(class_id) for (_, real), here in zip(pairs, counts, strict=True) for class_id in real.class_id[here]}
    figures = [_class_precision(pairs, class_id, ious, sides) for class_id in sorted(wanted)]
    return float(np.mean(figures)) if figures else 0.0


def _class_precision(pairs: Iterable[tuple[Detections, TruthFrame]], class_id: int, ious: Array, sides: Sides) -> float:
    """Mean over the thresholds of one class's average precision."""
    confidence, right, counted, positives = [np.zeros(0)], [np.zeros((len(ious), 0), bool)], [], 0
    counted.append(right[0])
    for boxes, real in pairs:
        rows, annotated = np.flatnonzero(boxes.class_id == class_id), real.class_id == class_id
        ignored = real.ignored[annotated]
        left_out = ignored | _outside(real.xyxy[annotated], sides)
        positives += int((~left_out).sum())
        if not len(rows):
            continue
        score = boxes.confidence[rows].astype(np.float64)
        order = np.argsort(-score, kind="stable")[:MAX_DETECTIONS]
        found = boxes.xyxy[rows[order]]
        hit, passed_over = _matched(overlap(found, real.xyxy[annotated], ignored), left_out, ious)
        passed_over |= ~hit & _outside(found, sides)
        confidence.append(score[order])
        right.append(hit)
        counted.append(~passed_over)
    order = np.argsort(-np.concatenate(confidence), kind="stable")
    hits, counts = np.concatenate(right, axis=1)[:, order], np.concatenate(counted, axis=1)[:, order]
    return float(np.mean([_area(hit[count], positives) for hit, count in zip(hits, counts, strict=True)]))


def _outside(xyxy: FloatArray, sides: Sides) -> BoolArray:
    """Which boxes have another size: bool [n]."""
    area = np.prod(np.maximum(xyxy[:, 2:].astype(np.float64) - xyxy[:, :2], 0), axis=1)
    return np.asarray((area < sides[0] ** 2) | (area >= sides[1] ** 2))


def _matched(shared: Array, ignored: BoolArray, ious: Array) -> tuple[BoolArray, BoolArray]:
    """Which boxes are right, and which are passed over, at each threshold: bool [t, n] each.

    shared: overlaps [n, m] of the boxes, most confident first, with the annotated ones.
    """
    n, m = shared.shape
    right, passed_over = np.zeros((len(ious), n), bool), np.zeros((len(ious), n), bool)
    if not m:
        return right, passed_over
    thresholds = np.minimum(ious, 1 - 1e-10)[:, None]
    free = np.broadcast_to(~ignored, (len(ious), m)).copy()
    every = np.arange(len(ious))
    for row in np.flatnonzero(shared.max(axis=1) >= thresholds.min()):
        near = shared[row] >= thresholds
        candidates = np.where(near & free, shared[row], -1.0)
        best = m - 1 - np.argmax(candidates[:, ::-1], axis=1)  # of equals the last, as COCO's code has it
        found = candidates[every, best] >= 0
        right[:, row] = found
        free[every[found], best[found]] = False
        passed_over[:, row] = ~found & (near & ignored).any(axis=1)
    return right, passed_over


def _area(right: BoolArray, positives: int) -> float:
    """Mean precision over RECALLS of one ranking."""
    hits = np.cumsum(right)
    recall = hits / positives
    precision = hits / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, RECALLS, side="left")
    return float(np.append(envelope, 0.0)[np.minimum(at, len(envelope))].mean())
