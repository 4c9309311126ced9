"""Whether the model in charge is blind for what is in view: it sees nothing, where others do.

    doubt = doubt.answered(sees=False, at=12.0, finds=0.9)       # the one in charge, again and again
    doubt = doubt.looked("fast", chance=0.95, at=12.1)           # a look of another one found something
    doubt = doubt.answered(sees=False, at=12.2, finds=0.9)       # which the one in charge does not see
    if doubt.sure(others=3): ...                                 # it should leave the ladder

What scores tell of a model moves its accuracy a little (see `edgeward.serve.evidence`); that it finds nothing at all in
a scene unlike those of its calibration has to be told otherwise. A sequential test (Wald, "Sequential tests of
statistical hypotheses", 1945): were the table right, it would seldom miss again and again what others are sure of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

__all__ = ["LIMIT", "Doubt"]

LIMIT = math.log(1000)
"""How much likelier blindness has to be than chance."""
MOST = 0.95
"""Chance with which what is missed once would at most have been found."""
FORGOTTEN = 60.0
"""Seconds in which doubts fall to 1/e: what others imagine now and then does not add up."""
LATELY = 2.0
"""Seconds after a look in which what it found should still be in view."""


@dataclass(frozen=True)
class Doubt:
    """What is held against a model that is or was in charge. Times are those of frames, in seconds.

    since: since when it sees nothing, None while it sees something. looks: when others looked last. against: by model
    that looked, how much likelier what it saw is if this one is blind; logarithms. seen: who looked last and how sure
    it was of something, until this one answers. at: of the newest answer.
    """

    since: float | None = None
    looks: Mapping[str, float] = field(default_factory=dict)
    against: Mapping[str, float] = field(default_factory=dict)
    seen: tuple[str, float] | None = None
    at: float = 0.0

    def looked(self, name: str, chance: float, at: float) -> Self:
        """After another model looked. chance: probability of its surest box, 0 without any."""
        return replace(self, looks={**self.looks, name: at}, seen=(name, chance) if chance else None)

    def answered(self, sees: bool, at: float, finds: float) -> Self:
        """After an answer of its own. sees: whether it has a box; finds: the share of objects it should find."""
        if sees:
            return type(self)(looks=self.looks, at=at)
        left = math.exp(-max(at - self.at, 0.0) / FORGOTTEN)
        against = {name: each * left for name, each in self.against.items()}
        if self.seen is not None and at - self.looks[self.seen[0]] <= LATELY:
            name, chance = self.seen
            against[name] = against.get(name, 0.0) - math.log1p(-min(chance * finds, MOST))
        since = at if self.since is None else self.since
        return replace(self, since=since, against=against, seen=None, at=at)

    def sure(self, others: int) -> bool:
        """Whether it is blind. others: how many other models there are; one alone does not decide where there are more.

        What one model imagines it imagines again and again.
        """
        most = LIMIT / min(max(others, 1), 2)
        return sum(min(each, most) for each in self.against.values()) >= LIMIT * (1 - 1e-9)
