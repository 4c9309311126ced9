"""Exact conversion: equal outputs whatever is dead, and nothing left that could have gone."""

from __future__ import annotations

import functools
import itertools

import pytest
import torch
from exactnets import FAMILIES, PICTURE, chain, masked
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgeward.prune.exact import convert
from edgeward.prune.mask import Mask
from edgeward.prune.scope import prunable, select
from edgeward.vision.labelled import load_labelled
from edgeward.zoo.artefact import load_network, save_network
from edgeward.zoo.network import Network
from edgeward.zoo.pretrained import load_pretrained
from edgeward.zoo.pruned import Edits, edited
from edgeward.zoo.reference import build


def parameters(model):
    return sum(one.numel() for one in model.parameters())


@pytest.mark.parametrize("sparsity", [0.5, 0.9, 0.97, 0.99, 0.999])
@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_are_equal_at_any_sparsity(family, sparsity):
    model = masked(family, sparsity)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    converted = convert(model, PICTURE, tolerance=1e-11)
    assert converted.difference.exact, str(converted.difference)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert parameters(converted.module) <= parameters(model)
    assert bool(converted.removed) == (parameters(converted.module) < parameters(model))
    again = edited(FAMILIES[family]().double(), Edits.of_json(converted.edits.to_json())).eval()
    again.load_state_dict(converted.module.state_dict())
    assert torch.equal(again(PICTURE), converted.module(PICTURE))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    family=st.sampled_from(sorted(FAMILIES)),
    sparsity=st.sampled_from([0.0, 0.5, 0.9, 0.98]),
    dead=st.floats(0.05, 1.0),
    seed=st.integers(0, 10**6),
)
def test_dead_filters_with_biases_are_compensated(family, sparsity, dead, seed):
    model = masked(family, sparsity, seed, dead)
    converted = convert(model, PICTURE, tolerance=1e-10)
    assert converted.difference.exact, str(converted.difference)
    batch = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    assert torch.allclose(converted.module(batch), model(batch), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_converting_twice_changes_nothing_more(family):
    once = convert(masked(family, 0.95, dead=0.4), PICTURE).module
    twice = convert(once, PICTURE)
    assert twice.removed == {}
    assert twice.edits == Edits()
    assert twice.difference.largest == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_dead_nothing_changes(family):
    model = masked(family, 0.0)
    converted = convert(model, PICTURE)
    assert converted.removed == {}
    assert converted.edits == Edits()
    assert converted.difference.largest == 0
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in converted.module.state_dict().items())


@pytest.mark.parametrize("seed", range(12))
def test_no_channel_that_is_kept_could_go(seed):
    """Against brute force: drop each, put the mean of what it gave into its reader's bias, and see the outputs change."""
    # A ReLU or a maximum can hide what a channel gives, which no rule about weights can know.
    network = functools.partial(chain, nn.LeakyReLU, nn.AvgPool2d)
    small = convert(masked(network, 0.8, seed, dead=0.3), PICTURE).module
    batch = 3 * torch.randn(8, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    expected = small(batch)
    assert float(expected.detach().std(0).max()) > 1e-9
    layers = [module for module in small if isinstance(module, nn.Conv2d | nn.Linear)]
    for maker, reader in itertools.pairwise(layers):
        each = reader.weight.shape[1] // maker.weight.shape[0]  # columns of a flattened map belong to one channel
        for channel in range(maker.weight.shape[0]):
            if maker.weight.shape[0] > 1:
                columns = slice(channel * each, (channel + 1) * each)
                assert not _equal_without(small, reader, columns, batch, expected), f"{maker}: channel {channel}"


def _equal_without(network, reader, columns, batch, expected):
    outputs = []
    hook = reader.register_forward_hook(lambda _module, _given, made: outputs.append(made))
    weight = reader.weight[:, columns].clone()
    bare = reader.bias is None
    with torch.no_grad():
        network(batch)
        reader.weight[:, columns] = 0
        network(batch)
        hook.remove()
        shift = (outputs[0] - outputs[1]).transpose(0, 1).flatten(1).mean(1)
        old = reader.bias
        reader.bias = nn.Parameter(shift if bare else old + shift)
        found = bool((network(batch) - expected).abs().max() < 1e-6 * expected.std(0).max())
        reader.bias = old
        reader.weight[:, columns] = weight
    return found


def test_a_converted_network_reloads_from_its_folder_bit_for_bit(tmp_path):
    model = build("cifar-resnet20", seed=3).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.weight[::3] = 0
            elif isinstance(module, nn.BatchNorm2d):
                module.bias.fill_(0.5)
    picture = PICTURE.float()
    converted = convert(model, picture)
    assert converted.difference.exact
    assert converted.removed
    network = Network("small", converted.module, (3, 16, 16), recipe={"reference": "cifar-resnet20"})
    save_network(network, tmp_path / "small", edits=converted.edits)
    assert torch.equal(load_network(tmp_path / "small").module(picture), converted.module(picture))


def test_a_trained_network_answers_the_same_on_real_pictures(shared_data):
    model = build("cifar-resnet20")
    load_pretrained(model, shared_data / "cifar10" / "resnet20-12fca82f.th")
    model.eval()
    alive = Mask.ones(model, prunable(model))
    magnitudes = {name: model.get_parameter(name).detach().abs() for name in alive.tensors}
    select(magnitudes, alive, 0.03).apply_(model)
    data = load_labelled(shared_data / "cifar10" / "cifar10_jpeg_test1k.npz").fitted((3, 32, 32))
    images, _ = next(iter(data.batches(200)))
    converted = convert(model, images[:1], inputs=(images,))
    assert converted.difference.exact, str(converted.difference)
    assert sum(converted.removed.values()) > 20
    assert torch.equal(converted.module(images).argmax(1), model(images).argmax(1))
