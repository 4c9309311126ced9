"""What each model of a ladder takes at the moment, also of those that did not run lately.

latency = Latency.nominal({"small": 0.027, "large": 0.216})
slow = latency.observed("small", seconds=0.081, now=4.0)
print(slow.seconds["large"])             # 0.648: a slower processor slows every model alike until it is known better
busy = latency.observed("small", seconds=0.081, now=4.0, beside=programs(0.081, waited=0.052))
print(busy.seconds["large"])             # 0.614: most of it was waiting for others to let it run, as large has to
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from edgeward.serve.ages import VARIES
from edgeward.serve.ladder import Rung

__all__ = ["Latency", "alone", "among", "programs"]

WEIGHT = 0.7
"""Of a new measurement in the moving average of a model's own work: a processor slows down within a few inferences."""
STEADY = 0.05
"""Of a new difference from what was expected in the moving average: how far latencies vary is told from many."""
DIFFERS = 1.2
"""Three latencies, the mean and that plus or minus d, differ from it by two thirds of d on average, and from the moving
average, which has a part of every hiccup, by a quarter more."""
MOST = 0.3
LATELY = 2.0
"""Seconds for which a model's own latency stands for the load it ran under."""
SHORTLY = 0.1
"""Seconds after which what was waited for others counts e times less: programs come and go."""
SLICE = 0.003
"""Seconds that who begins to work waits for each other one that is working, beside what they slow it down: about the
time slice of the system's scheduler. Beside two busy processes four detectors took 6 ms and 3.2 times what they take
alone."""
SOME = 0.001
"""Least share of what a model took beside others that is held to be its own work, before that is divided among all."""


@dataclass(frozen=True)
class Latency:
    """seconds: estimated seconds of one inference, by model. ran: when each ended last, absent if it never ran.

    varies: share by which a latency is longer or shorter than estimated, at most MOST. steady: weight of a new
    difference in its moving average; 0, as in logs of before it was measured, to keep it. beside: how many programs
    work on the same processor, of which one that works half of the time is half a one; watched: seconds of work that
    told so, of which older ones count less.
    """

    seconds: Mapping[str, float]
    ran: Mapping[str, float] = field(default_factory=dict)
    varies: float = VARIES
    steady: float = 0.0
    beside: float = 0.0
    watched: float = 0.0

    @classmethod
    def nominal(cls, seconds: Mapping[str, float]) -> Self:
        """As calibrated on the idle device."""
        return cls(dict(seconds), steady=STEADY)

    def observed(self, name: str, seconds: float | None, now: float, beside: float = 0.0) -> Self:
        """After `name` took so many seconds, until `now`, beside so many programs; None when they say nothing of what
        it takes else.

        Programs beside it are beside all. When a model that has been running changes its pace otherwise, that is the
        processor's, and all others change with it. When one that has just been taken up differs from what was expected,
        while others ran lately, that is its own.
        """
        ran = {**self.ran, name: now}
        known = self.watched * math.exp(-max(now - max(self.ran.values(), default=now), 0.0) / SHORTLY)
        if seconds is None:
            return replace(self, ran=ran, watched=known)
        fresh = {other for other, when in self.ran.items() if now - seconds - when <= LATELY}
        first = name not in fresh and not fresh  # nothing is known of the present load: no use in a slow average
        expected, own, work = self.seconds[name], alone(self.seconds[name], self.beside), alone(seconds, beside)
        # Who works longer tells better how many there are: all that was waited lately over all that was worked.
        watched = known + work + SLICE
        busy = (known * self.beside + (work + SLICE) * beside) / watched
        new = work if first or name not in self.ran else (1 - WEIGHT) * own + WEIGHT * work
        slower = new / own if first or name in fresh else 1.0
        others = {other: among(slower * alone(each, self.beside), busy) for other, each in self.seconds.items()}
        varies = self.varies
        if name in fresh:
            differs = DIFFERS * abs(seconds / expected - 1)
            varies += self.steady * (min(differs, MOST) - varies)
        latency = {**others, name: among(new, busy)}
        return replace(self, seconds=latency, ran=ran, varies=varies, beside=busy, watched=watched)

    def turns(self, rung: Rung) -> tuple[float, ...]:
        """Seconds of the answer of each model in turn; of others just the rung's."""
        parts = rung.turns(alone(self.seconds[rung.name], self.beside))
        return tuple(among(each, self.beside) for each in parts)


def programs(seconds: float, waited: float) -> float:
    """How many programs work beside one that took so many seconds, so many of which it waited for them."""
    return max(waited, 0.0) / (max(seconds - waited, 0.0) + SLICE)


def among(seconds: float, beside: float) -> float:
    """Seconds that something takes beside so many programs that takes `seconds` by itself.

    It takes as many times as long, and to that is added what it waits for its turn.
    """
    return (1 + beside) * seconds + beside * SLICE


def alone(seconds: float, beside: float) -> float:
    """Seconds that something takes by itself that takes `seconds` beside so many programs; at any rate some."""
    return max(seconds - beside * SLICE, SOME * seconds) / (1 + beside)
