"""The solvers against every assignment there is, on random instances with random rules."""

from __future__ import annotations

import dataclasses
import itertools
import random
from typing import get_args

import plan_brute as brute
import pytest

from edgeward.errors import PlanError
from edgeward.plan.compiling import World, natural_rules
from edgeward.plan.conflicts import smallest_conflict
from edgeward.plan.constraints import Constraints, Links, Memory
from edgeward.plan.costs import Costs
from edgeward.plan.evaluate import evaluate
from edgeward.plan.objective import Kind, Objective
from edgeward.plan.plan import Plan
from edgeward.plan.planner import Planner, plan

KINDS = get_args(Kind)


def question(seed: int):
    """A random profile, fleet, objective and rules."""
    profile, fleet = brute.instance(seed)
    rng = random.Random(seed + 10_000)
    objective = Objective(KINDS[seed % 4], return_result=rng.random() < 0.3, quantile=rng.choice([0.5, 0.5, 0.2, 0.9]))
    return profile, fleet, objective, brute.random_rules(rng, profile, fleet)


@pytest.mark.parametrize("seeds", [range(start, start + 50) for start in range(0, 400, 50)], ids=str)
def test_k_best_equals_brute_force(seeds):
    for seed in seeds:
        profile, fleet, objective, rules = question(seed)
        top = 1 + seed % 7
        wanted = brute.feasible(profile, fleet, objective, rules)
        try:
            plans = plan(profile, fleet, objective, Constraints(rules), top)
        except PlanError:
            plans = []
        costs = sorted(getattr(found, objective.kind) for found in wanted)[:top]
        assert [p.cost for p in plans] == pytest.approx(costs, rel=1e-12, abs=1e-15), f"seed {seed}: {rules}"
        ways = {found.assignment: found for found in wanted}
        assert len({p.assignment for p in plans}) == len(plans)
        for p in plans:
            found = ways[p.assignment]
            figures = (p.latency, p.bottleneck, p.energy, p.bytes)
            expected = (found.latency, found.throughput, found.energy, found.bytes)
            assert figures == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_of_equal_costs_the_lower_latency_is_returned():
    for seed in range(200):
        profile, fleet, objective, rules = question(seed)
        wanted = brute.feasible(profile, fleet, objective, rules)
        if not wanted:
            continue
        best = plan(profile, fleet, objective, Constraints(rules), 1)[0]
        ties = [f.latency for f in wanted if getattr(f, objective.kind) <= best.cost * (1 + 1e-9) + 1e-12]
        assert best.latency == pytest.approx(min(ties), rel=1e-9)


@pytest.mark.parametrize(
    "criteria", [("latency", "bytes", "energy"), ("latency", "throughput"), ("bytes", "throughput", "energy")]
)
def test_pareto_front_equals_brute_force(criteria):
    for seed in range(80):
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


def test_smallest_conflict_is_a_conflict_and_none_is_smaller():
    seen = 0
    for seed in range(250):
        profile, fleet, objective, rules = question(seed)
        world = World(profile, fleet, Costs.of(profile, fleet, objective.quantile))
        rules = (*natural_rules(world, once=objective.kind == "throughput"), *rules)
        core = smallest_conflict(world, objective, rules)
        if core:
            seen += 1
            assert not satisfiable(profile, fleet, objective, core)
            for other in itertools.combinations(rules, len(core) - 1):
                assert satisfiable(profile, fleet, objective, other), f"seed {seed}: {other} conflict already"
    assert seen > 10


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


def test_replanning_after_a_link_changed_equals_planning_afresh():
    for seed in range(60):
        profile, fleet, objective, _ = question(seed)
        if not fleet.links:
            continue
        source, target = random.Random(seed).choice(fleet.links).ends
        planner = Planner(profile, fleet)
        try:
            before = planner.best(objective)
            again = planner.with_link(source, target, bandwidth=3e6, latency=0.005).best(objective)
        except PlanError:
            continue
        fresh = Planner(profile, fleet.with_link(source, target, bandwidth=3e6, latency=0.005)).best(objective)
        assert again == fresh
        assert planner.best(objective) == before


def test_worse_block_times_never_make_a_better_plan():
    for seed in range(40):
        profile, fleet, objective, rules = question(seed)
        rules = tuple(rule for rule in rules if not isinstance(rule, brute.TimeCap))
        try:
            costs = [
                plan(profile, fleet, dataclasses.replace(objective, quantile=q), Constraints(rules), 1)[0].cost
                for q in (0.1, 0.3, 0.5, 0.7, 0.9)
            ]
        except PlanError:
            continue
        assert all(a <= b * (1 + 1e-12) for a, b in itertools.pairwise(costs))


def test_joined_savings_larger_than_a_block_are_clamped_alike_everywhere():
    profile, fleet = brute.instance(3)
    name = next(iter(profile.times))
    count = len(profile.blocks)
    times = brute.DeviceTimes(seconds=(0.01,) * count, joined=(0.5,) * (count - 1))
    profile = profile.model_copy(update={"times": {name: times}})
    fleet = fleet.model_copy(update={"source": name})
    (best,) = plan(profile, fleet, top=1)
    assert best.latency == pytest.approx(0.01)
    assert best == evaluate(profile, fleet, [(name, 0, count - 1)])


def test_plan_survives_json():
    for seed in range(40):
        profile, fleet, objective, _ = question(seed)
        try:
            for one in plan(profile, fleet, objective):
                assert Plan.model_validate_json(one.model_dump_json()) == one
        except PlanError:
            continue
