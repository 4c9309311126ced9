"""Which layers of several models could use one copy of the weights.

    for group in groups({"cars": build("resnet18"), "people": build("resnet50")}):
        print(group.signature, len(group.instances), group.saving)

The k-th layer of a signature in one model pairs with the k-th in every other (Padmanabhan et al., "Gemel", NSDI 2023).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import nn

from edgeward.errors import PlanError
from edgeward.merge.signature import Signature, layers

__all__ = ["Group", "Instance", "groups"]


@dataclass(frozen=True, order=True)
class Instance:
    """A layer of a model, by its path."""

    model: str
    layer: str


@dataclass(frozen=True)
class Group:
    """Layers of one signature, at most one of each model, that could use one copy."""

    signature: Signature
    instances: tuple[Instance, ...]

    def __post_init__(self) -> None:
        if len(self.models) < len(self.instances) or not self.instances:
            raise PlanError(f"a group of {self.signature} names a model twice or none; give one layer of each model")

    @property
    def models(self) -> frozenset[str]:
        """Names of the models that take part."""
        return frozenset(one.model for one in self.instances)

    @property
    def bytes(self) -> int:
        """Bytes of one copy."""
        return self.signature.bytes

    @property
    def saving(self) -> int:
        """Bytes saved when all use one copy."""
        return self.bytes * (len(self.instances) - 1)

    def of(self, instances: Iterable[Instance]) -> Group:
        """The same with those layers only, in the group's order."""
        wanted = set(instances)
        return Group(self.signature, tuple(one for one in self.instances if one in wanted))

    def __str__(self) -> str:
        return f"{self.signature} x{len(self.instances)}"


def groups(models: Mapping[str, nn.Module], *, private_bias: bool = False) -> tuple[Group, ...]:
    """Everything that at least two models have in common, what saves most first.

    private_bias: share weights only; see `layers`.
    """
    found: dict[tuple[Signature, int], list[Instance]] = defaultdict(list)
    for name, module in models.items():
        seen: dict[Signature, int] = defaultdict(int)
        for path, signature in layers(module, private_bias=private_bias).items():
            found[signature, seen[signature]].append(Instance(name, path))
            seen[signature] += 1
    made = [(Group(signature, tuple(all_of)), k) for (signature, k), all_of in found.items() if len(all_of) > 1]
    return tuple(group for group, _ in sorted(made, key=lambda one: (-one[0].saving, str(one[0].signature), one[1])))
