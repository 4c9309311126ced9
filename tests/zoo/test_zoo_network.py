"""Networks by what a user calls them."""

from __future__ import annotations

import json

import pytest
import torch

from edgeward.errors import ConfigError, ModelError
from edgeward.graph.chain import cut
from edgeward.zoo.network import example_of, open_network
from edgeward.zoo.packaged import PACKAGED

OWN = """
from torch import nn
INPUT_SHAPE = (3, 8, 8)
def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
def wrong():
    return 3
def fails():
    raise RuntimeError("no weights here")
"""


def test_a_factory_in_the_users_file(tmp_path):
    path = tmp_path / "nets.py"
    path.write_text(OWN)
    network = open_network(f"{path}:build")
    assert network.sample_shape == (3, 8, 8)
    assert network.module(example_of(network, None, 2)).shape == (2, 4, 6, 6)
    assert torch.equal(open_network(f"{path}:build").module[0].weight, network.module[0].weight)
    for name, message in (("wrong", "returns int"), ("fails", "no weights here"), ("buil", "did you mean 'build'")):
        with pytest.raises(ModelError, match=message):
            open_network(f"{path}:{name}")
    path.write_text("import nothing_of_that_name")
    with pytest.raises(ModelError, match="fails when it is run"):
        open_network(f"{path}:build")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnet5", "did you mean 'resnet50'"),
        ("os:system", "outside your own file"),
        ("nets.py", "nets.py:NAME"),
        ("weights.pth", "no network that can be cut"),
        ("ssdlite", "did you mean 'ssdlite-person'"),
    ],
)
def test_what_is_no_network(spec, message):
    with pytest.raises(ConfigError, match=message):
        open_network(spec)
    with pytest.raises(ModelError, match="does not exist"):
        open_network("absent.py:build")


def test_a_packaged_model_is_a_network_with_its_weights():
    if PACKAGED["ssdlite-person"].member.locate() is None:
        pytest.skip(PACKAGED["ssdlite-person"].member.install)
    network = open_network("ssdlite-person")
    example = example_of(network, None, 1)
    assert (network.name, network.recipe, tuple(example.shape)) == ("ssdlite-person", None, (1, 3, 300, 300))
    with torch.no_grad():
        ours, theirs = network.module(example), PACKAGED["ssdlite-person"].load()(example)
    assert all(map(torch.equal, ours, theirs))


@pytest.mark.parametrize("name", ["nanodet", "centernet"])
def test_detectors_from_files_can_be_cut(shared_data, name):
    with pytest.raises(ModelError, match=f"as a network write {name}=FILE"):
        open_network(name)
    with pytest.raises(ModelError, match=r"absent\.json"):
        open_network(f"{name}=absent.json")
    network = open_network(f"{name}={shared_data}/detectors/{name}/{name}.json")
    assert network.name == name
    chain = cut(network.module, example_of(network, None, 1))  # refuses blocks that do not repeat the network
    assert len(chain) >= 8
    parameters = [cost.parameters for cost in chain.costs]
    assert sum(count > 0 for count in parameters) >= 4


def test_inputs():
    network = open_network("cifar-resnet20")
    assert example_of(network, "3x16x16", 2).shape == (2, 3, 16, 16)
    for shape in ("3x", "0x3", "99999x99999x99"):
        with pytest.raises(ConfigError):
            example_of(network, shape, 1)


def test_a_transformers_config(tmp_path):
    pytest.importorskip("transformers", reason="the llm extra is not installed")
    record = {
        "model_type": "bert", "architectures": ["BertModel"], "vocab_size": 50, "hidden_size": 16,
        "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(record))
    network = open_network(str(tmp_path))
    assert network.module(example_of(network, "7", 2)).last_hidden_state.shape == (2, 7, 16)
    from safetensors.torch import save_file

    save_file({"other": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="does not fit"):
        open_network(str(tmp_path))
    for change, message in (
        ({"architectures": ["Nothing"]}, "no architecture"),
        ({"model_type": None}, "names no"),
        ({"hidden_size": 15}, "cannot be built"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(record | change))
        with pytest.raises(ModelError, match=message):
            open_network(str(tmp_path))
