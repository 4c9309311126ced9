"""When to run another plan: a pure decision on what was measured."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeward.fleet.fleet import Device, Fleet, Link
from edgeward.graph.blockcost import BlockCost
from edgeward.plan.objective import Objective
from edgeward.plan.planner import Planner
from edgeward.profile.profile import DeviceTimes, Profile
from edgeward.split.adapt import Adaptation, Watch

EVERYBODY = ("pi", "edge")
OBJECTIVE = Objective()
BLOCKS = tuple(
    BlockCost(name=f"b{n}", parameters=0, parameter_bytes=0, macs=0, output_bytes=size, saved_bytes=0, peak_bytes=0)
    for n, size in enumerate((400_000, 100_000, 20_000, 400))
)
PROFILE = Profile(
    model="m",
    fingerprint="f",
    input_bytes=200_000,
    blocks=BLOCKS,
    times={"pi": DeviceTimes(seconds=(0.05,) * 4), "edge": DeviceTimes(seconds=(0.005,) * 4)},
)


def fleet(bandwidth):
    devices = (Device(name="pi", tier="device"), Device(name="edge", tier="edge"))
    return Fleet(devices=devices, links=(Link(between=EVERYBODY, bandwidth=bandwidth, latency=0.002),))


def watched(bandwidth, rates=(), paces=()):
    watch = Watch(fleet(bandwidth), PROFILE)
    for rate in rates:
        watch = watch.hop("pi", "edge", bytes=200_000, seconds=0.002 + 8 * 200_000 / rate)
    for pace in paces:
        watch = watch.stage("edge", 0, 3, 0.02 * pace)
    return watch


def best(bandwidth):
    return Planner(PROFILE, fleet(bandwidth)).best(OBJECTIVE, top=1)[0]


def test_nothing_changes_while_what_is_measured_is_what_was_planned_with():
    watch = watched(100e6, rates=[100e6] * 5, paces=[1.0] * 5)
    assert watch.better(best(100e6), EVERYBODY, OBJECTIVE) is None


def test_a_thin_link_is_left_for_the_plan_that_is_best_on_it():
    plan = best(100e6)
    assert plan.describe() == "edge[0-3]"
    better = watched(100e6, rates=[1e6] * 3).better(plan, EVERYBODY, OBJECTIVE)
    assert better.describe() == best(1e6).describe() != plan.describe()
    assert better.latency == pytest.approx(best(1e6).latency, rel=1e-3)


@pytest.mark.parametrize("rates", [[1e6], [1e6, 1e6], [100e6, 100e6, 100e6, 1e6, 1e6]])
def test_one_slow_transfer_changes_nothing(rates):
    assert watched(100e6, rates).better(best(100e6), EVERYBODY, OBJECTIVE) is None


def test_a_slow_host_is_left():
    better = watched(100e6, paces=[40.0] * 3).better(best(100e6), EVERYBODY, OBJECTIVE)
    assert "pi" in {stage.device for stage in better.stages}


def test_a_host_that_is_gone_is_always_left_and_never_chosen():
    assert watched(100e6).better(best(100e6), ("pi",), OBJECTIVE).describe() == "pi[0-3]"
    assert watched(100e6).better(best(0.1e6), ("pi",), OBJECTIVE) is None


@given(st.lists(st.floats(0.2e6, 200e6), min_size=3, max_size=9), st.floats(0.2e6, 200e6))
def test_a_switch_always_saves_at_least_the_margin_and_is_not_undone_at_once(rates, planned):
    watch = watched(planned, rates)
    plan = best(planned)
    better = watch.better(plan, EVERYBODY, OBJECTIVE)
    if better is not None:
        now, _ = watch.measured
        spans = [(one.device, one.first, one.last) for one in plan.stages]
        from edgeward.plan.evaluate import evaluate

        assert better.cost <= (1 - Adaptation().margin) * evaluate(PROFILE, now, spans).cost + 1e-12
        assert watch.better(better, EVERYBODY, OBJECTIVE) is None


def test_tiny_messages_and_unknown_ways_tell_nothing():
    watch = watched(100e6)
    for _ in range(5):
        watch = watch.hop("pi", "edge", bytes=400, seconds=1.0).hop("edge", "moon", bytes=10**6, seconds=9.0)
    assert watch == watched(100e6)
