"""Average precision of detections, as COCO defines it.

    ap50 = average_precision(results, truth, iou=0.5)
    ap = coco_map(results, truth)

Lin et al., "Microsoft COCO: Common Objects in Context" (ECCV 2014) and its evaluation code: boxes of a frame are
matched greedily by confidence, each to the free annotated box of its class that it overlaps most; precision is made
non-increasing and read at the recalls 0, 0.01, ..., 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edgeward.errors import ConfigError
from edgeward.vision.metrics.overlap import overlap
from edgeward.vision.results import Detections
from edgeward.vision.truth import Truth, TruthFrame

__all__ = ["average_precision", "coco_map"]

Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
MAX_DETECTIONS = 100
"""Boxes that count per frame and class, the most confident first."""
RECALLS = np.linspace(0.0, 1.0, 101)
COCO_IOUS = np.linspace(0.5, 0.95, 10)


def average_precision(
    results: Mapping[int, Detections], truth: Truth, iou: float = 0.5, frames: Sequence[int] | None = None
) -> float:
    """101-point average precision at one IoU threshold, mean over the classes that have a box to find.

    results: detections by content index, their class ids numbering `truth.labels`; a frame without is an empty answer.
    frames: content indices that count; all of the truth when absent.

    0 when nothing is to be found. Raises ConfigError for an IoU outside (0, 1].
    """
    if not 0 < iou <= 1:
        raise ConfigError(f"iou is {iou}; it must be over 0 and at most 1")
    return _mean_precision(results, truth, np.array([iou]), frames)


def coco_map(results: Mapping[int, Detections], truth: Truth, frames: Sequence[int] | None = None) -> float:
    """COCO's main figure: the mean of `average_precision` over the IoU thresholds 0.50, 0.55, ..., 0.95."""
    return _mean_precision(results, truth, COCO_IOUS, frames)


def _mean_precision(
    results: Mapping[int, Detections], truth: Truth, ious: Array, frames: Sequence[int] | None
) -> float:
    chosen = range(truth.frames) if frames is None else sorted(set(frames))
    pairs = [(results.get(frame, Detections.empty()), truth.at(frame)) for frame in chosen]
    wanted = {int(class_id) for _, real in pairs for class_id in real.class_id[~real.ignored]}
    figures = [_class_precision(pairs, class_id, ious) for class_id in sorted(wanted)]
    return float(np.mean(figures)) if figures else 0.0


def _class_precision(pairs: Iterable[tuple[Detections, TruthFrame]], class_id: int, ious: Array) -> float:
    """Mean over the thresholds of one class's average precision."""
    confidence, right, counted, positives = [np.zeros(0)], [np.zeros((len(ious), 0), bool)], [], 0
    counted.append(right[0])
    for boxes, real in pairs:
        rows, annotated = np.flatnonzero(boxes.class_id == class_id), real.class_id == class_id
        positives += int((annotated & ~real.ignored).sum())
        if not len(rows):
            continue
        score = boxes.confidence[rows].astype(np.float64)
        order = np.argsort(-score, kind="stable")[:MAX_DETECTIONS]
        ignored = real.ignored[annotated]
        shared = overlap(boxes.xyxy[rows[order]], real.xyxy[annotated], ignored)
        hit, passed_over = _matched(shared, ignored, ious)
        confidence.append(score[order])
        right.append(hit)
        counted.append(~passed_over)
    order = np.argsort(-np.concatenate(confidence), kind="stable")
    hits, counts = np.concatenate(right, axis=1)[:, order], np.concatenate(counted, axis=1)[:, order]
    return float(np.mean([_area(hit[count], positives) for hit, count in zip(hits, counts, strict=True)]))


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
