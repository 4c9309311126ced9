"""Bandwidth over time, as recorded on real networks.

    trace = load_trace(Path("bus.txt"))
    trace.at(12.5)                        # bits per second, 12.5 s after the start
    trace.seconds_for(12.5, 200_000)      # how long 200 kB take from then on

A trace is piecewise constant and begins again when it is over.
Sources: the Comyco data set (github.com/thu-media/Comyco) and HSDPA logs (Riiser et al., MMSys 2013) have lines of
seconds and Mbit/s, the rate until that second; mahimahi (Netravali et al., USENIX ATC 2015) has a line per packet of
1500 bytes: its millisecond.
"""

from __future__ import annotations

import bisect
import itertools
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from edgeward.errors import ConfigError

__all__ = ["MAX_BYTES", "Trace", "load_trace", "parse_trace"]

MAX_BYTES = 16 << 20
_PACKET_BITS = 8 * 1500
_MAX_RATE = 1e13
_MAX_SECONDS = 1e9
_BIN_MS = 100  # over which single packets are a rate


@dataclass(frozen=True)
class Trace:
    """rates[i] bits per second hold from times[i] until times[i + 1] seconds; the last until `duration`.

    times: begins with 0 and rises. Raises ConfigError for anything else, and when no rate is above 0.
    """

    times: tuple[float, ...]
    rates: tuple[float, ...]
    duration: float

    def __post_init__(self) -> None:
        steps = itertools.pairwise((*self.times, self.duration))
        if len(self.times) != len(self.rates) or not self.times or self.times[0] != 0:
            raise ConfigError("a trace needs as many rates as times, at least one, and the first time is 0")
        if not all(before < after <= _MAX_SECONDS for before, after in steps):
            raise ConfigError(f"the times of a trace must rise and be at most {_MAX_SECONDS:g} s; sort its lines")
        if not all(0 <= rate <= _MAX_RATE for rate in self.rates):
            raise ConfigError(f"the rates of a trace must lie between 0 and {_MAX_RATE:g} bit/s; correct its lines")
        if not any(self.rates) or not self._ahead[-1]:
            raise ConfigError("a trace must have a rate above 0 somewhere; nothing would ever arrive")

    def at(self, time: float) -> float:
        """Bits per second at `time` seconds (at least 0) after the start."""
        return self.rates[bisect.bisect_right(self.times, time % self.duration) - 1]

    def until_change(self, time: float) -> float:
        """Seconds from `time` until the next step begins."""
        begun = time % self.duration
        index = bisect.bisect_right(self.times, begun)
        return (*self.times, self.duration)[index] - begun

    @property
    def mean(self) -> float:
        """Bits per second on average over the whole trace."""
        return self._ahead[-1] / self.duration

    def seconds_for(self, start: float, count: float) -> float:
        """Seconds that `count` bytes take when they begin `start` seconds after the beginning: the exact integral.

        A rate of 0 stalls them until the rate rises again.
        """
        if count <= 0:
            return 0.0
        begun = start % self.duration
        index = bisect.bisect_right(self.times, begun) - 1
        goal = self._ahead[index] + self.rates[index] * (begun - self.times[index]) + 8 * count
        more, goal = divmod(goal, self._ahead[-1])
        if goal == 0:  # the last bit leaves where a round's bits end, not where the next round's begin
            more, goal = more - 1, self._ahead[-1]
        last = bisect.bisect_left(self._ahead, goal) - 1
        end = self.times[last] + (goal - self._ahead[last]) / self.rates[last]
        return max(0.0, end - begun + more * self.duration)

    @cached_property
    def _ahead(self) -> tuple[float, ...]:
        """Bits that have passed at each of `times`, and at `duration`."""
        spans = itertools.pairwise((*self.times, self.duration))
        bits = (rate * (after - before) for rate, (before, after) in zip(self.rates, spans, strict=True))
        return (0.0, *itertools.accumulate(bits))


def load_trace(path: Path) -> Trace:
    """A trace from a file of "seconds Mbit/s" lines, or of single milliseconds (mahimahi). Raises ConfigError."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ConfigError(f"trace {path} has {size} bytes; a trace has at most {MAX_BYTES}")
        text = path.read_bytes().decode("ascii")
    except OSError as error:
        raise ConfigError(f"cannot read trace {path}: {error.strerror}; correct the path") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"trace {path}: byte {error.start} is not ASCII; a trace holds lines of numbers") from error
    try:
        return parse_trace(text)
    except ConfigError as error:
        raise ConfigError(f"trace {path}: {error}") from error


def parse_trace(text: str) -> Trace:
    """A trace from its text; the first line tells the form. Raises ConfigError."""
    rows = [(number, line.split()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if not rows:
        raise ConfigError("it is empty; give lines of 'seconds Mbit/s', or of one millisecond each")
    width = len(rows[0][1])
    if width not in (1, 2):
        raise ConfigError(f"line {rows[0][0]} has {width} columns; write 'seconds Mbit/s', or one millisecond")
    numbers = [_numbers(number, words, width) for number, words in rows]
    return _from_packets([row[0] for row in numbers]) if width == 1 else _from_rates(numbers)


def _numbers(number: int, words: list[str], width: int) -> list[float]:
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = []
    if len(values) != width or not all(0 <= value < math.inf for value in values):
        raise ConfigError(f"line {number}: {' '.join(words)[:40]!r} is not {width} numbers of at least 0; correct it")
    return values


def _from_rates(rows: list[list[float]]) -> Trace:
    """A line's rate held for the step that ends at its time: what was measured until then (as in Pensieve's player)."""
    if len(rows) < 2:
        raise ConfigError("it has one line; at least two are needed to know how long a rate held")
    start = rows[0][0]
    times = [time - start for time, _ in rows]
    return Trace(tuple(times[:-1]), tuple(1e6 * rate for _, rate in rows[1:]), times[-1])


def _from_packets(milliseconds: list[float]) -> Trace:
    if any(now > after for now, after in itertools.pairwise(milliseconds)) or milliseconds[-1] <= 0:
        raise ConfigError("milliseconds must not fall, and the last is above 0; sort its lines")
    if any(moment % 1 for moment in milliseconds) or milliseconds[-1] > 1000 * 86_400:
        raise ConfigError("milliseconds must be whole numbers of at most a day (86400000)")
    end = int(milliseconds[-1])
    edges = [*range(0, end, _BIN_MS), end]
    packets = [0] * (len(edges) - 1)
    for moment in milliseconds:  # the packet of millisecond m passes during the millisecond that ends with it
        packets[max(0, math.ceil(moment / _BIN_MS) - 1)] += 1
    spans = list(itertools.pairwise(edges))
    rates = tuple(1000 * _PACKET_BITS * count / (b - a) for count, (a, b) in zip(packets, spans, strict=True))
    return Trace(tuple(edge / 1000 for edge in edges[:-1]), rates, end / 1000)
