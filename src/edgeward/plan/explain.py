"""Why a plan is the best one, and what would make another one better.

    why = explain(planner, plan, constraints)
    why.dominating                  # Term(name='pi->box', seconds=0.312, share=0.71)
    [flip for flip in why.flips if flip.plan]
    print(why)

Every answer comes from asking the planner again about a fleet or a profile that differs in one thing.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeward.errors import PlanError
from edgeward.plan.constraints import UNCONSTRAINED, Constraints, Drop, Pin, Unchecked
from edgeward.plan.plan import Hop, Plan
from edgeward.plan.planner import Planner
from edgeward.profile.profile import DeviceTimes

__all__ = ["Explanation", "Flip", "Native", "Term", "explain"]

LINK_FACTORS = (2.0, 10.0)
DEVICE_FACTOR = 2.0


@dataclass(frozen=True)
class Term:
    """A stage or hop of a plan, its seconds, and their share of the latency."""

    name: str
    seconds: float
    share: float


@dataclass(frozen=True)
class Native:
    """Everything on one device: the plan, or why there is none."""

    device: str
    plan: Plan | None
    reason: str = ""


@dataclass(frozen=True)
class Flip:
    """What wins when a link ("a->b") has more bandwidth or a device is faster: nothing new when `plan` is None.

    factor: the first tried at which another plan wins, else the last tried.
    """

    kind: str
    name: str
    factor: float
    plan: Plan | None


@dataclass(frozen=True)
class Explanation:
    """Seconds of computing and of transfer, the largest term, baselines, and what would change the plan.

    Transfer includes packing. unconstrained: the best plan that keeps only what the fleet imposes and the rules on
    accuracy. price: how much more the plan costs, in units of its objective.
    """

    plan: Plan
    compute_seconds: float
    transfer_seconds: float
    dominating: Term
    hops: tuple[Hop, ...]
    natives: tuple[Native, ...]
    unconstrained: Plan
    price: float
    flips: tuple[Flip, ...]

    def __str__(self) -> str:
        term = self.dominating
        lines = [
            f"{self.plan}; computing {self.compute_seconds:.4f} s, transfer {self.transfer_seconds:.4f} s",
            f"largest: {term.name} {term.seconds:.4f} s ({term.share:.0%})",
            *(f"hop {hop}: {hop.bytes} bytes, {hop.latency:.4f} s" for hop in self.hops),
            *(f"all on {one.device}: {one.plan.latency:.4f} s" if one.plan else one.reason for one in self.natives),
            f"without constraints: {self.unconstrained.describe()}; the constraints cost {self.price:.4g}",
            *(f"{one.kind} {one.name} {one.factor:g}x: {one.plan}" for one in self.flips if one.plan),
        ]
        return "\n".join(lines)


def explain(planner: Planner, plan: Plan, constraints: Constraints = UNCONSTRAINED) -> Explanation:
    """Explain a plan that the planner gave under these constraints.

    Asks the planner again up to twice per link and twice per device: seconds on large fleets. Raises PlanError when
    the plan is of another network.
    """
    if plan.fingerprint != planner.profile.fingerprint:
        raise PlanError(
            f"the plan is of {plan.model!r} ({plan.fingerprint[:12]}), the profile of {planner.profile.model!r} "
            f"({planner.profile.fingerprint[:12]}); explain a plan with the planner that made it"
        )
    accuracy = Constraints(tuple(rule for rule in constraints.rules if isinstance(rule, Drop | Unchecked)))
    free = planner.best(plan.objective, accuracy, top=1)[0]
    return Explanation(
        plan=plan,
        compute_seconds=sum(stage.seconds for stage in plan.stages),
        transfer_seconds=sum(hop.latency for hop in plan.hops),
        dominating=_dominating(plan),
        hops=plan.hops,
        natives=_natives(planner, plan, constraints),
        unconstrained=free,
        price=plan.cost - free.cost,
        flips=(*_link_flips(planner, plan, constraints), *_device_flips(planner, plan, constraints)),
    )


def _dominating(plan: Plan) -> Term:
    terms = [(str(stage), stage.seconds) for stage in plan.stages]
    terms += [(str(hop), hop.latency) for hop in plan.hops]
    name, seconds = max(terms, key=lambda term: term[1])
    return Term(name, seconds, seconds / plan.latency if plan.latency else 0.0)


def _natives(planner: Planner, plan: Plan, constraints: Constraints) -> tuple[Native, ...]:
    """Each device alone, under the same constraints."""
    found, last = [], len(planner.profile.blocks) - 1
    for device in planner.fleet.devices:
        alone = Constraints((*constraints.rules, Pin("block", 0, last, device.name)))
        try:
            found.append(Native(device.name, planner.best(plan.objective, alone, top=1)[0]))
        except PlanError as error:
            found.append(Native(device.name, None, str(error)))
    return tuple(found)


def _winner(planner: Planner, plan: Plan, constraints: Constraints) -> Plan | None:
    """The planner's best when it places or packs otherwise; a share cap can become impossible to keep."""
    try:
        best = planner.best(plan.objective, constraints, top=1)[0]
    except PlanError:
        return None
    return best if (best.assignment, best.packings) != (plan.assignment, plan.packings) else None


def _link_flips(planner: Planner, plan: Plan, constraints: Constraints) -> list[Flip]:
    """Every link with more bandwidth; a link of both ways is one."""
    flips = []
    for link in planner.fleet.links:
        source, target = link.ends
        name = f"{source}<->{target}" if link.between else f"{source}->{target}"
        for factor in LINK_FACTORS:
            other = planner.with_link(source, target, bandwidth=factor * link.bandwidth)
            if winner := _winner(other, plan, constraints):
                break
        flips.append(Flip("link", name, factor, winner))
    return flips


def _device_flips(planner: Planner, plan: Plan, constraints: Constraints) -> list[Flip]:
    """Every device that was profiled, twice as fast."""
    flips = []
    for name, times in planner.profile.times.items():
        if any(device.name == name for device in planner.fleet.devices):
            faster = planner.profile.times | {name: _faster(times, DEVICE_FACTOR)}
            other = Planner(planner.profile.model_copy(update={"times": faster}), planner.fleet)
            flips.append(Flip("device", name, DEVICE_FACTOR, _winner(other, plan, constraints)))
    return flips


def _faster(times: DeviceTimes, factor: float) -> DeviceTimes:
    scaled = {name: tuple(s / factor for s in getattr(times, name)) for name in ("seconds", "low", "high", "joined")}
    packings = {name: one.faster(factor) for name, one in times.packings.items()}
    return times.model_copy(update={**scaled, "packings": packings})
