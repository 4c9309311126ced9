"""What an emulated fleet consists of in the kernel: a pure function of the fleet and an identity.

    layout = Layout.of(fleet, "1f0c9a")
    layout.namespaces["pi"]                  # 'ew-1f0c9a-0'
    layout.address_of("box", seen_from="pi") # '10.200.0.2'

Known before anything is created, so that it can be written down first.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Self

from edgeward.errors import FleetError
from edgeward.fleet.fleet import Device, Fleet
from edgeward.fleet.netns import End

__all__ = ["MAX_MACHINES", "Layout", "Wire"]

MAX_MACHINES = 256
_FIRST_NETWORK = int(IPv4Address("10.200.0.0"))  # seen only inside the namespaces
_MAX_WIRES = 16_384


@dataclass(frozen=True)
class Wire:
    """Two ends, and the bandwidth in bits per second of what leaves each."""

    devices: tuple[str, str]
    ends: tuple[End, End]
    bandwidths: tuple[float, float]


@dataclass(frozen=True)
class Layout:
    """Namespaces by device, wires by link, and names of control groups by device, one per replica."""

    namespaces: dict[str, str]
    wires: tuple[Wire, ...]
    groups: dict[str, tuple[str, ...]]

    @classmethod
    def of(cls, fleet: Fleet, identity: str) -> Self:
        """The layout. Raises FleetError for a fleet that one machine cannot emulate."""
        machines = sum(device.count for device in fleet.devices)
        if machines > MAX_MACHINES:
            raise FleetError(
                f"fleet {fleet.name!r} has {machines} machines; at most {MAX_MACHINES} are emulated on one"
            )
        for device in fleet.devices:
            _check(device)
        names = {device.name: f"ew-{identity}-{index}" for index, device in enumerate(fleet.devices)}
        groups = {
            device.name: tuple(f"{names[device.name]}.{replica}" for replica in range(device.count))
            for device in fleet.devices
        }
        return cls(names, _wires(fleet, names), groups)

    def address_of(self, target: str, seen_from: str) -> str:
        """The address under which `seen_from` reaches `target`. Raises FleetError when no link joins them."""
        if target == seen_from:
            return "127.0.0.1"
        end = self.end(target, toward=seen_from)
        return end.address

    def end(self, device: str, toward: str) -> End:
        """The end that `device` has of its wire to another. Raises FleetError when no link joins them."""
        for wire in self.wires:
            if set(wire.devices) == {device, toward}:
                return wire.ends[wire.devices.index(device)]
        raise FleetError(f"no link joins {toward!r} and {device!r}; add a [[link]] between them to the fleet file")


def _check(device: Device) -> None:
    if device.compute > 1:
        raise FleetError(
            f"device {device.name!r} has compute {device.compute:g}; emulated devices have at most 1, which is this"
            " machine: divide the 'compute' of all devices by the largest"
        )


def _wires(fleet: Fleet, names: dict[str, str]) -> tuple[Wire, ...]:
    ways = fleet.ways()
    pairs = list(dict.fromkeys((min(way), max(way)) for way in ways))
    if len(pairs) > _MAX_WIRES:
        raise FleetError(f"fleet {fleet.name!r} has {len(pairs)} links; at most {_MAX_WIRES} are emulated")
    wires = []
    for index, (first, second) in enumerate(pairs):
        network = _FIRST_NETWORK + 4 * index
        ends = (
            End(names[first], f"ew{index}", str(IPv4Address(network + 1))),
            End(names[second], f"ew{index}", str(IPv4Address(network + 2))),
        )
        # What a one-way link needs the other way are acknowledgements: they get the same bandwidth.
        there, back = ways.get((first, second)), ways.get((second, first))
        rates = [link.bandwidth for link in (there or back, back or there) if link is not None]
        wires.append(Wire((first, second), ends, (rates[0], rates[1])))
    return tuple(wires)
