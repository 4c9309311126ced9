"""A transfer layer at a cut of a chain: what crosses there is shrunk before, and restored behind.

    chain = with_transfer(chain, 3, parse_transfer("avg2-bilinear"))    # blocks 4 and 5 are new; 1/4 of the bytes cross

After ScissionLite (arXiv 2105.02019). The layer loses information: accuracy has to be measured with it in place, and
mostly the network to be tuned (`edgeward.split.tune`). Profiling, planning and deploying need nothing new.
"""

from __future__ import annotations

import copy
from inspect import BoundArguments
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgeward.errors import TraceError
from edgeward.graph.block import Block, Span
from edgeward.graph.blockcost import BlockCost
from edgeward.graph.chain import Chain
from edgeward.graph.costs import measure
from edgeward.graph.cuts import span_cost
from edgeward.graph.liveness import Flow
from edgeward.graph.trace import Example, restored
from edgeward.graph.transferlayer import LearnedLayer, TransferLayer, cropped, padded, parse_transfer

__all__ = ["LearnedLayer", "TransferLayer", "duplicate", "fitting", "parse_transfer", "with_transfer"]


def fitting(chain: Chain, layer: TransferLayer | None = None) -> dict[int, tuple[int, ...]]:
    """The blocks behind which one 4-D float tensor crosses (that the layer shrinks), with its shape."""
    return {
        index: tuple(value.shape)
        for index, value in _crossing(chain).items()
        if layer is None or layer.fits(tuple(value.shape))
    }


def with_transfer(chain: Chain, after: int, layer: TransferLayer) -> Chain:
    """The chain with two more blocks behind block `after`: one that shrinks what crosses, one that restores it.

    Parameters are those of the chain and of the layer; height and width at the cut are fixed to the example's. Raises
    TraceError when not exactly one 4-D float tensor that the layer can shrink crosses there.
    """
    crossing = _crossing(chain)
    value = crossing.get(after)
    if value is None or not layer.fits(tuple(value.shape)):
        places = [f"{i} ({chain.costs[i].name})" for i, one in crossing.items() if layer.fits(tuple(one.shape))]
        shape = f", {list(value.shape)}" if value is not None else ""
        raise TraceError(
            f"{layer.name} does not fit behind block {after}{shape}; it needs one 4-D float tensor larger than 1 x 1 "
            f"({'with ' + str(layer.channels) + ' channels ' if isinstance(layer, LearnedLayer) else ''}"
            f"behind block {', '.join(places) or '(none of this network)'})"
        )
    names, inputs = chain._traced.names, chain.example_inputs
    if len(names) != len(inputs):
        raise TraceError("this network takes nested inputs; a transfer layer needs plain tensors as arguments")
    size = (int(value.shape[2]), int(value.shape[3]))
    with torch.no_grad():
        smaller = layer.down(value)
    before = chain.costs[after]
    taken = {cost.name for cost in chain.costs}
    down, down_cost = _measured(_Down(layer, size), value, _free(f"transfer.{layer.name}.down", taken), before)
    up, up_cost = _measured(_Up(layer, size), smaller, _free(f"transfer.{layer.name}.up", taken), before)
    bound = BoundArguments(chain._traced.signature, dict(zip(names, inputs, strict=True)))
    blocks: list[Any] = list(chain.blocks)
    made = Chain(
        [*blocks[: after + 1], down, up, *blocks[after + 1 :]],
        [*chain.costs[: after + 1], down_cost, up_cost, *chain.costs[after + 1 :]],
        chain._traced,
        Example(bound.args, bound.kwargs),
    )
    return made.train(chain.training)


def duplicate(chain: Chain) -> Chain:
    """The same chain with parameters and buffers of its own."""
    # What was traced only knows how arguments are laid out; its graphs need no second copy.
    return copy.deepcopy(chain, {id(chain._traced): chain._traced})


class _Down(nn.Module):
    """`layer.down` for one size, without questions about it that a tracer could not follow."""

    def __init__(self, layer: TransferLayer, size: tuple[int, int]) -> None:
        super().__init__()
        self.layer = layer
        self.lacks = layer.padding(size)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.layer.shrink(padded(x, self.lacks)),)


class _Up(nn.Module):
    def __init__(self, layer: TransferLayer, size: tuple[int, int]) -> None:
        super().__init__()
        self.layer = layer
        self.size = size

    def forward(self, y: Tensor) -> tuple[Tensor]:
        return (cropped(self.layer.restore(y), self.size, self.layer.padding(self.size)),)


def _crossing(chain: Chain) -> dict[int, Tensor]:
    """What crosses behind every block but the last where it is one 4-D float tensor, for the traced example."""
    with restored(chain):
        entering = chain.eval().activations()[1:]
    return {
        index: values[0]
        for index, values in enumerate(entering)
        if len(values) == 1 and isinstance(values[0], Tensor) and values[0].dim() == 4 and values[0].is_floating_point()
    }


def _free(name: str, taken: set[str]) -> str:
    return next(one for one in (name, *(f"{name}#{number}" for number in range(2, 1000))) if one not in taken)


def _measured(module: nn.Module, value: Tensor, name: str, before: BlockCost) -> tuple[Block, BlockCost]:
    """The module as a block, with its costs on this value."""
    graph = fx.symbolic_trace(module)
    flow = Flow(graph.graph)
    costs = measure(graph, flow, (value.detach().clone().requires_grad_(),))
    span = Span(flow.order, flow.inputs, tuple(flow.output.all_input_nodes))
    cost = span_cost(span, costs, [costs[node].saved_bytes for node in span.nodes], graph)
    # The layer bends nothing that was not bent before it.
    return Block(name, graph, graph), cost.model_copy(update={"name": name, "reveals_input": before.reveals_input})
