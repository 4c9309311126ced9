"""Constants that a layer reads, moved into its bias and its carrier's kernel.

    compensate(layer, needs, carrier=None, kept=kept)       # changes layer.module

Sums are taken in float64. After it the layer has no weight on a constant input, but for the carrier's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeward.prune.carriers import column
from edgeward.prune.constants import by_group, inner_sums, inner_taps, outer_sums
from edgeward.prune.flow import Layer, Needs

__all__ = ["compensate"]


def compensate(layer: Layer, needs: Needs, carrier: int | None, kept: Tensor) -> None:
    """Rewrite one layer's weights in place, so that what it reads of constants may go.

    carrier: the label of the input that brings the constants which meet the border. kept: which labels stay, bool
    [labels]; a bias is made where a channel that stays needs one.
    """
    module, rows = layer.module, needs.rows(layer)
    known = ~layer.given.isnan() & ~needs.wanted[layer.name]
    given = torch.where(known, layer.given, 0.0)
    constant = ~layer.made.isnan()
    old = torch.zeros(len(rows), dtype=torch.float64) if module.bias is None else module.bias.detach().double()
    bias = torch.where(constant, layer.made, old + inner_sums(module, given))
    bias = torch.where(rows, bias, 0.0)
    live = rows & ~constant
    weight = by_group(module)
    groups, _, inputs, _ = weight.shape
    with torch.no_grad():
        if carrier is not None:
            place = column(layer, carrier)
            outer = outer_sums(module, given / layer.given[place]).to(weight)
        for group, silent in enumerate(known.view(groups, inputs)):
            if bool(silent.any()):
                weight[group, :, silent] = 0
        if carrier is not None:
            weight[0, :, place, ~inner_taps(module)] = outer
        module.weight[~live] = 0
        if module.bias is not None:
            module.bias.copy_(bias)
        elif bool((bias[kept[layer.outputs]] != 0).any()):
            module.bias = nn.Parameter(bias.to(weight))
