"""Where a graph may be cut, and what the pieces cost.

cuts = choose_cuts(flow, costs, "layer", max_tensors=1)     # indices into flow.order: a cut lies behind each
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Mapping, Sequence
from typing import Literal

from torch import fx, nn

from edgeward.graph.block import Span
from edgeward.graph.blockcost import BlockCost
from edgeward.graph.costs import NodeCost
from edgeward.graph.liveness import Flow, operation

__all__ = ["Granularity", "align", "choose_cuts", "span_cost", "spans_between"]

Granularity = Literal["layer", "op"]
Costs = Mapping[fx.Node, NodeCost]


def choose_cuts(flow: Flow, costs: Costs, granularity: Granularity, max_tensors: int) -> list[int]:
    """Indices of the working nodes behind which the graph is cut.

    A cut is allowed behind a node when it is alive, and with it at most `max_tensors` tensors (Scission's rule is 1).
    With "layer", pieces that neither multiply nor shrink what they are given join the piece before them; at the very
    beginning, where such a piece is nothing but padding, the one behind.
    """
    allowed = [index for index in range(len(flow.order) - 1) if _may_cut(flow, costs, index, max_tensors)]
    if granularity == "op":
        return allowed
    kept: list[int] = []
    shipped = sum(costs[node].bytes for node in flow.inputs)
    previous = -1
    edges = [*allowed, len(flow.order) - 1]
    for edge in edges:
        piece = flow.order[previous + 1 : edge + 1]
        after = (
            sum(costs[node].bytes for node in flow.live_after(edge))
            if edge != edges[-1]
            else costs[flow.order[-1]].bytes
        )
        works = any(costs[node].macs for node in piece) or after < shipped
        if not works and previous in kept:
            kept.remove(previous)
        if (works or kept or previous >= 0) and edge != edges[-1]:
            kept.append(edge)
        previous, shipped = edge, after
    return _without_idle_start(flow, costs, kept)


def _without_idle_start(flow: Flow, costs: Costs, cuts: list[int]) -> list[int]:
    """A first piece that multiplies nothing is no place to cut: what leaves it is the input again, only larger."""
    while cuts and not any(costs[node].macs for node in flow.order[: cuts[0] + 1]):
        cuts = cuts[1:]
    return cuts


def _may_cut(flow: Flow, costs: Costs, index: int, max_tensors: int) -> bool:
    live = flow.live_after(index)
    tensors = [node for node in live if costs[node].tensors]
    return (
        flow.order[index] in live
        and costs[flow.order[index]].shape is not None
        and len(tensors) <= max_tensors
        and all(costs[node].shape is not None for node in tensors)
    )


def spans_between(flow: Flow, cuts: Sequence[int]) -> list[Span]:
    """The stretches of a flow between cuts."""
    edges = [-1, *cuts, len(flow.order) - 1]
    return [
        Span(
            flow.order[before + 1 : after + 1],
            flow.inputs if before < 0 else flow.live_after(before),
            flow.live_after(after),
        )
        for before, after in itertools.pairwise(edges)
    ]


def align(flow: Flow, owner: fx.GraphModule, other: Flow, other_owner: fx.GraphModule) -> dict[int, int]:
    """Working nodes of `flow` that have their like in `other`, by index, in the longest common order of operations.

    Train mode adds nodes that count batches or copy a layout; they match nothing.
    """
    mine = [operation(node, owner) for node in flow.order]
    theirs = [operation(node, other_owner) for node in other.order]
    matcher = difflib.SequenceMatcher(None, mine, theirs, autojunk=False)
    return {
        match.a + offset: match.b + offset for match in matcher.get_matching_blocks() for offset in range(match.size)
    }


def span_cost(span: Span, costs: Costs, saved: Sequence[int], owner: fx.GraphModule) -> BlockCost:
    """The costs of a stretch. saved: bytes that each of its nodes keeps for the backward pass."""
    names = frozenset(name for node in span.nodes for name in costs[node].parameters)
    parameters = [parameter for name in names if isinstance(parameter := _attribute(owner, name), nn.Parameter)]
    unique = {id(parameter): parameter for parameter in parameters}.values()
    outputs = [node for node in span.outputs if costs[node].tensors] or [span.nodes[-1]]
    return BlockCost(
        name=_name(span, owner),
        output_bytes=sum(costs[node].bytes for node in outputs),
        output_tensors=max(sum(costs[node].tensors for node in outputs), 1),
        parameters=sum(parameter.numel() for parameter in unique),
        parameter_bytes=sum(parameter.numel() * parameter.element_size() for parameter in unique),
        macs=sum(costs[node].macs for node in span.nodes),
        saved_bytes=sum(saved),
        peak_bytes=_peak(span, costs),
        reveals_input=min(costs[node].hidden for node in outputs) < 2,
    )


def _peak(span: Span, costs: Costs) -> int:
    """Most bytes alive at once: values live from the node that makes them to the last that reads them."""
    place = {node: index for index, node in enumerate(span.nodes)}
    end = len(span.nodes)
    freed: dict[int, list[fx.Node]] = {}
    for node in (*span.inputs, *span.nodes):
        until = (
            end
            if node in span.outputs
            else max((place[user] for user in node.users if user in place), default=place.get(node, 0))
        )
        freed.setdefault(until, []).append(node)
    alive: dict[int, list[fx.Node]] = {}
    for node in span.inputs:
        alive.setdefault(costs[node].storage, []).append(node)
    peak = 0
    for index, node in enumerate(span.nodes):
        alive.setdefault(costs[node].storage, []).append(node)
        peak = max(peak, sum(max(costs[one].bytes for one in views) for views in alive.values()))
        for gone in freed.get(index, ()):
            views = alive[costs[gone].storage]
            views.remove(gone)
            if not views:
                del alive[costs[gone].storage]
    return peak


def _name(span: Span, owner: fx.GraphModule) -> str:
    """The module path of the last node that a module holds."""
    for node in reversed(span.nodes):
        if node.op == "call_module":
            return str(node.target)
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        paths = [entry[0] if isinstance(entry, tuple) else str(entry) for entry in stack]
        if paths and paths[-1]:
            return paths[-1].removeprefix("L['self'].") or operation(node, owner)
    return operation(span.nodes[-1], owner)


def _attribute(owner: nn.Module, path: str) -> object:
    value: object = owner
    for name in path.split("."):
        value = getattr(value, name)
    return value
