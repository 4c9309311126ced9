"""The channels of a network in groups that can be made narrower: what goes together, and what must stay.

    channels = Channels.of(model, torch.zeros(1, 3, 224, 224))
    for group in channels.groups:
        print(group.name, group.size, "fixed: " + group.fixed if group.fixed else "")

A group is all layers whose channels are bound to each other (by residual additions, depthwise convolutions, heads);
a unit is what goes at once when one channel goes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor, nn

from edgeward.errors import PruneError, nearest
from edgeward.prune.coupling import couple
from edgeward.prune.cutting import repeats, without
from edgeward.prune.heads import Attention, attentions
from edgeward.prune.units import Slot

__all__ = ["Channels", "Group"]


@dataclass(frozen=True)
class Group:
    """Channels that are pruned together.

    name: the first layer that produces them. units: per unit its slots, (layer, "out", "in" or "heads", index).
    fixed: why none of the group may be removed, or "".
    """

    name: str
    units: tuple[tuple[Slot, ...], ...]
    fixed: str = ""

    @property
    def size(self) -> int:
        """How many units there are."""
        return len(self.units)

    @property
    def prunable(self) -> bool:
        """Whether units may be removed, as long as every layer keeps some."""
        return not self.fixed

    @cached_property
    def kinds(self) -> tuple[tuple[int, ...], ...]:
        """Units by the layers they lie in: where a stream of channels grows, later ones are in fewer layers."""
        kinds: dict[frozenset[tuple[str, str]], list[int]] = defaultdict(list)
        for number, unit in enumerate(self.units):
            kinds[frozenset(slot[:2] for slot in unit)].append(number)
        return tuple(tuple(numbers) for numbers in kinds.values())

    def channels(self, units: Iterable[int]) -> dict[str, list[int]]:
        """Units as `remove` takes them: output channels by layer."""
        named: dict[str, list[int]] = defaultdict(list)
        for unit in units:
            layer, _, index = next(slot for slot in self.units[unit] if slot[1] != "in")
            named[layer].append(index)
        return dict(named)

    def normalised(self, model: nn.Module) -> bool:
        """Whether layer or group norms see these channels together, so that one less changes the others."""
        modules = dict(model.named_modules())
        return any(isinstance(modules.get(layer), nn.LayerNorm | nn.GroupNorm) for layer in self.producers)

    @cached_property
    def producers(self) -> tuple[str, ...]:
        """Layers whose outputs these are, in the network's order."""
        return tuple(dict.fromkeys(layer for unit in self.units for layer, axis, _ in unit if axis != "in"))

    @cached_property
    def consumers(self) -> tuple[str, ...]:
        """Layers that read them."""
        return tuple(dict.fromkeys(layer for unit in self.units for layer, axis, _ in unit if axis == "in"))


@dataclass(frozen=True)
class Channels:
    """All groups of a network, in the order of their first layers."""

    groups: tuple[Group, ...]

    @classmethod
    def of(cls, model: nn.Module, example: Tensor) -> Channels:
        """The groups of `model`, with one input to run it on.

        A third of all units is removed on trial: groups where that changes what the rest computes stay fixed. Raises
        PruneError when the model cannot be traced.
        """
        found = attentions(model, example)
        channels = _grouped(model, example, found)
        wrong = _wrong(model, example, channels.groups)
        turned = tuple(replace(one, interleaved=one.path in wrong and len(one.parts) == 1) for one in found)
        if turned != found:  # each head's query, key and value may lie together
            channels = _grouped(model, example, turned)
            wrong = _wrong(model, example, channels.groups)
        reason = "the model's own code relies on its size"
        return cls(tuple(replace(one, fixed=reason) if one.name in wrong else one for one in channels.groups))

    @cached_property
    def _places(self) -> Mapping[str, tuple[Group, Mapping[int, int]]]:
        found: dict[str, tuple[Group, dict[int, int]]] = {}
        for group in self.groups:
            for number, unit in enumerate(group.units):
                for layer, axis, index in unit:
                    if axis != "in":
                        found.setdefault(layer, (group, {}))[1][index] = number
        return found

    def group_of(self, layer: str) -> Group:
        """The group that a layer's outputs belong to. Raises PruneError when there is no such layer."""
        return self._place(layer)[0]

    def units_of(self, layer: str, outputs: Sequence[int]) -> tuple[Group, tuple[int, ...]]:
        """The group of a layer, and the units in it that hold these output channels of the layer.

        Raises PruneError when there is no such layer or channel.
        """
        group, places = self._place(layer)
        for index in outputs:
            if index not in places:
                raise PruneError(f"{layer} has no output channel {index}; its channels are 0 to {max(places)}")
        return group, tuple(sorted({places[index] for index in outputs}))

    def _place(self, layer: str) -> tuple[Group, Mapping[int, int]]:
        if layer not in self._places:
            raise PruneError(f"no layer {layer!r} with channels to remove; {nearest(layer, self._places)}")
        return self._places[layer]


def _grouped(model: nn.Module, example: Tensor, found: Sequence[Attention]) -> Channels:
    """The units of the graph and those of attention; units that share a layer share a group."""
    coupling = couple(model, example, frozenset(part for one in found for part in one.parts))
    for attention in found:
        for head in range(attention.count):
            start, *others = attention.slots(head)
            for slot in others:
                coupling.join(start, slot)
            if attention.trouble:
                coupling.fix(start, attention.trouble)
    order = {name: place for place, (name, _) in enumerate(model.named_modules())}
    through = frozenset(name for name, module in model.named_modules() if _passes(module))

    def place(layer: str) -> tuple[int, str]:
        return order.get(layer, len(order)), layer

    units, fixed = coupling.units()
    parts = _partition([sorted(_sources(unit, through), key=place) for unit in units], place)
    return Channels(
        tuple(
            Group(
                name,
                tuple(tuple(units[number]) for number in parts[name]),
                next((fixed[number] for number in parts[name] if number in fixed), ""),
            )
            for name in sorted(parts, key=place)
        )
    )


def _partition(sources: Sequence[Sequence[str]], place: Callable[[str], tuple[int, str]]) -> dict[str, list[int]]:
    """Numbers of units, given the layers that make each: together when they share a layer, by the first layer."""
    above: dict[str, str] = {}

    def root(layer: str) -> str:
        while above.setdefault(layer, layer) != layer:
            layer = above[layer]
        return layer

    for layers in sources:
        for other in layers[1:]:
            first, second = sorted((root(layers[0]), root(other)), key=place)
            above[second] = first
    parts: dict[str, list[int]] = defaultdict(list)
    for number, layers in enumerate(sources):
        if layers:
            parts[root(layers[0])].append(number)
    return parts


def _sources(unit: Sequence[Slot], through: frozenset[str]) -> set[str]:
    """Layers that make a unit's values; those that only pass them on, such as norms, if there is no other."""
    layers = {layer for layer, axis, _ in unit if axis != "in"}
    return layers - through or layers


def _passes(module: nn.Module) -> bool:
    if isinstance(module, nn.modules.conv._ConvNd):
        return module.groups == module.in_channels > 1
    return not isinstance(module, nn.Linear | nn.Embedding) and not list(module.children())


def _wrong(model: nn.Module, example: Tensor, groups: Sequence[Group]) -> set[str]:
    """Names of the groups from which units cannot be taken without changing what the rest computes."""
    open_groups = [group for group in groups if group.prunable and group.size > 1]
    if _holds(model, example, [one for one in open_groups if not one.normalised(model)]) and _holds(
        model, example, [one for one in open_groups if one.normalised(model)]
    ):
        return set()
    return {group.name for group in open_groups if not _holds(model, example, [group])}


def _holds(model: nn.Module, example: Tensor, groups: Sequence[Group]) -> bool:
    slots = [slot for group in groups for slot in _sample(group)]
    return not slots or repeats(model, without(model, slots), slots, example)


def _sample(group: Group) -> Iterator[Slot]:
    """About a third of a group, spread over it, such that no layer loses all it has."""
    left = Counter((layer, axis) for unit in group.units for layer, axis, _ in unit)
    for unit in group.units[1::3] if group.size > 1 else ():
        needed = Counter((layer, axis) for layer, axis, _ in unit)
        if all(count < left[side] for side, count in needed.items()):
            left.subtract(needed)
            yield from unit
