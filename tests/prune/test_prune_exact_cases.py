"""Exact conversion, case by case: what goes, what stays and why, and what is refused."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from exactnets import PICTURE, Transformer, masked
from torch import nn
from torch.nn import functional
from torch.nn.utils import prune as hooks

from edgeward.errors import PruneError
from edgeward.prune import exact
from edgeward.prune.exact import convert
from edgeward.zoo.convolutions import Head


def test_deleting_zero_filters_alone_changes_the_outputs():
    model = masked("chain", 0.0, dead=0.3)
    naive = convert(model, PICTURE, naive=True)
    assert not naive.difference.exact
    assert naive.difference.largest > 1e-3
    assert convert(model, PICTURE, tolerance=1e-11).difference.exact


def test_constants_across_zero_padding_ride_on_one_channel():
    model = masked("chain", 0.0)
    with torch.no_grad():
        model[0].weight[2:6] = 0
        model[0].bias[2:6] = torch.tensor([0.3, 2.0, -1.0, 0.7])
    converted = convert(model, PICTURE, tolerance=1e-11)
    assert converted.difference.exact
    assert converted.edits.kept["0"] == (0, 1, 3, 6, 7)  # the negative one is 0 behind the ReLU, 2.0 is the largest


def test_taps_that_never_meet_the_border_need_no_carrier():
    model = masked("chain", 0.0)
    with torch.no_grad():
        model[0].weight[2] = 0
        model[0].bias[2] = 1.0
        centre = model[2].weight[:, 2, 1, 1].clone()
        model[2].weight[:, 2] = 0
        model[2].weight[:, 2, 1, 1] = centre
    converted = convert(model, PICTURE, tolerance=1e-11)
    assert converted.difference.exact
    assert converted.removed == {"0": 1}


def test_a_bias_is_made_where_a_layer_has_none():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, bias=False), nn.ReLU(), Head(4, 2)).double()
    with torch.no_grad():
        model[0].weight[1] = 0
        model[0].bias[1] = 1.5
    converted = convert(model, PICTURE, tolerance=1e-11)
    assert converted.difference.exact
    assert converted.edits.tensors["2.bias"] == (4,)
    assert converted.module[2].bias is not None


def test_a_dead_layer_keeps_one_channel():
    model = masked("chain", 0.0)
    with torch.no_grad():
        model[5].weight.zero_()
    converted = convert(model, PICTURE, tolerance=1e-11)
    assert converted.difference.exact
    assert [converted.module[index].weight.shape[0] for index in (0, 2, 5)] == [1, 1, 1]
    assert len(converted.notes) >= 3


@pytest.mark.parametrize("fused", [True, False])
def test_dead_heads_go_whole(fused):
    model = masked(functools.partial(Transformer, fused=fused), 0.0)
    with torch.no_grad():
        model.first.qkv.weight[32 + 4 : 32 + 8] = 0  # the values of a head: it says its biases to everyone
        model.second.project.weight[:, 8:12] = 0  # nobody reads that head
    converted = convert(model, PICTURE, tolerance=1e-11)
    assert converted.difference.exact
    assert (converted.module.first.num_heads, converted.module.second.num_heads) == (3, 3)


def test_what_only_dead_channels_read_goes_too():
    model = masked("basic", 0.0)
    with torch.no_grad():
        model[2].conv2.weight[3] = 0
        model[3].conv1[0].weight.zero_()
    converted = convert(model, PICTURE, tolerance=1e-11)
    assert converted.difference.exact
    assert converted.module[3].conv1[0].weight.shape[0] == 1


def test_unseen_operations_and_shared_layers_are_left_alone():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.twice, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 1), nn.Linear(6, 3)

        def forward(self, x):
            x = torch.relu_(self.twice(torch.cumsum(torch.relu(self.stem(x)), dim=1)))
            return self.head(self.twice(x).amax((2, 3)))

    model = masked(Shared, 0.9, dead=0.5)
    converted = convert(model, PICTURE, tolerance=1e-11)
    assert converted.difference.exact
    assert converted.removed == {}


def test_writing_in_place_what_others_read_is_seen():
    class Overwrites(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.conv, self.head = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 1), nn.Linear(6, 3)

        def forward(self, x):
            x = self.stem(x)
            y = self.conv(functional.relu(x, inplace=True))
            return self.head((x + y).mean((2, 3)))

    for seed in range(8):
        assert convert(masked(Overwrites, 0.7, seed, dead=0.5), PICTURE, tolerance=1e-11).difference.exact


def test_a_difference_is_told_with_its_layer(monkeypatch):
    model = masked("chain", 0.0, dead=0.4)
    honest = exact.compensate

    def wrong(layer, *arguments, **options):
        honest(layer, *arguments, **options)
        if layer.name == "5":
            layer.module.weight.data *= 1.01

    monkeypatch.setattr(exact, "compensate", wrong)
    difference = convert(model, PICTURE).difference
    assert not difference.exact
    assert difference.layer == "5"
    assert "from 5 on" in str(difference)


def test_masks_in_hooks_and_broken_weights_are_refused():
    model = masked("chain", 0.0)
    hooks.random_unstructured(model[2], "weight", 0.5)
    with pytest.raises(PruneError, match=r"2 is still masked.*prune\.remove"):
        convert(model, PICTURE)
    model = masked("chain", 0.0)
    model[2].bias.data[1] = math.nan
    with pytest.raises(PruneError, match=r"2\.bias.*not finite"):
        convert(model, PICTURE)
