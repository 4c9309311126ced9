"""Time as a value that is handed in, so that decisions never read it themselves.

    clock = WallClock()
    start = clock.now_ns()
    clock.sleep(0.1)

Times are whole nanoseconds since the clock was made: integers add and subtract exactly, which
is what lets a recorded run be replayed to the same decisions.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path

__all__ = ["NS", "Clock", "VirtualClock", "WallClock", "Working", "to_ns", "to_seconds"]

NS = 1_000_000_000
"""Nanoseconds in a second."""
SCHEDSTAT = Path("/proc/thread-self/schedstat")
"""Of the thread that opens it: nanoseconds it ran, nanoseconds it was ready to run but did not, turns."""


def to_ns(seconds: float) -> int:
    """Seconds to whole nanoseconds."""
    return round(seconds * NS)


def to_seconds(nanoseconds: int) -> float:
    """Nanoseconds to seconds."""
    return nanoseconds / NS


class Clock(ABC):
    """A source of time that never runs backwards."""

    @abstractmethod
    def now_ns(self) -> int:
        """Nanoseconds since the clock was made."""

    @abstractmethod
    def sleep(self, seconds: float) -> None:
        """Let `seconds` pass."""


class WallClock(Clock):
    """Real time, from the monotonic clock of the machine."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin at 0 again: what was prepared before does not count. Only before anything has been timed."""
        self._start = time.monotonic_ns()

    def now_ns(self) -> int:
        return time.monotonic_ns() - self._start

    def sleep(self, seconds: float) -> None:
        if seconds > 0:
            time.sleep(seconds)


class VirtualClock(Clock):
    """Time that passes only when told to."""

    def __init__(self, start_ns: int = 0) -> None:
        self._now = start_ns

    def now_ns(self) -> int:
        return self._now

    def sleep(self, seconds: float) -> None:
        self.advance_to(self._now + to_ns(max(seconds, 0.0)))

    def advance_to(self, time_ns: int) -> None:
        """Move to `time_ns`; a time in the past raises ValueError."""
        if time_ns < self._now:
            raise ValueError(f"virtual time cannot run back from {self._now} to {time_ns} ns")
        self._now = time_ns


class Working:
    """How long the thread that makes it did not wait for others to leave it the processor.

    Sleep, locks and other devices count as its own time. Linux tells; elsewhere nothing is known.
    """

    def __init__(self) -> None:
        self._file = None
        with suppress(OSError):
            self._file = SCHEDSTAT.open("rb", buffering=0)

    def now_ns(self) -> int:
        """Where to count from, for `since`."""
        waited = self._waited_ns()
        while True:
            now, before = time.perf_counter_ns(), waited
            waited = self._waited_ns()
            if waited == before:  # else the thread waited between the two, or while it read them
                return now - waited

    def since(self, start_ns: int) -> int:
        """Nanoseconds, at least 1; 0 where the system does not tell who waits."""
        passed = self.now_ns() - start_ns
        return max(passed, 1) if self._file is not None else 0

    def _waited_ns(self) -> int:
        try:
            if self._file is not None:
                self._file.seek(0)
                return int(self._file.read(64).split()[1])
        except (OSError, ValueError, IndexError):
            self._file = None
        return 0
