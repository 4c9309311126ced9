"""What each model of a ladder takes at the moment, also of those that did not run lately.

latency = Latency.nominal({"small": 0.027, "large": 0.216})
latency = latency.observed("small", seconds=0.081, now=4.0)
print(latency.seconds["large"])          # 0.648: the load slows every model alike until it is known better
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from edgeward.serve.ages import VARIES

__all__ = ["Latency"]

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
        common = new / self.seconds[name] if first or name in fresh else 1.0
        varies = self.varies
        if name in fresh:
            differs = DIFFERS * abs(seconds / self.seconds[name] - 1)
            varies += self.steady * (min(differs, MOST) - varies)
        scaled = {other: value * common for other, value in self.seconds.items()} | {name: new}
        return replace(self, seconds=scaled, ran=ran, varies=varies)
