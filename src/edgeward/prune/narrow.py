"""Narrower networks by the importance of their channels: which units go first, and how many of each group.

    ranking = rank(model, example, Channels.of(model, example), parse_criterion("magnitude").score(model, []))
    smaller = narrow(model, example, ranking, 0.5)             # without the half of the units that matters least
    smaller.module, smaller.edits

A unit's importance is the sum of its weights' scores, wherever it is produced or read (Fang et al., CVPR 2023, section
3.3, sum over a group). What decides is importance per cost: of two that matter as little, the more expensive goes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeward.errors import PruneError
from edgeward.graph.trace import restored
from edgeward.prune.channels import Channels, Group
from edgeward.prune.coupling import Slot
from edgeward.prune.cutting import Removed, without
from edgeward.prune.widths import rounded

__all__ = ["ALLOCATIONS", "Ranking", "narrow", "rank", "widths_at"]

ALLOCATIONS = ("global", "uniform")
_Layer = nn.Linear | nn.modules.conv._ConvNd


@dataclass(frozen=True, eq=False)
class Ranking:
    """Units of every group that can be narrowed. importance, cost: float64 [units] by group name.

    The cost of a unit is the mean of its share of all parameters and of all multiply-accumulates.
    """

    groups: tuple[Group, ...]
    importance: Mapping[str, Tensor]
    cost: Mapping[str, Tensor]

    @property
    def worth(self) -> dict[str, Tensor]:
        """Importance per cost, by which units of different groups compare."""
        return {name: value / self.cost[name].clamp_min(1e-30) for name, value in self.importance.items()}


def rank(
    model: nn.Module, example: Tensor, channels: Channels, scores: Mapping[str, Tensor], *, relative: bool = False
) -> Ranking:
    """How much each unit matters by its weights' scores, and what it costs.

    relative: take importance relative to the group's mean, for scores that do not compare between layers (magnitudes).
    Raises PruneError when scores are not finite or no group can be narrowed.
    """
    groups = tuple(one for one in channels.groups if one.prunable and one.size > 1)
    if not groups:
        raise PruneError(f"{type(model).__name__} has no channels that can be removed")
    for name, values in scores.items():
        if not torch.isfinite(values).all():
            raise PruneError(f"the scores of {name} are not finite; check the weights and the data")
    weights = _weights(model)
    positions = _positions(model, example, weights)
    scored = _Sums(weights, {name: scores.get(f"{name}.weight") for name in weights})
    counted = _Sums(weights, {name: torch.ones_like(module.weight) for name, module in weights.items()})
    all_parameters = sum(module.weight.numel() for module in weights.values())
    all_macs = sum(module.weight.numel() * positions[name] for name, module in weights.items())
    importance, cost = {}, {}
    for group in groups:
        values = torch.tensor(
            [math.fsum(scored.of(slot) for slot in unit) for unit in group.units], dtype=torch.float64
        )
        importance[group.name] = values / values.mean().clamp_min(1e-30) if relative else values
        cost[group.name] = torch.tensor(
            [
                sum(counted.of(slot) * (1 / all_parameters + positions.get(slot[0], 0) / all_macs) / 2 for slot in unit)
                for unit in group.units
            ],
            dtype=torch.float64,
        )
    if relative:  # a mean of 1 in every group says nothing of groups: let each lose in proportion
        importance = {name: values * cost[name].mean() for name, values in importance.items()}
    return Ranking(groups, importance, cost)


def widths_at(
    ranking: Ranking, share: float, allocation: str = "global", *, multiple: int = 8, most: float = 0.95
) -> dict[str, int]:
    """Units that each group keeps when this share of all units goes; no group loses more than `most` of its own.

    multiple: what kept widths are rounded to where they are large. Raises PruneError for a share outside [0, 1).
    """
    if not 0 <= share < 1:
        raise PruneError(f"share {share} of the channels is out of range; choose from 0 to below 1")
    if allocation not in ALLOCATIONS:
        raise PruneError(f"allocation {allocation!r} is unknown; choose one of {', '.join(ALLOCATIONS)}")
    floors = {group.name: max(1, round((1 - most) * group.size)) for group in ranking.groups}
    if allocation == "uniform":
        kept = {group.name: (1 - share) * group.size for group in ranking.groups}
    else:
        worth = torch.cat([ranking.worth[group.name] for group in ranking.groups])
        owner = torch.cat([torch.full((group.size,), index) for index, group in enumerate(ranking.groups)])
        gone = owner[torch.argsort(worth, stable=True)[: round(share * len(worth))]]
        lost = torch.bincount(gone, minlength=len(ranking.groups)).tolist()
        kept = {group.name: float(group.size - lost[index]) for index, group in enumerate(ranking.groups)}
    return {
        group.name: min(max(rounded(kept[group.name], multiple, 1), floors[group.name]), group.size)
        for group in ranking.groups
    }


def narrow(model: nn.Module, ranking: Ranking, widths: Mapping[str, int]) -> Removed:
    """A copy of `model` whose groups keep so many of their most important units."""
    gone: set[Slot] = set()
    for group in ranking.groups:
        order = torch.argsort(ranking.importance[group.name], stable=True)
        for unit in order[: group.size - widths[group.name]].tolist():
            gone.update(group.units[unit])
    return without(model, gone)


def _weights(model: nn.Module) -> dict[str, _Layer]:
    """Layers whose weights are counted: [outputs, inputs, ...]."""
    return {name: module for name, module in model.named_modules() if isinstance(module, _Layer)}


class _Sums:
    """Per layer the sums of a tensor shaped like its weight over each output and each input channel."""

    def __init__(self, layers: Mapping[str, _Layer], values: Mapping[str, Tensor | None]) -> None:
        self._sums: dict[tuple[str, str], list[float]] = {}
        for name, layer in layers.items():
            value = values[name]
            if value is None:
                continue
            value = value.detach().double().cpu()
            transposed, groups = getattr(layer, "transposed", False), getattr(layer, "groups", 1)
            if transposed:
                value = value.transpose(0, 1)
            self._sums[name, "out"] = value.flatten(1).sum(1).tolist()
            # Inputs of a grouped convolution are numbered across its groups.
            parts = [part.transpose(0, 1).flatten(1).sum(1) for part in value.chunk(groups)]
            self._sums[name, "in"] = torch.cat(parts).tolist()

    def of(self, slot: tuple[str, str, int]) -> float:
        """The sum for one channel; 0 for what has no weights, or none per channel."""
        layer, axis, index = slot
        sums = self._sums.get((layer, axis), [])
        return sums[index] if index < len(sums) else 0.0


def _positions(model: nn.Module, example: Tensor, layers: Mapping[str, _Layer]) -> dict[str, int]:
    """At how many places each layer applies its weights to one example."""
    found: dict[str, int] = dict.fromkeys(layers, 0)

    def hook(name: str, channels: int) -> object:
        def seen(module: nn.Module, inputs: object, output: Tensor) -> None:
            found[name] += output.numel() // channels

        return layers[name].register_forward_hook(seen)

    handles = [
        hook(name, layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)
        for name, layer in layers.items()
    ]
    try:
        with restored(model), torch.no_grad():
            model.eval()(example)
    finally:
        for handle in handles:
            handle.remove()  # type: ignore[attr-defined]
    return found
