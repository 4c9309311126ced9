"""Predicted against measured: plans that really run on an emulated fleet, one process per device.

The runner is sequential and lives here: the real runtime is another room's work.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgeward.fleet.emulate import EmulatedFleet
from edgeward.fleet.fleet import Device, Fleet, Link
from edgeward.plan.constraints import Constraints
from edgeward.plan.evaluate import evaluate
from edgeward.plan.plan import Plan
from edgeward.plan.planner import Planner
from edgeward.profile.profile import Profile

FLEET = Fleet(
    name="bench-plan",
    devices=(
        Device(name="pi", tier="device", compute="25 %"),
        Device(name="edge", tier="edge", compute="50 %"),
        Device(name="cloud", tier="cloud"),
    ),
    links=(
        Link(between=("pi", "edge"), bandwidth="10 Mbit/s", latency="2 ms"),
        Link(between=("pi", "cloud"), bandwidth="10 Mbit/s", latency="10 ms"),
        Link(between=("edge", "cloud"), bandwidth="50 Mbit/s", latency="8 ms"),
    ),
)


class Hosts:
    """The workers of an emulated fleet, spoken to over their standard input and output."""

    def __init__(self, emulated: EmulatedFleet, network: str, side: int, backend: str) -> None:
        self.emulated = emulated
        names = [device.name for device in emulated.fleet.devices]
        self.ports = {name: 47100 + index for index, name in enumerate(names)}
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.workers = {
            name: emulated.popen(
                name,
                [
                    sys.executable,
                    str(Path(__file__).with_name("worker.py")),
                    network,
                    str(side),
                    backend,
                    str(self.ports[name]),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
            )
            for name in names
        }
        for name in names:
            self.reply(name)

    def order(self, name: str, **order: Any) -> None:
        stream = self.workers[name].stdin
        assert stream is not None
        stream.write(json.dumps(order) + "\n")
        stream.flush()

    def reply(self, name: str) -> dict[str, Any]:
        stream = self.workers[name].stdout
        assert stream is not None
        line = stream.readline()
        if not line:
            raise RuntimeError(f"the worker of {name} ended with code {self.workers[name].wait()}")
        return json.loads(line)

    def profile(self, repeats: int) -> Profile:
        """Every device measured in turn, inside its limits."""
        found: Profile | None = None
        for name in self.workers:
            self.order(name, do="profile", repeats=repeats)
            one = Profile.model_validate(self.reply(name))
            one = one.model_copy(update={"times": {name: one.times["here"]}})
            found = one if found is None else found.merge(one)
        assert found is not None
        return found

    def way(self, source: str, target: str) -> list[Any]:
        return [
            self.emulated.address_of(target, seen_from=source),
            self.ports[target],
            self.emulated.latency(source, target),
        ]

    def measured_links(self) -> Fleet:
        """The fleet with the bandwidth that payload really gets: a link's figure counts packet headers too."""
        fleet = self.emulated.fleet
        for link in fleet.links:
            source, target = link.ends
            self.order(source, do="deploy", first=0, last=-1, receives=False, to=self.way(source, target))
            self.order(target, do="deploy", first=0, last=-1, receives=True, to=None)
            self.reply(source), self.reply(target)
            seconds = {}
            for size in (20_000, 400_000):
                taken = []
                for _ in range(3):
                    self.order(target, do="transfer", count=size)
                    self.order(source, do="transfer", count=size)
                    start = self.reply(source)["start"]
                    taken.append(self.reply(target)["end"] - start)
                    time.sleep(0.05)
                seconds[size] = statistics.median(taken)
            rate = 8 * (400_000 - 20_000) / (seconds[400_000] - seconds[20_000])
            fleet = fleet.with_link(source, target, bandwidth=rate)
        return fleet

    def deploy(self, plan: Plan) -> None:
        first = plan.hops[0] if plan.hops and plan.stages[0].device != self.emulated.fleet.source else None
        self.path = [*([first.source] if first else []), *(stage.device for stage in plan.stages)]
        spans = {stage.device: (stage.first, stage.last) for stage in plan.stages}
        for index, name in enumerate(self.path):
            start, end = spans.get(name, (0, -1))
            to = self.way(name, self.path[index + 1]) if index + 1 < len(self.path) else None
            self.order(name, do="deploy", first=start, last=end, receives=index > 0, to=to)
        for name in self.path:
            self.reply(name)

    def run(self) -> float:
        """End-to-end seconds of one inference: from the input at the source to the result at the last stage."""
        for name in reversed(self.path):
            self.order(name, do="run")
            if name != self.path[0]:
                time.sleep(0.01)
        replies = [self.reply(name) for name in self.path]
        return replies[-1]["end"] - replies[0]["start"]

    def close(self) -> None:
        for worker in self.workers.values():
            worker.kill()
            worker.wait()


@contextmanager
def hosts(network: str, side: int, backend: str) -> Iterator[Hosts]:
    with EmulatedFleet(FLEET) as emulated:
        started = Hosts(emulated, network, side, backend)
        try:
            yield started
        finally:
            started.close()


def some_plans(profile: Profile, fleet: Fleet, count: int, seed: int) -> list[Plan]:
    """The five best, the native ones, and random ones that visit each device at most once."""
    best = Planner(profile, fleet).best(constraints=Constraints.parse("no revisit"), top=20)
    once = [plan for plan in best if fleet.source not in [stage.device for stage in plan.stages[1:]]]
    chosen = {plan.describe(): plan for plan in once[:5]}
    last = len(profile.blocks) - 1
    for device in fleet.devices:
        plan = evaluate(profile, fleet, [(device.name, 0, last)])
        chosen.setdefault(plan.describe(), plan)
    draw = random.Random(seed)
    names = [device.name for device in fleet.devices]
    while len(chosen) < count:
        order = draw.sample(names, draw.randint(2, 3))
        if fleet.source in order[1:]:
            continue  # the source would be on the way twice, once to hand the input over
        edges = sorted(draw.sample(range(last), len(order) - 1))
        spans = [
            (name, first, end)
            for name, first, end in zip(order, [0, *(edge + 1 for edge in edges)], [*edges, last], strict=True)
        ]
        plan = evaluate(profile, fleet, spans)
        chosen.setdefault(plan.describe(), plan)
    return list(chosen.values())[:count]


def predicted_and_measured(network: str, side: int, backend: str, count: int, repeats: int) -> dict[str, Any]:
    """Per plan its prediction and the median of its measured runs."""
    with hosts(network, side, backend) as started:
        profile = started.profile(repeats=10)
        fleet = started.measured_links()
        plans = some_plans(profile, fleet, count, seed=0)
        rows = []
        for plan in plans:
            started.deploy(plan)
            started.run()
            rows.append((plan, statistics.median(started.run() for _ in range(repeats))))
        return {"rows": rows, "profile": profile, "fleet": fleet, "mode": started.emulated.mode}
