"""The hosts of a fleet: this process for the source, nodes that have an address, worker processes for the rest.

    crew = Crew(fleet, CrewOptions())
    stage_ids = crew.install(plan, network)
    crew["edge"].run(order)
    crew.alive                                # names of hosts that take orders now

Stages are kept where they are until their host goes: to switch back to an earlier plan sends nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

from edgeward.errors import HostError, PlanError
from edgeward.fleet.fleet import Device, Fleet
from edgeward.fleet.layout import Layout
from edgeward.fleet.state import Record
from edgeward.plan.plan import Plan
from edgeward.split.network import SplitNetwork
from edgeward.wire.channel import Tls
from edgeward.wire.discovery import Found
from edgeward.wire.hosts import Host, LocalHost, WorkerHost
from edgeward.wire.messages import Message, TensorPart
from edgeward.wire.package import Package
from edgeward.wire.remote import Exchange
from edgeward.wire.server import StageServer

__all__ = ["PORT", "Crew", "CrewOptions", "emulated_endpoints", "endpoint_of", "start_here", "with_addresses"]

PORT = 7447
"""Where nodes listen when nothing else is said."""
_PINGS = 3
_PROBE_BYTES = 64 << 10


@dataclass(frozen=True)
class CrewOptions:
    """How hosts are reached.

    tls: certificates for nodes beyond loopback. endpoint: where the second device's node is reached from the first;
    by default its address in the fleet. remote: devices with a node though they have no address there. start: makes
    the host of a device that has no node; by default this process for the source, a worker process for others.
    patience: seconds to wait for a node or a deployment.
    """

    tls: Tls | None = None
    endpoint: Callable[[str, str], str] | None = None
    remote: frozenset[str] = field(default_factory=frozenset)
    start: Callable[[Device, bool], Host] | None = None
    patience: float = 30.0


def endpoint_of(device: Device) -> str:
    """Where a device's node listens, as its address says. Raises PlanError when it has none."""
    if device.address is None:
        raise PlanError(f'device {device.name!r} has no address; add address = "host:7447" to it in the fleet')
    return f"tcp/{device.address}"


def emulated_endpoints(record: Record) -> Callable[[str, str], str]:
    """Where nodes of a fleet that is emulated here are reached, each listening on `PORT` of all its addresses."""
    layout = Layout.of(record.fleet, record.identity)
    return lambda seen_from, target: f"tcp/{layout.address_of(target, seen_from)}:{PORT}"


def with_addresses(fleet: Fleet, found: Iterable[Found]) -> Fleet:
    """The fleet with the addresses of nodes that were found, for devices that have none.

    Raises HostError when a device other than the source has no address and was not found.
    """
    places = {one.name: one.endpoint.removeprefix("tcp/") for one in found if one.name}
    devices = []
    for device in fleet.devices:
        if device.address is None and device.name != fleet.source:
            if device.name not in places:
                seen = ", ".join(sorted(places)) or "none"
                raise HostError(
                    f"no node {device.name!r} announced itself (found: {seen}); start it "
                    f'there with edgeward node --name {device.name} --announce, or write its address = "host:7447" '
                    "into the fleet"
                )
            device = device.model_copy(update={"address": places[device.name]})
        devices.append(device)
    return fleet.model_copy(update={"devices": tuple(devices)})


def start_here(device: Device, source: bool) -> Host:
    """A host on this machine: this process for the source, a worker process for another device."""
    if source:
        return LocalHost(StageServer(device.name, device.memory, device.threads))
    return WorkerHost(device.name, device.memory, device.threads)


class Crew:
    """One host per device of a fleet. Raises HostError when a worker cannot be started."""

    def __init__(self, fleet: Fleet, options: CrewOptions) -> None:
        self.fleet, self.options = fleet, options
        self.devices: Mapping[str, Device] = {device.name: device for device in fleet.devices}
        self.remote = {name for name, one in self.devices.items() if one.address or name in options.remote}
        self.remote -= {fleet.source}
        self.offsets: dict[str, float] = {}
        self._held: dict[str, set[str]] = {name: set() for name in self.devices}
        self._lock = threading.Lock()
        self._closed = False
        self._exchange: Exchange | None = None
        self._hosts: dict[str, Host] = {}
        if self.remote:
            endpoints = {name: self.endpoint(fleet.source, name) for name in sorted(self.remote)}
            self._exchange = Exchange(endpoints, options.tls)
            self._exchange.watch(self._forget)

    def endpoint(self, seen_from: str, target: str) -> str:
        """Where one device reaches another's node."""
        if self.options.endpoint is not None:
            return self.options.endpoint(seen_from, target)
        return endpoint_of(self.devices[target])

    def __getitem__(self, name: str) -> Host:
        with self._lock:
            if self._closed:  # a host begun now would outlive everything
                raise HostError("the deployment was closed")
            host = self._hosts.get(name)
            if host is None or not (name in self.remote or host.alive):
                host = self._hosts[name] = self._start(self.devices[name])
                self._held[name].clear()
            return host

    def started(self, name: str) -> Host:
        """A host as it is, dead or alive; one begun anew would hold no stage. Raises HostError when there is none."""
        host = self._hosts.get(name)
        if host is None:
            raise HostError(f"host {name!r} was not started; install a plan that uses it first")
        return host

    def holds(self, name: str, stage_id: str) -> bool:
        """Whether a host is there and has a stage."""
        return stage_id in self._held[name] and self._is_alive(name)

    def _start(self, device: Device) -> Host:
        if device.name in self.remote:
            assert self._exchange is not None
            return self._exchange.host(device.name)
        start = self.options.start or start_here
        return start(device, device.name == self.fleet.source)

    @property
    def alive(self) -> frozenset[str]:
        """Devices whose host takes orders; of a worker that was not started yet it is supposed."""
        return frozenset(name for name in self.devices if self._is_alive(name))

    def _is_alive(self, name: str) -> bool:
        if name in self.remote:
            return self._exchange is not None and self._exchange.present(name)
        host = self._hosts.get(name)
        return host is None or host.alive

    def revive(self) -> None:
        """Start dead workers of this machine again, as a node's supervisor would."""
        for name, host in list(self._hosts.items()):
            if name not in self.remote and not host.alive:
                host.close()
                self[name]

    def wait_for(self, names: frozenset[str]) -> None:
        """Wait until the named hosts are there. Raises HostError that names the first that is not."""
        deadline = time.monotonic() + self.options.patience
        for name in sorted(names & self.remote):
            assert self._exchange is not None
            if not self._exchange.wait_for(name, max(deadline - time.monotonic(), 0.05)):
                obstacle = self._exchange.obstacles.get(name, "")
                raise HostError(
                    f"no node {name!r} at {self.endpoint(self.fleet.source, name)} within {self.options.patience:g} s"
                    f"{f' ({obstacle})' if obstacle else ''}; start it there: edgeward node --name {name} --listen ..."
                )

    def install(self, plan: Plan, network: SplitNetwork) -> tuple[str, ...]:
        """Have every stage of a plan where it will run; the stages' names. Raises HostError or EdgewardError."""
        self.wait_for(frozenset(stage.device for stage in plan.stages))
        names: list[str] = []
        answers: list[tuple[str, Package, Future[Message]]] = []
        for stage in plan.stages:
            package = network.package(stage.first, stage.last, self.devices[stage.device].backend)
            names.append(package.stage_id)
            host = self[stage.device]
            if package.stage_id not in self._held[stage.device]:
                answers.append((stage.device, package, host.run(package.to_message())))
        for device, package, future in answers:
            link = self.fleet.link(self.fleet.source, device)
            # Whole networks take minutes on thin links; three times the link's own figure is late.
            sending = 3 * link.seconds(len(package.payload)) if link is not None and device in self.remote else 0.0
            self._checked(device, future, sending)
            self._held[device].add(package.stage_id)
        for device in {stage.device for stage in plan.stages}:
            self.synchronise(device)
        return tuple(names)

    def synchronise(self, name: str) -> None:
        """Learn how far a node's clock is from ours, from the quickest of a few pings."""
        if name not in self.remote:
            return
        best = float("inf")
        for _ in range(_PINGS):
            start = time.monotonic()
            answer = self._checked(name, self[name].run(Message("ping")))
            taken = time.monotonic() - start
            if taken < best:
                best, self.offsets[name] = taken, float(answer.meta["now"]) - (start + taken / 2)

    def probe(self, name: str, count: int = _PROBE_BYTES) -> tuple[int, float]:
        """Bytes sent to a node, and the seconds they took one way."""
        part = TensorPart("identity", "U8", (count,), memoryview(bytes(count)))
        start = time.monotonic()
        answer = self._checked(name, self[name].run(Message("ping", {}, (part,))))
        return count, float(answer.meta["now"]) - self.offsets.get(name, 0.0) - start

    def close(self) -> None:
        """Let go of all hosts; workers end."""
        with self._lock:
            self._closed = True
        for host in self._hosts.values():
            host.close()
        if self._exchange is not None:
            self._exchange.close()

    def watch(self, handler: Callable[[str, bool], None]) -> None:
        """Be told of nodes that come and go."""
        if self._exchange is not None:
            self._exchange.watch(handler)

    def _forget(self, name: str, here: bool) -> None:
        # What was deployed is gone with the process, and a new process may have come under the same name.
        self._held.get(name, set()).clear()

    def _checked(self, name: str, future: Future[Message], more: float = 0.0) -> Message:
        patience = self.options.patience + more
        try:
            answer = future.result(patience)
        except TimeoutError as error:
            raise HostError(f"host {name!r} gave no answer within {patience:.3g} s") from error
        if answer.kind == "error":
            raise HostError(f"host {name!r}: {answer.meta.get('message')}")
        return answer
