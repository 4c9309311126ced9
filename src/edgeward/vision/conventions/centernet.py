"""CenterNet: a heat map per class whose peaks are objects, and the distances from a peak to the four sides.

    convention("centernet").decode([heat, sides], placements, confidence=0.3)

Zhou et al., "Objects as Points", arXiv 1904.07850, section 4; sides instead of width and height.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeward.vision.card import Preprocess
from edgeward.vision.conventions.base import Detector, Indices, Shape, Size
from edgeward.vision.results import FloatArray

__all__ = ["CenterNet"]

STRIDE = 4


class CenterNet(Detector):
    """heat [batch, classes, h, w] in 0..1 and sides [batch, 4, h, w]: left, top, right, bottom in pixels."""

    name = "centernet"
    outputs = "heat [batch, classes, height / 4, width / 4] and sides [batch, 4, height / 4, width / 4]"
    usual = Preprocess(height=512, width=512, std=(1.0,) * 3)
    iou = None

    def classes(self, shapes: Sequence[Shape], size: Size) -> int | None:
        grid = (-(-size[0] // STRIDE), -(-size[1] // STRIDE))
        if not self.fits(shapes, (None, None, *grid), (None, 4, *grid)):
            raise self.refuse(shapes)
        found = shapes[0][1]
        return found if isinstance(found, int) else None

    def scores(self, outputs: Sequence[FloatArray], confidence: float) -> tuple[Indices, Indices, FloatArray]:
        """Cells that no neighbour of the 3 x 3 around them exceeds."""
        heat = np.ascontiguousarray(outputs[0])
        _, height, width = heat.shape
        hot = np.flatnonzero(heat.reshape(-1) >= confidence)
        class_id, row = np.divmod(hot, height * width)
        y, x = np.divmod(row, width)
        score = heat.reshape(-1)[hot]
        peak = np.ones(len(hot), bool)
        for dy, dx in ((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)):
            # Beyond the border the nearest cell stands in: it is in the 3 x 3 itself, so that nothing is added.
            peak &= ~(heat[class_id, np.clip(y + dy, 0, height - 1), np.clip(x + dx, 0, width - 1)] > score)
        return row[peak], class_id[peak], score[peak]

    def boxes(self, outputs: Sequence[FloatArray], rows: Indices, size: Size) -> npt.NDArray[np.floating[Any]]:
        sides = outputs[1].reshape(4, -1)[:, rows].T.astype(np.float64)
        y, x = np.divmod(rows, outputs[1].shape[2])
        centre = STRIDE * np.stack([x, y], axis=1)
        return np.hstack([centre - sides[:, :2], centre + sides[:, 2:]])
