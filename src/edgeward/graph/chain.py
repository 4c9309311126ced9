"""A network as a chain of blocks: runnable pieces between its cut points, with their costs.

    chain = cut(model, torch.zeros(1, 3, 224, 224))
    for block, cost in zip(chain.blocks, chain.costs):
        print(cost.name, cost.macs, cost.output_bytes)
    chain(image)                                   # equals model(image), bit for bit

Blocks share their parameters with the model: training the chain trains the model. After Scission (UCC 2020,
arXiv 2008.03523), whose cut rule is restated as liveness: a cut is where exactly one tensor is alive.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgeward.errors import TraceError
from edgeward.graph.block import Block, Span, slice_graph
from edgeward.graph.blockcost import BlockCost
from edgeward.graph.costs import measure
from edgeward.graph.cuts import Granularity, align, choose_cuts, span_cost, spans_between
from edgeward.graph.liveness import Flow
from edgeward.graph.trace import Example, Traced, restored, same, trace

__all__ = ["Chain", "CutOptions", "Granularity", "cut"]


@dataclass(frozen=True)
class CutOptions:
    """How a network is cut.

    granularity: "layer" cuts behind layers that compute or shrink (their norms and activations go with them), "op"
    wherever the rule allows. max_tensors: ship up to so many tensors at a cut (skip connections, masks, tables).
    leaves: paths of modules to keep whole.
    """

    granularity: Granularity = "layer"
    max_tensors: int = 1
    leaves: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.granularity not in ("layer", "op"):
            raise TraceError(f"granularity {self.granularity!r} is unknown; choose 'layer' or 'op'")
        if not 1 <= self.max_tensors <= 64:
            raise TraceError(f"max_tensors is {self.max_tensors}; choose from 1 (plain cuts) to 64")


class Chain(nn.Module):
    """Blocks that, run one after another, are the network. Made by `cut`.

    costs: one `BlockCost` per block. fingerprint: hash of the blocks' structure. frontend: what traced it; shapes are
    fixed to the example's when that is "torch.export".
    """

    def __init__(self, blocks: Sequence[Block], costs: Sequence[BlockCost], traced: Traced, example: Example) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.costs = tuple(costs)
        self.frontend = traced.frontend
        self._traced = traced
        self.example_inputs = traced.inputs_of(example)
        self.input_bytes = sum(
            one.numel() * one.element_size() for one in self.example_inputs if isinstance(one, Tensor)
        )
        self.fingerprint = _fingerprint(self.costs, self.example_inputs)

    def __len__(self) -> int:
        return len(self.blocks)

    def inputs(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The first block's inputs, of the model's own arguments. Raises TraceError when they do not fit."""
        return self._traced.inputs_of(Example(args, kwargs))

    def outputs(self, values: Sequence[Any]) -> Any:
        """What the model returns, of the last block's outputs."""
        return self._traced.output_of(values)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """All blocks in turn: what the model returns for these arguments."""
        values = self.inputs(*args, **kwargs)
        for block in self.blocks:
            values = block(*values)
        return self.outputs(values)

    def activations(self, *args: Any, **kwargs: Any) -> list[tuple[Any, ...]]:
        """The inputs of every block, without gradients, for these arguments; without any, for the traced example."""
        values = self.inputs(*args, **kwargs) if args or kwargs else self.example_inputs
        found = []
        with torch.no_grad():
            for block in self.blocks:
                # A block may work in place: what the next one gets must stay what it was.
                found.append(tuple(one.clone() if isinstance(one, Tensor) else one for one in values))
                values = block(*values)
        return found

    def segment(self, first: int, last: int) -> nn.Module:
        """Blocks `first` to `last`, both included, as one module. Raises TraceError when there is no such stretch."""
        if not 0 <= first <= last < len(self):
            raise TraceError(f"there are blocks 0 to {len(self) - 1}; {first} to {last} is no stretch of them")
        return Segment([self.blocks[index] for index in range(first, last + 1)])


class Segment(nn.Module):
    """Neighbouring blocks as one module: the first one's inputs to the last one's outputs."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, *values: Any) -> tuple[Any, ...]:
        """Run them in turn."""
        for block in self.blocks:
            values = block(*values)
        return values


def cut(model: nn.Module, *args: Any, options: CutOptions | None = None, **kwargs: Any) -> Chain:
    """Trace a model with the example arguments and cut it into blocks.

    The model's modes, buffers and the random state are left as they are. Raises TraceError when the example does not
    fit, when the model cannot be traced (the message names the operation and how to keep its module whole), or when
    its pieces do not repeat it.
    """
    options = options or CutOptions()
    example = Example(args, kwargs)
    traced = trace(model, example, options.leaves)
    graph = traced.eval_graph
    flow = Flow(graph.graph)
    if not flow.order:
        raise TraceError(f"{type(model).__name__} computes nothing from its input; there is nothing to cut")
    with restored(model):
        costs = measure(graph.eval(), flow, traced.inputs_of(example))
    spans = spans_between(flow, choose_cuts(flow, costs, options.granularity, options.max_tensors))
    learning = _learning(traced, flow, spans)
    kept = [[costs[node].saved_bytes for node in span.nodes] for span in spans]
    saved = _saved(learning, model, traced.inputs_of(example)) or kept
    blocks, block_costs, seen = [], [], Counter[str]()
    for index, span in enumerate(spans):
        cost = span_cost(span, costs, saved[index], graph)
        seen[cost.name] += 1
        name = cost.name if seen[cost.name] == 1 else f"{cost.name}#{seen[cost.name]}"
        block_costs.append(cost.model_copy(update={"name": name}))
        sliced = learning if isinstance(learning, str) else learning.sliced(index)
        blocks.append(Block(name, slice_graph(graph, flow, span), sliced))
    chain = Chain(blocks, block_costs, traced, example)
    with restored(model), torch.no_grad():
        if not same(chain.eval()(*args, **kwargs), example.call(model.eval())):
            raise TraceError(f"the blocks of {type(model).__name__} do not repeat it (it writes into shared values)")
    chain.train(model.training)
    return chain


@dataclass(frozen=True)
class _Learning:
    """The train graph's stretches between the same cuts; `shared` when it is the eval graph itself."""

    graph: fx.GraphModule
    flow: Flow
    spans: list[Span]
    shared: bool

    def sliced(self, index: int) -> fx.GraphModule | None:
        """The stretch as a module, or None when the eval graph's serves."""
        return None if self.shared else slice_graph(self.graph, self.flow, self.spans[index])


def _learning(traced: Traced, flow: Flow, spans: list[Span]) -> _Learning | str:
    graph = traced.train_graph
    if isinstance(graph, str):
        return graph
    if graph is traced.eval_graph:
        return _Learning(graph, flow, spans, shared=True)
    other = Flow(graph.graph)
    places = align(flow, traced.eval_graph, other, graph)
    index = {node: place for place, node in enumerate(flow.order)}
    cuts = [places.get(index[span.nodes[-1]], -1) for span in spans[:-1]]
    if any(place < 0 or other.order[place] not in other.live_after(place) for place in cuts):
        return "the forward pass takes another way in train mode"
    return _Learning(graph, other, spans_between(other, cuts), shared=False)


def _saved(learning: _Learning | str, model: nn.Module, inputs: tuple[Any, ...]) -> list[list[int]] | None:
    """Bytes that every node of every stretch keeps for the backward pass in train mode; None where it cannot run."""
    if isinstance(learning, str):
        return None
    with restored(model):
        try:
            costs = measure(learning.graph.train(), learning.flow, inputs)
        except (ValueError, RuntimeError):  # such as a batch norm that needs more than one value per channel
            return None
    return [[costs[node].saved_bytes for node in span.nodes] for span in learning.spans]


def _fingerprint(costs: Sequence[BlockCost], inputs: Sequence[Any]) -> str:
    """Equal for equal networks cut the same way, on any machine."""
    shapes = [[str(one.dtype), list(one.shape)] if isinstance(one, Tensor) else repr(one) for one in inputs]
    blocks = [[cost.name, cost.macs, cost.parameters, cost.output_bytes, cost.output_tensors] for cost in costs]
    return hashlib.sha256(json.dumps([shapes, blocks]).encode()).hexdigest()
