"""A network without given slots: tensors sliced, sizes changed, and the trial that shows it was done rightly.

removed = without(model, {("conv1", "out", 3), ("norm1", "out", 3), ("conv2", "in", 3)})
repeats(model, removed, gone, example)          # conv2's weights for channel 3 set to 0 in the dense network
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from edgeward.graph.trace import restored
from edgeward.prune.slices import slice_of
from edgeward.prune.units import Axis, Slot
from edgeward.zoo.pruned import Edits, edited

__all__ = ["Removed", "parameters_without", "repeats", "without"]

_TOLERANCE = 1e-3  # of the largest output; a channel taken from the wrong place changes much more


@dataclass(frozen=True)
class Removed:
    """The smaller network, and how it differs from the one it was made of."""

    module: nn.Module
    edits: Edits


def without(model: nn.Module, slots: Iterable[Slot]) -> Removed:
    """A copy of `model` without these slots, which must be whole units. Raises PruneError when a layer would vanish."""
    slices = {layer: slice_of(model, layer, axes) for layer, axes in _by_layer(slots).items()}
    tensors = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}
    values: dict[str, Tensor] = {}
    for one in slices.values():
        for name, kept in one.tensors.items():
            value = values.get(name, tensors[name].detach())
            for dim, indices in kept.items():
                if len(indices) < value.shape[dim]:
                    value = value.index_select(dim, torch.tensor(indices, device=value.device))
            if value.shape != tensors[name].shape:
                values[name] = value
    edits = Edits(
        {name: tuple(value.shape) for name, value in values.items()},
        {name: value for one in slices.values() for name, value in one.attributes.items()},
        (),
        {layer: one.kept for layer, one in slices.items() if one.kept},
    )
    return Removed(edited(model, edits, values), edits)


def parameters_without(model: nn.Module, slots: Iterable[Slot]) -> int:
    """How many parameters `without` would leave; nothing is copied. Raises PruneError as it does."""
    own = dict(model.named_parameters())
    sizes = {name: list(parameter.shape) for name, parameter in own.items()}
    for layer, axes in _by_layer(slots).items():
        for name, kept in slice_of(model, layer, axes).tensors.items():
            for dim, indices in kept.items() if name in sizes else ():
                sizes[name][dim] = len(indices)
    return sum(math.prod(shape) for shape in sizes.values())


def repeats(model: nn.Module, removed: Removed, slots: Iterable[Slot], example: Tensor) -> bool:
    """Whether the smaller network gives what the dense one gives once nothing reads the removed channels.

    Where removed channels are normalised together with others (layer and group norms) the outputs differ by nature;
    then only their shapes are compared.
    """
    readers: dict[str, set[int]] = defaultdict(set)
    modules = dict(model.named_modules())
    exact = True
    for layer, axis, index in slots:
        if axis == "in":
            readers[layer].add(index)
        elif axis == "out" and isinstance(modules.get(layer), nn.LayerNorm | nn.GroupNorm):
            exact = False
    with restored(model), restored(removed.module), torch.no_grad():
        try:
            ours = removed.module.eval()(example)
        except (RuntimeError, ValueError, IndexError, AssertionError):  # a size that the model's own code states
            return False
        dense = functional_call(model.eval(), _unread(modules, readers), (example,), tie_weights=False)
    pairs = list(zip(pytree.tree_leaves(ours), pytree.tree_leaves(dense), strict=True))
    return all(_close(a, b, exact) for a, b in pairs if isinstance(a, Tensor) and isinstance(b, Tensor))


def _by_layer(slots: Iterable[Slot]) -> dict[str, dict[Axis, set[int]]]:
    gone: dict[str, dict[Axis, set[int]]] = defaultdict(lambda: defaultdict(set))
    for layer, axis, index in slots:
        gone[layer][axis].add(index)
    return dict(sorted(gone.items(), key=lambda item: "heads" not in item[1]))  # errors name heads before their layers


def _unread(modules: Mapping[str, nn.Module], readers: Mapping[str, set[int]]) -> dict[str, Tensor]:
    """The weights of these layers with zeros where they read these inputs."""
    weights = {}
    for layer, indices in readers.items():
        module = modules[layer]
        name = "in_proj_weight" if isinstance(module, nn.MultiheadAttention) else "weight"
        weight = getattr(module, name).detach().clone()
        if isinstance(module, nn.modules.conv._ConvNd) and module.groups > 1:
            inputs, outputs = module.in_channels // module.groups, module.out_channels // module.groups
            for index in indices:
                group, place = divmod(index, inputs)
                weight[group * outputs : (group + 1) * outputs, place] = 0
        else:
            dim = 0 if getattr(module, "transposed", False) else 1
            weight.index_fill_(dim, torch.tensor(sorted(indices), device=weight.device), 0)
        weights[f"{layer}.{name}"] = weight
    return weights


def _close(ours: Tensor, dense: Tensor, exact: bool) -> bool:
    if ours.shape != dense.shape:
        return False
    if not exact or not dense.is_floating_point():
        return True
    scale = float(dense.abs().max()) if dense.numel() else 0.0
    return not math.isfinite(scale) or float((ours - dense).abs().max()) <= _TOLERANCE * max(scale, 1e-6)
