"""Which values are alive between the nodes of a graph: the basis of every cut.

    flow = Flow(graph)
    flow.live_after(3)        # nodes whose value is needed later

A node is *fixed* when it does not depend on the input: parameters, masks and tables computed from nothing but
constants. Every block computes the fixed values it needs itself; they are never shipped.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch
from torch import fx

__all__ = ["Flow", "operation"]


def operation(node: fx.Node, owner: fx.GraphModule) -> str:
    """The operation of a node in lower case, without dialect: "conv2d", "relu", "add", "batchnorm2d"."""
    if node.op == "call_module":
        return type(owner.get_submodule(str(node.target))).__name__.lower()
    if node.op == "call_method":
        return str(node.target).lower()
    if isinstance(node.target, torch._ops.OpOverload):
        return str(node.target.overloadpacket.__name__).lower()
    return str(getattr(node.target, "__name__", node.target)).lower()


class Flow:
    """Liveness of a graph. `order` are its working nodes: neither placeholders, fixed values, nor the output."""

    def __init__(self, graph: fx.Graph) -> None:
        nodes = list(graph.nodes)
        self.inputs: tuple[fx.Node, ...] = tuple(node for node in nodes if node.op == "placeholder")
        self.output: fx.Node = next(node for node in nodes if node.op == "output")
        self.fixed: frozenset[fx.Node] = _fixed(nodes)
        self.order: tuple[fx.Node, ...] = tuple(
            node for node in nodes if node.op not in ("placeholder", "output") and node not in self.fixed
        )
        place = {node: index for index, node in enumerate(self.order)}
        end = len(self.order)
        place[self.output] = end
        self.last_use: dict[fx.Node, int] = {}
        for node in (*self.inputs, *self.order):
            # A fixed node's users are reached through it by whichever block needs it, so only working users count.
            self.last_use[node] = max((place[user] for user in node.users if user in place), default=-1)

    def live_after(self, index: int) -> tuple[fx.Node, ...]:
        """Values made by nodes 0 to `index` (or given as inputs) that are used after it, in order of making."""
        return tuple(node for node in (*self.inputs, *self.order[: index + 1]) if self.last_use[node] > index)

    def needs(self, nodes: Sequence[fx.Node]) -> tuple[fx.Node, ...]:
        """The fixed values that these nodes use, directly or through other fixed ones, in graph order."""
        wanted: set[fx.Node] = set()
        pending = [arg for node in nodes for arg in node.all_input_nodes]
        while pending:
            node = pending.pop()
            if node in self.fixed and node not in wanted:
                wanted.add(node)
                pending.extend(node.all_input_nodes)
        return tuple(node for node in self.output.graph.nodes if node in wanted)


def _fixed(nodes: Sequence[fx.Node]) -> frozenset[fx.Node]:
    """Nodes that depend on no input and may be computed twice: not those that draw numbers or change what they read."""
    found: set[fx.Node] = set()
    for node in nodes:
        if node.op == "get_attr" or (
            node.op in ("call_function", "call_method")
            and all(argument in found for argument in node.all_input_nodes)
            and not _impure(node)
        ):
            found.add(node)
    return frozenset(found)


def _impure(node: fx.Node) -> bool:
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return target._schema.is_mutable or torch.Tag.nondeterministic_seeded in target.tags
    if node.op == "call_function" and target in (operator.getitem, getattr):
        return False
    name = str(getattr(target, "__name__", target))
    return name.endswith("_") or name in ("iadd", "isub", "imul", "setitem") or "rand" in name or "dropout" in name
