"""What emulation consists of, decided without touching the kernel: layout, shaping, groups, records."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from edgeward.errors import FleetError
from edgeward.fleet import state
from edgeward.fleet.cgroup import Control, Group, find_control, quota
from edgeward.fleet.fleet import Device, Fleet, Link
from edgeward.fleet.layout import Layout
from edgeward.fleet.netns import shaping
from edgeward.fleet.state import Process, Record, boot_id, forget, read_all, write, write_new

FLEET = Fleet(
    devices=tuple(Device(name=name, tier="edge", count=1 + (name == "b")) for name in "abc"),
    links=(Link(between=("a", "b"), bandwidth=1e7), Link(source="c", target="b", bandwidth=2e6)),
)


def record(**changes):
    values = {"identity": "abc123", "mode": "shaper", "owner": None, "boot": boot_id(), "fleet": FLEET}
    return Record(**values | changes)


def test_a_layout_gives_each_link_its_own_network():
    layout = Layout.of(FLEET, "abc123")
    assert list(layout.namespaces.values()) == ["ew-abc123-0", "ew-abc123-1", "ew-abc123-2"]
    addresses = [end.address for wire in layout.wires for end in wire.ends]
    assert len(set(addresses)) == 4
    assert layout.address_of("b", "a") != layout.address_of("b", "c")
    assert layout.address_of("a", "a") == "127.0.0.1"
    assert len(layout.groups["b"]) == 2
    with pytest.raises(FleetError, match=r"no link joins 'a' and 'c'; add a \[\[link\]\]"):
        layout.address_of("c", "a")


def test_opposite_links_keep_their_own_bandwidths():
    links = (Link(source="a", target="b", bandwidth=1e6), Link(source="b", target="a", bandwidth=5e6))
    (wire,) = Layout.of(FLEET.model_copy(update={"links": links}), "abc123").wires
    assert dict(zip(wire.devices, wire.bandwidths, strict=True)) == {"a": 1e6, "b": 5e6}


@pytest.mark.parametrize(
    ("device", "says"),
    [
        (Device(name="a", tier="edge", compute=4), "at most 1"),
        (Device(name="a", tier="edge", count=999), "at most 256"),
    ],
)
def test_what_one_machine_cannot_emulate(device, says):
    with pytest.raises(FleetError, match=says):
        Layout.of(Fleet(devices=(device,)), "abc123")


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.25, 0.3, 0.5, 0.9, 1.0, 4.0])
def test_quotas_are_the_share_within_the_kernels_limits(share):
    budget, period = quota(share)
    assert budget / period == pytest.approx(share, rel=1e-3)
    assert budget >= 1000
    assert 1000 <= period <= 1_000_000


def test_shares_that_the_kernel_cannot_keep():
    with pytest.raises(FleetError, match=r"below 0\.001"):
        quota(0.0005)


@pytest.mark.parametrize("bandwidth", [1e6, 1e7, 1e8, 1e9])
def test_bursts_are_small_beside_a_transfer(bandwidth):
    rate, burst = shaping(bandwidth)
    assert 1 < rate / bandwidth < 1.05
    assert burst >= 2 * 1514
    assert burst <= max(2 * 1514, 0.0011 * rate / 8)


def test_version_2_of_control_groups(tmp_path):
    root = tmp_path / "cgroup"
    root.mkdir()
    (root / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    (tmp_path / "mounts").write_text(f"tmpfs /run tmpfs rw 0 0\ncgroup2 {root} cgroup2 rw,nosuid 0 0\n")
    control = find_control(tmp_path / "mounts")
    assert control == Control(2, root, root)
    group = Group(control, "ew-abc123-0.0", 0.25, 64 << 20)
    group.create()
    assert (root / "cgroup.subtree_control").read_text() == "+cpu +memory"
    assert (group.folders[0] / "cpu.max").read_text() == "1000 4000"
    assert (group.folders[0] / "memory.max").read_text() == str(64 << 20)
    assert group.doors == (root / "ew-abc123-0.0" / "cgroup.procs",)


def test_machines_without_control_groups(tmp_path):
    (tmp_path / "mounts").write_text("cgroup2 /nowhere cgroup2 rw 0 0\ntmpfs /run tmpfs rw 0 0\n")
    assert find_control(tmp_path / "mounts") is None
    assert find_control(tmp_path / "absent") is None
    with pytest.raises(FleetError, match="use mode='shaper'"):
        Group(Control(1, tmp_path / "no", tmp_path / "no"), "ew-1-0.0", 1.0, None).create()


def test_records_are_kept_replaced_and_forgotten(tmp_path):
    one = record()
    write_new(tmp_path / "deep", one)
    assert read_all(tmp_path / "deep") == [one]
    with pytest.raises(FleetError, match="is up already; run 'edgeward fleet down'"):
        write_new(tmp_path / "deep", one)
    changed = one.model_copy(update={"namespaces": ("ew-abc123-0",)})
    write(tmp_path / "deep", changed)
    assert read_all(tmp_path / "deep") == [changed]
    forget(tmp_path / "deep", changed)
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_record_is_abandoned_when_its_owner_ended_or_the_machine_restarted():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owned = record(owner=Process.of(child.pid))
    assert not owned.abandoned
    child.communicate()
    assert owned.abandoned
    reused = Process(pid=os.getpid(), start=Process.current().start + 1)
    assert record(owner=reused).abandoned
    assert not record().abandoned
    assert record(boot="before").abandoned


@pytest.mark.parametrize("change", [{"groups": ("/sys/fs/cgroup/cpu/system",)}, {"namespaces": ("mine",)}])
def test_a_record_never_names_what_is_not_a_fleets(change):
    with pytest.raises(ValueError, match=r"not a control group of a fleet|should match"):
        record(**change)


def test_damaged_records_are_named(tmp_path, monkeypatch):
    (tmp_path / "ew-1.json").write_text("{")
    with pytest.raises(FleetError, match=r"ew-1.json: not a record.*remove the file"):
        read_all(tmp_path)
    monkeypatch.setattr(state, "_MAX_BYTES", 0)
    with pytest.raises(FleetError, match="more than 0 bytes"):
        read_all(tmp_path)
    with pytest.raises(FleetError, match="choose another state_dir"):
        write(tmp_path / "ew-1.json", record())
