"""Scission's published query and the optima over its published profiles, to all digits printed."""

from __future__ import annotations

import random

import plan_brute as brute
import plan_golden as golden
import pytest

from edgeward.errors import PlanError
from edgeward.plan.constraints import Constraints
from edgeward.plan.objective import LATENCY
from edgeward.plan.planner import Planner

QUESTIONS = {
    "best_unconstrained": (),
    "best_device_first": ("block 0 on device",),
    "best_device_first_split": ("block 0 on device", "split"),
    "best_three_tier": ("use device", "use edge", "use cloud"),
}


@pytest.mark.parametrize("network", golden.NETWORKS)
@pytest.mark.parametrize("model", golden.MODELS)
@pytest.mark.parametrize("question", QUESTIONS)
def test_optimum_is_the_published_one(shared_data, model, network, question):
    profile = golden.profile(shared_data, model)
    expected = golden.read(shared_data, "expected")["models"][model][network][question]
    best = Planner(profile, golden.fleet(shared_data, network)).best(
        constraints=Constraints.parse(*QUESTIONS[question])
    )[0]
    assert f"{best.latency:.4f}" == expected["seconds_4dp"]
    assert best.latency == pytest.approx(expected["seconds"], abs=1e-8)
    assert best.bytes == expected["sent_bytes"]
    assert golden.layers(best, profile) == expected["plan"]


def test_published_query_gives_its_five_rows(shared_data):
    query = golden.read(shared_data, "expected")["readme_query"]
    profile = golden.profile(shared_data, query["model"])
    constraints = Constraints.parse("use device", "layer 10 on edge", "layer 16 on cloud")
    plans = Planner(profile, golden.fleet(shared_data, query["network"])).best(constraints=constraints, top=5)
    for plan, row in zip(plans, query["rows"], strict=True):
        assert f"{plan.latency:.4f}" == row["seconds_4dp"]
        assert plan.bytes == row["sent_bytes"]
        assert golden.layers(plan, profile) == row["plan"]


@pytest.mark.parametrize("network", golden.NETWORKS)
@pytest.mark.parametrize("model", golden.MODELS)
def test_native_plans(shared_data, model, network):
    planner = Planner(golden.profile(shared_data, model), golden.fleet(shared_data, network))
    expected = golden.read(shared_data, "expected")["models"][model][network]["native_seconds"]
    last = len(planner.profile.blocks) - 1
    for device, seconds in expected.items():
        (plan,) = planner.best(constraints=Constraints.parse(f"blocks 0-{last} on {device}"), top=5)
        assert plan.latency == pytest.approx(seconds, abs=1e-8)


def every_row(profile, fleet):
    """All contiguous partitions over device, edge and cloud, as Scission enumerates them."""
    rows, last = {}, len(profile.blocks) - 1
    edges, clouds = ([d.name for d in fleet.devices if d.tier == tier] for tier in ("edge", "cloud"))
    for edge in edges:
        for cloud in clouds:
            for x in range(-1, last + 1):
                for y in range(x, last + 1):
                    assignment = ("raspi4",) * (x + 1) + (edge,) * (y - x) + (cloud,) * (last - y)
                    rows[assignment] = next(brute.figures(profile, fleet, LATENCY, assignment))
    return list(rows.values())


QUERIES = (
    lambda rng: f"layer {rng.randint(2, 25)} {rng.choice(['on', 'not on'])} {rng.choice(['device', 'edge', 'cloud'])}",
    lambda rng: f"use {rng.choice(['device', 'edge', 'cloud', '2500', '6700k(NoGPU)'])}",
    lambda rng: f"avoid {rng.choice(['device', 'edge', 'cloud', 'vm2Core', '6700k(GPU)'])}",
    lambda rng: f"{rng.choice(['device', 'edge'])}->* <= {rng.uniform(0.1, 5):.2f} MB",
    lambda rng: f"{rng.choice(['device', 'edge', 'cloud'])} <= {rng.uniform(1, 2000):.0f} ms",
    lambda rng: f"{rng.choice(['device', 'edge', 'cloud'])} <= {rng.uniform(1, 99):.0f} %",
)


@pytest.mark.parametrize("network", golden.NETWORKS)
def test_every_kind_of_query_equals_filtering_all_rows(shared_data, network):
    profile, fleet = golden.profile(shared_data, "vgg19"), golden.fleet(shared_data, network)
    rows = every_row(profile, fleet)
    assert len(rows) == golden.read(shared_data, "expected")["models"]["vgg19"]["distinct_plans"]
    planner, rng, answered = Planner(profile, fleet), random.Random(7), 0
    for _ in range(60):
        asked = Constraints.parse(*(rng.choice(QUERIES)(rng) for _ in range(rng.randint(1, 3))))
        kept = [row for row in rows if all(in_layers(row, profile, fleet, rule) for rule in asked.rules)]
        try:
            plans = planner.best(constraints=asked)
        except PlanError:
            plans = []
        assert [plan.cost for plan in plans] == pytest.approx(sorted(row.latency for row in kept)[:5]), str(asked)
        answered += bool(plans)
    assert answered > 20


def in_layers(row, profile, fleet, rule):
    """`brute.keeps`, with layers looked up in the table."""
    if getattr(rule, "unit", "") == "layer":
        (block,) = [k for k, b in enumerate(profile.blocks) if b.layers[0] <= rule.first <= b.layers[1]]
        return brute.keeps(row, profile, fleet, type(rule)("block", block, block, rule.where, rule.on))
    return brute.keeps(row, profile, fleet, rule)
