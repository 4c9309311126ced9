"""How much boxes overlap, and which ones annotation says to ignore.

shared = overlap(found, annotated, ignored)      # [n, m], 0..1
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["overlap"]


def overlap(
    found: npt.NDArray[np.floating], annotated: npt.NDArray[np.floating], ignored: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Intersection over union of boxes xyxy [n, 4] and [m, 4]: float64 [n, m]; 0 where there is no area.

    With an ignored box it is intersection over the area of the found one, because such a box may stand for a group of
    objects (COCO's rule for crowds: Lin et al., ECCV 2014, evaluation code of the data set).
    """
    a, b = found.astype(np.float64), annotated.astype(np.float64)
    corner = np.maximum(a[:, None, :2], b[:, :2])
    size = np.maximum(np.minimum(a[:, None, 2:], b[:, 2:]) - corner, 0.0)
    shared = size[..., 0] * size[..., 1]
    area_a = ((a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1]))[:, None]
    area_b = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    whole = np.where(ignored, area_a, area_a + area_b - shared)
    result: npt.NDArray[np.float64] = np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)
    return result
