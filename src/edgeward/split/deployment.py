"""A plan on its hosts, running: requests in, results out in order, whatever happens to links and hosts.

    with Deployment(plan, network, fleet=fleet, profile=profile) as deployment:
        outputs = deployment.run(image).outputs
        for result in deployment.stream(frames):
            print(result.index, result.seconds, result.plan.describe())

Several requests are under way at once, so that every device and link works on its own one. The inputs of a request
are kept until its result is there: when a host dies, it runs again on what is left.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from edgeward.errors import EdgewardError, HostError
from edgeward.fleet.fleet import Device, Fleet
from edgeward.plan.plan import Plan
from edgeward.profile.profile import Profile
from edgeward.split.crew import Crew, CrewOptions
from edgeward.split.legs import Leg, hop_packings, legs
from edgeward.split.network import SplitNetwork, open_split
from edgeward.split.pilot import Pilot, PilotOptions
from edgeward.split.timing import Step, steps_of
from edgeward.wire.messages import Message
from edgeward.wire.packing import Packing, unpack

__all__ = ["Deployment", "Result", "Way", "fleet_of"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Result:
    """What came of a request. seconds: since it was submitted. attempts: 1 when nothing failed."""

    index: int
    outputs: tuple[Array, ...]
    seconds: float
    plan: Plan
    steps: tuple[Step, ...] = ()
    attempts: int = 1


@dataclass
class _Request:
    """A request under way; `inputs` are kept to run it again."""

    index: int
    inputs: tuple[Array, ...]
    begun: float
    future: Future[Result]
    attempts: int = 0
    way: Way | None = None
    trace: list[Any] = field(default_factory=list)
    sent: float = 0.0


@dataclass(frozen=True)
class Way:
    """A plan that is installed, as orders to its hosts."""

    plan: Plan
    legs: tuple[Leg, ...]
    packings: tuple[Packing, ...]


class Deployment:
    """Runs a plan. Without a fleet, every device but the source is a worker process of this machine.

    profile: with it, plans are made anew when links, hosts or their speed change; without it, the source runs alone
    what others cannot. Raises EdgewardError when the plan cannot be installed.
    """

    def __init__(
        self,
        plan: Plan,
        network: SplitNetwork | None = None,
        *,
        fleet: Fleet | None = None,
        profile: Profile | None = None,
        crew: CrewOptions | None = None,
        pilot: PilotOptions | None = None,
    ) -> None:
        self.network = network or open_split(plan)
        self.options = pilot or PilotOptions()
        fleet = fleet or fleet_of(plan)
        self.crew = Crew(fleet, crew or CrewOptions())
        self._lock = threading.Lock()
        self._pending: dict[int, _Request] = {}
        self._count = 0
        self._closed = False
        self._slots = threading.BoundedSemaphore(self.options.depth)
        try:
            self._way = self.prepare(plan)
            self.pilot = Pilot(self, plan, fleet, profile, self.options)
        except BaseException:
            self.crew.close()
            raise

    @property
    def plan(self) -> Plan:
        """The plan that new requests take."""
        return self._way.plan

    def run(self, *inputs: Array) -> Result:
        """Run one input. Raises EdgewardError when it fails wherever it is tried."""
        return self.submit(*inputs).result()

    def submit(self, *inputs: Array) -> Future[Result]:
        """Begin a request; waits while `depth` others are under way."""
        self._slots.acquire()
        kept = []
        for array in inputs:
            own = np.ascontiguousarray(array).view()
            own.flags.writeable = False
            kept.append(own)
        with self._lock:
            request = _Request(self._count, tuple(kept), time.monotonic(), Future())
            self._count += 1
            self._pending[request.index] = request
        request.future.add_done_callback(lambda _: self._slots.release())
        self._begin(request)
        return request.future

    def stream(self, inputs: Iterable[Sequence[Array] | Array]) -> Iterator[Result]:
        """Results in the order of the inputs, which are taken only as fast as results are."""
        under_way: deque[Future[Result]] = deque()
        for one in inputs:
            under_way.append(self.submit(*([one] if isinstance(one, np.ndarray) else one)))
            while under_way and (under_way[0].done() or len(under_way) >= self.options.depth):
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()

    def prepare(self, plan: Plan) -> Way:
        """Install a plan on its hosts, beside the present one. Raises EdgewardError when a host refuses."""
        crew, source = self.crew, self.crew.fleet.source
        names = crew.install(plan, self.network)
        packings = tuple(Packing.parse(one) for one in hop_packings(plan, source))
        return Way(plan, legs(plan, source, names, crew.remote, crew.endpoint), packings)

    def adopt(self, way: Way) -> None:
        """Let new requests take a prepared plan; those under way end under theirs."""
        with self._lock:
            self._way = way

    def switch(self, plan: Plan) -> None:
        """Run new requests under another plan from now on, and come back to it whenever that is possible."""
        way = self.prepare(plan)
        self.pilot.origin = plan
        self.adopt(way)

    def missing(self) -> frozenset[str]:
        """Hosts that the present plan needs and that are gone, or came back without their stages."""
        entries = [entry for leg in self._way.legs for entry in leg.route]
        return frozenset(one["host"] for one in entries if not self.crew.holds(one["host"], one["stage"]))

    def overdue(self, seconds: float) -> list[int]:
        """Indices of requests that have been under way for so long."""
        now = time.monotonic()
        with self._lock:
            return [index for index, one in self._pending.items() if one.sent and now - one.sent > seconds]

    def again(self, index: int) -> None:
        """Run a pending request from its inputs under the present plan."""
        with self._lock:
            request = self._pending.get(index)
        if request is not None:
            self._begin(request)

    def close(self) -> None:
        """End hosts; requests under way fail."""
        self._closed = True
        self.pilot.close()
        self.crew.close()
        for request in list(self._pending.values()):
            self._fail(request, HostError("the deployment was closed"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self, request: _Request) -> None:
        with self._lock:
            request.way, request.trace = self._way, []
            request.attempts += 1
        attempt = request.attempts
        if request.attempts > self.options.attempts:
            self._fail(request, HostError(f"request {request.index} failed {self.options.attempts} times"))
            return
        try:
            first = request.way.legs[0]
            entry = request.way.packings[0] if first.host != self.crew.fleet.source else Packing()
            parts = entry.pack(request.inputs)
        except EdgewardError as error:
            self._fail(request, error)
            return
        request.sent = time.monotonic()
        self._send(request, attempt, 0, parts)

    def _send(self, request: _Request, attempt: int, number: int, parts: Any) -> None:
        assert request.way is not None
        leg = request.way.legs[number]
        order = Message("run", {"route": list(leg.route), "request": request.index}, tuple(parts))
        try:
            future = self.crew.started(leg.host).run(order)
        except HostError as error:
            self.pilot.failed(request.index, str(error))
            return
        future.add_done_callback(lambda done: self._advance(request, attempt, number, done))

    def _advance(self, request: _Request, attempt: int, number: int, done: Future[Message]) -> None:
        """An order of this attempt was answered; answers of attempts that were given up do not count."""
        if attempt != request.attempts or request.index not in self._pending or self._closed:
            return
        error = done.exception() if not done.cancelled() else HostError("the host was closed")
        if error is not None:
            self.pilot.failed(request.index, str(error))
            return
        answer = done.result()
        if answer.kind == "error":
            self.pilot.failed(request.index, str(answer.meta.get("message")))
            return
        request.trace.extend(answer.meta.get("trace", ()))
        assert request.way is not None
        if number + 1 < len(request.way.legs):
            self._send(request, attempt, number + 1, answer.tensors)
        else:
            self._complete(request, answer)

    def _complete(self, request: _Request, answer: Message) -> None:
        assert request.way is not None
        plan, source = request.way.plan, self.crew.fleet.source
        try:
            outputs = tuple(unpack(answer.tensors))
            steps = steps_of(request.trace, plan, source, sent=request.sent, offsets=self.crew.offsets)
        except (EdgewardError, KeyError, ValueError, TypeError) as error:
            self.pilot.failed(request.index, f"an answer cannot be read: {error}")
            return
        seconds = time.monotonic() - request.begun
        with self._lock:
            if self._pending.pop(request.index, None) is None:
                return
        self.pilot.observed(plan, steps)
        request.future.set_result(Result(request.index, outputs, seconds, plan, steps, request.attempts))

    def _fail(self, request: _Request, error: Exception) -> None:
        with self._lock:
            if self._pending.pop(request.index, None) is None:
                return
        request.future.set_exception(error)

    def give_up(self, index: int, reason: str) -> None:
        """Fail a pending request."""
        with self._lock:
            request = self._pending.get(index)
        if request is not None:
            self._fail(request, HostError(reason))


def fleet_of(plan: Plan) -> Fleet:
    """The devices that a plan names, the first of them the source, for running it on this machine."""
    source = plan.hops[0].source if plan.hops else plan.stages[0].device
    names = dict.fromkeys([source, *(stage.device for stage in plan.stages)])
    devices = tuple(Device(name=name, tier="device" if name == source else "edge") for name in names)
    return Fleet(name="plan", devices=devices, source=source)
