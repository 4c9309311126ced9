"""Cut points follow the rule, costs are those of the literature and of brute force."""

from __future__ import annotations

import io

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx, nn

from edgeward.graph.chain import CutOptions, cut
from edgeward.graph.liveness import Flow
from edgeward.graph.onnx import export_chain
from edgeward.zoo.reference import build


@st.composite
def graphs(draw):
    """A random computation over earlier values; some of it fixed."""
    graph = fx.Graph()
    values = [graph.placeholder("x")]
    for index in range(draw(st.integers(1, 12))):
        count = draw(st.integers(1, 2))
        picks = [values[draw(st.integers(0, len(values) - 1))] for _ in range(count)]
        if draw(st.integers(0, 5)) == 0:
            picks = []
        made = graph.call_function(torch.add, (*picks, 1.0)) if len(picks) == 1 else None
        if len(picks) == 2:
            made = graph.call_function(torch.add, tuple(picks))
        values.append(made if made is not None else graph.call_function(torch.ones, (2,), name=f"fixed_{index}"))
    graph.output((values[-1],))
    return graph


@settings(max_examples=200, deadline=None, derandomize=True)
@given(graphs())
def test_liveness_is_that_of_brute_force(graph):
    flow = Flow(graph)
    nodes = list(graph.nodes)
    depends = {}
    for node in nodes:
        depends[node] = node.op == "placeholder" or any(depends[one] for one in node.all_input_nodes)
    working = [node for node in nodes if depends[node] and node.op not in ("placeholder", "output")]
    assert list(flow.order) == working
    output = next(node for node in nodes if node.op == "output")
    for index in range(len(working)):
        later = [*working[index + 1 :], output]
        before = [node for node in nodes if depends[node] and node not in later]
        assert set(flow.live_after(index)) == {node for node in before if any(user in later for user in node.users)}


def test_cut_points_of_the_liveness_rule():
    """Published counts for elementwise nodes as cuts: VGG-19 45, ResNet-50 38."""
    example = torch.rand(1, 3, 64, 64)
    assert len(cut(build("vgg19", classes=10), torch.rand(1, 3, 32, 32), options=CutOptions("op"))) == 45 + 1
    assert len(cut(build("resnet50"), example, options=CutOptions("op"))) == 38 + 1


def test_parameters_and_multiply_accumulates_of_resnet18():
    """1.814 G multiply-accumulates and 11.69 M parameters at 224 x 224 (He et al., 2016: 1.8 G)."""
    chain = cut(build("resnet18"), torch.rand(1, 3, 224, 224))
    assert sum(cost.parameters for cost in chain.costs) == 11_689_512
    assert sum(cost.macs for cost in chain.costs) == pytest.approx(1.814e9, rel=1e-3)


def test_costs_of_a_small_network_by_hand():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 16, 10)
    )
    chain = cut(model, torch.rand(1, 3, 8, 8))
    conv, pool, linear = chain.costs
    assert (conv.macs, conv.parameters, conv.output_bytes) == (8 * 8 * 8 * 27, 8 * 27 + 8, 8 * 64 * 4)
    assert conv.peak_bytes == 2 * 8 * 64 * 4  # what the convolution made and what the ReLU made of it
    assert conv.saved_bytes == 3 * 64 * 4 + 8 * 64 * 4  # its input and the ReLU's output
    assert (pool.macs, pool.output_bytes) == (0, 8 * 16 * 4)
    assert pool.saved_bytes == 8 * 16 * 8  # the places of the maxima; the ReLU's output is kept already
    assert (linear.macs, linear.parameter_bytes) == (8 * 16 * 10, 4 * (8 * 16 * 10 + 10))
    assert not any(cost.reveals_input for cost in chain.costs)


def test_padding_alone_is_no_block_and_linear_beginnings_reveal_the_input():
    model = nn.Sequential(nn.ZeroPad2d(2), nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    chain = cut(model, torch.rand(1, 3, 8, 8))
    assert chain.costs[0].macs > 0
    assert [cost.reveals_input for cost in chain.costs] == [True, False, False]
    every = cut(model, torch.rand(1, 3, 8, 8), options=CutOptions("op"))
    assert every.costs[0].macs == 0
    assert every.costs[0].reveals_input


def test_the_same_network_has_the_same_fingerprint_and_another_cut_another():
    example = torch.rand(1, 3, 32, 32)
    first, second = (cut(build("cifar-resnet20", seed=seed), example) for seed in (0, 1))
    assert first.fingerprint == second.fingerprint
    others = (
        cut(build("cifar-resnet20"), example, options=CutOptions("op")),
        cut(build("cifar-resnet20"), torch.rand(2, 3, 32, 32)),
    )
    assert len({first.fingerprint, *(other.fingerprint for other in others)}) == 3


@pytest.mark.parametrize("options", [CutOptions(), CutOptions(max_tensors=2)])
def test_onnx_segments_compose_to_the_network(options):
    model = build("cifar-resnet20").eval()
    example = torch.rand(1, 3, 32, 32)
    chain = cut(model, example, options=options)
    pieces = export_chain(chain)
    middle = len(chain) // 2
    values = [example.numpy()]
    for first, last in ((0, middle), (middle + 1, len(chain) - 1)):
        data = pieces.segment(first, last)
        onnx.checker.check_model(onnx.load(io.BytesIO(data)))
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        values = session.run(None, dict(zip([port.name for port in session.get_inputs()], values, strict=True)))
    with torch.no_grad():
        np.testing.assert_allclose(values[0], model(example).numpy(), atol=1e-5)
    assert not chain.training
