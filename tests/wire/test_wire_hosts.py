"""Hosts: the same orders give the same answers in every form; what is wrong is answered, not fatal."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import torch

from edgeward.errors import HostError, WireError
from edgeward.graph.chain import cut
from edgeward.graph.onnx import export_chain
from edgeward.wire.header import Limits
from edgeward.wire.hosts import LocalHost, WorkerHost
from edgeward.wire.messages import Message, TensorPart
from edgeward.wire.package import Package, onnx_package, torch_package
from edgeward.wire.packing import IDENTITY, unpack
from edgeward.wire.server import StageServer
from edgeward.zoo.reference import build

torch.manual_seed(0)
MODEL = build("cifar-resnet20").eval()
CHAIN = cut(MODEL, torch.rand(1, 3, 32, 32))
RECIPE = {"reference": "cifar-resnet20", "shape": [1, 3, 32, 32], "dtype": "float32",
          "granularity": "layer", "max_tensors": 1}  # fmt: skip
PIECES = export_chain(CHAIN)
IMAGE = np.random.default_rng(0).random((1, 3, 32, 32), np.float32)


def packages(first, last):
    yield onnx_package(CHAIN, PIECES, "resnet20", first, last)
    yield torch_package(CHAIN, RECIPE, "resnet20", first, last)


def expected(last):
    values = (torch.from_numpy(IMAGE.copy()),)
    with torch.no_grad():
        for block in list(CHAIN.blocks)[: last + 1]:
            values = block(*values)
    return values[0].numpy()


def order(package, arrays=(IMAGE,), **more):
    return Message("run", {"route": [{"host": "here", "stage": package.stage_id, **more}]}, IDENTITY.pack(arrays))


@pytest.fixture(scope="module")
def hosts():
    made = [LocalHost(StageServer("local")), WorkerHost("worker")]
    yield made
    for host in made:
        host.close()


def test_every_form_of_host_and_package_gives_the_networks_own_values(hosts):
    for package in packages(0, 4):
        for host in hosts:
            assert host.run(package.to_message()).result(60).kind == "result"
            answer = host.run(order(package)).result(60)
            assert answer.kind == "result", answer.meta
            np.testing.assert_allclose(unpack(answer.tensors)[0], expected(4), atol=1e-5)
            (step,) = answer.meta["trace"]
            assert step["times"] == sorted(step["times"])
            assert step["bytes_in"] == IMAGE.nbytes


def test_a_package_survives_its_message_and_a_changed_byte_is_noticed():
    for package in packages(2, 5):
        message = package.to_message()
        again = Package.of_message(message)
        assert again == package
        assert again.stage_id == package.stage_id
        broken = bytearray(package.payload)
        broken[len(broken) // 2] ^= 1
        part = TensorPart("identity", "U8", (len(broken),), memoryview(broken))
        with pytest.raises(WireError, match="damaged"):
            Package.of_message(Message("deploy", message.meta, (part,)))


@pytest.mark.parametrize("key", ["model", "first", "form", "recipe", "stage"])
def test_an_order_to_deploy_that_lacks_something_is_refused(key):
    message = next(packages(0, 1)).to_message()
    meta = {name: value for name, value in message.meta.items() if name != key}
    with pytest.raises(WireError):
        Package.of_message(Message("deploy", meta, message.tensors))


def test_weights_of_another_structure_are_refused():
    package = torch_package(CHAIN, {**RECIPE, "reference": "cifar-resnet56"}, "resnet20", 0, 2)
    with pytest.raises(WireError, match="cuts 'resnet20' otherwise"):
        package.open(1)


@pytest.mark.parametrize(
    "recipe", [{}, {"reference": "nothing"}, {**RECIPE, "shape": [1 << 40]}, {**RECIPE, "dtype": "object"},
               {**RECIPE, "granularity": "atom"}, {"config": {"model_type": "x"}, "shape": [1], "dtype": "float32"}],
)  # fmt: skip
def test_a_bad_recipe_is_refused_with_a_reason(recipe):
    package = torch_package(CHAIN, recipe, "resnet20", 0, 2)
    answer = StageServer("here").handle(package.to_message())
    assert answer.kind == "error"
    assert answer.meta["error"] == "WireError", answer.meta


def test_what_is_wrong_with_an_order_is_answered(hosts):
    package = next(packages(0, 4))
    for host in hosts:
        host.run(package.to_message()).result(60)
        for wrong, word in (
            (Message("dance"), "knows no order"),
            (Message("run", {}), "names no route"),
            (Message("run", {"route": [{"stage": "nothing"}]}), "does not hold stage"),
            (order(package, packing="int9"), "int9"),
            (order(package, (IMAGE[:, :2],)), ""),
            (Message("run", {"route": [{"stage": package.stage_id}]},
                     (TensorPart("never-heard-of", "F32", (1, 3, 32, 32), memoryview(b"x")),)), "does not know"),
        ):  # fmt: skip
            answer = host.run(wrong).result(60)
            assert answer.kind == "error"
            assert word in answer.meta["message"]
        assert host.run(order(package)).result(60).kind == "result"  # and it lives on


def test_memory_is_counted_and_given_back():
    first, second = (onnx_package(CHAIN, PIECES, "resnet20", a, b) for a, b in ((0, 4), (5, 9)))
    need = len(first.payload) + first.working_bytes
    server = StageServer("small", memory=need + 1000)
    assert server.handle(first.to_message()).kind == "result"
    assert server.used_bytes == need
    assert server.handle(first.to_message()).kind == "result"  # the same again takes nothing
    refused = server.handle(second.to_message())
    assert refused.kind == "error"
    assert "has 1000 B of" in refused.meta["message"]
    server.handle(Message("withdraw", {"stage": first.stage_id}))
    assert server.used_bytes == 0
    assert server.handle(second.to_message()).kind in ("result", "error")


def test_orders_at_a_worker_that_is_killed_fail_and_those_after_it():
    host = WorkerHost("mortal")
    host.run(next(packages(0, 9)).to_message()).result(60)
    os.kill(host.process.pid, signal.SIGSTOP)
    waiting = [host.run(order(next(packages(0, 9)))) for _ in range(3)]
    os.kill(host.process.pid, signal.SIGKILL)
    for future in waiting:
        with pytest.raises(HostError, match="mortal"):
            future.result(10)
    with pytest.raises(HostError, match="mortal"):
        host.run(Message("ping")).result(10)
    assert not host.alive
    host.close()


def test_tensors_beyond_the_limits_are_not_unpacked():
    server = StageServer("strict", limits=Limits(max_bytes=1000))
    package = next(packages(0, 4))
    server.handle(package.to_message())
    part = TensorPart("int8", "F32", (1 << 20, 1 << 18), memoryview(b"\0" * 40))
    answer = server.handle(Message("run", {"route": [{"stage": package.stage_id}]}, (part,)))
    assert answer.kind == "error"
