"""Rules of a plan compiled to a problem for the solvers.

problem = compile_problem(World(profile, fleet, costs), objective, rules)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from edgeward.errors import PlanError, nearest
from edgeward.fleet.fleet import TIERS, Fleet
from edgeward.plan.arrays import Bools, Floats
from edgeward.plan.constraints import (
    Avoid,
    ByteCap,
    Drop,
    Links,
    Memory,
    Once,
    Packed,
    Pin,
    Private,
    Rule,
    Spread,
    TimeCap,
    Unchecked,
    Use,
)
from edgeward.plan.costs import Costs
from edgeward.plan.objective import Objective
from edgeward.plan.problem import Cap, Fit, Measure, Problem, moved_bytes, objective_measure, ranked_measure
from edgeward.profile.profile import Profile

__all__ = ["World", "compile_problem", "natural_rules"]


@dataclass(frozen=True)
class World:
    """A profile on a fleet with its arrays."""

    profile: Profile
    fleet: Fleet
    costs: Costs

    def devices(self, where: str) -> Bools:
        """[R] the devices a rule names: one by its name, or those of a tier. Raises PlanError."""
        names = [device.name for device in self.fleet.devices]
        if where in names:
            return np.array([name == where for name in names])
        if where in TIERS:
            return np.array([device.tier == where for device in self.fleet.devices])
        raise PlanError(f"no device or tier {where!r} in fleet {self.fleet.name!r}; {nearest(where, [*names, *TIERS])}")

    def blocks(self, pin: Pin) -> slice:
        """The blocks a pin names. Raises PlanError when there are none of these numbers."""
        blocks = self.profile.blocks
        if pin.unit == "block":
            if pin.last >= len(blocks):
                raise PlanError(f"'{pin}': {self.profile.model!r} has blocks 0-{len(blocks) - 1}; choose among these")
            return slice(pin.first, pin.last + 1)
        spans = [block.layers for block in blocks if block.layers is not None]
        if len(spans) < len(blocks):
            raise PlanError(f"'{pin}': the profile of {self.profile.model!r} numbers no layers; name blocks instead")
        if pin.last > spans[-1][1] or pin.first < spans[0][0]:
            known = f"{spans[0][0]}-{spans[-1][1]}"
            raise PlanError(f"'{pin}': {self.profile.model!r} has layers {known}; choose among these")
        inside = [number for number, (first, last) in enumerate(spans) if first <= pin.last and last >= pin.first]
        return slice(inside[0], inside[-1] + 1)

    def packings(self, rule: Packed) -> Bools:
        """[P] the packings a rule names. Raises PlanError."""
        known = self.costs.options.names
        for name in rule.names:
            if name not in known:
                raise PlanError(f"no packing {name!r} in the profile of {self.profile.model!r}; {nearest(name, known)}")
        return np.array([name in rule.names for name in known])

    def inside(self, zone: str) -> Bools:
        """[R] the devices of a zone. Raises PlanError."""
        for one in self.fleet.zones:
            if one.name == zone:
                return np.array([device.name in one.devices for device in self.fleet.devices])
        known = [one.name for one in self.fleet.zones]
        hint = nearest(zone, known) if known else "the fleet has no zones"
        raise PlanError(f"no zone {zone!r} in fleet {self.fleet.name!r}; {hint}")


def natural_rules(world: World, rules: Iterable[Rule] = (), *, once: bool) -> tuple[Rule, ...]:
    """What holds without being asked for: links, private zones, memory, and that a pipeline uses a device once.

    Nor does packing lose accuracy, unless `rules`, those that are asked for, say how much it may.
    """
    zones = [Private(zone.name) for zone in world.fleet.zones if zone.private]
    memory = [Memory(device.name) for device in world.fleet.devices if device.memory is not None]
    silent = world.profile.packings and not any(isinstance(rule, Drop | Unchecked) for rule in rules)
    return (Links(), *zones, *memory, *([Once()] if once else []), *([Drop(0.0)] if silent else []))


@dataclass
class _Draft:
    """A problem while rules are added to it."""

    allowed: Bools
    shut: Bools
    packs: Bools
    linked: bool = False
    caps: list[Cap] = field(default_factory=list)
    fits: list[Fit] = field(default_factory=list)
    needs: list[Bools] = field(default_factory=list)
    spread: int = 1
    once: bool = False
    drop: float = np.inf


def compile_problem(
    world: World, objective: Objective, rules: Iterable[Rule], goals: tuple[str, ...] | None = None
) -> Problem:
    """The problem of an objective under rules; missing links cost nothing unless `Links` is among the rules.

    goals: names of several measures to minimise at once instead of the objective's kind (with throughput: latency).
    Raises PlanError when a rule names what is not there.
    """
    costs = world.costs
    size = len(costs.devices)
    moved, packs = moved_bytes(costs, objective)
    draft = _Draft(np.tile(costs.able, (len(costs.start), 1)), np.ones((size, size), np.bool_), packs)
    for rule in rules:
        _apply(draft, world, rule)
    ways = costs.links.exists if draft.linked else np.ones((size, size), np.bool_)
    draft.caps += _drop_cap(draft, costs)
    single = "latency" if objective.kind == "throughput" else objective.kind
    return Problem(
        costs=costs,
        goals=tuple(objective_measure(costs, goal) for goal in goals if goal != "throughput")
        if goals
        else (ranked_measure(costs, moved, draft.packs, single),),
        moved=moved,
        packs=draft.packs,
        returns=objective.return_result,
        allowed=draft.allowed,
        ways=ways,
        shut=ways & draft.shut,
        caps=tuple(draft.caps),
        fits=_binding(draft, costs),
        needs=tuple(draft.needs),
        spread=draft.spread,
        once=draft.once,
        pipeline="throughput" in (goals or (objective.kind,)),
    )


def _apply(draft: _Draft, world: World, rule: Rule) -> None:
    match rule:
        case Pin():
            where = world.devices(rule.where)
            draft.allowed[world.blocks(rule)] &= where if rule.on else ~where
        case Avoid():
            draft.allowed &= ~world.devices(rule.where)
        case Use():
            draft.needs.append(world.devices(rule.where))
        case Spread():
            draft.spread = max(draft.spread, rule.count)
        case Once():
            draft.once = True
        case TimeCap():
            draft.caps.append(_time_cap(world, rule))
        case ByteCap():
            draft.caps.append(_byte_cap(world, rule))
        case Private():
            inside = world.inside(rule.zone)
            draft.shut &= ~(inside[:, None] & ~inside)
        case Memory():
            number = int(np.flatnonzero(world.devices(rule.device))[0])
            draft.fits.append(Fit(number, float(world.costs.devices[number].memory or 0)))
        case Links():
            draft.linked = True
        case Drop():
            draft.drop = min(draft.drop, rule.limit)
            draft.packs &= world.costs.options.drop <= rule.limit * (1 + 1e-9)
        case Packed():
            named = world.packings(rule)
            draft.packs &= (named if rule.on else ~named)[:, None]
        case Unchecked():
            pass


def _time_cap(world: World, rule: TimeCap) -> Cap:
    """Seconds there at most the limit; as a share of all: seconds there - share * all seconds at most 0.

    Sums of the same seconds differ in their last digits with their order: a billionth above the limit keeps it.
    """
    costs, where = world.costs, world.devices(rule.where).astype(np.float64)
    weight: Floats = where if rule.share is None else where - rule.share
    nothing = Measure.nothing(costs)
    longest = float(costs.start.max(axis=1).sum())
    limit = 1e-12 * longest if rule.seconds is None else rule.seconds * (1 + 1e-9)
    return Cap(replace(nothing, start=costs.start * weight, inner=costs.inner * weight, work=weight), limit)


def _byte_cap(world: World, rule: ByteCap) -> Cap:
    every = np.ones(len(world.costs.devices), np.bool_)
    source = every if rule.source == "*" else world.devices(rule.source)
    target = every if rule.target == "*" else world.devices(rule.target)
    if rule.source == "*":
        source = ~target if rule.target != "*" else every
    elif rule.target == "*":
        target = ~source
    rate = (source[:, None] & target).astype(np.float64)
    np.fill_diagonal(rate, 0.0)
    return Cap(replace(Measure.nothing(world.costs), rate=rate), rule.bytes + 0.5)


def _drop_cap(draft: _Draft, costs: Costs) -> list[Cap]:
    """The cap on what all hops lose together, where some plan exceeds it."""
    most = np.where(draft.packs, costs.options.drop, 0.0).max(axis=0).sum()
    limit = draft.drop * (1 + 1e-9)
    return [Cap(replace(Measure.nothing(costs), loss=1.0), limit)] if most > limit else []


def _binding(draft: _Draft, costs: Costs) -> tuple[Fit, ...]:
    """The memory limits that some assignment exceeds."""

    def worst(fit: Fit) -> float:
        here = draft.allowed[:, fit.device]
        return float((costs.parameters * here).sum() + (costs.peak * here).max())

    return tuple(fit for fit in draft.fits if worst(fit) > fit.limit)
