"""Cuts and packings chosen together: against every placement with every packing of its hops, and what a user sees of it."""

from __future__ import annotations

import dataclasses
import itertools
import random
from typing import get_args

import numpy as np
import plan_brute as brute
import pytest

from edgeward.errors import PlanError
from edgeward.fleet.fleet import Device, Fleet, Link
from edgeward.plan.compiling import World, compile_problem, natural_rules
from edgeward.plan.conflicts import smallest_conflict
from edgeward.plan.constraints import Constraints, Drop, Links, Memory, Packed
from edgeward.plan.costs import Costs
from edgeward.plan.dominance import CHUNK, undominated
from edgeward.plan.dynamic import k_best
from edgeward.plan.labels import k_best_labels
from edgeward.plan.objective import Kind, Objective
from edgeward.plan.planner import Planner, plan
from edgeward.profile.packing import PackingCosts, PackingTimes
from edgeward.profile.profile import BlockCost, DeviceTimes, Profile

KINDS = get_args(Kind)


def question(seed: int, rules: bool = True):
    """A random profile with packings, a fleet, an objective and rules."""
    profile, fleet = brute.instance(seed)
    profile = brute.packed(seed, profile)
    rng = random.Random(seed + 30_000)
    objective = Objective(KINDS[seed % 4], return_result=rng.random() < 0.4, quantile=rng.choice([0.5, 0.5, 0.9]))
    others = brute.random_rules(rng, profile, fleet) if rng.random() < 0.6 else ()
    return profile, fleet, objective, (*others, *(brute.packing_rules(rng, profile) if rules else ()))


def best_of_each(found, kind):
    """Of every placement the packings that cost least, by cost and then latency."""
    rank = lambda one: (getattr(one, kind), one.latency)  # noqa: E731
    best = {}
    for one in sorted(found, key=rank):
        best.setdefault(one.assignment, one)
    return list(best.values())


@pytest.mark.parametrize("seeds", [range(start, start + 60) for start in range(0, 480, 60)], ids=str)
def test_k_best_equals_brute_force_over_placements_and_packings(seeds):
    for seed in seeds:
        profile, fleet, objective, rules = question(seed)
        top = 1 + seed % 7
        feasible = brute.feasible(profile, fleet, objective, rules)
        wanted = best_of_each(feasible, objective.kind)
        try:
            plans = plan(profile, fleet, objective, Constraints(rules), top)
        except PlanError:
            plans = []
        costs = [getattr(found, objective.kind) for found in wanted][:top]
        assert [p.cost for p in plans] == pytest.approx(costs, rel=1e-12, abs=1e-15), f"seed {seed}: {rules}"
        assert len({p.assignment for p in plans}) == len(plans)
        ways = {(found.assignment, found.packings): found for found in feasible}
        for p in plans:
            found = ways[p.assignment, p.packings]
            figures = (p.latency, p.bottleneck, p.energy, p.bytes)
            expected = (found.latency, found.throughput, found.energy, found.bytes)
            assert figures == pytest.approx(expected, rel=1e-12, abs=1e-15)
            assert p.drop == (None if found.drop is None else pytest.approx(found.drop, abs=1e-12))


def test_many_packings_of_one_placement_do_not_crowd_out_others():
    """Two devices, and hops so cheap that many packings of the best placement are better than the next placement."""
    for seed in range(40):
        rng = random.Random(seed)
        sizes = [rng.randint(1_000, 50_000) for _ in range(4)]
        names = ["one", "two", "three"]
        profile = Profile(
            model="m",
            fingerprint="f",
            input_bytes=sizes[0],
            blocks=tuple(BlockCost(name=f"b{k}", output_bytes=size) for k, size in enumerate(sizes[1:])),
            packings={
                name: PackingCosts(
                    bytes=tuple(int(size * rng.uniform(0.1, 1)) for size in sizes),
                    drop=tuple(rng.uniform(0, 0.01) for _ in sizes),
                )
                for name in names
            },
            times={
                device: DeviceTimes(
                    seconds=tuple(rng.uniform(0.01, 0.5) for _ in sizes[1:]),
                    packings={name: PackingTimes(pack=(1e-4,) * 4, unpack=(1e-4,) * 4) for name in names},
                )
                for device in ("d0", "d1")
            },
        )
        link = Link(between=("d0", "d1"), bandwidth=1e8)
        fleet = Fleet(devices=(Device(name="d0", tier="device"), Device(name="d1", tier="cloud")), links=(link,))
        objective = Objective(("latency", "energy", "bytes", "throughput")[seed % 4], return_result=seed % 3 == 0)
        rules = (Drop(rng.uniform(0.005, 0.02)),)
        wanted = best_of_each(brute.feasible(profile, fleet, objective, rules), objective.kind)
        for top in (2, 5):
            plans = plan(profile, fleet, objective, Constraints(rules), top)
            costs = [getattr(found, objective.kind) for found in wanted][:top]
            assert [p.cost for p in plans] == pytest.approx(costs, rel=1e-12, abs=1e-15), f"seed {seed}"
            assert len({p.assignment for p in plans}) == len(plans)


def test_of_equal_costs_the_lower_latency_is_returned():
    for seed in range(160):
        profile, fleet, objective, rules = question(seed)
        wanted = brute.feasible(profile, fleet, objective, rules)
        if wanted:
            best = plan(profile, fleet, objective, Constraints(rules), 1)[0]
            ties = [f.latency for f in wanted if getattr(f, objective.kind) <= best.cost * (1 + 1e-9) + 1e-12]
            assert best.latency == pytest.approx(min(ties), rel=1e-9)


@pytest.mark.parametrize("criteria", [("latency", "bytes", "energy"), ("latency", "throughput")])
def test_pareto_front_equals_brute_force(criteria):
    for seed in range(60):
        profile, fleet, objective, rules = question(seed)
        objective = dataclasses.replace(objective, kind="throughput" if "throughput" in criteria else "latency")
        digits = lambda f: tuple(float(f"{getattr(f, c):.9e}") for c in criteria)  # noqa: E731
        points = {digits(found) for found in brute.feasible(profile, fleet, objective, rules)}
        front = {
            p for p in points if not any(q != p and all(a <= b for a, b in zip(q, p, strict=True)) for q in points)
        }
        try:
            plans = Planner(profile, fleet).pareto(Constraints(rules), criteria, objective)
        except PlanError:
            plans = []
        column = {"throughput": "bottleneck"}
        got = [tuple(float(f"{getattr(p, column.get(c, c)):.9e}") for c in criteria) for p in plans]
        assert len(set(got)) == len(got)
        assert set(got) == front, f"seed {seed}"


def test_smallest_conflict_with_packings_is_a_conflict_and_none_is_smaller():
    seen, lossy = 0, 0
    for seed in range(300):
        profile, fleet, objective, rules = question(seed)
        world = World(profile, fleet, Costs.of(profile, fleet, objective.quantile))
        rules = (*natural_rules(world, rules, once=objective.kind == "throughput"), *rules)
        core = smallest_conflict(world, objective, rules)
        if core:
            seen += 1
            lossy += any(isinstance(rule, Drop | Packed) for rule in core)
            assert not satisfiable(profile, fleet, objective, core)
            for other in itertools.combinations(rules, len(core) - 1):
                assert satisfiable(profile, fleet, objective, other), f"seed {seed}: {other} conflict already"
    assert seen > 10
    assert lossy > 5


def satisfiable(profile, fleet, objective, rules) -> bool:
    """Brute force; links that are missing exist unless `Links` is among the rules."""
    complete = fleet
    if Links() not in rules:
        pairs = itertools.permutations([d.name for d in fleet.devices], 2)
        extra = [brute.Link(source=a, target=b, bandwidth=1e9) for a, b in pairs if fleet.link(a, b) is None]
        complete = fleet.model_copy(update={"links": (*fleet.links, *extra)})
    checked = [rule for rule in rules if not isinstance(rule, Links | Memory)]
    limited = {rule.device for rule in rules if isinstance(rule, Memory)}
    devices = tuple(d if d.name in limited else d.model_copy(update={"memory": None}) for d in fleet.devices)
    complete = complete.model_copy(update={"devices": devices})
    return any(
        brute.fits_memory(found, profile, complete)
        and all(brute.keeps(found, profile, complete, rule) for rule in checked)
        for found in brute.enumerate_plans(profile, complete, objective)
    )


@pytest.mark.parametrize("top", [2, 5])
def test_kinds_count_once_among_dominators(top):
    rng = np.random.default_rng(top)
    groups = np.sort(np.concatenate([rng.integers(0, 9, 200), np.arange(10), np.full(3 * CHUNK, 9)]))
    figures = rng.integers(0, 40, (len(groups), 3)).astype(np.float64)
    figures = figures[np.lexsort((*figures.T[::-1], groups))]
    kinds = rng.integers(0, 25, len(groups))
    below = np.triu((figures[:, None] <= figures[None]).all(axis=2) & (groups[:, None] == groups), 1)
    own = (below & (kinds[:, None] == kinds)).any(axis=0)
    several = np.array([len(set(kinds[column & ~own])) for column in below.T])
    assert (undominated(groups, figures, top, kinds) == (~own & (several < top))).all()
    assert (undominated(groups, figures, top, np.arange(len(groups))) == undominated(groups, figures, top)).all()


@pytest.mark.parametrize("seed", range(3))
def test_labels_and_dynamic_programming_agree_on_larger_problems_with_packings(seed):
    profile, fleet = large(seed, 60, 5)
    problem = compile_problem(World(profile, fleet, Costs.of(profile, fleet, 0.5)), Objective(), (Links(), Drop(0.0)))
    one, other = k_best(problem, 12), k_best_labels(problem, 12)
    assert [way.devices.tolist() for way in one] == [way.devices.tolist() for way in other]
    assert [way.packings.tolist() for way in one] == [way.packings.tolist() for way in other]
    assert len({tuple(way.devices.tolist()) for way in one}) == 12
    assert any(way.packings.any() for way in one)


def large(seed: int, count: int, size: int) -> tuple[Profile, Fleet]:
    rng = np.random.default_rng(seed)
    names, outputs = [f"d{number}" for number in range(size)], rng.integers(100, 100_000, count + 1)
    times = lambda: tuple(rng.uniform(1e-5, 1e-3, count + 1))  # noqa: E731
    packings = {
        name: PackingCosts(bytes=tuple(map(int, outputs * share)), drop=tuple(rng.uniform(0, 0.01, count + 1) * lossy))
        for name, share, lossy in (("zip", 0.8, 0), ("half", 0.5, 0), ("int8", 0.2, 1))
    }
    profile = Profile(
        model="m",
        fingerprint="f",
        input_bytes=int(outputs[0]),
        blocks=tuple(BlockCost(name=f"b{k}", output_bytes=int(one)) for k, one in enumerate(outputs[1:])),
        packings=packings,
        times={
            name: DeviceTimes(
                seconds=tuple(rng.uniform(1e-3, 2e-2, count)),
                packings={packing: PackingTimes(pack=times(), unpack=times()) for packing in packings},
            )
            for name in names
        },
    )
    links = tuple(
        Link(between=(a, b), bandwidth=float(rng.uniform(1e7, 1e9)), latency=0.001)
        for a, b in itertools.combinations(names, 2)
    )
    return profile, Fleet(devices=tuple(Device(name=name, tier="edge") for name in names), links=links)
