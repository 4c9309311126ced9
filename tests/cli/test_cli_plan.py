"""The fleet loop from the command line: profile, plan, and what is said when it cannot be done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

FLEET = """
name = "yard"
[[device]]
name = "pi"
tier = "device"
power = 4.0
[[device]]
name = "box"
tier = "edge"
[[link]]
between = ["pi", "box"]
bandwidth = "20 Mbit/s"
latency = "5 ms"
"""


def edgeward(*words, cwd):
    command = [sys.executable, "-m", "edgeward", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment, timeout=170, check=False)


@pytest.fixture(scope="module")
def yard(tmp_path_factory):
    """A folder with a fleet and a profile of both its devices."""
    folder = tmp_path_factory.mktemp("yard")
    (folder / "fleet.toml").write_text(FLEET)
    for device, backend in (("pi", "torch"), ("box", "onnxruntime")):
        done = edgeward(
            "profile",
            "cifar-resnet20",
            "--device",
            device,
            "--backend",
            backend,
            "--repeats",
            3,
            "-o",
            "p.json",
            cwd=folder,
        )
        assert done.returncode == 0, done.stderr
        assert "stage3.2.relu" in done.stdout
    return folder


def test_profiles_of_two_devices_are_one_file(yard):
    record = json.loads((yard / "p.json").read_text())
    assert set(record["times"]) == {"pi", "box"}
    assert {one["backend"] for one in record["times"].values()} == {"torch", "onnxruntime"}
    assert not list(yard.glob(".*partial"))


def test_plans_pictures_and_reasons(yard):
    done = edgeward(
        "plan",
        "p.json",
        "fleet.toml",
        "--constraint",
        "split",
        "--why",
        "--picture",
        "p.svg",
        "-o",
        "plan.json",
        cwd=yard,
    )
    assert done.returncode == 0, done.stderr
    assert "Where the time of the best plan goes" in done.stdout
    assert "What would change it" in done.stdout
    drawn = ElementTree.parse(yard / "p.svg").getroot()
    assert drawn.tag.endswith("svg")
    best = json.loads((yard / "plan.json").read_text())
    assert {stage["device"] for stage in best["stages"]} == {"pi", "box"}
    listed = json.loads(edgeward("plan", "p.json", "fleet.toml", "--constraint", "split", "--json", cwd=yard).stdout)
    assert listed["plans"][0] == best
    costs = [one["cost"] for one in listed["plans"]]
    assert costs == sorted(costs)


def test_a_thinner_link_costs_more_and_the_front_trades(yard):
    known = json.loads((yard / "p.json").read_text())
    pin = f"block {len(known['blocks']) - 1} on box"
    ask = lambda *words: json.loads(  # noqa: E731
        edgeward("plan", "p.json", "fleet.toml", "--constraint", pin, "--json", *words, cwd=yard).stdout
    )["plans"]
    assert ask("--link", "pi->box=100 kbit/s")[0]["latency"] > ask()[0]["latency"]
    front = ask("--pareto", "latency,bytes")
    assert [one["latency"] for one in front] == sorted(one["latency"] for one in front)
    assert [one["bytes"] for one in front] == sorted((one["bytes"] for one in front), reverse=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("plan", "absent.json", "fleet.toml"), "cannot read profile absent.json"),
        (("plan", "p.json", "absent.toml"), "absent.toml"),
        (("plan", "p.json", "fleet.toml", "--constraint", "blok 1 on pi"), "did you mean 'block'"),
        (("plan", "p.json", "fleet.toml", "--constraint", "block 99 on pi"), "99"),
        (("plan", "p.json", "fleet.toml", "--objective", "speed"), "objective 'speed'"),
        (("plan", "p.json", "fleet.toml", "--link", "pi->box=fast"), "20 Mbit/s"),
        (("plan", "p.json", "fleet.toml", "--constraint", "pi <= 0 ms", "--constraint", "avoid box"), "together"),
        (("profile", "cifar-resnet56", "-o", "p.json"), "different networks"),
        (("profile", "cifar-resnet20", "--input", "1x32x32"), "does not take an example of shape"),
        (("profile", "os:system"), "outside your own file"),
        (("profile", "cifar-resnet20", "--repeats", "1"), "from 3 to 10000"),
        (("profile", "cifar-resnet20", "--cuts", "all"), "'layer' or 'op'"),
        (("profile", "cifar-resnet20", "--device", "a b"), "no blanks"),
    ],
)
def test_mistakes_are_one_line_and_code_2(yard, words, message, monkeypatch, refusal):
    before = (yard / "p.json").read_bytes()
    monkeypatch.chdir(yard)
    said = refusal(*words)
    assert message in said
    assert len(said.strip().splitlines()) == 1
    assert (yard / "p.json").read_bytes() == before


def test_reference_networks_are_listed(tmp_path):
    listed = json.loads(edgeward("models", "--networks", "--json", cwd=tmp_path).stdout)
    assert {"resnet50", "vgg16", "nasnet-large"} <= {one["name"] for one in listed}
