"""When to run another plan: links and hosts are watched, and a change must be worth it and last.

    watch = Watch(fleet, profile, plan)
    watch = watch.hop("pi", "edge", bytes=602112, seconds=1.1)
    better = watch.better(alive, objective, constraints)        # a Plan, or None to stay

A plan is left when, at what is measured now, another one is predicted to cost at least `margin` less. Estimates are
medians of the last few observations, so that one slow transfer changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from statistics import median

from edgeward.errors import EdgewardError, PlanError
from edgeward.fleet.fleet import Fleet
from edgeward.plan.constraints import UNCONSTRAINED, Avoid, Constraints
from edgeward.plan.evaluate import evaluate
from edgeward.plan.objective import Objective
from edgeward.plan.plan import Plan
from edgeward.plan.planner import Planner
from edgeward.profile.profile import DeviceTimes, Profile

__all__ = ["Adaptation", "Watch"]

_KEPT = 9
_SMALLEST = 16_384
"""Bytes below which a transfer says nothing about a link's bandwidth."""


@dataclass(frozen=True)
class Adaptation:
    """margin: share of the predicted cost that a switch must save. enough: observations before an estimate counts."""

    margin: float = 0.15
    enough: int = 3


@dataclass(frozen=True)
class Watch:
    """A fleet and profile as planned, and what was observed since.

    rates: bits per second of each way, newest last. paces: measured / predicted seconds of each device's stages.
    """

    fleet: Fleet
    profile: Profile
    options: Adaptation = field(default_factory=Adaptation)
    rates: Mapping[tuple[str, str], tuple[float, ...]] = field(default_factory=dict)
    paces: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def hop(self, source: str, target: str, *, bytes: int, seconds: float) -> Watch:  # noqa: A002 (the field's word)
        """A transfer was seen; `seconds` it occupied the link, without waiting for others."""
        link = self.fleet.link(source, target)
        if link is None or bytes < _SMALLEST:
            return self
        rate = 8 * bytes / max(seconds - link.latency - link.overhead, 1e-6)
        kept = (*self.rates.get((source, target), ()), rate)[-_KEPT:]
        return replace(self, rates={**self.rates, (source, target): kept})

    def stage(self, device: str, first: int, last: int, seconds: float) -> Watch:
        """A stage ran."""
        expected = self.profile.times[device].segment(first, last) if device in self.profile.times else 0.0
        if expected <= 0:
            return self
        kept = (*self.paces.get(device, ()), seconds / expected)[-_KEPT:]
        return replace(self, paces={**self.paces, device: kept})

    @property
    def measured(self) -> tuple[Fleet, Profile]:
        """The fleet and profile as they are now."""
        fleet = self.fleet
        for (source, target), rates in self.rates.items():
            if len(rates) >= self.options.enough:
                fleet = fleet.with_link(source, target, bandwidth=median(rates))
        times = dict(self.profile.times)
        for device, paces in self.paces.items():
            if len(paces) >= self.options.enough:
                times[device] = _scaled(times[device], median(paces))
        return fleet, self.profile.model_copy(update={"times": times})

    def best(self, alive: Collection[str], objective: Objective, constraints: Constraints = UNCONSTRAINED) -> Plan:
        """The best plan on the devices that are there. Constraints that ask for one that is not are given up.

        Raises PlanError when not even the source alone can run the network.
        """
        fleet, profile = self.measured
        gone = [Avoid(device.name) for device in fleet.devices if device.name not in alive]
        planner = Planner(profile, fleet)
        try:
            return planner.best(objective, Constraints((*constraints.rules, *gone)), top=1)[0]
        except PlanError:
            if not gone:
                raise
            return planner.best(objective, Constraints(tuple(gone)), top=1)[0]

    def better(
        self, plan: Plan, alive: Collection[str], objective: Objective, constraints: Constraints = UNCONSTRAINED
    ) -> Plan | None:
        """Another plan that is worth the switch, or None. A plan that needs a host that is gone is always left."""
        best = self.best(alive, objective, constraints)
        if {stage.device for stage in plan.stages} - set(alive):
            return best
        fleet, profile = self.measured
        try:
            spans = [(one.device, one.first, one.last) for one in plan.stages]
            current = evaluate(profile, fleet, spans, objective, plan.packings)
        except EdgewardError:
            return best
        same = best.describe() == plan.describe()
        return None if same or best.cost > (1 - self.options.margin) * current.cost else best


def _scaled(times: DeviceTimes, pace: float) -> DeviceTimes:
    fields = ("seconds", "low", "high", "joined")
    return times.model_copy(update={name: tuple(pace * one for one in getattr(times, name)) for name in fields})
