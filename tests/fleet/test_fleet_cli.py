"""`edgeward fleet` from end to end, and what its checks say."""

from __future__ import annotations

import json
import socket

import pytest
from typer.testing import CliRunner

from edgeward.cli.fleet import app
from edgeward.errors import ConfigError, FleetError
from edgeward.fleet.fleet import Device
from edgeward.fleet.reach import host_and_port

FILE = """
name = "lab"
[[device]]
name = "pi"
tier = "device"
compute = "25 %"
[[device]]
name = "box"
tier = "cloud"
memory = "2 GiB"
address = "127.0.0.1:{port}"
[[link]]
between = ["pi", "box"]
bandwidth = "20 Mbit/s"
latency = "45 ms"
[[zone]]
name = "home"
devices = ["pi"]
"""


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def run(tmp_path):
    def running(verb, *words, port=1, succeed=True):
        path = tmp_path / "fleet.toml"
        path.write_text(FILE.format(port=port))
        argv = [verb, "--state-dir", str(tmp_path / "state"), str(path), *words]
        return CliRunner().invoke(app, argv, catch_exceptions=not succeed)

    return running


@pytest.mark.parametrize("mode", ["shaper", "auto"])
def test_up_show_exec_down(run, mode, capfd, listening):
    assert run("up", "--mode", mode, port=listening).exit_code == 0
    shown = json.loads(run("show", "--json", "--check", port=listening).stdout)
    assert shown["emulated"] in ("kernel", "shaper")
    assert shown["unreachable"] == {}
    again = run("up", succeed=False, port=listening)
    assert isinstance(again.exception, FleetError)
    assert "is up already" in str(again.exception)
    assert run("exec", "pi", "--", "sh", "-c", "echo from $0; exit 7", "pi", port=listening).exit_code == 7
    assert "from pi" in capfd.readouterr().out
    assert run("down", port=listening).exit_code == 0
    assert isinstance(run("exec", "pi", "--", "true", succeed=False).exception, FleetError)
    assert isinstance(run("down", succeed=False).exception, FleetError)


def test_show_for_people(run, listening):
    text = run("show", port=listening).output
    for word in ("pi", "25 %", "2 GiB", "20 Mbit/s", "45 ms", "445 ms", "home", "reachable", "emulated here: no"):
        assert word in text, word


def test_an_unreachable_device_fails_only_when_asked(run):
    assert "refused" in run("show").output
    failed = run("show", "--check", succeed=False)
    assert isinstance(failed.exception, FleetError)
    assert str(failed.exception).startswith("cannot reach 'box' at 127.0.0.1:1: connection refused; start the host")


@pytest.mark.parametrize("address", ["nowhere", ":80", "host:0", "host:99999", "host:http", "host:"])
def test_addresses_that_are_none(address):
    with pytest.raises(FleetError, match="write it as host:port"):
        host_and_port(Device(name="a", tier="edge", address=address))


def test_addresses():
    assert host_and_port(Device(name="a", tier="edge", address="pi.local:70")) == ("pi.local", 70)
    assert host_and_port(Device(name="a", tier="edge", address="[fe80::1]:70")) == ("fe80::1", 70)


def test_a_missing_file_is_named(tmp_path):
    result = CliRunner().invoke(app, ["show", str(tmp_path / "no.toml")])
    assert isinstance(result.exception, ConfigError)
    assert "no.toml" in str(result.exception)
