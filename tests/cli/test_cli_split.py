"""`edgeward split run` and `edgeward node` as a user meets them."""

from __future__ import annotations

import json
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch

from edgeward.fleet.fleet import Device, Fleet, Link
from edgeward.graph.chain import cut
from edgeward.plan.evaluate import evaluate
from edgeward.plan.plan import save_plan
from edgeward.profile.profile import DeviceTimes
from edgeward.profile.profiler import as_profile
from edgeward.zoo.reference import build

MODEL = "cifar-resnet20"
CHAIN = cut(build(MODEL).eval(), torch.zeros(1, 3, 32, 32))
LAST = len(CHAIN) - 1


def edgeward(*arguments, timeout=120):
    command = [sys.executable, "-m", "edgeward", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


@pytest.fixture
def plan(tmp_path):
    devices = (Device(name="pi", tier="device"), Device(name="edge", tier="edge"))
    fleet = Fleet(devices=devices, links=(Link(between=("pi", "edge"), bandwidth="20 Mbit/s"),))
    times = {name: DeviceTimes(seconds=(0.001,) * len(CHAIN)) for name in ("pi", "edge")}
    profile = as_profile(CHAIN, MODEL).model_copy(update={"times": times})
    file = tmp_path / "plan.json"
    save_plan(evaluate(profile, fleet, [("pi", 0, 3), ("edge", 4, LAST)]), file)
    return file


def test_a_plan_runs_on_worker_processes_and_gives_the_networks_own_classes(plan, tmp_path):
    pictures = np.random.default_rng(0).random((6, 3, 32, 32), np.float32)
    np.save(tmp_path / "pictures.npy", pictures)
    lines = tmp_path / "results.jsonl"
    done = edgeward("split", "run", plan, "--input", tmp_path / "pictures.npy", "-o", lines, "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["count"] == 6
    assert {step["name"] for step in summary["plans"][0]["steps"]} == {"pi[0-3]", "pi->edge", f"edge[4-{LAST}]"}
    records = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [record["index"] for record in records] == list(range(6))
    with torch.no_grad():
        best = build(MODEL).eval()(torch.from_numpy(pictures)).argmax(1).tolist()
    assert [record["best"][0]["class"] for record in records] == best


def multicasts():
    """Whether an interface beside loopback is up and passes multicast."""
    flags = (int(file.read_text(), 16) for file in pathlib.Path("/sys/class/net").glob("*/flags"))
    return any(one & 0x1001 == 0x1001 and not one & 0x8 for one in flags)


@pytest.mark.skipif(not multicasts(), reason="no network interface passes multicast here")
def test_a_node_that_announces_itself_is_found_and_used(plan, tmp_path):
    np.save(tmp_path / "pictures.npy", np.random.default_rng(0).random((3, 3, 32, 32), np.float32))
    (tmp_path / "fleet.toml").write_text(
        'source = "pi"\n[[device]]\nname = "pi"\ntier = "device"\n[[device]]\nname = "edge"\ntier = "edge"\n'
        '[[link]]\nbetween = ["pi", "edge"]\nbandwidth = "20 Mbit/s"\n'
    )
    order = [
        "split",
        "run",
        plan,
        "--input",
        tmp_path / "pictures.npy",
        "--fleet",
        tmp_path / "fleet.toml",
        "--discover",
    ]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    listen = ["--name", "edge", "--listen", f"tcp/127.0.0.1:{port}", "--announce"]
    node = subprocess.Popen([sys.executable, "-m", "edgeward", "node", *listen], stderr=subprocess.PIPE, text=True)
    try:
        assert node.stderr is not None
        node.stderr.readline()
        done = edgeward(*order, "--json")
    finally:
        node.terminate()
        _, said = node.communicate(timeout=20)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["count"] == 3
    assert "handled 0 orders" not in said


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (["--input", "nothing.npy"], "cannot read nothing.npy"),
        (["--input", "wrong.npy"], "this network takes"),
        (["--input", "right.npy", "--network", "cifar-resnet56"], "another network"),
        (["--input", "right.npy", "--normalise", "somehow"], "choose one of"),
        (["--input", "right.npy", "--fleet", "nothing.toml"], "nothing.toml"),
        (["--input", "right.npy", "--weights", "nothing.safetensors"], "nothing.safetensors"),
    ],
)
def test_mistakes_end_in_one_line_and_exit_code_2(plan, tmp_path, change, word, monkeypatch, refusal):
    monkeypatch.chdir(tmp_path)
    np.save("wrong.npy", np.zeros((2, 3, 5, 5), np.float32))
    np.save("right.npy", np.zeros((1, 3, 32, 32), np.float32))
    assert word in refusal("split", "run", plan, *change)


def test_certificates_are_made_once_and_a_node_beyond_loopback_needs_them(tmp_path, refusal):
    folder = tmp_path / "certs"
    for name in ("pi", "edge"):
        done = edgeward("node", "cert", folder, name, "--host", "192.0.2.7", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["certificate"].endswith(f"{name}.pem")
    assert {file.name for file in folder.iterdir()} == {
        "ca.pem", "ca.key", "pi.pem", "pi.key", "edge.pem", "edge.key"
    }  # fmt: skip
    assert (folder / "pi.key").stat().st_mode & 0o077 == 0
    refusal("node", "cert", folder, "bad name")
    assert "edgeward node cert" in refusal("node", "--listen", "tcp/0.0.0.0:17448")
    for wrong in (["--listen", "nowhere"], ["--memory", "lots"]):
        refusal("node", *wrong)
