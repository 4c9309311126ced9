"""Whether the mean of scores between 0 and 1 fell below a target, or rose above it: told as they come, rarely in error.

    shift = Shift.sought("below", target=0.9)
    for score in scores:
        shift = shift.after(score)
        if shift.certain:
            print(f"{shift.mean:.2f} in the last {shift.scores}")

Bets are made on a mean beyond the target. A score of 1 multiplies the stake by p / target, one of 0 by
(1 - p) / (1 - target), one between by what lies between: in expectation that is at most 1 while the mean of a score,
given those before it, is on the safe side, whatever else it is like. Who has less than the stake begins anew (Page,
Biometrika 1954), so that a good past hides nothing. When nothing has shifted, the bets have `least` stakes on average
once in `least` scores at most (Shin, Ramdas, Rinaldo, arXiv 2203.03532: each has less than the sum of bets of which one
begins with every score, and that sum grows by one stake a score).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, Self

__all__ = ["LEAST", "Bet", "Shift"]

LEAST = 1_000_000.0
"""Scores from one false alarm to the next, on average and at the least."""
ODDS = (1.5, 3.0, 8.0)
"""Factors between the odds at the target and those that are bet on: small shifts take long, large ones few scores."""


@dataclass(frozen=True)
class Bet:
    """On odds of `odds` times those at the target; `gain`: logarithm of what it has, in stakes.

    scores, total: number and sum of the scores since it began.
    """

    odds: float
    gain: float = 0.0
    scores: int = 0
    total: float = 0.0

    def after(self, score: float, target: float) -> Self:
        """With one more score."""
        p = self.odds * target / (self.odds * target + 1 - target)
        factor = score * p / target + (1 - score) * (1 - p) / (1 - target)
        old = self if self.gain > 0 else replace(self, gain=0.0, scores=0, total=0.0)
        return replace(old, gain=old.gain + math.log(factor), scores=old.scores + 1, total=old.total + score)


@dataclass(frozen=True)
class Shift:
    """The bets that the mean of scores is on one side of `target`; see `sought`."""

    target: float
    bets: tuple[Bet, ...]
    least: float = LEAST

    @classmethod
    def sought(cls, side: Literal["below", "above"], target: float, least: float = LEAST) -> Self:
        """Before any score. target: over 0 and below 1."""
        return cls(target, tuple(Bet(1 / odds if side == "below" else odds) for odds in ODDS), least)

    def after(self, score: float) -> Self:
        """With one more score, between 0 and 1."""
        return replace(self, bets=tuple(bet.after(score, self.target) for bet in self.bets))

    @property
    def certain(self) -> bool:
        """Whether the mean is on the side that was sought."""
        return math.fsum(math.exp(min(bet.gain, 700.0)) for bet in self.bets) >= self.least * len(self.bets)

    @property
    def scores(self) -> int:
        """Over how many scores the shift shows best."""
        return self._best.scores

    @property
    def mean(self) -> float:
        """Of these scores; the target before any."""
        return self._best.total / self._best.scores if self._best.scores else self.target

    @property
    def _best(self) -> Bet:
        return max(self.bets, key=lambda bet: bet.gain)
