"""Networks as folders: bit-identical in another process, shipped to hosts, and refused when they are not whole."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from edgeward.errors import EdgewardError, ModelError, StoreError
from edgeward.graph.chain import CutOptions, cut
from edgeward.prune.channels import Channels
from edgeward.prune.folding import folded
from edgeward.prune.remove import remove
from edgeward.split.network import _recipe
from edgeward.wire.package import Package, torch_package
from edgeward.zoo.artefact import Extras, load_edits, load_network, load_report, save_network
from edgeward.zoo.network import Network, network_of_recipe, open_network, pruned_recipe
from edgeward.zoo.pruned import Edits

X = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pruned(name="cifar-resnet20", x=X):
    dense = open_network(name)
    dense.module.train()
    with torch.no_grad():
        dense.module(x)  # running statistics of its own
    dense.module.eval()
    channels = Channels.of(dense.module, x)
    wanted = {}
    for group in channels.groups:
        if group.prunable:
            wanted |= group.channels(range(0, group.size, 3))
    return dense, remove(dense.module, x, wanted, channels)


def saved(folder, dense, removed, **others):
    network = Network("small", removed.module, dense.sample_shape, recipe=dense.recipe)
    save_network(network, folder, removed.edits, **others)


READ = """
import sys, torch
from safetensors.torch import load_file, save_file
from edgeward.zoo.network import open_network
torch.set_num_threads(1)
network = open_network(sys.argv[1])
with torch.no_grad():
    answers = network.module(load_file(sys.argv[2])["x"])
save_file({"answers": answers, **{k: v.clone() for k, v in network.module.state_dict().items()}}, sys.argv[3])
print(network.name, network.sample_shape, network.module.training)
"""


def test_another_process_gets_the_same_bits(tmp_path):
    dense, removed = pruned()
    saved(tmp_path / "small", dense, removed, extras=Extras(report={"top1": 0.5}))
    save_file({"x": X}, tmp_path / "x")
    args = [sys.executable, "-c", READ, tmp_path / "small", tmp_path / "x", tmp_path / "out"]
    done = subprocess.run(args, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(tmp_path / "small"), "(3,", "32,", "32)", "False"]
    theirs = load_file(tmp_path / "out")
    with torch.no_grad():
        assert torch.equal(theirs.pop("answers"), removed.module(X))
    state = removed.module.state_dict()
    assert set(theirs) == set(state)
    assert all(torch.equal(theirs[key], state[key]) and theirs[key].dtype == state[key].dtype for key in state)
    assert load_report(tmp_path / "small") == {"top1": 0.5}
    assert sorted(path.name for path in (tmp_path / "small").iterdir()) == [
        "config.json",
        "model.safetensors",
        "profile.json",
    ]


def test_pruned_folded_and_pruned_again(tmp_path):
    dense, removed = pruned("cifar-vgg16")
    saved(tmp_path / "first", dense, removed)
    first = open_network(str(tmp_path / "first"))
    flat = folded(first.module, X)
    save_network(Network("flat", flat.module, (3, 32, 32), recipe=first.recipe), tmp_path / "flat", flat.edits)
    second = open_network(str(tmp_path / "flat"))
    with torch.no_grad():
        assert torch.equal(second.module(X), flat.module(X))
        torch.testing.assert_close(second.module(X), removed.module(X), rtol=1e-4, atol=1e-4)
    last = remove(second.module, X, {"stage1.conv1.conv": [0]})
    save_network(Network("last", last.module, (3, 32, 32), recipe=second.recipe), tmp_path / "first", last.edits)
    third = open_network(str(tmp_path / "first"))  # in the place of the older one
    assert load_network(tmp_path / "first").name == "last"
    assert third.name == str(tmp_path / "first")  # where a plan for it finds it again
    assert third.recipe["pruned"]["base"] == {"reference": "cifar-vgg16"}
    kept = third.recipe["pruned"]["edits"]["kept"]["stage1.conv1.conv"]
    assert kept == [i for i in range(64) if i % 3][1:]
    with torch.no_grad():
        assert torch.equal(third.module(X), last.module(X))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "flat"]  # nothing left behind


@pytest.mark.parametrize(("name", "side"), [("cifar-resnet20", 32), ("vit-tiny", 224)])
def test_it_ships_in_pieces_like_any_other(tmp_path, name, side):
    x = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(2))
    dense, removed = pruned(name, x)
    saved(tmp_path / "small", dense, removed)
    network = open_network(str(tmp_path / "small"))
    chain = cut(network.module, x)
    recipe = _recipe(network, x, CutOptions())
    middle, last = len(chain) // 2, len(chain) - 1
    values = chain.activations()[middle]
    package = torch_package(chain, recipe, network.name, middle, last)
    stage = Package.of_message(package.to_message()).open(threads=1)
    [answer] = stage([value.detach().numpy() for value in values])
    with torch.no_grad():
        assert torch.equal(torch.from_numpy(answer), removed.module(x))


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.b(self.a(x).relu())


def test_the_users_own_code_needs_its_factory(tmp_path):
    model, x = Own().half(), torch.rand(3, 4).half()
    removed = remove(model, x, {"a": [1, 4]})
    save_network(Network("nets.py:Own", removed.module, (4,)), tmp_path / "own", removed.edits)
    with pytest.raises(ModelError, match=r"your own code \(nets.py:Own\).*factory="):
        open_network(str(tmp_path / "own"))
    with pytest.raises(ModelError, match="returns int"):
        load_network(tmp_path / "own", factory=lambda: 3)
    with pytest.raises(ModelError, match="the network has no module"):
        load_network(tmp_path / "own", factory=lambda: nn.Linear(4, 2))
    network = load_network(tmp_path / "own", factory=Own)
    assert network.recipe is None
    assert torch.equal(network.module(x), removed.module(x))
    assert load_edits(tmp_path / "own") == removed.edits
    twice = remove(network.module, x, {"a": [0]})
    save_network(
        Network("nets.py:Own", twice.module, (4,)), tmp_path / "own", load_edits(tmp_path / "own").then(twice.edits)
    )
    assert torch.equal(load_network(tmp_path / "own", factory=Own).module(x), twice.module(x))


def test_networks_of_transformers(tmp_path):
    pytest.importorskip("transformers", reason="the llm extra is not installed")
    record = {
        "model_type": "vit", "architectures": ["ViTForImageClassification"], "hidden_size": 24, "num_hidden_layers": 1,
        "num_attention_heads": 3, "intermediate_size": 32, "image_size": 32, "patch_size": 16,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(record))
    dense = open_network(str(tmp_path))
    channels = Channels.of(dense.module, X)
    wanted = {}
    for group in channels.groups:
        if group.prunable:
            wanted |= group.channels([1])
    removed = remove(dense.module.eval(), X, wanted, channels)
    saved(tmp_path / "small", dense, removed)
    small = open_network(str(tmp_path / "small"))
    assert small.recipe["pruned"]["base"]["config"] == record
    with torch.no_grad():
        assert torch.equal(small.module(X).logits, removed.module(X).logits)


def test_recipes():
    assert network_of_recipe({"reference": "cifar-resnet20", "classes": 7}).head.classifier.out_features == 7
    dense, removed = pruned()
    recipe = pruned_recipe(dense.recipe, removed.edits)
    assert recipe == json.loads(json.dumps(recipe))
    twice = pruned_recipe(recipe, remove(removed.module, X, {"stage1.0.conv1.conv": [0]}).edits)
    assert twice["pruned"]["base"] == dense.recipe
    good = recipe["pruned"]["edits"]

    def with_edits(**changes):
        return {"pruned": {"base": {"reference": "cifar-resnet20"}, "edits": good | changes}}

    for wrong, message in (
        ({"reference": "cifar-resnet20", "classes": 0}, "0 classes"),
        ({"reference": "cifar-resnet20", "classes": "7"}, "'7' classes"),
        ({"pruned": {"base": recipe, "edits": good}}, "no pruned one"),
        ({"pruned": [1]}, "'base'"),
        ({"pruned": {"base": {"reference": "cifar-resnet20"}}}, "malformed"),
        (with_edits(tensors={"stem.conv.weight": [16, 3, 3, 4]}), "does not contain"),
        (with_edits(tensors={"stem.conv.weight": [0, 3, 3, 3]}), "at least 1"),
        (with_edits(tensors={"stem.conv.weight": [True, 3, 3, 3]}), "at least 1"),
        (with_edits(tensors={"stem.conv.bias": [1 << 40]}), "the layer has"),
        (with_edits(tensors={"stem.nothing": [1]}), "no tensor 'stem.nothing'"),
        (with_edits(tensors={"stam.conv.weight": [1]}), "did you mean 'stem.conv'"),
        (with_edits(attributes={"stem.conv.out_channels": 17}), "never enlarge"),
        (with_edits(attributes={"stem.conv.forward": 1}), "whole numbers only"),
        (with_edits(attributes={"stem.conv._modules": 1}), "whole numbers only"),
        (with_edits(attributes={"stem.conv.out_channels": 1.5}), "whole numbers"),
        (with_edits(attributes={"stem.conv.stride": 1}), "whole numbers only"),
        (with_edits(identities=["stem.nothing"]), "no module 'stem.nothing'"),
        (with_edits(kept={"stem.conv": [1, 1]}), "each of them once"),
        (with_edits(kept=[1]), "malformed"),
    ):
        with pytest.raises(EdgewardError, match=message):
            network_of_recipe(wrong)
    assert Edits.of_json(good) == removed.edits


def test_folders_that_are_not_whole(tmp_path):
    dense, removed = pruned()
    folder = tmp_path / "small"
    saved(folder, dense, removed, extras=Extras(report={}))
    config, weights = folder / "config.json", folder / "model.safetensors"
    record, data = json.loads(config.read_text()), weights.read_bytes()

    def refused(message, *, opener=lambda: open_network(str(folder))):
        with pytest.raises(ModelError, match=message):
            opener()

    for change, message in (
        ({"version": 2}, r"version 2; this edgeward reads up to 1: install a newer"),
        ({"format": "other"}, "not of the format 'edgeward-network'"),
        ({"sha256": {}}, "malformed"),
        ({"sha256": {"model.safetensors": "", "../../etc/passwd": ""}}, "malformed"),
        ({"input_shape": [3, -1]}, "malformed"),
        ({"recipe": None}, "malformed"),
        ({"recipe": {"pruned": {"base": {"reference": "resnet5O"}, "edits": {}}}}, "malformed"),
    ):
        config.write_text(json.dumps(record | change))
        refused(message)
    config.write_text("{")
    refused("not JSON")
    config.write_text(json.dumps(record))
    (folder / "profile.json").unlink()
    refused("incomplete: profile.json is missing")
    del record["sha256"]["profile.json"]
    config.write_text(json.dumps(record))
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    refused("was changed after it was saved")
    other = {"a": torch.zeros(3)}
    save_file(other, weights)
    record["sha256"]["model.safetensors"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    config.write_text(json.dumps(record))
    refused("does not fit its config")
    weights.unlink()
    refused("incomplete: model.safetensors is missing")
    config.unlink()
    refused("no network of edgeward", opener=lambda: load_network(folder))


def test_a_network_with_other_files_beside_it_is_not_replaced(tmp_path):
    dense, removed = pruned()
    folder = tmp_path / "small"
    for _ in range(2):  # its own files may be replaced
        save_network(Network("small", removed.module, (3, 32, 32), recipe=dense.recipe), folder, removed.edits)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match="choose another place"):
        save_network(Network("small", removed.module, (3, 32, 32), recipe=dense.recipe), folder, removed.edits)
    assert (folder / "notes.txt").read_text() == "mine"
    with pytest.raises(StoreError, match="is a file"):
        save_network(Network("small", removed.module, (3, 32, 32)), folder / "notes.txt" / "below")


def test_what_is_there_is_not_lost(tmp_path, monkeypatch):
    dense, removed = pruned()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years")
    with pytest.raises(StoreError, match="no network of edgeward; choose another place"):
        saved(mine, dense, removed)
    folder = tmp_path / "small"
    saved(folder, dense, removed)
    before = (folder / "config.json").read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edgeward.zoo.artefact.save_file", full)
    with pytest.raises(StoreError, match="No space left"):
        saved(folder, dense, removed)
    assert (folder / "config.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "small"]
