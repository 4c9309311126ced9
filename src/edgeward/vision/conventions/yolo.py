"""The YOLO families in use: YOLOv8 and its successors, and YOLOX.

    convention("yolov8").decode([output], placements, confidence=0.25)

YOLOv8: https://docs.ultralytics.com/models/yolov8 (one output, no objectness, boxes in pixels).
YOLOX: Ge et al., "YOLOX: Exceeding YOLO Series in 2021", arXiv 2107.08430, section 2 (boxes relative to cells).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeward.vision.card import Preprocess
from edgeward.vision.conventions.base import Detector, Indices, Shape, Size, at_least, grid_centres
from edgeward.vision.results import FloatArray

__all__ = ["YoloV8", "YoloX"]

STRIDES = (8, 16, 32)


class YoloV8(Detector):
    """output [batch, 4 + classes, n]: centre x, centre y, width, height in pixels, then scores in 0..1."""

    name = "yolov8"
    outputs = "one, [batch, 4 + classes, n], boxes in the first four rows"
    usual = Preprocess(height=640, width=640, fit="letterbox")
    iou = 0.7

    def classes(self, shapes: Sequence[Shape], size: Size) -> int | None:
        if not self.fits(shapes, (None, None, None)):
            raise self.refuse(shapes)
        channels, n = shapes[0][1:]
        # More rows than boxes is the transposed layout of other exports, or something else altogether.
        if isinstance(channels, int) and (channels < 5 or (isinstance(n, int) and channels > n > 4)):
            raise self.refuse(shapes)
        return channels - 4 if isinstance(channels, int) else None

    def scores(self, outputs: Sequence[FloatArray], confidence: float) -> tuple[Indices, Indices, FloatArray]:
        scores = outputs[0][4:]
        rows = np.unique(at_least(scores, confidence)[1])
        return _surest(rows, scores[:, rows].T, confidence)

    def boxes(self, outputs: Sequence[FloatArray], rows: Indices, size: Size) -> npt.NDArray[np.floating[Any]]:
        x, y, width, height = outputs[0][:4, rows].astype(np.float64)
        return np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], axis=1)


class YoloX(Detector):
    """output [batch, n, 5 + classes]: x, y, log width, log height in strides from the cell, objectness, scores."""

    name = "yolox"
    outputs = "one, [batch, n, 5 + classes], n the cells of strides 8, 16 and 32, boxes not yet decoded"
    usual = Preprocess(height=640, width=640, colour="bgr", std=(1.0,) * 3, fit="letterbox")
    iou = 0.45

    def classes(self, shapes: Sequence[Shape], size: Size) -> int | None:
        n = sum(-(-size[0] // stride) * -(-size[1] // stride) for stride in STRIDES)
        if not self.fits(shapes, (None, n, None)):
            raise self.refuse(shapes)
        last = shapes[0][2]
        if isinstance(last, int) and last < 6:
            raise self.refuse(shapes)
        return last - 5 if isinstance(last, int) else None

    def scores(self, outputs: Sequence[FloatArray], confidence: float) -> tuple[Indices, Indices, FloatArray]:
        # A class score is at most 1, so that no box scores above its objectness.
        likely = np.flatnonzero(outputs[0][:, 4] >= confidence)
        return _surest(likely, outputs[0][likely, 5:] * outputs[0][likely, 4:5], confidence)

    def boxes(self, outputs: Sequence[FloatArray], rows: Indices, size: Size) -> npt.NDArray[np.floating[Any]]:
        raw = outputs[0][rows, :4].astype(np.float64)
        corner, stride = grid_centres(rows, size, STRIDES, shift=0)
        centre, half = corner + raw[:, :2] * stride, np.exp(raw[:, 2:]) * stride / 2
        return np.hstack([centre - half, centre + half])


def _surest(rows: Indices, scores: FloatArray, confidence: float) -> tuple[Indices, Indices, FloatArray]:
    """Each row with its best class, where that reaches `confidence`; scores [len(rows), classes]."""
    scores = np.nan_to_num(scores, nan=-1.0, posinf=-1.0)
    class_id = scores.argmax(axis=1)
    score = scores[np.arange(len(rows)), class_id]
    enough = score >= confidence
    return rows[enough], class_id[enough], score[enough]
