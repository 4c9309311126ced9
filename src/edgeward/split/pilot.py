"""Keeps a deployment on the right plan: leaves hosts that die at once, and plans that became worse when it pays.

    pilot = Pilot(deployment, plan, fleet, profile, PilotOptions(note=print))
    pilot.failed(3, "host 'edge' went away")        # request 3 runs again, on what is left
    pilot.observed(plan, steps)                     # what links and hosts really took

Two threads: one answers failures and must never wait; another makes and installs plans.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from edgeward.errors import EdgewardError
from edgeward.fleet.fleet import Fleet
from edgeward.plan.constraints import UNCONSTRAINED, Constraints
from edgeward.plan.plan import Plan, Stage
from edgeward.profile.profile import Profile
from edgeward.split.adapt import Adaptation, Watch
from edgeward.split.crew import Crew
from edgeward.split.timing import Step

__all__ = ["Pilot", "PilotOptions", "alone"]


@dataclass(frozen=True)
class PilotOptions:
    """How a deployment behaves.

    depth: requests under way at once. attempts: how often one is tried. patience: seconds after which it is tried
    again. adapt: whether to plan anew when measurements move; constraints hold then, too. standby: keep the whole
    network ready on the source, for when all else fails. probe: seconds between looks at links that are not used.
    note: told of every switch and of every host that goes or comes.
    """

    depth: int = 4
    attempts: int = 5
    patience: float = 20.0
    adapt: bool = True
    adaptation: Adaptation = field(default_factory=Adaptation)
    constraints: Constraints = UNCONSTRAINED
    standby: bool = True
    tick: float = 0.25
    consider: float = 2.0
    probe: float = 5.0
    note: Callable[[str], None] = lambda text: None


class Piloted(Protocol):
    """What a pilot steers."""

    crew: Crew

    @property
    def plan(self) -> Plan:
        """The plan that new requests take."""

    def prepare(self, plan: Plan) -> Any:
        """Install a plan; what `adopt` takes."""

    def adopt(self, way: Any) -> None:
        """Let new requests take a prepared plan."""

    def again(self, index: int) -> None:
        """Run a request again from its inputs."""

    def missing(self) -> frozenset[str]:
        """Hosts that the plan needs and cannot use."""

    def overdue(self, seconds: float) -> list[int]:
        """Requests under way for longer."""

    def give_up(self, index: int, reason: str) -> None:
        """Fail a request."""


class Pilot:
    """Steers a deployment until closed."""

    def __init__(
        self, deployment: Piloted, plan: Plan, fleet: Fleet, profile: Profile | None, options: PilotOptions
    ) -> None:
        self.deployment, self.options, self.origin = deployment, options, plan
        self.switches: list[Plan] = []
        self._source, self._fleet = fleet.source, fleet
        self._watch = Watch(fleet, profile, options.adaptation) if profile is not None else None
        self._condition = threading.Condition()
        self._failed: list[tuple[int, str]] = []
        self._arrivals: dict[tuple[str, str], float] = {}
        self._closed = False
        self._standby: Any = None
        self._work: Future[None] | None = None
        self._considered = self._probed = time.monotonic()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="pilot-plans")
        if options.standby:
            self._work = self._pool.submit(self._prepare_standby)
        deployment.crew.watch(self._presence)
        self._thread = threading.Thread(target=self._run, name="pilot", daemon=True)
        self._thread.start()

    @property
    def standby_ready(self) -> bool:
        """Whether the whole network is loaded on the source, so that a death costs no time to load it."""
        return self._standby is not None

    def failed(self, index: int, reason: str) -> None:
        """A request failed under way, for this reason; it will run again. From any thread."""
        with self._condition:
            self._failed.append((index, reason))
            self._condition.notify()

    def observed(self, plan: Plan, steps: Sequence[Step]) -> None:
        """A request was answered after these steps. From any thread."""
        if self._watch is None:
            return
        spans = {str(stage): stage for stage in plan.stages}
        with self._condition:
            for step in steps:
                if step.kind == "hop":
                    source, target = step.name.split("->")
                    arrived = step.begun + step.seconds
                    # While a link is still busy with the request before, a transfer only waits.
                    begun = max(step.begun, self._arrivals.get((source, target), step.begun))
                    self._arrivals[source, target] = arrived
                    self._watch = self._watch.hop(source, target, bytes=step.bytes, seconds=arrived - begun)
                else:
                    stage = spans[step.name]
                    self._watch = self._watch.stage(stage.device, stage.first, stage.last, step.seconds)

    def close(self) -> None:
        """Stop steering."""
        with self._condition:
            self._closed = True
            self._condition.notify()
        self._thread.join(2.0)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _presence(self, name: str, here: bool) -> None:
        self.options.note(f"host {name!r} {'is there' if here else 'went away'}")
        with self._condition:
            self._considered = 0.0
            self._condition.notify()

    def _run(self) -> None:
        while not self._closed:
            with self._condition:
                if not self._failed:
                    self._condition.wait(self.options.tick)
                failed, self._failed = self._failed, []
            if self._closed:
                return
            self._leave_the_dead()
            if failed and self.deployment.missing():  # nothing to run them on: they wait for the next plan
                with self._condition:
                    self._failed = [*failed, *self._failed]
                    self._considered = 0.0
                time.sleep(self.options.tick)
                failed = []
            for index, reason in failed:
                self.options.note(f"request {index} runs again: {reason}")
                self.deployment.again(index)
            for index in self.deployment.overdue(self.options.patience):
                self.options.note(f"request {index} runs again: no answer within {self.options.patience:g} s")
                self.deployment.again(index)
            now = time.monotonic()
            idle = self._work is None or self._work.done()
            if idle and now - self._considered >= self.options.consider:
                self._considered = now
                self._work = self._pool.submit(self._consider)

    def _leave_the_dead(self) -> None:
        """Take the standby plan at once when the present one needs a host that is gone."""
        gone = self.deployment.missing()
        if not gone:
            return
        if self._standby is None and self._work is not None and not self._work.done():
            self._work.exception()  # the standby, or a plan without the dead, is being made
        if self._standby is not None:
            self._adopt(self._standby, f"host {sorted(gone)[0]!r} is gone")

    def _prepare_standby(self) -> None:
        device = self.deployment.crew.devices[self._source]
        try:
            self._standby = self.deployment.prepare(alone(self.origin, device.name))
        except EdgewardError as error:
            self.options.note(f"{device.name!r} cannot run the whole network alone: {error}")

    def _consider(self) -> None:
        """Make the best plan for the world as it is, and go over to it when that pays."""
        crew = self.deployment.crew
        try:
            crew.revive()
            self._probe()
            better = self._better(crew.alive)
            present = self.deployment.plan
            if better is None and self.deployment.missing() and {one.device for one in present.stages} <= crew.alive:
                self.deployment.adopt(self.deployment.prepare(present))  # its hosts came back empty
            if better is not None:
                self._adopt(self.deployment.prepare(better), "it is better now")
        except EdgewardError as error:
            self.options.note(f"staying with {self.deployment.plan.describe()}: {error}")

    def _better(self, alive: frozenset[str]) -> Plan | None:
        present = self.deployment.plan
        settled = not self.options.adapt and {stage.device for stage in present.stages} <= alive
        if self._watch is None or settled:
            back = {stage.device for stage in self.origin.stages} <= alive
            return self.origin if back and present != self.origin else None
        with self._condition:
            watch = self._watch
        return watch.better(present, alive, self.origin.objective, self.options.constraints)

    def _probe(self) -> None:
        """Look at the links from the source that the present plan does not use."""
        now = time.monotonic()
        if self._watch is None or now - self._probed < self.options.probe or not self.options.adapt:
            return
        self._probed = now
        used = {(hop.source, hop.target) for hop in self.deployment.plan.hops}
        crew = self.deployment.crew
        for name in sorted(crew.remote & crew.alive):
            if (self._source, name) not in used and self._fleet.link(self._source, name) is not None:
                count, seconds = crew.probe(name)
                with self._condition:
                    self._watch = self._watch.hop(self._source, name, bytes=count, seconds=seconds)

    def _adopt(self, way: Any, why: str) -> None:
        if way.plan == self.deployment.plan:
            return
        self.deployment.adopt(way)
        self.switches.append(way.plan)
        self.options.note(f"now {way.plan.describe()}: {why}")


def alone(plan: Plan, device: str) -> Plan:
    """The same network wholly on one device; its figures are not known."""
    stage = Stage(device=device, first=0, last=plan.stages[-1].last, seconds=0.0)
    figures = {"drop": 0.0, "latency": 0.0, "bottleneck": 0.0, "energy": 0.0, "bytes": 0, "cost": 0.0}
    return plan.model_copy(update={"stages": (stage,), "hops": (), **figures})
