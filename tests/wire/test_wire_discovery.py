"""Nodes that announce themselves are found, with their names; others are not."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from edgeward.errors import HostError
from edgeward.fleet.fleet import Device, Fleet, Link
from edgeward.split.crew import with_addresses
from edgeward.wire.certificates import make_authority, make_certificate, tls_files
from edgeward.wire.discovery import Found, discover
from edgeward.wire.node import Node
from edgeward.wire.server import StageServer


def multicasts():
    """Whether an interface beside loopback is up (1) and passes multicast (0x1000): without one there is no scouting."""
    flags = (int(file.read_text(), 16) for file in Path("/sys/class/net").glob("*/flags"))
    return any(one & 0x1001 == 0x1001 and not one & 0x8 for one in flags)


needs_multicast = pytest.mark.skipif(not multicasts(), reason="no network interface passes multicast here")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def found_here(port, tls=None):
    return [one for one in discover(1.0, tls) if one.endpoint.endswith(f":{port}")]


@needs_multicast
def test_a_node_is_found_only_when_it_announces_itself():
    port = free_port()
    for announce in (True, False):
        node = Node(StageServer("edge"), f"tcp/127.0.0.1:{port}", announce=announce)
        try:
            found = found_here(port)
        finally:
            node.close()
        assert found == ([Found(f"tcp/127.0.0.1:{port}", "edge")] if announce else [])


@needs_multicast
def test_a_node_tells_its_name_only_to_who_has_a_certificate(tmp_path):
    port = free_port()
    make_authority(tmp_path)
    for name in ("edge", "pi"):
        make_certificate(tmp_path, name, ["127.0.0.1"])
    node = Node(StageServer("edge"), f"tcp/127.0.0.1:{port}", tls_files(tmp_path, "edge"), announce=True)
    try:
        assert [one.name for one in found_here(port, tls_files(tmp_path, "pi"))] == ["edge"]
        (stranger,) = found_here(port)
    finally:
        node.close()
    assert stranger.name == ""
    assert "certificates" in stranger.reason


def fleet(**addresses):
    devices = tuple(Device(name=name, tier="edge", address=address) for name, address in addresses.items())
    links = tuple(Link(between=("pi", name), bandwidth="1 Mbit/s") for name in addresses)
    return Fleet(devices=(Device(name="pi", tier="device"), *devices), links=links, source="pi")


def test_addresses_of_the_fleet_stay_and_absent_ones_are_filled():
    found = [Found("tcp/10.0.0.1:7447", "edge"), Found("tcp/10.0.0.2:7447", "cloud"), Found("tcp/10.0.0.3:1", "", "no")]
    full = with_addresses(fleet(edge="10.9.9.9:7447", cloud=None), found)
    assert [one.address for one in full.devices] == [None, "10.9.9.9:7447", "10.0.0.2:7447"]


def test_a_device_that_is_not_found_is_named():
    with pytest.raises(HostError, match=r"no node 'cloud' announced itself \(found: edge\).*--name cloud --announce"):
        with_addresses(fleet(edge=None, cloud=None), [Found("tcp/10.0.0.1:7447", "edge")])


def test_waiting_out_of_range_is_refused():
    with pytest.raises(HostError, match=r"0\.01 s .* from 0\.1 to 60"):
        discover(0.01)
