"""A link inside a process: how long a sender waits for what it sends to arrive.

    shaper = Shaper(link, clock=WallClock())
    shaper.wait(200_000)                           # sleeps as long as the link would take
    shaper.send_seconds(200_000, now=1.5)          # the same as a number, and the link is busy until then

For fleets that the kernel does not shape; with `paced=False` for the latency of one that it does, since the kernel's
part is bandwidth alone.
"""

from __future__ import annotations

import random
import threading

from edgeward.clock import Clock, WallClock, to_seconds
from edgeward.errors import ConfigError
from edgeward.fleet.fleet import Link
from edgeward.fleet.traces import Trace, load_trace

__all__ = ["Shaper"]


class Shaper:
    """One way of a link: a queue that empties at the link's bandwidth, then latency.

    A token bucket of depth 0 (see Tanenbaum, Computer Networks, 5.4): bytes leave at the rate and never faster. What
    is sent while earlier bytes still leave waits for them; latencies overlap. Arrivals keep their order.

    trace: bandwidth over time in place of the link's; read from `link.trace` if None. paced: False leaves only the
    latency. seed: of the jitter, which is uniform within ±link.jitter and never makes the latency negative.
    Safe to use from several threads.
    """

    def __init__(
        self, link: Link, *, trace: Trace | None = None, clock: Clock | None = None, seed: int = 0, paced: bool = True
    ) -> None:
        self._link = link
        self._trace = trace if trace is not None or link.trace is None else load_trace(link.trace)
        self._clock = clock or WallClock()
        self._paced = paced
        self._random = random.Random(seed)  # noqa: S311  (jitter, not a secret)
        self._free = 0.0
        self._arrived = 0.0
        self._lock = threading.Lock()

    def send_seconds(self, count: int, now: float) -> float:
        """Seconds from `now` until the last of `count` bytes arrives; the link is busy until the last one left.

        now: seconds on any clock that begins at 0 and does not run back. Raises ConfigError for a negative count.
        """
        if count < 0:
            raise ConfigError(f"cannot send {count} bytes; give 0 or more")
        with self._lock:
            start = max(now, self._free)
            self._free = start + self._sending(start, count)
            delay = self._link.latency + self._random.uniform(-self._link.jitter, self._link.jitter)
            self._arrived = max(self._arrived, self._free + max(0.0, delay))
            return self._arrived - now

    def wait(self, count: int) -> float:
        """Sleep until `count` bytes sent now have arrived; the seconds that this was."""
        seconds = self.send_seconds(count, to_seconds(self._clock.now_ns()))
        self._clock.sleep(seconds)
        return seconds

    def _sending(self, start: float, count: int) -> float:
        if not self._paced:
            return 0.0
        if self._trace is not None:
            return self._trace.seconds_for(start, count)
        return 8 * count / self._link.bandwidth
