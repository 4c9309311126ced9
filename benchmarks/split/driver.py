"""The device of the emulated fleet that orders: deploys plans on the fleet's nodes and times them.

Orders come on standard input, one JSON a line; answers go to standard output.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from edgeward.fleet.fleet import Fleet
from edgeward.plan.plan import Plan
from edgeward.profile.profile import Profile
from edgeward.split.crew import CrewOptions
from edgeward.split.deployment import Deployment
from edgeward.split.network import open_split
from edgeward.split.pilot import PilotOptions
from edgeward.wire.certificates import tls_files
from edgeward.wire.pages import keep_freed_memory


class Driver:
    def __init__(self, settings: dict[str, Any]) -> None:
        self.fleet = Fleet.model_validate(settings["fleet"])
        self.profile = Profile.model_validate_json(Path(settings["profile"]).read_text())
        self.addresses = settings["addresses"]
        self.certs = Path(settings["certs"])
        plan = Plan.model_validate(settings["plan"])
        self.network = open_split(plan, shape=settings["shape"])
        size = tuple(self.network.chain.example_inputs[0].shape)
        self.image = np.load(settings["image"]).astype(np.float32).reshape(size)
        self.deployment: Deployment | None = None

    def crew(self) -> CrewOptions:
        return CrewOptions(
            tls_files(self.certs, self.fleet.source),
            lambda a, b: self.addresses[f"{a}->{b}"],
            frozenset(one.name for one in self.fleet.devices) - {self.fleet.source},
        )

    def open(self, plan: dict[str, Any], adapt: bool = False) -> dict[str, Any]:
        if self.deployment is not None:
            self.deployment.close()
        self.notes: list[str] = []
        options = PilotOptions(adapt=adapt, standby=adapt, note=self.notes.append, probe=1e9, depth=12)
        self.deployment = Deployment(
            Plan.model_validate(plan), self.network, fleet=self.fleet, profile=self.profile if adapt else None,
            crew=self.crew(), pilot=options,
        )  # fmt: skip
        return {}

    def links(self) -> dict[str, Any]:
        """Seconds of two sizes of probe to every node."""
        assert self.deployment is not None
        crew, found = self.deployment.crew, {}
        for name in sorted(crew.remote):
            crew.synchronise(name)
            found[name] = {
                count: float(np.median([crew.probe(name, count)[1] for _ in range(5)])) for count in (16_384, 262_144)
            }
        return found

    def prepare(self, plan: dict[str, Any]) -> dict[str, Any]:
        assert self.deployment is not None
        self.deployment.prepare(Plan.model_validate(plan))
        return {}

    def run(self, plan: dict[str, Any], times: int) -> dict[str, Any]:
        """Latencies of requests one after another under a plan."""
        assert self.deployment is not None
        self.deployment.switch(Plan.model_validate(plan))
        taken, steps = [], []
        for _ in range(times):
            result = self.deployment.run(self.image)
            os.getppid()
            taken.append(result.seconds)
            steps = [[step.name, step.seconds, step.pack, step.unpack] for step in result.steps]
            time.sleep(0.02)
        return {"seconds": taken, "steps": steps}

    def stream(self, plan: dict[str, Any], count: int) -> dict[str, Any]:
        """Seconds between the results of a stream, after the first few."""
        assert self.deployment is not None
        self.deployment.switch(Plan.model_validate(plan))
        moments = []
        busy: dict[str, list[float]] = {}
        for result in self.deployment.stream(self.image for _ in range(count)):
            moments.append(time.monotonic())
            unpacking = 0.0
            for step in result.steps:
                if step.kind == "stage":
                    busy.setdefault(step.name, []).append(unpacking + step.seconds)
                else:  # the sender packs after its stage
                    list(busy.values())[-1][-1] += step.pack
                unpacking = step.unpack
        return {"moments": moments[3:], "busy": {name: float(np.median(taken)) for name, taken in busy.items()}}

    def kill(self, pid: int, before: int, after: int) -> dict[str, Any]:
        """Results while the process of a node is killed after some of them."""
        assert self.deployment is not None
        deadline = time.monotonic() + 120
        while not self.deployment.pilot.standby_ready and time.monotonic() < deadline:
            time.sleep(0.1)
        moments: list[float] = []
        indices: list[int] = []
        struck: list[float] = []

        def inputs() -> Any:
            for number in range(before + after):
                if number == before:
                    threading.Timer(0.05, self._strike, (pid, struck)).start()
                time.sleep(0.05)
                yield self.image

        for result in self.deployment.stream(inputs()):
            moments.append(time.monotonic())
            indices.append(result.index)
        start = struck[0]
        later = [moment for moment in moments if moment > start]
        time.sleep(0.1)
        return {
            "gap": max(b - a for a, b in zip([start, *later], later)),  # noqa: B905
            "lost": before + after - len(set(indices)),
            "twice": len(indices) - len(set(indices)),
            "ordered": indices == sorted(indices),
            "notes": self.notes,
        }

    def _strike(self, pid: int, struck: list[float]) -> None:
        struck.append(time.monotonic())
        os.kill(pid, signal.SIGKILL)


def main() -> None:
    keep_freed_memory()
    driver = Driver(json.loads(sys.stdin.readline()))
    print("{}", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(getattr(driver, order.pop("do"))(**order)), flush=True)


if __name__ == "__main__":
    main()
