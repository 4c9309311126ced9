"""Network namespaces of the kernel, joined by wires of a set bandwidth. Linux, root, iproute2.

    add_namespace("ew-1f0c-0"); add_namespace("ew-1f0c-1")
    add_wire(End("ew-1f0c-0", "ew0", "10.200.0.1"), End("ew-1f0c-1", "ew0", "10.200.0.2"))
    shape("ew-1f0c-0", "ew0", 20e6)
    delete_namespace("ew-1f0c-0")                 # its wires go with it

Source: ip-netns(8), veth(4), tc-tbf(8).
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from edgeward.errors import FleetError

__all__ = ["End", "add_namespace", "add_wire", "delete_namespace", "shape", "shaping", "tool"]

_MTU = 1500
_FRAME = _MTU + 14  # what the shaper counts of a full packet: Ethernet's header too
_PAYLOAD = _MTU - 52  # what is left of it for the sender: less 20 bytes of IP, 32 of TCP with time stamps
_QUEUE = 4 << 20
_SLOWEST = 8_000.0
_NAMESPACES = (Path("/run/netns"), Path("/var/run/netns"))


@dataclass(frozen=True)
class End:
    """One end of a wire: the namespace it is in, the interface's name, its address in a network of two."""

    namespace: str
    interface: str
    address: str


def tool(name: str) -> str:
    """The path of `ip` or `tc`. Raises FleetError when it is not installed."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        raise FleetError(f"the command {name!r} is not installed; install iproute2 or use mode='shaper'")
    return found


def add_namespace(name: str) -> None:
    """A new namespace with its loopback up."""
    _run("ip", "netns", "add", name)
    _run("ip", "-n", name, "link", "set", "lo", "up")


def delete_namespace(name: str) -> None:
    """Remove a namespace and the wires that end in it; one that is gone already is fine."""
    if any((folder / name).exists() for folder in _NAMESPACES):
        _run("ip", "netns", "delete", name)


def add_wire(first: End, second: End) -> None:
    """Join two namespaces by a pair of interfaces that never appear outside them."""
    peer = ("peer", "name", second.interface, "netns", second.namespace)
    _run("ip", "link", "add", first.interface, "mtu", str(_MTU), "netns", first.namespace, "type", "veth", *peer)
    for end in (first, second):
        _run("ip", "-n", end.namespace, "address", "add", f"{end.address}/30", "dev", end.interface)
        _run("ip", "-n", end.namespace, "link", "set", end.interface, "mtu", str(_MTU), "up")


def shaping(bandwidth: float) -> tuple[int, int]:
    """(rate in bits per second, burst in bytes) of the token bucket for a payload `bandwidth` in bits per second.

    The rate is higher by the share of the headers in a full packet, so that the payload moves at the bandwidth.
    The burst is what passes unshaped after a pause: two packets, or a millisecond where that is more.
    """
    rate = max(bandwidth, _SLOWEST) * _FRAME / _PAYLOAD
    return round(rate), max(2 * _FRAME, round(rate / 8 / 1000))


def shape(namespace: str, interface: str, bandwidth: float) -> None:
    """Let payload leave an interface at `bandwidth` (bits per second); again to change it without losing a packet."""
    rate, burst = shaping(bandwidth)
    bucket = ("tbf", "rate", f"{rate}bit", "burst", str(burst), "limit", str(_QUEUE))
    _run("tc", "-n", namespace, "qdisc", "replace", "dev", interface, "root", "handle", "1:", *bucket)


def _run(name: str, *arguments: str) -> None:
    done = subprocess.run(  # noqa: S603  (a list of words, no shell)
        [tool(name), *arguments], capture_output=True, text=True, check=False, timeout=30
    )
    if done.returncode:
        command = " ".join((name, *arguments))
        raise FleetError(f"'{command}' failed: {done.stderr.strip()}; be root on Linux, or use mode='shaper'")
