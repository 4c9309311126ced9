"""Rounded widths, and one factor for all of them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.errors import PruneError
from edgeward.prune.channels import Channels
from edgeward.prune.remove import remove
from edgeward.prune.widths import rounded, surplus, uniform_widths
from edgeward.zoo.reference import build


@given(st.floats(0, 5000), st.integers(1, 64), st.integers(1, 32))
def test_rounding(width, multiple, floor):
    got = rounded(width, multiple, floor)
    assert got >= floor
    if got > floor and width >= 2 * multiple:
        assert got % multiple == 0
        assert abs(got - width) <= multiple / 2
    elif got > floor:
        assert abs(got - width) <= 0.5
    assert rounded(width + 1, multiple, floor) >= got


@pytest.mark.parametrize(("width", "expected"), [(0, 4), (5.4, 5), (15, 15), (19, 16), (20, 24), (100, 104)])
def test_rounding_by_example(width, expected):
    assert rounded(width) == expected


@pytest.mark.parametrize("arguments", [(-1,), (float("nan"),), (3, 0), (3, 8, 0)])
def test_rounding_refuses(arguments):
    with pytest.raises(PruneError, match="widths start at 0"):
        rounded(*arguments)


X = torch.rand(1, 3, 32, 32)


@pytest.fixture(scope="module")
def resnet():
    model = build("cifar-resnet20")
    return model, Channels.of(model, X)


@settings(max_examples=12, deadline=None)
@given(share=st.floats(0.05, 1.2))
def test_the_budget_is_met_and_used(resnet, share):
    model, channels = resnet
    total = sum(parameter.numel() for parameter in model.parameters())
    budget = int(total * share)
    uniform = uniform_widths(model, X, budget, channels)
    small = remove(model, X, uniform.channels, channels).module
    assert sum(parameter.numel() for parameter in small.parameters()) == uniform.parameters <= budget
    if share < 1:
        assert uniform.parameters > budget - 0.15 * total
        assert uniform.factor == pytest.approx(share**0.5, abs=0.12)  # parameters grow with the square of the width
    else:
        assert not uniform.channels
    assert small(X).shape == (1, 10)


def test_every_layer_has_the_same_share(resnet):
    model, channels = resnet
    small = remove(model, X, uniform_widths(model, X, 70_000, channels).channels, channels).module
    for stage, width in (("stage1", 16), ("stage2", 32), ("stage3", 64)):
        for block in getattr(small, stage):
            assert block.conv1.conv.out_channels == pytest.approx(width / 2, abs=1.5)
            assert block.conv2.out_channels == pytest.approx(width / 2, abs=1.5)
    rounded_group = channels.group_of("stage3.0.conv1.conv")
    assert rounded_group.size - len(surplus(rounded_group, 0.55, multiple=8)) == 32


def test_a_budget_out_of_reach(resnet):
    model, channels = resnet
    with pytest.raises(PruneError, match=r"no widths reach 100 parameters: Sequential keeps \d+"):
        uniform_widths(model, X, 100, channels)
