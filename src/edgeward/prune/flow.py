"""The flow of channels through a network: which are coupled, which are constant, where they are mixed.

    flow = follow(model, traced, picture, channels)  # prune.follow
    flow.layers["stage1.0.conv1.conv"].given         # constants among its inputs
    flow.needs({})                                   # which channels each node's readers need

Forward, every tensor gets a field (see `prune.field`): operations that move elements move labels and constants,
element by element ones couple their operands. What is not understood holds its inputs: they stay, and its outputs are
unknown. Backward, a channel is needed where something reads it that is needed itself and is not a constant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from edgeward.prune.constants import Mixer, Reads

__all__ = ["Flow", "Layer", "Needs"]


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer: `inputs` and `outputs` are labels, `given` and `made` the constants of each.

    `source` is the node that it reads.
    """

    name: str
    module: Mixer
    node: fx.Node
    source: fx.Node
    reads: Reads
    inputs: Tensor
    given: Tensor
    outputs: Tensor
    made: Tensor

    @property
    def by_channel(self) -> bool:
        """Whether each channel goes through alone (depthwise), so that its label stays."""
        return self.reads.any.shape[1:] == (1, 1)


@dataclass(frozen=True)
class Needs:
    """at: by node, which labels, bool [labels]. wanted: by layer, which inputs must come as they are, bool [inputs].

    outer: by layer, which constant inputs its kernel reads at the border, bool [inputs]; a carrier can bring these.
    """

    at: Mapping[fx.Node, Tensor]
    wanted: Mapping[str, Tensor]
    outer: Mapping[str, Tensor]

    def rows(self, layer: Layer) -> Tensor:
        """Which outputs of a layer are needed, bool [outputs]."""
        return self.at[layer.node][layer.outputs]


@dataclass(frozen=True)
class Flow:
    """What the forward pass told. `present`: labels by node; `held`: nodes that need all of their inputs."""

    graph: fx.Graph
    layers: Mapping[str, Layer]
    present: Mapping[fx.Node, Tensor]
    held: frozenset[fx.Node]
    pinned: Tensor

    def needs(self, carriers: Mapping[str, int]) -> Needs:
        """What is needed when the constants of some layers' inputs ride on `carriers`, a label by layer."""
        at = {node: torch.zeros_like(self.pinned) for node in self.present}
        wanted: dict[str, Tensor] = {}
        outer: dict[str, Tensor] = {}
        by_node = {layer.node: layer for layer in self.layers.values()}
        for node in reversed(self.graph.nodes):
            if node in by_node:
                layer = by_node[node]
                wanted[layer.name], outer[layer.name] = _wanted(layer, at[node][layer.outputs])
                at[layer.source][layer.inputs[wanted[layer.name]]] = True
                if layer.name in carriers:
                    at[layer.source][carriers[layer.name]] = True
                continue
            for source in node.all_input_nodes:
                if source in at and node in self.held:
                    at[source] |= self.present[source]
                elif source in at and node in at:
                    at[source] |= self.present[source] & at[node]
        return Needs(at, wanted, outer)

    def kept(self, needs: Needs) -> Tensor:
        """Which labels stay, bool [labels]: all that are pinned, or needed anywhere."""
        return self.pinned | torch.stack(list(needs.at.values())).any(0)


def _wanted(layer: Layer, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs that the needed outputs depend on, and constant ones of which they see the border: bool [inputs]."""
    reads = layer.reads
    groups, outputs, inputs = reads.any.shape
    rows = (rows & layer.made.isnan()).view(groups, outputs, 1)
    given = layer.given.view(groups, inputs)
    wanted = (reads.any & rows).any(1) & given.isnan()
    at_border = torch.zeros_like(wanted)
    if reads.outer is not None:
        at_border = (reads.outer & rows).any(1) & ~given.isnan() & (given != 0)
    if groups > 1:  # a carrier would be needed in each group: such channels stay
        wanted, at_border = wanted | at_border, torch.zeros_like(wanted)
    return wanted.flatten(), at_border.flatten()
