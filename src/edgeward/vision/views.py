"""When a camera shows another view than before: a cut, a camera that was turned, one that is another now.

    views = Views()
    number = views.see(frame.image)        # 0, 0, 0, 1, 1, ...

Successive pictures of one view have almost everything in common, whatever moves in them and however bright they are;
two views have little more than chance. Boxes, tracks and what is remembered of one view mean nothing in the next. A
small copy of a picture tells, as in the shot detection of edited films; some 0.1 ms a frame.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from edgeward.vision.frames import Image

__all__ = ["Views", "alike", "another", "glance"]

Glance = npt.NDArray[np.float32]
WIDTH, HEIGHT = 32, 24
SAMPLED = 6
"""A glance is made of about so many pixels by so many for each of its own."""
CHANGED = 0.4
"""Correlation below which two pictures in a row are of different views. In six recordings (PETS from two sides, TUD, a
road, a room, an edited film) successive frames of one view have 0.57 to 1, those at cuts -0.33 to 0.21."""
CLIPPED = 1.5
"""Median deviations from the median shade beyond which a spot counts no more: a dark car shall not be all there is."""
LEAST = 16.0
"""The same in shades of 0..255: the noise of a dark picture shall not be all there is."""
FLAT = 0.15
"""Contrast below which a picture shows nothing, as at night, in glare or with the lid on: standard deviation, where 1
is all that counts. It tells of no view, neither this one nor another."""
STEP, WIDE = 10.0, 0.3
"""Shades by which a spot must differ to be another one, and the share of spots that must be others in another view:
where next to nothing is to be seen, who comes or goes is all that differs. At the cuts it is 0.8 or more."""


class Views:
    """Counts the views of one camera. Used by one thread."""

    def __init__(self) -> None:
        self._last: Glance | None = None
        self._number = 0

    def see(self, image: Image) -> int:
        """The number of the view that the camera's next picture shows, from 0."""
        now = glance(image)
        if not _flat(now):
            self._number += self._last is not None and another(self._last, now)
            self._last = now
        return self._number


def glance(image: Image) -> Glance:
    """What a picture looks like from afar: float32 [768], shades brighter than the median of all."""
    height, width = image.shape[:2]
    step = max(min(height // (SAMPLED * HEIGHT), width // (SAMPLED * WIDTH)), 1)
    green = np.ascontiguousarray(image[::step, ::step, 1])
    small = cv2.resize(green, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    return small - np.float32(np.median(small))


def another(before: Glance, after: Glance) -> bool:
    """Whether two pictures in a row are of different views."""
    return alike(before, after) < CHANGED and float(np.mean(np.abs(after - before) > STEP)) > WIDE


def alike(one: Glance, other: Glance) -> float:
    """Correlation of two glances, -1 to 1; what stands out counts no more than the rest; 0 without contrast."""
    a, b = (spots - spots.mean() for spots in (_clipped(one), _clipped(other)))
    both = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / both if both else 0.0


def _flat(spots: Glance) -> bool:
    """Whether a picture shows nothing."""
    return float(_clipped(spots).std()) < FLAT


def _clipped(spots: Glance) -> Glance:
    most = max(CLIPPED * float(np.median(np.abs(spots))), LEAST)
    return np.asarray(np.clip(spots / np.float32(most), -1, 1), np.float32)
