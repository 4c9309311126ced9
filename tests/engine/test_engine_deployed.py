"""Models of the box that run under a plan: the unsplit model's own answers, on real hosts, whatever dies."""

from __future__ import annotations

import os
import pathlib
import signal
import time
from concurrent.futures import Future
from functools import partial

import numpy as np
import pytest
import torch

from edgeward.engine.deployed import open_plan
from edgeward.errors import ConfigError, HostError, ModelError
from edgeward.fleet.fleet import Device, Fleet, Link
from edgeward.graph.chain import cut
from edgeward.plan.evaluate import evaluate
from edgeward.plan.plan import save_plan
from edgeward.profile.file import save_profile
from edgeward.profile.profile import DeviceTimes
from edgeward.profile.profiler import as_profile
from edgeward.serve.box import Box
from edgeward.serve.configfile import parse_config
from edgeward.serve.events import Failed, Inferred
from edgeward.serve.modelconfig import ModelConfig
from edgeward.serve.models import resolve_model
from edgeward.serve.runner import Runner
from edgeward.split.crew import CrewOptions
from edgeward.vision.sources import open_source
from edgeward.weights.store import WeightStore
from edgeward.wire.hosts import LocalHost
from edgeward.wire.server import StageServer
from edgeward.zoo.network import example_of, open_network
from edgeward.zoo.packaged import PACKAGED

NETS = """
import torch
from torch import nn
INPUT_SHAPE = (3, 32, 32)

class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 6 * 8, 1)
        with torch.no_grad():
            self.last.weight.zero_()
            self.last.bias.zero_()
            self.last.bias.view(6, 8)[:5, 0] = torch.tensor([16.0, 16.0, 8.0, 16.0, 0.9])

    def forward(self, x):
        x = torch.relu(self.second(torch.relu(self.first(x))))
        return self.last(x.mean((2, 3), keepdim=True)).reshape(-1, 6, 8)

class Other(Tiny):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
"""
LINKS = (Link(between=("gate", "edge"), bandwidth="1 Gbit/s"),)
FLEET = Fleet(devices=(Device(name="gate", tier="device"), Device(name="edge", tier="edge")), links=LINKS)


def reach(fleet, file, certs):
    return CrewOptions()


def planned(folder, spec, edge=1):
    """A plan in `folder` for a network whose last `edge` blocks run on the edge; its path, profile and chain."""
    network = open_network(spec)
    chain = cut(network.module.eval(), example_of(network, None, 1))
    count = len(chain)
    times = {name: DeviceTimes(seconds=(0.001,) * count) for name in ("gate", "edge")}
    profile = as_profile(chain, network.name).model_copy(update={"times": times})
    plan = evaluate(profile, FLEET, (("gate", 0, count - 1 - edge), ("edge", count - edge, count - 1)))
    save_plan(plan, folder / "plan.json")
    save_profile(profile, folder / "profile.json")
    return chain


@pytest.fixture
def tiny(tmp_path):
    """An entry's keys for a small detector of the user's own that was planned."""
    (tmp_path / "nets.py").write_text(NETS)
    chain = planned(tmp_path, f"{tmp_path}/nets.py:Tiny")
    keys = {"plan": tmp_path / "plan.json", "network": f"{tmp_path}/nets.py:Tiny", "convention": "yolov8"}
    return chain, {"name": "cats", "labels": ("cat", "dog"), **keys}


def box_text(folder, extra="", frames=900):
    scene = f"test://people?seed=1&fps=15&width=160&height=120&frames={frames}&objects=2"
    return f"""
cameras: [{{name: a, source: '{scene}', rate: 15}}]
models: [{{name: cats, plan: plan.json, network: 'nets.py:Tiny', convention: yolov8, labels: [cat, dog]{extra}}}]
queries: [{{camera: a, model: cats, deadline: 3}}]
web: {{enabled: false}}
data: '{folder}/data'
cache: '{folder}/cache'
"""


def workers():
    """Process ids of the worker processes that this process started."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == os.getpid() and b"edgeward.wire.worker" in command:
            found.append(int(entry.name))
    return found


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{name: cats, plan: plan.json, file: m.onnx}", "'plan' and 'file' exclude each other"),
        ("{name: cats, plan: plan.json, use: ssdlite-person}", "'plan' and 'use' exclude each other"),
        ("{name: cats, use: ssdlite-person, fleet: fleet.toml}", "'fleet' belongs to a 'plan'"),
        ("{name: cats, file: m.onnx, convention: ssd, standby: false}", "'standby' belongs to a 'plan'"),
        ("{name: cats}", "give either"),
        ("{name: cats, plan: plan.json, profil: x}", "did you mean 'profile'"),
    ],
)
def test_what_an_entry_cannot_say(entry, message):
    text = f"{{cameras: [{{name: a, source: x.mp4}}], models: [{entry}], queries: [{{camera: a, model: cats}}]}}"
    with pytest.raises(ConfigError, match=message):
        parse_config(text, "box.yaml")


@pytest.mark.parametrize(
    ("network", "located"),
    [
        ("nets.py:Tiny", "{}/nets.py:Tiny"),
        ("nanodet=models/nanodet.json", "nanodet={}/models/nanodet.json"),
        ("bert/config.json", "{}/bert/config.json"),
        ("resnet50", "resnet50"),
        ("ssdlite-person", "ssdlite-person"),
    ],
)
def test_files_lie_beside_the_box_file(tmp_path, network, located):
    entry = ModelConfig(name="m", plan="plan.json", network=network, profile="p.json").resolved(tmp_path)
    assert entry.network == located.format(tmp_path)
    assert (entry.plan, entry.profile, entry.fleet) == (tmp_path / "plan.json", tmp_path / "p.json", None)


def test_a_box_without_hosts_says_so(tmp_path):
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(ConfigError, match="'cats' names a plan, but this box"):
        Box(parse_config(box_text(tmp_path), "box.yaml"))


def test_what_does_not_belong_to_a_plan_is_named(tiny, tmp_path):
    _, keys = tiny
    (tmp_path / "fleet.toml").write_text(
        '[[device]]\nname = "gate"\ntier = "device"\n[[device]]\nname = "cloud"\ntier = "cloud"\n'
    )
    other = tmp_path / "other"
    other.mkdir()
    planned(other, "cifar-resnet20")
    for change, message in (
        ({"plan": tmp_path / "absent.json"}, "absent.json: No such file"),
        ({"plan": tmp_path / "nets.py"}, "is not a plan"),
        ({"network": f"{tmp_path}/nets.py:Other"}, "another network than"),
        ({"network": None}, "no network 'nets.py:Tiny'|nets.py does not exist"),
        ({"fleet": tmp_path / "fleet.toml"}, "runs on 'edge', but the fleet has gate, cloud"),
        ({"profile": other / "profile.json"}, "profile of 'cifar-resnet20' is not of the network"),
        ({"convention": None}, "needs 'convention'.*yolov8"),
        ({"convention": "ssd"}, "outputs have shapes"),
        ({"task": "classification"}, "its task is detection"),
        ({"labels": ("cat",)}, "2 classes but 1 labels"),
        ({"input": {"height": 64, "width": 64}}, "another network than"),
    ):
        with pytest.raises(ConfigError, match=f"model 'cats': .*({message})"):
            open_plan(ModelConfig(**{**keys, **change}), reach=reach)


def test_memory_is_what_the_source_keeps(tiny):
    chain, keys = tiny
    blocks = [cost.parameter_bytes for cost in chain.costs]
    lean = open_plan(ModelConfig(**keys, standby=False), reach=reach)
    assert lean.spec.bytes == sum(blocks[:-1])
    assert open_plan(ModelConfig(**keys), reach=reach).spec.bytes == sum(blocks[:-1]) + sum(blocks)


def test_a_node_that_is_not_there(tiny, tmp_path):
    _, keys = tiny
    (tmp_path / "fleet.toml").write_text(
        '[[device]]\nname = "gate"\ntier = "device"\n[[device]]\nname = "edge"\ntier = "edge"\naddress = "127.0.0.1:9"\n'
    )
    entry = ModelConfig(**keys, fleet=tmp_path / "fleet.toml")
    model = open_plan(entry, reach=lambda *_: CrewOptions(patience=0.3))
    runner = Runner({"cats": model}, threads=1)
    with pytest.raises(ModelError, match=r"'cats' failed its first run: no node 'edge'.*start it there"):
        runner.rehearse("cats")
    runner.close()


def test_a_split_ssdlite_finds_what_the_whole_one_finds(tmp_path):
    """On the packaged street clip, one picture at a time and several under way at once."""
    if PACKAGED["ssdlite-person"].member.locate() is None:
        pytest.skip(PACKAGED["ssdlite-person"].member.install)
    planned(tmp_path, "ssdlite-person", edge=8)
    store = WeightStore(tmp_path / "weights")
    whole = resolve_model(ModelConfig(name="whole", use="ssdlite-person"), store, tmp_path, "cpu")
    split = open_plan(ModelConfig(name="split", plan=tmp_path / "plan.json"), reach=reach)
    assert split.card == whole.card
    runner = Runner({"whole": whole, "split": split}, threads=1)
    source = open_source("package://bikes")
    images = [frame.image for frame, _ in zip(source, range(90), strict=False)][::15]
    source.close()
    pictures = [runner.prepare("split", image) for image in images]
    runner.load("split")
    runner.load("whole")
    try:
        assert len(workers()) == 1
        batches = [runner.infer("split", [one], 0.1)[0] for one in pictures], runner.infer("split", pictures, 0.1)
        wanted = [runner.infer("whole", [one], 0.1)[0] for one in pictures]
    finally:
        runner.close()
    assert not workers()
    assert sum(map(len, wanted)) > 0
    for found in batches:
        for ours, theirs in zip(found, wanted, strict=True):
            assert np.array_equal(ours.class_id, theirs.class_id)
            np.testing.assert_allclose(ours.confidence, theirs.confidence, atol=1e-4)
            np.testing.assert_allclose(ours.xyxy, theirs.xyxy, atol=0.05)


def test_results_go_on_when_a_worker_is_killed(tiny, tmp_path):
    text = box_text(tmp_path)
    notes = []
    box = Box(
        parse_config(text, "box.yaml").resolved(tmp_path), open_plan=partial(open_plan, reach=reach, note=notes.append)
    )
    killed, answers = [], []

    def observe(event, state):
        if isinstance(event, Inferred):
            answers.append(event)
            if len(answers) == 10 and not killed:
                killed.extend(workers())
                os.kill(killed[0], signal.SIGKILL)
            if len(answers) == 40:
                box.stop()

    with box:
        box.observe(observe)
        box.run(30)
        report = box.report()
    assert len(killed) == 1
    assert len(answers) >= 40
    assert any("host 'edge' is gone" in text for text in notes)
    (query,) = report.queries
    (model,) = report.models
    assert (model.status, model.detail, model.loads) == ("resident", "", 1)
    assert report.memory.resident_bytes == model.bytes > 0
    assert query.in_time >= 38
    assert {tuple(result["class_id"]) for event in answers for result in event.results} == {(0,)}
    assert not workers()


class Moody(LocalHost):
    """A host that can refuse to run, as one whose device is out of memory would."""

    broken = False

    def run(self, order):
        if self.broken and order.kind == "run":
            refused = Future()
            refused.set_exception(HostError("host 'edge' has a cold"))
            return refused
        return super().run(order)


def test_a_deployment_that_fails_is_a_failure_of_the_model(tiny, tmp_path):
    edge = Moody(StageServer("edge"))

    def start(device, source):
        return LocalHost(StageServer(device.name)) if source else edge

    opened = partial(open_plan, reach=lambda *_: CrewOptions(start=start))
    text = box_text(tmp_path, ", standby: false")
    box = Box(parse_config(text, "box.yaml").resolved(tmp_path), open_plan=opened)
    edge = Moody(StageServer("edge"))  # that of the rehearsal was closed with its deployment
    failed, after = [], []

    def observe(event, state):
        if isinstance(event, Failed):
            failed.append(event.error)
            edge.broken = False
        if isinstance(event, Inferred):
            (after if failed else []).append(event)
            edge.broken = not failed
            if len(after) == 12:
                box.stop()

    with box:
        box.observe(observe)
        box.run(20)
    assert failed == ["HostError: request 1 failed 5 times"]
    assert len(after) > 10


def test_letting_go_does_not_wait_and_coming_back_does(tiny):
    _, keys = tiny
    hosts = []

    class Slow(LocalHost):
        def close(self):
            time.sleep(0.2)
            super().close()
            hosts.remove(self)

    def start(device, source):
        hosts.append(Slow(StageServer(device.name)))
        return hosts[-1]

    engine = open_plan(ModelConfig(**keys), reach=lambda *_: CrewOptions(start=start)).open(1)
    batch = torch.rand(2, 3, 32, 32).numpy()
    with pytest.raises(ModelError, match="not open"):
        engine.run(batch)
    engine.attach()
    (first,) = engine.run(batch)
    engine.detach()
    engine.detach()
    assert hosts  # still ending, on a thread of their own
    engine.attach()
    assert len(hosts) == 2
    np.testing.assert_array_equal(engine.run(batch)[0], first)
    engine.close()
    engine.close()
    assert not hosts
