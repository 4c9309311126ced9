"""What each model of a ladder takes at the moment, also of those that did not run lately.

latency = Latency.nominal({"small": 0.027, "large": 0.216})
latency = latency.observed("small", seconds=0.081, now=4.0)
print(latency.seconds["large"])          # 0.610: the load slows every model alike until it is known better
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from edgeward.serve.ages import VARIES

__all__ = ["Latency", "under_load"]

WEIGHT = 0.7
"""Of a new measurement in the moving average: load comes and goes within a few inferences."""
STEADY = 0.05
"""Of a new difference from what was expected in the moving average: how far latencies vary is told from many."""
DIFFERS = 1.2
"""Three latencies, the mean and that plus or minus d, differ from it by two thirds of d on average, and from the moving
average, which has a part of every hiccup, by a quarter more."""
MOST = 0.3
LATELY = 2.0
"""Seconds for which a model's own latency stands for the load it ran under."""
SLICE = 0.003
"""Seconds that who begins to work waits for each other one that is working, beside what they slow it down: about the
time slice of the system's scheduler. Beside two busy processes four detectors took 6 ms and 3.2 times what they take
alone."""
SOME = 0.1
"""Share of a latency in proportion that is left to a model where SLICE would have it take no time."""


@dataclass(frozen=True)
class Latency:
    """seconds: estimated seconds of one inference, by model. ran: when each ended last, absent if it never ran.

    varies: share by which a latency is longer or shorter than estimated, at most MOST. steady: weight of a new
    difference in its moving average; 0, as in logs of before it was measured, to keep it.
    """

    seconds: Mapping[str, float]
    ran: Mapping[str, float] = field(default_factory=dict)
    varies: float = VARIES
    steady: float = 0.0

    @classmethod
    def nominal(cls, seconds: Mapping[str, float]) -> Self:
        """As calibrated on the idle device."""
        return cls(dict(seconds), steady=STEADY)

    def observed(self, name: str, seconds: float | None, now: float) -> Self:
        """After `name` took so many seconds, until `now`; None when they say nothing of what it takes else.

        When a model that has been running changes its pace, that is the load, and all others change with it. When one
        that has just been taken up differs from what was expected, while others ran lately, that is its own.
        """
        ran = {**self.ran, name: now}
        if seconds is None:
            return replace(self, ran=ran)
        fresh = {other for other, when in self.ran.items() if now - seconds - when <= LATELY}
        first = name not in fresh and not fresh  # nothing is known of the present load: no use in a slow average
        new = seconds if first or name not in self.ran else (1 - WEIGHT) * self.seconds[name] + WEIGHT * seconds
        others = self.seconds
        if first or name in fresh:
            others = {other: under_load(each, new, self.seconds[name]) for other, each in self.seconds.items()}
        varies = self.varies
        if name in fresh:
            differs = DIFFERS * abs(seconds / self.seconds[name] - 1)
            varies += self.steady * (min(differs, MOST) - varies)
        return replace(self, seconds={**others, name: new}, ran=ran, varies=varies)


def under_load(seconds: float, now: float, before: float) -> float:
    """Seconds that something takes under the load under which something else takes `now` instead of `before`.

    Each takes as many times as long, and to each is added what it waits for its turn; at any rate some of its time.
    """
    slower = (now + SLICE) / (before + SLICE)
    return max((seconds + SLICE) * slower - SLICE, SOME * seconds * now / before)
