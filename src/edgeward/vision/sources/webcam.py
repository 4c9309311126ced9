"""A camera on this machine, through OpenCV: PyAV's wheels come without capture devices.

    source = WebcamSource(0)

On Linux the number is that of /dev/video<number>.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import cv2
import numpy as np

from edgeward.clock import Clock, WallClock, to_seconds
from edgeward.errors import SourceError
from edgeward.vision.frames import Frame, Source
from edgeward.vision.sources.decode import MAX_FPS, check_size
from edgeward.vision.sources.timeline import USUAL_FPS, TimeLine

__all__ = ["WebcamSource"]


class WebcamSource(Source):
    """Frames of capture device `number` (/dev/video<number> on Linux). SourceError when it cannot be opened."""

    def __init__(self, number: int, clock: Clock | None = None) -> None:
        self._shown = f"webcam:{number}"
        self._clock = clock or WallClock()
        self._lock = threading.Lock()
        self._closed = False
        self._capture = self._opened(number)
        rate = float(self._capture.get(cv2.CAP_PROP_FPS))
        self._fps = rate if 0 < rate <= MAX_FPS else None

    @property
    def live(self) -> bool:
        return True

    @property
    def fps(self) -> float | None:
        return self._fps

    def close(self) -> None:
        self._closed = True
        # A read in another thread holds the lock, and lets go of the device itself afterwards.
        if self._lock.acquire(blocking=False):
            self._capture.release()
            self._lock.release()

    def __iter__(self) -> Iterator[Frame]:
        line = TimeLine(1 / (self._fps or USUAL_FPS))
        index = 0
        while True:
            with self._lock:
                good, image = (False, None) if self._closed else self._capture.read()
                if self._closed:
                    self._capture.release()
                    return
            if not good or image is None:
                raise SourceError(f"{self._shown} stopped giving pictures; is it still plugged in?")
            check_size(self._shown, image.shape[1], image.shape[0])
            stamp = to_seconds(self._clock.now_ns())
            yield Frame(index, line.at(stamp), np.ascontiguousarray(image, np.uint8), index)
            index += 1

    def _opened(self, number: int) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(number)
        if not capture.isOpened():
            capture.release()
            raise SourceError(f"{self._shown} cannot be opened: no such camera, in use, or no permission")
        return capture
