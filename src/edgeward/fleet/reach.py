"""Whether the machines of a fleet that have an address can be reached.

unreachable(fleet, timeout=1.0)      # {'pi': 'connection refused'}
"""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

from edgeward.errors import FleetError
from edgeward.fleet.fleet import Device, Fleet

__all__ = ["host_and_port", "unreachable"]


def host_and_port(device: Device) -> tuple[str, int]:
    """The parts of an address "host:port", "[IPv6]:port". Raises FleetError for another form."""
    host, colon, port = (device.address or "").rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port[:6]) < 65_536:
        raise FleetError(
            f"device {device.name!r} has the address {device.address!r}; write it as host:port, a port from 1 to 65535"
        )
    return host, int(port)


def unreachable(fleet: Fleet, timeout: float = 1.0) -> dict[str, str]:
    """The devices with an address that do not take a TCP connection within `timeout` seconds, and why."""
    places = [(device.name, host_and_port(device)) for device in fleet.devices if device.address is not None]
    with ThreadPoolExecutor(max_workers=min(32, len(places) or 1)) as pool:
        reasons = pool.map(lambda place: _reason(place[1], timeout), places)
        return {name: reason for (name, _), reason in zip(places, reasons, strict=True) if reason}


def _reason(place: tuple[str, int], timeout: float) -> str:
    try:
        socket.create_connection(place, timeout).close()
    except TimeoutError:
        return f"no answer within {timeout:g} s"
    except (OSError, UnicodeError) as error:
        return (getattr(error, "strerror", None) or str(error)).lower()
    return ""
