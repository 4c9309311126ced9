"""How accurate models are on objects of each size, from boxes on pictures.

    edges = size_edges(sizes_of_objects)
    table = size_table(boxes_of_each_picture, truth, edges)      # one average precision for each bin

Boxes are in shares of the frame, x by its width and y by its height: the side of a square of a box's area is then its
relative size, whatever the frame, and overlaps are the same as in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from edgeward.serve.sizes import size_bins, sizes
from edgeward.vision.metrics.overlap import overlap
from edgeward.vision.metrics.precision import average_precision
from edgeward.vision.results import Detections
from edgeward.vision.truth import Truth, TruthFrame

__all__ = ["fit_of", "object_sizes", "size_edges", "size_table", "static_iou"]

FloatArray = npt.NDArray[np.float64]
MOST_BINS = 6
OBJECTS = 40
"""Objects that a bin has at least; with fewer, an average precision says little."""
WIDTH = 1.2
"""Least ratio of a bin's bounds."""
ASSUMED = 10.0
"""Objects that a model's accuracy for all sizes counts for in that of one size. An object is found or missed (variance
at most 1/4), bins differ by about 0.15: the mean that errs least weighs the former as 0.25 / 0.15**2 objects."""
ASSUMED_STATIC, ASSUMED_PAIRS = 0.8, 5.0
"""Overlap of two boxes of an unmoved object before any was seen, and how many boxes that counts for."""
ASSUMED_FIT, ASSUMED_FITS = 0.75, 5
"""The same of a right box with its object."""
LINKED = 0.3
"""Least overlap of boxes in consecutive frames that are taken for one object's."""


def object_sizes(truth: Truth) -> FloatArray:
    """Relative sizes of all objects that count: float64 [n]. Boxes are in shares of the frame."""
    boxes = truth.boxes
    here = ~boxes.ignored
    count = int(here.sum())
    return sizes(Detections(boxes.xyxy[here], np.ones(count, np.float32), np.zeros(count, np.int32)), 1.0, 1.0)


def size_edges(size: FloatArray) -> tuple[float, ...]:
    """Bounds of size bins, from 0 to 1: quantiles, at most 6 bins of at least 40 objects each, and of sizes that differ
    by a fifth: what a model finds hardly changes over less, and the bins would tell chance apart."""
    bins = max(min(MOST_BINS, len(size) // OBJECTS), 1)
    edges = [0.0]
    for edge in np.quantile(size, np.arange(1, bins) / bins).round(4) if bins > 1 else ():
        if max(edges[-1] * WIDTH, 0.001) <= edge < 1:
            edges.append(float(edge))
    return (*edges, 1.0)


def size_table(
    boxes: Mapping[int, Detections], truth: Truth, edges: Sequence[float], frames: Sequence[int] | None = None
) -> tuple[float, ...]:
    """Average precision at an IoU of 0.5 on the objects of each size, classes weighted by their objects.

    boxes: by the frame numbers of the truth, in shares of the frame. A bin's figure is drawn towards the class's figure
    for all sizes as far as it rests on few objects: a mean of the two, weighted by the bin's objects and by 10.
    """
    right, weights = np.zeros(len(edges) - 1), np.zeros(len(edges) - 1)
    for class_id in sorted({int(each) for each in truth.boxes.class_id[~truth.boxes.ignored]}):
        only = _of_class(truth, class_id)
        size = object_sizes(only)
        whole = average_precision(boxes, only, frames=frames)
        here = np.bincount(size_bins(size, edges), minlength=len(right))
        sure = _distinct(only, size_bins(size, edges), len(right))
        for bin_, count in enumerate(here):
            high = edges[bin_ + 1] if bin_ + 2 < len(edges) else np.inf
            figure = average_precision(boxes, only, frames=frames, sides=(edges[bin_], high)) if count else whole
            # A bin without any object of any class still needs a figure: a trace of weight gives it the overall one.
            weight = count or 1e-6 * len(size)
            right[bin_] += weight * (sure[bin_] * figure + ASSUMED * whole) / (sure[bin_] + ASSUMED)
            weights[bin_] += weight
    return tuple(float(each) for each in np.round(np.divide(right, weights), 4))


def _distinct(truth: Truth, bins: npt.NDArray[np.intp], count: int) -> npt.NDArray[np.intp]:
    """Different objects in each size bin: who is seen again a moment later is found or missed again, and says no more.

    Where the truth does not tell objects apart, every box is one.
    """
    numbers = truth.boxes.tracker_id[~truth.boxes.ignored]
    told = len(np.unique(numbers)) > 1
    pairs = np.unique(np.stack([bins, numbers if told else np.arange(len(bins))], axis=1), axis=0)
    return np.bincount(pairs[:, 0], minlength=count)


def fit_of(boxes: Sequence[Detections], truth: Truth) -> float:
    """Mean overlap of right boxes with their objects, over 0.5; few boxes are drawn towards 0.75.

    boxes: of each frame of the truth.
    """
    found = [ASSUMED_FIT] * ASSUMED_FITS
    for frame, each in enumerate(boxes):
        real = truth.at(frame)
        shared = overlap(each.xyxy, real.xyxy, np.zeros(len(real), np.bool_))
        if shared.size:
            shared[each.class_id[:, None] != real.class_id] = 0
            best = shared.max(axis=1)
            found += best[best >= 0.5].tolist()
    return round(min(max(float(np.mean(found)), 0.51), 1.0), 4)


def static_iou(pairs: Sequence[tuple[Detections, Detections]]) -> float:
    """Mean overlap of a model's boxes of an object that does not move, from what it found in consecutive frames.

    Motion leaves the shape of a box alone, jitter does not: when the four sides err independently, laying the two boxes
    on one centre removes the motion and all but 1 / sqrt(2) of the jitter's part in the lost overlap. Few boxes are
    drawn towards 0.8.
    """
    lost = [1 - shared for before, after in pairs for shared in _shapes_shared(before, after)]
    total = ASSUMED_PAIRS * (1 - ASSUMED_STATIC) + math.sqrt(2) * float(sum(lost))
    return float(round(max(1 - total / (ASSUMED_PAIRS + len(lost)), 0.05), 4))


def _shapes_shared(before: Detections, after: Detections) -> FloatArray:
    """Overlap, laid on one centre, of boxes that are each other's nearest: float64 [m]."""
    if not len(before) or not len(after):
        return np.zeros(0)
    shared = overlap(before.xyxy, after.xyxy, np.zeros(len(after), np.bool_))
    shared[before.class_id[:, None] != after.class_id] = 0
    partner = shared.argmax(axis=1)
    rows = np.flatnonzero((shared.max(axis=1) > LINKED) & (shared.argmax(axis=0)[partner] == np.arange(len(before))))
    first, second = (
        found[:, 2:].astype(np.float64) - found[:, :2] for found in (before.xyxy[rows], after.xyxy[partner[rows]])
    )
    common = np.minimum(first, second).prod(axis=1)
    return np.asarray(common / (first.prod(axis=1) + second.prod(axis=1) - common))


def _of_class(truth: Truth, class_id: int) -> Truth:
    """The boxes of one class, and the ignored ones of it."""
    rows, boxes = truth.boxes.class_id == class_id, truth.boxes
    kept = TruthFrame(boxes.xyxy[rows], boxes.tracker_id[rows], boxes.class_id[rows], boxes.ignored[rows])
    return replace(truth, frame=truth.frame[rows], boxes=kept)
