"""Groups of coupled channels: what goes together, and what is told to stay."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn
from torch.nn import functional

from edgeward.errors import PruneError
from edgeward.prune.channels import Channels
from edgeward.prune.remove import remove
from edgeward.zoo.reference import build


def groups_of(model, x):
    return {group.name: group for group in Channels.of(model, x).groups}


def test_residual_additions_bind_their_branches():
    groups = groups_of(build("resnet18", 10), torch.rand(1, 3, 64, 64))
    model = build("resnet18", 10)
    stream = next(group for group in groups.values() if len(group.producers) > 4 and group.size == 64)
    assert {name.split(".")[0] for name in stream.producers} >= {"stem", "stage1"}
    assert all(getattr(model.get_submodule(name), "out_channels", 64) == 64 for name in stream.producers)
    inner = groups["stage1.0.conv1.conv"]
    assert inner.size == 64
    assert inner.consumers == ("stage1.0.conv2",)
    assert len(groups) == 13  # stem and four streams share four groups, eight inner widths, the classifier


def test_concatenation_keeps_groups_apart_and_depthwise_binds():
    x = torch.rand(1, 3, 64, 64)
    dense = groups_of(build("densenet121", 10), x)
    assert all(group.size in (32, 64, 128, 256, 512, 10) for group in dense.values())
    layers = {path: one for path, one in build("densenet121", 10).named_modules() if isinstance(one, nn.Conv2d)}
    assert set(dense) == {*layers, "head.classifier"}  # each convolution has its own channels
    assert len(dense["block1.0.conv2"].consumers) == 6  # five later layers of the block, and the transition
    mobile = groups_of(build("mobilenet-v1", 10), x)
    depthwise = [path for path, one in build("mobilenet-v1", 10).named_modules() if getattr(one, "groups", 1) > 1]
    assert not set(depthwise) & set(mobile)  # never first of a group: each belongs to the layer before it
    assert {name for group in mobile.values() for name in group.producers} >= set(depthwise)


def test_padding_with_channels_of_zeros():
    groups = groups_of(build("cifar-resnet20"), torch.rand(1, 3, 32, 32))
    stream = groups["stem.conv"]
    assert (stream.size, stream.prunable) == (64, True)
    assert [len(kind) for kind in stream.kinds] == [16, 16, 32]  # those of stage 1, and zeros that each stage adds
    layers = [len({layer for layer, _, _ in stream.units[kind[0]]}) for kind in stream.kinds]
    assert layers[0] > layers[1] > layers[2]


class Coded(nn.Module):
    """Code of its own relies on how many channels there are."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.a = nn.Conv2d(3, 8, 1)
        self.b = nn.Conv2d(8, 8, 1)
        self.c = nn.Conv2d(8 if how != "split" else 4, 6, 1)
        self.d = nn.Conv2d(6, 2, 1)

    def forward(self, x):
        y = self.a(x)
        if self.how == "split":
            left, right = self.b(y).split(4, dim=1)
            y = left * right
        elif self.how == "shuffle":
            n, _, h, w = y.shape
            y = self.b(y.view(n, 2, 4, h, w).transpose(1, 2).reshape(n, 8, h, w))
        elif self.how == "input":
            y = self.b(y + x.repeat(1, 3, 1, 1)[:, :8])
        elif self.how == "pad":
            y = self.b(functional.pad(y[:, :6], (0, 0, 0, 0, 1, 1)))
        elif self.how == "softmax":
            y = self.b(y.softmax(1))
        return self.d(self.c(y))


@pytest.mark.parametrize(
    ("how", "fixed"),
    [("split", "b"), ("shuffle", "a"), ("input", "a"), ("pad", "a"), ("softmax", "a"), ("plain", None)],
)
def test_what_the_code_relies_on_stays_and_the_rest_can_go(how, fixed):
    torch.manual_seed(0)
    model, x = Coded(how).eval(), torch.rand(1, 3, 5, 5)
    groups = groups_of(model, x)
    assert groups["d"].fixed == "they are the network's output"
    assert {name for name, group in groups.items() if group.fixed} - {"d"} == ({fixed} if fixed else set())
    if fixed:
        with pytest.raises(PruneError, match=f"no channel of {fixed} can be removed: "):
            remove(model, x, {fixed: [0]})
    smaller = remove(model, x, {"c": [0, 5]}).module
    assert smaller(x).shape == model(x).shape
    assert smaller.c.out_channels == 4


def test_outputs_in_the_middle_stay():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 6)

        def forward(self, x):
            y = self.a(x).relu()
            z = self.b(y)
            return {"features": z, "logits": [self.c(z.relu())]}

    groups = groups_of(Two(), torch.rand(2, 3))
    assert [name for name, group in groups.items() if group.prunable] == ["a"]


def test_a_layer_that_runs_twice_and_tied_weights():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.mid, self.b = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)
            self.twin = nn.Linear(4, 4)
            self.twin.weight = self.mid.weight

        def forward(self, x):
            return self.b(self.twin(self.mid(self.mid(self.a(x)).relu()).relu()))

    torch.manual_seed(0)
    model, x = Shared(), torch.rand(5, 3)
    groups = groups_of(model, x)
    prunable = [group for group in groups.values() if group.prunable]
    for group in prunable:
        removed = remove(model, x, group.channels([1])).module
        assert removed(x).shape == (5, 2)
        assert removed.twin.weight is removed.mid.weight


def test_resnet50_is_quick():
    model, x = build("resnet50"), torch.rand(1, 3, 224, 224)
    seconds = []
    for _ in range(2):
        start = time.thread_time()
        channels = Channels.of(model, x)
        remove(model, x, {group.name: range(group.size // 2) for group in channels.groups if group.prunable}, channels)
        seconds.append(time.thread_time() - start)
    assert min(seconds) < 5
