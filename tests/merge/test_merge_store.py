"""Merged models on disk: each tensor once, real aliasing on load, and what happens to damaged folders."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from mergenets import digits, seeded, worn
from onnx import numpy_helper
from torch import nn

from edgeward.errors import ModelError, StoreError
from edgeward.merge.deltas import add_delta, deltas
from edgeward.merge.export import export_onnx
from edgeward.merge.groups import groups
from edgeward.merge.manifest import names, read_manifest
from edgeward.merge.store import Merged, load_all, load_one, save_merged
from edgeward.merge.tie import tie, unique_bytes
from edgeward.weights.pack import pack
from edgeward.weights.session import Session
from edgeward.weights.store import WeightStore, read_header
from edgeward.zoo.network import Network
from edgeward.zoo.reference import build

SMALL = {"hidden": (64, 32), "channels": (8, 16)}
FACTORIES = {"a": partial(seeded, 7, 1, 3, **SMALL), "b": partial(seeded, 8, 2, 2, **SMALL)}


def merged():
    """Two models that share all that they can, and one of a recipe that shares nothing."""
    models = {"a": worn(seeded(0, 1, 3, **SMALL)), "b": worn(seeded(1, 2, 2, **SMALL), 1)}
    for group in groups(models):
        tie(models, group, group.instances[0])
    found = [Merged(Network(name, one, (1, 8, 8)), 0.9, 0.95, 0.9) for name, one in models.items()]
    recipe = {"reference": "cifar-resnet20", "classes": 4}
    other = Network("nets/c.py:build", worn(build("cifar-resnet20", 4, seed=3), 2), (3, 32, 32), None, recipe)
    return [*found, Merged(other)]


@pytest.fixture
def folder(tmp_path):
    save_merged(tmp_path / "merged", merged())
    return tmp_path / "merged"


def state(module):
    return {path: value.clone() for path, value in module.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_every_model_comes_back_bit_for_bit_alone_and_together(folder):
    together = load_all(folder, FACTORIES)
    assert set(together) == set(names(folder)) == {"a", "b", "nets/c.py:build"}
    for one in merged():
        name = one.network.name
        alone = load_one(folder, name, FACTORIES.get(name))
        assert equal(state(alone), state(one.network.module))
        assert equal(state(together[name]), state(one.network.module))
        assert not alone.training


def test_what_is_shared_is_one_memory_after_loading_and_one_tensor_on_disk(folder):
    # Trap 4: equal values in separate files save nothing.
    models = {one.network.name: one.network.module for one in merged()}
    loaded = load_all(folder, FACTORIES)
    sharing = groups({name: models[name] for name in "ab"})
    assert len(sharing) >= 4
    for group in sharing:
        for tensor in group.signature.tensors:
            places = {getattr(loaded[one.model].get_submodule(one.layer), tensor).data_ptr() for one in group.instances}
            assert len(places) == 1
    assert unique_bytes(loaded.values()) <= unique_bytes(models.values())
    (segment,) = (folder / "tensors").iterdir()
    content = {value.numpy().tobytes() for one in models.values() for value in one.state_dict().values()}
    refs = read_header(segment)
    assert len({ref.digest for ref in refs}) == len(refs)
    assert sum(ref.nbytes for ref in refs) < sum(map(len, content)) + 100
    apart = sum(value.nbytes for one in models.values() for value in one.state_dict().values())
    assert segment.stat().st_size < apart - sum(group.saving for group in sharing) + (1 << 16)


def test_norm_statistics_are_not_aliased(folder):
    loaded = load_all(folder, FACTORIES)
    loaded["a"][1].running_mean.add_(1)
    again = load_all(folder, FACTORIES)
    assert not torch.equal(loaded["a"][1].running_mean, again["a"][1].running_mean)
    buffers = [one.data_ptr() for module in loaded.values() for one in module.buffers()]
    assert len(set(buffers)) == len(buffers)


def test_manifest_tells_what_is_known(folder):
    manifest = read_manifest(folder, "a")
    assert (manifest.accuracy, manifest.unmerged, manifest.target) == (0.9, 0.95, 0.9)
    assert manifest.input_shape == (1, 8, 8)
    assert set(manifest.parameters) | set(manifest.buffers) == set(merged()[0].network.module.state_dict())


def test_corrections_come_back(tmp_path):
    one = merged()[0]
    assert add_delta(one.network.module, "11", 2, torch.randn(64, 256))
    save_merged(tmp_path / "m", [one])
    loaded = load_one(tmp_path / "m", "a", FACTORIES["a"])
    images = digits()[0][:8]
    assert deltas(loaded) == {"11": 2}
    assert torch.equal(loaded(images), one.network.module(images))


def test_half_precision_comes_back(tmp_path):
    module = merged()[2].network.module.half()
    network = Network("h", module, (3, 32, 32), None, {"reference": "cifar-resnet20", "classes": 4})
    save_merged(tmp_path / "m", [Merged(network)])
    assert equal(state(load_one(tmp_path / "m", "h")), state(module))


def test_an_older_folder_is_replaced_whole_but_nothing_else_is(folder, tmp_path):
    save_merged(folder, merged()[2:])
    assert names(folder) == ("nets/c.py:build",)
    assert not [path for path in folder.parent.iterdir() if path != folder]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious").write_text("x")
    with pytest.raises(StoreError, match="holds no merged models"):
        save_merged(tmp_path / "other", merged())
    assert (tmp_path / "other" / "precious").read_text() == "x"


def test_two_models_of_one_name(tmp_path):
    with pytest.raises(StoreError, match="two models are called 'a'"):
        save_merged(tmp_path / "m", [merged()[0], merged()[0]])
    assert not (tmp_path / "m").exists()


def test_a_changed_tensor(folder):
    (segment,) = (folder / "tensors").iterdir()
    data = bytearray(segment.read_bytes())
    data[-5] ^= 1
    segment.write_bytes(data)
    with pytest.raises(StoreError, match="SHA-256"):
        load_all(folder, FACTORIES)


def test_a_missing_tensor(folder):
    (segment,) = (folder / "tensors").iterdir()
    segment.unlink()
    with pytest.raises(StoreError, match="lacks 25 tensors"):
        load_one(folder, "a", FACTORIES["a"])


def test_a_segment_cut_short_or_lying_about_its_size(folder):
    (segment,) = (folder / "tensors").iterdir()
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-64])
    with pytest.raises(StoreError, match="cut short"):
        load_one(folder, "a", FACTORIES["a"])
    segment.write_bytes((1 << 62).to_bytes(8, "little") + whole[8:])
    with pytest.raises(StoreError, match="not a safetensors"):
        load_one(folder, "a", FACTORIES["a"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "newer"),
        ({"version": 0}, "no manifest"),
        ({"format": "other"}, "no manifest"),
        ({"parameters": 3}, "no manifest"),
        ({"name": "b"}, "no manifest"),
    ],
)
def test_manifests_that_are_none(folder, change, message):
    path = folder / "models" / "a.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(StoreError, match=message):
        load_one(folder, "a", FACTORIES["a"])


def test_manifests_that_are_no_json_or_absent(folder):
    (folder / "models" / "a.json").write_bytes(b"[" * 100_000)
    with pytest.raises(StoreError, match="no manifest"):
        load_one(folder, "a", FACTORIES["a"])
    with pytest.raises(StoreError, match="has no model 'x'"):
        load_one(folder, "x")
    with pytest.raises(StoreError, match="holds no merged models"):
        load_all(folder / "tensors")
    with pytest.raises(StoreError, match="no model"):
        load_one(folder, "../models/b")


def test_tensors_that_do_not_fit_the_network(folder):
    with pytest.raises(ModelError, match="your own code"):
        load_one(folder, "a")
    with pytest.raises(ModelError, match="differs from the network"):
        load_one(folder, "a", FACTORIES["b"])
    with pytest.raises(ModelError, match="is stored with shape"):
        load_one(folder, "a", partial(seeded, 0, 1, 5, **SMALL))
    path = folder / "models" / "a.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "deltas": {"11": 10**9}}))
    with pytest.raises(ModelError, match="no layer '11' that takes"):
        load_one(folder, "a", FACTORIES["a"])


def initialisers(path):
    return {one.name: numpy_helper.to_array(one).tobytes() for one in onnx.load(path).graph.initializer}


def test_exported_models_answer_alike_and_their_shared_layers_stay_identical(folder, tmp_path):
    images = digits()[0][:4]
    shared = groups({name: one for name, one in load_all(folder, FACTORIES).items() if name in "ab"})
    files = {name: tmp_path / f"{name}.onnx" for name in "ab"}
    for name, file in files.items():
        export_onnx(folder, name, file, FACTORIES[name])
        module = load_one(folder, name, FACTORIES[name])
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        (output,) = session.run(None, {"input": images.numpy()})
        torch.testing.assert_close(torch.from_numpy(output), module(images).detach(), rtol=1e-3, atol=1e-4)
    held = {name: set(initialisers(file).values()) for name, file in files.items()}
    modules = load_all(folder, FACTORIES)
    for group in shared:
        weights = {
            modules[one.model].get_submodule(one.layer).weight.detach().numpy().tobytes() for one in group.instances
        }
        assert len(weights) == 1
        assert all(weights <= held[one.model] for one in group.instances)


def test_packed_for_serving_shared_layers_are_stored_once(folder, tmp_path):
    store = WeightStore(tmp_path / "cache")
    packed = {}
    for name in "ab":
        export_onnx(folder, name, tmp_path / f"{name}.onnx", FACTORIES[name])
        packed[name] = pack(tmp_path / f"{name}.onnx", store)
    apart = sum(sum(one.tensor_bytes.values()) for one in packed.values())
    union = {digest: size for one in packed.values() for digest, size in one.tensor_bytes.items()}
    could = sum(group.saving for group in groups({name: load_one(folder, name, FACTORIES[name]) for name in "ab"}))
    assert apart - sum(union.values()) > 0.95 * could
    with Session(packed["a"], store) as session:
        (output,) = session.run({"input": digits()[0][:2].numpy()})
    expected = load_one(folder, "a", FACTORIES["a"])(digits()[0][:2]).detach().numpy()
    assert np.allclose(output, expected, rtol=1e-3, atol=1e-4)


def flat(seed):
    """Linear layers with batch norms, one of them without a bias."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = [nn.Linear(64, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 40, bias=False), nn.BatchNorm1d(40)]
        module = nn.Sequential(*parts, nn.ReLU(), nn.Linear(40, 10))
        for norm in (module[1], module[4]):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
        return module.eval()


def test_norms_behind_linear_layers_do_not_change_them_either(tmp_path):
    models = {"a": flat(0), "b": flat(1)}
    for group in groups(models):
        tie(models, group, group.instances[0])
    save_merged(tmp_path / "m", [Merged(Network(name, one, (64,))) for name, one in models.items()])
    store, packed = WeightStore(tmp_path / "cache"), {}
    inputs = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    for name, module in models.items():
        export_onnx(tmp_path / "m", name, tmp_path / f"{name}.onnx", partial(flat, 2))
        packed[name] = pack(tmp_path / f"{name}.onnx", store)
        with Session(packed[name], store) as session:
            (output,) = session.run({"input": inputs.numpy()})
        torch.testing.assert_close(torch.from_numpy(output.copy()), module(inputs).detach(), rtol=1e-3, atol=1e-4)
    both = packed["a"].tensor_bytes.keys() & packed["b"].tensor_bytes.keys()
    assert sum(packed["a"].tensor_bytes[one] for one in both) >= 4 * (64 * 48 + 48 * 40 + 40 * 10)


def test_residual_networks_export_too(tmp_path):
    recipe = {"reference": "cifar-resnet20", "classes": 4}
    models = {name: worn(build("cifar-resnet20", 4, seed=seed), seed) for seed, name in enumerate("pq")}
    with torch.no_grad():
        for module in models.values():
            module(torch.randn(2, 3, 32, 32))
    for group in groups(models):
        tie(models, group, group.instances[0])
    save_merged(tmp_path / "m", [Merged(Network(name, one, (3, 32, 32), None, recipe)) for name, one in models.items()])
    contents = []
    for name, module in models.items():
        export_onnx(tmp_path / "m", name, tmp_path / f"{name}.onnx")
        contents.append(set(initialisers(tmp_path / f"{name}.onnx").values()))
        session = onnxruntime.InferenceSession(str(tmp_path / f"{name}.onnx"), providers=["CPUExecutionProvider"])
        images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        (output,) = session.run(None, {"input": images.numpy()})
        expected = module(images).detach()
        torch.testing.assert_close(
            torch.from_numpy(output), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max())
        )
    convolutions = [one.weight for one in models["p"].modules() if isinstance(one, nn.Conv2d)]
    assert all(one.detach().numpy().tobytes() in contents[0] & contents[1] for one in convolutions)


GROWTH = """
import pathlib, sys
import torch
from torch import nn
from edgeward.merge.store import load_all, load_one

def proportional_bytes():
    lines = pathlib.Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("Pss:")))

def factory(outputs):
    with torch.device("meta"):
        return nn.Sequential(nn.Linear(64, 1 << 16), nn.Linear(1 << 16, outputs))

folder = pathlib.Path(sys.argv[1])
factories = {name: (lambda outputs=index + 2: factory(outputs)) for index, name in enumerate("abc")}
before = proportional_bytes()
if sys.argv[2] == "together":
    held = load_all(folder, factories)
else:
    held = [load_one(folder, name, one) for name, one in factories.items()]
print(proportional_bytes() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="Linux tells a process's memory")
def test_the_process_holds_shared_layers_once(tmp_path):
    # Trap 4, in the memory that the system counts, of processes that do nothing else.
    models = {name: nn.Sequential(nn.Linear(64, 1 << 16), nn.Linear(1 << 16, i + 2)) for i, name in enumerate("abc")}
    (group,) = groups(models)
    tie(models, group, group.instances[0])
    save_merged(tmp_path / "m", [Merged(Network(name, one, (64,))) for name, one in models.items()])
    grown = {}
    for how in ("together", "apart"):
        command = [sys.executable, "-c", GROWTH, str(tmp_path / "m"), how]
        grown[how] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert grown["apart"] - grown["together"] > 0.9 * group.saving
