"""A camera in a thread of its own: opened, paced, and opened again when it fails.

    reader = CameraReader("gate", "rtsp://camera/stream", on_frame=queue.put, on_status=print)
    reader.start()
    print(reader.status)
    reader.stop(timeout=1.0)

Every camera has its own reader, so that one that hangs or dies delays no other.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from edgeward.clock import NS, Clock, WallClock, to_ns, to_seconds
from edgeward.errors import ConfigError, EdgewardError
from edgeward.vision.frames import Frame, Source
from edgeward.vision.sources import check_source, open_source
from edgeward.vision.sources.timeline import USUAL_FPS
from edgeward.vision.views import Views

__all__ = ["CameraReader", "Pace", "ReaderStatus", "Schedule", "Status", "retry_seconds"]

logger = logging.getLogger(__name__)

Status = Literal["connecting", "live", "retrying", "ended"]

FIRST_RETRY_SECONDS = 0.5
LONGEST_RETRY_SECONDS = 30.0
STEADY_SECONDS = 10.0
"""A camera that has delivered for this long starts its back-off from the beginning."""

BEHIND_NS = NS
"""A schedule that is further behind than this starts anew instead of catching up."""

BLOCKED_SECONDS = 0.25
"""A reader that is still inside its source this long after `stop` waits for a silent peer; more waiting is no use."""


@dataclass(frozen=True)
class Pace:
    """How fast a recording is played: rate in frames per second, "max" for unpaced, None for its own rate.

    loop: begin again at its end. Live sources come at their own pace, whatever is asked here.
    """

    rate: float | Literal["max"] | None = None
    loop: bool = False

    def __post_init__(self) -> None:
        if not (self.rate is None or self.rate == "max" or (not isinstance(self.rate, str) and 0 < self.rate <= 1000)):
            raise ConfigError(f"rate {self.rate!r} must be above 0 and at most 1000 frames per second, or 'max'")


@dataclass(frozen=True)
class ReaderStatus:
    """A camera at one moment.

    detail: why it is not "live", in words, without credentials. frames, corrupt: delivered and left out as
    damaged since the start. width, height: of the newest frame, 0 before the first.
    """

    status: Status
    detail: str
    frames: int
    corrupt: int
    width: int
    height: int


class Schedule:
    """When the frames of a recording are due: one every `period_ns`, counted from the first."""

    def __init__(self, period_ns: int) -> None:
        self._period_ns = period_ns
        self._due_ns: int | None = None

    def wait_ns(self, now_ns: int) -> int:
        """How long to hold back the next frame.

        A late one is not held back, nor are those after it until the schedule is caught up with, so that
        lateness never adds up; more than a second late, the schedule starts anew from now.
        """
        if self._due_ns is None or now_ns - self._due_ns > BEHIND_NS:
            self._due_ns = now_ns
        wait_ns = max(self._due_ns - now_ns, 0)
        self._due_ns += self._period_ns
        return wait_ns


def retry_seconds(failures: int) -> float:
    """How long to wait after the n-th failure in a row (from 1): 0.5 s, doubling up to 30 s."""
    return min(FIRST_RETRY_SECONDS * 2.0 ** min(failures - 1, 16), LONGEST_RETRY_SECONDS)


class CameraReader:
    """Reads one source in a daemon thread.

    on_frame: gets every frame, on that thread; may block, which is back-pressure: a recording waits, a live
        camera drops. Must watch `stopping` when it blocks. Index and time go on over reconnections.
    on_status: gets (status, detail) whenever either changes; not called any more once stopped.
    stopping: set when the reader is to end; setting it is enough.

    A network camera is tried again whenever it fails or ends, a recording only when it fails; its end is the
    status "ended". ConfigError at once for a URL that can never work.
    """

    def __init__(
        self,
        name: str,
        url: str,
        on_frame: Callable[[Frame], None],
        on_status: Callable[[Status, str], None],
        pace: Pace = Pace(),
        clock: Clock | None = None,
    ) -> None:
        check_source(url)
        self.name = name
        self.stopping = threading.Event()
        self._url = url
        self._on_frame = on_frame
        self._on_status = on_status
        self._pace = pace
        self._clock = clock or WallClock()
        self._thread = threading.Thread(target=self._run, name=f"camera {name}", daemon=True)
        self._lock = threading.Lock()
        self._source: Source | None = None
        self._state: tuple[Status, str] = ("connecting", "not started")
        self._last: Frame | None = None
        self._views = Views()
        self._frames = 0
        self._corrupt_before = 0
        self._delivered_ns = 0
        self._first_ns: int | None = None
        self._inside = False

    @property
    def status(self) -> ReaderStatus:
        """The camera now; from any thread."""
        with self._lock:
            height, width = self._last.image.shape[:2] if self._last else (0, 0)
            corrupt = self._corrupt_before + (self._source.corrupt if self._source else 0)
            status, detail = self._state
            return ReaderStatus(status, detail, self._frames, corrupt, width, height)

    def start(self) -> None:
        """Begin reading. Once only."""
        self._thread.start()

    def stop(self, timeout: float = 0.5) -> bool:
        """End reading; True when the thread has ended within `timeout` seconds.

        It ends at once unless it is blocked in `on_frame` or waits for a network peer. FFmpeg cannot be woken from the
        latter: that thread is left to the source's time limit (5 s), delivers nothing more, and is waited for no
        longer than a quarter of a second. Safe before `start`, and more than once.
        """
        self.stopping.set()
        with self._lock:
            source = self._source
        if source is not None:
            source.close()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(min(timeout, BLOCKED_SECONDS))
            if self._thread.is_alive() and not self._inside:
                self._thread.join(max(timeout - BLOCKED_SECONDS, 0))
        return not self._thread.is_alive()

    def _run(self) -> None:
        failures, reason = 0, ""
        self._tell("connecting", "opening")
        while not self.stopping.is_set():
            self._first_ns = None
            try:
                live = self._session()
            except ConfigError as error:
                self._tell("ended", str(error))
                return
            except EdgewardError as error:
                reason = str(error)
            except Exception as error:  # a bug below must cost one camera a retry, not the box its camera
                logger.exception("camera %s", self.name)
                reason = f"{type(error).__name__} while reading"
            else:
                if not live and not self.stopping.is_set():
                    self._tell("ended", f"end of the recording after {self._frames} frames")
                    return
                reason = "the stream ended"
            if self.stopping.is_set():
                break
            failures = 1 if self._was_steady() else failures + 1
            seconds = retry_seconds(failures)
            self._inside = False
            self._tell("retrying", f"{reason}; next try in {seconds:g} s")
            self.stopping.wait(seconds)
        with self._lock:
            failed = self._state[0] == "retrying"
            self._state = ("ended", f"stopped; before that, {reason}" if failed else "stopped")

    def _session(self) -> bool:
        """From opening to the end of the stream; whether it was a live one."""
        self._inside = True
        source = open_source(self._url, loop=self._pace.loop)
        with self._lock:
            self._source = source
        try:
            # From here on `stop` closes the source; a stop while it was being opened is noticed now.
            if not self.stopping.is_set():
                self._deliver_all(source)
            return source.live
        finally:
            source.close()
            with self._lock:
                self._corrupt_before += source.corrupt
                self._source = None

    def _deliver_all(self, source: Source) -> None:
        schedule = self._schedule(source)
        base: tuple[int, float] | None = None
        for frame in source:
            self._inside = False
            if schedule is not None:
                wait_ns = schedule.wait_ns(self._clock.now_ns())
                if wait_ns:
                    self.stopping.wait(to_seconds(wait_ns))
            if self.stopping.is_set():
                return
            base = base or self._base()
            frame = _rebased(frame, *base, live=source.live)
            self._deliver(replace(frame, view=self._views.see(frame.image)))
            self._inside = True

    def _schedule(self, source: Source) -> Schedule | None:
        if source.live or self._pace.rate == "max":
            return None
        return Schedule(to_ns(1 / (self._pace.rate or source.fps or USUAL_FPS)))

    def _base(self) -> tuple[int, float]:
        """Index and time at which a session's first frame goes on: the time that was lost counts."""
        if self._last is None:
            return 0, 0.0
        lost_ns = max(self._clock.now_ns() - self._delivered_ns, 1_000_000)
        return self._last.index + 1, self._last.time + to_seconds(lost_ns)

    def _deliver(self, frame: Frame) -> None:
        now_ns = self._clock.now_ns()
        with self._lock:
            self._last = frame
            self._frames += 1
            self._delivered_ns = now_ns
        if self._first_ns is None:
            self._first_ns = now_ns
            self._tell("live", "")
        self._on_frame(frame)

    def _was_steady(self) -> bool:
        """Whether the session that has just failed had delivered for long enough."""
        return self._first_ns is not None and self._delivered_ns - self._first_ns >= to_ns(STEADY_SECONDS)

    def _tell(self, status: Status, detail: str) -> None:
        with self._lock:
            changed = (status, detail) != self._state
            self._state = (status, detail)
        if changed and not self.stopping.is_set():
            self._on_status(status, detail)


def _rebased(frame: Frame, index: int, seconds: float, *, live: bool) -> Frame:
    """The frame counted on from an earlier session. A recording's own numbering stays, for its ground truth."""
    if index == 0:
        return frame
    total = frame.index + index
    return replace(frame, index=total, time=frame.time + seconds, content_index=total if live else frame.content_index)
