"""The two ways in which a fleet is emulated: by the kernel, or by signals to one's own processes.

    machinery = KernelMachinery(layout, control, fleet)
    machinery.create()
    machinery.popen(device, 0, ["python", "-m", "worker"], {})

Both are thin: what is to be created was laid out before (see `edgeward.fleet.layout`).
"""

from __future__ import annotations

import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from edgeward.errors import FleetError
from edgeward.fleet.cgroup import Control, Group
from edgeward.fleet.dutycycle import DutyCycle
from edgeward.fleet.fleet import Device, Fleet
from edgeward.fleet.layout import Layout
from edgeward.fleet.netns import add_namespace, add_wire, shape, tool

__all__ = ["KernelMachinery", "Machinery", "ShaperMachinery"]

# A shell joins the control groups and then becomes the program, so that no moment of the program runs outside them and
# the process number stays that of the program. Words are handed over as words: nothing in them is read as shell.
_JOIN = 'n=$1; shift; while [ "$n" -gt 0 ]; do echo $$ > "$1" || exit 125; shift; n=$((n-1)); done; exec "$@"'
_DATA_LIMIT = 'ulimit -d "$1" || exit 125; shift; exec "$@"'


class Machinery(ABC):
    """Creates the devices of a fleet and starts processes on them."""

    @abstractmethod
    def create(self) -> None:
        """Create all devices. Raises FleetError."""

    @abstractmethod
    def popen(
        self, device: Device, replica: int, argv: Sequence[str], options: dict[str, Any]
    ) -> subprocess.Popen[Any]:
        """Start a program on a device. Raises FleetError."""

    @abstractmethod
    def address_of(self, target: str, seen_from: str) -> str:
        """The address under which one device reaches another."""

    @abstractmethod
    def set_bandwidth(self, source: str, target: str, bandwidth: float) -> None:
        """Change what leaves `source` for `target`, in bits per second."""

    @abstractmethod
    def close(self) -> None:
        """End what runs inside this process; what is in the kernel is removed by its record."""


class KernelMachinery(Machinery):
    """A network namespace per device, a control group per replica, a shaped wire per link."""

    def __init__(self, fleet: Fleet, layout: Layout, control: Control) -> None:
        self._layout = layout
        self._ip = tool("ip")
        self.groups = {
            (device.name, replica): Group(control, name, device.compute * device.threads, device.memory)
            for device in fleet.devices
            for replica, name in enumerate(layout.groups[device.name])
        }

    def create(self) -> None:
        for namespace in self._layout.namespaces.values():
            add_namespace(namespace)
        for wire in self._layout.wires:
            add_wire(*wire.ends)
            for end, bandwidth in zip(wire.ends, wire.bandwidths, strict=True):
                shape(end.namespace, end.interface, bandwidth)
        for group in self.groups.values():
            group.create()

    def popen(
        self, device: Device, replica: int, argv: Sequence[str], options: dict[str, Any]
    ) -> subprocess.Popen[Any]:
        doors = [str(door) for door in self.groups[device.name, replica].doors]
        join = ["/bin/sh", "-c", _JOIN, "edgeward", str(len(doors)), *doors]
        enter = [self._ip, "netns", "exec", self._layout.namespaces[device.name]]
        return _start([*join, *enter], argv, options)

    def address_of(self, target: str, seen_from: str) -> str:
        return self._layout.address_of(target, seen_from)

    def set_bandwidth(self, source: str, target: str, bandwidth: float) -> None:
        end = self._layout.end(source, toward=target)
        shape(end.namespace, end.interface, bandwidth)

    def close(self) -> None:
        """Nothing of it lives in this process."""


class ShaperMachinery(Machinery):
    """Plain processes, slowed by a duty cycle; senders shape what they send (see `edgeward.fleet.shaper`)."""

    def __init__(self, fleet: Fleet, layout: Layout) -> None:
        self._layout = layout
        self._limiters = {
            (device.name, replica): DutyCycle(device.compute * device.threads)
            for device in fleet.devices
            for replica in range(device.count)
        }

    def create(self) -> None:
        """Nothing is needed before a process runs."""

    def popen(
        self, device: Device, replica: int, argv: Sequence[str], options: dict[str, Any]
    ) -> subprocess.Popen[Any]:
        limit = [] if device.memory is None else ["/bin/sh", "-c", _DATA_LIMIT, "edgeward", str(device.memory // 1024)]
        process = _start(limit, argv, options)
        if device.compute < 1 or device.threads > 1:
            self._limiters[device.name, replica].add(process.pid)
        return process

    def address_of(self, target: str, seen_from: str) -> str:
        if target != seen_from:
            self._layout.end(target, toward=seen_from)  # devices without a link stay apart
        return "127.0.0.1"

    def set_bandwidth(self, source: str, target: str, bandwidth: float) -> None:
        raise FleetError(
            f"link {source}->{target}: without the kernel the sender shapes; give it a Shaper with the new bandwidth"
        )

    def close(self) -> None:
        for limiter in self._limiters.values():
            limiter.close()


def _start(prefix: list[str], argv: Sequence[str], options: dict[str, Any]) -> subprocess.Popen[Any]:
    if isinstance(argv, str) or not argv:
        raise FleetError(f"cannot run {argv!r}; give the program and its arguments as a list of words")
    refused = sorted({"shell", "executable"} & options.keys())
    if refused:
        raise FleetError(
            f"popen does not take {refused[0]!r}; name the program in argv, such as ['/bin/sh', '-c', ...]"
        )
    path = (options.get("env") or {}).get("PATH")
    if shutil.which(argv[0], path=path) is None and not options.get("cwd"):
        raise FleetError(f"there is no program {argv[0]!r}; check its name and PATH")
    try:
        return subprocess.Popen([*prefix, *argv], **options)  # noqa: S603  (a list of words, no shell)
    except OSError as error:
        raise FleetError(f"cannot run {argv[0]!r}: {error.strerror}") from error
