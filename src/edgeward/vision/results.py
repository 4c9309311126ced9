"""What a model says about a frame: detections, a classification or an embedding.

    boxes = Detections(xyxy=[[10, 20, 40, 80]], confidence=[0.9], class_id=[0])
    boxes[boxes.confidence > 0.5].to_json()

Field names follow `supervision`, so `sv.Detections(**vars(boxes))` works.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

__all__ = ["Classification", "Detections", "Embedding", "FloatArray", "IntArray", "Result", "result_from_json"]

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Detections:
    """Boxes found in one frame.

    xyxy: float32 [n, 4], pixels of the original frame, x1 <= x2 and y1 <= y2.
    confidence: float32 [n], in 0..1.
    class_id: int32 [n].
    tracker_id: int32 [n], or None before tracking; -1 marks a box that belongs to no track yet.

    Raises ValueError when lengths differ or a box is not finite.
    """

    xyxy: FloatArray
    confidence: FloatArray
    class_id: IntArray
    tracker_id: IntArray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "xyxy", np.asarray(self.xyxy, np.float32).reshape(-1, 4))
        object.__setattr__(self, "confidence", np.asarray(self.confidence, np.float32).reshape(-1))
        object.__setattr__(self, "class_id", np.asarray(self.class_id, np.int32).reshape(-1))
        if self.tracker_id is not None:
            object.__setattr__(self, "tracker_id", np.asarray(self.tracker_id, np.int32).reshape(-1))
        n = len(self.xyxy)
        ids = n if self.tracker_id is None else len(self.tracker_id)
        if len(self.confidence) != n or len(self.class_id) != n or ids != n:
            raise ValueError(f"{n} boxes, {len(self.confidence)} confidences, {len(self.class_id)} classes, {ids} ids")
        if not np.isfinite(self.xyxy).all():
            raise ValueError("a box has a coordinate that is not finite")

    @classmethod
    def empty(cls) -> Self:
        """No boxes."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))

    def __len__(self) -> int:
        return len(self.xyxy)

    def __getitem__(self, index: npt.NDArray[Any] | slice) -> Self:
        """The boxes at a boolean mask, an index array or a slice."""
        ids = None if self.tracker_id is None else self.tracker_id[index]
        return replace(
            self,
            xyxy=self.xyxy[index],
            confidence=self.confidence[index],
            class_id=self.class_id[index],
            tracker_id=ids,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain lists; coordinates to a tenth of a pixel, confidences to four digits."""
        record: dict[str, Any] = {
            "xyxy": np.round(self.xyxy.astype(np.float64), 1).tolist(),
            "confidence": np.round(self.confidence.astype(np.float64), 4).tolist(),
            "class_id": self.class_id.tolist(),
        }
        if self.tracker_id is not None:
            record["tracker_id"] = self.tracker_id.tolist()
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`, within its rounding."""
        return cls(record["xyxy"], record["confidence"], record["class_id"], record.get("tracker_id"))


@dataclass(frozen=True, eq=False)
class Classification:
    """The best classes of one frame, most likely first: class_id int32 [k], confidence float32 [k]."""

    class_id: IntArray
    confidence: FloatArray

    def to_json(self) -> dict[str, Any]:
        """Plain lists."""
        confidence = np.round(self.confidence.astype(np.float64), 4).tolist()
        return {"class_id": self.class_id.tolist(), "top": confidence}


@dataclass(frozen=True, eq=False)
class Embedding:
    """One frame as a unit vector: float32 [d]."""

    vector: FloatArray

    def to_json(self) -> dict[str, Any]:
        """Plain lists."""
        return {"vector": np.round(self.vector.astype(np.float64), 5).tolist()}


Result = Detections | Classification | Embedding
"""What one model says about one frame."""


def result_from_json(record: Mapping[str, Any]) -> Result:
    """Any result from its `to_json` form; ValueError when it is none."""
    if "xyxy" in record:
        return Detections.from_json(record)
    if "vector" in record:
        return Embedding(np.asarray(record["vector"], np.float32))
    if "top" in record:
        return Classification(np.asarray(record["class_id"], np.int32), np.asarray(record["top"], np.float32))
    raise ValueError(f"not a result: keys {sorted(record)}")
