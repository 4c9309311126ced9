"""A smaller network described against the dense one it was cut from: sizes as JSON, never code.

smaller = edited(build("resnet50"), edits)                 # the structure; weights come from a file
recipe = {"pruned": {"base": {"reference": "resnet50"}, "edits": edits.to_json()}}
network_of_recipe(recipe)                                  # the same structure, in any process, on any host
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from edgeward.errors import ModelError, nearest
from edgeward.zoo.attention import SlimAttention

__all__ = ["Edits", "edit", "edited"]

Numbers = tuple[int, ...]
_LARGEST_RANK = 8


@dataclass(frozen=True)
class Edits:
    """What differs from the dense network.

    tensors: new shapes by the name of a parameter or buffer; a bias may be named that the dense layer lacks.
    attributes: whole numbers of modules, or tuples of them, by "path.of.module.attribute".
    identities: modules that became nn.Identity.
    kept: by layer (or parameter), which of the dense network's output channels are left, in order. It says where
    each channel comes from, and is not needed to rebuild.
    """

    tensors: Mapping[str, Numbers] = field(default_factory=dict)
    attributes: Mapping[str, int | Numbers] = field(default_factory=dict)
    identities: tuple[str, ...] = ()
    kept: Mapping[str, Numbers] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, shape in self.tensors.items():
            if not 1 <= len(shape) <= _LARGEST_RANK or not all(_whole(side, least=1) for side in shape):
                raise ModelError(f"edits give {name} the shape {list(shape)}; sides are whole numbers of at least 1")
        for name, value in self.attributes.items():
            if not all(_whole(one) for one in _flat(value)):
                raise ModelError(f"edits set {name} to {value!r}; sizes are whole numbers of at least 0")
        for name, indices in self.kept.items():
            if not indices or not all(_whole(one) for one in indices) or len({*indices}) < len(indices):
                raise ModelError(f"edits keep channels {list(indices)[:8]} of {name}; name each of them once")
        for group in ("tensors", "attributes", "kept"):
            object.__setattr__(self, group, MappingProxyType(dict(getattr(self, group))))

    def then(self, later: Edits) -> Edits:
        """Both, one after the other: `later` describes a network against the one that these edits gave."""
        both = {name: tuple(self.kept[name][i] for i in later.kept[name]) for name in self.kept if name in later.kept}
        gone = tuple(f"{name}." for name in later.identities)

        def left(part: Mapping[str, Any]) -> dict[str, Any]:
            return {name: value for name, value in part.items() if not f"{name}.".startswith(gone)}

        return Edits(
            left({**self.tensors, **later.tensors}),
            left({**self.attributes, **later.attributes}),
            (*self.identities, *later.identities),
            left({**self.kept, **later.kept, **both}),
        )

    def to_json(self) -> dict[str, Any]:
        """As plain dicts, lists and numbers."""
        return {
            "tensors": {name: list(shape) for name, shape in self.tensors.items()},
            "attributes": {name: list(v) if isinstance(v, tuple) else v for name, v in self.attributes.items()},
            "identities": list(self.identities),
            "kept": {name: list(indices) for name, indices in self.kept.items()},
        }

    @classmethod
    def of_json(cls, record: Any) -> Edits:
        """Of what `to_json` gave. Raises ModelError when it is malformed."""
        try:
            return cls(
                {str(name): tuple(shape) for name, shape in record["tensors"].items()},
                {str(name): tuple(v) if isinstance(v, list) else v for name, v in record["attributes"].items()},
                tuple(str(name) for name in record["identities"]),
                {str(name): tuple(indices) for name, indices in record.get("kept", {}).items()},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"the edits of a pruned network are malformed: {error!r}") from error


def edited(module: nn.Module, edits: Edits, values: Mapping[str, Tensor] | None = None) -> nn.Module:
    """A smaller copy of the dense `module`; see `edit`.

    values: what tensors of the copy hold, by name; what they replace is never copied.
    """
    own: dict[str, Tensor] = {**dict(module.named_parameters(remove_duplicate=False)), **dict(module.named_buffers())}
    memo: dict[int, Any] = {}
    for name, value in (values or {}).items():
        dense = own[name]
        memo[id(dense)] = nn.Parameter(value, dense.requires_grad) if isinstance(dense, nn.Parameter) else value
    return edit(copy.deepcopy(module, memo), edits)


def edit(module: nn.Module, edits: Edits) -> nn.Module:
    """The dense `module` itself, made smaller; every tensor keeps its leading part until its weights are loaded.

    Raises ModelError when the edits name what the module has not, or would make anything larger.
    """
    modules = dict(module.named_modules())
    for path, value in edits.attributes.items():
        _set_size(*_owner(modules, path), path, value)
    resized: dict[int, nn.Parameter] = {}
    for path, shape in edits.tensors.items():
        _resize(*_owner(modules, path), path, shape, resized)
    for path in edits.identities:
        parent, name = _owner(modules, path)
        if name not in parent._modules:
            raise ModelError(f"the network has no module {path!r} to leave out")
        setattr(parent, name, nn.Identity())
    for path, part in modules.items():
        if type(part) is nn.MultiheadAttention and f"{path}.num_heads" in edits.attributes:
            parent, name = _owner(modules, path)
            setattr(parent, name, SlimAttention(part))
    return module


def _owner(modules: Mapping[str, nn.Module], path: str) -> tuple[nn.Module, str]:
    name, _, last = path.rpartition(".")
    if name not in modules:
        raise ModelError(f"the network has no module {name!r} ({nearest(name, modules)}); the edits are another's")
    return modules[name], last


def _set_size(module: nn.Module, name: str, path: str, value: int | Numbers) -> None:
    # Only what the module itself holds: nothing of its class, and no tensors or children.
    dense = vars(module).get(name)
    if isinstance(dense, torch.Size | list):
        dense = tuple(dense)
    sizes, limits = _flat(value), _flat(dense)
    if (
        name.startswith("_")
        or not all(_whole(one) for one in limits)
        or isinstance(dense, tuple) != isinstance(value, tuple)
    ):
        raise ModelError(f"{path} is {dense!r} in the dense network; edits change whole numbers only")
    if len(sizes) != len(limits) or any(new > old for new, old in zip(sizes, limits, strict=True)):
        raise ModelError(f"edits set {path} to {value!r}; the dense network has {dense!r}, and edits never enlarge it")
    setattr(module, name, value)


def _resize(module: nn.Module, name: str, path: str, shape: Numbers, resized: dict[int, nn.Parameter]) -> None:
    bare = isinstance(module, nn.modules.conv._ConvNd | nn.Linear) and module._parameters.get(name, module) is None
    if bare and name == "bias":
        outputs = module.out_features if isinstance(module, nn.Linear) else module.out_channels
        if shape != (outputs,):
            raise ModelError(f"edits give {path} the shape {list(shape)}; the layer has {outputs} outputs")
        weight = module._parameters["weight"]
        assert weight is not None
        module.bias = nn.Parameter(weight.detach().new_zeros(shape))
        return
    dense = module._parameters.get(name, module._buffers.get(name))
    if not isinstance(dense, Tensor):
        raise ModelError(f"the network has no tensor {path!r}; the edits are another network's")
    if len(shape) != dense.dim() or any(new > old for new, old in zip(shape, dense.shape, strict=True)):
        raise ModelError(f"edits give {path} the shape {list(shape)}, which {list(dense.shape)} does not contain")
    if dense.shape == shape:
        return
    part = dense.detach()[tuple(slice(side) for side in shape)].clone()
    if isinstance(dense, nn.Parameter):  # tied tensors stay tied
        part = resized.setdefault(id(dense), nn.Parameter(part, dense.requires_grad))
        module._parameters[name] = part
    else:
        module._buffers[name] = part


def _whole(value: object, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _flat(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)
