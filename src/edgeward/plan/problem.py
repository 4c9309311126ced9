"""What a solver works on: rules and an objective compiled to arrays.

    problem = compile_problem(costs, layers, objective, rules)
    problem.step(7)          # costs of going from block 6 on device a to block 7 on device b, and whether one may

Every figure that is summed along a plan is a `Measure`, whether it is minimised or capped.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from edgeward.plan.arrays import Bools, Floats
from edgeward.plan.costs import Costs
from edgeward.plan.objective import Objective
from edgeward.plan.options import Moves

__all__ = ["Cap", "Fit", "Measure", "Problem", "moved_bytes", "objective_measure", "ranked_measure"]


@dataclass(frozen=True)
class Measure:
    """A figure that adds up along a plan.

    start, inner: [n, R] per block that begins, or continues, a stage. fixed, rate: [R, R] per hop and per byte.
    work: [R] per second of packing or unpacking. loss: per share of accuracy that a packing loses.
    """

    start: Floats
    inner: Floats
    fixed: Floats
    rate: Floats
    work: Floats
    loss: float = 0.0

    @classmethod
    def nothing(cls, costs: Costs) -> Measure:
        """The measure that is always 0."""
        count, size = costs.start.shape
        blocks, hops = np.zeros((count, size)), np.zeros((size, size))
        return cls(blocks, blocks, hops, hops, np.zeros(size))

    def plus(self, other: Measure, weight: float) -> Measure:
        """This measure and a multiple of another."""
        return Measure(
            self.start + weight * other.start,
            self.inner + weight * other.inner,
            self.fixed + weight * other.fixed,
            self.rate + weight * other.rate,
            self.work + weight * other.work,
            self.loss + weight * other.loss,
        )


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
    """n blocks on R devices, P packings.

    goals: what is minimised; `pipeline` adds the time of the busiest device or link and needs `once`.
    moved: [P, n + 1] bytes before each block and after the last. packs: [P, n + 1] which packings may be used there.
    allowed: [n, R]. ways: [R, R], and `shut` the same without those that raw data may not take. needs: sets of devices
    [R] of which one must run a block. spread: how many devices at least. once: whether a device that was left is not
    used again.
    """

    costs: Costs
    goals: tuple[Measure, ...]
    moved: Floats
    packs: Bools
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
    def packed(self) -> bool:
        """Whether some hop has a packing to choose."""
        return bool(self.packs[1:].any())

    @property
    def limits(self) -> Floats:
        """[m] largest value of each measure; goals have none."""
        return np.array([np.inf] * len(self.goals) + [cap.limit for cap in self.caps])

    @cached_property
    def _stacked(self) -> tuple[Floats, Floats, Floats, Floats, Floats, Floats]:
        measures = self.goals + tuple(cap.measure for cap in self.caps)
        count, size = self.allowed.shape
        return (
            np.array([measure.start for measure in measures]).reshape(-1, count, size),
            np.array([measure.inner for measure in measures]).reshape(-1, count, size),
            np.array([measure.fixed for measure in measures]).reshape(-1, size, size),
            np.array([measure.rate for measure in measures]).reshape(-1, size, size),
            np.array([measure.work for measure in measures]).reshape(-1, size),
            np.array([measure.loss for measure in measures]),
        )

    def _hops(self, boundary: int) -> Moves:
        """Every pair of different devices at a boundary."""
        _, _, fixed, rate, work, loss = self._stacked
        option = np.flatnonzero(self.packs[:, boundary] | (np.arange(len(self.packs)) == 0))
        added: Floats = fixed + rate * self.moved[option, boundary, None, None, None]
        ok = np.ones((len(option), *self.ways.shape), np.bool_)
        if len(option) > 1:
            pack, unpack = (part[option, boundary] for part in (self.costs.options.pack, self.costs.options.unpack))
            ok &= np.isfinite(pack)[:, :, None] & np.isfinite(unpack)[:, None, :]
            pack, unpack = (np.nan_to_num(part, posinf=0.0)[:, None, :] for part in (pack, unpack))
            drop = np.nan_to_num(self.costs.options.drop[option, boundary])
            added += (work * pack)[:, :, :, None] + (work * unpack)[:, :, None, :]
            added += (loss * drop[:, None])[:, :, None, None]
        ok[0] &= self.packs[0, boundary]
        reveals = boundary == 0 or bool(self.costs.reveals[boundary - 1])
        return Moves(option, added, ok & (self.shut if reveals else self.ways))

    def step(self, block: int) -> Moves:
        """What a block on the column adds after its predecessor on the row."""
        start, inner, *_ = self._stacked
        hops = self._hops(block)
        added: Floats = hops.added + start[:, block, None, :]
        here = np.arange(added.shape[-1])
        added[0][:, here, here] = inner[:, block]
        hops.ok[:, here, here] = (hops.option == 0)[:, None]
        return Moves(hops.option, added, hops.ok & self.allowed[block])

    def enter(self) -> Moves:
        """What block 0 on the column adds, the input's hop from the source (the only row) included."""
        hops, source = self._hops(0), self.costs.source
        added, ok = hops.added[:, :, [source]], hops.ok[:, [source]]
        added[..., source] = 0.0
        ok[..., source] = (hops.option == 0)[:, None]
        return Moves(hops.option, added + self._stacked[0][:, 0, None, :], ok & self.allowed[0])

    def leave(self) -> Moves:
        """What returning the result from the row to the source (the only column) adds."""
        (count, size), source = self.allowed.shape, self.costs.source
        if not self.returns:
            measures = len(self._stacked[0])
            return Moves(np.zeros(1, np.int64), np.zeros((1, measures, size, 1)), np.ones((1, size, 1), np.bool_))
        hops = self._hops(count)
        added, ok = hops.added[..., [source]], hops.ok[..., [source]]
        added[:, :, source] = 0.0
        ok[:, source] = (hops.option == 0)[:, None]
        return Moves(hops.option, added, ok)


def objective_measure(costs: Costs, kind: str) -> Measure:
    """The measure of an additive objective: "latency", "energy" or "bytes"."""
    links, nothing = costs.links, Measure.nothing(costs)
    if kind == "latency":
        hop = links.latency + links.overhead
        return Measure(costs.start, costs.inner, hop, links.seconds_per_byte, np.ones_like(nothing.work))
    if kind == "energy":
        power = np.array([device.power for device in costs.devices])
        return Measure(costs.start * power, costs.inner * power, nothing.fixed, links.joules_per_byte, power)
    return replace(nothing, rate=np.ones_like(nothing.rate))


def ranked_measure(costs: Costs, moved: Floats, packs: Bools, kind: str) -> Measure:
    """An additive objective whose ties the latency breaks.

    moved, packs: as a `Problem` holds them. The share of the latency that is added stays below a byte, or below
    rounding for joules.
    """
    own, latency = objective_measure(costs, kind), objective_measure(costs, "latency")
    if kind == "latency":
        return own
    longest, most = (_bound(costs, one, moved, packs) for one in (latency, own))
    smallest = (0.5 if most else 1.0) if kind == "bytes" else (1e-14 * most or 1.0)
    return own.plus(latency, smallest / max(longest, 1e-300))


def _bound(costs: Costs, measure: Measure, moved: Floats, packs: Bools) -> float:
    """At least what any plan's sum of non-negative terms comes to."""
    sizes = np.where(packs, moved, 0.0).max(axis=0)
    hops = measure.fixed.max() * len(sizes) + measure.rate.max() * sizes.sum()
    for seconds in (costs.options.pack, costs.options.unpack):
        used = np.where(packs[..., None] & np.isfinite(seconds), seconds, 0.0)
        hops += (used * measure.work).max(axis=(0, 2)).sum()
    return float(measure.start.max(axis=1).sum() + hops)


def moved_bytes(costs: Costs, objective: Objective) -> tuple[Floats, Bools]:
    """[P, n + 1] bytes that cross a link at every boundary, and which packings there are.

    Where the objective says what really travels (an encoded image, a label), that is not packed again.
    """
    moved = costs.options.bytes.copy()
    for boundary, count in ((0, objective.input_bytes), (-1, objective.output_bytes)):
        if count is not None:
            moved[:, boundary] = np.inf
            moved[0, boundary] = count
    return moved, np.isfinite(moved)
