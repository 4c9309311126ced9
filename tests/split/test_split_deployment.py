"""Plans on hosts: the network's own answers, in order, none lost and none twice, whatever dies."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import threading
import time
from concurrent.futures import Future

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from edgeward.errors import EdgewardError, HostError, PlanError
from edgeward.fleet.fleet import Device, Fleet, Link
from edgeward.graph.chain import cut
from edgeward.plan.evaluate import evaluate
from edgeward.profile.profile import DeviceTimes
from edgeward.profile.profiler import as_profile
from edgeward.split.crew import CrewOptions
from edgeward.split.deployment import Deployment
from edgeward.split.network import SplitNetwork, open_split
from edgeward.split.pilot import PilotOptions
from edgeward.wire.hosts import Host, LocalHost
from edgeward.wire.server import StageServer

NAMES = ("pi", "edge", "cloud")


def small():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(8, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 25, 7),
    ).eval()  # fmt: skip


MODEL = small()
CHAIN = cut(MODEL, torch.rand(1, 3, 10, 10))
NETWORK = SplitNetwork("small", CHAIN)
BLOCKS = len(CHAIN)
LINKS = tuple(Link(between=pair, bandwidth="50 Mbit/s") for pair in (NAMES[:2], NAMES[1:], NAMES[::2]))
FLEET = Fleet(devices=tuple(Device(name=n, tier="edge", backend="torch") for n in NAMES), links=LINKS)
PROFILE = as_profile(CHAIN, "small").model_copy(
    update={
        "times": {
            name: DeviceTimes(seconds=(seconds,) * BLOCKS)
            for name, seconds in zip(NAMES, (0.04, 0.01, 0.002), strict=True)
        }
    }
)


def image(seed):
    return np.random.default_rng(seed).random((1, 3, 10, 10), np.float32)


def expected(array):
    with torch.no_grad():
        return MODEL(torch.from_numpy(array)).numpy()


def plan_of(*stages):
    return evaluate(PROFILE, FLEET, stages)


def here(device, source):
    return LocalHost(StageServer(device.name, device.memory))


@st.composite
def placements(draw):
    edges = sorted(draw(st.sets(st.integers(1, BLOCKS - 1), max_size=3)))
    bounds = [0, *edges, BLOCKS]
    names = [draw(st.sampled_from(NAMES))]
    for _ in edges:
        names.append(draw(st.sampled_from([name for name in NAMES if name != names[-1]])))
    return [(name, first, end - 1) for name, first, end in zip(names, bounds, bounds[1:], strict=False)]


@given(placements(), st.sampled_from(["torch", "onnxruntime"]))
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_placement_gives_the_networks_own_answer(stages, backend):
    fleet = FLEET.model_copy(
        update={"devices": tuple(one.model_copy(update={"backend": backend}) for one in FLEET.devices)}
    )
    options = PilotOptions(standby=False)
    with Deployment(plan_of(*stages), NETWORK, fleet=fleet, crew=CrewOptions(start=here), pilot=options) as deployment:
        for seed in range(2):
            result = deployment.run(image(seed))
            np.testing.assert_allclose(result.outputs[0], expected(image(seed)), atol=1e-5)
        assert [step.name for step in result.steps if step.kind == "stage"] == [str(one) for one in result.plan.stages]
        assert all(step.seconds >= 0 for step in result.steps)


def test_a_stream_is_answered_in_order_with_no_more_under_way_than_asked_for():
    under_way = peak = 0
    lock = threading.Lock()

    class Counting(LocalHost):
        def run(self, order):
            nonlocal under_way, peak
            if order.kind != "run":
                return super().run(order)
            with lock:
                under_way += 1
                peak = max(peak, under_way)
            future = super().run(order)

            def leave(_):
                nonlocal under_way
                with lock:
                    under_way -= 1

            future.add_done_callback(leave)
            return future

    crew = CrewOptions(start=lambda device, source: Counting(StageServer(device.name)))
    plan = plan_of(("pi", 0, 1), ("edge", 2, BLOCKS - 1))
    with Deployment(plan, NETWORK, fleet=FLEET, crew=crew, pilot=PilotOptions(depth=3, standby=False)) as deployment:
        results = list(deployment.stream(image(seed) for seed in range(40)))
    assert [one.index for one in results] == list(range(40))
    for seed, one in enumerate(results):
        np.testing.assert_allclose(one.outputs[0], expected(image(seed)), atol=1e-5)
    assert 1 < peak <= 3


class Shaky(Host):
    """Loses orders, answers some twice as late, refuses some; is gone for a while now and then."""

    def __init__(self, name, seed, started):
        self.name, self.inner, self.random = name, LocalHost(StageServer(name)), random.Random(seed)
        self.began = time.monotonic()
        self.dies_after = 0.15 + 0.3 * self.random.random() if started < 3 else 1e9

    @property
    def alive(self):
        return time.monotonic() - self.began < self.dies_after

    def run(self, order):
        future = Future()
        chance = self.random.random()
        if not self.alive or (order.kind == "run" and chance < 0.15):
            future.set_exception(HostError(f"{self.name} died"))
            return future
        if order.kind == "run" and chance < 0.2:
            return future  # never answered: only a deadline notices
        return self.inner.run(order)

    def close(self):
        self.inner.close()


@pytest.mark.parametrize("seed", range(4))
def test_no_request_is_lost_or_answered_twice_when_hosts_fail_and_come_back(seed):
    starts = []

    def start(device, source):
        if source:
            return here(device, source)
        starts.append(device.name)
        return Shaky(device.name, seed + len(starts), len(starts))

    options = PilotOptions(depth=4, patience=0.3, tick=0.02, consider=0.1, attempts=50)
    plan = plan_of(("pi", 0, 0), ("edge", 1, 2), ("cloud", 3, BLOCKS - 1))
    crew = CrewOptions(start=start, patience=2.0)

    def inputs():
        for number in range(80):
            time.sleep(0.01)
            yield image(number)

    with Deployment(plan, NETWORK, fleet=FLEET, profile=PROFILE, crew=crew, pilot=options) as deployment:
        results = list(deployment.stream(inputs()))
    assert [one.index for one in results] == list(range(80))
    for number, one in enumerate(results):
        np.testing.assert_allclose(one.outputs[0], expected(image(number)), atol=1e-5)
    assert any(one.attempts > 1 for one in results)
    assert len(starts) > 2


def test_a_killed_worker_is_left_at_once_and_taken_back_when_it_is_there_again():
    plan = plan_of(("pi", 0, 1), ("edge", 2, BLOCKS - 1))
    notes = []
    options = PilotOptions(note=notes.append, consider=0.2, tick=0.05)
    results = []
    with Deployment(plan, NETWORK, pilot=options) as deployment:
        results.extend(deployment.run(image(number)) for number in range(10))
        os.kill(deployment.crew["edge"].process.pid, signal.SIGKILL)
        deadline = time.monotonic() + 40
        while len({one.plan.describe() for one in results[-1:]} - {plan.describe()}) or len(results) < 12:
            results.append(deployment.run(image(len(results))))
            assert time.monotonic() < deadline, notes
            if results[-1].plan.describe() == plan.describe() and len(deployment.pilot.switches) >= 2:
                break
            time.sleep(0.02)
    ways = [one.plan.describe() for one in results]
    alone = f"pi[0-{BLOCKS - 1}]"
    assert alone in ways
    assert ways[-1] == plan.describe() or deployment.pilot.switches[-1] == plan
    for number, one in enumerate(results):
        np.testing.assert_allclose(one.outputs[0], expected(image(number)), atol=1e-4)


class Changing(LocalHost):
    """A host whose stages, or the way to it, take longer from a moment on."""

    def __init__(self, name):
        super().__init__(StageServer(name))
        self.working = self.arriving = 0.0

    def run(self, order):
        if order.kind != "run":
            return super().run(order)
        if self.working:
            for number, stage in self.server._stages.items():
                self.server._stages[number] = dataclasses.replace(stage, run=self._slowed(stage.run))
            self.working = 0.0
        time.sleep(self.arriving)
        return super().run(order)

    def _slowed(self, run):
        seconds = self.working

        def later(arrays):
            time.sleep(seconds)
            return run(arrays)

        return later


@pytest.mark.parametrize("what", ["working", "arriving"])
def test_a_host_that_becomes_slow_and_a_link_that_becomes_thin_are_left_while_results_go_on(what):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 5, stride=4), nn.Flatten()).eval()
    chain = cut(model, torch.rand(1, 3, 96, 96))
    times = {name: DeviceTimes(seconds=(seconds,) * len(chain)) for name, seconds in (("pi", 0.01), ("edge", 0.002))}
    profile = as_profile(chain, "wide").model_copy(update={"times": times})
    link = Link(between=("pi", "edge"), bandwidth="1 Gbit/s")
    fleet = Fleet(devices=(Device(name="pi", tier="device"), Device(name="edge", tier="edge")), links=(link,))
    plan = evaluate(profile, fleet, [("edge", 0, len(chain) - 1)])
    hosts = {name: Changing(name) for name in ("pi", "edge")}
    crew = CrewOptions(start=lambda device, source: hosts[device.name])
    options = PilotOptions(consider=0.1, tick=0.02, depth=1)
    array = np.random.default_rng(0).random((1, 3, 96, 96), np.float32)
    with torch.no_grad():
        wanted = model(torch.from_numpy(array)).numpy()
    with Deployment(
        plan, SplitNetwork("wide", chain), fleet=fleet, profile=profile, crew=crew, pilot=options
    ) as running:
        for _ in range(5):
            running.run(array)
        assert running.plan.describe() == plan.describe()
        setattr(hosts["edge"], what, 0.15)
        deadline = time.monotonic() + 20
        while running.plan.describe() == plan.describe() and time.monotonic() < deadline:
            np.testing.assert_allclose(running.run(array).outputs[0], wanted, atol=1e-4)
        assert running.plan.describe() == f"pi[0-{len(chain) - 1}]"
        np.testing.assert_allclose(running.run(array).outputs[0], wanted, atol=1e-4)


def test_a_plan_for_another_network_is_refused(tmp_path):
    plan = plan_of(("pi", 0, BLOCKS - 1)).model_copy(update={"model": "cifar-resnet20"})
    with pytest.raises(PlanError, match="another network"):
        open_split(plan)


def test_a_host_without_enough_memory_refuses_and_says_how_much_is_needed():
    crew = CrewOptions(start=lambda device, source: LocalHost(StageServer(device.name, memory=5_000)))
    with pytest.raises(HostError, match=r"need .* but host 'pi' has"):
        Deployment(plan_of(("pi", 0, BLOCKS - 1)), NETWORK, fleet=FLEET, crew=crew)


def test_what_always_fails_ends_with_the_reason_instead_of_running_for_ever():
    plan = plan_of(("pi", 0, BLOCKS - 1))
    options = PilotOptions(attempts=3, tick=0.02, standby=False)
    with Deployment(plan, NETWORK, fleet=FLEET, crew=CrewOptions(start=here), pilot=options) as deployment:
        with pytest.raises(EdgewardError, match="failed 3 times"):
            deployment.run(np.zeros((1, 5, 10, 10), np.float32))
        assert np.isfinite(deployment.run(image(0)).outputs[0]).all()


def test_requests_fail_clearly_when_the_deployment_closes():
    class Silent(LocalHost):
        def run(self, order):
            return super().run(order) if order.kind != "run" else Future()

    crew = CrewOptions(start=lambda device, source: Silent(StageServer(device.name)))
    deployment = Deployment(plan_of(("pi", 0, BLOCKS - 1)), NETWORK, fleet=FLEET, crew=crew)
    future = deployment.submit(image(0))
    deployment.close()
    with pytest.raises(HostError, match="closed"):
        future.result(1)
