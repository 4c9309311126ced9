"""A stretch of a network that runs on its own and shares its parameters with the whole.

values = block(*values)     # the live values before it to those after it, in the order of `inputs` and `outputs`
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from edgeward.errors import TraceError
from edgeward.graph.liveness import Flow

__all__ = ["Block", "Span", "slice_graph"]


@dataclass(frozen=True)
class Span:
    """Working nodes `first` to `last` of a flow; with the values alive before and after them."""

    nodes: tuple[fx.Node, ...]
    inputs: tuple[fx.Node, ...]
    outputs: tuple[fx.Node, ...]


class Block(nn.Module):
    """Nodes of the eval and of the train graph between two cuts; which of them runs follows the module's mode.

    training: the train graph's stretch, None where the eval graph's serves both, or why there is none.

    Takes the values of `inputs` as positional arguments and returns a tuple, the values of `outputs`.
    """

    def __init__(self, name: str, evaluating: fx.GraphModule, training: fx.GraphModule | str | None) -> None:
        super().__init__()
        self.name = name
        self.evaluating = evaluating
        self.learning = training if isinstance(training, fx.GraphModule) else None
        self._only_eval = training if isinstance(training, str) else ""
        self.training = evaluating.training

    def forward(self, *values: Any) -> tuple[Any, ...]:
        """Run the block."""
        if self.training and self._only_eval:
            raise TraceError(f"block {self.name} runs in eval mode only: {self._only_eval}; call eval() first")
        graph = self.learning if self.training and self.learning is not None else self.evaluating
        result: tuple[Any, ...] = graph(*values)
        return result


def slice_graph(owner: fx.GraphModule, flow: Flow, span: Span) -> fx.GraphModule:
    """The span as a module of its own; parameters and layers are the owner's objects."""
    graph = fx.Graph()
    made: dict[fx.Node, fx.Node] = {}
    for node in span.inputs:
        made[node] = graph.placeholder(node.name)
    results = _outputs(flow, span)
    body: set[fx.Node] = {
        *span.nodes,
        *flow.needs([*span.nodes, *(one for one in results if isinstance(one, fx.Node))]),
    }
    body |= {one for one in results if isinstance(one, fx.Node) and one in flow.fixed}
    for node in flow.output.graph.nodes:
        if node in body:
            made[node] = graph.node_copy(node, lambda one: made[one])
    graph.output(tuple(made[one] if isinstance(one, fx.Node) else one for one in results))
    module = fx.GraphModule(owner, graph)
    module.training = owner.training
    return module


def _outputs(flow: Flow, span: Span) -> Sequence[Any]:
    """What the span returns: the model's own flat outputs after the last node, else the live values."""
    if span.nodes and span.nodes[-1] is flow.order[-1]:
        outputs = flow.output.args[0]
        assert isinstance(outputs, tuple)
        return outputs
    return span.outputs
