"""Models that answer with one vector a picture: classifiers and embedders.

[scene] = convention("logits").decode([output], placements, confidence=0)
print(scene.class_id[0], scene.confidence[0])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgeward.vision.conventions.base import Convention, Shape, Size
from edgeward.vision.results import Classification, Embedding, FloatArray, Result

if TYPE_CHECKING:
    from edgeward.vision.preprocess import Placement

__all__ = ["EmbeddingVector", "Logits"]

TOP = 5
MAX_CLASSES = 100_000
MAX_DIMENSIONS = 65_536


class Logits(Convention):
    """output [batch, classes], extra dimensions of 1 allowed: logits, or probabilities that sum to one.

    Gives the five best classes whatever the confidence asked for: it is meant for boxes.
    """

    name = "logits"
    task = "classification"
    outputs = f"one, [batch, classes], 2 to {MAX_CLASSES} classes"

    def classes(self, shapes: Sequence[Shape], size: Size) -> int | None:
        length = _length(self, shapes)
        if length is not None and not 2 <= length <= MAX_CLASSES:
            raise self.refuse(shapes)
        return length

    def decode(
        self, outputs: Sequence[npt.NDArray[Any]], placements: Sequence[Placement], confidence: float
    ) -> list[Result]:
        [output] = self.verified(outputs, placements)
        return [_classification(row.reshape(-1)) for row in output]


class EmbeddingVector(Convention):
    """output [batch, d], extra dimensions of 1 allowed. Gives unit vectors; values that are not finite count as 0."""

    name = "embedding"
    task = "embedding"
    outputs = f"one, [batch, d], d from 2 to {MAX_DIMENSIONS}"

    def classes(self, shapes: Sequence[Shape], size: Size) -> int | None:
        length = _length(self, shapes)
        if length is not None and not 2 <= length <= MAX_DIMENSIONS:
            raise self.refuse(shapes)
        return None

    def decode(
        self, outputs: Sequence[npt.NDArray[Any]], placements: Sequence[Placement], confidence: float
    ) -> list[Result]:
        [output] = self.verified(outputs, placements)
        return [Embedding(_unit(row.reshape(-1))) for row in output]


def _length(family: Convention, shapes: Sequence[Shape]) -> int | None:
    """The one dimension besides the batch that is not 1."""
    if len(shapes) != 1 or not 2 <= len(shapes[0]) <= 4:
        raise family.refuse(shapes)
    long = [size for size in shapes[0][1:] if size != 1]
    if len(long) != 1 or (isinstance(long[0], int) and long[0] < 1):
        raise family.refuse(shapes)
    return long[0] if isinstance(long[0], int) else None


def _classification(values: FloatArray) -> Classification:
    finite = np.where(np.isfinite(values), values, -np.inf).astype(np.float64)
    if not np.isfinite(finite).any():
        return Classification(np.zeros(0, np.int32), np.zeros(0, np.float32))
    if finite.min() >= 0 and abs(finite.sum() - 1) < 1e-3:
        probabilities = finite
    else:
        weights = np.exp(finite - finite.max())
        probabilities = weights / weights.sum()
    top = np.argsort(-probabilities, kind="stable")[:TOP]
    return Classification(top.astype(np.int32), probabilities[top].astype(np.float32))


def _unit(values: FloatArray) -> FloatArray:
    finite = np.where(np.isfinite(values), values, 0).astype(np.float64)
    length = float(np.sqrt(finite @ finite))
    return (finite / length if length > 0 else finite).astype(np.float32)
