"""SSD: offsets from fixed anchors, and one logit per class with the background first.

    convention("ssd").decode([offsets, logits], placements, confidence=0.3)

Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016, section 2; anchors, box coding and sigmoid
scores as in the TensorFlow object detection models (Huang et al., CVPR 2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeward.vision.card import Preprocess
from edgeward.vision.conventions.base import Detector, Indices, Shape, Size, at_least
from edgeward.vision.results import FloatArray

__all__ = ["Ssd", "anchors"]

LAYERS = 6
SMALLEST, LARGEST = 0.2, 0.95
RATIOS = (1.0, 2.0, 1 / 2, 3.0, 1 / 3)


class Ssd(Detector):
    """offsets [batch, n, 4] or [batch, n, 1, 4]: dy, dx, dh, dw. logits [batch, n, 1 + classes]."""

    name = "ssd"
    outputs = "offsets [batch, anchors, 4] and logits [batch, anchors, 1 + classes], six layers from stride 16 on"
    usual = Preprocess(height=300, width=300, mean=(127.5,) * 3, std=(127.5,) * 3)

    def classes(self, shapes: Sequence[Shape], size: Size) -> int | None:
        n = sum(rows * columns * (3 if layer == 0 else 6) for layer, (rows, columns) in enumerate(_grids(size)))
        flat, deep = ((None, n, 4), (None, n, None)), ((None, n, 1, 4), (None, n, None))
        if not self.fits(shapes, *flat) and not self.fits(shapes, *deep):
            raise self.refuse(shapes)
        last = shapes[1][2]
        if isinstance(last, int) and last < 2:
            raise self.refuse(shapes)
        return last - 1 if isinstance(last, int) else None

    def scores(self, outputs: Sequence[FloatArray], confidence: float) -> tuple[Indices, Indices, FloatArray]:
        logits = outputs[1][:, 1:]
        rows, class_id = at_least(logits, np.log(confidence) - np.log1p(-confidence))
        return rows, class_id, np.asarray(1 / (1 + np.exp(-logits[rows, class_id])), np.float32)

    def boxes(self, outputs: Sequence[FloatArray], rows: Indices, size: Size) -> npt.NDArray[np.floating[Any]]:
        offsets = outputs[0].reshape(-1, 4)[rows].astype(np.float64)
        anchor = anchors(size)[rows]
        centre = anchor[:, :2] + offsets[:, :2] / 10 * anchor[:, 2:]
        half = anchor[:, 2:] * np.exp(offsets[:, 2:] / 5) / 2
        height, width = size
        return np.hstack([centre - half, centre + half])[:, [1, 0, 3, 2]] * [width, height, width, height]


def _grids(size: Size) -> list[tuple[int, int]]:
    """Rows and columns of each layer's grid: strides 16, 32, ... 512, rounded up."""
    return [(-(-size[0] // stride), -(-size[1] // stride)) for stride in (16 << layer for layer in range(LAYERS))]


@lru_cache(maxsize=16)
def anchors(size: Size) -> npt.NDArray[np.float64]:
    """Anchors [n, 4] as centre y, centre x, height, width, in fractions of the input.

    Six layers with scales from 0.2 to 0.95. The first has three anchors a cell (a square of half the scale, 1:2
    and 2:1), the others six (ratios 1, 2, 1/2, 3, 1/3, and a square between this scale and the next).
    Cells count row by row, anchors innermost.
    """
    scales = [*np.linspace(SMALLEST, LARGEST, LAYERS), 1.0]
    layers = []
    for layer, (rows, columns) in enumerate(_grids(size)):
        scale = scales[layer]
        if layer == 0:
            kinds = [(0.1, 1.0), (scale, 2.0), (scale, 1 / 2)]
        else:
            kinds = [(scale, ratio) for ratio in RATIOS] + [(np.sqrt(scale * scales[layer + 1]), 1.0)]
        sides = np.array([(kind / np.sqrt(ratio), kind * np.sqrt(ratio)) for kind, ratio in kinds])
        y, x = np.mgrid[:rows, :columns].reshape(2, -1)
        centres = np.stack([(y + 0.5) / rows, (x + 0.5) / columns], axis=1)
        layers.append(np.hstack([np.repeat(centres, len(kinds), axis=0), np.tile(sides, (len(centres), 1))]))
    every = np.concatenate(layers)
    every.setflags(write=False)
    return every
