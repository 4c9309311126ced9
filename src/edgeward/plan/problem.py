"""What a solver works on: rules and an objective compiled to arrays.

    problem = compile_problem(costs, layers, objective, rules)
    problem.step(7)          # costs of going from block 6 on device a to block 7 on device b, and whether one may

Every figure that is summed along a plan is a `Measure`, whether it is minimised or capped.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edgeward.plan.costs import Bools, Costs, Floats
from edgeward.plan.objective import Objective

__all__ = ["Cap", "Fit", "Measure", "Problem", "moved_bytes", "objective_measure", "ranked_measure"]


@dataclass(frozen=True)
class Measure:
    """A figure that adds up along a plan.

    start, inner: [n, R] per block that begins, or continues, a stage. fixed, rate: [R, R] per hop and per byte.
    """

    start: Floats
    inner: Floats
    fixed: Floats
    rate: Floats

    def plus(self, other: Measure, weight: float) -> Measure:
        """This measure and a multiple of another."""
        return Measure(
            self.start + weight * other.start,
            self.inner + weight * other.inner,
            self.fixed + weight * other.fixed,
            self.rate + weight * other.rate,
        )

    def bound(self, moved: Floats) -> float:
        """At least what any plan's sum of non-negative terms comes to."""
        hops = self.fixed.max() * len(moved) + self.rate.max() * moved.sum()
        return float(self.start.max(axis=1).sum() + hops)


@dataclass(frozen=True)
class Cap:
    """An upper bound on a measure, with enough room for sums that differ in their last digits."""

    measure: Measure
    limit: float


@dataclass(frozen=True)
class Fit:
    """Weights of a device's blocks plus the largest of their activations are at most `limit` bytes."""

    device: int
    limit: float


@dataclass(frozen=True)
class Problem:
    """n blocks on R devices.

    goals: what is minimised; `pipeline` adds the time of the busiest device or link and needs `once`.
    moved: [n + 1] bytes before each block and after the last. allowed: [n, R]. ways: [R, R], and `shut` the same
    without those that raw data may not take. needs: sets of devices [R] of which one must run a block.
    spread: how many devices at least. once: whether a device that was left is not used again.
    """

    costs: Costs
    goals: tuple[Measure, ...]
    moved: Floats
    returns: bool
    allowed: Bools
    ways: Bools
    shut: Bools
    caps: tuple[Cap, ...] = ()
    fits: tuple[Fit, ...] = ()
    needs: tuple[Bools, ...] = ()
    spread: int = 1
    once: bool = False
    pipeline: bool = False

    @property
    def plain(self) -> bool:
        """Whether costs add up and nothing but single blocks and hops is ruled out."""
        return not (self.caps or self.fits or self.needs or self.spread > 1 or self.once)

    @property
    def limits(self) -> Floats:
        """[m] largest value of each measure; goals have none."""
        return np.array([np.inf] * len(self.goals) + [cap.limit for cap in self.caps])

    @cached_property
    def _stacked(self) -> tuple[Floats, Floats, Floats, Floats]:
        measures = self.goals + tuple(cap.measure for cap in self.caps)
        blocks, ways = (len(measures), *self.allowed.shape), (len(measures), *self.ways.shape)
        return (
            np.array([measure.start for measure in measures]).reshape(blocks),
            np.array([measure.inner for measure in measures]).reshape(blocks),
            np.array([measure.fixed for measure in measures]).reshape(ways),
            np.array([measure.rate for measure in measures]).reshape(ways),
        )

    def _open(self, boundary: int) -> Bools:
        reveals = boundary == 0 or bool(self.costs.reveals[boundary - 1])
        return self.shut if reveals else self.ways

    def step(self, block: int) -> tuple[Floats, Bools]:
        """[m, R, R] what a block on the column adds after its predecessor on the row, and [R, R] whether it may."""
        start, inner, fixed, rate = self._stacked
        added: Floats = fixed + rate * self.moved[block] + start[:, block, None, :]
        diagonal = np.arange(added.shape[1])
        added[:, diagonal, diagonal] = inner[:, block]
        return added, self._open(block) & self.allowed[block]

    def enter(self) -> tuple[Floats, Bools]:
        """[m, R] what block 0 on a device adds, the input's hop included, and [R] whether it may run there."""
        start, _, fixed, rate = self._stacked
        added: Floats = fixed[:, self.costs.source] + rate[:, self.costs.source] * self.moved[0]
        added[:, self.costs.source] = 0.0
        return added + start[:, 0], self._open(0)[self.costs.source] & self.allowed[0]

    def leave(self) -> tuple[Floats, Bools]:
        """[m, R] what returning the result from a device adds, and [R] whether it can."""
        _, _, fixed, rate = self._stacked
        if not self.returns:
            return np.zeros(fixed.shape[:2]), np.ones(fixed.shape[1], np.bool_)
        added: Floats = fixed[:, :, self.costs.source] + rate[:, :, self.costs.source] * self.moved[-1]
        added[:, self.costs.source] = 0.0
        return added, self._open(len(self.moved) - 1)[:, self.costs.source]

    def occupied(self, boundary: int) -> Floats:
        """[R, R] seconds that a hop at a boundary keeps a link busy."""
        links = self.costs.links
        busy: Floats = links.overhead + links.seconds_per_byte * self.moved[boundary]
        np.fill_diagonal(busy, 0.0)
        return busy


def objective_measure(costs: Costs, kind: str) -> Measure:
    """The measure of an additive objective: "latency", "energy" or "bytes"."""
    links, zero = costs.links, np.zeros_like(costs.start)
    none = np.zeros_like(links.latency)
    if kind == "latency":
        return Measure(costs.start, costs.inner, links.latency + links.overhead, links.seconds_per_byte)
    if kind == "energy":
        power = np.array([device.power for device in costs.devices])
        return Measure(costs.start * power, costs.inner * power, none, links.joules_per_byte)
    return Measure(zero, zero, none, np.ones_like(none))


def ranked_measure(costs: Costs, moved: Floats, kind: str) -> Measure:
    """An additive objective whose ties the latency breaks.

    The share of the latency that is added stays below a byte, or below rounding for joules.
    """
    own, latency = objective_measure(costs, kind), objective_measure(costs, "latency")
    if kind == "latency":
        return own
    longest, most = latency.bound(moved), own.bound(moved)
    smallest = (0.5 if most else 1.0) if kind == "bytes" else (1e-14 * most or 1.0)
    return own.plus(latency, smallest / max(longest, 1e-300))


def moved_bytes(costs: Costs, objective: Objective) -> Floats:
    """[n + 1] bytes that cross a link before each block, and after the last."""
    moved = np.concatenate([[costs.input_bytes], costs.outputs])
    if objective.input_bytes is not None:
        moved[0] = objective.input_bytes
    if objective.output_bytes is not None:
        moved[-1] = objective.output_bytes
    return moved
