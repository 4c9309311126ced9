"""One storage for the weights of several layers, and the way back.

    before = take(models)
    tie(models, group, source=group.instances[0])
    check_tied(models, Sharing((group,)))
    before.restore()                          # bit for bit, batch-norm statistics included

Tied layers hold the same `nn.Parameter`: make an optimiser after tying, and give it each parameter once (`parameters`).
Copying one model, moving it elsewhere or `load_state_dict(..., assign=True)` breaks a tie; `check_tied` finds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn

from edgeward.errors import PlanError
from edgeward.merge.deltas import deltas, remove_delta
from edgeward.merge.groups import Group, Instance
from edgeward.merge.sharing import Sharing

__all__ = ["Snapshot", "blend", "check_tied", "parameters", "take", "tie", "tied", "unique_bytes", "untie"]

Models = Mapping[str, nn.Module]

_ALIKE = 0.5


def tie(models: Models, group: Group, source: Instance) -> None:
    """Let every layer of the group use the weights of `source`, which is one of them.

    Raises PlanError when a layer is not of the group's form or lies on another device.
    """
    if source not in group.instances:
        raise PlanError(f"{source} is not in the group of {group}; choose one of its layers")
    given = _layer(models, source, group)
    for one in group.instances:
        layer = _layer(models, one, group)
        if layer.weight.device != given.weight.device:
            raise PlanError(f"{one.model} is on {layer.weight.device}, {source.model} on {given.weight.device}")
        for name in group.signature.tensors:
            setattr(layer, name, getattr(given, name))


def blend(models: Models, group: Group, source: Instance) -> bool:
    """Set the weights of `source` to the mean over the group, if these point the same way; whether they did.

    Networks that were trained from one ancestor lie in one basin, and their mean is as good a network (Wortsman et al.,
    "Model soups", ICML 2022); the mean of networks that were not is of no use. Same way: cosines of 0.5 on average.
    """
    rows = torch.stack([_layer(models, one, group).weight.detach().flatten() for one in group.instances])
    units = rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-12)
    count = len(rows)
    if count < 2 or (float(units.sum(0).square().sum()) - count) / (count * (count - 1)) < _ALIKE:
        return False
    given = _layer(models, source, group)
    with torch.no_grad():
        for name in group.signature.tensors:
            values = [getattr(_layer(models, one, group), name) for one in group.instances]
            getattr(given, name).copy_(torch.stack(values).mean(0))
    return True


def untie(models: Models, group: Group) -> None:
    """Give every layer of the group a copy of its own again, of equal value."""
    for one in group.instances:
        layer = _layer(models, one, group)
        for name in group.signature.tensors:
            shared = getattr(layer, name)
            setattr(layer, name, nn.Parameter(shared.detach().clone(), shared.requires_grad))


def tied(models: Models, group: Group) -> bool:
    """Whether all layers of the group use the same memory."""
    return all(
        len({getattr(_layer(models, one, group), name).data_ptr() for one in group.instances}) == 1
        for name in group.signature.tensors
    )


def check_tied(models: Models, sharing: Sharing) -> None:
    """Raise PlanError when a group of `sharing` is not one copy any more."""
    for group in sharing.groups:
        if not tied(models, group):
            names = ", ".join(sorted(group.models))
            raise PlanError(f"{group.signature} is no longer one copy for {names}; tie again after copying or moving")


def parameters(models: Iterable[nn.Module]) -> list[nn.Parameter]:
    """Parameters that require a gradient, each once: an optimiser steps twice on what it is given twice."""
    return list({id(one): one for module in models for one in module.parameters() if one.requires_grad}.values())


def unique_bytes(modules: Iterable[nn.Module]) -> int:
    """Bytes of all parameters of the models, what lies at one place counted once; as it is, not as planned."""
    return sum({one.data_ptr(): one.nbytes for module in modules for one in module.parameters()}.values())


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What models were: values of every parameter and buffer, which were shared, and which layers had corrections."""

    models: Models
    corrected: Mapping[str, Mapping[str, int]]
    tensors: Mapping[str, Mapping[str, Tensor]]
    values: Mapping[int, Tensor]

    def restore(self) -> None:
        """Make the models what they were."""
        with torch.no_grad():
            for name, module in self.models.items():
                for path in deltas(module).keys() - self.corrected[name].keys():
                    remove_delta(module, path)
                for path, tensor in self.tensors[name].items():
                    owner, _, last = path.rpartition(".")
                    setattr(module.get_submodule(owner), last, tensor)
                    tensor.copy_(self.values[id(tensor)])


def take(models: Models) -> Snapshot:
    """Remember the models: one copy of every tensor."""
    tensors: dict[str, dict[str, Tensor]] = {
        name: dict(chain(module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False)))
        for name, module in models.items()
    }
    values = {id(one): one.detach().clone() for state in tensors.values() for one in state.values()}
    return Snapshot(
        dict(models),
        {name: deltas(module) for name, module in models.items()},
        tensors,
        values,
    )


def _layer(models: Models, one: Instance, group: Group) -> nn.Conv2d | nn.Linear:
    """A layer of the group, checked."""
    if one.model not in models:
        raise PlanError(f"no model {one.model!r}; known: {', '.join(sorted(models))}")
    try:
        layer = models[one.model].get_submodule(one.layer)
    except AttributeError as error:
        raise PlanError(f"{one.model} has no layer {one.layer!r}") from error
    form = group.signature
    shape = (form.outputs, form.inputs // form.groups, *form.kernel)
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, nn.Parameter) or weight.shape != shape:
        raise PlanError(f"{one.layer} of {one.model} is no {form}; make the groups from these models")
    return layer  # type: ignore[return-value]
