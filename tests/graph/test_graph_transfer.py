"""A transfer layer keeps every shape, and a chain with one is the network with the layer composed by hand."""

from __future__ import annotations

import copy

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from edgeward.errors import ConfigError, TraceError
from edgeward.graph.chain import cut
from edgeward.graph.onnx import export_chain
from edgeward.graph.transfer import duplicate, fitting, parse_transfer, with_transfer
from edgeward.graph.transferlayer import LearnedLayer

KINDS = ["max{}-nearest", "max{}-bilinear", "avg{}-nearest", "avg{}-bilinear", "learned{}-1x1", "strided{}"]
SIDES = st.integers(1, 9)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.second(self.first(x)).mean((2, 3)))


def small_chain(size=(9, 12)):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Small()
        for _ in range(3):
            model(torch.rand(8, 3, *size))
    return model, cut(model.eval(), torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1)))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(SIDES, SIDES, st.integers(2, 8), st.sampled_from(KINDS))
def test_every_size_comes_back_and_what_is_sent_has_the_expected_shape(height, width, factor, kind):
    layer = parse_transfer(kind.format(factor), 5)
    x = torch.randn(2, 5, height, width)
    smaller = layer.down(x)
    spatial = 1 if "learned" in kind else factor
    channels = -(-5 // factor) if "learned" in kind else 5
    assert smaller.shape == (2, channels, -(-height // spatial), -(-width // spatial))
    assert layer.up(smaller, (height, width)).shape == x.shape


@settings(max_examples=100, deadline=None, derandomize=True)
@given(SIDES, SIDES, st.integers(2, 8), st.sampled_from(KINDS[:4]), st.floats(-100, 100, width=32))
def test_constant_maps_are_restored(height, width, factor, kind, value):
    layer = parse_transfer(kind.format(factor))
    x = torch.full((1, 2, height, width), value)
    restored = layer.up(layer.down(x), (height, width))
    if kind == "max{}-nearest":
        assert torch.equal(restored, x)
    torch.testing.assert_close(restored, x, rtol=1e-5, atol=1e-37)


def test_pooling_is_that_of_the_padded_map():
    x = torch.arange(15.0).reshape(1, 1, 3, 5)
    assert parse_transfer("max2-nearest").down(x)[0, 0].tolist() == [[6, 8, 9], [11, 13, 14]]
    assert parse_transfer("avg2-nearest").down(x)[0, 0].tolist() == [[3, 5, 6.5], [10.5, 12.5, 14]]
    up = parse_transfer("max2-nearest").up(torch.tensor([[[[1.0, 2, 3], [4, 5, 6]]]]), (3, 5))
    assert up[0, 0].tolist() == [[1, 1, 2, 2, 3], [1, 1, 2, 2, 3], [4, 4, 5, 5, 6]]


@pytest.mark.parametrize(("name", "channels"), [("learned2-1x1", 6), ("strided2", 2)])
def test_fitted_layers_restore_what_lies_in_their_subspace_and_beat_orthogonal_ones(name, channels):
    torch.manual_seed(3)
    layer = parse_transfer(name, channels)
    narrow = layer.encode.out_channels
    patches = torch.randn(400, narrow) @ torch.randn(narrow, channels * layer.factor**2)
    patches = (patches - patches.mean(0)).view(100, 2, 2, -1).permute(0, 3, 1, 2)
    within = functional.pixel_shuffle(patches, layer.factor)
    if layer.factor == 1:
        within = within + torch.randn(1, channels, 1, 1)
    before = (layer.up(layer.down(within), tuple(within.shape[2:])) - within).abs().max()
    layer.fit(within)
    after = (layer.up(layer.down(within), tuple(within.shape[2:])) - within).abs().max()
    assert after < 1e-3 < before
    noisy = torch.randn(100, channels, 7, 9)
    loss = functional.mse_loss(layer.up(layer.down(noisy), (7, 9)), noisy)
    layer.fit(noisy)
    assert functional.mse_loss(layer.up(layer.down(noisy), (7, 9)), noisy) < loss


@pytest.mark.parametrize("name", ["max2-nearest", "avg3-bilinear", "learned4-1x1", "strided2"])
@pytest.mark.parametrize("size", [(8, 12), (9, 13)])
def test_a_chain_with_the_layer_is_the_network_with_it_by_hand(name, size):
    model, chain = small_chain(size)
    layer = parse_transfer(name, 8)
    smaller = with_transfer(chain, 0, layer)
    assert len(smaller) == len(chain) + 2
    assert smaller.fingerprint != chain.fingerprint
    x = torch.rand(4, 3, *size)
    for training in (False, True):
        ours, theirs = smaller, copy.deepcopy(model).train(training)
        by_hand = theirs.head(theirs.second(layer.up(layer.down(theirs.first(x)), size)).mean((2, 3)))
        torch.testing.assert_close(ours.train(training)(x), by_hand, rtol=0, atol=0)
    smaller.zero_grad()
    smaller(x).sum().backward()
    assert all(
        one.grad is not None and one.grad.abs().sum() > 0 for one in model.first[0].parameters() if one.dim() > 1
    )
    assert {id(one) for one in chain.parameters()} < {id(one) for one in smaller.parameters()} or name[:3] in (
        "max",
        "avg",
    )
    down, up = smaller.costs[1], smaller.costs[2]
    with torch.no_grad():
        sent = layer.down(model.eval().first(x[:1]))
    assert down.output_bytes == sent.numel() * 4 < chain.costs[0].output_bytes == up.output_bytes
    assert down.parameters + up.parameters == sum(one.numel() for one in layer.parameters())
    assert (down.macs > 0) == isinstance(layer, LearnedLayer)
    assert down.peak_bytes >= down.output_bytes + chain.costs[0].output_bytes


@pytest.mark.parametrize("name", ["max2-nearest", "max3-bilinear", "avg2-bilinear", "learned2-1x1", "strided3"])
@pytest.mark.parametrize("size", [(8, 12), (9, 13)])
def test_onnx_runtime_agrees_whole_and_in_pieces(name, size):
    _, chain = small_chain(size)
    smaller = with_transfer(chain, 0, parse_transfer(name, 8)).eval()
    pieces, x = export_chain(smaller), torch.rand(1, 3, *size)
    value = x.numpy()
    for first, last in ((0, 1), (2, len(smaller) - 1)):
        session = onnxruntime.InferenceSession(pieces.segment(first, last))
        value = session.run(None, {session.get_inputs()[0].name: value})[0]
    with torch.no_grad():
        np.testing.assert_allclose(value, smaller(x).numpy(), rtol=1e-5, atol=1e-5)


def test_layers_stack_and_names_stay_unique():
    _, chain = small_chain()
    layer = parse_transfer("max2-nearest")
    twice = with_transfer(with_transfer(chain, 0, layer), 3, layer)
    names = [cost.name for cost in twice.costs]
    assert names.count("transfer.max2-nearest.down") == 1
    assert len(set(names)) == len(names)
    other = with_transfer(chain, 0, parse_transfer("avg2-bilinear"))
    assert other.fingerprint != with_transfer(chain, 0, layer).fingerprint


def test_a_duplicate_shares_nothing():
    _, chain = small_chain()
    x = torch.rand(2, 3, 9, 12)
    other = duplicate(chain)
    assert torch.equal(other(x), chain(x))
    with torch.no_grad():
        for one in other.parameters():
            one.add_(1)
    assert not torch.equal(other(x), chain(x))


def test_making_a_chain_leaves_the_network_and_the_random_state_as_they_were():
    model, chain = small_chain()
    model.train()
    before, state = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    with_transfer(chain, 0, parse_transfer("learned2-1x1", 8))
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("max2-neerest", "did you mean 'max2-nearest'"),
        ("avg9-bilinear", "choose from 2 to 8"),
        ("avg1-nearest", "choose from 2 to 8"),
        ("qqq", "known: max2-nearest"),
        ("learned4-1x1", "how many channels"),
        ("avg" + "9" * 40 + "-nearest", "choose from 2 to 8"),
    ],
)
def test_unknown_layers_are_refused_with_the_nearest_known(text, hint):
    with pytest.raises(ConfigError, match=hint):
        parse_transfer(text)


def test_boundaries_that_do_not_fit_are_refused_with_those_that_do():
    _, chain = small_chain()
    assert set(fitting(chain)) == {0, 1} & set(range(len(chain) - 1)) or set(fitting(chain)) == {0}
    for after in (-1, len(chain) - 1, 99):
        with pytest.raises(TraceError, match=r"behind block 0 \(first"):
            with_transfer(chain, after, parse_transfer("max2-nearest"))
    with pytest.raises(TraceError, match="with 16 channels"):
        with_transfer(chain, 0, parse_transfer("strided2", 16))
    flat = cut(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), torch.rand(1, 4))
    with pytest.raises(TraceError, match="none of this network"):
        with_transfer(flat, 0, parse_transfer("max2-nearest"))
    with pytest.raises(ConfigError, match="smaller factor"):
        parse_transfer("strided8", 128).fit(torch.rand(1, 128, 8, 8))
