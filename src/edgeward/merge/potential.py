"""How much memory sharing could save at most, before any training.

    potential({"a": build("resnet50", 5), "b": build("resnet101", 3)}).share          # 0.36
    power_law(build("vgg16")).heaviest                                                # 0.74

Padmanabhan et al., "Gemel", NSDI 2023: everything of equal signature shared; most bytes lie in few layers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

from torch import nn

from edgeward.errors import ModelError
from edgeward.merge.signature import Signature, layers

__all__ = ["Potential", "PowerLaw", "potential", "power_law"]


@dataclass(frozen=True)
class Potential:
    """bytes_total: of all parameters of all models; bytes_layers: of those that could be shared at all;
    bytes_saved: what sharing everything would save."""

    bytes_total: int
    bytes_layers: int
    bytes_saved: int

    @property
    def share(self) -> float:
        """Of all parameters, 0 to 1."""
        return self.bytes_saved / self.bytes_total if self.bytes_total else 0.0

    @property
    def share_of_layers(self) -> float:
        """Of the parameters of convolutions and linear layers, 0 to 1."""
        return self.bytes_saved / self.bytes_layers if self.bytes_layers else 0.0


@dataclass(frozen=True)
class PowerLaw:
    """How a model's bytes are spread over its layers.

    heaviest, top: shares of the heaviest layer and of the heaviest 15 % of layers. needed60, needed80: layers that
    hold 60 % and 80 % of the bytes.
    """

    layers: int
    bytes: int
    heaviest: float
    top: float
    needed60: int
    needed80: int


def potential(models: Mapping[str, nn.Module], *, private_bias: bool = False) -> Potential:
    """For each signature, all its layers but those of the model that has most of them could be saved."""
    counts = [Counter(layers(module, private_bias=private_bias).values()) for module in models.values()]
    total: Counter[Signature] = sum(counts, Counter())
    most: Counter[Signature] = Counter()
    for count in counts:
        most |= count
    return Potential(
        sum(one.nbytes for module in models.values() for one in module.parameters()),
        sum(_bytes(module) for module in models.values()),
        sum(one.bytes * (number - most[one]) for one, number in total.items()),
    )


def power_law(module: nn.Module) -> PowerLaw:
    """The spread over convolutions and linear layers. Raises ModelError for a model that has none."""
    sizes = sorted((one.bytes for one in layers(module).values()), reverse=True)
    if not sizes:
        raise ModelError("the model has no convolution or linear layer, so there is nothing to share")
    held = [one / sum(sizes) for one in accumulate(sizes)]
    needed60, needed80 = (sum(one < share for one in held) + 1 for share in (0.6, 0.8))
    return PowerLaw(len(sizes), sum(sizes), held[0], held[math.ceil(0.15 * len(sizes)) - 1], needed60, needed80)


def _bytes(module: nn.Module) -> int:
    """Of weights and biases, also of those that stay private."""
    return sum(one.bytes for one in layers(module).values())
