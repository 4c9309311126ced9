"""Emulation without the kernel's help: the same calls, for a user who is not root."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from edgeward.errors import FleetError
from edgeward.fleet.build import sweep
from edgeward.fleet.dutycycle import cpu_seconds, family
from edgeward.fleet.emulate import EmulatedFleet
from edgeward.fleet.fleet import Device, Fleet, Link
from edgeward.fleet.standing import attach, bring_up, take_down

FLEET = Fleet(
    devices=(
        Device(name="pi", tier="device", compute="25 %"),
        Device(name="small", tier="edge", memory="48 MiB"),
        Device(name="box", tier="cloud"),
    ),
    links=(Link(between=("pi", "box"), bandwidth="10 Mbit/s"),),
)
BUSY = """
import time
begin = time.monotonic()
while time.process_time() < 0.4: pass
print(time.process_time() / (time.monotonic() - begin))
"""


@pytest.fixture
def emulated(tmp_path):
    with EmulatedFleet(FLEET, tmp_path, mode="shaper") as fleet:
        yield fleet
    assert list(tmp_path.iterdir()) == []


def said(emulated, device, argv):
    return emulated.popen(device, argv, stdout=subprocess.PIPE, text=True).communicate(timeout=30)[0]


@pytest.mark.alone
@pytest.mark.parametrize(
    "argv", [[sys.executable, "-S", "-c", BUSY], ["sh", "-c", f'{sys.executable} -S -c "$0"; :', BUSY]]
)
def test_a_slow_device_gets_its_share_also_through_a_shell(emulated, argv):
    assert emulated.mode == "shaper"
    # Others on this machine can only take time away, also from a device that is not slowed: by that much less is due.
    free, *shares, again = (float(said(emulated, device, argv)) for device in ("box", "pi", "pi", "box"))
    assert 0.85 * 0.25 * min(free, again) <= max(shares) <= 1.15 * 0.25


def test_addresses_are_local_and_need_a_link(emulated):
    assert emulated.address_of("box", seen_from="pi") == "127.0.0.1"
    with pytest.raises(FleetError, match="no link joins"):
        emulated.address_of("small", seen_from="pi")
    with pytest.raises(FleetError, match="give it a Shaper"):
        emulated.set_bandwidth("pi", "box", 1e6)


def test_a_hog_meets_its_limit(emulated):
    hog = [sys.executable, "-S", "-c", "x = bytearray(100 << 20); print('alive')"]
    process = emulated.popen("small", hog, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=20)
    assert b"MemoryError" in err
    assert b"alive" not in out
    assert said(emulated, "box", hog) == "alive\n"


def test_leaving_ends_what_runs_even_while_it_is_stopped(tmp_path):
    with EmulatedFleet(FLEET, tmp_path, mode="shaper") as emulated:
        process = emulated.popen("pi", ["sh", "-c", "while :; do :; done & wait"])
        time.sleep(0.2)
        everybody = family(process.pid)
        assert len(everybody) == 2
    assert process.returncode == -signal.SIGKILL
    for _ in range(100):
        if not any(cpu_seconds(pid) for pid in everybody):
            break
        time.sleep(0.02)
    assert not any(cpu_seconds(pid) for pid in everybody)


def test_what_a_killed_owner_leaves_is_swept(tmp_path):
    code = """
import sys, time
from pathlib import Path
from edgeward.fleet.emulate import EmulatedFleet
from edgeward.fleet.fleet import Device, Fleet
fleet = Fleet(devices=(Device(name="pi", tier="device", compute=0.2),))
with EmulatedFleet(fleet, Path(sys.argv[1]), mode="shaper") as emulated:
    print(emulated.popen("pi", ["sh", "-c", "while :; do :; done"]).pid, flush=True)
    time.sleep(60)
"""
    owner = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True)
    orphan = int(owner.stdout.readline())
    owner.kill()
    owner.wait()
    os.kill(orphan, 0)
    assert sweep(tmp_path) == 1
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.kill(orphan, 0)
            time.sleep(0.02)
    assert list(tmp_path.iterdir()) == []


def test_without_root_the_fleet_is_emulated_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr("edgeward.fleet.state.os.geteuid", lambda: tmp_path.stat().st_uid)
    monkeypatch.setattr("edgeward.fleet.build.kernel_obstacle", lambda: "this user is not root")
    with EmulatedFleet(FLEET, tmp_path) as emulated:
        assert emulated.mode == "shaper"
    with (
        pytest.raises(FleetError, match="this user is not root; use mode='shaper'"),
        EmulatedFleet(FLEET, tmp_path, mode="kernel"),
    ):
        pass


def test_a_fleet_from_the_same_file_is_the_same_fleet_after_an_edit(tmp_path):
    bring_up(FLEET, tmp_path, mode="shaper", origin="/a/fleet.toml")
    edited = FLEET.model_copy(update={"name": "edited"})
    with pytest.raises(FleetError, match="is up already"):
        bring_up(edited, tmp_path, mode="shaper", origin="/a/fleet.toml")
    with attach(edited, tmp_path, origin="/a/fleet.toml") as emulated:
        assert emulated.fleet == FLEET
        assert said(emulated, "box", ["echo", "hello"]) == "hello\n"
    take_down(edited, tmp_path, origin="/a/fleet.toml")
    assert list(tmp_path.iterdir()) == []
