"""FastestDet: one grid, one box a cell.

    convention("fastestdet").decode([output], placements, confidence=0.6)

Decoding as in https://github.com/dog-qiuqiu/FastestDet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeward.vision.card import Preprocess
from edgeward.vision.conventions.base import Detector, Indices, Shape, Size
from edgeward.vision.results import FloatArray

__all__ = ["FastestDet"]

STRIDE = 16
OBJECT_POWER, CLASS_POWER = 0.6, 0.4


class FastestDet(Detector):
    """output [batch, 5 + classes, h, w]: objectness, four numbers of the box, class scores; stride 16."""

    name = "fastestdet"
    outputs = "one, [batch, 5 + classes, height / 16, width / 16]"
    usual = Preprocess(height=352, width=352, colour="bgr", interpolation="area")
    iou = 0.45

    def classes(self, shapes: Sequence[Shape], size: Size) -> int | None:
        if not self.fits(shapes, (None, None, -(-size[0] // STRIDE), -(-size[1] // STRIDE))):
            raise self.refuse(shapes)
        channels = shapes[0][1]
        if isinstance(channels, int) and channels < 6:
            raise self.refuse(shapes)
        return channels - 5 if isinstance(channels, int) else None

    def scores(self, outputs: Sequence[FloatArray], confidence: float) -> tuple[Indices, Indices, FloatArray]:
        """objectness ^ 0.6 * class score ^ 0.4, the best class of each cell."""
        cells = outputs[0].reshape(len(outputs[0]), -1)
        best = cells[5:].max(axis=0)
        score = np.maximum(cells[0], 0) ** OBJECT_POWER * np.maximum(best, 0) ** CLASS_POWER
        rows = np.flatnonzero(score >= confidence)
        return rows, cells[5:, rows].argmax(axis=0), score[rows]

    def boxes(self, outputs: Sequence[FloatArray], rows: Indices, size: Size) -> npt.NDArray[np.floating[Any]]:
        _, height, width = outputs[0].shape
        raw = outputs[0].reshape(len(outputs[0]), -1)[1:5, rows].T.astype(np.float64)
        y, x = np.divmod(rows, width)
        centre = (np.stack([x, y], axis=1) + np.tanh(raw[:, :2])) / [width, height]
        half = 0.5 / (1 + np.exp(-raw[:, 2:]))
        return np.hstack([centre - half, centre + half]) * [size[1], size[0], size[1], size[0]]
