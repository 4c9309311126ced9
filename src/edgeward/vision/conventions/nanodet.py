"""NanoDet: distances to the four sides as distributions over whole strides.

    convention("nanodet").decode([scores, distances], placements, confidence=0.4)

Decoding after Li et al., "Generalized Focal Loss", NeurIPS 2020, section 3.2; cells as in
https://github.com/RangiLyu/nanodet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeward.vision.card import Preprocess
from edgeward.vision.conventions.base import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Detector,
    Indices,
    Shape,
    Size,
    at_least,
    grid_centres,
)
from edgeward.vision.results import FloatArray

__all__ = ["NanoDet"]

STRIDES = (8, 16, 32, 64)
USUAL_BINS = 8
"""Bins of a distance when scores and distances come as one output, where they cannot be told from the shape."""


class NanoDet(Detector):
    """scores [batch, n, classes] in 0..1 and distances [batch, n, 4 * bins]; or both as one, with 8 bins.

    n counts the cells of strides 8, 16 and 32 (NanoDet: boxes around the middle of a cell), or of 64 too
    (NanoDet-Plus: around its upper left corner).
    """

    name = "nanodet"
    outputs = (
        "scores [batch, n, classes] and distances [batch, n, 4 x bins], or one [batch, n, classes + 32]; "
        "n the cells of strides 8, 16, 32 and for NanoDet-Plus 64"
    )
    usual = Preprocess(height=416, width=416, colour="bgr", mean=IMAGENET_MEAN[::-1], std=IMAGENET_STD[::-1])

    def classes(self, shapes: Sequence[Shape], size: Size) -> int | None:
        patterns = [(None, n, None) for n in _levels(size)]
        if not any(self.fits(shapes, *[pattern] * count) for pattern in patterns for count in (1, 2)):
            raise self.refuse(shapes)
        last = [shape[2] for shape in shapes]
        if len(shapes) == 1:
            found = last[0] - 4 * USUAL_BINS if isinstance(last[0], int) else None
        else:
            found = last[0] if isinstance(last[0], int) else None
            if isinstance(last[1], int) and (last[1] % 4 or last[1] < 8):
                raise self.refuse(shapes)
        if found is not None and found < 1:
            raise self.refuse(shapes)
        return found

    def scores(self, outputs: Sequence[FloatArray], confidence: float) -> tuple[Indices, Indices, FloatArray]:
        scores = outputs[0] if len(outputs) == 2 else outputs[0][:, : -4 * USUAL_BINS]
        rows, class_id = at_least(scores, confidence)
        return rows, class_id, scores[rows, class_id]

    def boxes(self, outputs: Sequence[FloatArray], rows: Indices, size: Size) -> npt.NDArray[np.floating[Any]]:
        distances = outputs[1][rows] if len(outputs) == 2 else outputs[0][rows, -4 * USUAL_BINS :]
        bins = distances.reshape(len(rows), 4, distances.shape[1] // 4).astype(np.float64)
        weights = np.exp(bins - bins.max(axis=2, keepdims=True))
        expected = weights @ np.arange(bins.shape[2]) / weights.sum(axis=2)
        levels = _levels(size)[len(outputs[0])]
        centre, stride = grid_centres(rows, size, STRIDES[:levels], shift=0.5 if levels == 3 else 0)
        return np.hstack([centre - expected[:, :2] * stride, centre + expected[:, 2:] * stride])


def _levels(size: Size) -> dict[int, int]:
    """How many strides a model with so many cells has."""
    cells = [-(-size[0] // stride) * -(-size[1] // stride) for stride in STRIDES]
    return {sum(cells[:levels]): levels for levels in (3, 4)}
