"""Emulation by the real kernel: shares, bandwidths, memory, isolation, and that nothing is ever left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeward.errors import FleetError
from edgeward.fleet.build import kernel_obstacle, sweep
from edgeward.fleet.cgroup import find_control
from edgeward.fleet.emulate import EmulatedFleet
from edgeward.fleet.fleet import Device, Fleet, Link
from edgeward.fleet.standing import attach, bring_up, take_down
from edgeward.fleet.state import read_all

pytestmark = pytest.mark.skipif(bool(kernel_obstacle()), reason=f"needs the kernel's help: {kernel_obstacle()}")

FLEET = Fleet(
    devices=(
        Device(name="pi", tier="device", compute="25 %", memory="64 MiB"),
        Device(name="box", tier="cloud", count=2),
        Device(name="alone", tier="edge"),
    ),
    links=(Link(between=("pi", "box"), bandwidth="10 Mbit/s", latency="45 ms"),),
)
BUSY = """
import time
begin = time.monotonic()
while time.process_time() < 0.5: pass
print(time.process_time() / (time.monotonic() - begin))
"""
RECEIVE = """
import socket, sys
server = socket.create_server((sys.argv[1], 5000))
print(flush=True)
for _ in range(int(sys.argv[2])):
    connection, _ = server.accept()
    while connection.recv(1 << 16): pass
    connection.sendall(b"x")
"""
SEND = """
import socket, sys, time
for _ in range(int(sys.argv[2])):
    connection = socket.create_connection((sys.argv[1], 5000))
    begin = time.monotonic()
    connection.sendall(bytes(int(sys.argv[3])))
    connection.shutdown(socket.SHUT_WR)
    connection.recv(1)
    print(time.monotonic() - begin)
"""


def python(code, *arguments):
    return [sys.executable, "-S", "-c", code, *map(str, arguments)]


def said(emulated, device, argv):
    return emulated.popen(device, argv, stdout=subprocess.PIPE, text=True).communicate(timeout=30)[0]


def leftovers(identity):
    control = find_control()
    places = [Path("/run/netns"), control.cpu, control.memory]
    found = [str(path) for place in places if place.exists() for path in place.glob(f"ew-{identity}*")]
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    return found + [line for line in links.splitlines() if ": ew" in line]


def identity_in(folder):
    (record,) = read_all(folder)
    return record.identity


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fleet")
    with EmulatedFleet(FLEET, folder, mode="kernel") as fleet:
        identity = identity_in(folder)
        yield fleet
    assert leftovers(identity) == []
    assert list(folder.iterdir()) == []


def seconds_of_transfers(emulated, count, size):
    address = emulated.address_of("box", seen_from="pi")
    receiver = emulated.popen("box", python(RECEIVE, address, count), stdout=subprocess.PIPE)
    receiver.stdout.readline()
    times = said(emulated, "pi", python(SEND, address, count, size)).split()
    receiver.communicate(timeout=10)
    return sorted(float(time) for time in times)


@pytest.mark.alone
def test_a_slow_device_gets_its_share_of_a_core(emulated):
    assert emulated.mode == "kernel"
    # Others on this machine can only take time away, also from a device that is not slowed: by that much less is due.
    free, *shares, again = (float(said(emulated, device, python(BUSY))) for device in ("box", "pi", "pi", "box"))
    assert 0.9 * 0.25 * min(free, again) <= max(shares) <= 1.1 * 0.25


@pytest.mark.alone
def test_transfers_take_what_the_link_says(emulated):
    fastest, *_ = seconds_of_transfers(emulated, 4, 200_000)
    assert fastest == pytest.approx(8 * 200_000 / 10e6, rel=0.1)
    assert emulated.latency("box", "pi") == 0.045


@pytest.mark.alone
def test_a_link_can_change_while_it_is_used(emulated):
    emulated.set_bandwidth("pi", "box", 40e6)
    assert seconds_of_transfers(emulated, 6, 200_000)[0] == pytest.approx(0.04, rel=0.2)
    emulated.set_bandwidth("pi", "box", 10e6)
    with pytest.raises(FleetError, match="no link from 'pi' to 'alone'"):
        emulated.set_bandwidth("pi", "alone", 1e6)


def test_a_hog_dies_of_its_devices_memory(emulated):
    hog = "x = bytearray(200 << 20); x[::4096] = b'1' * len(x[::4096]); print('alive')"
    process = emulated.popen("pi", python(hog), stdout=subprocess.PIPE)
    assert b"alive" not in process.communicate(timeout=20)[0]
    assert process.returncode == -signal.SIGKILL
    assert said(emulated, "box", python(hog)) == "alive\n"


def test_devices_without_a_link_do_not_meet(emulated):
    with pytest.raises(FleetError, match="no link joins 'alone' and 'pi'"):
        emulated.address_of("pi", seen_from="alone")
    assert emulated.address_of("pi", seen_from="pi") == "127.0.0.1"
    code = "import socket; socket.create_connection((__import__('sys').argv[1], 5000), 1)"
    process = emulated.popen("alone", python(code, emulated.address_of("box", "pi")), stderr=subprocess.PIPE)
    assert b"unreachable" in process.communicate(timeout=10)[1]


def test_what_a_program_starts_stays_in_its_group(emulated):
    membership = "import subprocess; print(subprocess.run(['cat', '/proc/self/cgroup'], stdout=-1).stdout.decode())"
    first, second = (
        emulated.popen("box", python(membership), replica=replica, stdout=subprocess.PIPE, text=True).communicate()[0]
        for replica in (0, 1)
    )
    assert "-1.0" in first
    assert "-1.1" in second


def test_mistakes_are_named(emulated):
    for call, says in (
        (lambda: emulated.popen("pie", ["true"]), "did you mean 'pi'"),
        (lambda: emulated.popen("box", ["true"], replica=2), "choose from 0 to 1"),
        (lambda: emulated.popen("pi", "true"), "as a list of words"),
        (lambda: emulated.popen("pi", ["no-such-program"]), "no program 'no-such-program'"),
        (lambda: emulated.popen("pi", ["true"], shell=True), "does not take 'shell'"),
        (lambda: emulated.latency("pi", "alone"), "no link leads"),
    ):
        with pytest.raises(FleetError, match=says):
            call()
    with pytest.raises(FleetError, match="is not up"):
        EmulatedFleet(FLEET).popen("pi", ["true"])


def test_words_are_not_read_as_shell(emulated):
    assert said(emulated, "pi", ["echo", "$HOME", "a b", ";", "'"]) == "$HOME a b ; '\n"


def test_leaving_ends_what_runs_and_two_fleets_live_side_by_side(tmp_path, emulated):
    with EmulatedFleet(FLEET, tmp_path, mode="kernel") as other:
        identity = identity_in(tmp_path)
        sleeper = other.popen("pi", ["sh", "-c", "sleep 60 & sleep 60"])
        assert said(emulated, "pi", ["echo", "here"]) == "here\n"
    assert sleeper.returncode == -signal.SIGKILL
    assert leftovers(identity) == []


@pytest.mark.alone
def test_a_trace_is_played(tmp_path):
    (tmp_path / "trace").write_text("0 1\n0.6 40\n60 5\n")
    link = Link(between=("pi", "box"), bandwidth=1e6, trace=tmp_path / "trace")
    with EmulatedFleet(FLEET.model_copy(update={"links": (link,)}), tmp_path / "state", mode="kernel") as emulated:
        time.sleep(0.1)
        assert seconds_of_transfers(emulated, 1, 200_000)[0] < 0.4  # 40 Mbit/s, not the 1 of 'bandwidth'
        time.sleep(0.6)
        assert seconds_of_transfers(emulated, 3, 100_000)[0] == pytest.approx(0.16, rel=0.2)


OWNER = """
import sys, time
from pathlib import Path
from edgeward.fleet.emulate import EmulatedFleet
from edgeward.fleet.file import load_fleet
with EmulatedFleet(load_fleet(Path(sys.argv[1])), Path(sys.argv[2]), mode="kernel") as emulated:
    print(emulated.popen("pi", ["sleep", "60"]).pid, flush=True)
    time.sleep(60)
"""
FILE = """
[[device]]
name = "pi"
tier = "device"
compute = 0.5
memory = "64 MiB"
[[device]]
name = "box"
tier = "cloud"
[[link]]
between = ["pi", "box"]
bandwidth = "10 Mbit/s"
"""


def test_what_a_killed_owner_leaves_is_swept(tmp_path):
    (tmp_path / "fleet.toml").write_text(FILE)
    state = tmp_path / "state"
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, tmp_path / "fleet.toml", state], stdout=subprocess.PIPE, text=True
    )
    orphan = int(owner.stdout.readline())
    identity = identity_in(state)
    assert sweep(state) == 0  # not while its owner lives
    owner.kill()
    owner.wait()
    os.kill(orphan, 0)
    assert len(leftovers(identity)) == 5  # two namespaces, two groups for the processor, one for memory
    assert sweep(state) == 1
    assert leftovers(identity) == []
    assert list(state.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        for _ in range(100):  # its new parent has yet to notice
            os.kill(orphan, 0)
            time.sleep(0.02)


@pytest.mark.parametrize("step", range(0, 11, 2))
def test_an_owner_killed_while_building_leaves_nothing(tmp_path, step):
    """The child dies, as by kill -9, before the kernel command number `step`."""
    code = f"""
import os, signal, subprocess
real, done = subprocess.run, []
def run(*args, **kwargs):
    if len(done) == {step}: os.kill(os.getpid(), signal.SIGKILL)
    done.append(1)
    return real(*args, **kwargs)
subprocess.run = run
"""
    (tmp_path / "fleet.toml").write_text(FILE)
    state = tmp_path / "state"
    done = subprocess.run([sys.executable, "-c", code + OWNER, tmp_path / "fleet.toml", state], check=False)
    assert done.returncode == -signal.SIGKILL
    identity = identity_in(state)
    assert sweep(state) == 1
    assert leftovers(identity) == []


def test_a_refusal_halfway_leaves_nothing(tmp_path, monkeypatch):
    def refuse(namespace, interface, bandwidth):
        raise FleetError("refused")

    monkeypatch.setattr("edgeward.fleet.machinery.shape", refuse)
    with pytest.raises(FleetError, match="refused"), EmulatedFleet(FLEET, tmp_path, mode="kernel"):
        pass
    assert list(tmp_path.iterdir()) == []
    with EmulatedFleet(FLEET, tmp_path) as emulated:
        assert emulated.mode == "shaper"


def test_a_fleet_stays_up_until_taken_down(tmp_path):
    record = bring_up(FLEET, tmp_path, mode="kernel")
    with pytest.raises(FleetError, match="is up already; run 'edgeward fleet exec'"):
        bring_up(FLEET, tmp_path)
    for _ in range(2):
        with attach(FLEET, tmp_path) as emulated:
            assert record.namespaces[0] in said(emulated, "pi", ["ip", "netns", "identify"])
            sleeper = emulated.popen("pi", ["sleep", "60"])
        assert sleeper.returncode == -signal.SIGKILL
    take_down(FLEET, tmp_path)
    assert leftovers(record.identity) == []
    with pytest.raises(FleetError, match="is not up"):
        attach(FLEET, tmp_path)
    with pytest.raises(FleetError, match="nothing to take down"):
        take_down(FLEET, tmp_path)
