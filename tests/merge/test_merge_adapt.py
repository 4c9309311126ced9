"""Corrections beside shared layers, and channels brought into another's order: what they change and what not."""

from __future__ import annotations

import copy

import pytest
import torch
from mergenets import digits, seeded, worn
from torch import nn

from edgeward.errors import PlanError
from edgeward.merge.align import align, matching
from edgeward.merge.deltas import add_delta, deltas, remove_delta
from edgeward.zoo.reference import build

SMALL = {"hidden": (32, 16), "channels": (4, 8)}
IMAGES = digits()[0][:8]


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(12, 20), (3, 12)),
        (nn.Conv1d(6, 8, 3, padding=1), (2, 6, 9)),
        (nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False), (2, 6, 9, 9)),
        (nn.Conv2d(6, 8, 3, padding="same", padding_mode="reflect", dilation=2), (2, 6, 9, 9)),
        (nn.Conv3d(4, 8, 2), (2, 4, 5, 5, 5)),
    ],
)
def test_a_correction_is_a_change_of_the_weight_of_low_rank(layer, shape):
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(layer)
    before, weight, parameter = model(inputs), layer.weight.detach().clone(), layer.weight
    generator = torch.Generator().manual_seed(1)
    flat = torch.randn(weight.shape[0], 2, generator=generator) @ torch.randn(2, weight[0].numel(), generator=generator)
    assert add_delta(model, "0", 2)
    torch.testing.assert_close(model(inputs), before)
    assert add_delta(model, "0", 2, weight + flat.view_as(weight))
    assert deltas(model) == {"0": 2}
    assert layer.weight is parameter
    assert torch.equal(layer.weight, weight)
    plain = copy.deepcopy(model)
    remove_delta(plain, "0")
    torch.testing.assert_close(plain(inputs), before)
    with torch.no_grad():
        plain[0].weight.add_(flat.view_as(weight))
    torch.testing.assert_close(model(inputs), plain(inputs), rtol=1e-3, atol=1e-4)


def test_a_correction_is_the_best_of_its_rank():
    model, wanted = nn.Sequential(nn.Linear(30, 20)), torch.randn(20, 30, generator=torch.Generator().manual_seed(2))
    difference = wanted - model[0].weight.detach()
    for rank in (1, 3, 6):
        add_delta(model, "0", rank, wanted)
        left = torch.linalg.svdvals(difference)[rank:].square().sum().sqrt()
        torch.testing.assert_close(
            (difference - model[0].up @ model[0].down).norm().detach(), left, rtol=1e-4, atol=1e-4
        )


def test_both_halves_of_a_correction_learn():
    model = nn.Sequential(nn.Linear(12, 20))
    add_delta(model, "0", 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    down = model[0].down.detach().clone()
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.ones(2, 12)).square().sum().backward()
        optimizer.step()
    assert model[0].up.abs().sum() > 0
    assert not torch.equal(model[0].down, down)


def test_layers_that_take_no_correction_are_left_alone():
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.Linear(4, 4), nn.BatchNorm2d(4))
    assert not add_delta(model, "0", 1)
    assert not add_delta(model, "1", 3)
    assert not add_delta(model, "2", 1)
    assert not deltas(model)
    with pytest.raises(PlanError, match="at least 1"):
        add_delta(model, "1", 0)
    with pytest.raises(PlanError, match="no layer 'x'"):
        add_delta(model, "x", 1)


def aligned_to_shuffled(model, layer, example):
    """Whether a layer, aligned to its own rows in another order, has them in that order afterwards."""
    own = model.get_submodule(layer).weight.detach().clone()
    order = torch.randperm(len(own), generator=torch.Generator().manual_seed(3))
    done = align(model, layer, own[order], example)
    return done, torch.equal(model.get_submodule(layer).weight, own[order])


@pytest.mark.parametrize("layer", ["0", "3", "6", "11", "13"])
def test_aligning_changes_the_order_and_nothing_else(layer):
    model = worn(seeded(0, 1, 3, **SMALL))
    before = model(IMAGES)
    assert aligned_to_shuffled(model, layer, IMAGES) == (True, True)
    torch.testing.assert_close(model(IMAGES), before, rtol=1e-3, atol=1e-4)


def test_depthwise_convolutions_go_along():
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU6(), nn.Conv2d(6, 6, 3, groups=6), nn.ReLU(), nn.Conv2d(6, 4, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
    ).eval()  # fmt: skip
    before = model(IMAGES)
    assert aligned_to_shuffled(model, "0", IMAGES) == (True, True)
    assert aligned_to_shuffled(model, "5", IMAGES) == (True, True)
    torch.testing.assert_close(model(IMAGES), before, rtol=1e-3, atol=1e-4)


def test_where_channels_meet_others_the_model_is_left_alone():
    model = worn(build("cifar-resnet20", 4))
    state = {path: value.clone() for path, value in model.state_dict().items()}
    example = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    paths = [path for path, one in model.named_modules() if isinstance(one, nn.Conv2d | nn.Linear)]
    assert not align(model, paths[-1], torch.randn(4, 64), example)  # the output
    assert not align(model, paths[0], torch.randn(16, 3, 3, 3), example)  # in residual sums
    assert all(torch.equal(value, state[path]) for path, value in model.state_dict().items())
    assert aligned_to_shuffled(model, paths[1], example) == (True, True)  # within a block
    small = worn(seeded(0, 1, 3, **SMALL))
    assert not align(small, "0", torch.randn(4, 1, 3, 3), IMAGES, frozenset({"3"}))  # its reader is shared
    assert not align(small, "15", torch.randn(3, 16), IMAGES)


def test_a_linear_layer_over_another_axis_is_not_mistaken_for_a_reader():
    model = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(6), nn.Linear(6, 4)).eval()
    before, weight = model(IMAGES), model[0].weight.detach().clone()
    assert aligned_to_shuffled(model, "0", IMAGES)[0] is False
    assert torch.equal(model[0].weight, weight)
    assert torch.equal(model(IMAGES), before)


def test_matching_finds_the_permutation():
    own = torch.randn(9, 5, generator=torch.Generator().manual_seed(4))
    order = torch.randperm(9, generator=torch.Generator().manual_seed(5))
    assert torch.equal(matching(own, own[order]), order)
