"""Narrower networks by the importance of their channels: which units go first, and how many of each group.

    ranking = rank(model, example, Channels.of(model, example), parse_criterion("magnitude").score(model, []))
    smaller = narrow(model, example, ranking, 0.5)             # without the half of the units that matters least
    smaller.module, smaller.edits

A unit's importance is the sum of its weights' scores, wherever it is produced or read (Fang et al., CVPR 2023, section
3.3, sum over a group). How many units a group loses is the allocation: "uniform" takes the same share everywhere,
"lean" more where a parameter is applied more often, so that fewer multiply-accumulates are left at equal parameters,
and "global" compares importance per cost between groups.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
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

ALLOCATIONS = ("lean", "uniform", "global")
_LEANING = 0.2
"""Power of the multiply-accumulates per parameter of a group in what it loses."""
_Layer = nn.Linear | nn.modules.conv._ConvNd


@dataclass(frozen=True, eq=False)
class Ranking:
    """Units of every group that can be narrowed, float64 [units] by group name.

    importance: what removing a unit loses. parameters, macs: its share of all parameters and of all
    multiply-accumulates, counted at the layers that produce and that read it.
    """

    groups: tuple[Group, ...]
    importance: Mapping[str, Tensor]
    parameters: Mapping[str, Tensor]
    macs: Mapping[str, Tensor]

    def worth(self, name: str) -> Tensor:
        """Importance per cost (the mean of both shares), by which units of different groups compare."""
        return self.importance[name] / ((self.parameters[name] + self.macs[name]) / 2).clamp_min(1e-30)

    def intensity(self, name: str) -> float:
        """How often a parameter of the group is applied, against the network's mean."""
        return float(self.macs[name].sum() / self.parameters[name].sum().clamp_min(1e-30))


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
    found: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
    for group in groups:
        counts = [[(counted.of(slot), positions.get(slot[0], 0)) for slot in unit] for unit in group.units]
        values = _tensor(math.fsum(scored.of(slot) for slot in unit) for unit in group.units)
        parameters = _tensor(sum(count for count, _ in unit) / all_parameters for unit in counts)
        macs = _tensor(sum(count * times for count, times in unit) / all_macs for unit in counts)
        if relative:  # a mean of 1 says nothing of groups: let them be worth what they cost
            values = values / values.mean().clamp_min(1e-30) * (parameters + macs).mean() / 2
        found[group.name] = (values, parameters, macs)
    columns = ({name: row[column] for name, row in found.items()} for column in range(3))
    return Ranking(groups, *columns)


def _tensor(values: Iterable[float]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float64)


def widths_at(
    ranking: Ranking, share: float, allocation: str = "lean", *, multiple: int = 8, most: float = 0.95
) -> dict[str, int]:
    """Units that each group keeps when this share of all units goes; no group loses more than `most` of its own.

    multiple: what kept widths are rounded to where they are large. Raises PruneError for a share outside [0, 1).
    """
    if not 0 <= share < 1:
        raise PruneError(f"share {share} of the channels is out of range; choose from 0 to below 1")
    if allocation not in ALLOCATIONS:
        raise PruneError(f"allocation {allocation!r} is unknown; choose one of {', '.join(ALLOCATIONS)}")
    floors = {group.name: max(1, round((1 - most) * group.size)) for group in ranking.groups}
    if allocation == "global":
        worth = torch.cat([ranking.worth(group.name) for group in ranking.groups])
        owner = torch.cat([torch.full((group.size,), index) for index, group in enumerate(ranking.groups)])
        gone = owner[torch.argsort(worth, stable=True)[: round(share * len(worth))]]
        lost = torch.bincount(gone, minlength=len(ranking.groups)).tolist()
        kept = {group.name: float(group.size - lost[index]) for index, group in enumerate(ranking.groups)}
    else:
        power = _LEANING if allocation == "lean" else 0.0
        weights = {one.name: ranking.intensity(one.name) ** power for one in ranking.groups}
        # Between linear layers and convolutions intensities differ a thousandfold: nothing is to lose so much more.
        kept = {one.name: one.size * (1 - share) ** min(max(weights[one.name], 1 / 2), 2) for one in ranking.groups}
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
