"""Removed channels: the smaller network equals the dense one in which nothing reads them."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from torch import nn
from torch.nn import functional

from edgeward.errors import PruneError
from edgeward.prune.channels import Channels
from edgeward.prune.cutting import parameters_without
from edgeward.prune.remove import remove
from edgeward.zoo.pruned import Edits, edited
from edgeward.zoo.reference import build


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def settled(network):
    """In eval mode, with norms and biases that a wrong index would show in."""
    generator = torch.Generator().manual_seed(5)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    for parameter in network.parameters():
        if parameter.dim() == 1:
            parameter.data.add_(torch.empty_like(parameter).uniform_(-0.1, 0.1, generator=generator))
    return network.eval()


def chosen(channels, share=0.35, seed=0):
    """Random units of every group that may lose some: as `remove` takes them, and their slots."""
    rng = random.Random(seed)
    wanted, slots = {}, []
    for group in channels.groups:
        if group.prunable and group.size > 1:
            units = rng.sample(range(group.size), max(1, int(group.size * share)))
            for layer, outputs in group.channels(units).items():
                wanted.setdefault(layer, []).extend(outputs)
            slots += [slot for unit in units for slot in group.units[unit]]
    return wanted, slots


def unread(model, slots):
    """The dense network with zeros where layers read these channels."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for layer, axis, index in slots:
            if axis != "in":
                continue
            module = model.get_submodule(layer)
            if getattr(module, "groups", 1) == 1:
                module.weight[:, index] = 0
            else:
                group, place = divmod(index, module.in_channels // module.groups)
                each = module.out_channels // module.groups
                module.weight[group * each : (group + 1) * each, place] = 0
    return model


def size(model):
    return sum(parameter.numel() for parameter in model.parameters())


def agree(model, x, *, tolerance=1e-5, seed=0):
    channels = Channels.of(model, x[:1])
    wanted, slots = chosen(channels, seed=seed)
    removed = remove(model, x[:1], wanted, channels)
    with torch.no_grad():
        expected, dense, ours = unread(model, slots)(x), model(x), removed.module(x)
    scale = expected.abs().max()
    assert (ours - expected).abs().max() <= tolerance * scale
    assert (dense - expected).abs().max() > 100 * tolerance * scale  # what was removed did matter
    assert size(removed.module) == parameters_without(model, slots) < 0.85 * size(model)
    return channels, removed


SIDES = {"cifar-vgg16": 32, "cifar-resnet20": 32, "resnet18": 32, "resnet50": 32, "densenet121": 32}
SIDES |= {"mobilenet-v2": 64, "inception-v3": 80, "nasnet-mobile": 64}


@pytest.mark.parametrize("name", SIDES)
def test_reference_networks(name):
    model = settled(build(name, 10, seed=1))
    x = torch.rand(2, 3, SIDES[name], SIDES[name], generator=torch.Generator().manual_seed(2))
    channels, removed = agree(model, x)
    assert [group.fixed for group in channels.groups if group.fixed] == ["they are the network's output"]
    covered = {layer for group in channels.groups for layer in group.producers}
    layers = {path for path, one in model.named_modules() if isinstance(one, nn.Conv2d | nn.Linear)}
    assert layers <= covered  # no layer is overlooked
    again = edited(build(name, 10, seed=4), Edits.of_json(removed.edits.to_json())).eval()
    again.load_state_dict(removed.module.state_dict())
    with torch.no_grad():
        assert torch.equal(again(x), removed.module(x))


class Odd(nn.Module):
    """Grouped convolution, group norm, squeeze and excite, concatenation, a bare scale, flatten, transposed."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.grouped = nn.Conv2d(12, 24, 3, padding=1, groups=3, bias=False)
        self.norm = nn.BatchNorm2d(24)
        self.multiplied = nn.Conv2d(24, 48, 3, padding=1, groups=24)
        self.squeeze = nn.Linear(48, 6)
        self.excite = nn.Linear(6, 48)
        self.scale = nn.Parameter(torch.rand(1, 48, 1, 1) + 0.5)
        self.up = nn.ConvTranspose2d(48, 10, 2, stride=2)
        self.side = nn.Conv2d(3, 7, 1)
        self.prelu = nn.PReLU(17)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(17 * 16, 11), nn.ReLU(), nn.Linear(11, 5))

    def forward(self, x):
        y = self.multiplied(self.norm(self.grouped(torch.relu(self.stem(x)))))
        gate = self.excite(torch.relu(self.squeeze(y.mean((2, 3))))).sigmoid()
        y = self.up(torch.relu(y * gate[:, :, None, None] * self.scale))
        both = torch.cat([y, self.side(functional.interpolate(x, scale_factor=2.0))], dim=1)
        return self.head(functional.adaptive_avg_pool2d(self.prelu(both), 4))


@pytest.mark.parametrize("seed", range(3))
def test_every_kind_of_layer(seed):
    torch.manual_seed(seed)
    model = settled(Odd())
    channels = Channels.of(model, torch.rand(1, 3, 8, 8))
    x = torch.rand(2, 3, 8, 8)
    wanted, slots = chosen(channels, seed=seed)
    transposed = [slot for slot in slots if slot[0] == "up" and slot[1] == "in"]
    removed = remove(model, x, wanted, channels)
    reference = unread(model, [slot for slot in slots if slot not in transposed])
    with torch.no_grad():
        for _, _, index in transposed:
            reference.up.weight[index] = 0
        torch.testing.assert_close(removed.module(x), reference(x), rtol=1e-5, atol=1e-6)
    grouped = removed.module.grouped
    assert grouped.groups == 3
    assert (grouped.in_channels % 3, grouped.out_channels % 3) == (0, 0)
    assert removed.module.multiplied.groups == removed.module.multiplied.in_channels < 24
    assert removed.module.scale.shape[1] == removed.module.multiplied.out_channels
    assert removed.module.prelu.num_parameters == removed.module.up.out_channels + removed.module.side.out_channels


def test_the_model_stays_as_it_was():
    model = build("cifar-resnet20").train()
    frozen = model.stem.conv.weight.requires_grad_(False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(3)
    state = torch.get_rng_state()
    removed = remove(model, torch.rand(1, 3, 32, 32, generator=torch.Generator()), {"stage1.0.conv1.conv": [0]})
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.training
    assert not frozen.requires_grad
    assert not removed.module.stem.conv.weight.requires_grad
    assert removed.module.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_twice_is_once_relative_to_the_dense_network():
    model, x = settled(build("cifar-resnet20", seed=2)), torch.rand(2, 3, 32, 32)
    first = agree(model, x, seed=1)[1]
    second = agree(first.module, x, seed=2)[1]
    both = first.edits.then(second.edits)
    again = edited(model, both)
    again.load_state_dict(second.module.state_dict())
    with torch.no_grad():
        assert torch.equal(again(x), second.module(x))
    for name, reads in (("stage2.0.conv1.conv", "stage1.2.conv2"), ("stage1.2.conv1.conv", "stem.conv")):
        kept, columns = torch.tensor(both.kept[name]), torch.tensor(both.kept[reads])
        ours, dense = second.module.get_submodule(name).weight, model.get_submodule(name).weight
        assert torch.equal(ours, dense[kept][:, columns])
    assert both.kept["stage2.0.shortcut.pad"]


def test_mistakes_are_named():
    model, x = build("cifar-resnet20"), torch.rand(1, 3, 32, 32)
    channels = Channels.of(model, x)
    for wanted, message in (
        ({"stage1.0.conv1.con": [0]}, r"no layer 'stage1.0.conv1.con'.*did you mean 'stage1.0.conv1.conv'"),
        ({"stage1.0.conv1.conv": [16]}, r"no output channel 16; its channels are 0 to 15"),
        ({"stage1.0.conv1.conv": [-1]}, r"no output channel -1"),
        ({"stage1.0.conv1.conv": range(16)}, r"stage1.0.conv1.conv would lose all 16"),
        ({"head.classifier": [1]}, r"no channel of head.classifier can be removed: they are the network's output"),
    ):
        with pytest.raises(PruneError, match=message):
            remove(model, x, wanted, channels)
    with pytest.raises(PruneError, match=r"cannot be traced with \[1, 4, 32, 32\]"):
        remove(model, torch.rand(1, 4, 32, 32), {})
    normed = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 6)), nn.ReLU(), nn.Linear(6, 2))
    with pytest.raises(PruneError, match="0 has no plain weight"):
        remove(normed, torch.rand(1, 4), {"0": [1]})


def test_removing_nothing_changes_nothing():
    model, x = build("cifar-vgg16").eval(), torch.rand(1, 3, 32, 32)
    removed = remove(model, x, {"stage1.conv1.conv": []})
    assert removed.edits == Edits()
    with torch.no_grad():
        assert torch.equal(removed.module(x), model(x))
