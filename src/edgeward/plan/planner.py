"""Asking for plans.

planner = Planner(profile, fleet)
planner.best(constraints=Constraints.parse("block 0 on device"), top=5)[0].describe()
planner.pareto(criteria=("latency", "bytes"))
planner.with_link("pi", "box", bandwidth=1e6).best()
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import get_args

import numpy as np

from edgeward.errors import PlanError, nearest
from edgeward.fleet.fleet import Fleet
from edgeward.plan.arrays import Way
from edgeward.plan.compiling import World, compile_problem, natural_rules
from edgeward.plan.conflicts import describe_conflict
from edgeward.plan.constraints import UNCONSTRAINED, Constraints
from edgeward.plan.costs import Costs, LinkCosts
from edgeward.plan.dynamic import k_best
from edgeward.plan.evaluate import Evaluator, Span
from edgeward.plan.labels import k_best_labels, pareto_labels
from edgeward.plan.objective import LATENCY, Kind, Objective
from edgeward.plan.plan import Plan
from edgeward.profile.packing import IDENTITY
from edgeward.profile.profile import Profile

__all__ = ["Planner", "plan"]

MAX_TOP = 1_000


def plan(
    profile: Profile,
    fleet: Fleet,
    objective: Objective = LATENCY,
    constraints: Constraints = UNCONSTRAINED,
    top: int = 5,
) -> list[Plan]:
    """The `top` best plans, see `Planner.best`."""
    return Planner(profile, fleet).best(objective, constraints, top)


class Planner:
    """Exact plans of one profile on one fleet; the arrays of costs are kept between questions."""

    def __init__(self, profile: Profile, fleet: Fleet) -> None:
        self.profile, self.fleet = profile, fleet
        self._links = LinkCosts.of(fleet)
        self._costs: dict[float, Costs] = {}

    def best(
        self, objective: Objective = LATENCY, constraints: Constraints = UNCONSTRAINED, top: int = 5
    ) -> list[Plan]:
        """The `top` plans of least cost that keep the constraints, cheapest first; fewer when there are no more.

        The links, private zones and memory of the fleet hold as well. A device may be left and used again unless
        "no revisit" is asked or the objective is throughput. Of plans with equal costs those of less latency, then
        with fewer stages, then with devices named earlier in the fleet, come first.
        Every hop is packed in the way that costs least, without losing accuracy unless the constraints allow a drop;
        of plans that differ in nothing but their packings only the best is returned.
        Raises PlanError, which names a smallest set of constraints that cannot hold together, and when a constraint
        names what is not there.
        """
        if not 1 <= top <= MAX_TOP:
            raise PlanError(f"top {top} is outside 1 to {MAX_TOP}; ask for fewer plans")
        world = self._world(objective.quantile)
        rules = (*natural_rules(world, constraints.rules, once=objective.kind == "throughput"), *constraints.rules)
        problem = compile_problem(world, objective, rules)
        found = k_best(problem, top) if problem.plain else k_best_labels(problem, top)
        if not found:
            raise PlanError(describe_conflict(world, objective, rules))
        return [one for one, _ in sorted(self._plans(found, objective), key=_rank)]

    def pareto(
        self,
        constraints: Constraints = UNCONSTRAINED,
        criteria: Sequence[Kind] = ("latency", "bytes", "energy"),
        objective: Objective = LATENCY,
    ) -> list[Plan]:
        """The plans of which none is at least as good as another in all criteria, by the first criterion.

        Of plans with equal figures one is returned; two may differ in nothing but their packings. `objective` says
        which quantile and bytes count, not what is minimised. With "throughput" among the criteria a device is used at
        most once. Raises PlanError as `best`.
        """
        for one in criteria:
            if one not in get_args(Kind):
                raise PlanError(f"criterion {one!r} is not known; {nearest(str(one), get_args(Kind))}")
        if not criteria:
            raise PlanError(f"no criterion is given; choose among {', '.join(get_args(Kind))}")
        world = self._world(objective.quantile)
        rules = (*natural_rules(world, constraints.rules, once="throughput" in criteria), *constraints.rules)
        found = pareto_labels(compile_problem(world, objective, rules, tuple(criteria)))
        if not found:
            raise PlanError(describe_conflict(world, objective, rules))
        return _front(self._plans(found, objective), criteria)

    def with_link(
        self, source: str, target: str, *, bandwidth: float | None = None, latency: float | None = None
    ) -> Planner:
        """A planner for the same fleet after one link changed (bits per second, seconds); only its costs are redone.

        A link given `between` two devices changes both ways. Raises FleetError when there is no such link.
        """
        fleet = self.fleet.with_link(source, target, bandwidth=bandwidth, latency=latency)
        link = fleet.link(source, target)
        assert link is not None
        names = [device.name for device in fleet.devices]
        ends = tuple((names.index(a), names.index(b)) for (a, b), one in fleet.ways().items() if one is link)
        changed = copy.copy(self)
        changed.fleet, changed._links = fleet, self._links.with_link(ends, link)
        changed._costs = {quantile: costs.with_links(changed._links) for quantile, costs in self._costs.items()}
        return changed

    def _world(self, quantile: float) -> World:
        if quantile not in self._costs:
            self._costs[quantile] = Costs.of(self.profile, self.fleet, quantile, self._links)
        return World(self.profile, self.fleet, self._costs[quantile])

    def _plans(self, found: Iterable[Way], objective: Objective) -> list[tuple[Plan, Way]]:
        evaluate, names = Evaluator(self.profile, self.fleet, objective), (IDENTITY, *self.profile.packings)
        plans = []
        for way in found:
            spans = self._spans(way)
            packings = [names[way.packings[boundary]] for boundary, *_ in evaluate.ends(spans)]
            plans.append((evaluate(spans, packings), way))
        return plans

    def _spans(self, way: Way) -> list[Span]:
        edges = [0, *(np.flatnonzero(np.diff(way.devices)) + 1).tolist(), len(way.devices)]
        names = [self.fleet.devices[number].name for number in way.devices[edges[:-1]]]
        return [(name, first, after - 1) for name, first, after in zip(names, edges[:-1], edges[1:], strict=True)]


def _rank(found: tuple[Plan, Way]) -> tuple[float, float, int, tuple[int, ...], tuple[int, ...]]:
    plan, way = found
    return plan.cost, plan.latency, len(plan.stages), tuple(way.devices.tolist()), tuple(way.packings.tolist())


def _front(found: list[tuple[Plan, Way]], criteria: Sequence[Kind]) -> list[Plan]:
    """The plans not dominated, with figures compared to twelve digits, since sums differ in their last ones."""
    field = {"latency": "latency", "throughput": "bottleneck", "energy": "energy", "bytes": "bytes"}
    rows = sorted(
        (tuple(float(f"{getattr(plan, field[one]):.11e}") for one in criteria), *_rank((plan, way))[1:], plan)
        for plan, way in found
    )
    front: list[tuple[tuple[float, ...], Plan]] = []
    for figures, *_, plan in rows:
        if not any(all(a <= b for a, b in zip(better, figures, strict=True)) for better, _ in front):
            front.append((figures, plan))
    return [plan for _, plan in front]
