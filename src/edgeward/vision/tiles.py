"""A picture in tiles that overlap: in each, small objects are larger than in the whole picture.

    tiles = Tiles(columns=2)
    places = tiles.places(width=768, height=576)            # [(0, 0, 461, 576), (307, 0, 768, 576)]
    answers = [detect(image[y1:y2, x1:x2]) for x1, y1, x2, y2 in places]
    boxes = joined(answers, places, width=768, height=576)

A detector whose input is smaller than the picture sees its objects shrunk; where they are small, two tiles of a small
model find more than a larger one that takes as long. After Akyon, Altinuc and Temizel ("Slicing aided hyper inference
and fine-tuning for small object detection", ICIP 2022), with boxes that an inner edge cuts joined across it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from edgeward.vision.nms import best, nms
from edgeward.vision.results import Detections, FloatArray

__all__ = ["Place", "Tiles", "joined"]

Place = tuple[int, int, int, int]
"""Of a tile in its picture: left, top, right, bottom in pixels."""
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
SAME = 0.6
"""Overlap from which boxes of two tiles are of one object."""
CUT, INEXACT = 0.01, 0.1
"""Shares of a tile's side and of the box's own within which a box reaches an inner edge: it may go on beyond."""
DOUBT = 0.5
"""Share of another's certainty that a box needs to take it for a part of itself, or to be one of it."""
BESIDE = 0.5
"""Overlap along the edge from which the two parts of what an edge cuts belong together."""
INSIDE = 0.6
"""Share of a cut box inside a whole one from which it is a part of that."""
MOST = 1000
"""Whole boxes, and as many cut ones, that are looked at: the most certain."""
MAX_BOXES = 300


class Tiles(BaseModel):
    """columns, rows: how many tiles. overlap: share of a tile that it has in common with the next, 0..0.5."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: int = Field(1, ge=1, le=8, description="tiles beside each other")
    rows: int = Field(1, ge=1, le=8, description="tiles one above the other")
    overlap: float = Field(
        1 / 3,
        ge=0,
        le=0.5,
        description="share of a tile that it has in common with the next; what is larger is put together of its parts",
    )

    @property
    def count(self) -> int:
        """How many there are."""
        return self.columns * self.rows

    def places(self, width: int, height: int) -> list[Place]:
        """Where the tiles lie in a picture, row by row. Together they cover it; each is at least a pixel wide."""
        across, down = (_spans(*each, self.overlap) for each in ((width, self.columns), (height, self.rows)))
        return [(left, top, right, bottom) for top, bottom in down for left, right in across]


def _spans(side: int, count: int, overlap: float) -> list[tuple[int, int]]:
    """Equal spans that overlap: (first pixel, last pixel + 1) of each."""
    length = side / (count - (count - 1) * overlap)
    step = length * (1 - overlap)
    starts = [min(round(index * step), side - 1) for index in range(count)]
    return [(start, min(max(math.ceil(start + length), start + 1), side)) for start in starts[:-1]] + [
        (starts[-1], side)
    ]


def joined(answers: Sequence[Detections], places: Sequence[Place], width: int, height: int) -> Detections:
    """What was found in the tiles as one answer, in pixels of the picture, most certain first; at most MAX_BOXES.

    answers: of each tile, in pixels of the tile. A box that an inner edge cuts is dropped where another tile holds the
    whole of it, else put together with its other parts, as certain as the most certain of them.
    """
    moved = [replace(each, xyxy=each.xyxy + _corner(at)) for each, at in zip(answers, places, strict=True)]
    cut = np.concatenate([_cut(each, place, width, height) for each, place in zip(answers, places, strict=True)])
    found, is_part = _all(moved), np.asarray(cut.any(axis=1))
    whole = found[_most_certain(found, ~is_part)]
    whole = whole[nms(whole.xyxy, whole.confidence, whole.class_id, SAME)]
    left = _most_certain(found, is_part)
    left = left[~_inside(found[left], whole)]
    slack = 2 * CUT * max(max(x2 - x1, y2 - y1) for x1, y1, x2, y2 in places)
    parts = _put_together(found[left], cut[left], slack)
    both = _all([whole, parts[~_inside(parts, parts)]])
    return both[nms(both.xyxy, both.confidence, both.class_id, SAME)[:MAX_BOXES]]


def _all(answers: Sequence[Detections]) -> Detections:
    """Several answers one after another."""
    columns = zip(*((each.xyxy, each.confidence, each.class_id) for each in answers), strict=True)
    return Detections(*(np.concatenate(column) for column in columns))


def _most_certain(boxes: Detections, of: Bools) -> npt.NDArray[np.intp]:
    """Rows of the MOST most certain of these boxes, most certain first."""
    rows = np.flatnonzero(of)
    return np.asarray(rows[best(boxes.confidence[rows], MOST)])


def _corner(place: Place) -> FloatArray:
    return np.array(place[:2] * 2, np.float32)


def _cut(boxes: Detections, place: Place, width: int, height: int) -> Bools:
    """Which sides of each box, in pixels of its tile, an inner edge of the tile may cut: left, top, right, bottom."""
    left, top, right, bottom = place
    size = np.tile(boxes.xyxy[:, 2:] - boxes.xyxy[:, :2], 2)
    near = np.array([right - left, bottom - top] * 2) * CUT + size * INEXACT
    inner = np.array([left > 0, top > 0, right < width, bottom < height])
    reaches = np.abs(boxes.xyxy - [0, 0, right - left, bottom - top]) <= near
    return np.asarray(reaches & inner)


def _inside(parts: Detections, whole: Detections) -> Bools:
    """Which parts lie in another, larger and not much fainter box of their class, by INSIDE of their area."""
    low = np.maximum(parts.xyxy[:, None, :2], whole.xyxy[:, :2])
    high = np.minimum(parts.xyxy[:, None, 2:], whole.xyxy[:, 2:])
    shared = np.maximum(high - low, 0).prod(axis=2)
    area, of = ((each.xyxy[:, 2:] - each.xyxy[:, :2]).prod(axis=1) for each in (parts, whole))
    larger = (parts.class_id[:, None] == whole.class_id) & (area[:, None] < of)
    larger &= whole.confidence >= DOUBT * parts.confidence[:, None]
    return np.asarray((larger & (shared >= INSIDE * area[:, None])).any(axis=1))


def _put_together(parts: Detections, cut: Bools, slack: float) -> Detections:
    """Parts that an edge cut from each other become the box around them; the most certain one looks for the others.

    slack: pixels that may lie between two parts where tiles hardly overlap.
    """
    xyxy, cut, free = parts.xyxy.astype(np.float64), cut.copy(), np.ones(len(parts), np.bool_)
    sure = parts.confidence.copy()
    for leader in range(len(parts)):
        while free[leader]:
            others = free & (parts.class_id == parts.class_id[leader])
            others &= np.minimum(sure, sure[leader]) >= DOUBT * np.maximum(sure, sure[leader])
            others[leader] = False
            beside = np.where(others, _beside(xyxy, cut, leader, slack), 0.0)
            other = int(beside.argmax())
            if beside[other] < BESIDE:
                break
            free[other], sure[leader] = False, max(sure[leader], sure[other])
            # Each side is that of the part that reaches further, and so is whether an edge cuts it.
            further = np.where([1, 1, 0, 0], xyxy[other] < xyxy[leader], xyxy[other] > xyxy[leader])
            xyxy[leader] = np.where(further, xyxy[other], xyxy[leader])
            cut[leader] = np.where(further, cut[other], cut[leader])
    return Detections(xyxy.astype(np.float32), sure, parts.class_id)[free]


def _beside(xyxy: Floats, cut: Bools, leader: int, slack: float) -> Floats:
    """How well each box goes on where an edge cut the leader: their overlap along the edge; 0 where it does not."""
    found = np.zeros(len(xyxy))
    box = xyxy[leader]
    for low, high in ((0, 2), (1, 3)):  # across, down
        along, gap = 1 - low, slack + INEXACT * (box[high] - box[low])
        shared = np.minimum(xyxy[:, along + 2], box[along + 2]) - np.maximum(xyxy[:, along], box[along])
        either = np.maximum(xyxy[:, along + 2], box[along + 2]) - np.minimum(xyxy[:, along], box[along])
        after = cut[leader, high] & cut[:, low] & (xyxy[:, low] >= box[low]) & (xyxy[:, low] <= box[high] + gap)
        before = cut[leader, low] & cut[:, high] & (xyxy[:, high] <= box[high]) & (xyxy[:, high] >= box[low] - gap)
        found = np.maximum(found, np.where(after | before, shared / np.maximum(either, 1e-9), 0.0))
    return found
