"""How much better or worse each model of a ladder does in the scene at hand than its table says, told without labels.

    evidence = Evidence.none(("small", "large"))
    evidence = evidence.seen("large", expected_area(boxes.confidence), expected=0.9, elapsed=0.04)
    print(evidence.factor("large"))          # 1.1: in this scene rather more than its table promises

A table knows sizes only, but scenes differ in light, view and clutter, too. When scores are probabilities (see
`edgeward.serve.certainty`), those of an answer say how much of the area under the precision-recall curve it should be
worth. It is the product of what the scene holds, which is common to all models, and what the model makes of it; the two
are told apart by a Kalman filter over their logarithms, which needs looks of several models at the same scene.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt

__all__ = ["LONGEST", "Drift", "Evidence", "expected_area"]

SURPRISE = 3.0
"""Standard deviations beyond which an answer counts no more."""
EMPTY = 0.5
"""Objects that are added to what was found: the logarithm of nothing has no bound."""
LEAST = 0.01
"""The same of what a table says of the sizes in view."""
LONGEST = 10.0
"""Seconds after which a scene may hold anything."""
HOLDS = 0.25
"""Elsewhere than where they were made probabilities, scores err as tables do. On thirds of PETS and TUD, with ladders
of other thirds, how far scores set models apart correlates with how far the truth does by 0.4 to 0.8, but is four times
as much: slopes of 0.19 to 0.27."""


@dataclass(frozen=True)
class Drift:
    """How fast what the filter follows may change, in logarithms.

    own: standard deviation of a model's own factor. own_seconds: after which it has fallen to 1/e of itself.
    scene: standard deviation that the scene's content gains in a second. noise: of one answer about one object; that of
    n objects is less by the root of n. holds: share of what scores tell of a model that is true of its accuracy.
    """

    own: float = 0.05
    own_seconds: float = 20.0
    scene: float = 1.0
    noise: float = 0.3
    holds: float = HOLDS


@dataclass(frozen=True)
class Evidence:
    """names: of the models. mean: logarithms of the scene's content and of each model's factor, [1 + n]; covariance."""

    names: tuple[str, ...]
    mean: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    drift: Drift = Drift()

    @classmethod
    def none(cls, names: tuple[str, ...], drift: Drift = Drift()) -> Self:
        """Before anything was seen: every table is right."""
        first = np.diag([10.0] + [drift.own**2] * len(names))
        return cls(names, (0.0,) * (1 + len(names)), _tuples(first), drift)

    def seen(self, name: str, area: float, expected: float, elapsed: float) -> Self:
        """After an answer of `name`, `elapsed` seconds after the last one.

        area: see `expected_area`. expected: what its table says of the sizes in view, 0..1.
        """
        drift, count = self.drift, len(self.mean)
        kept = np.full(count, math.exp(-elapsed / drift.own_seconds))
        kept[0] = 1.0
        gained = drift.own**2 * (1 - kept**2)
        gained[0] = drift.scene**2 * min(elapsed, LONGEST)
        mean = np.array(self.mean) * kept
        covariance = np.array(self.covariance) * np.outer(kept, kept)
        covariance[np.diag_indices(count)] += gained
        at = 1 + self.names.index(name)
        towards = covariance[:, 0] + covariance[:, at]
        spread = float(towards[0] + towards[at]) + drift.noise**2 / (area + EMPTY)
        error = math.log((area + EMPTY) / max(expected, LEAST)) - mean[0] - mean[at]
        most = SURPRISE * math.sqrt(spread)  # a cut or a blinded camera says little of one model's worth
        mean = mean + towards * (min(max(error, -most), most) / spread)
        covariance = covariance - np.outer(towards, towards) / spread
        return replace(self, mean=tuple(mean.tolist()), covariance=_tuples(covariance))

    def factor(self, name: str) -> float:
        """What the model's table is to be multiplied by."""
        return math.exp(self.drift.holds * self.mean[1 + self.names.index(name)])

    def learned(self, name: str, other: str, expected: float, elapsed: float) -> float:
        """Standard deviation by which one answer of `name`, `elapsed` seconds from now, would change the logarithm of
        its factor over the other's. expected: as of `seen`."""
        a, b = 1 + self.names.index(name), 1 + self.names.index(other)
        found, drift = self.covariance, self.drift
        scene = found[0][0] + drift.scene**2 * min(elapsed, LONGEST)
        towards = found[0][a] - found[0][b] + found[a][a] - found[a][b]
        area = math.exp(self.mean[0] + self.mean[a]) * max(expected, LEAST)
        spread = scene + 2 * found[0][a] + found[a][a] + drift.noise**2 / max(area, EMPTY)
        return drift.holds * abs(towards) / math.sqrt(spread)


def expected_area(chances: npt.NDArray[np.floating]) -> float:
    """Area under the precision-recall curve that boxes should reach, times the objects there are.

    chances: probability of each box to be right. Each adds its own, times the precision down to it.
    """
    falling = np.sort(chances.astype(np.float64))[::-1]
    return float(falling @ (np.cumsum(falling) / np.arange(1, len(falling) + 1)))


def _tuples(matrix: npt.NDArray[np.float64]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in matrix.tolist())
