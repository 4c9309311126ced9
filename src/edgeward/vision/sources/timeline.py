"""Time stamps as they come, made into seconds that only ever grow.

    line = TimeLine(step=0.04)
    line.at(12.0), line.at(12.04), line.at(None), line.at(3.0)   # 0.0, 0.04, 0.08, 0.12

Containers leave time stamps out, cameras reset them, and damage makes them jump.
"""

from __future__ import annotations

__all__ = ["LONGEST_GAP", "USUAL_FPS", "TimeLine"]

USUAL_FPS = 25.0
"""Frames per second where a source declares none."""

LONGEST_GAP = 3600.0
"""Seconds; a time stamp that jumps further ahead is damaged."""


class TimeLine:
    """Seconds since a stream's first frame. step: seconds between frames where a time stamp is missing or wrong."""

    def __init__(self, step: float) -> None:
        self._step = step
        self._last = -step
        self._offset: float | None = None

    def at(self, stamp: float | None) -> float:
        """The time of the next frame, whose own time stamp is `stamp` seconds from any origin."""
        following = self._last + self._step
        if stamp is None:
            self._last = following
            return following
        if self._offset is None or not self._last < stamp + self._offset <= self._last + LONGEST_GAP:
            self._offset = following - stamp
        self._last = stamp + self._offset
        return self._last

    def restart(self) -> None:
        """The next time stamp counts from a new origin: a looped file begins again."""
        self._offset = None
