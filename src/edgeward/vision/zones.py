"""Polygons in the picture, and who goes in and out of them.

counter = ZoneCounter(Zone("door", ((0, 0.5), (1, 0.5), (1, 1), (0, 1))).in_pixels(640, 480))
for crossing in counter.update(tracked, tracker.active_ids):
    print(crossing.tracker_id, crossing.kind)
print(counter.entered, counter.left, counter.inside)
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgeward.errors import ConfigError, nearest
from edgeward.vision.results import Detections

__all__ = ["Crossing", "Zone", "ZoneCounter", "points_in_polygon"]

MAX_CORNERS = 1000
ANCHORS = ("bottom", "centre")


@dataclass(frozen=True)
class Zone:
    """A named polygon: at least three corners (x, y), in pixels, or in fractions of the picture when all are in 0..1.

    The last corner is joined to the first. anchor: which point of a box must lie inside, the middle of its bottom
    edge (where somebody stands) or its centre (for a view from above).
    Raises ConfigError when it has no area, a coordinate is not finite or the anchor is unknown.
    """

    name: str
    polygon: tuple[tuple[float, float], ...]
    anchor: Literal["bottom", "centre"] = "bottom"

    def __post_init__(self) -> None:
        corners = tuple((float(x), float(y)) for x, y in self.polygon)
        object.__setattr__(self, "polygon", corners)
        if self.anchor not in ANCHORS:
            raise ConfigError(f"zone {self.name!r}: anchor is {self.anchor!r}; {nearest(str(self.anchor), ANCHORS)}")
        if not 3 <= len(corners) <= MAX_CORNERS:
            raise ConfigError(f"zone {self.name!r} has {len(corners)} corners; give 3 to {MAX_CORNERS}")
        if not all(math.isfinite(value) for corner in corners for value in corner):
            raise ConfigError(
                f"zone {self.name!r} has a coordinate that is not finite; give pixels or fractions in 0..1"
            )
        if len(set(corners)) < 3 or _flat(corners):
            raise ConfigError(f"zone {self.name!r} has no area: its corners lie on one line; move one of them")

    @property
    def relative(self) -> bool:
        """Whether the corners are fractions of the picture."""
        return all(0 <= value <= 1 for corner in self.polygon for value in corner)

    def in_pixels(self, width: int, height: int) -> Zone:
        """This zone in a picture of that size; a zone in pixels is returned as it is."""
        if not self.relative:
            return self
        return Zone(self.name, tuple((x * width, y * height) for x, y in self.polygon), self.anchor)

    def anchors(self, xyxy: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """The point of each box xyxy [n, 4] that counts: [n, 2]."""
        x1, y1, x2, y2 = xyxy.T.astype(np.float64)
        return np.stack([(x1 + x2) / 2, y2 if self.anchor == "bottom" else (y1 + y2) / 2], axis=1)

    def contains(self, points: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Which of `points`, [n, 2], lie inside: bool [n]."""
        return points_in_polygon(np.asarray(points, np.float64).reshape(-1, 2), np.asarray(self.polygon))


@dataclass(frozen=True)
class Crossing:
    """A track that went into a zone or out of it."""

    tracker_id: int
    kind: Literal["entered", "left"]


class ZoneCounter:
    """Counts the tracks that cross a zone's border. The zone's anchor says where a box is.

    zone: in pixels (see `Zone.in_pixels`).
    confirm: frames in a row a track must be seen on the other side before it counts, so that a box that
        trembles on the border counts once or not at all.
    """

    def __init__(self, zone: Zone, confirm: int = 2) -> None:
        if confirm < 1:
            raise ConfigError(f"confirm is {confirm}; a crossing needs at least 1 frame on the other side")
        self.zone = zone
        self.confirm = confirm
        self.entered = 0
        self.left = 0
        self._inside: dict[int, bool] = {}
        self._opposite: dict[int, int] = {}

    @property
    def inside(self) -> int:
        """Tracks in the zone now, also those that are hidden for a moment."""
        return sum(self._inside.values())

    def update(self, detections: Detections, active_ids: Collection[int]) -> list[Crossing]:
        """Take one frame's tracked boxes; what was confirmed by it, in the order of the boxes.

        active_ids: tracks that still exist, seen in this frame or not. One that has ended is forgotten without
        having left. Boxes without a track (-1) are passed over. Raises ValueError for boxes that were not tracked.
        """
        if detections.tracker_id is None:
            raise ValueError("zone counting needs tracker_id; pass the detections through a tracker first")
        alive = set(active_ids)
        self._inside = {track: side for track, side in self._inside.items() if track in alive}
        self._opposite = {track: count for track, count in self._opposite.items() if track in alive}
        sides = self.zone.contains(self.zone.anchors(detections.xyxy))
        crossings = [
            self._see(track, side)
            for track, side in zip(detections.tracker_id.tolist(), sides.tolist(), strict=True)
            if track >= 0
        ]
        return [crossing for crossing in crossings if crossing is not None]

    def _see(self, track: int, side: bool) -> Crossing | None:
        if self._inside.setdefault(track, side) == side:
            self._opposite.pop(track, None)
            return None
        self._opposite[track] = self._opposite.get(track, 0) + 1
        if self._opposite[track] < self.confirm:
            return None
        del self._opposite[track]
        self._inside[track] = side
        if side:
            self.entered += 1
            return Crossing(track, "entered")
        self.left += 1
        return Crossing(track, "left")


def points_in_polygon(points: npt.NDArray[np.float64], polygon: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which points lie in a polygon: bool [n] for points [n, 2] and corners [m, 2].

    Even-odd rule: a ray to the right crosses an odd number of edges (Shimrat, CACM 5(8), 1962). Edges are half-open
    in y, so that a ray through a corner is counted once.
    """
    x, y = points[:, :1], points[:, 1:]
    (x1, y1), (x2, y2) = polygon.T, np.roll(polygon, -1, axis=0).T
    spans = (y1 <= y) != (y2 <= y)
    with np.errstate(divide="ignore", invalid="ignore"):  # level edges span nothing
        crossing = x < x1 + (y - y1) / (y2 - y1) * (x2 - x1)
    odd: npt.NDArray[np.bool_] = (spans & crossing).sum(axis=1) % 2 == 1
    return odd


def _flat(corners: tuple[tuple[float, float], ...]) -> bool:
    """Whether all corners lie on one line."""
    table = np.asarray(corners) - corners[0]
    return bool(np.linalg.matrix_rank(table, tol=1e-9 * max(float(np.abs(table).max()), 1e-9)) < 2)
