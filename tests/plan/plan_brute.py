"""Every assignment of blocks to devices and every packing of its hops, with figures and rules: the oracle of the solvers."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from edgeward.fleet.fleet import TIERS, Device, Fleet, Link, Zone
from edgeward.plan.constraints import (
    Avoid,
    ByteCap,
    Drop,
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
from edgeward.plan.objective import Objective
from edgeward.profile.packing import IDENTITY, PackingCosts, PackingTimes
from edgeward.profile.profile import BlockCost, DeviceTimes, Profile


class Found(NamedTuple):
    """Figures and raw material of one assignment."""

    assignment: tuple[str, ...]
    stages: list[tuple[str, int, int]]
    hops: list[tuple[int, str, str, int]]
    busy: Counter
    latency: float
    throughput: float
    energy: float
    bytes: int
    packings: tuple[str, ...]
    drop: float | None


def instance(seed: int) -> tuple[Profile, Fleet]:
    """A random small profile and fleet: some devices unmeasured, links missing, memory short, zones, joined savings."""
    rng = random.Random(seed)
    count, size = rng.randint(1, 5), rng.randint(1, 4)
    names = [f"d{number}" for number in range(size)]
    seconds = lambda: tuple(rng.choice([0.0, rng.uniform(0.001, 0.1), 0.02]) for _ in range(count))  # noqa: E731
    times = {}
    for name in names[: size - (rng.random() < 0.1 and size > 1)]:
        middle = seconds()
        joined = (
            tuple(min(0.8 * middle[k + 1], rng.uniform(0, 0.01)) for k in range(count - 1))
            if rng.random() < 0.5
            else ()
        )
        times[name] = DeviceTimes(
            seconds=middle, low=tuple(0.8 * s for s in middle), high=tuple(1.5 * s for s in middle), joined=joined
        )
    blocks = tuple(
        BlockCost(
            name=f"b{k}",
            output_bytes=rng.choice([0, 1000, rng.randint(1, 50_000)]),
            parameter_bytes=rng.randint(0, 100),
            peak_bytes=rng.randint(0, 100),
            reveals_input=k < 2 and rng.random() < 0.5,
            layers=(2 * k, 2 * k + 1),
        )
        for k in range(count)
    )
    devices = tuple(
        Device(
            name=name,
            tier=rng.choice(TIERS),
            power=rng.choice([0.0, rng.uniform(1, 20)]),
            memory=rng.choice([None, None, None, rng.randint(100, 500)]),
            count=rng.choice([1, 1, 3]),
        )
        for name in names
    )
    links = tuple(
        Link(
            source=a,
            target=b,
            bandwidth=rng.uniform(1e6, 1e8),
            latency=rng.choice([0.0, 0.01]),
            overhead=rng.choice([0.0, 0.001]),
            energy=rng.choice([0.0, 1e-6]),
        )
        for a, b in itertools.permutations(names, 2)
        if rng.random() < 0.85
    )
    zones = (Zone(name="home", devices=(names[0],)),) if rng.random() < 0.2 else ()
    profile = Profile(model="m", fingerprint="f", input_bytes=rng.randint(0, 20_000), blocks=blocks, times=times)
    return profile, Fleet(devices=devices, links=links, zones=zones, source=rng.choice(names))


def packed(seed: int, profile: Profile) -> Profile:
    """The profile with up to three random packings: lossless, lossy, unmeasured, not fitting, or unknown to a device."""
    rng = random.Random(seed + 20_000)
    sizes = [profile.input_bytes, *(block.output_bytes for block in profile.blocks)]
    packings, times = {}, dict(profile.times)
    many = 3 if len(sizes) * len(profile.times) <= 9 else 2 if len(sizes) * len(profile.times) <= 13 else 1
    for name in ("zip", "small", "tiny")[: rng.randint(1, many)] if many > 1 else [rng.choice(["zip", "small"])]:
        fits = [rng.random() < 0.85 for _ in sizes]
        share = rng.choice([0.02, 0.25, 0.6])
        losses = [0.0] if name == "zip" else [0.0, 0.004, 0.01, None, -0.01, rng.uniform(0, 0.02)]
        packings[name] = PackingCosts(
            bytes=tuple(int(share * size) if fit else None for size, fit in zip(sizes, fits, strict=True)),
            drop=tuple(rng.choice(losses) if fit else None for fit in fits),
        )
        for device in profile.times:
            if rng.random() < 0.9:
                pack, unpack = (
                    tuple(rng.choice([0.0, rng.uniform(0, 4e-3)]) if f else None for f in fits) for _ in "ab"
                )
                measured = times[device].packings | {name: PackingTimes(pack=pack, unpack=unpack)}
                times[device] = times[device].model_copy(update={"packings": measured})
    return profile.model_copy(update={"packings": packings, "times": times})


def packing_rules(rng: random.Random, profile: Profile) -> tuple[Rule, ...]:
    names = [IDENTITY, *profile.packings]
    some = tuple(rng.sample(names, rng.randint(1, len(names))))
    accuracy = rng.choice([(), (), (Unchecked(),), (Drop(rng.choice([0.0, 0.004, 0.01, 0.02])),), (Drop(0.5),)])
    return (*accuracy, *rng.choice([(), (), (), (Packed(some),), (Packed(some, on=False),)]))


def random_rules(rng: random.Random, profile: Profile, fleet: Fleet) -> tuple[Rule, ...]:
    names = [device.name for device in fleet.devices]
    where = lambda: rng.choice([*names, *{device.tier for device in fleet.devices}])  # noqa: E731
    block = rng.randrange(len(profile.blocks))
    makers = [
        lambda: Pin("block", block, block, where(), on=rng.random() < 0.5),
        lambda: Pin("layer", 2 * block + 1, 2 * len(profile.blocks) - 1, where(), on=rng.random() < 0.3),
        lambda: Use(where()),
        lambda: Avoid(where()),
        lambda: Spread(rng.randint(1, 3)),
        Once,
        lambda: TimeCap(where(), seconds=rng.uniform(0.0, 0.2)),
        lambda: TimeCap(where(), share=rng.uniform(0.1, 1.0)),
        lambda: ByteCap(
            *rng.choice([(where(), "*"), ("*", where()), (where(), where()), ("*", "*")]), rng.randint(0, 60_000)
        ),
    ]
    rules = [rng.choice(makers)() for _ in range(rng.choice([0, 1, 1, 2, 2, 3, 4]))]
    return (*rules, *([Private("home")] if fleet.zones and rng.random() < 0.5 else []))


def enumerate_plans(profile: Profile, fleet: Fleet, objective: Objective) -> Iterator[Found]:
    """All assignments whose links exist."""

    def grow(prefix: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        if len(prefix) == len(profile.blocks):
            yield prefix
            return
        for name in profile.times:
            yield from grow((*prefix, name))

    for assignment in grow(()):
        yield from figures(profile, fleet, objective, assignment)


def figures(profile: Profile, fleet: Fleet, objective: Objective, assignment: tuple[str, ...]) -> Iterator[Found]:
    """The assignment with every packing of its hops, if their links exist."""
    stages: list[tuple[str, int, int]] = []
    for block, name in enumerate(assignment):
        first = stages.pop()[1] if stages and stages[-1][0] == name else block
        stages.append((name, first, block))
    path = [(0, fleet.source), *((first, name) for name, first, _ in stages)]
    path += [(len(assignment), fleet.source)] if objective.return_result else []
    sizes = [profile.input_bytes, *(block.output_bytes for block in profile.blocks)]
    hops = [(k, a, b, sizes[k]) for (_, a), (k, b) in itertools.pairwise(path) if a != b]
    if any(fleet.link(a, b) is None for _, a, b, _ in hops):
        return
    for packings in itertools.product([IDENTITY, *profile.packings], repeat=len(hops)):
        chosen = [packed_hop(profile, *hop, packing) for hop, packing in zip(hops, packings, strict=True)]
        if None not in chosen:
            yield found(profile, fleet, objective, assignment, stages, packings, chosen)


def packed_hop(profile: Profile, k: int, a: str, b: str, count: int, packing: str):
    """Boundary, ends, bytes, seconds to pack and to unpack, drop; None where it is not possible."""
    if packing == IDENTITY:
        return k, a, b, count, 0.0, 0.0, 0.0
    costs = profile.packings[packing]
    if costs.bytes[k] is None or any(
        x not in profile.times or packing not in profile.times[x].packings for x in (a, b)
    ):
        return None
    pack, unpack = profile.times[a].packings[packing].pack[k], profile.times[b].packings[packing].unpack[k]
    return k, a, b, costs.bytes[k], pack, unpack, costs.drop[k]


def found(profile, fleet, objective, assignment, stages, packings, chosen) -> Found:
    hops = [one[:4] for one in chosen]
    drops = [one[6] for one in chosen]
    busy: Counter = Counter()
    for name, first, last in stages:
        busy[name] += profile.times[name].segment(first, last, objective.quantile)
    for _, a, b, _, pack, unpack, _ in chosen:
        busy[a] += pack
        busy[b] += unpack
    wires: Counter = Counter()
    for _, a, b, count in hops:
        wires[a, b] += fleet.link(a, b).overhead + 8 * count / fleet.link(a, b).bandwidth
    slowest = max([busy[name] / fleet.device(name).count for name in busy] + list(wires.values()))
    return Found(
        assignment,
        stages,
        hops,
        busy,
        sum(busy.values()) + sum(fleet.link(a, b).seconds(count) for _, a, b, count in hops),
        slowest,
        sum(fleet.device(name).power * s for name, s in busy.items())
        + sum(fleet.link(a, b).energy * c for _, a, b, c in hops),
        sum(count for *_, count in hops),
        packings,
        None if None in drops else sum(max(one, 0.0) for one in drops),
    )


def keeps(found: Found, profile: Profile, fleet: Fleet, rule: Rule) -> bool:
    here = lambda name, where: where in (name, fleet.device(name).tier)  # noqa: E731
    match rule:
        case Unchecked():
            return True
        case Drop():
            return found.drop is not None and found.drop <= rule.limit + 1e-12
        case Packed():
            return all((packing in rule.names) == rule.on for packing in found.packings)
        case Pin():
            first, last = (rule.first, rule.last) if rule.unit == "block" else (rule.first // 2, rule.last // 2)
            return all(here(name, rule.where) == rule.on for name in found.assignment[first : last + 1])
        case Use():
            return any(here(name, rule.where) for name in found.assignment)
        case Avoid():
            return not any(here(name, rule.where) for name in found.assignment)
        case Spread():
            return len(set(found.assignment)) >= rule.count
        case Once():
            return len(found.stages) == len(set(found.assignment))
        case TimeCap():
            mine = sum(s for name, s in found.busy.items() if here(name, rule.where))
            limit = rule.seconds if rule.share is None else rule.share * sum(found.busy.values())
            return mine <= limit + 1e-12
        case ByteCap():
            leaves = lambda name, where, other: (  # noqa: E731
                (other == "*" or not here(name, other)) if where == "*" else here(name, where)
            )
            return (
                sum(
                    c
                    for _, a, b, c in found.hops
                    if leaves(a, rule.source, rule.target) and leaves(b, rule.target, rule.source)
                )
                <= rule.bytes
            )
        case Private():
            inside = next(zone.devices for zone in fleet.zones if zone.name == rule.zone)
            raw = [True, *(block.reveals_input for block in profile.blocks)]
            return not any(raw[k] and a in inside and b not in inside for k, a, b, _ in found.hops)
    raise AssertionError(rule)


def fits_memory(found: Found, profile: Profile, fleet: Fleet) -> bool:
    for device in fleet.devices:
        mine = [block for block, name in zip(profile.blocks, found.assignment, strict=True) if name == device.name]
        used = sum(b.parameter_bytes for b in mine) + max((b.peak_bytes for b in mine), default=0)
        if device.memory is not None and used > device.memory:
            return False
    return True


def feasible(profile: Profile, fleet: Fleet, objective: Objective, rules: tuple[Rule, ...]) -> list[Found]:
    natural = [Private(zone.name) for zone in fleet.zones] + ([Once()] if objective.kind == "throughput" else [])
    natural += [] if any(isinstance(rule, Drop | Unchecked) for rule in rules) else [Drop(0.0)]
    return [
        found
        for found in enumerate_plans(profile, fleet, objective)
        if fits_memory(found, profile, fleet) and all(keeps(found, profile, fleet, rule) for rule in (*natural, *rules))
    ]
