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

__all__ = ["CHANGED", "Views", "alike", "glance"]

Glance = npt.NDArray[np.float32]
WIDTH, HEIGHT = 32, 24
SAMPLED = 6
"""A glance is made of about so many pixels by so many for each of its own."""
CHANGED = 0.4
"""Correlation below which two pictures in a row are of different views. In six recordings (PETS from two sides, TUD, a
road, a room, an edited film) successive frames of one view have 0.57 to 1, those at cuts -0.32 to 0.21."""
CLIPPED = 1.5
"""Median deviations from the median brightness beyond which a spot counts no more: a dark car shall not be all there is."""
LEAST = 16.0
"""The same in shades of 0..255: the noise of a dark picture shall not be all there is."""
FLAT = 0.15
"""Contrast below which a picture shows nothing, as at night or with the lid on: root of the mean square, where 1 is all
that counts."""


class Views:
    """Counts the views of one camera. Used by one thread."""

    def __init__(self) -> None:
        self._last: Glance | None = None
        self._number = 0

    def see(self, image: Image) -> int:
        """The number of the view that the camera's next picture shows, from 0."""
        now = glance(image)
        if self._last is not None and alike(self._last, now) < CHANGED:
            self._number += 1
        self._last = now
        return self._number


def glance(image: Image) -> Glance:
    """What a picture looks like from afar: float32 [768] of mean 0 and length 1; all 0 when it shows nothing."""
    height, width = image.shape[:2]
    step = max(min(height // (SAMPLED * HEIGHT), width // (SAMPLED * WIDTH)), 1)
    green = np.ascontiguousarray(image[::step, ::step, 1])
    small = cv2.resize(green, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    small -= np.median(small)
    most = max(CLIPPED * float(np.median(np.abs(small))), LEAST)
    spots = np.clip(small / most, -1, 1)
    spots -= spots.mean()
    length = float(np.linalg.norm(spots))
    return spots / length if length > FLAT * spots.size**0.5 else np.zeros_like(spots)


def alike(one: Glance, other: Glance) -> float:
    """Correlation of two glances, -1 to 1; two pictures that show nothing are alike."""
    if not one.any() and not other.any():
        return 1.0
    return float(one @ other)
